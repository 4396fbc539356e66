/* mill_run: a plan carried out in a run directory. */
#include "stepmill/run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/runfiles.h"
#include "exec/run.h"
#include "pipeline/facts.h"
#include "pipeline/observe.h"
#include "pipeline/placing.h"
#include "pipeline/rundir.h"
#include "pipeline/shards.h"
#include "stepmill/json.h"
#include "stepmill/watch.h"
#include "supervise/child.h"
#include "trace/errorfile.h"
#include "trace/files.h"
#include "trace/tracer.h"

struct mill_run {
    stm_run *run;
    char *dir;                /* absolute; NULL = dry run, or nothing is left of it */
    char *home;               /* where outputs are: `dir`, or of a retry the run in whose directory it works */
    int64_t start_ns;
    _Atomic int64_t end_ns; /* 0 until it has ended; relaxed: the owner's, and who asks for totals meanwhile */
    int64_t max_errors;
    mill_run_state state;
    mill_error error; /* why it ended so */
    bool finished;
    mill_run_options opts;
    stm_observer *observer;
    stm_tracer *tracer; /* NULL = no trace */
    stm_text text;      /* of mill_run_show */
    stm_shards shards;  /* a merge: of what */
    stm_claims *claims; /* on the GPUs that it uses, and on files outside of its directory */
    stm_footprint *footprint; /* NULL = all that it makes stays */
};

/* ---- run directory ----------------------------------------------------------------------------------------------- */

