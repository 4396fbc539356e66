// What host objects compiled by nvcc (13.0) call: registration of their kernels, and the launch by <<<>>>. With these the very
// binary that goes to users runs on the simulator (STM_SIM_KERNELS names the kernels' CPU bodies).
#include "state.h"

namespace sim {
void register_stub(const void *stub, const char *mangled);
}
using namespace sim;

struct CallConfiguration {
    dim3 grid, block;
    size_t dynamic_bytes;
    cudaStream_t stream;
};
static thread_local CallConfiguration call;

extern "C" {

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t dynamic_bytes, cudaStream_t stream)
{
    call = {grid, block, dynamic_bytes, stream};
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *dynamic_bytes, void *stream)
{
    *grid = call.grid;
    *block = call.block;
    *dynamic_bytes = call.dynamic_bytes;
    *static_cast<cudaStream_t *>(stream) = call.stream;
    return cudaSuccess;
}
void **__cudaRegisterFatBinary(void *)
{
    static void *handle;
    return &handle;
}
void __cudaRegisterFatBinaryEnd(void **) {}
void __cudaUnregisterFatBinary(void **) {}
char __cudaInitModule(void **) { return 1; }
void __cudaRegisterFunction(void **, const char *stub, char *, const char *mangled, int, uint3 *, uint3 *, dim3 *, dim3 *, int *)
{
    register_stub(stub, mangled);
}
void __cudaRegisterVar(void **, char *, char *, const char *, int, size_t, int, int) {}
cudaError_t __cudaGetKernel(cudaKernel_t *out, const void *stub)
{
    *out = reinterpret_cast<cudaKernel_t>(const_cast<void *>(stub));
    return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **args, size_t dynamic_bytes, cudaStream_t stream)
{
    return cudaLaunchKernel(reinterpret_cast<const void *>(kernel), grid, block, args, dynamic_bytes, stream);
}

} // extern "C"
