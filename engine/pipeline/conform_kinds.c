/* Checks of generators, globals, routers, and steps with submit. Each runs in a process of its own. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "batch/batch.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fault.h"
#include "pipeline/conform.h"

static void differ(stm_conform *k, const stm_conform_rows *a, const char *how_a, const stm_conform_rows *b, const char *how_b,
                   const char *so)
{
    const int64_t at = stm_conform_rows_differ(a, b);
    char ta[120], tb[120];

    if (at < 0) return;
    stm_conform_find(k, "row %lld is %s %s and %s %s; %s", (long long)at, stm_conform_rows_show(a, at, ta, sizeof ta), how_a,
                     stm_conform_rows_show(b, at, tb, sizeof tb), how_b, so);
}

/* ---- generators ------------------------------------------------------------------------------------------------------- */

enum { KEEP = 64, MANY_ROWS = 100000 };

typedef struct stream {
    stm_conform_rows rows;
    mill_cursor cursor[KEEP]; /* after each of the first batches */
    size_t after[KEEP];       /* rows then */
    int32_t batches;
    bool ended;
} stream;

/* Everything from @p from on, at most @p size rows a time and @p most batches. False: said. */
static bool stream_read(stm_conform *k, stm_conform_bench *b, const mill_cursor *from, int64_t size, int32_t most, stream *s)
{
    mill_cursor cursor = *from;

    for (; !s->ended && s->batches < most && s->rows.n < MANY_ROWS; s->batches++) {
        stm_probe_out out = {0};
        mill_error e = {0};
        bool last = false;
        mill_status st;

        stm_conform_now(k, "generate of at most %lld rows, batch %d", (long long)size, (int)s->batches);
        st = stm_probe_generate(b->w, size, &cursor, &last, &out, &e);
        if (st != MILL_OK) {
            if (stm_probe_is_breach(&e))
                stm_conform_find(k, "generate of at most %lld rows: %s", (long long)size, e.msg);
            else {
                stm_conform_skip(k, "generate failed: %s", e.msg);
                k->note->wants_help = true;
            }
            return false;
        }
        if (cursor.size > sizeof cursor.bytes) {
            stm_conform_find(k, "generate says a cursor of %u bytes; there is room for %zu", (unsigned)cursor.size,
                             sizeof cursor.bytes);
            stm_probe_out_fini(&out);
            return false;
        }
        if (out.n == 0) last = true;
        stm_conform_now(k, "reading what generate put out");
        stm_conform_rows_take(k, &s->rows, b->step, &out, s->rows.n, -1);
        stm_probe_out_fini(&out);
        if (s->batches < KEEP) {
            s->cursor[s->batches] = cursor;
            s->after[s->batches] = s->rows.n;
        }
        s->ended = last;
    }
    return true;
}

static bool stream_open(stm_conform *k, const mill_cursor *from, int64_t size, int32_t most, stream *s)
{
    stm_conform_bench b;
    bool good = false;

    *s = (stream){0};
    if (!stm_conform_open(k, &b)) return false;
    if (stm_conform_load(k, &b)) good = stm_conform_rows_init(&s->rows, 0) == MILL_OK && stream_read(k, &b, from, size, most, s);
    stm_conform_close(k, &b, "batches");
    return good;
}

void stm_conform_check_generate(stm_conform *k)
{
    static const int64_t sizes[] = {1, 3, 1000};
    const mill_cursor start = {0};
    stream base, other;

    if (!stream_open(k, &start, 64, STM_CONFORM_MAX_BATCHES, &base)) return;
    if (!base.ended) stm_conform_did(k, "endless: looked at the first %zu rows", base.rows.n);
    else stm_conform_did(k, "batches of at most 64, 1, 3 and 1000 rows: the same %zu rows", base.rows.n);
    for (size_t i = 0; i < 3; i++) {
        if (stream_open(k, &start, sizes[i], base.ended && base.rows.n < STM_CONFORM_MAX_BATCHES ? STM_CONFORM_MAX_BATCHES : 200,
                        &other) &&
            (k->type->flags & MILL_NONDETERMINISTIC) == 0) {
            char how[64];

            if (!base.ended || !other.ended) { /* what both have */
                while (base.rows.n > other.rows.n) stm_free(base.rows.row[--base.rows.n].text);
                while (other.rows.n > base.rows.n) stm_free(other.rows.row[--other.rows.n].text);
            }
            snprintf(how, sizeof how, "when asked for at most %lld rows", (long long)sizes[i]);
            differ(k, &base.rows, "when asked for at most 64 rows", &other.rows, how,
                   "the rows of a generator do not depend on max_rows");
        }
        stm_conform_rows_fini(&other.rows);
    }
    stm_conform_rows_fini(&base.rows);
}

