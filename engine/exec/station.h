/*
 * Inside of a run: shared by the files of this folder only.
 *
 * A station is a node of the flow with the wrappers that work there. Drivers claim a wrapper of a station, run a burst of its
 * ready items and hand the results to the stations behind it.
 *
 * Locks, in order: run->mutex (lifecycle; never on the path of batches) → station->lock (the inlet; short) → the error log's.
 * A station's lock is never held while a step runs, and never two of them at once.
 */
#ifndef STM_EXEC_STATION_H
#define STM_EXEC_STATION_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "batch/spill.h"
#include "exec/devices.h"
#include "exec/cost.h"
#include "exec/run.h"
#include "trace/tracer.h"
#include "wrapper/wrapper.h"

#define STM_BURST 16 /* items of one burst at most */
#define STM_CHEAP_NS 400 /* an item that costs no more is timed, and work to share looked for, at every eighth burst only */
#define STM_MAX_DRIVERS 256
#define STM_SPARE_DRIVERS 16 /* started in place of drivers that are stuck in a step */
#define STM_MAX_STATIONS 32768
#define STM_MAX_BRANCHES 256

typedef struct stm_station stm_station;
typedef struct stm_durable stm_durable; /* durable.h */

/* A lock held for well under a microsecond: spins, then yields. */
typedef struct stm_lock {
    _Atomic uint32_t held;
} stm_lock;
static inline void stm_lock_take(stm_lock *l)
{
    for (int tries = 0; atomic_exchange_explicit(&l->held, 1, memory_order_acquire) != 0;) {
        while (atomic_load_explicit(&l->held, memory_order_relaxed) != 0) {
            if (++tries > 64) sched_yield();
#if defined(__x86_64__)
            else __builtin_ia32_pause();
#endif
        }
    }
}
static inline void stm_lock_give(stm_lock *l) { atomic_store_explicit(&l->held, 0, memory_order_release); }

typedef struct stm_out {
    stm_station *to;
    int32_t input, branch;
    const int32_t *remap; /* into a union: where its columns are in what arrives, -1 = null; NULL = as they are */
    int32_t n_remap;
} stm_out;

/* A batch in memory, or (batch NULL) its record on disk. */
typedef struct stm_stored {
    mill_batch *batch;
    uint64_t token;
} stm_stored;

/* Batches kept between a terminal and the reader behind it. */
typedef struct stm_store {
    stm_lock lock;
    stm_stored *items; /* lock */
    size_t head, n, cap; /* lock */
    struct stm_merged *merged; /* a merge: what there is to read, all of it; reader's claimant */
    bool unread;       /* constant: what reads it has nothing to do in this run */
    struct stm_batch_source *source; /* what an earlier run stored and the reader has not read; reader's claimant */
    int64_t on_disk;         /* lock: batches in there */
    _Atomic int64_t waiting; /* items not yet read */
    _Atomic bool complete;   /* release by the writer after its last item */
} stm_store;

typedef enum stm_station_kind {
    STM_AT_GENERATOR,
    STM_AT_READER,
    STM_AT_STEP,
    STM_AT_SUBMIT,
    STM_AT_ROUTER,
    STM_AT_GLOBAL,
    STM_AT_SINK,
    STM_AT_STORE,
    STM_AT_DISCARD
} stm_station_kind;

typedef struct stm_replica_slot {
    _Alignas(64) _Atomic uint32_t claimed; /* 1 while a thread works with the wrapper; raised under the station's lock */
    _Atomic uint32_t poll;                 /* submit: a poll is due */
    _Atomic uint32_t flush_due;            /* submit: nothing new came for a tick */
    stm_wrapper *wrapper;
    pthread_t loader;
    bool loading;           /* run->mutex */
    int64_t load_since_ns;  /* run->mutex */
    mill_status load_status; /* run->mutex */
    pthread_t own;          /* thread of a blocking step */
    bool own_started;       /* coordinator */
    _Atomic int64_t unload_since_ns; /* the unload that is under way began; 0 = none is */
} stm_replica_slot;

/* Where a run in shards is cut: stores, and the readers behind them. A merge gets what all shards have stored there. */
typedef enum stm_border {
    STM_BORDER_NONE,
    STM_BORDER_SINKS, /* sinks alone are behind it: shards write, and the merge does */
    STM_BORDER_MERGE  /* what is behind it runs in the merge alone */
} stm_border;

