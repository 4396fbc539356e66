/*
 * Steps that measure the engine with a GPU, through the public plugin interface.
 *
 *   gpu_source  batches of a float32 column, made once and sent again and again; timed: for one batch under way at a time
 *   gpu_spin    a kernel of a known length on the replica's device, x -> x + 1; on the host where the replica has none
 *   gpu_sink    takes; when its output is complete, one line of JSON goes to the file BENCH_REPORT
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench/gpu/measure.h"
#include "bench/gpu/spin.h"
#include "stepmill/device.h"

/* One pipeline per process: what the steps share. */
static struct {
    int64_t batches;
    bool timed;
    double made, mark;               /* seconds; source */
    struct rusage used;              /* at the mark */
    double *times;                   /* [batches], when timed */
    int64_t taken, rows, first_rows; /* sink */
    double first, last;
    _Atomic int64_t on_device, on_host, failed; /* calls of gpu_spin */
} all;

/* ---- source ---- */

enum { COLUMNS = 4 }; /* sent in turn */

typedef struct source {
    int64_t batches;
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
    s->type = mill_type_plain(MILL_FLOAT32);
    return mill_io_add(io, "x", s->type, NULL, err);
}

static mill_status source_load(mill_replica *r, mill_error *err)
{
    const source *s = mill_step_state(mill_replica_step(r));
    mill_column **columns = calloc(COLUMNS, sizeof(mill_column *));

    all.batches = s->batches;
    all.timed = s->timed;
    all.times = calloc((size_t)s->batches + 1, sizeof *all.times);
    if (columns == NULL || all.times == NULL) {
        free(columns);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory");
    }
    mill_replica_set_state(r, columns);
    return MILL_OK;
}

static void source_unload(mill_replica *r)
{
    mill_column **columns = mill_replica_state(r);

    for (int i = 0; columns != NULL && i < COLUMNS; i++) mill_column_unref(&columns[i]);
    free(columns); /* the sink may still be at work: times stay */
    mill_replica_set_state(r, NULL);
}

static mill_status make_column(mill_replica *r, const mill_type *type, int64_t rows, uint32_t seed, mill_column **out,
                               mill_error *err)
{
    mill_buffer *data = NULL;
    mill_status st = mill_buffer_create(mill_replica_pool(r), (size_t)rows * sizeof(float), &data);

    if (st != MILL_OK) return mill_fail(err, st, "no memory");
    for (int64_t i = 0; i < rows; i++) {
        seed = seed * 1664525u + 1013904223u;
        ((float *)mill_buffer_data(data))[i] = (float)(int32_t)seed * 0x1p-31f;
    }
    st = mill_column_create(mill_replica_pool(r), type, rows, NULL, NULL, &data, NULL, out, err);
    mill_buffer_unref(&data);
    return st;
}

static mill_status source_generate(mill_replica *r, int64_t max_rows, mill_cursor *cursor, bool *last, mill_emit *out,
                                   mill_error *err)
{
    const source *s = mill_step_state(mill_replica_step(r));
    mill_column **columns = mill_replica_state(r), *col = NULL;
    mill_batch *b = NULL;
    int64_t number = 0;
    mill_status st = MILL_OK;

    if (cursor->size == sizeof number) memcpy(&number, cursor->bytes, sizeof number);
    mill_column **mine = &columns[number % COLUMNS];
    if (*mine != NULL && mill_column_rows(*mine) != max_rows) mill_column_unref(mine);
    if (*mine == NULL) st = make_column(r, s->type, max_rows, (uint32_t)number, mine, err);
    if (st != MILL_OK) return st;
    if (number == s->batches / 5) {
        getrusage(RUSAGE_SELF, &all.used);
        all.mark = seconds();
    }
    all.made = seconds();
    col = mill_column_ref(*mine);
    st = mill_batch_create(mill_replica_pool(r), max_rows, 1, &b);
    if (st == MILL_OK) st = mill_batch_set_column(b, 0, &col);
    if (st == MILL_OK) st = mill_emit_batch(out, &b, NULL, err);
    mill_column_unref(&col);
    mill_batch_destroy(&b);
    number++;
    cursor->size = sizeof number;
    memcpy(cursor->bytes, &number, sizeof number);
    *last = number == s->batches;
    return st;
}

static const mill_param source_params[] = {
    {"batches", MILL_PARAM_INT, 0, "1", 1, 1e9, NULL, "how many"},
    {"timed", MILL_PARAM_BOOL, 0, "false", 0, 0, NULL, "note each batch's time to the sink; `credit` must let in one at a time"},
};

/* ---- the kernel ---- */

typedef struct spin {
    double us;
    int64_t fail_every;
    bool graph;
    int32_t x;
    const mill_type *type;
} spin;

static mill_status spin_configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    spin *s = calloc(1, sizeof *s);
    mill_status st;

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory");
    mill_step_set_state(step, s, free);
    s->us = mill_config_float(c, "us");
    s->fail_every = mill_config_int(c, "fail_every");
    s->graph = mill_config_bool(c, "graph");
    s->type = mill_type_plain(MILL_FLOAT32);
    if ((st = mill_io_use(io, 0, "x", "float32", &s->x, err)) != MILL_OK) return st;
    return mill_io_add(io, "x", s->type, NULL, err);
}

