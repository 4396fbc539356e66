/* Inside of a wrapper: shared by the files of this folder only. */
#ifndef STM_WRAPPER_REPLICA_H
#define STM_WRAPPER_REPLICA_H

#include <stdatomic.h>

#include "supervise/quarantine.h"
#include "wrapper/wrapper.h"

/* Where one call puts its output. */
typedef struct stm_emitted {
    mill_batch *batch;   /* declared output columns */
    mill_buffer *parent; /* int64 [rows] or NULL */
} stm_emitted;

#define STM_EMIT_INLINE 4

typedef struct stm_row_error {
    int64_t row;
    mill_error error;
} stm_row_error;

struct mill_emit {
    struct mill_replica *r;
    int64_t in_rows;       /* rows of the input; -1 = none (generators, globals) */
    int64_t max_rows;      /* generators; else INT64_MAX */
    bool passed;
    stm_emitted *parts;    /* inline_parts or from stm_malloc (many emits in one call: not the steady state) */
    size_t n_parts, cap;
    stm_emitted inline_parts[STM_EMIT_INLINE];
    stm_row_error *row_errors; /* for the batch to be emitted next; not the steady state */
    size_t n_row_errors, cap_row_errors;
    stm_wrapper_send send; /* globals: every batch is sent on at once */
    void *send_user;
};

/* What came of the rows of one batch, per outgoing row: the row of the results it comes from (-1 = null by imputation), its
 * input row, its error. */
typedef struct stm_outcome {
    int64_t *source, *parent, *error; /* [n]; error: 0 = none, -1 = imputed before (no new mark), else record id */
    size_t n, cap;
    stm_emitted *parts; /* results laid end to end */
    size_t n_parts, cap_parts;
    int64_t part_rows;
} stm_outcome;

/* A batch on its way through a step with submit. */
typedef struct stm_flight {
    mill_batch **in;    /* [n_inputs] whole inputs, owned */
    mill_batch **view;  /* [n_inputs] the rows that the step may see, owned */
    int64_t rows, left; /* rows of view; those not settled yet */
    int64_t *visible;   /* [rows] input row of each; NULL = all */
    uint64_t *owner;    /* [rows] ticket that may answer for the row; 0 = settled; or one of: */
    stm_outcome outcome; /* [rows] */
    int32_t held;        /* its place in the recorder, -1 = none */
    struct stm_flight *next;
} stm_flight;
#define STM_ROW_AGAIN UINT64_MAX         /* failed, to be tried again */
#define STM_ROW_CLAIMED (UINT64_MAX - 1) /* named in the call in hand */

/* What a step knows as a ticket: all rows of a flight, or some that are tried again or apart. */
typedef struct stm_ticket {
    uint64_t id;
    stm_flight *flight;
    mill_batch **view; /* [n_inputs] what the step sees; owned when rows is set */
    int64_t *rows;     /* [n] rows of the flight, ascending; NULL = all of it */
    int64_t n, left;   /* rows; those without an answer */
    int64_t n_again;   /* STM_ROW_AGAIN */
    int32_t attempt;
    int64_t since_ns;      /* the deadline counts from here; 0 = does not yet */
    int64_t not_before_ns; /* end of its back-off */
    struct stm_ticket *next;
} stm_ticket;

struct mill_replica {
    const mill_step *step;
    void *state;
    const stm_wrapper_env *env;
    struct stm_wrapper *w;
    int32_t index, count;
    bool marked;             /* sinks: mill_replica_mark was called; driving thread */
    _Atomic bool stopped;    /* the run is being stopped */
    _Atomic int64_t expired; /* call_since of the call that is past its deadline; 0 = none */
    _Atomic int cancel_fd;   /* eventfd that is rung after either was set; -1 = nobody has asked for one. Closed with the wrapper */
    _Atomic double done;     /* generators: share of the input that is read; < 0 = unknown; driving thread */
};

