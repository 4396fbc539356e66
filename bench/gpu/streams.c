/*
 * The same work as the pipelines of steps.c, written by hand: streams, events, pinned buffers, nothing else. What an engine can
 * cost at most is what it adds to these.
 *
 *   bench_gpu_streams MODE [--us N] [--batches N] [--floats N]          prints microseconds per batch, one figure a round
 *     chain    copy in, three kernels, copy out; 4 batches in flight
 *     one      copy in, one kernel, copy out; one batch at a time, the host spinning on its event
 *     overlap  copy in, one kernel, copy out on a stream each, 4 in flight; also each of the three alone
 *     graph    three kernels as a graph
 */
#include <string.h>

#include "bench/gpu/measure.h"
#include "bench/gpu/spin.h"

enum { DEPTH = 4 };

static struct {
    float *host_in[DEPTH], *host_out[DEPTH], *a[DEPTH], *b[DEPTH];
    cudaStream_t up, work, down;
    cudaEvent_t uploaded[DEPTH], worked[DEPTH], done[DEPTH];
    int64_t floats, cycles;
} w;

static void copy_in(int slot, cudaStream_t s)
{
    CHECK(cudaMemcpyAsync(w.a[slot], w.host_in[slot], (size_t)w.floats * 4, cudaMemcpyHostToDevice, s));
}
static void copy_out(int slot, const float *from, cudaStream_t s)
{
    CHECK(cudaMemcpyAsync(w.host_out[slot], from, (size_t)w.floats * 4, cudaMemcpyDeviceToHost, s));
}
static void until(cudaEvent_t e)
{
    while (cudaEventQuery(e) == cudaErrorNotReady) {
    }
}

static double chain(int batches)
{
    const double begin = seconds();

    for (int i = 0; i < batches; i++) {
        const int slot = i % DEPTH;

        if (i >= DEPTH) until(w.done[slot]);
        copy_in(slot, w.work);
        CHECK(stm_bench_spin(w.a[slot], w.b[slot], w.floats, w.cycles, w.work));
        CHECK(stm_bench_spin(w.b[slot], w.a[slot], w.floats, w.cycles, w.work));
        CHECK(stm_bench_spin(w.a[slot], w.b[slot], w.floats, w.cycles, w.work));
        copy_out(slot, w.b[slot], w.work);
        CHECK(cudaEventRecord(w.done[slot], w.work));
    }
    CHECK(cudaStreamSynchronize(w.work));
    return (seconds() - begin) / batches * 1e6;
}

static double one(int batches)
{
    const double begin = seconds();

    for (int i = 0; i < batches; i++) {
        copy_in(0, w.work);
        CHECK(stm_bench_spin(w.a[0], w.b[0], w.floats, w.cycles, w.work));
        copy_out(0, w.b[0], w.work);
        CHECK(cudaEventRecord(w.done[0], w.work));
        until(w.done[0]);
    }
    return (seconds() - begin) / batches * 1e6;
}

/* what: bits of in, kernel, out */
static double overlap(int batches, int what)
{
    const double begin = seconds();

    for (int i = 0; i < batches; i++) {
        const int slot = i % DEPTH;

        if (i >= DEPTH) until(w.done[slot]);
        if (what & 1) copy_in(slot, w.up);
        CHECK(cudaEventRecord(w.uploaded[slot], w.up));
        CHECK(cudaStreamWaitEvent(w.work, w.uploaded[slot], 0));
        if (what & 2) CHECK(stm_bench_spin(w.a[slot], w.b[slot], w.floats, w.cycles, w.work));
        CHECK(cudaEventRecord(w.worked[slot], w.work));
        CHECK(cudaStreamWaitEvent(w.down, w.worked[slot], 0));
        if (what & 4) copy_out(slot, w.b[slot], w.down);
        CHECK(cudaEventRecord(w.done[slot], w.down));
    }
    CHECK(cudaStreamSynchronize(w.down));
    return (seconds() - begin) / batches * 1e6;
}

