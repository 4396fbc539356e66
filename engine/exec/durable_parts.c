/* Parts of a run that lasts: what connects them, and what their results depend on. */
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "exec/durable_state.h"

/* Stations that edges connect are one part; it is named after its first station. */
int32_t stm_durable_find_parts(stm_run *run)
{
    int32_t n = 0;
    bool changed = true;

    for (int32_t i = 0; i < run->n_stations; i++) run->stations[i].lasting->part = i;
    while (changed) {
        changed = false;
        for (int32_t i = 0; i < run->n_stations; i++)
            for (int32_t o = 0; o < run->stations[i].n_outs; o++) {
                int32_t *a = &run->stations[i].lasting->part, *b = &run->stations[i].outs[o].to->lasting->part;
                if (*a == *b) continue;
                *a = *b = *a < *b ? *a : *b;
                changed = true;
            }
    }
    for (int32_t i = 0; i < run->n_stations; i++) { /* number them: the smallest station of a part is its own mark */
        struct stm_lasting *l = run->stations[i].lasting;
        l->part = l->part == i ? n++ : run->stations[l->part].lasting->part;
    }
    return n;
}

/* Places are of this very graph. */
uint64_t stm_durable_graph(const stm_run *run)
{
    uint64_t h = 1;

    for (int32_t i = 0; i < run->n_stations; i++) {
        const stm_station *s = &run->stations[i];
        const mill_step *step = s->plan_step >= 0 ? run->plan->steps[s->plan_step].step : NULL;
        const uint64_t what[] = {step != NULL ? (uint64_t)step->batch_rows : 0,
                                 step != NULL ? (uint64_t)step->budget_tokens : 0,
                                 step != NULL ? (uint64_t)step->budget_bytes : 0,
                                 (uint64_t)s->kind,
                                 (uint64_t)(int64_t)s->root,
                                 (uint64_t)s->n_inputs,
                                 (uint64_t)s->n_outs,
                                 (uint64_t)s->lasting->part,
                                 s->inlet != NULL ? stm_inlet_checkpoint_bytes(s->inlet) : 0};
        h = stm_hash64(s->name, strlen(s->name), h);
        h = stm_hash64(what, sizeof what, h);
        for (int32_t o = 0; o < s->n_outs; o++) {
            const int32_t to[] = {s->outs[o].to->node, s->outs[o].input, s->outs[o].branch};
            h = stm_hash64(to, sizeof to, h);
        }
    }
    return h;
}

/* ---- terminals --------------------------------------------------------------------------------------------------- */

/* The branch of its producer that ends in a store or a discard. */
static int32_t branch_into(const stm_run *run, const stm_station *s)
{
    for (int32_t i = 0; i < run->n_stations; i++)
        for (int32_t o = 0; o < run->stations[i].n_outs; o++)
            if (run->stations[i].outs[o].to == s) return run->stations[i].outs[o].branch;
    return 0;
}

void stm_durable_terminal_name(const stm_run *run, const stm_station *s, char out[STM_STREAM_NAME])
{
    int32_t branch, same = 0;

    if (s->plan_step >= 0) {
        snprintf(out, STM_STREAM_NAME, "%.63s", s->name);
        return;
    }
    branch = branch_into(run, s);
    for (const stm_station *other = run->stations; other < s; other++)
        if (other->n_outs == 0 && other->plan_step < 0 && strcmp(other->name, s->name) == 0 && branch_into(run, other) == branch)
            same++;
    if (same > 0)
        snprintf(out, STM_STREAM_NAME, "%.55s.%d.%d", s->name, (int)branch, (int)same);
    else
        snprintf(out, STM_STREAM_NAME, "%.63s.%d", s->name, (int)branch);
}

void stm_durable_above(const stm_run *run, const stm_station *terminal, bool *above)
{
    memset(above, 0, (size_t)run->n_stations * sizeof *above);
    above[terminal->node] = true;
    for (int32_t i = terminal->node - 1; i >= 0; i--) /* in topological order */
        for (int32_t o = 0; o < run->stations[i].n_outs; o++) above[i] = above[i] || above[run->stations[i].outs[o].to->node];
}

