// Launches of bad.cu: kernels with one mistake each.
#pragma once
#include <cuda_runtime_api.h>
cudaError_t bad_kernel(const char *name, int *data, int n, cudaStream_t s);   // cudaErrorInvalidDeviceFunction: no such name
