/* An arena: many small allocations that live and die together. Grows in chunks; nothing is freed alone. */
#ifndef STM_PIPELINE_ARENA_H
#define STM_PIPELINE_ARENA_H

#include <stddef.h>

/** {0} is an empty arena. Threads: owner. */
typedef struct stm_arena {
    struct stm_arena_chunk *chunks; /* newest first */
    size_t used, size;              /* of the newest chunk */
} stm_arena;

/** Zeroed memory, aligned for any type; NULL when out of memory. */
void *stm_arena_take(stm_arena *a, size_t bytes);
/** Copy of @p bytes bytes with a NUL after them; NULL when out of memory. */
char *stm_arena_copy(stm_arena *a, const char *text, size_t bytes);
char *stm_arena_printf(stm_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void stm_arena_fini(stm_arena *a);

#endif
