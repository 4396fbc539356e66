/*
 * Steps that measure the engine, through the public plugin interface. What they see is written as one line of JSON to the
 * file BENCH_REPORT when the sink's output is complete. Into BENCH_FIRST go the batch that bench_source makes first in this
 * process, and when (ns, of the monotonic clock) bench_work has its first one.
 *
 *   bench_source  batches of one int64 column whose first value is the batch's number; timed: notes when it made a batch, for the
 *                 latency of a pipeline whose credit lets one batch in at a time
 *   bench_idle    makes one row, waits, ends
 *   bench_work    steps of a dependent chain of multiplications per batch
 *   bench_sleep   sleeps per batch
 *   bench_pass    nothing
 *   bench_sink    takes
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "stepmill/step.h"

/* One pipeline per process: what the source, the sleepers and the sink share. */
static struct {
    int64_t batches;                        /* source */
    int64_t mark_ns, mark_mallocs;          /* source, when a fifth is made */
    struct rusage mark;
    bool timed;                             /* one at a time */
    int64_t made_ns;                        /* one at a time: when the batch under way was made */
    _Atomic int64_t rows_made, rows_taken;  /* release, acquire: the sink's counts order what the source reads */
    _Atomic int64_t most_rows;              /* largest difference seen by the source */
    _Atomic int64_t sleeps, first_sleep_ns, last_sleep_ns;
    int64_t taken, taken_at_mark;           /* sink */
    int64_t *times;                         /* [batches] */
    _Atomic bool noted_source, noted_work;
} all;

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Once per process: a line for the file BENCH_FIRST. */
static void note_first(_Atomic bool *noted, const char *who, int64_t number)
{
    const char *path;
    FILE *f;

    /* per batch, no more than the first look */
    if (atomic_load_explicit(noted, memory_order_relaxed) || atomic_exchange(noted, true)) return;
    if ((path = getenv("BENCH_FIRST")) == NULL || (f = fopen(path, "a")) == NULL) return;
    fprintf(f, "%s %lld %lld\n", who, (long long)number, (long long)now_ns());
    fclose(f);
}

/* Counted by the preloaded count_malloc.so; 0 without it. */
static int64_t mallocs(void)
{
    int64_t (*calls)(void) = NULL;
    void *symbol = dlsym(RTLD_DEFAULT, "count_malloc_calls");

    memcpy(&calls, &symbol, sizeof calls);
    return calls != NULL ? calls() : 0;
}

/* ---- source ---- */

typedef struct source {
    int64_t batches, sleep_ns;
    bool timed;
    const mill_type *type;
} source;

static mill_status source_configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    source *s = calloc(1, sizeof *s);

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory");
    mill_step_set_state(step, s, free);
    s->batches = mill_config_int(c, "batches");
    s->timed = mill_config_bool(c, "timed");
    s->sleep_ns = (int64_t)(mill_config_float(c, "sleep") * 1e9);
    s->type = mill_type_plain(MILL_INT64);
    return mill_io_add(io, "row", s->type, NULL, err);
}

static mill_status source_load(mill_replica *r, mill_error *err)
{
    const source *s = mill_step_state(mill_replica_step(r));

    all.batches = s->batches;
    all.timed = s->timed;
    all.times = calloc((size_t)s->batches + 1, sizeof *all.times);
    return all.times != NULL ? MILL_OK : mill_fail(err, MILL_ERR_NOMEM, "no memory");
}

static void source_unload(mill_replica *r) { (void)r; /* the sink may still be at work: times stay */ }

static mill_status emit_rows(mill_replica *r, const mill_type *type, int64_t number, int64_t rows, mill_emit *out, mill_error *err)
{
    mill_buffer *data = NULL;
    mill_column *col = NULL;
    mill_batch *b = NULL;
    mill_pool *pool = mill_replica_pool(r);
    mill_status st;

    if ((st = mill_buffer_create(pool, (size_t)rows * sizeof(int64_t), &data)) != MILL_OK) return mill_fail(err, st, "no memory");
    ((int64_t *)mill_buffer_data(data))[0] = number;
    st = mill_column_create(pool, type, rows, NULL, NULL, &data, NULL, &col, err);
    if (st == MILL_OK) st = mill_batch_create(pool, rows, 1, &b);
    if (st == MILL_OK) st = mill_batch_set_column(b, 0, &col);
    if (st == MILL_OK) st = mill_emit_batch(out, &b, NULL, err);
    mill_buffer_unref(&data);
    mill_column_unref(&col);
    mill_batch_destroy(&b);
    return st;
}

static int64_t cursor_get(const mill_cursor *c)
{
    int64_t v = 0;

    if (c->size == sizeof v) memcpy(&v, c->bytes, sizeof v);
    return v;
}

static void cursor_set(mill_cursor *c, int64_t v)
{
    c->size = sizeof v;
    memcpy(c->bytes, &v, sizeof v);
}

