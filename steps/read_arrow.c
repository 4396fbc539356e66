/*
 * read_arrow: rows of Arrow IPC files, of the file or the stream format. The cursor is (file, byte of a batch in it, rows of that
 * batch that were emitted).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stepmill/arrow_file.h"
#include "steps/builtin.h"

#define CURSOR_VERSION 1u

typedef struct settings {
    const char **paths; /* [n_paths], text of the config */
    size_t n_paths;
    const mill_type *type; /* of every file */
    int32_t *place;        /* [n] columns of the files, in the order emitted */
    int32_t n;
} settings;

typedef struct reader {
    mill_arrow_reader *file; /* at.file, or NULL */
    struct cursor_bytes {
        uint32_t version, file;
        mill_arrow_place place;
    } at;
} reader;

static void settings_free(void *p)
{
    settings *s = p;

    free(s->paths);
    free(s->place);
    free(s);
}

static mill_status look_at(settings *s, const mill_config *c, size_t i, mill_error *err)
{
    mill_arrow_reader *file = NULL;
    mill_error cause = {0};
    char entry[32];
    mill_status st = mill_arrow_reader_open(NULL, s->paths[i], &file, &cause);

    snprintf(entry, sizeof entry, "path[%zu]", i);
    if (st != MILL_OK) {
        mill_config_fail(c, entry, err, st, "%s: %s", s->paths[i], cause.msg);
        if (cause.remedy[0] != 0) mill_error_remedy(err, "%s", cause.remedy);
        return st;
    }
    if (i == 0) s->type = mill_arrow_reader_schema(file);
    else if (mill_arrow_reader_schema(file) != s->type)
        st = mill_config_fail(c, entry, err, MILL_ERR_TYPE, "%s has other columns than %s", s->paths[i], s->paths[0]);
    mill_arrow_reader_close(&file);
    return st;
}

