/*
 * What the NVIDIA driver shows about its GPUs without CUDA: /proc/driver/nvidia/gpus/<bus id>/information has model and UUID
 * (in a container, of the GPUs it was given), and /sys the speed of the link when it is not asleep.
 */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "placement/sources.h"

static int32_t gpu_at(const stm_topology *t, const char *pci)
{
    for (int32_t i = 0; i < t->n_gpus; i++)
        if (strcmp(t->gpus[i].pci, pci) == 0) return i;
    return -1;
}

/* "Model: \t\t NVIDIA H100": the value of a line, without the spaces around it. */
static const char *value_of(char *line, const char *key)
{
    const size_t n = strlen(key);
    char *p = line + n, *end;

    if (strncmp(line, key, n) != 0 || *p++ != ':') return NULL;
    while (isspace((unsigned char)*p)) p++;
    end = p + strlen(p);
    while (end > p && isspace((unsigned char)end[-1])) *--end = '\0';
    return p;
}

static void read_information(const char *path, stm_topology_gpu *g)
{
    FILE *f = fopen(path, "re");
    char line[256];

    if (f == NULL) return;
    while (fgets(line, sizeof line, f) != NULL) {
        const char *v;

        if ((v = value_of(line, "Model")) != NULL) snprintf(g->name, sizeof g->name, "%.63s", v);
        if ((v = value_of(line, "GPU UUID")) != NULL && strncmp(v, "GPU-", 4) == 0 && strchr(v, '?') == NULL)
            snprintf(g->uuid, sizeof g->uuid, "%.63s", v);
    }
    fclose(f);
}

static double number_in(const char *root, const char *pci, const char *what)
{
    char path[4200], text[64];
    double v = 0;
    FILE *f;

    snprintf(path, sizeof path, "%s/sys/bus/pci/devices/%s/%s", root, pci, what);
    if ((f = fopen(path, "re")) == NULL) return 0;
    if (fgets(text, sizeof text, f) != NULL) v = strtod(text, NULL);
    fclose(f);
    return v;
}

mill_status stm_topology_driver(stm_topology *t, const char *root, mill_error *err)
{
    char path[4200], pci[16];
    struct dirent *entry;
    mill_status st = MILL_OK;
    DIR *dir;

    snprintf(path, sizeof path, "%s/proc/driver/nvidia/gpus", root);
    if ((dir = opendir(path)) != NULL) {
        while (st == MILL_OK && (entry = readdir(dir)) != NULL) {
            stm_topology_gpu g = {.node = -1, .pci_switch = -1, .part_of = -1, .instance = {-1, -1}};
            int32_t at;

            if (!stm_pci_normalize(entry->d_name, pci)) continue;
            if ((at = gpu_at(t, pci)) < 0) {
                const int32_t numa = (int32_t)number_in(root, pci, "numa_node");

                memcpy(g.pci, pci, sizeof g.pci);
                if (t->n_nodes > 1) g.node = stm_topology_node_of_os(t, numa);
                at = t->n_gpus;
                st = stm_topology_add_gpu(t, &g, err);
            }
            if (st != MILL_OK) continue;
            snprintf(path, sizeof path, "%s/proc/driver/nvidia/gpus/%s/information", root, entry->d_name);
            read_information(path, &t->gpus[at]);
        }
        closedir(dir);
    }
    for (int32_t i = 0; i < t->n_gpus; i++) { /* an idle GPU's link is slow until there is work: count with its best */
        const double lanes = number_in(root, t->gpus[i].pci, "current_link_width"),
                     rate = number_in(root, t->gpus[i].pci, "max_link_speed");

        if (lanes > 0 && rate > 0) t->gpus[i].pcie = rate * 1e9 / 8 * lanes * 0.8;
    }
    return st;
}
