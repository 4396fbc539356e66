/* The machine's GPUs as a pipeline could use them. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "device/registry.h"
#include "pipeline/placing.h"
#include "placement/visible.h"

static mill_status open_file(const char *file, stm_topology **out, char why[256], mill_error *err)
{
    stm_topology *all = NULL;
    char note[160] = "";
    mill_status st = stm_topology_read(file, &all, err);

    if (st != MILL_OK) {
        if (err != NULL && st != MILL_ERR_NOMEM) err->phase = MILL_PHASE_CHECK;
        return st;
    }
    st = stm_visible_topology(all, out, note, err);
    snprintf(why, 256, "%s", all->n_gpus == 0 ? "there is no GPU in this machine" : note);
    stm_topology_destroy(&all);
    return st;
}

/* What CUDA says of its devices, in its order, which is that of CUDA_VISIBLE_DEVICES. */
static mill_status ask_cuda(stm_gpu_info *gpus, int32_t *n, char why[256], mill_error *err)
{
    stm_backend_report cuda;

    stm_backend_explain("cuda", &cuda);
    snprintf(why, 256, "%.250s", cuda.reason);
    *n = 0;
    for (int32_t i = 0; i < cuda.devices && i < STM_TOPOLOGY_MAX_GPUS; i++) {
        stm_device_info info;
        const mill_status st = cuda.ops->info(i, &info, err);

        if (st != MILL_OK) return st; /* a position left out would shift all others */
        gpus[i] = (stm_gpu_info){.memory = info.memory_bytes, .units = info.processors, .numa_node = -1};
        snprintf(gpus[i].uuid, sizeof gpus[i].uuid, "%s", info.uuid);
        snprintf(gpus[i].pci, sizeof gpus[i].pci, "%.15s", info.pci);
        snprintf(gpus[i].name, sizeof gpus[i].name, "%.63s", info.name);
        *n = i + 1;
    }
    return MILL_OK;
}

mill_status stm_devices_open(const char *file, stm_topology **out, char why[256], mill_error *err)
{
    const stm_topology *here = NULL;
    stm_gpu_info *gpus;
    int32_t n;
    mill_status st;

    why[0] = '\0';
    if (file != NULL) return open_file(file, out, why, err);
    if ((gpus = stm_calloc(STM_TOPOLOGY_MAX_GPUS * sizeof *gpus)) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "reading the machine's topology");
    if ((st = ask_cuda(gpus, &n, why, err)) == MILL_OK && (st = stm_topology_here(&here, err)) == MILL_OK)
        st = stm_topology_merge(here, gpus, n, out, err);
    stm_free(gpus);
    return st;
}

/* ---- showing ------------------------------------------------------------------------------------------------------------- */

static void member(stm_text *out, const char *name, const char *value)
{
    stm_text_addf(out, "\"%s\":\"", name);
    stm_text_add_json(out, value, strlen(value));
    stm_text_addf(out, "\"");
}

/* Who has the GPU: a process id, 0 = nobody. */
static int32_t holder_of(const stm_topology_gpu *g, bool *shared)
{
    const char *name = g->uuid[0] != '\0' ? g->uuid : g->pci;

    *shared = false;
    return name[0] != '\0' ? stm_claim_holder(name, shared) : 0;
}

static int32_t os_node(const stm_topology *t, const stm_topology_gpu *g) { return g->node >= 0 ? t->nodes[g->node].os_index : -1; }

