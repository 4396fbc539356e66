#include "plugin/modules.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *type, *module, *needs;
} known[] = {
    {"read_parquet", "libstepmill-parquet.so", "pyarrow when it is built (scripts/deps.sh core)"},
    {"write_parquet", "libstepmill-parquet.so", "pyarrow when it is built (scripts/deps.sh core)"},
};

/* Folder of the shared object or program that this code is in. */
static bool own_folder(char *out, size_t size)
{
    Dl_info info;
    char full[PATH_MAX];

    if (dladdr((void *)(uintptr_t)&stm_registry_want, &info) == 0 || info.dli_fname == NULL) return false;
    /* a program is named as it was started, which need not be a path */
    if (realpath(strchr(info.dli_fname, '/') != NULL ? info.dli_fname : "/proc/self/exe", full) == NULL) return false;
    *strrchr(full, '/') = '\0';
    return (size_t)snprintf(out, size, "%s", full) < size;
}

static bool find(const char *module, char *path, size_t size)
{
    static const char *const places[] = {"%s/%s", "%s/stepmill/%s", "%s/../lib/%s", "%s/../lib/stepmill/%s"};
    const char *asked = getenv("STEPMILL_MODULES");
    char folder[PATH_MAX];

    if (asked != NULL && asked[0] != '\0') {
        snprintf(path, size, "%s/%s", asked, module);
        if (access(path, R_OK) == 0) return true;
    }
    if (!own_folder(folder, sizeof folder)) return false;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(path, size, places[i], folder, module);
        if (access(path, R_OK) == 0) return true;
    }
    return false;
}

mill_status stm_registry_want(stm_registry *reg, const char *name, mill_error *err)
{
    char path[2 * PATH_MAX];

    if (stm_registry_find(reg, name) != NULL) return MILL_OK;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].type, name) != 0) continue;
        if (find(known[i].module, path, sizeof path)) return stm_registry_open(reg, path, err);
        mill_fail(err, MILL_ERR_UNSUPPORTED, "step type \"%s\" is in the module %s, which is not there", name, known[i].module);
        mill_error_remedy(err, "It needs %s", known[i].needs);
        return MILL_ERR_UNSUPPORTED;
    }
    return MILL_OK;
}
