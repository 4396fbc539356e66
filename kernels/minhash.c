#include "kernels/minhash.h"

#include <stdatomic.h>

#include "kernels/parallel.h"

enum { ROWS = 16 }; /* texts that a worker takes at a time */

typedef struct work {
    const mill_minhash_args *args;
    _Atomic int64_t next; /* relaxed: rows are shared out by it, results are read after the join */
} work;

static mill_status hash_rows(void *user, int32_t worker, mill_error *err)
{
    work *w = user;
    const mill_minhash_args *a = w->args;

    (void)worker, (void)err;
    for (;;) {
        const int64_t first = atomic_fetch_add_explicit(&w->next, ROWS, memory_order_relaxed);
        if (first >= a->rows) return MILL_OK;
        const stm_minhash_args some = {.bytes = a->bytes,
                                       .offsets = a->offsets + first,
                                       .rows = a->rows - first < ROWS ? a->rows - first : ROWS,
                                       .width = a->width,
                                       .seed = a->seed,
                                       .out = a->out + first * STM_MINHASHES};
        (void)stm_minhash_cpu(&some); /* checked: cannot fail */
    }
}

mill_status stm_minhash_check(const mill_minhash_args *a, mill_error *err)
{
    if (a == NULL || a->struct_size < sizeof *a)
        return mill_fail(err, MILL_ERR_INVALID, "arguments of another version of stepmill");
    if (a->rows < 0 || a->rows >= (int64_t)1 << 31 || (a->rows > 0 && a->offsets == NULL))
        return mill_fail(err, MILL_ERR_INVALID, "signatures of %lld texts", (long long)a->rows);
    if (a->width < 1 || a->width > STM_SHINGLE_MAX)
        return mill_fail(err, MILL_ERR_INVALID, "shingles of %d bytes: 1 to %d are possible", (int)a->width, STM_SHINGLE_MAX);
    return MILL_OK;
}

mill_status mill_minhash(const mill_minhash_args *a, mill_error *err)
{
    work w = {.args = a};
    const mill_status st = stm_minhash_check(a, err);

    if (st != MILL_OK || a->rows == 0) return st;
    if (a->out == NULL) return mill_fail(err, MILL_ERR_INVALID, "there is no place for signatures");
    return stm_parallel(a->threads < 1 || a->rows <= ROWS ? 1 : a->threads, hash_rows, &w, err);
}
