#include <math.h>
#include <stdlib.h>

#include "core/alloc.h"
#include "kernels/dot.h"
#include "kernels/topk.h"

typedef struct scored {
    float score;
    int64_t row;
} scored;

static int by_rank(const void *x, const void *y)
{
    const scored *a = x, *b = y;

    return stm_topk_before(a->score, a->row, b->score, b->row) ? -1 : 1;
}

static double length_ref(const float *a, int64_t dim)
{
    for (int64_t i = 0; i < dim; i++)
        if (!isfinite(a[i])) return -1.0;
    return sqrt(stm_dot_ref(a, a, dim));
}

mill_status stm_topk_ref(const mill_topk_args *a, mill_error *err)
{
    scored *all = stm_malloc((size_t)(a->n_corpus + 1) * sizeof *all);
    double *length = stm_malloc((size_t)(a->n_corpus + 1) * sizeof *length);

    if (all == NULL || length == NULL) {
        stm_free(all);
        stm_free(length);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory to search");
    }
    for (int64_t c = 0; c < a->n_corpus; c++) length[c] = length_ref(a->corpus[c], a->dim);
    for (int64_t q = 0; q < a->n_queries; q++) {
        const double lq = length_ref(a->queries[q], a->dim);
        int64_t n = 0;
        for (int64_t c = 0; lq >= 0.0 && c < a->n_corpus; c++) {
            if (length[c] < 0.0 || (a->exclude_self && c == q)) continue;
            const float s = stm_score_of(a->metric, stm_dot_ref(a->queries[q], a->corpus[c], a->dim), lq, length[c]);
            if (s >= a->threshold) all[n++] = (scored){s, c};
        }
        qsort(all, (size_t)n, sizeof *all, by_rank);
        for (int64_t i = 0; i < a->k; i++) {
            a->rows[q * a->k + i] = i < n ? all[i].row : -1;
            a->scores[q * a->k + i] = i < n ? all[i].score : 0.0f;
        }
    }
    stm_free(all);
    stm_free(length);
    return MILL_OK;
}

mill_status stm_pairs_ref(const mill_pairs_args *a, mill_error *err)
{
    for (int64_t i = 0; i < a->n; i++) {
        const double li = length_ref(a->vectors[i], a->dim);
        for (int64_t j = i + 1; li >= 0.0 && j < a->n; j++) {
            const double lj = length_ref(a->vectors[j], a->dim);
            mill_pair p = {.i = i, .j = j};
            mill_status st;
            if (lj < 0.0) continue;
            const float s = stm_score_of(a->metric, stm_dot_ref(a->vectors[i], a->vectors[j], a->dim), li, lj);
            if (!(s >= a->threshold)) continue;
            p.score = a->scores ? s : 0.0f;
            if ((st = a->found(a->user, &p, 1, err)) != MILL_OK) return st;
        }
    }
    return MILL_OK;
}
