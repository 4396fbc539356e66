/*
 * Streams of batches put together into one, by key: of several runs that each made some of the rows of one.
 *
 * Every input is in order of its keys, and no key is in two of them. The batches that come out are cut where the next row is
 * another input's, so they are a function of the inputs alone; they are numbered from 0, and the last one says that it is the end.
 * What their frontier says is that of the stream put together.
 */
#ifndef STM_STORE_MERGED_H
#define STM_STORE_MERGED_H

#include "store/batches.h"

typedef struct stm_merged_input {
    stm_batch_source *source; /* taken over by stm_merged_create, success or not; NULL = `held` */
    /* [n_held] batches that are in memory; each is taken over and its place set to NULL when it is read */
    mill_batch **held;
    size_t n_held;
    int64_t errors;           /* added to the numbers of error records that rows are marked with, ... */
    int64_t most_errors;      /* ... which become this at most */
    /** Whether a row is another input's to give; NULL = none is. */
    bool (*without)(const mill_batch *b, int64_t row, void *user);
    void *user;
} stm_merged_input;

typedef struct stm_merged stm_merged;
mill_status stm_merged_create(mill_pool *pool, const stm_merged_input *inputs, size_t n, int32_t n_columns, int32_t n_roots,
                              stm_merged **out, mill_error *err);
/** The next batch; *out NULL = the one before was the end. MILL_ERR_DATA: an input is damaged, or a key is in two of them. Blocks:
 *  on the disk. */
mill_status stm_merged_next(stm_merged *m, mill_batch **out, mill_error *err);
/** Pass over @p n batches, which are there unless what they are made of is not what it was: MILL_ERR_DATA names @p who. */
mill_status stm_merged_skip(stm_merged *m, uint64_t n, const char *who, mill_error *err);
/** Sets *m to NULL, accepts NULL. */
void stm_merged_destroy(stm_merged **m);

#endif
