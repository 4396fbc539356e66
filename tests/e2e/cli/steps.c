/* Step types for tests of the command: rows that come slowly, steps that fail in every way. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "stepmill/step.h"

static void pause_for(double seconds)
{
    const struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

    nanosleep(&t, NULL);
}

/* As by a wild pointer, also where a sanitizer would rather make a report of it. */
static void crash(void)
{
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
}

/* For ever, and deaf to mill_replica_cancelled. The file that E2E_HANGS names, if it does, says that it has begun. */
static void hang(void)
{
    const char *path = getenv("E2E_HANGS");
    const int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666) : -1;

    if (fd >= 0) close(fd);
    for (;;) pause_for(0.1);
}

/* ---- e2e_count: column id, 0 .. rows-1 ------------------------------------------------------------------------------ */

struct count {
    int64_t rows, fail_at, crash_at;
    double pause;
};

static const mill_param count_params[] = {
    {"rows", MILL_PARAM_INT, 0, "10", 0, 1e9, NULL, "rows to make"},
    {"pause", MILL_PARAM_DURATION, 0, "0s", 0, 60, NULL, "before each batch"},
    {"fail_at", MILL_PARAM_INT, 0, "-1", -1, 1e9, NULL, "row at which it fails"},
    {"crash_at", MILL_PARAM_INT, 0, "-1", -1, 1e9, NULL, "row at which it ends the process"},
};
static const mill_column_decl id_out[] = {{"id", "int64", "row number"}};

static mill_status count_configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    struct count *k = malloc(sizeof *k);

    (void)io;
    if (k == NULL) return mill_fail(err, MILL_ERR_NOMEM, "e2e_count");
    k->rows = mill_config_int(c, "rows");
    k->fail_at = mill_config_int(c, "fail_at");
    k->crash_at = mill_config_int(c, "crash_at");
    k->pause = mill_config_float(c, "pause");
    mill_step_set_state(s, k, free);
    return MILL_OK;
}

static mill_status count_generate(mill_replica *r, int64_t max_rows, mill_cursor *cursor, bool *last, mill_emit *out,
                                  mill_error *err)
{
    const struct count *k = mill_step_state(mill_replica_step(r));
    int64_t at = 0, n;
    mill_builder *b = NULL;
    mill_batch *batch = NULL;
    mill_column *col = NULL;
    mill_status st;

    if (cursor->size == sizeof at) memcpy(&at, cursor->bytes, sizeof at);
    n = k->rows - at < max_rows ? k->rows - at : max_rows;
    if (k->pause > 0) pause_for(k->pause);
    if (k->crash_at >= at && k->crash_at < at + n) crash();
    if (k->fail_at >= at && k->fail_at < at + n)
        return mill_fail(err, MILL_ERR_IO, "the source broke at row %lld", (long long)k->fail_at);
    if ((st = mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_INT64), &b)) != MILL_OK) return st;
    for (int64_t i = 0; i < n && st == MILL_OK; i++) st = mill_builder_int(b, at + i);
    if (st == MILL_OK) st = mill_builder_finish(b, &col);
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), n, 1, &batch);
    if (st == MILL_OK) st = mill_batch_set_column(batch, 0, &col);
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, NULL, err);
    mill_column_unref(&col);
    mill_batch_destroy(&batch);
    mill_builder_destroy(&b);
    at += n;
    memcpy(cursor->bytes, &at, sizeof at);
    cursor->size = sizeof at;
    *last = at >= k->rows;
    return st;
}

static const mill_step_type count_type = {
    .struct_size = sizeof count_type,
    .abi = MILL_ABI_1,
    .kind = MILL_GENERATOR,
    .name = "e2e_count",
    .summary = "numbers",
    .params = count_params,
    .n_params = sizeof count_params / sizeof *count_params,
    .outputs = id_out,
    .n_outputs = 1,
    .configure = count_configure,
    .generate = count_generate,
    .flags = MILL_BLOCKS,
};

