/* Step types that each break the contract in one way, and some that look odd but keep it: what the conformance kit must tell
 * apart. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "stepmill/step.h"

static void pause_ms(long ms)
{
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

/* ---- steps that make one int64 column of `id` and `text` ------------------------------------------------------------ */

typedef int64_t (*value_fn)(mill_replica *r, const mill_batch *in, int64_t row);

static int64_t id_of(const mill_batch *in, int64_t row)
{
    const mill_column *id = mill_batch_column(in, 0);
    mill_view v;

    if (id == NULL || mill_column_is_null(id, row)) return -1;
    v = mill_column_view(id);
    return ((const int64_t *)v.data)[v.offset + row];
}

static mill_status ints(mill_replica *r, const mill_batch *in, int64_t rows, int32_t type, value_fn f, mill_batch **out)
{
    mill_builder *b = NULL;
    mill_column *col = NULL;
    mill_status st = mill_builder_create(mill_replica_pool(r), mill_type_plain((mill_type_id)type), &b);

    *out = NULL;
    for (int64_t i = 0; i < rows && st == MILL_OK; i++)
        st = type == MILL_INT64 ? mill_builder_int(b, f(r, in, i)) : mill_builder_float(b, (double)f(r, in, i));
    if (st == MILL_OK) st = mill_builder_finish(b, &col);
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), rows, 1, out);
    if (st == MILL_OK) st = mill_batch_set_column(*out, 0, &col);
    mill_column_unref(&col);
    mill_builder_destroy(&b);
    if (st != MILL_OK) mill_batch_destroy(out);
    return st;
}

static mill_status emit_ints(mill_replica *r, const mill_batch *in, int64_t rows, int32_t type, value_fn f, mill_emit *out,
                             mill_error *err)
{
    mill_batch *batch;
    mill_status st = ints(r, in, rows, type, f, &batch);

    if (st != MILL_OK) return mill_fail(err, st, "no memory");
    st = mill_emit_batch(out, &batch, NULL, err);
    mill_batch_destroy(&batch);
    return st;
}

#define PROCESS(name)                                                                                                          \
    static mill_status name(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
#define ROWS mill_batch_rows(in[0])

static int64_t plain(mill_replica *r, const mill_batch *in, int64_t row) { return (void)r, id_of(in, row); }

PROCESS(right)
{
    (void)n_in;
    return emit_ints(r, in[0], ROWS, MILL_INT64, plain, out, err);
}

PROCESS(writes_input)
{
    const mill_column *id = mill_batch_column(in[0], 0);

    (void)n_in;
    if (id != NULL && ROWS > 0) {
        const mill_view v = mill_column_view(id);
        ((int64_t *)v.data)[v.offset] = 5;
    }
    return emit_ints(r, in[0], ROWS, MILL_INT64, plain, out, err);
}

static int64_t with_rows(mill_replica *r, const mill_batch *in, int64_t row)
{
    return (void)r, id_of(in, row) + mill_batch_rows(in);
}
PROCESS(neighbours)
{
    (void)n_in;
    return emit_ints(r, in[0], ROWS, MILL_INT64, with_rows, out, err);
}

static int64_t counter(mill_replica *r, const mill_batch *in, int64_t row)
{
    static _Atomic int64_t n; /* two replicas count at once: wrong, but no race */
    return (void)r, (void)in, (void)row, atomic_fetch_add_explicit(&n, 1, memory_order_relaxed);
}
PROCESS(counts)
{
    (void)n_in;
    return emit_ints(r, in[0], ROWS, MILL_INT64, counter, out, err);
}

/* Kept by the thread that loaded: nobody promised that it is the one that works. Stateful, so that two replicas never meet. */
static _Thread_local int64_t loaded_here;
static mill_status thread_load(mill_replica *r, mill_error *err) { return (void)r, (void)err, loaded_here = 7, MILL_OK; }
static int64_t by_thread(mill_replica *r, const mill_batch *in, int64_t row) { return (void)r, id_of(in, row) + loaded_here; }
PROCESS(thread_bound)
{
    (void)n_in;
    return emit_ints(r, in[0], ROWS, MILL_INT64, by_thread, out, err);
}

/* Reads what it declared from the last input instead of from the first. */
PROCESS(last_input) { return emit_ints(r, in[n_in - 1], ROWS, MILL_INT64, plain, out, err); }

/* Behind a join it adds what the second input has. */
static mill_status adds_configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    (void)s, (void)c;
    return mill_io_inputs(io) > 1 ? mill_io_use(io, 1, "id", "int64", NULL, err) : MILL_OK;
}
PROCESS(adds_inputs)
{
    mill_builder *b = NULL;
    mill_column *col = NULL;
    mill_batch *batch = NULL;
    mill_status st = mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_INT64), &b);

    for (int64_t i = 0; i < ROWS && st == MILL_OK; i++)
        st = mill_builder_int(b, id_of(in[0], i) + (n_in > 1 ? 1000 * id_of(in[1], i) : 0));
    if (st == MILL_OK) st = mill_builder_finish(b, &col);
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), ROWS, 1, &batch);
    if (st == MILL_OK) st = mill_batch_set_column(batch, 0, &col);
    if (st != MILL_OK) mill_fail(err, st, "no memory");
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, NULL, err);
    mill_column_unref(&col);
    mill_builder_destroy(&b);
    mill_batch_destroy(&batch);
    return st;
}

