/*
 * What a device backend does: the table between the engine and its backends. `cpu` is in every build, `cuda` in a module of
 * its own (libstepmill-cuda.so); tests/device runs one contract suite on each. Streams, timelines and copies in pieces are
 * made of these operations in device.h, stream.h and copier.h, once for all backends.
 *
 * Rules for every entry
 *   - What can fail returns a status and fills the error; nothing aborts. Outputs are set on success only.
 *   - Required unless marked optional. Pointers are borrowed for the call unless it says otherwise.
 *   - "any": any thread, also at the same time. "owner": one thread at a time for one stream (its owner).
 *   - Nothing waits for the device but device_close, stream_close, stream_sync, and mem_free of device memory.
 *
 * Statuses a backend gives, by who can act (stm_device_verdict):
 *   retry    MILL_ERR_AGAIN, MILL_ERR_BUSY     not now
 *   shrink   MILL_ERR_DEVICE_MEM               device memory is exhausted: halve the batch, go on, grow back
 *   impute   MILL_ERR_STEP, MILL_ERR_INVALID, MILL_ERR_UNSUPPORTED ...   this batch fails, the device is well
 *   lost     MILL_ERR_DEVICE                   sticky: nothing works in this process any more
 */
#ifndef STM_DEVICE_DEVICE_OPS_H
#define STM_DEVICE_DEVICE_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

#define STM_DEVICE_ABI 1u

/* A backend defines these for itself. */
typedef struct stm_hw_device stm_hw_device;
typedef struct stm_hw_stream stm_hw_stream;
typedef struct stm_hw_event stm_hw_event;
typedef struct stm_hw_graph stm_hw_graph;

typedef enum stm_mem_kind {
    STM_MEM_PINNED = 1, /* host memory that the device copies from and to without the driver's help */
    STM_MEM_DEVICE = 2  /* on the device; whether the host can read it: stm_device_info.host_memory */
} stm_mem_kind;

typedef struct stm_device_info {
    char name[96];
    char uuid[48];        /* "GPU-xxxxxxxx-xxxx-..."; empty on cpu */
    char pci[24];         /* "0000:65:00.0"; empty on cpu */
    int32_t major, minor; /* compute capability; 0 on cpu */
    int32_t processors;   /* streaming multiprocessors; cores */
    int64_t memory_bytes; /* in all */
    bool host_memory;     /* device memory is host memory */
} stm_device_info;

/** What the engine gives a module when it opens it. Grows at the end only. */
typedef struct stm_module_host {
    size_t struct_size;
    uint32_t abi;                  /* STM_DEVICE_ABI */
    void *(*calloc)(size_t bytes); /* zeroed; NULL when out of memory */
    void (*free)(void *ptr);       /* accepts NULL */
    bool (*fault)(void);           /* tests: this passage is to fail */
    mill_status (*fail)(mill_error *err, mill_status status, const char *file, int line, const char *fmt, ...)
        MILL_PRINTF(5, 6); /* mill_fail_at */
    /** Open shared library @p name ("cublasLt", "nccl") where the engine found it; NULL with @p err filled. Kept open. */
    void *(*library)(const char *name, mill_error *err);
} stm_module_host;