/* ---- e2e_work: lets rows through, or does not ------------------------------------------------------------------------ */

enum { FINE, FAIL, HANG, LOAD_FAIL, LOAD_HANG, UNLOAD_HANG, CRASH, EXIT, LOAD_CRASH, LOSE, UNLOAD_CRASH };
static const mill_param work_params[] = {
    {"mode", MILL_PARAM_ENUM, 0, "fine", 0, 0,
     "fine|fail|hang|load_fail|load_hang|unload_hang|crash|exit|load_crash|lose|unload_crash",
     "what it does"},
    {"at", MILL_PARAM_INT, 0, "0", 0, 1e9, NULL,
     "fail, hang, crash, exit, lose: the row at which it does; unload_hang, unload_crash: the replica"},
    {"more", MILL_PARAM_STRINGS, MILL_PARAM_OPTIONAL, NULL, 0, 0, NULL, "further such rows"},
    {"pause", MILL_PARAM_DURATION, 0, "0s", 0, 60, NULL, "per batch"},
    {"model", MILL_PARAM_PATH, MILL_PARAM_OPTIONAL, NULL, 0, 0, NULL, "a file that its results hang on"},
};
static const mill_column_decl id_in[] = {{"id", "int64", "row number"}};
static const mill_column_decl double_out[] = {{"doubled", "int64", "twice the number"}};

/* The rows at which something happens. */
struct rows {
    int64_t at[16];
    size_t n;
};

static void rows_of(const mill_config *c, struct rows *out)
{
    out->at[out->n++] = mill_config_int(c, "at");
    for (size_t i = 0; i < mill_config_count(c, "more") && out->n < 16; i++)
        out->at[out->n++] = strtoll(mill_config_item(c, "more", i), NULL, 10);
}

static bool is_of(const struct rows *r, int64_t id)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->at[i] == id) return true;
    return false;
}

struct work {
    int mode;
    int64_t at;
    struct rows bad;
    double pause;
};

static mill_status work_configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    static const char *const modes[] = {"fine",        "fail",  "hang", "load_fail",  "load_hang",
                                        "unload_hang", "crash", "exit", "load_crash", "lose", "unload_crash"};
    struct work *w = calloc(1, sizeof *w);

    (void)io;
    if (w == NULL) return mill_fail(err, MILL_ERR_NOMEM, "e2e_work");
    while (strcmp(modes[w->mode], mill_config_text(c, "mode")) != 0) w->mode++;
    w->at = mill_config_int(c, "at");
    rows_of(c, &w->bad);
    w->pause = mill_config_float(c, "pause");
    mill_step_set_state(s, w, free);
    return MILL_OK;
}

static mill_status work_load(mill_replica *r, mill_error *err)
{
    const struct work *w = mill_step_state(mill_replica_step(r));

    if (w->mode == LOAD_FAIL) return mill_fail(err, MILL_ERR_NOT_FOUND, "there is no model");
    if (w->mode == LOAD_CRASH) crash();
    if (w->mode == LOAD_HANG) hang();
    return MILL_OK;
}

static void work_unload(mill_replica *r)
{
    const struct work *w = mill_step_state(mill_replica_step(r));

    if (w->mode == UNLOAD_HANG && mill_replica_index(r) == w->at) hang();
    if (w->mode == UNLOAD_CRASH && mill_replica_index(r) == w->at) crash();
}

