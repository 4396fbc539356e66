/*
 * What is there where a run is about to write: its run directory and the folders of its outputs. A run that could not load has done
 * nothing worth keeping; with this it takes away what it made, and leaves what was there before as it was.
 *
 *   create   nothing is made yet: which of the folders are there
 *   look     the directory is ours: which files are there, and what the run's own ones hold
 *   undo     files that are new and bear a name of the run's own or of an unfinished output go; a file that was renamed gets its
 *            name back, one that was replaced or grew its contents; folders that were not there go where they are empty
 *   write, read: where another process is to undo, should this one die first
 *   forget   rows flow: from here on undo does nothing
 *
 * Files of other names are nobody's that we know, and stay. Threads: one at a time, but for forget and undo, which may meet.
 */
#ifndef STM_STORE_FOOTPRINT_H
#define STM_STORE_FOOTPRINT_H

#include <stddef.h>
#include <stdint.h>

#include "stepmill/error.h"

typedef struct stm_footprint stm_footprint;

/** @p dir: the run directory; @p outputs: [n] files that sinks will write. Absolute; copied. */
mill_status stm_footprint_create(const char *dir, const char *const *outputs, size_t n, stm_footprint **out, mill_error *err);
/** After the directory was claimed for opening @p epoch, before anything else is written there. On failure undo takes away folders
 *  only. */
mill_status stm_footprint_look(stm_footprint *f, uint64_t epoch, mill_error *err);
void stm_footprint_forget(stm_footprint *f);
/** Once; while the directory is still claimed, and nobody writes there any more. */
void stm_footprint_undo(stm_footprint *f);
/** As bytes, for a process that outlives this one; @p room bytes at @p to. 0 = they do not fit, or the run directory was there:
 *  what the run's own files held is known to this process only. */
size_t stm_footprint_write(const stm_footprint *f, char *to, size_t room);
/** From those bytes; NULL: no memory, or they make no sense. */
stm_footprint *stm_footprint_read(const char *from, size_t n);
/** Sets *f to NULL, accepts NULL. */
void stm_footprint_destroy(stm_footprint **f);

#endif
