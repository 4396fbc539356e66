// Element types and reductions.
#include "state.h"
#include <algorithm>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace sim {

size_t type_bytes(ncclDataType_t t)
{
    switch (t) {
    case ncclInt8:
    case ncclUint8: return 1;
    case ncclFloat16:
    case ncclBfloat16: return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32: return 4;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64: return 8;
    default: return 0;
    }
}

template <class A> static A combine(A x, A y, ncclRedOp_t op)
{
    switch (op) {
    case ncclProd: return x * y;
    case ncclMax: return std::max(x, y);
    case ncclMin: return std::min(x, y);
    default: return x + y;
    }
}

// From the last rank to the first: real rings begin somewhere else for each part, so code must not count on an order.
template <class T, class A, class Load, class Store>
static void all(T *out, const std::vector<const void *> &in, size_t at, size_t count, ncclRedOp_t op, Load load, Store store)
{
    const size_t n = in.size();
    for (size_t i = 0; i < count; i++) {
        A sum = load(static_cast<const T *>(in[n - 1])[at + i]);
        for (size_t r = n - 1; r-- > 0;) sum = combine<A>(sum, load(static_cast<const T *>(in[r])[at + i]), op);
        if (op == ncclAvg) sum = sum / static_cast<A>(n);
        out[i] = store(sum);
    }
}
template <class T, class A>
static void plain(void *out, const std::vector<const void *> &in, size_t at, size_t count, ncclRedOp_t op)
{
    all<T, A>(
        static_cast<T *>(out), in, at, count, op, [](T v) { return static_cast<A>(v); }, [](A v) { return static_cast<T>(v); });
}

void reduce(void *out, const std::vector<const void *> &in, size_t at, size_t count, ncclDataType_t type, ncclRedOp_t op)
{
    switch (type) {
    case ncclInt8: return plain<int8_t, int64_t>(out, in, at, count, op);
    case ncclUint8: return plain<uint8_t, uint64_t>(out, in, at, count, op);
    case ncclInt32: return plain<int32_t, int64_t>(out, in, at, count, op);
    case ncclUint32: return plain<uint32_t, uint64_t>(out, in, at, count, op);
    case ncclInt64: return plain<int64_t, int64_t>(out, in, at, count, op); // a sum past the range is the caller's fault
    case ncclUint64: return plain<uint64_t, uint64_t>(out, in, at, count, op);
    case ncclFloat32: return plain<float, float>(out, in, at, count, op);
    case ncclFloat64: return plain<double, double>(out, in, at, count, op);
    case ncclFloat16:
        return all<__half, float>(static_cast<__half *>(out), in, at, count, op, [](__half v) { return __half2float(v); },
                                  [](float v) { return __float2half(v); });
    case ncclBfloat16:
        return all<__nv_bfloat16, float>(
            static_cast<__nv_bfloat16 *>(out), in, at, count, op, [](__nv_bfloat16 v) { return __bfloat162float(v); },
            [](float v) { return __float2bfloat16(v); });
    default: return;
    }
}

} // namespace sim
