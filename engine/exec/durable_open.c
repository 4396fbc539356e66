/* Opening the run directory: parts, streams, what is kept of the last run, and everything put where that left it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "core/log.h"
#include "exec/durable_state.h"
#include "supervise/recorder.h"

#define ANSWER_S 5.0 /* a living writer answers within 0.1 s, or when its disk does */

/* Names and signatures while the directory is opened. */
typedef struct opening {
    stm_vault_part *parts;
    stm_vault_stream *streams;
    stm_signature *signatures; /* [parts] */
    char (*part_names)[STM_STREAM_NAME];
    char (*stream_names)[STM_STREAM_NAME];
    bool *kept; /* [parts] goes on from its state */
    bool *apart; /* [parts] each of its terminals for itself: rest[] of its stations is known */
    bool *rest; /* [stations] leads to nothing that begins over */
    stm_text *states; /* [parts] of those that are not as they were found */
    int32_t n_parts, n_streams;
} opening;

static void opening_fini(opening *o)
{
    for (int32_t i = 0; o->signatures != NULL && i < o->n_parts; i++) stm_signature_fini(&o->signatures[i]);
    stm_free(o->parts);
    stm_free(o->streams);
    stm_free(o->signatures);
    for (int32_t i = 0; o->states != NULL && i < o->n_parts; i++) stm_text_free(&o->states[i]);
    stm_free(o->states);
    stm_free(o->stream_names);
    stm_free(o->kept);
    stm_free(o->apart);
    stm_free(o->rest);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* After its first station; several may begin with readers of one step. */
static void name_part(opening *o, const stm_station *s)
{
    char *part = o->part_names[s->lasting->part];
    int same = 0;

    snprintf(part, STM_STREAM_NAME, s->kind == STM_AT_READER ? "%.63s~%d" : "%.63s", s->name, (int)s->stage);
    for (int32_t p = 0; p < s->lasting->part; p++)
        if (strncmp(o->part_names[p], part, strlen(part)) == 0 &&
            (o->part_names[p][strlen(part)] == 0 || o->part_names[p][strlen(part)] == '.'))
            same++;
    if (same > 0) snprintf(part + strlen(part), STM_STREAM_NAME - strlen(part), ".%d", same);
}

static mill_status name_all(stm_run *run, opening *o, mill_error *err)
{
    size_t cap = (size_t)run->n_stations + 3;

    for (int32_t i = 0; i < run->n_stations; i++) cap += (size_t)run->stations[i].n_inputs;
    o->n_parts = stm_durable_find_parts(run);
    o->parts = stm_calloc((size_t)(o->n_parts + 1) * sizeof *o->parts);
    o->streams = stm_calloc(cap * sizeof *o->streams);
    o->signatures = stm_calloc((size_t)(o->n_parts + 1) * sizeof *o->signatures);
    o->part_names = stm_calloc((size_t)(o->n_parts + 1) * sizeof *o->part_names);
    o->stream_names = stm_calloc(cap * sizeof *o->stream_names);
    o->kept = stm_calloc((size_t)o->n_parts + 1);
    o->apart = stm_calloc((size_t)o->n_parts + 1);
    o->rest = stm_calloc((size_t)run->n_stations + 1);
    run->durable->counts = stm_calloc((size_t)run->n_stations + 1);
    o->states = stm_calloc((size_t)(o->n_parts + 1) * sizeof *o->states);
    run->durable->part_names = o->part_names;
    run->durable->kept = (stm_kept){
        .dir = run->run_dir, .vault = run->durable->vault, .retries = stm_calloc((size_t)(o->n_parts + 1) * sizeof(uint64_t))};
    if (o->parts == NULL || o->streams == NULL || o->signatures == NULL || o->part_names == NULL || o->stream_names == NULL ||
        o->kept == NULL || o->apart == NULL || o->rest == NULL || o->states == NULL || run->durable->counts == NULL ||
        run->durable->kept.retries == NULL)
        return stm_durable_no_memory(err);
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        char *part = o->part_names[s->lasting->part];
        if (part[0] == 0) name_part(o, s);
        if (s->kind != STM_AT_STORE && s->kind != STM_AT_GLOBAL) continue;
        if (s->kind == STM_AT_GLOBAL)
            snprintf(o->stream_names[o->n_streams], STM_STREAM_NAME, "%.63s.out", s->name);
        else
            stm_durable_terminal_name(run, s, o->stream_names[o->n_streams]);
        o->streams[o->n_streams] = (stm_vault_stream){.name = o->stream_names[o->n_streams], .part = s->lasting->part};
        s->lasting->stream = o->n_streams++;
        for (int32_t k = 0; s->kind == STM_AT_GLOBAL && k < s->n_inputs; k++) {
            snprintf(o->stream_names[o->n_streams], STM_STREAM_NAME, "%.63s.in%d", s->name, (int)k);
            o->streams[o->n_streams] = (stm_vault_stream){.name = o->stream_names[o->n_streams], .part = s->lasting->part};
            s->lasting->lanes[k].stream = o->n_streams++;
        }
    }
    run->durable->errors_stream = o->n_streams;
    strcpy(o->stream_names[o->n_streams], "errors");
    o->streams[o->n_streams] = (stm_vault_stream){.name = o->stream_names[o->n_streams], .part = 0, .keep = true};
    o->n_streams++;
    if (run->opts.retry_of == NULL) return MILL_OK;
    run->durable->rows_stream = o->n_streams;
    strcpy(o->stream_names[o->n_streams], STM_RETRY_STREAM);
    o->streams[o->n_streams] = (stm_vault_stream){.name = o->stream_names[o->n_streams], .part = 0, .keep = true};
    o->n_streams++;
    return MILL_OK;
}

