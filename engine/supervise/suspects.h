/*
 * The table of suspects: what becomes of it when a worker dies, and its file in the run directory, so that blame outlives the
 * supervisor, too.
 *
 *                 died, others at work          died, alone                    died, alone, one row
 *      (nothing) ---------------------> SUSPECTED ---------> GUILTY (its half) ---------------------> BLAMED
 *                                           |  came through    |  both halves came through
 *                                           v                  v
 *                                        CLEARED            CLEARED
 *
 * A call of a generator, global or sink, or an unload, that was alone is BARRED instead of guilty; one of a router is BLAMED with
 * all of its batch.
 */
#ifndef STM_SUPERVISE_SUSPECTS_H
#define STM_SUPERVISE_SUSPECTS_H

#include "supervise/recorder.h"

/** Whether any row of @p s may be among @p keys of @p step. */
bool stm_suspect_meets(const stm_suspect *s, const char *step, const stm_key_range *keys);
/** What the death of a worker taught. */
typedef enum stm_lesson {
    STM_LESSON_NONE,   /* nobody was at work with rows */
    STM_LESSON_AGAIN,  /* suspects, to be run alone */
    STM_LESSON_NARROW, /* a range is smaller than before, or a row is blamed */
    STM_LESSON_BARRED, /* who was alone is done without: that call counts as failed */
    STM_LESSON_END     /* it was a load, or the table is full: the run ends */
} stm_lesson;
/**
 * A worker has died; @p culprit: the record known to be at fault (a deadline, a lost device), NULL = whoever was at work; a step
 * with submit is at work with all that it holds, and when nobody is in a call, whoever holds something was. @p cause and @p status
 * go into the entries. *who: the record that was alone, or the first of those at work; NULL = nobody was. When the table is full
 * the lesson is STM_LESSON_END.
 */
stm_lesson stm_suspects_learn(stm_recorder *r, const stm_record *culprit, mill_status status, const char *cause,
                              const stm_record **who);
/** Entries that were cleared go; blamed_only: so do all that are not blamed. */
void stm_suspects_prune(stm_recorder *r, bool blamed_only);
/** Write the table into the folder @p dir; no file when it is empty. Blocks: on the disk. */
mill_status stm_suspects_save(const stm_recorder *r, const char *dir, mill_error *err);
/** Fill the table from there. No file: it stays empty. A damaged one is an error, and the table is empty. */
mill_status stm_suspects_load(stm_recorder *r, const char *dir, mill_error *err);

#endif
