// Atomics: relaxed, as on the device. Floating point ones by compare and swap of their bits.
#pragma once

namespace stm_sim {
template <class T> struct BitsOf {
    using type = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
};
template <class T, class F> inline T atomic_update(T *p, F next)
{
    using B = typename BitsOf<T>::type;
    B *at = reinterpret_cast<B *>(p);
    B seen = __atomic_load_n(at, __ATOMIC_RELAXED), wanted;
    T before;
    do {
        std::memcpy(&before, &seen, sizeof before);
        const T after = next(before);
        std::memcpy(&wanted, &after, sizeof wanted);
    } while (!__atomic_compare_exchange_n(at, &seen, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return before;
}
template <class T> using Same = std::common_type_t<T>; // no deduction from the second argument
} // namespace stm_sim

template <class T> inline T atomicAdd(T *p, stm_sim::Same<T> v)
{
    if constexpr (std::is_integral_v<T>) return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
    else return stm_sim::atomic_update(p, [v](T a) { return static_cast<T>(a + v); });
}
template <class T> inline T atomicSub(T *p, stm_sim::Same<T> v) { return __atomic_fetch_sub(p, v, __ATOMIC_RELAXED); }
template <class T> inline T atomicAnd(T *p, stm_sim::Same<T> v) { return __atomic_fetch_and(p, v, __ATOMIC_RELAXED); }
template <class T> inline T atomicOr(T *p, stm_sim::Same<T> v) { return __atomic_fetch_or(p, v, __ATOMIC_RELAXED); }
template <class T> inline T atomicXor(T *p, stm_sim::Same<T> v) { return __atomic_fetch_xor(p, v, __ATOMIC_RELAXED); }
template <class T> inline T atomicExch(T *p, stm_sim::Same<T> v)
{
    return stm_sim::atomic_update(p, [v](T) { return v; });
}
template <class T> inline T atomicMin(T *p, stm_sim::Same<T> v)
{
    return stm_sim::atomic_update(p, [v](T a) { return v < a ? v : a; });
}
template <class T> inline T atomicMax(T *p, stm_sim::Same<T> v)
{
    return stm_sim::atomic_update(p, [v](T a) { return a < v ? v : a; });
}
template <class T> inline T atomicCAS(T *p, stm_sim::Same<T> expected, stm_sim::Same<T> v)
{
    __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
inline unsigned atomicInc(unsigned *p, unsigned limit)
{
    return stm_sim::atomic_update(p, [limit](unsigned a) { return a >= limit ? 0u : a + 1; });
}
inline unsigned atomicDec(unsigned *p, unsigned limit)
{
    return stm_sim::atomic_update(p, [limit](unsigned a) { return a == 0 || a > limit ? limit : a - 1; });
}
