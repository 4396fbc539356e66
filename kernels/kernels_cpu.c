#include "kernels/kernels.h"

static mill_status impute(const stm_impute_args *a, void *stream)
{
    (void)stream;
    return stm_impute_cpu(a);
}
static mill_status gather(const stm_gather_args *a, void *stream)
{
    (void)stream;
    return stm_gather_cpu(a);
}
static mill_status gather_bits(const stm_gather_bits_args *a, void *stream)
{
    (void)stream;
    return stm_gather_bits_cpu(a);
}
static mill_status compact(const stm_compact_args *a, void *stream)
{
    (void)stream;
    return stm_compact_cpu(a);
}
static mill_status unit(const stm_unit_args *a, void *stream)
{
    (void)stream;
    return stm_unit_cpu(a);
}
static mill_status lengths(const stm_lengths_args *a, void *stream)
{
    (void)stream;
    return stm_lengths_cpu(a);
}
static mill_status nearest(const stm_nearest_args *a, void *stream)
{
    (void)stream;
    return stm_nearest_cpu(a);
}
static mill_status merge_ranks(const stm_merge_ranks_args *a, void *stream)
{
    (void)stream;
    return stm_merge_ranks_cpu(a);
}
static mill_status near_pairs(const stm_near_pairs_args *a, void *stream)
{
    (void)stream;
    return stm_near_pairs_cpu(a);
}
static mill_status minhash(const stm_minhash_args *a, void *stream)
{
    (void)stream;
    return stm_minhash_cpu(a);
}

static mill_status tiles(stm_tiles_answer *a, void *stream)
{
    (void)a;
    (void)stream;
    return MILL_ERR_UNSUPPORTED;
}

/* Operations of the encoder on devices: on the host the oracle does them, rounded as they are stored. (The encoder of the host has
 * forms of its own: row_ops.h, attention.h, gemm.h.) */
#define ORACLE(NAME)                                                  \
    static mill_status NAME(const stm_##NAME##_args *a, void *stream) \
    {                                                                 \
        (void)stream;                                                 \
        if (!stm_##NAME##_fits(a)) return MILL_ERR_INVALID;           \
        stm_##NAME##_ref(a);                                          \
        return MILL_OK;                                               \
    }
ORACLE(convert)
ORACLE(token_norm)
ORACLE(token_gelu)
ORACLE(token_pool)
ORACLE(token_attention)

const stm_kernels stm_kernels_cpu = {
    .struct_size = sizeof(stm_kernels),
    .impute = impute,
    .gather = gather,
    .gather_bits = gather_bits,
    .compact = compact,
    .unit = unit,
    .nearest = nearest,
    .merge_ranks = merge_ranks,
    .near_pairs = near_pairs,
    .minhash = minhash,
    .convert = convert,
    .token_norm = token_norm,
    .token_gelu = token_gelu,
    .token_pool = token_pool,
    .token_attention = token_attention,
    .linear_open = stm_linear_open_cpu,
    .linear_close = stm_linear_close_cpu,
    .linear = stm_linear_cpu,
    .tiles = tiles,
    .lengths = lengths,
};

const stm_kernels *stm_kernels_of(const stm_device_ops *ops)
{
    const stm_kernels *k = ops->kernels != NULL ? ops->kernels() : &stm_kernels_cpu;

    return k != NULL && k->struct_size == sizeof *k ? k : NULL;
}
