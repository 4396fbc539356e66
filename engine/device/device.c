#include "device/device.h"

#include <stdio.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "core/log.h"
#include "device/internal.h"

stm_verdict stm_device_verdict(mill_status status)
{
    switch (status) {
    case MILL_OK: return STM_WELL;
    case MILL_ERR_AGAIN:
    case MILL_ERR_BUSY: return STM_RETRY;
    case MILL_ERR_DEVICE_MEM: return STM_SHRINK;
    case MILL_ERR_DEVICE: return STM_LOST;
    default: return STM_IMPUTE;
    }
}

mill_status stm_device_open(const stm_device_ops *ops, int32_t ordinal, stm_device **out, mill_error *err)
{
    stm_device *dev = stm_calloc(sizeof *dev);
    mill_status st;

    if (dev == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory while opening %s device %d", ops->name, (int)ordinal);
    dev->ops = ops;
    dev->ordinal = ordinal;
    atomic_store_explicit(&dev->refs, 1, memory_order_relaxed);
    atomic_store_explicit(&dev->keeps, -1, memory_order_relaxed);
    pthread_mutex_init(&dev->lock, NULL);
    st = stm_device_gate(dev, "open", err);
    if (st == MILL_OK) st = ops->info(ordinal, &dev->info, err);
    if (st == MILL_OK) st = ops->device_open(ordinal, &dev->hw, err);
    if (st != MILL_OK) {
        stm_device_unref(&dev);
        return st;
    }
    *out = dev;
    return MILL_OK;
}

stm_device *stm_device_ref(stm_device *dev)
{
    atomic_fetch_add_explicit(&dev->refs, 1, memory_order_relaxed);
    return dev;
}

void stm_device_unref(stm_device **pdev)
{
    stm_device *dev = *pdev;

    if (dev == NULL) return;
    *pdev = NULL;
    if (atomic_fetch_sub_explicit(&dev->refs, 1, memory_order_acq_rel) != 1) return;
    stm_timelines_close(dev);
    if (dev->hw != NULL) dev->ops->device_close(&dev->hw);
    pthread_mutex_destroy(&dev->lock);
    stm_free(dev);
}

const stm_device_ops *stm_device_ops_of(const stm_device *dev) { return dev->ops; }
stm_hw_device *stm_device_hw(const stm_device *dev) { return dev->hw; }
const stm_device_info *stm_device_info_of(const stm_device *dev) { return &dev->info; }
int32_t stm_device_ordinal(const stm_device *dev) { return dev->ordinal; }
bool stm_device_lost(const stm_device *dev) { return atomic_load_explicit(&dev->lost, memory_order_relaxed); }

mill_status stm_device_note(stm_device *dev, mill_status st)
{
    if (__builtin_expect(st == MILL_ERR_DEVICE, 0)) atomic_store_explicit(&dev->lost, true, memory_order_relaxed);
    return st;
}

mill_status stm_device_gate(stm_device *dev, const char *what, mill_error *err)
{
    if (__builtin_expect(stm_device_lost(dev), 0)) {
        mill_fail(err, MILL_ERR_DEVICE, "%s device %d is lost after an earlier fault", dev->ops->name, (int)dev->ordinal);
        mill_error_remedy(err, "Start the run again: it goes on from what was committed");
        return MILL_ERR_DEVICE;
    }
    if (stm_fault_fires(STM_FAULT_DEVICE))
        return mill_fail(err, MILL_ERR_STEP, "%s device %d: %s failed (a test wants it)", dev->ops->name, (int)dev->ordinal, what);
    return MILL_OK;
}

mill_status stm_device_alloc(stm_device *dev, stm_mem_kind kind, size_t bytes, void **out, mill_error *err)
{
    mill_status st = stm_device_gate(dev, "allocation", err);

    if (st != MILL_OK) return st;
    if (bytes == 0) return mill_fail(err, MILL_ERR_INVALID, "an allocation of no bytes");
    st = stm_device_note(dev, dev->ops->mem_alloc(dev->hw, kind, bytes, out, err));
    if (st == MILL_OK) stm_device_count(&dev->allocs, 1);
    return st;
}

void stm_device_free(stm_device *dev, stm_mem_kind kind, void *ptr)
{
    if (ptr == NULL) return;
    dev->ops->mem_free(dev->hw, kind, ptr);
    stm_device_count(&dev->frees, 1);
}

mill_status stm_device_enter(stm_device *dev, mill_error *err)
{
    const mill_status st = stm_device_gate(dev, "enter", err);

    return st != MILL_OK ? st : stm_device_note(dev, dev->ops->enter(dev->hw, err));
}

mill_status stm_device_memory(stm_device *dev, int64_t *free_bytes, int64_t *total_bytes, mill_error *err)
{
    const mill_status st = stm_device_gate(dev, "memory query", err);

    return st != MILL_OK ? st : stm_device_note(dev, dev->ops->mem_info(dev->hw, free_bytes, total_bytes, err));
}

bool stm_device_keep(stm_device *dev, int64_t bytes)
{
    int64_t keeps = atomic_load_explicit(&dev->keeps, memory_order_relaxed), free_bytes = 0, total;

    if (keeps < 0) {
        keeps = stm_device_memory(dev, &free_bytes, &total, NULL) == MILL_OK ? free_bytes / 4 : 0;
        atomic_store_explicit(&dev->keeps, keeps, memory_order_relaxed); /* of two that ask at once either answer will do */
    }
    if (atomic_fetch_add_explicit(&dev->kept, bytes, memory_order_relaxed) + bytes <= keeps || bytes < 0) return true;
    atomic_fetch_sub_explicit(&dev->kept, bytes, memory_order_relaxed);
    return false;
}

mill_status stm_device_peer(stm_device *a, stm_device *b, bool *direct, mill_error *err)
{
    mill_status st = stm_device_gate(a, "peer access", err);

    if (st != MILL_OK) return st;
    if (a->ops != b->ops) {
        *direct = false;
        return MILL_OK;
    }
    st = a->ops->peer(a->hw, b->hw, direct, err);
    return stm_device_note(a, st);
}

mill_status stm_device_reach(stm_device *a, stm_device *b, mill_error *err)
{
    const uint64_t to_b = b->ordinal < 64 ? (uint64_t)1 << b->ordinal : 0, to_a = a->ordinal < 64 ? (uint64_t)1 << a->ordinal : 0;
    mill_error why = {0};
    bool direct = false;
    mill_status st;

    if ((atomic_load_explicit(&a->asked, memory_order_relaxed) & to_b) != 0) return MILL_OK;
    st = stm_device_peer(a, b, &direct, &why);
    if (st == MILL_ERR_DEVICE) {
        if (err != NULL && err->status == MILL_OK) *err = why;
        return st;
    }
    if (st != MILL_OK)
        stm_log(STM_WARN, NULL, "copies between %s devices %d and %d go over the host: %s", a->ops->name, (int)a->ordinal,
                (int)b->ordinal, why.msg);
    atomic_fetch_or_explicit(&a->asked, to_b, memory_order_relaxed);
    atomic_fetch_or_explicit(&b->asked, to_a, memory_order_relaxed);
    return MILL_OK;
}

stm_device_counts stm_device_counts_of(const stm_device *cdev)
{
    stm_device *dev = (stm_device *)(uintptr_t)cdev;
    stm_device_counts c;

#define GET(name) c.name = atomic_load_explicit(&dev->name, memory_order_relaxed)
    GET(allocs);
    GET(frees);
    GET(events);
    GET(streams);
    GET(syncs);
    GET(copies);
    GET(copied_bytes);
    GET(peer_copies);
    GET(waits);
    GET(raises);
    GET(graphs);
    GET(launches);
#undef GET
    return c;
}
