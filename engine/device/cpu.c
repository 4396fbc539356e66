/*
 * The backend without a device: a stream's work is done by the thread that queues it, before the call returns. So every event is
 * done when it is recorded, and every order that streams ask for is kept.
 */
#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "device/device_ops.h"

#define ALIGN 256

struct stm_hw_device {
    int32_t ordinal;
};
struct stm_hw_stream {
    stm_hw_device *device;
};
struct stm_hw_event {
    bool recorded; /* keeps the object from being empty; every record is done at once */
};

static mill_status count(int32_t *n, mill_error *err)
{
    (void)err;
    *n = 1;
    return MILL_OK;
}

static mill_status info(int32_t ordinal, stm_device_info *out, mill_error *err)
{
    if (ordinal != 0) return mill_fail(err, MILL_ERR_NOT_FOUND, "there is one cpu device, its number is 0, not %d", (int)ordinal);
    memset(out, 0, sizeof *out);
    strcpy(out->name, "host processor");
    out->processors = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    out->memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    out->host_memory = true;
    return MILL_OK;
}

static mill_status device_open(int32_t ordinal, stm_hw_device **out, mill_error *err)
{
    stm_hw_device *dev = stm_calloc(sizeof *dev);

    if (dev == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a cpu device");
    dev->ordinal = ordinal;
    *out = dev;
    return MILL_OK;
}

static void device_close(stm_hw_device **dev)
{
    stm_free(*dev);
    *dev = NULL;
}

static mill_status enter(stm_hw_device *dev, mill_error *err)
{
    (void)dev;
    (void)err;
    return MILL_OK;
}

static mill_status mem_info(stm_hw_device *dev, int64_t *free_bytes, int64_t *total_bytes, mill_error *err)
{
    (void)dev;
    (void)err;
    *free_bytes = (int64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE);
    *total_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    return MILL_OK;
}

static mill_status mem_alloc(stm_hw_device *dev, stm_mem_kind kind, size_t bytes, void **out, mill_error *err)
{
    const size_t all = (size_t)sysconf(_SC_PHYS_PAGES) *
                       (size_t)sysconf(_SC_PAGESIZE); /* more than that is not asked for, only to be killed later */
    void *p = bytes <= all ? stm_aligned((bytes + ALIGN - 1) / ALIGN * ALIGN, ALIGN) : NULL;

    (void)dev;
    if (p == NULL)
        return mill_fail(err, kind == STM_MEM_DEVICE ? MILL_ERR_DEVICE_MEM : MILL_ERR_NOMEM, "no memory for %zu bytes", bytes);
    *out = p;
    return MILL_OK;
}

static void mem_free(stm_hw_device *dev, stm_mem_kind kind, void *ptr)
{
    (void)dev;
    (void)kind;
    stm_free(ptr);
}

static mill_status stream_open(stm_hw_device *dev, stm_hw_stream **out, mill_error *err)
{
    stm_hw_stream *st = stm_calloc(sizeof *st);

    if (st == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a cpu stream");
    st->device = dev;
    *out = st;
    return MILL_OK;
}

static void stream_close(stm_hw_stream **st)
{
    stm_free(*st);
    *st = NULL;
}

static void *stream_native(stm_hw_stream *st)
{
    (void)st;
    return NULL;
}

static mill_status copy(stm_hw_stream *st, void *dst, const void *src, size_t bytes, mill_error *err)
{
    (void)st;
    (void)err;
    memcpy(dst, src, bytes);
    return MILL_OK;
}

static mill_status fill(stm_hw_stream *st, void *dst, int byte, size_t bytes, mill_error *err)
{
    (void)st;
    (void)err;
    memset(dst, byte, bytes);
    return MILL_OK;
}

static mill_status copy_peer(stm_hw_stream *st, stm_hw_device *to, void *dst, stm_hw_device *from, const void *src, size_t bytes,
                             mill_error *err)
{
    (void)to;
    (void)from;
    return copy(st, dst, src, bytes, err);
}

static mill_status peer(stm_hw_device *a, stm_hw_device *b, bool *direct, mill_error *err)
{
    (void)a;
    (void)b;
    (void)err;
    *direct = true;
    return MILL_OK;
}

static mill_status stream_sync(stm_hw_stream *st, mill_error *err)
{
    (void)st;
    (void)err;
    return MILL_OK;
}

static mill_status event_open(stm_hw_device *dev, stm_hw_event **out, mill_error *err)
{
    stm_hw_event *ev = stm_calloc(sizeof *ev);

    (void)dev;
    if (ev == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for an event");
    *out = ev;
    return MILL_OK;
}

static void event_close(stm_hw_event **ev)
{
    stm_free(*ev);
    *ev = NULL;
}

static mill_status event_record(stm_hw_event *ev, stm_hw_stream *st, mill_error *err)
{
    (void)st;
    (void)err;
    ev->recorded = true;
    return MILL_OK;
}

static mill_status event_query(stm_hw_event *ev, mill_error *err)
{
    (void)ev;
    (void)err;
    return MILL_OK;
}

static mill_status stream_wait(stm_hw_stream *st, stm_hw_event *ev, mill_error *err)
{
    (void)st;
    (void)ev;
    (void)err;
    return MILL_OK;
}

const stm_device_ops stm_device_cpu = {
    .struct_size = sizeof(stm_device_ops),
    .abi = STM_DEVICE_ABI,
    .name = "cpu",
    .count = count,
    .info = info,
    .device_open = device_open,
    .device_close = device_close,
    .enter = enter,
    .mem_info = mem_info,
    .mem_alloc = mem_alloc,
    .mem_free = mem_free,
    .stream_open = stream_open,
    .stream_close = stream_close,
    .stream_native = stream_native,
    .copy = copy,
    .fill = fill,
    .copy_peer = copy_peer,
    .peer = peer,
    .stream_sync = stream_sync,
    .event_open = event_open,
    .event_close = event_close,
    .event_record = event_record,
    .event_query = event_query,
    .stream_wait = stream_wait,
};
