#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "comm/comm.h"
#include "device/library.h"
#include "device/registry.h"

#define NCCL_MODULE "libstepmill-nccl.so"

static struct {
    pthread_mutex_t lock;
    const stm_comm_ops *nccl; /* lock; never closed, as the CUDA module */
} loaded = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* With the lock held. */
static mill_status open_nccl(mill_error *err)
{
    char path[1024];
    stm_comm_entry entry;
    const stm_comm_ops *ops;
    void *handle = NULL;
    mill_status st = stm_module_find(NCCL_MODULE, path, sizeof path, err);

    if (st == MILL_OK) st = stm_module_open(path, &handle, NULL, 0, err);
    if (st != MILL_OK) return st;
    *(void **)&entry = dlsym(handle, STM_COMM_ENTRY);
    ops = entry != NULL ? entry(stm_backend_host()) : NULL;
    if (ops == NULL || ops->abi != STM_COMM_ABI || ops->struct_size != sizeof *ops) {
        dlclose(handle);
        mill_fail(err, MILL_ERR_UNSUPPORTED, "%.200s is of another version of stepmill", path);
        mill_error_remedy(err, "Install the library and its modules together");
        return MILL_ERR_UNSUPPORTED;
    }
    loaded.nccl = ops;
    return MILL_OK;
}

mill_status stm_comm_find(const char *name, const stm_comm_ops **out, mill_error *err)
{
    mill_status st = MILL_OK;

    if (strcmp(name, "cpu") == 0) {
        *out = &stm_comm_cpu;
        return MILL_OK;
    }
    if (strcmp(name, "nccl") != 0)
        return mill_fail(err, MILL_ERR_NOT_FOUND, "there is no communication library \"%.40s\": cpu, nccl", name);
    pthread_mutex_lock(&loaded.lock);
    if (loaded.nccl == NULL) st = open_nccl(err);
    if (st == MILL_OK) *out = loaded.nccl;
    pthread_mutex_unlock(&loaded.lock);
    return st;
}
