#include "exec/history.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "exec/durable_state.h"

enum { MOST_FORMS = 8 }; /* keys that one row has below unions that unite it with itself */

int32_t stm_history_steps(const stm_history *h) { return h->run->plan->n_steps; }
const stm_plan_step *stm_history_step(const stm_history *h, int32_t step) { return &h->run->plan->steps[step]; }

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static bool founds(const stm_plan_step *s)
{
    return s->n_inputs == 0 || s->step->type->kind == MILL_GLOBAL || s->mode == STM_INPUT_UNION;
}

/* Key space of what leaves a step. */
static int32_t space_of(const stm_plan *p, int32_t step)
{
    while (!founds(&p->steps[step])) step = p->steps[step].inputs[0].from;
    return step;
}

/* Of what arrives at an input of a global. */
static int32_t space_at(const stm_plan *p, int32_t step, int32_t input) { return space_of(p, p->steps[step].inputs[input].from); }

/* The forms of @p key in key space @p space: one behind each way through unions. */
static int32_t forms_in(const stm_plan *p, const stm_history_key *key, int32_t space, stm_history_key *out)
{
    const stm_plan_step *s = &p->steps[space];
    stm_history_key inner[MOST_FORMS];
    int32_t n = 0;

    if (space == key->space) {
        out[0] = *key;
        return 1;
    }
    if (s->mode != STM_INPUT_UNION || s->step->type->kind == MILL_GLOBAL) return 0;
    for (int32_t i = 0; i < s->n_inputs; i++) {
        const int32_t found = forms_in(p, key, space_at(p, space, i), inner);

        for (int32_t k = 0; k < found && n < MOST_FORMS && inner[k].n < STM_HISTORY_KEY; k++, n++) {
            out[n].space = space;
            out[n].n = inner[k].n + 1;
            out[n].at[0] = i;
            memcpy(out[n].at + 1, inner[k].at, (size_t)inner[k].n * sizeof inner[k].at[0]);
        }
    }
    return n;
}

char *stm_history_show(const stm_history *h, const stm_history_key *key, char *buf, size_t size)
{
    int n = snprintf(buf, size, "%s:", h->run->plan->steps[key->space].step->name);

    for (int32_t i = 0; i < key->n && n >= 0 && (size_t)n < size; i++)
        n += key->at[i] < 0 ? snprintf(buf + n, size - (size_t)n, "%s-", i > 0 ? "." : "")
                            : snprintf(buf + n, size - (size_t)n, "%s%" PRId64, i > 0 ? "." : "", key->at[i]);
    return buf;
}

static bool take_elements(const char *text, stm_history_key *out)
{
    const char *rest;

    out->n = stm_key_parse(text, out->at, STM_HISTORY_KEY, &rest);
    while (out->n > 1 && out->at[out->n - 1] < 0) out->n--;
    return *rest == '\0' && out->n > 0 && out->at[0] >= 0;
}

/* "root:elements". false: no such step, or none that founds keys, or no numbers. */
static bool take_key(const stm_plan *p, const char *text, stm_history_key *out)
{
    const char *colon = strrchr(text, ':');

    if (colon == NULL || !take_elements(colon + 1, out)) return false;
    for (out->space = 0; out->space < p->n_steps; out->space++) {
        const char *name = p->steps[out->space].step->name;

        if (strlen(name) == (size_t)(colon - text) && strncmp(name, text, (size_t)(colon - text)) == 0 &&
            founds(&p->steps[out->space]))
            return true;
    }
    return false;
}

static mill_status no_key(const stm_plan *p, const char *text, mill_error *err)
{
    stm_text roots = {0};

    for (int32_t i = 0; i < p->n_steps; i++)
        if (founds(&p->steps[i]) && p->steps[i].step->type->kind != MILL_SINK)
            stm_text_addf(&roots, "%s%s", roots.bytes > 0 ? ", " : "", p->steps[i].step->name);
    mill_fail(err, MILL_ERR_INVALID,
              "\"%s\" is no key of this run: expected STEP:ROW, then .CHILD for each expansion, with a step that begins keys (%s)",
              text, roots.failed || roots.data == NULL ? "" : roots.data);
    mill_error_remedy(err, "As errors.jsonl has it: packages:12, packages:12.0");
    stm_text_free(&roots);
    return err->status;
}