/* The name of a new folder is to survive a power loss; some file systems keep it without being asked, and cannot be. */
static void sync_above(const char *path)
{
    char *above = stm_strdup(path), *slash = above != NULL ? strrchr(above, '/') : NULL;
    int fd = -1;

    if (slash != NULL) {
        slash[slash == above] = '\0';
        fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    stm_free(above);
}

static mill_status make_dirs(const char *path, mill_error *err)
{
    char *copy = stm_strdup(path);
    mill_status st = MILL_OK;

    if (copy == NULL) return mill_fail(err, MILL_ERR_NOMEM, "making %s", path);
    for (char *p = copy + 1; st == MILL_OK; p++) {
        const char c = *p;

        if (c != '/' && c != '\0') continue;
        *p = '\0';
        if (mkdir(copy, 0777) == 0)
            sync_above(copy);
        else if (errno != EEXIST)
            st = mill_fail(err, MILL_ERR_IO, "cannot make the run directory %s: %s", copy, strerror(errno));
        *p = c;
        if (c == '\0') break;
    }
    stm_free(copy);
    return st;
}

/* ---- start ------------------------------------------------------------------------------------------------------- */

/* What is in hand while a run is started. */
typedef struct start {
    stm_arena arena;
    stm_graph graph;
    stm_plan *plan;
    stm_shards shards; /* of a merge */
    stm_text facts;
    stm_run_opts opts;
} start;

static void start_fini(start *s)
{
    stm_text_free(&s->facts);
    stm_plan_destroy(&s->plan);
    stm_arena_fini(&s->arena);
    stm_shards_fini(&s->shards);
}

static mill_status name_dir(mill_pipeline *p, mill_run *r, start *s, mill_error *err)
{
    char name[64] = "", *dir;
    stm_text path = {0};
    mill_status st = MILL_OK;

    if (r->opts.dry_run) return MILL_OK;
    if ((dir = r->opts.dir != NULL ? stm_path_absolute(NULL, r->opts.dir) : stm_pipeline_dir(p)) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "starting the run");
    if (r->opts.shards > 0 && !r->opts.resume)
        snprintf(name, sizeof name, "/shard-%d-of-%d", (int)r->opts.shard, (int)r->opts.shards);
    if (name[0] != '\0') st = stm_rundir_check(dir, r->opts.trace, err); /* the shards are put together there */
    stm_text_addf(&path, "%s%s", dir, name);
    stm_free(dir);
    if (st == MILL_OK && !path.failed) r->home = stm_path_absolute(NULL, path.data);
    if (r->home != NULL) r->dir = stm_strdup(r->home);
    stm_text_free(&path);
    /* What is no shard is said first: where it would go is the folder around it, which may be anybody's. */
    if (st == MILL_OK && r->dir != NULL && r->opts.n_merge > 0) st = stm_shards_order(&r->opts, r->dir, &s->shards, err);
    /* a trace stays where a run could not load */
    if (st == MILL_OK && r->home != NULL) st = stm_rundir_check(r->home, r->opts.trace, err);
    if (st != MILL_OK && err != NULL) err->phase = MILL_PHASE_CHECK;
    if (st != MILL_OK) return st;
    return r->dir != NULL ? MILL_OK : mill_fail(err, MILL_ERR_NOMEM, "starting the run");
}

mill_status mill_retry_look(const char *dir, mill_retry_state *out, mill_error *err)
{
    uint64_t retries;
    bool ended;
    const mill_status st = stm_run_look(dir, &retries, &ended, err);

    if (st == MILL_OK) *out = ended ? MILL_RETRY_READY : retries != 0 ? MILL_RETRY_HALFWAY : MILL_RETRY_UNFINISHED;
    return st;
}

/* Which retry it is, and where it works. */
static mill_status name_retry(mill_run *r, stm_run_opts *ro, mill_error *err)
{
    stm_text path = {0};
    uint64_t retries;
    bool ended;
    int32_t number = 1;
    mill_status st;

    if (r->opts.retry == MILL_RETRY_NONE) return MILL_OK;
    if (r->home == NULL) return mill_fail(err, MILL_ERR_INVALID, "a dry run is no retry");
    st = stm_run_look(r->home, &retries, &ended, err);
    while (st == MILL_OK && number <= 64 && (retries >> (number - 1) & 1) != 0) number++;
    if (st == MILL_OK && number > 64) {
        st = mill_fail(err, MILL_ERR_UNSUPPORTED, "rows of the run in %s were run again 64 times, which is as often as it goes",
                       r->home);
        mill_error_remedy(err, "Run everything again: stepmill run FILE --fresh");
    }
    if (st != MILL_OK) return stm_refused(st, err, NULL, NULL);
    if (r->opts.retry == MILL_RETRY_PUT) {
        ro->put = number;
        return MILL_OK;
    }
    stm_text_addf(&path, "%s/retry.%d", r->home, (int)number);
    stm_free(r->dir);
    r->dir = path.failed ? NULL : stm_strdup(path.data);
    stm_text_free(&path);
    ro->retry_of = r->home;
    ro->retry_classes = r->opts.retry_classes;
    ro->retry_step = r->opts.retry_step;
    return r->dir != NULL ? MILL_OK : mill_fail(err, MILL_ERR_NOMEM, "starting the run");
}

/* A dry run's sink rows, one JSON object each. Called one at a time. */
static void hand_out_rows(const mill_replica *sink, const mill_batch *batch, void *user)
{
    const mill_run *r = user;
    const mill_step *step = mill_replica_step(sink);
    const stm_step_input *in = &step->inputs[0];
    const char **names = stm_malloc((size_t)in->n_used * sizeof *names);
    mill_json_writer *w = NULL;

    for (int32_t i = 0; names != NULL && i < in->n_used; i++) names[i] = in->used[i].name;
    if (names != NULL && mill_json_writer_create(names, in->n_used, 0, &w) == MILL_OK) mill_json_writer_batch(w, batch);
    for (int64_t i = 0; w != NULL && i < mill_batch_rows(batch); i++) {
        size_t bytes;
        const char *line;

        mill_json_writer_clear(w);
        if (mill_json_writer_row(w, i) != MILL_OK) break;
        if (step->policy.sink_errors && mill_json_writer_text(w, "_error", mill_replica_row_error(sink, batch, i)) != MILL_OK)
            break;
        if (mill_json_writer_end(w) != MILL_OK) break;
        line = mill_json_writer_data(w, &bytes);
        r->opts.on_sink_row(mill_step_name(step), line, bytes - 1, r->opts.user); /* without the newline */
    }
    mill_json_writer_destroy(&w);
    stm_free(names);
}

static mill_status check_options(const mill_pipeline *p, const mill_run *r, mill_error *err)
{
    const mill_run_options *o = &r->opts;

    if (p->devices_file != NULL)
        return mill_fail(err, MILL_ERR_INVALID, "the pipeline is planned for another machine (%s): it cannot be run",
                         p->devices_file);
    if (o->shards < 0 || o->shard < 0 || o->shard > o->shards || (o->shards > 0 && o->shard == 0))
        return mill_fail(err, MILL_ERR_INVALID, "there is no shard %d of %d", (int)o->shard, (int)o->shards);
    if (o->trace == NULL || stm_tracer_may_write(o->trace, err) == MILL_OK) return MILL_OK;
    err->phase = MILL_PHASE_CHECK;
    return err->status;
}

static mill_status plan_run(mill_pipeline *p, mill_run *r, start *s, mill_error *err)
{
    mill_status st;

    p->runs = r->opts.n_merge > 0 ? STM_RUNS_MERGE : r->opts.shards > 0 ? STM_RUNS_SHARD : STM_RUNS_ALL;
    st = stm_pipeline_plan(p, r->home, &s->arena, &s->graph, &s->plan, err);
    if (st == MILL_OK && r->opts.shards > 0) st = stm_shards_outputs(&s->graph, s->plan, r->home, err);
    if (st != MILL_OK) return st;
    r->max_errors = s->plan->max_errors;
    /* One batch of each generator says nothing about how long they are. */
    for (int32_t i = 0; r->opts.dry_run && i < s->plan->n_steps; i++) s->plan->steps[i].on_uneven = STM_UNEVEN_NULL;
    return MILL_OK;
}

/* Devices, paths of outputs and the run directory are this run's, and what its failure to load would take back is noted. */
static mill_status take_places(const mill_pipeline *p, mill_run *r, start *s, mill_error *err)
{
    const bool own_dir = r->dir != NULL && s->opts.retry_of == NULL; /* a retry works in a directory of its own */
    /* Of a run that another process began there is something to keep, whatever becomes of this one. */
    const bool first = r->opts.child == NULL || r->opts.child->recorder->worker == 0;
    mill_status st = stm_pipeline_claim(p, &s->graph, s->plan, &r->claims, err);

    if (st == MILL_OK && own_dir && r->opts.shards == 0) st = stm_claim_outputs(s->plan, r->dir, &r->claims, err);
    if (st == MILL_OK && own_dir && first) st = stm_note_outputs(s->plan, r->dir, &r->footprint, err);
    if (st == MILL_OK && r->dir != NULL) st = make_dirs(r->dir, err);
    return st;
}

static void set_run_opts(mill_run *r, start *s)
{
    stm_run_opts *to = &s->opts;

    to->threads = r->opts.threads;
    to->dry_run = r->opts.dry_run;
    to->limit = r->opts.limit;
    to->drain_s = r->opts.drain_s;
    to->run_dir = r->dir;
    to->durable = r->dir != NULL;
    to->fresh = r->opts.fresh;
    to->resume = r->opts.resume && to->retry_of == NULL; /* a retry is a run of its own */
    to->shard = r->opts.shard;
    to->shards = s->shards.n > 0 ? s->shards.n : r->opts.shards;
    if (s->shards.n > 0) to->merge = (const char *const *)s->shards.dirs;
    to->commit_interval_s = s->plan->commit_interval_s;
    to->footprint = r->footprint;
    to->recorder = r->opts.child != NULL ? r->opts.child->recorder : NULL;
    to->tracer = r->tracer;
    if (r->opts.on_sink_row == NULL) return;
    to->on_sink_batch = hand_out_rows;
    to->user = r;
}

static mill_status start_observer(const mill_pipeline *p, mill_run *r, const stm_text *facts, mill_error *err)
{
    const stm_observer_opts opts = {.name = mill_pipeline_name(p),
                                    .dir = r->dir,
                                    .facts = facts->failed ? NULL : facts->data,
                                    .facts_bytes = facts->failed ? 0 : facts->bytes,
                                    .start_ns = r->start_ns,
                                    .max_errors = r->max_errors,
                                    .fresh = r->opts.fresh,
                                    .metrics_port = r->opts.metrics_port,
                                    .tracer = r->tracer};

    return stm_observer_start(&opts, r->run, &r->observer, err);
}

mill_status mill_run_start(mill_pipeline *p, const mill_run_options *options, mill_run **out, mill_error *err)
{
    static const mill_run_options defaults = MILL_RUN_OPTIONS_INIT;
    mill_run *r = stm_calloc(sizeof *r);
    start s = {.opts = {.struct_size = sizeof s.opts}};
    mill_error unseen = {0};
    mill_status st;

    if (err == NULL) err = &unseen; /* what is refused below is told by its record */
    if (r == NULL) return mill_fail(err, MILL_ERR_NOMEM, "starting the run");
    r->opts = defaults;
    if (options != NULL) memcpy(&r->opts, options, options->struct_size < sizeof r->opts ? options->struct_size : sizeof r->opts);
    r->start_ns = stm_now_ns();
    if ((st = name_dir(p, r, &s, err)) != MILL_OK) goto fail;
    if ((st = name_retry(r, &s.opts, err)) != MILL_OK) goto fail;
    if ((st = check_options(p, r, err)) != MILL_OK) goto fail;
    if ((st = plan_run(p, r, &s, err)) != MILL_OK) goto fail;
    if ((st = take_places(p, r, &s, err)) != MILL_OK) goto fail;
    if (r->dir != NULL) stm_facts_write(p, s.plan, r->dir, &r->opts, &s.facts); /* before the run takes the plan */
    if (r->opts.trace != NULL && (st = stm_tracer_create(r->opts.trace, &r->tracer, err)) != MILL_OK) goto fail;
    set_run_opts(r, &s);
    if ((st = stm_run_start(&s.plan, &s.opts, &r->run, err)) != MILL_OK) goto fail;
    if ((st = start_observer(p, r, &s.facts, err)) != MILL_OK) goto fail;
    r->shards = s.shards; /* the run borrows them */
    s.shards = (stm_shards){0};
    start_fini(&s);
    *out = r;
    return MILL_OK;
fail:
    mill_run_destroy(&r);
    start_fini(&s);
    return st;
}

/* ---- while it runs ------------------------------------------------------------------------------------------------ */

mill_run_state mill_run_wait(mill_run *r, double timeout_s, mill_error *err)
{
    static const mill_run_state states[] = {
        [STM_END_RUNNING] = MILL_RUN_RUNNING, [STM_END_DONE] = MILL_RUN_DONE,       [STM_END_LOAD_FAILED] = MILL_RUN_LOAD_FAILED,
        [STM_END_FAILED] = MILL_RUN_FAILED,   [STM_END_STOPPED] = MILL_RUN_STOPPED,
    };

    if (r->state == MILL_RUN_RUNNING) {
        r->state = states[stm_run_wait(r->run, timeout_s, &r->error)];
        if (r->state != MILL_RUN_RUNNING) {
            atomic_store_explicit(&r->end_ns, stm_now_ns(), memory_order_relaxed);
            stm_observer_end(r->observer, (stm_picture_state)r->state, &r->error);
        }
    }
    if (r->state != MILL_RUN_RUNNING && err != NULL && err->status == MILL_OK) *err = r->error;
    return r->state;
}

void mill_run_stop(mill_run *r, bool drain) { stm_run_stop(r->run, drain); }

bool mill_run_hung(const mill_run *r, mill_error *err) { return stm_run_hung(r->run, err); }

bool mill_run_at_work(const mill_run *r, mill_error *err) { return stm_run_hung(r->run, err) || stm_run_at_work(r->run, err); }

const char *mill_run_dir(const mill_run *r) { return r->dir; }

bool mill_run_was_complete(const mill_run *r) { return stm_observer_settled(r->observer); }

/* Of the attempt that did the work. */
static void take_totals(const stm_picture *p, stm_text *out, void *user)
{
    const stm_picture_sums s = stm_picture_add_up(p);
    mill_run_totals *t = user;

    (void)out;
    t->seconds = p->seconds;
    t->rows_in = s.rows_in;
    t->rows_out = s.rows_out;
}

void mill_run_get_totals(const mill_run *r, mill_run_totals *out)
{
    const int32_t n = stm_run_steps(r->run);
    const int64_t end_ns = atomic_load_explicit(&r->end_ns, memory_order_relaxed);
    stm_step_stats s;
    mill_run_totals t = {0};

    t.seconds = (double)((end_ns != 0 ? end_ns : stm_now_ns()) - r->start_ns) / 1e9;
    if (stm_observer_settled(r->observer)) stm_observer_draw(r->observer, NULL, take_totals, &t);
    for (int32_t i = 0; i < n && !stm_observer_settled(r->observer); i++) {
        const int32_t kind = stm_run_step(r->run, i)->type->kind;

        stm_run_stats(r->run, i, &s);
        if (kind == MILL_GENERATOR) t.rows_in += s.rows_out;
        if (kind == MILL_SINK) t.rows_out += s.rows_in;
    }
    t.rows_imputed = stm_run_imputed_rows(r->run);
    t.max_errors = r->max_errors;
    t.errors = stm_run_errors(r->run);
    t.struct_size = out->struct_size < sizeof t ? out->struct_size : sizeof t; /* the caller's may be of an older version */
    memcpy(out, &t, t.struct_size);
}

bool mill_run_get_error(const mill_run *r, int64_t i, mill_run_error *out)
{
    const stm_error_record *rec = i >= 0 && i < stm_run_errors(r->run) ? stm_run_error(r->run, i + 1) : NULL;
    mill_run_error e;

    if (rec == NULL) return false;
    e = (mill_run_error){out->struct_size < sizeof e ? out->struct_size : sizeof e, rec->error, rec->rows, rec->first_key,
                         rec->last_key};
    memcpy(out, &e, e.struct_size);
    return true;
}

const char *mill_run_output(const mill_run *r, size_t i, const char **step)
{
    for (int32_t k = 0; k < stm_run_steps(r->run); k++) {
        const mill_step *s = stm_run_step(r->run, k);

        if (s->type->kind != MILL_SINK || (r->opts.shards > 0 && stm_run_is_for_merge(r->run, k))) continue;
        for (size_t j = 0; j < s->type->n_params; j++) {
            const char *path =
                s->type->params[j].type == MILL_PARAM_OUT_PATH ? mill_config_text(s->config, s->type->params[j].name) : NULL;

            if (path == NULL || i-- > 0) continue;
            *step = s->name;
            return path;
        }
    }
    return NULL;
}

struct drawing {
    int style, width, height, lines;
};

static void draw(const stm_picture *p, stm_text *out, void *user)
{
    struct drawing *d = user;

    d->lines = stm_progress_show(p, d->style, d->width, d->height, out);
}

const char *mill_run_show(mill_run *r, int style, int width, int height, int *lines)
{
    struct drawing d = {.style = style, .width = width, .height = height};

    r->text.bytes = 0;
    r->text.failed = false;
    stm_observer_draw(r->observer, &r->text, draw, &d);
    *lines = r->text.failed || r->text.data == NULL ? 0 : d.lines;
    return *lines > 0 ? r->text.data : "";
}

const char *mill_run_progress(mill_run *r, mill_progress_style style, int width, int *lines)
{
    return mill_run_show(r, style, width, 0, lines);
}

static void (*log_sink)(int level, const char *who, const char *line, void *user); /* written while no engine thread runs or logs */

static void pass_line(stm_level level, const char *who, const char *line, void *user) { log_sink((int)level, who, line, user); }

void mill_log_to(void (*sink)(int level, const char *who, const char *line, void *user), void *user)
{
    stm_log_set(NULL, NULL, STM_INFO); /* nobody is inside the sink from here on */
    log_sink = sink;
    if (sink != NULL) stm_log_set(pass_line, user, STM_INFO);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

/* A run that could not load leaves nothing: what is wrong was said, and once it is mended the run begins as if this one had never
 * been. */
static void leave_nothing(mill_run *r)
{
    stm_observer_end(r->observer, STM_PICTURE_LOAD_FAILED, &r->error); /* of one that hangs it is at work still */
    stm_footprint_undo(r->footprint);
    stm_free(r->dir);
    r->dir = NULL;
}

/* errors.jsonl, complete or not there. Also when empty, so that an older one does not speak for this run. */
static mill_status write_errors(const mill_run *r, mill_error *err)
{
    stm_text t = {0};
    mill_run_error e = {.struct_size = sizeof e};
    stm_beside file;
    mill_status st = stm_beside_open(r->dir, STM_RUN_ERRORS, &file, err);
    bool ok = true;

    if (st != MILL_OK) return st;
    for (int64_t i = 0; ok && mill_run_get_error(r, i, &e); i++) {
        stm_error_line(&e.error, i + 1, e.rows, e.first_key, e.last_key, &t);
        if (t.bytes > 1 << 16) ok = stm_file_write(file.fd, t.data, t.bytes), t.bytes = 0;
    }
    if (t.failed) ok = false, errno = ENOMEM;
    if (t.bytes > 0) ok = ok && stm_file_write(file.fd, t.data, t.bytes);
    if (ok && stm_run_errors(r->run) > 0) ok = fdatasync(file.fd) == 0 || errno == EINVAL; /* an empty one has nothing to lose */
    st = stm_beside_end(&file, ok, err);
    if (st == MILL_OK && stm_run_errors(r->run) > 0) sync_above(file.path);
    stm_text_free(&t);
    return st;
}

static bool written_at(const mill_run *r, const char *name, struct timespec *at)
{
    stm_text path = {0};
    struct stat s;
    bool there;

    stm_text_addf(&path, "%s/%s", r->dir, name);
    there = !path.failed && stat(path.data, &s) == 0;
    if (there) *at = s.st_mtim;
    stm_text_free(&path);
    return there;
}

/* What is written at the end: of a run that was complete before it says what is true if it is as young as the numbers of who did
 * the work. Who was killed in between left it to us, and perhaps the files of an attempt before. */
static bool has_its_files(const mill_run *r)
{
    static const char *const files[] = {STM_RUN_ERRORS, STM_RUN_REPORT};
    struct timespec numbers, at;
    bool all = written_at(r, STM_RUN_PROGRESS, &numbers);

    for (size_t i = 0; i < sizeof files / sizeof *files && all; i++)
        all = written_at(r, files[i], &at) &&
              (at.tv_sec > numbers.tv_sec || (at.tv_sec == numbers.tv_sec && at.tv_nsec >= numbers.tv_nsec));
    return all;
}

mill_status mill_run_finish(mill_run *r, mill_error *err)
{
    mill_error seen = {0};
    mill_status st;

    if (r->finished || r->dir == NULL) return MILL_OK;
    r->finished = true;
    if (r->footprint != NULL && stm_run_never_began(r->run)) {
        leave_nothing(r);
        return MILL_OK;
    }
    if (stm_observer_settled(r->observer) && has_its_files(r)) return MILL_OK;
    st = write_errors(r, err);
    if (st == MILL_OK && r->state != MILL_RUN_RUNNING && mill_report_write(r->dir, NULL, &seen) != MILL_OK)
        stm_log(STM_WARN, "run", "no report: %s", seen.msg);
    return st;
}

int mill_run_exit_code(const mill_run *r)
{
    switch (r->state) {
    case MILL_RUN_LOAD_FAILED: return MILL_EXIT_LOAD;
    case MILL_RUN_FAILED: return MILL_EXIT_PROCESS;
    case MILL_RUN_STOPPED: return MILL_EXIT_STOPPED;
    default: return stm_run_imputed_rows(r->run) > r->max_errors ? MILL_EXIT_ERRORS : MILL_EXIT_OK;
    }
}

void mill_run_destroy(mill_run **run)
{
    mill_run *r;

    if (run == NULL || *run == NULL) return;
    r = *run;
    stm_observer_end(r->observer, STM_PICTURE_STOPPED, NULL); /* given up while it ran */
    stm_observer_destroy(&r->observer);                       /* it looks at the run */
    if (r->run == NULL && r->footprint != NULL) stm_footprint_undo(r->footprint);
    stm_run_destroy(&r->run);
    stm_footprint_destroy(&r->footprint);
    stm_tracer_destroy(&r->tracer); /* its threads have ended */
    stm_text_free(&r->text);
    stm_claims_destroy(&r->claims);
    stm_shards_fini(&r->shards);
    stm_free(r->dir);
    stm_free(r->home);
    stm_free(r);
    *run = NULL;
}
