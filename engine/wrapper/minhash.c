/* Signatures of texts that a replica makes on its device, or on the host where it has none. */
#include <string.h>

#include "stepmill/device.h"
#include "wrapper/lane_internal.h"
#include "wrapper/replica.h"

static mill_status on_host(mill_pool *pool, const mill_minhash_args *args, mill_buffer **out, mill_error *err)
{
    mill_minhash_args a = *args;
    mill_buffer *made = NULL;
    mill_status st = mill_buffer_create(pool, (size_t)a.rows * STM_MINHASHES * sizeof *a.out, &made);

    if (st != MILL_OK) return mill_fail(err, st, "out of memory for %lld signatures", (long long)a.rows);
    a.out = mill_buffer_data(made);
    st = mill_minhash(&a, err);
    if (st == MILL_OK)
        *out = made;
    else
        mill_buffer_unref(&made);
    return st;
}

/* Offsets from 0 on, and behind them the texts, on the device. */
static mill_status bring(stm_lane *l, const mill_minhash_args *a, mill_buffer **out, mill_error *err)
{
    const size_t head = ((size_t)a->rows + 1) * sizeof *a->offsets, text = (size_t)(a->offsets[a->rows] - a->offsets[0]);
    stm_stream *up = l->streams[STM_WAY_UP];
    mill_buffer *hold = NULL;
    int64_t *offsets;
    mill_status st = stm_device_pool_take(l->pinned, head + text, &hold, err);

    if (st != MILL_OK) return st;
    offsets = mill_buffer_data(hold);
    for (int64_t i = 0; i <= a->rows; i++) offsets[i] = a->offsets[i] - a->offsets[0];
    if (text > 0) memcpy((char *)mill_buffer_data(hold) + head, (const char *)a->bytes + a->offsets[0], text);
    st = stm_lane_take(l, head + text, out, err);
    if (st == MILL_OK) {
        l->queued[STM_WAY_UP] = true;
        st = stm_stream_copy(up, mill_buffer_data(*out), mill_buffer_data(hold), head + text, err);
        if (!stm_buffer_read_until(hold, stm_stream_next(up))) st = stm_stream_sync(up, err);
    }
    mill_buffer_unref(&hold);
    return st;
}

static mill_status on_device(stm_lane *l, const mill_minhash_args *args, mill_buffer **out, mill_error *err)
{
    mill_buffer *texts = NULL, *made = NULL;
    mill_status st = bring(l, args, &texts, err);

    if (st == MILL_OK) st = stm_lane_take(l, (size_t)args->rows * STM_MINHASHES * sizeof(uint32_t), &made, err);
    if (st == MILL_OK) st = stm_lane_gather_ways(l, err);
    if (st == MILL_OK) {
        const char *at = mill_buffer_data(texts);
        const stm_minhash_args a = {.bytes = (const uint8_t *)at + ((size_t)args->rows + 1) * sizeof(int64_t),
                                    .offsets = (const int64_t *)(const void *)at,
                                    .rows = args->rows,
                                    .width = args->width,
                                    .seed = args->seed,
                                    .out = mill_buffer_data(made)};
        l->queued[STM_WAY_STEP] = true;
        st = stm_device_note(l->opts.device, l->kernels->minhash(&a, stm_stream_native(l->streams[STM_WAY_STEP])));
        if (st != MILL_OK) mill_fail(err, st, "queueing the kernel of signatures failed");
    }
    if (st != MILL_OK) stm_lane_drain(l, 0, NULL); /* copies may be under way into what is let go */
    mill_buffer_unref(&texts);
    if (st == MILL_OK)
        *out = made;
    else
        mill_buffer_unref(&made);
    return st;
}

mill_status mill_replica_minhash(mill_replica *r, const mill_minhash_args *args, mill_buffer **out, mill_error *err)
{
    stm_lane *l = r->w->lane;
    const mill_status st = stm_minhash_check(args, err);

    if (st != MILL_OK) return st;
    return l == NULL || l->kernels == NULL || args->rows == 0 ? on_host(r->env->pool, args, out, err)
                                                              : on_device(l, args, out, err);
}
