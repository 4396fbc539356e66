/*
 * Drivers: threads that run stations. A driver runs a burst, follows the batches to the next station on the same core, looks for
 * other work when there is none, spins shortly, sleeps. The last one to find nothing looks whether the run is at rest.
 *
 * Work costs least on the core that made it. So a driver that looks for work leaves small amounts to the others while they
 * move on (their beats advance), and sleeps rather than pass batches to and fro; before a driver starts on something long, it
 * wakes another for whatever it leaves behind.
 *
 * No wake is lost: whoever goes to sleep counts itself idle, fences, and looks once more; whoever publishes work either goes on
 * looking itself before it sleeps, or (threads that do not look everywhere) rings.
 */
#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fault.h"
#include "exec/station.h"

#define SPIN_NS 5000  /* before sleeping: about what a wake on the same core costs */
#define WAKE_NS 5000  /* work that must wait elsewhere before a sleeping driver is woken for it */
#define WORTH_NS 20000 /* a driver that was woken and had work for less was woken for too little */
#define WAKE_DOUBLES 4 /* how often what it takes to wake one may double; */
#define DECLINES 256   /* it is halved again when so many would have been woken without that */
#define STEAL_NS 2000 /* work that must wait at a station before a driver takes it from one that is about to get there */

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) { syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0); }
static void futex_wake(_Atomic uint32_t *word, int n) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0); }

void stm_run_ring(stm_run *run, bool all)
{
    atomic_fetch_add(&run->epoch, 1);
    futex_wake(&run->epoch, all ? 1 << 30 : 1);
    if (!all) return;
    for (int32_t i = 0; i < run->n_stations; i++)
        if (run->stations[i].own_threads) {
            atomic_fetch_add(&run->stations[i].bell, 1);
            futex_wake(&run->stations[i].bell, 1 << 30);
        }
}

void stm_station_ring(stm_station *s)
{
    const int64_t ready = atomic_load_explicit(&s->ready, memory_order_relaxed);

    atomic_fetch_add(&s->bell, 1);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&s->asleep) > 0) futex_wake(&s->bell, ready > 1 ? (int)(ready < 1024 ? ready : 1024) : 1); /* one each */
}

void stm_run_ring_held(stm_run *run)
{
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        if (s->own_threads && atomic_load(&s->asleep) > 0 && stm_station_runnable(s)) stm_station_ring(s);
    }
}

bool stm_run_any_runnable(stm_run *run, bool own_too)
{
    for (int32_t i = run->n_stations - 1; i >= 0; i--)
        if ((own_too || !run->stations[i].own_threads) && stm_station_runnable(&run->stations[i])) return true;
    return false;
}

/* Rows in flight inside steps with submit: not at rest, somebody outside will wake us. */
static bool any_outside(stm_run *run)
{
    if (atomic_load(&run->stop) == 2) return false; /* given up: unload cancels them */
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        if (s->kind != STM_AT_SUBMIT || !atomic_load(&s->active) || atomic_load(&s->done)) continue;
        for (int32_t k = 0; k < s->n_slots; k++)
            if (stm_wrapper_in_flight(s->slots[k].wrapper) > 0 && !stm_wrapper_waits(s->slots[k].wrapper)) return true;
    }
    return false;
}

/* Called with this thread counted idle. Whether something can move again now. */
static bool look_at_rest(stm_run *run)
{
    bool moved = false;

    if (atomic_load(&run->stage_left) <= 0 || atomic_load(&run->idle) != atomic_load(&run->threads)) return false;
    if (atomic_exchange(&run->quiescing, 1) != 0) return false;
    /* From here on nobody leaves its idle state: a thread that wakes waits for quiescing to fall. */
    if (atomic_load(&run->idle) == atomic_load(&run->threads) && atomic_load(&run->stage_left) > 0 && !atomic_load(&run->rested)) {
        if (stm_run_any_runnable(run, true)) { /* credit or memory came back for a step with own threads: nobody has told them */
            stm_run_ring(run, true);
            moved = true;
        } else if (!any_outside(run)) {
            moved = stm_run_unstall(run);
        }
    }
    atomic_store(&run->quiescing, 0);
    return moved;
}

static void leave_idle(stm_run *run)
{
    atomic_fetch_sub(&run->idle, 1);
    while (atomic_load(&run->quiescing) != 0) sched_yield();
    if (atomic_load_explicit(&run->resting, memory_order_relaxed) != 0 && atomic_exchange(&run->resting, 0) != 0) stm_run_note(run);
}

/* ---- drivers ----------------------------------------------------------------------------------------------------- */

