#include "comm/comm.h"

#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "core/clock.h"

struct stm_comm {
    const stm_comm_ops *ops;
    stm_hw_comm *hw; /* NULL: broken, and aborted */
    int32_t n;
    int64_t timeout_ns;
    stm_comm_state state;
    int64_t since; /* ns; when forming or queueing began */
    mill_error failure; /* broken: the first one */
    /* groups under way, oldest first in the ring */
    struct {
        int64_t since;
        stm_mark marks[STM_COMM_RANKS];
    } groups[STM_COMM_DEPTH];
    int32_t first, count;
    stm_stream *streams[STM_COMM_RANKS];
};

stm_verdict stm_comm_verdict(mill_status status)
{
    return status == MILL_ERR_IO || status == MILL_ERR_TIMEOUT ? STM_RETRY : stm_device_verdict(status);
}

size_t stm_comm_type_bytes(stm_comm_type type)
{
    switch (type) {
    case STM_COMM_U8: return 1;
    case STM_COMM_F16:
    case STM_COMM_BF16: return 2;
    case STM_COMM_I32:
    case STM_COMM_F32: return 4;
    case STM_COMM_I64:
    case STM_COMM_F64: return 8;
    }
    return 0;
}

/* ---- what fits together ----------------------------------------------------------------------------------------- */

static bool reduces(stm_comm_kind kind)
{
    return kind == STM_COMM_ALL_REDUCE || kind == STM_COMM_REDUCE || kind == STM_COMM_REDUCE_SCATTER;
}
static bool point_to_point(stm_comm_kind kind) { return kind == STM_COMM_SEND || kind == STM_COMM_RECV; }

static mill_status check_call(const stm_comm *c, const stm_comm_call *call, int32_t at, mill_error *err)
{
    const bool reads = call->kind != STM_COMM_RECV && !(call->kind == STM_COMM_BROADCAST && call->rank != call->peer);
    const bool writes = call->kind != STM_COMM_SEND && !(call->kind == STM_COMM_REDUCE && call->rank != call->peer);

    if (call->kind < STM_COMM_ALL_REDUCE || call->kind > STM_COMM_RECV || stm_comm_type_bytes(call->type) == 0)
        return mill_fail(err, MILL_ERR_INVALID, "call %d of a group: no such kind or type", (int)at);
    if (call->rank < 0 || call->rank >= c->n || call->peer < 0 || call->peer >= c->n)
        return mill_fail(err, MILL_ERR_INVALID, "call %d of a group: rank %d and peer %d of %d ranks", (int)at, (int)call->rank,
                         (int)call->peer, (int)c->n);
    if (point_to_point(call->kind) && call->rank == call->peer)
        return mill_fail(err, MILL_ERR_INVALID, "call %d of a group: rank %d to itself", (int)at, (int)call->rank);
    if (reduces(call->kind) && (call->op < STM_COMM_SUM || call->op > STM_COMM_MIN))
        return mill_fail(err, MILL_ERR_INVALID, "call %d of a group: no such reduction", (int)at);
    if (call->count < 0 || (call->count > 0 && ((reads && call->send == NULL) || (writes && call->recv == NULL))))
        return mill_fail(err, MILL_ERR_INVALID, "call %d of a group: a buffer is missing", (int)at);
    return MILL_OK;
}

/* The k-th collective of a rank, or the k-th send or receive on a way; NULL: there is none. */
static const stm_comm_call *kth_collective(const stm_comm_call *calls, int32_t n, int32_t rank, int32_t k)
{
    for (int32_t i = 0; i < n; i++)
        if (calls[i].rank == rank && !point_to_point(calls[i].kind) && k-- == 0) return &calls[i];
    return NULL;
}
static const stm_comm_call *kth_message(const stm_comm_call *calls, int32_t n, stm_comm_kind kind, int32_t rank, int32_t peer,
                                        int32_t k)
{
    for (int32_t i = 0; i < n; i++)
        if (calls[i].kind == kind && calls[i].rank == rank && calls[i].peer == peer && k-- == 0) return &calls[i];
    return NULL;
}

