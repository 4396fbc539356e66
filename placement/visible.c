#include "placement/visible.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whole GPUs in the order in which CUDA counts them. */
static int32_t count_order(const stm_topology *t, const char *order, int32_t *out)
{
    const bool by_bus = order != NULL && strcmp(order, "PCI_BUS_ID") == 0;
    int32_t n = 0;

    for (int32_t g = 0; g < t->n_gpus; g++) {
        int32_t at = n;

        if (t->gpus[g].part_of >= 0) continue;
        for (; by_bus && at > 0 && strcmp(t->gpus[out[at - 1]].pci, t->gpus[g].pci) > 0; at--) out[at] = out[at - 1];
        out[at] = g;
        n++;
    }
    return n;
}

static int32_t first_instance(const stm_topology *t, int32_t gpu)
{
    for (int32_t i = 0; i < t->n_gpus; i++)
        if (i != gpu && t->gpus[i].part_of == gpu) return i;
    return gpu;
}

/* As strtoul, which CUDA seems to use: what follows the digits does not count. -1 = no number, or a negative one. */
static int64_t leading_number(const char *text, size_t n)
{
    int64_t v = 0;
    size_t i = n > 0 && text[0] == '+' ? 1 : 0;

    if (i >= n || !isdigit((unsigned char)text[i])) return -1;
    for (; i < n && isdigit((unsigned char)text[i]) && v < INT32_MAX; i++) v = v * 10 + (text[i] - '0');
    return v;
}

/* "MIG-GPU-<uuid>/<gi>/<ci>", the older name. */
static bool is_older_name(const stm_topology *t, const stm_topology_gpu *g, const char *text, size_t n)
{
    char name[128];

    if (g->part_of < 0 || g->instance[0] < 0) return false;
    snprintf(name, sizeof name, "MIG-%s/%d/%d", t->gpus[g->part_of].uuid, g->instance[0], g->instance[1]);
    return strlen(name) == n && memcmp(name, text, n) == 0;
}

/* The one GPU whose UUID begins so; -1 = none, -2 = several. */
static int32_t by_uuid(const stm_topology *t, const char *text, size_t n)
{
    int32_t found = -1;

    for (int32_t i = 0; i < t->n_gpus; i++) {
        if (is_older_name(t, &t->gpus[i], text, n)) return i;
        if (n <= 4 || strncmp(t->gpus[i].uuid, text, n) != 0) continue;
        if (found >= 0) return -2;
        found = i;
    }
    return found;
}

static bool begins(const char *text, size_t n, const char *with)
{
    return n >= strlen(with) && memcmp(text, with, strlen(with)) == 0;
}

/* CUDA shows one MIG instance, and with it nothing else. */
static void only_one_instance(const stm_topology *t, stm_visible *v)
{
    for (int32_t i = 0; i < v->n; i++)
        if (t->gpus[v->gpus[i]].part_of >= 0) {
            if (v->n > 1) snprintf(v->note, sizeof v->note, "CUDA shows one MIG instance and nothing beside it");
            v->gpus[0] = v->gpus[i];
            v->n = 1;
            return;
        }
}

static void read_list(const stm_topology *t, const char *value, const int32_t *counted, int32_t n_counted, stm_visible *v)
{
    const char *kind = begins(value, strlen(value), "GPU-") ? "GPU-" : begins(value, strlen(value), "MIG-") ? "MIG-" : "";
    const char *p = value;

    for (;;) {
        size_t n;
        int32_t gpu = -1;
        const char *why = "there is no such GPU";

        while (isspace((unsigned char)*p)) p++;
        n = strcspn(p, ",");
        if (kind[0] != '\0') {
            gpu = begins(p, n, kind) ? by_uuid(t, p, n) : -1;
            if (!begins(p, n, kind)) why = "it is not named like the first";
            if (gpu == -2) why = "several GPUs begin so";
        } else {
            const int64_t number = leading_number(p, n);

            if (number >= 0 && number < n_counted) gpu = counted[number];
            if (n > 0 && number < 0) why = "it is no number of a GPU";
        }
        if (gpu < 0) {
            snprintf(v->note, sizeof v->note, "CUDA_VISIBLE_DEVICES: \"%.*s\" and what follows is ignored: %s",
                     (int)(n < 50 ? n : 50), p, why);
            return;
        }
        if (stm_topology_is_split(t, gpu)) gpu = first_instance(t, gpu);
        for (int32_t i = 0; i < v->n; i++)
            if (v->gpus[i] == gpu) {
                v->n = 0;
                snprintf(v->note, sizeof v->note, "CUDA_VISIBLE_DEVICES: \"%.*s\" stands there twice, so CUDA sees no GPU",
                         (int)(n < 50 ? n : 50), p);
                return;
            }
        v->gpus[v->n++] = gpu;
        if (p[n] == '\0') return;
        p += n + 1;
    }
}

void stm_visible_read(const stm_topology *t, const char *value, const char *order, stm_visible *out)
{
    int32_t counted[STM_TOPOLOGY_MAX_GPUS];
    const int32_t n = count_order(t, order, counted);

    out->n = 0;
    out->note[0] = '\0';
    if (value == NULL) {
        for (int32_t i = 0; i < n; i++)
            out->gpus[out->n++] = stm_topology_is_split(t, counted[i]) ? first_instance(t, counted[i]) : counted[i];
    } else if (value[0] == '\0') {
        snprintf(out->note, sizeof out->note, "CUDA_VISIBLE_DEVICES is empty, so CUDA sees no GPU");
    } else {
        read_list(t, value, counted, n, out);
    }
    only_one_instance(t, out);
}

mill_status stm_visible_topology(const stm_topology *all, stm_topology **out, char note[160], mill_error *err)
{
    stm_visible v;

    stm_visible_read(all, getenv("CUDA_VISIBLE_DEVICES"), getenv("CUDA_DEVICE_ORDER"), &v);
    if (note != NULL) memcpy(note, v.note, sizeof v.note);
    return stm_topology_select(all, v.gpus, v.n, out, err);
}
