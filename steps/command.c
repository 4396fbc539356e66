/*
 * command: any executable as a step. It gets one JSON object per row and line on its standard input and answers with one per
 * row, in order. What it writes to standard error goes to the log. When it dies, answers too much or not in time, the batch
 * fails with how it ended and the end of its standard error; the next batch gets a new process. One that was sent away by a signal
 * has done nothing wrong, nor have its rows: a scheduler that stops a job tells all its processes. They get another process once.
 *
 * command_rows: the same with any number of answers per row, none too. Rows are numbered, answers name the row they come from,
 * and as nothing else tells that there are no more, each batch has a process of its own, which ends with its input.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stepmill/json.h"
#include "steps/builtin.h"
#include "steps/command/child.h"
#include "steps/jsonl/parse.h"

#define GRACE_S 1.0     /* that it gets to end by itself, and again after SIGTERM */
#define CHUNK_ROWS 4096 /* of command_rows: emitted at a time */

extern char **environ;

typedef struct settings {
    char **argv;         /* [..] NULL at the end; text of the config */
    char **envp;         /* NULL = inherited; entries of our own are owned: own_env */
    char **own_env;
    size_t n_own_env;
    const char *cwd;
    char **names;        /* [n_names] columns sent, owned */
    int32_t n_names;
    mill_field *fields;  /* [n_fields] columns answered */
    int32_t n_fields;
    const char *row_key; /* NULL = rows are not numbered */
    bool per_batch;
    bool many; /* command_rows */
    double deadline_s;
    size_t max_line;
} settings;

typedef struct state {
    stm_child *child;
    mill_json_writer *writer;
    stm_jsonl *parser;
    /* the batch in hand */
    mill_replica *replica;
    mill_emit *out;
    int64_t rows, answered;
    bool told; /* out has something of it: an error of a row, rows */
    int64_t *misfits; /* [n_misfits] rows whose answer did not fit: nulls with an error mark, ascending */
    size_t n_misfits, cap_misfits;
    int64_t gathered, last_parent; /* many: answers not emitted yet; row of the last one */
} state;

static void settings_free(void *p)
{
    settings *s = p;

    for (int32_t i = 0; i < s->n_names; i++) free(s->names[i]);
    for (size_t i = 0; i < s->n_own_env; i++) free(s->own_env[i]);
    free(s->names);
    free(s->own_env);
    free(s->envp);
    free(s->argv);
    free(s->fields);
    free(s);
}

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "no memory for a command"); }

/* This process's environment with the entries of `env` in place of equally named ones. */
static mill_status make_env(settings *s, const mill_config *c, mill_error *err)
{
    const size_t n = mill_config_count(c, "env");
    size_t inherited = 0, k = 0;

    if (n == 0) return MILL_OK;
    while (environ[inherited] != NULL) inherited++;
    s->own_env = calloc(n, sizeof *s->own_env);
    s->envp = calloc(inherited + n + 1, sizeof *s->envp);
    if (s->own_env == NULL || s->envp == NULL) return no_memory(err);
    for (size_t i = 0; i < n; i++) {
        const char *key = mill_config_key(c, "env", i), *value = mill_config_item(c, "env", i);
        char *entry = malloc(strlen(key) + strlen(value) + 2);
        if (entry == NULL) return no_memory(err);
        sprintf(entry, "%s=%s", key, value);
        s->own_env[s->n_own_env++] = s->envp[k++] = entry;
    }
    for (size_t i = 0; i < inherited; i++) {
        bool replaced = false;
        for (size_t j = 0; j < n; j++) {
            const size_t len = strlen(mill_config_key(c, "env", j));
            replaced = replaced || (strncmp(environ[i], mill_config_key(c, "env", j), len) == 0 && environ[i][len] == '=');
        }
        if (!replaced) s->envp[k++] = environ[i];
    }
    return MILL_OK;
}

