/* Needs more registers than it may have: nvcc must refuse it under the flags of cmake/cuda.cmake. */
extern "C" __global__ void __launch_bounds__(1024, 2) spills(float *a, int n)
{
    float v[96];
#pragma unroll
    for (int i = 0; i < 96; i++) v[i] = a[i * n + threadIdx.x];
    for (int j = 0; j < n; j++) {
        float w[96];
#pragma unroll
        for (int i = 0; i < 96; i++) w[i] = v[i] * v[(i + 7) % 96] + a[j * 96 + i];
#pragma unroll
        for (int i = 0; i < 96; i++) v[i] = w[i];
    }
#pragma unroll
    for (int i = 0; i < 96; i++) a[i * n + threadIdx.x] = v[i];
}
