#include "plugin/io.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"

/* ---- messages ---------------------------------------------------------------------------------------------------------- */

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "out of memory for columns"); }

static void place_at(mill_error *err, stm_place place) { mill_error_place(err, place.file, place.line, place.column); }

static const char *input_name(const mill_io *io, int32_t i, char *buf, size_t size)
{
    if (io->spec->arriving_names != NULL)
        snprintf(buf, size, "\"%s\"", io->spec->arriving_names[i]);
    else
        snprintf(buf, size, "input %d", (int)i);
    return buf;
}

/* Nearest of @p names, else the first few of them. */
static void suggest(const char *name, const char **names, size_t n, mill_error *err)
{
    const char *nearest = stm_nearest(name, names, n);
    char list[sizeof err->remedy - 32];
    size_t used = 0;

    if (nearest != NULL) {
        mill_error_remedy(err, "Did you mean \"%s\"?", nearest);
        return;
    }
    list[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        const size_t length = strlen(names[i]);

        if (used + length + 8 > sizeof list) {
            snprintf(list + used, sizeof list - used, ", ...");
            break;
        }
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", used > 0 ? ", " : "", names[i]);
    }
    mill_error_remedy(err, n > 0 ? "There are: %s" : "There are none%s", list);
}

/* ---- what arrives ------------------------------------------------------------------------------------------------------- */

static mill_status type_clash(const mill_io *io, const char *column, int32_t a, const mill_type *ta, int32_t b, const mill_type *tb,
                              mill_error *err)
{
    char na[80], nb[80], fa[128], fb[128];
    mill_status st;

    mill_type_format(ta, fa, sizeof fa);
    mill_type_format(tb, fb, sizeof fb);
    st = mill_fail(err, MILL_ERR_TYPE, "column \"%s\" is %s from %s but %s from %s", column, fa, input_name(io, a, na, sizeof na),
                   fb, input_name(io, b, nb, sizeof nb));
    place_at(err, io->spec->arriving_places != NULL ? io->spec->arriving_places[b] : io->spec->place);
    if (err != NULL) snprintf(err->field, sizeof err->field, "from");
    return st;
}

static mill_status unite(mill_io *io, mill_error *err)
{
    mill_step *s = io->step;
    const stm_step_spec *spec = io->spec;
    stm_schema *all;

    s->inputs = stm_calloc(sizeof *s->inputs);
    s->united = stm_calloc((size_t)spec->n_arriving * sizeof *s->united);
    if (s->inputs == NULL || s->united == NULL) return no_memory(err);
    s->n_inputs = 1;
    s->n_united = spec->n_arriving;
    all = &s->inputs[0].schema;
    for (int32_t i = 0; i < spec->n_arriving; i++) {
        for (int32_t c = 0; c < spec->arriving[i].n; c++) {
            const mill_field *f = &spec->arriving[i].fields[c];
            const int32_t have = stm_schema_find(all, f->name);

            if (have < 0 && stm_schema_add(all, f->name, f->type) != MILL_OK) return no_memory(err);
            if (have >= 0 && all->fields[have].type != f->type) {
                int32_t first = 0;

                while (stm_schema_find(&spec->arriving[first], f->name) < 0) first++;
                return type_clash(io, f->name, first, all->fields[have].type, i, f->type, err);
            }
        }
    }
    for (int32_t i = 0; i < spec->n_arriving; i++) {
        s->united[i].from = stm_malloc((size_t)all->n * sizeof *s->united[i].from);
        if (s->united[i].from == NULL) return no_memory(err);
        for (int32_t c = 0; c < all->n; c++) s->united[i].from[c] = stm_schema_find(&spec->arriving[i], all->fields[c].name);
    }
    return MILL_OK;
}

