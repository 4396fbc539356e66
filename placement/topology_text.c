/*
 * The text form of a topology: one line per part. docs/placement.md has the whole of it.
 *
 *   stepmill-topology 1
 *   node 0 cpus 0-31 memory 256GiB
 *   gpu 0 uuid GPU-... pci 0000:1b:00.0 node 0 memory 80GiB units 132 pcie 50GB switch 0 name NVIDIA H100
 *   mig 1 of 0 uuid MIG-... memory 10GiB units 16 instance 1/0
 *   nvlink 0 1 200GB          both ways between two GPUs, bytes a second each way
 *   nvswitch 0-7 450GB        between all of these
 *   between-nodes 40GB
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/text.h"
#include "placement/sources.h"

typedef struct reader {
    stm_topology *t;
    const char *file;
    int line;
    char *words[64]; /* of the line in hand */
    int columns[64];
    int n_words;
    mill_error *err;
} reader;

static mill_status wrong(reader *r, int word, const char *what)
{
    const mill_status st = mill_fail(r->err, MILL_ERR_PARSE, "%s%s%.60s%s", what, word < r->n_words ? ", got \"" : "",
                                     word < r->n_words ? r->words[word] : "", word < r->n_words ? "\"" : "");

    mill_error_place(r->err, r->file, r->line, word < r->n_words ? r->columns[word] : 1);
    return st;
}

/* "50GB" and "50GB/s". */
static bool read_rate(const char *text, double *out)
{
    char number[40];
    size_t n = strlen(text);
    int64_t bytes;

    if (n > 2 && strcmp(text + n - 2, "/s") == 0) n -= 2;
    if (n == 0 || n >= sizeof number) return false;
    memcpy(number, text, n);
    number[n] = '\0';
    if (!stm_parse_bytes(number, &bytes) || bytes <= 0) return false;
    *out = (double)bytes;
    return true;
}

static bool read_count(const char *text, int64_t most, int32_t *out)
{
    int64_t v;

    if (!stm_parse_int(text, &v) || v < 0 || v > most) return false;
    *out = (int32_t)v;
    return true;
}

static mill_status read_node(reader *r)
{
    stm_topology_node node = {0};

    if (r->n_words < 2 || !read_count(r->words[1], 1 << 20, &node.os_index)) return wrong(r, 1, "expected the number of the node");
    if (stm_topology_node_of_os(r->t, node.os_index) >= 0) return wrong(r, 1, "this node stands above already");
    for (int i = 2; i < r->n_words; i += 2) {
        if (strcmp(r->words[i], "cpus") == 0) {
            if (i + 1 >= r->n_words || !stm_cpus_parse(r->words[i + 1], &node.cpus))
                return wrong(r, i + 1, "expected processors, as 0-3,8");
        } else if (strcmp(r->words[i], "memory") == 0) {
            if (i + 1 >= r->n_words || !stm_parse_bytes(r->words[i + 1], &node.memory))
                return wrong(r, i + 1, "expected bytes, as 256GiB");
        } else {
            return wrong(r, i, "expected cpus or memory");
        }
    }
    if (stm_cpus_count(&node.cpus) == 0) return wrong(r, r->n_words, "a node needs cpus");
    return stm_topology_add_node(r->t, &node, r->err);
}

