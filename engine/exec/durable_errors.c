/* Error records in the run directory: written with each commit, read when it is opened, void once what they are of is done over or
 * gone past. */
#include <string.h>

#include "exec/durable_state.h"

mill_status stm_durable_errors_commit(stm_run *run, mill_error *err)
{
    stm_durable *d = run->durable;
    const int64_t n = stm_errors_count(run->errors);
    mill_status st = MILL_OK;

    for (; d->errors_written < n && st == MILL_OK; d->errors_written++) {
        const stm_error_record *rec = stm_errors_get(run->errors, d->errors_written + 1);
        const stm_bytes bytes = {rec, sizeof *rec};
        st = stm_vault_append(d->vault, (size_t)d->errors_stream, STM_ERRORS_RECORD, (uint64_t)rec->id, rec->rows, &bytes, 1, err);
        if (st != MILL_OK) break;
    }
    return st == MILL_OK ? stm_vault_mark(d->vault, (size_t)d->errors_stream, false, err) : st;
}

static bool terminated(const char *text, size_t n) { return memchr(text, 0, n) != NULL; }

static bool record_ok(const stm_error_record *r)
{
    const mill_error *e = &r->error;

    return r->rows >= 0 && terminated(r->first_key, sizeof r->first_key) && terminated(r->last_key, sizeof r->last_key) &&
           terminated(e->msg, sizeof e->msg) && terminated(e->context, sizeof e->context) &&
           terminated(e->remedy, sizeof e->remedy) && terminated(e->file, sizeof e->file) &&
           terminated(e->field, sizeof e->field) && terminated(e->step, sizeof e->step) && terminated(e->origin, sizeof e->origin);
}

/* Whether what failed is still part of the run's result. A failure without rows ended the work of its part, which goes on if
 * anything of it is left to do. */
static bool is_kept(const stm_run *run, const stm_error_record *rec)
{
    const stm_station *s = NULL;
    stm_vault_part part;

    for (int32_t i = 0; i < run->n_stations && s == NULL; i++)
        if (run->stations[i].plan_step >= 0 && stm_step_is_of(run->plan->steps[run->stations[i].plan_step].step, &rec->error))
            s = &run->stations[i];
    if (s == NULL || !run->durable->counts[s->node]) return false;
    part = stm_vault_part_at(run->durable->vault, (size_t)s->lasting->part);
    if (part.n_state == 0) return false; /* nothing committed of it: begun over */
    return rec->rows > 0 || stm_durable_is_finished(part.state, part.n_state, NULL);
}

/* Records of work that is done over are void, in this run and all later ones. */
static mill_status void_errors(stm_run *run, mill_error *err)
{
    stm_durable *d = run->durable;
    mill_status st = MILL_OK;

    for (int64_t id = d->errors_before + 1; id <= d->errors_written && st == MILL_OK; id++) {
        if (stm_errors_is_void(run->errors, id) || is_kept(run, stm_errors_get(run->errors, id))) continue;
        stm_errors_void(run->errors, id);
        st = stm_vault_append(d->vault, (size_t)d->errors_stream, STM_ERRORS_VOID, (uint64_t)(id - d->errors_before), 0, NULL, 0,
                              err);
    }
    return st; /* they go into the next commit: until then the parts are begun over, and so are the records */
}

mill_status stm_durable_errors_read(stm_errors *errors, const stm_vault *v, size_t stream, int64_t *n, uint64_t *retries,
                                    mill_error *err)
{
    const int64_t before = stm_errors_count(errors);
    stm_segment_reader *r = NULL;
    stm_frame f;
    bool end = false;
    mill_status st = stm_vault_read(v, stream, &r, err);

    *n = 0;

    while (st == MILL_OK) {
        stm_error_record rec;
        if ((st = stm_segment_reader_next(r, true, &f, &end, err)) != MILL_OK || end) break;
        if (f.kind == STM_ERRORS_RETRY) {
            if (retries != NULL && f.label >= 1 && f.label <= STM_MOST_RETRIES) *retries |= (uint64_t)1 << (f.label - 1);
            continue;
        }
        if (f.kind == STM_ERRORS_VOID) {
            if (f.label <= INT64_MAX / 2) stm_errors_void(errors, before + (int64_t)f.label);
            continue;
        }
        if (f.bytes != sizeof rec) { /* of another version: its text is lost, its number is not */
            memset(&rec, 0, sizeof rec);
            rec.rows = f.rows;
            rec.error.status = MILL_ERR_DATA;
        } else {
            memcpy(&rec, f.data, sizeof rec);
            if (!record_ok(&rec) || rec.error.status == MILL_OK)
                st = mill_fail(err, MILL_ERR_DATA, "a stored error record makes no sense");
        }
        if (st != MILL_OK) break;
        st = stm_errors_restore(errors, &rec);
        if (st != MILL_OK) st = mill_fail(err, MILL_ERR_NOMEM, "no memory for error records");
        ++*n;
    }
    stm_segment_reader_destroy(&r);
    return st;
}

mill_status stm_durable_errors_restore(stm_run *run, mill_error *err)
{
    stm_durable *d = run->durable;
    int64_t n;
    mill_status st = stm_durable_errors_read(run->errors, d->vault, (size_t)d->errors_stream, &n, &d->noted, err);

    d->errors_written += n;
    if (st == MILL_OK && d->again == NULL) st = void_errors(run, err);
    return st == MILL_OK && d->again == NULL ? stm_retries_note(run, err) : st;
}
