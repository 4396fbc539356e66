/* Inputs for kernel tests: seeded values, poisoned padding, guard words past the end, and every instruction set in turn. */
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

extern "C" {
#include "kernels/bf16.h"
#include "kernels/cpu.h"
}

namespace mt {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/** Values in [-1, 1], the same for the same seed. */
inline std::vector<float> values(size_t n, unsigned seed, float scale = 1.0f)
{
    std::mt19937 gen(seed);
    std::vector<float> v(n);
    for (float &x : v) x = scale * (static_cast<float>(gen() >> 8) / 8388608.0f - 1.0f);
    return v;
}

inline std::vector<uint16_t> to_bf16(const std::vector<float> &v)
{
    std::vector<uint16_t> out(v.size());
    for (size_t i = 0; i < v.size(); i++) out[i] = stm_bf16_of(v[i]);
    return out;
}

inline std::vector<float> rounded(const std::vector<float> &v)
{
    std::vector<float> out(v.size());
    for (size_t i = 0; i < v.size(); i++) out[i] = stm_bf16_to(stm_bf16_of(v[i]));
    return out;
}

/** A 64-byte aligned array with guard words behind it; starts as a pattern that is a NaN in f32 and in bf16. */
template <class T> class Guarded {
public:
    explicit Guarded(size_t n) : n_(n), store_(n * sizeof(T) + 2 * kGuard + 64)
    {
        base_ = reinterpret_cast<unsigned char *>((reinterpret_cast<uintptr_t>(store_.data()) + 63) / 64 * 64);
        memset(base_, 0xff, n * sizeof(T));
        memset(base_ + n * sizeof(T), 0xa5, kGuard);
    }
    Guarded(const std::vector<T> &v) : Guarded(v.size()) { memcpy(base_, v.data(), v.size() * sizeof(T)); }
    T *data() { return reinterpret_cast<T *>(base_); }
    T &operator[](size_t i) { return data()[i]; }
    size_t size() const { return n_; }
    bool intact() const
    {
        for (size_t i = 0; i < kGuard; i++)
            if (base_[n_ * sizeof(T) + i] != 0xa5) return false;
        return true;
    }

private:
    static constexpr size_t kGuard = 64;
    size_t n_;
    std::vector<unsigned char> store_;
    unsigned char *base_;
};

/** Instruction sets this machine has, lowest first. */
inline std::vector<stm_cpu_level> levels()
{
    std::vector<stm_cpu_level> all;
    stm_cpu_limit(STM_CPU_AMX);
    for (int i = 0; i <= stm_cpu(); i++) all.push_back(static_cast<stm_cpu_level>(i));
    return all;
}

/** Uses one level for its own life. */
class AtLevel {
public:
    explicit AtLevel(stm_cpu_level level) { stm_cpu_limit(level); }
    ~AtLevel() { stm_cpu_limit(STM_CPU_AMX); }
};

inline bool same_bits(const float *a, const float *b, size_t n) { return memcmp(a, b, n * sizeof *a) == 0; }

} // namespace mt
