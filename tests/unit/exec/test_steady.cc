/* What a batch must not cost once a run is warm: no call of the allocator, no context switch; and what an idle run costs:
 * nothing. */
#include <gtest/gtest.h>

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "support/pipe.h"

using namespace mt;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static std::atomic<long> g_mallocs; /* of the whole process, whoever calls */

#ifndef SANITIZED
extern "C" void *__libc_malloc(size_t);
extern "C" void *__libc_calloc(size_t, size_t);
extern "C" void *__libc_realloc(void *, size_t);
extern "C" void *__libc_memalign(size_t, size_t);
extern "C" void *malloc(size_t n)
{
    g_mallocs.fetch_add(1, std::memory_order_relaxed);
    return __libc_malloc(n);
}
extern "C" void *calloc(size_t n, size_t m)
{
    g_mallocs.fetch_add(1, std::memory_order_relaxed);
    return __libc_calloc(n, m);
}
extern "C" void *realloc(void *p, size_t n)
{
    g_mallocs.fetch_add(1, std::memory_order_relaxed);
    return __libc_realloc(p, n);
}
extern "C" void *aligned_alloc(size_t a, size_t n)
{
    g_mallocs.fetch_add(1, std::memory_order_relaxed);
    return __libc_memalign(a, n);
}
#endif

namespace {

struct Point {
    long mallocs = 0, switches = 0;
};

Point now()
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return {g_mallocs.load(), u.ru_nvcsw};
}

/* Emits one int64 column without touching the allocator: no std::vector here. */
mill_status emit_column(mill_replica *r, int64_t rows, int64_t first, mill_emit *out, mill_error *e)
{
    mill_pool *pool = mill_replica_pool(r);
    mill_buffer *data = nullptr;
    mill_column *col = nullptr;
    mill_batch *b = nullptr;
    mill_status st = mill_buffer_create(pool, (size_t)rows * 8, &data);
    if (st != MILL_OK) return st;
    for (int64_t i = 0; i < rows; i++) static_cast<int64_t *>(mill_buffer_data(data))[i] = first + i;
    st = mill_column_create(pool, mill_type_plain(MILL_INT64), rows, nullptr, nullptr, &data, nullptr, &col, e);
    if (st == MILL_OK) st = mill_batch_create(pool, rows, 1, &b);
    if (st == MILL_OK) st = mill_batch_set_column(b, 0, &col);
    if (st == MILL_OK) st = mill_emit_batch(out, &b, nullptr, e);
    mill_buffer_unref(&data);
    mill_column_unref(&col);
    mill_batch_destroy(&b);
    return st;
}

constexpr int64_t kBatches = 100000, kWindow = 5000, kRows = 64;

struct Cost {
    double mallocs, switches, quiet; /* per batch; per batch; share of windows without a malloc */
};

