/* Checks of every type, and of steps with process. Each runs in a process of its own. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "pipeline/conform.h"
#include "plugin/describe.h"

/* ---- configure ------------------------------------------------------------------------------------------------------ */

static bool same_columns(const mill_step *a, const mill_step *b)
{
    if (a->out.n != b->out.n || a->n_outputs != b->n_outputs || a->n_inputs != b->n_inputs) return false;
    for (int32_t i = 0; i < a->out.n; i++)
        if (strcmp(a->out.fields[i].name, b->out.fields[i].name) != 0 || a->out.fields[i].type != b->out.fields[i].type)
            return false;
    for (int32_t i = 0; i < a->n_inputs; i++) {
        if (a->inputs[i].n_used != b->inputs[i].n_used) return false;
        for (int32_t c = 0; c < a->inputs[i].n_used; c++)
            if (strcmp(a->inputs[i].used[c].name, b->inputs[i].used[c].name) != 0) return false;
    }
    return true;
}

/* Without a column that it used a step may fail, with a cause, or do without. */
static int32_t configure_without(stm_conform *k, const mill_step *whole)
{
    int32_t refused = 0;

    for (int32_t u = 0; whole->n_inputs > 0 && u < whole->inputs[0].n_used; u++) {
        stm_schema less = {0};
        mill_error e = {0};
        mill_step *s = NULL;
        const char *name = whole->inputs[0].used[u].name;
        bool fits = true;

        for (int32_t c = 0; c < k->arriving.n && fits; c++)
            if (c != whole->inputs[0].used[u].column)
                fits = stm_schema_add(&less, k->arriving.fields[c].name, k->arriving.fields[c].type) == MILL_OK;
        if (fits && stm_conform_step(k, &less, 1, &s, &e) != MILL_OK) {
            refused++;
            if (e.msg[0] == '\0' || strstr(e.msg, "cannot be configured: ") != NULL)
                stm_conform_find(k,
                                 "configure fails without saying why when column \"%s\" does not arrive; use mill_fail, or return "
                                 "what mill_io_use returned",
                                 name);
        }
        stm_step_destroy(&s);
        stm_schema_fini(&less);
    }
    return refused;
}

void stm_conform_check_configure(stm_conform *k)
{
    mill_step *one = NULL, *two = NULL;
    mill_error first = {0}, e = {0};
    stm_text t = {0};
    int32_t any = 0;
    bool has_any = false;
    mill_status st = MILL_OK;

    for (size_t i = 0; i < k->type->n_inputs; i++) has_any = has_any || strcmp(k->type->inputs[i].type, "any") == 0;
    for (;; any++) { /* "any" may mean some: the first that configure takes */
        memset(&e, 0, sizeof e);
        if ((st = stm_conform_columns(k, any, &k->arriving, &e)) == MILL_OK) st = stm_conform_step(k, &k->arriving, 1, &one, &e);
        if (st == MILL_OK) break;
        if (any == 0) first = e;
        if (!has_any || any + 1 == STM_CONFORM_ANY_TYPES) {
            char what[512];

            mill_error_format(&first, what, sizeof what);
            if (first.msg[0] == '\0' || strstr(first.msg, "cannot be configured: ") != NULL)
                stm_conform_find(k, "configure fails without saying why; use mill_fail");
            stm_conform_skip(k, "configure failed with these columns and parameters: %.300s", what);
            k->note->wants_help = true;
            return;
        }
        stm_schema_fini(&k->arriving);
    }
    k->note->any_type = any;
    if (stm_conform_step(k, &k->arriving, 1, &two, &e) != MILL_OK)
        stm_conform_find(k, "configure succeeds the first time and fails the second: %s", e.msg);
    else if (!same_columns(one, two))
        stm_conform_find(k, "configure gives other columns the second time, with the same parameters and inputs");
    stm_step_destroy(&two);
    configure_without(k, one);
    stm_describe_text(k->type, "plugin", &t);
    stm_describe_json(k->type, "plugin", &t);
    if (t.failed || t.data == NULL) stm_conform_find(k, "the type cannot be described");
    stm_text_free(&t);
    stm_conform_now(k, "release of the step's state");
    stm_step_destroy(&one);
    stm_conform_did(k, "twice, and without each column it reads");
}

/* ---- load ----------------------------------------------------------------------------------------------------------- */

