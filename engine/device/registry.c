#include "device/registry.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "device/library.h"

#define CUDA_MODULE "libstepmill-cuda.so"

static struct {
    pthread_mutex_t lock;
    const stm_device_ops *cuda;     /* lock; never closed: a driver cannot be unloaded */
    char path[512], libraries[512]; /* lock */
} loaded = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool device_fault(void) { return stm_fault_fires(STM_FAULT_DEVICE); }

void *stm_backend_library(const char *soname, mill_error *err)
{
    char path[1024], *slash;
    void *handle = NULL;

    pthread_mutex_lock(&loaded.lock);
    snprintf(path, sizeof path, "%s", loaded.path);
    pthread_mutex_unlock(&loaded.lock);
    if ((slash = strrchr(path, '/')) != NULL) *slash = '\0';
    return stm_library_open(soname, slash != NULL ? path : NULL, &handle, NULL, 0, err) == MILL_OK ? handle : NULL;
}

static const stm_module_host host = {
    .struct_size = sizeof(stm_module_host),
    .abi = STM_DEVICE_ABI,
    .calloc = stm_calloc,
    .free = stm_free,
    .fault = device_fault,
    .fail = mill_fail_at,
    .library = stm_backend_library,
};

const stm_module_host *stm_backend_host(void) { return &host; }

/* With the lock held. */
static mill_status open_cuda(mill_error *err)
{
    stm_device_entry entry;
    const stm_device_ops *ops;
    void *handle = NULL;
    mill_status st;

    if (loaded.path[0] == '\0' && (st = stm_module_find(CUDA_MODULE, loaded.path, sizeof loaded.path, err)) != MILL_OK) {
        loaded.path[0] = '\0';
        return st;
    }
    st = stm_module_open(loaded.path, &handle, loaded.libraries, sizeof loaded.libraries, err);
    if (st != MILL_OK) return st;
    *(void **)&entry = dlsym(handle, STM_DEVICE_ENTRY);
    ops = entry != NULL ? entry(&host) : NULL;
    if (ops == NULL || ops->abi != STM_DEVICE_ABI || ops->struct_size != sizeof *ops) {
        dlclose(handle);
        mill_fail(err, MILL_ERR_UNSUPPORTED, "%.200s is of another version of stepmill", loaded.path);
        mill_error_remedy(err, "Install the library and its modules together");
        return MILL_ERR_UNSUPPORTED;
    }
    loaded.cuda = ops;
    return MILL_OK;
}

mill_status stm_backend_find(const char *name, const stm_device_ops **out, mill_error *err)
{
    mill_status st = MILL_OK;

    if (strcmp(name, "cpu") == 0) {
        *out = &stm_device_cpu;
        return MILL_OK;
    }
    if (strcmp(name, "cuda") != 0)
        return mill_fail(err, MILL_ERR_NOT_FOUND, "there is no device backend \"%.40s\": cpu, cuda", name);
    pthread_mutex_lock(&loaded.lock);
    if (loaded.cuda == NULL) st = open_cuda(err);
    if (st == MILL_OK) *out = loaded.cuda;
    pthread_mutex_unlock(&loaded.lock);
    return st;
}

void stm_backend_explain(const char *name, stm_backend_report *out)
{
    mill_error err = {0};

    memset(out, 0, sizeof *out);
    if (stm_backend_find(name, &out->ops, &err) == MILL_OK && out->ops->count(&out->devices, &err) == MILL_OK && out->devices == 0)
        mill_fail(&err, MILL_ERR_NOT_FOUND, "the driver shows no device (CUDA_VISIBLE_DEVICES may hide them)");
    if (err.status != MILL_OK) {
        out->devices = 0;
        snprintf(out->reason, sizeof out->reason, "%s%s%s", err.msg, err.remedy[0] != '\0' ? ". " : "", err.remedy);
    }
    if (strcmp(name, "cuda") != 0) return;
    pthread_mutex_lock(&loaded.lock);
    snprintf(out->module, sizeof out->module, "%s", loaded.path);
    snprintf(out->libraries, sizeof out->libraries, "%s", loaded.libraries);
    pthread_mutex_unlock(&loaded.lock);
}