struct stm_station {
    /* constant while the run goes on */
    stm_run *run;
    const char *name;
    const char *said; /* what errors call it: mill_step.said */
    int32_t node, plan_step, stage, root;
    stm_station_kind kind;
    bool for_merge; /* of a run in shards: no shard runs it, but their merge does */
    stm_border border;
    stm_inlet *inlet;
    stm_cost *cost; /* what arriving rows cost; NULL = no budget */
    stm_out *outs;
    int32_t n_outs, n_inputs;
    struct stm_lasting *lasting; /* durable.h; NULL = nothing of this run is kept */
    /* [columns of the step's output] steps on devices, routers: may leave in the memory of a device (resident.c); else NULL */
    bool *resident;
    /* likewise, stations with a step that hand on: used on a device by somebody below, so also there where it comes down */
    bool *paired;
    stm_station *next; /* where a driver looks first after a burst here */
    stm_replica_slot *slots;
    int32_t n_slots; /* store, reader, discard: one without a wrapper */
    bool own_threads;
    bool pairs;        /* several inputs that wait for each other */
    bool direct;       /* one input, one wrapper, run by drivers: batches for it may be carried */
    stm_store *store; /* store, global: writes to; reader: reads from */
    int64_t batch_rows; /* roots: usual rows of a batch */

    _Alignas(64) stm_lock lock;
    _Atomic int64_t ready;   /* items in the inlet; written under lock */
    _Atomic bool active;     /* its stage runs */
    _Atomic bool inlet_done; /* the end was taken, or the root has sent it; written under lock or by the claimant */
    _Atomic bool dead;       /* failed, or nothing it makes is wanted any more */
    _Atomic bool parked;     /* some of what waits here may be on disk; falls under lock when nothing waits */
    bool closing;            /* lock; no new claims: about to be done */
    bool awaited;            /* lock; the next claim is that of stm_station_await */
    _Atomic bool done;       /* finished: its wrappers are or will be unloaded */
    _Atomic uint32_t bell;   /* own threads sleep here */
    _Atomic int32_t asleep;  /* own threads sleeping */
    _Atomic int64_t cost_ns; /* of an item, moving average */
    _Atomic int64_t stalls;
    _Atomic int32_t pass;    /* roots: the pass it has used; written by the claimant */
    _Atomic uint32_t bursts; /* relaxed: decides when to read the clock */
    uint64_t next_seq;       /* roots: claimant */
    int64_t sent_rows;       /* readers: claimant */
    bool failed;             /* run->mutex: it failed itself */
    bool cut;                /* run->mutex or quiescence: its descendants were closed */
    bool finalized;          /* sinks: claimant */
    pthread_t unloader;
    bool unloading;          /* coordinator */
    _Atomic bool unloaded;   /* release by the unloader */
};

typedef struct stm_driver {
    stm_run *run;
    int32_t index;
    pthread_t thread;
    bool started;
    _Alignas(64) _Atomic uint64_t beats; /* bursts done; written by the driver, relaxed */
} stm_driver;

struct stm_run {
    stm_plan *plan;
    stm_run_opts opts;
    char *run_dir;
    stm_row_choice choice; /* of generators; all zero = all rows */
    mill_pool *pool;
    stm_flow *flow;
    stm_errors *errors;
    stm_wrapper_env env;
    stm_durable *durable; /* NULL = nothing is kept */
    stm_run_devices devices;
    stm_station *stations; /* in topological order, as the nodes of the flow */
    int32_t n_stations;
    bool own_roots; /* some generator has a thread of its own */
    int32_t *step_station; /* [plan steps] */
    stm_driver *drivers;
    _Atomic int32_t n_drivers; /* grows when steps block drivers without having said so */
    int32_t drivers_room;      /* constant: entries of drivers */
    int64_t watched_ns, moved_ns, moved,
        quiet_told;            /* coordinator: of the watchdog: last look, last change, what it was, how often said */
    uint64_t seen_beats;       /* coordinator: bursts done at the last look */
    /* raised by the coordinator before a long nap, lowered by whoever is the first to be woken meanwhile, who tells it */
    _Atomic int32_t resting;
    pthread_t coordinator;
    bool coordinator_started;

