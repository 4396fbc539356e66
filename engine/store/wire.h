/* Numbers as bytes, least significant first, and a reader that cannot run past the end. */
#ifndef STM_STORE_WIRE_H
#define STM_STORE_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/text.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "files of the store are little-endian; a big-endian machine needs conversions here"
#endif

/* Writing goes through a growing text, which remembers when memory ran out. */
static inline void stm_wire_put(stm_text *t, const void *bytes, size_t n) { stm_text_add(t, (const char *)bytes, n); }
static inline void stm_wire_u32(stm_text *t, uint32_t v) { stm_wire_put(t, &v, sizeof v); }
static inline void stm_wire_u64(stm_text *t, uint64_t v) { stm_wire_put(t, &v, sizeof v); }
static inline void stm_wire_i64(stm_text *t, int64_t v) { stm_wire_put(t, &v, sizeof v); }
/** Zeroes up to a multiple of @p align (a power of two, at most 64). */
static inline void stm_wire_pad(stm_text *t, size_t align)
{
    static const char zeroes[64];
    stm_wire_put(t, zeroes, (0 - t->bytes) & (align - 1));
}

typedef struct stm_wire {
    const unsigned char *at, *end;
    bool failed; /* something was missing: everything read since is zero */
} stm_wire;

static inline const void *stm_wire_bytes(stm_wire *w, size_t n)
{
    const void *p = w->at;
    if (w->failed || (size_t)(w->end - w->at) < n) {
        w->failed = true;
        return NULL;
    }
    w->at += n;
    return p;
}
static inline uint32_t stm_wire_get_u32(stm_wire *w)
{
    uint32_t v = 0;
    const void *p = stm_wire_bytes(w, sizeof v);
    if (p != NULL) memcpy(&v, p, sizeof v);
    return v;
}
static inline uint64_t stm_wire_get_u64(stm_wire *w)
{
    uint64_t v = 0;
    const void *p = stm_wire_bytes(w, sizeof v);
    if (p != NULL) memcpy(&v, p, sizeof v);
    return v;
}
static inline int64_t stm_wire_get_i64(stm_wire *w) { return (int64_t)stm_wire_get_u64(w); }

#endif