/* ---- what is kept ------------------------------------------------------------------------------------------------ */

/* By the steps that run, not by the part's name, which may be that of a step whose rows it only reads. */
static void say_change(const stm_run *run, const opening *o, int32_t part, const stm_vault_part *old, const stm_vault_part *now)
{
    stm_text t = {0}, who = {0};
    const int n = stm_signature_changes(old->fields, old->n_fields, now->fields, now->n_fields, 3, &t);
    int32_t steps = 0;

    for (int32_t i = 0; i < run->n_stations; i++) {
        const stm_station *s = &run->stations[i];
        if (s->lasting->part == part && s->plan_step >= 0 && s->kind != STM_AT_READER && !o->rest[i])
            stm_text_addf(&who, "%s%s", steps++ > 0 ? ", " : "", s->name);
    }
    if (n > 0 && steps > 0 && !t.failed && !who.failed)
        stm_log(STM_INFO, "", "%s run%s again: %s", who.data, steps > 1 ? "" : "s", t.data);
    stm_text_free(&t);
    stm_text_free(&who);
}

mill_status stm_durable_refuse(const stm_run *run, const stm_vault_part *old, const stm_vault_part *now, const char *name,
                               mill_error *err)
{
    const char *verb = run->opts.retry_of != NULL || run->opts.put > 0 ? "retry" : "resume";
    stm_text t = {0};

    if (old != NULL && now != NULL && old->n_fields > 0 &&
        stm_signature_same_but_times(old->fields, old->n_fields, now->fields, now->n_fields)) {
        if (memcmp(old->signature, now->signature, sizeof old->signature) != 0) return MILL_OK; /* `cache: false` runs each time */
        stm_text_addf(&t, "how steps are connected, or the sizes of batches");
    } else {
        (void)stm_signature_changes(old != NULL ? old->fields : NULL, old != NULL ? old->n_fields : 0,
                                    now != NULL ? now->fields : NULL, now != NULL ? now->n_fields : 0, 3, &t);
    }
    if (old == NULL || now == NULL)
        mill_fail(err, MILL_ERR_INVALID, "cannot %s: the run %s", verb, old == NULL ? "had no such part" : "has lost a part");
    else
        mill_fail(err, MILL_ERR_INVALID, "cannot %s what has changed: %s", verb, t.failed || t.data == NULL ? "?" : t.data);
    snprintf(err->step, sizeof err->step, "%.63s", name);
    err->phase = MILL_PHASE_CHECK;
    mill_error_remedy(err, "Change it back, or let `stepmill run` run again what depends on it");
    stm_text_free(&t);
    return MILL_ERR_INVALID;
}

/* What was there before and has no part of that name any more. */
static mill_status refuse_lost(const stm_run *run, const opening *o, mill_error *err)
{
    const stm_vault *v = run->durable->vault;

    for (size_t k = 0; run->opts.resume && k < stm_vault_parts(v); k++) {
        const stm_vault_part old = stm_vault_part_at(v, k);
        bool there = false;
        for (int32_t p = 0; p < o->n_parts; p++) there = there || strcmp(o->part_names[p], old.name) == 0;
        if (!there) return stm_durable_refuse(run, &old, NULL, old.name, err);
    }
    return MILL_OK;
}

/* What a sink wrote is not there any more, or is something else: it is written again. */
static bool output_differs(const stm_run *run, const stm_station *s)
{
    stm_text why = {0};

    if (s->kind != STM_AT_SINK || !stm_manifest_differs(run->durable->manifest, s->name, &why)) return false;
    stm_log(STM_WARN, s->name, "%s: it is written again", why.failed ? "a file of its output was changed" : why.data);
    stm_text_free(&why);
    return true;
}

static bool outputs_differ(const stm_run *run, int32_t part)
{
    bool differ = false;

    for (int32_t i = 0; i < run->n_stations; i++)
        if (run->stations[i].lasting->part == part) differ = output_differs(run, &run->stations[i]) || differ;
    return differ;
}

