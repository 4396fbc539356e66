/*
 * Inside an inlet. A push stores the batch in its input's queue and then advances the machine as far as it goes:
 *
 *    push ──> queue (by seq) ──step──> assembly (pieces: runs of rows not yet sent on) ──cut──> ring of ready items ──> take
 *
 * A *step* is one turn of the machine that depends on the contents of the streams only, never on when they arrived:
 *    single, each   one arriving batch                       (inlet.c)
 *    union          one batch of the current input           (union.c)
 *    join by key    one batch of the first input, and what the others have below its frontier   (join.c)
 *    join by place  one batch of the leading input, and as many rows of the others              (position.c)
 *    convergence    one routed batch                         (join.c)
 * so the sequence of ready items is the same for all interleavings of arrivals.
 *
 * All that a step changes stands in `stm_state`, one flat block without pointers; it is copied before an advance and put
 * back when memory runs out, so a failed push has changed nothing.
 */
#ifndef STM_FLOW_INTERNAL_H
#define STM_FLOW_INTERNAL_H

#include "flow/flow.h"

#ifdef __cplusplus /* tests look inside, with nothing running */
#define STM_ATOMIC(type) type
#else
#include <stdatomic.h>
#define STM_ATOMIC(type) _Atomic type
#endif

#define STM_NO_SEQ UINT64_MAX
#define STM_FLOW_MAX_KEY 64 /* elements of a key tuple */

/* A batch of which several recipes use rows. The queue counts as one user while the batch stands in it. */
typedef struct stm_held {
    STM_ATOMIC(int64_t) users; /* acq_rel: the last one frees */
    mill_batch *batch;
    mill_pool *pool;
} stm_held;

typedef struct stm_slot {
    mill_batch *batch; /* NULL = not arrived, or handed on whole */
    stm_held *held;    /* NULL until the first recipe needs it */
    mill_buffer *costs; /* int64 per row, with a budget; NULL = every row costs 1 */
} stm_slot;

/* Arrivals of one input. Batch s stands in slots[s & (cap - 1)]. base <= cursor <= next <= top. */
typedef struct stm_queue {
    stm_slot *slots;
    size_t cap;    /* 0 or a power of two */
    uint64_t base; /* oldest batch kept */
    uint64_t next; /* every batch below has arrived */
    uint64_t top;  /* 1 + newest that has arrived */
    uint64_t end;  /* the batch marked `end`, STM_NO_SEQ = not known */
    uint64_t start; /* batches below were used before a resume: they come again and are dropped */
    uint64_t await; /* restoring: every batch below has to be there first */
} stm_queue;

/* What the machine has used of one input. */
typedef struct stm_cursor {
    uint64_t seq;        /* batch it stands in */
    int64_t row;         /* rows of that batch used (joins) */
    uint64_t scan;       /* joins: batches below this are part of the step being put together */
    int64_t reach;       /* join by place: unused rows below `scan` */
    int64_t rows;        /* rows used since the start */
    int64_t frontier[2]; /* of batch scan - 1, ... */
    uint32_t borders;    /* ... its borders ... */
    uint32_t skipped;    /* ... those of routed batches that did not take this branch ... */
    bool end;            /* ... and whether it ends the stream */
    bool closed;         /* batch scan - 1 ends a routed batch or the stream */
    bool aside;          /* convergence: this routed batch did not take the branch: its rows are not missing */
} stm_cursor;

/* Rows put in order but not sent on: pieces [head, n) of the lane, without the first `skip` rows of piece `head`. */
typedef struct stm_assembly {
    size_t head, n; /* in rows of the piece table */
    int64_t skip;
    int64_t pending;     /* rows */
    int64_t frontier[2]; /* of the last finished step */
    /* with a budget: rows from the head on whose costs have been added up, and where the next one stands */
    int64_t seen_rows, seen_cost;
    size_t seen;
    int64_t seen_row;
} stm_assembly;

/* `rows` rows of batch `seq` of input `input`; input -1 = nulls. */
typedef struct stm_piece {
    int64_t first, rows;
    uint64_t seq;
    int32_t input;
} stm_piece;

typedef struct stm_track stm_track; /* resume.c */

typedef struct stm_pieces { /* table [n][columns] */
    stm_piece *items;
    size_t cap;
} stm_pieces;

typedef struct stm_state {
    uint64_t tail;                   /* ready items made */
    int64_t rows;                    /* waiting, ready or not */
    int32_t lead;                    /* union: current input; join by place: whose batches cut */
    int64_t fresh;                   /* join by place: first key for rows past the first input's end ... */
    int64_t fresh_added, fresh_sent; /* ... and how many such rows there are */
    bool uneven;                     /* join by place: rows were dropped for want of partners */
    bool done;                       /* the last item has been made */
    /* followed by cursors[n_inputs], assemblies[n_lanes], covered[n_inputs][n_roots], sent[n_lanes][n_roots] */
} stm_state;

