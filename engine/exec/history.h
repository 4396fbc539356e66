/*
 * What became of one row, as far as a run directory tells: every stream that is kept (stores, inputs and outputs of globals) is
 * looked through for the row, its ancestors and its descendants, and from where it is and where it is not follows which steps it
 * came through (docs/seeing-a-run.md). Nothing is changed; the run may go on meanwhile.
 *
 * Threads: one.
 */
#ifndef STM_EXEC_HISTORY_H
#define STM_EXEC_HISTORY_H

#include "batch/batch.h"
#include "exec/run.h"

#define STM_HISTORY_KEY 16        /* elements of a key */
#define STM_HISTORY_CHILDREN 1000 /* descendants that are kept per place; more are counted */

/** A key: of key space @p space, the step that founded it: a generator, a global, or the step with a union. */
typedef struct stm_history_key {
    int32_t space;
    int32_t n; /* elements, without padding at the end */
    int64_t at[STM_HISTORY_KEY];
} stm_history_key;

typedef enum stm_there { STM_THERE_UNKNOWN, STM_THERE_YES, STM_THERE_NO } stm_there;
typedef enum stm_kinship { STM_ANCESTOR, STM_SELF, STM_DESCENDANT } stm_kinship;

/** A row of a kept stream: the one asked for, or one of its line. */
typedef struct stm_kin {
    stm_kinship kinship;
    stm_history_key key;
    mill_batch *batch; /* one row; owned */
    uint64_t seq;      /* batch of the stream, ... */
    int64_t row;       /* ... and row in it */
} stm_kin;

/** A stream that is kept. */
typedef struct stm_kept_stream {
    int32_t step, branch; /* whose output it is; branch of a router, else 0 */
    int32_t global;       /* >= 0: what arrives at input `input` of this step, a global */
    int32_t input;
    const stm_schema *schema;
    bool passed;    /* all that may be of the row's line has come by */
    bool beyond;    /* what was made after the row has come by, so the row was made */
    bool complete;  /* all that will ever come */
    int64_t made;   /* complete: rows of the row's root; else -1 */
    stm_kin *kin;   /* [n_kin] in order of their keys */
    int32_t n_kin;
    int64_t more;   /* descendants beyond STM_HISTORY_CHILDREN */
} stm_kept_stream;

typedef struct stm_history {
    stm_run *run; /* built, never started */
    stm_history_key key;
    stm_kept_stream *kept;
    int32_t n_kept;
    stm_there *before, *after; /* [steps]: whether the row or who comes of it arrived at, left a step */
    bool *waits;               /* [steps]: it may yet come there */
    stm_text changed;          /* what is not as it was when the run was made; empty: nothing */
} stm_history;

/**
 * Look the row @p key ("packages:12.0") up in the run directory of @p opts. Takes the plan over (success or not).
 * @retval MILL_ERR_NOT_FOUND  there never was such a row: says which there are.
 * @retval MILL_ERR_INVALID    this is no key, or steps are connected otherwise than when the run was made.
 * Blocks: reads what is kept up to the row.
 */
mill_status stm_history_open(stm_plan **plan, const stm_run_opts *opts, const char *key, stm_history **out, mill_error *err);
/** Sets *h to NULL, accepts NULL. */
void stm_history_close(stm_history **h);

/** Steps, in topological order. */
int32_t stm_history_steps(const stm_history *h);
const stm_plan_step *stm_history_step(const stm_history *h, int32_t step);
/** Whether rows may end at the step: it filters, or joins what may miss a partner. */
bool stm_history_may_drop(const stm_history *h, int32_t step);
/** Error record @p i (from 0) that is about the row or one of its line at @p step; NULL = no more. */
const stm_error_record *stm_history_error(const stm_history *h, int32_t step, int32_t i);
/** The row to read column @p column from, as it was when it arrived at (@p after false) or left @p step; NULL: it is kept nowhere.
 *  *place: of the column there. The row itself, else its nearest ancestor, else its first descendant. */
const stm_kin *stm_history_value(const stm_history *h, int32_t step, bool after, const char *column, const stm_kept_stream **stream,
                                 int32_t *place);
/** "packages:12.0"; returns buf. */
char *stm_history_show(const stm_history *h, const stm_history_key *key, char *buf, size_t size);

#endif
