/*
 * The parent's side of the conformance kit: forks a child for every check, watches it, says what came of it.
 *
 * A child leads a process group of its own, so that what a plugin starts ends with it, and dies with its parent.
 */
#include "pipeline/conform.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "pipeline/pipeline.h"
#include "plugin/describe.h"

/* ---- the checks ----------------------------------------------------------------------------------------------------- */

#define G (1u << MILL_GENERATOR)
#define S (1u << MILL_STEP)
#define A (1u << MILL_GLOBAL)
#define K (1u << MILL_SINK)
#define R (1u << MILL_ROUTER)

static bool has_process(const mill_step_type *t) { return t->process != NULL; }
static bool has_submit(const mill_step_type *t) { return t->submit != NULL; }
static bool repeats(const mill_step_type *t) { return t->process != NULL && (t->flags & MILL_NONDETERMINISTIC) == 0; }
static bool row_by_row(const mill_step_type *t) { return repeats(t) && (t->flags & MILL_PER_ROW) != 0; }
static bool has_sync(const mill_step_type *t) { return t->sync != NULL; }
static bool replicated(const mill_step_type *t) { return t->process != NULL && (t->flags & MILL_STATEFUL) == 0; }

const stm_conform_check stm_conform_checks[] = {
    {"configure", G | S | A | K | R, NULL, stm_conform_check_configure},
    {"load", G | S | A | K | R, NULL, stm_conform_check_load},
    {"load that fails", G | S | A | K | R, NULL, stm_conform_check_load_fails},
    {"batches", S, has_process, stm_conform_check_batches},
    {"absent columns", S, has_process, stm_conform_check_absent},
    {"repeat", S, repeats, stm_conform_check_repeat},
    {"row by row", S, row_by_row, stm_conform_check_per_row},
    {"ownership", S, has_process, stm_conform_check_ownership},
    {"replicas", S, replicated, stm_conform_check_replicas},
    {"cancelled", S, has_process, stm_conform_check_cancelled},
    {"emit that fails", S, has_process, stm_conform_check_emit_fails},
    {"memory", S, has_process, stm_conform_check_memory},
    {"runs", S, NULL, stm_conform_check_runs},
    {"joins", S, NULL, stm_conform_check_joins},
    {"tickets", S, has_submit, stm_conform_check_submit},
    {"cancelled tickets", S, has_submit, stm_conform_check_submit_cancel},
    {"rows", G, NULL, stm_conform_check_generate},
    {"restart", G, NULL, stm_conform_check_resume},
    {"failures", G, NULL, stm_conform_check_generate_emit},
    {"rows", A, NULL, stm_conform_check_global},
    {"no rows", A, NULL, stm_conform_check_global_empty},
    {"failures", A, NULL, stm_conform_check_global_emit},
    {"rows", K, NULL, stm_conform_check_sink},
    {"no rows", K, NULL, stm_conform_check_sink_empty},
    {"restart", K, has_sync, stm_conform_check_sink_resume},
    {"not finalized", K, NULL, stm_conform_check_sink_left},
    {"routes", R, NULL, stm_conform_check_route},
    {NULL, 0, NULL, NULL},
};

/* ---- a child -------------------------------------------------------------------------------------------------------- */

static void silent(stm_level level, const char *who, const char *line, void *user)
{
    (void)level, (void)who, (void)line, (void)user;
}

static void child_begins(void)
{
    const struct rlimit none = {0, 0};

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CORE, &none); /* a crash is expected here */
    stm_log_set(silent, NULL, STM_DEBUG);
}

typedef struct ending {
    bool hung, crashed;
    int code; /* of the signal, or the exit code */
} ending;

/* Wait for a child, at most so long; then it is killed. */
static ending await(pid_t child, double timeout_s)
{
    const int64_t end = stm_now_ns() + (int64_t)(timeout_s * 1e9);
    ending e = {0};
    int status = 0;
    long pause_ns = 200000;

    for (;;) {
        const pid_t got = waitpid(child, &status, WNOHANG);
        const struct timespec t = {0, pause_ns};

        if (got == child || (got < 0 && errno != EINTR)) break;
        if (stm_now_ns() >= end) {
            e.hung = true;
            kill(-child, SIGKILL);
            kill(child, SIGKILL);
            while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
            return e;
        }
        nanosleep(&t, NULL);
        if (pause_ns < 10000000) pause_ns *= 2;
    }
    kill(-child, SIGKILL); /* what it may have started */
    e.crashed = WIFSIGNALED(status);
    e.code = e.crashed ? WTERMSIG(status) : WEXITSTATUS(status);
    return e;
}

static void remove_folder(const char *path)
{
    char *const argv[] = {"rm", "-rf", "--", (char *)path, NULL};
    const pid_t child = fork();

    if (child == 0) {
        execvp(argv[0], argv);
        _exit(127);
    }
    if (child > 0) waitpid(child, NULL, 0);
}

