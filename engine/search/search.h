/*
 * Exact searches on the devices of a team. Contract of the operations and what exact means: stepmill/ops.h; the answers are the
 * host's, bit for bit, whatever the number of devices and however memory cuts the work.
 *
 *   topk    the corpus is cut into a shard per device, queries go to all: each device gets its share of a chunk of queries, the
 *           rest from the others. Each finds the k best of its shard, block by block; the lists are gathered, each device merges
 *           its share of the queries, and only that comes down.
 *   pairs   blocks of rows, a few per device; each block goes once to one device, and from there to the others.
 *
 * Rows that are on a device come from there, the others from the host (search/twins.h).
 *
 * Memory: a chunk of queries and a block of rows per device. What does not fit is halved.
 * A communicator that fails is built anew, and the chunk or block done again, three times at most.
 */
#ifndef STM_SEARCH_SEARCH_H
#define STM_SEARCH_SEARCH_H

#include "core/error.h"
#include "kernels/vectors.h"
#include "search/twins.h"
#include "stepmill/ops.h"

/** Where to begin; zero = as memory allows. Results do not change. */
typedef struct stm_search_opts {
    int64_t chunk_rows; /* queries at once */
    int64_t block_rows; /* rows of a device's block */
    int64_t room;       /* pairs a launch may find, at least STM_NEAR_PAIRS_ROOM */
    const stm_twins *twins; /* of the rows; borrowed. NULL = none */
} stm_search_opts;

/** Whether the devices' kernels can do it; else it is the host's work. */
bool stm_topk_on_devices(const mill_topk_args *a);
bool stm_pairs_on_devices(const mill_pairs_args *a);
/** Arguments are valid (mill_topk checks them) and can be done on devices. @p opts NULL = zero. Statuses as mill_topk and those of
 *  devices; MILL_ERR_DEVICE_MEM: not even the smallest blocks fit. Blocks. Threads: the team's owner. */
mill_status stm_topk_team(stm_team *t, const mill_topk_args *a, const stm_search_opts *opts, mill_error *err);
mill_status stm_pairs_team(stm_team *t, const mill_pairs_args *a, const stm_search_opts *opts, mill_error *err);

/* ---- search.c: shared by topk.c and pairs.c ---- */

#define STM_SEARCH_TRIES 3

/** What a rank works in. All zero = nothing. */
typedef struct stm_search_memory {
    void *arena;  /* on its device */
    void *pinned; /* on the host */
} stm_search_memory;
/** On failure stm_search_free takes what there is. */
mill_status stm_search_alloc(stm_team *t, int32_t rank, size_t device_bytes, size_t pinned_bytes, stm_search_memory *out,
                             mill_error *err);
/** After stm_team_settle or stm_team_drain. Accepts nothing, leaves nothing. */
void stm_search_free(stm_team *t, int32_t rank, stm_search_memory *m);

/** Cut @p bytes, rounded up to 256, from *at; which begins at NULL where only the sum is wanted. */
static inline void *stm_carve(char **at, size_t bytes)
{
    void *p = *at;

    *at = (char *)((uintptr_t)p + (bytes + 255) / 256 * 256); /* nothing may be added to a NULL pointer */
    return p;
}
/** Bytes that a search may take of each device: most of what is free on the fullest. */
mill_status stm_search_budget(stm_team *t, int64_t *bytes, mill_error *err);

/** stm_vectors_init: on the devices for rows that are there, else on the host; with hashes where @p copies are to be found.
 *  @p twins may be NULL. */
mill_status stm_search_measure(stm_team *t, const stm_twins *twins, const float *const *rows, int64_t n, int64_t dim, bool copies,
                               int32_t threads, stm_vectors *v, mill_error *err);

/** Queue the rows and lengths of v->rows[pick[0 .. n - 1]] to a rank's device. */
mill_status stm_search_load(stm_team *t, int32_t rank, const stm_twins *twins, const stm_vectors *v, const int64_t *pick, int64_t n,
                            float *rows, double *lengths, mill_error *err);
/** Queue the units (kernels/vectors.h) of @p n rows that are there. */
mill_status stm_search_unit(stm_team *t, int32_t rank, const float *rows, const double *lengths, uint16_t *out, int64_t n,
                            int32_t dim, mill_error *err);
/** After attempt number @p attempt, from 1, failed with @p st and @p why: waits for what is queued. MILL_OK: connected anew, to be
 *  tried again; else the failure, in @p err too. */
mill_status stm_search_recover(stm_team *t, int32_t attempt, mill_status st, mill_error *why, mill_error *err);

#endif