void stm_conform_check_resume(stm_conform *k)
{
    const mill_cursor start = {0};
    stream base, rest;
    int32_t tried = 0;

    if (!stream_open(k, &start, 3, 400, &base)) return;
    for (int32_t i = 0; i < base.batches && i < KEEP && tried < 8; i = i < 4 ? i + 1 : i * 2, tried++) {
        if (base.cursor[i].size == 0 && base.after[i] > 0 && !(base.ended && i + 1 == base.batches)) {
            stm_conform_find(k, "generate leaves the cursor at the beginning (size 0) after %zu rows", base.after[i]);
            break;
        }
        if (base.ended && i + 1 == base.batches) break; /* nothing is asked after the last */
        if (stream_open(k, &base.cursor[i], 3, 400 - i - 1, &rest)) {
            stm_conform_rows tail = {.row = base.rows.row + base.after[i], .n = base.rows.n - base.after[i]};
            char so[160];

            if (!base.ended && rest.rows.n > tail.n)
                while (rest.rows.n > tail.n) stm_free(rest.rows.row[--rest.rows.n].text);
            if (!base.ended && rest.rows.n < tail.n) tail.n = rest.rows.n;
            snprintf(so, sizeof so, "counted from the cursor after %zu rows: a replica that gets a cursor goes on exactly there",
                     base.after[i]);
            if ((k->type->flags & MILL_NONDETERMINISTIC) == 0)
                differ(k, &tail, "without a restart", &rest.rows, "when a new replica goes on", so);
            else if (base.ended && rest.rows.n != tail.n)
                stm_conform_find(k, "a new replica that goes on after %zu rows gives %zu rows, not the %zu that are left",
                                 base.after[i], rest.rows.n, tail.n);
        }
        stm_conform_rows_fini(&rest.rows);
        if (k->note->n_findings > 0) break;
    }
    stm_conform_rows_fini(&base.rows);
    stm_conform_did(k, "new replicas that go on from %d cursors: exactly the rest of the rows", (int)tried);
}

void stm_conform_check_generate_emit(stm_conform *k)
{
    for (int i = 0; i < 2; i++) {
        const uint32_t kind = i == 0 ? STM_FAULT_EMIT : STM_FAULT_ALLOC;
        const char *what = i == 0 ? "an emit that fails" : "memory that runs out";

        for (int64_t nth = 0; nth < 24; nth++) {
            stm_conform_bench b;
            mill_cursor cursor = {0}, before;
            stm_probe_out out = {0};
            mill_error e = {0};
            bool last = false, fired;

            if (!stm_conform_open(k, &b)) return;
            if (stm_conform_load(k, &b)) {
                before = cursor;
                stm_conform_now(k, "generate with %s", what);
                stm_fault_arm(kind, nth);
                stm_probe_generate(b.w, 16, &cursor, &last, &out, &e);
                fired = stm_fault_disarm();
                stm_probe_out_fini(&out);
                if (fired) { /* again from the old cursor, as a retry would */
                    stm_conform_now(k, "generate after %s", what);
                    memset(&e, 0, sizeof e);
                    stm_probe_generate(b.w, 16, &before, &last, &out, &e);
                    stm_probe_out_fini(&out);
                }
            } else {
                fired = false;
            }
            stm_conform_close(k, &b, what);
            if (!fired) break;
        }
    }
    stm_conform_did(k, "an emit that is refused and memory that runs out: a status comes back, nothing leaks");
}

/* ---- globals -------------------------------------------------------------------------------------------------------------- */