static mill_status copy_inputs(mill_io *io, mill_error *err)
{
    mill_step *s = io->step;
    const stm_step_spec *spec = io->spec;

    if (spec->unite) return unite(io, err);
    s->inputs = stm_calloc((size_t)spec->n_arriving * sizeof *s->inputs);
    if (s->inputs == NULL) return no_memory(err);
    s->n_inputs = spec->n_arriving;
    for (int32_t i = 0; i < s->n_inputs; i++) {
        if (stm_schema_copy(&spec->arriving[i], &s->inputs[i].schema) != MILL_OK) return no_memory(err);
    }
    return MILL_OK;
}

static stm_seen_column *find_seen(const mill_io *io, const char *name)
{
    for (int32_t i = 0; i < io->n_seen; i++) {
        if (strcmp(io->seen[i].name, name) == 0) return &io->seen[i];
    }
    return NULL;
}

/* The joined row: the first input that has a name wins. */
static mill_status see(mill_io *io, mill_error *err)
{
    const mill_step *s = io->step;
    const int32_t inputs = io->side_by_side ? s->n_inputs : s->n_inputs > 0;
    size_t n = 0;

    for (int32_t i = 0; i < inputs; i++) n += (size_t)s->inputs[i].schema.n;
    io->seen = stm_malloc(n * sizeof *io->seen);
    if (io->seen == NULL) return no_memory(err);
    for (int32_t i = 0; i < inputs; i++) {
        for (int32_t c = 0; c < s->inputs[i].schema.n; c++) {
            const mill_field *f = &s->inputs[i].schema.fields[c];
            const stm_seen_column *first = i > 0 ? find_seen(io, f->name) : NULL;

            if (first == NULL)
                io->seen[io->n_seen++] = (stm_seen_column){.name = f->name, .type = f->type, .input = i, .column = c};
            else if (s->converge && first->type != f->type)
                return type_clash(io, f->name, first->input, first->type, i, f->type, err);
        }
    }
    return MILL_OK;
}

/* Convergence: where a column is in every branch. NULL where there is no convergence; false when out of memory. */
static bool in_branches(const mill_step *s, const char *name, int32_t **out)
{
    *out = NULL;
    if (!s->converge) return true;
    *out = stm_malloc((size_t)s->n_inputs * sizeof **out);
    if (*out == NULL) return false;
    for (int32_t i = 0; i < s->n_inputs; i++) (*out)[i] = stm_schema_find(&s->inputs[i].schema, name);
    return true;
}

size_t mill_io_inputs(const mill_io *io) { return (size_t)io->step->n_inputs; }

static bool shows_joined(const mill_io *io, size_t input) { return input == 0 && io->side_by_side; }

size_t mill_io_column_count(const mill_io *io, size_t input)
{
    if (input >= (size_t)io->step->n_inputs) return 0;
    return (size_t)(shows_joined(io, input) ? io->n_seen : io->step->inputs[input].schema.n);
}

const char *mill_io_column_name(const mill_io *io, size_t input, size_t column)
{
    if (column >= mill_io_column_count(io, input)) return NULL;
    return shows_joined(io, input) ? io->seen[column].name : io->step->inputs[input].schema.fields[column].name;
}

const mill_type *mill_io_column_type(const mill_io *io, size_t input, size_t column)
{
    if (column >= mill_io_column_count(io, input)) return NULL;
    return shows_joined(io, input) ? io->seen[column].type : io->step->inputs[input].schema.fields[column].type;
}

/* ---- what the step reads ------------------------------------------------------------------------------------------------ */

mill_status stm_type_matches(const mill_type *type, const char *wanted, mill_error *err)
{
    const mill_type *want;
    mill_status st;

    if (strcmp(wanted, "any") == 0) return MILL_OK;
    if (strcmp(wanted, "text") == 0) return type->id == MILL_UTF8 || type->id == MILL_JSON ? MILL_OK : MILL_ERR_TYPE;
    if ((st = mill_type_parse(wanted, &want, err)) != MILL_OK) return st == MILL_ERR_NOMEM ? st : MILL_ERR_PARSE;
    return type == want ? MILL_OK : MILL_ERR_TYPE;
}

static const stm_mapping *mapping_of(const stm_mapping *maps, size_t n, const char *own, bool *taken)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(maps[i].own, own) == 0) return taken[i] = true, &maps[i];
    }
    return NULL;
}

