/*
 * What globals over vectors share: the columns they take, the rows gathered so far (columns referenced, not copied),
 * and the vectors among them.
 *
 * Rows are numbered input by input, in order of arrival within an input; so numbers do not depend on how the batches
 * of different inputs interleave.
 */
#ifndef STM_STEPS_VECTORS_ROWS_H
#define STM_STEPS_VECTORS_ROWS_H

#include "stepmill/step.h"

/** Made by configure, read only afterwards. */
typedef struct stm_rows_layout {
    size_t n_inputs;
    char **names;            /* [n_columns] arriving columns by name, in order of first appearance */
    const mill_type **types; /* [n_columns] */
    int32_t *places;         /* [n_inputs][n_columns + 1] place in that input's batches, -1 = it has none; the last is
                              * what the step reads as `embedding`, under whatever name it arrives */
    int32_t n_columns;
    int64_t dim;
    bool signatures; /* of int32, from minhash_text; else vectors of float32 */
} stm_rows_layout;

/** Read the arriving columns; `embedding` must be fixed_list<float32>, or, where @p signatures are taken, too, fixed_list<int32>.
 *  stm_rows_layout_fini in any case. */
mill_status stm_rows_layout_init(stm_rows_layout *l, mill_io *io, bool signatures, mill_error *err);
void stm_rows_layout_fini(stm_rows_layout *l);
/** Place of a column by its name; -1 = no such column arrives. */
int32_t stm_rows_layout_column(const stm_rows_layout *l, const char *name);
/** What mill_io_add gives, but that an output column may not hide one that arrives: MILL_ERR_INVALID then. */
mill_status stm_rows_layout_add(const stm_rows_layout *l, mill_io *io, const char *name, const mill_type *type, mill_error *err);
/** MILL_ERR_INVALID, for an output column that would have the name of one that arrives. */
mill_status stm_rows_layout_taken(const char *name, mill_error *err);

typedef struct stm_rows_chunk {
    size_t input, arrived; /* arrived: 0, 1, ... over all inputs */
    int64_t first, rows;   /* first: number of its first row; known after stm_rows_seal */
    size_t columns;        /* place of its columns in stm_rows.columns */
} stm_rows_chunk;

/** Zeroed = empty. One replica's. */
typedef struct stm_rows {
    stm_rows_chunk *chunks;
    size_t n_chunks, chunks_cap;
    mill_column **columns; /* [n_chunks][n_columns + 1], referenced; NULL = nulls */
    size_t columns_cap;
    int64_t n_rows;
    /* after stm_rows_seal */
    const float **vectors; /* [n_vectors] into the columns; of signatures: their int32 all the same */
    int64_t *row_of;       /* [n_vectors] increasing */
    int64_t n_vectors;
} stm_rows;

mill_status stm_rows_accept(stm_rows *t, const stm_rows_layout *l, size_t input, const mill_batch *in, mill_error *err);
/** All rows are there: number them and list the vectors. Rows whose vector is null or holds a null have none. */
mill_status stm_rows_seal(stm_rows *t, const stm_rows_layout *l, mill_error *err);
void stm_rows_fini(stm_rows *t, const stm_rows_layout *l);
/** Entries of t->columns. */
static inline size_t stm_rows_columns(const stm_rows *t, const stm_rows_layout *l)
{
    return t->n_chunks * ((size_t)l->n_columns + 1);
}
/** Chunk that holds row @p row. Sealed. */
const stm_rows_chunk *stm_rows_chunk_of(const stm_rows *t, int64_t row);
/** Whether stm_rows_append knows the type: all that are not nested, but for float16. */
bool stm_rows_can_append(const mill_type *type);
/** Append value @p row of column @p column to @p b, whose type is that column's. */
mill_status stm_rows_append(const stm_rows *t, const stm_rows_layout *l, int32_t column, int64_t row, mill_builder *b);
/** A batch of @p extra further columns after those of chunk @p k, which are shared. */
mill_status stm_rows_batch(const stm_rows *t, const stm_rows_layout *l, const stm_rows_chunk *k, int32_t extra, mill_pool *pool,
                           mill_batch **out, mill_error *err);

/* Calls of a step type whose step's state begins with its layout and whose replica's state is its rows. */
mill_status stm_rows_load(mill_replica *r, mill_error *err);
void stm_rows_unload(mill_replica *r);
mill_status stm_rows_take(mill_replica *r, size_t input, const mill_batch *in, mill_error *err);

#endif