/* The row's key where it was made: in front of all unions. */
static bool to_origin(const stm_plan *p, stm_history_key *key)
{
    while (p->steps[key->space].mode == STM_INPUT_UNION && p->steps[key->space].step->type->kind != MILL_GLOBAL) {
        const int64_t input = key->at[0];

        if (key->n < 2 || input >= p->steps[key->space].n_inputs) return false;
        key->space = space_at(p, key->space, (int32_t)input);
        memmove(key->at, key->at + 1, (size_t)--key->n * sizeof key->at[0]);
    }
    return true;
}

/* Whether @p b is of the line of @p a, and how. */
static bool is_kin(const stm_history_key *a, const stm_history_key *b, stm_kinship *how)
{
    const int32_t n = a->n < b->n ? a->n : b->n;

    for (int32_t i = 0; i < n; i++)
        if (a->at[i] != b->at[i]) return false;
    *how = b->n < a->n ? STM_ANCESTOR : b->n == a->n ? STM_SELF : STM_DESCENDANT;
    return true;
}

static stm_history_key key_of(const mill_batch *b, int64_t row, int32_t space)
{
    stm_history_key k = {.space = space, .n = b->keys.tuples != NULL ? b->keys.width : 1};

    if (k.n <= STM_HISTORY_KEY) stm_batch_key(b, row, k.at);
    else k.n = 0;
    while (k.n > 1 && k.at[k.n - 1] < 0) k.n--;
    return k;
}

/* ---- streams ------------------------------------------------------------------------------------------------------ */

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "looking a row up"); }

static mill_status add_kin(stm_kept_stream *k, const mill_batch *b, int64_t row, stm_kinship how, const stm_history_key *key,
                           mill_error *err)
{
    stm_kin *more, kin = {.kinship = how, .key = *key, .seq = b->seq, .row = row};

    if (how == STM_DESCENDANT && k->n_kin >= STM_HISTORY_CHILDREN) {
        k->more++;
        return MILL_OK;
    }
    if (stm_batch_slice(b, row, 1, &kin.batch) != MILL_OK) return no_memory(err);
    if ((more = stm_realloc(k->kin, (size_t)(k->n_kin + 1) * sizeof *more)) == NULL) {
        mill_batch_destroy(&kin.batch);
        return no_memory(err);
    }
    k->kin = more;
    k->kin[k->n_kin++] = kin;
    return MILL_OK;
}

/* What of the line is in a batch; *past: nothing behind it can be any more. */
static mill_status look_at_batch(const stm_history_key *forms, int32_t n, stm_kept_stream *k, const mill_batch *b, bool *past,
                                 mill_error *err)
{
    mill_status st = MILL_OK;

    for (int64_t r = 0; r < b->rows && st == MILL_OK && !*past; r++) {
        const stm_history_key key = key_of(b, r, forms[0].space);
        bool behind = true;

        for (int32_t f = 0; f < n && st == MILL_OK; f++) {
            stm_kinship how;
            int32_t i = 0;

            if (is_kin(&forms[f], &key, &how)) st = add_kin(k, b, r, how, &key, err);
            while (i < key.n && i < forms[f].n && key.at[i] == forms[f].at[i]) i++;
            behind = behind && i < key.n && i < forms[f].n && key.at[i] > forms[f].at[i];
        }
        *past = behind;
    }
    return st;
}

/* Of what is kept, with rows that a retry ran in their places. */
static mill_status open_rows(stm_history *h, size_t stream, const mill_type *type, const stm_station *at, stm_kept_stream *k,
                             stm_merged **out, mill_error *err)
{
    stm_run *run = h->run;
    const int32_t input = k->global >= 0 ? k->input : -1;
    stm_stored_stream of = {.name = stm_vault_stream_at(run->durable->vault, stream).name, .type = type, .part = at->lasting->part,
                            .space = stm_station_key_space(at, input), .output = at->kind == STM_AT_GLOBAL && input < 0};
    stm_merged_input *in = NULL;
    int32_t n = 0;
    mill_status st = stm_kept_inputs(run, &run->durable->kept, &of, NULL, NULL, 0, &in, &n, err);

    if (st == MILL_OK) st = stm_merged_create(run->pool, in, (size_t)n, type->n_fields, stm_flow_roots(run->flow), out, err);
    stm_free(in);
    return st;
}

