/* The JSON schema of the pipeline file, made from the tables that check it. */
#include <string.h>

#include "core/alloc.h"
#include "pipeline/pipeline.h"
#include "plugin/describe.h"
#include "plugin/modules.h"

static void add_text(stm_text *t, const char *text)
{
    stm_text_addf(t, "\"");
    if (text != NULL) stm_text_add_json(t, text, strlen(text));
    stm_text_addf(t, "\"");
}

static void add_default(stm_text *t, const char *value, bool text)
{
    if (value == NULL) return;
    stm_text_addf(t, ",\"default\":");
    if (!text && value[0] != '\0')
        stm_text_addf(t, "%s", value);
    else
        add_text(t, value);
}

static void add_keys(stm_text *t, const stm_key *keys, size_t n, uint32_t kind, bool first);

/* A scalar that is a text to the engine, however it looks to others. */
#define SCALAR "\"type\":[\"string\",\"number\",\"boolean\"],\"minLength\":1"
#define SCALARS "{\"type\":\"array\",\"items\":{" SCALAR "},\"uniqueItems\":true"

static const char list_form[] = SCALARS ",\"minItems\":1}";

static void add_number(stm_text *t, const stm_key *k, const char *type)
{
    stm_text_addf(t, "\"type\":\"%s\",\"%s\":%.17g,\"maximum\":%.17g", type, k->above ? "exclusiveMinimum" : "minimum", k->min,
                  k->max);
    add_default(t, k->default_value, false);
}

static void add_object(stm_text *t, const stm_key *k)
{
    stm_text_addf(t, "\"type\":\"object\",\"additionalProperties\":false,\"properties\":{");
    add_keys(t, k->sub, k->n_sub, 0, true);
    stm_text_addf(t, "}");
}

static void add_key(stm_text *t, const stm_key *k)
{
    switch (k->shape) {
    case STM_SHAPE_INT: add_number(t, k, "integer"); break;
    case STM_SHAPE_FLOAT: add_number(t, k, "number"); break;
    case STM_SHAPE_BOOL:
        stm_text_addf(t, "\"type\":\"boolean\"");
        add_default(t, k->default_value, false);
        break;
    case STM_SHAPE_TEXT: stm_text_addf(t, SCALAR); break;
    case STM_SHAPE_NAME:
        stm_text_addf(
            t, "\"type\":[\"string\",\"integer\",\"boolean\"],\"minimum\":0,\"pattern\":\"^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}$\"");
        break;
    case STM_SHAPE_ENUM:
        stm_describe_schema_choices(k->choices, t);
        add_default(t, k->default_value, true);
        break;
    case STM_SHAPE_BYTES:
        stm_describe_schema_bytes(k->min, k->max, t);
        add_default(t, k->default_value, true);
        break;
    case STM_SHAPE_DURATION:
        stm_describe_schema_duration(k->min, k->max, k->above, t);
        add_default(t, k->default_value, true);
        break;
    case STM_SHAPE_TEXTS: stm_text_addf(t, "\"anyOf\":[{" SCALAR "}," SCALARS "}]"); break;
    case STM_SHAPE_MAP: stm_text_addf(t, "\"type\":\"object\",\"additionalProperties\":{" SCALAR "}"); break;
    case STM_SHAPE_FLAGS:
        stm_text_addf(t, "\"anyOf\":[{");
        stm_describe_schema_choices(k->choices, t);
        stm_text_addf(t, "},{\"type\":\"array\",\"minItems\":1,\"uniqueItems\":true,\"items\":{");
        stm_describe_schema_choices(k->choices, t);
        stm_text_addf(t, "}}]");
        add_default(t, k->default_value, true);
        break;
    case STM_SHAPE_OBJECT: add_object(t, k); break;
    case STM_SHAPE_BYTES_OR_OBJECT:
        stm_text_addf(t, "\"anyOf\":[{");
        stm_describe_schema_bytes(k->sub[0].min, k->sub[0].max, t);
        stm_text_addf(t, "},{");
        add_object(t, k);
        stm_text_addf(t, "}]");
        break;
    case STM_SHAPE_FROM:
        stm_text_addf(
            t,
            "\"anyOf\":[{" SCALAR "},%s,"
            "{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"join\"],"
            "\"properties\":{\"join\":" SCALARS ",\"minItems\":1,"
            "\"description\":\"steps whose rows are put beside each other, by key or by position\"},"
            "\"on_missing\":{\"enum\":[\"error\",\"drop\",null],\"default\":\"error\","
            "\"description\":\"by key: a row that only some of the steps have\"},"
            "\"on_uneven\":{\"enum\":[\"error\",null],\"default\":\"error\","
            "\"description\":\"by position: steps of different length\"}}},"
            "{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"union\"],\"properties\":{"
            "\"union\":" SCALARS ",\"minItems\":1,\"description\":\"steps whose rows come one after the other\"}}},"
            "{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"converge\"],\"properties\":{"
            "\"converge\":" SCALARS ",\"minItems\":1,\"description\":\"branches of a router, put together again\"},"
            "\"on_missing\":{\"enum\":[\"error\",\"drop\",null],\"default\":null,"
            "\"description\":\"a row that a branch took and dropped, while others have it\"}}}]",
            list_form);
        break;
    case STM_SHAPE_GROUPS:
        stm_text_addf(t, "\"anyOf\":[{\"const\":\"sequential\"},{\"type\":\"array\",\"items\":%s}]", list_form);
        break;
    case STM_SHAPE_STEPS: break; /* written by stm_schema */
    }
    stm_text_addf(t, ",\"description\":");
    add_text(t, k->text);
}

