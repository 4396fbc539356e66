/*
 * A run that lasts: what of it is written to the store, and how it goes on from there.
 *
 * Terminals are where results become durable: sinks sync their output, stores and globals' outputs are streams of the store. A
 * commit notes for each terminal how many items it has done. From that follows, against the direction of the flow, how far back
 * every other station must go: a consumer says which batch of each input it needs first (stm_inlet_checkpoint), a producer goes
 * back to the oldest that any of its consumers needs; a generator to its cursor in front of that batch. What is made twice on the
 * way is dropped by whoever had it already. Nothing on the path of batches is written for this, but for a generator's cursors.
 *
 * Readers give out what is stored in front of them long before that is committed. So a commit looks how far every terminal is, and
 * takes that over only where the stored rows that it rests on go into the same commit: docs/durable-runs.md, A commit.
 *
 * Threads: hooks by whoever has claimed the station; the rest by the coordinator.
 */
#ifndef STM_EXEC_DURABLE_H
#define STM_EXEC_DURABLE_H

#include "exec/station.h"
#include "store/batches.h"

/* A place of a root: before its batch @p seq. */
typedef struct stm_root_place {
    uint64_t seq;
    int64_t rows;
    mill_cursor cursor;
} stm_root_place;

#define STM_ROOT_PLACES 64

/* One input of a global: what it has accepted is a stream of its own, so that what stands in front need not run again. */
typedef struct stm_kept_input {
    int32_t stream;
    uint64_t items, skip; /* as below */
    stm_batch_sink *out;
    mill_batch **gathered; /* [n_gathered] a retry: rows that ran again, until all are there; NULL where they were taken */
    size_t n_gathered, gathered_cap;
} stm_kept_input;

/* How far a terminal is. */
typedef struct stm_reached {
    uint64_t items;
    bool finished;
    mill_cursor cursor; /* sinks */
    int64_t *covered;   /* [n_roots] */
    uint64_t *given;    /* [n_roots] batches of readers that it may have seen something of */
    uint64_t *lanes;    /* globals: items of each input */
} stm_reached;

/* What a station has besides in a run that lasts. */
struct stm_lasting {
    int32_t part;
    int32_t stream;    /* stores, globals: of the vault; -1 = none */
    _Atomic bool finished; /* nothing of it is to be done in this run any more; set before it starts, terminals: by the claimant */
    uint64_t items;    /* terminals: items done, those of earlier runs included; claimant */
    uint64_t skip;     /* terminals: so many items come again and are dropped; claimant */
    bool marks;        /* sinks: the next sync is about the place of the last mark, before `marked` items; claimant */
    uint64_t marked;
    int64_t *marked_covered; /* [n_roots] */
    stm_batch_sink *out; /* where a store writes */
    stm_kept_input *lanes;     /* globals: [n_inputs]; claimant */
    bool kept;           /* it had finished when the directory was opened; constant */
    bool replayed;       /* globals: what an earlier run accepted has been given to it; claimant */
    bool gathers;        /* globals: a retry; it gets the rows that ran again among all others once the last is there; constant */
    /* terminals; coordinator */
    stm_reached said;  /* what commits say of it */
    stm_reached found; /* where it is now, if `looked` */
    bool looked, at_least_once;
    void *numbers;     /* memory of their numbers and of marked_covered */
    /* readers */
    const stm_station *store;  /* the terminal that stores what it reads; constant */
    _Atomic uint64_t given;    /* batches that it has given out, or is about to; release by the claimant */
    /* roots: ring of places, thinned out when full; station's lock */
    stm_root_place *places;
    size_t first, n;
    uint64_t stride;
    uint64_t due; /* roots: the next batch whose place is noted; claimant */
};

/** Open the run directory and put everything where the last run left it. After stm_run_build, before anything is loaded.
 *  @retval MILL_ERR_BUSY  another run writes there. Blocks: on the disk. */
mill_status stm_durable_open(stm_run *run, mill_error *err);
/** Look at what is kept instead: stations and lanes get the numbers of their streams as they were found (-1 = none), error records
 *  are read. Nothing is changed, and somebody may write there. @p changed: what the results depend on and is not as it was then, as
 *  text.
 *  @retval MILL_ERR_INVALID  nothing is kept, or steps are connected otherwise than when it was. */
mill_status stm_durable_look(stm_run *run, stm_text *changed, mill_error *err);
/** Closes the directory; what was not committed is done again by the next run. */
void stm_durable_close(stm_run *run);
/** The footprint was undone: closing adds nothing to what is there. */
void stm_durable_undone(stm_run *run);
/** Every tick of the coordinator, and every second: commits when it is time, shows that this process lives. */
void stm_durable_tick(stm_run *run);
/** When the next commit is due; INT64_MAX: none is. Threads: the coordinator. */
int64_t stm_durable_next_ns(const stm_run *run);
/** Commit now: at the end of a load group and of the run. */
void stm_durable_commit(stm_run *run);

/* Hooks, for stations with `lasting`. */
/** Note the place in front of the next batch of a root. */
void stm_lasting_place(stm_station *s, const mill_cursor *cursor, int64_t rows);
/** A root is about to make its next batch. */
static inline void stm_lasting_root(stm_station *s, const mill_cursor *cursor, int64_t rows)
{
    if (s->next_seq >= s->lasting->due) stm_lasting_place(s, cursor, rows);
}
/** An item came to a terminal: whether it was done in an earlier run and is to be dropped. */
static inline bool stm_lasting_drops(stm_station *s)
{
    if (s->lasting->skip == 0) return false;
    s->lasting->skip--;
    return true;
}
/** A sink has written an item, and its credit is still out. @p marked: its output can be gone on with from a place in that item. */
void stm_lasting_wrote(stm_station *s, bool marked);
/** A global is about to work: give it what it accepted in earlier runs. */
mill_status stm_lasting_replay(stm_station *s, stm_wrapper *w, mill_error *err);
/** An item came to a global: whether it was accepted in an earlier run; and, after it was accepted, keep it. */
bool stm_lasting_accepted(stm_station *s, int32_t input);
mill_status stm_lasting_keep(stm_station *s, int32_t input, const mill_batch *b, mill_error *err);
/** A global that gathers: instead of accepting a batch, which stays the caller's; and, once the last was kept, accept all that it
 *  gets, in order. */
mill_status stm_lasting_gather(stm_station *s, int32_t input, const mill_batch *b, mill_error *err);
mill_status stm_lasting_give_gathered(stm_station *s, stm_wrapper *w, mill_error *err);
/** A batch of a store's stream, before it is stored. */
mill_status stm_lasting_store(stm_station *s, const mill_batch *b, mill_error *err);

#endif
