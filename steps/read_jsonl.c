/*
 * read_jsonl: rows from JSON lines, plain, gzip or zstd.
 *
 * Every line with more than white space is one row. A line that is no JSON, or has a value that does not fit its column,
 * is a row of nulls with an error mark that names file, line and byte. The cursor is (file, byte, lines before it), so
 * that a run goes on behind the last row emitted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "steps/builtin.h"
#include "steps/io/lines.h"
#include "steps/jsonl/parse.h"

#define GUESS_BYTES (1u << 20)
#define BATCH_BYTES (8 << 20) /* a batch of huge lines ends early, so that memory stays bounded */
#define CURSOR_VERSION 1u

typedef struct settings {
    const char **paths; /* [n_paths], text of the config */
    size_t n_paths;
    mill_field *fields; /* [n] */
    int32_t n;
    bool extra;
    size_t max_line;
    stm_jsonl_guess *guess; /* owns the names of guessed fields */
} settings;

typedef struct reader {
    stm_lines *lines;
    stm_jsonl *parser;
} reader;

typedef struct cursor_bytes {
    uint32_t version, file;
    uint64_t offset, line;
} cursor_bytes;

static void settings_free(void *p)
{
    settings *s = p;

    free(s->paths);
    free(s->fields);
    stm_jsonl_guess_destroy(&s->guess);
    free(s);
}

/* Look at the first MiB, but at least at one line. */
static mill_status guess_columns(settings *s, mill_error *err)
{
    stm_lines *lines = NULL;
    mill_status st;
    uint64_t seen = 0;

    if (stm_jsonl_guess_create(&s->guess) != MILL_OK) return mill_fail(err, MILL_ERR_NOMEM, "no memory to look at the columns");
    if ((st = stm_lines_create(s->paths, s->n_paths, s->max_line, &lines, err)) != MILL_OK) return st;
    while (seen < GUESS_BYTES) {
        stm_line line;
        bool end;
        if ((st = stm_lines_next(lines, &line, &end, err)) != MILL_OK) goto out;
        if (end) break;
        if (line.too_long) continue;
        if ((st = stm_jsonl_guess_line(s->guess, line.text, line.bytes)) != MILL_OK) {
            st = mill_fail(err, st, "no memory to look at the columns");
            goto out;
        }
        seen += line.bytes + 1;
    }
    s->n = stm_jsonl_guess_count(s->guess);
    s->fields = calloc((size_t)s->n + 1, sizeof *s->fields);
    if (s->fields == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "no memory for the columns");
        goto out;
    }
    for (int32_t i = 0; i < s->n; i++) s->fields[i] = stm_jsonl_guess_field(s->guess, i);
out:
    stm_lines_destroy(&lines);
    return st;
}