static mill_status work_process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const struct work *w = mill_step_state(mill_replica_step(r));
    const mill_column *ids = mill_batch_column(in[0], 0);
    const mill_view v = ids != NULL ? mill_column_view(ids) : (mill_view){.rows = 0}; /* absent: every row null */
    const int64_t *id = ids != NULL ? (const int64_t *)v.data + v.offset : NULL;
    mill_builder *b = NULL;
    mill_batch *batch = NULL;
    mill_column *col = NULL;
    mill_status st;

    (void)n_in;
    if (w->pause > 0) pause_for(w->pause);
    for (int64_t i = 0; i < v.rows; i++) {
        if (w->mode == FAIL && id[i] == w->at) return mill_fail(err, MILL_ERR_STEP, "row %lld is bad", (long long)id[i]);
        if (!is_of(&w->bad, id[i])) continue;
        if (w->mode == HANG) hang();
        if (w->mode == CRASH) crash();
        if (w->mode == EXIT) _exit(0);
        if (w->mode == LOSE) return mill_fail(err, MILL_ERR_DEVICE, "the device fell off the bus at row %lld", (long long)id[i]);
    }
    if ((st = mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_INT64), &b)) != MILL_OK) return st;
    for (int64_t i = 0; i < v.rows && st == MILL_OK; i++) st = mill_builder_int(b, 2 * id[i]);
    if (st == MILL_OK && ids != NULL) st = mill_builder_finish(b, &col);
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), mill_batch_rows(in[0]), 1, &batch);
    if (st == MILL_OK && ids != NULL) st = mill_batch_set_column(batch, 0, &col);
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, NULL, err);
    mill_column_unref(&col);
    mill_batch_destroy(&batch);
    mill_builder_destroy(&b);
    return st;
}

static const mill_step_type work_type = {
    .struct_size = sizeof work_type,
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_PER_ROW | MILL_BLOCKS,
    .name = "e2e_work",
    .summary = "doubles, fails, hangs",
    .params = work_params,
    .n_params = sizeof work_params / sizeof *work_params,
    .inputs = id_in,
    .n_inputs = 1,
    .outputs = double_out,
    .n_outputs = 1,
    .configure = work_configure,
    .load = work_load,
    .unload = work_unload,
    .process = work_process,
};

/* ---- e2e_ask: the same through tickets, of which it holds some before it answers the first
 * ------------------------------------- */

enum { ASK_FINE, ASK_SUBMIT, ASK_POLL, ASK_HANG, ASK_THREAD, ASK_CANCEL };
static const mill_param ask_params[] = {
    {"mode", MILL_PARAM_ENUM, 0, "fine", 0, 0, "fine|submit|poll|hang|thread|cancel",
     "in which call it ends the process, or does not return (hang: poll); cancel: of a ticket that it never answers"},
    {"at", MILL_PARAM_INT, 0, "-1", -1, 1e9, NULL, "row at which it does"},
    {"more", MILL_PARAM_STRINGS, MILL_PARAM_OPTIONAL, NULL, 0, 0, NULL, "further such rows"},
    {"holds", MILL_PARAM_INT, 0, "4", 1, 16, NULL, "tickets that it holds at a time"},
};

struct ask {
    int mode;
    int64_t holds;
    struct rows bad;
};

struct asked {
    struct {
        uint64_t ticket;
        const int64_t *id; /* of a batch that lives as long as the ticket */
        int64_t rows;
    } held[16];
    int64_t n;
    bool flushed;
};

static mill_status ask_configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    static const char *const modes[] = {"fine", "submit", "poll", "hang", "thread", "cancel"};
    struct ask *a = calloc(1, sizeof *a);

    (void)io;
    if (a == NULL) return mill_fail(err, MILL_ERR_NOMEM, "e2e_ask");
    while (strcmp(modes[a->mode], mill_config_text(c, "mode")) != 0) a->mode++;
    rows_of(c, &a->bad);
    a->holds = mill_config_int(c, "holds");
    mill_step_set_state(s, a, free);
    return MILL_OK;
}

static mill_status ask_load(mill_replica *r, mill_error *err)
{
    struct asked *k = calloc(1, sizeof *k);

    if (k == NULL) return mill_fail(err, MILL_ERR_NOMEM, "e2e_ask");
    mill_replica_set_state(r, k);
    return MILL_OK;
}

