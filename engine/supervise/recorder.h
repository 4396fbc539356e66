/*
 * The flight recorder: memory that the process that works shares with the one that supervises it (a memfd). Each replica has a
 * record that says what it is doing: which call, for which rows, since when. It is written on the way of every batch, by a handful
 * of stores into a cache line of the replica's own; no lock, no system call, nothing allocated. When the worker dies, hangs or is
 * stopped, the supervisor reads there who was at work.
 *
 * A step with submit and poll has rows for longer than a call lasts: each batch that one holds has a place of its own, from before
 * it is submitted until its last answer.
 *
 * The supervisor writes the table of suspects between two workers, the worker reads it: rows that were in a replica when one died.
 *
 * Threads: a record is written by whoever has claimed its replica; anybody reads. The rest says who writes it.
 */
#ifndef STM_SUPERVISE_RECORDER_H
#define STM_SUPERVISE_RECORDER_H

#include <stdatomic.h>

#include "batch/batch.h"

#define STM_RECORDS 8192      /* replicas that are recorded; others work without */
#define STM_RECORD_KEY 8      /* elements of a key that are told apart */
#define STM_SUSPECTS 1024     /* entries of the table */
#define STM_HELD 1024         /* batches that steps with submit hold and that are told apart; of others nothing is known */
#define STM_RECORDER_DIR 4096 /* bytes of the run directory's path */
#define STM_RECORDER_UNDO ((size_t)1 << 18)

/** What a replica is doing. Names: stm_doing_name. */
typedef enum stm_doing {
    STM_DOING_NOTHING,
    STM_DOING_LOAD,
    STM_DOING_GENERATE,
    STM_DOING_PROCESS,
    STM_DOING_SUBMIT,
    STM_DOING_POLL,
    STM_DOING_ROUTE,
    STM_DOING_ACCEPT,
    STM_DOING_FINISH,
    STM_DOING_WRITE,
    STM_DOING_SYNC,
    STM_DOING_FINALIZE,
    STM_DOING_UNLOAD,
    STM_DOINGS
} stm_doing;

typedef struct stm_record {
    _Alignas(64) _Atomic int32_t doing; /* release: the rest of the line is of this call */
    _Atomic int32_t alone;              /* nothing else was allowed to be at work */
    /* 0: keys first .. first + rows - 1; else those below: rows with children, and rows with gaps between them */
    _Atomic int32_t in_tuples;
    _Atomic int64_t since_ns;           /* by the recorder's clock: up to a quarter of a second too early, a second after a pause */
    _Atomic int64_t first, rows;        /* rows 0: the call is for none */
    const _Atomic int64_t *clock;       /* constant; the worker's address */
    _Alignas(64) _Atomic int64_t low[STM_RECORD_KEY], high[STM_RECORD_KEY]; /* in_tuples: keys of the first and the last row */
    char step[64], root[64];                                                /* constant */
    int32_t replica;                                                        /* constant */
} stm_record;

/** The keys first .. last of a step, compared element by element; shorter ones are padded with -1. */
typedef struct stm_key_range {
    int64_t low[STM_RECORD_KEY], high[STM_RECORD_KEY];
} stm_key_range;

/** A batch that a step with submit holds, whether a call is under way or not. */
typedef struct stm_held {
    _Atomic int32_t record; /* release: 1 + its replica's place among the records; 0 = free, -1 = being filled */
    stm_key_range keys;
} stm_held;

typedef enum stm_suspicion {
    STM_CLEARED,   /* came through since; written by the worker */
    STM_SUSPECTED, /* was in a replica when the worker died: is to be run alone */
    STM_GUILTY,    /* was alone when the worker died: is to be cut in two */
    STM_BLAMED,    /* a row that was alone then (of a router: a batch): is not to be run again */
    STM_BARRED     /* a call that was alone then, of which no row can be left out: is not made again, and counts as failed */
} stm_suspicion;

typedef struct stm_suspect {
    _Atomic int32_t verdict; /* stm_suspicion */
    /* of which call; of rows that a step with submit holds: submit. Guilty ones are of process or submit, blamed ones of route,
     * too */
    int32_t doing;
    int32_t status;          /* mill_status of the failure: MILL_ERR_STEP, _TIMEOUT, _DEVICE */
    stm_key_range keys;
    char step[64], cause[160]; /* cause: "signal 11 (SIGSEGV)" */
} stm_suspect;