static mill_status finish_part(const stm_run *run, opening *o, int32_t p, mill_error *err)
{
    stm_text *state = &o->states[p];

    stm_durable_encode_finished(run, 0, state);
    o->parts[p].state = state->data;
    o->parts[p].n_state = state->bytes;
    o->kept[p] = true;
    return state->failed ? stm_durable_no_memory(err) : MILL_OK;
}

/* A merge begins where every shard has finished what is in front of sinks and globals. */
static mill_status choose_merged(stm_run *run, opening *o, int32_t p, mill_error *err)
{
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < run->opts.shards && st == MILL_OK; i++) {
        stm_signature theirs = {0};
        st = stm_durable_sign(run, p, i + 1, &theirs, err);
        if (st == MILL_OK) st = stm_merge_check(run, i, p, &theirs, err);
        stm_signature_fini(&theirs);
    }
    return st == MILL_OK ? finish_part(run, o, p, err) : st;
}

/* A retry begins in front of what it has to do again; with other rows than before, from its beginning. */
static mill_status choose_again(stm_run *run, opening *o, mill_error *err)
{
    const stm_vault *v = run->durable->vault;
    mill_status st = MILL_OK;
    bool same = true;

    for (int32_t p = 0; p < o->n_parts; p++) {
        stm_vault_part *part = &o->parts[p];
        const int32_t k = stm_vault_find_part(v, part->name);
        const stm_vault_part old = k >= 0 ? stm_vault_part_at(v, (size_t)k) : (stm_vault_part){0};
        same = same && k >= 0 && memcmp(old.signature, part->signature, sizeof old.signature) == 0 &&
               stm_durable_fits(run, old.state, old.n_state);
        part->state = old.state;
        part->n_state = old.n_state;
    }
    for (int32_t p = 0; p < o->n_parts && st == MILL_OK; p++) {
        o->kept[p] = same;
        if (!same) o->parts[p].state = NULL, o->parts[p].n_state = 0;
        if (stm_again_rests(run, p)) st = finish_part(run, o, p, err);
    }
    for (int32_t i = 0; i < o->n_streams; i++) o->streams[i].keep = same;
    return st;
}

/* What a retry made takes its place: parts that it ran are finished with that, and sinks that get it write again. */
static mill_status choose_put(stm_run *run, opening *o, int32_t p, int32_t k, mill_error *err)
{
    stm_vault_part *part = &o->parts[p];
    const stm_vault_part old = k >= 0 ? stm_vault_part_at(run->durable->vault, (size_t)k) : (stm_vault_part){0};
    bool again = false;
    mill_status st = MILL_OK;

    if (k < 0 || (memcmp(old.signature, part->signature, sizeof old.signature) != 0 &&
                  !stm_signature_same_but_times(old.fields, old.n_fields, part->fields, part->n_fields)))
        st = stm_durable_refuse(run, k >= 0 ? &old : NULL, part, part->name, err);
    if (st == MILL_OK) st = stm_retry_part(run, p, &old, &o->states[p], &again, err);
    if (st != MILL_OK || again || outputs_differ(run, p)) return st;
    part->state = o->states[p].data;
    part->n_state = o->states[p].bytes;
    o->kept[p] = true;
    return MILL_OK;
}

/* What is in the way of a merge: a run of another kind, which would be lost. */
static mill_status refuse_other(const stm_run *run, const stm_vault_part *old, mill_error *err)
{
    if (stm_signature_value(old->fields, old->n_fields, "merge") != NULL) return MILL_OK;
    mill_fail(err, MILL_ERR_INVALID, "%s holds a run that is no merge", run->run_dir);
    err->phase = MILL_PHASE_CHECK;
    mill_error_remedy(err, "Give another directory with --run, or --fresh to forget it");
    return MILL_ERR_INVALID;
}

/* Whether a terminal goes on from where the last run left it: nothing that it hangs on has changed. @p same: nothing of the whole
 * part has. */
static mill_status stays(const stm_run *run, const stm_station *terminal, const stm_vault_part *old, bool same, bool *out,
                         mill_error *err)
{
    stm_signature now = {0};
    mill_status st = MILL_OK;

    *out = same;
    if (!same) {
        st = stm_durable_sign_terminal(run, terminal, run->opts.merge != NULL ? -1 : run->opts.shard, &now, err);
        *out = st == MILL_OK && stm_signature_holds(old->fields, old->n_fields, now.fields.data, now.fields.bytes);
        stm_signature_fini(&now);
    }
    if (*out && !run->opts.fresh && output_differs(run, terminal)) *out = false;
    return st;
}

/* Each terminal of a part for itself: what changes for one of them is done again for that one, by the stations in front of it, and
 * by no others. */
