/*
 * A merge: a run whose sinks and globals get the rows that several runs, the shards, have kept in front of theirs. Everything in
 * front of those is finished from the first moment on; the rest is an ordinary run, which commits, can be killed, and goes on. In a
 * shard it is the other way round with globals and what is behind them: they need the rows of all shards, and are finished from the
 * first moment on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "exec/durable_state.h"

static mill_status refuse(mill_error *err, const char *remedy)
{
    err->phase = MILL_PHASE_CHECK;
    if (remedy != NULL) mill_error_remedy(err, "%s", remedy);
    return err->status;
}

/* Which of how many shards was run in a directory; false: none. */
static bool shard_of(const stm_vault *v, int32_t *shard, int32_t *shards)
{
    for (size_t i = 0; i < stm_vault_parts(v); i++) {
        const stm_vault_part p = stm_vault_part_at(v, i);
        const char *text = stm_signature_value(p.fields, p.n_fields, "--shard");
        int a, b;
        if (text == NULL || sscanf(text, "%d/%d", &a, &b) != 2) continue;
        *shard = a;
        *shards = b;
        return true;
    }
    return false;
}

mill_status stm_merge_open(stm_run *run, mill_error *err)
{
    stm_durable *d = run->durable;
    const int32_t n = run->opts.shards;

    if ((d->merge = stm_calloc((size_t)n * sizeof *d->merge)) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a merge");
    for (int32_t i = 0; i < n; i++) {
        const char *dir = run->opts.merge[i];
        int32_t shard = 0, shards = 0;
        mill_status st = stm_files_open(dir, &d->merge[i].files, err);
        const stm_vault_opts vo = {.files = &d->merge[i].files};

        if (st == MILL_OK) st = stm_vault_open(&vo, &d->merge[i].vault, err);
        d->merge[i].kept =
            (stm_kept){.dir = dir, .vault = d->merge[i].vault, .retries = stm_calloc((size_t)(d->n_parts + 1) * sizeof(uint64_t))};
        if (st == MILL_OK && d->merge[i].kept.retries == NULL) st = mill_fail(err, MILL_ERR_NOMEM, "no memory for a merge");
        if (st != MILL_OK) {
            mill_error_context(err, "opening the shard in %s", dir);
            return st;
        }
        if (!shard_of(d->merge[i].vault, &shard, &shards)) {
            mill_fail(err, MILL_ERR_INVALID, "%s holds no shard: %s", dir,
                      stm_vault_parts(d->merge[i].vault) == 0 ? "nothing of a run is kept there" : "it was run without --shard");
            return refuse(err, NULL);
        }
        if (shard != i + 1 || shards != n) {
            mill_fail(err, MILL_ERR_INVALID, "%s holds shard %d of %d, not %d of %d", dir, (int)shard, (int)shards, (int)i + 1,
                      (int)n);
            return refuse(err, "Give every shard of one run once");
        }
    }
    return MILL_OK;
}

mill_status stm_merge_check(const stm_run *run, int32_t shard, int32_t part, const stm_signature *want, mill_error *err)
{
    stm_merge_shard *s = &run->durable->merge[shard];
    const stm_vault *v = s->vault;
    const char *dir = run->opts.merge[shard];
    const int32_t k = stm_vault_find_part(v, run->durable->part_names[part]);
    unsigned char digest[STM_SIGNATURE_BYTES];
    stm_text t = {0};

    stm_signature_digest(want, digest);
    if (k >= 0) {
        const stm_vault_part p = stm_vault_part_at(v, (size_t)k);
        const bool same = memcmp(p.signature, digest, sizeof digest) == 0 ||
                          stm_signature_same_but_times(p.fields, p.n_fields, want->fields.data, want->fields.bytes);

        if (same && stm_durable_is_finished(p.state, p.n_state, &s->kept.retries[part])) return MILL_OK;
        if (same) {
            mill_fail(err, MILL_ERR_INVALID, "shard %d of %d, in %s, is not finished", (int)shard + 1, (int)run->opts.shards, dir);
            refuse(err, NULL);
            mill_error_remedy(err, "Finish it: stepmill resume %s", dir);
            return err->status;
        }
        (void)stm_signature_changes(p.fields, p.n_fields, want->fields.data, want->fields.bytes, 3, &t);
    }
    mill_fail(err, MILL_ERR_INVALID, "shard %d of %d, in %s, is not of this pipeline as it is: %s", (int)shard + 1,
              (int)run->opts.shards, dir,
              k < 0                         ? "how steps are connected"
              : t.data != NULL && !t.failed ? t.data
                                            : "?");
    stm_text_free(&t);
    return refuse(err, "Run it again with the pipeline and the inputs of the others");
}

void stm_merge_sign(const stm_run *run, stm_signature *out)
{
    const stm_durable *d = run->durable;
    char text[64];
    uint64_t h = 3;

    for (int32_t i = 0; i < run->opts.shards; i++) {
        const stm_vault *v = d->merge[i].vault;
        for (size_t k = 0; k < stm_vault_streams(v); k++) {
            const stm_vault_stream s = stm_vault_stream_at(v, k);
            const int64_t what[] = {(int64_t)k, s.bytes, s.frames, s.rows};
            h = stm_hash64(what, sizeof what, h);
        }
    }
    snprintf(text, sizeof text, "of %d shards, %016llx", (int)run->opts.shards, (unsigned long long)h);
    stm_signature_add(out, "merge", text);
}

mill_status stm_merge_errors(stm_run *run, mill_error *err)
{
    stm_durable *d = run->durable;
    uint64_t noted, counts;
    int64_t all = 0, n;
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < run->opts.shards && st == MILL_OK; i++) {
        const int32_t stream = stm_vault_find_stream(d->merge[i].vault, "errors");
        d->merge[i].errors = all;
        noted = counts = 0;
        for (int32_t p = 0; p < d->n_parts; p++) counts |= d->merge[i].kept.retries[p];
        if (stream >= 0) st = stm_durable_errors_read(run->errors, d->merge[i].vault, (size_t)stream, &n, &noted, err);
        if (stream >= 0) all += n;
        if (st != MILL_OK || (counts & ~noted) == 0) continue;
        st = mill_fail(err, MILL_ERR_INVALID, "a retry of shard %d of %d, in %s, is not finished", (int)i + 1,
                       (int)run->opts.shards, run->opts.merge[i]);
        refuse(err, NULL);
        mill_error_remedy(err, "Finish it: stepmill resume %s", run->opts.merge[i]);
    }
    d->errors_written = d->errors_before = stm_errors_count(run->errors); /* theirs are not written down here once more */
    return st;
}