static mill_status declared_columns(settings *s, const mill_config *c, mill_error *err)
{
    s->n = (int32_t)mill_config_count(c, "columns");
    s->fields = calloc((size_t)s->n + 1, sizeof *s->fields);
    if (s->fields == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the columns");
    for (int32_t i = 0; i < s->n; i++) {
        s->fields[i].name = mill_config_key(c, "columns", (size_t)i);
        s->fields[i].type = mill_config_type(c, "columns", (size_t)i);
        if (!stm_jsonl_can_read(s->fields[i].type)) {
            char entry[32];
            snprintf(entry, sizeof entry, "columns[%d]", i);
            return mill_config_fail(c, entry, err, MILL_ERR_UNSUPPORTED, "column %s: binary values cannot stand in JSON; use utf8",
                                    s->fields[i].name);
        }
    }
    return MILL_OK;
}

static bool has_field(const settings *s, const char *name)
{
    for (int32_t i = 0; i < s->n; i++)
        if (strcmp(s->fields[i].name, name) == 0) return true;
    return false;
}

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    settings *s = calloc(1, sizeof *s);
    const char *extra = mill_config_text(c, "extra");
    const bool declared = mill_config_has(c, "columns");
    mill_status st;

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    mill_step_set_state(step, s, settings_free);
    s->n_paths = mill_config_count(c, "path");
    s->max_line = (size_t)mill_config_int(c, "max_line_bytes");
    s->paths = calloc(s->n_paths + 1, sizeof *s->paths);
    if (s->paths == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    for (size_t i = 0; i < s->n_paths; i++) {
        stm_source *probe = NULL; /* what cannot be opened is known now, and not after hours */
        s->paths[i] = mill_config_item(c, "path", i);
        mill_error cause = {0};
        if ((st = stm_source_open(s->paths[i], &probe, &cause)) != MILL_OK) {
            char entry[32];
            snprintf(entry, sizeof entry, "path[%zu]", i);
            return mill_config_fail(c, entry, err, st, "%s", cause.msg);
        }
        stm_source_close(&probe);
    }
    st = declared ? declared_columns(s, c, err) : guess_columns(s, err);
    if (st != MILL_OK) return st;
    s->extra = extra != NULL && extra[0] != 0;
    if (s->extra && has_field(s, extra)) {
        /* Files that this program wrote have such a key. */
        if (declared || strcmp(extra, "extra") != 0 || has_field(s, extra = "_extra"))
            return mill_config_fail(
                c, declared ? "columns" : "extra", err, MILL_ERR_INVALID,
                "column %s is also the name for keys that no column has; set `extra` to another name, or to \"\"", extra);
    }
    for (int32_t i = 0; i < s->n; i++)
        if ((st = mill_io_add(io, s->fields[i].name, s->fields[i].type, NULL, err)) != MILL_OK) return st;
    return s->extra ? mill_io_add(io, extra, mill_type_plain(MILL_JSON), NULL, err) : MILL_OK;
}

static mill_status load(mill_replica *r, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    reader *me = calloc(1, sizeof *me);
    mill_status st;

    if (me == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a reader");
    mill_replica_set_state(r, me);
    if ((st = stm_lines_create(s->paths, s->n_paths, s->max_line, &me->lines, err)) != MILL_OK) return st;
    if ((st = stm_jsonl_create(mill_replica_pool(r), s->fields, s->n, s->extra, &me->parser)) != MILL_OK)
        return mill_fail(err, st, "no memory for a parser");
    return MILL_OK;
}

static void unload(mill_replica *r)
{
    reader *me = mill_replica_state(r);

    if (me == NULL) return;
    stm_jsonl_destroy(&me->parser);
    stm_lines_destroy(&me->lines);
    free(me);
    mill_replica_set_state(r, NULL);
}

static mill_status go_to(reader *me, const settings *s, const mill_cursor *cursor, mill_error *err)
{
    const stm_place_in_files here = stm_lines_place(me->lines);
    stm_place_in_files there = {0};

    if (cursor->size > 0) {
        cursor_bytes b;
        if (cursor->size != sizeof b)
            return mill_fail(err, MILL_ERR_INVALID, "the cursor has %u bytes, not %zu", cursor->size, sizeof b);
        memcpy(&b, cursor->bytes, sizeof b);
        if (b.version != CURSOR_VERSION || b.file > s->n_paths)
            return mill_fail(err, MILL_ERR_INVALID, "the cursor is of another version or of other files");
        there = (stm_place_in_files){.file = b.file, .offset = b.offset, .line = b.line};
    }
    if (here.file != there.file || here.offset != there.offset || here.line != there.line) stm_lines_goto(me->lines, &there);
    return MILL_OK;
}

static mill_status bad_row(const settings *s, const stm_line *line, const stm_jsonl_fault *f, int64_t row, mill_emit *out)
{
    mill_error e = {0};
    const int32_t number = line->number > INT32_MAX ? INT32_MAX : (int32_t)line->number;
    const int32_t byte = f->byte > INT32_MAX ? INT32_MAX : (int32_t)f->byte;

    if (f->column[0])
        (void)mill_fail(&e, MILL_ERR_DATA, "column %s: %s", f->column, f->cause);
    else
        (void)mill_fail(&e, MILL_ERR_DATA, "%s", f->cause);
    e.error_class = MILL_CLASS_DATA;
    memcpy(e.field, f->column, sizeof e.field);
    mill_error_place(&e, s->paths[line->file], number, byte);
    return mill_emit_row_error(out, row, &e);
}

static mill_status generate(mill_replica *r, int64_t max_rows, mill_cursor *cursor, bool *last, mill_emit *out, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    reader *me = mill_replica_state(r);
    mill_batch *batch = NULL;
    bool end = false;
    mill_status st;

    if ((st = go_to(me, s, cursor, err)) != MILL_OK) return st;
    if (stm_jsonl_begin(me->parser, max_rows) != MILL_OK)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a batch of %lld rows", (long long)max_rows);
    while (stm_jsonl_rows(me->parser) < max_rows && stm_jsonl_bytes(me->parser) < BATCH_BYTES) {
        stm_line line;
        stm_jsonl_fault fault; /* filled only when there is one: clearing it for every line would show */
        if ((st = stm_lines_next(me->lines, &line, &end, err)) != MILL_OK) {
            /* What was read before goes out first; the failure comes again with the next call. */
            if (stm_jsonl_rows(me->parser) == 0) return st;
            if (err != NULL) memset(err, 0, sizeof *err);
            break;
        }
        if (end) break;
        if (line.too_long) {
            fault = (stm_jsonl_fault){.byte = 0};
            snprintf(fault.cause, sizeof fault.cause, "the line is longer than max_line_bytes (%zu)", s->max_line);
            stm_jsonl_null_row(me->parser);
            st = MILL_ERR_DATA;
        } else {
            st = stm_jsonl_row(me->parser, line.text, line.bytes, &fault);
        }
        if (st == MILL_ERR_DATA) st = bad_row(s, &line, &fault, stm_jsonl_rows(me->parser) - 1, out);
        if (st != MILL_OK)
            return mill_fail(err, st, "no memory for line %llu of %s", (unsigned long long)line.number, s->paths[line.file]);
    }
    const stm_place_in_files place = stm_lines_place(me->lines);
    const cursor_bytes b = {.version = CURSOR_VERSION, .file = place.file, .offset = place.offset, .line = place.line};
    if (stm_jsonl_rows(me->parser) > 0) {
        if ((st = stm_jsonl_finish(me->parser, &batch, err)) != MILL_OK) return st;
        if ((st = mill_emit_batch(out, &batch, NULL, err)) != MILL_OK) {
            mill_batch_destroy(&batch);
            return st;
        }
    }
    memcpy(cursor->bytes, &b, sizeof b);
    cursor->size = sizeof b;
    mill_replica_progress(r, stm_lines_share(me->lines));
    *last = end;
    return MILL_OK;
}

static const mill_param params[] = {
    {.name = "path",
     .type = MILL_PARAM_PATHS,
     .text = "file or files to read, globs too; .gz and .zst are known by their contents"},
    {.name = "columns",
     .type = MILL_PARAM_COLUMNS,
     .flags = MILL_PARAM_OPTIONAL,
     .text = "name: type; without it, from the first MiB"},
    {.name = "extra",
     .type = MILL_PARAM_STRING,
     .default_value = "extra",
     .text = "json column for keys that no column has; \"\" = leave them out"},
    {.name = "max_line_bytes",
     .type = MILL_PARAM_BYTES,
     .default_value = "64MiB",
     .min = 16,
     .max = 1u << 30,
     .text = "a longer line is a row error"},
};

const mill_step_type stm_step_read_jsonl = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_GENERATOR,
    .name = "read_jsonl",
    .summary = "rows from JSON lines (plain, gzip, zstd)",
    .version = "1",
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .configure = configure,
    .load = load,
    .unload = unload,
    .generate = generate,
};
