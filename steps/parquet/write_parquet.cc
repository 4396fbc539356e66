/*
 * write_parquet: rows to one Parquet file, or parts of so many rows. A file has its own name only once it is complete. What a file
 * holds stands at its end, so one cannot be gone on with half-way: a run that is resumed writes the part in hand again, from its
 * first row. The cursor is (part, rows of the batch in hand that are in parts before it).
 */
#include <arrow/c/bridge.h>
#include <arrow/io/interfaces.h>
#include <parquet/arrow/writer.h>
#include <parquet/properties.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "steps/io/output.h"
#include "steps/io/parts.h"
#include "steps/parquet/arrow_glue.h"

namespace stm_parquet {
namespace {

struct Settings {
    const char *path = nullptr; /* NULL under `check` */
    int64_t group_rows = 0, part_rows = 0;
    parquet::Compression::type compression = parquet::Compression::ZSTD;
    std::vector<mill_field> fields;
    std::vector<std::string> names;
    const mill_type *type = nullptr;
};

constexpr uint32_t kCursorVersion = 1;

struct CursorBytes {
    uint32_t version, part;
    int64_t skip;
};

/* A file of ours, for Arrow to write to. */
class Stream : public arrow::io::OutputStream {
  public:
    ~Stream() override { stm_output_close(&file); }
    arrow::Status Close() override { return arrow::Status::OK(); } /* what becomes of it is ours to say: commit_part */
    bool closed() const override { return file == nullptr; }
    arrow::Result<int64_t> Tell() const override { return written; }
    arrow::Status Write(const void *data, int64_t n) override
    {
        if (stm_output_write(file, data, static_cast<size_t>(n), &error) != MILL_OK) return arrow::Status::IOError(error.msg);
        written += n;
        return arrow::Status::OK();
    }
    using arrow::io::OutputStream::Write;

