/*
 * Flow: how batches travel between steps, as pure state machines. No threads, no clock, no I/O: a test runs all
 * interleavings of small graphs and many random ones.
 *
 *   graph   the nodes and edges of a run, checked and analysed once (roots, key spaces, router depth)
 *   inlet   in front of each consuming node: restores order, re-batches, joins, unites, converges; holds ready batches
 *   credit  per root: how many of its rows may be in the pipeline at once
 *
 * Every producer's stream is a dense sequence of batches (seq 0, 1, ...), the last one marked `end`. A node makes exactly
 * one output batch per input batch and gives it the input's envelope (seq, frontier, covered, borders, end), also when it
 * has no rows. Hence order is restored by seq alone, coverage needs no guesses, and an end is carried.
 *
 * Locking is the caller's: calls on one inlet are serialised, inlets are independent of each other. Credit positions
 * are single-writer atomics, see there.
 */
#ifndef STM_FLOW_FLOW_H
#define STM_FLOW_FLOW_H

#include "batch/batch.h"
#include "batch/site.h"

#define STM_FLOW_MAX_DEPTH 32 /* bits of `borders`; one less routers nested in branches of routers */

#define STM_FLOW_MAX_BUDGET ((int64_t)1 << 50)

typedef enum stm_node_kind {
    STM_NODE_GENERATOR, /* a root with a key space of its own: rows 0, 1, 2, ... */
    STM_NODE_READER,    /* a root for credit that replays a stored stream: keys, frontier, borders are those of `source`
                         * (a load-group boundary), or a key space of its own when source is -1 (a global's output) */
    STM_NODE_STEP,      /* one batch in, one batch out */
    STM_NODE_ROUTER,    /* each batch goes to one or more branches; the others get it empty */
    STM_NODE_TERMINAL   /* the stream ends here: sink, a global's input, a store in front of a reader, a discard */
} stm_node_kind;

typedef enum stm_input_mode {
    STM_INPUT_SINGLE,
    STM_INPUT_JOIN,     /* by key where the inputs share a key space, by position otherwise */
    STM_INPUT_UNION,    /* input by input */
    STM_INPUT_CONVERGE, /* the branches of one router, paired by key */
    STM_INPUT_EACH      /* a global: every input on its own, any interleaving; ready items name their input */
} stm_input_mode;

typedef enum stm_on_missing { STM_MISSING_ERROR, STM_MISSING_DROP, STM_MISSING_NULL } stm_on_missing;
typedef enum stm_on_uneven { STM_UNEVEN_ERROR, STM_UNEVEN_NULL } stm_on_uneven;

typedef struct stm_flow_edge {
    int32_t from;   /* node */
    int32_t branch; /* of a router; else 0 */
} stm_flow_edge;

typedef struct stm_flow_node {
    const char *name; /* for errors; borrowed for the life of the graph */
    stm_node_kind kind;
    stm_input_mode mode;
    stm_on_missing on_missing;
    stm_on_uneven on_uneven;
    const stm_flow_edge *inputs; /* copied */
    int32_t n_inputs;
    int32_t n_branches; /* routers */
    int32_t source;     /* readers: the node whose stream is replayed, or the terminal that stored it (the way to name the branch of
                          * a router); -1 = own key space */
    int64_t batch_rows; /* exactly so many rows per batch, except before an end and at a border; 0 = as they come. Generators:
                          * rows that they send at a time, so that a grant is never too small for them */
    /* > 0: the rows of a batch cost at most so much together, by the costs they come with (stm_inlet_push_costed); at least one
     * row; batch_rows > 0 is then an upper limit of rows. 0 = none. Not of roots */
    int64_t budget;
    bool unordered;     /* batches may pass as they come (only with SINGLE or EACH, batch_rows 0 and no budget) */
    bool expands;       /* appends an element to keys */
    int64_t credit_rows; /* roots: rows that may be in the pipeline at once, >= 1 */
} stm_flow_node;