static mill_status look_at_stream(stm_history *h, size_t stream, const mill_type *type, int32_t root, const stm_station *at,
                                  stm_kept_stream *k, mill_error *err)
{
    const stm_plan *p = h->run->plan;
    const stm_vault *v = h->run->durable->vault;
    const int32_t space = k->global >= 0 ? space_at(p, k->global, k->input) : space_of(p, k->step);
    stm_history_key forms[MOST_FORMS];
    const int32_t n = forms_in(p, &h->key, space, forms);
    stm_merged *rows = NULL;
    bool past = n == 0;
    mill_status st = MILL_OK;

    k->complete = stm_vault_stream_at(v, stream).complete;
    if (stm_vault_stream_at(v, stream).frames > 0 && n > 0)
        st = open_rows(h, stream, type, at, k, &rows, err);
    while (rows != NULL && st == MILL_OK && !past) {
        mill_batch *b = NULL;

        if ((st = stm_merged_next(rows, &b, err)) != MILL_OK || b == NULL) break;
        st = look_at_batch(forms, n, k, b, &past, err);
        if (root >= 0 && root < b->n_roots) {
            k->beyond = k->beyond || (space == h->key.space && b->covered[root] > h->key.at[0]);
            k->made = b->covered[root];
        }
        mill_batch_destroy(&b);
    }
    stm_merged_destroy(&rows);
    k->beyond = k->beyond || (past && n > 0);
    k->passed = k->beyond || k->complete;
    if (!k->complete || past) k->made = -1;
    return st;
}

/* The place of a step's keys among the roots of the flow. */
static int32_t root_of(const stm_history *h, int32_t space)
{
    const stm_run *run = h->run;

    for (int32_t i = 0; i < run->n_stations; i++)
        if (run->stations[i].root >= 0 && run->stations[i].plan_step == space) return run->stations[i].root;
    return -1;
}

static mill_status add_stream(stm_history *h, int32_t stream, const stm_station *at, const stm_kept_stream *what, mill_error *err)
{
    const mill_type *type = mill_type_struct(what->schema->fields, what->schema->n);
    stm_kept_stream *k;

    if (stream < 0) return MILL_OK;
    if (type == NULL) return no_memory(err);
    k = &h->kept[h->n_kept++];
    *k = *what;
    k->made = -1;
    return look_at_stream(h, (size_t)stream, type, root_of(h, h->key.space), at, k, err);
}

/* The step and branch whose rows a store gets. */
static void producer_of(const stm_run *run, const stm_station *store, stm_kept_stream *out)
{
    for (int32_t i = 0; i < run->n_stations; i++)
        for (int32_t o = 0; o < run->stations[i].n_outs; o++)
            if (run->stations[i].outs[o].to == store)
                out->step = run->stations[i].plan_step, out->branch = run->stations[i].outs[o].branch;
}

static mill_status look_at_streams(stm_history *h, mill_error *err)
{
    const stm_run *run = h->run;
    size_t cap = 1;
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < run->n_stations; i++) cap += 1 + (size_t)run->stations[i].n_inputs;
    if ((h->kept = stm_calloc(cap * sizeof *h->kept)) == NULL) return no_memory(err);
    for (int32_t i = 0; i < run->n_stations && st == MILL_OK; i++) {
        const stm_station *s = &run->stations[i];
        stm_kept_stream k = {.step = -1, .global = -1};

        if (s->kind == STM_AT_STORE) producer_of(run, s, &k);
        if (s->kind == STM_AT_GLOBAL) k.step = s->plan_step;
        if (k.step < 0) continue;
        k.schema = &run->plan->steps[k.step].step->out;
        st = add_stream(h, s->lasting->stream, s, &k, err);
        for (int32_t input = 0; s->kind == STM_AT_GLOBAL && input < s->n_inputs && st == MILL_OK; input++) {
            const stm_flow_edge *e = &run->plan->steps[s->plan_step].inputs[input];
            const stm_kept_stream lane = {.step = e->from, .branch = e->branch, .global = s->plan_step, .input = input,
                                          .schema = &run->plan->steps[s->plan_step].step->inputs[input].schema};
            st = add_stream(h, s->lasting->lanes[input].stream, s, &lane, err);
        }
    }
    return st;
}