/* What waits at a station that another thread could start on, in ns; 0 = nothing. */
static int64_t waiting_ns(const stm_station *s)
{
    const int64_t cost = atomic_load_explicit(&s->cost_ns, memory_order_relaxed) + 1;
    int64_t ready;

    if (s->own_threads) return 0;
    if (s->kind == STM_AT_GENERATOR || s->kind == STM_AT_READER || s->kind == STM_AT_SUBMIT)
        return stm_station_runnable(s) ? cost : 0;
    ready = atomic_load_explicit(&s->ready, memory_order_relaxed);
    return ready > 0 && stm_station_runnable(s) ? ready * cost : 0;
}

/* Work that this driver will not do next, in ns: is it worth waking another? */
static int64_t pending_elsewhere(stm_run *run, const stm_station *next)
{
    int64_t ns = 0;

    for (int32_t i = 0; i < run->n_stations; i++)
        if (&run->stations[i] != next) ns += waiting_ns(&run->stations[i]);
    if (next != NULL && next->n_slots > 1) { /* replicas keep more than one core busy with what waits at `next` itself */
        const int64_t ready = atomic_load_explicit(&next->ready, memory_order_relaxed);
        if (ready > 1) ns += (ready - 1) * atomic_load_explicit(&next->cost_ns, memory_order_relaxed);
    }
    return ns;
}

/* Somebody was not woken only because earlier ones had too little to do: that may have changed since. */
static void decline(stm_run *run)
{
    const int32_t n = atomic_load_explicit(&run->declined, memory_order_relaxed) + 1;
    const int32_t doubles = atomic_load_explicit(&run->wake_doubles, memory_order_relaxed);

    atomic_store_explicit(&run->declined, n < DECLINES ? n : 0, memory_order_relaxed);
    if (n >= DECLINES && doubles > 0) atomic_store_explicit(&run->wake_doubles, doubles - 1, memory_order_relaxed);
}

/* What a driver found that was woken @p worked ns ago says how much work has to wait before the next one is. */
static void judge_wake(stm_run *run, double worked)
{
    const int32_t doubles = atomic_load_explicit(&run->wake_doubles, memory_order_relaxed);

    if (worked >= WORTH_NS)
        atomic_store_explicit(&run->wake_doubles, 0, memory_order_relaxed);
    else if (doubles < WAKE_DOUBLES)
        atomic_store_explicit(&run->wake_doubles, doubles + 1, memory_order_relaxed);
}

/* Wake a sleeping driver if what this one leaves behind is worth it. */
static void share_work(stm_run *run, const stm_station *next)
{
    int64_t pending, enough;
    bool away; /* this driver is about to be busy for long: then anything is worth it */

    if (run->n_drivers < 2 || atomic_load_explicit(&run->sleepers, memory_order_relaxed) == 0) return;
    if (atomic_load_explicit(&run->waking, memory_order_relaxed) != 0) return;
    away = next != NULL && atomic_load_explicit(&next->cost_ns, memory_order_relaxed) > WAKE_NS;
    pending = pending_elsewhere(run, next);
    enough = away ? 0 : (int64_t)WAKE_NS << atomic_load_explicit(&run->wake_doubles, memory_order_relaxed);
    if (pending <= enough) {
        if (pending > WAKE_NS) decline(run);
        return;
    }
    if (atomic_exchange(&run->waking, 1) == 0) stm_run_ring(run, false);
}

/* A station where at least @p ns of work waits. What is furthest down gets done first: memory comes back. */
static stm_station *find_work(stm_run *run, int64_t ns)
{
    for (int32_t i = run->n_stations - 1; i >= 0; i--)
        if (waiting_ns(&run->stations[i]) > ns) return &run->stations[i];
    return NULL;
}

/* After a burst at @p s: whether to look for work to share. Not each time where bursts are short: to look costs as much as a
 * hop. */
static bool may_share(const stm_station *s, uint64_t bursts)
{
    return (bursts & 7) == 0 || atomic_load_explicit(&s->cost_ns, memory_order_relaxed) > STM_CHEAP_NS ||
           (s->next != NULL && atomic_load_explicit(&s->next->cost_ns, memory_order_relaxed) > STM_CHEAP_NS);
}

static uint64_t beats_of_others(const stm_driver *d)
{
    uint64_t sum = 0;

    for (int32_t i = 0; i < d->run->n_drivers; i++)
        if (i != d->index) sum += atomic_load_explicit(&d->run->drivers[i].beats, memory_order_relaxed);
    return sum;
}

