#include "wrapper/lane.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "batch/column.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "wrapper/lane_internal.h"
#include "wrapper/replica.h"

#define STEP STM_WAY_STEP

mill_status stm_lane_open(const stm_lane_opts *opts, stm_lane **out, mill_error *err)
{
    stm_lane *l = stm_calloc(sizeof *l);
    stm_device_pool_opts o;
    mill_status st = MILL_OK;

    if (l == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a replica on a device");
    l->opts = *opts;
    l->opts.device = stm_device_ref(opts->device);
    l->kernels = stm_kernels_of(stm_device_ops_of(opts->device));
    stm_lane_site_init(l);
    for (int i = STEP; i < STM_WAY_ACROSS && st == MILL_OK; i++) st = stm_stream_open(opts->device, &l->streams[i], err);
    o = (stm_device_pool_opts){.device = opts->device,
                               .kind = STM_MEM_DEVICE,
                               .heads = opts->host,
                               .slab_bytes = opts->slab_bytes != 0 ? opts->slab_bytes : (size_t)32 << 20,
                               .limit_bytes = opts->limit_bytes};
    if (st == MILL_OK) st = stm_device_pool_create(&o, &l->memory, err);
    o.kind = STM_MEM_PINNED;
    o.slab_bytes = opts->pinned_bytes != 0 ? opts->pinned_bytes : (size_t)8 << 20;
    o.limit_bytes = 0;
    o.share = opts->share;
    if (st == MILL_OK) st = stm_device_pool_create(&o, &l->pinned, err);
    if (st != MILL_OK) {
        stm_lane_close(&l);
        return st;
    }
    *out = l;
    return MILL_OK;
}

void stm_lane_close(stm_lane **pl)
{
    stm_lane *l = *pl;

    if (l == NULL) return;
    *pl = NULL;
    if (l->graphs != NULL) stm_graphs_free(l);
    for (int i = 0; i < 2; i++) mill_buffer_unref(&l->status[i]);
    for (int i = 0; i < STM_WAYS; i++) stm_stream_close(&l->streams[i]);
    stm_device_pool_release(&l->memory);
    stm_device_pool_release(&l->pinned);
    stm_device_unref(&l->opts.device);
    stm_free(l);
}

/* Not before that: whoever still has a buffer may be reading it on a stream of his own. */
static void release_idle(stm_device_pool **pool)
{
    stm_device_pool_stats s;

    if (*pool == NULL) return;
    stm_device_pool_reap(*pool);
    s = stm_device_pool_counts(*pool);
    if (s.live_bytes == 0 && s.waiting_bytes == 0) stm_device_pool_release(pool);
}

void stm_lane_trim(stm_lane *l)
{
    release_idle(&l->pinned); /* first: its twins are on the device */
    release_idle(&l->memory);
}

void stm_lane_retire(stm_lane *l)
{
    stm_lane_settle(l);
    if (l->graphs != NULL) stm_graphs_free(l);
    for (int i = 0; i < 2; i++) mill_buffer_unref(&l->status[i]);
    stm_lane_trim(l);
}

void stm_lane_settle(stm_lane *l)
{
    for (int i = 0; i < STM_WAYS; i++)
        if (l->streams[i] != NULL) stm_stream_settle(l->streams[i]);
    stm_graphs_drop(l);
}

stm_lane_stats stm_lane_counts(const stm_lane *l) { return l->stats; }
stm_stream *stm_lane_stream(const stm_lane *l) { return l->streams[STEP]; }
void stm_lane_keep(stm_lane *l, const bool *keep, const bool *pair)
{
    l->keep = keep;
    l->pair = pair;
}

stm_mark stm_lane_due(const stm_lane *l) { return l->due; }

/* ---- what its streams did, for a trace --------------------------------------------------------------------------- */

static void note_queued(stm_lane *l, stm_lane_way way, stm_mark mark)
{
    if (l->n_spans == STM_LANE_SPANS) return;
    l->spans[l->n_spans].span = (stm_lane_span){l->began, 0, way};
    l->spans[l->n_spans++].mark = mark;
}

static void note_done(stm_lane *l)
{
    const uint64_t now = l->n_spans > 0 ? stm_ticks() : 0;

    for (int32_t i = 0; i < l->n_spans; i++) {
        stm_lane_span *s = &l->spans[i].span;
        if (s->end != 0 || !stm_mark_done(l->spans[i].mark)) continue;
        if (s->begin < l->seen[s->way]) s->begin = l->seen[s->way];
        s->end = l->seen[s->way] = now;
    }
}

bool stm_lane_next_span(stm_lane *l, stm_lane_span *out)
{
    for (int32_t i = 0; i < l->n_spans; i++) {
        if (l->spans[i].span.end == 0) continue;
        *out = l->spans[i].span;
        l->n_spans--;
        memmove(&l->spans[i], &l->spans[i + 1], (size_t)(l->n_spans - i) * sizeof l->spans[0]);
        return true;
    }
    return false;
}

mill_status stm_lane_poll(stm_lane *l, mill_error *err)
{
    mill_status st = MILL_OK;

    for (int i = 0; i < STM_WAYS && st == MILL_OK; i++)
        if (l->streams[i] != NULL) st = stm_stream_poll(l->streams[i], err);
    note_done(l);
    return st;
}

int32_t stm_lane_under_way(const stm_lane *l)
{
    const int32_t step = stm_stream_in_flight(l->streams[STEP]), down = stm_stream_in_flight(l->streams[STM_WAY_DOWN]);

    return step > down ? step : down;
}

/* ---- streams ---------------------------------------------------------------------------------------------------- */

mill_status stm_lane_way_from(stm_lane *l, const mill_buffer *src, stm_stream **out, mill_error *err)
{
    const stm_device *of = stm_buffer_on_device(src) ? stm_buffer_device(src) : NULL;
    stm_lane_way way = of == NULL ? STM_WAY_UP : STEP;
    mill_status st;

    if (of != NULL && of != l->opts.device && stm_device_ordinal(of) != stm_device_ordinal(l->opts.device)) way = STM_WAY_ACROSS;
    if (l->streams[way] == NULL && (st = stm_stream_open(l->opts.device, &l->streams[way], err)) != MILL_OK) return st;
    l->queued[way] = true;
    *out = l->streams[way];
    return MILL_OK;
}

/* A mark behind all that was queued on it since the last one, if anything was. */
static mill_status raise(stm_lane *l, stm_lane_way way, stm_mark *mark, mill_error *err)
{
    mill_status st = MILL_OK;

    if (!l->queued[way]) return MILL_OK;
    st = stm_stream_raise(l->streams[way], mark, err);
    if (st != MILL_OK) return st;
    l->queued[way] = false;
    if (l->opts.traced) note_queued(l, way, *mark);
    return st;
}

mill_status stm_lane_gather_ways(stm_lane *l, mill_error *err)
{
    static const stm_lane_way from[] = {STM_WAY_UP, STM_WAY_ACROSS};
    mill_status st = MILL_OK;

    for (int i = 0; i < 2 && st == MILL_OK; i++) {
        stm_mark mark = {NULL, 0};
        st = raise(l, from[i], &mark, err);
        if (st == MILL_OK) st = stm_stream_after(l->streams[STEP], mark, err);
    }
    return st;
}

/* Looks often at first, then naps: a batch of a millisecond is seen within a tenth of it, and a long one costs less than a
 * twentieth of a core. */
mill_status stm_lane_drain(stm_lane *l, int32_t n, mill_error *err)
{
    int64_t nap_ns = 2000;
    mill_status st = MILL_OK;

    for (int i = 0; i < STM_WAYS && st == MILL_OK; i++) {
        stm_mark mark;
        st = raise(l, (stm_lane_way)i, &mark, err);
    }
    if (st == MILL_OK) st = stm_lane_poll(l, err);
    while (st == MILL_OK) {
        const struct timespec nap = {0, (long)nap_ns};
        int32_t left = stm_lane_under_way(l);
        for (int i = 0; i < STM_WAYS && n == 0; i++)
            if (l->streams[i] != NULL) left += stm_stream_in_flight(l->streams[i]);
        if (left <= n) break;
        nanosleep(&nap, NULL);
        if (nap_ns < 200000) nap_ns += nap_ns / 2;
        st = stm_lane_poll(l, err);
    }
    return st;
}

/* ---- columns ---------------------------------------------------------------------------------------------------- */

typedef struct usage {
    stm_lane *lane;
    mill_error *err;
    mill_status st;
    bool crowded; /* more readers of a buffer than are remembered */
} usage;

static void await(mill_buffer *b, void *user)
{
    usage *u = user;

    if (u->st == MILL_OK) u->st = stm_buffer_await(b, u->lane->streams[STEP], u->err);
}

static void reads(mill_buffer *b, void *user)
{
    usage *u = user;

    if (!stm_buffer_read_until(b, stm_stream_next(u->lane->streams[STEP]))) u->crowded = true;
}

static void written(mill_buffer *b, void *user)
{
    const stm_lane *l = user;

    /* of this stream's memory only: a column that is passed on keeps the mark of who made it */
    if (stm_buffer_on_device(b) && stm_buffer_write_mark(b).line == NULL) stm_buffer_written(b, stm_stream_next(l->streams[STEP]));
}

typedef struct whereabouts {
    const stm_device *device;
    mill_buffer *elsewhere; /* a buffer that is not on the device */
    bool pinned;            /* may have a twin */
} whereabouts;

static void look(mill_buffer *b, void *user)
{
    whereabouts *w = user;

    if (!stm_buffer_on_device(b) || stm_buffer_device(b) != w->device) w->elsewhere = b;
    w->pinned = w->pinned || b->where == STM_MEM_PINNED;
}

static mill_status move_once(stm_lane *l, stm_lane_move_to to, const mill_column *col, mill_column **out, mill_error *err)
{
    stm_mover m = {.stream = l->streams[STM_WAY_DOWN],
                   .to = to == STM_TO_DEVICE ? l->memory : NULL,
                   .pinned = l->pinned,
                   .pool = l->opts.host,
                   .pairs = to == STM_TO_BOTH};
    whereabouts at = {.device = l->opts.device};
    mill_status st;

    if (to != STM_TO_DEVICE) {
        l->queued[STM_WAY_DOWN] = true;
        return stm_column_move(&m, col, out, err);
    }
    stm_column_buffers(col, look, &at);
    st = stm_lane_way_from(l, at.elsewhere, &m.stream, err);
    return st == MILL_OK ? stm_column_move(&m, col, out, err) : st;
}

bool stm_lane_make_room(stm_lane *l, mill_status *st, size_t bytes, bool *waited, mill_error *err)
{
    if (*st == MILL_ERR_AGAIN && !*waited) {
        mill_error late = {0};
        *waited = true;
        if ((*st = stm_lane_drain(l, 0, &late)) != MILL_OK) {
            *err = late;
            return false;
        }
    } else {
        if (*st == MILL_ERR_AGAIN) *st = err->status = MILL_ERR_DEVICE_MEM;
        if (*st != MILL_ERR_DEVICE_MEM || !stm_device_pool_unpair(l->pinned, bytes)) return false;
        *waited = false; /* queued work may be using what was let go */
    }
    l->stats.retries++;
    return true;
}

bool stm_lane_await_room(const struct stm_wrapper *w)
{
    stm_lane *l = w->lane;
    const struct timespec nap = {0, 1000000};
    const int64_t until = stm_now_ns() + STM_LANE_ROOM_NS;
    stm_device_pool_stats s = stm_device_pool_counts(l->memory);
    const int64_t held = s.live_bytes + s.waiting_bytes;
    mill_error err = {0};

    if (l->full || s.live_bytes <= l->least) return false;
    while (stm_now_ns() < until && !atomic_load_explicit(&w->replica.stopped, memory_order_relaxed)) {
        nanosleep(&nap, NULL);
        if (stm_lane_poll(l, &err) != MILL_OK) return false;
        stm_device_pool_reap(l->memory);
        s = stm_device_pool_counts(l->memory);
        if (s.live_bytes + s.waiting_bytes < held) return true;
    }
    l->full = true;
    return false;
}

mill_status stm_lane_move(stm_lane *l, stm_lane_move_to to, const mill_column *col, mill_column **out, mill_error *err)
{
    bool waited = false;

    for (;;) {
        mill_error why = {0};
        mill_status st = move_once(l, to, col, out, &why);
        if (st == MILL_OK) return st;
        if (stm_lane_make_room(l, &st, (size_t)stm_column_bytes(col), &waited, &why)) continue;
        if (err != NULL && err->status == MILL_OK) *err = why;
        return st;
    }
}

mill_status stm_lane_take(stm_lane *l, size_t bytes, mill_buffer **out, mill_error *err)
{
    bool waited = false;

    for (;;) {
        mill_error why = {0};
        mill_status st = stm_device_pool_take(l->memory, bytes, out, &why);
        if (st == MILL_OK) {
            stm_buffer_written(*out, stm_stream_next(l->streams[STEP]));
            return st;
        }
        if (stm_lane_make_room(l, &st, bytes, &waited, &why)) continue;
        if (err != NULL && err->status == MILL_OK) *err = why;
        return st;
    }
}

/* What @p in is on a device, as far as it is; else itself. A reference. */
static mill_status nearest(stm_lane *l, mill_column *in, mill_column **out, mill_error *err)
{
    whereabouts at = {.device = l->opts.device};
    mill_column *twin = NULL;

    stm_column_buffers(in, look, &at);
    if (at.pinned && stm_column_twin(l->opts.host, in, &twin) != MILL_OK)
        return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a column");
    *out = twin != NULL ? twin : mill_column_ref(in);
    return MILL_OK;
}

/* The step's view of one input with every column on the device; up owns references to its columns. */
static mill_status upload(stm_lane *l, const mill_batch *in, mill_batch *up, mill_error *err)
{
    mill_status st = MILL_OK;

    up->rows = in->rows;
    up->keys = in->keys; /* borrowed, as the marks */
    up->marks = in->marks;
    for (int32_t c = 0; c < up->n_columns && st == MILL_OK; c++) {
        mill_column *col = NULL;
        whereabouts at = {.device = l->opts.device};
        if (in->columns[c] == NULL) continue;
        if ((st = nearest(l, in->columns[c], &col, err)) != MILL_OK) break;
        stm_column_buffers(col, look, &at);
        if (at.elsewhere != NULL) {
            st = stm_lane_move(l, STM_TO_DEVICE, col, &up->columns[c], err);
            l->stats.uploads++;
            mill_column_unref(&col); /* its memory stays until the copy is done: it is marked as read */
        } else {
            up->columns[c] = col;
        }
    }
    return st;
}

static void visit(mill_batch *const *up, int32_t n, void (*each)(mill_buffer *b, void *user), usage *u)
{
    for (int32_t i = 0; i < n && up[i] != NULL; i++)
        for (int32_t c = 0; c < up[i]->n_columns; c++)
            if (up[i]->columns[c] != NULL) stm_column_buffers(up[i]->columns[c], each, u);
}

static void clear(mill_batch *up)
{
    up->marks = NULL;
    up->keys = (stm_keys){.width = 1};
    for (int32_t c = 0; c < up->n_columns; c++) mill_column_unref(&up->columns[c]);
}

/* A column on a device is replaced by a copy on the host, queued and not waited for. */
static mill_status land(stm_lane *l, mill_column **col, bool pair, mill_error *err)
{
    mill_column *here = NULL;
    mill_status st;

    if (*col == NULL || !stm_column_is_on_device(*col, NULL)) return MILL_OK;
    st = stm_lane_move(l, pair ? STM_TO_BOTH : STM_TO_HOST, *col, &here, err);
    if (st != MILL_OK) return st;
    mill_column_unref(col); /* its memory stays until the copy is done: it is marked as read */
    *col = here;
    l->stats.landings++;
    return MILL_OK;
}

static void unfilled(mill_buffer *b, void *user)
{
    bool *wait = user;

    if (!stm_buffer_on_device(b) && !stm_mark_done(stm_buffer_write_mark(b))) *wait = true;
}

/* A column on its way to the host. @p wait is set where it is not there yet, whoever queued the copy: a call that failed behind it
 * leaves the column landed and its mark announced, so that only the mark says what has arrived. */
static mill_status bring(stm_lane *l, mill_column **col, bool *wait, mill_error *err)
{
    stm_mark mark;
    mill_status st = MILL_OK;

    if (*col == NULL) return MILL_OK;
    /* what was put together for this batch is behind a mark that has not been raised */
    if (l->queued[STEP] && stm_column_is_on_device(*col, NULL)) st = raise(l, STEP, &mark, err);
    if (st == MILL_OK) st = land(l, col, false, err);
    if (st == MILL_OK) stm_column_buffers(*col, unfilled, wait);
    return st;
}

/* upload for a step that reads its input on the host: what is on a device comes down, and is there when the step is called. */
static mill_status take_on_host(stm_lane *l, const mill_batch *in, mill_batch *up, mill_error *err)
{
    bool wait = false;
    mill_status st = MILL_OK;

    up->rows = in->rows;
    up->keys = in->keys; /* borrowed, as the marks */
    up->marks = in->marks;
    for (int32_t c = 0; c < up->n_columns && st == MILL_OK; c++) {
        if (in->columns[c] == NULL) continue;
        up->columns[c] = mill_column_ref(in->columns[c]);
        st = bring(l, &up->columns[c], &wait, err);
    }
    return st == MILL_OK && wait ? stm_lane_drain(l, 0, err) : st;
}

mill_status stm_lane_land_inputs(stm_wrapper *w, mill_error *err)
{
    bool wait = false;
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < w->step->n_inputs; i++)
        for (int32_t c = 0; c < w->inputs[i]->n_columns && st == MILL_OK; c++)
            st = bring(w->lane, &w->inputs[i]->columns[c], &wait, err);
    return st == MILL_OK && wait ? stm_lane_drain(w->lane, 0, err) : st;
}

