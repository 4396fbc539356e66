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

const stm_kernels stm_kernels_cpu = {sizeof(stm_kernels), impute,     gather, gather_bits, compact, unit, nearest,
                                     merge_ranks,         near_pairs, minhash};

const stm_kernels *stm_kernels_of(const stm_device_ops *ops)
{
    const stm_kernels *k = ops->kernels != NULL ? ops->kernels() : &stm_kernels_cpu;

    return k != NULL && k->struct_size == sizeof *k ? k : NULL;
}