static mill_status source_generate(mill_replica *r, int64_t max_rows, mill_cursor *cursor, bool *last, mill_emit *out,
                                   mill_error *err)
{
    const source *s = mill_step_state(mill_replica_step(r));
    const int64_t number = cursor_get(cursor), made = atomic_load_explicit(&all.rows_made, memory_order_relaxed);
    const int64_t ahead = made - atomic_load_explicit(&all.rows_taken, memory_order_acquire);
    mill_status st;

    if (!atomic_load_explicit(&all.noted_source, memory_order_relaxed)) note_first(&all.noted_source, "source", number);
    if (s->timed && ahead > 0) return mill_fail(err, MILL_ERR_INVALID, "a batch is still under way: set credit to batch_size");
    if (ahead > atomic_load_explicit(&all.most_rows, memory_order_relaxed))
        atomic_store_explicit(&all.most_rows, ahead, memory_order_relaxed);
    if (number == s->batches / 5) {
        all.mark_mallocs = mallocs();
        getrusage(RUSAGE_SELF, &all.mark);
        all.mark_ns = now_ns();
    }
    if (s->timed) all.made_ns = now_ns();
    if ((st = emit_rows(r, s->type, number, max_rows, out, err)) != MILL_OK) return st;
    atomic_store_explicit(&all.rows_made, made + max_rows, memory_order_release);
    cursor_set(cursor, number + 1);
    *last = number + 1 == s->batches;
    return MILL_OK;
}

static mill_status idle_generate(mill_replica *r, int64_t max_rows, mill_cursor *cursor, bool *last, mill_emit *out,
                                 mill_error *err)
{
    const source *s = mill_step_state(mill_replica_step(r));
    const struct timespec t = {s->sleep_ns / 1000000000, s->sleep_ns % 1000000000};

    (void)max_rows;
    if (cursor_get(cursor) == 1) { /* everything else has come to rest meanwhile */
        const struct timespec settle = {0, 200000000};
        nanosleep(&settle, NULL);
        getrusage(RUSAGE_SELF, &all.mark);
        all.mark_ns = now_ns();
        nanosleep(&t, NULL);
        *last = true;
    }
    cursor_set(cursor, cursor_get(cursor) + 1);
    return emit_rows(r, s->type, 0, 1, out, err);
}

static const mill_param source_params[] = {
    {"batches", MILL_PARAM_INT, 0, "1", 1, 1e12, NULL, "how many"},
    {"timed", MILL_PARAM_BOOL, 0, "false", 0, 0, NULL,
     "take the time from a batch's making to the sink; one batch under way at a time"},
    {"sleep", MILL_PARAM_DURATION, 0, "3s", 0, 1000, NULL, "how long bench_idle waits"},
};

/* ---- steps ---- */

typedef struct worker {
    int64_t steps, sleep_ns;
} worker;

static mill_status worker_configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    worker *s = calloc(1, sizeof *s);

    (void)io;
    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory");
    mill_step_set_state(step, s, free);
    s->steps = mill_config_int(c, "steps");
    s->sleep_ns = (int64_t)(mill_config_float(c, "sleep") * 1e9);
    return MILL_OK;
}

