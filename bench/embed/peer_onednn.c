/* oneDNN's products at MiniLM's shapes: peer_onednn PRECISION THREADS ROWS -> GFLOP/s. Each thread runs its own calls with one
 * OpenMP thread, weights packed once, 6 layers' worth of them in turn. */
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LAYERS = 6, SHAPES = 6 };
static const long shapes[SHAPES][2] = {{384, 384}, {384, 384}, {384, 384}, {384, 384}, {1536, 384}, {384, 1536}};
static dnnl_engine_t engine;
static dnnl_memory_t weights[LAYERS][SHAPES], bias[SHAPES];
static dnnl_primitive_t products[SHAPES];
static dnnl_memory_desc_t in_md[SHAPES], out_md[SHAPES];
static const dnnl_memory_desc_t *scratch_md[SHAPES];
static long rows;
static _Atomic long left;
static _Atomic long done;

static void check(dnnl_status_t st)
{
    if (st == dnnl_success) return;
    fprintf(stderr, "peer_onednn: status %d\n", (int)st);
    exit(1);
}

static dnnl_memory_t memory(const dnnl_memory_desc_t *md, int bf16)
{
    dnnl_memory_t m;
    void *p;

    check(dnnl_memory_create(&m, md, engine, DNNL_MEMORY_ALLOCATE));
    check(dnnl_memory_get_data_handle(m, &p));
    const size_t bytes = dnnl_memory_desc_get_size(md);
    for (size_t i = 0; bf16 && i < bytes / 2; i++)
        ((unsigned short *)p)[i] = (unsigned short)(0x3f00 + i * 40503 % 256 + (i & 1) * 0x8000);
    for (size_t i = 0; !bf16 && i < bytes / 4; i++) ((float *)p)[i] = (float)(i * 40503 % 1000) / 500.0f - 1.0f;
    return m;
}

static void make(int bf16)
{
    const dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;

    for (int s = 0; s < SHAPES; s++) {
        const dnnl_dim_t n = shapes[s][0], k = shapes[s][1];
        const dnnl_dims_t a = {rows, k}, b = {k, n}, c = {rows, n}, v = {1, n};
        dnnl_memory_desc_t b_md, bias_md;
        dnnl_matmul_desc_t desc;
        dnnl_primitive_attr_t attr;
        dnnl_primitive_desc_t pd;
        check(dnnl_memory_desc_init_by_tag(&in_md[s], 2, a, type, dnnl_ab));
        check(dnnl_memory_desc_init_by_tag(&b_md, 2, b, type, dnnl_format_tag_any));
        check(dnnl_memory_desc_init_by_tag(&out_md[s], 2, c, dnnl_f32, dnnl_ab));
        check(dnnl_memory_desc_init_by_tag(&bias_md, 2, v, dnnl_f32, dnnl_ab));
        check(dnnl_matmul_desc_init(&desc, &in_md[s], &b_md, &bias_md, &out_md[s]));
        check(dnnl_primitive_attr_create(&attr));
        check(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
        check(dnnl_primitive_desc_create(&pd, &desc, attr, engine, NULL));
        check(dnnl_primitive_create(&products[s], pd));
        scratch_md[s] = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        for (int l = 0; l < LAYERS; l++) weights[l][s] = memory(dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), bf16);
        bias[s] = memory(&bias_md, 0);
    }
}

static void *work(void *bf16)
{
    dnnl_memory_t in[SHAPES], out[SHAPES], scratch[SHAPES];
    dnnl_stream_t stream;
    long flop = 0;

    omp_set_num_threads(1);
    check(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    for (int s = 0; s < SHAPES; s++)
        in[s] = memory(&in_md[s], bf16 != NULL), out[s] = memory(&out_md[s], 0), scratch[s] = memory(scratch_md[s], 0);
    while (atomic_fetch_sub(&left, 1) > 0)
        for (int l = 0; l < LAYERS; l++)
            for (int s = 0; s < SHAPES; s++) {
                const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, in[s]},
                                                {DNNL_ARG_WEIGHTS, weights[l][s]},
                                                {DNNL_ARG_BIAS, bias[s]},
                                                {DNNL_ARG_DST, out[s]},
                                                {DNNL_ARG_SCRATCHPAD, scratch[s]}};
                check(dnnl_primitive_execute(products[s], stream, 5, args));
                flop += 2 * rows * shapes[s][0] * shapes[s][1];
            }
    atomic_fetch_add(&done, flop);
    return NULL;
}

static double timed(int threads, long groups, int bf16)
{
    pthread_t id[64];
    struct timespec a, b;

    atomic_store(&left, groups);
    atomic_store(&done, 0);
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < threads; i++) pthread_create(&id[i], NULL, work, bf16 ? &rows : NULL);
    for (int i = 0; i < threads; i++) pthread_join(id[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &b);
    return (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
}

int main(int argc, char **argv)
{
    if (argc != 4) return 2;
    const int bf16 = strcmp(argv[1], "bf16") == 0, threads = (int)(strtol(argv[2], NULL, 10) % 64);

    rows = strtol(argv[3], NULL, 10);
    omp_set_num_threads(1);
    check(dnnl_engine_create(&engine, dnnl_cpu, 0));
    make(bf16);
    timed(threads, threads, bf16);
    const double s = timed(threads, ((bf16 ? 16384 : 2048) / rows + 1) * threads, bf16);
    printf("%.1f\n", (double)atomic_load(&done) / s * 1e-9);
    return 0;
}
