/* select: keeps, drops, renames and casts columns. Kept columns pass through untouched; renamed ones are shared, not copied. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "steps/builtin.h"
#include "steps/cast.h"

typedef struct change { /* an output column made of an input column */
    const mill_type *type;  /* of the output */
    int32_t in;
    bool cast;
} change;

typedef struct settings {
    change *changes; /* [n], in the order of the outputs */
    int32_t n;
} settings;

static void settings_free(void *p)
{
    settings *s = p;

    free(s->changes);
    free(s);
}

static bool listed(const mill_config *c, const char *param, const char *name)
{
    for (size_t i = 0; i < mill_config_count(c, param); i++)
        if (strcmp(mill_config_item(c, param, i), name) == 0) return true;
    return false;
}

static int32_t find_key(const mill_config *c, const char *param, const char *name)
{
    for (size_t i = 0; i < mill_config_count(c, param); i++)
        if (strcmp(mill_config_key(c, param, i), name) == 0) return (int32_t)i;
    return -1;
}

static bool arrives(const mill_io *io, const char *name)
{
    for (size_t i = 0; i < mill_io_column_count(io, 0); i++)
        if (strcmp(mill_io_column_name(io, 0, i), name) == 0) return true;
    return false;
}

/* Every name in the parameters must arrive; mill_io_use says so with the nearest name. */
static mill_status check_names(const mill_config *c, mill_io *io, mill_error *err)
{
    static const char *const params[] = {"keep", "drop", "rename", "cast"};

    for (size_t p = 0; p < 4; p++)
        for (size_t i = 0; i < mill_config_count(c, params[p]); i++) {
            const char *name = p < 2 ? mill_config_item(c, params[p], i) : mill_config_key(c, params[p], i);
            if (!arrives(io, name)) return mill_io_use(io, 0, name, "any", NULL, err);
        }
    return MILL_OK;
}

static mill_status change_column(settings *s, const mill_config *c, mill_io *io, const char *name, const mill_type *type,
                                 mill_error *err)
{
    const int32_t renamed = find_key(c, "rename", name), cast = find_key(c, "cast", name);
    const char *to = renamed >= 0 ? mill_config_item(c, "rename", (size_t)renamed) : name;
    change *ch = &s->changes[s->n];
    char entry[48];
    mill_status st;

    if (renamed < 0 && cast < 0) return MILL_OK;
    *ch = (change){.type = type};
    if (cast >= 0) {
        ch->type = mill_config_type(c, "cast", (size_t)cast);
        ch->cast = ch->type != type;
        if (!stm_can_cast(type, ch->type)) {
            char from[96];
            mill_type_format(type, from, sizeof from);
            snprintf(entry, sizeof entry, "cast[%d]", cast);
            return mill_config_fail(c, entry, err, MILL_ERR_UNSUPPORTED, "column %s of type %s cannot be cast to that", name, from);
        }
    }
    if (renamed >= 0 && strcmp(to, name) != 0) {
        /* Two columns of one name: the one that was there must go. */
        if (arrives(io, to) && !listed(c, "drop", to) && find_key(c, "rename", to) < 0 &&
            (mill_config_count(c, "keep") == 0 || listed(c, "keep", to))) {
            snprintf(entry, sizeof entry, "rename[%d]", renamed);
            return mill_config_fail(c, entry, err, MILL_ERR_INVALID, "there is a column %s already; drop or rename it", to);
        }
    }
    if ((st = mill_io_use(io, 0, name, "any", &ch->in, err)) != MILL_OK) return st;
    if ((st = mill_io_add(io, to, ch->type, NULL, err)) != MILL_OK) return st;
    s->n++;
    return MILL_OK;
}

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    const size_t n = mill_io_column_count(io, 0);
    const bool keeps = mill_config_count(c, "keep") > 0;
    settings *s = calloc(1, sizeof *s);
    mill_status st;

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    mill_step_set_state(step, s, settings_free);
    s->changes = calloc(n + 1, sizeof *s->changes);
    if (s->changes == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    if ((st = check_names(c, io, err)) != MILL_OK) return st;
    for (size_t i = 0; i < n; i++) {
        const char *name = mill_io_column_name(io, 0, i);
        const bool changed = find_key(c, "rename", name) >= 0, dropped = listed(c, "drop", name);
        const bool kept = !dropped && (!keeps || listed(c, "keep", name) || changed);
        if (kept && (st = change_column(s, c, io, name, mill_io_column_type(io, 0, i), err)) != MILL_OK) return st;
        if ((!kept || changed) && (st = mill_io_drop(io, name, err)) != MILL_OK) return st;
    }
    return MILL_OK;
}

static mill_status process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    mill_batch *batch = NULL;
    mill_status st;

    (void)n_in;
    if (s->n == 0) return mill_emit_pass(out, err);
    st = mill_batch_create(mill_replica_pool(r), mill_batch_rows(in[0]), s->n, &batch);
    if (st != MILL_OK) return mill_fail(err, st, "no memory for a batch");
    for (int32_t i = 0; i < s->n && st == MILL_OK; i++) {
        mill_column *from = mill_batch_column(in[0], s->changes[i].in), *col = NULL;
        if (from == NULL) continue; /* null in every row */
        if (s->changes[i].cast) st = stm_cast(mill_replica_pool(r), from, s->changes[i].type, &col, err);
        else col = mill_column_ref(from);
        if (st == MILL_OK) st = mill_batch_set_column(batch, i, &col);
        mill_column_unref(&col);
    }
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, NULL, err);
    mill_batch_destroy(&batch);
    return st;
}

static const mill_param params[] = {
    {.name = "keep",
     .type = MILL_PARAM_STRINGS,
     .flags = MILL_PARAM_OPTIONAL,
     .text = "columns that go on; without it, all but the dropped ones"},
    {.name = "drop", .type = MILL_PARAM_STRINGS, .flags = MILL_PARAM_OPTIONAL, .text = "columns that do not go on"},
    {.name = "rename", .type = MILL_PARAM_MAP, .flags = MILL_PARAM_OPTIONAL, .text = "name: new name"},
    {.name = "cast",
     .type = MILL_PARAM_COLUMNS,
     .flags = MILL_PARAM_OPTIONAL,
     .text = "name: new type, by the name before renaming; a value that does not fit is an error of its row"},
};

const mill_step_type stm_step_select = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_PER_ROW,
    .name = "select",
    .summary = "keeps, drops, renames and casts columns",
    .version = "1",
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .configure = configure,
    .process = process,
};