/* Where the pipeline file is at fault when a column is not right: the mapping, else the parameter that names it, else the step. */
static void blame(const mill_io *io, const char *column, const stm_mapping *map, mill_error *err)
{
    stm_place place = io->spec->place;
    const char *param = NULL;

    if (err == NULL) return;
    if (map != NULL)
        place = map->place;
    else
        stm_config_locate(io->step->config, column, &place, &param);
    place_at(err, place);
    if (err->field[0] == '\0') snprintf(err->field, sizeof err->field, "%s", param != NULL ? param : column);
}

static mill_status missing(const mill_io *io, size_t input, const char *own, const char *column, const stm_mapping *map,
                           mill_error *err)
{
    const size_t n = mill_io_column_count(io, input);
    const char **names = stm_malloc(n * sizeof *names);
    char from[80] = "";

    if (names == NULL) return no_memory(err);
    for (size_t i = 0; i < n; i++) names[i] = mill_io_column_name(io, input, i);
    if (io->step->n_inputs > 1 && !shows_joined(io, input)) {
        memcpy(from, " from ", 7);
        input_name(io, (int32_t)input, from + 6, sizeof from - 6);
    }
    if (map != NULL)
        mill_fail(err, MILL_ERR_NOT_FOUND, "no column \"%s\" arrives%s to be read as \"%s\"", column, from, own);
    else
        mill_fail(err, MILL_ERR_NOT_FOUND, "step type \"%s\" reads column \"%s\", which does not arrive%s", io->step->type->name,
                  column, from);
    suggest(column, names, n, err);
    blame(io, column, map, err);
    stm_free(names);
    return MILL_ERR_NOT_FOUND;
}

static mill_status check_type(const mill_io *io, const char *column, const mill_type *type, const char *wanted,
                              const stm_mapping *map, mill_error *err)
{
    char shown[160];
    mill_error inner = {0};
    mill_status st = stm_type_matches(type, wanted, &inner);

    if (st == MILL_OK) return MILL_OK;
    if (st == MILL_ERR_NOMEM) return no_memory(err);
    if (st == MILL_ERR_PARSE)
        return mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" asks for column \"%s\" with the type \"%s\": %s",
                         io->step->type->name, column, wanted, inner.msg);
    mill_type_format(type, shown, sizeof shown);
    mill_fail(err, MILL_ERR_TYPE, "column \"%s\" is %s, step type \"%s\" reads %s", column, shown, io->step->type->name,
              strcmp(wanted, "text") == 0 ? "utf8 or json" : wanted);
    blame(io, column, map, err);
    return MILL_ERR_TYPE;
}

static mill_status add_used(mill_io *io, stm_step_input *in, const char *own, int32_t input, int32_t column, const mill_type *type,
                            mill_error *err)
{
    stm_used_column *grown = stm_realloc(in->used, ((size_t)in->n_used + 1) * sizeof *grown), *u;

    if (grown == NULL) return no_memory(err);
    in->used = grown;
    u = &grown[in->n_used];
    memset(u, 0, sizeof *u);
    u->input = input;
    u->column = column;
    u->type = type;
    if ((u->name = stm_strdup(own)) == NULL) return no_memory(err);
    in->n_used++;
    if (!in_branches(io->step, io->step->inputs[input].schema.fields[column].name, &u->in_branch)) return no_memory(err);
    return MILL_OK;
}