void stm_conform_check_load(stm_conform *k)
{
    for (int i = 0; i < 3; i++) {
        stm_conform_bench b, other = {0};

        if (!stm_conform_open(k, &b)) return;
        if (!stm_conform_load(k, &b)) {
            stm_conform_close(k, &b, "a load that failed");
            return;
        }
        if (i == 1 && k->type->kind == MILL_STEP && (k->type->flags & MILL_STATEFUL) == 0) { /* a second one comes and goes */
            if (stm_conform_second(k, &b, &other)) stm_conform_load(k, &other);
            stm_conform_close_second(k, &other);
        }
        stm_conform_close(k, &b, "a load and no work");
    }
    stm_conform_did(k, "load and unload without work, again, and two replicas");
}

void stm_conform_check_load_fails(stm_conform *k)
{
    stm_conform_bench b;
    mill_error e = {0};

    if (!stm_conform_open(k, &b)) return;
    stm_conform_now(k, "load, and unload of a replica that could not load");
    stm_fault_arm(STM_FAULT_LOAD, 0);
    stm_wrapper_load(b.w, &e);
    stm_fault_disarm();
    stm_conform_close(k, &b, "a load that failed");
    for (int64_t nth = 0; nth < 24; nth++) { /* memory that is not there */
        bool fired;
        mill_status st;

        if (!stm_conform_open(k, &b)) return;
        memset(&e, 0, sizeof e);
        stm_conform_now(k, "load with memory running out");
        stm_fault_arm(STM_FAULT_ALLOC, nth);
        st = stm_wrapper_load(b.w, &e);
        fired = stm_fault_disarm();
        if (st == MILL_OK && fired && k->type->load != NULL) { /* it may have been able to do without */
            stm_wrapper_run(b.w);
        } else if (st != MILL_OK && !fired) {
            stm_conform_skip(k, "load failed: %s", e.msg);
        }
        stm_conform_close(k, &b, "a load without enough memory");
        if (!fired) break;
    }
    if (!stm_conform_open(k, &b)) return;
    stm_conform_load(k, &b);
    stm_conform_close(k, &b, "a load after one that failed");
    stm_conform_did(k, "unload after a load that failed, then load again");
}

/* ---- process -------------------------------------------------------------------------------------------------------- */

static void breach(stm_conform *k, const mill_error *e, int64_t rows)
{
    stm_conform_find(k, "process on a batch of %lld row%s: %s", (long long)rows, rows == 1 ? "" : "s", e->msg);
}

/* One call; results of its rows into @p rows from @p base on. A step row by row is shown halves when it fails, as in a run. */
static mill_status step_rows(stm_conform *k, stm_conform_bench *b, int64_t first, int64_t n, int64_t lead, bool absent,
                             stm_conform_rows *rows, mill_error *err)
{
    mill_batch *in = stm_conform_batch(k, b->pool, first, n, lead, absent);
    stm_probe_out out = {0};
    mill_error e = {0};
    mill_status st;

    if (in == NULL) return MILL_ERR_NOMEM;
    stm_conform_now(k, "process on a batch of %lld row%s%s", (long long)n, n == 1 ? "" : "s",
                    absent ? " whose columns are all absent" : "");
    st = stm_probe_process(b->w, in, &out, &e);
    if (st == MILL_OK) {
        stm_conform_now(k, "reading what process put out for a batch of %lld rows", (long long)n);
        if (out.passed)
            for (int64_t i = 0; i < n; i++) rows->row[first + i].hash = 1;
        stm_conform_rows_take(k, rows, b->step, &out, (size_t)first, n);
    } else if (stm_probe_is_breach(&e)) {
        breach(k, &e, n);
    }
    stm_probe_out_fini(&out);
    mill_batch_destroy(&in);
    if (st == MILL_OK) return MILL_OK;
    if (err != NULL && err->status == MILL_OK) *err = e;
    if ((k->type->flags & MILL_PER_ROW) != 0 && n > 1 && !stm_probe_is_breach(&e)) {
        const mill_status a = step_rows(k, b, first, n / 2, lead, absent, rows, err),
                          z = step_rows(k, b, first + n / 2, n - n / 2, lead, absent, rows, err);
        return a == MILL_OK || z == MILL_OK ? MILL_OK : st;
    }
    for (int64_t i = 0; i < n; i++) rows->row[first + i].failed = true;
    return st;
}

