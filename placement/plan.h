/*
 * Which devices, processors and memory each replica gets.
 *
 * The planner minimises, over all replicas, the seconds of one *round*, in which every replica takes one batch. Steps of
 * different stages are never loaded together and cost each other nothing. The cost of an assignment is the sum of
 *
 *   transfer   over edges a -> b of one stage:  bytes(edge) * replicas(b) * mean over pairs of a replica of a and one of b
 *              of seconds per byte of the path between their sites (topology.h); a replica on several GPUs has several sites,
 *              and the mean is over these as well
 *   exchange   over replicas on k > 1 GPUs:     bytes(all edges into its step) * (k - 1) * mean over pairs of its GPUs of seconds
 *              per byte
 *   waiting    over pairs of replicas of one stage on one GPU:  the smaller of their times, t = seconds of a batch / speed of the
 *              GPU; that is the time that the two spend waiting for each other when the shorter one goes first
 *   slowness   over replicas:  STM_PLACE_SLOWNESS * (t - t on the fastest GPU): GPUs of different speed are used together unless
 *              one is so slow that taking turns on the other is better
 *   processors over nodes and stages (threads of a replica on GPUs are at the node nearest its first one):
 *               (threads wanted / processors - 1, if more than 0) * seconds of all batches there
 *   overload   of GPUs' memory:  STM_PLACE_NEVER * (bytes above what there is / what there is)
 *   conflict   STM_PLACE_NEVER for each pair of replicas of different steps of one stage on one GPU unless both steps share
 *
 * An assignment with overload or conflict is refused; they are costs so that the search can pass through such states.
 *
 * Greedy placing, then moves and exchanges until none helps, from several starts; pure, deterministic, polynomial.
 */
#ifndef STM_PLACEMENT_PLAN_H
#define STM_PLACEMENT_PLAN_H

#include "placement/topology.h"

#define STM_PLACE_SECONDS 1e-3 /* of a batch, where nobody says */
#define STM_PLACE_SLOWNESS 0.125
#define STM_PLACE_NEVER 1e6
enum { STM_PLACE_MAX_REPLICAS = 65536 };

typedef struct stm_place_step {
    const char *name;
    int32_t replicas;       /* >= 1 */
    int32_t gpus;           /* per replica; 0 = it runs on processors */
    int32_t cpus;           /* threads per replica, >= 1 */
    int64_t memory;         /* bytes that a replica needs on each of its GPUs; 0 = not known, or little */
    double seconds;         /* of a GPU for one batch, on one of average speed; 0 = not known */
    bool share;             /* may share GPUs with other steps */
    const int32_t *devices; /* [n_devices] GPUs it has to take, in turn `gpus` for each replica; NULL = any. n_devices is a
                             * multiple of `gpus` */
    int32_t n_devices;
    int32_t stage;
} stm_place_step;

typedef struct stm_place_edge {
    int32_t from, to; /* steps */
    double bytes;     /* per batch that `to` takes */
} stm_place_edge;

/** What is to be placed. All borrowed. */
typedef struct stm_place_problem {
    const stm_topology *topology;
    const stm_place_step *steps;
    int32_t n_steps;
    const stm_place_edge *edges;
    int32_t n_edges;
    double memory_share; /* of each GPU's memory that may be used, 0 .. 1; 0 = all */
    const bool *taken;   /* [n_gpus] GPUs that other processes have: not for steps that take any; NULL = none */
    stm_cpus allowed;    /* processors that may be given out; empty = all of the topology */
} stm_place_problem;

typedef struct stm_placed {
    int32_t step, replica;
    int32_t *gpus; /* [n_gpus] of the topology, in the order that the step sees */
    int32_t n_gpus;
    int32_t node;  /* of the topology: host memory and threads */
    stm_cpus cpus; /* as many as the step wants, of that node where it may be; near nodes' when there are none */
} stm_placed;

typedef struct stm_placement {
    stm_placed *entries; /* step by step, replica by replica */
    int32_t n;
    double cost;   /* seconds of a round, as above */
    int32_t *gpus; /* storage of the entries' */
} stm_placement;

/**
 * Place all replicas.
 * @param fault  on MILL_ERR_INVALID: index of the step that the error is about (the later of two, both of which it names); may be
 *               NULL.
 * @retval MILL_ERR_INVALID  what cannot be: too few GPUs, more memory than there is, two steps that do not share on one GPU (the
 *                           message names both), a device that is not there.
 * Threads: any. Blocks: computes.
 */
mill_status stm_placement_make(const stm_place_problem *p, stm_placement **out, int32_t *fault, mill_error *err);
void stm_placement_destroy(stm_placement **p);

/** Cost of an assignment: sites [replicas in order][gpus of the step, at least 1], flat; a step without GPUs has one site, a node
 *  (n_gpus + node). What tests compare the planner with. */
double stm_placement_cost(const stm_place_problem *p, const int32_t *sites);

#endif
