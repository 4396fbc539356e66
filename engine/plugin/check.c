/* What is wrong with a descriptor, said so that the author of a plugin can mend it. */
#include <stddef.h>
#include <string.h>

#include "plugin/io.h"
#include "stepmill/device.h"

enum { NAME_MAX_BYTES = 63 }; /* fits mill_error.step and file names */

#define KNOWN_FLAGS                                                                                                         \
    ((uint64_t)(MILL_PER_ROW | MILL_BATCH_SENSITIVE | MILL_STATEFUL | MILL_NONDETERMINISTIC | MILL_EXPANDS | MILL_FILTERS | \
                MILL_BLOCKS | MILL_ROUTES | MILL_REPORTS_STATUS | MILL_ORDERED | MILL_ON_DEVICE | MILL_INPUTS_ON_HOST))

/* Keys of the engine in a step of the pipeline file: a parameter of that name could never be given. */
static const char *const engine_keys[] = {
    "type",     "from",  "to",      "inputs",    "outputs", "batch_size", "input_batch_size", "budget",
    "replicas", "cache", "retries", "resources", "nulls",   "timeout",    "stop_if",          "on_error",
};

static bool is_name(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_");

    return n > 0 && n <= NAME_MAX_BYTES && s[n] == '\0' && !(s[0] >= '0' && s[0] <= '9');
}

/* ---- functions --------------------------------------------------------------------------------------------------------- */

typedef struct entry {
    const char *name;
    bool there;
    int32_t kind;  /* the kind it belongs to; 0 = every kind */
    bool required; /* by that kind; process and submit are looked at apart */
} entry;

static const char *kind_word(int32_t kind)
{
    static const char *const words[] = {"", "a generator", "a step", "a global", "a sink", "a router"};

    return words[kind];
}

static mill_status check_functions(const mill_step_type *t, mill_error *err)
{
    const entry entries[] = {
        {"generate", t->generate != NULL, MILL_GENERATOR, true},
        {"process", t->process != NULL, MILL_STEP, false},
        {"submit", t->submit != NULL, MILL_STEP, false},
        {"poll", t->poll != NULL, MILL_STEP, false},
        {"cancel", t->cancel != NULL, MILL_STEP, false},
        {"flush", t->flush != NULL, MILL_STEP, false},
        {"accept", t->accept != NULL, MILL_GLOBAL, true},
        {"finish", t->finish != NULL, MILL_GLOBAL, true},
        {"open", t->open != NULL, MILL_SINK, true},
        {"write", t->write != NULL, MILL_SINK, true},
        {"sync", t->sync != NULL, MILL_SINK, false},
        {"finalize", t->finalize != NULL, MILL_SINK, true},
        {"route", t->route != NULL, MILL_ROUTER, true},
    };

    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        const entry *e = &entries[i];

        if (e->there && e->kind != t->kind)
            return mill_fail(err, MILL_ERR_INVALID, "it is %s but has the function %s of %s", kind_word(t->kind), e->name,
                             kind_word(e->kind));
        if (!e->there && e->required && e->kind == t->kind)
            return mill_fail(err, MILL_ERR_INVALID, "it is %s without the function %s", kind_word(t->kind), e->name);
    }
    if (t->cost != NULL && (t->kind == MILL_GENERATOR || t->kind == MILL_GLOBAL))
        return mill_fail(err, MILL_ERR_INVALID, "it is %s but has the function cost of what takes batches of a budget",
                         kind_word(t->kind));
    if (t->kind != MILL_STEP) return MILL_OK;
    if (t->process == NULL && t->submit == NULL)
        return mill_fail(err, MILL_ERR_INVALID, "it is a step without process and without submit");
    if (t->process != NULL && (t->submit != NULL || t->poll != NULL || t->cancel != NULL || t->flush != NULL))
        return mill_fail(err, MILL_ERR_INVALID, "it has process, and submit, poll, cancel or flush, too");
    if (t->submit != NULL && (t->poll == NULL || t->cancel == NULL))
        return mill_fail(err, MILL_ERR_INVALID, "it has submit without %s", t->poll == NULL ? "poll" : "cancel");
    return MILL_OK;
}

