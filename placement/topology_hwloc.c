/*
 * Topologies by hwloc. The library is opened when it is first needed and never linked: most runs do not need it, and a machine
 * without it runs all the same. Nothing here starts CUDA: components of hwloc that would are left out, since a process that
 * has started CUDA cannot be forked. So GPUs are found among the PCI devices; a recorded XML may say more about them.
 */
#include <dlfcn.h>
#include <errno.h>
#include <hwloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "placement/sources.h"

#define PCIE_SHARE 0.8 /* of the raw rate that carries data */
enum { VENDOR_NVIDIA = 0x10de, CLASS_DISPLAY = 0x03 };

/* ---- the library ------------------------------------------------------------------------------------------------- */

/* Functions of libhwloc that are used here, by name. */
#define HWLOC_FUNCTIONS(X)                                                                                           \
    X(hwloc_topology_init)                                                                                           \
    X(hwloc_topology_destroy)                                                                                        \
    X(hwloc_topology_load)                                                                                           \
    X(hwloc_topology_set_xmlbuffer) X(hwloc_topology_set_synthetic) X(hwloc_topology_set_io_types_filter)            \
        X(hwloc_topology_set_components) X(hwloc_get_nbobjs_by_depth) X(hwloc_get_obj_by_depth) X(hwloc_bitmap_next) \
            X(hwloc_bitmap_intersects) X(hwloc_distances_get_by_name) X(hwloc_distances_release)

static struct {
    pthread_once_t once;
    bool ready;
    char why[160]; /* when not */
#define MEMBER(f) __typeof__(&f) f;
    HWLOC_FUNCTIONS(MEMBER)
#undef MEMBER
} lib = {.once = PTHREAD_ONCE_INIT};

