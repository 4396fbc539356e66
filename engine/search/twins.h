/*
 * Rows on the host that are on devices, too: the twins of the columns that they lie in (memory/place.h). A search takes its rows
 * from there where it can, so that they do not go up again.
 */
#ifndef STM_SEARCH_TWINS_H
#define STM_SEARCH_TWINS_H

#include "batch/move.h"
#include "search/team.h"

typedef struct stm_twin {
    const char *host; /* bytes, ... */
    size_t bytes;
    mill_buffer *there; /* ... which are there from `from` on; a reference */
    size_t from;
} stm_twin;

/** Zeroed = none. */
typedef struct stm_twins {
    stm_twin *all; /* [n] by address */
    size_t n;
} stm_twins;

/** The twins of @p columns [n], of which entries may be NULL. stm_twins_fini in any case. Threads: any holder of the columns. */
mill_status stm_twins_find(stm_twins *t, mill_column *const *columns, size_t n, mill_error *err);
/** What was queued on their buffers carries marks, so it need not be done. */
void stm_twins_fini(stm_twins *t);
/** The one that has the @p bytes at @p host; NULL: none. */
const stm_twin *stm_twins_at(const stm_twins *t, const void *host, size_t bytes);

/** Where there the bytes at @p host, which it has, are; work queued on @p s from here on finds them. Behind that work:
 *  stm_twin_read. */
mill_status stm_twin_await(const stm_twin *w, const void *host, stm_stream *s, const void **there, mill_error *err);
mill_status stm_twin_read(const stm_twin *w, stm_stream *s, mill_error *err);

/** Queue rows rows[pick[0 .. n - 1]] of @p dim floats each to @p dst on a rank's device: from their twins, on that device or
 *  another, else from the host. */
mill_status stm_twins_rows(const stm_twins *t, stm_team *team, int32_t rank, const float *const *rows, const int64_t *pick,
                           int64_t n, int64_t dim, float *dst, mill_error *err);

#endif