static mill_status check_flags(const mill_step_type *t, mill_error *err)
{
    if (t->flags & ~KNOWN_FLAGS)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "it has flags that this stepmill does not know: 0x%llx",
                         (unsigned long long)(t->flags & ~KNOWN_FLAGS));
    if ((t->flags & MILL_PER_ROW) && (t->flags & (MILL_BATCH_SENSITIVE | MILL_STATEFUL)))
        return mill_fail(err, MILL_ERR_INVALID, "MILL_PER_ROW contradicts %s",
                         t->flags & MILL_STATEFUL ? "MILL_STATEFUL" : "MILL_BATCH_SENSITIVE");
    if ((t->flags & (MILL_EXPANDS | MILL_FILTERS)) && t->kind != MILL_STEP)
        return mill_fail(err, MILL_ERR_INVALID, "MILL_EXPANDS and MILL_FILTERS are for steps; it is %s", kind_word(t->kind));
    if ((t->flags & MILL_ROUTES) && t->kind != MILL_ROUTER)
        return mill_fail(err, MILL_ERR_INVALID, "MILL_ROUTES is for routers; it is %s", kind_word(t->kind));
    return MILL_OK;
}

/* ---- tables -------------------------------------------------------------------------------------------------------------- */

static mill_status check_choices(const mill_param *p, mill_error *err)
{
    const char *c = p->choices;

    if (c == NULL || *c == '\0' || *c == '|' || c[strlen(c) - 1] == '|' || strstr(c, "||") != NULL)
        return mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\" is an enum and needs choices such as \"a|b\"", p->name);
    return MILL_OK;
}

static mill_status check_default(const mill_param *p, mill_error *err)
{
    const stm_param_dirs nowhere = {0};
    stm_param_value value;
    stm_value *v;
    mill_status st;

    if (p->default_value == NULL) return MILL_OK;
    if ((st = stm_value_parse(p->default_value, &v, err)) == MILL_OK) {
        st = stm_param_read(p, v, &nowhere, &value, err);
        stm_value_free(&v);
        if (st == MILL_OK) stm_param_value_fini(&value);
    }
    mill_error_context(err, "the default of parameter \"%s\"", p->name);
    return st;
}

static mill_status check_params(const mill_step_type *t, mill_error *err)
{
    mill_status st;

    if (t->n_params > 0 && t->params == NULL)
        return mill_fail(err, MILL_ERR_INVALID, "it has %zu parameters but no table of them", t->n_params);
    for (size_t i = 0; i < t->n_params; i++) {
        const mill_param *p = &t->params[i];

        if (p->name == NULL || !is_name(p->name))
            return mill_fail(err, MILL_ERR_INVALID, "parameter %zu is called \"%.64s\": use lower case letters, digits and _", i,
                             p->name != NULL ? p->name : "(null)");
        for (size_t k = 0; k < i; k++) {
            if (strcmp(t->params[k].name, p->name) == 0)
                return mill_fail(err, MILL_ERR_INVALID, "it has two parameters \"%s\"", p->name);
        }
        for (size_t k = 0; k < sizeof engine_keys / sizeof engine_keys[0]; k++) {
            if (strcmp(engine_keys[k], p->name) == 0)
                return mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\" has the name of a key of every step", p->name);
        }
        if (stm_param_type_name(p->type) == NULL)
            return mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\" has the unknown type %d", p->name, (int)p->type);
        if (p->flags & ~(MILL_PARAM_OPTIONAL | MILL_PARAM_NO_RESULT | MILL_PARAM_PROGRAM))
            return mill_fail(err, MILL_ERR_UNSUPPORTED, "parameter \"%s\" has unknown flags 0x%x", p->name, (unsigned)p->flags);
        if (p->text == NULL || p->text[0] == '\0')
            return mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\" has no text for people", p->name);
        if (!(p->min <= p->max))
            return mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\" has the range %g to %g", p->name, p->min, p->max);
        if (p->type == MILL_PARAM_ENUM && (st = check_choices(p, err)) != MILL_OK) return st;
        if ((st = check_default(p, err)) != MILL_OK) return st;
    }
    return MILL_OK;
}

