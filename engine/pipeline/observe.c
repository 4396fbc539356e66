#include "pipeline/observe.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fault.h"
#include "core/runfiles.h"
#include "placement/limits.h"
#include "trace/files.h"
#include "trace/gauge.h"
#include "trace/logfile.h"
#include "trace/metrics.h"
#include "trace/serve.h"
#include "trace/tracer.h"

#define FIRST_TICK_NS 2000000LL /* between two looks; grows with the time that the run has taken */
#define TICK_NS FILL_NS
#define TICKS_PER_RUN 50
#define REST_NS 2000000000LL      /* after so long without anything that moves it is enough to look as often as is written */
#define TRACE_TICK_NS 20000000LL /* rings must not fill meanwhile */
#define FILL_NS 250000000LL      /* between two readings of all counters */
#define WRITE_NS 1000000000LL    /* between two writings; more where writing is slow */
#define WRITE_SHARE 100          /* of the time at most 1/100 goes into it, */
#define REST_SHARE 4000          /* 1/4000 while nothing moves */
enum { LOGGED_ERRORS = 100 /* per look */ };

struct stm_observer {
    stm_run *run;
    char *dir; /* NULL = nothing is written */
    int64_t start_ns;
    pthread_t thread;
    bool started;
    stm_log_tap tap;
    stm_logfile *log;   /* NULL = none */
    stm_server *server; /* NULL = none */
    stm_tracer *tracer; /* borrowed; NULL = none */

    pthread_mutex_t lock; /* below: all that follows */
    pthread_cond_t cond;
    bool quit, ended;
    bool settled; /* the run was complete before: `picture` is that of the attempt that did the work */
    bool told;  /* that something cannot be written */
    bool moved; /* since the last writing a replica began, ended or made something */
    int64_t moved_ns; /* when one last did, since the start */
    stm_picture *picture;
    stm_gauge *gauge;
    stm_account *accounts;                  /* [replicas] */
    stm_phase *phases;                      /* [steps] as last logged */
    int64_t looked_ns, filled_ns, wrote_ns; /* since the start */
    int64_t cost_ns; /* of the last writing */
    int64_t errors;                         /* records seen */
    stm_text text;
};

/* ---- looking ------------------------------------------------------------------------------------------------------- */

/* What every replica does now: cheap, often. */
static void look(stm_observer *o)
{
    stm_picture *p = o->picture;
    const int64_t now = stm_now_ns() - o->start_ns, dt = now - o->looked_ns;

    for (int32_t i = 0; i < p->n_steps; i++) {
        stm_picture_step *s = &p->steps[i];
        for (int32_t k = 0; k < s->replicas && !s->kept; k++) {
            stm_picture_replica *r = &p->all[s->first_replica + k];
            stm_replica_stats now_at;
            int64_t ns[STM_SPENTS];

            stm_run_replica(o->run, i, k, &now_at);
            if (now_at.rows != r->rows) {
                if (s->first_ns == 0) s->first_ns = o->looked_ns > 0 ? o->looked_ns : 1;
                s->last_ns = now;
            }
            if (now_at.doing != r->doing || now_at.rows != r->rows) {
                o->moved = true;
                o->moved_ns = now;
            }
            r->doing = now_at.doing;
            r->rows = now_at.rows;
            r->batches = now_at.batches;
            stm_account_look(&o->accounts[s->first_replica + k], now_at.doing, now_at.busy_ns, dt, ns);
            for (int d = 0; d < STM_SPENTS; d++) r->ns[d] += ns[d];
            stm_course_add(&p->timeline, s->first_replica + k, now, dt, ns);
        }
    }
    o->looked_ns = now;
}

static void log_event(stm_observer *o, stm_level level, const char *who, const char *event, const char *text)
{
    if (o->log != NULL) stm_logfile_add(o->log, level, who, event, text);
}

static void log_phase(stm_observer *o, int32_t i)
{
    const stm_picture_step *s = &o->picture->steps[i];
    char text[160];

    if (s->phase == o->phases[i]) return;
    o->phases[i] = s->phase;
    snprintf(text, sizeof text, "%s: %d of %d replicas loaded, %lld rows in, %lld out, %lld failed", stm_phase_names[s->phase],
             s->loaded, s->replicas, (long long)s->rows_in, (long long)s->rows_out, (long long)s->rows_failed);
    log_event(o, s->phase == STM_PHASE_FAILED ? STM_ERROR : STM_INFO, s->name, stm_phase_names[s->phase], text);
}

