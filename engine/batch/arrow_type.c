/* Types to and from ArrowSchema. */
#include "stepmill/arrow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch/arrow_type.h"
#include "batch/type.h"
#include "core/alloc.h"

/* ---- export ---- */

/* One block: what release frees besides the children. */
typedef struct schema_private {
    struct ArrowSchema **children; /* [n] */
    char *name;
    char format[24];
} schema_private;

static void release_schema(struct ArrowSchema *s)
{
    schema_private *p = s->private_data;

    for (int64_t i = 0; i < s->n_children; i++) {
        if (s->children[i] == NULL) continue; /* half-made */
        if (s->children[i]->release != NULL) s->children[i]->release(s->children[i]);
        stm_free(s->children[i]);
    }
    stm_free(p->children);
    stm_free(p->name);
    stm_free(p);
    s->release = NULL;
}

/* Key-value metadata as the interface lays it out: counts and lengths in native 32-bit integers. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define N32(n) (char)(n), 0, 0, 0
#else
#define N32(n) 0, 0, 0, (char)(n)
#endif
static const char json_metadata[] = {
    N32(2), N32(20), 'A', 'R', 'R', 'O', 'W', ':', 'e', 'x', 't', 'e', 'n', 's', 'i', 'o', 'n', ':', 'n', 'a', 'm', 'e',
    N32(10), 'a', 'r', 'r', 'o', 'w', '.', 'j', 's', 'o', 'n',
    N32(24), 'A', 'R', 'R', 'O', 'W', ':', 'e', 'x', 't', 'e', 'n', 's', 'i', 'o', 'n', ':', 'm', 'e', 't', 'a', 'd', 'a', 't', 'a',
    N32(0),
};

static void put_format(const mill_type *t, char *format, size_t size)
{
    static const char *const names[] = {[MILL_BOOL] = "b",    [MILL_INT32] = "i",   [MILL_INT64] = "l",  [MILL_FLOAT16] = "e",
                                        [MILL_FLOAT32] = "f", [MILL_FLOAT64] = "g", [MILL_UTF8] = "U",   [MILL_BINARY] = "Z",
                                        [MILL_JSON] = "U",    [MILL_LIST] = "+L",   [MILL_STRUCT] = "+s"};

    if (t->id == MILL_FIXED_LIST)
        snprintf(format, size, "+w:%d", (int)t->length);
    else
        snprintf(format, size, "%s", names[t->id]);
}

static bool export_field(const char *name, const mill_type *t, struct ArrowSchema *out)
{
    struct ArrowSchema s = {0};
    schema_private *p = stm_calloc(sizeof *p);

    if (p == NULL) return false;
    s.release = release_schema;
    s.private_data = p;
    put_format(t, p->format, sizeof p->format);
    s.format = p->format;
    s.flags = ARROW_FLAG_NULLABLE;
    if (t->id == MILL_JSON) s.metadata = json_metadata;
    if ((p->name = stm_strdup(name)) == NULL) goto fail;
    s.name = p->name;
    if (t->n_fields > 0) {
        p->children = stm_calloc((size_t)t->n_fields * sizeof *p->children);
        if (p->children == NULL) goto fail;
        s.children = p->children;
        s.n_children = t->n_fields;
    }
    for (int32_t i = 0; i < t->n_fields; i++) {
        struct ArrowSchema *child = stm_calloc(sizeof *child);

        if (child == NULL) goto fail;
        s.children[i] = child;
        if (!export_field(t->fields[i].name, t->fields[i].type, child)) goto fail;
    }
    *out = s;
    return true;
fail:
    release_schema(&s);
    return false;
}

mill_status mill_arrow_export_type(const mill_type *schema, struct ArrowSchema *out, mill_error *err)
{
    if (schema == NULL) return mill_fail(err, MILL_ERR_INVALID, "no type to export");
    if (!export_field("", schema, out)) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for an Arrow schema");
    return MILL_OK;
}

/* ---- import ---- */

/* Whether the field's extension name is arrow.json. The metadata has no length of its own, so it is trusted as the
 * interface asks; negative counts end the walk. */
static bool says_json(const char *metadata)
{
    static const char key[] = "ARROW:extension:name", value[] = "arrow.json";
    int32_t pairs, n;

    if (metadata == NULL) return false;
    memcpy(&pairs, metadata, 4);
    metadata += 4;
    for (int32_t i = 0; i < pairs; i++) {
        bool is_name;

        memcpy(&n, metadata, 4);
        if (n < 0) return false;
        metadata += 4;
        is_name = n == (int32_t)sizeof key - 1 && memcmp(metadata, key, (size_t)n) == 0;
        metadata += n;
        memcpy(&n, metadata, 4);
        if (n < 0) return false;
        metadata += 4;
        if (is_name && n == (int32_t)sizeof value - 1 && memcmp(metadata, value, (size_t)n) == 0) return true;
        metadata += n;
    }
    return false;
}