static mill_status work(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const worker *s = mill_step_state(mill_replica_step(r));
    uint64_t x = (uint64_t)(uintptr_t)in;

    (void)n_in;
    if (!atomic_load_explicit(&all.noted_work, memory_order_relaxed)) note_first(&all.noted_work, "work", 0);
    for (int64_t i = 0; i < s->steps; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
    return mill_emit_pass(out, err);
}

static mill_status snooze(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const worker *s = mill_step_state(mill_replica_step(r));
    const struct timespec t = {s->sleep_ns / 1000000000, s->sleep_ns % 1000000000};
    int64_t none = 0, now = now_ns();

    (void)in, (void)n_in;
    (void)atomic_compare_exchange_strong(&all.first_sleep_ns, &none, now);
    nanosleep(&t, NULL);
    atomic_fetch_add(&all.sleeps, 1);
    now = now_ns();
    for (int64_t seen = atomic_load(&all.last_sleep_ns);
         now > seen && !atomic_compare_exchange_weak(&all.last_sleep_ns, &seen, now);) {
    }
    return mill_emit_pass(out, err);
}

static const mill_param work_params[] = {
    {"steps", MILL_PARAM_INT, 0, "0", 0, 1e12, NULL, "length of the chain"},
    {"sleep", MILL_PARAM_DURATION, 0, "0s", 0, 1000, NULL, "per batch"},
};

/* ---- sink ---- */

static mill_status sink_write(mill_replica *r, const mill_batch *in, mill_error *err)
{
    (void)r, (void)err;
    if (all.timed && all.taken < all.batches) all.times[all.taken] = now_ns() - all.made_ns;
    all.taken++;
    atomic_store_explicit(&all.rows_taken, atomic_load_explicit(&all.rows_taken, memory_order_relaxed) + mill_batch_rows(in),
                          memory_order_release);
    return MILL_OK;
}

static int by_size(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static double cpu_ns(const struct rusage *u)
{
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1e9 + (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) * 1e3;
}

static mill_status sink_finalize(mill_replica *r, mill_error *err)
{
    const int64_t end_ns = now_ns(), end_mallocs = mallocs(), skip = all.batches / 5, n = all.batches - skip;
    const char *path = getenv("BENCH_REPORT");
    struct rusage end;
    FILE *f;

    (void)r;
    getrusage(RUSAGE_SELF, &end);
    if (path == NULL) return MILL_OK;
    if (atomic_load(&all.rows_taken) != atomic_load(&all.rows_made))
        return mill_fail(err, MILL_ERR_INVALID, "only %lld of %lld rows came", (long long)atomic_load(&all.rows_taken),
                         (long long)atomic_load(&all.rows_made));
    if ((f = fopen(path, "w")) == NULL) return mill_fail(err, MILL_ERR_IO, "cannot write %s", path);
    if (all.timed) qsort(all.times + skip, (size_t)n, sizeof *all.times, by_size);
    fprintf(f,
            "{\"batches\": %lld, \"rows\": %lld, \"window_ns\": %lld, \"batch_ns\": %.2f, \"cpu_ns\": %.2f, \"switches\": %.6f, "
            "\"mallocs\": %.6f, "
            "\"p50_ns\": %lld, \"p99_ns\": %lld, \"most_rows\": %lld, \"sleeps\": %lld, \"sleep_wall_ns\": %lld}\n",
            (long long)all.taken, (long long)atomic_load(&all.rows_taken), (long long)(end_ns - all.mark_ns),
            (double)(end_ns - all.mark_ns) / (double)n, (cpu_ns(&end) - cpu_ns(&all.mark)) / (double)n,
            (double)(end.ru_nvcsw - all.mark.ru_nvcsw) / (double)n, (double)(end_mallocs - all.mark_mallocs) / (double)n,
            (long long)(all.timed ? all.times[skip + n / 2] : 0), (long long)(all.timed ? all.times[skip + n * 99 / 100] : 0),
            (long long)atomic_load(&all.most_rows), (long long)atomic_load(&all.sleeps),
            (long long)(atomic_load(&all.last_sleep_ns) - atomic_load(&all.first_sleep_ns)));
    return fclose(f) == 0 ? MILL_OK : mill_fail(err, MILL_ERR_IO, "cannot write %s", path);
}

static mill_status sink_open(mill_replica *r, const mill_cursor *cursor, mill_error *err)
{
    (void)r, (void)cursor, (void)err;
    return MILL_OK;
}

/* ---- types ---- */

#define TYPE(kind_, flags_, name_, text_)                                                                                      \
    .struct_size = sizeof(mill_step_type), .abi = MILL_ABI_1, .kind = kind_, .flags = flags_, .name = name_, .summary = text_, \
    .version = "1"
#define PARAMS(p) .params = p, .n_params = sizeof p / sizeof p[0]

static const mill_step_type source_type = {
    TYPE(MILL_GENERATOR, 0, "bench_source", "numbered batches"), PARAMS(source_params), .configure = source_configure,
    .load = source_load,
    .unload = source_unload, .generate = source_generate,
};
static const mill_step_type idle_type = {
    TYPE(MILL_GENERATOR, MILL_BLOCKS, "bench_idle", "one row, a wait, one row"), PARAMS(source_params),
    .configure = source_configure,
    .load = source_load, .unload = source_unload, .generate = idle_generate,
};
static const mill_step_type work_type = {
    TYPE(MILL_STEP, MILL_PER_ROW, "bench_work", "a fixed amount of work per batch"), PARAMS(work_params),
    .configure = worker_configure, .process = work,
};
static const mill_step_type sleep_type = {
    TYPE(MILL_STEP, MILL_PER_ROW | MILL_BLOCKS, "bench_sleep", "sleeps"), PARAMS(work_params), .configure = worker_configure,
    .process = snooze,
};
static const mill_step_type sink_type = {
    TYPE(MILL_SINK, 0, "bench_sink", "takes and measures"), .open = sink_open, .write = sink_write, .finalize = sink_finalize,
};
static const mill_step_type *const types[] = {&source_type, &idle_type, &work_type, &sleep_type, &sink_type};
static const mill_plugin plugin = {
    .struct_size = sizeof(mill_plugin),
    .abi = MILL_ABI_1,
    .name = "bench",
    .version = "1",
    .types = types,
    .n_types = sizeof types / sizeof types[0],
};

MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);
const mill_plugin *mill_plugin_v1(void) { return &plugin; }