/* One attribute of a GPU: its value is the word at @p at. */
static mill_status read_attribute(reader *r, const char *name, int at, stm_topology_gpu *g)
{
    const char *v = at < r->n_words ? r->words[at] : "";
    int32_t n = 0;

    if (strcmp(name, "uuid") == 0) {
        if (strlen(v) >= sizeof g->uuid || (strncmp(v, "GPU-", 4) != 0 && strncmp(v, "MIG-", 4) != 0))
            return wrong(r, at, "expected a UUID, GPU-... or MIG-...");
        for (int32_t i = 0; i < r->t->n_gpus; i++)
            if (strcmp(r->t->gpus[i].uuid, v) == 0) return wrong(r, at, "another GPU has this UUID");
        snprintf(g->uuid, sizeof g->uuid, "%s", v);
    } else if (strcmp(name, "pci") == 0) {
        if (!stm_pci_normalize(v, g->pci)) return wrong(r, at, "expected a PCI bus id, as 0000:3b:00.0");
    } else if (strcmp(name, "node") == 0) {
        if (!read_count(v, 1 << 20, &n) || (g->node = stm_topology_node_of_os(r->t, n)) < 0)
            return wrong(r, at, "expected the number of a node that stands above");
    } else if (strcmp(name, "memory") == 0) {
        if (!stm_parse_bytes(v, &g->memory)) return wrong(r, at, "expected bytes, as 80GiB");
    } else if (strcmp(name, "units") == 0) {
        if (!read_count(v, 1 << 20, &g->units)) return wrong(r, at, "expected a number of multiprocessors");
    } else if (strcmp(name, "switch") == 0) {
        if (!read_count(v, 1 << 20, &g->pci_switch)) return wrong(r, at, "expected a number");
    } else if (strcmp(name, "instance") == 0) {
        const size_t slash = strcspn(v, "/");
        char first[16] = "";

        if (slash < sizeof first) memcpy(first, v, slash);
        if (v[slash] != '/' || !read_count(first, 1 << 20, &g->instance[0]) || !read_count(v + slash + 1, 1 << 20, &g->instance[1]))
            return wrong(r, at, "expected GPU instance/compute instance, as 1/0");
    } else if (strcmp(name, "pcie") == 0) {
        if (!read_rate(v, &g->pcie)) return wrong(r, at, "expected bytes a second, as 50GB");
    } else {
        return wrong(r, at - 1, "expected uuid, pci, node, memory, units, pcie, switch, instance or name");
    }
    return MILL_OK;
}

static mill_status read_gpu(reader *r, bool mig)
{
    stm_topology_gpu g = {.node = -1, .pci_switch = -1, .part_of = -1, .instance = {-1, -1}};
    int32_t number;
    int at = 2;
    mill_status st;

    if (r->n_words < 2 || !read_count(r->words[1], STM_TOPOLOGY_MAX_GPUS, &number) || number != r->t->n_gpus)
        return wrong(r, 1, "expected the number of the GPU: 0, 1, ... in their order");
    if (mig) {
        int32_t parent;

        if (r->n_words < 4 || strcmp(r->words[2], "of") != 0 || !read_count(r->words[3], number - 1, &parent) ||
            r->t->gpus[parent].part_of >= 0)
            return wrong(r, 2, "expected `of` and the number of a whole GPU above");
        g = r->t->gpus[parent]; /* its place is the GPU's; how much it has is its own */
        g.part_of = parent;
        g.uuid[0] = '\0';
        g.memory = 0, g.units = 0;
        at = 4;
    }
    for (; at < r->n_words; at += 2) {
        if (strcmp(r->words[at], "name") == 0) { /* the rest of the line */
            for (int i = at + 1; i < r->n_words; i++) {
                const size_t used = i == at + 1 ? 0 : strlen(g.name);

                snprintf(g.name + used, sizeof g.name - used, "%s%s", used > 0 ? " " : "", r->words[i]);
            }
            break;
        }
        if ((st = read_attribute(r, r->words[at], at + 1, &g)) != MILL_OK) return st;
    }
    return stm_topology_add_gpu(r->t, &g, r->err);
}

static mill_status read_nvlink(reader *r)
{
    int32_t a, b;
    double rate;

    if (r->n_words != 4) return wrong(r, r->n_words, "expected two GPUs and bytes a second");
    if (!read_count(r->words[1], r->t->n_gpus - 1, &a)) return wrong(r, 1, "expected the number of a GPU above");
    if (!read_count(r->words[2], r->t->n_gpus - 1, &b) || a == b) return wrong(r, 2, "expected the number of another GPU above");
    if (!read_rate(r->words[3], &rate)) return wrong(r, 3, "expected bytes a second, as 50GB");
    stm_topology_set_nvlink(r->t, a, b, rate);
    return MILL_OK;
}

