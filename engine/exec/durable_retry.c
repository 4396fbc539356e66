/*
 * What a retry made, in place. RUN/retry.N keeps streams of the same names as the run itself, with the rows that ran again, and
 * which those were. That retry N counts is a bit in the state of the parts whose rows it made, so it is true from one commit on,
 * for all of them: whoever reads a stream gets its own rows without those, and those of the retry in their places. Nothing that was
 * kept is written again.
 *
 * The stream `rows` of RUN/retry.N: a frame per root, per part that ran, and one with the numbers of the errors that are void by
 * it.
 */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/error.h"
#include "exec/durable_state.h"

struct stm_leave {
    stm_leave *next;
    const stm_run *run;
    int32_t space; /* of the stream's keys */
    const stm_root_rows *only;
    const stm_root_rows *later[STM_MOST_RETRIES + 1]; /* whose rows others give */
    int n;
};

void stm_leaves_free(stm_leave **l)
{
    while (*l != NULL) {
        stm_leave *next = (*l)->next;
        stm_free(*l);
        *l = next;
    }
}

/* ---- rows of roots ------------------------------------------------------------------------------------------------ */

int32_t stm_key_root(const stm_run *run, int32_t space, const int64_t *key, int32_t width, int64_t *row)
{
    while (width > 0 && space >= 0 && run->stations[space].root < 0) { /* a union: the number of its input stands in front */
        const stm_station *s = &run->stations[space];

        space = key[0] >= 0 && key[0] < s->n_inputs ? stm_station_key_space(s, (int32_t)key[0]) : -1;
        key++;
        width--;
    }
    if (width < 1 || space < 0) return -1;
    *row = key[0];
    return space;
}

int32_t stm_station_key_space(const stm_station *s, int32_t input)
{
    const stm_run *run = s->run;

    for (int32_t i = 0; i < run->n_stations; i++) {
        if (input < 0 && s->kind == STM_AT_GLOBAL && run->stations[i].kind == STM_AT_READER && run->stations[i].store == s->store)
            return stm_flow_stream_of(run->flow, i)->key_space;
        for (int32_t o = 0; o < run->stations[i].n_outs; o++)
            if (run->stations[i].outs[o].to == s && run->stations[i].outs[o].input == input)
                return stm_flow_stream_of(run->flow, i)->key_space;
    }
    return stm_flow_stream_of(run->flow, s->node)->key_space;
}

static bool leaves(const mill_batch *b, int64_t r, void *user)
{
    const stm_leave *l = user;
    int64_t key[STM_KEY_MOST], row;
    int32_t root;

    if (b->keys.tuples == NULL && l->run->stations[l->space].root >= 0) {
        root = l->space;
        row = b->keys.first + r;
    } else {
        if (b->keys.width > STM_KEY_MOST) return false;
        stm_batch_key(b, r, key);
        if ((root = stm_key_root(l->run, l->space, key, b->keys.width, &row)) < 0) return false;
    }
    if (l->only != NULL && !stm_row_ranges_have(l->only[root].ranges, l->only[root].n, row)) return true;
    for (int i = 0; i < l->n; i++)
        if (stm_row_ranges_have(l->later[i][root].ranges, l->later[i][root].n, row)) return true;
    return false;
}

/* ---- a retry that has ended ---------------------------------------------------------------------------------------- */

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "no memory for what a retry made"); }
static mill_status damaged(const char *dir, int32_t number, mill_error *err)
{
    return mill_fail(err, MILL_ERR_DATA, "%s/retry.%d does not say which rows ran again", dir, (int)number);
}

void stm_retry_close(const stm_run *run, stm_retry **retry)
{
    stm_retry *r = *retry;

    if (r == NULL) return;
    stm_vault_close(&r->vault);
    stm_files_close(&r->files);
    for (int32_t i = 0; r->rows != NULL && i < run->n_stations; i++) stm_free(r->rows[i].ranges);
    stm_free(r->rows);
    stm_free(r->parts);
    stm_free(r);
    *retry = NULL;
}

static int32_t space_named(const stm_run *run, const char *name)
{
    for (int32_t i = 0; i < run->n_stations; i++)
        if (stm_flow_stream_of(run->flow, i)->key_space == i && run->stations[i].root >= 0 &&
            strncmp(run->stations[i].name, name, STM_STREAM_NAME - 1) == 0)
            return i;
    return -1;
}

