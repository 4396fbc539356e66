/* Inside of libstepmill-cuda.so: what its files share. The module links cudart and nothing of the engine; it reaches the engine
 * through the table that it was opened with. */
#ifndef STM_DEVICE_CUDA_MODULE_H
#define STM_DEVICE_CUDA_MODULE_H

#include <cuda_runtime_api.h>

#include "device/device_ops.h"

MILL_BEGIN_DECLS

/** Set by the entry before anything else is called. */
extern const stm_module_host *stm_cuda_host;

/** What a code of the CUDA runtime means to us (stm_device_verdict). A code that is not known to leave the device well counts as
 *  lost. Threads: any. */
mill_status stm_cuda_status(cudaError_t code);
/** As stm_cuda_status; fills @p err. Also takes the code out of the runtime's own memory of last errors. */
mill_status stm_cuda_check(cudaError_t code, const char *what, const char *file, int line, mill_error *err);

/** A call of the CUDA runtime, or the failure that a test asked for in its place. */
#define STM_CUDA(call) (stm_cuda_host->fault() ? cudaErrorInvalidValue : (call))
/** The status of a call, told in @p err. */
#define STM_CUDA_CHECK(call, what, err) stm_cuda_check(STM_CUDA(call), (what), __FILE__, __LINE__, (err))

/** Table of kernels (kernels/kernels.h). */
const void *stm_cuda_kernels(void);

MILL_END_DECLS

#endif