struct stm_recipe {
    mill_pool *pool;
    mill_batch *envelope;
    size_t bytes; /* of this block */
    int64_t source_rows;
    int64_t fresh; /* key of the first row that no input has a key for */
    size_t n_runs;
    int32_t columns; /* batches it makes */
    bool union_keys; /* branch in front of each key */
    bool by_key;     /* rows without the first input take the key of the first input that has them; else fresh ones */
    /* followed by runs[columns][n_runs], held[columns][n_runs], branch[n_runs] (unions) */
};

struct stm_inlet {
    /* fixed */
    stm_flow *flow;
    mill_pool *pool;
    int32_t node;
    stm_input_mode mode;
    stm_on_missing on_missing;
    stm_on_uneven on_uneven;
    bool by_key;     /* join */
    bool two_levels; /* keys below a union: frontier[1] counts */
    bool unordered;
    bool terminal;
    int32_t n_inputs, n_lanes, n_columns, n_roots;
    int64_t batch_rows, budget;
    uint32_t borders_in;   /* borders that end a step's routed batch on arrival */
    uint32_t *borders_out; /* [n_lanes] borders that stay on ready items; assembly never crosses one */
    uint32_t border_own;   /* a router's: set on each of its items */
    uint64_t *roots;       /* [n_inputs] */
    uint64_t all_roots;
    /* moving; guarded by the caller's lock on this inlet */
    bool plain; /* single, in order, nothing wrong: the short way may be taken */
    bool closed;
    mill_error *failure; /* joins: set once; NULL for modes that cannot fail */
    bool failed;
    bool restoring;   /* put back to a checkpoint, whose batches have not all come again */
    stm_track *track; /* checkpoints; NULL = none are kept */
    stm_queue *queues;  /* [n_inputs] */
    stm_pieces *pieces; /* [n_lanes] */
    stm_state *now, *saved;
    size_t state_bytes;
    stm_ready *ring;
    size_t cap;
    uint64_t head;   /* items taken */
    uint64_t *taken; /* [n_lanes] items taken per lane: their seq */
    int32_t ends_taken;
    int64_t *taken_covered;  /* EACH: [n_inputs][n_roots] coverage of the last item taken of each input */
    mill_batch **late_end;   /* unordered: [n_inputs] the end, while others are still on their way */
    int64_t **prefix;        /* unordered: [n_inputs] ring of coverage [queue cap][n_roots] of batches past `next` */
    int64_t *prefix_covered; /* unordered: [n_inputs][n_roots] coverage of the batches below `next` */
};

static inline stm_cursor *stm_cursors(stm_state *s) { return (stm_cursor *)(s + 1); }
static inline stm_assembly *stm_assemblies(const stm_inlet *in) { return (stm_assembly *)(stm_cursors(in->now) + in->n_inputs); }
/** Coverage of what was used of an input. */
static inline int64_t *stm_covered(const stm_inlet *in, int32_t input)
{
    return (int64_t *)(stm_assemblies(in) + in->n_lanes) + (size_t)input * (size_t)in->n_roots;
}
/** Coverage of the last finished step of a lane. */
static inline int64_t *stm_sent(const stm_inlet *in, int32_t lane) { return stm_covered(in, in->n_inputs + lane); }

/** What the last item of a step says. */
typedef struct stm_envelope {
    const int64_t *covered;
    int64_t frontier[2];
    uint32_t borders, skipped;
    bool end;
} stm_envelope;

/* queue.c */
mill_status stm_queue_store(stm_queue *q, mill_batch *b, mill_error *err);
void stm_queue_release(stm_queue *q, uint64_t up_to);
void stm_queue_clear(stm_queue *q);
static inline stm_slot *stm_queue_slot(const stm_queue *q, uint64_t seq) { return &q->slots[seq & (q->cap - 1)]; }
static inline mill_batch *stm_queue_batch(const stm_queue *q, uint64_t seq) { return stm_queue_slot(q, seq)->batch; }
void stm_held_drop(stm_held *h);
/** The shared form of a slot's batch, made when there is none; NULL when out of memory. */
stm_held *stm_slot_hold(stm_slot *s);
/** Empty a slot whose batch somebody else owns from now on. No recipe may use it. */
void stm_slot_forget(stm_slot *s);
/** First two elements of a row's key; -1 where it has one only. */
static inline void stm_key_head(const mill_batch *b, int64_t row, int64_t out[2])
{
    if (!b->keys.tuples) {
        out[0] = b->keys.first + row;
        out[1] = -1;
        return;
    }
    const int64_t *t = (const int64_t *)mill_buffer_data(b->keys.tuples) + (b->keys.offset + row) * b->keys.width;
    out[0] = t[0];
    out[1] = b->keys.width > 1 ? t[1] : -1;
}

