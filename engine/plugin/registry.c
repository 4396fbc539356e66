#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "core/filetype.h"
#include "core/text.h"
#include "plugin/step.h"

typedef struct known_type {
    const mill_step_type *type;
    const char *origin; /* owned by its library, or static */
} known_type;

typedef struct library { /* an open shared object */
    void *handle;
    char *path;
} library;

struct stm_registry {
    known_type *types; /* sorted by name */
    size_t n_types, cap_types;
    library *libraries;
    size_t n_libraries, cap_libraries;
};

static const char built_in[] = "built in";

/* ---- asking ------------------------------------------------------------------------------------------------------------- */

/* First place whose name is not below @p name; *found = it is equal. */
static size_t place_of(const stm_registry *reg, const char *name, bool *found)
{
    size_t low = 0, high = reg->n_types;

    while (low < high) {
        const size_t mid = low + (high - low) / 2;

        if (strcmp(reg->types[mid].type->name, name) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *found = low < reg->n_types && strcmp(reg->types[low].type->name, name) == 0;
    return low;
}

const mill_step_type *stm_registry_find(const stm_registry *reg, const char *name)
{
    bool found;
    const size_t i = place_of(reg, name, &found);

    return found ? reg->types[i].type : NULL;
}

size_t stm_registry_count(const stm_registry *reg) { return reg->n_types; }

const mill_step_type *stm_registry_at(const stm_registry *reg, size_t i) { return i < reg->n_types ? reg->types[i].type : NULL; }

const char *stm_registry_origin(const stm_registry *reg, size_t i) { return i < reg->n_types ? reg->types[i].origin : NULL; }

/* ---- adding ------------------------------------------------------------------------------------------------------------- */

static mill_status check_plugin(const mill_plugin *p, mill_error *err)
{
    if (p == NULL) return mill_fail(err, MILL_ERR_INVALID, "%s returned NULL", MILL_PLUGIN_ENTRY);
    if (p->struct_size < sizeof(mill_plugin))
        return mill_fail(err, MILL_ERR_INVALID, "struct_size is %zu, version 1 of mill_plugin has %zu bytes", p->struct_size,
                         sizeof(mill_plugin));
    if (p->abi != MILL_ABI_1)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "it is made for version %u of the step interface, this is version %u",
                         (unsigned)p->abi, MILL_ABI_1);
    if (p->name == NULL || p->name[0] == '\0') return mill_fail(err, MILL_ERR_INVALID, "the plugin has no name");
    if (p->n_types > 0 && p->types == NULL)
        return mill_fail(err, MILL_ERR_INVALID, "it has %zu step types but no table of them", p->n_types);
    return MILL_OK;
}

static mill_status insert(stm_registry *reg, const mill_step_type *type, const char *origin, mill_error *err)
{
    bool found;
    size_t at;
    mill_status st = stm_step_type_check(type, err);

    if (st != MILL_OK) return st;
    at = place_of(reg, type->name, &found);
    if (found) return mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" is there already (%s)", type->name, reg->types[at].origin);
    if (stm_grow(&reg->types, &reg->cap_types, reg->n_types + 1, sizeof *reg->types) != 0)
        return mill_fail(err, MILL_ERR_NOMEM, "out of memory for step types");
    memmove(&reg->types[at + 1], &reg->types[at], (reg->n_types - at) * sizeof *reg->types);
    reg->types[at] = (known_type){.type = type, .origin = origin};
    reg->n_types++;
    return MILL_OK;
}

/* Forget the types of @p plugin that came from @p origin: those before place n of its table. */
static void take_back(stm_registry *reg, const mill_plugin *plugin, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool found;
        const size_t at = place_of(reg, plugin->types[i]->name, &found);

        memmove(&reg->types[at], &reg->types[at + 1], (reg->n_types - at - 1) * sizeof *reg->types);
        reg->n_types--;
    }
}

static mill_status add(stm_registry *reg, const mill_plugin *plugin, const char *origin, mill_error *err)
{
    mill_status st = check_plugin(plugin, err);

    if (st != MILL_OK) return st;
    for (size_t i = 0; i < plugin->n_types; i++) {
        if ((st = insert(reg, plugin->types[i], origin, err)) == MILL_OK) continue;
        take_back(reg, plugin, i);
        return st;
    }
    return MILL_OK;
}

mill_status stm_registry_add(stm_registry *reg, const mill_plugin *plugin, mill_error *err)
{
    return add(reg, plugin, plugin != NULL && plugin->name != NULL ? plugin->name : "?", err);
}