mill_status mill_io_use(mill_io *io, size_t input, const char *name, const char *type, int32_t *index, mill_error *err)
{
    const stm_mapping *map = mapping_of(io->spec->map_in, io->spec->n_map_in, name, io->in_taken);
    const char *column = map != NULL ? map->column : name;
    stm_step_input *in;
    const mill_type *found;
    int32_t from = (int32_t)input, at;
    mill_status st;

    if (input >= (size_t)io->step->n_inputs)
        return mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" reads column \"%s\" of input %zu, but has %d inputs",
                         io->step->type->name, name, input, (int)io->step->n_inputs);
    in = &io->step->inputs[input];
    if (shows_joined(io, input)) {
        const stm_seen_column *seen = find_seen(io, column);

        if (seen == NULL) return missing(io, input, name, column, map, err);
        from = seen->input;
        at = seen->column;
        found = seen->type;
    } else {
        at = stm_schema_find(&in->schema, column);
        if (at < 0) return missing(io, input, name, column, map, err);
        found = in->schema.fields[at].type;
    }
    if ((st = check_type(io, column, found, type, map, err)) != MILL_OK) return st;
    for (int32_t i = 0; i < in->n_used; i++) {
        if (strcmp(in->used[i].name, name) != 0) continue;
        if (index != NULL) *index = i;
        return MILL_OK;
    }
    if ((st = add_used(io, in, name, from, at, found, err)) != MILL_OK) return st;
    if (index != NULL) *index = in->n_used - 1;
    return MILL_OK;
}

const mill_type *mill_io_used_type(const mill_io *io, size_t input, int32_t index)
{
    if (input >= (size_t)io->step->n_inputs || index < 0 || index >= io->step->inputs[input].n_used) return NULL;
    return io->step->inputs[input].used[index].type;
}

/* ---- what the step writes ------------------------------------------------------------------------------------------------ */

static mill_status add_output(mill_io *io, const char *name, const mill_type *type, mill_error *err)
{
    mill_step *s = io->step;
    const stm_mapping *map = mapping_of(io->spec->map_out, io->spec->n_map_out, name, io->out_taken);
    stm_step_output *grown = stm_realloc(s->outputs, ((size_t)s->n_outputs + 1) * sizeof *grown), *o;

    if (grown == NULL) return no_memory(err);
    s->outputs = grown;
    o = &grown[s->n_outputs++];
    memset(o, 0, sizeof *o);
    o->type = type;
    o->column = -1;
    o->name = stm_strdup(name);
    o->mapped = stm_strdup(map != NULL ? map->column : name);
    return o->name != NULL && o->mapped != NULL ? MILL_OK : no_memory(err);
}

static mill_status cannot_add(const mill_io *io, const char *name, const char *how, mill_error *err)
{
    mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" adds column \"%s\" %s", io->step->type->name, name, how);
    blame(io, name, NULL, err);
    return MILL_ERR_INVALID;
}

mill_status mill_io_add(mill_io *io, const char *name, const mill_type *type, int32_t *index, mill_error *err)
{
    mill_step *s = io->step;
    const int32_t kind = s->type->kind;
    mill_status st;

    if (kind == MILL_SINK || kind == MILL_ROUTER)
        return mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" is a %s and cannot add column \"%s\"", s->type->name,
                         kind == MILL_SINK ? "sink" : "router", name);
    if (name[0] == '\0' || type == NULL) return cannot_add(io, name, type == NULL ? "without a type" : "without a name", err);
    for (int32_t i = 0; i < s->n_outputs; i++) {
        stm_step_output *o = &s->outputs[i];

        if (strcmp(o->name, name) != 0) continue;
        if (o->type == NULL) o->type = type; /* declared as "any" */
        if (o->type != type) {
            char a[128], b[128];

            mill_type_format(o->type, a, sizeof a);
            mill_type_format(type, b, sizeof b);
            return mill_fail(err, MILL_ERR_TYPE, "step type \"%s\" adds column \"%s\" as %s and again as %s", s->type->name, name,
                             a, b);
        }
        if ((size_t)i >= s->type->n_outputs)
            return cannot_add(io, name, "twice", err);
        if (index != NULL) *index = i;
        return MILL_OK;
    }
    if ((st = add_output(io, name, type, err)) != MILL_OK) return st;
    if (index != NULL) *index = s->n_outputs - 1;
    return MILL_OK;
}

void mill_io_pass(mill_io *io, bool pass)
{
    const int32_t kind = io->step->type->kind;

    if (kind == MILL_STEP) io->pass = pass; /* generators, globals and sinks pass nothing, routers everything */
}

