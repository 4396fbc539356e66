#include "device/cuda_module.h"
#include "kernels/kernels.h"

static const stm_kernels table = {
    .struct_size = sizeof(stm_kernels),
    .impute = stm_impute_cuda,
    .gather = stm_gather_cuda,
    .gather_bits = stm_gather_bits_cuda,
    .compact = stm_compact_cuda,
    .unit = stm_unit_cuda,
    .nearest = stm_nearest_cuda,
    .merge_ranks = stm_merge_ranks_cuda,
    .near_pairs = stm_near_pairs_cuda,
    .minhash = stm_minhash_cuda,
    .convert = stm_convert_cuda,
    .token_norm = stm_token_norm_cuda,
    .token_gelu = stm_token_gelu_cuda,
    .token_pool = stm_token_pool_cuda,
    .token_attention = stm_token_attention_cuda,
    .linear_open = stm_linear_open_cuda,
    .linear_close = stm_linear_close_cuda,
    .linear = stm_linear_cuda,
    .tiles = stm_tiles_cuda,
    .lengths = stm_lengths_cuda,
};

const void *stm_cuda_kernels(void) { return &table; }