/* ---- where it was, and where it was not -------------------------------------------------------------------------------- */

bool stm_history_may_drop(const stm_history *h, int32_t step)
{
    const stm_plan_step *s = &h->run->plan->steps[step];

    if ((s->step->type->flags & MILL_FILTERS) != 0) return true;
    /* on_missing; or by position, where keys are those of the first input */
    return s->mode == STM_INPUT_CONVERGE || s->mode == STM_INPUT_JOIN;
}

static bool is_router(const stm_plan *p, int32_t step) { return p->steps[step].step->type->kind == MILL_ROUTER; }

/* Says so where nothing was said. */
static void say(stm_there *there, stm_there what, bool *changed)
{
    if (*there != STM_THERE_UNKNOWN || what == STM_THERE_UNKNOWN) return;
    *there = what;
    *changed = true;
}

/* What is known of an edge: behind a router of each branch by itself. */
static stm_there of_edge(const stm_history *h, const stm_flow_edge *e)
{
    const stm_there at = h->after[e->from];

    if (!is_router(h->run->plan, e->from) || at == STM_THERE_NO) return at;
    for (int32_t i = 0; i < h->n_kept; i++) {
        const stm_kept_stream *k = &h->kept[i];

        if (k->step != e->from || k->branch != e->branch) continue;
        return k->n_kin > 0 ? STM_THERE_YES : k->passed ? STM_THERE_NO : STM_THERE_UNKNOWN;
    }
    return STM_THERE_UNKNOWN;
}

static bool conclude_at(stm_history *h, int32_t i)
{
    const stm_plan *p = h->run->plan;
    const stm_plan_step *s = &p->steps[i];
    bool changed = false, all_no = s->n_inputs > 0;

    for (int32_t k = 0; k < s->n_inputs; k++) {
        const stm_there e = of_edge(h, &s->inputs[k]);

        if (e == STM_THERE_YES) say(&h->before[i], STM_THERE_YES, &changed);
        all_no = all_no && e == STM_THERE_NO;
    }
    if (all_no) say(&h->before[i], STM_THERE_NO, &changed);
    if (s->step->type->kind != MILL_GLOBAL) { /* whose output is rows of its own */
        if (h->before[i] == STM_THERE_NO || (h->before[i] == STM_THERE_YES && !stm_history_may_drop(h, i)))
            say(&h->after[i], h->before[i], &changed);
        if (s->n_inputs > 0 && (h->after[i] == STM_THERE_YES || (h->after[i] == STM_THERE_NO && !stm_history_may_drop(h, i))))
            say(&h->before[i], h->after[i], &changed);
    }
    if (s->n_inputs == 1 && (h->before[i] == STM_THERE_YES || !is_router(p, s->inputs[0].from)))
        say(&h->after[s->inputs[0].from], h->before[i], &changed);
    return changed;
}

/* Steps behind @p step, and itself, may yet get it. */
static void may_yet(stm_history *h, int32_t step)
{
    const stm_plan *p = h->run->plan;

    h->waits[step] = true;
    for (int32_t i = step + 1; i < p->n_steps; i++)
        for (int32_t k = 0; k < p->steps[i].n_inputs; k++) h->waits[i] = h->waits[i] || h->waits[p->steps[i].inputs[k].from];
}