/* Sleep until rung. @p leave: what can be run now is left to other drivers, which move on; not if there is none awake. */
static void park(stm_run *run, bool leave)
{
    const uint32_t seen = atomic_load(&run->epoch);
    bool stay;

    atomic_store(&run->waking, 0); /* a ring for somebody who was on the way out anyway must not keep others asleep */
    atomic_fetch_add(&run->sleepers, 1);
    stay = atomic_fetch_add(&run->idle, 1) + 1 >= atomic_load(&run->threads) || !leave ||
           atomic_load(&run->sleepers) >= run->n_drivers;
    atomic_thread_fence(memory_order_seq_cst);
    stay = stay && stm_run_any_runnable(run, false);
    if (!stay && !atomic_load(&run->quit) && !look_at_rest(run)) futex_wait(&run->epoch, seen);
    atomic_fetch_sub(&run->sleepers, 1);
    atomic_store(&run->waking, 0);
    leave_idle(run);
}

static stm_ring *ring_of(stm_run *run, const char *what, int32_t index)
{
    char name[80];

    if (run->opts.tracer == NULL) return NULL;
    snprintf(name, sizeof name, "%.40s %d", what, (int)index);
    return stm_tracer_join(run->opts.tracer, name);
}

static void note_wait(stm_ring *ring, uint64_t began)
{
    const stm_event e = {.begin = began, .end = stm_ticks(), .place = STM_EVENT_WAIT, .replica = -1};

    stm_ring_put(ring, &e);
}

static void *driver_main(void *arg)
{
    stm_driver *d = arg;
    stm_run *run = d->run;
    stm_station *s = NULL;
    stm_carry carry = {.may = true};
    const double ns_per_tick = stm_ns_per_tick();
    uint64_t idle_since = 0, beats = 0, woken = stm_ticks();
    int pause = 1;

    while (atomic_load(&run->quiescing) != 0) sched_yield(); /* a thread that starts leaves idleness, too */
    stm_pool_attach(run->pool);
    carry.ring = ring_of(run, "driver", d->index);
    while (!atomic_load_explicit(&run->quit, memory_order_relaxed)) {
        if (s != NULL && !s->own_threads && stm_station_run(s, &carry) > 0) {
            const uint64_t bursts = atomic_load_explicit(&d->beats, memory_order_relaxed) + 1;
            atomic_store_explicit(&d->beats, bursts, memory_order_relaxed);
            idle_since = 0;
            pause = 1;
            if (may_share(s, bursts)) share_work(run, s->next);
            s = s->next;
            continue;
        }
        const bool alone = atomic_load_explicit(&run->sleepers, memory_order_relaxed) + 1 >= run->n_drivers;
        if ((s = find_work(run, alone ? 0 : STEAL_NS)) != NULL) {
            share_work(run, s);
            continue;
        }
        const uint64_t now = stm_ticks();
        if (idle_since == 0) {
            idle_since = now;
            beats = beats_of_others(d);
        }
        if ((double)(now - idle_since) * ns_per_tick < SPIN_NS) {
#if defined(__x86_64__)
            for (int i = 0; i < pause; i++) __builtin_ia32_pause();
#endif
            if (pause < 64) pause *= 2;
            continue;
        }
        const double worked = (double)(idle_since - woken) * ns_per_tick;
        idle_since = 0;
        const bool others_move = !alone && beats_of_others(d) != beats;
        if (!others_move && (s = find_work(run, 0)) != NULL) continue;
        if (others_move) judge_wake(run, worked);
        park(run, others_move);
        woken = stm_ticks();
        if (carry.ring != NULL) note_wait(carry.ring, now);
    }
    stm_carry_drop(&carry);
    stm_pool_detach();
    return NULL;
}

static int start_driver(stm_driver *d)
{
    const int e = stm_fault_fires(STM_FAULT_THREAD) ? EAGAIN : pthread_create(&d->thread, NULL, driver_main, d);

    d->started = e == 0;
    return e;
}

mill_status stm_drivers_start(stm_run *run, mill_error *err)
{
    const int32_t n = atomic_load(&run->n_drivers), room = n + STM_SPARE_DRIVERS;

    run->drivers = stm_aligned((size_t)room * sizeof *run->drivers, 64);
    if (run->drivers == NULL) return mill_fail(err, MILL_ERR_NOMEM, "drivers");
    memset(run->drivers, 0, (size_t)room * sizeof *run->drivers); /* all, before the first one looks at the others */
    for (int32_t i = 0; i < room; i++) {
        run->drivers[i].run = run;
        run->drivers[i].index = i;
    }
    run->drivers_room = room;
    atomic_fetch_add(&run->threads, n);
    for (int32_t i = 0; i < n; i++) {
        const int e = start_driver(&run->drivers[i]);
        if (e != 0) {
            atomic_fetch_sub(&run->threads, n - i);
            return mill_fail(err, MILL_ERR_NOMEM, "cannot start driver thread %d: %s", (int)i, strerror(e));
        }
    }
    return MILL_OK;
}

