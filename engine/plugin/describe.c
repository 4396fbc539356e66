#include "plugin/describe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "plugin/param.h"
#include "stepmill/device.h"

static const struct {
    uint64_t flag;
    const char *name, *text;
} flags[] = {
    {MILL_PER_ROW, "per_row", "a row's result does not depend on its neighbours"},
    {MILL_BATCH_SENSITIVE, "batch_sensitive", "results depend on the borders of batches"},
    {MILL_STATEFUL, "stateful", "results depend on what came before: one replica"},
    {MILL_NONDETERMINISTIC, "nondeterministic", "running again may give something else"},
    {MILL_EXPANDS, "expands", "may give several rows per row"},
    {MILL_FILTERS, "filters", "may drop rows"},
    {MILL_BLOCKS, "blocks", "waits for others: has a thread of its own"},
    {MILL_ROUTES, "routes", "chooses among branches"},
    {MILL_REPORTS_STATUS, "reports_status", "the device reports on every batch"},
    {MILL_ORDERED, "ordered", "gets its input in order"},
    {MILL_ON_DEVICE, "on_device", "computes on a GPU where its replicas have one"},
    {MILL_INPUTS_ON_HOST, "inputs_on_host", "reads its input on the host, also where it computes on a GPU"},
};
enum { N_FLAGS = sizeof flags / sizeof flags[0] };

const char *stm_kind_name(int32_t kind)
{
    static const char *const names[] = {"?", "generator", "step", "global", "sink", "router"};

    return kind >= MILL_GENERATOR && kind <= MILL_ROUTER ? names[kind] : names[0];
}

static void put(stm_text *t, const char *s) { stm_text_add(t, s, strlen(s)); }

static void put_string(stm_text *t, const char *s)
{
    put(t, "\"");
    stm_text_add_json(t, s, strlen(s));
    put(t, "\"");
}

static bool bounded(const mill_param *p) { return p->min != 0 || p->max != 0; }
static bool has_min(const mill_param *p) { return bounded(p) && p->min > -0x1p53; }
static bool has_max(const mill_param *p) { return bounded(p) && p->max < 0x1p53; }
static bool required(const mill_param *p) { return p->default_value == NULL && !(p->flags & MILL_PARAM_OPTIONAL); }

/* Whether the default is kept as written: text by nature, though "5" or "null" would read as something else. */
static bool is_textual(const mill_param *p)
{
    switch (p->type) {
    case MILL_PARAM_STRING:
    case MILL_PARAM_ENUM:
    case MILL_PARAM_PATH:
    case MILL_PARAM_OUT_PATH:
    case MILL_PARAM_BYTES:
    case MILL_PARAM_DURATION: return true;
    default: return false;
    }
}

/* The default as a JSON value. */
static void put_default(stm_text *t, const mill_param *p)
{
    stm_value *v = NULL;
    const size_t before = t->bytes;
    mill_status st = stm_value_parse(p->default_value, &v, NULL);

    if (st == MILL_OK && is_textual(p) && v->kind == STM_VALUE_SCALAR)
        put_string(t, v->text);
    else if (st == MILL_OK)
        st = stm_value_json(v, t, NULL);
    stm_value_free(&v);
    if (st == MILL_ERR_NOMEM) {
        t->failed = true;
    } else if (st != MILL_OK) { /* .inf, or a descriptor that nobody checked: the text itself */
        if (t->data != NULL) t->data[t->bytes = before] = '\0';
        put_string(t, p->default_value);
    }
}

/* ---- text -------------------------------------------------------------------------------------------------------------- */

static void text_columns(stm_text *t, const char *title, const mill_column_decl *cols, size_t n)
{
    if (n == 0) return;
    stm_text_addf(t, "\n%s\n", title);
    for (size_t i = 0; i < n; i++) {
        stm_text_addf(t, "  %s: %s", cols[i].name, strcmp(cols[i].type, "text") == 0 ? "utf8 or json" : cols[i].type);
        if (cols[i].text != NULL && cols[i].text[0] != '\0') stm_text_addf(t, "\n      %s", cols[i].text);
        put(t, "\n");
    }
}

static void text_params(stm_text *t, const mill_step_type *type)
{
    char expected[256];

    if (type->n_params == 0) return;
    put(t, "\nparameters\n");
    for (size_t i = 0; i < type->n_params; i++) {
        const mill_param *p = &type->params[i];

        stm_param_expected(p, expected, sizeof expected);
        stm_text_addf(t, "  %s: %s", p->name, expected);
        if (p->default_value != NULL)
            stm_text_addf(t, " (default %s)", p->default_value[0] != '\0' ? p->default_value : "\"\"");
        else
            stm_text_addf(t, " (%s)", required(p) ? "required" : "optional");
        stm_text_addf(t, "\n      %s\n", p->text != NULL ? p->text : "");
    }
}

