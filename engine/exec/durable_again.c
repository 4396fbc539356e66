/*
 * A retry at work: a run in RUN/retry.N that makes the rows of RUN which failed again, and stops in front of the sinks. It reads
 * RUN and changes nothing there.
 *
 * A failure names its rows by key, so by rows of a root; all that comes of those runs again in the part where it failed, and in the
 * parts that read from that. What stands in front is kept: its stored rows are read, those rows only. A global that gets other rows
 * takes all of them anew, those that were kept and those that ran again in their places, and what is behind it runs as a whole. So
 * every part is kept, or some of its rows run again, or all of it does.
 *
 * Rows run again as a whole: a failure of one of these rows in a part that runs again is void, whoever asked for it, and so
 * that none is void for a part of its rows, all rows of such a failure run again as well.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/error.h"
#include "core/log.h"
#include "exec/durable_state.h"

#define ANSWER_S 5.0

struct stm_again {
    stm_files files;
    stm_vault *vault;
    stm_owner *owner; /* nobody else writes RUN meanwhile */
    stm_kept kept;
    stm_root_rows *rows;     /* [stations] */
    stm_row_choice *choices; /* [stations] of generators */
    uint8_t *parts;          /* [parts] stm_part_retry */
    bool *dirty, *all;       /* [stations] makes some rows, or all, anew */
    bool *taken;             /* [errors + 1] void by this */
    bool no_room;            /* for a range of rows */
    int64_t errors;
    uint64_t print;
};

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "no memory for a retry"); }

/* ---- rows of a failure -------------------------------------------------------------------------------------------- */

/* "packages:12.-.3": the station that founds such keys, and the numbers, as far as a record has room for them; false: it is none of
 * this graph. */
static bool read_key(const stm_run *run, const char *text, int32_t *space, int64_t *key, int32_t *width)
{
    const char *colon = strrchr(text, ':'), *rest;

    if (colon == NULL) return false;
    *space = -1;
    for (int32_t i = 0; i < run->n_stations && *space < 0; i++)
        if (stm_flow_stream_of(run->flow, i)->key_space == i && strncmp(run->stations[i].name, text, (size_t)(colon - text)) == 0 &&
            run->stations[i].name[colon - text] == '\0')
            *space = i;
    *width = stm_key_parse(colon + 1, key, STM_KEY_MOST, &rest);
    return *space >= 0 && *width > 0;
}

typedef bool (*visit)(stm_again *a, int32_t root, int64_t first, int64_t last);

/* Whether visit was true of any rows of a key space from key @p from (NULL: its first) to key @p to (NULL: its last). */
static bool visit_between(const stm_run *run, int32_t space, const int64_t *from, const int64_t *to, visit v)
{
    const stm_station *s = &run->stations[space];
    const int64_t first = from != NULL ? from[0] : 0, last = to != NULL ? to[0] : s->root < 0 ? s->n_inputs - 1 : INT64_MAX;
    bool any = false;

    if (s->root >= 0) return v(run->durable->again, space, first, last);
    for (int64_t i = first; i <= last; i++) /* a union: first all of its first input, and so on */
        any = visit_between(run, stm_station_key_space(s, (int32_t)i), from != NULL && i == first ? from + 1 : NULL,
                            to != NULL && i == last ? to + 1 : NULL, v) || any;
    return any;
}

/* The same of the record's rows; false also where it names none of this graph. */
static bool each_span(const stm_run *run, const stm_error_record *rec, visit v)
{
    int64_t from[STM_KEY_MOST], to[STM_KEY_MOST], row;
    int32_t space, space_to, n_from, n_to;

    if (!read_key(run, rec->first_key, &space, from, &n_from) || !read_key(run, rec->last_key, &space_to, to, &n_to) ||
        space != space_to)
        return false;
    if (stm_key_root(run, space, from, n_from, &row) < 0 || stm_key_root(run, space, to, n_to, &row) < 0) return false;
    return visit_between(run, space, from, to, v);
}

