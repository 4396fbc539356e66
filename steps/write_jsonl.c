/*
 * write_jsonl: rows as JSON lines, one file or parts, compressed by extension. A file has its own name only once it is
 * complete. The cursor is (part, rows in it, place in its file).
 */
#include <stdlib.h>
#include <string.h>

#include "stepmill/json.h"
#include "steps/builtin.h"
#include "steps/io/output.h"
#include "steps/io/parts.h"

#define WRITE_BYTES ((size_t)256 << 10) /* text gathered before it goes to the file */
#define CURSOR_VERSION 3u

typedef struct settings {
    const char *path;   /* NULL under `check` */
    const char **names; /* [n], text of the io */
    int32_t n;
    int64_t part_rows; /* 0 = one file */
    bool errors, omit_nulls;
} settings;

typedef struct sink {
    mill_json_writer *writer;
    stm_output *file;
    uint32_t part;
    int64_t rows; /* in this part */
    bool broken;  /* a write failed half-way: nothing may follow it */
} sink;

typedef struct cursor_bytes {
    uint32_t version, part;
    int64_t rows;
    stm_output_place place;
} cursor_bytes;

static void settings_free(void *p)
{
    settings *s = p;

    for (int32_t i = 0; i < s->n; i++) free((void *)(uintptr_t)s->names[i]);
    free(s->names);
    free(s);
}

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    /* would be written plain under a name that says otherwise */
    static const char *const unknown[] = {".bz2", ".xz", ".lz4", ".zip", ".br"};
    settings *s = calloc(1, sizeof *s);
    const size_t n = mill_io_column_count(io, 0);

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    mill_step_set_state(step, s, settings_free);
    s->path = mill_config_text(c, "path");
    for (size_t i = 0; s->path != NULL && i < sizeof unknown / sizeof *unknown; i++) {
        const size_t bytes = strlen(s->path), end = strlen(unknown[i]);
        if (bytes > end && strcmp(s->path + bytes - end, unknown[i]) == 0)
            return mill_config_fail(c, "path", err, MILL_ERR_UNSUPPORTED,
                                    "%s is not a compression that is written; use .gz or .zst", unknown[i]);
    }
    s->part_rows = mill_config_int(c, "part_rows");
    s->errors = mill_config_row_errors(c);
    s->omit_nulls = mill_config_bool(c, "omit_nulls");
    s->names = calloc(n + 1, sizeof *s->names);
    if (s->names == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the columns");
    for (size_t i = 0; i < n; i++) {
        const char *name = mill_io_column_name(io, 0, i);
        const mill_status st = mill_io_use(io, 0, name, "any", NULL, err);
        if (st != MILL_OK) return st;
        if (s->errors && strcmp(name, "_error") == 0)
            return mill_config_fail(c, "path", err, MILL_ERR_INVALID,
                                    "`errors: true` adds a column _error, but there is one already");
        if ((s->names[i] = strdup(name)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the columns");
        s->n++;
    }
    return MILL_OK;
}

static const settings *settings_of(const mill_replica *r) { return mill_step_state(mill_replica_step(r)); }

static mill_status load(mill_replica *r, mill_error *err)
{
    const settings *s = settings_of(r);
    sink *me = calloc(1, sizeof *me);

    if (me == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a writer");
    mill_replica_set_state(r, me);
    if (mill_json_writer_create(s->names, s->n, s->omit_nulls ? MILL_JSON_OMIT_NULLS : 0, &me->writer) != MILL_OK)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a writer");
    return MILL_OK;
}

static void unload(mill_replica *r)
{
    sink *me = mill_replica_state(r);

    if (me == NULL) return;
    stm_output_close(&me->file);
    mill_json_writer_destroy(&me->writer);
    free(me);
    mill_replica_set_state(r, NULL);
}

static mill_status open_part(mill_replica *r, sink *me, const settings *s, const stm_output_place *from, mill_error *err)
{
    char *name = stm_part_path(s->path, s->part_rows, me->part);

    if (name == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the name of a part");
    const mill_status st = stm_output_open(r, name, from, &me->file, err);
    free(name);
    return st;
}

static mill_status open_sink(mill_replica *r, const mill_cursor *cursor, mill_error *err)
{
    const settings *s = settings_of(r);
    sink *me = mill_replica_state(r);
    cursor_bytes b = {.version = CURSOR_VERSION};

    if (mill_replica_dry_run(r)) return MILL_OK;
    if (s->path == NULL) return mill_fail(err, MILL_ERR_INVALID, "there is no run directory to write to");
    if (cursor != NULL && cursor->size > 0) {
        if (cursor->size == sizeof b) memcpy(&b, cursor->bytes, sizeof b);
        if (cursor->size != sizeof b || b.version != CURSOR_VERSION)
            return mill_fail(err, MILL_ERR_INVALID, "the cursor is of another version");
    }
    me->part = b.part;
    me->rows = b.rows;
    return open_part(r, me, s, cursor != NULL && cursor->size > 0 ? &b.place : NULL, err);
}

static mill_status push(sink *me, size_t at_least, mill_error *err)
{
    size_t bytes;
    const char *text = mill_json_writer_data(me->writer, &bytes);

    if (bytes < at_least) return MILL_OK;
    const mill_status st = stm_output_write(me->file, text, bytes, err);
    mill_json_writer_clear(me->writer);
    if (st != MILL_OK) me->broken = true;
    return st;
}

static mill_status next_part(mill_replica *r, sink *me, const settings *s, mill_error *err)
{
    mill_status st;

    if ((st = push(me, 0, err)) != MILL_OK) return st;
    if ((st = stm_output_complete(r, &me->file, me->rows, err)) == MILL_OK) {
        me->part++;
        me->rows = 0;
        st = open_part(r, me, s, NULL, err);
    }
    if (st != MILL_OK) me->broken = true;
    return st;
}

static mill_status write_row(mill_replica *r, sink *me, const settings *s, const mill_batch *in, int64_t row)
{
    mill_status st = mill_json_writer_row(me->writer, row);

    if (st == MILL_OK && s->errors) st = mill_json_writer_text(me->writer, "_error", mill_replica_row_error(r, in, row));
    return st == MILL_OK ? mill_json_writer_end(me->writer) : st;
}

static mill_status broken(const settings *s, mill_error *err)
{
    return mill_fail(err, MILL_ERR_IO, "%s is incomplete: an earlier write failed", s->path);
}

static mill_status write_batch(mill_replica *r, const mill_batch *in, mill_error *err)
{
    const settings *s = settings_of(r);
    sink *me = mill_replica_state(r);
    const int64_t rows = mill_batch_rows(in);
    mill_status st;

    if (mill_replica_dry_run(r)) return MILL_OK;
    if (me->broken) return broken(s, err);
    mill_json_writer_batch(me->writer, in);
    for (int64_t row = 0; row < rows; row++) {
        if (s->part_rows > 0 && me->rows == s->part_rows && (st = next_part(r, me, s, err)) != MILL_OK) return st;
        if (write_row(r, me, s, in, row) != MILL_OK) {
            me->broken = true;
            return mill_fail(err, MILL_ERR_NOMEM, "no memory for a row of output");
        }
        me->rows++;
        if ((st = push(me, WRITE_BYTES, err)) != MILL_OK) return st;
    }
    return MILL_OK;
}

static mill_status sync_sink(mill_replica *r, mill_cursor *cursor, mill_error *err)
{
    sink *me = mill_replica_state(r);
    cursor_bytes b = {.version = CURSOR_VERSION, .part = me->part, .rows = me->rows};
    mill_status st;

    if (mill_replica_dry_run(r)) return MILL_OK;
    if (me->broken) return broken(settings_of(r), err);
    if ((st = push(me, 0, err)) != MILL_OK || (st = stm_output_sync(me->file, &b.place, err)) != MILL_OK) return st;
    memcpy(cursor->bytes, &b, sizeof b);
    cursor->size = sizeof b;
    return MILL_OK;
}

static mill_status finalize(mill_replica *r, mill_error *err)
{
    const settings *s = settings_of(r);
    sink *me = mill_replica_state(r);
    mill_status st;

    if (mill_replica_dry_run(r)) return MILL_OK;
    if (me->broken) return broken(s, err);
    if ((st = push(me, 0, err)) != MILL_OK || (st = stm_output_complete(r, &me->file, me->rows, err)) != MILL_OK) return st;
    stm_output_tidy(r, s->path);
    return MILL_OK;
}

static const mill_param params[] = {
    {.name = "path", .type = MILL_PARAM_OUT_PATH, .text = "file to write; .gz and .zst are compressed"},
    {.name = "part_rows",
     .type = MILL_PARAM_INT,
     .default_value = "0",
     .min = 0,
     .max = 1e15,
     .text = "rows per file, then NAME-00000.jsonl, NAME-00001.jsonl, ...; 0 = one file"},
    {.name = "omit_nulls", .type = MILL_PARAM_BOOL, .default_value = "false", .text = "leave out keys whose value is null"},
};

const mill_step_type stm_step_write_jsonl = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_SINK,
    .name = "write_jsonl",
    .summary = "rows to JSON lines (plain, gzip, zstd)",
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