struct stm_wrapper {
    struct mill_replica replica;
    mill_step *step;
    const stm_wrapper_env *env;
    struct stm_lane *lane;      /* owned; NULL: computes on the host */
    struct stm_team *team;      /* owned; globals that compute on devices; NULL: on the host */
    _Atomic int32_t state;      /* stm_wrapper_state; written by the driving thread */
    bool owes_unload;           /* driving thread */
    _Atomic int64_t call_since; /* ns; 0 = not inside the step */
    void *owner;
    stm_record *record; /* in the recorder, or `unseen` */
    stm_record unseen;
    stm_hold hold; /* quarantine: of the call under way; driving thread */
    bool apart;    /* what is with the step, and so in the record, runs alone until its last answer; driving thread */
    const char *root_name;
    int32_t root, key_width, n_roots;
    bool plain;                 /* map: what goes out are the columns that came in, same places, no outputs */
    bool straight;              /* map: one input, one row out for each in, no window, no deadline */
    bool watched;               /* a call is more than a record: there is a deadline or a quarantine; constant from load on */
    bool direct;                /* generators: what is emitted has its columns in their outgoing places */
    mill_batch **views;         /* [n_inputs] shells lent to the step; their columns are borrowed */
    const mill_type *const **in_types; /* [n_inputs][columns] types of arriving columns, for recipes */
    const mill_type **type_pool;
    int32_t *in_columns;        /* [n_inputs] */
    mill_batch **inputs;        /* [n_inputs] scratch */
    mill_emit emit;
    mill_error error;           /* lent to calls of the step; all zero between them */
    mill_cursor cursor;         /* generators */
    int64_t rows_before;         /* generators: made by earlier runs; constant after load */
    int64_t next_row, rows_left; /* generators: next row number of the root; limit */
    const stm_row_choice *choice; /* generators: rows that go on; NULL = all */
    bool ended;
    mill_batch *held;           /* generators: a batch made one ahead to know the end; NULL = none */
    stm_flight *flights;        /* oldest first */
    stm_ticket *tickets;        /* with the step, oldest first */
    stm_ticket *waiting;        /* to be offered, in this order: new, refused with MILL_ERR_AGAIN, in their back-off */
    int64_t *failing;           /* scratch: rows that failed together */
    size_t cap_failing;
    uint64_t next_ticket;
    _Atomic int32_t n_flights;  /* driving thread; read by anybody */
    _Atomic bool waits;         /* the step can only wait for something outside; driving thread; read by anybody */
    _Atomic bool full;          /* the step refused a ticket; driving thread; read by anybody */
    int64_t most_rows;          /* of a call, since device memory was exhausted; 0 = no limit */
    int64_t fit_rows;           /* the most that a call has had since then and that fitted */
    int32_t fitted, patience;   /* calls that fitted since the limit last changed; how many before more are tried */
    uint8_t *window;            /* stop_if: last results, ring */
    int64_t window_at, window_seen, window_failed;
    /* statistics; written by the driving thread, relaxed */
    _Atomic int64_t batches_in, rows_in, batches_out, rows_out, rows_dropped, parents_expanded, children, rows_failed,
        rows_skipped, retries, busy_ns;
};

