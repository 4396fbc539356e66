#include "trace/picture.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "stepmill/step.h"

const char *const stm_phase_names[STM_PHASES] = {"waiting", "loading", "running", "done", "failed"};
const char *const stm_picture_state_names[STM_PICTURE_STATES] = {"running", "done", "load_failed", "failed", "stopped"};

mill_status stm_picture_create(int32_t n_steps, stm_picture **out)
{
    stm_picture *p = stm_calloc(sizeof *p);

    if (p == NULL) return MILL_ERR_NOMEM;
    p->n_steps = n_steps;
    p->steps = stm_calloc((size_t)(n_steps > 0 ? n_steps : 1) * sizeof *p->steps);
    if (p->steps == NULL) {
        stm_picture_destroy(&p);
        return MILL_ERR_NOMEM;
    }
    for (int32_t i = 0; i < n_steps; i++) {
        p->steps[i].done = p->steps[i].eta_s = -1;
        p->steps[i].replicas = 1;
    }
    *out = p;
    return MILL_OK;
}

mill_status stm_picture_from(stm_picture_step *s, int32_t n)
{
    s->from = stm_calloc((size_t)(n > 0 ? n : 1) * sizeof *s->from);
    s->n_from = s->from != NULL ? n : 0;
    return s->from != NULL ? MILL_OK : MILL_ERR_NOMEM;
}

mill_status stm_picture_replicas(stm_picture *p)
{
    p->n_replicas = 0;
    for (int32_t i = 0; i < p->n_steps; i++) {
        p->steps[i].first_replica = p->n_replicas;
        p->n_replicas += p->steps[i].replicas;
    }
    p->all = stm_calloc((size_t)(p->n_replicas > 0 ? p->n_replicas : 1) * sizeof *p->all);
    for (int32_t i = 0; p->all != NULL && i < p->n_replicas; i++) p->all[i].doing = STM_SPENT_OFF;
    return p->all == NULL ? MILL_ERR_NOMEM : stm_course_init(&p->timeline, p->n_replicas);
}

void stm_picture_destroy(stm_picture **pp)
{
    stm_picture *p = *pp;

    if (p == NULL) return;
    for (int32_t i = 0; p->steps != NULL && i < p->n_steps; i++) stm_free(p->steps[i].from);
    stm_free(p->steps);
    stm_free(p->all);
    stm_course_fini(&p->timeline);
    stm_free(p);
    *pp = NULL;
}

stm_picture_sums stm_picture_add_up(const stm_picture *p)
{
    stm_picture_sums s = {.eta_s = -1};

    for (int32_t i = 0; i < p->n_steps; i++) {
        const stm_picture_step *step = &p->steps[i];
        double total;

        s.rows_failed += step->rows_failed;
        if (step->kind == MILL_SINK && !step->kept) s.rows_out += step->rows_in;
        if (step->eta_s > s.eta_s) s.eta_s = step->eta_s; /* the run ends with its last step */
        s.more = s.more || (step->eta_s < 0 && step->phase != STM_PHASE_DONE && step->phase != STM_PHASE_FAILED);
        if (step->kind != MILL_GENERATOR || step->kept) continue;
        s.rows_in += step->rows_out;
        s.rate += step->rate;
        total = step->phase == STM_PHASE_DONE ? (double)(step->rows_before + step->rows_out)
                : step->done > 0              ? (double)(step->rows_before + step->rows_out) / step->done
                                              : -1;
        s.rows_total = s.rows_total < 0 || total < 0 ? -1 : s.rows_total + total;
    }
    if (p->state != STM_PICTURE_RUNNING) s.eta_s = -1;
    return s;
}