/* All rows in batches of @p size, forwards or backwards. False when nothing came of it (said). */
static bool run_all(stm_conform *k, stm_conform_bench *b, int64_t total, int64_t size, bool backwards, stm_conform_rows *rows)
{
    const int64_t batches = (total + size - 1) / size;
    mill_error e = {0};
    bool any = false;

    if (stm_conform_rows_init(rows, (size_t)total) != MILL_OK) return false;
    for (int64_t i = 0; i < batches; i++) {
        const int64_t first = (backwards ? batches - 1 - i : i) * size, n = total - first < size ? total - first : size;

        if (step_rows(k, b, first, n, i % 2 == 1 ? 3 : 0, false, rows, &e) == MILL_OK) any = true;
    }
    if (!any && k->note->n_findings == 0) {
        stm_conform_skip(k, "process failed on every batch: %s", e.msg);
        k->note->wants_help = true;
    }
    return any;
}

bool stm_conform_step_rows(stm_conform *k, stm_conform_bench *b, int64_t total, int64_t size, stm_conform_rows *rows)
{
    return run_all(k, b, total, size, false, rows);
}

void stm_conform_check_batches(stm_conform *k)
{
    static const int64_t sizes[] = {64, 3, 1, 2, STM_CONFORM_ROWS};
    stm_conform_bench b;

    if (!stm_conform_open(k, &b)) return;
    if (stm_conform_load(k, &b)) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            stm_conform_rows rows = {0};

            run_all(k, &b, sizes[i] <= 3 ? 24 : STM_CONFORM_ROWS, sizes[i], false, &rows);
            stm_conform_rows_fini(&rows);
        }
        stm_conform_did(k, "batches of 1, 2, 3, 64 and %d rows, nulls, empty and long texts among them", STM_CONFORM_ROWS);
    }
    stm_conform_close(k, &b, "batches");
}

void stm_conform_check_absent(stm_conform *k)
{
    stm_conform_bench b;
    stm_conform_rows rows = {0};

    if (!stm_conform_open(k, &b)) return;
    if (stm_conform_load(k, &b) && stm_conform_rows_init(&rows, 5) == MILL_OK) {
        step_rows(k, &b, 0, 5, 0, true, &rows, NULL); /* it may fail: with a status */
        stm_conform_rows_fini(&rows);
        stm_conform_did(k, "a batch that has none of the columns (every row null)");
    }
    stm_conform_close(k, &b, "a batch without columns");
}

static bool deterministic(const mill_step_type *t) { return (t->flags & MILL_NONDETERMINISTIC) == 0; }

void stm_conform_check_repeat(stm_conform *k)
{
    stm_conform_bench b;
    stm_conform_rows one = {0}, two = {0};

    for (int i = 0; i < 2; i++) {
        if (!stm_conform_open(k, &b)) break;
        if (stm_conform_load(k, &b)) run_all(k, &b, STM_CONFORM_ROWS, 16, false, i == 0 ? &one : &two);
        stm_conform_close(k, &b, "batches");
    }
    if (one.n > 0 && two.n > 0)
        stm_conform_rows_tell(k, &one, "the first time", &two, "the second time",
             deterministic(k->type) ? "a type whose results change declares MILL_NONDETERMINISTIC" : "");
    stm_conform_rows_fini(&one);
    stm_conform_rows_fini(&two);
    stm_conform_did(k, "the same rows twice, by two replicas one after the other: the same bits");
}

void stm_conform_check_per_row(stm_conform *k)
{
    static const struct {
        int64_t size;
        bool backwards;
        const char *how;
    } ways[] = {{1, false, "in batches of 1 row"},
                {3, true, "in batches of 3 rows, last batch first"},
                {STM_CONFORM_ROWS, false, "in one batch with all rows"}};
    stm_conform_bench b;
    stm_conform_rows base = {0};

    if (!stm_conform_open(k, &b)) return;
    if (stm_conform_load(k, &b) && run_all(k, &b, STM_CONFORM_ROWS, 64, false, &base))
        for (size_t i = 0; i < 3; i++) {
            stm_conform_rows other = {0};

            if (run_all(k, &b, STM_CONFORM_ROWS, ways[i].size, ways[i].backwards, &other))
                stm_conform_rows_tell(k, &base, "in batches of 64 rows", &other, ways[i].how,
                     "with MILL_PER_ROW a row's result must not depend on its neighbours, nor on what came before");
            stm_conform_rows_fini(&other);
        }
    stm_conform_rows_fini(&base);
    stm_conform_close(k, &b, "batches");
    stm_conform_did(k, "batches of 64, 1, 3 (backwards) and %d rows: the same bits for every row", STM_CONFORM_ROWS);
}

