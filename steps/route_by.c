/*
 * route_by: sends each batch to one branch, by the value of a column, by the first condition that holds, or at random.
 * round_robin: one branch after the other.
 *
 * A batch goes to one branch as a whole. Where its rows choose different ones, `mixed` says what happens; with
 * input_batch_size: 1 each row goes its own way.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "steps/builtin.h"
#include "steps/expr/expr.h"
#include "steps/expr/lookup.h"

enum { BY_COLUMN, BY_WHEN, BY_RANDOM };

typedef struct settings {
    int by;
    size_t n;            /* branches */
    const char **names;  /* [n], text of the io */
    stm_expr **when;     /* [n]; NULL = the branch for what no condition takes */
    size_t otherwise;    /* that branch; n = none */
    bool most;           /* mixed: most */
} settings;

typedef struct state {
    stm_expr_run **runs; /* [n] */
    int64_t *votes;      /* [n] */
    int32_t *choice;     /* [cap] branch of each row */
    int64_t cap;
    uint64_t turn;       /* round_robin */
} state;

static void settings_free(void *p)
{
    settings *s = p;

    for (size_t i = 0; s->when != NULL && i < s->n; i++) stm_expr_destroy(&s->when[i]);
    free(s->when);
    free(s->names);
    free(s);
}

static size_t find_branch(const settings *s, const char *name, size_t bytes)
{
    size_t i = 0;
    while (i < s->n && (strlen(s->names[i]) != bytes || memcmp(s->names[i], name, bytes) != 0)) i++;
    return i;
}

