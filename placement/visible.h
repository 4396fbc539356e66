/*
 * Which GPUs a process sees, and in what order: CUDA_VISIBLE_DEVICES read the way CUDA reads it. Nobody here ever sets the
 * variable or sorts what it says: position i of the list is CUDA's device i.
 *
 * What CUDA does, as its documentation and PyTorch's reading of it agree:
 *  - not set: all GPUs; empty: none;
 *  - the first entry says what kind all are: numbers, GPU-... or MIG-...; one of another kind ends the list;
 *  - a number is read up to the first character that is no digit ("1x" is 1); a number below 0 or of no GPU ends the list;
 *  - a UUID may be shortened as long as only one GPU begins so; one that is unknown or not unique ends the list;
 *  - a GPU named twice leaves none at all;
 *  - of MIG instances only the first one is seen, and beside it no whole GPU. A split GPU stands for its first instance.
 */
#ifndef STM_PLACEMENT_VISIBLE_H
#define STM_PLACEMENT_VISIBLE_H

#include "placement/topology.h"

typedef struct stm_visible {
    int32_t gpus[STM_TOPOLOGY_MAX_GPUS]; /* indexes into the topology's GPUs; position = CUDA's number */
    int32_t n;
    char note[160]; /* what was ignored, and why; "" = nothing */
} stm_visible;

/**
 * @param t      all GPUs of the machine, in CUDA's order.
 * @param value  of CUDA_VISIBLE_DEVICES; NULL = not set.
 * @param order  of CUDA_DEVICE_ORDER; NULL = not set. PCI_BUS_ID counts by bus id, all else in the topology's order.
 */
void stm_visible_read(const stm_topology *t, const char *value, const char *order, stm_visible *out);
/** The same from the environment of this process, as a topology of only those GPUs. @p note may be NULL. */
mill_status stm_visible_topology(const stm_topology *all, stm_topology **out, char note[160], mill_error *err);

#endif
