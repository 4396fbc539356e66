/* run FILE, and the rest of `resume`: start, show how far it is, end with the truth. */
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "shard.h"
#include "signals.h"
#include "stepmill/watch.h"
#include "view.h"

enum { SHOW_ERRORS = 5 };

static void sink_row(const char *step, const char *json, size_t bytes, void *user)
{
    (void)step, (void)user;
    flockfile(stdout);
    fwrite(json, 1, bytes, stdout);
    fputc('\n', stdout);
    funlockfile(stdout);
}

static const char *frame(void *user, bool table, bool colour, int width, int height, int *lines)
{
    return mill_run_show(*(mill_run **)user,
                         (table ? MILL_PROGRESS_TABLE : MILL_PROGRESS_LINE) | (colour ? MILL_PROGRESS_COLOUR : 0), width, height,
                         lines);
}

/* ---- the end ------------------------------------------------------------------------------------------------------- */

static void show_rate(double rate)
{
    if (rate >= 1e6)
        fprintf(stderr, "%.2f million rows/s", rate / 1e6);
    else
        fprintf(stderr, "%.0f rows/s", rate);
}

/* @p said: the failure that stands above already. */
static void show_errors(const mill_run *run, const mill_error *said)
{
    mill_run_error e = {.struct_size = sizeof e};
    char text[1600], above[1600] = "";
    int64_t i;

    if (said->status != MILL_OK) mill_error_format(said, above, sizeof above);
    for (i = 0; i < SHOW_ERRORS && mill_run_get_error(run, i, &e); i++) {
        mill_error_format(&e.error, text, sizeof text);
        if (e.rows == 0 && strcmp(text, above) == 0) continue;
        fprintf(stderr, "  %s", text);
        if (e.rows > 0) fprintf(stderr, " [%lld row%s, %s]", (long long)e.rows, e.rows == 1 ? "" : "s", e.first_key);
        fprintf(stderr, "\n");
    }
    if (mill_run_get_error(run, i, &e)) fprintf(stderr, "  ...\n");
}

/* An output that was written in parts is shown as their pattern, as shells read it: out.jsonl.gz as out-*.jsonl.gz. */
static const char *on_disk(const char *path, char *parts, size_t size)
{
    const char *base = strrchr(path, '/'), *dot = NULL;
    glob_t found = {0};

    if (access(path, F_OK) == 0) return path;
    base = base != NULL ? base + 1 : path;
    for (const char *p = base + strlen(base); p > base; p--)
        if (*p == '.' && (dot == NULL || strcmp(dot, ".gz") == 0 || strcmp(dot, ".zst") == 0)) dot = p;
    if (dot == NULL) dot = base + strlen(base);
    const int n = snprintf(parts, size, "%.*s-*%s", (int)(dot - path), path, dot);
    const bool any = n > 0 && (size_t)n < size && glob(parts, 0, NULL, &found) == 0;
    if (any) globfree(&found);
    return any ? parts : path;
}

static void summary(const mill_run *run, const mill_run_totals *t, mill_run_state state, const mill_error *err)
{
    static const char *const words[] = {"running", "done", "could not load", "failed", "stopped"};
    const char *path, *step, *dir = mill_run_dir(run);

    const bool before = mill_run_was_complete(run);
    fprintf(stderr, "%s%s%s%s after %.*f s: %lld rows in, %lld rows out, ", cli_colour() ? "\033[1m" : "",
            before ? "complete already" : words[state], cli_colour() ? "\033[0m" : "",
            before ? ", nothing was left to do: it was done" : "", t->seconds < 10 ? 2 : 0, t->seconds, (long long)t->rows_in,
            (long long)t->rows_out);
    show_rate(t->seconds > 0 ? (double)t->rows_in / t->seconds : 0);
    fprintf(stderr, "\n");
    for (size_t i = 0; dir != NULL && state != MILL_RUN_LOAD_FAILED && (path = mill_run_output(run, i, &step)) != NULL; i++) {
        char parts[4096];
        path = on_disk(path, parts, sizeof parts);
        fprintf(stderr, "  %s: %s%s\n", step, path, state != MILL_RUN_DONE && !cli_is_whole(dir, step) ? " (not complete)" : "");
    }
    if (dir != NULL && state == MILL_RUN_FAILED)
        fprintf(stderr, "  outputs hold what was complete before the failure; %s/manifest.json lists their files\n", dir);
    if (t->rows_imputed > 0)
        fprintf(stderr, "  %lld row%s with nulls made by imputation (max_errors: %lld)\n", (long long)t->rows_imputed,
                t->rows_imputed == 1 ? "" : "s", (long long)t->max_errors);
    if (t->errors > 0) {
        show_errors(run, err);
        if (dir != NULL && state != MILL_RUN_LOAD_FAILED) fprintf(stderr, "  all errors: %s/errors.jsonl\n", dir);
    }
    if (dir != NULL && state == MILL_RUN_STOPPED) fprintf(stderr, "  not finished: the same command goes on from there\n");
}

