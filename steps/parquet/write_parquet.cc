/*
 * write_parquet: rows to one Parquet file, or parts of so many rows. A file has its own name only once it is complete. It cannot
 * be gone on with half-way, so there is no sync: a run that is resumed writes the part in hand again.
 */
#include <arrow/c/bridge.h>
#include <arrow/io/file.h>
#include <parquet/arrow/writer.h>
#include <parquet/properties.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <vector>

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

struct Sink {
    const Settings *s = nullptr;
    std::shared_ptr<arrow::Schema> schema;
    std::string name; /* of the part in hand */
    std::shared_ptr<arrow::io::FileOutputStream> file;
    std::unique_ptr<parquet::arrow::FileWriter> writer;
    uint32_t part = 0;
    int64_t rows = 0, group_rows = 0; /* in this part, in this row group */
    bool broken = false;
};

void destroy_settings(void *p) { delete static_cast<Settings *>(p); }

mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    return guarded(err, [&]() -> mill_status {
        Settings *s = new Settings;
        mill_step_set_state(step, s, destroy_settings);
        const std::string packing = mill_config_text(c, "compression");
        s->path = mill_config_text(c, "path");
        s->group_rows = mill_config_int(c, "row_group_rows");
        s->part_rows = mill_config_int(c, "part_rows");
        s->compression = packing == "zstd" ? parquet::Compression::ZSTD : packing == "snappy" ? parquet::Compression::SNAPPY : parquet::Compression::UNCOMPRESSED;
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

mill_status open_part(Sink *me, mill_error *err)
{
    const Settings *s = me->s;
    me->name = s->path;
    if (s->part_rows > 0) {
        char *name = stm_part_name(s->path, me->part);
        if (name == nullptr) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the name of a part");
        me->name = name;
        free(name);
    }
    std::error_code ec;
    std::filesystem::create_directories(std::filesystem::path(me->name).parent_path(), ec);
    auto file = arrow::io::FileOutputStream::Open(me->name + ".tmp");
    if (!file.ok()) return fail(err, file.status(), "cannot write " + me->name);
    me->file = *file;
    auto props = parquet::WriterProperties::Builder().compression(s->compression)->max_row_group_length(s->group_rows)->build();
    auto arrow_props = parquet::ArrowWriterProperties::Builder().store_schema()->build();
    auto writer = parquet::arrow::FileWriter::Open(*me->schema, arrow::default_memory_pool(), me->file, props, arrow_props);
    if (!writer.ok()) return fail(err, writer.status(), me->name);
    me->writer = std::move(*writer);
    me->rows = me->group_rows = 0;
    return MILL_OK;
}

mill_status commit_part(Sink *me, mill_error *err)
{
    const std::string temporary = me->name + ".tmp";
    arrow::Status st = me->writer->Close();
    if (st.ok()) st = me->file->Flush();
    if (st.ok() && fsync(me->file->file_descriptor()) != 0 && errno != EINVAL) st = arrow::Status::IOError(strerror(errno));
    if (st.ok()) st = me->file->Close();
    me->writer.reset();
    me->file.reset();
    if (!st.ok()) return fail(err, st, "cannot write " + temporary);
    if (rename(temporary.c_str(), me->name.c_str()) != 0)
        return mill_fail(err, MILL_ERR_IO, "cannot rename %s to %s: %s", temporary.c_str(), me->name.c_str(), strerror(errno));
    return MILL_OK;
}

mill_status open_sink(mill_replica *r, const mill_cursor *cursor, mill_error *err)
{
    return guarded(err, [&]() -> mill_status {
        Sink *me = static_cast<Sink *>(mill_replica_state(r));
        if (mill_replica_dry_run(r)) return MILL_OK;
        if (cursor != nullptr && cursor->size > 0) return mill_fail(err, MILL_ERR_INVALID, "a Parquet file cannot be gone on with");
        if (me->s->path == nullptr) return mill_fail(err, MILL_ERR_INVALID, "there is no run directory to write to");
        return open_part(me, err);
    });
}

mill_status broken(const Sink *me, mill_error *err) { return mill_fail(err, MILL_ERR_IO, "%s is incomplete: an earlier write failed", me->name.c_str()); }

mill_status write_rows(Sink *me, const std::shared_ptr<arrow::RecordBatch> &rows, mill_error *err)
{
    for (int64_t at = 0; at < rows->num_rows();) {
        if (me->s->part_rows > 0 && me->rows == me->s->part_rows) {
            mill_status st = commit_part(me, err);
            me->part++;
            if (st == MILL_OK) st = open_part(me, err);
            if (st != MILL_OK) return st;
        }
        int64_t n = rows->num_rows() - at;
        if (me->s->part_rows > 0) n = std::min(n, me->s->part_rows - me->rows);
        n = std::min(n, me->s->group_rows - me->group_rows);
        const arrow::Status st = me->writer->WriteRecordBatch(*rows->Slice(at, n)); /* into the row group in hand */
        if (!st.ok()) return fail(err, st, "cannot write " + me->name);
        at += n;
        me->rows += n;
        me->group_rows += n;
        if (me->group_rows == me->s->group_rows) {
            const arrow::Status next = me->writer->NewBufferedRowGroup();
            if (!next.ok()) return fail(err, next, "cannot write " + me->name);
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
        mill_status st = mill_arrow_export_batch(in, me->s->type, &array, err);
        if (st != MILL_OK) return st;
        me->broken = true; /* until it is written whole */
        auto rows = arrow::ImportRecordBatch(&array, me->schema); /* releases array with the last column */
        if (!rows.ok()) return fail(err, rows.status(), "rows");
        st = write_rows(me, *rows, err);
        me->broken = st != MILL_OK;
        return st;
    });
}

mill_status finalize(mill_replica *r, mill_error *err)
{
    return guarded(err, [&]() -> mill_status {
        Sink *me = static_cast<Sink *>(mill_replica_state(r));
        if (mill_replica_dry_run(r)) return MILL_OK;
        if (me->broken || me->writer == nullptr) return broken(me, err);
        return commit_part(me, err);
    });
}

const mill_param params[] = {
    {"path", MILL_PARAM_OUT_PATH, 0, nullptr, 0, 0, nullptr, "file to write"},
    {"part_rows", MILL_PARAM_INT, 0, "0", 0, 1e15, nullptr, "rows per file, then NAME-00000.parquet, NAME-00001.parquet, ...; 0 = one file"},
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
    t.finalize = finalize;
    return t;
}

} // namespace

const mill_step_type write_type = describe();

} // namespace stm_parquet
