/*
 * manifest.json of a run directory: which files the outputs of a run consist of, so that who reads them knows what is there and
 * whether more comes; one line per file. It is replaced as a whole when an output begins or is complete, and otherwise when there
 * are twice as many files as it lists. Those between are lines of another file, which it names, so that a file costs the same
 * however many there are. A commit that counts on files that are complete comes after stm_manifest_sync: whoever goes on from it
 * finds them listed.
 *
 * Threads: any; calls lock it, and hold the lock while they write.
 */
#ifndef STM_STORE_MANIFEST_H
#define STM_STORE_MANIFEST_H

#include "core/text.h"
#include "stepmill/step.h"
#include "store/files.h"

typedef struct stm_manifest stm_manifest;

/** Read what is there; nothing, or what cannot be read, is an empty one. @p files, @p dir (absolute): of the run directory, must
 *  outlive it. @p epoch: the opening of the directory, by which what this process appends is told from what others do. */
mill_status stm_manifest_open(const stm_files *files, const char *dir, uint64_t epoch, stm_manifest **out, mill_error *err);
/** Sets *m to NULL, accepts NULL. What was appended goes into the list. */
void stm_manifest_close(stm_manifest **m);
/** What was written since the opening has been taken back: closing leaves the files as they are. */
void stm_manifest_forget(stm_manifest *m);
/** Whether a listed file of @p step's output is gone or has other contents: what is wrong with the first one is appended to @p why.
 *  Sizes are compared, and the CRC-32 of what was written to after the list was. Blocks: on the disk. */
bool stm_manifest_differs(stm_manifest *m, const char *step, stm_text *why);
/** Step @p step has an output; of others nothing is kept, so all are named before anything is written. @p fresh: it begins anew,
 *  which is written at once. */
mill_status stm_manifest_begin(stm_manifest *m, const char *step, bool fresh, mill_error *err);
/** A file of it is complete; one that was listed under that path is replaced. A part of no bytes with rows is one that was listed
 *  before: it is looked up, and read where it is not. Readers see it at once; it outlasts a power cut after stm_manifest_sync. */
mill_status stm_manifest_part(stm_manifest *m, const char *step, const mill_part *part, mill_error *err);
/** What was appended is on the disk. Blocks: on the disk, if something was. */
mill_status stm_manifest_sync(stm_manifest *m, mill_error *err);
/** A step reads the file or folder @p path (absolute): neither it nor what lies right in it is ever removed. */
mill_status stm_manifest_reads(stm_manifest *m, const char *path, mill_error *err);
/** The output is complete. Once all are, files that they had before go, unless one of them has the file now or a step reads it.
 *  Written at once. */
mill_status stm_manifest_complete(stm_manifest *m, const char *step, mill_error *err);

#endif