static void open_library(void)
{
    void *h = dlopen("libhwloc.so.15", RTLD_NOW | RTLD_LOCAL); /* 15: the binary interface of hwloc 2.x */

    if (h == NULL) {
        snprintf(lib.why, sizeof lib.why, "%.150s", dlerror());
        return;
    }
#define FIND(f)                                                         \
    if ((*(void **)&lib.f = dlsym(h, #f)) == NULL) {                    \
        snprintf(lib.why, sizeof lib.why, "libhwloc.so.15 has no " #f); \
        dlclose(h);                                                     \
        return;                                                         \
    }
    HWLOC_FUNCTIONS(FIND)
#undef FIND
    lib.ready = true; /* stays open for the life of the process */
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

typedef struct hwloc_reader {
    stm_topology *t;
    hwloc_topology_t from;
    hwloc_obj_t *nodes; /* [t->n_nodes] */
    struct found_gpu {
        hwloc_obj_t object; /* the PCI device, or a CUDA device without one */
        int32_t order;      /* CUDA's number, else what comes after all of those */
    } * gpus;
    size_t n_gpus, cap_gpus;
    int32_t switches;
    hwloc_obj_t *bridges; /* topmost bridges that GPUs hang on: their number is their place here */
    size_t cap_bridges;
    mill_error *err;
} hwloc_reader;

static mill_status no_memory(const hwloc_reader *r)
{
    return mill_fail(r->err, MILL_ERR_NOMEM, "reading the topology of %s", r->t->source);
}

static stm_cpus cpus_of(hwloc_const_bitmap_t set)
{
    stm_cpus out = {0};

    for (int i = set != NULL ? lib.hwloc_bitmap_next(set, -1) : -1; i >= 0 && i < STM_CPUS_MAX; i = lib.hwloc_bitmap_next(set, i))
        stm_cpus_add(&out, i);
    return out;
}

static mill_status read_nodes(hwloc_reader *r)
{
    const unsigned n = lib.hwloc_get_nbobjs_by_depth(r->from, HWLOC_TYPE_DEPTH_NUMANODE);
    mill_status st = MILL_OK;

    if ((r->nodes = stm_calloc((n + 1) * sizeof *r->nodes)) == NULL) return no_memory(r);
    for (unsigned i = 0; i < n && st == MILL_OK; i++) {
        hwloc_obj_t o = lib.hwloc_get_obj_by_depth(r->from, HWLOC_TYPE_DEPTH_NUMANODE, i);
        const stm_topology_node node = {(int32_t)o->os_index, (int64_t)o->attr->numanode.local_memory, cpus_of(o->cpuset)};

        if (stm_cpus_count(&node.cpus) == 0) continue; /* memory of a GPU or an expander */
        r->nodes[r->t->n_nodes] = o;
        st = stm_topology_add_node(r->t, &node, r->err);
    }
    return st;
}

static const char *info_of(hwloc_obj_t o, const char *name)
{
    for (unsigned i = 0; i < o->infos_count; i++)
        if (strcmp(o->infos[i].name, name) == 0) return o->infos[i].value;
    return NULL;
}

static bool names_gpu(hwloc_obj_t os) { return strncmp(os->name, "cuda", 4) == 0 || strncmp(os->name, "nvml", 4) == 0; }

static mill_status found(hwloc_reader *r, hwloc_obj_t object, int32_t order)
{
    size_t at = r->n_gpus;

    if (stm_grow(&r->gpus, &r->cap_gpus, r->n_gpus + 1, sizeof *r->gpus) != 0) return no_memory(r);
    for (; at > 0 && r->gpus[at - 1].order > order; at--) r->gpus[at] = r->gpus[at - 1];
    r->gpus[at].object = object, r->gpus[at].order = order;
    r->n_gpus++;
    return MILL_OK;
}

/* CUDA's numbers come first, in their order; then NVML's, which follow the bus; then what is only a PCI device. */
static int32_t order_of(hwloc_obj_t pci)
{
    int32_t order = INT32_MAX;

    for (hwloc_obj_t os = pci->io_first_child; os != NULL; os = os->next_sibling) {
        if (os->type != HWLOC_OBJ_OS_DEVICE || os->name == NULL || !names_gpu(os)) continue;
        const long n = strtol(os->name + 4, NULL, 10) + (os->name[0] == 'n' ? 1 << 20 : 0);
        if (n < order) order = (int32_t)n;
    }
    return order;
}

static mill_status find_gpus(hwloc_reader *r)
{
    mill_status st = MILL_OK;
    unsigned n = lib.hwloc_get_nbobjs_by_depth(r->from, HWLOC_TYPE_DEPTH_PCI_DEVICE);

    for (unsigned i = 0; i < n && st == MILL_OK; i++) {
        hwloc_obj_t o = lib.hwloc_get_obj_by_depth(r->from, HWLOC_TYPE_DEPTH_PCI_DEVICE, i);
        const struct hwloc_pcidev_attr_s *pci = &o->attr->pcidev;
        const int32_t order = order_of(o);

        if (order == INT32_MAX && !(pci->vendor_id == VENDOR_NVIDIA && pci->class_id >> 8 == CLASS_DISPLAY)) continue;
        st = found(r, o, order);
    }
    n = lib.hwloc_get_nbobjs_by_depth(r->from, HWLOC_TYPE_DEPTH_OS_DEVICE);
    for (unsigned i = 0; i < n && st == MILL_OK; i++) { /* recorded without the bus */
        hwloc_obj_t o = lib.hwloc_get_obj_by_depth(r->from, HWLOC_TYPE_DEPTH_OS_DEVICE, i);

        if (o->name != NULL && strncmp(o->name, "cuda", 4) == 0 && o->parent->type != HWLOC_OBJ_PCI_DEVICE)
            st = found(r, o, (int32_t)strtol(o->name + 4, NULL, 10));
    }
    return st;
}

/* What CUDA and NVML said about a device when the topology was recorded. */
static void read_infos(hwloc_obj_t os, stm_topology_gpu *g)
{
    const char *text;

    if ((text = info_of(os, "NVIDIAUUID")) != NULL && strlen(text) < sizeof g->uuid) snprintf(g->uuid, sizeof g->uuid, "%s", text);
    if ((text = info_of(os, "GPUModel")) != NULL) snprintf(g->name, sizeof g->name, "%.63s", text);
    if ((text = info_of(os, "CUDAGlobalMemorySize")) != NULL) { /* kB */
        const long long kb = strtoll(text, NULL, 10);
        if (kb > 0 && kb < INT64_MAX / 1024) g->memory = (int64_t)kb * 1024;
    }
    if ((text = info_of(os, "CUDAMultiProcessors")) != NULL) {
        const long units = strtol(text, NULL, 10);
        if (units > 0 && units < 1 << 20) g->units = (int32_t)units;
    }
}

/* The only node at the place of an I/O object; -1 = none or several. */
static int32_t node_of(const hwloc_reader *r, hwloc_obj_t o)
{
    int32_t node = -1;

    while (o != NULL && o->cpuset == NULL) o = o->parent;
    for (int32_t i = 0; o != NULL && i < r->t->n_nodes; i++) {
        if (!lib.hwloc_bitmap_intersects(o->cpuset, r->nodes[i]->cpuset)) continue;
        if (node >= 0) return -1;
        node = i;
    }
    return node;
}

/* GPUs meet at a switch when the topmost bridge below the host's is the same. */
static mill_status switch_of(hwloc_reader *r, hwloc_obj_t o, int32_t *out)
{
    hwloc_obj_t top = NULL;

    for (o = o->parent; o != NULL && o->type == HWLOC_OBJ_BRIDGE; o = o->parent)
        if (o->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_PCI) top = o;
    *out = -1;
    if (top == NULL) return MILL_OK;
    for (int32_t i = 0; i < r->switches; i++)
        if (r->bridges[i] == top) return *out = i, MILL_OK;
    if (stm_grow(&r->bridges, &r->cap_bridges, (size_t)r->switches + 1, sizeof *r->bridges) != 0) return no_memory(r);
    r->bridges[r->switches] = top;
    *out = r->switches++;
    return MILL_OK;
}

static mill_status read_gpus(hwloc_reader *r)
{
    mill_status st = find_gpus(r);

    /* Where CUDA was asked when it was recorded, a card that it did not name is none that it can use. */
    while (r->n_gpus > 0 && r->gpus[0].order < 1 << 20 && r->gpus[r->n_gpus - 1].order == INT32_MAX) r->n_gpus--;

    for (size_t i = 0; i < r->n_gpus && st == MILL_OK; i++) {
        hwloc_obj_t o = r->gpus[i].object;
        stm_topology_gpu g = {.pci_switch = -1, .part_of = -1, .instance = {-1, -1}};

        g.node = node_of(r, o);
        if (o->type == HWLOC_OBJ_PCI_DEVICE) {
            const struct hwloc_pcidev_attr_s *pci = &o->attr->pcidev;

            snprintf(g.pci, sizeof g.pci, "%04x:%02x:%02x.%x", pci->domain, pci->bus, pci->dev & 0x1f, pci->func & 7);
            if (pci->linkspeed > 0) g.pcie = (double)pci->linkspeed * 1e9 * PCIE_SHARE;
            if (o->name != NULL) snprintf(g.name, sizeof g.name, "%.63s", o->name);
            for (hwloc_obj_t os = o->io_first_child; os != NULL; os = os->next_sibling) read_infos(os, &g);
        } else {
            read_infos(o, &g);
        }
        if ((st = switch_of(r, o, &g.pci_switch)) == MILL_OK) st = stm_topology_add_gpu(r->t, &g, r->err);
    }
    return st;
}

/* Which GPU an object of a distance matrix is; -1 = none. */
static int32_t gpu_of(const hwloc_reader *r, hwloc_obj_t o)
{
    for (size_t i = 0; o != NULL && i < r->n_gpus; i++)
        if (r->gpus[i].object == o || r->gpus[i].object == o->parent) return (int32_t)i;
    return -1;
}

/*
 * NVLinks, in MB/s: from GPU to GPU; to a switch, which is a PCI device that is no GPU, and then to whoever else has links to one;
 * and on POWER machines to a processor, where host traffic goes over them and not over PCIe.
 */
static void read_nvlinks(hwloc_reader *r)
{
    double to_switches[STM_TOPOLOGY_MAX_GPUS] = {0};
    struct hwloc_distances_s *d = NULL;
    unsigned n = 1;

    if (lib.hwloc_distances_get_by_name(r->from, "NVLinkBandwidth", &n, &d, 0) != 0 || n == 0 || d == NULL) return;
    for (unsigned i = 0; i < d->nbobjs; i++)
        for (unsigned k = 0; k < d->nbobjs; k++) {
            const double rate = (double)d->values[i * d->nbobjs + k] * 1e6;
            const int32_t a = gpu_of(r, d->objs[i]), b = gpu_of(r, d->objs[k]);

            if (i == k || a < 0 || rate <= 0 || d->objs[k] == NULL) continue;
            if (b >= 0)
                stm_topology_set_nvlink(r->t, a, b, rate);
            else if (d->objs[k]->type == HWLOC_OBJ_PCI_DEVICE)
                to_switches[a] += rate;
            else if (d->objs[k]->type == HWLOC_OBJ_PACKAGE && rate > r->t->gpus[a].pcie)
                r->t->gpus[a].pcie = rate;
        }
    lib.hwloc_distances_release(r->from, d);
    for (int32_t a = 0; a < r->t->n_gpus; a++)
        for (int32_t b = a + 1; b < r->t->n_gpus; b++)
            if (to_switches[a] > 0 && to_switches[b] > 0)
                stm_topology_set_nvlink(r->t, a, b, to_switches[a] < to_switches[b] ? to_switches[a] : to_switches[b]);
}

static mill_status load(hwloc_reader *r, stm_hwloc_input input, const char *text, size_t bytes)
{
    /* What would start a GPU's driver, or look at screens. */
    static const char *const left_out[] = {"cuda", "nvml", "opencl", "gl", "rsmi", "levelzero"};
    int rc = lib.hwloc_topology_init(&r->from);

    if (rc != 0) {
        r->from = NULL;
        return no_memory(r);
    }
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        lib.hwloc_topology_set_components(r->from, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, left_out[i]);
    lib.hwloc_topology_set_io_types_filter(r->from, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    if (input == STM_HWLOC_XML && bytes >= INT32_MAX) return mill_fail(r->err, MILL_ERR_INVALID, "no topology is that long");
    if (input == STM_HWLOC_XML) rc = lib.hwloc_topology_set_xmlbuffer(r->from, text, (int)bytes + 1);
    if (input == STM_HWLOC_SYNTHETIC) rc = lib.hwloc_topology_set_synthetic(r->from, text);
    if (rc == 0) rc = lib.hwloc_topology_load(r->from);
    if (rc == 0) return MILL_OK;
    mill_fail(r->err, MILL_ERR_PARSE, "hwloc refused the topology: %s", strerror(errno));
    if (input == STM_HWLOC_XML)
        mill_error_remedy(r->err, "If it was written by hwloc 3, write it again with lstopo --export-xml-flags v2");
    return MILL_ERR_PARSE;
}

mill_status stm_topology_hwloc(stm_hwloc_input input, const char *text, size_t bytes, const char *source, stm_topology **out,
                               mill_error *err)
{
    hwloc_reader r = {.err = err};
    mill_status st;

    pthread_once(&lib.once, open_library);
    if (!lib.ready) {
        st = mill_fail(err, MILL_ERR_UNSUPPORTED, "hwloc is not there: %s", lib.why);
        mill_error_remedy(err, "Install libhwloc15");
        return st;
    }
    if ((st = stm_topology_create(source, &r.t, err)) == MILL_OK && (st = load(&r, input, text, bytes)) == MILL_OK &&
        (st = read_nodes(&r)) == MILL_OK && (st = read_gpus(&r)) == MILL_OK) {
        read_nvlinks(&r);
        st = stm_topology_close(r.t, err);
    }
    if (r.from != NULL) lib.hwloc_topology_destroy(r.from);
    stm_free(r.nodes);
    stm_free(r.gpus);
    stm_free(r.bridges);
    if (st != MILL_OK)
        stm_topology_destroy(&r.t);
    else
        *out = r.t;
    return st;
}