typedef struct spinner {
    int64_t calls, cycles;
    /* graph: what it works on, at addresses that stay */
    mill_buffer *in, *out;
    int64_t rows;
    void *stream;
} spinner;

static mill_status spin_load(mill_replica *r, mill_error *err)
{
    const spin *s = mill_step_state(mill_replica_step(r));
    mill_replica_device d = MILL_REPLICA_DEVICE_INIT;
    spinner *state = calloc(1, sizeof *state);

    if (state == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory");
    if (mill_replica_device_of(r, &d)) state->cycles = cycles_of(s->us);
    mill_replica_set_state(r, state);
    return MILL_OK;
}

static void spin_unload(mill_replica *r)
{
    spinner *state = mill_replica_state(r);

    if (state != NULL) {
        mill_buffer_unref(&state->in);
        mill_buffer_unref(&state->out);
    }
    free(state);
    mill_replica_set_state(r, NULL);
}

/* Three kernels, the same for all batches of so many rows. */
static mill_status spin_queue(mill_replica *r, void *user, mill_error *err)
{
    const spinner *s = user;
    float *in = mill_buffer_data(s->in), *out = mill_buffer_data(s->out);

    (void)r;
    if (stm_bench_spin(in, out, s->rows, s->cycles, s->stream) != 0 ||
        stm_bench_spin(out, in, s->rows, s->cycles, s->stream) != 0 || stm_bench_spin(in, out, s->rows, s->cycles, s->stream) != 0)
        return mill_fail(err, MILL_ERR_DEVICE, "a kernel was not launched");
    return MILL_OK;
}

static mill_status spin_graph(mill_replica *r, const float *x, float *y, int64_t rows, void *stream, mill_error *err)
{
    spinner *s = mill_replica_state(r);
    const size_t bytes = (size_t)rows * sizeof *x;
    mill_status st = MILL_OK;

    if (s->in != NULL && mill_buffer_bytes(s->in) < bytes) { /* larger batches than any before */
        mill_replica_graphs_drop(r);
        mill_buffer_unref(&s->in);
        mill_buffer_unref(&s->out);
    }
    if (s->in == NULL) st = mill_replica_device_buffer(r, bytes, &s->in, err);
    if (st == MILL_OK && s->out == NULL) st = mill_replica_device_buffer(r, bytes, &s->out, err);
    if (st != MILL_OK) return st;
    s->rows = rows, s->stream = stream;
    if (cudaMemcpyAsync(mill_buffer_data(s->in), x, bytes, cudaMemcpyDeviceToDevice, stream) != 0)
        return mill_fail(err, MILL_ERR_DEVICE, "the input was not copied");
    if ((st = mill_replica_graph(r, &rows, sizeof rows, spin_queue, s, err)) != MILL_OK) return st;
    return cudaMemcpyAsync(y, mill_buffer_data(s->out), bytes, cudaMemcpyDeviceToDevice, stream) == 0
               ? MILL_OK
               : mill_fail(err, MILL_ERR_DEVICE, "the output was not copied");
}

static mill_status spin_process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const spin *s = mill_step_state(mill_replica_step(r));
    const int64_t rows = mill_batch_rows(in[0]), call = ++((spinner *)mill_replica_state(r))->calls;
    const mill_view v = mill_column_view(mill_batch_column(in[0], s->x));
    const float *x = (const float *)v.data + v.offset;
    mill_replica_device d = MILL_REPLICA_DEVICE_INIT;
    mill_buffer *data = NULL;
    mill_column *y = NULL;
    mill_batch *made = NULL;
    mill_status st;

    (void)n_in;
    if (s->fail_every > 0 && call % s->fail_every == 0) {
        atomic_fetch_add(&all.failed, 1);
        return mill_fail(err, MILL_ERR_STEP, "as asked");
    }
    if (mill_replica_device_of(r, &d)) {
        atomic_fetch_add(&all.on_device, 1);
        if ((st = mill_replica_device_buffer(r, (size_t)rows * sizeof(float), &data, err)) != MILL_OK) return st;
        if (s->graph)
            st = spin_graph(r, x, mill_buffer_data(data), rows, d.stream, err);
        else if (stm_bench_spin(x, mill_buffer_data(data), rows, ((spinner *)mill_replica_state(r))->cycles, d.stream) != 0)
            st = mill_fail(err, MILL_ERR_DEVICE, "the kernel was not launched");
    } else {
        const double begin = seconds();

        atomic_fetch_add(&all.on_host, 1);
        if ((st = mill_buffer_create(mill_replica_pool(r), (size_t)rows * sizeof(float), &data)) != MILL_OK)
            return mill_fail(err, st, "no memory");
        for (int64_t i = 0; i < rows; i++) ((float *)mill_buffer_data(data))[i] = x[i] + 1.0f;
        while (seconds() - begin < s->us * (s->graph ? 3e-6 : 1e-6)) {
        }
    }
    if (st == MILL_OK) st = mill_column_create(mill_replica_pool(r), s->type, rows, NULL, NULL, &data, NULL, &y, err);
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), rows, 1, &made);
    if (st == MILL_OK) st = mill_batch_set_column(made, 0, &y);
    if (st == MILL_OK) st = mill_emit_batch(out, &made, NULL, err);
    mill_buffer_unref(&data);
    mill_column_unref(&y);
    mill_batch_destroy(&made);
    return st;
}

