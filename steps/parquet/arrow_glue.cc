#include "steps/parquet/arrow_glue.h"

#include <arrow/c/bridge.h>

namespace stm_parquet {

mill_status fail(mill_error *err, const arrow::Status &st, const std::string &what)
{
    const mill_status code = st.IsOutOfMemory()      ? MILL_ERR_NOMEM
                             : st.IsIOError()        ? MILL_ERR_IO
                             : st.IsNotImplemented() ? MILL_ERR_UNSUPPORTED
                                                     : MILL_ERR_PARSE;
    std::string text = st.message();
    for (char &c : text)
        if (c == '\n') c = ' ';
    return mill_fail(err, code, "%s: %s", what.c_str(), text.c_str());
}

mill_status import_schema(const arrow::Schema &schema, const mill_type **out, mill_error *err)
{
    struct ArrowSchema c = {};
    const arrow::Status st = arrow::ExportSchema(schema, &c);
    if (!st.ok()) return fail(err, st, "columns");
    const mill_status r = mill_arrow_import_type(&c, out, err);
    if (c.release != nullptr) c.release(&c);
    return r;
}

mill_status import_rows(mill_pool *pool, const arrow::RecordBatch &rows, mill_batch **out, mill_error *err)
{
    struct ArrowSchema schema = {};
    struct ArrowArray array = {};
    const arrow::Status st = arrow::ExportRecordBatch(rows, &array, &schema);
    if (!st.ok()) return fail(err, st, "rows");
    const mill_status r = mill_arrow_import_batch(pool, &schema, &array, out, err);
    if (array.release != nullptr) array.release(&array);
    if (schema.release != nullptr) schema.release(&schema);
    return r;
}

} // namespace stm_parquet

extern "C" MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);
const mill_plugin *mill_plugin_v1(void)
{
    static const mill_step_type *const types[] = {&stm_parquet::read_type, &stm_parquet::write_type};
    static const mill_plugin plugin = {sizeof(mill_plugin), MILL_ABI_1, "stepmill-parquet", MILL_VERSION, types, 2};
    return &plugin;
}