/* How the stations in front of a terminal hang together: a store that is new has nothing of what went by. */
static void sign_connections(const stm_run *run, const stm_station *terminal, const bool *above, stm_signature *out)
{
    char terminal_name[STM_STREAM_NAME], name[STM_STREAM_NAME + 40], value[32];
    uint64_t h = 2;

    for (int32_t i = 0; i < run->n_stations; i++) {
        const stm_station *s = &run->stations[i];
        const int32_t what[] = {(int32_t)s->kind, s->n_inputs};
        if (!above[i]) continue;
        h = stm_hash64(s->name, strlen(s->name), h);
        h = stm_hash64(what, sizeof what, h);
        for (int32_t o = 0; o < s->n_outs; o++) {
            if (!above[s->outs[o].to->node]) continue;
            h = stm_hash64(s->outs[o].to->name, strlen(s->outs[o].to->name), h);
            h = stm_hash64(&s->outs[o].input, sizeof(int32_t), h + (uint64_t)s->outs[o].branch);
        }
    }
    stm_durable_terminal_name(run, terminal, terminal_name);
    snprintf(name, sizeof name, STM_CONNECTIONS " up to %s", terminal_name);
    snprintf(value, sizeof value, "file:%016llx", (unsigned long long)h);
    stm_signature_add(out, name, value);
}

/* ---- signatures -------------------------------------------------------------------------------------------------- */

/* steps[i]: step i has a say in what comes of these stations: their own, and all above them, through stores, too. */
static void steps_of(const stm_run *run, const bool *stations, bool *steps)
{
    for (int32_t i = 0; i < run->n_stations; i++) {
        const stm_station *s = &run->stations[i], *store = s->lasting->store;
        if (!stations[i]) continue;
        if (s->plan_step >= 0) steps[s->plan_step] = true;
        for (int32_t k = 0; store != NULL && k < store->node; k++) /* a reader of another part's stream: whoever makes that */
            for (int32_t o = 0; o < run->stations[k].n_outs; o++)
                if (run->stations[k].outs[o].to == store && run->stations[k].plan_step >= 0)
                    steps[run->stations[k].plan_step] = true;
    }
    for (int32_t i = run->plan->n_steps - 1; i >= 0; i--)
        for (int32_t k = 0; steps[i] && k < run->plan->steps[i].n_inputs; k++) steps[run->plan->steps[i].inputs[k].from] = true;
}

/* @p terminal NULL: all of the part's. */
static mill_status sign(const stm_run *run, int32_t part, const stm_station *terminal, int32_t shard, stm_signature *out,
                        mill_error *err)
{
    const size_t n = (size_t)run->n_stations + 1;
    bool *memory = stm_calloc(2 * n + (size_t)run->plan->n_steps), *above = memory, *all = memory + n, *steps = memory + 2 * n;
    char text[32];

    if (memory == NULL) return stm_durable_no_memory(err);
    snprintf(text, sizeof text, "%llu", (unsigned long long)run->plan->seed);
    stm_signature_add(out, "seed", text);
    snprintf(text, sizeof text, "%lld", (long long)run->opts.limit);
    stm_signature_add(out, "--limit", text);
    if (shard > 0) {
        snprintf(text, sizeof text, "%d/%d", (int)shard, (int)run->opts.shards);
        stm_signature_add(out, "--shard", text);
    }
    if (shard < 0) stm_merge_sign(run, out);
    if (run->durable->again != NULL && run->durable->again_signs) stm_again_sign(run, out);
    for (int32_t i = 0; i < run->n_stations; i++) {
        const stm_station *s = &run->stations[i];
        if (s->n_outs > 0 || s->lasting->part != part || (terminal != NULL && s != terminal)) continue;
        stm_durable_above(run, s, above);
        sign_connections(run, s, above, out);
        for (int32_t k = 0; k < run->n_stations; k++) all[k] = all[k] || above[k];
    }
    steps_of(run, all, steps);
    for (int32_t i = 0; i < run->plan->n_steps; i++)
        if (steps[i]) stm_text_add(&out->fields, run->plan->steps[i].signature.data, run->plan->steps[i].signature.bytes);
    stm_free(memory);
    return out->fields.failed ? stm_durable_no_memory(err) : MILL_OK;
}

mill_status stm_durable_sign(const stm_run *run, int32_t part, int32_t shard, stm_signature *out, mill_error *err)
{
    return sign(run, part, NULL, shard, out, err);
}

mill_status stm_durable_sign_terminal(const stm_run *run, const stm_station *terminal, int32_t shard, stm_signature *out,
                                      mill_error *err)
{
    return sign(run, terminal->lasting->part, terminal, shard, out, err);
}
