/*
 * Quarantine: while rows are under suspicion, a call that is for some of them runs alone: every call into a step takes a lock,
 * shared with the others, and to itself when it is for a suspect. So when the worker dies in it, it is known who it was. Once all
 * suspects came through, calls run as always.
 *
 * Rows that a step with submit holds are under way for longer than one call. So who runs them takes the lock for STM_DOING_SUBMIT
 * and their keys, and keeps it until their last answer (wrapper/apart.c); single calls of such a step are like any of poll, for no
 * rows.
 *
 * Only a worker that follows one that died has a quarantine.
 */
#ifndef STM_SUPERVISE_QUARANTINE_H
#define STM_SUPERVISE_QUARANTINE_H

#include "supervise/recorder.h"

typedef struct stm_quarantine stm_quarantine;

/** For the table of @p r, which outlives it. *out NULL: the table is empty, there is nothing to look out for. */
mill_status stm_quarantine_create(stm_recorder *r, stm_quarantine **out, mill_error *err);
/** No call is under way. Sets *q to NULL, accepts NULL. */
void stm_quarantine_destroy(stm_quarantine **q);

typedef enum stm_hold { STM_HOLD_NONE, STM_HOLD_SHARED, STM_HOLD_ALONE } stm_hold;
/** Before a call of @p step. @p keys NULL: for no rows. Blocks: until a suspect that runs alone is through; for a suspect until all
 *  others are. */
stm_hold stm_quarantine_enter(stm_quarantine *q, const char *step, stm_doing doing, const stm_key_range *keys);
/** The same for a sync, which is made by whoever watches over the run and must not be kept from that: *hold is none for one that
 *  nobody suspects, whatever else runs; false: the suspect could not be alone within a quarter of a second. Call again another
 *  time. */
bool stm_quarantine_try_sync(stm_quarantine *q, const char *step, stm_hold *hold);
/** After it, by the same thread. What was suspected and ran alone is cleared; of STM_DOING_NOTHING, nothing is. */
void stm_quarantine_leave(stm_quarantine *q, const char *step, stm_doing doing, const stm_key_range *keys, stm_hold hold);

/** Entry of the table that says something about row @p key of @p step: blamed before guilty; -1 = none. Threads: any. */
int32_t stm_quarantine_row(const stm_quarantine *q, const char *step, const int64_t *key);
/** Whether there is one for any of @p keys; or, for rows that are to be submitted, anybody who is suspected. */
bool stm_quarantine_meets(const stm_quarantine *q, const char *step, stm_doing doing, const stm_key_range *keys);
/** The entry that says that this call is not to be made; NULL = none does. @p keys NULL: for no rows. Threads: any. */
const stm_suspect *stm_quarantine_barred(const stm_quarantine *q, const char *step, stm_doing doing, const stm_key_range *keys);
const stm_suspect *stm_quarantine_entry(const stm_quarantine *q, int32_t i);
/** The guilty range @p i came through in pieces. Threads: any. */
void stm_quarantine_clear(stm_quarantine *q, int32_t i);

#endif
