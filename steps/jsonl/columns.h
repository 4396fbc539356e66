/* The columns of a batch in the making, shared by the two ways to read a row. C++. */
#ifndef STM_STEPS_JSONL_COLUMNS_H
#define STM_STEPS_JSONL_COLUMNS_H

#include "steps/jsonl/parse.h"
#include "steps/jsonl/scan.h"

namespace stm_jsonl_scan {

/* A column of the batch in the making. Fixed-width values go straight into pool buffers; text gathers in memory that is
 * kept, and is copied once into a buffer of the right size; nested types go through a builder. */
struct Column {
    char *name = nullptr;
    size_t name_bytes = 0;
    uint64_t word = 0, mask = 0; /* the name and its closing quote, where they fit into eight bytes; mask 0 = not so */
    bool plain = false; /* the name stands in JSON as it is: no quote, backslash or control character */
    const mill_type *type = nullptr;
    int64_t seen = -1; /* the last row that gave a value */
    int64_t nulls = 0;
    uint8_t *valid = nullptr; /* [rows_cap / 8] */
    mill_buffer *offsets = nullptr, *data = nullptr;
    int64_t *off = nullptr;  /* contents of offsets */
    void *values = nullptr;  /* contents of data */
    mill_builder *builder = nullptr;
    Bytes text;

    bool is_text() const { return type->id == MILL_UTF8 || type->id == MILL_JSON; }
    bool is_built() const { return type->id >= MILL_LIST || type->id == MILL_FLOAT16; }
    /** Whether stm_jsonl_quick reads it. */
    bool is_quick() const
    {
        return type->id == MILL_UTF8 || type->id == MILL_BOOL || type->id == MILL_INT64 || type->id == MILL_FLOAT64;
    }
    /** Whether the key at @p key, behind its opening quote, is the name as it stands; @p end of the line, with padding behind
     *  it. */
    bool is_named(const char *key, const char *end) const
    {
        if (mask != 0) {
            uint64_t w;
            memcpy(&w, key, 8);
            return (w & mask) == word;
        }
        return plain && static_cast<size_t>(end - key) > name_bytes && memcmp(key, name, name_bytes) == 0 && key[name_bytes] == '"';
    }
    /** A null in row @p r of a column that has r rows. Only builders can fail. */
    bool put_null(int64_t r)
    {
        valid[r >> 3] &= static_cast<uint8_t>(~(1u << (r & 7)));
        nulls++;
        if (is_built()) return mill_builder_null(builder) == MILL_OK;
        if (is_text()) {
            off[r + 1] = off[r];
            text.size = static_cast<size_t>(off[r]);
        } else if (type->width > 0) {
            memset(static_cast<char *>(values) + r * type->width, 0, static_cast<size_t>(type->width));
        }
        return true;
    }
};

/* Why a row was given up: an error of JSON, a value that does not fit, or memory. */
enum class Out { ok, json, misfit, repeated, memory };

} // namespace stm_jsonl_scan

struct stm_jsonl {
    mill_pool *pool = nullptr;
    stm_jsonl_scan::Column *cols = nullptr;
    int32_t n = 0;      /* columns by name */
    int32_t n_all = 0;  /* with `extra` */
    int64_t max_rows = 0, rows = 0, rows_cap = 0;
    int64_t bytes = 0;
    simdjson::ondemand::parser parser;
    stm_jsonl_scan::Checker checker;
    stm_jsonl_scan::Bytes key;
    simdjson::error_code error = simdjson::SUCCESS;
    /* the line in hand */
    const char *end = nullptr;
    const stm_jsonl_scan::Column *at = nullptr; /* column at fault */
    char found[64] = "";
    /* whether stm_jsonl_quick is worth a try: rows it took less rows it gave up, kept within bounds */
    bool can_quick = false; /* every column is of a type it reads */
    int quick_luck = 0;

    ~stm_jsonl();
};

/**
 * Read the row @p line in one pass where it looks as most do: an object whose keys are the first columns in their order, with
 * values of bool, whole or floating numbers, strings and null. Exact where it says true; false: something else stands there, which
 * need not be a mistake, and columns may hold part of the row (cut_row). 64 bytes behind the line are readable.
 */
bool stm_jsonl_quick(stm_jsonl *p, const char *line, size_t bytes);

#endif
