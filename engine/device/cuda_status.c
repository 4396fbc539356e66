#include "device/cuda_module.h"

mill_status stm_cuda_status(cudaError_t code)
{
    switch (code) {
    case cudaSuccess: return MILL_OK;
    case cudaErrorNotReady: return MILL_ERR_AGAIN;
    case cudaErrorMemoryAllocation: return MILL_ERR_DEVICE_MEM;
    /* Refused before anything ran: the call was wrong or too large, the device is well. */
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidPitchValue:
    case cudaErrorInvalidSymbol:
    case cudaErrorInvalidDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorInvalidMemcpyDirection:
    case cudaErrorInvalidResourceHandle:
    case cudaErrorMissingConfiguration:
    case cudaErrorLaunchOutOfResources:
    case cudaErrorLaunchMaxDepthExceeded:
    case cudaErrorLaunchPendingCountExceeded:
    case cudaErrorCooperativeLaunchTooLarge:
    case cudaErrorHostMemoryAlreadyRegistered:
    case cudaErrorHostMemoryNotRegistered:
    case cudaErrorSymbolNotFound:
    case cudaErrorDuplicateVariableName:
    case cudaErrorDuplicateTextureName:
    case cudaErrorSetOnActiveProcess:
    case cudaErrorGraphExecUpdateFailure:
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
    case cudaErrorStreamCaptureMerge:
    case cudaErrorStreamCaptureUnmatched:
    case cudaErrorStreamCaptureUnjoined:
    case cudaErrorStreamCaptureIsolation:
    case cudaErrorStreamCaptureImplicit:
    case cudaErrorCapturedEvent:
    case cudaErrorStreamCaptureWrongThread: return MILL_ERR_STEP;
    case cudaErrorNotSupported:
    case cudaErrorNotPermitted:
    case cudaErrorPeerAccessUnsupported:
    case cudaErrorTooManyPeers:
    case cudaErrorPeerAccessAlreadyEnabled:
    case cudaErrorPeerAccessNotEnabled:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidKernelImage:
    case cudaErrorInvalidPtx:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorJitCompilerNotFound:
    case cudaErrorJitCompilationDisabled: return MILL_ERR_UNSUPPORTED;
    default: return MILL_ERR_DEVICE; /* illegal addresses, launch failures, memory errors, ... : sticky */
    }
}

mill_status stm_cuda_check(cudaError_t code, const char *what, const char *file, int line, mill_error *err)
{
    const mill_status st = stm_cuda_status(code);

    if (code == cudaSuccess) return MILL_OK;
    (void)cudaGetLastError(); /* else the next launch would report it again */
    if (code == cudaErrorNotReady) return st;
    return stm_cuda_host->fail(err, st, file, line, "%s: %s (%s)", what, cudaGetErrorString(code), cudaGetErrorName(code));
}
