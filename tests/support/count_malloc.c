/*
 * Preloaded: counts the calls of the allocator in a whole process and passes them on. `count_malloc_calls` is for who runs within;
 * where COUNT_MALLOC_FILE names a file, each process adds its number, a line, to it at its end.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Atomic int64_t calls;
static char early[4096]; /* dlsym itself asks for memory before it has found ours */
static size_t early_used;

int64_t count_malloc_calls(void);
void *malloc(size_t);
void *calloc(size_t, size_t);
void *realloc(void *, size_t);
void *aligned_alloc(size_t, size_t);
void *memalign(size_t, size_t);
int posix_memalign(void **, size_t, size_t);

int64_t count_malloc_calls(void) { return atomic_load_explicit(&calls, memory_order_relaxed); }

static void next(void *function, const char *name)
{
    void *p = dlsym(RTLD_NEXT, name);

    memcpy(function, &p, sizeof p);
}

static void count(void) { atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed); }

void *malloc(size_t n)
{
    static void *(*real)(size_t);

    if (real == NULL) next(&real, "malloc");
    count();
    return real(n);
}

void *calloc(size_t n, size_t size)
{
    static void *(*real)(size_t, size_t);
    static _Thread_local int inside;

    if (real == NULL) {
        if (inside) {
            void *p = early + early_used;
            early_used += (n * size + 15) / 16 * 16;
            return early_used <= sizeof early ? p : NULL;
        }
        inside = 1;
        next(&real, "calloc");
        inside = 0;
    }
    count();
    return real(n, size);
}

void *realloc(void *p, size_t n)
{
    static void *(*real)(void *, size_t);

    if (real == NULL) next(&real, "realloc");
    count();
    return real(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    static void *(*real)(size_t, size_t);

    if (real == NULL) next(&real, "aligned_alloc");
    count();
    return real(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
    static int (*real)(void **, size_t, size_t);

    if (real == NULL) next(&real, "posix_memalign");
    count();
    return real(out, align, n);
}

void *memalign(size_t align, size_t n)
{
    static void *(*real)(size_t, size_t);

    if (real == NULL) next(&real, "memalign");
    count();
    return real(align, n);
}

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("COUNT_MALLOC_FILE");
    char line[32];
    const int n = snprintf(line, sizeof line, "%lld\n", (long long)count_malloc_calls());
    const int fd = path != NULL ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666) : -1;

    if (fd < 0) return;
    if (write(fd, line, (size_t)n) != n) abort(); /* a test that misses it would pass for the wrong reason */
    close(fd);
}
