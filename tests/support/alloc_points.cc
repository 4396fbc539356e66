#include "support/alloc_points.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#define EXPORTED __attribute__((visibility("default")))

namespace {
std::atomic<int64_t> left{-1}, living{0}; /* allocations before the one that fails; below 0: none will, or it has failed */
std::atomic<bool> fired{false};

bool fails()
{
    if (left.load(std::memory_order_relaxed) < 0 || left.fetch_sub(1) != 0) return false;
    fired = true;
    return true;
}

void *counted(void *p)
{
    living += p != nullptr;
    return p;
}
} // namespace

extern "C" {
EXPORTED void mt_alloc_arm(int64_t nth) { fired = false, left = nth; }
EXPORTED bool mt_alloc_disarm(void)
{
    left = -1;
    return fired;
}
EXPORTED int64_t mt_alloc_live(void) { return living; }

/* The linker puts these in the place of what their names say behind __wrap_ (operators in the names that C++ gives them). */
void __wrap_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);
char *__wrap_realpath(const char *path, char *to);
void *__wrap__Znwm(size_t n);
void *__wrap__Znam(size_t n);
void *__wrap__ZnwmRKSt9nothrow_t(size_t n, const std::nothrow_t &);
void *__wrap__ZnamRKSt9nothrow_t(size_t n, const std::nothrow_t &);
void __real_free(void *p);
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
char *__real_realpath(const char *path, char *to);
void *__real__ZnwmRKSt9nothrow_t(size_t n, const std::nothrow_t &);
void *__real__ZnamRKSt9nothrow_t(size_t n, const std::nothrow_t &);

void __wrap_free(void *p)
{
    living -= p != nullptr;
    __real_free(p);
}
void *__wrap_malloc(size_t n) { return fails() ? nullptr : counted(__real_malloc(n)); }
void *__wrap_calloc(size_t n, size_t size) { return fails() ? nullptr : counted(__real_calloc(n, size)); }
void *__wrap_realloc(void *p, size_t n)
{
    if (fails()) return nullptr;
    void *q = __real_realloc(p, n);
    living += q != nullptr && p == nullptr;
    return q;
}
char *__wrap_strdup(const char *s) { return fails() ? nullptr : static_cast<char *>(counted(__real_strdup(s))); }
char *__wrap_strndup(const char *s, size_t n) { return fails() ? nullptr : static_cast<char *>(counted(__real_strndup(s, n))); }
char *__wrap_realpath(const char *path, char *to)
{
    if (to != nullptr) return __real_realpath(path, to);
    if (fails()) return errno = ENOMEM, nullptr;
    return static_cast<char *>(counted(__real_realpath(path, nullptr)));
}
void *__wrap__ZnwmRKSt9nothrow_t(size_t n, const std::nothrow_t &t) { return fails() ? nullptr : __real__ZnwmRKSt9nothrow_t(n, t); }
void *__wrap__ZnamRKSt9nothrow_t(size_t n, const std::nothrow_t &t) { return fails() ? nullptr : __real__ZnamRKSt9nothrow_t(n, t); }
void *__wrap__Znwm(size_t n)
{
    void *p = __wrap__ZnwmRKSt9nothrow_t(n, std::nothrow);
    if (p == nullptr) throw std::bad_alloc();
    return p;
}
void *__wrap__Znam(size_t n)
{
    void *p = __wrap__ZnamRKSt9nothrow_t(n, std::nothrow);
    if (p == nullptr) throw std::bad_alloc();
    return p;
}
}
