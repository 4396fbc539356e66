/*
 * The neighbours' kernels as the engine calls them, on random unit vectors.
 *
 *   bench_gpu_kernels [--quick]
 *
 *     nearest   32 nearest of 4,096 queries in 1,048,576 rows of 384: milliseconds
 *     square    32 nearest of 131,072 rows among themselves;  pairs: all pairs of them above a threshold that few pass
 *     form      1 where these are by wgmma, 0 by mma.sync; in the first case `nearest mma` and its kin follow, in the same rounds
 *     lengths   lengths and hashes of the 1,048,576 rows: GB of them a second
 *     minhash   128 numbers of each of a million texts: GB of text a second
 */
#include <string.h>

#include "bench/gpu/measure.h"
#include "bench/gpu/spin.h"
#include "device/device.h"
#include "device/registry.h"
#include "kernels/kernels.h"
#include "search/form.h"

enum { DIM = 384, K = 32 };

static mill_error err;
static const stm_kernels *table;
static cudaStream_t stream;

static void ok(mill_status st, const char *what)
{
    if (st == MILL_OK) return;
    fprintf(stderr, "%s: status %d %s\n", what, (int)st, err.msg);
    exit(1);
}

static void *device_bytes(size_t bytes)
{
    void *p = NULL;

    CHECK(cudaMalloc(&p, bytes));
    return p;
}

