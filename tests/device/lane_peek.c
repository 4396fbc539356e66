#include "lane_peek.h"

#include "kernels/kernels.h"
#include "wrapper/lane.h"
#include "wrapper/replica.h"

mill_status mt_lane_copy(mill_replica *r, void *dst, const void *src, size_t bytes, mill_error *err)
{
    return stm_stream_copy(stm_lane_stream(r->w->lane), dst, src, bytes, err);
}

mill_status mt_lane_gather(mill_replica *r, const void *src, const void *index, void *out, int64_t rows, mill_error *err)
{
    stm_stream *s = stm_lane_stream(r->w->lane);
    const stm_gather_args a = {src, index, out, rows, 8};
    const mill_status st = stm_kernels_of(stm_device_ops_of(stm_stream_device(s)))->gather(&a, stm_stream_native(s));

    return st == MILL_OK ? st : mill_fail(err, st, "gather");
}

void mt_lane_counts(mill_replica *r, int64_t counts[5])
{
    const stm_lane_stats l = stm_lane_counts(r->w->lane);

    counts[0] = l.batches;
    counts[1] = l.uploads;
    counts[2] = l.landings;
    counts[4] = l.joined;
    counts[3] = stm_device_counts_of(stm_stream_device(stm_lane_stream(r->w->lane))).allocs;
}

int64_t mt_lane_free(mill_replica *r)
{
    int64_t free_bytes = -1, total;

    if (r->w->lane != NULL) (void)stm_device_memory(stm_stream_device(stm_lane_stream(r->w->lane)), &free_bytes, &total, NULL);
    return free_bytes;
}
