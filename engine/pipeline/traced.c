/* What became of one row, as people and programs read it. */
#include "stepmill/watch.h"

#include <string.h>

#include "core/alloc.h"
#include "exec/history.h"
#include "pipeline/pipeline.h"
#include "stepmill/json.h"

enum { MOST_LETTERS = 100, MOST_SHOWN = 20 }; /* of a value, of a list of keys, for people */

typedef struct traced {
    const stm_history *h;
    mill_json_writer *values;
    bool json;
    stm_text *out;
} traced;

/* ---- values ------------------------------------------------------------------------------------------------------ */

static void add_quoted(stm_text *t, const char *text, size_t n)
{
    stm_text_addf(t, "\"");
    stm_text_add_json(t, text, n);
    stm_text_addf(t, "\"");
}

/* A value as JSON; for people cut, between letters. */
static void add_value(const traced *v, const mill_column *col)
{
    stm_text whole = {0};
    const char *data;
    size_t n;

    mill_json_writer_clear(v->values);
    if (col == NULL || mill_column_is_null(col, 0)) {
        stm_text_addf(&whole, "null");
    } else if (mill_json_writer_value(v->values, col, 0) != MILL_OK) {
        v->out->failed = true;
    } else {
        data = mill_json_writer_data(v->values, &n);
        if (mill_column_type(col)->id == MILL_UTF8 || mill_column_type(col)->id == MILL_BINARY)
            add_quoted(&whole, data, n);
        else
            stm_text_add(&whole, data, n);
    }
    v->out->failed = v->out->failed || whole.failed;
    n = whole.bytes;
    if (!v->json && n > MOST_LETTERS)
        for (n = MOST_LETTERS; n > 0 && ((unsigned char)whole.data[n] & 0xC0) == 0x80;) n--;
    if (whole.data != NULL) stm_text_add(v->out, whole.data, n);
    if (n < whole.bytes) stm_text_addf(v->out, "… (%zu bytes)", whole.bytes);
    stm_text_free(&whole);
}

/* One column of a step, as far as it is kept; how many were added before. */
static int add_column(const traced *v, int32_t step, bool after, const char *label, const char *name, const char *column,
                      int before)
{
    const stm_kept_stream *k = NULL;
    int32_t place = 0;
    const stm_kin *kin = stm_history_value(v->h, step, after, column, &k, &place);

    if (kin == NULL) return before;
    if (v->json) {
        stm_text_addf(v->out, "%s\"", before > 0 ? "," : "");
        stm_text_add_json(v->out, name, strlen(name));
        stm_text_addf(v->out, "\":");
    } else {
        stm_text_addf(v->out, "    %-3s %s: ", before == 0 ? label : "", name);
    }
    add_value(v, kin->batch->columns[place]);
    if (!v->json)
        stm_text_addf(v->out, "%s\n",
                      kin->kinship == STM_SELF       ? ""
                      : kin->kinship == STM_ANCESTOR ? "  (of the row that it came of)"
                                                     : "  (of the first that came of it)");
    return before + 1;
}

