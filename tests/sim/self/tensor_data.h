// Inputs and tensor maps for tensor.cu.
#pragma once
#include "device_vec.h"
#include "tensor.h"

// c = a b^T of [m][k] and [n][k]; small integers, so that every sum is exact.
struct TensorData {
    int m, n, k;
    std::vector<__nv_bfloat16> a, b;
    std::vector<float> want;
    TensorData(int rows, int cols, int depth) : m(rows), n(cols), k(depth), a(m * k), b(n * k), want(m * n)
    {
        for (int i = 0; i < m * k; i++) a[i] = __float2bfloat16(static_cast<float>(i * 7 % 11 - 5));
        for (int i = 0; i < n * k; i++) b[i] = __float2bfloat16(static_cast<float>(i * 5 % 13 - 6));
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
                for (int x = 0; x < k; x++) want[i * n + j] += __bfloat162float(a[i * k + x]) * __bfloat162float(b[j * k + x]);
    }
};

using EncodeTiled = CUresult (*)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                                 const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                 CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
inline EncodeTiled encode_tiled()
{
    void *f = nullptr;
    cudaDriverEntryPointQueryResult found;
    EXPECT_EQ(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, 0, &found), cudaSuccess);
    return reinterpret_cast<EncodeTiled>(f);
}
// [rows][k] of bf16 in boxes of [rows][64], 128-byte swizzle.
inline CUresult map_rows(CUtensorMap *out, void *p, int rows, int k)
{
    const cuuint64_t dim[2] = {static_cast<cuuint64_t>(k), static_cast<cuuint64_t>(rows)},
                     stride[1] = {static_cast<cuuint64_t>(k) * 2};
    const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(rows)}, step[2] = {1, 1};
    return encode_tiled()(out, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, p, dim, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                          CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}
