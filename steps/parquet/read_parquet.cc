/*
 * read_parquet: rows of Parquet files, one row group after the other, through a buffered stream, so that memory is bounded by
 * pages and batches and not by row groups. The cursor is (file, row group, rows of it that were emitted).
 */
#include <arrow/compute/cast.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/schema.h>
#include <parquet/file_reader.h>
#include <parquet/properties.h>

#include <cstring>
#include <memory>
#include <vector>

#include "steps/io/regular.h"
#include "steps/parquet/arrow_glue.h"

namespace stm_parquet {
namespace {

constexpr uint32_t kCursorVersion = 1;
constexpr int64_t kStreamBytes = 1 << 20; /* per column, of a row group in hand */

struct Settings {
    std::vector<std::string> paths;
    std::vector<std::string> columns; /* names in the file, in the order emitted */
    const mill_type *type = nullptr;  /* struct of them */
};

struct CursorBytes {
    uint32_t version, file, group, unused;
    int64_t row;
};

struct Reader {
    const Settings *s = nullptr;
    std::unique_ptr<parquet::arrow::FileReader> file;
    std::unique_ptr<arrow::RecordBatchReader> group_rows;
    std::shared_ptr<arrow::RecordBatch> rows; /* read, from `used` on not emitted */
    int64_t used = 0;
    CursorBytes at = {kCursorVersion, 0, 0, 0, 0};
};

mill_status open_file(const std::string &path, int64_t batch_rows, std::unique_ptr<parquet::arrow::FileReader> *out,
                      mill_error *err)
{
    int fd = -1;
    const mill_status regular = stm_regular_open(path.c_str(), &fd, nullptr, err);
    if (regular != MILL_OK) return regular;
    auto opened = arrow::io::ReadableFile::Open(fd); /* the descriptor is its own from here on */
    if (!opened.ok()) return fail(err, opened.status(), "cannot open " + path);
    parquet::ReaderProperties props;
    props.enable_buffered_stream();
    props.set_buffer_size(kStreamBytes);
    parquet::ArrowReaderProperties arrow_props(false);
    arrow_props.set_pre_buffer(false);
    if (batch_rows > 0) arrow_props.set_batch_size(batch_rows);
    parquet::arrow::FileReaderBuilder builder;
    arrow::Status st = builder.Open(*opened, props);
    if (!st.ok()) return fail(err, st, path);
    builder.properties(arrow_props);
    st = builder.Build(out);
    return st.ok() ? MILL_OK : fail(err, st, path);
}

/* Places of the wanted top-level columns among the leaves of the file, in order. */
mill_status leaves(parquet::arrow::FileReader &f, const std::vector<std::string> &columns, std::vector<int> *out, mill_error *err)
{
    const parquet::SchemaDescriptor &schema = *f.parquet_reader()->metadata()->schema();
    for (const std::string &name : columns) {
        const size_t before = out->size();
        for (int i = 0; i < schema.num_columns(); i++)
            if (schema.GetColumnRoot(i)->name() == name) out->push_back(i);
        if (out->size() == before) return mill_fail(err, MILL_ERR_NOT_FOUND, "there is no column \"%s\"", name.c_str());
    }
    return MILL_OK;
}

/* What a column is read as: itself, the values behind a dictionary, or the text of what no type of ours can hold exactly. */
std::shared_ptr<arrow::DataType> read_as(const std::shared_ptr<arrow::DataType> &type)
{
    switch (type->id()) {
    case arrow::Type::DICTIONARY: return read_as(static_cast<const arrow::DictionaryType &>(*type).value_type());
    case arrow::Type::NA:
    case arrow::Type::UINT64:
    case arrow::Type::DATE32:
    case arrow::Type::DATE64:
    case arrow::Type::TIMESTAMP:
    case arrow::Type::TIME32:
    case arrow::Type::TIME64:
    case arrow::Type::DECIMAL128:
    case arrow::Type::DECIMAL256: return arrow::utf8();
    default: return type;
    }
}

/* The wanted columns of a file as a struct type. */
mill_status columns_of(parquet::arrow::FileReader &f, const std::vector<std::string> &columns, const mill_type **type,
                       mill_error *err)
{
    std::shared_ptr<arrow::Schema> schema;
    const arrow::Status st = f.GetSchema(&schema);
    if (!st.ok()) return fail(err, st, "columns");
    std::vector<std::shared_ptr<arrow::Field>> fields;
    for (const std::string &name : columns) {
        auto field = schema->GetFieldByName(name);
        if (schema->GetAllFieldIndices(name).size() > 1)
            return mill_fail(err, MILL_ERR_INVALID, "there are several columns %s", name.c_str());
        if (field == nullptr) {
            std::string all;
            for (const std::string &there : schema->field_names()) all += (all.empty() ? "" : ", ") + there;
            mill_fail(err, MILL_ERR_NOT_FOUND, "there is no column \"%s\"", name.c_str());
            mill_error_remedy(err, "It has %.*s%s", 300, all.c_str(), all.size() > 300 ? " ..." : "");
            return MILL_ERR_NOT_FOUND;
        }
        fields.push_back(field->WithType(read_as(field->type())));
    }
    const mill_status status = import_schema(arrow::Schema(fields), type, err);
    if (status == MILL_ERR_UNSUPPORTED || status == MILL_ERR_TYPE) mill_error_remedy(err, "Name the other columns in `columns`");
    return status;
}

void destroy_settings(void *p) { delete static_cast<Settings *>(p); }

mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    return guarded(err, [&]() -> mill_status {
        Settings *s = new Settings;
        mill_step_set_state(step, s, destroy_settings);
        for (size_t i = 0; i < mill_config_count(c, "path"); i++) s->paths.push_back(mill_config_item(c, "path", i));
        for (size_t i = 0; i < mill_config_count(c, "columns"); i++) s->columns.push_back(mill_config_item(c, "columns", i));
        for (size_t i = 0; i < s->paths.size(); i++) {
            std::unique_ptr<parquet::arrow::FileReader> f;
            const mill_type *type = nullptr;
            mill_error cause = {};
            mill_status st = open_file(s->paths[i], 0, &f, &cause);
            const std::string entry = "path[" + std::to_string(i) + "]";
            if (st != MILL_OK) return mill_config_fail(c, entry.c_str(), err, st, "%s", cause.msg);
            if (i == 0 && s->columns.empty()) {
                std::shared_ptr<arrow::Schema> schema;
                const arrow::Status got = f->GetSchema(&schema);
                if (!got.ok()) return fail(err, got, s->paths[i]);
                s->columns = schema->field_names();
            }
            st = columns_of(*f, s->columns, &type, &cause);
            if (st != MILL_OK) {
                mill_config_fail(c, mill_config_count(c, "columns") ? "columns" : entry.c_str(), err, st, "%s: %s",
                                 s->paths[i].c_str(), cause.msg);
                if (cause.remedy[0] != 0) mill_error_remedy(err, "%s", cause.remedy);
                return st;
            }
            if (i == 0) s->type = type;
            else if (type != s->type)
                return mill_config_fail(c, entry.c_str(), err, MILL_ERR_TYPE, "%s has columns of other types than %s",
                                        s->paths[i].c_str(), s->paths[0].c_str());
        }
        if (s->type == nullptr) return MILL_OK;
        for (int32_t i = 0; i < s->type->n_fields; i++) {
            const mill_status st = mill_io_add(io, s->type->fields[i].name, s->type->fields[i].type, nullptr, err);
            if (st != MILL_OK) return st;
        }
        return MILL_OK;
    });
}

mill_status load(mill_replica *r, mill_error *err)
{
    return guarded(err, [&]() -> mill_status {
        Reader *me = new Reader;
        me->s = static_cast<const Settings *>(mill_step_state(mill_replica_step(r)));
        mill_replica_set_state(r, me);
        return MILL_OK;
    });
}

void unload(mill_replica *r)
{
    delete static_cast<Reader *>(mill_replica_state(r));
    mill_replica_set_state(r, nullptr);
}

/* Makes me->rows the next rows that are not emitted; *end: there are none. */
mill_status next_rows(Reader *me, int64_t max_rows, bool *end, mill_error *err)
{
    for (;;) {
        if (me->rows != nullptr && me->used < me->rows->num_rows()) return MILL_OK;
        me->rows.reset();
        me->used = 0;
        if (me->at.file >= me->s->paths.size()) {
            *end = true;
            return MILL_OK;
        }
        const std::string &path = me->s->paths[me->at.file];
        if (me->file == nullptr) {
            const mill_status st = open_file(path, max_rows, &me->file, err);
            if (st != MILL_OK) return st;
        }
        if (me->at.group >= static_cast<uint32_t>(me->file->num_row_groups())) {
            me->file.reset();
            me->at = {kCursorVersion, me->at.file + 1, 0, 0, 0};
            continue;
        }
        int64_t skip = 0;
        if (me->group_rows == nullptr) {
            std::vector<int> columns;
            mill_status st = leaves(*me->file, me->s->columns, &columns, err);
            if (st != MILL_OK) return st;
            auto made = me->file->GetRecordBatchReader({static_cast<int>(me->at.group)}, columns);
            if (!made.ok()) return fail(err, made.status(), path);
            me->group_rows = std::move(*made);
            skip = me->at.row;
        }
        do { /* rows that were emitted before */
            const arrow::Status st = me->group_rows->ReadNext(&me->rows);
            if (!st.ok()) return fail(err, st, path);
            if (me->rows == nullptr) break;
            me->used = std::min(skip, me->rows->num_rows());
            skip -= me->used;
        } while (skip > 0);
        if (me->rows == nullptr) {
            if (skip > 0) return mill_fail(err, MILL_ERR_INVALID, "%s has fewer rows than before: it was changed", path.c_str());
            me->group_rows.reset();
            me->at = {kCursorVersion, me->at.file, me->at.group + 1, 0, 0};
        }
    }
}

/* The file may have its columns in another order than asked for. */
arrow::Result<std::shared_ptr<arrow::RecordBatch>> arranged(const Reader *me, const std::shared_ptr<arrow::RecordBatch> &rows)
{
    std::vector<int> places;
    for (const std::string &name : me->s->columns) places.push_back(rows->schema()->GetFieldIndex(name));
    ARROW_ASSIGN_OR_RAISE(auto picked, rows->SelectColumns(places));
    for (int i = 0; i < picked->num_columns(); i++) {
        const auto field = picked->schema()->field(i);
        const auto wanted = read_as(field->type());
        if (wanted->Equals(field->type())) continue;
        ARROW_ASSIGN_OR_RAISE(auto cast, arrow::compute::Cast(*picked->column(i), wanted));
        ARROW_ASSIGN_OR_RAISE(picked, picked->SetColumn(i, field->WithType(wanted), cast));
    }
    return picked;
}

/* Of all files, each counted alike. */
double share_read(const Reader *me)
{
    const auto meta = me->file->parquet_reader()->metadata();
    int64_t before = me->at.row;
    for (uint32_t g = 0; g < me->at.group; g++) before += meta->RowGroup(static_cast<int>(g))->num_rows();
    const double here = meta->num_rows() > 0 ? static_cast<double>(before) / static_cast<double>(meta->num_rows()) : 1.0;
    return (static_cast<double>(me->at.file) + std::min(here, 1.0)) / static_cast<double>(me->s->paths.size());
}

mill_status generate(mill_replica *r, int64_t max_rows, mill_cursor *cursor, bool *last, mill_emit *out, mill_error *err)
{
    return guarded(err, [&]() -> mill_status {
        Reader *me = static_cast<Reader *>(mill_replica_state(r));
        CursorBytes b = {kCursorVersion, 0, 0, 0, 0};
        bool end = false;
        if (cursor->size > 0) {
            if (cursor->size != sizeof b) return mill_fail(err, MILL_ERR_INVALID, "the cursor is of another version");
            memcpy(&b, cursor->bytes, sizeof b);
            if (b.version != kCursorVersion) return mill_fail(err, MILL_ERR_INVALID, "the cursor is of another version");
        }
        if (memcmp(&b, &me->at, sizeof b) != 0) {
            me->rows.reset();
            me->group_rows.reset();
            me->file.reset();
            me->used = 0;
            me->at = b;
        }
        mill_status st = next_rows(me, max_rows, &end, err);
        if (st != MILL_OK) return st;
        if (!end) {
            mill_batch *batch = nullptr;
            const int64_t n = std::min(max_rows, me->rows->num_rows() - me->used);
            auto cut = arranged(me, me->rows->Slice(me->used, n));
            if (!cut.ok()) return fail(err, cut.status(), "rows");
            st = import_rows(mill_replica_pool(r), **cut, &batch, err);
            if (st == MILL_OK) st = mill_emit_batch(out, &batch, nullptr, err);
            mill_batch_destroy(&batch);
            if (st != MILL_OK) return st;
            me->used += n;
            me->at.row += n;
            mill_replica_progress(r, share_read(me));
        }
        memcpy(cursor->bytes, &me->at, sizeof me->at);
        cursor->size = sizeof me->at;
        *last = end;
        return MILL_OK;
    });
}

const mill_param params[] = {
    {"path", MILL_PARAM_PATHS, 0, nullptr, 0, 0, nullptr, "file or files to read, globs too; all with the same columns"},
    {"columns", MILL_PARAM_STRINGS, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr,
     "columns to read; without it, all. Dates, times, decimals and uint64 become text"},
};

mill_step_type describe()
{
    mill_step_type t = {};
    t.struct_size = sizeof t;
    t.abi = MILL_ABI_1;
    t.kind = MILL_GENERATOR;
    t.name = "read_parquet";
    t.summary = "rows from Parquet files";
    t.version = "1";
    t.params = params;
    t.n_params = sizeof params / sizeof params[0];
    t.configure = configure;
    t.load = load;
    t.unload = unload;
    t.generate = generate;
    return t;
}

} // namespace

const mill_step_type read_type = describe();

} // namespace stm_parquet