static mill_status conclude(stm_history *h, mill_error *err)
{
    const stm_plan *p = h->run->plan;
    bool changed = true, nowhere = true, beyond = false;
    int64_t made = -1;

    for (int32_t i = 0; i < h->n_kept; i++) {
        const stm_kept_stream *k = &h->kept[i];
        const int32_t space = k->global >= 0 ? space_at(p, k->global, k->input) : space_of(p, k->step);
        stm_history_key forms[MOST_FORMS];
        const stm_there there = k->n_kin > 0 ? STM_THERE_YES : k->passed ? STM_THERE_NO : STM_THERE_UNKNOWN;

        if (forms_in(p, &h->key, space, forms) == 0) continue;
        nowhere = nowhere && k->n_kin == 0;
        beyond = beyond || k->beyond;
        if (k->made > made) made = k->made;
        if (!is_router(p, k->step)) say(&h->after[k->step], there, &changed);
        if (is_router(p, k->step) && there == STM_THERE_YES) say(&h->after[k->step], there, &changed);
        if (k->global >= 0) say(&h->before[k->global], there, &changed);
        if (!k->passed) may_yet(h, k->step);
    }
    if (nowhere && made >= 0 && h->key.at[0] >= made) {
        const char *root = p->steps[h->key.space].step->name;

        if (made == 0) return mill_fail(err, MILL_ERR_NOT_FOUND, "there never was such a row: %s made none", root);
        return mill_fail(err, MILL_ERR_NOT_FOUND, "there never was such a row: %s made %" PRId64 ", %s:0 to %s:%" PRId64, root,
                         made, root, root, made - 1);
    }
    if (made >= 0 || beyond || !nowhere) say(&h->after[h->key.space], STM_THERE_YES, &changed);
    while (changed) {
        changed = false;
        for (int32_t i = 0; i < p->n_steps; i++) changed = conclude_at(h, i) || changed;
        for (int32_t i = p->n_steps - 1; i >= 0; i--) changed = conclude_at(h, i) || changed;
    }
    return MILL_OK;
}

/* A child that nobody has seen although its parent was: its number is none. */
static mill_status check_child(const stm_history *h, mill_error *err)
{
    bool parent = false, self = false, complete = true;
    char text[96];

    for (int32_t i = 0; i < h->n_kept; i++)
        for (int32_t k = 0; k < h->kept[i].n_kin; k++) {
            parent = parent || h->kept[i].kin[k].kinship == STM_ANCESTOR;
            self = self || h->kept[i].kin[k].kinship != STM_ANCESTOR;
        }
    for (int32_t i = 0; i < h->n_kept; i++) complete = complete && h->kept[i].passed;
    if (h->key.n == 1 || self || !complete) return MILL_OK;
    stm_history_key up = h->key;
    up.n--;
    return mill_fail(err, MILL_ERR_NOT_FOUND,
                     "no such row is kept%s: `stepmill trace RUN %s` shows what became of the row that it would come of",
                     parent ? ", though its ancestors are" : "", stm_history_show(h, &up, text, sizeof text));
}

/* ---- what is asked of it ------------------------------------------------------------------------------------------------ */

const stm_error_record *stm_history_error(const stm_history *h, int32_t step, int32_t i)
{
    const stm_plan *p = h->run->plan;
    const int64_t n = stm_errors_count(h->run->errors);

    for (int64_t id = 1; id <= n; id++) {
        const stm_error_record *r = stm_errors_get(h->run->errors, id);
        stm_history_key low, high, forms[MOST_FORMS];
        int32_t found;
        bool about = false;

        if (r->error.status == MILL_OK || !stm_step_is_of(p->steps[step].step, &r->error) || !take_key(p, r->first_key, &low) ||
            !take_key(p, r->last_key, &high))
            continue;
        found = forms_in(p, &h->key, low.space, forms);
        for (int32_t f = 0; f < found && !about; f++) {
            bool from = true, to = true; /* compared as far as both go: of ancestors and descendants, too */
            for (int32_t e = 0; e < forms[f].n && e < low.n && from && forms[f].at[e] <= low.at[e]; e++)
                if (forms[f].at[e] < low.at[e]) from = false;
            for (int32_t e = 0; e < forms[f].n && e < high.n && to && forms[f].at[e] >= high.at[e]; e++)
                if (forms[f].at[e] > high.at[e]) to = false;
            about = from && to;
        }
        if (about && i-- == 0) return r;
    }
    return NULL;
}

static bool writes(const stm_plan_step *s, const char *column)
{
    bool any = s->n_inputs == 0 || s->step->type->kind == MILL_GLOBAL;

    for (int32_t k = 0; k < s->step->n_outputs; k++) any = any || strcmp(s->step->outputs[k].mapped, column) == 0;
    return any;
}

