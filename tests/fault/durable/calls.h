/* The calls into the system that a run makes, in front of those of the C library: any of them fails on demand, once. */
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "unit/store/disk.h"

namespace mt {

enum Call { kMalloc, kOpen, kRead, kWrite, kSync, kRename, kPipe, kFork, kCalls };
extern const char *const kCallNames[kCalls];

/** From now on the @p nth call (from 0) of kind @p which fails, once, counted over all threads. */
void fail_call(Call which, int64_t nth);
/** Writes go well for so many bytes, then the disk is full for good; the write that reaches the end is short. */
void fill_disk(int64_t bytes);
/** No call fails any more. Gives whether one has failed. */
bool calls_work_again();
/** Calls of that kind since the last fail_call or fill_disk; bytes written since. */
int64_t calls_made(Call which);
int64_t bytes_written();

/** From now on every change below the folder @p dir is noted: what is written, cut, synced, made, renamed, removed; files and
 *  folders by names from there. What was there before is not known. */
void note_changes(const std::string &dir);
/** So far. */
std::vector<Disk::Op> changes_noted();
void note_no_changes();

} // namespace mt