static mill_status take_frame(const stm_run *run, const char *dir, int32_t number, const stm_frame *f, stm_retry *r,
                              mill_error *err)
{
    char name[STM_STREAM_NAME];
    const size_t n = f->bytes >= sizeof name ? (f->bytes - sizeof name) / sizeof(stm_row_range) : 0;
    int32_t at;

    if (f->kind == STM_RETRY_VOID) return MILL_OK;
    if (f->bytes < sizeof name) return damaged(dir, number, err);
    memcpy(name, f->data, sizeof name);
    name[sizeof name - 1] = 0;
    if (f->kind == STM_RETRY_PART) {
        for (int32_t p = 0; p < run->durable->n_parts; p++)
            if (strcmp(run->durable->part_names[p], name) == 0)
                r->parts[p] = f->label == STM_PART_ALL ? STM_PART_ALL : STM_PART_ROWS;
        return MILL_OK;
    }
    at = space_named(run, name);
    if (f->kind != STM_RETRY_ROWS || at < 0 || r->rows[at].ranges != NULL) return damaged(dir, number, err);
    if ((r->rows[at].ranges = stm_malloc((n + 1) * sizeof(stm_row_range))) == NULL) return no_memory(err);
    memcpy(r->rows[at].ranges, (const char *)f->data + sizeof name, n * sizeof(stm_row_range));
    r->rows[at].n = n;
    return MILL_OK;
}

mill_status stm_retry_open(const stm_run *run, const char *dir, int32_t number, stm_retry **out, mill_error *err)
{
    stm_retry *r = stm_calloc(sizeof *r);
    stm_segment_reader *reader = NULL;
    stm_text path = {0};
    stm_frame f;
    bool end = false;
    int32_t stream = -1;
    mill_status st = MILL_OK;

    if (r != NULL) {
        r->rows = stm_calloc((size_t)(run->n_stations + 1) * sizeof *r->rows);
        r->parts = stm_calloc((size_t)run->durable->n_parts + 1);
    }
    stm_text_addf(&path, "%s/retry.%d", dir, (int)number);
    if (r == NULL || r->rows == NULL || r->parts == NULL || path.failed) st = no_memory(err);
    if (st == MILL_OK) st = stm_files_open(path.data, &r->files, err);
    if (st == MILL_OK) {
        const stm_vault_opts vo = {.files = &r->files};
        st = stm_vault_open(&vo, &r->vault, err);
    }
    if (st == MILL_OK && (stream = stm_vault_find_stream(r->vault, STM_RETRY_STREAM)) < 0) st = damaged(dir, number, err);
    if (st == MILL_OK) st = stm_vault_read(r->vault, (size_t)stream, &reader, err);
    while (st == MILL_OK && (st = stm_segment_reader_next(reader, true, &f, &end, err)) == MILL_OK && !end)
        st = take_frame(run, dir, number, &f, r, err);
    stm_segment_reader_destroy(&reader);
    if (st != MILL_OK) {
        if (path.data != NULL && !path.failed) mill_error_context(err, "rows of a retry are kept in %s", path.data);
        mill_error_remedy(err, "Put it back as it was, or run everything again: stepmill run FILE --fresh");
        if (r != NULL) stm_retry_close(run, &r);
    }
    stm_text_free(&path);
    if (st == MILL_OK) *out = r;
    return st;
}

uint64_t stm_retry_print(const stm_vault *v)
{
    uint64_t h = 4;

    for (size_t k = 0; k < stm_vault_streams(v); k++) {
        const stm_vault_stream s = stm_vault_stream_at(v, k);
        h = stm_hash64(s.name, strlen(s.name), h);
        h = stm_hash64(&s.print, sizeof s.print, h);
    }
    return h;
}

bool stm_retry_is_of(const stm_vault_part *part, uint64_t of)
{
    const char *text = stm_signature_value(part->fields, part->n_fields, STM_RETRY_FIELD);
    char want[32];

    snprintf(want, sizeof want, "of %016llx, ", (unsigned long long)of);
    return text != NULL && strncmp(text, want, strlen(want)) == 0;
}

/* ---- what is kept ------------------------------------------------------------------------------------------------ */

