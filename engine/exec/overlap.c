/*
 * A burst of a step on a device: the next batch is queued while one runs, and what is done is handed on. The thread never waits on
 * the device: it asks how far the streams are, and naps between, a sixteenth of the time that nothing has happened for (2 us to 1
 * ms): that is how much later than it could a batch goes on, and long ones cost a hundredth of a core.
 *
 *      take --> map (queues) --> nothing of it is for the host: handed on at once, its readers order their streams behind it
 *                            --> columns are on their way down: handed on when they are there, in turn
 */
#include <time.h>

#include "core/clock.h"
#include "exec/station.h"
#include "wrapper/lane.h"

enum { LEAST_NAP_NS = 2000, MOST_NAP_NS = 1000000, MAY_FAIL = 3 };

typedef struct pending {
    mill_batch *batch;
    stm_mark due;
    int64_t since_ns;
} pending;

typedef struct burst {
    stm_station *station;
    stm_wrapper *wrapper;
    struct stm_lane *lane;
    pending ring[STM_LANE_DEPTH + 1];
    int32_t head, n;
    stm_carry out;
    int32_t polls_failed;
} burst;

static void pass_on(burst *b, mill_batch *batch)
{
    stm_run *run = b->station->run;

    b->out.b[0] = batch;
    stm_station_hand_on(b->station, 1, &b->out);
    atomic_thread_fence(memory_order_seq_cst); /* this thread does not go on to what it has made: somebody else must */
    if (atomic_load(&run->sleepers) > 0) stm_run_ring(run, false);
}

/* Hand on what is done, the oldest first. */
static void deliver(burst *b)
{
    while (b->n > 0 && stm_mark_done(b->ring[b->head].due)) {
        mill_batch *batch = b->ring[b->head].batch;
        b->head = (b->head + 1) % (STM_LANE_DEPTH + 1);
        b->n--;
        stm_wrapper_called(b->wrapper, b->n > 0 ? b->ring[b->head].since_ns : 0);
        pass_on(b, batch);
    }
}

static void nap(int64_t since_ns)
{
    int64_t ns = (stm_now_ns() - since_ns) / 16;

    ns = ns < LEAST_NAP_NS ? LEAST_NAP_NS : ns > MOST_NAP_NS ? MOST_NAP_NS : ns;
    nanosleep(&(struct timespec){0, (long)ns}, NULL);
}

static void drop(burst *b)
{
    for (; b->n > 0; b->n--, b->head = (b->head + 1) % (STM_LANE_DEPTH + 1)) mill_batch_destroy(&b->ring[b->head].batch);
    stm_wrapper_called(b->wrapper, 0);
}

/* A device that is lost stays so; other failures of asking say nothing about the work, unless it cannot be asked at all. */
static mill_status poll(burst *b, mill_error *err)
{
    mill_error why = {0};
    const mill_status st = stm_lane_poll(b->lane, &why);

    if (st == MILL_OK) {
        b->polls_failed = 0;
        return MILL_OK;
    }
    if (st != MILL_ERR_DEVICE && ++b->polls_failed < MAY_FAIL) return MILL_OK;
    *err = why;
    return st;
}

static bool may_take(const stm_station *s)
{
    return atomic_load_explicit(&s->ready, memory_order_acquire) > 0 && !atomic_load_explicit(&s->dead, memory_order_relaxed) &&
           atomic_load_explicit(&s->run->stop, memory_order_relaxed) != 2 && !stm_memory_holds_back(s);
}

static mill_status map(burst *b, stm_ready *item, mill_error *err)
{
    const int64_t now = stm_now_ns();
    mill_batch *batch = NULL;
    const mill_status st = stm_wrapper_map(b->wrapper, item, &batch, err);
    stm_mark due;

    if (st != MILL_OK) {
        stm_ready_discard(item); /* nothing is left of it if it was consumed */
        return st;
    }
    due = batch->rows > 0 ? stm_lane_due(b->lane) : (stm_mark){NULL, 0};
    if (b->n == 0 && stm_mark_done(due)) {
        pass_on(b, batch);
        return MILL_OK;
    }
    if (b->n == 0) stm_wrapper_called(b->wrapper, now);
    b->ring[(b->head + b->n++) % (STM_LANE_DEPTH + 1)] = (pending){batch, due, now};
    return MILL_OK;
}

/* For who asked for a trace. */
static void note_streams(const burst *b, stm_ring *ring)
{
    stm_event e = {.place = b->station->node, .replica = stm_wrapper_index(b->wrapper)};
    stm_lane_span span;

    while (stm_lane_next_span(b->lane, &span)) {
        e.begin = span.begin;
        e.end = span.end;
        e.items = STM_EVENT_STREAM - (int32_t)span.way;
        stm_ring_put(ring, &e);
    }
}

int32_t stm_station_overlap(stm_station *s, stm_replica_slot *slot, stm_ready *items, int32_t n, stm_ring *ring)
{
    burst b = {.station = s, .wrapper = slot->wrapper, .lane = stm_wrapper_lane(slot->wrapper), .out = {.may = false}};
    mill_error err = {0};
    mill_status st = MILL_OK;
    int32_t at = 0, handled = n;
    int64_t since_ns = stm_now_ns();

    for (;;) {
        const bool room = b.n <= STM_LANE_DEPTH && stm_lane_under_way(b.lane) < STM_LANE_DEPTH;
        if (at == n && room && may_take(s)) {
            at = 0;
            n = stm_station_take(s, items, 1);
            handled += n;
        }
        if (at < n && room) {
            if ((st = map(&b, &items[at++], &err)) != MILL_OK) break;
            since_ns = stm_now_ns();
        } else if (b.n == 0 && at == n && stm_lane_under_way(b.lane) == 0) {
            break;
        } else {
            nap(since_ns);
        }
        if ((st = poll(&b, &err)) != MILL_OK) break;
        if (ring != NULL) note_streams(&b, ring);
        deliver(&b);
    }
    if (st == MILL_OK) return handled;
    drop(&b);
    while (at < n) stm_ready_discard(&items[at++]);
    if (err.status == MILL_OK) mill_fail(&err, st, "%s", mill_status_text(st));
    stm_station_fail(s, &err);
    return handled;
}