void stm_conform_check_ownership(stm_conform *k)
{
    stm_conform_bench b;
    mill_batch *in;
    stm_probe_out out = {0};
    stm_conform_rows before = {0}, after = {0};
    mill_error e = {0};

    if (!stm_conform_open(k, &b)) return;
    if (!stm_conform_load(k, &b)) goto done;
    for (int64_t rows = 40;; rows /= 6) { /* a batch that it takes */
        memset(&e, 0, sizeof e);
        if ((in = stm_conform_batch(k, b.pool, 0, rows, 0, false)) == NULL) goto done;
        stm_conform_now(k, "process on a batch of %lld rows", (long long)rows);
        if (stm_probe_process(b.w, in, &out, &e) == MILL_OK) break;
        mill_batch_destroy(&in);
        if (rows <= 1) {
            stm_conform_skip(k, "process failed on every batch: %s", e.msg);
            goto done;
        }
    }
    if (stm_conform_rows_init(&before, 40) == MILL_OK && stm_conform_rows_init(&after, 40) == MILL_OK) {
        const int64_t rows = in->rows;

        stm_conform_now(k, "reading what process put out");
        stm_conform_rows_take(k, &before, b.step, &out, 0, rows);
        mill_batch_destroy(&in);
        stm_conform_now(k, "reading what process put out, after its input was released");
        stm_conform_rows_take(k, &after, b.step, &out, 0, rows);
        stm_conform_rows_tell(k, &before, "before", &after, "after the input was released", "outputs own their memory");
        stm_conform_rows_fini(&after);
        /* the next batch may use the replica's memory again, not that of what was handed over */
        if ((in = stm_conform_batch(k, b.pool, 20, 40, 0, false)) != NULL) {
            stm_probe_out next = {0};

            stm_conform_now(k, "process on a second batch, the first one released");
            memset(&e, 0, sizeof e);
            stm_probe_process(b.w, in, &next, &e);
            stm_probe_out_fini(&next);
            mill_batch_destroy(&in);
        }
        stm_conform_now(k, "unload");
        stm_wrapper_destroy(&b.w);
        if (stm_conform_rows_init(&after, 40) == MILL_OK) {
            stm_conform_now(k, "reading what process put out, after unload");
            stm_conform_rows_take(k, &after, b.step, &out, 0, rows);
            stm_conform_rows_tell(k, &before, "before", &after, "after another batch and unload", "outputs own their memory");
        }
    }
    mill_batch_destroy(&in);
done:
    stm_probe_out_fini(&out);
    stm_conform_rows_fini(&before);
    stm_conform_rows_fini(&after);
    stm_conform_close(k, &b, "a batch");
    stm_conform_did(k, "outputs read again after the input went, after the next batch and after unload");
}

void stm_conform_check_cancelled(stm_conform *k)
{
    stm_conform_bench b;
    stm_conform_rows rows = {0};

    if (!stm_conform_open(k, &b)) return;
    if (stm_conform_load(k, &b) && stm_conform_rows_init(&rows, STM_CONFORM_ROWS) == MILL_OK) {
        stm_wrapper_cancel(b.w);
        step_rows(k, &b, 0, 64, 0, false, &rows, NULL);
        stm_conform_rows_fini(&rows);
    }
    stm_conform_close(k, &b, "a cancelled batch");
    stm_conform_did(k, "a batch while the run is being stopped");
}