static mill_status layer(const stm_run *run, stm_kept *k, int32_t number, stm_retry **out, mill_error *err)
{
    mill_status st = MILL_OK;

    if (k->opened[number - 1] == NULL) st = stm_retry_open(run, k->dir, number, &k->opened[number - 1], err);
    *out = k->opened[number - 1];
    return st;
}

void stm_kept_close(const stm_run *run, stm_kept *k)
{
    for (int i = 0; i < STM_MOST_RETRIES; i++) stm_retry_close(run, &k->opened[i]);
    stm_free(k->retries);
    k->retries = NULL;
}

mill_status stm_kept_inputs(stm_run *run, stm_kept *k, const stm_stored_stream *of, const stm_root_rows *only,
                            const stm_root_rows *but, int32_t extra, stm_merged_input **out, int32_t *n, mill_error *err)
{
    const uint64_t counts = k->retries[of->part];
    stm_merged_input *in = stm_calloc((size_t)(STM_MOST_RETRIES + 1 + extra) * sizeof *in);
    mill_status st = in != NULL ? MILL_OK : no_memory(err);
    int32_t made = 0;

    for (int32_t i = 0; i <= STM_MOST_RETRIES && st == MILL_OK; i++) { /* 0: the run's own */
        const stm_vault *v = k->vault;
        stm_leave *l;
        stm_retry *r = NULL;
        int32_t stream;
        if (i > 0 && (counts >> (i - 1) & 1) == 0) continue;
        if (i > 0 && (st = layer(run, k, i, &r, err)) != MILL_OK) break;
        if (r != NULL) v = r->vault;
        if (r != NULL && (of->output || r->parts[of->part] == STM_PART_ALL)) /* nothing of before is left */
            while (made > 0) stm_batch_source_destroy(&in[--made].source);
        for (int32_t e = 0; r != NULL && e < made; e++) {
            l = in[e].user;
            l->later[l->n++] = r->rows;
        }
        if ((l = stm_calloc(sizeof *l)) == NULL) {
            st = no_memory(err);
            break;
        }
        l->next = run->durable->leaves;
        run->durable->leaves = l;
        l->run = run;
        l->space = of->space;
        l->only = only;
        in[made].without = leaves;
        in[made].user = l;
        if ((stream = stm_vault_find_stream(v, of->name)) < 0)
            st = mill_fail(err, MILL_ERR_DATA, "%s keeps no stream %s", k->dir, of->name);
        else
            st = stm_batch_source_create(v, (size_t)stream, run->pool, of->type, stm_flow_roots(run->flow), &in[made].source, err);
        if (st == MILL_OK) made++;
    }
    for (int32_t e = 0; e < made; e++) {
        stm_leave *l = in[e].user;
        if (but != NULL) l->later[l->n++] = but;
        if (only == NULL && l->n == 0) in[e].without = NULL;
    }
    if (st != MILL_OK) {
        while (made > 0) stm_batch_source_destroy(&in[--made].source);
        stm_free(in);
        return st;
    }
    *out = in;
    *n = made;
    return MILL_OK;
}

mill_status stm_kept_source(stm_run *run, stm_kept *k, stm_station *s, const stm_root_rows *only, mill_error *err)
{
    const bool output = s->kind == STM_AT_GLOBAL;
    mill_status st = MILL_OK;

    atomic_store(&s->store->complete, true);
    for (int32_t i = 0; i < run->n_stations && st == MILL_OK; i++) {
        const stm_station *r = &run->stations[i];
        const stm_stored_stream of = {.name = stm_vault_stream_at(run->durable->vault, (size_t)s->lasting->stream).name,
                                    .type = stm_durable_store_type(run, s),
                                    .part = s->lasting->part,
                                    .space = stm_flow_stream_of(run->flow, i)->key_space,
                                    .output = output};
        stm_merged_input *in = NULL;
        int32_t n = 0;
        if (r->kind != STM_AT_READER || r->store != s->store || r->lasting->finished || s->store->merged != NULL) continue;
        if (of.type == NULL) return no_memory(err);
        if ((st = stm_kept_inputs(run, k, &of, only, NULL, 0, &in, &n, err)) != MILL_OK) break;
        st = stm_merged_create(run->pool, in, (size_t)n, of.type->n_fields, stm_flow_roots(run->flow), &s->store->merged, err);
        stm_free(in);
        if (st == MILL_OK) st = stm_merged_skip(s->store->merged, r->next_seq, s->name, err);
        atomic_store(&s->store->waiting, 1); /* how many is not known; 0 once the last is read */
    }
    return st;
}