static mill_status choose_terminals(stm_run *run, opening *o, int32_t p, const stm_vault_part *old, bool same, mill_error *err)
{
    bool *counts = run->durable->counts, *above = stm_calloc((size_t)run->n_stations + 1), all = true, any = false;
    uint64_t retries;
    mill_status st = above != NULL ? MILL_OK : stm_durable_no_memory(err);

    (void)stm_durable_is_finished(old->state, old->n_state, &retries);
    o->apart[p] = true;
    for (int32_t i = 0; i < run->n_stations; i++) o->rest[i] = o->rest[i] || run->stations[i].lasting->part == p;
    for (int32_t i = 0; i < run->n_stations && st == MILL_OK; i++) {
        const stm_station *s = &run->stations[i];
        bool stay;

        if (s->n_outs > 0 || s->lasting->part != p) continue;
        if ((st = stays(run, s, old, same, &stay, err)) != MILL_OK) break;
        all = all && stay;
        any = any || stay;
        stm_durable_above(run, s, above);
        for (int32_t k = 0; k <= i; k++) {
            counts[k] = counts[k] || (above[k] && stay);
            o->rest[k] = o->rest[k] && (!above[k] || stay);
        }
    }
    stm_free(above);
    o->kept[p] = any && stm_durable_fits(run, old->state, old->n_state);
    if (!all && retries != 0) o->kept[p] = false; /* of their rows a part has all or none */
    if (!(same && all) && old->n_state == 0) o->kept[p] = false;
    for (int32_t i = 0; i < run->n_stations && !o->kept[p]; i++)
        if (run->stations[i].lasting->part == p) o->rest[i] = counts[i] = false;
    if (st != MILL_OK || !o->kept[p]) return st;
    o->parts[p].state = old->state;
    o->parts[p].n_state = old->n_state;
    if (same && all) return MILL_OK;
    st = stm_durable_encode_rests(run, p, old->state, old->n_state, o->rest, &o->states[p], err);
    o->parts[p].state = o->states[p].data;
    o->parts[p].n_state = o->states[p].bytes;
    return st;
}

/* Who stands in the middle of stored rows that are made again, though nothing it hangs on has changed, begins over with them. */
static void drop_readers(const stm_run *run, opening *o)
{
    bool changed = true;

    while (changed) {
        changed = false;
        for (int32_t i = 0; i < run->n_stations; i++) {
            const struct stm_lasting *l = run->stations[i].lasting;
            const stm_vault_part *part = &o->parts[l->part];

            if (l->store == NULL || !o->kept[l->part] || !o->rest[i] || o->rest[l->store->node] ||
                stm_durable_is_finished(part->state, part->n_state, NULL))
                continue;
            o->kept[l->part] = false;
            for (int32_t k = 0; k < run->n_stations; k++)
                if (run->stations[k].lasting->part == l->part) o->rest[k] = run->durable->counts[k] = false;
            changed = true;
        }
    }
}

/* Which stations and streams go on with what there is. */
static void note_chosen(stm_run *run, opening *o)
{
    for (int32_t i = 0; i < run->n_stations; i++)
        if (!o->apart[run->stations[i].lasting->part])
            o->rest[i] = run->durable->counts[i] = o->kept[run->stations[i].lasting->part];
    drop_readers(run, o);
    for (int32_t p = 0; p < o->n_parts; p++)
        if (!o->kept[p]) o->parts[p].state = NULL, o->parts[p].n_state = 0;
    for (int32_t i = 0; i < run->n_stations && run->durable->again == NULL; i++) { /* a retry has chosen its streams */
        const stm_station *s = &run->stations[i];
        const struct stm_lasting *l = s->lasting;

        if (l->stream >= 0) o->streams[l->stream].keep = o->rest[i] && !stm_durable_is_others(run, l->part);
        for (int32_t k = 0; l->lanes != NULL && k < s->n_inputs; k++)
            o->streams[l->lanes[k].stream].keep = o->rest[i] && !stm_durable_is_others(run, l->part);
    }
}