/* Re-batching, two replicas, a pass step and an output column: the common shapes of a pipeline. */
void steady_run(Cost *cost)
{
    Pipe p;
    std::atomic<int64_t> sunk{0};
    std::vector<Point> points(kBatches / kWindow + 2);
    Behaviour src, map, pass, sink;
    Pipe::Opts gen, two;
    gen.batch_rows = kRows;
    two.batch_rows = 48; /* never the generator's: every batch is put together from two */
    two.replicas = 2;
    src.adds = {{"x", "int64"}};
    src.generate = [](mill_replica *r, int64_t, mill_cursor *c, bool *end, mill_emit *out, mill_error *e) -> mill_status {
        int64_t at = 0;
        if (c->size) memcpy(&at, c->bytes, sizeof at);
        mill_status st = emit_column(r, kRows, at * kRows, out, e);
        at++;
        c->size = sizeof at;
        memcpy(c->bytes, &at, sizeof at);
        *end = at == kBatches;
        return st;
    };
    map.uses = {{"x", "int64"}};
    map.adds = {{"y", "int64"}};
    map.process = [](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
        return emit_column(r, mill_batch_rows(in[0]), value(in[0], 0, 0), out, e);
    };
    sink.write = [&](mill_replica *, const mill_batch *in, mill_error *) -> mill_status {
        const int64_t before = sunk.fetch_add(mill_batch_rows(in)), after = before + mill_batch_rows(in);
        const int64_t window = kWindow * kRows;
        if (before / window != after / window) points[(size_t)(after / window)] = now();
        return MILL_OK;
    };
    p.add("src", MILL_GENERATOR, {}, src, gen);
    p.add("map", MILL_STEP, {{"src"}}, map, two);
    p.add("pass", MILL_STEP, {{"map"}}, pass);
    p.add("out", MILL_SINK, {{"pass"}}, sink);
    ASSERT_EQ(p.run(60), STM_END_DONE);
    ASSERT_EQ(sunk, kBatches * kRows);
    /* What is in flight creeps to its peak now and then, when the system takes a core away: then pools and rings grow once. In the
     * steady state, most windows, not one batch calls the allocator. */
    const size_t windows = kBatches / kWindow;
    size_t quiet = 0;
    for (size_t i = 2; i <= windows; i++) quiet += points[i].mallocs == points[i - 1].mallocs;
    const long mallocs = points[windows].mallocs - points[1].mallocs, switches = points[windows].switches - points[1].switches;
    const double batches = (double)(windows - 1) * kWindow;
    printf("%ld mallocs, %ld voluntary switches over %.0f batches; %zu of %zu windows without a malloc\n", mallocs, switches,
           batches, quiet, windows - 1);
    *cost = {(double)mallocs / batches, (double)switches / batches, (double)quiet / (double)(windows - 1)};
}

} // namespace

/* Whatever else the machine does costs switches, too: the best of some runs is the engine's. */
TEST(Steady, NoMallocAndNoSwitchPerBatch)
{
    Cost best = {1e9, 1e9, 0};
    for (int run = 0; run < 5; run++) {
        Cost c = best;
        ASSERT_NO_FATAL_FAILURE(steady_run(&c));
#ifdef SANITIZED
        return; /* sanitizers bring their own allocator: the run is checked, its cost is counted in the plain build */
#endif
        best = {std::min(best.mallocs, c.mallocs), std::min(best.switches, c.switches), std::max(best.quiet, c.quiet)};
        if (best.mallocs < 0.01 && best.switches < 0.01 && best.quiet > 0.5) break;
    }
    EXPECT_GT(g_mallocs, 100) << "the counter counts";
    EXPECT_GT(best.quiet, 0.5);
    EXPECT_LT(best.mallocs, 0.01);
    EXPECT_LT(best.switches, 0.01);
}

double processor_us()
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* A run that waits for a slow step sleeps: at most 0.1 % of a core. */
TEST(Steady, IdleRunSleeps)
{
    Pipe p;
    std::atomic<bool> let_go{false};
    Behaviour b;
    b.flags = MILL_BLOCKS;
    b.process = [&](mill_replica *, mill_batch *const *, size_t, mill_emit *out, mill_error *e) -> mill_status {
        while (!let_go) std::this_thread::sleep_for(std::chrono::milliseconds(200));
        return mill_emit_pass(out, e);
    };
    p.source("src", 1000, 5);
    p.add("waits", MILL_STEP, {{"src"}}, b);
    p.sink("out", "waits");
    ASSERT_EQ(p.start(), MILL_OK);
    std::this_thread::sleep_for(std::chrono::milliseconds(1000)); /* naps grow while nothing moves */
    double us = 1e9; /* the least of some windows: what a wake costs is the machine's affair, and varies with what runs beside it */
    for (int window = 0; window < 5; window++) {
        const double before = processor_us();
        std::this_thread::sleep_for(std::chrono::milliseconds(1000));
        us = std::min(us, processor_us() - before);
        if (us / 1e6 <= 0.001) break;
#ifdef SANITIZED
        break; /* sanitizers have threads of their own: it is not judged */
#endif
    }
    let_go = true;
    ASSERT_EQ(p.wait(30), STM_END_DONE);
    printf("%.0f us of processor time in 1 s: %.3f %% of a core\n", us, us / 1e4);
#ifdef SANITIZED
    return; /* sanitizers have threads of their own */
#endif
    EXPECT_LE(us / 1e6, 0.001);
}
