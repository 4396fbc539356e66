/* Between Arrow C++ and the step interface. */
#pragma once

#include <arrow/api.h>
#include <arrow/c/abi.h>

#include <string>

#include "stepmill/arrow.h"
#include "stepmill/step.h"

namespace stm_parquet {

/** Our status for Arrow's, with its message. */
mill_status fail(mill_error *err, const arrow::Status &st, const std::string &what);
/** The columns of @p schema as a struct type. */
mill_status import_schema(const arrow::Schema &schema, const mill_type **out, mill_error *err);
/** A batch that shares the columns of @p rows. */
mill_status import_rows(mill_pool *pool, const arrow::RecordBatch &rows, mill_batch **out, mill_error *err);
/** No exception leaves a step: runs @p f, which gives a mill_status, and turns what it throws into an error. */
template <typename F> mill_status guarded(mill_error *err, F f) noexcept
{
    try {
        return f();
    } catch (const std::bad_alloc &) {
        return mill_fail(err, MILL_ERR_NOMEM, "out of memory");
    } catch (const std::exception &e) {
        return mill_fail(err, MILL_ERR_IO, "%s", e.what());
    } catch (...) {
        return mill_fail(err, MILL_ERR_INTERNAL, "an unknown exception");
    }
}

extern const mill_step_type read_type, write_type;

} // namespace stm_parquet