/* Calls with the n-th @p what failing, until none is left to fail; then one without: its state must be as before. */
static void with_faults(stm_conform *k, uint32_t kinds, int64_t most, const char *what)
{
    const int64_t rows = 20;

    for (int64_t nth = 0; nth < most; nth++) {
        stm_conform_bench b;
        stm_probe_out out = {0};
        mill_error e = {0};
        mill_batch *in;
        bool fired;
        mill_status st;

        if (!stm_conform_open(k, &b)) return;
        if (!stm_conform_load(k, &b) || (in = stm_conform_batch(k, b.pool, 0, rows, 0, false)) == NULL) {
            stm_conform_close(k, &b, "load");
            return;
        }
        stm_conform_now(k, "process on a batch of %lld rows, while %s", (long long)rows, what);
        stm_fault_arm(kinds, nth);
        st = stm_probe_process(b.w, in, &out, &e);
        fired = stm_fault_disarm();
        if (fired && stm_probe_is_breach(&e))
            stm_conform_find(k, "process returns success although %s: %s", what, e.msg);
        else if (fired && st != MILL_OK && e.msg[0] == '\0')
            stm_conform_find(k, "process fails without a message while %s", what);
        stm_probe_out_fini(&out);
        stm_conform_now(k, "process on a batch of %lld rows, after one where %s", (long long)rows, what);
        memset(&e, 0, sizeof e);
        if (stm_probe_process(b.w, in, &out, &e) == MILL_OK) {
            stm_conform_rows r = {0};

            if (stm_conform_rows_init(&r, (size_t)rows) == MILL_OK) stm_conform_rows_take(k, &r, b.step, &out, 0, rows);
            stm_conform_rows_fini(&r);
        } else if (stm_probe_is_breach(&e)) {
            stm_conform_find(k, "process does not recover after a batch where %s: %s", what, e.msg);
        }
        stm_probe_out_fini(&out);
        mill_batch_destroy(&in);
        stm_conform_close(k, &b, what);
        if (!fired) break;
    }
}

void stm_conform_check_emit_fails(stm_conform *k)
{
    with_faults(k, STM_FAULT_EMIT, 8, "an emit fails");
    stm_conform_did(k, "an emit that is refused: a status comes back, nothing leaks, the next batch is right");
}

void stm_conform_check_memory(stm_conform *k)
{
    with_faults(k, STM_FAULT_ALLOC, 32, "memory runs out");
    stm_conform_did(k, "memory that runs out at each place: a status comes back, nothing leaks, the next batch is right");
}

/* ---- replicas at the same time ---------------------------------------------------------------------------------------- */

typedef struct worker {
    stm_wrapper *w;
    bool backwards; /* so that the two are never busy with the same rows for long */
    mill_batch *in[8];
    stm_probe_out out[8];
    mill_status st[8];
} worker;

static void *work(void *arg)
{
    worker *me = arg;

    for (int n = 0; n < 8; n++) {
        const int i = me->backwards ? 7 - n : n;
        mill_error e = {0};
        me->st[i] = me->in[i] != NULL ? stm_probe_process(me->w, me->in[i], &me->out[i], &e) : MILL_ERR_NOMEM;
    }
    return NULL;
}

void stm_conform_check_replicas(stm_conform *k)
{
    stm_conform_bench b, other = {0};
    stm_conform_rows results[2] = {{0}, {0}};
    worker workers[2] = {{0}};
    pthread_t thread;

    if (!stm_conform_open(k, &b)) return;
    if (stm_conform_load(k, &b) && stm_conform_second(k, &b, &other) && stm_conform_load(k, &other)) {
        workers[0].w = b.w;
        workers[1].w = other.w;
        workers[1].backwards = (k->type->flags & MILL_ORDERED) == 0;
        for (int i = 0; i < 16; i++) workers[i / 8].in[i % 8] = stm_conform_batch(k, b.pool, i % 8 * 8, 8, 0, false);
        stm_conform_now(k, "process of two replicas at the same time, on batches of 8 rows");
        if (pthread_create(&thread, NULL, work, &workers[1]) == 0) {
            work(&workers[0]);
            pthread_join(thread, NULL);
        }
        stm_conform_now(k, "reading what two replicas put out");
        for (int i = 0; i < 2; i++) {
            if (stm_conform_rows_init(&results[i], 64) != MILL_OK) break;
            for (int c = 0; c < 8; c++) {
                if (workers[i].st[c] == MILL_OK)
                    stm_conform_rows_take(k, &results[i], b.step, &workers[i].out[c], (size_t)c * 8, 8);
                else
                    for (int r = 0; r < 8; r++) results[i].row[c * 8 + r].failed = true;
            }
        }
        if (deterministic(k->type) && results[1].n > 0)
            stm_conform_rows_tell(k, &results[0], "from one replica", &results[1], "from another at the same time",
                                  "replicas must not share what they change");
        for (int i = 0; i < 16; i++) {
            stm_probe_out_fini(&workers[i / 8].out[i % 8]);
            mill_batch_destroy(&workers[i / 8].in[i % 8]);
        }
        for (int i = 0; i < 2; i++) stm_conform_rows_fini(&results[i]);
    }
    stm_conform_close_second(k, &other);
    stm_conform_close(k, &b, "batches");
    stm_conform_did(k, "two replicas at the same time: the same bits from both");
}