PROCESS(fewer_rows)
{
    (void)n_in;
    return emit_ints(r, in[0], ROWS > 0 ? ROWS - 1 : 0, MILL_INT64, plain, out, err);
}

PROCESS(other_type)
{
    (void)n_in;
    return emit_ints(r, in[0], ROWS, MILL_FLOAT64, plain, out, err);
}

static int *volatile nowhere;
PROCESS(empty_crash)
{
    (void)n_in;
    if (ROWS == 0) *nowhere = 1;
    return emit_ints(r, in[0], ROWS, MILL_INT64, plain, out, err);
}

PROCESS(absent_crash)
{
    (void)n_in;
    (void)mill_column_rows(mill_batch_column(in[0], 0));
    return emit_ints(r, in[0], ROWS, MILL_INT64, plain, out, err);
}

static int64_t letters(mill_replica *r, const mill_batch *in, int64_t row)
{
    const mill_column *text = mill_batch_column(in, 1);
    int64_t n, sum = 0;
    const char *p = text != NULL ? mill_column_text(text, row, &n) : "";

    for (int64_t i = 0; text != NULL && (i == 0 || i < n); i++) sum += p[i]; /* p is NULL where the value is */
    return (void)r, sum;
}
PROCESS(null_crash)
{
    (void)n_in;
    return emit_ints(r, in[0], ROWS, MILL_INT64, letters, out, err);
}

PROCESS(hangs)
{
    (void)n_in;
    while (ROWS == 3) pause_ms(20);
    return emit_ints(r, in[0], ROWS, MILL_INT64, plain, out, err);
}

PROCESS(exits)
{
    (void)n_in;
    if (ROWS == 1) exit(9);
    return emit_ints(r, in[0], ROWS, MILL_INT64, plain, out, err);
}

PROCESS(keeps_pointer)
{
    static _Atomic(const int64_t *) before;
    const int64_t *last = atomic_load(&before);
    volatile int64_t sum = 0; /* read, so that the loads stay */

    (void)n_in;
    if (last != NULL) sum = sum + *last;
    if (mill_batch_column(in[0], 0) != NULL) atomic_store(&before, mill_column_view(mill_batch_column(in[0], 0)).data);
    return emit_ints(r, in[0], ROWS, MILL_INT64, plain, out, err);
}

static _Atomic(mill_column *) kept;
PROCESS(keeps_column)
{
    (void)n_in;
    if (atomic_load(&kept) == NULL && mill_batch_column(in[0], 0) != NULL)
        atomic_store(&kept, mill_column_ref(mill_batch_column(in[0], 0)));
    return emit_ints(r, in[0], ROWS, MILL_INT64, plain, out, err);
}