static mill_status send_column(settings *s, mill_io *io, const char *name, mill_error *err)
{
    const mill_status st = mill_io_use(io, 0, name, "any", NULL, err);

    if (st != MILL_OK) return st;
    if ((s->names[s->n_names] = strdup(name)) == NULL) return no_memory(err);
    s->n_names++;
    return MILL_OK;
}

static mill_status configure_either(mill_step *step, const mill_config *c, mill_io *io, bool many, mill_error *err)
{
    settings *s = calloc(1, sizeof *s);
    const size_t n_argv = mill_config_count(c, "argv"), n_send = mill_config_count(c, "send"),
                 n_columns = mill_config_count(c, "columns");
    const size_t n_names = n_send > 0 ? n_send : mill_io_column_count(io, 0);
    mill_status st;

    if (s == NULL) return no_memory(err);
    mill_step_set_state(step, s, settings_free);
    s->argv = calloc(n_argv + 1, sizeof *s->argv);
    s->names = calloc(n_names + 1, sizeof *s->names);
    s->fields = calloc(n_columns + 2, sizeof *s->fields);
    if (s->argv == NULL || s->names == NULL || s->fields == NULL) return no_memory(err);
    if (n_argv == 0 || mill_config_item(c, "argv", 0)[0] == 0)
        return mill_config_fail(c, "argv", err, MILL_ERR_INVALID, "a program is expected, with its arguments");
    for (size_t i = 0; i < n_argv; i++) s->argv[i] = (char *)(uintptr_t)mill_config_item(c, "argv", i);
    s->cwd = mill_config_text(c, "cwd");
    s->row_key = mill_config_text(c, "row_key");
    s->many = many;
    s->per_batch = many || strcmp(mill_config_text(c, "process"), "per_batch") == 0;
    s->deadline_s = mill_config_float(c, "deadline");
    if (s->deadline_s == 0 || s->deadline_s > 1e9)
        return mill_config_fail(c, "deadline", err, MILL_ERR_INVALID, "expected a duration above 0 and at most 1e9 s, or none");
    s->max_line = (size_t)mill_config_int(c, "max_line_bytes");
    if ((st = make_env(s, c, err)) != MILL_OK) return st;
    for (size_t i = 0; i < n_names; i++) {
        st = send_column(s, io, n_send > 0 ? mill_config_item(c, "send", i) : mill_io_column_name(io, 0, i), err);
        if (st != MILL_OK) return st;
    }
    for (size_t i = 0; i < n_columns; i++) {
        const mill_field f = {mill_config_key(c, "columns", i), mill_config_type(c, "columns", i)};
        char entry[32];
        snprintf(entry, sizeof entry, "columns[%zu]", i);
        if (!stm_jsonl_can_read(f.type))
            return mill_config_fail(c, entry, err, MILL_ERR_UNSUPPORTED, "column %s: binary values cannot stand in JSON; use utf8",
                                    f.name);
        s->fields[s->n_fields++] = f;
        if ((st = mill_io_add(io, f.name, f.type, NULL, err)) != MILL_OK) return st;
        if (s->row_key != NULL && strcmp(s->row_key, f.name) == 0)
            return mill_config_fail(c, "row_key", err, MILL_ERR_INVALID, "%s is a column, too", f.name);
    }
    if (s->row_key != NULL) s->fields[s->n_fields] = (mill_field){s->row_key, mill_type_plain(MILL_INT64)};
    return MILL_OK;
}

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    return configure_either(step, c, io, false, err);
}

static mill_status configure_rows(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    return configure_either(step, c, io, true, err);
}