static void add_values(const traced *v, int32_t step)
{
    const mill_step *s = stm_history_step(v->h, step)->step;
    const bool all = s->type->kind == MILL_GENERATOR;
    int n = 0;

    if (v->json) stm_text_addf(v->out, ",\"in\":{");
    for (int32_t i = 0; i < s->n_inputs; i++)
        for (int32_t c = 0; c < s->inputs[i].n_used && v->h->before[step] != STM_THERE_NO; c++) {
            const stm_used_column *u = &s->inputs[i].used[c];
            n = add_column(v, step, false, "in", u->name, s->inputs[u->input].schema.fields[u->column].name, n);
        }
    if (v->json) stm_text_addf(v->out, "},\"out\":{");
    n = 0;
    for (int32_t c = 0; c < (all ? s->out.n : s->n_outputs) && v->h->after[step] != STM_THERE_NO && s->type->kind != MILL_GLOBAL;
         c++)
        n = add_column(v, step, true, "out", all ? s->out.fields[c].name : s->outputs[c].name,
                       all ? s->out.fields[c].name : s->outputs[c].mapped, n);
    if (v->json) stm_text_addf(v->out, "}");
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static const stm_kept_stream *kept_behind(const stm_history *h, int32_t step)
{
    for (int32_t i = 0; i < h->n_kept; i++)
        if (h->kept[i].step == step && h->kept[i].global < 0 && h->kept[i].n_kin > 0) return &h->kept[i];
    return NULL;
}

/* In one word. */
static const char *fate(const stm_history *h, int32_t i)
{
    const stm_plan_step *s = stm_history_step(h, i);
    const stm_there before = h->before[i], after = h->after[i];
    const int32_t kind = s->step->type->kind;

    if (kind == MILL_GENERATOR) return i != h->key.space ? "another root" : after == STM_THERE_YES ? "made" : "not known";
    if (i == h->key.space) return "made";
    if (before == STM_THERE_NO) return "never came";
    if (kind == MILL_GLOBAL || kind == MILL_SINK) return before == STM_THERE_YES ? "taken" : h->waits[i] ? "not yet" : "not known";
    if (after == STM_THERE_YES)
        return stm_history_error(h, i, 0) != NULL                ? "failed"
               : (s->step->type->flags & MILL_EXPANDS) != 0      ? "expanded"
               : s->mode == STM_INPUT_JOIN                       ? "joined"
               : s->mode == STM_INPUT_CONVERGE                   ? "converged"
               : s->mode == STM_INPUT_UNION                      ? "united"
               : kind == MILL_ROUTER                             ? "routed"
                                                                 : "passed";
    if (stm_history_error(h, i, 0) != NULL) return "failed";
    if (before == STM_THERE_YES && after == STM_THERE_NO) return "dropped";
    if (h->waits[i]) return "not yet";
    if (stm_history_may_drop(h, i))
        return after == STM_THERE_NO     ? "dropped here or before"
               : before == STM_THERE_YES ? "came, and may have been dropped here"
                                         : "not known";
    return before == STM_THERE_YES ? "came" : "not known";
}

static void add_errors(const traced *v, int32_t step)
{
    const stm_error_record *r;

    if (v->json) stm_text_addf(v->out, ",\"errors\":[");
    for (int32_t i = 0; (r = stm_history_error(v->h, step, i)) != NULL; i++) {
        const char *class = mill_class_text(r->error.error_class);

        if (v->json) {
            stm_text_addf(v->out, "%s{\"id\":%lld,\"replica\":%d,\"attempt\":%d,\"class\":\"%s\",\"message\":", i > 0 ? "," : "",
                          (long long)r->id, r->error.replica, r->error.attempt, class);
            add_quoted(v->out, r->error.msg, strlen(r->error.msg));
            stm_text_addf(v->out, ",\"first_key\":\"%s\",\"last_key\":\"%s\"}", r->first_key, r->last_key);
        } else {
            stm_text_addf(v->out, "    failed in replica %d, attempt %d, %s: %s", r->error.replica, r->error.attempt + 1, class,
                          r->error.msg);
            if (strcmp(r->first_key, r->last_key) != 0) stm_text_addf(v->out, " (with %s to %s)", r->first_key, r->last_key);
            stm_text_addf(v->out, "\n");
        }
    }
    if (v->json) stm_text_addf(v->out, "]");
}

static void add_step(const traced *v, int32_t i)
{
    static const char *const kinds[] = {"?", "generator", "step", "global", "sink", "router"};
    const stm_plan_step *s = stm_history_step(v->h, i);
    const stm_kept_stream *k = kept_behind(v->h, i);
    const char *kind = kinds[s->step->type->kind >= MILL_GENERATOR && s->step->type->kind <= MILL_ROUTER ? s->step->type->kind : 0],
               *branch = NULL;
    char key[128] = "";

    if (k != NULL && k->kin[0].key.space != v->h->key.space) stm_history_show(v->h, &k->kin[0].key, key, sizeof key);
    for (int32_t b = 0; b < v->h->n_kept && s->step->type->kind == MILL_ROUTER; b++)
        if (v->h->kept[b].step == i && v->h->kept[b].n_kin > 0) branch = s->step->branches[v->h->kept[b].branch];
    if (v->json) {
        stm_text_addf(v->out, "{\"step\":\"%s\",\"type\":\"%s\",\"kind\":\"%s\",\"fate\":\"%s\",\"batch\":", s->step->name,
                      s->step->type->name, kind, fate(v->h, i));
        if (k != NULL) stm_text_addf(v->out, "%llu,\"row\":%lld", (unsigned long long)k->kin[0].seq, (long long)k->kin[0].row);
        else stm_text_addf(v->out, "null,\"row\":null");
        if (key[0] != '\0') stm_text_addf(v->out, ",\"as\":\"%s\"", key);
        if (branch != NULL) stm_text_addf(v->out, ",\"branch\":\"%s\"", branch);
    } else {
        stm_text_addf(v->out, "%s  %s, %s: %s", s->step->name, kind, s->step->type->name, fate(v->h, i));
        if (branch != NULL) stm_text_addf(v->out, " to %s", branch);
        if (key[0] != '\0') stm_text_addf(v->out, ", as %s", key);
        if (k != NULL)
            stm_text_addf(v->out, "; in batch %llu, row %lld", (unsigned long long)k->kin[0].seq, (long long)k->kin[0].row);
        stm_text_addf(v->out, "\n");
    }
    add_values(v, i);
    add_errors(v, i);
    if (v->json) stm_text_addf(v->out, "}");
}

/* ---- the line ---------------------------------------------------------------------------------------------------- */

static bool is_same(const stm_history_key *a, const stm_history_key *b)
{
    return a->space == b->space && a->n == b->n && memcmp(a->at, b->at, (size_t)a->n * sizeof a->at[0]) == 0;
}

/* Ancestors stand in the key; who descends from the row was found. Each once, over all streams. */
static int64_t add_line(const traced *v, bool ancestors, const char *parted)
{
    const stm_history *h = v->h;
    char text[128];
    int64_t n = 0;

    for (int32_t i = 1; ancestors && i < h->key.n; i++) {
        stm_history_key up = h->key;

        up.n = i;
        if (up.at[i - 1] >= 0 || i == 1)
            stm_text_addf(v->out, v->json ? "%s\"%s\"" : "%s%s", n++ > 0 ? parted : "",
                          stm_history_show(h, &up, text, sizeof text));
    }
    for (int32_t i = 0; !ancestors && i < h->n_kept; i++) {
        for (int32_t k = 0; k < h->kept[i].n_kin; k++) {
            const stm_kin *kin = &h->kept[i].kin[k];
            bool again = kin->kinship != STM_DESCENDANT || kin->key.space != h->key.space;

            for (int32_t j = 0; j < i && !again; j++)
                for (int32_t m = 0; m < h->kept[j].n_kin && !again; m++) again = is_same(&h->kept[j].kin[m].key, &kin->key);
            if (again) continue;
            if (v->json || n < MOST_SHOWN)
                stm_text_addf(v->out, v->json ? "%s\"%s\"" : "%s%s", n > 0 ? parted : "",
                              stm_history_show(h, &kin->key, text, sizeof text));
            n++;
        }
    }
    return n;
}

static int64_t uncounted(const stm_history *h)
{
    int64_t most = 0;

    for (int32_t i = 0; i < h->n_kept; i++)
        if (h->kept[i].more > most) most = h->kept[i].more;
    return most;
}

static void show(traced *v)
{
    const stm_history *h = v->h;
    char key[128];
    int64_t n;

    stm_history_show(h, &h->key, key, sizeof key);
    if (v->json) {
        stm_text_addf(v->out, "{\"key\":\"%s\",\"changed\":\"", key);
        if (h->changed.data != NULL) stm_text_add_json(v->out, h->changed.data, h->changed.bytes);
        stm_text_addf(v->out, "\",\"ancestors\":[");
        (void)add_line(v, true, ",");
        stm_text_addf(v->out, "],\"descendants\":[");
        (void)add_line(v, false, ",");
        stm_text_addf(v->out, "],\"more_descendants\":%lld,\"steps\":[", (long long)uncounted(h));
    } else {
        stm_text_addf(v->out, "%s\n", key);
        if (h->key.n > 1) {
            stm_text_addf(v->out, "    comes of ");
            (void)add_line(v, true, ", ");
            stm_text_addf(v->out, "\n");
        }
        if (h->changed.bytes > 0) stm_text_addf(v->out, "    since the run: %s\n", h->changed.data);
    }
    for (int32_t i = 0; i < stm_history_steps(h); i++) {
        if (v->json && i > 0) stm_text_addf(v->out, ",\n");
        add_step(v, i);
    }
    if (v->json) {
        stm_text_addf(v->out, "]}\n");
        return;
    }
    const size_t before = v->out->bytes;
    stm_text_addf(v->out, "came of it: ");
    n = add_line(v, false, ", ");
    if (n == 0) {
        v->out->bytes = before;
        if (v->out->data != NULL) v->out->data[before] = '\0';
        return;
    }
    n += uncounted(h);
    if (n > MOST_SHOWN) stm_text_addf(v->out, ", ... (%lld rows)", (long long)n);
    stm_text_addf(v->out, "\n");
}

/* ---- entry ------------------------------------------------------------------------------------------------------- */

mill_status mill_row_trace(const char *dir, const char *key, mill_format format, char **out, mill_error *err)
{
    const char *const none[] = {""};
    mill_run_options o = MILL_RUN_OPTIONS_INIT;
    mill_pipeline *p = NULL;
    stm_arena arena = {0};
    stm_plan *plan = NULL;
    stm_history *h = NULL;
    stm_text text = {0};
    traced v = {.json = format == MILL_FORMAT_JSON, .out = &text};
    char *absolute = stm_path_absolute(NULL, dir);
    mill_error unseen = {0};
    mill_status st;

    if (err == NULL) err = &unseen;
    st = absolute != NULL ? mill_run_reopen(absolute, &p, &o, err) : mill_fail(err, MILL_ERR_NOMEM, "looking a row up");
    if (st == MILL_OK) p->runs = STM_RUNS_NONE; /* it may be looked at anywhere */
    if (st == MILL_OK) st = stm_pipeline_plan(p, absolute, &arena, NULL, &plan, err);
    if (st == MILL_OK) {
        const stm_run_opts ro = {
            .struct_size = sizeof ro, .run_dir = absolute, .limit = o.limit, .shard = o.shard, .shards = o.shards};
        st = stm_history_open(&plan, &ro, key, &h, err);
    }
    if (st == MILL_OK && mill_json_writer_create(none, 0, 0, &v.values) != MILL_OK)
        st = mill_fail(err, MILL_ERR_NOMEM, "looking a row up");
    if (st == MILL_OK) {
        v.h = h;
        show(&v);
        st = stm_text_hand_out(&text, out, err);
    }
    mill_json_writer_destroy(&v.values);
    stm_text_free(&text);
    stm_history_close(&h);
    stm_plan_destroy(&plan);
    stm_arena_fini(&arena);
    mill_pipeline_destroy(&p);
    stm_free(absolute);
    return st;
}
