/* What replicas did over the whole time of a run, in a bounded number of equal spans: when they are used up, pairs become one. */
#ifndef STM_TRACE_TIMELINE_H
#define STM_TRACE_TIMELINE_H

#include <stddef.h>
#include <stdint.h>

#include "stepmill/status.h"

/** How a replica spends a moment. */
typedef enum stm_spent {
    STM_SPENT_BUSY,    /* in its functions, or rows of it are with a service */
    STM_SPENT_STARVED, /* nothing is there for it */
    STM_SPENT_BLOCKED, /* what it makes would only wait: for credit or memory */
    STM_SPENT_CROWDED, /* there is work, and no processor took it up yet */
    STM_SPENTS,
    STM_SPENT_OFF = STM_SPENTS /* not loaded, or at its end */
} stm_spent;
extern const char *const stm_spent_names[STM_SPENTS + 1];

enum { STM_SPANS = 120 };
#define STM_SPAN_NS 10000000LL /* at first */

typedef struct stm_course {
    int64_t span_ns;
    int32_t n_tracks;
    int32_t n; /* spans begun */
    float *ns; /* [n_tracks][STM_SPANS][STM_SPENTS] */
} stm_course;

mill_status stm_course_init(stm_course *t, int32_t n_tracks);
void stm_course_fini(stm_course *t);
/** @p ns of the @p dt ns that end at @p at (since the start) were spent so, by the replica of @p track. */
void stm_course_add(stm_course *t, int32_t track, int64_t at, int64_t dt, const int64_t ns[STM_SPENTS]);
static inline float *stm_course_span(const stm_course *t, int32_t track, int32_t span)
{
    return t->ns + ((size_t)track * STM_SPANS + (size_t)span) * STM_SPENTS;
}

/** Where the time of one replica goes, from looks now and then and from the time its calls took. */
typedef struct stm_account {
    int64_t busy_ns;        /* of its calls at the last look */
    int64_t lent_ns;        /* counted as busy for a call that had not returned yet */
    double mix[STM_SPENTS]; /* recent looks that found it idle, by kind */
} stm_account;
/**
 * Divide the @p dt ns since the last look.
 * @param doing    what it does now; STM_SPENT_OFF: nothing is counted.
 * @param busy_ns  time spent in calls so far; -1 = unknown (rows with a service): the looks alone count.
 * @param ns       sums to @p dt, or to 0 when it is off.
 */
void stm_account_look(stm_account *a, stm_spent doing, int64_t busy_ns, int64_t dt, int64_t ns[STM_SPENTS]);

#endif