    stm_output *file = nullptr;
    int64_t written = 0;
    mill_error error = {};
};

struct Sink {
    const Settings *s = nullptr;
    std::shared_ptr<arrow::Schema> schema;
    std::string name; /* of the part in hand */
    std::shared_ptr<Stream> file;
    std::unique_ptr<parquet::arrow::FileWriter> writer;
    CursorBytes at = {kCursorVersion, 0, 0}; /* where the part in hand begins */
    int64_t rows = 0, group_rows = 0;        /* in this part, in this row group */
    bool marked = false, broken = false;
};

void destroy_settings(void *p) { delete static_cast<Settings *>(p); }

mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    return guarded(err, [&]() -> mill_status {
        Settings *s = new Settings;
        mill_step_set_state(step, s, destroy_settings);
        const std::string packing = mill_config_text(c, "compression");
        s->path = mill_config_text(c, "path");
        if (s->path != nullptr && (stm_name_ends(s->path, ".gz") || stm_name_ends(s->path, ".zst")))
            return mill_config_fail(c, "path", err, MILL_ERR_INVALID,
                                    "Parquet packs its own pages: set `compression`, and end the name with .parquet");
        s->group_rows = mill_config_int(c, "row_group_rows");
        s->part_rows = mill_config_int(c, "part_rows");
        s->compression = packing == "zstd"     ? parquet::Compression::ZSTD
                         : packing == "snappy" ? parquet::Compression::SNAPPY
                                               : parquet::Compression::UNCOMPRESSED;
        const size_t n = mill_io_column_count(io, 0);
        for (size_t i = 0; i < n; i++) s->names.push_back(mill_io_column_name(io, 0, i));
        for (size_t i = 0; i < n; i++) {
            const mill_status st = mill_io_use(io, 0, s->names[i].c_str(), "any", nullptr, err);
            if (st != MILL_OK) return st;
            s->fields.push_back(mill_field{s->names[i].c_str(), mill_io_column_type(io, 0, i)});
        }
        s->type = mill_type_struct(s->fields.data(), static_cast<int32_t>(n));
        if (s->type == nullptr) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the columns");
        return MILL_OK;
    });
}

mill_status load(mill_replica *r, mill_error *err)
{
    return guarded(err, [&]() -> mill_status {
        Sink *me = new Sink;
        mill_replica_set_state(r, me);
        me->s = static_cast<const Settings *>(mill_step_state(mill_replica_step(r)));
        struct ArrowSchema c = {};
        const mill_status st = mill_arrow_export_type(me->s->type, &c, err);
        if (st != MILL_OK) return st;
        auto schema = arrow::ImportSchema(&c); /* releases c */
        if (!schema.ok()) return fail(err, schema.status(), "columns");
        me->schema = *schema;
        return MILL_OK;
    });
}

void unload(mill_replica *r)
{
    delete static_cast<Sink *>(mill_replica_state(r)); /* an open writer is dropped: the temporary file stays incomplete */
    mill_replica_set_state(r, nullptr);
}

mill_status open_part(mill_replica *r, Sink *me, mill_error *err)
{
    const Settings *s = me->s;
    char *name = stm_part_path(s->path, s->part_rows, me->at.part);
    if (name == nullptr) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the name of a part");
    me->name = name;
    free(name);
    me->file = std::make_shared<Stream>();
    const mill_status st = stm_output_open(r, me->name.c_str(), nullptr, &me->file->file, err);
    if (st != MILL_OK) return st;
    auto props = parquet::WriterProperties::Builder().compression(s->compression)->max_row_group_length(s->group_rows)->build();
    auto arrow_props = parquet::ArrowWriterProperties::Builder().store_schema()->build();
    auto writer = parquet::arrow::FileWriter::Open(*me->schema, arrow::default_memory_pool(), me->file, props, arrow_props);
    if (!writer.ok()) return fail(err, writer.status(), me->name);
    me->writer = std::move(*writer);
    me->rows = me->group_rows = 0;
    return MILL_OK;
}

/* What Arrow says of a failure, with our own cause where it is one of the file. */
mill_status cannot_write(Sink *me, const arrow::Status &why, mill_error *err)
{
    if (me->file == nullptr || me->file->error.status == MILL_OK) return fail(err, why, "cannot write " + me->name);
    *err = me->file->error;
    return err->status;
}

mill_status commit_part(mill_replica *r, Sink *me, mill_error *err)
{
    const arrow::Status closed = me->writer->Close();
    me->writer.reset();
    if (!closed.ok()) return cannot_write(me, closed, err);
    const mill_status st = stm_output_complete(r, &me->file->file, me->rows, err);
    me->file.reset();
    return st;
}

mill_status open_sink(mill_replica *r, const mill_cursor *cursor, mill_error *err)
{
    return guarded(err, [&]() -> mill_status {
        Sink *me = static_cast<Sink *>(mill_replica_state(r));
        if (mill_replica_dry_run(r)) return MILL_OK;
        if (me->s->path == nullptr) return mill_fail(err, MILL_ERR_INVALID, "there is no run directory to write to");
        if (cursor != nullptr && cursor->size > 0) {
            if (cursor->size == sizeof me->at) memcpy(&me->at, cursor->bytes, sizeof me->at);
            if (cursor->size != sizeof me->at || me->at.version != kCursorVersion || me->at.skip < 0)
                return mill_fail(err, MILL_ERR_INVALID, "the cursor is of another version");
        }
        return open_part(r, me, err);
    });
}

mill_status broken(const Sink *me, mill_error *err)
{
    return mill_fail(err, MILL_ERR_IO, "%s is incomplete: an earlier write failed", me->name.c_str());
}

mill_status write_rows(mill_replica *r, Sink *me, const std::shared_ptr<arrow::RecordBatch> &rows, int64_t skip, mill_error *err)
{
    for (int64_t at = skip; at < rows->num_rows();) {
        if (me->s->part_rows > 0 && me->rows == me->s->part_rows) {
            mill_status st = commit_part(r, me, err);
            if (st != MILL_OK) return st;
            me->at = {kCursorVersion, me->at.part + 1, at};
            me->marked = true;
            mill_replica_mark(r);
            if ((st = open_part(r, me, err)) != MILL_OK) return st;
        }
        int64_t n = rows->num_rows() - at;
        if (me->s->part_rows > 0) n = std::min(n, me->s->part_rows - me->rows);
        n = std::min(n, me->s->group_rows - me->group_rows);
        const arrow::Status st = me->writer->WriteRecordBatch(*rows->Slice(at, n)); /* into the row group in hand */
        if (!st.ok()) return cannot_write(me, st, err);
        at += n;
        me->rows += n;
        me->group_rows += n;
        if (me->group_rows == me->s->group_rows) {
            const arrow::Status next = me->writer->NewBufferedRowGroup();
            if (!next.ok()) return cannot_write(me, next, err);
            me->group_rows = 0;
        }
    }
    return MILL_OK;
}

mill_status write_batch(mill_replica *r, const mill_batch *in, mill_error *err)
{
    return guarded(err, [&]() -> mill_status {
        Sink *me = static_cast<Sink *>(mill_replica_state(r));
        struct ArrowArray array = {};
        if (mill_replica_dry_run(r)) return MILL_OK;
        if (me->broken || me->writer == nullptr) return broken(me, err);
        const int64_t skip = me->rows == 0 && !me->marked ? me->at.skip : 0; /* gone on with: the first batch was begun before */
        if (skip > mill_batch_rows(in)) return mill_fail(err, MILL_ERR_DATA, "the batch to go on with has fewer rows than before");
        mill_status st = mill_arrow_export_batch(in, me->s->type, &array, err);
        if (st != MILL_OK) return st;
        me->broken = true; /* until it is written whole */
        auto rows = arrow::ImportRecordBatch(&array, me->schema); /* releases array with the last column */
        if (!rows.ok()) return fail(err, rows.status(), "rows");
        st = write_rows(r, me, *rows, skip, err);
        me->broken = st != MILL_OK;
        return st;
    });
}

mill_status sync_sink(mill_replica *r, mill_cursor *cursor, mill_error *err)
{
    const Sink *me = static_cast<Sink *>(mill_replica_state(r));
    if (mill_replica_dry_run(r)) return MILL_OK;
    if (me->broken) return broken(me, err);
    if (!me->marked) return MILL_ERR_AGAIN;
    memcpy(cursor->bytes, &me->at, sizeof me->at); /* parts before it were synced as they were completed */
    cursor->size = sizeof me->at;
    return MILL_OK;
}

mill_status finalize(mill_replica *r, mill_error *err)
{
    return guarded(err, [&]() -> mill_status {
        Sink *me = static_cast<Sink *>(mill_replica_state(r));
        if (mill_replica_dry_run(r)) return MILL_OK;
        if (me->broken || me->writer == nullptr) return broken(me, err);
        const mill_status st = commit_part(r, me, err);
        if (st == MILL_OK) stm_output_tidy(r, me->s->path);
        return st;
    });
}

const mill_param params[] = {
    {"path", MILL_PARAM_OUT_PATH, 0, nullptr, 0, 0, nullptr, "file to write"},
    {"part_rows", MILL_PARAM_INT, 0, "0", 0, 1e15, nullptr,
     "rows per file, then NAME-00000.parquet, NAME-00001.parquet, ...; 0 = one file"},
    {"row_group_rows", MILL_PARAM_INT, 0, "65536", 1, 1e9, nullptr, "rows per row group"},
    {"compression", MILL_PARAM_ENUM, 0, "zstd", 0, 0, "zstd|snappy|none", "of the pages"},
};

mill_step_type describe()
{
    mill_step_type t = {};
    t.struct_size = sizeof t;
    t.abi = MILL_ABI_1;
    t.kind = MILL_SINK;
    t.name = "write_parquet";
    t.summary = "rows to Parquet files";
    t.version = "1";
    t.params = params;
    t.n_params = sizeof params / sizeof params[0];
    t.configure = configure;
    t.load = load;
    t.unload = unload;
    t.open = open_sink;
    t.write = write_batch;
    t.sync = sync_sink;
    t.finalize = finalize;
    return t;
}

} // namespace

const mill_step_type write_type = describe();

} // namespace stm_parquet