static void ask_unload(mill_replica *r) { free(mill_replica_state(r)); }

static void *crash_soon(void *unused)
{
    (void)unused;
    pause_for(0.002);
    crash();
    return NULL;
}

static void ask_meets(const struct ask *a, int mode, const int64_t *id, int64_t rows)
{
    pthread_t t;

    for (int64_t i = 0; i < rows; i++) {
        if (a->mode != mode || !is_of(&a->bad, id[i])) continue;
        if (mode == ASK_HANG) hang();
        if (mode != ASK_THREAD) crash();
        pthread_create(&t, NULL, crash_soon, NULL);
        pthread_detach(t);
    }
}

static mill_status ask_submit(mill_replica *r, uint64_t ticket, mill_batch *const *in, size_t n_in, mill_error *err)
{
    const struct ask *a = mill_step_state(mill_replica_step(r));
    struct asked *k = mill_replica_state(r);
    const mill_view v = mill_column_view(mill_batch_column(in[0], 0));
    const int64_t *id = (const int64_t *)v.data + v.offset;

    (void)n_in;
    (void)err;
    if (k->n == a->holds) return MILL_ERR_AGAIN;
    ask_meets(a, ASK_SUBMIT, id, v.rows);
    ask_meets(a, ASK_THREAD, id, v.rows);
    k->held[k->n].ticket = ticket;
    k->held[k->n].id = id;
    k->held[k->n++].rows = v.rows;
    k->flushed = false;
    if (k->n == a->holds) mill_replica_wake(r);
    return MILL_OK;
}

static mill_status ask_answer(mill_replica *r, mill_results *out, uint64_t ticket, const int64_t *id, int64_t n, mill_error *err)
{
    int64_t *place = malloc((size_t)n * sizeof *place);
    mill_builder *b = NULL;
    mill_batch *batch = NULL;
    mill_column *col = NULL;
    mill_status st = place != NULL ? mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_INT64), &b) : MILL_ERR_NOMEM;

    for (int64_t i = 0; i < n && st == MILL_OK; i++) {
        place[i] = i;
        st = mill_builder_int(b, 2 * id[i]);
    }
    if (st == MILL_OK) st = mill_builder_finish(b, &col);
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), n, 1, &batch);
    if (st == MILL_OK) st = mill_batch_set_column(batch, 0, &col);
    if (st == MILL_OK) st = mill_results_rows(out, ticket, place, n, &batch, err);
    mill_column_unref(&col);
    mill_batch_destroy(&batch);
    mill_builder_destroy(&b);
    free(place);
    return st;
}

static bool is_bad(const struct ask *a, const struct asked *k, int64_t i)
{
    bool bad = false;

    for (int64_t j = 0; j < k->held[i].rows; j++) bad = bad || is_of(&a->bad, k->held[i].id[j]);
    return bad;
}

static mill_status ask_poll(mill_replica *r, mill_results *out, mill_error *err)
{
    const struct ask *a = mill_step_state(mill_replica_step(r));
    struct asked *k = mill_replica_state(r);
    mill_status st = MILL_OK;
    int64_t kept = 0;

    if (k->n < a->holds && !k->flushed) return MILL_OK; /* waits for company */
    if (a->mode == ASK_THREAD) pause_for(0.001);
    for (int64_t i = 0; i < k->n && st == MILL_OK; i++) {
        ask_meets(a, ASK_POLL, k->held[i].id, k->held[i].rows);
        ask_meets(a, ASK_HANG, k->held[i].id, k->held[i].rows);
        if (a->mode == ASK_THREAD && is_bad(a, k, i)) return MILL_OK; /* never answered: its thread is about to end all */
    }
    for (int64_t i = 0; i < k->n && st == MILL_OK; i++)
        if (a->mode == ASK_CANCEL && is_bad(a, k, i))
            k->held[kept++] = k->held[i];
        else
            st = ask_answer(r, out, k->held[i].ticket, k->held[i].id, k->held[i].rows, err);
    if (st == MILL_OK) k->n = kept;
    return st;
}