/* ---- the call --------------------------------------------------------------------------------------------------- */

/* The word of a batch: cleared before its work, ... */
static mill_status begin_status(stm_lane *l, mill_error *err)
{
    mill_status st = MILL_OK;

    if (l->status[0] == NULL) st = stm_lane_take(l, sizeof(int32_t), &l->status[0], err);
    if (st == MILL_OK && l->status[1] == NULL) st = stm_device_pool_take(l->pinned, sizeof(int32_t), &l->status[1], err);
    return st == MILL_OK ? stm_stream_fill(l->streams[STEP], mill_buffer_data(l->status[0]), 0, sizeof(int32_t), err) : st;
}

/* ... read behind it. A batch whose word says that it failed has not gone anywhere, so this is waited for. */
static mill_status end_status(stm_lane *l, mill_error *err)
{
    mill_status st =
        stm_stream_copy(l->streams[STEP], mill_buffer_data(l->status[1]), mill_buffer_data(l->status[0]), sizeof(int32_t), err);
    int32_t word;

    l->queued[STEP] = true;
    if (st == MILL_OK) st = stm_lane_drain(l, 0, err);
    if (st != MILL_OK) return st;
    memcpy(&word, mill_buffer_data(l->status[1]), sizeof word);
    return word == 0 ? MILL_OK : mill_fail(err, MILL_ERR_STEP, "the device reports %d for this batch", (int)word);
}

