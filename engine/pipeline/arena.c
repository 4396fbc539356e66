#include "pipeline/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"

struct stm_arena_chunk {
    struct stm_arena_chunk *next;
    size_t pad; /* keeps what follows aligned to 16 */
};

enum { CHUNK_BYTES = 8192, ALIGN = 16 };

void *stm_arena_take(stm_arena *a, size_t bytes)
{
    struct stm_arena_chunk *c;
    const size_t need = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    char *p;

    if (need < bytes) return NULL;
    if (a->chunks == NULL || a->size - a->used < need) {
        const size_t size = need > CHUNK_BYTES ? need : CHUNK_BYTES;

        c = stm_calloc(sizeof *c + size);
        if (c == NULL) return NULL;
        c->next = a->chunks;
        a->chunks = c;
        a->used = 0;
        a->size = size;
    }
    p = (char *)(a->chunks + 1) + a->used;
    a->used += need;
    return p;
}

char *stm_arena_copy(stm_arena *a, const char *text, size_t bytes)
{
    char *p = stm_arena_take(a, bytes + 1);

    if (p != NULL && bytes > 0) memcpy(p, text, bytes);
    return p;
}

char *stm_arena_printf(stm_arena *a, const char *fmt, ...)
{
    va_list ap;
    char *p;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || (p = stm_arena_take(a, (size_t)n + 1)) == NULL) return NULL;
    va_start(ap, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return p;
}

void stm_arena_fini(stm_arena *a)
{
    while (a->chunks != NULL) {
        struct stm_arena_chunk *next = a->chunks->next;

        stm_free(a->chunks);
        a->chunks = next;
    }
    a->used = a->size = 0;
}
