#include "device/cuda_module.h"
#include "kernels/kernels.h"

static const stm_kernels table = {sizeof(stm_kernels), stm_impute_cuda, stm_gather_cuda, stm_gather_bits_cuda, stm_compact_cuda};

const void *stm_cuda_kernels(void) { return &table; }