/* @kind 0 = all */
static void add_keys(stm_text *t, const stm_key *keys, size_t n, uint32_t kind, bool first)
{
    for (size_t i = 0; i < n; i++) {
        if ((kind != 0 && keys[i].kinds != 0 && (keys[i].kinds & kind) == 0) || keys[i].shape == STM_SHAPE_STEPS) continue;
        stm_text_addf(t, "%s\"%s\":{", first ? "" : ",", keys[i].name);
        add_key(t, &keys[i]);
        stm_text_addf(t, "}");
        first = false;
    }
}

/* One alternative of a step: its keys, its type's parameters, nothing else. */
static void add_step_type(stm_text *t, const mill_step_type *type)
{
    size_t before;

    stm_text_addf(t, "{\"title\":\"%s\",\"description\":", type->name);
    add_text(t, type->summary);
    stm_text_addf(t, ",\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"type\"%s%s",
                  type->kind != MILL_GENERATOR ? ",\"from\"" : "", type->kind == MILL_ROUTER ? ",\"to\"" : "");
    before = t->bytes;
    stm_text_addf(t, ",");
    stm_describe_schema_required(type, t);
    if (t->bytes == before + 1 && !t->failed) t->data[--t->bytes] = '\0';
    stm_text_addf(t, "],\"properties\":{\"type\":{\"const\":\"%s\"}", type->name);
    for (size_t i = 0; i < stm_step_table_count; i++)
        if (strcmp(stm_step_table[i].name, "type") != 0) add_keys(t, &stm_step_table[i], 1, 1u << type->kind, false);
    if (type->n_params > 0) stm_text_addf(t, ",");
    stm_describe_schema_properties(type, t);
    stm_text_addf(t, "}}");
}

mill_status mill_schema_text(char **out, mill_error *err)
{
    stm_registry *reg = NULL;
    stm_text t = {0};
    mill_status st = stm_registry_create(&reg, err);

    if (st == MILL_OK) st = stm_registry_want_all(reg, err);

    if (st != MILL_OK) {
        stm_registry_destroy(&reg);
        return st;
    }
    stm_text_addf(
        &t, "{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"title\":\"stepmill pipeline\",\"type\":\"object\","
            "\"additionalProperties\":false,\"required\":[\"stepmill\",\"steps\"],\"properties\":{");
    add_keys(&t, stm_file_table, stm_file_table_count, 0, true);
    stm_text_addf(
        &t,
        ",\"steps\":{\"type\":\"object\",\"minProperties\":1,\"description\":\"the steps, by name\",\"propertyNames\":{\"pattern\":"
        "\"^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}$\"},\"additionalProperties\":{\"anyOf\":[\n");
    for (size_t i = 0; i < stm_registry_count(reg); i++) {
        add_step_type(&t, stm_registry_at(reg, i));
        stm_text_addf(&t, ",\n");
    }
    /* a type of a plugin: known here by name only */
    stm_text_addf(
        &t, "{\"title\":\"a plugin's step "
            "type\",\"type\":\"object\",\"required\":[\"type\"],\"properties\":{\"type\":{\"type\":\"string\",\"not\":{\"enum\":[");
    for (size_t i = 0; i < stm_registry_count(reg); i++)
        stm_text_addf(&t, "%s\"%s\"", i > 0 ? "," : "", stm_registry_at(reg, i)->name);
    stm_text_addf(&t, "]}}");
    for (size_t i = 0; i < stm_step_table_count; i++)
        if (strcmp(stm_step_table[i].name, "type") != 0) add_keys(&t, &stm_step_table[i], 1, 0, false);
    stm_text_addf(&t, "}}\n]}}}}\n");
    stm_registry_destroy(&reg);
    return stm_text_hand_out(&t, out, err);
}