static mill_status call(stm_wrapper *w, mill_batch *const *up, mill_error *err)
{
    stm_lane *l = w->lane;
    mill_status st = stm_device_enter(l->opts.device, err);
    bool waited = false;

    while (st == MILL_OK) {
        l->queued[STEP] = true;
        if ((w->step->type->flags & MILL_REPORTS_STATUS) != 0 && (st = begin_status(l, err)) != MILL_OK) break;
        stm_range_push(l->opts.device, w->step->name);
        st = w->step->type->process(&w->replica, up, (size_t)w->step->n_inputs, &w->emit, err);
        stm_range_pop(l->opts.device);
        if (st == MILL_OK || !stm_lane_make_room(l, &st, SIZE_MAX, &waited, err)) break;
        stm_emit_drop(&w->emit); /* once more */
        stm_emit_begin(&w->emit, &w->replica, up[0]->rows, INT64_MAX);
        memset(err, 0, sizeof *err);
        st = MILL_OK;
    }
    return st;
}

static bool emits_on_host(const stm_wrapper *w)
{
    for (size_t k = 0; k < w->emit.n_parts; k++)
        for (int32_t c = 0; c < w->step->n_outputs; c++) {
            const mill_column *col = w->emit.parts[k].batch->columns[c];
            if (col != NULL && !stm_column_is_on_device(col, NULL)) return true;
        }
    return false;
}

