/*
 * write_arrow: rows to Arrow IPC files of the file format, one or parts. A file has its own name only once it is complete. Rows are
 * written in batches of a fixed number, whatever batches they come in, so a file can be gone on with behind any of them: the cursor
 * is (part, rows of it that are in such batches, rows of the batch in hand that are, place in the file).
 */
#include <stdlib.h>
#include <string.h>

#include "stepmill/arrow_file.h"
#include "steps/builtin.h"
#include "steps/io/output.h"
#include "steps/io/parts.h"

#define CURSOR_VERSION 1u

typedef struct settings {
    const char *path; /* NULL under `check` */
    const mill_type *type;
    int64_t part_rows; /* 0 = one file */
    int64_t batch_rows;
    bool errors;
} settings;

typedef struct cursor_bytes {
    uint32_t version, part;
    int64_t rows, skip;
    stm_output_place place;
} cursor_bytes;

typedef struct sink {
    stm_output *file;
    mill_arrow_writer *writer;
    mill_builder *messages; /* with `errors: true` */
    uint32_t part;
    int64_t rows, waiting; /* of this part; of those, not in a batch of the file */
    int64_t skip;          /* rows of the next batch that are there already */
    cursor_bytes at;       /* the last place that can be gone on from */
    bool marked, broken;   /* there is one; a write failed half-way: nothing may follow it */
} sink;

static void settings_free(void *p) { free(p); }

static mill_status use_columns(settings *s, mill_field *fields, size_t n, mill_io *io, const mill_config *c, mill_error *err)
{
    for (size_t i = 0; i < n; i++) {
        fields[i] = (mill_field){mill_io_column_name(io, 0, i), mill_io_column_type(io, 0, i)};
        if (s->errors && strcmp(fields[i].name, "_error") == 0)
            return mill_config_fail(c, "path", err, MILL_ERR_INVALID,
                                    "`errors: true` adds a column _error, but there is one already");
        const mill_status st = mill_io_use(io, 0, fields[i].name, "any", NULL, err);
        if (st != MILL_OK) return st;
    }
    if (s->errors) fields[n] = (mill_field){"_error", mill_type_plain(MILL_UTF8)};
    s->type = mill_type_struct(fields, (int32_t)n + s->errors);
    return s->type != NULL ? MILL_OK : mill_fail(err, MILL_ERR_NOMEM, "no memory for the columns");
}

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    settings *s = calloc(1, sizeof *s);
    const size_t n = mill_io_column_count(io, 0);
    mill_field *fields = calloc(n + 1, sizeof *fields);
    mill_status st;

    mill_step_set_state(step, s, settings_free);
    if (s == NULL || fields == NULL) {
        free(fields);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    }
    s->path = mill_config_text(c, "path");
    s->part_rows = mill_config_int(c, "part_rows");
    s->batch_rows = mill_config_int(c, "batch_rows");
    s->errors = mill_config_row_errors(c);
    if (s->path != NULL && (stm_name_ends(s->path, ".gz") || stm_name_ends(s->path, ".zst")))
        st = mill_config_fail(c, "path", err, MILL_ERR_INVALID,
                              "readers of Arrow files do not unpack them: end the name with .arrow");
    else
        st = use_columns(s, fields, n, io, c, err);
    free(fields);
    return st;
}

static const settings *settings_of(const mill_replica *r) { return mill_step_state(mill_replica_step(r)); }

static mill_status load(mill_replica *r, mill_error *err)
{
    sink *me = calloc(1, sizeof *me);

    if (me == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a writer");
    mill_replica_set_state(r, me);
    if (settings_of(r)->errors && mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_UTF8), &me->messages) != MILL_OK)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a writer");
    return MILL_OK;
}

static void unload(mill_replica *r)
{
    sink *me = mill_replica_state(r);

    if (me == NULL) return;
    mill_arrow_writer_destroy(&me->writer);
    stm_output_close(&me->file);
    mill_builder_destroy(&me->messages);
    free(me);
    mill_replica_set_state(r, NULL);
}

