#include "plugin/modules.h"

#include <limits.h>
#include <string.h>

#include "core/text.h"
#include "device/library.h"

static const struct {
    const char *type, *module, *needs;
} known[] = {
    {"chat", "libstepmill-http.so", "libcurl when it is built (scripts/deps.sh core)"},
    {"complete", "libstepmill-http.so", "libcurl when it is built (scripts/deps.sh core)"},
    {"embed_remote", "libstepmill-http.so", "libcurl when it is built (scripts/deps.sh core)"},
    {"read_parquet", "libstepmill-parquet.so", "pyarrow when it is built (scripts/deps.sh core)"},
    {"write_parquet", "libstepmill-parquet.so", "pyarrow when it is built (scripts/deps.sh core)"},
};

mill_status stm_registry_want_all(stm_registry *reg, mill_error *err)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const mill_status st = stm_registry_want(reg, known[i].type, NULL);
        if (st == MILL_ERR_NOMEM) return mill_fail(err, st, "opening the module %s", known[i].module);
    }
    return MILL_OK;
}

mill_status stm_registry_want(stm_registry *reg, const char *name, mill_error *err)
{
    char path[2 * PATH_MAX];

    if (stm_registry_find(reg, name) != NULL) return MILL_OK;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].type, name) != 0) continue;
        if (stm_module_find(known[i].module, path, sizeof path, NULL) == MILL_OK) {
            const mill_status st = stm_module_needs(path, err);
            if (st != MILL_OK) mill_error_context(err, "for step type \"%s\"", name);
            return st == MILL_OK ? stm_registry_open(reg, path, err) : st;
        }
        mill_fail(err, MILL_ERR_UNSUPPORTED, "step type \"%s\" is in the module %s, which is not there", name, known[i].module);
        mill_error_remedy(err, "It needs %s", known[i].needs);
        return MILL_ERR_UNSUPPORTED;
    }
    return MILL_OK;
}

/* Of modules that are not open, too: one is opened when a type of it is named right. */
const char *stm_registry_nearest(const stm_registry *reg, const char *name)
{
    const size_t open = stm_registry_count(reg), n = open + sizeof known / sizeof known[0];
    const char *best = NULL;

    for (size_t i = 0; i < n; i++) {
        const char *two[2] = {best, i < open ? stm_registry_at(reg, i)->name : known[i - open].type};

        best = stm_nearest(name, two, 2);
    }
    return best;
}