static mill_status load(mill_replica *r, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    const stm_child_opts opts = {.argv = s->argv,
                                 .envp = s->envp,
                                 .cwd = s->cwd,
                                 .max_line = s->max_line,
                                 .numbered = s->row_key != NULL,
                                 .until_end = s->many};
    state *me = calloc(1, sizeof *me);
    mill_status st;

    if (me == NULL) return no_memory(err);
    mill_replica_set_state(r, me);
    me->replica = r;
    if (mill_json_writer_create((const char *const *)s->names, s->n_names, 0, &me->writer) != MILL_OK ||
        stm_jsonl_create(mill_replica_pool(r), s->fields, s->n_fields + (s->row_key != NULL), false, &me->parser) != MILL_OK)
        return no_memory(err);
    if ((st = stm_child_create(&opts, &me->child, err)) != MILL_OK) return st;
    /* A program that is not there is an error of loading. */
    return s->per_batch ? stm_child_find(me->child, err) : stm_child_start(me->child, err);
}

static void unload(mill_replica *r)
{
    state *me = mill_replica_state(r);

    if (me == NULL) return;
    if (me->child != NULL && stm_child_has_more(me->child))
        mill_replica_log(r, MILL_ERROR,
                         "the command wrote more lines than there were rows: answers may stand in wrong rows; row_key finds that");
    stm_child_destroy(&me->child, mill_replica_cancelled(r) ? 0.0 : GRACE_S);
    stm_jsonl_destroy(&me->parser);
    mill_json_writer_destroy(&me->writer);
    free(me->misfits);
    free(me);
    mill_replica_set_state(r, NULL);
}

/* The batch without its last column, the numbers of the rows answered. */
static mill_status without_numbers(mill_replica *r, const settings *s, mill_batch **batch, mill_error *err)
{
    mill_batch *rest = NULL;

    if (mill_batch_create(mill_replica_pool(r), mill_batch_rows(*batch), s->n_fields, &rest) != MILL_OK) return no_memory(err);
    for (int32_t k = 0; k < s->n_fields; k++) {
        mill_column *col = mill_column_ref(mill_batch_column(*batch, k));
        (void)mill_batch_set_column(rest, k, &col); /* as many rows */
    }
    mill_batch_destroy(batch);
    *batch = rest;
    return MILL_OK;
}

/* Emits the answers gathered, if any, each with the row it names. */
static mill_status emit_gathered(mill_replica *r, const settings *s, state *me, mill_error *err)
{
    mill_batch *batch = NULL;
    mill_buffer *parent = NULL;
    mill_status st = stm_jsonl_finish(me->parser, &batch, err);

    if (st == MILL_OK &&
        mill_buffer_create(mill_replica_pool(r), (size_t)mill_batch_rows(batch) * sizeof(int64_t), &parent) != MILL_OK)
        st = no_memory(err);
    if (st == MILL_OK) {
        const mill_column *numbers = mill_batch_column(batch, s->n_fields);
        const mill_view v = mill_column_view(numbers);
        int64_t *to = mill_buffer_data(parent);
        for (int64_t i = 0; i < v.rows && st == MILL_OK; i++) {
            const long long answer = (long long)(me->answered - me->gathered + i + 1);
            const int64_t row = ((const int64_t *)v.data)[v.offset + i];
            if (mill_column_is_null(numbers, i))
                st = mill_fail(err, MILL_ERR_STEP, "answer %lld lacks the key %s", answer, s->row_key);
            else if (row < 0 || row >= me->rows)
                st = mill_fail(err, MILL_ERR_STEP, "answer %lld is for row %lld of %lld", answer, (long long)row,
                               (long long)me->rows);
            else if (row < me->last_parent)
                st = mill_fail(err, MILL_ERR_STEP, "answer %lld is for row %lld, after one for row %lld", answer, (long long)row,
                               (long long)me->last_parent);
            else
                to[i] = me->last_parent = row;
        }
    }
    if (st == MILL_OK) st = without_numbers(r, s, &batch, err);
    if (st == MILL_OK) st = mill_emit_batch(me->out, &batch, &parent, err);
    mill_batch_destroy(&batch);
    mill_buffer_unref(&parent);
    me->gathered = 0;
    return st;
}

