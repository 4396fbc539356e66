/*
 * NCCL's topology files (NCCL_TOPO_FILE, NCCL_TOPO_DUMP_FILE): <system>, in it <cpu numaid affinity> per NUMA node, in these
 * nested <pci busid class link_speed link_width>, in a GPU's <gpu> with <nvlink target count tclass>.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/text.h"
#include "placement/sources.h"

#define NVLINK_BANDWIDTH 20e9 /* bytes/s of one link, each way, as NCCL counts */
#define PCIE_SHARE 0.8        /* of the raw rate that carries data */

typedef struct nvlink {
    int32_t gpu;
    char target[16]; /* PCI bus id of a GPU; of a switch, any */
    int32_t count;
    bool to_switch;
} nvlink;

typedef struct nccl_reader {
    stm_topology *t;
    stm_xml_reader xml;
    int32_t node;      /* in hand; -1 = none */
    int32_t pci_depth; /* of <pci> in <pci> */
    int32_t switches;  /* topmost bridges so far */
    bool in_switch;    /* the topmost <pci> is a bridge */
    int32_t gpu;       /* the <pci> in hand; -1 = no GPU */
    nvlink *links;
    size_t n_links, cap_links;
    mill_error *err;
} nccl_reader;

/* "000000ff,ffff0000": words of 32 bits, the highest first. */
static bool read_mask(const char *text, stm_cpus *out)
{
    int32_t words = 1;
    const char *p = text;

    *out = (stm_cpus){0};
    for (const char *c = text; *c != '\0'; c++) words += *c == ',';
    for (int32_t w = words - 1; w >= 0; w--) {
        char *end;
        const unsigned long v = strtoul(p, &end, 16);

        if (end == p || v > 0xffffffffUL || (*end != ',' && *end != '\0')) return false;
        for (int32_t bit = 0; bit < 32; bit++)
            if ((v >> bit & 1) != 0) stm_cpus_add(out, w * 32 + bit);
        p = end + 1;
    }
    return true;
}

static mill_status wrong(const nccl_reader *r, const stm_xml_element *e, const char *what)
{
    int line = 1;

    for (const char *p = r->xml.start; p < e->name; p++) line += *p == '\n';
    mill_fail(r->err, MILL_ERR_PARSE, "%s", what);
    mill_error_place(r->err, r->xml.file, line, 0);
    return MILL_ERR_PARSE;
}

static mill_status open_cpu(nccl_reader *r, const stm_xml_element *e)
{
    stm_topology_node node = {0};
    char text[2048];
    int64_t id;

    if (!stm_xml_attribute(e, "numaid", text, sizeof text) || !stm_parse_int(text, &id) || id < -1 || id > 1 << 20)
        return wrong(r, e, "<cpu> has no numaid that is a number");
    node.os_index = id < 0 ? 0 : (int32_t)id; /* -1: the machine has but one */
    if (stm_xml_attribute(e, "affinity", text, sizeof text) && !read_mask(text, &node.cpus))
        return wrong(r, e, "affinity of a <cpu> is not words of 32 bits, as 0000ffff,00000000");
    if ((r->node = stm_topology_node_of_os(r->t, node.os_index)) >= 0) return MILL_OK;
    r->node = r->t->n_nodes;
    return stm_topology_add_node(r->t, &node, r->err);
}

/* "32.0 GT/s PCIe" and 16 lanes; 0 = not said. */
static double link_rate(const stm_xml_element *e)
{
    char speed[64], width[32];
    double gt;
    long lanes;

    if (!stm_xml_attribute(e, "link_speed", speed, sizeof speed) || !stm_xml_attribute(e, "link_width", width, sizeof width))
        return 0;
    gt = strtod(speed, NULL);
    lanes = strtol(width, NULL, 10);
    return gt > 0 && gt < 1000 && lanes > 0 && lanes <= 64 ? gt * 1e9 / 8 * (double)lanes * PCIE_SHARE : 0;
}