/* ---- plugins -------------------------------------------------------------------------------------------------------------- */

static mill_status open_library(const char *path, library *lib, mill_error *err)
{
    const char *why;
    mill_status st;

    if (stm_fault_fires(STM_FAULT_LOAD)) return mill_fail(err, MILL_ERR_IO, "cannot open the plugin (fault injected)");
    if (access(path, R_OK) != 0)
        return mill_fail(err, errno == ENOENT || errno == ENOTDIR ? MILL_ERR_NOT_FOUND : MILL_ERR_IO, "cannot open the plugin: %s",
                         strerror(errno));
    if ((st = stm_filetype_check(path, err)) != MILL_OK) return st;
    dlerror();
    lib->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (lib->handle != NULL) return MILL_OK;
    why = dlerror();
    return mill_fail(err, MILL_ERR_INVALID, "cannot open the plugin: %s", why != NULL ? why : "unknown cause");
}

static mill_status enter(const library *lib, const mill_plugin **plugin, mill_error *err)
{
    void *symbol = dlsym(lib->handle, MILL_PLUGIN_ENTRY);
    mill_plugin_entry entry;

    if (symbol == NULL)
        return mill_fail(err, MILL_ERR_INVALID, "it is no plugin of stepmill: it does not export %s", MILL_PLUGIN_ENTRY);
    memcpy(&entry, &symbol, sizeof entry); /* C has no cast from object to function pointer; POSIX promises the bits */
    *plugin = entry();
    return MILL_OK;
}

static void close_library(library *lib)
{
    if (lib->handle != NULL) dlclose(lib->handle);
    stm_free(lib->path);
    *lib = (library){0};
}

/* "x.so" would be looked for in the library path: "./x.so" is what the user means. */
static char *plain_path(const char *path)
{
    const size_t n = strlen(path);
    char *p;

    if (strchr(path, '/') != NULL) return stm_strdup(path);
    if ((p = stm_malloc(n + 3)) == NULL) return NULL;
    memcpy(p, "./", 2);
    memcpy(p + 2, path, n + 1);
    return p;
}

static mill_status open_plugin(stm_registry *reg, const char *path, mill_error *err)
{
    const mill_plugin *plugin = NULL;
    library lib = {0};
    mill_status st;

    if (stm_grow(&reg->libraries, &reg->cap_libraries, reg->n_libraries + 1, sizeof *reg->libraries) != 0 ||
        (lib.path = plain_path(path)) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a plugin");
    if ((st = open_library(lib.path, &lib, err)) != MILL_OK) goto fail;
    for (size_t i = 0; i < reg->n_libraries; i++) {
        if (reg->libraries[i].handle != lib.handle) continue;
        close_library(&lib); /* open already, perhaps by another name */
        return MILL_OK;
    }
    if ((st = enter(&lib, &plugin, err)) != MILL_OK) goto fail;
    if ((st = add(reg, plugin, lib.path, err)) != MILL_OK) goto fail;
    if (plugin == NULL || plugin->n_types == 0) {
        st = mill_fail(err, MILL_ERR_INVALID, "the plugin has no step types");
        goto fail;
    }
    reg->libraries[reg->n_libraries++] = lib;
    return MILL_OK;
fail:
    close_library(&lib);
    return st;
}

mill_status stm_registry_open(stm_registry *reg, const char *path, mill_error *err)
{
    mill_error inner = {0};
    mill_status st = open_plugin(reg, path, &inner);

    if (st == MILL_OK) return MILL_OK;
    mill_error_context(&inner, "plugin %s", path);
    if (inner.phase == MILL_PHASE_NONE) inner.phase = MILL_PHASE_CHECK;
    if (err != NULL && err->status == MILL_OK) *err = inner;
    return st;
}

mill_status stm_registry_create(stm_registry **out, mill_error *err)
{
    stm_registry *reg = stm_calloc(sizeof *reg);
    mill_status st;

    if (reg == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for step types");
    if ((st = add(reg, stm_builtin_steps(), built_in, err)) != MILL_OK) {
        stm_registry_destroy(&reg);
        return st;
    }
    *out = reg;
    return MILL_OK;
}

void stm_registry_destroy(stm_registry **reg)
{
    if (*reg == NULL) return;
    for (size_t i = (*reg)->n_libraries; i-- > 0;) close_library(&(*reg)->libraries[i]);
    stm_free((*reg)->libraries);
    stm_free((*reg)->types);
    stm_free(*reg);
    *reg = NULL;
}