/* ---- put in place ------------------------------------------------------------------------------------------------ */

bool stm_part_is_sinks(const stm_run *run, int32_t part)
{
    bool sinks = false;

    for (int32_t i = 0; i < run->n_stations; i++) {
        const stm_station *s = &run->stations[i];
        if (s->lasting->part != part) continue;
        if (s->kind != STM_AT_SINK && s->kind != STM_AT_READER) return false;
        sinks = sinks || s->kind == STM_AT_SINK;
    }
    return sinks;
}

mill_status stm_retry_check(stm_run *run, mill_error *err)
{
    stm_durable *d = run->durable;
    const int32_t number = run->opts.put;
    stm_retry *r;
    mill_status st;

    if (number < 1 || number > STM_MOST_RETRIES) return mill_fail(err, MILL_ERR_INVALID, "there is no retry %d", (int)number);
    if ((st = stm_retry_open(run, run->run_dir, number, &d->kept.opened[number - 1], err)) != MILL_OK)
        return stm_refused(st, err, NULL, NULL);
    r = d->kept.opened[number - 1];
    for (size_t p = 0; p < stm_vault_parts(r->vault); p++) {
        const stm_vault_part part = stm_vault_part_at(r->vault, p);
        if (!stm_retry_is_of(&part, stm_retry_print(d->vault)))
            return stm_refused(mill_fail(err, MILL_ERR_INVALID, "the run has changed since retry %d began", (int)number), err, NULL,
                               "Call it again");
        if (!stm_durable_is_finished(part.state, part.n_state, NULL))
            return stm_refused(mill_fail(err, MILL_ERR_INVALID, "retry %d has not ended", (int)number), err, NULL,
                               "Call it again: it goes on");
    }
    return MILL_OK;
}

