#include "placement/topology.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "placement/limits.h"

mill_status stm_topology_create(const char *source, stm_topology **out, mill_error *err)
{
    stm_topology *t = stm_calloc(sizeof *t);

    if (t == NULL) {
        mill_fail(err, MILL_ERR_NOMEM, "reading the machine's topology");
        return MILL_ERR_NOMEM;
    }
    snprintf(t->source, sizeof t->source, "%s", source);
    t->nodes_bandwidth = STM_BANDWIDTH_NODES;
    *out = t;
    return MILL_OK;
}

void stm_topology_destroy(stm_topology **t)
{
    if (t == NULL || *t == NULL) return;
    stm_free((*t)->gpus);
    stm_free((*t)->nodes);
    stm_free((*t)->nvlink);
    stm_free((*t)->seconds_per_byte);
    stm_free(*t);
    *t = NULL;
}

mill_status stm_topology_add_node(stm_topology *t, const stm_topology_node *node, mill_error *err)
{
    stm_topology_node *more;

    if (t->n_nodes >= STM_TOPOLOGY_MAX_NODES)
        return mill_fail(err, MILL_ERR_INVALID, "%s: more than %d NUMA nodes", t->source, STM_TOPOLOGY_MAX_NODES);
    more = stm_realloc(t->nodes, ((size_t)t->n_nodes + 1) * sizeof *more);
    if (more == NULL) return mill_fail(err, MILL_ERR_NOMEM, "reading the machine's topology");
    t->nodes = more;
    t->nodes[t->n_nodes++] = *node;
    return MILL_OK;
}

mill_status stm_topology_add_gpu(stm_topology *t, const stm_topology_gpu *gpu, mill_error *err)
{
    const size_t n = (size_t)t->n_gpus;
    stm_topology_gpu *more;
    double *links;

    if (t->n_gpus >= STM_TOPOLOGY_MAX_GPUS)
        return mill_fail(err, MILL_ERR_INVALID, "%s: more than %d GPUs", t->source, STM_TOPOLOGY_MAX_GPUS);
    more = stm_realloc(t->gpus, (n + 1) * sizeof *more);
    if (more != NULL) t->gpus = more;
    links = stm_calloc((n + 1) * (n + 1) * sizeof *links);
    if (more == NULL || links == NULL) {
        stm_free(links);
        return mill_fail(err, MILL_ERR_NOMEM, "reading the machine's topology");
    }
    for (size_t a = 0; a < n; a++)
        for (size_t b = 0; b < n; b++) links[a * (n + 1) + b] = t->nvlink[a * n + b];
    stm_free(t->nvlink);
    t->nvlink = links;
    t->gpus[t->n_gpus++] = *gpu;
    return MILL_OK;
}

void stm_topology_set_nvlink(stm_topology *t, int32_t a, int32_t b, double bytes_per_s)
{
    const size_t n = (size_t)t->n_gpus;

    if (a == b) return;
    t->nvlink[(size_t)a * n + (size_t)b] = bytes_per_s;
    t->nvlink[(size_t)b * n + (size_t)a] = bytes_per_s;
}

/* ---- what follows from the parts --------------------------------------------------------------------------------- */

static double least(double a, double b) { return a < b ? a : b; }

typedef struct route {
    const char *name;
    double bandwidth; /* bytes/s; 0 = nothing has to move */
} route;

/* Between a GPU and a node. A GPU whose place is not known is no nearer to any node than to another. */
static route host_route(const stm_topology *t, int32_t g, int32_t node)
{
    const stm_topology_gpu *gpu = &t->gpus[g];

    if (gpu->node == node || t->n_nodes == 1) return (route){"PCIe", gpu->pcie};
    return (route){"PCIe and between nodes", STM_SHARE_FAR * least(gpu->pcie, t->nodes_bandwidth)};
}

static route gpu_route(const stm_topology *t, int32_t a, int32_t b)
{
    const stm_topology_gpu *x = &t->gpus[a], *y = &t->gpus[b];
    const double link = t->nvlink[(size_t)a * (size_t)t->n_gpus + (size_t)b], pcie = least(x->pcie, y->pcie);
    route r;

    /* Instances of one GPU, and of different ones, have no peer access: twice over PCIe, through the host. */
    if (x->part_of >= 0 || y->part_of >= 0)
        r = (route){"host", pcie / 2};
    else if (x->pci_switch >= 0 && x->pci_switch == y->pci_switch)
        r = (route){"PCIe switch", pcie};
    else if ((x->node >= 0 && x->node == y->node) || t->n_nodes == 1)
        r = (route){"PCIe", pcie * STM_SHARE_ABOVE_SWITCH};
    else
        r = (route){"PCIe and between nodes", STM_SHARE_FAR * least(pcie * STM_SHARE_ABOVE_SWITCH, t->nodes_bandwidth)};
    return link > r.bandwidth ? (route){"NVLink", link} : r;
}