static int64_t no_offset(mill_replica *r, const mill_batch *in, int64_t row)
{
    const mill_column *id = mill_batch_column(in, 0);
    return (void)r, id != NULL ? ((const int64_t *)mill_column_view(id).data)[row] : 0;
}
PROCESS(ignores_offset)
{
    (void)n_in;
    return emit_ints(r, in[0], ROWS, MILL_INT64, no_offset, out, err);
}

PROCESS(reads_past_end)
{
    const mill_column *id = mill_batch_column(in[0], 0);
    volatile int64_t sum = 0; /* read, so that the loads stay */

    (void)n_in;
    if (id != NULL && ROWS > 0) sum = sum + ((const int64_t *)mill_column_view(id).data)[mill_column_view(id).offset + ROWS + 8];
    return emit_ints(r, in[0], ROWS, MILL_INT64, plain, out, err);
}

PROCESS(emit_leaks)
{
    mill_batch *batch;
    mill_status st = ints(r, in[0], ROWS, MILL_INT64, plain, &batch);

    (void)n_in;
    if (st != MILL_OK) return mill_fail(err, st, "no memory");
    return mill_emit_batch(out, &batch, NULL, err); /* still ours on failure, and forgotten */
}

PROCESS(emit_ignored)
{
    mill_batch *batch;
    mill_status st = ints(r, in[0], ROWS, MILL_INT64, plain, &batch);

    (void)n_in;
    if (st != MILL_OK) return mill_fail(err, st, "no memory");
    mill_emit_batch(out, &batch, NULL, NULL);
    mill_batch_destroy(&batch);
    return MILL_OK;
}

static int64_t shared_scratch(mill_replica *r, const mill_batch *in, int64_t row)
{
    int64_t *scratch = mill_step_state(mill_replica_step(r)); /* of the step: all replicas' */

    __atomic_store_n(scratch, id_of(in, row), __ATOMIC_RELAXED);
    pause_ms(1);
    return __atomic_load_n(scratch, __ATOMIC_RELAXED);
}
static mill_status scratch_configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    void *p = calloc(1, sizeof(int64_t));

    (void)c, (void)io;
    if (p == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory");
    mill_step_set_state(s, p, free);
    return MILL_OK;
}
PROCESS(shares)
{
    (void)n_in;
    return emit_ints(r, in[0], ROWS, MILL_INT64, shared_scratch, out, err);
}

static mill_status takes_builder(mill_replica *r, mill_error *err)
{
    mill_builder *b;
    mill_status st = mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_INT64), &b);

    if (st != MILL_OK) return mill_fail(err, st, "no memory");
    mill_replica_set_state(r, b);
    return MILL_OK;
}
static void forgets(mill_replica *r) { (void)r; }

static mill_status takes_block(mill_replica *r, mill_error *err)
{
    mill_builder **p = malloc(sizeof *p);

    if (p == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory");
    if (mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_INT64), p) != MILL_OK) {
        free(p);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory");
    }
    mill_replica_set_state(r, p);
    return MILL_OK;
}
static void unload_whole(mill_replica *r) /* believes that load went well */
{
    mill_builder **p = mill_replica_state(r);
    mill_builder_destroy(p);
    free(p);
}

PROCESS(bad_text)
{
    mill_builder *b = NULL;
    mill_column *col = NULL;
    mill_batch *batch = NULL;
    mill_status st = mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_UTF8), &b);

    (void)n_in;
    for (int64_t i = 0; i < ROWS && st == MILL_OK; i++) st = mill_builder_text(b, "caf\xe9", 4);
    if (st == MILL_OK) st = mill_builder_finish(b, &col);
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), ROWS, 1, &batch);
    if (st == MILL_OK) st = mill_batch_set_column(batch, 0, &col);
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, NULL, err);
    mill_column_unref(&col);
    mill_batch_destroy(&batch);
    mill_builder_destroy(&b);
    return st == MILL_OK ? st : mill_fail(err, st, "no memory");
}

static mill_status silent_configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    (void)s, (void)c;
    return mill_io_use(io, 0, "number", "float64", NULL, NULL) == MILL_OK ? MILL_OK : ((void)err, MILL_ERR_INVALID);
}