    _Alignas(64) _Atomic uint32_t epoch;  /* sleeping drivers wait for it to change */
    _Atomic int32_t sleepers;             /* drivers asleep */
    _Atomic int32_t waking;               /* a wake is under way */
    _Atomic int32_t wake_doubles;         /* relaxed: waking takes 2^this as much waiting work, since wakes were for too little */
    /* relaxed: looks at waiting work since that last changed that were for a wake but for it */
    _Atomic int32_t declined;
    _Alignas(64) _Atomic int32_t idle;    /* threads (drivers and own threads) with nothing to do */
    _Atomic int32_t threads;              /* drivers and own threads */
    _Atomic int32_t quiescing;            /* somebody looks at a run at rest: nobody else may start */
    _Atomic int32_t stop;                 /* 0, 1 drain, 2 now */
    _Atomic int64_t stop_ns;              /* when it was last raised */
    _Atomic bool quit;                    /* drivers end */
    _Atomic bool rested;                  /* stopped and at rest, or stuck: the stage is over */
    _Atomic int32_t stage_left;           /* stations of the stage not done */
    _Atomic int32_t stage;
    /* memory.c says how these work together */
    stm_spill *spill;
    int64_t memory_limit;     /* bytes; constant */
    _Atomic int64_t ceiling;  /* live bytes above which memory counts as short; written at quiescence and by the coordinator */
    _Atomic int32_t pass;     /* each root may send one batch per pass although memory is short; written at quiescence */
    _Atomic int64_t memory_stalls;

    pthread_mutex_t mutex; /* lifecycle */
    pthread_cond_t cond;
    _Atomic int32_t ended; /* stm_run_end; written under mutex */
    bool load_failed, failed; /* mutex */
    bool began;               /* mutex; a load group has loaded: rows flow */
    mill_error first_error;   /* mutex */
    pthread_mutex_t print_lock;
};

/* build.c */
mill_status stm_run_build(stm_run *run, mill_error *err);
void stm_run_unbuild(stm_run *run);

/* Batches that a thread takes along to the next station, instead of putting them into its inlet and out again. Nobody else sees
 * them: whoever carries some goes to that station next, and leaves them there if it cannot run it. Until then the wrapper that made
 * them stays claimed, so that no later batch overtakes them: all behind it would pile up in front of whoever restores order. */
typedef struct stm_carry {
    bool may;  /* constant: the thread goes on to where its batches go */
    stm_replica_slot *mine; /* constant: the wrapper that it works with; NULL = any that is free */
    int32_t n; /* > 0: for `to` */
    stm_station *to;
    stm_station *from; /* where they were made, ... */
    stm_replica_slot *slot; /* ... and the wrapper still claimed there */
    stm_ring *ring; /* constant: where the thread notes what it does; NULL = nobody asked for it */
    mill_batch *b[STM_BURST];
} stm_carry;

/* work.c: run a burst at a station; returns items handled, 0 = nothing to do or all wrappers claimed. What @p c carries must be for
 * @p s; it is handled, or pushed; what it carries afterwards is for s->next. */
int32_t stm_station_run(stm_station *s, stm_carry *c);
/** Put what is carried where others find it. */
void stm_carry_drop(stm_carry *c);
/** A wrapper of a station for somebody else than a driver; NULL = all are at work, or the station is closing. Tell the drivers
 *  afterwards. */
stm_replica_slot *stm_station_claim(stm_station *s);
/** The same for a station whose bursts are short: waits for the end of the one that is under way. NULL = the station is closing. */
stm_replica_slot *stm_station_await(stm_station *s);
void stm_station_release(stm_station *s, stm_replica_slot *slot);
/** Whether a thread could do something here now. */
bool stm_station_runnable(const stm_station *s);
/* end.c: a fatal failure of the station: kept as the run's error if it is the first. */
void stm_station_fail(stm_station *s, const mill_error *err);
/** Nothing more is done here: what waits is dropped, nothing is taken. Blocks: a short lock. */
void stm_station_die(stm_station *s);
/** If everything it will ever do is done: mark done, once. */
void stm_station_check_done(stm_station *s);
/** No new claims from now on; returns when nobody is at work here. */
void stm_station_close(stm_station *s);

/** Up to @p want items for a wrapper that is claimed. */
int32_t stm_station_take(stm_station *s, stm_ready *items, int32_t want);
/** Give batches to everybody who reads the stream; takes c->b[0 .. n) over. */
void stm_station_hand_on(stm_station *s, int32_t n, stm_carry *c);