typedef struct collected {
    stm_conform *k;
    stm_conform_rows rows;
    const mill_step *step;
    bool failing; /* whoever takes batches fails */
} collected;

static mill_status collect(void *user, mill_batch **b, mill_error *err)
{
    collected *c = user;

    if (c->failing) return mill_fail(err, MILL_ERR_NOMEM, "no room for a batch (asked for by a check)");
    for (int64_t r = 0; r < (*b)->rows; r++) stm_conform_rows_add(&c->rows, c->rows.n, c->step, *b, r);
    mill_batch_destroy(b);
    return MILL_OK;
}

/* All rows in batches of @p size, then finish. */
static bool run_global(stm_conform *k, int64_t rows, int64_t size, collected *c)
{
    stm_conform_bench b;
    mill_error e = {0};
    mill_status st = MILL_OK;
    bool good = false;

    *c = (collected){.k = k, .failing = c->failing};
    if (!stm_conform_open(k, &b)) return false;
    if (!stm_conform_load(k, &b) || stm_conform_rows_init(&c->rows, 0) != MILL_OK) goto done;
    c->step = b.step;
    for (int64_t first = 0; first < rows && st == MILL_OK; first += size) {
        const int64_t n = rows - first < size ? rows - first : size;
        mill_batch *in = stm_conform_batch(k, b.pool, first, n, first % 2, false);

        if (in == NULL) goto done;
        stm_conform_now(k, "accept of a batch of %lld row%s", (long long)n, n == 1 ? "" : "s");
        st = stm_probe_accept(b.w, 0, in, &e);
        mill_batch_destroy(&in);
    }
    if (st != MILL_OK) {
        stm_conform_skip(k, "accept failed: %s", e.msg);
        k->note->wants_help = true;
        goto done;
    }
    stm_conform_now(k, "finish after %lld rows", (long long)rows);
    st = stm_wrapper_finish(b.w, collect, c, &e);
    good = st == MILL_OK;
    if (c->failing && good && c->step->n_outputs > 0 && rows > 0)
        stm_conform_did(k, "finish without a batch to send on");
    if (good || c->failing) goto done;
    if (stm_probe_is_breach(&e) || rows == 0)
        stm_conform_find(k, "finish after %lld rows: %s", (long long)rows, e.msg);
    else
        stm_conform_skip(k, "finish failed: %s", e.msg);
done:
    stm_conform_close(k, &b, "finish");
    return good;
}

void stm_conform_check_global_empty(stm_conform *k)
{
    collected c = {0};

    run_global(k, 0, 1, &c);
    stm_conform_rows_fini(&c.rows);
    stm_conform_did(k, "finish without any accept");
}

void stm_conform_check_global(stm_conform *k)
{
    static const int64_t sizes[] = {1, 3, STM_CONFORM_ROWS};
    collected base = {0}, other = {0};

    if (!run_global(k, STM_CONFORM_ROWS, 64, &base)) return;
    for (size_t i = 0; i < 3; i++) {
        if (run_global(k, STM_CONFORM_ROWS, sizes[i], &other) &&
            (k->type->flags & (MILL_NONDETERMINISTIC | MILL_BATCH_SENSITIVE)) == 0)
            differ(k, &base.rows, "when accepted in batches of 64 rows", &other.rows,
                   sizes[i] == 1 ? "in batches of 1" : "in batches of another size",
                   "a global's output does not depend on how its rows were cut into batches");
        stm_conform_rows_fini(&other.rows);
    }
    stm_conform_rows_fini(&base.rows);
    stm_conform_did(k, "the same rows in batches of 64, 1, 3 and %d: the same output", STM_CONFORM_ROWS);
}

