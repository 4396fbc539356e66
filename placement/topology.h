/*
 * The topology object: the GPUs, NUMA nodes and processors of a machine, and how fast bytes go between them. The planner reads
 * this and never the machine, so every rule of it is tested on any machine.
 *
 * It is made from this machine (hwloc, and what the NVIDIA driver says in /proc), from a recorded hwloc XML, from hwloc's
 * synthetic strings, from NCCL's topology files, or from text of its own (docs/placement.md); whoever knows the devices better
 * (the CUDA module) adds what it knows with stm_topology_merge.
 *
 * A *site* is a place where a replica can be: a GPU (0 .. n_gpus-1) or a node of host memory (n_gpus + node).
 */
#ifndef STM_PLACEMENT_TOPOLOGY_H
#define STM_PLACEMENT_TOPOLOGY_H

#include "placement/cpus.h"
#include "stepmill/error.h"

enum { STM_TOPOLOGY_MAX_GPUS = 256, STM_TOPOLOGY_MAX_NODES = 256 };

/* Bandwidths in bytes per second where a source does not say them: a PCIe 3 link of 16 lanes as it is in practice, a link
 * between two processor packages; and the share that is left where two GPUs of one node meet above their PCIe switches, and where
 * a path goes on to another node. */
#define STM_BANDWIDTH_PCIE 12e9
#define STM_BANDWIDTH_NODES 20e9
#define STM_SHARE_ABOVE_SWITCH 0.8
#define STM_SHARE_FAR 0.9

typedef struct stm_topology_gpu {
    char uuid[64];       /* "GPU-8932f937-d72c-..." or "MIG-..."; "" = not known */
    char pci[16];        /* "0000:3b:00.0", lower case; "" = not known */
    char name[64];       /* "NVIDIA H100"; "" = not known */
    int64_t memory;      /* bytes; 0 = not known */
    int32_t units;       /* multiprocessors; 0 = not known */
    int32_t node;        /* index into nodes of the nearest host memory; -1 = not known */
    int32_t pci_switch;  /* GPUs with the same number >= 0 meet at a PCIe switch; -1 = none, or not known */
    int32_t part_of;     /* MIG: the GPU that this is an instance of; -1 = a whole GPU. A GPU with instances is not usable itself */
    int32_t instance[2]; /* MIG: GPU instance and compute instance, of the older name MIG-GPU-<uuid>/<gi>/<ci>; -1 = not known */
    double pcie;         /* bytes/s to the host, each way */
    stm_cpus cpus;       /* processors near it: those of its node, or of all nodes when that is not known */
} stm_topology_gpu;

typedef struct stm_topology_node {
    int32_t os_index; /* the number the operating system gives it */
    int64_t memory;   /* bytes; 0 = not known */
    stm_cpus cpus;    /* empty = not known; memory without processors (of a GPU, an expander) is no node here */
} stm_topology_node;

typedef struct stm_topology {
    char source[128];       /* what it was made from, for people: "this machine", "dgx.xml" */
    stm_topology_gpu *gpus; /* in the order in which CUDA would count them with nothing hidden, as far as can be told */
    int32_t n_gpus;
    stm_topology_node *nodes; /* at least one */
    int32_t n_nodes;
    double *nvlink;           /* [n_gpus][n_gpus] bytes/s one way over NVLink; 0 = none */
    double nodes_bandwidth;   /* bytes/s between two nodes */
    double *seconds_per_byte; /* [n_gpus + n_nodes]^2, filled by stm_topology_close */
} stm_topology;

/** What somebody who opened the devices knows; "" , 0 and -1 = not known. Position in the array = CUDA's ordinal. */
typedef struct stm_gpu_info {
    char uuid[64], pci[16], name[64];
    int64_t memory;
    int32_t units;
    int32_t numa_node; /* as the operating system counts */
} stm_gpu_info;

/* ---- making one -------------------------------------------------------------------------------------------------- */

/** An empty topology: no GPU, no node. Fill it, then stm_topology_close. */
mill_status stm_topology_create(const char *source, stm_topology **out, mill_error *err);
/** Sets *t to NULL; accepts NULL. */
void stm_topology_destroy(stm_topology **t);
/** Append; copied. MILL_ERR_INVALID beyond the limits above. NVLinks start as none. */
mill_status stm_topology_add_node(stm_topology *t, const stm_topology_node *node, mill_error *err);
mill_status stm_topology_add_gpu(stm_topology *t, const stm_topology_gpu *gpu, mill_error *err);
void stm_topology_set_nvlink(stm_topology *t, int32_t a, int32_t b, double bytes_per_s); /* both ways */
/** Work out what follows from the parts: processors near each GPU, the time of a byte between any two sites. May be called again
 *  after changes. A topology without nodes gets one of all processors that the process may use. */
mill_status stm_topology_close(stm_topology *t, mill_error *err);

/** This machine. Discovery is of the order of 10 ms; the first call does it, later ones share its result, which lives as long as
 *  the process: do not destroy it, do not change it. hwloc is loaded here and nowhere else; without it, one node of all processors.
 *  Threads: any. Blocks: reads /sys and /proc. */
mill_status stm_topology_here(const stm_topology **out, mill_error *err);
/** A file: hwloc's XML (format 2), NCCL's XML, or text of our own, told apart by content. Blocks: reads the file. */
mill_status stm_topology_read(const char *path, stm_topology **out, mill_error *err);
/** Text of our own; @p file is its name in errors, which have line and column. */
mill_status stm_topology_parse(const char *text, size_t bytes, const char *file, stm_topology **out, mill_error *err);
/** hwloc's description of a machine ("pack:2 numa:1 core:8 pu:1"). It has no GPUs: add them. */
mill_status stm_topology_synthetic(const char *description, stm_topology **out, mill_error *err);
/** Copy of @p base whose GPUs are exactly @p gpus in their order: each is found in @p base by its PCI bus id, or else by its UUID,
 *  and keeps what @p base knows of its place and links. */
mill_status stm_topology_merge(const stm_topology *base, const stm_gpu_info *gpus, int32_t n, stm_topology **out, mill_error *err);
/** Copy of @p base with only the GPUs at @p keep [n], in that order. */
mill_status stm_topology_select(const stm_topology *base, const int32_t *keep, int32_t n, stm_topology **out, mill_error *err);

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static inline int32_t stm_topology_sites(const stm_topology *t) { return t->n_gpus + t->n_nodes; }
/** Seconds for a byte from site @p a to site @p b; 0 within one site. */
static inline double stm_topology_seconds_per_byte(const stm_topology *t, int32_t a, int32_t b)
{
    return t->seconds_per_byte[(size_t)a * (size_t)stm_topology_sites(t) + (size_t)b];
}
/** "NVLink", "PCIe switch", "PCIe", "host" ...: what the path between two sites goes over. */
const char *stm_topology_path(const stm_topology *t, int32_t a, int32_t b);
/** Index of the node with that number of the operating system; -1 = none. */
int32_t stm_topology_node_of_os(const stm_topology *t, int32_t os_index);
/** Whether GPU @p g has MIG instances, and so cannot be used as a whole. */
bool stm_topology_is_split(const stm_topology *t, int32_t g);
/** All processors of all nodes. */
stm_cpus stm_topology_cpus(const stm_topology *t);
/** Lower-case "dddd:bb:dd.f" of any usual way to write a PCI bus id ("3B:00.0", "00000000:3B:00.0"). False when it is none. */
bool stm_pci_normalize(const char *text, char out[16]);

#endif
