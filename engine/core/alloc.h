/* The allocator table: every host allocation of the engine goes through it, so tests can count and fail the n-th. */
#ifndef STM_CORE_ALLOC_H
#define STM_CORE_ALLOC_H

#include <stddef.h>

/** Functions behind stm_malloc and friends. Replaced only while nothing is allocated (tests, embedding programs). */
typedef struct stm_allocator {
    void *(*alloc)(size_t bytes, size_t align, void *user); /* align: power of two; NULL when out of memory */
    void *(*resize)(void *ptr, size_t bytes, void *user);   /* only for blocks of default alignment */
    void (*release)(void *ptr, void *user);                 /* accepts NULL */
    void *user;
} stm_allocator;

/** Install @p a (NULL = the C library's). Threads: none running. */
void stm_allocator_set(const stm_allocator *a);
/** Threads: any. Uninitialised; NULL when out of memory or when the fault point fires. bytes 0 gives a valid pointer. */
void *stm_malloc(size_t bytes);
void *stm_calloc(size_t bytes);
void *stm_realloc(void *ptr, size_t bytes);
void *stm_aligned(size_t bytes, size_t align);
char *stm_strdup(const char *text);
char *stm_strndup(const char *text, size_t bytes);
void stm_free(void *ptr);
/** Grow array *@p items of @p item_bytes each to hold at least @p need items; *@p cap is updated. 0 on success, -1 when out of
 *  memory (then nothing changed). Doubles, so n appends cost O(n). */
int stm_grow(void *items, size_t *cap, size_t need, size_t item_bytes);

/** Allocations and frees since the start, over all threads: for tests that count. */
typedef struct stm_alloc_stats { long allocs, frees, live; } stm_alloc_stats;
stm_alloc_stats stm_alloc_counts(void);

#endif