static route route_between(const stm_topology *t, int32_t a, int32_t b)
{
    if (a == b) return (route){"same place", 0};
    if (a >= t->n_gpus && b >= t->n_gpus) return (route){"between nodes", t->nodes_bandwidth};
    if (a >= t->n_gpus) return host_route(t, b, a - t->n_gpus);
    if (b >= t->n_gpus) return host_route(t, a, b - t->n_gpus);
    return gpu_route(t, a, b);
}

const char *stm_topology_path(const stm_topology *t, int32_t a, int32_t b) { return route_between(t, a, b).name; }

stm_cpus stm_topology_cpus(const stm_topology *t)
{
    stm_cpus all = {0};

    for (int32_t i = 0; i < t->n_nodes; i++) stm_cpus_join(&all, &t->nodes[i].cpus);
    return all;
}

mill_status stm_topology_close(stm_topology *t, mill_error *err)
{
    const stm_topology_node whole = {.os_index = 0, .cpus = stm_cpus_allowed()};
    double *table;
    stm_cpus all;
    int32_t n;
    mill_status st;

    if (t->n_nodes == 0 && (st = stm_topology_add_node(t, &whole, err)) != MILL_OK) return st;
    n = stm_topology_sites(t);
    if ((table = stm_malloc((size_t)n * (size_t)n * sizeof *table)) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "reading the machine's topology");
    all = stm_topology_cpus(t);
    for (int32_t g = 0; g < t->n_gpus; g++) {
        stm_topology_gpu *gpu = &t->gpus[g];

        if (gpu->node >= t->n_nodes) gpu->node = -1;
        if (gpu->pcie <= 0) gpu->pcie = STM_BANDWIDTH_PCIE;
        gpu->cpus = gpu->node >= 0 && stm_cpus_count(&t->nodes[gpu->node].cpus) > 0 ? t->nodes[gpu->node].cpus : all;
    }
    for (int32_t a = 0; a < n; a++)
        for (int32_t b = 0; b < n; b++) {
            const double bandwidth = route_between(t, a, b).bandwidth;

            table[(size_t)a * (size_t)n + (size_t)b] = bandwidth > 0 ? 1 / bandwidth : 0;
        }
    stm_free(t->seconds_per_byte);
    t->seconds_per_byte = table;
    return MILL_OK;
}

int32_t stm_topology_node_of_os(const stm_topology *t, int32_t os_index)
{
    for (int32_t i = 0; i < t->n_nodes; i++)
        if (t->nodes[i].os_index == os_index) return i;
    return -1;
}

bool stm_topology_is_split(const stm_topology *t, int32_t g)
{
    for (int32_t i = 0; i < t->n_gpus; i++)
        if (i != g && t->gpus[i].part_of == g) return true;
    return false;
}

/* Up to @p most hexadecimal digits. */
static bool read_hex(const char **p, int most, unsigned *out)
{
    int n = 0;

    *out = 0;
    for (; n < most && isxdigit((unsigned char)**p); n++, (*p)++)
        *out = *out * 16 + (unsigned)(isdigit((unsigned char)**p) ? **p - '0' : (**p | 32) - 'a' + 10);
    return n > 0;
}

bool stm_pci_normalize(const char *text, char out[16])
{
    unsigned part[3] = {0, 0, 0}, function = 0;
    const char *p = text;
    int n = 0;

    for (;; p++) {
        if (n == 3 || !read_hex(&p, n == 0 ? 8 : 2, &part[n])) return false;
        n++;
        if (*p != ':') break;
    }
    if (n < 2) return false;
    if (n == 2) part[2] = part[1], part[1] = part[0], part[0] = 0; /* without the domain */
    if (*p == '.' && (p++, !read_hex(&p, 1, &function))) return false;
    if (*p != '\0' || part[0] > 0xffff || part[1] > 0xff || part[2] > 0x1f || function > 7) return false;
    snprintf(out, 16, "%04x:%02x:%02x.%x", part[0] & 0xffff, part[1] & 0xff, part[2] & 0x1f, function & 7);
    return true;
}

/* ---- from one to another ----------------------------------------------------------------------------------------- */

