/*
 * The batch inside the engine: columns and, around them, the envelope that the flow reads: sequence number, keys,
 * coverage, borders, end.
 *
 * A batch has one owner at a time (no reference count); whoever owns it may change the envelope. Columns are shared.
 * Columns stand in the order of the edge's schema (names and types live in the plan, not here); a NULL column is
 * null in every row.
 */
#ifndef STM_BATCH_BATCH_H
#define STM_BATCH_BATCH_H

#include "memory/pool.h"
#include "stepmill/batch.h"

struct stm_spill;

/** Keys of the rows of one batch. A key is a tuple of `width` int64: (row number in its root, child indices ...); each expansion
 *  has a place of its own, the last of its stream's keys, and what did not pass through it has -1 there (also in the middle). On
 *  an edge below a union the first element is the branch. Tuples increase strictly, compared element by element. With tuples ==
 *  NULL the width is 1 and row r has the key (first + r). */
typedef struct stm_keys {
    int64_t first;       /* tuples == NULL only */
    int64_t offset;      /* rows before row 0 in tuples */
    mill_buffer *tuples; /* int64 [..][width], shared; NULL = consecutive */
    int32_t width;       /* >= 1 */
} stm_keys;

struct mill_batch {
    mill_pool *pool;
    int64_t rows;
    /* envelope */
    uint64_t seq;          /* place in the producer's stream: 0, 1, 2, ... without gaps */
    int64_t frontier[2];   /* every row of this stream with a key below (frontier[0], frontier[1]) is in this batch or an
                            * earlier one; [1] is 0 unless below a union */
    /* [n_roots], at least one per root of the plan: rows of the root completed on this stream up to and with this batch */
    int64_t *covered;
    uint32_t borders;      /* bit d: the last batch of a routed batch of router depth d ... */
    uint32_t skipped;      /* ... and, where borders has the bit: that routed batch did not take this branch */
    bool end;              /* the stream ends with this batch */
    bool failed;           /* made by imputation (for statistics) */
    int32_t n_roots;
    int32_t n_columns;
    stm_keys keys;
    /* contents; on disk while away_in is set: then there are none of them here (batch/spill.h) */
    struct stm_spill *away_in; /* atomic: acquire by readers, release by who brings them back */
    uint64_t away;             /* the record there */
    mill_column *marks;     /* int64: identity of the error record of a row, 0 = none; NULL = no marks */
    /* [n_columns] of bool columns: true = null by imputation; NULL = nothing imputed; entries may be NULL */
    mill_column **imputed;
    mill_column **columns;  /* [n_columns] */
};

/** Coverages that a batch made through the public interface has room for: what a step emits can then go on as it is. */
#define STM_BATCH_ROOTS 2
/** As mill_batch_create with room for @p n_roots coverages (zeroed). Envelope zeroed, keys consecutive from 0. */
mill_status stm_batch_create(mill_pool *pool, int64_t rows, int32_t n_columns, int32_t n_roots, mill_batch **out);
/** What the flow reads of @p src but its keys and `failed`; coverages that only one of them has room for stay as they are. */
static inline void stm_batch_copy_envelope(mill_batch *b, const mill_batch *src)
{
    b->seq = src->seq;
    b->frontier[0] = src->frontier[0];
    b->frontier[1] = src->frontier[1];
    for (int32_t i = 0; i < src->n_roots && i < b->n_roots; i++) b->covered[i] = src->covered[i]; /* few: a call costs more */
    b->borders = src->borders;
    b->skipped = src->skipped;
    b->end = src->end;
}
/** A second batch with the same contents and envelope (columns shared). */
mill_status stm_batch_clone(const mill_batch *src, mill_batch **out);
/** Zero rows, no columns filled, same envelope: what a branch not taken gets. */
mill_status stm_batch_clone_empty(const mill_batch *src, mill_batch **out);
/** Rows [first, first + rows) as a new batch: shared buffers, keys cut; the envelope is copied except that the caller sets
 *  seq, coverage, borders and end. */