static mill_status forgetful_configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    static int times;

    (void)s, (void)c;
    return mill_io_add(io, times++ == 0 ? "first" : "later", mill_type_plain(MILL_INT64), NULL, err);
}

static const mill_column_decl inputs[] = {{"id", "int64", "a number"}, {"text", "utf8", "a text"}};
static const mill_column_decl n_out[] = {{"n", "int64", "a number"}};
static const mill_column_decl text_out[] = {{"t", "utf8", "a text"}};
static const mill_param needed[] = {{"much", MILL_PARAM_INT, 0, NULL, 0, 9, NULL, "how much"},
                                    {"word", MILL_PARAM_STRING, 0, NULL, 0, 0, NULL, "a word"}};

#define HEAD(kind_, name_) \
    .struct_size = sizeof(mill_step_type), .abi = MILL_ABI_1, .kind = kind_, .name = name_, .summary = "breaks a rule"
#define STEP(var, name_, flags_, process_, ...)                                                                                \
    static const mill_step_type var = {HEAD(MILL_STEP, name_), .flags = flags_, .inputs = inputs, .n_inputs = 2, .outputs = n_out, \
                                       .n_outputs = 1, .process = process_, __VA_ARGS__}

STEP(t_right, "right", MILL_PER_ROW, right, .version = "1");
STEP(t_needs, "needs", MILL_PER_ROW, right, .params = needed, .n_params = 2);
STEP(t_writes_input, "writes_input", MILL_PER_ROW, writes_input, .version = "1");
STEP(t_neighbours, "neighbours", MILL_PER_ROW, neighbours, .version = "1");
STEP(t_counts, "counts", 0, counts, .version = "1");
STEP(t_counts_said, "counts_said", MILL_NONDETERMINISTIC, counts, .version = "1");
STEP(t_thread_bound, "thread_bound", MILL_STATEFUL, thread_bound, .load = thread_load);
STEP(t_last_input, "last_input", MILL_PER_ROW, last_input, .version = "1");
STEP(t_adds_inputs, "adds_inputs", MILL_PER_ROW, adds_inputs, .configure = adds_configure);
STEP(t_fewer_rows, "fewer_rows", 0, fewer_rows, .version = "1");
STEP(t_other_type, "other_type", 0, other_type, .version = "1");
STEP(t_empty_crash, "empty_crash", 0, empty_crash, .version = "1");
STEP(t_absent_crash, "absent_crash", 0, absent_crash, .version = "1");
STEP(t_null_crash, "null_crash", 0, null_crash, .version = "1");
STEP(t_hangs, "hangs", 0, hangs, .version = "1");
STEP(t_exits, "exits", 0, exits, .version = "1");
STEP(t_keeps_pointer, "keeps_pointer", 0, keeps_pointer, .version = "1");
STEP(t_keeps_column, "keeps_column", 0, keeps_column, .version = "1");
STEP(t_ignores_offset, "ignores_offset", MILL_PER_ROW, ignores_offset, .version = "1");
STEP(t_reads_past_end, "reads_past_end", 0, reads_past_end, .version = "1");
STEP(t_emit_leaks, "emit_leaks", 0, emit_leaks, .version = "1");
STEP(t_emit_ignored, "emit_ignored", 0, emit_ignored, .version = "1");
STEP(t_shares, "shares", 0, shares, .configure = scratch_configure);
STEP(t_forgets, "forgets", 0, right, .load = takes_builder, .unload = forgets);
STEP(t_half_load, "half_load", 0, right, .load = takes_block, .unload = unload_whole);
STEP(t_silent, "silent", 0, right, .configure = silent_configure);
static const mill_step_type t_forgetful = {HEAD(MILL_STEP, "forgetful"), .inputs = inputs, .n_inputs = 2, .process = right,
                                           .configure = forgetful_configure};
static const mill_step_type t_bad_text = {HEAD(MILL_STEP, "bad_text"), .inputs = inputs, .n_inputs = 2,
                                          .outputs = text_out,         .n_outputs = 1,   .process = bad_text};

/* ---- generators ----------------------------------------------------------------------------------------------------- */