static void look_at_errors(stm_observer *o)
{
    const int64_t n = stm_run_errors(o->run);
    int logged = 0;

    for (; o->errors < n; o->errors++) {
        const stm_error_record *rec = stm_run_error(o->run, o->errors + 1);
        char who[96], text[1800];

        if (rec == NULL) continue;
        if (rec->error.error_class >= 0 && rec->error.error_class < 4) o->picture->classes[rec->error.error_class]++;
        if (logged++ >= LOGGED_ERRORS) continue; /* errors.jsonl has them all */
        if (rec->error.replica >= 0)
            snprintf(who, sizeof who, "%s[%d]", rec->error.step, rec->error.replica);
        else
            snprintf(who, sizeof who, "%s", rec->error.step);
        snprintf(text, sizeof text, "%s%s%s%s%s (%lld row%s)", rec->error.msg, rec->first_key[0] != '\0' ? ", rows " : "",
                 rec->first_key, rec->first_key[0] != '\0' ? " to " : "", rec->last_key, (long long)rec->rows,
                 rec->rows == 1 ? "" : "s");
        log_event(o, STM_ERROR, who, "error", text);
    }
}

/* All counters: some locks, a few times a second. */
static void fill(stm_observer *o)
{
    stm_picture *p = o->picture;
    stm_memory_stats m;
    struct timespec t;

    if (o->settled) return;
    look(o);
    for (int32_t i = 0; i < p->n_steps; i++) {
        stm_picture_step *s = &p->steps[i];
        stm_step_stats c;

        if (s->kept) continue;
        stm_run_stats(o->run, i, &c);
        s->phase = (stm_phase)c.phase;
        s->loaded = c.replicas_loaded;
        s->batches_in = c.batches_in, s->rows_in = c.rows_in, s->batches_out = c.batches_out, s->rows_out = c.rows_out;
        s->rows_dropped = c.rows_dropped, s->parents_expanded = c.parents_expanded, s->children = c.children;
        s->rows_failed = c.rows_failed, s->rows_skipped = c.rows_skipped, s->retries = c.retries;
        s->queued_rows = c.queued_rows, s->ready_batches = c.ready_batches, s->stalls = c.stalls;
        s->rows_before = c.rows_before;
        s->done = c.phase == STM_STEP_DONE && s->kind == MILL_GENERATOR ? 1.0 : c.done;
        log_phase(o, i);
    }
    stm_run_memory(o->run, &m);
    p->memory_live = m.live, p->memory_peak = m.peak, p->memory_limit = m.limit, p->on_disk = m.on_disk_bytes;
    p->rows_imputed = stm_run_imputed_rows(o->run);
    look_at_errors(o);
    p->errors = o->errors;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    p->cpu_s = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
    clock_gettime(CLOCK_REALTIME, &t);
    p->wall_ms = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    p->seconds = (double)o->looked_ns / 1e9;
    stm_gauge_read(o->gauge, p);
    o->filled_ns = o->looked_ns;
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

static void say_once(stm_observer *o, const mill_error *err)
{
    if (o->told) return;
    o->told = true;
    stm_log(STM_WARN, "run", "%s; the run goes on without showing how far it is there", err->msg);
}

static void write_out(stm_observer *o)
{
    const int64_t began = stm_now_ns();
    mill_error err = {0};

    o->text.bytes = 0;
    o->text.failed = false;
    stm_picture_write(o->picture, &o->text);
    if (!o->text.failed && stm_file_replace(o->dir, STM_RUN_PROGRESS, o->text.data, o->text.bytes, &err) != MILL_OK)
        say_once(o, &err);
    o->text.bytes = 0;
    o->text.failed = false;
    stm_metrics_write(o->picture, &o->text);
    if (!o->text.failed && stm_file_replace(o->dir, STM_RUN_METRICS, o->text.data, o->text.bytes, &err) != MILL_OK)
        say_once(o, &err);
    o->cost_ns = stm_now_ns() - began;
    o->wrote_ns = o->looked_ns;
    o->moved = false;
}

/* Asked anew at each look: a writing that was slow while nothing moved does not hold back what moves then. */
static bool is_due(const stm_observer *o)
{
    const int64_t pause = o->cost_ns * (o->moved ? WRITE_SHARE : REST_SHARE);

    return o->looked_ns - o->wrote_ns >= (pause > WRITE_NS ? pause : WRITE_NS);
}

/* What the server gives away. Threads: its own. */
static const char *page(const char *path, stm_text *out, void *user)
{
    stm_observer *o = user;
    const bool metrics = strcmp(path, "/metrics") == 0;

    if (!metrics && strcmp(path, "/progress.json") != 0) return NULL;
    pthread_mutex_lock(&o->lock);
    if (!o->ended) fill(o);
    if (metrics)
        stm_metrics_write(o->picture, out);
    else
        stm_picture_write(o->picture, out);
    pthread_mutex_unlock(&o->lock);
    return metrics ? "text/plain; version=0.0.4; charset=utf-8" : "application/json";
}

static void listen_for_metrics(stm_observer *o, int32_t port)
{
    mill_error err = {0};

    if (stm_server_start(port > 0 ? port : 0, page, o, &o->server, &err) != MILL_OK)
        stm_log(STM_WARN, "run", "no metrics: %s", err.msg); /* no reason to lose a run that a supervisor has started again */
    else
        stm_log(STM_INFO, "run", "metrics on http://127.0.0.1:%d/metrics", (int)stm_server_port(o->server));
}

/* ---- the thread ---------------------------------------------------------------------------------------------------- */

static void *observer_main(void *arg)
{
    stm_observer *o = arg;

    pthread_mutex_lock(&o->lock);
    while (!o->quit) {
        int64_t tick = o->looked_ns / TICKS_PER_RUN;
        struct timespec t;

        if (o->tracer != NULL && tick > TRACE_TICK_NS) tick = TRACE_TICK_NS;
        tick = tick < FIRST_TICK_NS ? FIRST_TICK_NS : tick > TICK_NS ? TICK_NS : tick;
        if (o->tracer == NULL && o->looked_ns - o->moved_ns >= REST_NS) tick = WRITE_NS;
        clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_sec += (t.tv_nsec + tick) / STM_NS_PER_S;
        t.tv_nsec = (t.tv_nsec + tick) % STM_NS_PER_S;
        pthread_cond_timedwait(&o->cond, &o->lock, &t);
        if (o->quit) break;
        look(o);
        if (o->tracer != NULL) stm_tracer_drain(o->tracer);
        if (o->looked_ns - o->filled_ns < FILL_NS && !is_due(o)) continue;
        fill(o);
        if (is_due(o)) write_out(o);
    }
    pthread_mutex_unlock(&o->lock);
    return NULL;
}

/* ---- start and end ------------------------------------------------------------------------------------------------- */

/* What an earlier attempt did, of which this one does nothing: its numbers. Where they are lost, they are 0. */
static void take_kept(stm_picture *p, int32_t i, const stm_picture *before)
{
    stm_picture_step *to = &p->steps[i];
    const stm_picture_step *from = NULL;

    to->kept = true;
    to->phase = STM_PHASE_DONE;
    to->done = 1;
    for (int32_t k = 0; before != NULL && k < before->n_steps && from == NULL; k++)
        if (strcmp(before->steps[k].name, to->name) == 0) from = &before->steps[k];
    if (from == NULL) return;
    to->batches_in = from->batches_in, to->rows_in = from->rows_in, to->batches_out = from->batches_out,
    to->rows_out = from->rows_out;
    to->rows_dropped = from->rows_dropped, to->parents_expanded = from->parents_expanded, to->children = from->children;
    to->rows_failed = from->rows_failed, to->rows_skipped = from->rows_skipped, to->retries = from->retries;
    to->stalls = from->stalls, to->rows_before = from->rows_before, to->rate = from->rate;
    to->busy = from->busy, to->starved = from->starved, to->blocked = from->blocked, to->crowded = from->crowded;
    for (int32_t k = 0; k < to->replicas && from->replicas == to->replicas; k++) {
        p->all[to->first_replica + k] = before->all[from->first_replica + k];
        p->all[to->first_replica + k].doing = STM_SPENT_OFF;
    }
}

/* How often and how long this directory was worked on before, and what of that counts still. */
static void look_back(stm_observer *o, bool fresh)
{
    stm_picture *before = NULL;
    stm_text t = {0};
    mill_error err = {0};

    o->picture->attempt = 1;
    if (!fresh && stm_file_read(o->dir, STM_RUN_PROGRESS, &t, &err) == MILL_OK &&
        stm_picture_read(t.data != NULL ? t.data : "", t.bytes, &before) == MILL_OK) {
        o->picture->attempt = before->attempt + 1;
        o->picture->earlier_s = before->earlier_s + before->seconds;
    }
    for (int32_t i = 0; i < o->picture->n_steps; i++)
        if (stm_run_kept(o->run, i)) take_kept(o->picture, i, before);
    if (before != NULL && stm_run_was_complete(o->run)) {
        o->settled = true;
        stm_picture_destroy(&o->picture);
        o->picture = before;
        before = NULL;
    }
    stm_picture_destroy(&before);
    stm_text_free(&t);
}

static mill_status make_picture(stm_observer *o, const stm_observer_opts *opts)
{
    const int32_t n = stm_run_steps(o->run);
    mill_status st = stm_picture_create(n, &o->picture);
    stm_picture *p = o->picture;
    struct timespec t;

    if (st != MILL_OK) return st;
    for (int32_t i = 0; i < n; i++) {
        const mill_step *s = stm_run_step(o->run, i);
        stm_picture_step *to = &p->steps[i];
        const int32_t n_from = stm_run_inputs(o->run, i);

        snprintf(to->name, sizeof to->name, "%.63s", s->name);
        snprintf(to->type, sizeof to->type, "%.63s", s->type->name);
        to->kind = s->type->kind;
        to->replicas = s->policy.replicas > 0 ? s->policy.replicas : 1;
        to->devices = s->policy.gpus > 0;
        to->may_replicate = s->type->kind == MILL_STEP && (s->type->flags & MILL_STATEFUL) == 0;
        if (n_from > 0 && stm_picture_from(to, n_from) != MILL_OK) return MILL_ERR_NOMEM;
        for (int32_t k = 0; k < n_from; k++) to->from[k] = stm_run_input(o->run, i, k);
    }
    if ((st = stm_picture_replicas(p)) != MILL_OK || (st = stm_gauge_create(n, &o->gauge)) != MILL_OK) return st;
    o->accounts = stm_calloc((size_t)(p->n_replicas + 1) * sizeof *o->accounts);
    o->phases = stm_calloc((size_t)(n + 1) * sizeof *o->phases);
    if (o->accounts == NULL || o->phases == NULL) return MILL_ERR_NOMEM;
    snprintf(p->name, sizeof p->name, "%.63s", opts->name);
    snprintf(p->version, sizeof p->version, "%s", MILL_VERSION);
    if (gethostname(p->host, sizeof p->host - 1) != 0) p->host[0] = '\0';
    p->pid = (int32_t)getpid();
    p->attempt = 1;
    p->max_errors = opts->max_errors;
    p->processors = stm_cpu_count();
    clock_gettime(CLOCK_REALTIME, &t);
    p->started_s = t.tv_sec - (stm_now_ns() - o->start_ns) / STM_NS_PER_S;
    return MILL_OK;
}

static mill_status open_files(stm_observer *o, const stm_observer_opts *opts)
{
    mill_error err = {0};
    char text[200];
    pthread_condattr_t attr;
    int e;

    look_back(o, opts->fresh);
    if (stm_logfile_open(o->dir, &o->log, &err) != MILL_OK) {
        say_once(o, &err);
    } else {
        o->tap = (stm_log_tap){.sink = stm_logfile_tap, .user = o->log};
        stm_log_tap_add(&o->tap);
        snprintf(text, sizeof text, "%s, attempt %d, process %d on %.40s", o->picture->name, o->picture->attempt, o->picture->pid,
                 o->picture->host);
        if (o->settled)
            log_event(o, STM_INFO, "", "complete", "complete already: nothing is left to do");
        else
            log_event(o, STM_INFO, "", "start", text);
    }
    if (o->settled) return MILL_OK;
    if (opts->facts != NULL && stm_file_replace(o->dir, STM_RUN_FACTS, opts->facts, opts->facts_bytes, &err) != MILL_OK)
        say_once(o, &err);
    fill(o);
    write_out(o); /* so that it can be seen from its first moment */
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&o->cond, &attr);
    pthread_condattr_destroy(&attr);
    e = stm_fault_fires(STM_FAULT_THREAD) ? EAGAIN : pthread_create(&o->thread, NULL, observer_main, o);
    if (e != 0) {
        pthread_cond_destroy(&o->cond);
        return MILL_ERR_NOMEM;
    }
    o->started = true;
    return MILL_OK;
}