static void ask_cancel(mill_replica *r, uint64_t ticket)
{
    const struct ask *a = mill_step_state(mill_replica_step(r));
    struct asked *k = mill_replica_state(r);
    int64_t n = 0;

    for (int64_t i = 0; i < k->n; i++)
        if (k->held[i].ticket != ticket)
            k->held[n++] = k->held[i];
        else
            ask_meets(a, ASK_CANCEL, k->held[i].id, k->held[i].rows);
    k->n = n;
}

static mill_status ask_flush(mill_replica *r, mill_error *err)
{
    struct asked *k = mill_replica_state(r);

    (void)err;
    k->flushed = true;
    mill_replica_wake(r);
    return MILL_OK;
}

static const mill_step_type ask_type = {
    .struct_size = sizeof ask_type,
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_PER_ROW,
    .name = "e2e_ask",
    .summary = "doubles, by tickets; ends the process",
    .params = ask_params,
    .n_params = sizeof ask_params / sizeof *ask_params,
    .inputs = id_in,
    .n_inputs = 1,
    .outputs = double_out,
    .n_outputs = 1,
    .configure = ask_configure,
    .load = ask_load,
    .unload = ask_unload,
    .submit = ask_submit,
    .poll = ask_poll,
    .cancel = ask_cancel,
    .flush = ask_flush,
};

/* ---- e2e_total: every row gets the sum of its batch, so it shows how rows are cut ----------------------------------------- */

static const mill_column_decl total_out[] = {{"total", "int64", "sum of the numbers of the batch"}};

static mill_status total_process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const mill_column *ids = mill_batch_column(in[0], 0);
    const mill_view v = ids != NULL ? mill_column_view(ids) : (mill_view){.rows = 0}; /* absent: every row null */
    const int64_t *id = ids != NULL ? (const int64_t *)v.data + v.offset : NULL;
    int64_t sum = 0;
    mill_builder *b = NULL;
    mill_batch *batch = NULL;
    mill_column *col = NULL;
    mill_status st;

    (void)n_in;
    for (int64_t i = 0; i < v.rows; i++) sum += id[i];
    if ((st = mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_INT64), &b)) != MILL_OK) return st;
    for (int64_t i = 0; i < mill_batch_rows(in[0]) && st == MILL_OK; i++) st = mill_builder_int(b, sum);
    if (st == MILL_OK) st = mill_builder_finish(b, &col);
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), mill_batch_rows(in[0]), 1, &batch);
    if (st == MILL_OK) st = mill_batch_set_column(batch, 0, &col);
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, NULL, err);
    mill_column_unref(&col);
    mill_batch_destroy(&batch);
    mill_builder_destroy(&b);
    return st;
}

static const mill_step_type total_type = {
    .struct_size = sizeof total_type,
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_BATCH_SENSITIVE,
    .name = "e2e_total",
    .summary = "sums of batches",
    .inputs = id_in,
    .n_inputs = 1,
    .outputs = total_out,
    .n_outputs = 1,
    .process = total_process,
};

/* ---- e2e_deal, e2e_gather, e2e_put: a router, a global and a sink that end the process in a call, or do not return from it
 * ---------- */

enum { AT_NONE, AT_ROUTE, AT_ACCEPT, AT_FINISH, AT_WRITE, AT_SYNC, AT_FINALIZE };
static const mill_param call_params[] = {
    {"in", MILL_PARAM_ENUM, 0, "none", 0, 0, "none|route|accept|finish|write|sync|finalize", "the call"},
    {"at", MILL_PARAM_INT, 0, "0", 0, 1e9, NULL, "of a call with rows: when it has this one"},
    {"hang", MILL_PARAM_BOOL, 0, "false", 0, 0, NULL, "does not return from it"},
};

struct call {
    int in;
    int64_t at;
    bool hang;
};