typedef struct stm_recorder {
    /* the worker writes */
    /* it lives; the clock of the records. Raised four times a second, once while no call begins */
    _Alignas(64) _Atomic int64_t now_ns;
    _Alignas(64) _Atomic int32_t n_records;
    _Atomic int32_t begun; /* the run directory is open: --fresh has done its work */
    _Atomic int32_t ended; /* it ends as it wants to: its exit code is the run's */
    _Atomic int32_t lost;  /* release: `last` is why it gives up, so that another goes on */
    _Atomic int64_t done;  /* items that are committed: more means that the run goes on */
    mill_error last;
    char dir[STM_RECORDER_DIR]; /* run directory, "" = none; before `begun` */
    /* release; bytes of `undo`: what stm_footprint_write gave, while no row flows; 0 = what was made stays */
    _Atomic uint32_t n_undo;
    char undo[STM_RECORDER_UNDO];
    /* the supervisor writes, while no worker lives; the worker fills an empty table from the run directory */
    int64_t supervisor; /* its process */
    int32_t worker;     /* 0, 1, ...: how many came before */
    int32_t halvings;   /* how often what is in flight is halved */
    int32_t n_suspects;
    stm_suspect suspects[STM_SUSPECTS];
    _Atomic uint32_t next_held; /* where to look for a free place; the worker writes it and these */
    stm_held held[STM_HELD];
    stm_record records[STM_RECORDS]; /* pages that nobody uses take no memory */
} stm_recorder;

/** A recorder in a memfd, shared with the children to come. MILL_ERR_NOMEM, MILL_ERR_IO. */
mill_status stm_recorder_create(stm_recorder **out, mill_error *err);
/** Sets *r to NULL, accepts NULL. */
void stm_recorder_destroy(stm_recorder **r);
/** Before the next worker starts: everything that the last one wrote is forgotten. */
void stm_recorder_reset(stm_recorder *r);
/** A record for a replica; NULL when there is no recorder or it is full. Texts are copied. Threads: one at a time. */
stm_record *stm_recorder_add(stm_recorder *r, const char *step, const char *root, int32_t replica);
/** The worker's last word: @p err is why it gives up. The first one counts. Threads: any. */
void stm_recorder_lose(stm_recorder *r, const mill_error *err);
const char *stm_doing_name(int32_t doing);
/** "work[3], process of rows count:4096 to count:4159"; returns buf. */
char *stm_record_show(const stm_record *r, char *buf, size_t size);
/** Keys that the record's call is for. false: for none. */
bool stm_record_keys(const stm_record *r, stm_key_range *out);
/** The replica of @p rec, a record of @p r, holds the rows of @p b from now on: their place; -1 = there is none. Threads: any. */
int32_t stm_recorder_hold(stm_recorder *r, const stm_record *rec, const mill_batch *b);
/** It does so no longer. Accepts -1. Threads: any. */
void stm_recorder_release(stm_recorder *r, int32_t held);
/** Key of row @p row of @p b, padded. */
void stm_key_of(const mill_batch *b, int64_t row, int64_t key[STM_RECORD_KEY]);
/** Keys of all rows of @p b, which has some. */
void stm_keys_of(const mill_batch *b, stm_key_range *out);
/** Less than, equal to, greater than 0. */
int stm_key_compare(const int64_t *a, const int64_t *b);

/** Rows of tuples: the rest of stm_record_begin. */
void stm_record_tuples(stm_record *r, const mill_batch *b);

/** A call begins. @p b: the rows that it is for; NULL = @p first and @p rows. */
static inline void stm_record_begin(stm_record *r, stm_doing doing, const mill_batch *b, int64_t first, int64_t rows)
{
    atomic_store_explicit(&r->since_ns, atomic_load_explicit(r->clock, memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(&r->rows, b != NULL ? b->rows : rows, memory_order_relaxed);
    atomic_store_explicit(&r->in_tuples, 0, memory_order_relaxed);
    atomic_store_explicit(&r->first, b != NULL ? b->keys.first : first, memory_order_relaxed);
    if (__builtin_expect(b != NULL && b->keys.tuples != NULL && b->rows > 0, 0)) stm_record_tuples(r, b);
    atomic_store_explicit(&r->doing, (int32_t)doing, memory_order_release);
}
static inline void stm_record_end(stm_record *r) { atomic_store_explicit(&r->doing, STM_DOING_NOTHING, memory_order_release); }

#endif