/* Whether a column leaves @p to as it left @p from: there is a way between them, and nobody on any way writes it. */
static bool goes_untouched(const stm_plan *p, int32_t from, int32_t to, const char *column)
{
    if (from == to) return true;
    if (to < from || writes(&p->steps[to], column)) return false;
    for (int32_t k = 0; k < p->steps[to].n_inputs; k++)
        if (goes_untouched(p, from, p->steps[to].inputs[k].from, column)) return true;
    return false;
}

static const stm_kin *nearest(const stm_kept_stream *k)
{
    const stm_kin *best = NULL;

    for (int32_t i = 0; i < k->n_kin; i++)
        if (best == NULL || k->kin[i].kinship == STM_SELF || (best->kinship == STM_ANCESTOR && k->kin[i].kinship == STM_ANCESTOR))
            best = &k->kin[i];
    return best;
}

const stm_kin *stm_history_value(const stm_history *h, int32_t step, bool after, const char *column, const stm_kept_stream **stream,
                                 int32_t *place)
{
    const stm_plan *p = h->run->plan;
    const stm_plan_step *s = &p->steps[step];

    for (int32_t i = 0; i < h->n_kept; i++) {
        const stm_kept_stream *k = &h->kept[i];
        const int32_t c = stm_schema_find(k->schema, column);
        bool same = after && goes_untouched(p, step, k->step, column);

        for (int32_t e = 0; e < s->n_inputs && !after && !same; e++)
            same = goes_untouched(p, k->step, s->inputs[e].from, column) || goes_untouched(p, s->inputs[e].from, k->step, column);
        if (c < 0 || !same || k->n_kin == 0) continue;
        *stream = k;
        *place = c;
        return nearest(k);
    }
    return NULL;
}

/* ---- open --------------------------------------------------------------------------------------------------------------- */

mill_status stm_history_open(stm_plan **plan, const stm_run_opts *opts, const char *key, stm_history **out, mill_error *err)
{
    stm_history *h = stm_calloc(sizeof *h);
    stm_run_opts o = *opts;
    size_t n;
    mill_status st;

    if (h == NULL) {
        stm_plan_destroy(plan);
        return no_memory(err);
    }
    o.durable = o.look = true;
    o.threads = 1;
    if ((st = stm_run_make(plan, &o, &h->run, err)) != MILL_OK) goto fail;
    if ((st = stm_durable_look(h->run, &h->changed, err)) != MILL_OK) goto fail;
    n = (size_t)stm_history_steps(h) + 1;
    h->before = stm_calloc(n * sizeof *h->before);
    h->after = stm_calloc(n * sizeof *h->after);
    h->waits = stm_calloc(n * sizeof *h->waits);
    if (h->before == NULL || h->after == NULL || h->waits == NULL) {
        st = no_memory(err);
        goto fail;
    }
    if (!take_key(h->run->plan, key, &h->key)) {
        st = no_key(h->run->plan, key, err);
        goto fail;
    }
    if (!to_origin(h->run->plan, &h->key)) {
        st = mill_fail(err, MILL_ERR_NOT_FOUND,
                       "there never was such a row: below a union the first number of a key is that of an input");
        goto fail;
    }
    if ((st = look_at_streams(h, err)) == MILL_OK && (st = conclude(h, err)) == MILL_OK) st = check_child(h, err);
    if (st != MILL_OK) goto fail;
    *out = h;
    return MILL_OK;
fail:
    stm_history_close(&h);
    return st;
}

void stm_history_close(stm_history **hp)
{
    stm_history *h = *hp;

    if (h == NULL) return;
    for (int32_t i = 0; i < h->n_kept; i++) {
        for (int32_t k = 0; k < h->kept[i].n_kin; k++) mill_batch_destroy(&h->kept[i].kin[k].batch);
        stm_free(h->kept[i].kin);
    }
    stm_free(h->kept);
    stm_free(h->before);
    stm_free(h->after);
    stm_free(h->waits);
    stm_text_free(&h->changed);
    stm_run_destroy(&h->run);
    stm_free(h);
    *hp = NULL;
}