/* command_rows: answers come until its end. */
static mill_status on_answer(void *user, const char *text, size_t bytes, bool *done, mill_error *err)
{
    state *me = user;
    mill_replica *r = me->replica;
    const settings *s = mill_step_state(mill_replica_step(r));
    stm_jsonl_fault f = {.byte = 0};
    mill_status st = stm_jsonl_row(me->parser, text, bytes, &f);

    (void)done;
    if (st == MILL_ERR_NOMEM) return no_memory(err);
    if (st == MILL_ERR_DATA) /* whose answer it is can be trusted no more than the rest of it */
        return mill_fail(err, MILL_ERR_STEP, "answer %lld, %s%s: %s", (long long)me->answered + 1,
                         f.column[0] ? "column " : "not a row", f.column, f.cause);
    me->answered++;
    if (++me->gathered < CHUNK_ROWS) return MILL_OK;
    me->told = true;
    if ((st = emit_gathered(r, s, me, err)) != MILL_OK) return st;
    return stm_jsonl_begin(me->parser, CHUNK_ROWS) == MILL_OK ? MILL_OK : no_memory(err);
}

static bool add_misfit(state *me, int64_t row)
{
    if (me->n_misfits == me->cap_misfits) {
        const size_t cap = me->cap_misfits > 0 ? 2 * me->cap_misfits : 16;
        int64_t *more = realloc(me->misfits, cap * sizeof *more);

        if (more == NULL) return false;
        me->misfits = more;
        me->cap_misfits = cap;
    }
    me->misfits[me->n_misfits++] = row;
    return true;
}

static mill_status on_line(void *user, const char *text, size_t bytes, bool *done, mill_error *err)
{
    state *me = user;
    stm_jsonl_fault f = {.byte = 0};
    const mill_status st = stm_jsonl_row(me->parser, text, bytes, &f);

    if (st == MILL_ERR_NOMEM) return no_memory(err);
    if (st == MILL_ERR_DATA && f.column[0] == 0) { /* no JSON: it is out of step with us */
        int show = (int)(bytes < 80 ? bytes : 80);
        while (show > 0 && (size_t)show < bytes && ((unsigned char)text[show] & 0xc0) == 0x80) show--;
        return mill_fail(err, MILL_ERR_STEP, "answer %lld is not a row (%s): %.*s", (long long)me->answered + 1, f.cause, show,
                         text);
    }
    if (st == MILL_ERR_DATA) {
        mill_error e = {0};
        (void)mill_fail(&e, MILL_ERR_DATA, "the command's answer, column %s: %s", f.column, f.cause);
        e.error_class = MILL_CLASS_DATA;
        memcpy(e.field, f.column, sizeof e.field);
        me->told = true;
        if (!add_misfit(me, me->answered) || mill_emit_row_error(me->out, me->answered, &e) != MILL_OK) return no_memory(err);
    }
    *done = ++me->answered == me->rows;
    return MILL_OK;
}

static void on_log(void *user, const char *text)
{
    const state *me = user;
    mill_replica_log(me->replica, MILL_INFO, "%s", text);
}

static void on_quiet(void *user)
{
    const state *me = user;
    const settings *s = mill_step_state(mill_replica_step(me->replica));

    mill_replica_log(
        me->replica, MILL_WARN,
        "%s was given %lld rows, has answered %lld and waits for more input; if it has answered them, " STM_CHILD_FLUSH, s->argv[0],
        (long long)me->rows, (long long)me->answered);
}

static bool on_cancelled(void *user)
{
    const state *me = user;
    return mill_replica_cancelled(me->replica);
}
static int on_cancel_fd(void *user) { return mill_replica_cancel_fd(((const state *)user)->replica); }

static mill_status write_rows(const settings *s, state *me, const mill_batch *in)
{
    mill_status st = MILL_OK;

    mill_json_writer_clear(me->writer);
    mill_json_writer_batch(me->writer, in);
    for (int64_t r = 0; r < me->rows && st == MILL_OK; r++) {
        st = mill_json_writer_row(me->writer, r);
        if (st == MILL_OK && s->row_key != NULL) st = mill_json_writer_int(me->writer, s->row_key, r);
        if (st == MILL_OK) st = mill_json_writer_end(me->writer);
    }
    return st;
}

