// Launches of tensor.cu.
#pragma once
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
// c[m][n] = a[m][k] * b[k][n]; m, n multiples of 32, k of 16
cudaError_t tensor_wmma(const __half *a, const __half *b, float *c, int m, int n, int k, cudaStream_t s);
// c[m][n] = a[m][k] * b[n][k]^T; m, n multiples of 16, k of 32
cudaError_t tensor_mma(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *c, int m, int n, int k, bool forget_wait,
                       cudaStream_t s);
// c[64][16] = a[64][k] * b[16][k]^T through TMA, mbarriers and wgmma; k a multiple of 64. mistake: 0 none, 1 no wait for the
// loads, 2 the result is read before the products are waited for, 3 the mbarriers are not initialised, 4 waits for the other phase,
// 5 the swizzle of another tile, 6 no wgmma.fence, 7 registers written while products are under way, 8 half of the warps describe
// other rows, 9 a stage is filled again before its products are done, 10 an operand that begins at the second row of its swizzle
cudaError_t tensor_hopper(const CUtensorMap &a, const CUtensorMap &b, float *c, int k, int mistake, cudaStream_t s);
// c[64][16] = a[64][32] * b[16][32]^T, operands by plain stores
cudaError_t tensor_stored(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *c, bool forget_fence, cudaStream_t s);
// sums[0] = sum of 0 .. threads * blocks - 1, by tiles, blocks and a grid barrier
cudaError_t groups_sum(int *partial, int *sum, int blocks, int threads, cudaStream_t s);