/* n random rows with their lengths and unit vectors. */
static stm_block make_block(int64_t n, uint32_t seed, double *longest)
{
    float *rows = device_bytes((size_t)n * DIM * sizeof *rows);
    double *length = malloc((size_t)n * sizeof *length), *length_there = device_bytes((size_t)n * sizeof *length);
    uint64_t *hash = device_bytes((size_t)n * sizeof *hash);
    uint16_t *units = device_bytes((size_t)n * (size_t)stm_unit_width(DIM) * sizeof *units);

    CHECK(stm_bench_random(rows, n * DIM, seed, stream));
    ok(table->lengths(&(stm_lengths_args){.rows = rows, .length = length_there, .hash = hash, .n = n, .dim = DIM}, stream),
       "lengths");
    ok(table->unit(&(stm_unit_args){.rows = rows, .length = length_there, .out = units, .n = n, .dim = DIM}, stream), "unit");
    CHECK(cudaMemcpyAsync(length, length_there, (size_t)n * sizeof *length, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    for (int64_t i = 0; i < n; i++)
        if (length[i] > *longest) *longest = length[i];
    free(length);
    CHECK(cudaFree(hash));
    return (stm_block){.rows = rows, .units = units, .length = length_there, .n = n};
}

static double lengths(stm_block rows)
{
    double *length = device_bytes((size_t)rows.n * sizeof *length);
    uint64_t *hash = device_bytes((size_t)rows.n * sizeof *hash);
    const stm_lengths_args a = {.rows = rows.rows, .length = length, .hash = hash, .n = rows.n, .dim = DIM};
    double t;

    CHECK(cudaStreamSynchronize(stream));
    t = seconds();
    ok(table->lengths(&a, stream), "lengths");
    CHECK(cudaStreamSynchronize(stream));
    t = seconds() - t;
    CHECK(cudaFree(length));
    CHECK(cudaFree(hash));
    return (double)rows.n * DIM * sizeof(float) / t * 1e-9;
}

static double nearest(stm_block queries, stm_block corpus, double longest, stm_tiles tiles)
{
    uint64_t *best = device_bytes((size_t)queries.n * K * sizeof *best);
    stm_nearest_args a = {.queries = queries,
                          .corpus = corpus,
                          .dim = DIM,
                          .k = K,
                          .metric = 0,
                          .threshold = -2.0f,
                          .longest = longest,
                          .best = best,
                          .tiles = tiles};
    double t;

    a.scratch = device_bytes(stm_nearest_scratch_bytes(queries.n, corpus.n, K));
    CHECK(cudaMemsetAsync(best, 0xff, (size_t)queries.n * K * sizeof *best, stream));
    CHECK(cudaStreamSynchronize(stream));
    t = seconds();
    ok(table->nearest(&a, stream), "nearest");
    CHECK(cudaStreamSynchronize(stream));
    t = seconds() - t;
    CHECK(cudaFree(a.scratch));
    CHECK(cudaFree(best));
    return t * 1e3;
}

static double pairs(stm_block rows, double longest, stm_tiles tiles)
{
    const int64_t room = 1 << 20;
    stm_near_pairs_args a = {.a = rows, .b = rows, .dim = DIM, .metric = 0, .threshold = 0.6f, .longest = longest, .room = room,
                             .tiles = tiles};
    double t;

    a.out = device_bytes((size_t)room * sizeof *a.out);
    a.found = device_bytes(2 * sizeof *a.found);
    a.scratch = device_bytes(stm_near_pairs_scratch_bytes(room));
    CHECK(cudaStreamSynchronize(stream));
    t = seconds();
    ok(table->near_pairs(&a, stream), "near_pairs");
    CHECK(cudaStreamSynchronize(stream));
    t = seconds() - t;
    CHECK(cudaFree(a.out));
    CHECK(cudaFree(a.found));
    CHECK(cudaFree(a.scratch));
    return t * 1e3;
}

/* What searches would take on this device (STEPMILL_TILES decides, too). */
static stm_tiles best_form(stm_device *dev)
{
    stm_stream *own = NULL;
    void *pinned = NULL;
    stm_tiles form = STM_TILES_MMA;

    ok(stm_stream_open(dev, &own, &err), "a stream");
    ok(stm_device_alloc(dev, STM_MEM_PINNED, 64, &pinned, &err), "pinned memory");
    ok(stm_form_choose(own, table, pinned, &form, &err), "the form of products");
    stm_device_free(dev, STM_MEM_PINNED, pinned);
    stm_stream_close(&own);
    return form;
}

int main(int argc, char **argv)
{
    const int quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    const int rounds = quick ? 1 : 7, length = 400;
    const int64_t texts = quick ? 64 : 1 << 20, n = quick ? 256 : 131072;
    const stm_device_ops *ops = NULL;
    stm_device *dev = NULL;
    double value[8][ROUNDS_MOST], longest = 0;

    ok(stm_backend_find("cuda", &ops, &err), "the CUDA module");
    ok(stm_device_open(ops, 0, &dev, &err), "device 0");
    if ((table = stm_kernels_of(ops)) == NULL) {
        fprintf(stderr, "the CUDA module is of another version\n");
        return 1;
    }
    ok(stm_device_enter(dev, &err), "device 0");
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    const stm_tiles form = best_form(dev);
    const stm_block queries = make_block(quick ? 128 : 4096, 1, &longest), corpus = make_block(quick ? 1024 : 1 << 20, 2, &longest);
    const stm_block among = make_block(n, 3, &longest);
    const size_t bytes = (size_t)texts * (size_t)length;
    int64_t *offsets = malloc((size_t)(texts + 1) * sizeof *offsets);
    stm_minhash_args hash = {.bytes = device_bytes(bytes),
                             .offsets = device_bytes((size_t)(texts + 1) * sizeof *offsets),
                             .rows = texts,
                             .width = 5,
                             .seed = 1,
                             .out = device_bytes((size_t)texts * STM_MINHASHES * sizeof *hash.out)};

    for (int64_t i = 0; i <= texts; i++) offsets[i] = i * length;
    CHECK(cudaMemcpy((void *)(uintptr_t)hash.offsets, offsets, (size_t)(texts + 1) * sizeof *offsets, cudaMemcpyHostToDevice));
    CHECK(stm_bench_random((float *)(uintptr_t)hash.bytes, (int64_t)(bytes / 4), 4, stream));
    for (int round = quick ? 0 : -3; round < rounds; round++) {
        double v[8] = {0}, t;

        v[0] = nearest(queries, corpus, longest, form);
        v[1] = nearest(among, among, longest, form);
        v[2] = pairs(among, longest, form);
        if (form != STM_TILES_MMA) {
            v[4] = nearest(queries, corpus, longest, STM_TILES_MMA);
            v[5] = nearest(among, among, longest, STM_TILES_MMA);
            v[6] = pairs(among, longest, STM_TILES_MMA);
        }
        CHECK(cudaStreamSynchronize(stream));
        t = seconds();
        ok(table->minhash(&hash, stream), "minhash");
        CHECK(cudaStreamSynchronize(stream));
        v[3] = (double)bytes / (seconds() - t) * 1e-9;
        v[7] = lengths(corpus);
        for (int i = 0; i < 8 && round >= 0; i++) value[i][round] = v[i];
    }
    print_figure("nearest", "ms", value[0], rounds);
    print_figure("square", "ms", value[1], rounds);
    print_figure("pairs", "ms", value[2], rounds);
    print_figure("minhash", "GB/s", value[3], rounds);
    print_figure("lengths", "GB/s", value[7], rounds);
    print_figure("form", "", (const double[]){form == STM_TILES_WGMMA}, 1);
    if (form != STM_TILES_MMA) {
        print_figure("nearest mma", "ms", value[4], rounds);
        print_figure("square mma", "ms", value[5], rounds);
        print_figure("pairs mma", "ms", value[6], rounds);
    }
    free(offsets);
    stm_device_unref(&dev);
    return 0;
}
