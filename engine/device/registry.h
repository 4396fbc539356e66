/* The backends of this process: cpu, and cuda where its module and a driver are. */
#ifndef STM_DEVICE_REGISTRY_H
#define STM_DEVICE_REGISTRY_H

#include "device/device_ops.h"

/**
 * The backend of that name; the first call for "cuda" finds and opens libstepmill-cuda.so, which stays open. Whether there are
 * devices: ops->count.
 * @retval MILL_ERR_NOT_FOUND    no backend of that name, or its module is not there.
 * @retval MILL_ERR_UNSUPPORTED  the module, or a library that it needs, cannot be opened; @p err says which and why.
 * Threads: any. Blocks: on reading files.
 */
mill_status stm_backend_find(const char *name, const stm_device_ops **out, mill_error *err);

/** What was found, for people. */
typedef struct stm_backend_report {
    const stm_device_ops *ops; /* NULL: the module could not be used; reason says why */
    int32_t devices;           /* 0 with ops set: reason says why */
    char module[512];          /* path; empty = not found */
    char libraries[512];       /* which were opened for it, and where */
    char reason[704];
} stm_backend_report;
void stm_backend_explain(const char *name, stm_backend_report *out);

/** What the engine gives its modules; constant. */
const stm_module_host *stm_backend_host(void);

/** As the module host's `library`. */
void *stm_backend_library(const char *soname, mill_error *err);

#endif
