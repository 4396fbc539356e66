// The one driver function that kernels' hosts need: tensor maps for TMA, found through the runtime. The 128 opaque bytes hold
// what the simulated TMA reads back (exec/abi.h).
#include "../exec/abi.h"
#include "state.h"
#include <cstring>
#include <cuda.h>

namespace sim {

static size_t element_bytes(CUtensorMapDataType type)
{
    switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8: return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16: case CU_TENSOR_MAP_DATA_TYPE_FLOAT16: case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16: return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64: case CU_TENSOR_MAP_DATA_TYPE_INT64: case CU_TENSOR_MAP_DATA_TYPE_FLOAT64: return 8;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32: case CU_TENSOR_MAP_DATA_TYPE_INT32: case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ: return 4;
    default: return 0;
    }
}

static_assert(sizeof(stm_sim_tensor_map) <= sizeof(CUtensorMap), "fits into the opaque bytes");

// Refuses what the real one documents to refuse, and what the simulated TMA does not do (interleave, element strides, 32 and
// 64-byte swizzles are done; the atom variants are not).
static CUresult CUDAAPI encode_tiled(CUtensorMap *out, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                     const cuuint64_t *dim, const cuuint64_t *stride, const cuuint32_t *box,
                                     const cuuint32_t *element_stride, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                     CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill)
{
    if (!settings().driver) return CUDA_ERROR_NOT_INITIALIZED;
    if (fault("cuTensorMapEncodeTiled", CUDA_ERROR_INVALID_VALUE)) return CUDA_ERROR_INVALID_VALUE;
    if (settings().major < 9) return CUDA_ERROR_NOT_SUPPORTED;
    const size_t bytes = element_bytes(type);
    if (bytes == 0 || rank < 1 || rank > 5 || reinterpret_cast<uintptr_t>(out) % 64 || reinterpret_cast<uintptr_t>(address) % 16)
        return CUDA_ERROR_INVALID_VALUE;
    if (interleave != CU_TENSOR_MAP_INTERLEAVE_NONE || swizzle > CU_TENSOR_MAP_SWIZZLE_128B) return CUDA_ERROR_NOT_SUPPORTED;
    const size_t inner = box[0] * bytes, span = swizzle == CU_TENSOR_MAP_SWIZZLE_NONE ? 0 : size_t(16) << swizzle;
    if (inner % 16 || (span && inner > span)) return CUDA_ERROR_INVALID_VALUE;
    stm_sim_tensor_map m;
    memset(&m, 0, sizeof m);
    m.base = static_cast<const char *>(address);
    m.rank = static_cast<uint8_t>(rank);
    m.element_bytes = static_cast<uint8_t>(bytes);
    m.swizzle_bytes = static_cast<uint8_t>(span);
    m.fill_nan = fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA;
    for (cuuint32_t i = 0; i < rank; i++) {
        if (dim[i] < 1 || dim[i] > (uint64_t(1) << 32) || box[i] < 1 || box[i] > 256) return CUDA_ERROR_INVALID_VALUE;
        if (element_stride[i] != 1) return CUDA_ERROR_NOT_SUPPORTED;
        if (i > 0 && (stride[i - 1] % 16 || stride[i - 1] >= (uint64_t(1) << 40))) return CUDA_ERROR_INVALID_VALUE;
        m.dim[i] = static_cast<uint32_t>(dim[i] - 1);
        m.box[i] = static_cast<uint16_t>(box[i]);
        if (i > 0) m.stride[i - 1] = stride[i - 1];
    }
    memcpy(out, &m, sizeof m);
    return CUDA_SUCCESS;
}

} // namespace sim

using namespace sim;

extern "C" {

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **out, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult *status)
{
    cudaError_t e = enter("cudaGetDriverEntryPoint", cudaErrorSymbolNotFound);
    if (e) return e;
    const bool known = strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
    *out = known ? reinterpret_cast<void *>(encode_tiled) : nullptr;
    if (status) *status = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return known || status ? cudaSuccess : result(cudaErrorSymbolNotFound);
}
#undef cudaGetDriverEntryPoint
cudaError_t cudaGetDriverEntryPoint(const char *symbol, void **out, unsigned long long flags,
                                    cudaDriverEntryPointQueryResult *status)
{
    return cudaGetDriverEntryPointByVersion(symbol, out, CUDART_VERSION, flags, status);
}

} // extern "C"
