/*
 * Whole runs: a step between a generator and a sink of the kit's own, carried out by the engine as any pipeline is. Replicas,
 * re-batching, other threads than the one that loaded, rows that were cut and put together again, joins: what single calls cannot
 * show.
 */
#include <stdio.h>
#include <string.h>

#include "batch/batch.h"
#include "core/alloc.h"
#include "exec/run.h"
#include "pipeline/conform.h"

typedef struct one_run {
    stm_conform *k;
    const mill_step *step; /* under test; the run's */
    stm_conform_rows *rows;
} one_run;

static one_run *configuring; /* stm_step_create has no room for a closure; a child makes one run at a time */

static one_run *of(const mill_replica *r) { return mill_step_state(mill_replica_step(r)); }

/* ---- the kit's own steps -------------------------------------------------------------------------------------------- */

static mill_status rows_configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    const stm_schema *arriving = &configuring->k->arriving;
    mill_status st = MILL_OK;

    (void)c;
    mill_step_set_state(s, configuring, NULL);
    for (int32_t i = 0; i < arriving->n && st == MILL_OK; i++)
        st = mill_io_add(io, arriving->fields[i].name, arriving->fields[i].type, NULL, err);
    return st;
}

static mill_status rows_generate(mill_replica *r, int64_t max_rows, mill_cursor *cursor, bool *last, mill_emit *out,
                                 mill_error *err)
{
    int64_t at = 0, n;
    mill_batch *b;
    mill_status st;

    if (cursor->size == sizeof at) memcpy(&at, cursor->bytes, sizeof at);
    n = STM_CONFORM_ROWS - at < max_rows ? STM_CONFORM_ROWS - at : max_rows;
    b = stm_conform_batch(of(r)->k, mill_replica_pool(r), at, n, 0, false);
    if (b == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the generated input");
    st = mill_emit_batch(out, &b, NULL, err);
    mill_batch_destroy(&b);
    at += n;
    cursor->size = sizeof at;
    memcpy(cursor->bytes, &at, sizeof at);
    *last = at == STM_CONFORM_ROWS;
    return st;
}

/* Drops every third row, so that the join behind it lacks some. */
static mill_status half_process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const int64_t rows = mill_batch_rows(in[0]);
    mill_buffer *parent = NULL;
    mill_batch *b = NULL;
    int64_t n = 0, key;
    mill_status st = mill_buffer_create(mill_replica_pool(r), (size_t)(rows + 1) * sizeof(int64_t), &parent);

    (void)n_in;
    for (int64_t i = 0; i < rows && st == MILL_OK; i++) {
        stm_batch_key(in[0], i, &key); /* rows come straight from the generator: one element */
        if (key % 3 != 0) ((int64_t *)mill_buffer_data(parent))[n++] = i;
    }
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), n, 0, &b);
    if (st == MILL_OK) st = mill_emit_batch(out, &b, &parent, err);
    mill_batch_destroy(&b);
    mill_buffer_unref(&parent);
    return st == MILL_ERR_NOMEM ? mill_fail(err, st, "no memory for the generated input") : st;
}

static mill_status out_configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    const mill_step *step = configuring->step;
    mill_status st = MILL_OK;

    (void)c;
    mill_step_set_state(s, configuring, NULL);
    for (int32_t i = 0; i < step->n_outputs && st == MILL_OK; i++)
        st = mill_io_use(io, 0, step->outputs[i].mapped, "any", NULL, err);
    return st;
}
static mill_status out_open(mill_replica *r, const mill_cursor *c, mill_error *e) { return (void)r, (void)c, (void)e, MILL_OK; }
static mill_status out_write(mill_replica *r, const mill_batch *in, mill_error *err)
{
    one_run *o = of(r);
    int64_t key[64];

    (void)err;
    for (int64_t i = 0; i < in->rows; i++) {
        if (in->keys.width > 64) continue;
        stm_batch_key(in, i, key);
        if (key[0] < 0 || key[0] >= (int64_t)o->rows->n) continue;
        if (in->marks != NULL && !mill_column_is_null(in->marks, i)) {
            const mill_view v = mill_column_view(in->marks);
            if (((const int64_t *)v.data)[v.offset + i] != 0) o->rows->row[key[0]].failed = true;
        }
        stm_conform_rows_add(o->rows, (size_t)key[0], o->step, in, i);
    }
    return MILL_OK;
}
static mill_status out_finalize(mill_replica *r, mill_error *e) { return (void)r, (void)e, MILL_OK; }

static const mill_step_type rows_type = {.struct_size = sizeof rows_type, .abi = MILL_ABI_1, .kind = MILL_GENERATOR, .name = "rows",
                                         .summary = "generated rows", .configure = rows_configure, .generate = rows_generate};
static const mill_step_type half_type = {.struct_size = sizeof half_type,
                                         .abi = MILL_ABI_1,
                                         .kind = MILL_STEP,
                                         .flags = MILL_FILTERS | MILL_PER_ROW,
                                         .name = "half",
                                         .summary = "two of three rows",
                                         .process = half_process};