/** What analysis found out about the stream that leaves a node. */
typedef struct stm_flow_stream {
    int32_t key_space; /* node that founded it */
    int32_t key_width; /* elements of a key tuple */
    int32_t depth;     /* routers around it: borders 0 .. depth-1 count */
    uint64_t roots;    /* bit i: root i (index into covered) feeds it */
} stm_flow_stream;

typedef struct stm_flow stm_flow;

#define STM_FLOW_MAX_ROOTS 64 /* roots, readers of stores included */
/**
 * Check and analyse a graph; nodes must stand in topological order. At most STM_FLOW_MAX_ROOTS roots.
 * Errors (MILL_ERR_INVALID, message names the nodes): edge upwards or to itself, branch out of range, convergence of other than
 * branches of one router, union or join of streams inside different routed branches that do not converge, unordered with a mode
 * that needs order, a JOIN by key whose inputs lie below a union on one side only, more than STM_FLOW_MAX_DEPTH routers deep.
 */
mill_status stm_flow_create(mill_pool *pool, const stm_flow_node *nodes, int32_t n, stm_flow **out, mill_error *err);
/** Releases everything still held, batches included. */
void stm_flow_destroy(stm_flow **flow);
const stm_flow_stream *stm_flow_stream_of(const stm_flow *flow, int32_t node);
int32_t stm_flow_roots(const stm_flow *flow);                 /* number of roots = length of `covered` */
int32_t stm_flow_root_of(const stm_flow *flow, int32_t node); /* index into covered; -1 = not a root */
int32_t stm_flow_root_node(const stm_flow *flow, int32_t root);

/* ---- inlets -------------------------------------------------------------------------------------------------- */

typedef struct stm_inlet stm_inlet;
/** How to put the rows of a ready batch together; made by the inlet, carried out by the taker, outside any lock. */
typedef struct stm_recipe stm_recipe;

/** One ready item: input of one process call. */
typedef struct stm_ready {
    mill_batch *batch;  /* recipe NULL: the batch itself (single input). Else: its envelope (and keys are not yet valid) */
    stm_recipe *recipe; /* NULL in the common case */
    int32_t input;      /* STM_INPUT_EACH: which input; else 0 */
} stm_ready;

/** Borrowed; NULL for roots. */
stm_inlet *stm_flow_inlet(stm_flow *flow, int32_t node);
/**
 * A producer's batch arrives on input @p input. Taken over and *b set to NULL on success; on failure the caller keeps it and
 * nothing has changed (NOMEM: may be pushed again), but for DATA and INTERNAL of a join, which take it over, too (*b is NULL).
 * @retval MILL_ERR_DATA  a join found a key missing (on_missing: error; @p err names the key) or uneven totals (on_uneven: error;
 *                        names both, so it comes with the last end). The inlet is failed from then on: every further push gives the
 *                        same. What was ready before can still be taken; the caller cuts the node (stm_flow_cut).
 * @retval MILL_ERR_INTERNAL  a sequence number came twice or behind the end, or the inputs do not agree on a border.
 */
mill_status stm_inlet_push(stm_inlet *in, int32_t input, mill_batch **b, mill_error *err);
/**
 * The same for a node with a budget. @p costs: int64 [rows], what each row costs here, at least 1 (less counts as 1); taken over
 * with the batch and *costs set to NULL. NULL = 1 each, as by stm_inlet_push. A join adds up the costs of the rows that it pairs, a
 * convergence takes the largest. Dropped where the node has no budget.
 */
mill_status stm_inlet_push_costed(stm_inlet *in, int32_t input, mill_batch **b, mill_buffer **costs, mill_error *err);
/** Items that can be taken now. */
int64_t stm_inlet_ready(const stm_inlet *in);
/** Rows waiting in the inlet, ready or not. */
int64_t stm_inlet_rows(const stm_inlet *in);
/** Batches of input @p input that came before an earlier one of their stream and wait for it; -1: they pass as they come. */
int64_t stm_inlet_ahead(const stm_inlet *in, int32_t input);
/** Bytes the inlet keeps alive (stm_batch_bytes). */
int64_t stm_inlet_bytes(const stm_inlet *in);
/** Next ready item; false = none. The taker owns it: batch (or stm_ready_build, or stm_ready_discard). Sequence numbers are
 *  set here (0, 1, ... per node; EACH: per input; unordered: those of the producer, so that order can be restored later); so are a
 *  router's own border bit and, for EACH and unordered terminals, what is covered by everything taken so far. */