static double graph(int batches)
{
    static cudaGraphExec_t exec;
    cudaGraph_t captured;
    double begin;

    if (exec == NULL) {
        CHECK(cudaStreamBeginCapture(w.work, cudaStreamCaptureModeThreadLocal));
        CHECK(stm_bench_spin(w.a[0], w.b[0], w.floats, w.cycles, w.work));
        CHECK(stm_bench_spin(w.b[0], w.a[0], w.floats, w.cycles, w.work));
        CHECK(stm_bench_spin(w.a[0], w.b[0], w.floats, w.cycles, w.work));
        CHECK(cudaStreamEndCapture(w.work, &captured));
        CHECK(cudaGraphInstantiate(&exec, captured, 0));
        CHECK(cudaGraphDestroy(captured));
    }
    begin = seconds();
    for (int i = 0; i < batches; i++) CHECK(cudaGraphLaunch(exec, w.work));
    CHECK(cudaStreamSynchronize(w.work));
    return (seconds() - begin) / batches * 1e6;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    double us = 20, v[4] = {0};
    int batches = 1000;

    w.floats = 64;
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--us") == 0) us = atof(argv[i + 1]);
        if (strcmp(argv[i], "--batches") == 0) batches = atoi(argv[i + 1]);
        if (strcmp(argv[i], "--floats") == 0) w.floats = atoll(argv[i + 1]);
    }
    w.cycles = cycles_of(us);
    for (cudaStream_t *s = &w.up; s <= &w.down; s++) CHECK(cudaStreamCreateWithFlags(s, cudaStreamNonBlocking));
    for (int i = 0; i < DEPTH; i++) {
        CHECK(cudaMallocHost((void **)&w.host_in[i], (size_t)w.floats * 4));
        CHECK(cudaMallocHost((void **)&w.host_out[i], (size_t)w.floats * 4));
        CHECK(cudaMalloc((void **)&w.a[i], (size_t)w.floats * 4));
        CHECK(cudaMalloc((void **)&w.b[i], (size_t)w.floats * 4));
        CHECK(stm_bench_random(w.a[i], w.floats, (uint32_t)i, w.work));
        CHECK(stm_bench_random(w.b[i], w.floats, (uint32_t)i + DEPTH, w.work));
        CHECK(cudaMemcpyAsync(w.host_in[i], w.a[i], (size_t)w.floats * 4, cudaMemcpyDeviceToHost, w.work));
        CHECK(cudaEventCreateWithFlags(&w.uploaded[i], cudaEventDisableTiming));
        CHECK(cudaEventCreateWithFlags(&w.worked[i], cudaEventDisableTiming));
        CHECK(cudaEventCreateWithFlags(&w.done[i], cudaEventDisableTiming));
    }
    CHECK(cudaStreamSynchronize(w.work));
    for (int turn = 0; turn < 2; turn++) { /* the first warms up */
        if (strcmp(mode, "chain") == 0)
            v[0] = chain(batches);
        else if (strcmp(mode, "one") == 0)
            v[0] = one(batches);
        else if (strcmp(mode, "graph") == 0)
            v[0] = graph(batches);
        else if (strcmp(mode, "overlap") == 0)
            for (int i = 0; i < 4; i++) v[i] = overlap(batches, i < 3 ? 1 << i : 7);
        else {
            fprintf(stderr, "usage: %s chain|one|overlap|graph [--us N] [--batches N] [--floats N]\n", argv[0]);
            return 64;
        }
    }
    if (strcmp(mode, "overlap") != 0) {
        print_figure(mode, "us", v, 1);
        return 0;
    }
    const char *names[] = {"in", "kernel", "out", "overlap"};

    for (int i = 0; i < 4; i++) print_figure(names[i], "us", &v[i], 1);
    return 0;
}