static void say(stm_conform_note *n, const char *fmt, ...) MILL_PRINTF(2, 3);
static void say(stm_conform_note *n, const char *fmt, ...)
{
    va_list ap;

    if (n->n_findings == STM_CONFORM_FINDINGS) n->n_findings--; /* how it ended says most */
    va_start(ap, fmt);
    vsnprintf(n->findings[n->n_findings++], sizeof n->findings[0], fmt, ap);
    va_end(ap);
}

/* Run one check in a child; what it said is in @p note. */
static mill_status run_check(const mill_step_type *type, const mill_plugin_check_options *o, const stm_conform_check *check,
                             int32_t any_type, stm_conform_note *note, mill_error *err)
{
    stm_conform k = {.type = type, .opts = o, .note = note, .any_type = any_type};
    const char *tmp = getenv("TMPDIR");
    ending e;
    pid_t child;

    memset(note, 0, sizeof *note);
    if (snprintf(k.dir, sizeof k.dir, "%s/stepmill-check-XXXXXX", tmp != NULL && tmp[0] == '/' ? tmp : "/tmp") >=
            (int)sizeof k.dir ||
        mkdtemp(k.dir) == NULL)
        return mill_fail(err, MILL_ERR_IO, "cannot make the folder %.200s: %s", k.dir, strerror(errno));
    fflush(NULL); /* or the child would print it, too */
    child = fork();
    if (child == 0) {
        mill_error ignored = {0};

        child_begins();
        stm_conform_guard(&k);
        if (check != stm_conform_checks && stm_conform_columns(&k, any_type, &k.arriving, &ignored) != MILL_OK)
            stm_conform_skip(&k, "%s", ignored.msg);
        else
            check->run(&k);
        note->complete = true;
        _exit(0); /* no destructors: what they do is not the step's */
    }
    if (child < 0) {
        remove_folder(k.dir);
        return mill_fail(err, MILL_ERR_IO, "cannot start a process: %s", strerror(errno));
    }
    setpgid(child, child);
    e = await(child, o->timeout_s);
    remove_folder(k.dir);
    if (note->complete) return MILL_OK;
    note->skipped[0] = '\0';
    if (e.hung)
        say(note, "did not come back within %g s: %s", o->timeout_s, note->now);
    else if (e.crashed && note->fault[0] != '\0')
        say(note, "%s, in %s", note->fault, note->now);
    else if (e.crashed)
        say(note, "crashed with signal %d (%s) in %s", e.code, strsignal(e.code), note->now);
    else
        say(note, "ended the process (exit code %d) in %s", e.code, note->now);
    return MILL_OK;
}

/* ---- the report --------------------------------------------------------------------------------------------------------- */

typedef struct report {
    stm_text *out;
    mill_format format;
    size_t types, checks, wrong, skipped;
    char first[600]; /* finding */
    struct {         /* findings of the type in hand, one per check */
        const char *check;
        char text[480];
    } said[16];
    size_t n_said;
} report;

static void text_json(stm_text *t, const char *s)
{
    stm_text_addf(t, "\"");
    stm_text_add_json(t, s, strlen(s));
    stm_text_addf(t, "\"");
}

static void report_check(report *r, const mill_step_type *type, const char *name, const stm_conform_note *n, bool first)
{
    const char *verdict = n->n_findings > 0 ? "wrong" : n->skipped[0] != '\0' ? "not run" : "right";
    stm_text *t = r->out;

    r->checks++;
    r->wrong += n->n_findings > 0;
    r->skipped += n->n_findings == 0 && n->skipped[0] != '\0';
    if (n->n_findings > 0 && r->first[0] == '\0')
        snprintf(r->first, sizeof r->first, "step type \"%s\", %s: %s", type->name, name, n->findings[0]);
    if (r->format == MILL_FORMAT_JSON) {
        stm_text_addf(t, "%s{\"check\":", first ? "" : ",");
        text_json(t, name);
        stm_text_addf(t, ",\"verdict\":\"%s\",\"findings\":[", verdict);
        for (int32_t i = 0; i < n->n_findings; i++) {
            stm_text_addf(t, i > 0 ? "," : "");
            text_json(t, n->findings[i]);
        }
        stm_text_addf(t, "],\"text\":");
        text_json(t, n->n_findings == 0 && n->skipped[0] != '\0' ? n->skipped : n->did);
        stm_text_addf(t, "}");
        return;
    }
    if (n->n_findings == 0) {
        stm_text_addf(t, "  %-8s %-18s %s\n", verdict, name, n->skipped[0] != '\0' ? n->skipped : n->did);
        return;
    }
    for (int32_t i = 0; i < n->n_findings; i++) { /* one defect shows in many checks: its words once */
        const char *before = NULL;

        for (size_t p = 0; p < r->n_said && before == NULL; p++)
            if (stm_conform_same(r->said[p].text, n->findings[i])) before = r->said[p].check;
        stm_text_addf(t, "  %-8s %-18s %s%s\n", i == 0 ? "WRONG" : "", i == 0 ? name : "",
                      before != NULL ? "the same as in: " : n->findings[i], before != NULL ? before : "");
        if (before != NULL || r->n_said == sizeof r->said / sizeof *r->said) continue;
        r->said[r->n_said].check = name;
        snprintf(r->said[r->n_said++].text, sizeof r->said[0].text, "%s", n->findings[i]);
    }
}