mill_status stm_merge_source(stm_run *run, const stm_station *r, stm_station *s, const char *name, const mill_type *type,
                             mill_error *err)
{
    const stm_durable *d = run->durable;
    const stm_stored_stream of = {
        .name = name, .type = type, .part = s->lasting->part, .space = stm_flow_stream_of(run->flow, r->node)->key_space};
    stm_merged_input *all = NULL;
    size_t n = 0, cap = 0;
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < run->opts.shards && st == MILL_OK; i++) {
        stm_merged_input *in = NULL;
        int32_t its = 0;
        if ((st = stm_kept_inputs(run, &d->merge[i].kept, &of, NULL, NULL, 0, &in, &its, err)) != MILL_OK) break;
        if (stm_grow(&all, &cap, n + (size_t)its, sizeof *all) != 0) st = mill_fail(err, MILL_ERR_NOMEM, "no memory for a merge");
        for (int32_t k = 0; k < its; k++) {
            in[k].errors = d->merge[i].errors;
            in[k].most_errors = stm_errors_count(run->errors);
            if (st == MILL_OK)
                all[n++] = in[k];
            else
                stm_batch_source_destroy(&in[k].source);
        }
        stm_free(in);
    }
    if (st == MILL_OK) {
        st = stm_merged_create(run->pool, all, n, type->n_fields, stm_flow_roots(run->flow), &s->store->merged, err);
    } else {
        for (size_t i = 0; i < n; i++) stm_batch_source_destroy(&all[i].source);
    }
    stm_free(all);
    return st == MILL_OK ? stm_merged_skip(s->store->merged, r->next_seq, s->name, err) : st;
}

void stm_merge_say_left(const stm_run *run)
{
    stm_text who = {0};
    int32_t n = 0;

    for (int32_t i = 0; i < run->plan->n_steps; i++)
        if (run->plan->steps[i].for_merge) stm_text_addf(&who, "%s%s", n++ > 0 ? ", " : "", run->plan->steps[i].step->name);
    if (n > 0 && !who.failed) stm_log(STM_INFO, "", "left to the merge, which has the rows of all shards: %s", who.data);
    stm_text_free(&who);
}

void stm_merge_close(stm_run *run)
{
    stm_durable *d = run->durable;

    for (int32_t i = 0; d->merge != NULL && i < run->opts.shards; i++) {
        stm_kept_close(run, &d->merge[i].kept);
        stm_vault_close(&d->merge[i].vault);
        stm_files_close(&d->merge[i].files);
    }
    stm_free(d->merge);
    d->merge = NULL;
}