char *stm_show_time(int64_t seconds, char *buf, size_t size)
{
    const time_t t = (time_t)seconds;
    struct tm tm;

    if (gmtime_r(&t, &tm) == NULL || strftime(buf, size, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0) buf[0] = '\0';
    return buf;
}

/* ---- to JSON ------------------------------------------------------------------------------------------------------- */

static void text_field(stm_text *t, const char *key, const char *value)
{
    stm_text_addf(t, "\"%s\":\"", key);
    stm_text_add_json(t, value, strlen(value));
    stm_text_addf(t, "\",");
}

static void number_or_null(stm_text *t, const char *key, double v)
{
    if (v >= 0)
        stm_text_addf(t, "\"%s\":%.6g,", key, v);
    else
        stm_text_addf(t, "\"%s\":null,", key);
}

static void write_replica(const stm_picture_replica *r, stm_text *t)
{
    stm_text_addf(t, "{\"doing\":\"%s\",\"rows\":%lld,\"batches\":%lld", stm_spent_names[r->doing], (long long)r->rows,
                  (long long)r->batches);
    for (int d = 0; d < STM_SPENTS; d++) stm_text_addf(t, ",\"%s_s\":%.6f", stm_spent_names[d], (double)r->ns[d] / 1e9);
    stm_text_addf(t, "}");
}

static void write_step(const stm_picture *p, const stm_picture_step *s, stm_text *t)
{
    stm_text_addf(t, "{");
    text_field(t, "step", s->name);
    text_field(t, "type", s->type);
    stm_text_addf(
        t, "\"kind\":%d,\"phase\":\"%s\",\"kept\":%s,\"replicas\":%d,\"loaded\":%d,\"devices\":%s,\"may_replicate\":%s,\"from\":[",
        s->kind, stm_phase_names[s->phase], s->kept ? "true" : "false", s->replicas, s->loaded, s->devices ? "true" : "false",
        s->may_replicate ? "true" : "false");
    for (int32_t i = 0; i < s->n_from; i++) stm_text_addf(t, "%s%d", i > 0 ? "," : "", s->from[i]);
    stm_text_addf(
        t,
        "],\"batches_in\":%lld,\"rows_in\":%lld,\"batches_out\":%lld,\"rows_out\":%lld,\"rows_dropped\":%lld,\"parents_expanded\":%"
        "lld,"
        "\"children\":%lld,\"rows_failed\":%lld,\"rows_skipped\":%lld,\"retries\":%lld,\"queued_rows\":%lld,\"ready_batches\":%lld,"
        "\"stalls\":%lld,\"rows_before\":%lld,",
        (long long)s->batches_in, (long long)s->rows_in, (long long)s->batches_out, (long long)s->rows_out,
        (long long)s->rows_dropped, (long long)s->parents_expanded, (long long)s->children, (long long)s->rows_failed,
        (long long)s->rows_skipped, (long long)s->retries, (long long)s->queued_rows, (long long)s->ready_batches,
        (long long)s->stalls, (long long)s->rows_before);
    number_or_null(t, "done", s->done);
    number_or_null(t, "eta_s", s->eta_s);
    stm_text_addf(t,
                  "\"rows_per_s\":%.1f,\"busy\":%.4f,\"starved\":%.4f,\"blocked\":%.4f,\"crowded\":%.4f,\"first_s\":%.6f,\"last_"
                  "s\":%.6f,\"each\":[",
                  s->rate, s->busy, s->starved, s->blocked, s->crowded, (double)s->first_ns / 1e9, (double)s->last_ns / 1e9);
    for (int32_t k = 0; k < s->replicas; k++) {
        if (k > 0) stm_text_addf(t, ",");
        write_replica(&p->all[s->first_replica + k], t);
    }
    stm_text_addf(t, "]}");
}

/* A share 0 .. 1 as one letter: 64 steps are finer than a screen shows. */
static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void write_timeline(const stm_course *line, stm_text *t)
{
    stm_text_addf(t, "{\"span_s\":%.6f,\"spans\":%d,\"letters\":\"%s\",\"tracks\":[", (double)line->span_ns / 1e9, line->n,
                  letters);
    for (int32_t k = 0; k < line->n_tracks; k++) {
        stm_text_addf(t, "%s{", k > 0 ? "," : "");
        for (int d = 0; d < STM_SPENTS; d++) {
            char shares[STM_SPANS + 1];
            for (int32_t i = 0; i < line->n; i++) {
                const float share = stm_course_span(line, k, i)[d] / (float)line->span_ns;
                shares[i] = letters[share <= 0 ? 0 : share >= 1 ? 63 : (int)(share * 63 + 0.5f)];
            }
            shares[line->n] = '\0';
            stm_text_addf(t, "%s\"%s\":\"%s\"", d > 0 ? "," : "", stm_spent_names[d], shares);
        }
        stm_text_addf(t, "}");
    }
    stm_text_addf(t, "]}");
}

void stm_picture_write(const stm_picture *p, stm_text *t)
{
    const stm_picture_sums s = stm_picture_add_up(p);
    char when[32];

    stm_text_addf(t, "{\"format\":1,");
    text_field(t, "name", p->name);
    text_field(t, "state", stm_picture_state_names[p->state]);
    text_field(t, "error", p->error);
    text_field(t, "version", p->version);
    text_field(t, "host", p->host);
    text_field(t, "started", stm_show_time(p->started_s, when, sizeof when));
    text_field(t, "updated", stm_show_time(p->wall_ms / 1000, when, sizeof when));
    stm_text_addf(t, "\"pid\":%d,\"attempt\":%d,\"started_s\":%lld,\"updated_ms\":%lld,\"seconds\":%.3f,\"earlier_s\":%.3f,",
                  p->pid, p->attempt, (long long)p->started_s, (long long)p->wall_ms, p->seconds, p->earlier_s);
    stm_text_addf(
        t, "\"rows_in\":%lld,\"rows_out\":%lld,\"rows_failed\":%lld,\"rows_imputed\":%lld,\"max_errors\":%lld,\"errors\":%lld,",
        (long long)s.rows_in, (long long)s.rows_out, (long long)s.rows_failed, (long long)p->rows_imputed, (long long)p->max_errors,
        (long long)p->errors);
    number_or_null(t, "rows_total", s.rows_total);
    number_or_null(t, "eta_s", s.eta_s);
    stm_text_addf(t, "\"rows_per_s\":%.1f,\"classes\":{\"permanent\":%lld,\"transient\":%lld,\"data\":%lld,\"device\":%lld},",
                  s.rate, (long long)p->classes[0], (long long)p->classes[1], (long long)p->classes[2], (long long)p->classes[3]);
    stm_text_addf(
        t, "\"memory\":{\"live\":%lld,\"peak\":%lld,\"limit\":%lld,\"on_disk\":%lld},\"cpu_s\":%.3f,\"processors\":%d,\"steps\":[",
        (long long)p->memory_live, (long long)p->memory_peak, (long long)p->memory_limit, (long long)p->on_disk, p->cpu_s,
        p->processors);
    for (int32_t i = 0; i < p->n_steps; i++) {
        if (i > 0) stm_text_addf(t, ",\n");
        write_step(p, &p->steps[i], t);
    }
    stm_text_addf(t, "],\n\"timeline\":");
    write_timeline(&p->timeline, t);
    stm_text_addf(t, "}\n");
}

/* ---- from JSON ----------------------------------------------------------------------------------------------------- */

static void take_text(const stm_tree *j, const char *key, char *to, size_t size)
{
    const char *v = stm_tree_text(j, key);
    size_t n = strlen(v);

    if (n >= size)
        for (n = size - 1; n > 0 && ((unsigned char)v[n] & 0xc0) == 0x80; n--) {
        } /* whole characters */
    memcpy(to, v, n);
    to[n] = '\0';
}

static int pick(const char *word, const char *const *words, int n, int otherwise)
{
    for (int i = 0; i < n; i++)
        if (strcmp(word, words[i]) == 0) return i;
    return otherwise;
}

static int64_t to_ns(double s) { return s > 0 && s < 9e9 ? (int64_t)(s * 1e9 + 0.5) : 0; }

static mill_status read_step(const stm_tree *j, int32_t n_steps, stm_picture_step *s)
{
    const stm_tree *from = stm_tree_get(j, "from"), *each = stm_tree_get(j, "each");
    int32_t n = 0;

    take_text(j, "step", s->name, sizeof s->name);
    take_text(j, "type", s->type, sizeof s->type);
    s->kind = (int32_t)stm_tree_whole(j, "kind", MILL_STEP);
    s->phase = (stm_phase)pick(stm_tree_text(j, "phase"), stm_phase_names, STM_PHASES, STM_PHASE_WAITING);
    s->replicas = each != NULL ? each->n : 0;
    s->loaded = (int32_t)stm_tree_whole(j, "loaded", 0);
    s->kept = stm_tree_get(j, "kept") != NULL && stm_tree_get(j, "kept")->whole != 0;
    s->devices = stm_tree_get(j, "devices") != NULL && stm_tree_get(j, "devices")->whole != 0;
    s->may_replicate = stm_tree_get(j, "may_replicate") != NULL && stm_tree_get(j, "may_replicate")->whole != 0;
#define WHOLE(field) s->field = stm_tree_whole(j, #field, 0)
    WHOLE(batches_in), WHOLE(rows_in), WHOLE(batches_out), WHOLE(rows_out), WHOLE(rows_dropped), WHOLE(parents_expanded),
        WHOLE(children);
    WHOLE(rows_failed), WHOLE(rows_skipped), WHOLE(retries), WHOLE(queued_rows), WHOLE(ready_batches), WHOLE(stalls),
        WHOLE(rows_before);
#undef WHOLE
    s->done = stm_tree_number(j, "done", -1);
    s->eta_s = stm_tree_number(j, "eta_s", -1);
    s->rate = stm_tree_number(j, "rows_per_s", 0);
    s->busy = stm_tree_number(j, "busy", 0);
    s->starved = stm_tree_number(j, "starved", 0);
    s->blocked = stm_tree_number(j, "blocked", 0);
    s->crowded = stm_tree_number(j, "crowded", 0);
    s->first_ns = to_ns(stm_tree_number(j, "first_s", 0));
    s->last_ns = to_ns(stm_tree_number(j, "last_s", 0));
    if (stm_picture_from(s, from != NULL ? from->n : 0) != MILL_OK) return MILL_ERR_NOMEM;
    for (const stm_tree *f = from != NULL ? from->first : NULL; f != NULL; f = f->next) {
        if (f->whole < 0 || f->whole >= n_steps) return MILL_ERR_DATA;
        s->from[n++] = (int32_t)f->whole;
    }
    return MILL_OK;
}

static void read_replicas(const stm_tree *each, stm_picture_replica *r)
{
    for (const stm_tree *e = each != NULL ? each->first : NULL; e != NULL; e = e->next, r++) {
        r->doing = (stm_spent)pick(stm_tree_text(e, "doing"), stm_spent_names, STM_SPENTS + 1, STM_SPENT_OFF);
        r->rows = stm_tree_whole(e, "rows", 0);
        r->batches = stm_tree_whole(e, "batches", 0);
        for (int d = 0; d < STM_SPENTS; d++) {
            char key[24];
            snprintf(key, sizeof key, "%s_s", stm_spent_names[d]);
            r->ns[d] = to_ns(stm_tree_number(e, key, 0));
        }
    }
}

static void read_timeline(const stm_tree *j, stm_course *t)
{
    const stm_tree *tracks = stm_tree_get(j, "tracks");
    int32_t k = 0;

    t->span_ns = to_ns(stm_tree_number(j, "span_s", 0.01));
    if (t->span_ns < 1) t->span_ns = STM_SPAN_NS;
    t->n = (int32_t)stm_tree_whole(j, "spans", 0);
    if (t->n < 0 || t->n > STM_SPANS) t->n = 0;
    for (const stm_tree *e = tracks != NULL ? tracks->first : NULL; e != NULL && k < t->n_tracks; e = e->next, k++)
        for (int d = 0; d < STM_SPENTS; d++) {
            const char *shares = stm_tree_text(e, stm_spent_names[d]);
            for (int32_t i = 0; i < t->n && shares[i] != '\0'; i++) {
                const char *at = strchr(letters, shares[i]);
                if (at != NULL) stm_course_span(t, k, i)[d] = (float)(at - letters) / 63.0f * (float)t->span_ns;
            }
        }
}

mill_status stm_picture_read(const char *bytes, size_t n, stm_picture **out)
{
    stm_tree_doc *doc = NULL;
    const stm_tree *root, *steps, *classes, *memory;
    stm_picture *p = NULL;
    int32_t i = 0;
    mill_status st = stm_tree_parse(bytes, n, &doc, &root);

    if (st != MILL_OK) return st;
    steps = stm_tree_get(root, "steps");
    if (stm_tree_whole(root, "format", 0) != 1 || steps == NULL || steps->kind != STM_TREE_ARRAY) st = MILL_ERR_DATA;
    if (st == MILL_OK) st = stm_picture_create(steps->n, &p);
    for (const stm_tree *e = st == MILL_OK ? steps->first : NULL; e != NULL && st == MILL_OK; e = e->next)
        st = read_step(e, p->n_steps, &p->steps[i++]);
    if (st == MILL_OK) st = stm_picture_replicas(p);
    if (st == MILL_OK) {
        classes = stm_tree_get(root, "classes");
        memory = stm_tree_get(root, "memory");
        take_text(root, "name", p->name, sizeof p->name);
        take_text(root, "host", p->host, sizeof p->host);
        take_text(root, "version", p->version, sizeof p->version);
        take_text(root, "error", p->error, sizeof p->error);
        p->state =
            (stm_picture_state)pick(stm_tree_text(root, "state"), stm_picture_state_names, STM_PICTURE_STATES, STM_PICTURE_RUNNING);
        p->pid = (int32_t)stm_tree_whole(root, "pid", 0);
        p->attempt = (int32_t)stm_tree_whole(root, "attempt", 1);
        p->started_s = stm_tree_whole(root, "started_s", 0);
        p->wall_ms = stm_tree_whole(root, "updated_ms", 0);
        p->seconds = stm_tree_number(root, "seconds", 0);
        p->earlier_s = stm_tree_number(root, "earlier_s", 0);
        p->rows_imputed = stm_tree_whole(root, "rows_imputed", 0);
        p->max_errors = stm_tree_whole(root, "max_errors", 0);
        p->errors = stm_tree_whole(root, "errors", 0);
        p->classes[0] = stm_tree_whole(classes, "permanent", 0);
        p->classes[1] = stm_tree_whole(classes, "transient", 0);
        p->classes[2] = stm_tree_whole(classes, "data", 0);
        p->classes[3] = stm_tree_whole(classes, "device", 0);
        p->memory_live = stm_tree_whole(memory, "live", 0);
        p->memory_peak = stm_tree_whole(memory, "peak", 0);
        p->memory_limit = stm_tree_whole(memory, "limit", 0);
        p->on_disk = stm_tree_whole(memory, "on_disk", 0);
        p->cpu_s = stm_tree_number(root, "cpu_s", 0);
        p->processors = (int32_t)stm_tree_whole(root, "processors", 1);
        i = 0;
        for (const stm_tree *e = steps->first; e != NULL; e = e->next, i++)
            read_replicas(stm_tree_get(e, "each"), &p->all[p->steps[i].first_replica]);
        read_timeline(stm_tree_get(root, "timeline"), &p->timeline);
    }
    stm_tree_destroy(&doc);
    if (st != MILL_OK) {
        stm_picture_destroy(&p);
        return st;
    }
    *out = p;
    return MILL_OK;
}