/* A column that leaves goes down behind the step, and so behind what the step waited for: one wait for all of the batch's
 * columns. */
static mill_status leave(stm_lane *l, mill_column **col, int32_t place, stm_mark done, mill_error *err)
{
    mill_status st;

    if (*col == NULL || !stm_column_is_on_device(*col, NULL)) return MILL_OK;
    st = stm_stream_follow(l->streams[STM_WAY_DOWN], l->streams[STEP], done, err);
    return st == MILL_OK ? land(l, col, l->pair != NULL && l->pair[place], err) : st;
}

/* What leaves with the batch and may not stay: results, and columns that pass through. The step has raised @p done. */
static mill_status land_leaving(stm_wrapper *w, bool whole, stm_mark done, mill_error *err)
{
    stm_lane *l = w->lane;
    const mill_step *s = w->step;
    mill_status st = MILL_OK;

    for (size_t k = 0; k < w->emit.n_parts; k++)
        for (int32_t c = 0; c < s->n_outputs && st == MILL_OK; c++)
            if (!whole || l->keep == NULL || !l->keep[s->outputs[c].column])
                st = leave(l, &w->emit.parts[k].batch->columns[c], s->outputs[c].column, done, err);
    for (int32_t i = 0; i < s->n_pass && whole && st == MILL_OK; i++)
        if (l->keep == NULL || !l->keep[s->pass[i].to])
            st = leave(l, &w->inputs[s->pass[i].input]->columns[s->pass[i].from], s->pass[i].to, done, err);
    return st;
}