bool stm_inlet_take(stm_inlet *in, stm_ready *out);
/**
 * Batches on their way through an inlet where nothing waits, to a taker who is there already: as stm_inlet_push on input 0 and
 * stm_inlet_take of each in turn, as long as each is an item by itself. Returns how many were: items [0, that) in @p out, owned by
 * the taker; the rest of @p b is as it was, to be pushed. 0 is always a right answer.
 */
int32_t stm_inlet_pass(stm_inlet *in, mill_batch *const *b, int32_t n, stm_ready *out);
/** Whether the batch marked `end` (EACH: of every input) has been taken, or the inlet is closed. */
bool stm_inlet_ended(const stm_inlet *in);
/** Rows still missing for the next full batch (with a budget: a guess by what rows cost so far), summed over starving inputs; 0 =
 *  something is ready or the inlet has ended. */
int64_t stm_inlet_shortfall(const stm_inlet *in);
/** The same of one input; 0 = it holds nothing up: what arrives there now only waits. */
int64_t stm_inlet_lacks(const stm_inlet *in, int32_t input);
/** Show batches that wait for others and that no ready item uses, newest first, until @p visit gives false. It may park them
 *  (stm_batch_park): the inlet looks at envelopes and keys only, and stm_ready_build brings contents back; a batch that is taken
 *  whole is brought back by the taker. */
void stm_inlet_visit_waiting(stm_inlet *in, bool (*visit)(mill_batch *b, void *user), void *user);
/** What a router hands to one branch: @p item (as taken from its inlet @p in) with its rows, or, @p taken false, without them and
 *  saying that they went past this branch. A copy that shares columns. A routed batch without rows takes no branch. */
mill_status stm_inlet_branch(const stm_inlet *in, const mill_batch *item, bool taken, mill_batch **out);
/** Drop everything held and refuse nothing from now on: pushes are discarded. For descendants of a failed node. */
void stm_inlet_close(stm_inlet *in);

/* ---- going on in the middle (resume.c) ------------------------------------------------------------------------- */

/*
 * Items are a function of the streams. So an inlet can be put back to where it stood after some item, if its producers send their
 * batches again from the oldest one that it still needs; older ones may come, too, and are dropped.
 */
/** Keep checkpoints from now on; before the first push. Not for unordered inlets that re-batch (there are none). */
mill_status stm_inlet_track(stm_inlet *in);
/** Bytes of a checkpoint: constant; 0 = none is needed (item n is batch n of the input, or of each lane of EACH). */
size_t stm_inlet_checkpoint_bytes(const stm_inlet *in);
/**
 * The newest place at or before item @p item that the inlet can be put back to. Returns the item that it makes next there; need[i]
 * = the oldest batch of input i that it needs for it (UINT64_MAX: none, the input had ended); @p out gets
 * stm_inlet_checkpoint_bytes.
 */
uint64_t stm_inlet_checkpoint(const stm_inlet *in, uint64_t item, uint64_t *need, void *out);
/** Nobody will ask for a place before @p item any more. */
void stm_inlet_forget(stm_inlet *in, uint64_t item);
/** Put a new inlet, tracked and not yet pushed to, to a checkpoint of an earlier run of the same graph. MILL_ERR_DATA: it is
 *  none. */
mill_status stm_inlet_restore(stm_inlet *in, const void *checkpoint, size_t n, mill_error *err);
/** The same where no checkpoint is needed: item (and batch) @p item comes next on input @p input. */
void stm_inlet_begin_at(stm_inlet *in, int32_t input, uint64_t item);

