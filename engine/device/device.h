/* An open device: a backend, one of its devices, and the timelines of its streams. */
#ifndef STM_DEVICE_DEVICE_H
#define STM_DEVICE_DEVICE_H

#include "device/device_ops.h"

MILL_BEGIN_DECLS

typedef struct stm_device stm_device;
typedef struct stm_timeline stm_timeline;

/** What to do about a failure. */
typedef enum stm_verdict { STM_WELL, STM_RETRY, STM_SHRINK, STM_IMPUTE, STM_LOST } stm_verdict;
stm_verdict stm_device_verdict(mill_status status);

/** Open device @p ordinal of a backend. Not shared: two opens are two devices. Threads: any. */
mill_status stm_device_open(const stm_device_ops *ops, int32_t ordinal, stm_device **out, mill_error *err);
/** Another reference: pools and streams keep their device open. */
stm_device *stm_device_ref(stm_device *dev);
/** Drop a reference; the last one closes. Sets *dev to NULL, accepts NULL. */
void stm_device_unref(stm_device **dev);

const stm_device_ops *stm_device_ops_of(const stm_device *dev);
stm_hw_device *stm_device_hw(const stm_device *dev);
const stm_device_info *stm_device_info_of(const stm_device *dev);
int32_t stm_device_ordinal(const stm_device *dev);
/** Whether a fault made it unusable; then every call gives MILL_ERR_DEVICE at once. Threads: any. */
bool stm_device_lost(const stm_device *dev);
/** Keep the status of a call: the first MILL_ERR_DEVICE marks the device as lost. Returns @p st. Threads: any. */
mill_status stm_device_note(stm_device *dev, mill_status st);
/** MILL_OK, or why no call should be made: the device is lost, or a test wants this call to fail. Threads: any. */
mill_status stm_device_gate(stm_device *dev, const char *what, mill_error *err);

/** See stm_device_ops. Threads: any. Not per batch. */
mill_status stm_device_alloc(stm_device *dev, stm_mem_kind kind, size_t bytes, void **out, mill_error *err);
void stm_device_free(stm_device *dev, stm_mem_kind kind, void *ptr);
mill_status stm_device_enter(stm_device *dev, mill_error *err);
mill_status stm_device_memory(stm_device *dev, int64_t *free_bytes, int64_t *total_bytes, mill_error *err);
/** Whether @p bytes more of its memory may be kept for no other purpose than to spare copies: a quarter of what was free when this
 *  was first asked, of all that is so kept. @p bytes < 0: given back. Threads: any. Blocks: no; the first call asks the driver. */
bool stm_device_keep(stm_device *dev, int64_t bytes);
/** Let two devices of one backend reach each other. *direct: copies between them do not go through the host. */
mill_status stm_device_peer(stm_device *a, stm_device *b, bool *direct, mill_error *err);

/** Calls of a device that must not happen per batch, for tests that count. */
typedef struct stm_device_counts {
    int64_t allocs, frees, events, streams, syncs; /* made since it was opened */
    int64_t copies, copied_bytes, peer_copies, waits, raises, graphs, launches;
} stm_device_counts;
stm_device_counts stm_device_counts_of(const stm_device *dev);

MILL_END_DECLS

#endif