static _Thread_local int64_t g_first;
static int64_t from_first(mill_replica *r, const mill_batch *in, int64_t row) { return (void)r, (void)in, g_first + row; }

static mill_status generate_from(mill_replica *r, int64_t at, int64_t n, mill_emit *out, mill_error *err)
{
    g_first = at;
    return emit_ints(r, NULL, n, MILL_INT64, from_first, out, err);
}
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t place(const mill_cursor *c)
{
    int64_t at = 0;
    if (c->size == sizeof at) memcpy(&at, c->bytes, sizeof at);
    return at;
}
static void put(mill_cursor *c, int64_t at)
{
    c->size = sizeof at;
    memcpy(c->bytes, &at, sizeof at);
}
#define GENERATE(name) \
    static mill_status name(mill_replica *r, int64_t max, mill_cursor *cursor, bool *last, mill_emit *out, mill_error *err)

GENERATE(good_generate)
{
    const int64_t at = place(cursor), n = least(50 - at, max);
    const mill_status st = generate_from(r, at, n, out, err);

    if (st != MILL_OK) return st;
    put(cursor, at + n);
    *last = at + n == 50;
    return MILL_OK;
}
GENERATE(no_cursor)
{
    int64_t *at = mill_replica_state(r);
    const int64_t n = least(50 - *at, max);
    const mill_status st = generate_from(r, *at, n, out, err);

    *at += n;
    put(cursor, 1);
    *last = *at == 50;
    return st;
}
static mill_status place_load(mill_replica *r, mill_error *err)
{
    int64_t *at = calloc(1, sizeof *at);

    if (at == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory");
    mill_replica_set_state(r, at);
    return MILL_OK;
}
static void place_unload(mill_replica *r) { free(mill_replica_state(r)); }
GENERATE(too_many)
{
    put(cursor, 9);
    *last = true;
    return generate_from(r, 0, max + 1, out, err);
}
GENERATE(for_ever)
{
    const int64_t at = place(cursor);

    put(cursor, at + max);
    *last = false;
    return generate_from(r, at, max, out, err);
}
#define GENERATOR(var, name_, fn, ...) \
    static const mill_step_type var = {HEAD(MILL_GENERATOR, name_), .outputs = n_out, .n_outputs = 1, .generate = fn, __VA_ARGS__}
GENERATOR(t_good_generator, "good_generator", good_generate, .version = "1");
GENERATOR(t_no_cursor, "no_cursor", no_cursor, .load = place_load, .unload = place_unload);
GENERATOR(t_too_many, "too_many", too_many, .version = "1");
GENERATOR(t_for_ever, "for_ever", for_ever, .version = "1");

/* ---- globals -------------------------------------------------------------------------------------------------------- */

static mill_status count_batches(mill_replica *r, size_t input, const mill_batch *in, mill_error *err)
{
    (void)input, (void)in, (void)err;
    ++*(int64_t *)mill_replica_state(r);
    return MILL_OK;
}
static int64_t state_value(mill_replica *r, const mill_batch *in, int64_t row)
{
    return (void)in, (void)row, *(int64_t *)mill_replica_state(r);
}
static mill_status say_state(mill_replica *r, mill_emit *out, mill_error *err)
{
    return emit_ints(r, NULL, 1, MILL_INT64, state_value, out, err);
}
static mill_status count_rows(mill_replica *r, size_t input, const mill_batch *in, mill_error *err)
{
    (void)input, (void)err;
    *(int64_t *)mill_replica_state(r) += mill_batch_rows(in);
    return MILL_OK;
}
static mill_status average(mill_replica *r, mill_emit *out, mill_error *err)
{
    if (*(int64_t *)mill_replica_state(r) == 0) abort(); /* nothing to divide by */
    return emit_ints(r, NULL, 1, MILL_INT64, state_value, out, err);
}
#define GLOBAL(var, name_, accept_, finish_)                                                                             \
    static const mill_step_type var = {HEAD(MILL_GLOBAL, name_), .inputs = inputs, .n_inputs = 2, .outputs = n_out,   \
                                       .n_outputs = 1, .accept = accept_, .finish = finish_, .load = place_load,      \
                                       .unload = place_unload}
GLOBAL(t_good_global, "good_global", count_rows, say_state);
GLOBAL(t_global_batches, "global_batches", count_batches, say_state);
GLOBAL(t_global_no_rows, "global_no_rows", count_rows, average);

/* ---- sinks ---------------------------------------------------------------------------------------------------------- */

static mill_status sink_open(mill_replica *r, const mill_cursor *cursor, mill_error *err)
{
    return (void)r, (void)cursor, (void)err, MILL_OK;
}
static mill_status sink_write(mill_replica *r, const mill_batch *in, mill_error *err) { return count_rows(r, 0, in, err); }
static mill_status needs_rows(mill_replica *r, mill_error *err)
{
    if (*(int64_t *)mill_replica_state(r) == 0) return mill_fail(err, MILL_ERR_STEP, "there is nothing to finish");
    return MILL_OK;
}
static mill_status sink_done(mill_replica *r, mill_error *err) { return (void)r, (void)err, MILL_OK; }
static mill_status write_blocks(mill_replica *r, const mill_batch *in, mill_error *err)
{
    char path[600];
    FILE *f;

    (void)in;
    snprintf(path, sizeof path, "%s/blocks", mill_replica_run_dir(r));
    if ((f = fopen(path, "a")) == NULL) return mill_fail(err, MILL_ERR_IO, "cannot open %s", path);
    fputs("block\n", f);
    fclose(f);
    return MILL_OK;
}
#define SINK(var, name_, write_, finalize_)                                                                                   \
    static const mill_step_type var = {HEAD(MILL_SINK, name_), .inputs = inputs, .n_inputs = 2, .load = place_load,        \
                                       .unload = place_unload, .open = sink_open, .write = write_, .finalize = finalize_}
SINK(t_good_sink, "good_sink", sink_write, sink_done);
SINK(t_sink_no_rows, "sink_no_rows", sink_write, needs_rows);
/* Appends, and does not cut off what came after its cursor. */
static mill_status append_sync(mill_replica *r, mill_cursor *cursor, mill_error *err)
{
    (void)err;
    put(cursor, *(int64_t *)mill_replica_state(r));
    return MILL_OK;
}
static mill_status append_rows(mill_replica *r, const mill_batch *in, mill_error *err)
{
    mill_status st = MILL_OK;

    for (int64_t i = 0; i < mill_batch_rows(in) && st == MILL_OK; i++) st = write_blocks(r, in, err);
    return st;
}
static const mill_step_type t_sink_restart = {HEAD(MILL_SINK, "sink_restart"),
                                              .inputs = inputs,
                                              .n_inputs = 2,
                                              .load = place_load,
                                              .unload = place_unload,
                                              .open = sink_open,
                                              .write = append_rows,
                                              .finalize = sink_done,
                                              .sync = append_sync};
SINK(t_sink_batches, "sink_batches", write_blocks, sink_done);

/* ---- routers -------------------------------------------------------------------------------------------------------- */

static mill_status route_none(mill_replica *r, const mill_batch *in, mill_route *out, mill_error *err)
{
    (void)r;
    return mill_batch_rows(in) == 3 ? MILL_OK : mill_route_to(out, 0, err);
}
static mill_status route_third(mill_replica *r, const mill_batch *in, mill_route *out, mill_error *err)
{
    return (void)r, (void)in, mill_route_to(out, 2, err);
}
#define ROUTER(var, name_, fn) \
    static const mill_step_type var = {HEAD(MILL_ROUTER, name_), .flags = MILL_ROUTES, .inputs = inputs, .n_inputs = 2, .route = fn}
ROUTER(t_route_none, "route_none", route_none);
ROUTER(t_route_third, "route_third", route_third);

/* ---- many rows in flight: answers at the next poll ------------------------------------------------------------------- */

enum { SLOTS = 64 };
typedef struct slot {
    uint64_t ticket;
    mill_batch *in;
} slot;
static mill_status slots_load(mill_replica *r, mill_error *err)
{
    slot *s = calloc(SLOTS, sizeof *s);

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory");
    mill_replica_set_state(r, s);
    return MILL_OK;
}
static mill_status slots_submit(mill_replica *r, uint64_t ticket, mill_batch *const *in, size_t n_in, mill_error *err)
{
    slot *s = mill_replica_state(r);

    (void)n_in, (void)err;
    for (int i = 0; i < 4; i++)
        if (s[i].ticket == 0) {
            s[i] = (slot){ticket, in[0]};
            return MILL_OK;
        }
    return MILL_ERR_AGAIN;
}
static mill_status answer(mill_replica *r, slot *s, mill_results *out, mill_error *err)
{
    const int64_t n = mill_batch_rows(s->in);
    int64_t rows[SLOTS];
    mill_batch *batch;
    mill_status st = ints(r, s->in, n, MILL_INT64, plain, &batch);

    for (int64_t i = 0; i < n; i++) rows[i] = i;
    if (st == MILL_OK) st = mill_results_rows(out, s->ticket, rows, n, &batch, err);
    mill_batch_destroy(&batch);
    s->ticket = 0;
    return st;
}
static mill_status slots_poll(mill_replica *r, mill_results *out, mill_error *err)
{
    slot *s = mill_replica_state(r);
    mill_status st = MILL_OK;

    for (int i = 0; i < 4 && st == MILL_OK; i++)
        if (s[i].ticket != 0) st = answer(r, &s[i], out, err);
    return st;
}
static mill_status poll_loses(mill_replica *r, mill_results *out, mill_error *err)
{
    slot *s = mill_replica_state(r);

    if (s[1].ticket == 2) s[1].ticket = 0;
    return slots_poll(r, out, err);
}
static void slots_cancel(mill_replica *r, uint64_t ticket)
{
    slot *s = mill_replica_state(r);

    for (int i = 0; i < 4; i++)
        if (s[i].ticket == ticket) s[i].ticket = 0;
}
#define SUBMIT(var, name_, poll_)                                                                     \
    static const mill_step_type var = {                                                               \
        HEAD(MILL_STEP, name_), .flags = MILL_PER_ROW, .inputs = inputs,      .n_inputs = 2,          \
        .outputs = n_out,       .n_outputs = 1,        .load = slots_load,    .unload = place_unload, \
        .submit = slots_submit, .poll = poll_,         .cancel = slots_cancel}
SUBMIT(t_good_submit, "good_submit", slots_poll);
SUBMIT(t_poll_loses, "poll_loses", poll_loses);

/* ---- the plugin ----------------------------------------------------------------------------------------------------- */

static const mill_step_type *const types[] = {
    &t_right,          &t_thread_bound, &t_last_input,    &t_adds_inputs,  &t_needs,          &t_writes_input,   &t_neighbours,
    &t_counts,         &t_counts_said,  &t_fewer_rows,    &t_other_type,   &t_empty_crash,    &t_absent_crash,   &t_null_crash,
    &t_hangs,          &t_exits,        &t_keeps_pointer, &t_keeps_column, &t_ignores_offset, &t_reads_past_end, &t_emit_leaks,
    &t_emit_ignored,   &t_shares,       &t_forgets,       &t_half_load,    &t_silent,         &t_forgetful,      &t_bad_text,
    &t_good_generator, &t_no_cursor,    &t_too_many,      &t_for_ever,     &t_good_global,    &t_global_batches, &t_global_no_rows,
    &t_good_sink,      &t_sink_no_rows, &t_sink_batches,  &t_sink_restart, &t_route_none,     &t_route_third,    &t_good_submit,
    &t_poll_loses,
};
static const mill_plugin plugin = {.struct_size = sizeof(mill_plugin),
                                   .abi = MILL_ABI_1,
                                   .name = "wrong",
                                   .version = "1",
                                   .types = types,
                                   .n_types = sizeof types / sizeof types[0]};

MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);
#ifdef OPENING_CRASHES
__attribute__((constructor)) static void begin(void) { abort(); }
#endif
const mill_plugin *mill_plugin_v1(void) { return &plugin; }