static mill_status compile_conditions(settings *s, const mill_config *c, mill_io *io, mill_error *err)
{
    size_t without = 0;

    s->when = calloc(s->n + 1, sizeof *s->when);
    if (s->when == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a router");
    for (size_t i = 0; i < mill_config_count(c, "when"); i++) {
        const char *name = mill_config_key(c, "when", i);
        const size_t branch = find_branch(s, name, strlen(name));
        mill_error cause = {0};
        char entry[32];
        snprintf(entry, sizeof entry, "when[%zu]", i);
        if (branch == s->n) return mill_config_fail(c, entry, err, MILL_ERR_NOT_FOUND, "there is no branch %s in `to`", name);
        const mill_status st = stm_expr_compile(mill_config_item(c, "when", i), stm_expr_lookup_io, io, &s->when[branch], &cause);
        if (st == MILL_OK) continue;
        (void)mill_config_fail(c, entry, err, st, "%s", cause.msg);
        if (cause.remedy[0] != 0) mill_error_remedy(err, "%s", cause.remedy);
        return st;
    }
    for (size_t i = 0; i < s->n; i++)
        if (s->when[i] == NULL) {
            s->otherwise = i;
            without++;
        }
    if (without > 1)
        return mill_config_fail(c, "when", err, MILL_ERR_INVALID, "%zu branches have no condition; at most one may be for the rest",
                                without);
    return MILL_OK;
}

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    settings *s = calloc(1, sizeof *s);
    const bool column = mill_config_has(c, "column"), when = mill_config_count(c, "when") > 0,
               random = mill_config_bool(c, "random");

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a router");
    mill_step_set_state(step, s, settings_free);
    s->n = s->otherwise = mill_io_branches(io);
    s->names = calloc(s->n + 1, sizeof *s->names);
    if (s->names == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a router");
    for (size_t i = 0; i < s->n; i++) s->names[i] = mill_io_branch_name(io, i);
    if (column + when + random != 1)
        return mill_config_fail(c,
                                column ? "column"
                                : when ? "when"
                                       : "random",
                                err, MILL_ERR_INVALID, "exactly one of column, when, random is to be given");
    s->by = column ? BY_COLUMN : when ? BY_WHEN : BY_RANDOM;
    s->most = strcmp(mill_config_text(c, "mixed"), "most") == 0;
    if (column) return mill_io_use(io, 0, mill_config_text(c, "column"), "text", NULL, err);
    return when ? compile_conditions(s, c, io, err) : MILL_OK;
}

static mill_status configure_turns(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    settings *s = calloc(1, sizeof *s);

    (void)c;
    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a router");
    mill_step_set_state(step, s, settings_free);
    s->n = mill_io_branches(io);
    return MILL_OK;
}

static mill_status load(mill_replica *r, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    state *me = calloc(1, sizeof *me);

    if (me == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a router");
    mill_replica_set_state(r, me);
    me->runs = calloc(s->n + 1, sizeof *me->runs);
    me->votes = calloc(s->n + 1, sizeof *me->votes);
    if (me->runs == NULL || me->votes == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a router");
    for (size_t i = 0; s->when != NULL && i < s->n; i++)
        if (s->when[i] != NULL && stm_expr_run_create(s->when[i], &me->runs[i]) != MILL_OK)
            return mill_fail(err, MILL_ERR_NOMEM, "no memory for a router");
    return MILL_OK;
}

static void unload(mill_replica *r)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    state *me = mill_replica_state(r);

    if (me == NULL) return;
    for (size_t i = 0; me->runs != NULL && i < s->n; i++) stm_expr_run_destroy(&me->runs[i]);
    free(me->runs);
    free(me->votes);
    free(me->choice);
    free(me);
    mill_replica_set_state(r, NULL);
}

static mill_status choose_by_column(const settings *s, state *me, const mill_batch *in, int64_t rows, mill_error *err)
{
    const mill_column *col = mill_batch_column(in, 0);

    for (int64_t r = 0; r < rows; r++) {
        int64_t n = 0;
        const char *text = col != NULL ? mill_column_text(col, r, &n) : NULL;
        if (text == NULL) return mill_fail(err, MILL_ERR_DATA, "row %lld: the column that names the branch is null", (long long)r);
        const size_t branch = find_branch(s, text, (size_t)n);
        if (branch == s->n)
            return mill_fail(err, MILL_ERR_DATA, "row %lld: there is no branch \"%.*s\" in `to`", (long long)r,
                             (int)(n < 60 ? n : 60), text);
        me->choice[r] = (int32_t)branch;
    }
    return MILL_OK;
}

static mill_status choose_by_condition(const settings *s, state *me, const mill_batch *in, int64_t rows, mill_error *err)
{
    for (int64_t r = 0; r < rows; r++) me->choice[r] = -1;
    for (size_t i = 0; i < s->n; i++) {
        const uint8_t *holds;
        if (s->when[i] == NULL) continue;
        const mill_status st = stm_expr_eval(me->runs[i], in, &holds, err);
        if (st != MILL_OK) return st;
        for (int64_t r = 0; r < rows; r++)
            if (me->choice[r] < 0 && holds[r] == 1) me->choice[r] = (int32_t)i;
    }
    for (int64_t r = 0; r < rows; r++) {
        if (me->choice[r] >= 0) continue;
        if (s->otherwise == s->n) return mill_fail(err, MILL_ERR_DATA, "row %lld: no condition holds", (long long)r);
        me->choice[r] = (int32_t)s->otherwise;
    }
    return MILL_OK;
}

static mill_status route(mill_replica *r, const mill_batch *in, mill_route *out, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    state *me = mill_replica_state(r);
    const int64_t rows = mill_batch_rows(in);
    size_t best = 0;
    mill_status st;

    if (s->by == BY_RANDOM) return mill_route_to(out, mill_replica_seed(r, in, 0) % s->n, err);
    if (rows > me->cap) {
        int32_t *bigger = realloc(me->choice, (size_t)rows * sizeof *bigger);
        if (bigger == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a router");
        me->choice = bigger;
        me->cap = rows;
    }
    st = s->by == BY_COLUMN ? choose_by_column(s, me, in, rows, err) : choose_by_condition(s, me, in, rows, err);
    if (st != MILL_OK) return st;
    memset(me->votes, 0, s->n * sizeof *me->votes);
    for (int64_t i = 0; i < rows; i++) me->votes[me->choice[i]]++;
    for (size_t i = 1; i < s->n; i++)
        if (me->votes[i] > me->votes[best]) best = i;
    if (me->votes[best] < rows && !s->most) {
        int64_t other = 0;
        while (me->choice[other] == me->choice[0]) other++;
        st = mill_fail(err, MILL_ERR_DATA, "rows of one batch go different ways: row 0 to %s, row %lld to %s",
                       s->names[me->choice[0]], (long long)other, s->names[me->choice[other]]);
        mill_error_remedy(err, "Set input_batch_size: 1, or mixed: most");
        return st;
    }
    return mill_route_to(out, best, err);
}

static mill_status route_turns(mill_replica *r, const mill_batch *in, mill_route *out, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    state *me = mill_replica_state(r);

    (void)in;
    return mill_route_to(out, me->turn++ % s->n, err);
}

static const mill_param params[] = {
    {.name = "column", .type = MILL_PARAM_STRING, .flags = MILL_PARAM_OPTIONAL, .text = "text column that names the branch"},
    {.name = "when",
     .type = MILL_PARAM_MAP,
     .flags = MILL_PARAM_OPTIONAL,
     .text = "branch: condition, as of `filter`; the first branch of `to` whose condition holds; one without is for the rest"},
    {.name = "random",
     .type = MILL_PARAM_BOOL,
     .default_value = "false",
     .text = "any branch, by the seed of the run and the batch's first row"},
    {.name = "mixed",
     .type = MILL_PARAM_ENUM,
     .default_value = "error",
     .choices = "error|most",
     .text = "rows of one batch choose different branches: an error of the batch, or the branch that most choose"},
};

const mill_step_type stm_step_route_by = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_ROUTER,
    .flags = MILL_ROUTES,
    .name = "route_by",
    .summary = "sends batches to branches by a column, by conditions, or at random",
    .version = "1",
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .configure = configure,
    .load = load,
    .unload = unload,
    .route = route,
};

const mill_step_type stm_step_round_robin = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_ROUTER,
    .flags = MILL_ROUTES | MILL_STATEFUL,
    .name = "round_robin",
    .summary = "sends batches to one branch after the other",
    .version = "1",
    .configure = configure_turns,
    .load = load,
    .unload = unload,
    .route = route_turns,
};
