#include "kernels/parallel.h"

#include <pthread.h>
#include <stdbool.h>

#include "core/alloc.h"
#include "core/fault.h"

typedef struct helper {
    stm_parallel_fn *fn;
    void *user;
    int32_t worker;
    pthread_t thread;
    bool started;
    mill_status status; /* worker until joined */
    mill_error err;
} helper;

static void *helper_main(void *arg)
{
    helper *h = arg;

    h->status = h->fn(h->user, h->worker, &h->err);
    return NULL;
}

mill_status stm_parallel(int32_t n, stm_parallel_fn *fn, void *user, mill_error *err)
{
    const int32_t others = (n > STM_PARALLEL_MAX ? STM_PARALLEL_MAX : n) - 1;
    helper *h = NULL;
    mill_status st;

    /* Without memory for helpers the caller does the work alone. */
    if (others > 0) h = stm_calloc((size_t)others * sizeof *h);
    for (int32_t i = 0; h != NULL && i < others; i++) {
        h[i].fn = fn, h[i].user = user, h[i].worker = i + 1;
        h[i].started = !stm_fault_fires(STM_FAULT_THREAD) && pthread_create(&h[i].thread, NULL, helper_main, &h[i]) == 0;
    }
    st = fn(user, 0, err);
    for (int32_t i = 0; h != NULL && i < others; i++) {
        if (!h[i].started) continue;
        (void)pthread_join(h[i].thread, NULL);
        if (st == MILL_OK && h[i].status != MILL_OK) {
            st = h[i].status;
            if (err != NULL) *err = h[i].err;
        }
    }
    stm_free(h);
    return st;
}
