// Products by plain blocked loops, on the stream's thread. Operands become float, sums are float: what tensor cores promise, too.
#include "gemm.h"
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace sim {

size_t element_bytes(cudaDataType t)
{
    switch (t) {
    case CUDA_R_32F: return 4;
    case CUDA_R_16F:
    case CUDA_R_16BF: return 2;
    default: return 0;
    }
}

static float load(const void *p, int64_t i, cudaDataType t)
{
    switch (t) {
    case CUDA_R_16F: return __half2float(static_cast<const __half *>(p)[i]);
    case CUDA_R_16BF: return __bfloat162float(static_cast<const __nv_bfloat16 *>(p)[i]);
    default: return static_cast<const float *>(p)[i];
    }
}
static void store(void *p, int64_t i, cudaDataType t, float v)
{
    switch (t) {
    case CUDA_R_16F: static_cast<__half *>(p)[i] = __float2half(v); break;
    case CUDA_R_16BF: static_cast<__nv_bfloat16 *>(p)[i] = __float2bfloat16(v); break;
    default: static_cast<float *>(p)[i] = v; break;
    }
}

static float to_tf32(float v) // nearest, ties away, as cvt.rna does
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    if ((bits & 0x7f800000u) == 0x7f800000u) return v;
    bits = (bits + 0x1000u) & ~0x1fffu;
    memcpy(&v, &bits, 4);
    return v;
}

// rows x cols, column after column, as floats.
static std::vector<float> pack(const Operand &o, int64_t at, int64_t rows, int64_t cols, bool tf32)
{
    std::vector<float> out(static_cast<size_t>(rows * cols));
    for (int64_t j = 0; j < cols; j++)
        for (int64_t i = 0; i < rows; i++)
            out[static_cast<size_t>(j * rows + i)] = load(o.p, at + (o.across ? i * o.ld + j : i + j * o.ld), o.type);
    if (tf32)
        for (float &v : out) v = to_tf32(v);
    return out;
}

// sum[m x n] += a[m x k] b[k x n] over k in [k0, k1): four columns of the result at a time, so that a column of a is loaded once
// for them.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("arch=haswell", "default")))
#endif
static void
multiply(const float *a, const float *b, float *sum, int64_t m, int64_t n, int64_t k, int64_t k0, int64_t k1)
{
    const int64_t kRows = 512; // of the result at a time: they stay in the first cache
    for (int64_t i0 = 0; i0 < m; i0 += kRows) {
        const int64_t rows = std::min(kRows, m - i0);
        int64_t j = 0;
        for (; j + 4 <= n; j += 4) {
            float *s0 = sum + j * m + i0, *s1 = s0 + m, *s2 = s1 + m, *s3 = s2 + m;
            for (int64_t l = k0; l < k1; l++) {
                const float *col = a + l * m + i0;
                const float b0 = b[j * k + l], b1 = b[(j + 1) * k + l], b2 = b[(j + 2) * k + l], b3 = b[(j + 3) * k + l];
                for (int64_t i = 0; i < rows; i++) {
                    s0[i] += col[i] * b0;
                    s1[i] += col[i] * b1;
                    s2[i] += col[i] * b2;
                    s3[i] += col[i] * b3;
                }
            }
        }
        for (; j < n; j++)
            for (int64_t l = k0; l < k1; l++)
                for (int64_t i = 0; i < rows; i++) sum[j * m + i0 + i] += a[l * m + i0 + i] * b[j * k + l];
    }
}

static float activate(float v, Activation act)
{
    if (act == Activation::Relu) return v > 0 ? v : 0;
    if (act == Activation::Gelu) return 0.5f * v * (1.0f + tanhf(0.7978845608f * (v + 0.044715f * v * v * v)));
    return v;
}

