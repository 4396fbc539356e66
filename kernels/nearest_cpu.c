/* unit, nearest, merge_ranks, near_pairs on the host: every pair, exactly. The host's own searches are topk_cpu.c and pairs_cpu.c,
 * which screen as the devices do; these forms are what the table of kernels needs, and the oracles. */
#include "kernels/near_pairs.h"

#include "kernels/bf16.h"
#include "kernels/dot.h"
#include "kernels/vectors.h"

typedef double (*dot_fn)(const float *a, const float *b, int64_t n);

void stm_unit_ref(const stm_unit_args *a)
{
    const int32_t width = stm_unit_width(a->dim);

    for (int64_t r = 0; r < a->n; r++) {
        const double f = a->length[r] > 0.0 ? 1.0 / a->length[r] : 0.0;
        for (int32_t i = 0; i < width; i++)
            a->out[r * width + i] = i < a->dim ? stm_bf16_of((float)((double)a->rows[r * a->dim + i] * f)) : 0;
    }
}

mill_status stm_unit_cpu(const stm_unit_args *a)
{
    if (!stm_unit_fits(a)) return MILL_ERR_INVALID;
    stm_unit_ref(a);
    return MILL_OK;
}

/* Into a list of k ranks, ascending; the last one falls off. */
static void insert(uint64_t *list, int32_t k, uint64_t rank)
{
    int32_t i = k - 1;

    if (rank >= list[i]) return;
    for (; i > 0 && list[i - 1] > rank; i--) list[i] = list[i - 1];
    list[i] = rank;
}

static void nearest_with(const stm_nearest_args *a, dot_fn dot)
{
    for (int64_t q = 0; q < a->queries.n; q++)
        for (int64_t c = 0; c < a->corpus.n; c++) {
            float score;
            if (a->self != NULL && a->self[q] == a->first + c) continue;
            score = stm_score_of(a->metric, dot(a->queries.rows + q * a->dim, a->corpus.rows + c * a->dim, a->dim),
                                 a->queries.length[q], a->corpus.length[c]);
            if (score >= a->threshold) insert(a->best + q * a->k, a->k, stm_rank_of(score, a->first + c));
        }
}

void stm_nearest_ref(const stm_nearest_args *a) { nearest_with(a, stm_dot_ref); }

mill_status stm_nearest_cpu(const stm_nearest_args *a)
{
    if (!stm_nearest_fits(a)) return MILL_ERR_INVALID;
    nearest_with(a, stm_dot);
    return MILL_OK;
}

void stm_merge_ranks_ref(const stm_merge_ranks_args *a)
{
    for (int64_t q = 0; q < a->n; q++) {
        uint64_t *out = a->out + q * a->k;
        for (int32_t i = 0; i < a->k; i++) out[i] = STM_NO_RANK;
        for (int32_t l = 0; l < a->n_lists; l++)
            for (int32_t i = 0; i < a->k; i++) insert(out, a->k, a->lists[l * a->stride + (a->first + q) * a->k + i]);
    }
}

mill_status stm_merge_ranks_cpu(const stm_merge_ranks_args *a)
{
    if (!stm_merge_ranks_fits(a)) return MILL_ERR_INVALID;
    stm_merge_ranks_ref(a);
    return MILL_OK;
}

static void near_pairs_with(const stm_near_pairs_args *a, dot_fn dot)
{
    int64_t n = 0;

    for (int64_t i = 0; i < a->a.n; i++)
        for (int64_t j = a->a_first + i < a->b_first ? 0 : a->a_first + i - a->b_first + 1; j < a->b.n; j++) {
            const float score = stm_score_of(a->metric, dot(a->a.rows + i * a->dim, a->b.rows + j * a->dim, a->dim), a->a.length[i],
                                             a->b.length[j]);
            if (!(score >= a->threshold)) continue;
            if (n < a->room) a->out[n] = (stm_near_pair){(int32_t)(a->a_first + i), (int32_t)(a->b_first + j), score};
            n++;
        }
    a->found[0] = a->found[1] = n;
}

void stm_near_pairs_ref(const stm_near_pairs_args *a) { near_pairs_with(a, stm_dot_ref); }

mill_status stm_near_pairs_cpu(const stm_near_pairs_args *a)
{
    if (!stm_near_pairs_fits(a)) return MILL_ERR_INVALID;
    near_pairs_with(a, stm_dot);
    return MILL_OK;
}