static const struct { const char *format; mill_type_id id; stm_arrow_form form; } plain_forms[] = {
    {"b", MILL_BOOL, STM_ARROW_SAME},    {"i", MILL_INT32, STM_ARROW_SAME},   {"l", MILL_INT64, STM_ARROW_SAME},
    {"e", MILL_FLOAT16, STM_ARROW_SAME}, {"f", MILL_FLOAT32, STM_ARROW_SAME}, {"g", MILL_FLOAT64, STM_ARROW_SAME},
    {"U", MILL_UTF8, STM_ARROW_SAME},    {"Z", MILL_BINARY, STM_ARROW_SAME},  {"u", MILL_UTF8, STM_ARROW_SMALL},
    {"z", MILL_BINARY, STM_ARROW_SMALL}, {"c", MILL_INT32, STM_ARROW_INT8},   {"C", MILL_INT32, STM_ARROW_UINT8},
    {"s", MILL_INT32, STM_ARROW_INT16},  {"S", MILL_INT32, STM_ARROW_UINT16}, {"I", MILL_INT64, STM_ARROW_UINT32},
};

stm_arrow_form stm_arrow_form_of(const struct ArrowSchema *s)
{
    for (size_t i = 0; i < sizeof plain_forms / sizeof plain_forms[0]; i++)
        if (strcmp(s->format, plain_forms[i].format) == 0) return plain_forms[i].form;
    return strcmp(s->format, "+l") == 0 ? STM_ARROW_SMALL : STM_ARROW_SAME;
}

static const char *name_of(const struct ArrowSchema *s) { return s->name != NULL ? s->name : ""; }

static mill_status made(const mill_type *t, const mill_type **out, mill_error *err)
{
    if (t == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a type");
    *out = t;
    return MILL_OK;
}

static mill_status import_type(const struct ArrowSchema *in, int depth, const mill_type **out, mill_error *err);

static mill_status import_struct(const struct ArrowSchema *in, int depth, const mill_type **out, mill_error *err)
{
    mill_field *fields;
    mill_status st = MILL_OK;
    bool twice = false;

    if (in->n_children < 0 || in->n_children > STM_TYPE_MAX_FIELDS)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "Arrow struct \"%.64s\" has %lld fields, at most %d are possible", name_of(in),
                         (long long)in->n_children, STM_TYPE_MAX_FIELDS);
    fields = stm_malloc((size_t)in->n_children * sizeof *fields);
    if (fields == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a type");
    for (int64_t i = 0; i < in->n_children && st == MILL_OK; i++) {
        fields[i].name = name_of(in->children[i]);
        st = import_type(in->children[i], depth + 1, &fields[i].type, err);
    }
    if (st == MILL_OK && !stm_type_names_repeat(fields, (int32_t)in->n_children, &twice))
        st = mill_fail(err, MILL_ERR_NOMEM, "out of memory for a type");
    if (st == MILL_OK && twice)
        st = mill_fail(err, MILL_ERR_UNSUPPORTED, "Arrow struct \"%.64s\" has two fields of one name", name_of(in));
    if (st == MILL_OK) st = made(mill_type_struct(fields, (int32_t)in->n_children), out, err);
    stm_free(fields);
    return st;
}

static mill_status import_type(const struct ArrowSchema *in, int depth, const mill_type **out, mill_error *err)
{
    const mill_type *item;
    mill_status st;

    if (in->format == NULL || in->release == NULL)
        return mill_fail(err, MILL_ERR_INVALID, "Arrow schema is released or has no format");
    if (depth > STM_TYPE_MAX_DEPTH) return mill_fail(err, MILL_ERR_UNSUPPORTED, "Arrow type is nested too deeply");
    if (in->dictionary != NULL)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "Arrow column \"%.64s\" is dictionary-encoded", name_of(in));
    for (size_t i = 0; i < sizeof plain_forms / sizeof plain_forms[0]; i++)
        if (strcmp(in->format, plain_forms[i].format) == 0) {
            *out = mill_type_plain(plain_forms[i].id == MILL_UTF8 && says_json(in->metadata) ? MILL_JSON : plain_forms[i].id);
            return MILL_OK;
        }
    if (strcmp(in->format, "+s") == 0) return import_struct(in, depth, out, err);
    if (strcmp(in->format, "+l") != 0 && strcmp(in->format, "+L") != 0 && strncmp(in->format, "+w:", 3) != 0)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "Arrow column \"%.64s\" has the type \"%.32s\", which has no counterpart",
                         name_of(in), in->format);
    if (in->n_children != 1)
        return mill_fail(err, MILL_ERR_INVALID, "Arrow list \"%.64s\" has %lld children", name_of(in), (long long)in->n_children);
    if ((st = import_type(in->children[0], depth + 1, &item, err)) != MILL_OK) return st;
    if (in->format[1] == 'w') {
        char *end;
        const long n = strtol(in->format + 3, &end, 10);

        if (n < 1 || n > INT32_MAX || *end != '\0')
            return mill_fail(err, MILL_ERR_UNSUPPORTED,
                             "Arrow column \"%.64s\" has the type \"%.32s\"; lengths from 1 are possible", name_of(in), in->format);
        return made(mill_type_fixed_list(item, (int32_t)n), out, err);
    }
    return made(mill_type_list(item), out, err);
}

mill_status mill_arrow_import_type(const struct ArrowSchema *in, const mill_type **out, mill_error *err)
{
    return import_type(in, 0, out, err);
}
