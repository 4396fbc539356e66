/*
 * Things that several replicas use at once: made for the first who asks, shared with the others, let go by the last.
 *
 * A kind of thing is a struct that begins with stm_shared; all of one kind that are in use are on one shelf, a static variable. The
 * shelf's lock is held while a thing is made, so that whoever asks for it meanwhile waits rather than making another.
 */
#ifndef STM_ENCODER_SHARED_H
#define STM_ENCODER_SHARED_H

#include <pthread.h>
#include <stdbool.h>

#include "stepmill/error.h"

typedef struct stm_shared {
    struct stm_shared *next; /* lock */
    int32_t refs;            /* lock */
} stm_shared;

typedef struct stm_shelf {
    pthread_mutex_t lock;
    stm_shared *things; /* lock */
    /* constant */
    bool (*is)(const stm_shared *thing, const void *wanted);
    mill_status (*make)(void *wanted, stm_shared **out, mill_error *err); /* on failure nothing is left */
    void (*destroy)(stm_shared *thing);                                   /* outside the lock */
} stm_shelf;
#define STM_SHELF(is, make, destroy) {PTHREAD_MUTEX_INITIALIZER, NULL, is, make, destroy}

/** A reference to the thing that is @p wanted, made if it is not there. *out is untouched on failure, which is that of `make`.
 *  Threads: any. Blocks: while one is made, by this thread or another. */
mill_status stm_shelf_get(stm_shelf *s, void *wanted, stm_shared **out, mill_error *err);
/** Drop it; the last one destroys it. Threads: any. Blocks: as stm_shelf_get. */
void stm_shelf_put(stm_shelf *s, stm_shared *thing);

#endif