/* Which columns, and that they are there. */
static mill_status choose(settings *s, const mill_config *c, mill_error *err)
{
    const size_t named = mill_config_count(c, "columns");

    s->n = named > 0 ? (int32_t)named : s->type->n_fields;
    s->place = calloc((size_t)s->n + 1, sizeof *s->place);
    if (s->place == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the columns");
    for (int32_t i = 0; i < s->n; i++) {
        char entry[32];

        s->place[i] = named > 0 ? -1 : i;
        for (int32_t k = 0; k < s->type->n_fields && named > 0; k++)
            if (strcmp(s->type->fields[k].name, mill_config_item(c, "columns", (size_t)i)) == 0) s->place[i] = k;
        if (s->place[i] >= 0) continue;
        snprintf(entry, sizeof entry, "columns[%d]", (int)i);
        return mill_config_fail(c, entry, err, MILL_ERR_NOT_FOUND, "%s has no column %s", s->paths[0],
                                mill_config_item(c, "columns", (size_t)i));
    }
    return MILL_OK;
}

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    settings *s = calloc(1, sizeof *s);
    mill_status st = MILL_OK;

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    mill_step_set_state(step, s, settings_free);
    s->n_paths = mill_config_count(c, "path");
    s->paths = calloc(s->n_paths + 1, sizeof *s->paths);
    if (s->paths == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    for (size_t i = 0; i < s->n_paths && st == MILL_OK; i++) {
        s->paths[i] = mill_config_item(c, "path", i);
        st = look_at(s, c, i, err);
    }
    if (st != MILL_OK || s->type == NULL) return st;
    st = choose(s, c, err);
    for (int32_t i = 0; i < s->n && st == MILL_OK; i++) {
        const mill_field *f = &s->type->fields[s->place[i]];
        st = mill_io_add(io, f->name, f->type, NULL, err);
    }
    return st;
}

static mill_status load(mill_replica *r, mill_error *err)
{
    reader *me = calloc(1, sizeof *me);

    if (me == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a reader");
    me->at.version = CURSOR_VERSION;
    mill_replica_set_state(r, me);
    return MILL_OK;
}

static void unload(mill_replica *r)
{
    reader *me = mill_replica_state(r);

    if (me == NULL) return;
    mill_arrow_reader_close(&me->file);
    free(me);
    mill_replica_set_state(r, NULL);
}

static mill_status go_to(reader *me, const mill_cursor *cursor, mill_error *err)
{
    struct cursor_bytes to = {.version = CURSOR_VERSION};

    if (cursor->size > 0) {
        if (cursor->size == sizeof to) memcpy(&to, cursor->bytes, sizeof to);
        if (cursor->size != sizeof to || to.version != CURSOR_VERSION || to.place.offset < 0 || to.place.row < 0)
            return mill_fail(err, MILL_ERR_INVALID, "the cursor is of another version");
    }
    if (memcmp(&to, &me->at, sizeof to) == 0) return MILL_OK;
    mill_arrow_reader_close(&me->file);
    me->at = to;
    return MILL_OK;
}

/* The next rows of any file; NULL behind the last. */
static mill_status next_rows(mill_replica *r, const settings *s, reader *me, int64_t max_rows, mill_batch **out, mill_error *err)
{
    mill_status st = MILL_OK;

    *out = NULL;
    while (me->at.file < s->n_paths) {
        if (me->file == NULL) {
            if ((st = mill_arrow_reader_open(mill_replica_pool(r), s->paths[me->at.file], &me->file, err)) != MILL_OK) return st;
            if (mill_arrow_reader_schema(me->file) != s->type)
                return mill_fail(err, MILL_ERR_TYPE, "%s has other columns than before: it was changed", s->paths[me->at.file]);
            if (me->at.place.offset > 0) mill_arrow_reader_goto(me->file, me->at.place);
        }
        if ((st = mill_arrow_reader_next(me->file, max_rows, out, err)) != MILL_OK) return st;
        me->at.place = mill_arrow_reader_place(me->file);
        if (*out != NULL) return MILL_OK;
        mill_arrow_reader_close(&me->file);
        me->at = (struct cursor_bytes){.version = CURSOR_VERSION, .file = me->at.file + 1};
    }
    return MILL_OK;
}

static mill_status emit(mill_replica *r, const settings *s, const mill_batch *rows, mill_emit *out, mill_error *err)
{
    mill_batch *batch = NULL;
    mill_status st = mill_batch_create(mill_replica_pool(r), mill_batch_rows(rows), s->n, &batch);

    for (int32_t i = 0; i < s->n && st == MILL_OK; i++) {
        mill_column *c = mill_column_ref(mill_batch_column(rows, s->place[i]));
        st = mill_batch_set_column(batch, i, &c);
    }
    st = st == MILL_OK ? mill_emit_batch(out, &batch, NULL, err) : mill_fail(err, st, "no memory for a batch");
    mill_batch_destroy(&batch);
    return st;
}

static mill_status generate(mill_replica *r, int64_t max_rows, mill_cursor *cursor, bool *last, mill_emit *out, mill_error *err)
{
    const settings *s = mill_step_state(mill_replica_step(r));
    reader *me = mill_replica_state(r);
    mill_batch *rows = NULL;
    mill_status st = go_to(me, cursor, err);

    if (st == MILL_OK) st = next_rows(r, s, me, max_rows, &rows, err);
    if (st == MILL_OK && rows != NULL) st = emit(r, s, rows, out, err);
    *last = rows == NULL;
    mill_batch_destroy(&rows);
    if (st != MILL_OK) {
        mill_arrow_reader_close(&me->file);
        me->at = (struct cursor_bytes){0}; /* no cursor's: the next call opens anew */
        return st;
    }
    memcpy(cursor->bytes, &me->at, sizeof me->at);
    cursor->size = sizeof me->at;
    if (me->file != NULL) mill_replica_progress(r, ((double)me->at.file + mill_arrow_reader_share(me->file)) / (double)s->n_paths);
    return MILL_OK;
}

static const mill_param params[] = {
    {.name = "path", .type = MILL_PARAM_PATHS, .text = "file or files to read, globs too; all with the same columns"},
    {.name = "columns",
     .type = MILL_PARAM_STRINGS,
     .flags = MILL_PARAM_OPTIONAL,
     .text = "columns to emit, in this order; without it, all"},
};

const mill_step_type stm_step_read_arrow = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_GENERATOR,
    .name = "read_arrow",
    .summary = "rows from Arrow IPC files (file or stream format)",
    .version = "1",
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .configure = configure,
    .load = load,
    .unload = unload,
    .generate = generate,
};
