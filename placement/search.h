/* The planner's state: where each replica is, and what moving one would cost. Between plan.c and search.c. */
#ifndef STM_PLACEMENT_SEARCH_H
#define STM_PLACEMENT_SEARCH_H

#include "placement/plan.h"

typedef struct stm_search_replica {
    int32_t step, k; /* k sites */
    int32_t first;   /* of them, in sites */
    bool pinned;
    bool placed;
} stm_search_replica;

/** Totals of one site in one stage. */
typedef struct stm_site_load {
    double bytes, seconds, threads;
} stm_site_load;

typedef struct stm_search {
    const stm_place_problem *p;
    int32_t n_sites, n_gpus, n_replicas, n_stages, total_sites;
    stm_search_replica *replicas;
    int32_t *sites;    /* [total_sites] where they are, replica after replica */
    int32_t *first_of; /* [n_steps + 1] first replica of a step */
    double *speed;     /* [n_gpus] relative to the average */
    double fastest;
    double *room;       /* [n_sites] bytes that may be used on a GPU; INFINITY = not known */
    double *processors; /* [n_sites] of a node */
    double *arriving;   /* [n_steps] bytes of all edges into a step */
    double *mean;       /* [n_steps][n_sites] replicas of a step at a site, over all its replicas: sums to 1 when all are placed */
    stm_site_load *loads; /* [n_stages][n_sites] */
    double *pull;         /* [n_sites] scratch: transfer cost of a replica at each site */
    uint64_t random;
} stm_search;

mill_status stm_search_init(stm_search *s, const stm_place_problem *p, mill_error *err);
void stm_search_fini(stm_search *s);
/** Put a replica at the sites it has in `sites` / take it off. */
void stm_search_put(stm_search *s, int32_t replica);
void stm_search_take(stm_search *s, int32_t replica);
/** What replica @p r (not placed) would add to the cost at @p sites. stm_search_pull(s, r) must have been called since the last
 *  change. */
double stm_search_price(const stm_search *s, int32_t r, const int32_t *sites);
void stm_search_pull(stm_search *s, int32_t r);
/** Greedy, then better until nothing helps; the best of @p starts starts is left in `sites`. */
double stm_search_run(stm_search *s, int32_t starts, int32_t *best, mill_status *st);
/** The whole cost of the placed replicas. */
double stm_search_cost(stm_search *s);
/** GPUs (or nodes) that replica @p r may be at. */
bool stm_search_may(const stm_search *s, int32_t r, int32_t site);
/** The node (as a site) of a placed replica's threads. */
int32_t stm_search_threads_node(const stm_search *s, int32_t r);

#endif
