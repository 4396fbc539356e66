#include "kernels/vectors.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "core/alloc.h"
#include "core/text.h"
#include "kernels/dot.h"
#include "kernels/lengths.h"
#include "kernels/parallel.h"
#include "stepmill/ops.h"

enum { NORM_ROWS = 256 }; /* rows a worker takes at a time while measuring lengths */
static const double UNKNOWN = -2.0; /* a length that nobody has written */

double stm_length(const float *a, int64_t dim)
{
    const double square = stm_dot(a, a, dim); /* no overflow: float32 squared is below 1e78 */

    return isfinite(square) ? sqrt(square) : -1.0;
}

float stm_score_of(int32_t metric, double dot, double length_a, double length_b)
{
    if (metric == MILL_DOT) return (float)dot;
    return length_a > 0.0 && length_b > 0.0 ? (float)(dot / (length_a * length_b)) : 0.0f;
}

/* ---- lengths ---- */

typedef struct measure {
    stm_vectors *v;
    _Atomic int64_t next; /* relaxed: rows are shared out by it, results are read after the join */
} measure;

static mill_status measure_rows(void *user, int32_t worker, mill_error *err)
{
    measure *m = user;

    (void)worker, (void)err;
    for (;;) {
        const int64_t first = atomic_fetch_add_explicit(&m->next, NORM_ROWS, memory_order_relaxed);
        const int64_t last = first + NORM_ROWS < m->v->n ? first + NORM_ROWS : m->v->n;
        if (first >= m->v->n) return MILL_OK;
        for (int64_t r = first; r < last; r++) {
            if (m->v->length[r] != UNKNOWN) continue;
            if (m->v->hash != NULL)
                (void)stm_lengths_cpu(&(stm_lengths_args){m->v->rows[r], &m->v->length[r], &m->v->hash[r], 1, (int32_t)m->v->dim});
            else
                m->v->length[r] = stm_length(m->v->rows[r], m->v->dim);
        }
    }
}

mill_status stm_vectors_begin(stm_vectors *v, const float *const *rows, int64_t n, int64_t dim, bool hashed, mill_error *err)
{
    v->rows = rows, v->n = n, v->dim = dim;
    v->length = stm_malloc((size_t)(n > 0 ? n : 1) * sizeof *v->length);
    v->valid = stm_malloc((size_t)(n > 0 ? n : 1) * sizeof *v->valid);
    v->hash = hashed ? stm_malloc((size_t)(n > 0 ? n : 1) * sizeof *v->hash) : NULL;
    if (v->length == NULL || v->valid == NULL || (hashed && v->hash == NULL))
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for %lld vectors", (long long)n);
    for (int64_t r = 0; r < n; r++) v->length[r] = UNKNOWN;
    return MILL_OK;
}

void stm_vectors_measure(stm_vectors *v, int32_t threads)
{
    measure m = {.v = v};

    (void)stm_parallel(threads, measure_rows, &m, NULL); /* cannot fail */
    for (int64_t r = 0; r < v->n; r++) {
        if (v->length[r] < 0.0) continue;
        v->valid[v->n_valid++] = r;
        if (v->length[r] > v->longest) v->longest = v->length[r];
    }
    v->kept = v->valid, v->n_kept = v->n_valid;
}

mill_status stm_vectors_init(stm_vectors *v, const float *const *rows, int64_t n, int64_t dim, int32_t threads, mill_error *err)
{
    const mill_status st = stm_vectors_begin(v, rows, n, dim, false, err);

    if (st == MILL_OK) stm_vectors_measure(v, threads);
    return st;
}

/* ---- copies ---- */

typedef struct kind {
    uint64_t hash;
    int64_t first, n; /* its first row; how many so far, 0 = the slot is free */
} kind;

typedef struct hashing {
    const stm_vectors *v;
    uint64_t *hash;       /* [n_valid] */
    _Atomic int64_t next; /* relaxed, as in measure */
} hashing;

static mill_status hash_rows(void *user, int32_t worker, mill_error *err)
{
    hashing *h = user;
    const stm_vectors *v = h->v;

    (void)worker, (void)err;
    for (;;) {
        const int64_t first = atomic_fetch_add_explicit(&h->next, NORM_ROWS, memory_order_relaxed);
        const int64_t last = first + NORM_ROWS < v->n_valid ? first + NORM_ROWS : v->n_valid;
        if (first >= v->n_valid) return MILL_OK;
        for (int64_t i = first; i < last; i++)
            h->hash[i] =
                v->hash != NULL ? v->hash[v->valid[i]] : stm_hash64(v->rows[v->valid[i]], (size_t)v->dim * sizeof(float), 0);
    }
}

/* The kind of valid row number @p i: found, or made in a free slot. */
static kind *kind_of(const stm_vectors *v, kind *kinds, size_t mask, uint64_t hash, int64_t row)
{
    for (size_t at = hash & mask;; at = (at + 1) & mask) {
        kind *k = &kinds[at];
        if (k->n == 0) *k = (kind){.hash = hash, .first = row};
        if (k->hash == hash && (k->first == row || memcmp(v->rows[k->first], v->rows[row], (size_t)v->dim * sizeof(float)) == 0))
            return k;
    }
}

mill_status stm_vectors_drop_copies(stm_vectors *v, int64_t copies, int32_t threads, mill_error *err)
{
    hashing h = {.v = v, .hash = stm_malloc((size_t)(v->n_valid + 1) * sizeof *h.hash)};
    size_t size = 64;
    kind *kinds;

    while (size < 2 * (size_t)v->n_valid) size *= 2;
    kinds = stm_calloc(size * sizeof *kinds);
    v->kept = stm_malloc((size_t)(v->n_valid + 1) * sizeof *v->kept);
    if (h.hash == NULL || kinds == NULL || v->kept == NULL) {
        stm_free(h.hash);
        stm_free(kinds);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for %lld vectors", (long long)v->n);
    }
    (void)stm_parallel(threads, hash_rows, &h, err); /* cannot fail */
    v->n_kept = 0;
    for (int64_t i = 0; i < v->n_valid; i++)
        if (kind_of(v, kinds, size - 1, h.hash[i], v->valid[i])->n++ < copies) v->kept[v->n_kept++] = v->valid[i];
    stm_free(h.hash);
    stm_free(kinds);
    return MILL_OK;
}

void stm_vectors_fini(stm_vectors *v)
{
    if (v->kept != v->valid) stm_free(v->kept);
    stm_free(v->length);
    stm_free(v->hash);
    stm_free(v->valid);
    memset(v, 0, sizeof *v);
}