void stm_conform_check_global_emit(stm_conform *k)
{
    collected c = {.failing = true};

    run_global(k, STM_CONFORM_ROWS, 64, &c);
    stm_conform_rows_fini(&c.rows);
    for (int64_t nth = 0; nth < 32; nth++) {
        stm_conform_bench b;
        mill_error e = {0};
        mill_batch *in;
        bool fired = false;

        c = (collected){.k = k};
        if (!stm_conform_open(k, &b)) return;
        if (stm_conform_load(k, &b) && (in = stm_conform_batch(k, b.pool, 0, 30, 0, false)) != NULL) {
            c.step = b.step;
            stm_conform_now(k, "accept and finish with memory running out");
            stm_fault_arm(STM_FAULT_ALLOC | STM_FAULT_EMIT, nth);
            if (stm_probe_accept(b.w, 0, in, &e) == MILL_OK) stm_wrapper_finish(b.w, collect, &c, &e);
            fired = stm_fault_disarm();
            mill_batch_destroy(&in);
            stm_conform_rows_fini(&c.rows);
        }
        stm_conform_close(k, &b, "memory running out");
        if (!fired) break;
    }
    stm_conform_did(k, "batches that nobody can take and memory that runs out: a status comes back, nothing leaks");
}

/* ---- routers ---------------------------------------------------------------------------------------------------------------- */

void stm_conform_check_route(stm_conform *k)
{
    static const int64_t sizes[] = {64, 3, 1};
    stm_conform_bench b;
    int32_t batches = 0, routed = 0;
    mill_error first = {0};

    if (!stm_conform_open(k, &b)) return;
    if (!stm_conform_load(k, &b)) {
        stm_conform_close(k, &b, "a load that failed");
        return;
    }
    for (size_t i = 0; i < 3; i++)
        for (int64_t at = 0; at + sizes[i] <= 64; at += sizes[i]) {
            mill_batch *in = stm_conform_batch(k, b.pool, at, sizes[i], at % 2, false);
            bool taken[64] = {false};
            mill_error e = {0};
            mill_status st;

            if (in == NULL) break;
            stm_conform_now(k, "route of a batch of %lld row%s", (long long)sizes[i], sizes[i] == 1 ? "" : "s");
            st = stm_wrapper_route(b.w, in, taken, &e);
            mill_batch_destroy(&in);
            batches++;
            if (st == MILL_OK) {
                routed++;
                continue;
            }
            if (first.status == MILL_OK) first = e;
            if (strstr(e.msg, "chose no branch") != NULL)
                stm_conform_find(k, "route of a batch of %lld rows names no branch; call mill_route_to at least once, or fail",
                                 (long long)sizes[i]);
            else if (strstr(e.msg, "router chose branch") != NULL)
                stm_conform_find(k, "route of a batch of %lld rows: %s", (long long)sizes[i], e.msg);
        }
    if (routed == 0 && k->note->n_findings == 0) {
        stm_conform_skip(k, "route failed on every batch: %s", first.msg);
        k->note->wants_help = true;
    }
    stm_conform_close(k, &b, "batches");
    stm_conform_did(k, "%d of %d batches of 1, 3 and 64 rows were given a branch; the others failed with a status", (int)routed,
                    (int)batches);
}

/* ---- submit and poll
 * ---------------------------------------------------------------------------------------------------------- */

static void nap(void)
{
    const struct timespec t = {0, 1000000};
    nanosleep(&t, NULL);
}

/* Rows of a finished batch into their places, by key. */
static void keep(stm_conform_rows *rows, const mill_step *s, const mill_batch *b)
{
    mill_batch *view = NULL;

    if (stm_batch_create(b->pool, b->rows, s->n_outputs, 0, &view) != MILL_OK) return;
    for (int32_t i = 0; i < s->n_outputs; i++)
        if (b->columns[s->outputs[i].column] != NULL) view->columns[i] = mill_column_ref(b->columns[s->outputs[i].column]);
    for (int64_t r = 0; r < b->rows; r++) {
        int64_t key[64];

        stm_batch_key(b, r, key);
        if (key[0] < 0 || (size_t)key[0] >= rows->n) continue;
        if (b->marks != NULL && ((const int64_t *)mill_column_view(b->marks).data)[mill_column_view(b->marks).offset + r] != 0)
            rows->row[key[0]].failed = true;
        stm_conform_rows_add(rows, (size_t)key[0], s, view, r);
    }
    mill_batch_destroy(&view);
}