static inline void stm_count(_Atomic int64_t *counter, int64_t n)
{
    /* single writer: a plain add, visible to readers without tearing */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

/* emit.c */
/* `stopped` or `expired` was set: whoever waits for the descriptor is woken. Threads: any. */
void stm_replica_ring(mill_replica *r);

static inline void stm_emit_begin(mill_emit *e, struct mill_replica *r, int64_t in_rows, int64_t max_rows)
{
    e->r = r;
    e->in_rows = in_rows;
    e->max_rows = max_rows;
    e->passed = false;
    if (e->parts == NULL) {
        e->parts = e->inline_parts;
        e->cap = STM_EMIT_INLINE;
    }
    e->n_parts = 0;
    e->n_row_errors = 0;
    e->send = NULL;
}
/** Releases everything emitted. */
void stm_emit_drop_all(mill_emit *e);
static inline void stm_emit_drop(mill_emit *e)
{
    if (e->n_parts > 0 || e->row_errors != NULL || (e->parts != NULL && e->parts != e->inline_parts)) stm_emit_drop_all(e);
}

/* call.c: one call into the step with faults, timing and error context in one place */
mill_status stm_call_process(stm_wrapper *w, mill_batch *const *in, mill_error *err);
/** What follows a call of process that came to @p st for @p rows rows: is what was emitted right? Drops it if not. */
mill_status stm_call_settle(stm_wrapper *w, int64_t rows, mill_status st, mill_error *err);
/** A call begins, for the rows of @p b; NULL: for @p rows rows from number @p first on. In a quarantine it may wait
 *  (supervise/quarantine.h). The clock is read for steps with a deadline only (20 ns); others are timed by the driver, per
 *  burst. */
void stm_call_enter_watched(stm_wrapper *w, stm_doing doing, const mill_batch *b, int64_t first, int64_t rows);
static inline void stm_call_enter_rows(stm_wrapper *w, stm_doing doing, const mill_batch *b, int64_t first, int64_t rows)
{
    if (__builtin_expect(w->watched, 0))
        stm_call_enter_watched(w, doing, b, first, rows);
    else
        stm_record_begin(w->record, doing, b, first, rows);
}
static inline void stm_call_enter(stm_wrapper *w, stm_doing doing, const mill_batch *b) { stm_call_enter_rows(w, doing, b, 0, 0); }
void stm_call_leave_watched(stm_wrapper *w);
static inline void stm_call_leave(stm_wrapper *w)
{
    if (__builtin_expect(w->watched, 0))
        stm_call_leave_watched(w);
    else
        stm_record_end(w->record);
}
/** Whether this call, alone, ended a process, so that it is not made and counts as failed; err then says so. For the rows of @p b;
 *  NULL: for @p rows rows from number @p first on. */
bool stm_call_barred_here(stm_wrapper *w, stm_doing doing, const mill_batch *b, int64_t first, int64_t rows, mill_error *err);
static inline bool stm_call_barred(stm_wrapper *w, stm_doing doing, const mill_batch *b, int64_t first, int64_t rows,
                                   mill_error *err)
{
    return __builtin_expect(w->env->quarantine != NULL, 0) && stm_call_barred_here(w, doing, b, first, rows, err);
}
/** Complete an error record of this wrapper: step, replica, phase. */
mill_status stm_call_blame(stm_wrapper *w, mill_error *err, mill_status st, int32_t phase, int32_t attempt);
/** Whether a call gave up because the run is being stopped: no failure of rows. */
bool stm_call_told_to_stop(const stm_wrapper *w, mill_status st);
/** Whether this failure is worth another attempt and the run goes on; the pause before it. */
bool stm_call_may_retry(const stm_wrapper *w, const mill_error *err, int32_t attempt);
double stm_call_backoff_s(const stm_wrapper *w, int32_t attempt);
/** Whether this failure is to be tried again; sleeps the back-off (in slices, until cancelled). */
bool stm_call_retry(stm_wrapper *w, const mill_error *err, int32_t attempt);
/** stm_call_leave for a call that returned @p st: MILL_ERR_TIMEOUT (err filled) when it gave up because it was told that it is
 *  late. */
mill_status stm_call_over(stm_wrapper *w, mill_status st, mill_error *err);
/** Add an error record for rows @p first .. @p last of @p b; its id. */
int64_t stm_call_record(stm_wrapper *w, const mill_error *err, const mill_batch *b, int64_t first, int64_t last);
/** on_error: stop acts on rows @p first .. @p last of @p b: @p cause with their keys becomes the error of the run; its status. */
mill_status stm_call_stop(stm_wrapper *w, const mill_error *cause, const mill_batch *b, int64_t first, int64_t last,
                          mill_error *err);
/** Count rows for stop_if; MILL_ERR_STOP_IF (err filled) when the share is passed. */
mill_status stm_call_window(stm_wrapper *w, int64_t good, int64_t bad, mill_error *err);

/* merge.c: from inputs and what the step emitted to the outgoing batch */
/** Everything went well, one emit or none needed, rows unchanged: columns are moved, nothing is copied. Consumes inputs. */
mill_status stm_merge_fast(stm_wrapper *w, mill_batch **in, int32_t n_in, mill_batch *result, mill_batch **out);
mill_status stm_outcome_add(stm_outcome *o, int64_t source, int64_t parent, int64_t error);
mill_status stm_outcome_part(stm_outcome *o, stm_emitted *part); /* taken over */
void stm_outcome_fini(stm_outcome *o);
/** Consumes inputs on success. */
mill_status stm_merge_general(stm_wrapper *w, mill_batch **in, int32_t n_in, stm_outcome *o, mill_batch **out);

/** Marks of the joined rows: per row the first mark of any input. NULL in *out = none. */
mill_status stm_merge_marks(stm_wrapper *w, mill_batch *const *in, int32_t n_in, mill_column **out);

/* converge.c */
/** Build the branches of a convergence into w->inputs, each shared column with the values of the first branch that a row took. */
mill_status stm_converge(stm_wrapper *w, stm_ready *in, mill_error *err);

/* flight.c */
static inline int64_t stm_ticket_row(const stm_ticket *t, int64_t i) { return t->rows != NULL ? t->rows[i] : i; }
void stm_flight_free(stm_wrapper *w, stm_flight *f);
/** A ticket for rows @p rows [n] of @p f (NULL: for all), to be offered at @p not_before_ns. */
mill_status stm_ticket_add(stm_wrapper *w, stm_flight *f, const int64_t *rows, int64_t n, int32_t attempt, int64_t not_before_ns);
/** Rows of @p t failed for @p e: they are tried again, apart, or given up, as the policy says. @p rows [n]: of the ticket, any
 *  order, all with owner @p owner in the flight; with n != 1 those are looked up. MILL_OK unless the run must hear of it. */
mill_status stm_ticket_rows_failed(stm_wrapper *w, stm_ticket *t, const int64_t *rows, int64_t n, uint64_t owner, mill_error *e,
                                   mill_status st, mill_error *err);
/** The same for all its rows without an answer; the step has forgotten the ticket or never had it. */
mill_status stm_ticket_failed(stm_wrapper *w, stm_ticket *t, const mill_error *cause, mill_status st, mill_error *err);
/** After calls: tickets for rows to be tried again; answered ones are released. */
mill_status stm_tickets_settle(stm_wrapper *w, mill_error *err);
/** Offer what waits to the step, until it is full. */
mill_status stm_tickets_offer(stm_wrapper *w, mill_error *err);
/** Cancel what is past its deadline. Settles. */
mill_status stm_tickets_expire(stm_wrapper *w, mill_error *err);
/** Tell the step that nobody waits for a ticket any more. */
void stm_ticket_cancel(stm_wrapper *w, const stm_ticket *t);
/** Cancel and release everything in flight. */
void stm_tickets_drop(stm_wrapper *w);
/** Null by imputation, for good: the @p n rows @p rows of @p f, ascending, and a record for each run of neighbours. */
mill_status stm_flight_give_up(stm_wrapper *w, stm_flight *f, const int64_t *rows, int64_t n, const mill_error *e, mill_error *err);
/** One look at what is with the step: answers, deadlines, what waits to be submitted. (inflight.c) */
mill_status stm_tickets_turn(stm_wrapper *w, mill_error *err);

/* apart.c */
/** Whether what supervision knows of rows of @p f keeps the step from being given them as one batch, among others. */
bool stm_apart_wanted_flight(const stm_wrapper *w, const stm_flight *f);
/** The same as stm_apart_map for a batch on its way through a step with submit. Rows under suspicion have been answered when it
 *  returns, unless the run is being stopped or the step waits for something that may take hours. Blocks: as long as calls of
 *  process would. */
mill_status stm_apart_submit(stm_wrapper *w, stm_flight *f, mill_error *err);
/** A call of the step while w->apart: the record keeps the rows that run alone. */
void stm_apart_call(stm_wrapper *w, stm_doing doing);
/** Whether what supervision knows of rows in w->inputs keeps the step from running them as one batch. */
bool stm_apart_wanted(const stm_wrapper *w);
/** The rows of w->inputs that the step may see, without those that ended a process before, which become null with a record; those
 *  that may yet do so in pieces. As stm_wrapper_map: inputs are consumed on success. */
mill_status stm_apart_map(stm_wrapper *w, const int64_t *visible, int64_t n_visible, mill_batch **out, mill_error *err);

/* wrapper.c */
/** Run rows [first, first + rows) of the submitted rows, bisecting where the policy says so. view[] are whole. @p failed: what the
 *  first call with all of them came to, when it was made already; else NULL. */
mill_status stm_rows_run(stm_wrapper *w, mill_batch **view, const int64_t *visible, int64_t first, int64_t rows,
                         const mill_error *failed, stm_outcome *o, mill_error *err);
/** Generators: of a batch that was made only the rows that were chosen are left, and of their errors. */
mill_status stm_choose_rows(stm_wrapper *w, mill_batch **b, mill_error *err);
/** Nulls and marks for the rows of @p b that were marked as failed before it was emitted. */
mill_status stm_mark_rows(stm_wrapper *w, mill_batch *b, mill_error *err);
mill_status stm_wrapper_inputs(stm_wrapper *w, stm_ready *in, mill_error *err); /* builds recipes into w->inputs */
/** Give rows that were not shown to the step (not in @p visible) their place in the outcome, null by imputation. */
mill_status stm_outcome_weave(stm_outcome *o, int64_t rows, const int64_t *visible, int64_t n_visible);
void stm_wrapper_count(stm_wrapper *w, const mill_batch *out, int64_t in_rows, const stm_outcome *o);

/* view.c */
/** Fill @p view with borrowed columns that input @p i of the step declares. */
void stm_view_fill(stm_wrapper *w, int32_t i, const mill_batch *in, mill_batch *view);
/** The same for the only input of a step. */
static inline void stm_view_fill_one(const stm_step_input *si, const mill_batch *in, mill_batch *view)
{
    view->rows = in->rows;
    view->keys = in->keys; /* borrowed, like the columns */
    view->marks = in->marks;
    for (int32_t c = 0; c < si->n_used; c++) view->columns[c] = in->columns[si->used[c].column];
}
void stm_view_clear(mill_batch *view);
/** Rows of the inputs that the step may see: NULL in *rows = all. */
mill_status stm_visible_rows(stm_wrapper *w, mill_batch *const *in, int32_t n_in, int64_t **rows, int64_t *n);
/** Batches of what the step sees, with references of their own: all rows, or the @p n of @p visible. [n_inputs] in out. */
mill_status stm_view_own(stm_wrapper *w, const int64_t *visible, int64_t n, mill_batch **out);
/** Rows @p index [n] of @p src, a batch of what the step sees of input @p i. */
mill_status stm_view_gather(stm_wrapper *w, int32_t i, const mill_batch *src, const int64_t *index, int64_t n, mill_batch **out);

#endif
