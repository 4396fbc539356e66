/* What a test's step does with its device, through the engine's own functions. */
#pragma once
#include "stepmill/device.h"

#ifdef __cplusplus
extern "C" {
#endif
/** Queue a copy on the replica's stream. */
mill_status mt_lane_copy(mill_replica *r, void *dst, const void *src, size_t bytes, mill_error *err);
/** Queue out[i] = src[index[i]], int64. */
mill_status mt_lane_gather(mill_replica *r, const void *src, const void *index, void *out, int64_t rows, mill_error *err);
/** calls, columns up, columns down, driver allocations of the device so far. */
void mt_lane_counts(mill_replica *r, int64_t counts[5]);
/** Bytes that the replica's device has left; -1 = it has none. */
int64_t mt_lane_free(mill_replica *r);
#ifdef __cplusplus
}
#endif