mill_status mill_io_drop(mill_io *io, const char *name, mill_error *err)
{
    const stm_mapping *map = NULL;
    stm_seen_column *seen;

    for (size_t i = 0; i < io->spec->n_map_in; i++) {
        if (strcmp(io->spec->map_in[i].own, name) == 0) map = &io->spec->map_in[i];
    }
    if (io->step->type->kind == MILL_ROUTER)
        return mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" is a router and cannot drop column \"%s\"", io->step->type->name,
                         name);
    seen = find_seen(io, map != NULL ? map->column : name);
    if (seen == NULL && io->step->n_inputs > 0) return missing(io, 0, name, map != NULL ? map->column : name, map, err);
    if (seen != NULL) seen->dropped = true;
    return MILL_OK;
}

size_t mill_io_branches(const mill_io *io) { return (size_t)io->step->n_branches; }

const char *mill_io_branch_name(const mill_io *io, size_t i)
{
    return i < (size_t)io->step->n_branches ? io->step->branches[i] : NULL;
}

/* ---- opening and closing -------------------------------------------------------------------------------------------------- */

static mill_status declare(mill_io *io, mill_error *err)
{
    const mill_step_type *type = io->step->type;
    const size_t inputs = io->side_by_side ? io->step->n_inputs > 0 : (size_t)io->step->n_inputs;
    mill_status st;

    for (size_t i = 0; i < inputs; i++) {
        for (size_t k = 0; k < type->n_inputs; k++) {
            if ((st = mill_io_use(io, i, type->inputs[k].name, type->inputs[k].type, NULL, err)) != MILL_OK) return st;
        }
    }
    for (size_t k = 0; k < type->n_outputs; k++) {
        const mill_type *t = NULL;

        if (strcmp(type->outputs[k].type, "any") != 0 && (st = mill_type_parse(type->outputs[k].type, &t, err)) != MILL_OK)
            return st;
        if ((st = add_output(io, type->outputs[k].name, t, err)) != MILL_OK) return st;
    }
    return MILL_OK;
}

mill_status stm_io_open(mill_io *io, mill_error *err)
{
    const stm_step_spec *spec = io->spec;
    const int32_t kind = spec->type->kind;
    mill_status st;

    io->side_by_side = kind != MILL_GLOBAL;
    io->pass = kind == MILL_STEP || kind == MILL_ROUTER;
    io->in_taken = stm_calloc(spec->n_map_in * sizeof *io->in_taken);
    io->out_taken = stm_calloc(spec->n_map_out * sizeof *io->out_taken);
    if (io->in_taken == NULL || io->out_taken == NULL) return no_memory(err);
    if ((st = copy_inputs(io, err)) != MILL_OK) return st;
    if ((st = see(io, err)) != MILL_OK) return st;
    return declare(io, err);
}

void stm_io_fini(mill_io *io)
{
    stm_free(io->seen);
    stm_free(io->in_taken);
    stm_free(io->out_taken);
}

/* A mapping of a name that the step type does not have. */
static mill_status unknown_mapping(const mill_io *io, const stm_mapping *map, bool input, mill_error *err)
{
    const mill_step *s = io->step;
    const char **names;
    size_t n = 0, most = (size_t)s->n_outputs;

    for (int32_t i = 0; i < s->n_inputs; i++) most += (size_t)s->inputs[i].n_used;
    if ((names = stm_malloc(most * sizeof *names)) == NULL) return no_memory(err);
    if (input) {
        for (int32_t i = 0; i < s->n_inputs; i++)
            for (int32_t k = 0; k < s->inputs[i].n_used; k++) names[n++] = s->inputs[i].used[k].name;
    } else {
        for (int32_t i = 0; i < s->n_outputs; i++) names[n++] = s->outputs[i].name;
    }
    mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" has no %s \"%s\" to be mapped to column \"%s\"", s->type->name,
              input ? "input" : "output", map->own, map->column);
    suggest(map->own, names, n, err);
    place_at(err, map->place);
    if (err != NULL) snprintf(err->field, sizeof err->field, "%s", map->own);
    stm_free(names);
    return MILL_ERR_INVALID;
}