/* All rows as tickets of @p size; every one must come back. */
static bool run_submit(stm_conform *k, int64_t total, int64_t size, stm_conform_rows *rows)
{
    stm_conform_bench b;
    mill_error e = {0};
    int64_t done = 0, first = 0, since;
    const double patience = k->opts->timeout_s / 2;
    bool good = false;

    if (!stm_conform_open(k, &b)) return false;
    if (!stm_conform_load(k, &b) || stm_conform_rows_init(rows, (size_t)total) != MILL_OK) goto done;
    since = stm_now_ns();
    while (done < total) {
        mill_batch *out[16];
        int32_t n = 0;

        while (first < total && !stm_wrapper_full(b.w)) {
            const int64_t rows_now = total - first < size ? total - first : size;
            stm_ready in = {.batch = stm_conform_batch(k, b.pool, first, rows_now, 0, false)};

            if (in.batch == NULL) goto done;
            stm_conform_now(k, "submit of a batch of %lld row%s", (long long)rows_now, rows_now == 1 ? "" : "s");
            if (stm_wrapper_submit(b.w, &in, &e) != MILL_OK) goto failed;
            first += rows_now;
        }
        if (first == total) { /* in each round, as at the end of a run: what was refused is handed over again by a poll */
            stm_conform_now(k, "flush");
            if (stm_wrapper_flush(b.w, &e) != MILL_OK) goto failed;
        }
        stm_conform_now(k, "poll with %d tickets in flight", (int)stm_wrapper_in_flight(b.w));
        if (stm_wrapper_poll(b.w, out, 16, &n, &e) != MILL_OK) goto failed;
        for (int32_t i = 0; i < n; i++) {
            done += out[i]->rows;
            keep(rows, b.step, out[i]);
            mill_batch_destroy(&out[i]);
        }
        if (n > 0) since = stm_now_ns();
        if (n == 0 && (double)(stm_now_ns() - since) > patience * 1e9) {
            stm_conform_find(
                k, "%d tickets were not answered within %g s, after flush: every row of a submit needs a result or a failure",
                (int)stm_wrapper_in_flight(b.w), patience);
            goto done;
        }
        if (n == 0) nap();
    }
    good = true;
    goto done;
failed:
    stm_conform_skip(k, "submit or poll failed: %s", e.msg);
    k->note->wants_help = true;
done:
    for (int64_t id = 1; id <= stm_errors_count(b.errors); id++) {
        const stm_error_record *rec = stm_errors_get(b.errors, id);

        if (strcmp(rec->error.origin, "inflight.c") == 0) stm_conform_find(k, "poll: %s", rec->error.msg);
        good = good && rec->error.status != MILL_OK;
    }
    stm_conform_close(k, &b, "tickets");
    return good;
}

void stm_conform_check_submit(stm_conform *k)
{
    stm_conform_rows one = {0}, two = {0};
    const bool a = run_submit(k, 40, 8, &one), z = a && run_submit(k, 40, 3, &two);

    if (a && z && (k->type->flags & MILL_PER_ROW) != 0 && (k->type->flags & MILL_NONDETERMINISTIC) == 0)
        differ(k, &one, "in batches of 8 rows", &two, "in batches of 3 rows",
               "with MILL_PER_ROW a row's result must not depend on its neighbours");
    stm_conform_rows_fini(&one);
    stm_conform_rows_fini(&two);
    stm_conform_did(k, "tickets of 8 and 3 rows: every row is answered once");
}

void stm_conform_check_submit_cancel(stm_conform *k)
{
    stm_conform_bench b;

    if (!stm_conform_open(k, &b)) return;
    if (stm_conform_load(k, &b)) {
        mill_error e = {0};

        for (int64_t i = 0; i < 4 && !stm_wrapper_full(b.w); i++) {
            stm_ready in = {.batch = stm_conform_batch(k, b.pool, i * 8, 8, 0, false)};

            if (in.batch == NULL) break;
            stm_conform_now(k, "submit of a batch of 8 rows");
            if (stm_wrapper_submit(b.w, &in, &e) != MILL_OK) break;
        }
        stm_conform_now(k, "cancel of the tickets in flight, and unload");
        stm_wrapper_unload(b.w);
    }
    stm_conform_close(k, &b, "cancelled tickets");
    stm_conform_did(k, "cancel and unload with tickets in flight: nothing leaks");
}