mill_status stm_batch_slice(const mill_batch *src, int64_t first, int64_t rows, mill_batch **out);

/** A run of rows of one batch, or of no batch (nulls). */
typedef struct stm_run_of_rows {
    const mill_batch *batch; /* NULL = rows of nulls (no key, no marks) */
    int64_t first, rows;
} stm_run_of_rows;
/**
 * The rows of @p n runs, one after the other, as one contiguous batch of @p n_columns columns of types @p types.
 * One run of a whole batch gives a clone, one run of a part a slice; else bytes are copied. Keys are joined (their
 * widths may differ; the widest wins, others are padded with -1; runs of nulls get keys -1 ... and are to be
 * overwritten by the caller). Envelope zeroed.
 */
mill_status stm_batch_concat(mill_pool *pool, const stm_run_of_rows *runs, size_t n, const mill_type *const *types,
                             int32_t n_columns, int32_t n_roots, mill_batch **out);
/** Rows src[index[i]], index -1 = a null row; marks, imputed and keys likewise (key -1 ... for null rows; neither marked nor
 *  imputed). The envelope is copied, as by stm_batch_slice. Consecutive indices give a slice. @p types may be NULL (not
 *  checked). */
mill_status stm_batch_gather(mill_pool *pool, const mill_batch *src, const int64_t *index, int64_t n, const mill_type *const *types,
                             mill_batch **out);
/** Key tuple of row @p r into out[0 .. keys.width-1]. */
void stm_batch_key(const mill_batch *b, int64_t r, int64_t *out);
/** Key of row @p r as people read it: `12`, `12.0`, `12.-.3` (a child of row 12, which an earlier expansion did not make), cut to
 *  @p size. Returns the length. Different keys of one stream differ in it. */
int stm_batch_key_text(const mill_batch *b, int64_t r, char *buf, size_t size);
/** The elements of such a text into out[0 .. n-1], -1 where it has `-`; returns n, at most @p most, 0 = it begins with none. *rest:
 *  what stands behind the last of them, "" when that is all. Threads: any. */
int32_t stm_key_parse(const char *text, int64_t *out, int32_t most, const char **rest);
/** -1, 0, 1: row ra of a against row rb of b; a shorter tuple is padded with -1. */
int stm_batch_key_compare(const mill_batch *a, int64_t ra, const mill_batch *b, int64_t rb);
/** Bytes that this batch keeps alive (capacity of the buffers it references, shared ones counted fully). */
int64_t stm_batch_bytes(const mill_batch *b);
/** Mark rows [first, first + rows) with error record @p error and make column @p column null by imputation there (-1: mark only).
 *  @p error 0: marks stay as they are (the row was imputed before; its column follows). Copies what is shared. */
mill_status stm_batch_impute(mill_batch *b, int32_t column, int64_t first, int64_t rows, int64_t error);
/** Whether column @p column of row @p r is null by imputation. */
bool stm_batch_is_imputed(const mill_batch *b, int32_t column, int64_t r);

/* columns */
mill_status stm_column_slice(mill_column *col, int64_t first, int64_t rows, mill_column **out);
mill_status stm_column_concat(mill_pool *pool, mill_column *const *cols, size_t n, const mill_type *type, mill_column **out);
mill_status stm_column_gather(mill_pool *pool, const mill_column *col, const int64_t *index, int64_t n, mill_column **out);
int64_t stm_column_bytes(const mill_column *col);
/** Bytes of the values of rows [first, first + rows) alone, without validity and offsets: what the rows weigh, not what they keep
 *  alive. */
int64_t stm_column_span(const mill_column *col, int64_t first, int64_t rows);
/** Full check of a column a plugin made: offsets in range and not decreasing, UTF-8 well formed, children long enough. */
mill_status stm_column_validate(const mill_column *col, mill_error *err);

#endif
