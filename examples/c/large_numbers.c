/*
 * A pipeline that is built and run by a program: large_numbers FILE.jsonl DIR. docs/from-c.md explains it.
 * Of the rows of FILE those with n > 10 go to DIR/large.jsonl.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <stepmill/run.h>

static volatile sig_atomic_t stop; /* Ctrl-C */

static int say(const mill_error *err, int code)
{
    char text[1600];

    mill_error_format(err, text, sizeof text);
    fprintf(stderr, "large_numbers: %s\n", text);
    return code;
}

static mill_status build(const char *file, mill_pipeline **out, mill_error *err)
{
    const struct {
        const char *key, *value;
    } keys[] = {
        {"numbers.path", file},
        {"numbers.columns", "{n: int64}"},
        {"large.where", "n > 10"},
        {"large.input_batch_size", "16"},
        {"out.path", "large.jsonl"},
        {"max_errors", "1"},
    };
    mill_pipeline *p = NULL;
    mill_status st = mill_pipeline_create("large-numbers", &p, err);

    if (st == MILL_OK) st = mill_pipeline_add(p, "numbers", "read_jsonl", err);
    if (st == MILL_OK) st = mill_pipeline_add(p, "large", "filter", err);
    if (st == MILL_OK) st = mill_pipeline_add(p, "out", "write_jsonl", err);
    if (st == MILL_OK) st = mill_pipeline_connect(p, "numbers", "large", err);
    if (st == MILL_OK) st = mill_pipeline_connect(p, "large", "out", err);
    for (size_t i = 0; i < sizeof keys / sizeof *keys && st == MILL_OK; i++)
        st = mill_pipeline_set(p, keys[i].key, keys[i].value, err);
    if (st == MILL_OK) st = mill_pipeline_check(p, err);
    if (st != MILL_OK) {
        mill_pipeline_destroy(&p);
        return st;
    }
    *out = p;
    return MILL_OK;
}

static void show_errors(const mill_run *run)
{
    mill_run_error e = {.struct_size = sizeof e};
    char text[1600];

    for (int64_t i = 0; mill_run_get_error(run, i, &e); i++) {
        mill_error_format(&e.error, text, sizeof text);
        printf("failed: %s to %s: %s\n", e.first_key, e.last_key, text);
    }
}

static int run(mill_pipeline *p, const char *dir)
{
    mill_run_options options = MILL_RUN_OPTIONS_INIT;
    mill_run_totals t = {.struct_size = sizeof t};
    mill_error err = {0}, hung = {0};
    mill_run *run = NULL;
    int lines, code;

    options.dir = dir;
    if (mill_run_start(p, &options, &run, &err) != MILL_OK) return say(&err, MILL_EXIT_LOAD);
    while (mill_run_wait(run, 0.25, &err) == MILL_RUN_RUNNING) {
        fputs(mill_run_progress(run, MILL_PROGRESS_LINE, 0, &lines), stderr);
        if (stop) mill_run_stop(run, true);
        if (mill_run_hung(run, &hung)) _Exit(say(&hung, MILL_EXIT_PROCESS));
    }
    if (err.status != MILL_OK) say(&err, 0);
    code = mill_run_exit_code(run);
    mill_run_get_totals(run, &t);
    show_errors(run);
    printf("%s: %lld rows in, %lld rows out\n", mill_run_was_complete(run) ? "complete already" : "done", (long long)t.rows_in,
           (long long)t.rows_out);
    if (mill_run_finish(run, &err) != MILL_OK) code = say(&err, MILL_EXIT_PROCESS);
    mill_run_destroy(&run);
    return code;
}

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

int main(int argc, char **argv)
{
    mill_pipeline *p = NULL;
    mill_error err = {0};
    int code;

    if (argc != 3) {
        fprintf(stderr, "usage: large_numbers FILE.jsonl DIR\n");
        return MILL_EXIT_USAGE;
    }
    signal(SIGINT, on_signal);
    if (build(argv[1], &p, &err) != MILL_OK) return say(&err, MILL_EXIT_PIPELINE);
    code = run(p, argv[2]);
    mill_pipeline_destroy(&p);
    return code;
}