static bool add_span(stm_again *a, int32_t root, int64_t first, int64_t last)
{
    stm_root_rows *r = &a->rows[root];

    if (stm_grow(&r->ranges, &r->cap, r->n + 1, sizeof *r->ranges) != 0)
        a->no_room = true;
    else
        r->ranges[r->n++] = (stm_row_range){first, last};
    return true;
}

static bool has_span(stm_again *a, int32_t root, int64_t first, int64_t last)
{
    const stm_root_rows *r = &a->rows[root];
    size_t low = 0, high = r->n;

    while (low < high) {
        const size_t mid = low + (high - low) / 2;
        if (r->ranges[mid].last < first)
            low = mid + 1;
        else
            high = mid;
    }
    return low < r->n && r->ranges[low].first <= last;
}

static int by_first(const void *x, const void *y)
{
    const stm_row_range *a = x, *b = y;
    return a->first < b->first ? -1 : a->first > b->first;
}

static void put_in_order(stm_root_rows *r)
{
    size_t n = 0;

    if (r->n > 1) qsort(r->ranges, r->n, sizeof *r->ranges, by_first);
    for (size_t i = 0; i < r->n; i++) {
        stm_row_range *last = n > 0 ? &r->ranges[n - 1] : NULL;
        if (last != NULL && (last->last == INT64_MAX || r->ranges[i].first <= last->last + 1)) {
            if (r->ranges[i].last > last->last) last->last = r->ranges[i].last;
        } else {
            r->ranges[n++] = r->ranges[i];
        }
    }
    r->n = n;
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

static stm_station *station_of(const stm_run *run, const char *step)
{
    for (int32_t i = 0; i < run->n_stations; i++)
        if (run->stations[i].plan_step >= 0 && run->stations[i].kind != STM_AT_READER && strcmp(run->stations[i].name, step) == 0)
            return &run->stations[i];
    return NULL;
}

/* From the stations that failed to all that is made anew by it. */
static void spread(stm_run *run)
{
    stm_again *a = run->durable->again;
    bool changed = true;

    while (changed) {
        changed = false;
        for (int32_t i = 0; i < run->n_stations; i++) {
            const stm_station *s = &run->stations[i];
            const stm_station *store = s->kind == STM_AT_READER ? s->lasting->store : NULL;
            uint8_t *part = &a->parts[s->lasting->part];
            const uint8_t behind = store != NULL ? a->parts[store->lasting->part] : STM_PART_KEPT;
            bool dirty = a->dirty[i] || behind != STM_PART_KEPT,
                 all = a->all[i] || behind == STM_PART_ALL || (behind == STM_PART_ROWS && store->kind == STM_AT_GLOBAL);
            const uint8_t now = all ? STM_PART_ALL : dirty ? STM_PART_ROWS : STM_PART_KEPT;

            changed = changed || dirty != a->dirty[i] || all != a->all[i] || now > *part;
            a->dirty[i] = dirty;
            a->all[i] = all;
            if (now > *part) *part = now;
            for (int32_t o = 0; o < s->n_outs; o++) {
                const int32_t to = s->outs[o].to->node;
                changed = changed || (dirty && !a->dirty[to]) || (all && !a->all[to]);
                a->dirty[to] = a->dirty[to] || dirty;
                a->all[to] = a->all[to] || all;
            }
        }
    }
}

stm_part_retry stm_again_part(const stm_run *run, int32_t part) { return (stm_part_retry)run->durable->again->parts[part]; }

bool stm_again_rests(const stm_run *run, int32_t part)
{
    return stm_again_part(run, part) == STM_PART_KEPT || stm_part_is_sinks(run, part) || stm_durable_is_others(run, part);
}

/* Rows of a part run alone give what they give among all others. */
static const char *needs_others(const stm_run *run, const stm_station *s)
{
    const mill_step_type *t = s->plan_step >= 0 && s->kind != STM_AT_READER ? run->plan->steps[s->plan_step].step->type : NULL;
    int32_t space = -1;

    if (s->kind == STM_AT_READER && stm_flow_stream_of(run->flow, s->node)->depth > 0)
        return "stands in a branch of a router, which chooses for whole batches";
    if (t == NULL) return NULL;
    if (t->kind == MILL_ROUTER) return "is a router, which chooses for whole batches";
    if (t->kind == MILL_STEP && (t->flags & (MILL_STATEFUL | MILL_BATCH_SENSITIVE)) != 0)
        return "gives results that depend on other rows";
    for (int32_t i = 0; i < run->n_stations && s->pairs && run->plan->steps[s->plan_step].mode == STM_INPUT_JOIN; i++)
        for (int32_t o = 0; o < run->stations[i].n_outs; o++) {
            const int32_t its = stm_flow_stream_of(run->flow, i)->key_space;
            if (run->stations[i].outs[o].to != s) continue;
            if (space >= 0 && its != space) return "joins by position, which needs all rows";
            space = its;
        }
    return NULL;
}

static mill_status check_parts(const stm_run *run, mill_error *err)
{
    const stm_again *a = run->durable->again;

    for (int32_t i = 0; i < run->n_stations; i++) {
        const stm_station *s = &run->stations[i];
        const int32_t part = s->lasting->part;
        const char *why = NULL, *remedy = "Run everything again: stepmill run FILE --fresh";

        if (stm_again_rests(run, part)) continue;
        if (s->kind == STM_AT_SINK && a->dirty[i]) {
            why = "writes rows that are not kept in front of it";
            remedy = "With `keep_sink_rows: true` (the default) in the file they are; run everything again with it: stepmill run "
                     "FILE --fresh";
        } else if (a->parts[part] == STM_PART_ROWS) {
            why = needs_others(run, s);
        } else if (s->kind == STM_AT_READER && a->dirty[i] && !a->all[i]) {
            why = "is read beside what a global makes of it";
        }
        if (why == NULL) continue;
        return stm_refused(mill_fail(err, MILL_ERR_INVALID, "cannot run rows of it again: the step %s", why), err, s->name, remedy);
    }
    return MILL_OK;
}

/* ---- which rows --------------------------------------------------------------------------------------------------- */

static bool is_asked_for(const stm_run *run, const stm_error_record *rec)
{
    const uint32_t classes = run->opts.retry_classes;

    if (rec->rows <= 0 || (run->opts.retry_step != NULL && strcmp(run->opts.retry_step, rec->error.step) != 0)) return false;
    return classes == 0 ||
           (rec->error.error_class >= 0 && rec->error.error_class < 32 && (classes >> rec->error.error_class & 1) != 0);
}

/* @p found: [errors + 1], false. */
static mill_status choose_rows(stm_run *run, bool *found, mill_error *err)
{
    stm_again *a = run->durable->again;
    int64_t asked = 0, passed = 0;
    bool changed = true;

    for (int64_t id = 1; id <= a->errors; id++) {
        const stm_error_record *rec = stm_errors_get(run->errors, id);
        const stm_station *s = station_of(run, rec->error.step);
        if (stm_errors_is_void(run->errors, id) || !is_asked_for(run, rec)) continue;
        if (s == NULL || s->kind == STM_AT_GLOBAL || s->kind == STM_AT_SINK || !each_span(run, rec, add_span)) {
            passed++;
            continue;
        }
        if (a->no_room) return no_memory(err);
        a->taken[id] = a->dirty[s->node] = true;
        asked++;
    }
    if (asked == 0 && passed > 0)
        return stm_refused(
            mill_fail(err, MILL_ERR_INVALID, "the failures asked for are of a global, or name no rows of this pipeline"), err, NULL,
            "`stepmill errors RUN` lists them");
    /* every part is kept, and errors are listed anew */
    if (asked == 0) stm_log(STM_INFO, "", "no failure of rows is of that class and step");
    if (passed > 0)
        stm_log(STM_WARN, "", "%lld failures of globals, or without rows of this pipeline, stay as they are", (long long)passed);
    while (changed) {
        changed = false;
        for (int32_t i = 0; i < run->n_stations; i++) put_in_order(&a->rows[i]);
        spread(run);
        for (int64_t id = 1; id <= a->errors; id++) {
            const stm_error_record *rec = stm_errors_get(run->errors, id);
            const stm_station *s = station_of(run, rec->error.step);
            if (a->taken[id] || rec->rows <= 0 || s == NULL || stm_errors_is_void(run->errors, id) || s->kind == STM_AT_SINK)
                continue;
            const stm_part_retry part = stm_again_part(run, s->lasting->part);
            if (part == STM_PART_KEPT) continue;
            if (part == STM_PART_ALL || s->kind == STM_AT_GLOBAL || each_span(run, rec, has_span)) a->taken[id] = found[id] = true;
        }
        for (int64_t id = 1; id <= a->errors; id++) { /* none is void for a part of its rows */
            const stm_error_record *rec = stm_errors_get(run->errors, id);
            stm_station *s = found[id] ? station_of(run, rec->error.step) : NULL;
            found[id] = false;
            if (s == NULL || s->kind == STM_AT_GLOBAL || stm_again_part(run, s->lasting->part) == STM_PART_ALL) continue;
            (void)each_span(run, rec, add_span);
            changed = a->dirty[s->node] = true;
        }
        if (a->no_room) return no_memory(err);
    }
    return MILL_OK;
}

/* ---- open -------------------------------------------------------------------------------------------------------- */

static mill_status take_parts(stm_run *run, mill_error *err)
{
    stm_durable *d = run->durable;
    stm_again *a = d->again;
    mill_status st = MILL_OK;

    if (stm_vault_parts(a->vault) == 0)
        return stm_refused(mill_fail(err, MILL_ERR_INVALID, "nothing of a run is kept in %s", a->kept.dir), err, NULL,
                           "Give the directory of a run");
    for (int32_t p = 0; p < d->n_parts && st == MILL_OK; p++) {
        const int32_t k = stm_vault_find_part(a->vault, d->part_names[p]);
        stm_signature sign = {0};
        stm_vault_part now = {.name = d->part_names[p]}, old = {0};

        if ((st = stm_durable_sign(run, p, run->opts.shard, &sign, err)) != MILL_OK) break;
        stm_signature_digest(&sign, now.signature);
        now.fields = sign.fields.data;
        now.n_fields = sign.fields.bytes;
        if (k >= 0) old = stm_vault_part_at(a->vault, (size_t)k);
        if (k < 0 || (memcmp(old.signature, now.signature, sizeof now.signature) != 0 &&
                      !stm_signature_same_but_times(old.fields, old.n_fields, now.fields, now.n_fields)))
            st = stm_durable_refuse(run, k >= 0 ? &old : NULL, &now, now.name, err);
        stm_signature_fini(&sign);
        if (st == MILL_OK && !stm_durable_is_finished(old.state, old.n_state, &a->kept.retries[p]))
            st = stm_refused(mill_fail(err, MILL_ERR_INVALID, "the run in %s has not ended", a->kept.dir), err, NULL,
                             "Finish it first: stepmill resume RUN");
    }
    return st;
}

mill_status stm_again_open(stm_run *run, mill_error *err)
{
    stm_durable *d = run->durable;
    stm_again *a = d->again = stm_calloc(sizeof *a);
    const size_t n = (size_t)run->n_stations + 1;
    int64_t records;
    int32_t stream;
    bool *found;
    mill_status st;

    if (a == NULL) return no_memory(err);
    a->kept = (stm_kept){.dir = run->opts.retry_of, .retries = stm_calloc(((size_t)d->n_parts + 1) * sizeof(uint64_t))};
    a->rows = stm_calloc(n * sizeof *a->rows);
    a->choices = stm_calloc(n * sizeof *a->choices);
    a->parts = stm_calloc((size_t)d->n_parts + 1);
    a->dirty = stm_calloc(n);
    a->all = stm_calloc(n);
    if (a->kept.retries == NULL || a->rows == NULL || a->choices == NULL || a->parts == NULL || a->dirty == NULL || a->all == NULL)
        return no_memory(err);
    if ((st = stm_files_open(a->kept.dir, &a->files, err)) != MILL_OK) return st;
    const stm_vault_opts vo = {.files = &a->files};
    if ((st = stm_vault_open(&vo, &a->vault, err)) != MILL_OK) return st;
    a->kept.vault = a->vault;
    a->print = stm_retry_print(a->vault);
    if ((st = stm_owner_claim(a->vault, &a->files, a->kept.dir, ANSWER_S, &a->owner, err)) != MILL_OK) return st;
    if ((st = take_parts(run, err)) != MILL_OK) return st;
    stream = stm_vault_find_stream(a->vault, "errors");
    if (stream >= 0 && (st = stm_durable_errors_read(run->errors, a->vault, (size_t)stream, &records, NULL, err)) != MILL_OK)
        return st;
    a->errors = stm_errors_count(run->errors);
    if ((a->taken = stm_calloc((size_t)a->errors + 1)) == NULL) return no_memory(err);
    found = stm_calloc((size_t)a->errors + 1);
    st = found != NULL ? choose_rows(run, found, err) : no_memory(err);
    stm_free(found);
    if (st != MILL_OK || (st = check_parts(run, err)) != MILL_OK) return st;
    for (int64_t id = 1; id <= a->errors; id++)
        if (a->taken[id]) stm_errors_void(run->errors, id); /* fails it again, that is a failure of its own */
    d->errors_written = a->errors; /* RUN's are not written down here once more */
    return MILL_OK;
}

void stm_again_close(stm_run *run)
{
    stm_again *a = run->durable->again;

    if (a == NULL) return;
    for (int32_t i = 0; a->rows != NULL && i < run->n_stations; i++) stm_free(a->rows[i].ranges);
    stm_kept_close(run, &a->kept);
    stm_vault_close(&a->vault);
    stm_owner_release(&a->owner);
    stm_files_close(&a->files);
    stm_free(a->rows);
    stm_free(a->choices);
    stm_free(a->parts);
    stm_free(a->dirty);
    stm_free(a->all);
    stm_free(a->taken);
    stm_free(a);
    run->durable->again = NULL;
}

void stm_again_tick(stm_run *run)
{
    if (run->durable->again != NULL) stm_owner_tick(run->durable->again->owner);
}

void stm_again_sign(const stm_run *run, stm_signature *out)
{
    const stm_again *a = run->durable->again;
    uint64_t h = stm_hash64(a->taken, (size_t)a->errors + 1, 5);
    char text[80];

    for (int32_t i = 0; i < run->n_stations; i++) h = stm_hash64(a->rows[i].ranges, a->rows[i].n * sizeof(stm_row_range), h);
    snprintf(text, sizeof text, "of %016llx, %016llx", (unsigned long long)a->print, (unsigned long long)h);
    stm_signature_add(out, STM_RETRY_FIELD, text);
}

/* ---- at work ----------------------------------------------------------------------------------------------------- */

static mill_status append(stm_run *run, size_t stream, uint32_t kind, uint64_t label, const char *name, const void *bytes, size_t n,
                          mill_error *err)
{
    char head[STM_STREAM_NAME] = {0};
    const stm_bytes pieces[] = {{head, sizeof head}, {bytes, n}};

    snprintf(head, sizeof head, "%s", name);
    return stm_vault_append(run->durable->vault, stream, kind, label, 0, pieces, n > 0 ? 2 : 1, err);
}

mill_status stm_again_write(stm_run *run, size_t stream, mill_error *err)
{
    const stm_durable *d = run->durable;
    const stm_again *a = d->again;
    mill_status st = MILL_OK;

    if (stm_vault_stream_at(d->vault, stream).frames > 0) return MILL_OK; /* by the process before */
    for (int32_t i = 0; i < run->n_stations && st == MILL_OK; i++)
        if (a->rows[i].n > 0)
            st = append(run, stream, STM_RETRY_ROWS, 0, run->stations[i].name, a->rows[i].ranges,
                        a->rows[i].n * sizeof(stm_row_range), err);
    for (int32_t p = 0; p < d->n_parts && st == MILL_OK; p++)
        if (!stm_again_rests(run, p)) st = append(run, stream, STM_RETRY_PART, a->parts[p], d->part_names[p], NULL, 0, err);
    for (int64_t id = 1; id <= a->errors && st == MILL_OK; id++) {
        const stm_bytes one = {&id, sizeof id};
        if (a->taken[id]) st = stm_vault_append(d->vault, stream, STM_RETRY_VOID, 0, 0, &one, 1, err);
    }
    if (st == MILL_OK) st = stm_vault_mark(d->vault, stream, false, err);
    return st;
}

void stm_again_choose(stm_run *run)
{
    stm_again *a = run->durable->again;

    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        const int32_t part = s->lasting->part;

        if (stm_again_rests(run, part) || s->lasting->finished) continue;
        if (s->kind == STM_AT_SINK) stm_durable_finish(s);
        if (s->kind == STM_AT_GLOBAL && a->parts[part] == STM_PART_ROWS) s->lasting->gathers = true;
        if (s->kind != STM_AT_GENERATOR || a->parts[part] != STM_PART_ROWS) continue;
        a->choices[i] = (stm_row_choice){.ranges = a->rows[i].ranges, .n = a->rows[i].n};
        stm_wrapper_choose(s->slots[0].wrapper, &a->choices[i]);
    }
}

