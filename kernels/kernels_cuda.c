#include "device/cuda_module.h"
#include "kernels/kernels.h"

static const stm_kernels table = {sizeof(stm_kernels), stm_impute_cuda, stm_gather_cuda,  stm_gather_bits_cuda,
                                  stm_compact_cuda,    stm_unit_cuda,   stm_nearest_cuda, stm_merge_ranks_cuda,
                                  stm_near_pairs_cuda, stm_minhash_cuda};

const void *stm_cuda_kernels(void) { return &table; }