mill_status stm_lane_process(stm_wrapper *w, mill_batch *const *in, mill_error *err)
{
    stm_lane *l = w->lane;
    mill_batch *up[64] = {0};
    mill_error late = {0};
    mill_status st = stm_lane_poll(l, err), queued = MILL_OK;
    const int32_t n_in = w->step->n_inputs;
    stm_mark done = {NULL, 0};
    usage u = {l, err, MILL_OK, false};
    const int64_t live = stm_device_pool_counts(l->memory).live_bytes;
    bool whole;

    if (l->stats.batches == 0 || live < l->least) l->least = live;
    l->due = (stm_mark){NULL, 0};
    if (l->opts.traced) l->began = stm_ticks();
    if (st == MILL_OK && stm_lane_under_way(l) >= STM_LANE_DEPTH) st = stm_lane_drain(l, STM_LANE_DEPTH - 1, err);
    for (int32_t i = 0; i < n_in && st == MILL_OK; i++) {
        st = stm_batch_create(l->opts.host, in[i]->rows, in[i]->n_columns, 0, &up[i]);
        if (st != MILL_OK)
            mill_fail(err, st, "out of memory for a batch");
        else
            st = (w->step->type->flags & MILL_INPUTS_ON_HOST) != 0 ? take_on_host(l, in[i], up[i], err)
                                                                   : upload(l, in[i], up[i], err);
    }
    if (st == MILL_OK) st = stm_lane_gather_ways(l, err);
    if (st == MILL_OK) {
        visit(up, n_in, await, &u);
        st = u.st != MILL_OK ? u.st : call(w, up, err);
    }
    l->stats.batches++;
    if (st == MILL_OK) l->full = false;
    if (st == MILL_OK && (w->step->type->flags & MILL_REPORTS_STATUS) != 0) st = end_status(l, err);
    visit(up, n_in, reads, &u);                             /* now: a raise on the way would have let the marks pass */
    if (u.crowded) stm_stream_sync(l->streams[STEP], NULL); /* rare */
    /* What leaves through the general case of the wrapper has rows picked from it on the host. */
    whole = st == MILL_OK && in == (mill_batch *const *)w->views && (w->emit.passed || w->emit.n_parts == 1) &&
            w->emit.n_row_errors == 0;
    for (size_t k = 0; k < w->emit.n_parts && st == MILL_OK; k++) {
        mill_batch *b = w->emit.parts[k].batch;
        for (int32_t c = 0; c < b->n_columns; c++)
            if (b->columns[c] != NULL) stm_column_buffers(b->columns[c], written, l);
    }
    l->queued[STEP] = true; /* also after a failure: marks of buffers stand for this raise */
    queued = raise(l, STEP, &done, &late);
    if (st == MILL_OK && queued == MILL_OK) {
        if (emits_on_host(w)) { /* whatever fills it is on the step's stream */
            l->due = done;
            queued = stm_stream_after(l->streams[STM_WAY_DOWN], done, &late);
        }
        if (queued == MILL_OK) st = land_leaving(w, whole, done, err);
        if (st == MILL_OK && queued == MILL_OK) queued = raise(l, STM_WAY_DOWN, &l->due, &late);
    }
    if (queued == MILL_OK && !(whole && st == MILL_OK)) queued = stm_lane_drain(l, 0, &late);
    if (st == MILL_OK && queued != MILL_OK) {
        st = queued;
        if (err->status == MILL_OK) *err = late;
    }
    for (int32_t i = 0; i < n_in; i++) {
        if (up[i] != NULL) clear(up[i]);
        mill_batch_destroy(&up[i]);
    }
    return st;
}