static mill_status choose(stm_run *run, opening *o, mill_error *err)
{
    const stm_vault *v = run->durable->vault;
    const bool merge = run->opts.merge != NULL;
    mill_status st = refuse_lost(run, o, err);

    for (int32_t p = 0; p < o->n_parts && st == MILL_OK; p++) {
        stm_vault_part *part = &o->parts[p];
        const int32_t k = stm_vault_find_part(v, o->part_names[p]);
        if ((st = stm_durable_sign(run, p, merge ? -1 : run->opts.shard, &o->signatures[p], err)) != MILL_OK) break;
        part->name = o->part_names[p];
        part->fields = o->signatures[p].fields.data;
        part->n_fields = o->signatures[p].fields.bytes;
        stm_signature_digest(&o->signatures[p], part->signature);
        if (run->durable->again != NULL) continue;
        if (run->opts.put > 0) {
            st = choose_put(run, o, p, k, err);
            continue;
        }
        if (stm_durable_is_others(run, p)) {
            if (merge && k >= 0) {
                const stm_vault_part before = stm_vault_part_at(v, (size_t)k);
                if ((st = refuse_other(run, &before, err)) != MILL_OK) break;
            }
            st = merge ? choose_merged(run, o, p, err) : finish_part(run, o, p, err);
            continue;
        }
        if (k < 0 && run->opts.resume && stm_vault_parts(v) > 0) st = stm_durable_refuse(run, NULL, part, part->name, err);
        if (k < 0) continue;
        const stm_vault_part old = stm_vault_part_at(v, (size_t)k);
        if (merge && (st = refuse_other(run, &old, err)) != MILL_OK) break;
        const bool same =
            memcmp(old.signature, part->signature, sizeof old.signature) == 0 && stm_durable_fits(run, old.state, old.n_state);
        if (!same && run->opts.resume) st = stm_durable_refuse(run, &old, part, part->name, err);
        if (st == MILL_OK) st = choose_terminals(run, o, p, &old, same, err);
        if (st == MILL_OK && !same) say_change(run, o, p, &old, part);
    }
    if (st == MILL_OK && run->durable->again != NULL) st = choose_again(run, o, err);
    if (st == MILL_OK) note_chosen(run, o);
    return st;
}

/* ---- streams ------------------------------------------------------------------------------------------------------ */

static const mill_type *row_type(const stm_schema *s) { return mill_type_struct(s->fields, s->n); }

/* Those of the step whose stream it is. */
const mill_type *stm_durable_store_type(const stm_run *run, const stm_station *s)
{
    if (s->plan_step >= 0) return row_type(&run->plan->steps[s->plan_step].step->out);
    for (int32_t i = 0; i < run->n_stations; i++)
        for (int32_t o = 0; o < run->stations[i].n_outs; o++)
            if (run->stations[i].outs[o].to == s)
                return run->stations[i].plan_step >= 0 ? row_type(&run->plan->steps[run->stations[i].plan_step].step->out) : NULL;
    return NULL;
}

const mill_type *stm_lane_type(const stm_station *s, int32_t input)
{
    return row_type(&s->run->plan->steps[s->plan_step].step->inputs[input].schema);
}

static mill_status open_lanes(stm_run *run, stm_station *s, mill_error *err)
{
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < s->n_inputs && st == MILL_OK && !s->lasting->finished; i++) {
        const mill_type *type = stm_lane_type(s, i);
        st = type != NULL ? stm_batch_sink_create(run->durable->vault, (size_t)s->lasting->lanes[i].stream, type,
                                                  &s->lasting->lanes[i].out, err)
                          : stm_durable_no_memory(err);
    }
    return st;
}

static mill_status open_merged(stm_run *run, stm_station *s, const mill_type *type, const char *stream, mill_error *err)
{
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < run->n_stations && st == MILL_OK; i++) {
        const stm_station *r = &run->stations[i];
        if (r->kind != STM_AT_READER || r->store != s->store || r->lasting->finished) continue;
        st = stm_merge_source(run, r, s, stream, type, err);
        atomic_store(&s->store->waiting, 1); /* how many is not known; 0 once the last is read */
    }
    atomic_store(&s->store->complete, true);
    return st;
}

static mill_status open_stream(stm_run *run, stm_station *s, mill_error *err)
{
    struct stm_lasting *l = s->lasting;
    stm_durable *d = run->durable;
    const mill_type *type = stm_durable_store_type(run, s);
    const stm_vault_stream stream = stm_vault_stream_at(d->vault, (size_t)l->stream);
    mill_status st = MILL_OK;

    if (type == NULL) return stm_durable_no_memory(err);
    if (run->durable->merge != NULL && s->border != STM_BORDER_NONE) return open_merged(run, s, type, stream.name, err);
    if (d->again != NULL && stm_again_part(run, l->part) == STM_PART_KEPT) return stm_again_source(run, s, err);
    if (d->kept.retries[l->part] != 0) return stm_kept_source(run, &d->kept, s, NULL, err);
    if (!stream.complete && (st = stm_batch_sink_create(d->vault, (size_t)l->stream, type, &l->out, err)) != MILL_OK) return st;
    for (int32_t i = 0; i < run->n_stations && st == MILL_OK; i++) {
        stm_station *r = &run->stations[i];
        int64_t batches = 0;
        if (r->kind != STM_AT_READER || r->store != s->store || r->lasting->finished) continue;
        if (stream.frames > 0) st = stm_batch_source_count(d->vault, (size_t)l->stream, &batches, err);
        if (st == MILL_OK && (int64_t)r->next_seq > batches)
            st = mill_fail(err, MILL_ERR_DATA, "the stored stream of %s is shorter than its reader's place", s->name);
        if (st != MILL_OK || stream.frames == 0) continue;
        st = stm_batch_source_create(d->vault, (size_t)l->stream, run->pool, type, stm_flow_roots(run->flow), &s->store->source,
                                     err);
        if (st == MILL_OK) st = stm_batch_source_skip(s->store->source, (int64_t)r->next_seq, err);
        if (st == MILL_OK) {
            s->store->on_disk = batches - (int64_t)r->next_seq;
            atomic_store(&s->store->waiting, s->store->on_disk);
        }
    }
    if (stream.complete) atomic_store(&s->store->complete, true);
    return st;
}