static void summary_json(const mill_run *run, const mill_run_totals *t, mill_run_state state, const mill_error *err)
{
    static const char *const words[] = {"running", "done", "load_failed", "failed", "stopped"};
    const char *path, *step, *dir = mill_run_dir(run);

    printf("{\"state\":\"%s\",\"exit_code\":%d,\"seconds\":%.6f,\"rows_in\":%lld,\"rows_out\":%lld,\"rows_imputed\":%lld,"
           "\"errors\":%lld,\"run_dir\":",
           words[state], mill_run_exit_code(run), t->seconds, (long long)t->rows_in, (long long)t->rows_out,
           (long long)t->rows_imputed, (long long)t->errors);
    if (dir == NULL) {
        printf("null");
    } else {
        printf("\"");
        cli_json_text(stdout, dir);
        printf("\"");
    }
    printf(",\"outputs\":[");
    for (size_t i = 0; dir != NULL && (path = mill_run_output(run, i, &step)) != NULL; i++) {
        printf("%s{\"step\":\"%s\",\"path\":\"", i > 0 ? "," : "", step);
        char parts[4096];
        cli_json_text(stdout, on_disk(path, parts, sizeof parts));
        printf("\",\"complete\":%s}", state == MILL_RUN_DONE || cli_is_whole(dir, step) ? "true" : "false");
    }
    printf("],\"complete_already\":%s,\"error\":\"", mill_run_was_complete(run) ? "true" : "false");
    cli_json_text(stdout, err->status != MILL_OK ? err->msg : "");
    printf("\"}\n");
}

/* A replica hangs past its deadline: its thread cannot be taken back, so the process goes, and says whose fault it is. */
static void leave_hung(const cli_args *a, mill_run *run, mill_child *child, const mill_error *err)
{
    mill_error local = {0};

    if (child != NULL && err->phase == MILL_PHASE_PROCESS && !signals_came()) mill_child_lose(child, err);
    cli_say_error(a, err);
    mill_run_finish(run, &local);
    if (!signals_came() && mill_run_dir(run) != NULL) mill_errors_add(mill_run_dir(run), err, &local);
    fflush(NULL);
    if (child != NULL) mill_child_end(child);
    if (signals_came()) _exit(MILL_EXIT_STOPPED); /* it was asked to go; this is only why it could not do so in order */
    _exit(err->phase == MILL_PHASE_LOAD ? MILL_EXIT_LOAD : MILL_EXIT_PROCESS);
}

/* The run ended for what its supervisor says. */
static void ended_by_parent(const cli_args *a, const mill_error *err, int code)
{
    cli_say_error(&(cli_args){0}, err);
    if (!a->given[CLI_JSON] || a->given[CLI_DRY_RUN]) return;
    printf("{\"state\":\"%s\",\"exit_code\":%d,\"error\":\"", code == MILL_EXIT_LOAD ? "load_failed" : "failed", code);
    cli_json_text(stdout, err->msg);
    printf("\"}\n");
}

