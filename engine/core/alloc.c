#include "core/alloc.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/fault.h"

static void *libc_alloc(size_t bytes, size_t align, void *user)
{
    (void)user;
    if (align <= _Alignof(max_align_t)) return malloc(bytes);
    return aligned_alloc(align, (bytes + align - 1) / align * align);
}
static void *libc_resize(void *ptr, size_t bytes, void *user)
{
    (void)user;
    return realloc(ptr, bytes);
}
static void libc_release(void *ptr, void *user)
{
    (void)user;
    free(ptr);
}
static const stm_allocator libc_table = {libc_alloc, libc_resize, libc_release, NULL};
static stm_allocator table = {libc_alloc, libc_resize, libc_release, NULL}; /* written only while no engine thread runs */
static _Atomic long allocs, frees; /* relaxed: statistics */

void stm_allocator_set(const stm_allocator *a) { table = a != NULL ? *a : libc_table; }

void *stm_aligned(size_t bytes, size_t align)
{
    void *p;

    if (stm_fault_fires(STM_FAULT_ALLOC)) return NULL;
    p = table.alloc(bytes != 0 ? bytes : 1, align, table.user);
    if (p != NULL) atomic_fetch_add_explicit(&allocs, 1, memory_order_relaxed);
    return p;
}

void *stm_malloc(size_t bytes) { return stm_aligned(bytes, _Alignof(max_align_t)); }

void *stm_calloc(size_t bytes)
{
    void *p = stm_malloc(bytes);

    if (p != NULL) memset(p, 0, bytes);
    return p;
}

void *stm_realloc(void *ptr, size_t bytes)
{
    if (ptr == NULL) return stm_malloc(bytes);
    if (stm_fault_fires(STM_FAULT_ALLOC)) return NULL;
    return table.resize(ptr, bytes != 0 ? bytes : 1, table.user);
}

char *stm_strndup(const char *text, size_t bytes)
{
    char *p = stm_malloc(bytes + 1);

    if (p == NULL) return NULL;
    memcpy(p, text, bytes);
    p[bytes] = '\0';
    return p;
}

char *stm_strdup(const char *text) { return stm_strndup(text, strlen(text)); }

void stm_free(void *ptr)
{
    if (ptr == NULL) return;
    atomic_fetch_add_explicit(&frees, 1, memory_order_relaxed);
    table.release(ptr, table.user);
}

int stm_grow(void *items, size_t *cap, size_t need, size_t item_bytes)
{
    void *old, *grown;
    size_t n = *cap != 0 ? *cap : 8;

    if (need <= *cap) return 0;
    while (n < need) {
        if (n > SIZE_MAX / 2 / item_bytes) return -1;
        n *= 2;
    }
    memcpy(&old, items, sizeof old); /* items is the address of a T *; memcpy keeps aliasing rules */
    grown = stm_realloc(old, n * item_bytes);
    if (grown == NULL) return -1;
    memcpy(items, &grown, sizeof grown);
    *cap = n;
    return 0;
}

stm_alloc_stats stm_alloc_counts(void)
{
    stm_alloc_stats s;

    s.allocs = atomic_load_explicit(&allocs, memory_order_relaxed);
    s.frees = atomic_load_explicit(&frees, memory_order_relaxed);
    s.live = s.allocs - s.frees;
    return s;
}
