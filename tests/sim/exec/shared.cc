// Shared memory of a block: one arena, laid out as variables are first reached, filled with NaN. Between two variables lies a
// red zone: ASan poisons it, the plain build writes a pattern there and looks at it when the block ends.
#include "gang.h"
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

namespace sim {

static const size_t kRed = 64;
static const unsigned char kFill = 0xff, kRedFill = 0xa5;

struct Arenas {
    std::vector<char *> free;
    ~Arenas()
    {
        for (char *a : free) munmap(a, 2 * kArena);
    }
};
static thread_local Arenas arenas;

static void red_zone(char *at, size_t bytes)
{
    if (__asan_poison_memory_region)
        __asan_poison_memory_region(at, bytes);
    else
        memset(at, kRedFill, bytes);
}

static char *place(Block *b, const void *tag, size_t bytes, size_t align, const char *name)
{
    const size_t at = (b->used + align - 1) / align * align, end = (at + bytes + kRed + 7) / 8 * 8; // ASan poisons by 8 bytes
    if (end > kArena) return nullptr;
    char *p = b->arena + at;
    Quiet quiet; // by whichever thread came first: no access of the kernel's
    memset(p, kFill, bytes);
    red_zone(b->arena + (at + bytes + 7) / 8 * 8, end - (at + bytes + 7) / 8 * 8);
    if (!__asan_poison_memory_region) memset(p + bytes, kRedFill, (8 - (at + bytes) % 8) % 8);
    b->used = end;
    b->variables.push_back({tag, p, bytes, name});
    return p;
}

void shared_begin(Block *b, size_t dynamic_bytes)
{
    const int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (!b->arena) {
        if (arenas.free.empty()) {
            char *fresh = static_cast<char *>(mmap(nullptr, 2 * kArena, prot, flags, -1, 0));
            if (fresh == MAP_FAILED) abort();
            arenas.free.push_back(fresh);
        }
        b->arena = arenas.free.back();
        arenas.free.pop_back();
    }
    if (under_tsan()) mmap(b->arena, 2 * kArena, prot, flags | MAP_FIXED, -1, 0); // as for stacks: a new block, no history
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(b->arena, b->used);
    b->variables.clear();
    b->used = 0;
    place(b, nullptr, dynamic_bytes, 1024, "dynamic shared memory");
}

void shared_check(Block *b)
{
    if (under_asan()) return;
    for (const SharedVariable &v : b->variables) {
        const char *end = v.at + v.bytes;
        for (size_t i = 0; i < kRed; i++)
            if (static_cast<unsigned char>(end[i]) != kRedFill) {
                fail(cudaErrorIllegalAddress, "%s: write past the end of %s (%zu bytes), at byte %zu", gang->kernel->name, v.name,
                     v.bytes, v.bytes + i);
                return;
            }
    }
}

void shared_end(Block *b)
{
    if (!b->arena) return;
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(b->arena, kArena);
    arenas.free.push_back(b->arena);
    b->arena = nullptr;
}

} // namespace sim

using namespace sim;

extern "C" void *stm_sim_shared(const void *tag, size_t bytes, size_t align, const char *name)
{
    Quiet quiet;
    Block *b = fiber->block;
    for (const SharedVariable &v : b->variables)
        if (v.tag == tag) return v.at;
    size_t total = bytes;
    for (const SharedVariable &v : b->variables) total += v.bytes;
    char *p = total > kSharedLimit ? nullptr : place(b, tag, bytes, std::max<size_t>(align, 16), name);
    if (!p) {
        fail(cudaErrorLaunchOutOfResources, "%s: shared memory of %zu bytes with %s; a block has %d at most", gang->kernel->name,
             total, name, static_cast<int>(kSharedLimit));
        to_scheduler();
    }
    return p;
}