/* Everything for one type. */
static mill_status run_type(report *r, const mill_step_type *type, const mill_plugin_check_options *o, stm_conform_note *note,
                            mill_error *err)
{
    const size_t before = r->wrong;
    char missing[300];
    mill_status st = MILL_OK;
    int32_t any_type = 0;
    bool first = true, go_on = true;

    stm_text_addf(r->out, r->format == MILL_FORMAT_JSON ? "%s{\"type\":\"%s\",\"kind\":\"%s\",\"checks\":[" : "%s%s (%s)\n",
                  r->format == MILL_FORMAT_JSON && r->types > 0 ? ",\n" : "", type->name, stm_kind_name(type->kind));
    r->types++;
    r->n_said = 0;
    if (stm_conform_missing(type, o, missing, sizeof missing)) {
        memset(note, 0, sizeof *note);
        snprintf(note->skipped, sizeof note->skipped, "needs values: give --set %s=...", missing);
        report_check(r, type, "configure", note, true);
        go_on = false;
    }
    for (const stm_conform_check *c = stm_conform_checks; go_on && c->name != NULL && st == MILL_OK; c++) {
        if ((c->kinds & 1u << type->kind) == 0 || (c->applies != NULL && !c->applies(type))) continue;
        if ((st = run_check(type, o, c, any_type, note, err)) != MILL_OK) break;
        if (c == stm_conform_checks) {
            any_type = note->any_type;
            go_on = note->complete && note->skipped[0] == '\0';
            if (note->skipped[0] != '\0' && note->wants_help) {
                const size_t n = strlen(note->skipped);
                snprintf(note->skipped + n, sizeof note->skipped - n, " (give it others with --set and --column)");
            }
        }
        report_check(r, type, c->name, note, first);
        first = false;
    }
    if (r->format == MILL_FORMAT_JSON) stm_text_addf(r->out, "],\"valid\":%s}", r->wrong == before ? "true" : "false");
    return st;
}

/* ---- all ------------------------------------------------------------------------------------------------------------------- */

/* A plugin's constructors and entry may crash: a child tries first. */
static mill_status try_open(const char *path, double timeout_s, mill_error *shared, mill_error *err)
{
    ending e;
    pid_t child;

    memset(shared, 0, sizeof *shared);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        stm_registry *reg = NULL;

        child_begins();
        if (stm_registry_create(&reg, shared) == MILL_OK) stm_registry_open(reg, path, shared);
        _exit(0);
    }
    if (child < 0) return mill_fail(err, MILL_ERR_IO, "cannot start a process: %s", strerror(errno));
    setpgid(child, child);
    e = await(child, timeout_s);
    if (e.hung) return mill_fail(err, MILL_ERR_TIMEOUT, "plugin %s: opening it did not come back within %g s", path, timeout_s);
    if (e.crashed)
        return mill_fail(err, MILL_ERR_STEP, "plugin %s: opening it crashed with signal %d (%s)", path, e.code, strsignal(e.code));
    if (e.code != 0) return mill_fail(err, MILL_ERR_STEP, "plugin %s: opening it ended the process (exit code %d)", path, e.code);
    if (shared->status != MILL_OK) *err = *shared;
    return shared->status;
}

/* What the caller asked for must mean something: a misspelt type would be passed over silently. */
static mill_status check_options(const stm_registry *reg, const char *origin, const mill_plugin_check_options *o, mill_error *err)
{
    err->phase = MILL_PHASE_CHECK; /* the caller's fault, not the plugin's */
    for (size_t i = 0; i < o->n_set + (o->only != NULL); i++) {
        const char *s = i < o->n_set ? o->set[i] : o->only;
        char name[80];
        bool known = false;

        snprintf(name, sizeof name, "%.*s", (int)strcspn(s, ".="), s);
        if (i < o->n_set && (strchr(s, '=') == NULL || s[strlen(name)] != '.'))
            return mill_fail(err, MILL_ERR_INVALID, "expected TYPE.PARAMETER=VALUE, got \"%.100s\"", s);
        for (size_t t = 0; t < stm_registry_count(reg); t++)
            known = known || (strcmp(stm_registry_at(reg, t)->name, name) == 0 && strcmp(stm_registry_origin(reg, t), origin) == 0);
        if (!known) return mill_fail(err, MILL_ERR_NOT_FOUND, "no step type \"%s\" is checked here", name);
    }
    err->phase = MILL_PHASE_NONE;
    return MILL_OK;
}