static const mill_param spin_params[] = {
    {"us", MILL_PARAM_FLOAT, 0, "20", 0, 1e6, NULL, "length of the kernel in microseconds"},
    {"fail_every", MILL_PARAM_INT, 0, "0", 0, 1e9, NULL, "every so many calls one fails; 0: none"},
    {"graph", MILL_PARAM_BOOL, 0, "false", 0, 0, NULL, "three kernels of that length, captured once"},
};

/* ---- sink ---- */

static mill_status sink_open(mill_replica *r, const mill_cursor *cursor, mill_error *err)
{
    (void)r, (void)cursor, (void)err;
    return MILL_OK;
}

static mill_status sink_write(mill_replica *r, const mill_batch *in, mill_error *err)
{
    (void)r, (void)err;
    if (all.timed && all.taken < all.batches) all.times[all.taken] = (seconds() - all.made) * 1e6;
    all.last = seconds();
    if (all.taken++ == 0) all.first = all.last, all.first_rows = mill_batch_rows(in);
    all.rows += mill_batch_rows(in);
    return MILL_OK;
}

static double busy(const struct rusage *u)
{
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) + (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) * 1e-6;
}

static mill_status sink_finalize(mill_replica *r, mill_error *err)
{
    const double end = seconds();
    const int64_t skip = all.batches / 5, n = all.batches > skip ? all.batches - skip : 1;
    const char *path = getenv("BENCH_REPORT");
    struct rusage used;
    FILE *f;

    (void)r;
    getrusage(RUSAGE_SELF, &used);
    if (path == NULL) return MILL_OK;
    if ((f = fopen(path, "w")) == NULL) return mill_fail(err, MILL_ERR_IO, "cannot write %s", path);
    if (all.timed) qsort(all.times + skip, (size_t)n, sizeof *all.times, by_value);
    fprintf(f,
            "{\"batches\": %lld, \"rows\": %lld, \"batch_us\": %.4f, \"cpu_us\": %.4f, \"p50_us\": %.4f, \"p99_us\": %.4f, "
            "\"on_device\": %lld, \"on_host\": %lld, \"failed\": %lld, \"rows_per_s\": %.4f}\n",
            (long long)all.taken, (long long)all.rows, (end - all.mark) / (double)n * 1e6,
            (busy(&used) - busy(&all.used)) / (double)n * 1e6, all.timed ? all.times[skip + n / 2] : 0.0,
            all.timed ? all.times[skip + n * 99 / 100] : 0.0, (long long)atomic_load(&all.on_device),
            (long long)atomic_load(&all.on_host), (long long)atomic_load(&all.failed),
            all.last > all.first ? (double)(all.rows - all.first_rows) / (all.last - all.first) : 0.0);
    return fclose(f) == 0 ? MILL_OK : mill_fail(err, MILL_ERR_IO, "cannot write %s", path);
}

/* ---- types ---- */

#define TYPE(kind_, flags_, name_, text_)                                                                                      \
    .struct_size = sizeof(mill_step_type), .abi = MILL_ABI_1, .kind = kind_, .flags = flags_, .name = name_, .summary = text_, \
    .version = "1"
#define PARAMS(p) .params = p, .n_params = sizeof p / sizeof p[0]

static const mill_step_type source_type = {
    TYPE(MILL_GENERATOR, 0, "gpu_source", "the same few batches of floats"),
    PARAMS(source_params),
    .configure = source_configure,
    .load = source_load,
    .unload = source_unload,
    .generate = source_generate,
};
static const mill_step_type spin_type = {
    TYPE(MILL_STEP, MILL_PER_ROW | MILL_ON_DEVICE, "gpu_spin", "a kernel of a known length"),
    PARAMS(spin_params),
    .configure = spin_configure,
    .load = spin_load,
    .unload = spin_unload,
    .process = spin_process,
};
static const mill_step_type sink_type = {
    TYPE(MILL_SINK, 0, "gpu_sink", "takes and measures"),
    .open = sink_open,
    .write = sink_write,
    .finalize = sink_finalize,
};
static const mill_step_type *const types[] = {&source_type, &spin_type, &sink_type};
static const mill_plugin plugin = {
    .struct_size = sizeof(mill_plugin),
    .abi = MILL_ABI_1,
    .name = "bench_gpu",
    .version = "1",
    .types = types,
    .n_types = sizeof types / sizeof types[0],
};

MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);
const mill_plugin *mill_plugin_v1(void) { return &plugin; }