static mill_status read_nvswitch(reader *r)
{
    stm_cpus members; /* a set of small numbers */
    double rate;

    if (r->n_words != 3) return wrong(r, r->n_words, "expected GPUs, as 0-7, and bytes a second");
    if (!stm_cpus_parse(r->words[1], &members) || stm_cpus_count(&members) < 2) return wrong(r, 1, "expected GPUs, as 0-7");
    for (int32_t a = stm_cpus_next(&members, -1); a >= 0; a = stm_cpus_next(&members, a))
        if (a >= r->t->n_gpus) return wrong(r, 1, "expected numbers of GPUs above");
    if (!read_rate(r->words[2], &rate)) return wrong(r, 2, "expected bytes a second, as 450GB");
    for (int32_t a = stm_cpus_next(&members, -1); a >= 0; a = stm_cpus_next(&members, a))
        for (int32_t b = stm_cpus_next(&members, a); b >= 0; b = stm_cpus_next(&members, b))
            stm_topology_set_nvlink(r->t, a, b, rate);
    return MILL_OK;
}

static mill_status read_line(reader *r)
{
    const char *what = r->words[0];

    if (strcmp(what, "node") == 0) return read_node(r);
    if (strcmp(what, "gpu") == 0) return read_gpu(r, false);
    if (strcmp(what, "mig") == 0) return read_gpu(r, true);
    if (strcmp(what, "nvlink") == 0) return read_nvlink(r);
    if (strcmp(what, "nvswitch") == 0) return read_nvswitch(r);
    if (strcmp(what, "between-nodes") == 0)
        return r->n_words == 2 && read_rate(r->words[1], &r->t->nodes_bandwidth) ? MILL_OK
                                                                                 : wrong(r, 1, "expected bytes a second, as 40GB");
    return wrong(r, 0, "expected node, gpu, mig, nvlink, nvswitch or between-nodes");
}

/* Cut the line into words, in place. */
static mill_status split(reader *r, char *line)
{
    char *p = line;

    r->n_words = 0;
    for (;;) {
        while (*p == ' ' || *p == '\t' || *p == '\r') *p++ = '\0';
        if (*p == '\0' || *p == '#') break;
        if (r->n_words == (int)(sizeof r->words / sizeof *r->words)) return wrong(r, 0, "too many words");
        r->columns[r->n_words] = (int)(p - line) + 1;
        r->words[r->n_words++] = p;
        while (*p != '\0' && *p != ' ' && *p != '\t' && *p != '\r') p++;
    }
    *p = '\0';
    return MILL_OK;
}

static mill_status read_lines(reader *r, char *text)
{
    bool headed = false;
    mill_status st = MILL_OK;

    while (st == MILL_OK && text != NULL) {
        char *next = strchr(text, '\n');

        if (next != NULL) *next++ = '\0';
        r->line++;
        if ((st = split(r, text)) == MILL_OK && r->n_words > 0) {
            if (headed)
                st = read_line(r);
            else if (r->n_words != 2 || strcmp(r->words[0], STM_TOPOLOGY_HEAD) != 0 || strcmp(r->words[1], "1") != 0)
                st = wrong(r, 0, "expected \"" STM_TOPOLOGY_HEAD " 1\" as the first line");
            headed = true;
        }
        text = next;
    }
    if (st == MILL_OK && !headed) return wrong(r, 0, "expected \"" STM_TOPOLOGY_HEAD " 1\" as the first line");
    if (st == MILL_OK && r->t->n_nodes == 0) return wrong(r, r->n_words, "no node: a machine has at least one");
    return st;
}

mill_status stm_topology_parse(const char *text, size_t bytes, const char *file, stm_topology **out, mill_error *err)
{
    reader r = {.file = file, .err = err};
    char *copy = NULL;
    mill_status st = stm_topology_create(file, &r.t, err);

    if (st != MILL_OK) return st;
    if (bytes == 0) text = ""; /* may be NULL then */
    if (memchr(text, '\0', bytes) != NULL) {
        st = mill_fail(err, MILL_ERR_PARSE, "%s: not text: it has a NUL byte", file);
        goto fail;
    }
    if ((copy = stm_strndup(text, bytes)) == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "reading %s", file);
        goto fail;
    }
    if ((st = read_lines(&r, copy)) != MILL_OK || (st = stm_topology_close(r.t, err)) != MILL_OK) goto fail;
    stm_free(copy);
    *out = r.t;
    return MILL_OK;
fail:
    stm_free(copy);
    stm_topology_destroy(&r.t);
    return st;
}