static mill_status run_all(const char *path, const mill_plugin_check_options *o, mill_format format, report *r, mill_error *err)
{
    char *absolute = path != NULL ? stm_path_absolute(NULL, path) : stm_strdup("built in");
    stm_registry *reg = NULL;
    void *shared =
        mmap(NULL, sizeof(stm_conform_note) + sizeof(mill_error), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    mill_status st = MILL_OK;

    if (absolute == NULL || shared == MAP_FAILED) st = mill_fail(err, MILL_ERR_NOMEM, "checking a plugin");
    if (st == MILL_OK && path != NULL)
        st = try_open(absolute, o->timeout_s, (mill_error *)((char *)shared + sizeof(stm_conform_note)), err);
    if (st == MILL_OK) st = stm_registry_create(&reg, err);
    if (st == MILL_OK && path != NULL) st = stm_registry_open(reg, absolute, err);
    for (size_t i = 0; st == MILL_OK && path != NULL && i < stm_registry_count(reg); i++) /* origin: as the registry writes it */
        if (strcmp(stm_registry_origin(reg, i), "built in") != 0) {
            stm_free(absolute);
            absolute = stm_strdup(stm_registry_origin(reg, i));
            if (absolute == NULL) st = mill_fail(err, MILL_ERR_NOMEM, "checking a plugin");
            break;
        }
    if (st == MILL_OK) st = check_options(reg, absolute, o, err);
    if (st == MILL_OK && format == MILL_FORMAT_JSON) stm_text_addf(r->out, "{\"types\":[");
    for (size_t i = 0; st == MILL_OK && i < stm_registry_count(reg); i++) {
        const mill_step_type *type = stm_registry_at(reg, i);

        if (strcmp(stm_registry_origin(reg, i), absolute) != 0 || (o->only != NULL && strcmp(o->only, type->name) != 0)) continue;
        st = run_type(r, type, o, shared, err);
    }
    if (st == MILL_OK && format == MILL_FORMAT_JSON)
        stm_text_addf(r->out, "],\"valid\":%s,\"checks\":%zu,\"wrong\":%zu,\"not_run\":%zu}\n", r->wrong == 0 ? "true" : "false",
                      r->checks, r->wrong, r->skipped);
    else if (st == MILL_OK)
        stm_text_addf(r->out, "%zu step type%s, %zu checks: %zu wrong, %zu not run\n", r->types, r->types == 1 ? "" : "s",
                      r->checks, r->wrong, r->skipped);
    stm_registry_destroy(&reg);
    if (shared != MAP_FAILED) munmap(shared, sizeof(stm_conform_note) + sizeof(mill_error));
    stm_free(absolute);
    return st;
}

static mill_status conform(const char *path, const mill_plugin_check_options *options, mill_format format, stm_text *t, report *r,
                           mill_error *err)
{
    mill_plugin_check_options o = MILL_PLUGIN_CHECK_OPTIONS_INIT;
    mill_error inner = {0};
    mill_status st;

    if (options != NULL) memcpy(&o, options, options->struct_size < sizeof o ? options->struct_size : sizeof o);
    if (!(o.timeout_s > 0)) o.timeout_s = 20;
    *r = (report){.out = t, .format = format};
    st = run_all(path, &o, format, r, &inner);
    if (st != MILL_OK) stm_text_free(t);
    return stm_error_hand_on(&inner, st, err);
}

mill_status mill_plugin_conform(const char *path, const mill_plugin_check_options *options, mill_format format, char **out,
                                mill_verdict *verdict, mill_error *err)
{
    stm_text t = {0};
    report r;
    mill_status st = conform(path, options, format, &t, &r, err);

    if (st == MILL_OK) st = stm_text_hand_out(&t, out, err);
    if (st == MILL_OK) *verdict = r.wrong > 0 ? MILL_VERDICT_WRONG : r.skipped > 0 ? MILL_VERDICT_NOT_RUN : MILL_VERDICT_RIGHT;
    return st;
}

mill_status mill_plugin_check(const char *path, mill_format format, char **out, mill_error *err)
{
    stm_text t = {0};
    report r;
    mill_status st = conform(path, NULL, format, &t, &r, err);

    if (st != MILL_OK) return st;
    if (r.wrong > 0) {
        stm_text_free(&t);
        return mill_fail(err, MILL_ERR_STEP, "%s", r.first);
    }
    return stm_text_hand_out(&t, out, err);
}