static mill_status copy_nodes(const stm_topology *base, stm_topology **out, mill_error *err)
{
    stm_topology *t = NULL;
    mill_status st = stm_topology_create(base->source, &t, err);

    if (st != MILL_OK) return st;
    t->nodes_bandwidth = base->nodes_bandwidth;
    for (int32_t i = 0; i < base->n_nodes && st == MILL_OK; i++) st = stm_topology_add_node(t, &base->nodes[i], err);
    if (st != MILL_OK)
        stm_topology_destroy(&t);
    else
        *out = t;
    return st;
}

/* NVLinks and MIG parents, when GPU i of @p t was GPU from[i] of @p base; -1 = a new one. */
static void carry_over(const stm_topology *base, stm_topology *t, const int32_t *from)
{
    for (int32_t a = 0; a < t->n_gpus; a++) {
        stm_topology_gpu *gpu = &t->gpus[a];
        const int32_t parent = gpu->part_of;

        for (int32_t b = 0; b < t->n_gpus; b++)
            if (from[a] >= 0 && from[b] >= 0 && a != b)
                t->nvlink[(size_t)a * (size_t)t->n_gpus + (size_t)b] =
                    base->nvlink[(size_t)from[a] * (size_t)base->n_gpus + (size_t)from[b]];
        if (parent < 0) continue;
        gpu->part_of = a; /* its GPU may be hidden; what counts is that this is a part: its own number says so */
        for (int32_t b = 0; b < t->n_gpus; b++)
            if (from[b] == parent && b != a) gpu->part_of = b;
    }
}

mill_status stm_topology_select(const stm_topology *base, const int32_t *keep, int32_t n, stm_topology **out, mill_error *err)
{
    stm_topology *t = NULL;
    mill_status st = copy_nodes(base, &t, err);

    for (int32_t i = 0; i < n && st == MILL_OK; i++) st = stm_topology_add_gpu(t, &base->gpus[keep[i]], err);
    if (st == MILL_OK) {
        carry_over(base, t, keep);
        st = stm_topology_close(t, err);
    }
    if (st != MILL_OK)
        stm_topology_destroy(&t);
    else
        *out = t;
    return st;
}

static int32_t find_gpu(const stm_topology *t, const char *pci, const char *uuid)
{
    for (int32_t i = 0; i < t->n_gpus; i++)
        if (uuid[0] != '\0' && strcmp(t->gpus[i].uuid, uuid) == 0) return i;
    for (int32_t i = 0; i < t->n_gpus; i++)
        if (pci[0] != '\0' && strcmp(t->gpus[i].pci, pci) == 0) return i;
    return -1;
}

mill_status stm_topology_merge(const stm_topology *base, const stm_gpu_info *gpus, int32_t n, stm_topology **out, mill_error *err)
{
    int32_t *from = stm_malloc((n > 0 ? (size_t)n : 1) * sizeof *from);
    stm_topology *t = NULL;
    mill_status st = from != NULL ? copy_nodes(base, &t, err) : mill_fail(err, MILL_ERR_NOMEM, "reading the machine's topology");

    for (int32_t i = 0; i < n && st == MILL_OK; i++) {
        stm_topology_gpu g = {.node = -1, .pci_switch = -1, .part_of = -1, .instance = {-1, -1}};
        char pci[16] = "";

        stm_pci_normalize(gpus[i].pci, pci);
        from[i] = find_gpu(base, pci, gpus[i].uuid);
        if (from[i] >= 0) g = base->gpus[from[i]];
        if (gpus[i].uuid[0] != '\0') memcpy(g.uuid, gpus[i].uuid, sizeof g.uuid);
        if (gpus[i].name[0] != '\0') memcpy(g.name, gpus[i].name, sizeof g.name);
        if (pci[0] != '\0') memcpy(g.pci, pci, sizeof g.pci);
        if (gpus[i].memory > 0) g.memory = gpus[i].memory;
        if (gpus[i].units > 0) g.units = gpus[i].units;
        if (g.node < 0 && gpus[i].numa_node >= 0) g.node = stm_topology_node_of_os(base, gpus[i].numa_node);
        if (strncmp(g.uuid, "MIG-", 4) == 0 && g.part_of < 0) g.part_of = i;
        st = stm_topology_add_gpu(t, &g, err);
    }
    if (st == MILL_OK) {
        carry_over(base, t, from);
        st = stm_topology_close(t, err);
    }
    stm_free(from);
    if (st != MILL_OK)
        stm_topology_destroy(&t);
    else
        *out = t;
    return st;
}