/* ---- open -------------------------------------------------------------------------------------------------------- */

/* Twice, for what commits say and for what is found: coverage, batches of readers, items of lanes. And coverage at a sink's
 * mark. */
static bool make_reached(const stm_station *s, size_t roots)
{
    struct stm_lasting *l = s->lasting;
    const size_t lanes = s->kind == STM_AT_GLOBAL ? (size_t)s->n_inputs : 0;
    stm_reached *const both[] = {&l->said, &l->found};
    uint64_t *at = l->numbers = stm_calloc((2 * (2 * roots + lanes) + roots) * sizeof *at + 1);

    for (int k = 0; k < 2 && at != NULL; k++, at += 2 * roots + lanes)
        *both[k] = (stm_reached){.covered = (int64_t *)at, .given = at + roots, .lanes = at + 2 * roots};
    l->marked_covered = (int64_t *)at;
    return at != NULL;
}

static mill_status make_lasting(stm_run *run, mill_error *err)
{
    stm_durable *d = run->durable;
    const size_t n = (size_t)run->n_stations, roots = (size_t)stm_flow_roots(run->flow);
    int32_t inputs = 0;

    d->lasting = stm_calloc((n + 1) * sizeof *d->lasting);
    d->now = stm_calloc((n + 1) * sizeof *d->now);
    d->first_input = stm_calloc((n + 1) * sizeof *d->first_input);
    if (d->lasting == NULL || d->now == NULL || d->first_input == NULL) return stm_durable_no_memory(err);
    for (int32_t i = 0; i < run->n_stations; i++) {
        stm_station *s = &run->stations[i];
        struct stm_lasting *l = &d->lasting[i];
        s->lasting = l;
        l->stream = -1;
        l->stride = 1;
        d->first_input[i] = inputs;
        inputs += s->n_inputs;
        if (s->n_outs == 0 && !make_reached(s, roots)) return stm_durable_no_memory(err);
        for (int32_t k = 0; k < i && s->kind == STM_AT_READER; k++)
            if (run->stations[k].store == s->store && run->stations[k].kind != STM_AT_READER) l->store = &run->stations[k];
        if (s->root >= 0 && (l->places = stm_calloc(STM_ROOT_PLACES * sizeof *l->places)) == NULL)
            return stm_durable_no_memory(err);
        if (s->kind == STM_AT_GLOBAL && (l->lanes = stm_calloc((size_t)(s->n_inputs + 1) * sizeof *l->lanes)) == NULL)
            return stm_durable_no_memory(err);
        if (s->inlet == NULL) continue;
        if (stm_inlet_track(s->inlet) != MILL_OK) return stm_durable_no_memory(err);
        if ((d->now[i].checkpoint = stm_calloc(stm_inlet_checkpoint_bytes(s->inlet) + 1)) == NULL)
            return stm_durable_no_memory(err);
    }
    d->need = stm_calloc((size_t)(inputs + 1) * sizeof *d->need);
    return d->need != NULL ? MILL_OK : stm_durable_no_memory(err);
}

/* What an earlier run has finished is not touched by this one. */
static void note_kept(stm_run *run)
{
    stm_durable *d = run->durable;

    d->complete = d->again == NULL && run->opts.put == 0;
    for (int32_t i = 0; i < run->n_stations; i++) {
        struct stm_lasting *l = run->stations[i].lasting;

        l->kept = l->finished && d->merge == NULL && d->again == NULL &&
                  /* what a merge finds finished the shards have done, a shard the merge will do, and a retry the run that it is
                   * of */
                  !stm_durable_is_others(run, l->part);
        d->complete = d->complete && l->finished;
    }
}

static void say_going_on(const stm_run *run)
{
    stm_text kept = {0};

    for (int32_t i = 0; i < run->plan->n_steps; i++)
        if (stm_run_kept(run, i))
            stm_text_addf(&kept, "%s%s", kept.bytes > 0 ? ", " : "; complete already: ", run->plan->steps[i].step->name);
    stm_log(STM_INFO, "", "going on where the last run stopped%s", kept.bytes > 0 && !kept.failed ? kept.data : "");
    stm_text_free(&kept);
}