static void run_one(const Problem &p, int64_t index)
{
    const int64_t m = p.m, n = p.n, k = p.k;
    std::vector<float> sum(static_cast<size_t>(m * n));
    if (k > 0 && p.alpha != 0.0f) {
        const std::vector<float> a = pack(p.a, index * p.a.stride, m, k, p.tf32), b = pack(p.b, index * p.b.stride, k, n, p.tf32);
        std::vector<float> part;
        for (int s = 0; s < p.splits; s++) {
            const int64_t at = p.reversed ? p.splits - 1 - s : s, k0 = k * at / p.splits, k1 = k * (at + 1) / p.splits;
            if (s == 0) {
                multiply(a.data(), b.data(), sum.data(), m, n, k, k0, k1);
                continue;
            }
            part.assign(sum.size(), 0.0f);
            multiply(a.data(), b.data(), part.data(), m, n, k, k0, k1);
            for (size_t i = 0; i < sum.size(); i++) sum[i] += part[i];
        }
    }
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) {
            const int64_t at_c = index * p.c.stride + (p.c.across ? i * p.c.ld + j : i + j * p.c.ld);
            const int64_t at_d = index * p.d.stride + (p.d.across ? i * p.d.ld + j : i + j * p.d.ld);
            float v = p.alpha * sum[static_cast<size_t>(j * m + i)];
            if (p.beta != 0.0f) v += p.beta * load(p.c.p, at_c, p.c.type);
            if (p.bias) v += load(p.bias, i, p.d.type);
            store(const_cast<void *>(p.d.p), at_d, p.d.type, activate(v, p.act));
        }
    // A split product leaves its parts there; whoever shares the workspace with another stream sees rubbish.
    if (p.workspace && p.workspace_bytes) memset(p.workspace, 0xff, p.workspace_bytes);
}

// The ranges that an operand covers: one where lines follow each other, else one a line.
static void ranges(const Operand &o, int batch, Touch how, std::vector<Access> *out)
{
    const size_t size = element_bytes(o.type);
    const char *base = static_cast<const char *>(o.p);
    if (!base || o.line == 0 || o.lines == 0) return;
    const int64_t whole = (o.lines - 1) * o.ld + o.line;
    const bool apart = o.ld > o.line && o.lines <= 4096;
    const bool one = !apart && (batch == 1 || o.stride == whole || (o.stride == o.lines * o.ld && o.ld == o.line));
    if (one) {
        out->push_back({base, static_cast<size_t>((batch - 1) * o.stride + whole) * size, how});
        return;
    }
    for (int64_t i = 0; i < (o.stride ? batch : 1); i++)
        for (int64_t l = 0; l < (apart ? o.lines : 1); l++)
            out->push_back({base + static_cast<size_t>(i * o.stride + l * o.ld) * size,
                            static_cast<size_t>(apart ? o.line : whole) * size, how});
}

// Whether all of an operand lies in memory that the device can use; `why` says what not.
static bool in_bounds(const char *api, int batch, const Operand &o, int device, std::string *why)
{
    if (o.line == 0 || o.lines == 0) return true;
    const size_t bytes = static_cast<size_t>((batch - 1) * o.stride + (o.lines - 1) * o.ld + o.line) * element_bytes(o.type);
    const Memory m = memory_at(o.p);
    char text[256];
    if (!m.known) {
        snprintf(text, sizeof text, "%s: operand %s is in no memory of a device", api, o.name);
        *why = text;
        return false;
    }
    const size_t at = static_cast<size_t>(static_cast<const char *>(o.p) - m.base);
    if (at + bytes > m.bytes) {
        snprintf(text, sizeof text,
                 "%s: operand %s (%lld lines of %lld, ld %lld, %d in the batch) takes bytes %zu..%zu of an allocation of %zu", api,
                 o.name, static_cast<long long>(o.lines), static_cast<long long>(o.line), static_cast<long long>(o.ld), batch, at,
                 at + bytes, m.bytes);
        *why = text;
        return false;
    }
    if (m.type == cudaMemoryTypeDevice && m.device != device) { // could be reached, but no product of ours should go over the link
        snprintf(text, sizeof text, "%s on device %d: operand %s is on device %d", api, device, o.name, m.device);
        *why = text;
        return false;
    }
    if (reinterpret_cast<uintptr_t>(o.p) % element_bytes(o.type)) {
        snprintf(text, sizeof text, "%s: operand %s is not aligned to its elements", api, o.name);
        *why = text;
        return false;
    }
    return true;
}

static void poison(const Operand &o)
{
    const Memory m = memory_at(o.p);
    if (!m.known) return;
    const size_t at = static_cast<size_t>(static_cast<const char *>(o.p) - m.base);
    const size_t want = static_cast<size_t>((o.lines - 1) * o.ld + o.line) * element_bytes(o.type);
    memset(const_cast<void *>(o.p), 0xff, std::min(want, m.bytes - at));
}