/* @p half: the first of two: what it says of rows and outputs is not how this ends. */
static int watch(const cli_args *a, bool half, mill_run *run, mill_child *child, view *v)
{
    mill_error err = {0}, hung = {0}, unwritten = {0};
    mill_run_totals t = {.struct_size = sizeof t};
    mill_run_state state;

    /* At rest a second: a wake now and then is all that an idle run costs. */
    while ((state = mill_run_wait(run, v->table || signals_came() ? 0.25 : 1.0, &err)) == MILL_RUN_RUNNING) {
        view_draw(v);
        if (mill_run_hung(run, &hung)) leave_hung(a, run, child, &hung);
    }
    view_end(v);
    mill_run_finish(run, &unwritten);
    mill_run_get_totals(run, &t);
    if (state != MILL_RUN_DONE && state != MILL_RUN_STOPPED && err.status != MILL_OK) cli_say_error(&(cli_args){0}, &err);
    half = half && state == MILL_RUN_DONE;
    if (!a->given[CLI_QUIET] && !half) summary(run, &t, state, &err);
    if (a->given[CLI_JSON] && !a->given[CLI_DRY_RUN] && !half) summary_json(run, &t, state, &err);
    if (unwritten.status != MILL_OK) {
        cli_say_error(&(cli_args){0}, &unwritten);
        return mill_run_exit_code(run) != MILL_EXIT_OK ? mill_run_exit_code(run) : MILL_EXIT_PROCESS;
    }
    return mill_run_exit_code(run);
}

/* What the process that works does: the child, or this one. */
struct job {
    const cli_args *a;
    const cli_work_on *on;
    mill_run_options o;
    time_limit limit;
};

/* The pipeline to run; NULL: said why not, *code = exit code. */
static mill_pipeline *open_pipeline(const struct job *j, mill_run_options *o, int *code)
{
    mill_pipeline *p = NULL;
    mill_error err = {0};

    if (j->on->started == NULL) return cli_open(j->a, code);
    const bool fresh = o->fresh;
    if (mill_run_reopen(j->on->started, &p, o, &err) == MILL_OK) {
        o->retry = j->on->retry;
        o->retry_classes = j->on->retry_classes;
        o->retry_step = o->retry == MILL_RETRY_ROWS ? j->a->value[CLI_STEP] : NULL;
        if (j->on->n_merge == 0) return p;
        o->dir = j->on->dir;
        o->merge = j->on->merge;
        o->n_merge = j->on->n_merge;
        o->shard = o->shards = 0;
        o->resume = false;
        o->fresh = fresh;
        return p;
    }
    cli_say_error(j->a, &err);
    *code = err.phase == MILL_PHASE_CHECK ? MILL_EXIT_PIPELINE : MILL_EXIT_USAGE;
    return NULL;
}

static int work(mill_child *child, void *user)
{
    struct job *j = user;
    const cli_args *a = j->a;
    mill_run_options o = j->o;
    mill_error err = {0};
    mill_pipeline *p;
    mill_run *run = NULL;
    view v;
    int code = MILL_EXIT_OK;

    o.child = child;
    if (child != NULL && mill_child_went_on(child)) o.fresh = false;
    if (!signals_start(o.drain_s, &j->limit, child)) {
        fprintf(stderr, "stepmill: cannot start a thread\n");
        return MILL_EXIT_LOAD;
    }
    if ((p = open_pipeline(j, &o, &code)) == NULL) return code;
    if (a->given[CLI_QUIET]) view_hush();
    view_start(&v, frame, &run, a->given[CLI_QUIET] || a->given[CLI_DRY_RUN]); /* before anything logs */
    if (mill_run_start(p, &o, &run, &err) != MILL_OK) {
        cli_say_error(a, &err);
        code = cli_exit_code(&err);
    } else {
        signals_watch(run);
        code = watch(a, j->on->retry == MILL_RETRY_ROWS, run, child, &v);
        signals_watch(NULL);
        mill_run_destroy(&run);
    }
    mill_pipeline_destroy(&p);
    return signals_came() && code == MILL_EXIT_LOAD && err.status == MILL_OK ? MILL_EXIT_STOPPED : code;
}

static double round10(double s) { return (double)(int64_t)(s * 10 + 0.5) / 10; }