static mill_status check_outputs(const mill_io *io, mill_error *err)
{
    const mill_step *s = io->step;

    for (int32_t i = 0; i < s->n_outputs; i++) {
        if (s->outputs[i].type == NULL)
            return mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" did not say what type its output \"%s\" has", s->type->name,
                             s->outputs[i].name);
        if (s->outputs[i].mapped[0] == '\0')
            return mill_fail(err, MILL_ERR_INVALID, "output \"%s\" is mapped to a column without a name", s->outputs[i].name);
        for (int32_t k = 0; k < i; k++) {
            if (strcmp(s->outputs[i].mapped, s->outputs[k].mapped) != 0) continue;
            mill_fail(err, MILL_ERR_INVALID, "outputs \"%s\" and \"%s\" are both written to column \"%s\"", s->outputs[k].name,
                      s->outputs[i].name, s->outputs[i].mapped);
            for (size_t m = io->spec->n_map_out; m-- > 0;) {
                if (strcmp(io->spec->map_out[m].column, s->outputs[i].mapped) == 0) place_at(err, io->spec->map_out[m].place);
            }
            return MILL_ERR_INVALID;
        }
    }
    if (s->type->kind == MILL_GENERATOR && s->n_outputs == 0)
        return mill_fail(err, MILL_ERR_INVALID, "generator \"%s\" has no columns", s->type->name);
    return MILL_OK;
}

static mill_status add_pass(mill_step *s, const stm_seen_column *seen, mill_error *err)
{
    stm_pass_column *p = &s->pass[s->n_pass];

    *p = (stm_pass_column){.input = seen->input, .from = seen->column, .to = s->out.n};
    if (!in_branches(s, seen->name, &p->in_branch)) return no_memory(err);
    s->n_pass++;
    return stm_schema_add(&s->out, seen->name, seen->type) == MILL_OK ? MILL_OK : no_memory(err);
}

/* Arriving columns in order, outputs of the same name in their places; then the other outputs. */
static mill_status lay_out(mill_io *io, mill_error *err)
{
    mill_step *s = io->step;
    mill_status st;

    if (s->type->kind == MILL_SINK) return MILL_OK;
    s->pass = stm_malloc((size_t)io->n_seen * sizeof *s->pass);
    if (s->pass == NULL) return no_memory(err);
    for (int32_t i = 0; io->pass && i < io->n_seen; i++) {
        stm_step_output *writer = NULL;

        if (io->seen[i].dropped) continue;
        for (int32_t k = 0; k < s->n_outputs && writer == NULL; k++) {
            if (strcmp(s->outputs[k].mapped, io->seen[i].name) == 0) writer = &s->outputs[k];
        }
        if (writer == NULL) {
            if ((st = add_pass(s, &io->seen[i], err)) != MILL_OK) return st;
            continue;
        }
        writer->column = s->out.n;
        if (stm_schema_add(&s->out, writer->mapped, writer->type) != MILL_OK) return no_memory(err);
    }
    for (int32_t k = 0; k < s->n_outputs; k++) {
        stm_step_output *o = &s->outputs[k];

        if (o->column >= 0) continue;
        o->column = s->out.n;
        if (stm_schema_add(&s->out, o->mapped, o->type) != MILL_OK) return no_memory(err);
    }
    return MILL_OK;
}

mill_status stm_io_close(mill_io *io, mill_error *err)
{
    const stm_step_spec *spec = io->spec;
    mill_status st;

    for (size_t i = 0; i < spec->n_map_in; i++) {
        if (!io->in_taken[i]) return unknown_mapping(io, &spec->map_in[i], true, err);
    }
    for (size_t i = 0; i < spec->n_map_out; i++) {
        if (!io->out_taken[i]) return unknown_mapping(io, &spec->map_out[i], false, err);
    }
    if ((st = check_outputs(io, err)) != MILL_OK) return st;
    return lay_out(io, err);
}
