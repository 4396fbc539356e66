#include "wrapper/lane.h"

#include <string.h>
#include <time.h>

#include "batch/column.h"
#include "batch/move.h"
#include "core/alloc.h"
#include "wrapper/replica.h"

struct stm_lane {
    stm_lane_opts opts; /* device: a reference */
    stm_stream *stream;
    stm_device_pool *memory, *pinned;
    stm_lane_stats stats;
};

mill_status stm_lane_open(const stm_lane_opts *opts, stm_lane **out, mill_error *err)
{
    stm_lane *l = stm_calloc(sizeof *l);
    stm_device_pool_opts o;
    mill_status st;

    if (l == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a replica on a device");
    l->opts = *opts;
    l->opts.device = stm_device_ref(opts->device);
    st = stm_stream_open(opts->device, &l->stream, err);
    o = (stm_device_pool_opts){.device = opts->device,
                               .kind = STM_MEM_DEVICE,
                               .heads = opts->host,
                               .slab_bytes = opts->slab_bytes != 0 ? opts->slab_bytes : (size_t)32 << 20,
                               .limit_bytes = opts->limit_bytes};
    if (st == MILL_OK) st = stm_device_pool_create(&o, &l->memory, err);
    o.kind = STM_MEM_PINNED;
    o.slab_bytes = opts->pinned_bytes != 0 ? opts->pinned_bytes : (size_t)8 << 20;
    o.limit_bytes = 0;
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
    stm_stream_close(&l->stream);
    stm_device_pool_release(&l->memory);
    stm_device_pool_release(&l->pinned);
    stm_device_unref(&l->opts.device);
    stm_free(l);
}

void stm_lane_settle(stm_lane *l)
{
    mill_error err = {0};

    stm_stream_sync(l->stream, &err);
}

stm_lane_stats stm_lane_counts(const stm_lane *l) { return l->stats; }
stm_stream *stm_lane_stream(const stm_lane *l) { return l->stream; }

/* Until at most @p n batches are under way. Looks often at first, then naps: a batch of a millisecond is seen within a tenth of it, and a
 * long one costs less than a twentieth of a core. */
static mill_status drain(stm_lane *l, int32_t n, mill_error *err)
{
    int64_t nap_ns = 2000;
    mill_status st = stm_stream_poll(l->stream, err);

    while (st == MILL_OK && stm_stream_in_flight(l->stream) > n) {
        const struct timespec nap = {0, (long)nap_ns};
        nanosleep(&nap, NULL);
        if (nap_ns < 200000) nap_ns += nap_ns / 2;
        st = stm_stream_poll(l->stream, err);
    }
    return st;
}

static mill_status raise_and_drain(stm_lane *l, int32_t n, mill_error *err)
{
    stm_mark mark;
    const mill_status st = stm_stream_raise(l->stream, &mark, err);

    return st != MILL_OK ? st : drain(l, n, err);
}

/* ---- columns ---------------------------------------------------------------------------------------------------- */

static void await(mill_buffer *b, void *user)
{
    stm_lane *l = user;
    mill_error err = {0};

    if (stm_buffer_await(b, l->stream, &err) != MILL_OK || !stm_buffer_read_until(b, stm_stream_next(l->stream)))
        stm_stream_sync(l->stream, NULL); /* more readers than are remembered, or no event: wait for it here */
}

static void written(mill_buffer *b, void *user)
{
    const stm_lane *l = user;

    /* of this stream's memory only: a column that is passed on keeps the mark of who made it */
    if (stm_buffer_on_device(b) && stm_buffer_write_mark(b).line == NULL) stm_buffer_written(b, stm_stream_next(l->stream));
}

/* Room may come with queued work: once more when that is done. */
static mill_status move_column(stm_lane *l, stm_device_pool *to, const mill_column *col, mill_column **out, mill_error *err)
{
    stm_mover m = {.stream = l->stream, .to = to, .pinned = l->pinned, .pool = l->opts.host};
    mill_error first = {0};
    mill_status st = stm_column_move(&m, col, out, &first);

    if (st == MILL_ERR_AGAIN) {
        st = raise_and_drain(l, 0, err);
        l->stats.retries++;
        if (st == MILL_OK) st = stm_column_move(&m, col, out, err);
        return st == MILL_ERR_AGAIN ? MILL_ERR_DEVICE_MEM : st;
    }
    if (st != MILL_OK && err != NULL && err->status == MILL_OK) *err = first;
    return st;
}

typedef struct whereabouts {
    const stm_device *device;
    bool elsewhere; /* a buffer that is not on the device */
} whereabouts;

static void look(mill_buffer *b, void *user)
{
    whereabouts *w = user;

    if (!stm_buffer_on_device(b) || stm_buffer_device(b) != w->device) w->elsewhere = true;
}

/* The step's view of one input with every column on the device; up owns references to its columns. */
static mill_status upload(stm_lane *l, const mill_batch *in, mill_batch *up, mill_error *err)
{
    mill_status st = MILL_OK;

    up->rows = in->rows;
    up->keys = in->keys; /* borrowed, as the marks */
    up->marks = in->marks;
    for (int32_t c = 0; c < up->n_columns && st == MILL_OK; c++) {
        mill_column *col = in->columns[c];
        whereabouts at = {l->opts.device, false};
        if (col == NULL) continue;
        stm_column_buffers(col, look, &at);
        if (at.elsewhere) {
            st = move_column(l, l->memory, col, &up->columns[c], err);
            l->stats.uploads++;
        } else {
            up->columns[c] = mill_column_ref(col);
        }
        if (st == MILL_OK) stm_column_buffers(up->columns[c], await, l);
    }
    return st;
}

static void clear(mill_batch *up)
{
    up->marks = NULL;
    up->keys = (stm_keys){.width = 1};
    for (int32_t c = 0; c < up->n_columns; c++) mill_column_unref(&up->columns[c]);
}

/* Columns of b that are on a device are replaced by copies on the host, queued and not waited for. */
static mill_status land(stm_lane *l, mill_batch *b, mill_error *err)
{
    mill_status st = MILL_OK;

    for (int32_t c = 0; c < b->n_columns && st == MILL_OK; c++) {
        mill_column *here = NULL;
        if (b->columns[c] == NULL || !stm_column_is_on_device(b->columns[c], NULL)) continue;
        st = move_column(l, NULL, b->columns[c], &here, err);
        if (st != MILL_OK) break;
        mill_column_unref(&b->columns[c]); /* its memory stays until the copy is done: it is marked as read */
        b->columns[c] = here;
        l->stats.landings++;
    }
    return st;
}

mill_status stm_lane_land_inputs(stm_wrapper *w, mill_error *err)
{
    mill_status st = MILL_OK;
    bool any = false;

    for (int32_t i = 0; i < w->step->n_inputs; i++)
        for (int32_t c = 0; c < w->inputs[i]->n_columns; c++)
            any = any || (w->inputs[i]->columns[c] != NULL && stm_column_is_on_device(w->inputs[i]->columns[c], NULL));
    if (!any) return MILL_OK;
    for (int32_t i = 0; i < w->step->n_inputs && st == MILL_OK; i++) st = land(w->lane, w->inputs[i], err);
    return st == MILL_OK ? raise_and_drain(w->lane, 0, err) : st;
}

/* ---- the call --------------------------------------------------------------------------------------------------- */

static mill_status call(stm_wrapper *w, mill_batch *const *up, mill_error *err)
{
    stm_lane *l = w->lane;
    mill_status st = stm_device_enter(l->opts.device, err);

    if (st != MILL_OK) return st;
    stm_range_push(l->opts.device, w->step->name);
    st = w->step->type->process(&w->replica, up, (size_t)w->step->n_inputs, &w->emit, err);
    stm_range_pop(l->opts.device);
    if (st != MILL_ERR_AGAIN) return st;
    /* no room until queued work is done: that can be waited for, once */
    stm_emit_drop(&w->emit);
    stm_emit_begin(&w->emit, &w->replica, up[0]->rows, INT64_MAX);
    memset(err, 0, sizeof *err);
    if ((st = raise_and_drain(l, 0, err)) != MILL_OK) return st;
    l->stats.retries++;
    st = w->step->type->process(&w->replica, up, (size_t)w->step->n_inputs, &w->emit, err);
    return st == MILL_ERR_AGAIN ? MILL_ERR_DEVICE_MEM : st;
}

mill_status stm_lane_process(stm_wrapper *w, mill_batch *const *in, mill_error *err)
{
    stm_lane *l = w->lane;
    mill_batch *up[64] = {0};
    mill_error late = {0};
    mill_status st = drain(l, STM_LANE_DEPTH - 1, err), queued;
    bool keep;

    for (int32_t i = 0; i < w->step->n_inputs && st == MILL_OK; i++) {
        st = stm_batch_create(l->opts.host, in[i]->rows, in[i]->n_columns, 0, &up[i]);
        if (st != MILL_OK)
            mill_fail(err, st, "out of memory for a batch");
        else
            st = upload(l, in[i], up[i], err);
    }
    if (st == MILL_OK) st = call(w, up, err);
    l->stats.batches++;
    for (int32_t i = 0; i < w->step->n_inputs && up[i] != NULL; i++) /* again: a raise on the way would have let the marks pass */
        for (int32_t c = 0; c < up[i]->n_columns; c++)
            if (up[i]->columns[c] != NULL) stm_column_buffers(up[i]->columns[c], await, l);
    /* What leaves through the general case of the wrapper has rows picked from it on the host. */
    keep =
        l->opts.keep && st == MILL_OK && in == (mill_batch *const *)w->views && w->emit.n_parts == 1 && w->emit.n_row_errors == 0;
    for (size_t k = 0; k < w->emit.n_parts && st == MILL_OK; k++) {
        mill_batch *b = w->emit.parts[k].batch;
        for (int32_t c = 0; c < b->n_columns; c++)
            if (b->columns[c] != NULL) stm_column_buffers(b->columns[c], written, l);
        if (!keep) st = land(l, b, err);
    }
    /* Also after a failure: something may be queued, and the marks of the inputs stand for this raise. */
    queued = raise_and_drain(l, keep ? STM_LANE_DEPTH - 1 : 0, &late);
    if (st == MILL_OK && queued != MILL_OK) {
        st = queued;
        if (err->status == MILL_OK) *err = late;
    }
    for (int32_t i = 0; i < w->step->n_inputs; i++) {
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
    d.stream = stm_stream_native(l->stream);
    d.struct_size = out->struct_size < sizeof d ? out->struct_size : sizeof d;
    memcpy(out, &d, d.struct_size);
    return true;
}

mill_status mill_replica_device_buffer(mill_replica *r, size_t bytes, mill_buffer **out, mill_error *err)
{
    mill_status st;

    if (r->w->lane == NULL) return mill_fail(err, MILL_ERR_UNSUPPORTED, "this replica has no device");
    st = stm_device_pool_take(r->w->lane->memory, bytes, out, err);
    /* scratch that is let go before the raise is in use until then */
    if (st == MILL_OK) stm_buffer_written(*out, stm_stream_next(r->w->lane->stream));
    return st;
}

bool mill_buffer_is_on_device(const mill_buffer *buf) { return stm_buffer_on_device(buf); }
bool mill_column_is_on_device(const mill_column *col) { return stm_column_is_on_device(col, NULL); }
