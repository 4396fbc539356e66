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

const stm_kernels stm_kernels_cpu = {sizeof(stm_kernels), impute, gather, gather_bits, compact};

const stm_kernels *stm_kernels_of(const stm_device_ops *ops)
{
    const stm_kernels *k = ops->kernels != NULL ? ops->kernels() : &stm_kernels_cpu;

    return k != NULL && k->struct_size == sizeof *k ? k : NULL;
}