typedef struct stm_device_ops {
    size_t struct_size;
    uint32_t abi;
    const char *name; /* "cpu", "cuda": the word in a plan and in messages */

    /* ---- devices ---- */
    /** How many there are; 0 is no failure. any */
    mill_status (*count)(int32_t *n, mill_error *err);
    mill_status (*info)(int32_t ordinal, stm_device_info *out, mill_error *err); /* any; opens nothing */
    mill_status (*device_open)(int32_t ordinal, stm_hw_device **out,
                               mill_error *err); /* any; the same ordinal may be opened again */
    void (*device_close)(stm_hw_device **dev);   /* any; after its streams, events, graphs and memory; accepts NULL */
    /** The calling thread works for this device from now on (kernels launched by steps go there). any */
    mill_status (*enter)(stm_hw_device *dev, mill_error *err);
    /** Memory free now and in all, in bytes, of everybody on the device. any */
    mill_status (*mem_info)(stm_hw_device *dev, int64_t *free_bytes, int64_t *total_bytes, mill_error *err);

    /* ---- memory: at load, never per batch ---- */
    /** Aligned to 256 bytes; contents undefined. MILL_ERR_DEVICE_MEM: no device memory; MILL_ERR_NOMEM: no pinned memory. any */
    mill_status (*mem_alloc)(stm_hw_device *dev, stm_mem_kind kind, size_t bytes, void **out, mill_error *err);
    /** The caller has seen to it that no work queued uses it. any; accepts NULL */
    void (*mem_free)(stm_hw_device *dev, stm_mem_kind kind, void *ptr);

    /* ---- streams: work in the order in which it was queued ---- */
    mill_status (*stream_open)(stm_hw_device *dev, stm_hw_stream **out, mill_error *err); /* any */
    void (*stream_close)(stm_hw_stream **st);  /* owner; waits for what is queued; accepts NULL */
    void *(*stream_native)(stm_hw_stream *st); /* cudaStream_t; NULL on cpu */
    /** Queue a copy. Each side is memory of this device, pinned, or any host memory (then it may be slower, and wait). The sides do
     *  not overlap; both live until the copy is done. owner */
    mill_status (*copy)(stm_hw_stream *st, void *dst, const void *src, size_t bytes, mill_error *err);
    mill_status (*fill)(stm_hw_stream *st, void *dst, int byte, size_t bytes, mill_error *err); /* device memory. owner */
    /** Queue a copy from memory of @p from to memory of @p to; st is a stream of one of them. Optional: without it the engine goes
     *  through pinned memory. MILL_ERR_UNSUPPORTED: not between these two. owner */
    mill_status (*copy_peer)(stm_hw_stream *st, stm_hw_device *to, void *dst, stm_hw_device *from, const void *src, size_t bytes,
                             mill_error *err);
    /** Let the two reach each other's memory where the hardware can; *direct says whether a copy_peer goes without the host. any */
    mill_status (*peer)(stm_hw_device *a, stm_hw_device *b, bool *direct, mill_error *err);
    /** Wait until everything queued is done; the first fault since the last poll or wait. owner; blocks */
    mill_status (*stream_sync)(stm_hw_stream *st, mill_error *err);

    /* ---- events: without timing, used again and again ---- */
    mill_status (*event_open)(stm_hw_device *dev, stm_hw_event **out, mill_error *err); /* any */
    void (*event_close)(stm_hw_event **ev);
    mill_status (*event_record)(stm_hw_event *ev, stm_hw_stream *st, mill_error *err); /* owner of st */
    /** MILL_OK: everything before the last record is done (also when there was none); MILL_ERR_AGAIN: not yet. any */
    mill_status (*event_query)(stm_hw_event *ev, mill_error *err);
    /** What is queued on @p st from now on runs after the last record of @p ev, a record that was made before this call. owner of
     *  st */
    mill_status (*stream_wait)(stm_hw_stream *st, stm_hw_event *ev, mill_error *err);

    /* ---- graphs (optional, all or none): what is queued between begin and end is kept instead of run ---- */
    mill_status (*graph_begin)(stm_hw_stream *st, mill_error *err);                   /* owner */
    mill_status (*graph_end)(stm_hw_stream *st, stm_hw_graph **out, mill_error *err); /* owner; also ends a capture that failed */
    mill_status (*graph_launch)(stm_hw_graph *g, stm_hw_stream *st, mill_error *err); /* owner */
    void (*graph_close)(stm_hw_graph **g);                                            /* no launch of it is queued any more */

    /* ---- ranges in a profiler (optional) ---- */
    void (*range_push)(const char *name);
    void (*range_pop)(void);

    /** Table of kernels for this backend (kernels/kernels.h knows its type); NULL = the host's. */
    const void *(*kernels)(void);
} stm_device_ops;

extern const stm_device_ops stm_device_cpu;

/** What a module exports as STM_DEVICE_ENTRY; the table is constant and stays. NULL: it does not know @p host->abi. */
typedef const stm_device_ops *(*stm_device_entry)(const stm_module_host *host);
#define STM_DEVICE_ENTRY "stm_device_module_v1"

MILL_END_DECLS

#endif