static mill_status call_configure(mill_step *s, const mill_config *c, mill_io *io, mill_error *err)
{
    static const char *const names[] = {"none", "route", "accept", "finish", "write", "sync", "finalize"};
    struct call *k = calloc(1, sizeof *k);

    (void)io;
    if (k == NULL) return mill_fail(err, MILL_ERR_NOMEM, "e2e");
    while (strcmp(names[k->in], mill_config_text(c, "in")) != 0) k->in++;
    k->at = mill_config_int(c, "at");
    k->hang = mill_config_bool(c, "hang");
    mill_step_set_state(s, k, free);
    return MILL_OK;
}

static void in_call(mill_replica *r, int in, const mill_batch *b)
{
    const struct call *k = mill_step_state(mill_replica_step(r));
    const mill_view v = b != NULL ? mill_column_view(mill_batch_column(b, 0)) : (mill_view){.rows = 0};
    const int64_t *id = b != NULL ? (const int64_t *)v.data + v.offset : NULL;
    bool here = b == NULL;

    for (int64_t i = 0; i < v.rows; i++) here = here || id[i] == k->at;
    if (k->in != in || !here) return;
    if (k->hang) hang();
    crash();
}

static mill_status deal_route(mill_replica *r, const mill_batch *in, mill_route *out, mill_error *err)
{
    in_call(r, AT_ROUTE, in);
    return mill_route_to(out, 1, err);
}

static mill_status gather_accept(mill_replica *r, size_t input, const mill_batch *in, mill_error *err)
{
    (void)input;
    (void)err;
    in_call(r, AT_ACCEPT, in);
    return MILL_OK;
}

static mill_status gather_finish(mill_replica *r, mill_emit *out, mill_error *err)
{
    (void)out;
    (void)err;
    in_call(r, AT_FINISH, NULL);
    return MILL_OK;
}

static mill_status put_open(mill_replica *r, const mill_cursor *cursor, mill_error *err)
{
    (void)r;
    (void)cursor;
    (void)err;
    return MILL_OK;
}

static mill_status put_write(mill_replica *r, const mill_batch *in, mill_error *err)
{
    (void)err;
    in_call(r, AT_WRITE, in);
    return MILL_OK;
}

static mill_status put_sync(mill_replica *r, mill_cursor *cursor, mill_error *err)
{
    (void)cursor;
    (void)err;
    in_call(r, AT_SYNC, NULL);
    return MILL_OK;
}

static mill_status put_finalize(mill_replica *r, mill_error *err)
{
    (void)err;
    in_call(r, AT_FINALIZE, NULL);
    return MILL_OK;
}

#define CALLS(n, k, text) \
    .struct_size = sizeof(mill_step_type), .abi = MILL_ABI_1, .kind = (k), .name = (n), .summary = (text), .params = call_params, \
    .n_params = sizeof call_params / sizeof *call_params, .inputs = id_in, .n_inputs = 1, .configure = call_configure
static const mill_step_type deal_type = {CALLS("e2e_deal", MILL_ROUTER, "to the second branch"), .route = deal_route};
static const mill_step_type gather_type = {CALLS("e2e_gather", MILL_GLOBAL, "takes everything and gives nothing"),
                                           .outputs = id_out, .n_outputs = 1, .accept = gather_accept, .finish = gather_finish};
static const mill_step_type put_type = {CALLS("e2e_put", MILL_SINK, "to nowhere"), .open = put_open, .write = put_write,
                                        .sync = put_sync, .finalize = put_finalize};

static const mill_step_type *const types[] = {&count_type, &work_type, &ask_type, &total_type, &deal_type, &gather_type, &put_type};
static const mill_plugin plugin = {sizeof plugin, MILL_ABI_1, "e2e", "1", types, sizeof types / sizeof *types};

MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);
const mill_plugin *mill_plugin_v1(void) { return &plugin; }