/** run.c: stm_run_start without its threads: built and opened, put where the run directory says, nothing loaded. */
mill_status stm_run_make(stm_plan **plan, const stm_run_opts *opts, stm_run **out, mill_error *err);

/* run.c: the calling thread works for this replica from now on: near the GPU that the plan gives it, if it gives one. */
void stm_run_go_near(const stm_run *run, const stm_wrapper *w);

/* overlap.c: a burst of a step on a device. Returns when nothing of it is under way any more; items handled. */
int32_t stm_station_overlap(stm_station *s, stm_replica_slot *slot, stm_ready *items, int32_t n, stm_ring *ring);

/* resident.c: which columns leave which station in the memory of a device. */
mill_status stm_run_residents(stm_run *run, mill_error *err);

/* driver.c */
mill_status stm_drivers_start(stm_run *run, mill_error *err);
void stm_drivers_join(stm_run *run);
/** Watchdog: every driver has been inside a step since the last look while other work waits: start one more. Returns whether
 *  anything moved or could. Threads: coordinator. */
bool stm_drivers_relieve(stm_run *run);
mill_status stm_own_threads_start(stm_run *run, stm_station *s, mill_error *err);
void stm_own_threads_join(stm_station *s);
/** Whether some station could run now: of those that drivers run, or (@p own_too) of all. Any thread. */
bool stm_run_any_runnable(stm_run *run, bool own_too);
/** Wake whoever may have something to do. Any thread. */
void stm_run_ring(stm_run *run, bool all);
/** While memory is short, something was finished: steps with threads of their own that were held back may go on. Any thread. */
void stm_run_ring_held(stm_run *run);
/** New work at @p s, published before: wake its own threads; drivers if all are asleep. Any thread. */
void stm_station_ring(stm_station *s);

/* stall.c: what to do when nothing can move. Only from a thread that holds `quiescing`. */
/** Returns true when something can move again. */
bool stm_run_unstall(stm_run *run);

/* memory.c */
/** Whether more is alive than there should be. Threads: any. */
static inline bool stm_memory_short(const stm_run *run)
{
    return __builtin_expect(stm_pool_live(run->pool) > atomic_load_explicit(&run->ceiling, memory_order_relaxed), 0);
}
/** Whether a root may send a batch as far as memory goes. */
static inline bool stm_memory_admits(const stm_station *root)
{
    return !stm_memory_short(root->run) ||
           atomic_load_explicit(&root->pass, memory_order_relaxed) != atomic_load_explicit(&root->run->pass, memory_order_relaxed);
}
/** Memory is short and what the station makes would only wait in front of the next. */
bool stm_memory_holds_back(const stm_station *s);
/** On the way to input @p input of @p to while memory is short: batches that would only wait there go to disk. */
mill_status stm_memory_park(stm_station *to, int32_t input, mill_batch **b, int32_t n, mill_error *err);
/** Into a store; to disk once memory gets scarce. Takes *b over on success. Threads: the one that fills the store. */
mill_status stm_store_put(stm_run *run, stm_store *store, mill_batch **b, mill_error *err);
/** Whether there is something for its reader. The last batch of a global's output says so: one is kept back until it is known to be
 *  that or not, so that the stream is the same however fast it is read. A global that made nothing still has an end. Threads:
 *  any. */
bool stm_store_readable(const stm_station *reader);
/** The next batch, *out NULL = none is there. *last: it was there, and it is the last that a complete store has. Threads: the
 *  reader's. */
mill_status stm_store_take(stm_run *run, stm_store *store, mill_batch **out, bool *last, mill_error *err);
void stm_store_free(stm_run *run, stm_store *store);
/** At quiescence: make room and let every root send a batch. Returns whether something can move now. */
bool stm_memory_relieve(stm_run *run);
/** Now and then, by the coordinator: back to the limit once it can be kept. */
void stm_memory_settle(stm_run *run);

/** Raise `stop`, without telling anybody. Whether it was lower. Any thread. */
bool stm_run_raise_stop(stm_run *run, int32_t to);

/* watch.c */
/** Now and then: says so when nothing has moved for long. Threads: coordinator. */
void stm_run_watch(stm_run *run);

/* lifecycle.c */
void *stm_coordinator_main(void *arg);
void stm_run_note(stm_run *run); /* tell the coordinator that something changed */

#endif