/* Whether every rank has the calls that the others count on. */
static mill_status check_group(const stm_comm *c, const stm_comm_call *calls, int32_t n, mill_error *err)
{
    mill_status st = n < 1 || n > STM_COMM_CALLS ? mill_fail(err, MILL_ERR_INVALID, "a group of %d calls", (int)n) : MILL_OK;
    int32_t collectives[STM_COMM_RANKS] = {0};
    int16_t ways[STM_COMM_RANKS][STM_COMM_RANKS][2] = {0}; /* sends, receives so far */

    for (int32_t i = 0; i < n && st == MILL_OK; i++) st = check_call(c, &calls[i], i, err);
    for (int32_t i = 0; i < n && st == MILL_OK; i++) {
        const stm_comm_call *a = &calls[i], *b;
        if (point_to_point(a->kind)) {
            const bool send = a->kind == STM_COMM_SEND;
            int16_t *k = send ? &ways[a->rank][a->peer][0] : &ways[a->peer][a->rank][1];
            b = kth_message(calls, n, send ? STM_COMM_RECV : STM_COMM_SEND, a->peer, a->rank, (*k)++);
            if (b == NULL || b->count != a->count || b->type != a->type)
                st = mill_fail(err, MILL_ERR_INVALID, "call %d of a group: rank %d %s %lld elements %s rank %d, which %s", (int)i,
                               (int)a->rank, send ? "sends" : "receives", (long long)a->count, send ? "to" : "from", (int)a->peer,
                               b == NULL ? "has no such call" : "has another size or type");
            continue;
        }
        const int32_t k = collectives[a->rank]++;
        for (int32_t r = 0; r < c->n && st == MILL_OK; r++) {
            b = kth_collective(calls, n, r, k);
            if (b == NULL || b->kind != a->kind || b->count != a->count || b->type != a->type ||
                (reduces(a->kind) && b->op != a->op) ||
                ((a->kind == STM_COMM_BROADCAST || a->kind == STM_COMM_REDUCE) && b->peer != a->peer))
                st = mill_fail(err, MILL_ERR_INVALID,
                               "call %d of a group: collective %d of rank %d does not agree with that of rank %d", (int)i, (int)k,
                               (int)a->rank, (int)r);
        }
    }
    return st;
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

/* The end of a communicator that failed: what is queued ends, the failure is kept. */
static mill_status break_off(stm_comm *c, mill_status st, const mill_error *why)
{
    if (c->state == STM_COMM_BROKEN) return c->failure.status;
    c->failure = *why;
    if (c->failure.status == MILL_OK) mill_fail(&c->failure, st, "%s: the communicator failed", c->ops->name);
    c->state = STM_COMM_BROKEN;
    c->count = 0;
    if (c->hw != NULL) {
        c->ops->abort(c->hw);
        c->ops->close(&c->hw);
    }
    return c->failure.status;
}

static mill_status tell(const stm_comm *c, mill_error *err)
{
    if (err != NULL && err->status == MILL_OK) *err = c->failure;
    return c->failure.status;
}

static mill_status begin(stm_comm *c, mill_error *err)
{
    int32_t ordinals[STM_COMM_RANKS];
    void *native[STM_COMM_RANKS];
    mill_error why = {0};
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < c->n; i++) {
        ordinals[i] = stm_device_ordinal(stm_stream_device(c->streams[i]));
        native[i] = stm_stream_native(c->streams[i]);
    }
    c->since = stm_now_ns();
    c->state = STM_COMM_FORMING;
    c->first = c->count = 0;
    st = c->ops->open(ordinals, native, c->n, &c->hw, &why);
    if (st == MILL_OK) return MILL_OK;
    (void)break_off(c, st, &why);
    return tell(c, err);
}