/* The last column has the numbers of the rows answered: checked and taken out. */
static mill_status check_numbers(mill_replica *r, const settings *s, state *me, mill_batch **batch, mill_error *err)
{
    const mill_view v = mill_column_view(mill_batch_column(*batch, s->n_fields));
    size_t misfit = 0;

    for (int64_t i = 0; i < v.rows; i++) {
        const int64_t at = v.offset + i;
        const bool null = v.validity != NULL && !(v.validity[at >> 3] >> (at & 7) & 1);
        if (misfit < me->n_misfits && me->misfits[misfit] == i) { /* a row of nulls, told of already */
            misfit++;
            continue;
        }
        if (!null && ((const int64_t *)v.data)[at] == i) continue;
        stm_child_kill(me->child);
        if (null) return mill_fail(err, MILL_ERR_STEP, "answer %lld lacks the key %s", (long long)i + 1, s->row_key);
        return mill_fail(err, MILL_ERR_STEP, "answer %lld is for row %lld, not %lld", (long long)i + 1,
                         (long long)((const int64_t *)v.data)[at], (long long)i);
    }
    return without_numbers(r, s, batch, err);
}

/* One conversation about the rows that were written; of a process that is sent away before anything came of it, two. */
static mill_status ask(const settings *s, state *me, const stm_child_hooks *hooks, mill_error *err)
{
    const int64_t room = s->many ? CHUNK_ROWS : me->rows > 0 ? me->rows : 1;
    size_t bytes;
    const char *text = mill_json_writer_data(me->writer, &bytes);
    mill_status st;

    me->told = false;
    for (int attempt = 0;; attempt++) {
        me->answered = me->gathered = me->last_parent = 0;
        me->n_misfits = 0;
        if (stm_jsonl_begin(me->parser, room) != MILL_OK) return no_memory(err);
        if (me->rows == 0 && !s->many) return MILL_OK;
        if ((st = stm_child_start(me->child, err)) != MILL_OK) return st;
        st = stm_child_talk(me->child, text, bytes, true, s->per_batch, s->deadline_s, hooks, err);
        if (st != MILL_ERR_STEP || attempt > 0 || me->told || err == NULL || err->error_class != MILL_CLASS_TRANSIENT) return st;
        mill_replica_log(me->replica, MILL_WARN, "%s; its rows go to another process", err->msg);
        memset(err, 0, sizeof *err);
    }
}

static mill_status process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    state *me = mill_replica_state(r);
    const stm_child_hooks hooks = {
        .line = on_line, .log = on_log, .cancelled = on_cancelled, .cancel_fd = on_cancel_fd, .quiet = on_quiet, .user = me};
    mill_batch *batch = NULL;
    mill_status st;

    (void)n_in;
    me->out = out;
    me->rows = mill_batch_rows(in[0]);
    if (write_rows(s, me, in[0]) != MILL_OK) return no_memory(err);
    if ((st = ask(s, me, &hooks, err)) != MILL_OK) {
        mill_error_context(err, "after %lld of %lld rows", (long long)me->answered, (long long)me->rows);
        return st;
    }
    if (s->n_fields == 0 && s->row_key == NULL) return mill_emit_pass(out, err);
    if ((st = stm_jsonl_finish(me->parser, &batch, err)) != MILL_OK) return st;
    if (s->row_key != NULL && (st = check_numbers(r, s, me, &batch, err)) != MILL_OK) {
        mill_batch_destroy(&batch);
        return st;
    }
    if (s->n_fields == 0) {
        mill_batch_destroy(&batch);
        return mill_emit_pass(out, err);
    }
    st = mill_emit_batch(out, &batch, NULL, err);
    mill_batch_destroy(&batch);
    return st;
}

