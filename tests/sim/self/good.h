// Launches of good.cu.
#pragma once
#include <cuda_runtime_api.h>
cudaError_t good_add(const float *a, const float *b, float *out, int n, cudaStream_t s);
cudaError_t good_block_sum(const float *in, float *out, int n, int blocks, cudaStream_t s);
cudaError_t good_softmax(const float *x, float *out, int rows, int dim, cudaStream_t s);
cudaError_t good_histogram(const unsigned char *in, int n, unsigned *bins, cudaStream_t s);
cudaError_t good_reverse(int *data, int n, cudaStream_t s);