static mill_status open_pci(nccl_reader *r, const stm_xml_element *e)
{
    stm_topology_gpu g = {.node = r->node, .pci_switch = -1, .part_of = -1, .instance = {-1, -1}};
    char text[32] = "";
    const bool known = stm_xml_attribute(e, "class", text, sizeof text);

    r->gpu = -1;
    if (++r->pci_depth == 1 && (r->in_switch = known && strncmp(text, "0x0604", 6) == 0)) r->switches++;
    if (!known || strncmp(text, "0x03", 4) != 0) return MILL_OK;
    if (!stm_xml_attribute(e, "busid", text, sizeof text) || !stm_pci_normalize(text, g.pci))
        return wrong(r, e, "<pci> of a GPU has no busid, as 0000:3b:00.0");
    if (r->pci_depth > 1 && r->in_switch) g.pci_switch = r->switches - 1;
    g.pcie = link_rate(e);
    r->gpu = r->t->n_gpus;
    return stm_topology_add_gpu(r->t, &g, r->err);
}

static mill_status open_nvlink(nccl_reader *r, const stm_xml_element *e)
{
    nvlink link = {.gpu = r->gpu};
    char text[32];
    int64_t count;

    if (r->gpu < 0) return wrong(r, e, "<nvlink> outside of a GPU");
    if (!stm_xml_attribute(e, "target", text, sizeof text) || !stm_pci_normalize(text, link.target))
        return wrong(r, e, "<nvlink> has no target, as 0000:3b:00.0");
    if (!stm_xml_attribute(e, "count", text, sizeof text) || !stm_parse_int(text, &count) || count < 1 || count > 1024)
        return wrong(r, e, "<nvlink> has no count of 1 or more");
    link.count = (int32_t)count;
    link.to_switch = stm_xml_attribute(e, "tclass", text, sizeof text) && strncmp(text, "0x0680", 6) == 0;
    if (stm_grow(&r->links, &r->cap_links, r->n_links + 1, sizeof link) != 0)
        return mill_fail(r->err, MILL_ERR_NOMEM, "reading %s", r->xml.file);
    r->links[r->n_links++] = link;
    return MILL_OK;
}

static mill_status read_element(nccl_reader *r, const stm_xml_element *e)
{
    if (e->event == STM_XML_OPEN) {
        if (stm_xml_is(e, "cpu")) return open_cpu(r, e);
        if (stm_xml_is(e, "pci")) return open_pci(r, e);
        if (stm_xml_is(e, "nvlink")) return open_nvlink(r, e);
    } else if (stm_xml_is(e, "pci")) {
        r->pci_depth--;
        r->gpu = -1;
    } else if (stm_xml_is(e, "cpu")) {
        r->node = -1;
    }
    return MILL_OK;
}

/* Links meet: GPU to GPU by bus id; whoever has links to switches reaches all others that do. */
static void connect_links(nccl_reader *r)
{
    int32_t to_switch[STM_TOPOLOGY_MAX_GPUS] = {0};

    for (size_t i = 0; i < r->n_links; i++) {
        const nvlink *l = &r->links[i];

        if (l->to_switch) to_switch[l->gpu] += l->count;
        for (int32_t g = 0; g < r->t->n_gpus && !l->to_switch; g++)
            if (strcmp(r->t->gpus[g].pci, l->target) == 0) stm_topology_set_nvlink(r->t, l->gpu, g, l->count * NVLINK_BANDWIDTH);
    }
    for (int32_t a = 0; a < r->t->n_gpus; a++)
        for (int32_t b = a + 1; b < r->t->n_gpus; b++)
            if (to_switch[a] > 0 && to_switch[b] > 0)
                stm_topology_set_nvlink(r->t, a, b, (to_switch[a] < to_switch[b] ? to_switch[a] : to_switch[b]) * NVLINK_BANDWIDTH);
}

mill_status stm_topology_nccl(const char *text, size_t bytes, const char *file, stm_topology **out, mill_error *err)
{
    nccl_reader r = {.node = -1, .gpu = -1, .err = err};
    stm_xml_element e = {.event = STM_XML_OPEN};
    mill_status st = stm_topology_create(file, &r.t, err);

    if (st != MILL_OK) return st;
    stm_xml_start(&r.xml, text, bytes, file);
    while (st == MILL_OK && (st = stm_xml_next(&r.xml, &e, err)) == MILL_OK && e.event != STM_XML_END) st = read_element(&r, &e);
    if (st == MILL_OK) {
        connect_links(&r);
        st = stm_topology_close(r.t, err);
    }
    stm_free(r.links);
    if (st != MILL_OK)
        stm_topology_destroy(&r.t);
    else
        *out = r.t;
    return st;
}
