/*
 * A call raises `call` and wakes the threads; a thread that sees a new value runs the function if its number is below `n`,
 * and lowers `busy`; the last one wakes the caller. Both words are futexes, so an idle thread costs nothing and a call of
 * one worker costs nothing at all.
 */
#include "models/encoder/workers.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/fault.h"

typedef struct worker {
    stm_workers *set;
    pthread_t thread;
    int32_t number;
} worker;

struct stm_workers {
    int32_t started; /* threads; owner */
    worker *threads;
    _Atomic uint32_t call; /* release by the caller, acquire by threads: publishes what follows */
    stm_workers_fn *fn;
    void *user;
    int32_t n;
    bool quit;
    _Atomic uint32_t busy; /* release by threads, acquire by the caller */
};

static void sleep_while(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0); /* woken early or interrupted: the caller looks again */
}

static void wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0); }

static void *thread_main(void *arg)
{
    worker *self = arg;
    stm_workers *w = self->set;
    uint32_t seen = 0;

    pthread_setname_np(pthread_self(), "mill-encode");
    for (;;) {
        uint32_t now;
        while ((now = atomic_load_explicit(&w->call, memory_order_acquire)) == seen) sleep_while(&w->call, seen);
        seen = now;
        if (w->quit) return NULL;
        if (self->number < w->n) w->fn(w->user, self->number);
        if (atomic_fetch_sub_explicit(&w->busy, 1, memory_order_acq_rel) == 1) wake(&w->busy);
    }
}

static mill_status start(stm_workers *w, int32_t n, mill_error *err)
{
    sigset_t all, old;
    int e = 0;

    sigfillset(&all); /* signals are for the engine's own threads */
    pthread_sigmask(SIG_BLOCK, &all, &old);
    for (; e == 0 && w->started < n - 1; w->started += e == 0) {
        worker *t = &w->threads[w->started];
        *t = (worker){.set = w, .number = w->started + 1};
        e = stm_fault_fires(STM_FAULT_THREAD) ? EAGAIN : pthread_create(&t->thread, NULL, thread_main, t);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return e == 0 ? MILL_OK : mill_fail(err, MILL_ERR_AGAIN, "cannot start a thread: %s", strerror(e));
}

mill_status stm_workers_create(int32_t n, stm_workers **out, mill_error *err)
{
    stm_workers *w = stm_calloc(sizeof *w);
    mill_status st;

    if (w == NULL || (w->threads = stm_calloc((size_t)n * sizeof *w->threads)) == NULL) {
        stm_free(w);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for an encoder's threads");
    }
    if ((st = start(w, n, err)) != MILL_OK)
        stm_workers_destroy(&w);
    else
        *out = w;
    return st;
}

static void publish(stm_workers *w)
{
    atomic_store_explicit(&w->busy, (uint32_t)w->started, memory_order_relaxed);
    atomic_fetch_add_explicit(&w->call, 1, memory_order_release);
    wake(&w->call);
}

void stm_workers_destroy(stm_workers **w)
{
    if (*w == NULL) return;
    (*w)->quit = true;
    if ((*w)->started > 0) publish(*w);
    for (int32_t i = 0; i < (*w)->started; i++) pthread_join((*w)->threads[i].thread, NULL);
    stm_free((*w)->threads);
    stm_free(*w);
    *w = NULL;
}

void stm_workers_run(stm_workers *w, int32_t n, stm_workers_fn *fn, void *user)
{
    uint32_t left;

    if (n > 1 && w->started > 0) {
        w->fn = fn, w->user = user, w->n = n;
        publish(w);
    }
    fn(user, 0);
    if (n > 1 && w->started > 0)
        while ((left = atomic_load_explicit(&w->busy, memory_order_acquire)) != 0) sleep_while(&w->busy, left);
}