static const mill_step_type out_type = {.struct_size = sizeof out_type,
                                        .abi = MILL_ABI_1,
                                        .kind = MILL_SINK,
                                        .name = "out",
                                        .summary = "keeps rows",
                                        .configure = out_configure,
                                        .open = out_open,
                                        .write = out_write,
                                        .finalize = out_finalize};

/* ---- a run ------------------------------------------------------------------------------------------------------------ */

typedef struct way {
    int32_t replicas;
    int64_t batch_rows, budget;
    bool join;
    const char *how;
} way;

static mill_status own_step(const mill_step_type *t, const stm_schema *arriving, int32_t n, int64_t batch_rows, mill_step **out,
                            mill_error *err)
{
    const stm_step_spec spec = {.name = t->name,
                                .type = t,
                                .base_dir = "/",
                                .arriving = arriving,
                                .n_arriving = n,
                                .batch_rows = batch_rows,
                                .policy = stm_policy_default(t),
                                .run_seed = 7};

    return stm_step_create(&spec, out, err);
}

static mill_status feed(stm_plan_step *s, int32_t a, int32_t b)
{
    if ((s->inputs = stm_calloc(2 * sizeof *s->inputs)) == NULL) return MILL_ERR_NOMEM;
    s->inputs[0].from = a;
    s->inputs[1].from = b;
    s->n_inputs = b >= 0 ? 2 : 1;
    return MILL_OK;
}

/* rows → step → out; with a join: rows → half, (rows, half) → step → out. */
static mill_status make_plan(stm_conform *k, const way *w, one_run *o, stm_plan **out, mill_error *err)
{
    stm_plan *p = stm_calloc(sizeof *p);
    stm_plan_step *s;
    mill_status st;
    const int32_t first = w->join ? 2 : 1; /* the step under test */

    if (p == NULL) return mill_fail(err, MILL_ERR_NOMEM, "a plan");
    *out = p;
    p->n_stages = 1;
    p->seed = 7;
    p->input_order = true;
    p->name = stm_strdup("check");
    p->steps = stm_calloc(4 * sizeof *p->steps);
    if (p->name == NULL || p->steps == NULL) return mill_fail(err, MILL_ERR_NOMEM, "a plan");
    configuring = o;
    if ((st = own_step(&rows_type, NULL, 0, 16, &p->steps[0].step, err)) != MILL_OK) return st;
    p->n_steps = 1;
    if (w->join) {
        const stm_schema schemas[2] = {p->steps[0].step->out, p->steps[0].step->out};

        if ((st = own_step(&half_type, schemas, 1, 5, &p->steps[1].step, err)) != MILL_OK) return st;
        p->n_steps = 2;
        if (feed(&p->steps[1], 0, -1) != MILL_OK) return mill_fail(err, MILL_ERR_NOMEM, "a plan");
        st = stm_conform_step(k, schemas, 2, &p->steps[2].step, err);
    } else {
        st = stm_conform_step(k, &p->steps[0].step->out, 1, &p->steps[1].step, err);
    }
    if (st != MILL_OK) return st;
    p->n_steps = first + 1;
    s = &p->steps[first];
    s->mode = w->join ? STM_INPUT_JOIN : STM_INPUT_SINGLE;
    s->on_missing = STM_MISSING_NULL;
    s->step->policy.on_error = stm_policy_default(k->type).on_error;
    s->step->policy.replicas = w->replicas;
    s->step->batch_rows = w->batch_rows;
    s->step->budget_bytes = w->budget;
    if (feed(s, 0, w->join ? 1 : -1) != MILL_OK) return mill_fail(err, MILL_ERR_NOMEM, "a plan");
    o->step = s->step;
    if ((st = own_step(&out_type, &s->step->out, 1, 0, &p->steps[first + 1].step, err)) != MILL_OK) return st;
    p->n_steps = first + 2;
    return feed(&p->steps[first + 1], first, -1) == MILL_OK ? MILL_OK : mill_fail(err, MILL_ERR_NOMEM, "a plan");
}

/* False: it did not come to rows (said). *other_inputs: the step reads columns of a second input as such. */
static bool run(stm_conform *k, const way *w, stm_conform_rows *rows, bool *other_inputs)
{
    one_run o = {.k = k, .rows = rows};
    stm_run_opts opts = {.struct_size = sizeof opts, .threads = 2, .run_dir = k->dir};
    stm_plan *plan = NULL;
    stm_run *r = NULL;
    stm_run_end end = STM_END_FAILED;
    mill_error e = {0};
    bool any = false;

    if (stm_conform_rows_init(rows, STM_CONFORM_ROWS) != MILL_OK) return false;
    if (make_plan(k, w, &o, &plan, &e) != MILL_OK) {
        stm_conform_skip(k, "a run %s could not be made: %.300s", w->how, e.msg);
        stm_plan_destroy(&plan);
        return false;
    }
    if (other_inputs != NULL) *other_inputs = o.step->n_inputs > 1 && o.step->inputs[1].n_used > 0;
    stm_conform_now(k, "a run %s", w->how);
    if (stm_run_start(&plan, &opts, &r, &e) == MILL_OK) end = stm_run_wait(r, -1, &e);
    if (end == STM_END_LOAD_FAILED) {
        stm_conform_skip(k, "load failed in a run %s: %.300s", w->how, e.msg);
        k->note->wants_help = true;
    } else if (end != STM_END_DONE) {
        stm_conform_find(k, "a run %s ends with: %.300s", w->how, e.msg);
    }
    stm_conform_now(k, "unload after a run %s", w->how);
    stm_run_destroy(&r);
    stm_plan_destroy(&plan);
    for (size_t i = 0; i < rows->n && end == STM_END_DONE; i++) any = any || !rows->row[i].failed;
    if (end == STM_END_DONE && !any) {
        stm_conform_skip(k, "every row failed in a run %s", w->how);
        k->note->wants_help = true;
    }
    return any;
}