static mill_status check_columns(const mill_column_decl *cols, size_t n, bool inputs, mill_error *err)
{
    const char *word = inputs ? "input" : "output";
    const mill_type *type;
    mill_status st;

    if (n > 0 && cols == NULL) return mill_fail(err, MILL_ERR_INVALID, "it has %zu %ss but no table of them", n, word);
    for (size_t i = 0; i < n; i++) {
        if (cols[i].name == NULL || cols[i].name[0] == '\0') return mill_fail(err, MILL_ERR_INVALID, "%s %zu has no name", word, i);
        for (size_t k = 0; k < i; k++) {
            if (strcmp(cols[k].name, cols[i].name) == 0)
                return mill_fail(err, MILL_ERR_INVALID, "it has two %ss \"%s\"", word, cols[i].name);
        }
        if (cols[i].type == NULL) return mill_fail(err, MILL_ERR_INVALID, "%s \"%s\" has no type", word, cols[i].name);
        if (strcmp(cols[i].type, "any") == 0 || (inputs && strcmp(cols[i].type, "text") == 0)) continue;
        if ((st = mill_type_parse(cols[i].type, &type, err)) != MILL_OK) {
            mill_error_context(err, "%s \"%s\"", word, cols[i].name);
            return st;
        }
    }
    return MILL_OK;
}

/* ---- all -------------------------------------------------------------------------------------------------------------------- */

static mill_status check(const mill_step_type *t, mill_error *err)
{
    mill_status st;

    if (t->struct_size < sizeof(mill_step_type))
        return mill_fail(err, MILL_ERR_INVALID, "struct_size is %zu, version 1 of mill_step_type has %zu bytes", t->struct_size,
                         sizeof(mill_step_type));
    if (t->abi != MILL_ABI_1)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "it is made for version %u of the step interface, this is version %u",
                         (unsigned)t->abi, MILL_ABI_1);
    if (t->name == NULL || !is_name(t->name))
        return mill_fail(err, MILL_ERR_INVALID, "its name has to be lower case letters, digits and _, at most %d",
                         (int)NAME_MAX_BYTES);
    if (t->summary == NULL || t->summary[0] == '\0') return mill_fail(err, MILL_ERR_INVALID, "it has no summary");
    if (t->kind < MILL_GENERATOR || t->kind > MILL_ROUTER)
        return mill_fail(err, MILL_ERR_INVALID, "it has the unknown kind %d", (int)t->kind);
    if ((st = check_flags(t, err)) != MILL_OK) return st;
    if ((st = check_functions(t, err)) != MILL_OK) return st;
    if ((st = check_params(t, err)) != MILL_OK) return st;
    if (t->kind == MILL_GENERATOR && t->n_inputs > 0)
        return mill_fail(err, MILL_ERR_INVALID, "it is a generator and cannot have inputs");
    if ((t->kind == MILL_SINK || t->kind == MILL_ROUTER) && t->n_outputs > 0)
        return mill_fail(err, MILL_ERR_INVALID, "it is %s and cannot have outputs", kind_word(t->kind));
    if ((st = check_columns(t->inputs, t->n_inputs, true, err)) != MILL_OK) return st;
    return check_columns(t->outputs, t->n_outputs, false, err);
}

mill_status stm_step_type_check(const mill_step_type *type, mill_error *err)
{
    mill_error inner = {0};
    mill_status st;

    if (type == NULL) return mill_fail(err, MILL_ERR_INVALID, "a step type is NULL");
    st = check(type, &inner);
    if (st == MILL_OK) return MILL_OK;
    /* a wrong size or version says that the rest may not mean what we read: the name only where it can be one */
    if (type->struct_size >= sizeof(mill_step_type) && type->abi == MILL_ABI_1 && type->name != NULL)
        mill_error_context(&inner, "step type \"%.64s\"", type->name);
    if (err != NULL && err->status == MILL_OK) *err = inner;
    return st;
}
