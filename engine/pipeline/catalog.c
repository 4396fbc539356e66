/* What there is: step types, devices, the schema of the pipeline file. */
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "device/registry.h"
#include "pipeline/placing.h"
#include "placement/limits.h"
#include "plugin/describe.h"
#include "plugin/modules.h"

static mill_status open_registry(const char *const *plugins, size_t n, stm_registry **out, mill_error *err)
{
    stm_registry *reg = NULL;
    mill_status st = stm_registry_create(&reg, err);

    for (size_t i = 0; i < n && st == MILL_OK; i++) {
        char *path = stm_path_absolute(NULL, plugins[i]);

        st = path != NULL ? stm_registry_open(reg, path, err) : mill_fail(err, MILL_ERR_NOMEM, "opening plugin %s", plugins[i]);
        stm_free(path);
    }
    if (st != MILL_OK)
        stm_registry_destroy(&reg);
    else
        *out = reg;
    return st;
}

/* ---- step types -------------------------------------------------------------------------------------------------- */

mill_status mill_types_list(const char *const *plugins, size_t n_plugins, mill_format format, char **out, mill_error *err)
{
    stm_registry *reg = NULL;
    stm_text t = {0};
    mill_status st = open_registry(plugins, n_plugins, &reg, err);
    size_t n;
    int width = 4;

    if (st != MILL_OK) return st;
    if ((st = stm_registry_want_all(reg, err)) != MILL_OK) {
        stm_registry_destroy(&reg);
        return st;
    }
    n = stm_registry_count(reg);
    for (size_t i = 0; i < n; i++)
        if ((int)strlen(stm_registry_at(reg, i)->name) > width) width = (int)strlen(stm_registry_at(reg, i)->name);
    if (format == MILL_FORMAT_JSON) stm_text_addf(&t, "[");
    for (size_t i = 0; i < n; i++) {
        const mill_step_type *type = stm_registry_at(reg, i);

        if (format == MILL_FORMAT_JSON) {
            stm_text_addf(&t, "%s", i > 0 ? ",\n" : "");
            stm_describe_json(type, stm_registry_origin(reg, i), &t);
        } else {
            stm_text_addf(&t, "%-*s  %-9s  %s\n", width, type->name, stm_kind_name(type->kind),
                          type->summary != NULL ? type->summary : "");
        }
    }
    if (format == MILL_FORMAT_JSON) stm_text_addf(&t, "]\n");
    stm_registry_destroy(&reg);
    return stm_text_hand_out(&t, out, err);
}

mill_status mill_types_describe(const char *const *plugins, size_t n_plugins, const char *name, mill_format format, char **out,
                                mill_error *err)
{
    stm_registry *reg = NULL;
    stm_text t = {0};
    const char *near;
    mill_status st = open_registry(plugins, n_plugins, &reg, err);
    bool found = false;

    if (st != MILL_OK) return st;
    st = stm_registry_want(reg, name, err);
    for (size_t i = 0; i < stm_registry_count(reg) && !found; i++) {
        const mill_step_type *type = stm_registry_at(reg, i);

        if (strcmp(type->name, name) != 0) continue;
        found = true;
        if (format == MILL_FORMAT_JSON) {
            stm_describe_json(type, stm_registry_origin(reg, i), &t);
            stm_text_addf(&t, "\n");
        } else {
            stm_describe_text(type, stm_registry_origin(reg, i), &t);
        }
    }
    if (!found && st == MILL_OK) {
        near = stm_registry_nearest(reg, name);
        st = mill_fail(err, MILL_ERR_NOT_FOUND, "unknown step type \"%.80s\"", name);
        if (near != NULL) mill_error_remedy(err, "Did you mean \"%s\"?", near);
    }
    stm_registry_destroy(&reg);
    return st == MILL_OK ? stm_text_hand_out(&t, out, err) : st;
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

/* Instruction sets that change how fast models run. */
static void add_isa(stm_text *t, const char *separator, const char *quote)
{
#if defined(__x86_64__)
    struct {
        bool has;
        const char *name;
    } sets[] = {
        {__builtin_cpu_supports("avx2") != 0, "avx2"},
        {__builtin_cpu_supports("avx512f") != 0, "avx512"},
        {__builtin_cpu_supports("avx512vnni") != 0, "avx512_vnni"},
        {false, "avx512_bf16"},
        {false, "amx_bf16"},
        {false, "amx_int8"},
    };
    unsigned a, b, c, d;
    bool first = true;

    if (__builtin_cpu_supports("avx512f") != 0) { /* leaf 7: what older compilers' built-in does not know */
        __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(1));
        sets[3].has = (a >> 5 & 1) != 0;
        __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
        sets[4].has = (d >> 22 & 1) != 0;
        sets[5].has = (d >> 25 & 1) != 0;
    }
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (sets[i].has) {
            stm_text_addf(t, "%s%s%s%s", first ? "" : separator, quote, sets[i].name, quote);
            first = false;
        }
#else
    (void)t, (void)separator, (void)quote;
#endif
}

