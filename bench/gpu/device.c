/*
 * The engine's device layer beside bare calls of the CUDA runtime, on one GPU.
 *
 *   bench_gpu_device [--quick]
 *
 *     hop     a batch goes from one stream to another: raise + after, beside event record + streamWaitEvent; host time
 *     copy    64 KB up while 256 MB are on the way: the copier, beside the same 64 KB alone and one piece of its window
 *     counts  allocations and events made by 100,000 batches of take, raise, poll, give back
 */
#include <string.h>

#include "bench/gpu/measure.h"
#include "device/copier.h"
#include "device/registry.h"
#include "memory/place.h"
#include "memory/pool.h"

static mill_error err;

#define OK(call) ok((call), #call, __LINE__)
static void ok(mill_status st, const char *call, int line)
{
    if (st == MILL_OK) return;
    fprintf(stderr, "line %d: %s: %s\n", line, call, err.msg);
    exit(1);
}

static stm_device *dev;
static int rounds, n;

static void hop(void)
{
    double ours[ROUNDS_MOST], bare[ROUNDS_MOST];
    stm_stream *a = NULL, *b = NULL;
    cudaStream_t c, d;
    cudaEvent_t e[STM_TICKS];

    OK(stm_stream_open(dev, &a, &err));
    OK(stm_stream_open(dev, &b, &err));
    CHECK(cudaStreamCreateWithFlags(&c, cudaStreamNonBlocking));
    CHECK(cudaStreamCreateWithFlags(&d, cudaStreamNonBlocking));
    for (int i = 0; i < STM_TICKS; i++) CHECK(cudaEventCreateWithFlags(&e[i], cudaEventDisableTiming));
    for (int round = -1; round < rounds; round++) {
        double spent[2] = {0, 0};

        for (int i = 0; i < n; i++) {
            double t = seconds();
            stm_mark mark;

            OK(stm_stream_raise(a, &mark, &err));
            OK(stm_stream_after(b, mark, &err));
            spent[0] += seconds() - t;
            t = seconds();
            CHECK(cudaEventRecord(e[i % STM_TICKS], c));
            CHECK(cudaStreamWaitEvent(d, e[i % STM_TICKS], 0));
            spent[1] += seconds() - t;
            while (stm_stream_in_flight(a) >= STM_TICKS) OK(stm_stream_poll(a, &err));
        }
        OK(stm_stream_sync(b, &err));
        OK(stm_stream_sync(a, &err));
        CHECK(cudaStreamSynchronize(d));
        if (round >= 0) ours[round] = spent[0] / n * 1e6, bare[round] = spent[1] / n * 1e6;
    }
    print_figure("hop", "us", ours, rounds);
    print_figure("hop, bare", "us", bare, rounds);
    stm_stream_close(&a);
    stm_stream_close(&b);
}

/* Seconds until the request's copy is done. */
static double copied(stm_copier *c, stm_copy *small, stm_stream *poller)
{
    const double begin = seconds();

    (void)poller;
    stm_copier_add(c, small);
    while (!small->queued || !stm_mark_done(small->mark)) OK(stm_copier_poll(c, &err));
    OK(small->status);
    return seconds() - begin;
}

static void copy(int quick)
{
    const size_t large = quick ? (size_t)8 << 20 : (size_t)256 << 20, little = (size_t)64 << 10;
    double loaded[ROUNDS_MOST], alone[ROUNDS_MOST], piece[ROUNDS_MOST];
    const int tries = quick ? 4 : 64;
    stm_copier *c = NULL;
    void *host = NULL, *device = NULL;

    OK(stm_copier_open(dev, NULL, false, &c, &err));
    OK(stm_device_alloc(dev, STM_MEM_PINNED, large + little, &host, &err));
    OK(stm_device_alloc(dev, STM_MEM_DEVICE, large + little, &device, &err));
    memset(host, 0x5a, large + little);
    for (int round = -1; round < rounds; round++) {
        double with[64], without[64], chunk[64];

        for (int i = 0; i < tries; i++) {
            stm_copy small = {.dst = (char *)device + large, .src = (char *)host + large, .bytes = little};
            stm_copy big = {.dst = device, .src = host, .bytes = large},
                     window = {.dst = device, .src = host, .bytes = STM_COPY_WINDOW};

            without[i] = copied(c, &small, NULL) * 1e6;
            chunk[i] = copied(c, &window, NULL) * 1e6;
            stm_copier_add(c, &big);
            small = (stm_copy){.dst = small.dst, .src = small.src, .bytes = little};
            with[i] = copied(c, &small, NULL) * 1e6;
            while (stm_copier_busy(c)) OK(stm_copier_poll(c, &err));
        }
        qsort(with, (size_t)tries, sizeof with[0], by_value);
        qsort(without, (size_t)tries, sizeof with[0], by_value);
        qsort(chunk, (size_t)tries, sizeof with[0], by_value);
        if (round >= 0) loaded[round] = with[tries * 99 / 100], alone[round] = without[tries / 2], piece[round] = chunk[tries / 2];
    }
    print_figure("64 KB beside a large copy, p99", "us", loaded, rounds);
    print_figure("64 KB alone", "us", alone, rounds);
    print_figure("one window alone", "us", piece, rounds);
    stm_copier_close(&c);
    stm_device_free(dev, STM_MEM_PINNED, host);
    stm_device_free(dev, STM_MEM_DEVICE, device);
}

static void counts(int quick)
{
    const int batches = quick ? 1000 : 100000;
    mill_pool *heads = NULL;
    stm_device_pool *pool = NULL;
    stm_stream *s = NULL;

    OK(stm_stream_open(dev, &s, &err));
    OK(stm_pool_create(0, &heads));
    OK(stm_device_pool_create(
        &(stm_device_pool_opts){.device = dev, .kind = STM_MEM_DEVICE, .heads = heads, .slab_bytes = 64 << 20}, &pool, &err));
    const stm_device_counts before = stm_device_counts_of(dev);

    for (int i = 0; i < batches; i++) {
        mill_buffer *b = NULL;
        stm_mark mark;

        OK(stm_device_pool_take(pool, 65536, &b, &err));
        mill_buffer_unref(&b);
        OK(stm_stream_raise(s, &mark, &err));
        while (stm_stream_in_flight(s) >= STM_TICKS) OK(stm_stream_poll(s, &err));
    }
    const stm_device_counts after = stm_device_counts_of(dev);
    const double allocs = (double)(after.allocs - before.allocs), events = (double)(after.events - before.events);

    OK(stm_stream_sync(s, &err));
    print_figure("allocations", "", &allocs, 1);
    print_figure("events made", "", &events, 1);
    stm_stream_close(&s);
    stm_device_pool_release(&pool);
    stm_pool_release(&heads);
}

int main(int argc, char **argv)
{
    const int quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    const stm_device_ops *ops = NULL;

    rounds = quick ? 2 : 7;
    n = quick ? 200 : 20000;
    OK(stm_backend_find("cuda", &ops, &err));
    OK(stm_device_open(ops, 0, &dev, &err));
    hop();
    copy(quick);
    counts(quick);
    stm_device_unref(&dev);
    return 0;
}
