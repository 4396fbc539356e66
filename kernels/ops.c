/* The public entries: arguments are checked here, once. */
#include "stepmill/ops.h"

#include <math.h>

#include "kernels/dot.h"
#include "kernels/topk.h"

static mill_status check_vectors(int32_t metric, int64_t n, int64_t dim, float threshold, mill_error *err)
{
    if (metric != MILL_COSINE && metric != MILL_DOT)
        return mill_fail(err, MILL_ERR_INVALID, "metric %d does not exist", (int)metric);
    if (dim < 1 || dim > MILL_OPS_MAX_DIM)
        return mill_fail(err, MILL_ERR_INVALID, "vectors of %lld components: 1 to %d are possible", (long long)dim,
                         MILL_OPS_MAX_DIM);
    if (n < 0 || n > INT64_MAX / 64 / MILL_OPS_MAX_K)
        return mill_fail(err, MILL_ERR_INVALID, "%lld vectors: out of range", (long long)n);
    if (isnan(threshold) || threshold == INFINITY)
        return mill_fail(err, MILL_ERR_INVALID, "a threshold of %g cannot be reached", (double)threshold);
    return MILL_OK;
}

mill_status stm_topk_check(const mill_topk_args *args, mill_error *err)
{
    mill_status st;

    if (args == NULL || args->struct_size < sizeof *args)
        return mill_fail(err, MILL_ERR_INVALID, "mill_topk_args is not initialised");
    if ((st = check_vectors(args->metric, args->n_corpus, args->dim, args->threshold, err)) != MILL_OK) return st;
    if ((st = check_vectors(args->metric, args->n_queries, args->dim, args->threshold, err)) != MILL_OK) return st;
    if (args->k < 1 || args->k > MILL_OPS_MAX_K)
        return mill_fail(err, MILL_ERR_INVALID, "k is %lld: 1 to %d are possible", (long long)args->k, MILL_OPS_MAX_K);
    if ((args->n_queries > 0 && (args->queries == NULL || args->rows == NULL || args->scores == NULL)) ||
        (args->n_corpus > 0 && args->corpus == NULL))
        return mill_fail(err, MILL_ERR_INVALID, "mill_topk_args lacks an array");
    return MILL_OK;
}

mill_status mill_topk(const mill_topk_args *args, mill_error *err)
{
    const mill_status st = stm_topk_check(args, err);

    return st == MILL_OK ? stm_topk_cpu(args, NULL, err) : st;
}

mill_status stm_pairs_check(const mill_pairs_args *args, mill_error *err)
{
    mill_status st;

    if (args == NULL || args->struct_size < sizeof *args)
        return mill_fail(err, MILL_ERR_INVALID, "mill_pairs_args is not initialised");
    if ((st = check_vectors(args->metric, args->n, args->dim, args->threshold, err)) != MILL_OK) return st;
    if (args->found == NULL || (args->n > 0 && args->vectors == NULL))
        return mill_fail(err, MILL_ERR_INVALID, "mill_pairs_args lacks an array or the function for what is found");
    return MILL_OK;
}

mill_status mill_pairs(const mill_pairs_args *args, mill_error *err)
{
    const mill_status st = stm_pairs_check(args, err);

    return st == MILL_OK ? stm_pairs_cpu(args, NULL, err) : st;
}

float mill_score(int32_t metric, const float *a, const float *b, int64_t dim)
{
    const double la = stm_length(a, dim), lb = stm_length(b, dim);

    return la < 0.0 || lb < 0.0 ? NAN : stm_score_of(metric, stm_dot(a, b, dim), la, lb);
}