/* The devices of a backend that is in a module, or why there are none. */
static void add_cuda_text(stm_text *t, const stm_backend_report *r)
{
    char buf[40];

    if (r->devices == 0) stm_text_addf(t, "cuda  none: %s\n", r->reason);
    for (int32_t i = 0; i < r->devices; i++) {
        stm_device_info info;
        mill_error err = {0};
        if (r->ops->info(i, &info, &err) != MILL_OK) {
            stm_text_addf(t, "cuda  %d cannot be read: %s\n", (int)i, err.msg);
            continue;
        }
        stm_text_addf(t, "cuda  %d %s, %s memory, %d multiprocessors, compute capability %d.%d, %s, %s\n", (int)i, info.name,
                      stm_show_bytes((double)info.memory_bytes, buf, sizeof buf), (int)info.processors, (int)info.major,
                      (int)info.minor, info.uuid, info.pci);
    }
    if (r->module[0] != '\0') stm_text_addf(t, "      module %s\n", r->module);
    if (r->libraries[0] != '\0') stm_text_addf(t, "      with %s\n", r->libraries);
}

static void add_member(stm_text *t, const char *name, const char *value)
{
    stm_text_addf(t, "\"%s\":\"", name);
    stm_text_add_json(t, value, strlen(value));
    stm_text_addf(t, "\"");
}

static void add_cuda_json(stm_text *t, const stm_backend_report *r)
{
    bool first = true;

    stm_text_addf(t, "\"cuda\":{\"devices\":[");
    for (int32_t i = 0; i < r->devices; i++) {
        stm_device_info info;
        if (r->ops->info(i, &info, NULL) != MILL_OK) continue;
        stm_text_addf(t, "%s{\"index\":%d,", first ? "" : ",", (int)i);
        add_member(t, "name", info.name);
        stm_text_addf(t, ",\"memory_bytes\":%lld,\"multiprocessors\":%d,\"capability\":\"%d.%d\",", (long long)info.memory_bytes,
                      (int)info.processors, (int)info.major, (int)info.minor);
        add_member(t, "uuid", info.uuid);
        stm_text_addf(t, ",");
        add_member(t, "pci", info.pci);
        stm_text_addf(t, "}");
        first = false;
    }
    stm_text_addf(t, "],");
    add_member(t, "module", r->module);
    stm_text_addf(t, ",");
    add_member(t, "libraries", r->libraries);
    stm_text_addf(t, ",");
    add_member(t, "reason", r->reason);
    stm_text_addf(t, "}");
}

mill_status mill_devices_list(mill_format format, char **out, mill_error *err)
{
    const double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    stm_backend_report cuda;
    stm_topology *here = NULL;
    stm_text t = {0};
    char buf[40], why[256];
    mill_status st = stm_devices_open(NULL, &here, why, err);

    if (st != MILL_OK) return st;
    stm_backend_explain("cuda", &cuda);
    if (format == MILL_FORMAT_JSON) {
        stm_text_addf(&t, "{\"cpu\":{\"cores\":%d,\"memory_bytes\":%.0f,\"isa\":[", stm_cpu_count(), memory);
        add_isa(&t, ",", "\"");
        stm_text_addf(&t, "]},");
        add_cuda_json(&t, &cuda);
        stm_text_addf(&t, ",\"topology\":");
        stm_devices_show(here, "", format, &t);
        stm_text_addf(&t, "}\n");
    } else {
        stm_text_addf(&t, "cpu   %d cores, %s memory, ", stm_cpu_count(), stm_show_bytes(memory, buf, sizeof buf));
        add_isa(&t, " ", "");
        stm_text_addf(&t, "\n");
        add_cuda_text(&t, &cuda);
        stm_devices_show(here, "", format, &t);
    }
    stm_topology_destroy(&here);
    return stm_text_hand_out(&t, out, err);
}
