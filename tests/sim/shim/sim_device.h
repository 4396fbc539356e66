// Force-included when a .cu file is compiled as C++17 for the simulator: CUDA's words for a host compiler. What nvcc's headers
// give to device code only is in the files included below; the macros of kernels/stm_cuda.h have their simulated form here.
#pragma once
#define STM_SIM 1
#include "../exec/abi.h"
#include <cmath>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <type_traits>
#include <utility>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __managed__
#undef __forceinline__
#undef __noinline__ // standard headers use the word as an attribute
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ use_STM_SHARED_instead // threads of one host thread, blocks of several: neither static nor thread_local fits

#define STM_SIM_TEXT2(x) #x
#define STM_SIM_TEXT(x) STM_SIM_TEXT2(x)
#define STM_SIM_SITE (__FILE__ ":" STM_SIM_TEXT(__LINE__))

static const int warpSize = 32;

extern "C" void stm_sim_touch(const void *p, size_t bytes, int how /* 0 read, 1 write, 2 atomic */);

namespace stm_sim {

// ---- launches: how a kernel is called from the runtime's array of argument pointers ----
template <class A> constexpr stm_sim_arg arg_of()
{
    using T = std::remove_pointer_t<A>;
    return {sizeof(A), alignof(A) < 8 ? 8 : alignof(A),
            !std::is_pointer_v<A> ? STM_SIM_ARG_VALUE : std::is_const_v<T> ? STM_SIM_ARG_READ : STM_SIM_ARG_WRITE};
}
template <class... A> struct Signature {
    static inline const stm_sim_arg args[sizeof...(A) + 1] = {arg_of<A>()..., {0, 1, STM_SIM_ARG_VALUE}};
    template <size_t... I> static void call(void (*kernel)(A...), void **a, std::index_sequence<I...>)
    {
        kernel(*static_cast<A *>(a[I])...);
    }
    static void invoke(const void *entry, void **a)
    {
        call(reinterpret_cast<void (*)(A...)>(const_cast<void *>(entry)), a, std::index_sequence_for<A...>{});
    }
};
// Known to the runtime from the moment the program is loaded: the swap run finds kernels before this program launches any.
template <auto K> struct Registered;
template <class... A, void (*K)(A...)> struct Registered<K> {
    static int make()
    {
        const stm_sim_kernel kernel = {reinterpret_cast<const void *>(K), &Signature<A...>::invoke, Signature<A...>::args,
                                       sizeof...(A), "kernel"};
        stm_sim_register(&kernel);
        return 1;
    }
    static inline const int done = make();
};
template <auto K> struct Launch;
template <class... A, void (*K)(A...)> struct Launch<K> {
    static cudaError_t go(const cudaLaunchConfig_t &config, A... a)
    {
        (void)Registered<K>::done;
        void *args[] = {static_cast<void *>(&a)..., nullptr};
        return cudaLaunchKernelExC(&config, reinterpret_cast<const void *>(K), args);
    }
};
template <auto K> const void *entry_of()
{
    (void)Registered<K>::done;
    return reinterpret_cast<const void *>(K);
}

} // namespace stm_sim

// ---- kernels/stm_cuda.h, simulated ----
#define STM_SHARED(T, name, ...)       \
    static const char name##_tag_ = 0; \
    auto &name = *static_cast<T(*) __VA_ARGS__>(stm_sim_shared(&name##_tag_, sizeof(T __VA_ARGS__), alignof(T), #name))
#define STM_DYN_SHARED(T, name) T *name = static_cast<T *>(stm_sim_self->dynamic)
#define STM_SPIN() stm_sim_spin(STM_SIM_SITE)
#define STM_KERNEL(kernel) (::stm_sim::entry_of<(kernel)>())
#define STM_LAUNCH_WITH(config, kernel, ...) (::stm_sim::Launch<(kernel)>::go((config), __VA_ARGS__))
#define STM_READS(p, bytes) stm_sim_touch((p), (bytes), 0)
#define STM_WRITES(p, bytes) stm_sim_touch((p), (bytes), 1)
#define STM_UPDATES(p, bytes) stm_sim_touch((p), (bytes), 2)
#define STM_BAR_SYNC(id, threads) stm_sim_barrier((id), (threads), STM_SIM_SITE)

#include "sim_atomics.h"
#include "sim_math.h"
#include "sim_warp.h"