static bool deterministic(const mill_step_type *t) { return (t->flags & MILL_NONDETERMINISTIC) == 0; }
static bool may_replicate(const mill_step_type *t) { return (t->flags & MILL_STATEFUL) == 0; }

/* Whether the rows of a way must be those of the first: with other batches only row by row, with replicas only without state. */
static bool comparable(const mill_step_type *t, const way *a, const way *b)
{
    if (!deterministic(t)) return false;
    return (t->flags & MILL_PER_ROW) != 0 || (a->batch_rows == b->batch_rows && a->budget == b->budget);
}

void stm_conform_check_runs(stm_conform *k)
{
    static const way ways[] = {
        {1, 16, 0, false, "with 1 replica and batches of 16 rows"}, {2, 16, 0, false, "with 2 replicas and batches of 16 rows"},
        {2, 1, 0, false, "with 2 replicas and batches of 1 row"},   {2, 7, 0, false, "with 2 replicas and batches of 7 rows"},
        {1, 64, 0, false, "with 1 replica and batches of 64 rows"}, {2, 0, 90, false, "with 2 replicas and a budget of 90 bytes"},
    };
    stm_conform_rows direct = {0}, base = {0};

    if (deterministic(k->type) && k->type->process != NULL) {
        stm_conform_bench b;
        if (!stm_conform_open(k, &b)) return;
        if (b.step->n_outputs > 0 && stm_conform_load(k, &b)) stm_conform_step_rows(k, &b, STM_CONFORM_ROWS, 16, &direct);
        stm_conform_close(k, &b, "batches");
    }
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        stm_conform_rows rows = {0};

        if (ways[i].replicas > 1 && !may_replicate(k->type)) continue;
        if (run(k, &ways[i], i == 0 ? &base : &rows, NULL)) {
            if (i == 0 && direct.n > 0)
                stm_conform_rows_tell(k, &direct, "when it is called directly", &base, "in a run",
                                      "calls come from several threads, not the one that loaded; rows arrive as slices of batches");
            if (i > 0 && base.n > 0 && comparable(k->type, &ways[0], &ways[i]))
                stm_conform_rows_tell(k, &base, ways[0].how, &rows, ways[i].how,
                                      "the number of replicas, and with MILL_PER_ROW that of rows, must not change results");
        }
        stm_conform_rows_fini(&rows);
    }
    stm_conform_rows_fini(&direct);
    stm_conform_rows_fini(&base);
    stm_conform_did(k, "whole runs: %s replica%s, batches of 1, 7, 16 and 64 rows, a budget; the same rows as by direct calls",
                    may_replicate(k->type) ? "1 and 2" : "1", may_replicate(k->type) ? "s" : "");
}

void stm_conform_check_joins(stm_conform *k)
{
    static const way ways[] = {
        {1, 16, 0, true, "behind a join, with 1 replica and batches of 16 rows"},
        {2, 16, 0, true, "behind a join, with 2 replicas and batches of 16 rows"},
        {2, 5, 0, true, "behind a join, with 2 replicas and batches of 5 rows"},
        {1, 0, 200, true, "behind a join, with a budget of 200 bytes"},
    };
    static const way alone = {1, 16, 0, false, "behind one step"};
    stm_conform_rows single = {0}, base = {0};
    bool other_inputs = false;

    if (deterministic(k->type) && !run(k, &alone, &single, NULL)) stm_conform_rows_fini(&single);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        stm_conform_rows rows = {0};

        if (ways[i].replicas > 1 && !may_replicate(k->type)) continue;
        if (run(k, &ways[i], i == 0 ? &base : &rows, &other_inputs)) {
            if (i == 0 && single.n > 0 && !other_inputs)
                stm_conform_rows_tell(
                    k, &single, alone.how, &base, ways[0].how,
                    "input 0 of a join shows the joined row: what a step reads is in in[0], however many inputs there are");
            if (i > 0 && base.n > 0 && comparable(k->type, &ways[0], &ways[i]))
                stm_conform_rows_tell(k, &base, ways[0].how, &rows, ways[i].how,
                                      "the number of replicas, and with MILL_PER_ROW that of rows, must not change results");
        }
        stm_conform_rows_fini(&rows);
    }
    stm_conform_rows_fini(&single);
    stm_conform_rows_fini(&base);
    stm_conform_did(k, "whole runs behind a join whose second input lacks rows%s",
                    other_inputs ? "" : ": the same rows as behind one step");
}
