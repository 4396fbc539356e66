/* Functions in headers that host code and kernels share. */
#ifndef STM_KERNELS_BOTH_H
#define STM_KERNELS_BOTH_H

#ifdef __CUDACC__
#define STM_BOTH static __host__ __device__ __forceinline__
#else
#define STM_BOTH static inline
#endif

#endif
