/* The recorder for tests in C++, which cannot read its header. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "stepmill/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct stm_recorder stm_recorder;
typedef struct stm_record stm_record;
typedef struct stm_quarantine stm_quarantine;
enum peek_doing { GENERATE, PROCESS, ROUTE, ACCEPT, FINISH, WRITE, SYNC, UNLOAD, SUBMIT, POLL, NOTHING, LOAD };
enum peek_lesson { LESSON_NONE, LESSON_AGAIN, LESSON_NARROW, LESSON_BARRED, LESSON_END };
enum peek_verdict { CLEARED, SUSPECTED, GUILTY, BLAMED, BARRED };
enum peek_hold { HOLD_NONE, HOLD_SHARED, HOLD_ALONE };

stm_recorder *peek_recorder(void);
void peek_recorder_free(stm_recorder **r);
stm_record *peek_at_work(stm_recorder *r, const char *step, int doing, int64_t first, int64_t rows, bool alone);
/** The replica holds these rows, until the next death. */
void peek_hold(stm_recorder *r, const stm_record *rec, int64_t first, int64_t rows);
/** A death; the recorder is reset. */
int peek_die(stm_recorder *r, const stm_record *culprit);
int peek_table(const stm_recorder *r); /* entries */
int peek_table_room(void);
void peek_table_empty(stm_recorder *r);
int peek_verdict(const stm_recorder *r, int i);
const char *peek_step(const stm_recorder *r, int i);
int64_t peek_high(const stm_recorder *r, int i);
/** Bytes of the table. */
const char *peek_bytes(const stm_recorder *r, size_t *n);
mill_status peek_save(const stm_recorder *r, const char *dir, mill_error *err);
mill_status peek_load(stm_recorder *r, const char *dir, mill_error *err);
stm_quarantine *peek_quarantine(stm_recorder *r);
void peek_quarantine_free(stm_quarantine **q);
/** A call of step "a" for rows first .. last; how it was held. */
int peek_call(stm_quarantine *q, int64_t first, int64_t last);

/** Whether that call of @p step, for rows first .. last (first > last: for none), is not to be made. */
bool peek_barred(const stm_quarantine *q, const char *step, int doing, int64_t first, int64_t last);

#ifdef __cplusplus
}
#endif