/* budget.c */
/** Rows of the item that the lane's next rows make, as far as they are there; 0 = more fit in. */
int64_t stm_budget_rows(stm_inlet *in, int32_t lane);
/** An item was cut off: count from the head. */
void stm_budget_restart(stm_inlet *in, int32_t lane);
/** Rows that an item which is not full lacks: a guess by what its rows cost so far, or less than 1. */
int64_t stm_budget_lacks(const stm_inlet *in, int32_t lane);

/* assembly.c */
/** One more run: a row of n_columns pieces, to be filled; NULL when out of memory. */
stm_piece *stm_assembly_add(stm_inlet *in, int32_t lane, int64_t rows);
/** The step is over: send what is complete. Gives NOMEM or OK. */
mill_status stm_assembly_finish(stm_inlet *in, int32_t lane, const stm_envelope *e);
/** Batches that a lane's pieces still need are kept: release the others. */
void stm_assembly_commit(stm_inlet *in);
int stm_ring_reserve(stm_inlet *in, uint64_t items);
/** Rows that the lane lacks for its next item, at least 1. */
int64_t stm_assembly_lacks(const stm_inlet *in, int32_t lane);

/* steps: 1 = done one, 0 = must wait, else a status */
int stm_step_union(stm_inlet *in);
int stm_step_key(stm_inlet *in);
int stm_step_position(stm_inlet *in);
/** Rows that input @p input lacks for the next step; 0 = it does not hold up anything. */
int64_t stm_key_lacks(const stm_inlet *in, int32_t input);
int64_t stm_position_lacks(const stm_inlet *in, int32_t input);
/** Coverage of what was used of all inputs: per root the least over the inputs it feeds. */
void stm_compose(const stm_inlet *in, const int64_t *per_input, int64_t *out);
static inline bool stm_closes(const stm_inlet *in, const mill_batch *b) { return b->end || (b->borders & in->borders_in) != 0; }

/* recipe.c */
mill_status stm_recipe_create(stm_inlet *in, size_t n_runs, int64_t rows, stm_recipe **out);
stm_run_of_rows *stm_recipe_runs(stm_recipe *r, int32_t column);
stm_held **stm_recipe_held(stm_recipe *r, int32_t column);
int32_t *stm_recipe_branch(stm_recipe *r);
void stm_recipe_destroy(stm_recipe *r);

/* resume.c */
/** Keep a checkpoint of where the inlet stands now, if it is time for one. Allocates nothing. */
void stm_track_note(stm_inlet *in);
void stm_track_destroy(stm_track **t);
/** Whether all that a restored inlet stood on has come again. */
bool stm_track_restored(stm_inlet *in);

/* inlet.c */
mill_status stm_inlet_create(stm_flow *flow, int32_t node, stm_inlet **out);
void stm_inlet_destroy(stm_inlet **in);

/* ---- graph ------------------------------------------------------------------------------------------------------ */

typedef struct stm_vertex {
    char *name;
    stm_flow_node node; /* name and inputs: copies */
    stm_flow_edge *inputs;
    stm_flow_stream stream;
    int32_t root;                         /* -1 = none */
    uint64_t bases;                       /* roots under the key space, through unions */
    bool two_levels;                      /* key space of a union */
    int32_t routers[STM_FLOW_MAX_DEPTH];  /* around the leaving stream, outermost first ... */
    int32_t branches[STM_FLOW_MAX_DEPTH]; /* ... and which branch; of a router's own stream: per edge */
    stm_inlet *inlet;
    STM_ATOMIC(bool) cut;       /* written by whoever holds quiescence */
    STM_ATOMIC(int64_t) * done; /* terminals: [n_roots] completed; release by the terminal's driver, acquire by any */
} stm_vertex;

typedef struct stm_root {
    int32_t node;
    int64_t credit;
    STM_ATOMIC(int64_t) admitted; /* written by the root's driver */
    STM_ATOMIC(int64_t) allowed;  /* grant in force; written at quiescence */
    STM_ATOMIC(int64_t) grants;
    STM_ATOMIC(bool) ended, paused;
    int32_t *terminals; /* that it reaches */
    int32_t n_terminals;
} stm_root;

struct stm_flow {
    mill_pool *pool;
    stm_vertex *nodes;
    int32_t n, n_roots;
    stm_root *roots;
};

#endif