/* Put the parts that are kept where they were. */
static mill_status restore(stm_run *run, opening *o, mill_error *err)
{
    stm_durable *d = run->durable;
    mill_status st = MILL_OK;
    bool any = false;

    for (int32_t p = 0; p < o->n_parts && st == MILL_OK; p++) {
        const stm_vault_part part = stm_vault_part_at(d->vault, (size_t)p);
        if (!o->kept[p] || part.n_state == 0) continue;
        st = stm_durable_decode(run, p, part.state, part.n_state, err);
        any = any || ((d->again == NULL || !stm_again_rests(run, p)) && !stm_durable_is_others(run, p));
    }
    if (st == MILL_OK && d->merge != NULL) st = stm_merge_errors(run, err); /* whose numbers the rows are marked with */
    if (st == MILL_OK && d->again != NULL) stm_again_choose(run);
    stm_durable_mark_unread(run);
    for (int32_t i = 0; i < run->n_stations && st == MILL_OK; i++) {
        if (run->stations[i].lasting->stream >= 0) st = open_stream(run, &run->stations[i], err);
        if (st == MILL_OK && run->stations[i].kind == STM_AT_GLOBAL) st = open_lanes(run, &run->stations[i], err);
    }
    if (st == MILL_OK) st = stm_durable_errors_restore(run, err);
    note_kept(run);
    if (st != MILL_OK || d->complete) return st; /* whoever started it says so */
    if (d->merge != NULL)
        stm_log(STM_INFO, "", "putting %d shards together", (int)run->opts.shards);
    else if (run->opts.put > 0)
        stm_log(STM_INFO, "", "putting the rows of retry %d in place", (int)run->opts.put);
    else if (any)
        say_going_on(run);
    if (run->opts.shards > 0 && d->merge == NULL) stm_merge_say_left(run);
    return MILL_OK;
}

mill_status stm_durable_open(stm_run *run, mill_error *err)
{
    stm_durable *d = stm_calloc(sizeof *d);
    opening o = {0};
    char who[STM_OWNER_WHO];
    mill_status st;

    if (d == NULL) return stm_durable_no_memory(err);
    run->durable = d;
    d->interval_ns = (int64_t)((run->opts.commit_interval_s > 0.0 ? run->opts.commit_interval_s : 1.0) * 1e9);
    d->next_ns = stm_now_ns() + d->interval_ns;
    if ((st = stm_files_open(run->run_dir, &d->files, err)) != MILL_OK) goto fail;
    const stm_vault_opts vo = {.files = &d->files, .fresh = run->opts.fresh};
    if ((st = stm_vault_open(&vo, &d->vault, err)) != MILL_OK) goto fail;
    if ((st = stm_owner_claim(d->vault, &d->files, run->run_dir, ANSWER_S, &d->owner, err)) != MILL_OK) goto fail;
    if ((st = stm_durable_footprint(run, stm_vault_next_epoch(d->vault), err)) != MILL_OK) goto fail;
    if (run->opts.fresh) stm_durable_forget(run);
    if ((st = stm_manifest_open(&d->files, run->run_dir, stm_vault_next_epoch(d->vault), &d->manifest, err)) != MILL_OK) goto fail;
    if ((st = make_lasting(run, err)) != MILL_OK) goto fail;
    if ((st = name_all(run, &o, err)) != MILL_OK) goto fail;
    d->n_parts = o.n_parts;
    d->graph = stm_durable_graph(run);
    if (run->opts.merge != NULL && (st = stm_merge_open(run, err)) != MILL_OK) goto fail;
    if (run->opts.retry_of != NULL && (st = stm_again_open(run, err)) != MILL_OK) goto fail;
    d->again_signs = d->again != NULL; /* RUN's signatures are without */
    if (run->opts.put > 0 && (st = stm_retry_check(run, err)) != MILL_OK) goto fail;
    if ((st = choose(run, &o, err)) != MILL_OK) goto fail;
    stm_owner_who(run->opts.recorder != NULL ? run->opts.recorder->supervisor : 0, who, sizeof who);
    if ((st = stm_vault_begin(d->vault, o.parts, (size_t)o.n_parts, o.streams, (size_t)o.n_streams, who, err)) != MILL_OK) {
        mill_error_context(err, "run directory %s", run->run_dir);
        goto fail;
    }
    if ((st = stm_durable_outputs_open(run, err)) != MILL_OK) goto fail;
    if (d->again != NULL && (st = stm_again_write(run, (size_t)d->rows_stream, err)) != MILL_OK) goto fail;
    st = restore(run, &o, err);
    if (st == MILL_OK) stm_durable_suspects(run);
fail:
    opening_fini(&o);
    return st; /* stm_durable_close takes what there is */
}

bool stm_run_was_complete(const stm_run *run) { return run->durable != NULL && run->durable->complete; }