mill_status stm_comm_open(const stm_comm_ops *ops, stm_stream *const *streams, int32_t n, int64_t timeout_ns, stm_comm **out,
                          mill_error *err)
{
    stm_comm *c;
    mill_status st;

    if (n < 1 || n > STM_COMM_RANKS)
        return mill_fail(err, MILL_ERR_INVALID, "a communicator of %d ranks: 1 to %d", (int)n, STM_COMM_RANKS);
    for (int32_t i = 0; i < n; i++) {
        const stm_device *dev = stm_stream_device(streams[i]);
        if (strcmp(stm_device_ops_of(dev)->name, ops->backend) != 0)
            return mill_fail(err, MILL_ERR_INVALID, "%s connects %s devices, rank %d is on %s", ops->name, ops->backend, (int)i,
                             stm_device_ops_of(dev)->name);
        for (int32_t j = 0; j < i && !stm_device_info_of(dev)->host_memory; j++)
            if (stm_device_ordinal(stm_stream_device(streams[j])) == stm_device_ordinal(dev))
                return mill_fail(err, MILL_ERR_INVALID, "ranks %d and %d are both on %s device %d", (int)j, (int)i, ops->backend,
                                 (int)stm_device_ordinal(dev));
    }
    if ((c = stm_calloc(sizeof *c)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a communicator");
    c->ops = ops;
    c->n = n;
    c->timeout_ns = timeout_ns > 0 ? timeout_ns : STM_COMM_TIMEOUT_NS;
    memcpy(c->streams, streams, (size_t)n * sizeof *streams);
    if ((st = begin(c, err)) != MILL_OK) {
        stm_free(c);
        return st;
    }
    *out = c;
    return MILL_OK;
}

stm_comm_state stm_comm_state_of(const stm_comm *c) { return c->state; }
int32_t stm_comm_in_flight(const stm_comm *c) { return c->count + (c->state == STM_COMM_QUEUEING); }

/* ---- work ------------------------------------------------------------------------------------------------------- */

mill_status stm_comm_submit(stm_comm *c, const stm_comm_call *calls, int32_t n, mill_error *err)
{
    mill_error why = {0};
    mill_status st;

    if (c->state == STM_COMM_BROKEN) return tell(c, err);
    if (c->state != STM_COMM_READY || c->count == STM_COMM_DEPTH)
        return mill_fail(err, MILL_ERR_AGAIN,
                         c->state != STM_COMM_READY ? "the communicator is not ready" : "%d groups are under way", STM_COMM_DEPTH);
    if ((st = check_group(c, calls, n, err)) != MILL_OK) return st;
    c->since = stm_now_ns();
    st = c->ops->group(c->hw, calls, n, &why);
    if (st != MILL_OK) { /* some ranks may have it and others not: they can do nothing more together */
        (void)break_off(c, st, &why);
        return tell(c, err);
    }
    c->state = STM_COMM_QUEUEING;
    return MILL_OK;
}

/* A group is queued: its marks say when it is done. MILL_ERR_AGAIN: a stream has no tick free; none was taken. */
static mill_status mark_group(stm_comm *c, mill_error *err)
{
    const int32_t at = (c->first + c->count) % STM_COMM_DEPTH;

    for (int32_t i = 0; i < c->n; i++)
        if (stm_stream_in_flight(c->streams[i]) >= STM_TICKS) return MILL_ERR_AGAIN;
    for (int32_t i = 0; i < c->n; i++) {
        const mill_status st = stm_stream_raise(c->streams[i], &c->groups[at].marks[i], err);
        if (st != MILL_OK) return st;
    }
    c->groups[at].since = c->since;
    c->count++;
    return MILL_OK;
}

static bool group_done(const stm_comm *c, int32_t at)
{
    for (int32_t i = 0; i < c->n; i++)
        if (!stm_mark_done(c->groups[at].marks[i])) return false;
    return true;
}

static mill_status look(stm_comm *c, mill_error *why)
{
    mill_status st = c->ops->poll(c->hw, why);
    const bool waits = st == MILL_ERR_AGAIN;
    int64_t oldest = c->since;

    if (st != MILL_OK && !waits) return st;
    *why = (mill_error){0};
    for (int32_t i = 0; i < c->n; i++)
        if ((st = stm_stream_poll(c->streams[i], why)) != MILL_OK) return st;
    if (!waits && c->state == STM_COMM_FORMING) c->state = STM_COMM_READY;
    if (!waits && c->state == STM_COMM_QUEUEING) {
        st = mark_group(c, why);
        if (st == MILL_OK) c->state = STM_COMM_READY;
        else if (st != MILL_ERR_AGAIN) return st;
    }
    while (c->count > 0 && group_done(c, c->first)) c->first = (c->first + 1) % STM_COMM_DEPTH, c->count--;
    if (c->count > 0) oldest = c->groups[c->first].since;
    if ((c->state != STM_COMM_READY || c->count > 0) && stm_now_ns() - oldest > c->timeout_ns)
        return mill_fail(why, MILL_ERR_TIMEOUT, "%s: %s of %d ranks is not over after %.1f s", c->ops->name,
                         c->state == STM_COMM_FORMING ? "the connection" : "an operation", (int)c->n, (double)c->timeout_ns * 1e-9);
    return c->state == STM_COMM_READY ? MILL_OK : MILL_ERR_AGAIN;
}

mill_status stm_comm_poll(stm_comm *c, mill_error *err)
{
    mill_error why = {0};
    mill_status st;

    if (c->state == STM_COMM_BROKEN) return tell(c, err);
    st = look(c, &why);
    if (st == MILL_OK || st == MILL_ERR_AGAIN) return st;
    (void)break_off(c, st, &why);
    return tell(c, err);
}

/* Between two looks: longer each time, to a millisecond. */
static void nap(int64_t *ns)
{
    const struct timespec t = {0, *ns};

    nanosleep(&t, NULL);
    if (*ns < 1000000) *ns *= 2;
}
#define FIRST_NAP_NS 20000

mill_status stm_comm_wait(stm_comm *c, mill_error *err)
{
    int64_t pause = FIRST_NAP_NS;
    mill_status st;

    /* ends: poll keeps the deadlines */
    while ((st = stm_comm_poll(c, err)) == MILL_ERR_AGAIN || (st == MILL_OK && c->count > 0)) nap(&pause);
    return st;
}

/* ---- end and new beginning -------------------------------------------------------------------------------------- */

/* Until all that is queued on the streams has ended. */
static mill_status drain(stm_comm *c, mill_error *err)
{
    const int64_t until = stm_now_ns() + c->timeout_ns;
    int64_t pause = FIRST_NAP_NS;

    for (int32_t i = 0; i < c->n; i++) {
        stm_mark end = {NULL, 0};
        mill_status st = MILL_ERR_AGAIN;
        while (st == MILL_ERR_AGAIN || (st == MILL_OK && !stm_mark_done(end))) {
            if (stm_now_ns() > until)
                return mill_fail(err, MILL_ERR_DEVICE, "%s: device %d does not come back from an aborted operation", c->ops->name,
                                 (int)stm_device_ordinal(stm_stream_device(c->streams[i])));
            if (st == MILL_ERR_AGAIN && stm_stream_in_flight(c->streams[i]) < STM_TICKS)
                st = stm_stream_raise(c->streams[i], &end, err);
            else nap(&pause);
            if (st == MILL_OK || st == MILL_ERR_AGAIN) {
                const mill_status polled = stm_stream_poll(c->streams[i], err);
                if (polled != MILL_OK) st = polled;
            }
        }
        if (st != MILL_OK) return st;
    }
    return MILL_OK;
}

mill_status stm_comm_rebuild(stm_comm *c, mill_error *err)
{
    static const mill_error asked = {.status = MILL_ERR_STOPPED, .msg = "the communicator is built again"};
    mill_status st;

    (void)break_off(c, MILL_ERR_STOPPED, &asked);
    if ((st = drain(c, err)) != MILL_OK) return st;
    c->failure = (mill_error){0};
    return begin(c, err);
}

void stm_comm_close(stm_comm **pc)
{
    static const mill_error closed = {.status = MILL_ERR_STOPPED, .msg = "the communicator is closed"};
    stm_comm *c = *pc;

    if (c == NULL) return;
    *pc = NULL;
    if (stm_comm_wait(c, NULL) == MILL_OK && c->ops->finish(c->hw, NULL) == MILL_OK) {
        const int64_t until = stm_now_ns() + c->timeout_ns;
        int64_t pause = FIRST_NAP_NS;
        mill_status st;
        while ((st = c->ops->poll(c->hw, NULL)) == MILL_ERR_AGAIN && stm_now_ns() < until) nap(&pause);
        if (st == MILL_OK) c->ops->close(&c->hw);
    }
    if (c->hw != NULL) (void)break_off(c, MILL_ERR_STOPPED, &closed);
    stm_free(c);
}