/* ---- what a step sees -------------------------------------------------------------------------------------------- */

bool mill_replica_device_of(const mill_replica *r, mill_replica_device *out)
{
    const stm_lane *l = r->w->lane;
    mill_replica_device d = MILL_REPLICA_DEVICE_INIT;

    if (l == NULL) return false;
    d.backend = stm_device_ops_of(l->opts.device)->name;
    d.ordinal = stm_device_ordinal(l->opts.device);
    d.major = stm_device_info_of(l->opts.device)->major;
    d.minor = stm_device_info_of(l->opts.device)->minor;
    d.stream = stm_stream_native(l->streams[STEP]);
    d.queue = l->streams[STEP];
    d.struct_size = out->struct_size < sizeof d ? out->struct_size : sizeof d;
    memcpy(out, &d, d.struct_size);
    return true;
}

mill_status mill_replica_device_buffer(mill_replica *r, size_t bytes, mill_buffer **out, mill_error *err)
{
    mill_status st;

    if (r->w->lane == NULL) return mill_fail(err, MILL_ERR_UNSUPPORTED, "this replica has no device");
    do {
        mill_error why = {0};
        if ((st = stm_device_pool_take(r->w->lane->memory, bytes, out, &why)) != MILL_OK && err != NULL) *err = why;
    } while (st == MILL_ERR_DEVICE_MEM && stm_device_pool_unpair(r->w->lane->pinned, bytes));
    if (st == MILL_OK && err != NULL) memset(err, 0, sizeof *err);
    /* scratch that is let go before the raise is in use until then */
    if (st == MILL_OK) stm_buffer_written(*out, stm_stream_next(r->w->lane->streams[STEP]));
    return st;
}

int32_t *mill_replica_device_status(mill_replica *r)
{
    const stm_lane *l = r->w->lane;

    return l != NULL && l->status[0] != NULL ? mill_buffer_data(l->status[0]) : NULL;
}

bool mill_buffer_is_on_device(const mill_buffer *buf) { return stm_buffer_on_device(buf); }
bool mill_column_is_on_device(const mill_column *col) { return stm_column_is_on_device(col, NULL); }