static void show_json(const stm_topology *t, const char *why, stm_text *out)
{
    char cpus[4000];

    stm_text_addf(out, "{");
    member(out, "source", t->source);
    stm_text_addf(out, ",");
    member(out, "note", why);
    stm_text_addf(out, ",\"nodes\":[");
    for (int32_t i = 0; i < t->n_nodes; i++)
        stm_text_addf(out, "%s{\"numa_node\":%d,\"memory_bytes\":%lld,\"cores\":\"%s\"}", i > 0 ? "," : "", t->nodes[i].os_index,
                      (long long)t->nodes[i].memory, stm_cpus_show(&t->nodes[i].cpus, cpus, sizeof cpus));
    stm_text_addf(out, "],\"gpus\":[");
    for (int32_t g = 0; g < t->n_gpus; g++) {
        const stm_topology_gpu *gpu = &t->gpus[g];
        bool shared;
        const int32_t holder = holder_of(gpu, &shared);

        stm_text_addf(out, "%s{\"position\":%d,", g > 0 ? "," : "", g);
        member(out, "uuid", gpu->uuid);
        stm_text_addf(out, ",\"pci\":\"%s\",", gpu->pci);
        member(out, "name", gpu->name);
        stm_text_addf(out, ",\"memory_bytes\":%lld,\"multiprocessors\":%d,\"numa_node\":%d,\"cores\":\"%s\"",
                      (long long)gpu->memory, gpu->units, os_node(t, gpu), stm_cpus_show(&gpu->cpus, cpus, sizeof cpus));
        if (holder != 0) stm_text_addf(out, ",\"claimed_by\":%d,\"shared\":%s", holder, shared ? "true" : "false");
        stm_text_addf(out, ",\"paths\":[");
        for (int32_t k = 0; k < t->n_gpus; k++) {
            const double s = stm_topology_seconds_per_byte(t, g, k);

            stm_text_addf(out, "%s{\"over\":\"%s\",\"bytes_per_s\":%.0f}", k > 0 ? "," : "", stm_topology_path(t, g, k),
                          s > 0 ? 1 / s : 0);
        }
        stm_text_addf(out, "]}");
    }
    stm_text_addf(out, "]}");
}

static void show_text(const stm_topology *t, const char *why, stm_text *out)
{
    char cpus[120], bytes[40];

    for (int32_t i = 0; i < t->n_nodes; i++)
        stm_text_addf(out, "node  %d cores %s, %s memory\n", t->nodes[i].os_index,
                      stm_cpus_show(&t->nodes[i].cpus, cpus, sizeof cpus),
                      t->nodes[i].memory > 0 ? stm_show_bytes((double)t->nodes[i].memory, bytes, sizeof bytes) : "unknown");
    for (int32_t g = 0; g < t->n_gpus; g++) {
        const stm_topology_gpu *gpu = &t->gpus[g];
        bool shared;
        const int32_t holder = holder_of(gpu, &shared);

        stm_text_addf(out, "gpu   %d -> %s -> %s -> ", g, gpu->uuid[0] != '\0' ? gpu->uuid : "UUID not known",
                      gpu->pci[0] != '\0' ? gpu->pci : "PCI not known");
        if (gpu->node >= 0)
            stm_text_addf(out, "node %d", os_node(t, gpu));
        else
            stm_text_addf(out, "node not known");
        stm_text_addf(out, " -> cores %s, %s memory", stm_cpus_show(&gpu->cpus, cpus, sizeof cpus),
                      gpu->memory > 0 ? stm_show_bytes((double)gpu->memory, bytes, sizeof bytes) : "unknown");
        if (gpu->name[0] != '\0') stm_text_addf(out, ", %s", gpu->name);
        if (holder > 0) stm_text_addf(out, ", %s by process %d", shared ? "shared" : "in use", holder);
        if (holder < 0) stm_text_addf(out, ", in use by a process that cannot be seen from here");
        stm_text_addf(out, "\n");
        for (int32_t k = g + 1; k < t->n_gpus; k++)
            stm_text_addf(out, "      to gpu %d: %s, %s/s\n", k, stm_topology_path(t, g, k),
                          stm_show_bytes(1 / stm_topology_seconds_per_byte(t, g, k), bytes, sizeof bytes));
    }
    if (why[0] != '\0') stm_text_addf(out, "note  %s\n", why);
}

void stm_devices_show(const stm_topology *t, const char *why, mill_format format, stm_text *out)
{
    if (format == MILL_FORMAT_JSON)
        show_json(t, why, out);
    else
        show_text(t, why, out);
}

mill_status mill_devices_read(const char *file, mill_format format, char **out, mill_error *err)
{
    stm_topology *t = NULL;
    stm_text text = {0};
    char why[256];
    mill_status st = stm_devices_open(file, &t, why, err);

    if (st != MILL_OK) return st;
    if (format == MILL_FORMAT_JSON) stm_text_addf(&text, "{\"topology\":");
    stm_devices_show(t, why, format, &text);
    if (format == MILL_FORMAT_JSON) stm_text_addf(&text, "}\n");
    stm_topology_destroy(&t);
    return stm_text_hand_out(&text, out, err);
}