static mill_status look_at_part(stm_run *run, const opening *o, int32_t p, stm_text *changed, mill_error *err)
{
    const stm_vault *v = run->durable->vault;
    const int32_t k = stm_vault_find_part(v, o->part_names[p]);
    const stm_vault_part old = k >= 0 ? stm_vault_part_at(v, (size_t)k) : (stm_vault_part){0};
    mill_status st = stm_durable_sign(run, p, run->opts.shard, &o->signatures[p], err);

    if (st != MILL_OK) return st;
    if (k < 0 ||
        !stm_signature_same_connections(old.fields, old.n_fields, o->signatures[p].fields.data, o->signatures[p].fields.bytes)) {
        mill_fail(err, MILL_ERR_INVALID, "steps of the pipeline are connected otherwise than when the run in %s was made",
                  run->run_dir);
        mill_error_remedy(err, "Put the pipeline back as it was, or run it again");
        return err->status;
    }
    (void)stm_durable_is_finished(old.state, old.n_state, &run->durable->kept.retries[p]);
    if (changed->bytes == 0 &&
        !stm_signature_same_but_times(old.fields, old.n_fields, o->signatures[p].fields.data, o->signatures[p].fields.bytes))
        (void)stm_signature_changes(old.fields, old.n_fields, o->signatures[p].fields.data, o->signatures[p].fields.bytes, 3,
                                    changed);
    return MILL_OK;
}

/* Numbers of streams of ours become those of the directory. */
static void find_streams(stm_run *run, const opening *o)
{
    const stm_vault *v = run->durable->vault;

    for (int32_t i = 0; i < run->n_stations; i++) {
        struct stm_lasting *l = run->stations[i].lasting;

        if (l->stream >= 0) l->stream = stm_vault_find_stream(v, o->stream_names[l->stream]);
        for (int32_t k = 0; l->lanes != NULL && k < run->stations[i].n_inputs; k++)
            l->lanes[k].stream = stm_vault_find_stream(v, o->stream_names[l->lanes[k].stream]);
    }
}

mill_status stm_durable_look(stm_run *run, stm_text *changed, mill_error *err)
{
    stm_durable *d = run->durable = stm_calloc(sizeof *d);
    opening o = {0};
    mill_status st;

    if (d == NULL) return stm_durable_no_memory(err);
    if ((st = stm_files_open(run->run_dir, &d->files, err)) != MILL_OK) goto fail;
    const stm_vault_opts vo = {.files = &d->files};
    if ((st = stm_vault_open(&vo, &d->vault, err)) != MILL_OK || (st = make_lasting(run, err)) != MILL_OK ||
        (st = name_all(run, &o, err)) != MILL_OK)
        goto fail;
    if (stm_vault_parts(d->vault) == 0) st = mill_fail(err, MILL_ERR_INVALID, "%s keeps nothing of a run yet", run->run_dir);
    for (int32_t p = 0; p < o.n_parts && st == MILL_OK; p++) st = look_at_part(run, &o, p, changed, err);
    if (st != MILL_OK) goto fail;
    find_streams(run, &o);
    d->errors_stream = stm_vault_find_stream(d->vault, "errors");
    if (d->errors_stream >= 0)
        st = stm_durable_errors_read(run->errors, d->vault, (size_t)d->errors_stream, &d->errors_written, NULL, err);
fail:
    opening_fini(&o);
    return st; /* stm_durable_close takes what there is */
}

void stm_durable_undone(stm_run *run)
{
    if (run->durable != NULL && run->durable->manifest != NULL) stm_manifest_forget(run->durable->manifest);
}

void stm_durable_close(stm_run *run)
{
    stm_durable *d = run->durable;

    if (d == NULL) return;
    for (int32_t i = 0; i < run->n_stations; i++) {
        if (run->stations[i].store != NULL)
            stm_merged_destroy(&run->stations[i].store->merged),
                stm_batch_source_destroy(&run->stations[i].store->source); /* it reads through our table of files */
        if (d->lasting != NULL) {
            stm_batch_sink_destroy(&d->lasting[i].out);
            stm_free(d->lasting[i].numbers);
            stm_free(d->lasting[i].places);
            for (int32_t k = 0; d->lasting[i].lanes != NULL && k < run->stations[i].n_inputs; k++) {
                stm_kept_input *lane = &d->lasting[i].lanes[k];
                stm_batch_sink_destroy(&lane->out);
                for (size_t b = 0; b < lane->n_gathered; b++) mill_batch_destroy(&lane->gathered[b]);
                stm_free(lane->gathered);
            }
            stm_free(d->lasting[i].lanes);
        }
        if (d->now != NULL) stm_free(d->now[i].checkpoint);
        run->stations[i].lasting = NULL;
    }
    stm_merge_close(run);
    stm_again_close(run);
    stm_kept_close(run, &d->kept);
    stm_leaves_free(&d->leaves);
    stm_manifest_close(&d->manifest);
    stm_vault_close(&d->vault);
    stm_owner_release(&d->owner);
    stm_files_close(&d->files);
    stm_free(d->lasting);
    stm_free(d->now);
    stm_free(d->first_input);
    stm_free(d->need);
    stm_text_free(&d->state);
    stm_free(d->part_names);
    stm_free(d->counts);
    stm_free(d);
    run->durable = NULL;
}