/* --time-left, or when the job ends that we are part of. */
static bool take_limit(const cli_args *a, double drain_s, double spent_s, time_limit *out)
{
    const char *said = a->value[CLI_TIME_LEFT], *why = "";
    struct timespec wall;
    double left = 0, begin;

    memset(out, 0, sizeof *out);
    if (said != NULL && strcmp(said, "none") == 0) return true;
    if (!cli_time(a, CLI_TIME_LEFT, 0, &left)) return false;
    if (said == NULL) {
        clock_gettime(CLOCK_REALTIME, &wall);
        left = time_limit_of_job(getenv("SLURM_JOB_END_TIME"), (double)wall.tv_sec + (double)wall.tv_nsec / 1e9, &why);
        if (left < 0)
            fprintf(stderr, "stepmill: warning: SLURM_JOB_END_TIME=%s is not used: %s; --time-left says how much there is\n",
                    getenv("SLURM_JOB_END_TIME"), why);
    } else if (left <= 0) {
        fprintf(stderr, "stepmill: --time-left: no time is left\n");
        return false;
    }
    if (left <= 0) return true;
    if (said != NULL) left = left - spent_s > 1 ? left - spent_s : 1;
    *out = time_limit_divide(left, drain_s);
    begin = time_limit_now();
    out->ask += begin;
    out->gone += begin;
    if (!a->given[CLI_QUIET] && spent_s <= 0)
        fprintf(stderr, "stepmill: info: %g s are left (%s): no more rows are taken in the last %g s\n", round10(left),
                said != NULL ? "--time-left" : "SLURM_JOB_END_TIME", round10(out->margin));
    return true;
}

/* --shard I/N, or slurm. */
static bool take_shard(const cli_args *a, mill_run_options *o)
{
    const char *text = a->value[CLI_SHARD], *why = "expected I/N, 1/4 to 4/4 for four shards, or slurm";

    if (text == NULL || cli_shard(text, getenv("SLURM_ARRAY_TASK_ID"), getenv("SLURM_ARRAY_TASK_MIN"),
                                  getenv("SLURM_ARRAY_TASK_MAX"), getenv("SLURM_ARRAY_TASK_COUNT"), &o->shard, &o->shards, &why))
        return true;
    fprintf(stderr, "stepmill: --shard %s: %s\n", text, why);
    return false;
}

int cmd_run(const cli_args *a) { return cli_work(a, &(cli_work_on){.started = NULL}); }

int cli_work(const cli_args *a, const cli_work_on *on)
{
    mill_supervise_options s = MILL_SUPERVISE_OPTIONS_INIT;
    struct job j = {a, on, MILL_RUN_OPTIONS_INIT, {0, 0, 0, 0, 0}};
    mill_error err = {0};
    int64_t threads, restarts, port;
    int code;

    j.o.dir = a->value[CLI_RUN];
    j.o.fresh = a->given[CLI_FRESH];
    j.o.dry_run = a->given[CLI_DRY_RUN];
    j.o.on_sink_row = sink_row;
    if (!cli_number(a, CLI_LIMIT, 1, 0, &j.o.limit) || !cli_number(a, CLI_THREADS, 1, 0, &threads) ||
        !cli_number(a, CLI_RESTARTS, 0, s.restarts, &restarts) || !cli_time(a, CLI_DRAIN, 60, &j.o.drain_s) ||
        !cli_number(a, CLI_METRICS_PORT, 0, 0, &port) || !take_limit(a, j.o.drain_s, on->spent_s, &j.limit) || !take_shard(a, &j.o))
        return MILL_EXIT_USAGE;
    if (port > 65535) {
        fprintf(stderr, "stepmill: --metrics-port: a port is at most 65535\n");
        return MILL_EXIT_USAGE;
    }
    j.o.metrics_port = a->given[CLI_METRICS_PORT] && port == 0 ? -1 : (int32_t)port; /* 0: any that is free */
    j.o.trace = a->value[CLI_TRACE];
    j.o.threads = (int32_t)(threads < 1024 ? threads : 1024);
    s.restarts = j.o.dry_run ? 0 : (int32_t)(restarts < 1000000 ? restarts : 1000000); /* rows that were printed would come again */
    s.drain_s = j.o.drain_s;
    s.left_s = j.limit.left - j.limit.reserve;
    s.margin_s = j.limit.margin - j.limit.reserve;
    if (a->given[CLI_NO_SUPERVISE]) return work(NULL, &j);
    code = mill_supervise(&s, work, &j, &err);
    if (err.status != MILL_OK) ended_by_parent(a, &err, code);
    return code;
}