static bool overlap(const Operand &x, const Operand &y)
{
    const char *a = static_cast<const char *>(x.p), *b = static_cast<const char *>(y.p);
    const size_t na = static_cast<size_t>((x.lines - 1) * x.ld + x.line) * element_bytes(x.type);
    const size_t nb = static_cast<size_t>((y.lines - 1) * y.ld + y.line) * element_bytes(y.type);
    return a < b + nb && b < a + na;
}

cublasStatus_t submit(const Problem &p, cudaStream_t stream, const Site &site)
{
    const StreamInfo info = stream_info(stream);
    if (!info.valid) return CUBLAS_STATUS_EXECUTION_FAILED;
    if (device_dead(info.device)) return CUBLAS_STATUS_EXECUTION_FAILED;
    if (p.m == 0 || p.n == 0) return CUBLAS_STATUS_SUCCESS;
    std::string why;
    bool sane = in_bounds(p.api, p.batch, p.d, info.device, &why);
    if (p.k > 0)
        sane = in_bounds(p.api, p.batch, p.a, info.device, &why) && in_bounds(p.api, p.batch, p.b, info.device, &why) && sane;
    if (sane && p.beta != 0.0f) sane = in_bounds(p.api, p.batch, p.c, info.device, &why);
    const Operand bias{"bias", p.bias, p.d.type, p.m, 1, p.m, 0, false};
    if (sane && p.bias) sane = in_bounds(p.api, 1, bias, info.device, &why);
    if (sane && p.batch == 1 && p.k > 0 && (overlap(p.d, p.a) || overlap(p.d, p.b))) {
        why = std::string(p.api) + ": the result overlaps an operand that is multiplied";
        sane = false;
    }
    Work w{"gemm", site, nullptr, {}};
    const int device = info.device;
    if (!sane) {
        Lock l;
        finding("bad operand: %s", why.c_str());
    }
    if (sane) {
        if (p.k > 0) ranges(p.a, p.batch, Touch::Read, &w.accesses);
        if (p.k > 0) ranges(p.b, p.batch, Touch::Read, &w.accesses);
        if (p.beta != 0.0f) ranges(p.c, p.batch, Touch::Read, &w.accesses);
        if (p.bias) ranges(bias, 1, Touch::Read, &w.accesses);
        ranges(p.d, p.batch, Touch::Write, &w.accesses);
        if (p.workspace && p.workspace_bytes) w.accesses.push_back({p.workspace, p.workspace_bytes, Touch::Write});
    }
    w.run = [p, sane, device] {
        const int injected = async_fault("gemm");
        if (injected) return kill_device(device, static_cast<cudaError_t>(injected), std::string("injected fault of ") + p.api);
        if (!sane) return poison(p.d);
        for (int i = 0; i < p.batch; i++) run_one(p, i);
    };
    return enqueue(stream, std::move(w)) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

cublasStatus_t enter_blas(const char *api, int usual, Call kind)
{
    return static_cast<cublasStatus_t>(fault(api, usual, kind));
}

bool types_known(cudaDataType ab, cudaDataType cd, cublasComputeType_t compute, bool *tf32)
{
    *tf32 = false;
    const bool f32 = compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC;
    if (ab == CUDA_R_32F) {
        *tf32 = compute == CUBLAS_COMPUTE_32F_FAST_TF32;
        return cd == CUDA_R_32F && (f32 || *tf32);
    }
    return (ab == CUDA_R_16F || ab == CUDA_R_16BF) && (cd == ab || cd == CUDA_R_32F) && f32;
}

const char *status_name(cublasStatus_t s)
{
    switch (s) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR: return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "CUBLAS_STATUS_LICENSE_ERROR";
    }
}

// ---- handles ----
Handles::~Handles()
{
    Lock l;
    for (const Entry &e : live_) finding("leak: a %s was not destroyed (%s)", what_, e.site.what);
}
void Handles::add(const void *h, const Site &site)
{
    Lock l;
    live_.push_back({h, site});
}
bool Handles::known(const void *h)
{
    Lock l;
    for (const Entry &e : live_)
        if (e.h == h) return true;
    finding("a %s is used that does not exist (any more)", what_);
    return false;
}
bool Handles::remove(const void *h)
{
    Lock l;
    for (size_t i = 0; i < live_.size(); i++)
        if (live_[i].h == h) {
            live_.erase(live_.begin() + static_cast<long>(i));
            return true;
        }
    finding("a %s is destroyed that does not exist (any more)", what_);
    return false;
}

} // namespace sim