void stm_describe_text(const mill_step_type *type, const char *origin, stm_text *out)
{
    bool any = false;

    stm_text_addf(out, "%s: %s\n", type->name, type->summary);
    stm_text_addf(out, "kind: %s; version %s; %s\n", stm_kind_name(type->kind), type->version != NULL ? type->version : "1",
                  origin);
    for (size_t i = 0; i < N_FLAGS; i++) {
        if (!(type->flags & flags[i].flag)) continue;
        if (!any) put(out, "\nproperties\n");
        any = true;
        stm_text_addf(out, "  %s: %s\n", flags[i].name, flags[i].text);
    }
    text_columns(out, "reads", type->inputs, type->n_inputs);
    text_columns(out, "writes", type->outputs, type->n_outputs);
    text_params(out, type);
}

/* ---- JSON --------------------------------------------------------------------------------------------------------------- */

static void json_columns(stm_text *t, const char *key, const mill_column_decl *cols, size_t n)
{
    stm_text_addf(t, ", \"%s\": [", key);
    for (size_t i = 0; i < n; i++) {
        put(t, i > 0 ? ", {\"name\": " : "{\"name\": ");
        put_string(t, cols[i].name);
        put(t, ", \"type\": ");
        put_string(t, cols[i].type);
        put(t, ", \"text\": ");
        put_string(t, cols[i].text != NULL ? cols[i].text : "");
        put(t, "}");
    }
    put(t, "]");
}

static void json_choices(stm_text *t, const mill_param *p)
{
    const char *c = p->choices;

    put(t, "[");
    for (;;) {
        const size_t n = strcspn(c, "|");

        put(t, "\"");
        stm_text_add_json(t, c, n);
        put(t, "\"");
        if (c[n] == '\0') break;
        put(t, ", ");
        c += n + 1;
    }
    put(t, "]");
}

static void json_param(stm_text *t, const mill_param *p)
{
    put(t, "{\"name\": ");
    put_string(t, p->name);
    stm_text_addf(t, ", \"type\": \"%s\", \"required\": %s", stm_param_type_name(p->type), required(p) ? "true" : "false");
    if (p->default_value != NULL) {
        put(t, ", \"default\": ");
        put_default(t, p);
    }
    if (has_min(p)) stm_text_addf(t, ", \"min\": %.17g", p->min);
    if (has_max(p)) stm_text_addf(t, ", \"max\": %.17g", p->max);
    if (p->type == MILL_PARAM_ENUM) {
        put(t, ", \"choices\": ");
        json_choices(t, p);
    }
    put(t, ", \"text\": ");
    put_string(t, p->text != NULL ? p->text : "");
    stm_text_addf(t, ", \"result\": %s}", p->flags & MILL_PARAM_NO_RESULT ? "false" : "true");
}

void stm_describe_json(const mill_step_type *type, const char *origin, stm_text *out)
{
    bool any = false;

    put(out, "{\"name\": ");
    put_string(out, type->name);
    stm_text_addf(out, ", \"kind\": \"%s\", \"summary\": ", stm_kind_name(type->kind));
    put_string(out, type->summary);
    put(out, ", \"version\": ");
    put_string(out, type->version != NULL ? type->version : "1");
    put(out, ", \"origin\": ");
    put_string(out, origin);
    put(out, ", \"flags\": [");
    for (size_t i = 0; i < N_FLAGS; i++) {
        if (!(type->flags & flags[i].flag)) continue;
        stm_text_addf(out, "%s\"%s\"", any ? ", " : "", flags[i].name);
        any = true;
    }
    put(out, "]");
    json_columns(out, "inputs", type->inputs, type->n_inputs);
    json_columns(out, "outputs", type->outputs, type->n_outputs);
    put(out, ", \"parameters\": [");
    for (size_t i = 0; i < type->n_params; i++) {
        if (i > 0) put(out, ", ");
        json_param(out, &type->params[i]);
    }
    put(out, "]}");
}

/* ---- JSON Schema ---------------------------------------------------------------------------------------------------------- */

void stm_describe_schema_choices(const char *choices, stm_text *out)
{
    static const char *const plain[] = {"true", "false", "null"}; /* which YAML reads as something else, unless they are quoted */

    put(out, "\"enum\": [");
    for (const char *c = choices; c != NULL && *c != '\0'; c += strcspn(c, "|"), c += *c == '|') {
        const int n = (int)strcspn(c, "|");

        for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
            if (strlen(plain[i]) == (size_t)n && strncmp(c, plain[i], (size_t)n) == 0) stm_text_addf(out, "%s, ", plain[i]);
        stm_text_addf(out, "\"%.*s\"%s", n, c, c[n] == '|' ? ", " : "");
    }
    put(out, "]");
}