mill_status stm_again_source(stm_run *run, stm_station *s, mill_error *err)
{
    stm_again *a = run->durable->again;
    const stm_root_rows *only = a->rows;

    for (int32_t i = 0; i < run->n_stations; i++)
        if (run->stations[i].kind == STM_AT_READER && run->stations[i].store == s->store &&
            a->parts[run->stations[i].lasting->part] == STM_PART_ALL)
            only = NULL;
    return stm_kept_source(run, &a->kept, s, only, err);
}

/* ---- globals ------------------------------------------------------------------------------------------------------ */

mill_status stm_lasting_gather(stm_station *s, int32_t input, const mill_batch *b, mill_error *err)
{
    stm_kept_input *l = &s->lasting->lanes[input];
    mill_batch *copy = NULL;

    if (stm_grow(&l->gathered, &l->gathered_cap, l->n_gathered + 1, sizeof *l->gathered) != 0 ||
        stm_batch_clone(b, &copy) != MILL_OK)
        return no_memory(err);
    l->gathered[l->n_gathered++] = copy;
    return MILL_OK;
}

mill_status stm_lasting_give_gathered(stm_station *s, stm_wrapper *w, mill_error *err)
{
    stm_run *run = s->run;
    stm_again *a = run->durable->again;
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < s->n_inputs && st == MILL_OK; i++) {
        stm_kept_input *l = &s->lasting->lanes[i];
        const stm_stored_stream of = {.name = stm_vault_stream_at(run->durable->vault, (size_t)l->stream).name,
                                    .type = stm_lane_type(s, i),
                                    .part = s->lasting->part,
                                    .space = stm_station_key_space(s, i)};
        stm_merged_input *in = NULL;
        stm_merged *m = NULL;
        mill_batch *b = NULL;
        int32_t n = 0;

        if (of.type == NULL) return no_memory(err);
        if ((st = stm_kept_inputs(run, &a->kept, &of, NULL, a->rows, 1, &in, &n, err)) != MILL_OK) break;
        in[n] = (stm_merged_input){.held = l->gathered, .n_held = l->n_gathered};
        st = stm_merged_create(run->pool, in, (size_t)n + 1, of.type->n_fields, stm_flow_roots(run->flow), &m, err);
        stm_free(in);
        while (st == MILL_OK && (st = stm_merged_next(m, &b, err)) == MILL_OK && b != NULL) {
            st = stm_wrapper_accept(w, i, b, err);
            mill_batch_destroy(&b);
        }
        stm_merged_destroy(&m);
    }
    return st;
}