static mill_status put(void *user, const void *bytes, size_t n, mill_error *err)
{
    return stm_output_write(((sink *)user)->file, bytes, n, err);
}

static mill_status open_part(mill_replica *r, sink *me, const settings *s, const stm_output_place *from, mill_error *err)
{
    char *name = stm_part_path(s->path, s->part_rows, me->part);
    mill_status st;

    if (name == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the name of a part");
    st = stm_output_open(r, name, from, &me->file, err);
    if (st == MILL_OK && from == NULL) st = mill_arrow_writer_create(mill_replica_pool(r), s->type, put, me, &me->writer, err);
    if (st == MILL_OK && from != NULL)
        st = mill_arrow_writer_resume(mill_replica_pool(r), s->type, stm_output_name(me->file), (int64_t)from->bytes, put, me,
                                      &me->writer, err);
    free(name);
    return st;
}

/* The part in hand is complete. */
static mill_status end_part(mill_replica *r, sink *me, mill_error *err)
{
    mill_status st = mill_arrow_writer_end(me->writer, err);

    if (st == MILL_OK) st = stm_output_complete(r, &me->file, me->rows, err);
    mill_arrow_writer_destroy(&me->writer);
    return st;
}

static mill_status open_sink(mill_replica *r, const mill_cursor *cursor, mill_error *err)
{
    const settings *s = settings_of(r);
    sink *me = mill_replica_state(r);
    cursor_bytes b = {.version = CURSOR_VERSION};
    const bool again = cursor != NULL && cursor->size > 0;

    if (mill_replica_dry_run(r)) return MILL_OK;
    if (s->path == NULL) return mill_fail(err, MILL_ERR_INVALID, "there is no run directory to write to");
    if (again) {
        if (cursor->size == sizeof b) memcpy(&b, cursor->bytes, sizeof b);
        if (cursor->size != sizeof b || b.version != CURSOR_VERSION)
            return mill_fail(err, MILL_ERR_INVALID, "the cursor is of another version");
    }
    me->part = b.part;
    me->rows = b.rows;
    me->skip = b.skip;
    return open_part(r, me, s, again ? &b.place : NULL, err);
}

/* All rows of this part so far are in batches of the file, and so are the first @p skip of the batch in hand. */
static void mark(mill_replica *r, sink *me, int64_t skip)
{
    me->waiting = 0;
    me->at = (cursor_bytes){.version = CURSOR_VERSION, .part = me->part, .rows = me->rows, .skip = skip};
    me->marked = true;
    mill_replica_mark(r);
}

static mill_status write_rows(mill_replica *r, sink *me, const settings *s, const mill_batch *in, mill_error *err)
{
    const int64_t rows = mill_batch_rows(in);
    int64_t at = me->skip;
    mill_status st = MILL_OK;

    if (at > rows) return mill_fail(err, MILL_ERR_DATA, "the batch to go on with has fewer rows than before");
    me->skip = 0;
    while (at < rows && st == MILL_OK) {
        int64_t n = rows - at;

        if (s->part_rows > 0 && me->rows == s->part_rows) {
            if ((st = end_part(r, me, err)) != MILL_OK) break;
            me->part++;
            me->rows = 0;
            if ((st = open_part(r, me, s, NULL, err)) != MILL_OK) break;
            mark(r, me, at);
        }
        if (s->part_rows > 0 && n > s->part_rows - me->rows) n = s->part_rows - me->rows;
        if (n > s->batch_rows - me->waiting) n = s->batch_rows - me->waiting;
        st = mill_arrow_writer_rows(me->writer, in, at, n, err);
        at += n;
        me->rows += n;
        me->waiting += n;
        if (st != MILL_OK || me->waiting < s->batch_rows) continue;
        if ((st = mill_arrow_writer_flush(me->writer, err)) == MILL_OK) mark(r, me, at);
    }
    return st;
}

/* The rows with a column of messages. */
static mill_status with_errors(mill_replica *r, sink *me, const mill_batch *in, mill_batch **out, mill_error *err)
{
    const int32_t n = mill_batch_columns(in);
    const int64_t rows = mill_batch_rows(in);
    mill_column *c = NULL;
    mill_status st = MILL_OK;

    for (int64_t i = 0; i < rows && st == MILL_OK; i++) {
        const char *text = mill_replica_row_error(r, in, i);
        st = text != NULL ? mill_builder_text(me->messages, text, (int64_t)strlen(text)) : mill_builder_null(me->messages);
    }
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), rows, n + 1, out);
    for (int32_t i = 0; i < n && st == MILL_OK; i++) {
        if ((c = mill_batch_column(in, i)) == NULL) continue;
        c = mill_column_ref(c);
        st = mill_batch_set_column(*out, i, &c);
    }
    if (st == MILL_OK) st = mill_builder_finish(me->messages, &c);
    if (st == MILL_OK) st = mill_batch_set_column(*out, n, &c);
    return st == MILL_OK ? st : mill_fail(err, st, "no memory for messages of errors");
}