/**
 * Carry out a recipe: one contiguous batch per input, in out[0 .. n_inputs-1] (single, union: out[0]); all carry the envelope and
 * the joined keys in out[0]; rows an input does not have are null. Consumes @p r on success; on failure it is as it was (build it
 * again, or discard it). Any thread, no lock. The inputs of a union must have the same columns.
 * @p types     per input the types of its columns; @p n_columns per input their number.
 */
mill_status stm_ready_build(stm_ready *r, mill_pool *pool, const mill_type *const *const *types, const int32_t *n_columns,
                            mill_batch **out, mill_error *err);
/** The same where columns may be on a device; @p site NULL = none is. */
mill_status stm_ready_build_at(stm_ready *r, const stm_site *site, mill_pool *pool, const mill_type *const *const *types,
                               const int32_t *n_columns, mill_batch **out, mill_error *err);
void stm_ready_discard(stm_ready *r);
/** Rows of the batch it will make. */
int64_t stm_ready_rows(const stm_ready *r);
/** Before stm_ready_build: which rows of the batch input @p input has (convergence: the branch was taken); present [rows] of 0 or
 *  1. */
void stm_ready_present(const stm_ready *r, int32_t input, uint8_t *present);

/* ---- credit --------------------------------------------------------------------------------------------------- */

/** Rows root @p root may send now: credit + grant - (admitted - completed at every terminal it reaches); it must not send a batch
 *  of more rows than that (one without rows may always be sent). INT64_MAX when no terminal waits for its rows. Threads: the root's
 *  driver. */
int64_t stm_credit_room(const stm_flow *flow, int32_t root);
/** The root sent @p rows more. Threads: the root's driver. */
void stm_credit_admit(stm_flow *flow, int32_t root, int64_t rows);
/** Terminal node @p terminal finished a batch with this coverage, in stream order. Threads: the terminal's driver. */
void stm_credit_return(stm_flow *flow, int32_t terminal, const mill_batch *batch);
/** Before anything runs: what terminal @p terminal completed in an earlier run, covered[roots]. */
void stm_credit_restore(stm_flow *flow, int32_t terminal, const int64_t *covered);
/** What terminal @p terminal has completed: covered[roots]. Threads: any. */
void stm_credit_done(const stm_flow *flow, int32_t terminal, int64_t *covered);
/** Rows of @p root completed at every terminal: what a commit covers. Threads: any. */
int64_t stm_credit_completed(const stm_flow *flow, int32_t root);
int64_t stm_credit_admitted(const stm_flow *flow, int32_t root);
/** Largest grant so far (each replaces the one before and stays in force), and how many there were. */
int64_t stm_credit_largest_grant(const stm_flow *flow, int32_t root);
int64_t stm_credit_grants(const stm_flow *flow, int32_t root);
/** The root has sent its end, or will send nothing more. */
void stm_credit_end(stm_flow *flow, int32_t root);
/** A paused root gets no grants: the reader of a load group that is not running yet. Roots begin unpaused. Threads: any. */
void stm_credit_pause(stm_flow *flow, int32_t root, bool paused);

/**
 * At quiescence (nothing ready, nothing running anywhere; the caller makes sure, and that no call is in progress): grant the root
 * of the topologically first starved consumer its shortfall, at least double the last grant. Returns the root, or -1 when no root
 * with rows left feeds a starving consumer (then every consumer has ended, or its producers failed or are paused). *starved = that
 * consumer. A reader whose next batch is larger than the grant may need several in a row.
 */
int32_t stm_flow_grant(stm_flow *flow, int32_t *starved);
/** Node @p node failed: closes its inlet and those of all its descendants (readers of their streams included), takes their
 *  terminals out of the credit, ends roots among them, and sets closed[i] = true for each. closed[0 .. nodes-1] comes in as the
 *  last call left it, or all false. A global's reader (source -1) is not known to depend on it: cut it, too. Threads: as
 *  stm_flow_grant. */
void stm_flow_cut(stm_flow *flow, int32_t node, bool *closed);

#endif