static mill_status process_rows(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    state *me = mill_replica_state(r);
    const stm_child_hooks hooks = {
        .line = on_answer, .log = on_log, .cancelled = on_cancelled, .cancel_fd = on_cancel_fd, .user = me};
    mill_status st;

    (void)n_in;
    me->out = out;
    me->rows = mill_batch_rows(in[0]);
    if (write_rows(s, me, in[0]) != MILL_OK) return no_memory(err);
    if ((st = ask(s, me, &hooks, err)) != MILL_OK) {
        mill_error_context(err, "after %lld answers to %lld rows", (long long)me->answered, (long long)me->rows);
        return st;
    }
    return emit_gathered(r, s, me, err);
}

/* Parameters of both steps. */
#define WHAT_RUNS \
    {.name = "argv", \
     .type = MILL_PARAM_STRINGS, \
     .flags = MILL_PARAM_PROGRAM, \
     .text = "the program, looked up in PATH, and its arguments; no shell"}, \
    {.name = "send", .type = MILL_PARAM_STRINGS, .flags = MILL_PARAM_OPTIONAL, .text = "columns it gets; without it, all"}
#define WHERE_IT_RUNS \
    {.name = "deadline", \
     .type = MILL_PARAM_DURATION, \
     .default_value = "none", \
     .flags = MILL_PARAM_NO_RESULT, \
     .text = "time for a batch; after it the process is killed and the batch fails"}, \
    {.name = "cwd", .type = MILL_PARAM_PATH, .flags = MILL_PARAM_OPTIONAL, .text = "folder it runs in"}, \
    {.name = "env", .type = MILL_PARAM_MAP, .flags = MILL_PARAM_OPTIONAL, .text = "name: value, added to the environment"}, \
    {.name = "max_line_bytes", \
     .type = MILL_PARAM_BYTES, \
     .default_value = "64MiB", \
     .min = 16, \
     .max = 1u << 30, \
     .flags = MILL_PARAM_NO_RESULT, \
     .text = "longest answer"}

static const mill_param params[] = {
    WHAT_RUNS,
    {.name = "columns",
     .type = MILL_PARAM_COLUMNS,
     .flags = MILL_PARAM_OPTIONAL,
     .text = "name: type of the keys taken from its answers; without it, answers are only counted"},
    {.name = "row_key",
     .type = MILL_PARAM_STRING,
     .flags = MILL_PARAM_OPTIONAL,
     .text = "key that numbers the rows sent and has to come back: finds answers that are out of step"},
    {.name = "process",
     .type = MILL_PARAM_ENUM,
     .default_value = "keep",
     .choices = "keep|per_batch",
     .text = "one process for many batches, which has to flush its output after each row (python3 -u, stdbuf -oL), or one per "
             "batch, whose input ends with it"},
    WHERE_IT_RUNS,
};

const mill_step_type stm_step_command = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_BLOCKS,
    .name = "command",
    .summary = "any executable: rows as JSON lines in and out",
    .version = "1",
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .configure = configure,
    .load = load,
    .unload = unload,
    .process = process,
};

static const mill_param params_rows[] = {
    WHAT_RUNS,
    {.name = "columns",
     .type = MILL_PARAM_COLUMNS,
     .flags = MILL_PARAM_OPTIONAL,
     .text = "name: type of the keys taken from its answers; without it, answers only say which rows go on, and how often"},
    {.name = "row_key",
     .type = MILL_PARAM_STRING,
     .default_value = "_row",
     .text = "key that numbers the rows sent; an answer has it with the number of its row, which never falls"},
    WHERE_IT_RUNS,
};

const mill_step_type stm_step_command_rows = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_BLOCKS | MILL_EXPANDS | MILL_FILTERS,
    .name = "command_rows",
    .summary = "any executable that gives any number of rows per row: one process per batch",
    .version = "1",
    .params = params_rows,
    .n_params = sizeof params_rows / sizeof params_rows[0],
    .configure = configure_rows,
    .load = load,
    .unload = unload,
    .process = process_rows,
};