static mill_status broken(const settings *s, mill_error *err)
{
    return mill_fail(err, MILL_ERR_IO, "%s is incomplete: an earlier write failed", s->path);
}

static mill_status write_batch(mill_replica *r, const mill_batch *in, mill_error *err)
{
    const settings *s = settings_of(r);
    sink *me = mill_replica_state(r);
    mill_batch *more = NULL;
    mill_status st = MILL_OK;

    if (mill_replica_dry_run(r)) return MILL_OK;
    if (me->broken) return broken(s, err);
    me->broken = true; /* until it is written whole */
    if (s->errors) st = with_errors(r, me, in, &more, err);
    if (st == MILL_OK) st = write_rows(r, me, s, more != NULL ? more : in, err);
    mill_batch_destroy(&more);
    me->broken = st != MILL_OK;
    return st;
}

static mill_status sync_sink(mill_replica *r, mill_cursor *cursor, mill_error *err)
{
    sink *me = mill_replica_state(r);
    mill_status st;

    if (mill_replica_dry_run(r)) return MILL_OK;
    if (me->broken) return broken(settings_of(r), err);
    if (!me->marked) return MILL_ERR_AGAIN;
    if ((st = stm_output_sync(me->file, &me->at.place, err)) != MILL_OK) return st; /* rows that wait are not in the file */
    memcpy(cursor->bytes, &me->at, sizeof me->at);
    cursor->size = sizeof me->at;
    return MILL_OK;
}

static mill_status finalize(mill_replica *r, mill_error *err)
{
    const settings *s = settings_of(r);
    sink *me = mill_replica_state(r);
    mill_status st;

    if (mill_replica_dry_run(r)) return MILL_OK;
    if (me->broken) return broken(s, err);
    if ((st = end_part(r, me, err)) != MILL_OK) return st;
    stm_output_tidy(r, s->path);
    return MILL_OK;
}

static const mill_param params[] = {
    {.name = "path", .type = MILL_PARAM_OUT_PATH, .text = "file to write"},
    {.name = "part_rows",
     .type = MILL_PARAM_INT,
     .default_value = "0",
     .min = 0,
     .max = 1e15,
     .text = "rows per file, then NAME-00000.arrow, NAME-00001.arrow, ...; 0 = one file"},
    {.name = "batch_rows",
     .type = MILL_PARAM_INT,
     .default_value = "16384",
     .min = 1,
     .max = 1e9,
     .text = "rows per record batch; so many are held in memory, and written again after a kill"},
};

const mill_step_type stm_step_write_arrow = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_SINK,
    .name = "write_arrow",
    .summary = "rows to Arrow IPC files",
    .version = "1",
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .configure = configure,
    .load = load,
    .unload = unload,
    .open = open_sink,
    .write = write_batch,
    .sync = sync_sink,
    .finalize = finalize,
};