void stm_describe_schema_bytes(double min, double max, stm_text *out)
{
    stm_text_addf(out,
                  "\"anyOf\":[{\"type\":\"integer\",\"minimum\":%.17g,\"maximum\":%.17g},"
                  "{\"type\":\"string\",\"pattern\":\"^([0-9]+( ?B)?|[0-9]+(\\\\.[0-9]+)? ?[kKMGT]i?B)$\"}]",
                  min, max);
}

void stm_describe_schema_duration(double min, double max, bool above, stm_text *out)
{
    stm_text_addf(out,
                  "\"anyOf\":[{\"type\":\"number\",\"%s\":%.17g,\"maximum\":%.17g},"
                  "{\"type\":\"string\",\"pattern\":\"^([0-9]+(\\\\.[0-9]+)?( ?(us|ms|s|m|min|h|d))?%s)$\"}]",
                  above ? "exclusiveMinimum" : "minimum", min < 0 ? 0.0 : min, max, min < 0 ? "|none" : "");
}

/* What JSON Schema says of a parameter's values. A scalar may be a text to the engine, however it looks to others. */
static void schema_type(stm_text *t, const mill_param *p)
{
    static const char strings[] = "\"anyOf\": [{\"type\": [\"string\", \"number\", \"boolean\"]}, {\"type\": \"array\", "
                                  "\"items\": {\"type\": [\"string\", \"number\", \"boolean\"]}}]";
    static const char map[] = "\"type\": \"object\", \"additionalProperties\": {\"type\": [\"string\", \"number\", \"boolean\"]}";

    switch (p->type) {
    case MILL_PARAM_BOOL: put(t, "\"type\": \"boolean\""); break;
    case MILL_PARAM_INT:
        stm_text_addf(t, "\"type\": \"integer\", \"minimum\": %.17g, \"maximum\": %.17g", has_min(p) ? p->min : -0x1p63,
                      has_max(p) ? p->max : 0x1p63);
        break;
    case MILL_PARAM_FLOAT:
        put(t, "\"type\": \"number\"");
        if (has_min(p)) stm_text_addf(t, ", \"minimum\": %.17g", p->min);
        if (has_max(p)) stm_text_addf(t, ", \"maximum\": %.17g", p->max);
        break;
    case MILL_PARAM_STRING: put(t, "\"type\": [\"string\", \"number\", \"boolean\"]"); break;
    case MILL_PARAM_ENUM: stm_describe_schema_choices(p->choices, t); break;
    case MILL_PARAM_PATH:
    case MILL_PARAM_OUT_PATH: put(t, "\"type\": [\"string\", \"number\", \"boolean\"], \"minLength\": 1"); break;
    case MILL_PARAM_PATHS:
        put(t, "\"anyOf\": [{\"type\": [\"string\", \"number\", \"boolean\"], \"minLength\": 1}, {\"type\": \"array\", "
               "\"minItems\": 1, \"items\": "
               "{\"type\": [\"string\", \"number\", \"boolean\"], \"minLength\": 1}}]");
        break;
    case MILL_PARAM_BYTES: stm_describe_schema_bytes(bounded(p) ? p->min : 0, bounded(p) ? p->max : 0x1p63, t); break;
    case MILL_PARAM_DURATION: stm_describe_schema_duration(bounded(p) ? p->min : -1, bounded(p) ? p->max : 0x1p63, false, t); break;
    case MILL_PARAM_STRINGS: put(t, strings); break;
    case MILL_PARAM_MAP: put(t, map); break;
    case MILL_PARAM_COLUMNS: put(t, "\"type\": \"object\", \"additionalProperties\": {\"type\": \"string\"}"); break;
    default: break; /* json: anything */
    }
}

void stm_describe_schema_properties(const mill_step_type *type, stm_text *out)
{
    for (size_t i = 0; i < type->n_params; i++) {
        const mill_param *p = &type->params[i];

        if (i > 0) put(out, ", ");
        put_string(out, p->name);
        put(out, ": {");
        schema_type(out, p);
        if (p->type != MILL_PARAM_JSON) put(out, ", ");
        put(out, "\"description\": ");
        put_string(out, p->text != NULL ? p->text : "");
        if (p->default_value != NULL) {
            put(out, ", \"default\": ");
            put_default(out, p);
        }
        put(out, "}");
    }
}

void stm_describe_schema_required(const mill_step_type *type, stm_text *out)
{
    bool any = false;

    for (size_t i = 0; i < type->n_params; i++) {
        if (!required(&type->params[i])) continue;
        if (any) put(out, ", ");
        any = true;
        put_string(out, type->params[i].name);
    }
}