bool stm_drivers_relieve(stm_run *run)
{
    const int32_t n = atomic_load(&run->n_drivers);
    uint64_t beats = 0;
    bool moved;

    for (int32_t i = 0; i < n; i++) beats += atomic_load_explicit(&run->drivers[i].beats, memory_order_relaxed);
    moved = beats != run->seen_beats;
    run->seen_beats = beats;
    if (moved || !stm_run_any_runnable(run, false)) return moved;
    if (n == run->drivers_room) return true;
    if (atomic_load(&run->sleepers) > 0) { /* somebody is free and was not told */
        stm_run_ring(run, false);
        return true;
    }
    atomic_fetch_add(&run->threads, 1);
    while (atomic_load(&run->quiescing) != 0) sched_yield();
    if (start_driver(&run->drivers[n]) != 0) {
        atomic_fetch_sub(&run->threads, 1);
        return true;
    }
    atomic_store(&run->n_drivers, n + 1);
    return true;
}

void stm_drivers_join(stm_run *run)
{
    atomic_store(&run->quit, true);
    stm_run_ring(run, true);
    for (int32_t i = 0; run->drivers != NULL && i < run->drivers_room; i++)
        if (run->drivers[i].started) pthread_join(run->drivers[i].thread, NULL);
    stm_free(run->drivers);
    run->drivers = NULL;
}

/* ---- threads of steps that block --------------------------------------------------------------------------------- */

static void *own_main(void *arg)
{
    stm_replica_slot *slot = arg;
    stm_station *s = stm_wrapper_owner(slot->wrapper);
    stm_run *run = s->run;
    /* what is on a device stays with one thread, and the thread near the device */
    stm_carry none = {.may = false, .mine = stm_wrapper_lane(slot->wrapper) != NULL ? slot : NULL};
    uint64_t began = 0;

    stm_run_go_near(run, slot->wrapper);
    while (atomic_load(&run->quiescing) != 0) sched_yield();
    stm_pool_attach(run->pool);
    none.ring = ring_of(run, s->name, 0);
    while (!atomic_load(&s->done) && !atomic_load(&run->quit) && !atomic_load(&run->rested)) {
        const uint32_t seen = atomic_load(&s->bell);
        if (stm_station_run(s, &none) > 0) {
            /* this thread does not go on to what it has made: somebody else must */
            atomic_thread_fence(memory_order_seq_cst);
            if (atomic_load(&run->sleepers) > 0) stm_run_ring(run, false);
            continue;
        }
        if (none.ring != NULL) began = stm_ticks();
        atomic_fetch_add(&s->asleep, 1);
        atomic_fetch_add(&run->idle, 1);
        atomic_thread_fence(memory_order_seq_cst);
        if (!stm_station_runnable(s) && !atomic_load(&s->done) && !atomic_load(&run->quit) && !atomic_load(&run->rested) &&
            !look_at_rest(run))
            futex_wait(&s->bell, seen);
        atomic_fetch_sub(&s->asleep, 1);
        leave_idle(run);
        if (none.ring != NULL) note_wait(none.ring, began);
    }
    stm_pool_detach();
    atomic_fetch_sub(&run->threads, 1);
    stm_run_ring(run, false); /* the count changed: somebody idle must look again whether the run is at rest */
    return NULL;
}

mill_status stm_own_threads_start(stm_run *run, stm_station *s, mill_error *err)
{
    if (!s->own_threads) return MILL_OK;
    for (int32_t i = 0; i < s->n_slots; i++) {
        int e;
        atomic_fetch_add(&run->threads, 1);
        e = stm_fault_fires(STM_FAULT_THREAD) ? EAGAIN : pthread_create(&s->slots[i].own, NULL, own_main, &s->slots[i]);
        if (e != 0) {
            atomic_fetch_sub(&run->threads, 1);
            return mill_fail(err, MILL_ERR_NOMEM, "cannot start a thread for step %s: %s", s->name, strerror(e));
        }
        s->slots[i].own_started = true;
    }
    return MILL_OK;
}

void stm_own_threads_join(stm_station *s)
{
    for (int32_t i = 0; s->own_threads && i < s->n_slots; i++)
        if (s->slots[i].own_started) {
            atomic_fetch_add(&s->bell, 1);
            futex_wake(&s->bell, 1 << 30);
            pthread_join(s->slots[i].own, NULL);
            s->slots[i].own_started = false;
        }
}