mill_status stm_observer_start(const stm_observer_opts *opts, stm_run *run, stm_observer **out, mill_error *err)
{
    stm_observer *o = stm_calloc(sizeof *o);
    mill_status st = MILL_ERR_NOMEM;

    if (o == NULL) return mill_fail(err, MILL_ERR_NOMEM, "watching the run");
    pthread_mutex_init(&o->lock, NULL);
    o->run = run;
    o->tracer = opts->tracer;
    o->start_ns = opts->start_ns;
    o->looked_ns = stm_now_ns() - o->start_ns;
    if (opts->dir == NULL || (o->dir = stm_strdup(opts->dir)) != NULL) st = make_picture(o, opts);
    if (st == MILL_OK && o->dir != NULL) st = open_files(o, opts);
    if (st == MILL_OK && opts->metrics_port != 0) listen_for_metrics(o, opts->metrics_port);
    if (st != MILL_OK) {
        stm_observer_destroy(&o);
        return mill_fail(err, st, "watching the run: no memory or no thread");
    }
    *out = o;
    return MILL_OK;
}

void stm_observer_draw(stm_observer *o, stm_text *out, void (*draw)(const stm_picture *p, stm_text *out, void *user), void *user)
{
    pthread_mutex_lock(&o->lock);
    if (!o->ended) fill(o);
    draw(o->picture, out, user);
    pthread_mutex_unlock(&o->lock);
}

