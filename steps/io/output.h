/*
 * A file being written: under a name of its own until it is complete (`PATH.OPENING.tmp`, outside of the run directory
 * `PATH.rRUN.OPENING.tmp`: no other process has it, neither another run that writes the same path, nor one that slept while the run
 * went on elsewhere), compressed by its extension (.gz, .zst) in pieces of fixed size: the bytes do not depend on when it was
 * synced.
 */
#ifndef STM_STEPS_IO_OUTPUT_H
#define STM_STEPS_IO_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stepmill/step.h"

MILL_BEGIN_DECLS

typedef struct stm_output stm_output;

/** Where to go on in a file; plain bytes, part of a sink's cursor. All zero: at its beginning. */
typedef struct stm_output_place {
    uint64_t run, opening;         /* which run directory, which opening of it, had the file */
    uint64_t bytes;                /* in the file */
    uint32_t crc;                  /* CRC-32 of those */
    /* bytes that wait to be compressed lie at the beginning of a file beside it, one of two in turn */
    uint32_t tail, tail_crc, slot;
} stm_output_place;

/** A file that has its own name. */
typedef struct stm_output_made {
    uint64_t bytes;
    uint32_t crc; /* CRC-32 of them */
} stm_output_made;

/** Begin @p path (borrowed for the call); missing folders are made. @p r: whose run directory and opening it is; NULL = none.
 *  @p from: what was synced before is kept and written behind; NULL = afresh. The caller owns *out. Blocks: on the disk. */
mill_status stm_output_open(const mill_replica *r, const char *path, const stm_output_place *from, stm_output **out,
                            mill_error *err);
/** Name of the file in hand, unfinished as it is; it holds the bytes up to the place that was gone on from. Lives as long as the
 *  output. */
const char *stm_output_name(const stm_output *o);
/** Append. Plain bytes go to the file at once, so hand over large pieces. */
mill_status stm_output_write(stm_output *o, const void *bytes, size_t n, mill_error *err);
/** Make everything so far durable; *place = where to go on. Each place stays good until a later one was gone on from, or the output
 *  is complete. */
mill_status stm_output_sync(stm_output *o, stm_output_place *place, mill_error *err);
/** Complete: durable and under its own name. Closes it and sets *o to NULL, also on failure (then the unfinished file stays). */
mill_status stm_output_commit(stm_output **o, stm_output_made *made, mill_error *err);
/** The same for a part of @p rows rows of the sink @p r, which is told to the run. */
mill_status stm_output_complete(mill_replica *r, stm_output **o, int64_t rows, mill_error *err);
/** Close without completing; the unfinished file stays, to be resumed or looked at. Accepts NULL, sets *o to NULL. */
void stm_output_close(stm_output **o);
/** The output @p path is complete: whatever unfinished files of it or of its parts earlier openings of @p r's run left is
 *  removed. */
void stm_output_tidy(const mill_replica *r, const char *path);
/** Whether @p name ends with @p end. */
bool stm_name_ends(const char *name, const char *end);
/** Make the folders above @p path that are missing. */
mill_status stm_make_folders(const char *path, mill_error *err);

MILL_END_DECLS

#endif
