/*
 * template: a text made of columns. "{name}: {text}" is cut once into pieces, each some literal bytes and then a column.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stepmill/json.h"
#include "steps/builtin.h"

typedef struct piece {
    size_t begin, bytes; /* literal text */
    int32_t column;      /* index of the input behind it; -1 = none */
} piece;

typedef struct settings {
    char *literal; /* all literal bytes, escapes resolved */
    piece *pieces;
    size_t n;
    bool null_if_any;
} settings;

typedef struct state {
    mill_json_writer *text; /* the row in hand */
    mill_builder *builder;
} state;

static void settings_free(void *p)
{
    settings *s = p;

    free(s->literal);
    free(s->pieces);
    free(s);
}

/* Line and column (in characters) of byte `at` of the template, for messages. */
static void place_in(const char *text, size_t at, int *line, int *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < at; i++) {
        if (text[i] == '\n') ++*line, *column = 1;
        else if (((unsigned char)text[i] & 0xc0) != 0x80) ++*column;
    }
}

static mill_status fault(const mill_config *c, const char *text, size_t at, mill_error *err, mill_status st, const char *what)
{
    int line, column;

    place_in(text, at, &line, &column);
    if (line > 1) return mill_config_fail(c, "template", err, st, "line %d, character %d: %s", line, column, what);
    return mill_config_fail(c, "template", err, st, "character %d: %s", column, what);
}

/* A column's name inside of braces, from text[at] up to `close`. */
static mill_status use_column(const mill_config *c, mill_io *io, const char *text, size_t at, size_t close, int32_t *index,
                              mill_error *err)
{
    char name[256];
    const size_t n = close - at;

    if (n == 0) return fault(c, text, at, err, MILL_ERR_INVALID, "a column's name is expected in the braces; write {{ for a brace");
    if (n >= sizeof name) return fault(c, text, at, err, MILL_ERR_INVALID, "this name is too long for a column");
    memcpy(name, text + at, n);
    name[n] = 0;
    mill_error cause = {0};
    if (mill_io_use(io, 0, name, "any", index, &cause) == MILL_OK) return MILL_OK;
    const mill_status st = fault(c, text, at, err, cause.status, cause.msg);
    if (cause.remedy[0] != 0) mill_error_remedy(err, "%s", cause.remedy);
    return st;
}

static mill_status cut(settings *s, const mill_config *c, mill_io *io, const char *text, mill_error *err)
{
    const size_t n = strlen(text);
    size_t used = 0, begin = 0;

    for (size_t i = 0; i < n; i++) {
        int32_t column = -1;
        if (text[i] == '{' && text[i + 1] != '{') {
            const char *close = strpbrk(text + i + 1, "{}");
            if (close == NULL || *close == '{')
                return fault(c, text, i, err, MILL_ERR_INVALID, "this { has no }; write {{ for a brace");
            const mill_status st = use_column(c, io, text, i + 1, (size_t)(close - text), &column, err);
            if (st != MILL_OK) return st;
            i = (size_t)(close - text);
            s->pieces[s->n++] = (piece){begin, used - begin, column};
            begin = used;
            continue;
        }
        if (text[i] == '}' && text[i + 1] != '}')
            return fault(c, text, i, err, MILL_ERR_INVALID, "this } has no {; write }} for a brace");
        if (text[i] == '{' || text[i] == '}') i++; /* doubled: one of them */
        s->literal[used++] = text[i];
    }
    s->pieces[s->n++] = (piece){begin, used - begin, -1};
    return MILL_OK;
}

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    const char *text = mill_config_text(c, "template");
    settings *s = calloc(1, sizeof *s);
    mill_status st;

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    mill_step_set_state(step, s, settings_free);
    s->literal = malloc(strlen(text) + 1);
    s->pieces = calloc(strlen(text) + 1, sizeof *s->pieces);
    if (s->literal == NULL || s->pieces == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a template");
    s->null_if_any = strcmp(mill_config_text(c, "on_null"), "propagate") == 0;
    if ((st = cut(s, c, io, text, err)) != MILL_OK) return st;
    return mill_io_add(io, mill_config_text(c, "output"), mill_type_plain(MILL_UTF8), NULL, err);
}

static mill_status load(mill_replica *r, mill_error *err)
{
    state *me = calloc(1, sizeof *me);

    if (me == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    mill_replica_set_state(r, me);
    if (mill_json_writer_create(NULL, 0, 0, &me->text) != MILL_OK ||
        mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_UTF8), &me->builder) != MILL_OK)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    return MILL_OK;
}

static void unload(mill_replica *r)
{
    state *me = mill_replica_state(r);

    if (me == NULL) return;
    mill_json_writer_destroy(&me->text);
    mill_builder_destroy(&me->builder);
    free(me);
    mill_replica_set_state(r, NULL);
}

static mill_status append_row(const settings *s, state *me, const mill_batch *in, int64_t row)
{
    size_t bytes;
    mill_status st;

    mill_json_writer_clear(me->text);
    for (size_t i = 0; i < s->n; i++) {
        const piece *p = &s->pieces[i];
        if ((st = mill_json_writer_raw(me->text, s->literal + p->begin, p->bytes)) != MILL_OK) return st;
        if (p->column < 0) continue;
        const mill_column *col = mill_batch_column(in, p->column);
        if (col == NULL || mill_column_is_null(col, row)) {
            if (s->null_if_any) return mill_builder_null(me->builder);
        } else if ((st = mill_json_writer_value(me->text, col, row)) != MILL_OK) {
            return st;
        }
    }
    const char *text = mill_json_writer_data(me->text, &bytes);
    return mill_builder_text(me->builder, bytes > 0 ? text : "", (int64_t)bytes);
}

static mill_status process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    state *me = mill_replica_state(r);
    const int64_t rows = mill_batch_rows(in[0]);
    mill_column *col = NULL;
    mill_batch *batch = NULL;
    mill_status st = MILL_OK;

    (void)n_in;
    mill_builder_truncate(me->builder, 0); /* of a batch that failed */
    for (int64_t row = 0; row < rows && st == MILL_OK; row++) st = append_row(s, me, in[0], row);
    if (st == MILL_OK) st = mill_builder_finish(me->builder, &col);
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), rows, 1, &batch);
    if (st == MILL_OK) st = mill_batch_set_column(batch, 0, &col);
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, NULL, err);
    mill_column_unref(&col);
    mill_batch_destroy(&batch);
    return st == MILL_OK ? MILL_OK : mill_fail(err, st, "no memory for the texts of %lld rows", (long long)rows);
}

static const mill_param params[] = {
    {.name = "template",
     .type = MILL_PARAM_STRING,
     .text = "text with columns in braces: \"{name}: {text}\"; {{ and }} are braces"},
    {.name = "output", .type = MILL_PARAM_STRING, .default_value = "text", .text = "name of the column to write"},
    {.name = "on_null",
     .type = MILL_PARAM_ENUM,
     .default_value = "empty",
     .choices = "empty|propagate",
     .text = "a null value gives no text, or makes the whole result null"},
};

const mill_step_type stm_step_template = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_PER_ROW,
    .name = "template",
    .summary = "a text made of columns",
    .version = "1",
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .configure = configure,
    .load = load,
    .unload = unload,
    .process = process,
};