mill_status stm_retry_part(const stm_run *run, int32_t part, const stm_vault_part *old, stm_text *state, bool *again,
                           mill_error *err)
{
    const stm_retry *r = run->durable->kept.opened[run->opts.put - 1];
    uint64_t retries = 0;

    *again = false;
    if (!stm_durable_is_finished(old->state, old->n_state, &retries))
        return stm_refused(mill_fail(err, MILL_ERR_INVALID, "the run in %s has not ended", run->run_dir), err, NULL,
                           "Finish it first: stepmill resume");
    for (int32_t i = 0; i < run->n_stations && stm_part_is_sinks(run, part); i++) {
        const stm_station *s = &run->stations[i];
        *again = *again || (s->lasting->part == part && s->kind == STM_AT_READER &&
                            r->parts[s->lasting->store->lasting->part] != STM_PART_KEPT);
    }
    if (r->parts[part] != STM_PART_KEPT) retries |= (uint64_t)1 << (run->opts.put - 1);
    stm_durable_encode_finished(run, retries, state);
    return state->failed ? no_memory(err) : MILL_OK;
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static mill_status note_void(stm_run *run, const stm_retry *r, mill_error *err)
{
    stm_durable *d = run->durable;
    const int32_t stream = stm_vault_find_stream(r->vault, STM_RETRY_STREAM);
    stm_segment_reader *reader = NULL;
    stm_frame f;
    bool end = false;
    mill_status st = stm_vault_read(r->vault, (size_t)stream, &reader, err);

    while (st == MILL_OK && (st = stm_segment_reader_next(reader, true, &f, &end, err)) == MILL_OK && !end)
        for (size_t i = 0; f.kind == STM_RETRY_VOID && i < f.bytes / sizeof(int64_t) && st == MILL_OK; i++) {
            int64_t id;
            memcpy(&id, (const char *)f.data + i * sizeof id, sizeof id);
            if (id < 1 || id > d->errors_written || stm_errors_is_void(run->errors, id)) continue;
            stm_errors_void(run->errors, id);
            st = stm_vault_append(d->vault, (size_t)d->errors_stream, STM_ERRORS_VOID, (uint64_t)id, 0, NULL, 0, err);
        }
    stm_segment_reader_destroy(&reader);
    return st;
}

mill_status stm_retries_note(stm_run *run, mill_error *err)
{
    stm_durable *d = run->durable;
    uint64_t counts = 0;
    bool any = false;
    mill_status st = MILL_OK;

    for (int32_t p = 0; p < d->n_parts; p++) counts |= d->kept.retries[p];
    counts &= ~d->noted;
    for (int32_t i = 1; i <= STM_MOST_RETRIES && st == MILL_OK; i++) {
        stm_retry *r = NULL;
        int32_t stream;
        int64_t n;
        if ((counts >> (i - 1) & 1) == 0) continue;
        if ((st = layer(run, &d->kept, i, &r, err)) != MILL_OK || (st = note_void(run, r, err)) != MILL_OK) break;
        stream = stm_vault_find_stream(r->vault, "errors");
        if (stream >= 0) st = stm_durable_errors_read(run->errors, r->vault, (size_t)stream, &n, NULL, err);
        if (st == MILL_OK) st = stm_durable_errors_commit(run, err); /* those that were added */
        if (st == MILL_OK)
            st = stm_vault_append(d->vault, (size_t)d->errors_stream, STM_ERRORS_RETRY, (uint64_t)i, 0, NULL, 0, err);
        d->noted |= (uint64_t)1 << (i - 1);
        any = true;
    }
    if (st == MILL_OK && any) st = stm_vault_mark(d->vault, (size_t)d->errors_stream, false, err);
    return st == MILL_OK && any ? stm_vault_commit(d->vault, err) : st;
}

/* ---- from outside ------------------------------------------------------------------------------------------------- */

static mill_status look_at_errors(const stm_vault *v, uint64_t *retries, mill_error *err)
{
    const int32_t stream = stm_vault_find_stream(v, "errors");
    stm_segment_reader *reader = NULL;
    stm_frame f;
    bool end = false;
    mill_status st = stream >= 0 ? stm_vault_read(v, (size_t)stream, &reader, err) : MILL_OK;

    while (st == MILL_OK && reader != NULL && (st = stm_segment_reader_next(reader, false, &f, &end, err)) == MILL_OK && !end)
        if (f.kind == STM_ERRORS_RETRY && f.label >= 1 && f.label <= STM_MOST_RETRIES) *retries |= (uint64_t)1 << (f.label - 1);
    stm_segment_reader_destroy(&reader);
    return st;
}

mill_status stm_run_look(const char *dir, uint64_t *retries, bool *ended, mill_error *err)
{
    stm_files files = {0};
    stm_vault *v = NULL;
    mill_status st = stm_files_open(dir, &files, err);
    const stm_vault_opts vo = {.files = &files};

    *retries = 0;
    *ended = true;
    if (st != MILL_OK) return st;
    st = stm_vault_open(&vo, &v, err);
    if (st == MILL_OK && stm_vault_parts(v) == 0) st = mill_fail(err, MILL_ERR_NOT_FOUND, "nothing of a run is kept in %s", dir);
    for (size_t p = 0; st == MILL_OK && p < stm_vault_parts(v); p++) {
        const stm_vault_part part = stm_vault_part_at(v, p);
        uint64_t bits = 0;
        *ended = stm_durable_is_finished(part.state, part.n_state, &bits) && *ended;
        *retries |= bits;
    }
    if (st == MILL_OK) st = look_at_errors(v, retries, err);
    stm_vault_close(&v);
    stm_files_close(&files);
    return st;
}

mill_status stm_run_look_at_errors(const char *dir, stm_errors *into, mill_error *err)
{
    stm_files files = {0};
    stm_vault *v = NULL;
    int64_t n;
    mill_status st = stm_files_open(dir, &files, err);
    const stm_vault_opts vo = {.files = &files};

    if (st != MILL_OK) return st;
    st = stm_vault_open(&vo, &v, err);
    if (st == MILL_OK) {
        const int32_t stream = stm_vault_find_stream(v, "errors");
        if (stream >= 0) st = stm_durable_errors_read(into, v, (size_t)stream, &n, NULL, err);
    }
    stm_vault_close(&v);
    stm_files_close(&files);
    return st;
}