bool stm_observer_settled(const stm_observer *o) { return o->settled; }

static void stop_thread(stm_observer *o)
{
    if (!o->started) return;
    pthread_mutex_lock(&o->lock);
    o->quit = true;
    pthread_cond_signal(&o->cond);
    pthread_mutex_unlock(&o->lock);
    pthread_join(o->thread, NULL);
    pthread_cond_destroy(&o->cond);
    o->started = false;
}

void stm_observer_end(stm_observer *o, stm_picture_state state, const mill_error *why)
{
    char text[200];
    stm_picture_sums s;
    mill_error err = {0};

    if (o == NULL || o->ended) return;
    stop_thread(o);
    if (o->tracer != NULL && stm_tracer_finish(o->tracer, &err) != MILL_OK) say_once(o, &err);
    pthread_mutex_lock(&o->lock);
    o->ended = true;
    if (o->settled) { /* who did the work may have been killed before it could say that it was done */
        if (o->picture->state != STM_PICTURE_DONE) {
            o->picture->state = STM_PICTURE_DONE;
            o->picture->error[0] = '\0';
            o->picture->errors = stm_run_errors(o->run);
            o->picture->rows_imputed = stm_run_imputed_rows(o->run);
            write_out(o);
        }
        pthread_mutex_unlock(&o->lock);
        return;
    }
    o->picture->state = state;
    if (why != NULL && why->status != MILL_OK && state != STM_PICTURE_DONE)
        snprintf(o->picture->error, sizeof o->picture->error, "%.255s", why->msg);
    fill(o);
    s = stm_picture_add_up(o->picture);
    snprintf(text, sizeof text, "%s after %.3f s: %lld rows in, %lld rows out, %lld imputed", stm_picture_state_names[state],
             o->picture->seconds, (long long)s.rows_in, (long long)s.rows_out, (long long)o->picture->rows_imputed);
    log_event(o, state == STM_PICTURE_DONE || state == STM_PICTURE_STOPPED ? STM_INFO : STM_ERROR, "", "end", text);
    if (o->dir != NULL) write_out(o);
    pthread_mutex_unlock(&o->lock);
}

void stm_observer_destroy(stm_observer **op)
{
    stm_observer *o = *op;

    if (o == NULL) return;
    stop_thread(o);
    stm_server_stop(&o->server);
    if (o->log != NULL) stm_log_tap_remove(&o->tap);
    stm_logfile_close(&o->log);
    stm_picture_destroy(&o->picture);
    stm_gauge_destroy(&o->gauge);
    stm_free(o->accounts);
    stm_free(o->phases);
    stm_text_free(&o->text);
    stm_free(o->dir);
    pthread_mutex_destroy(&o->lock);
    stm_free(o);
    *op = NULL;
}
