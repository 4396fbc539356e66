/* Rows in and out of text, for tests of steps. */
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

extern "C" {
#include "batch/batch.h"
#include "stepmill/json.h"
#include "steps/jsonl/parse.h"
}

namespace mt {

/** A pool that must be empty at the end. */
class Pool {
public:
    Pool() { EXPECT_EQ(stm_pool_create(0, &p_), MILL_OK); }
    ~Pool()
    {
        EXPECT_EQ(stm_pool_counts(p_).live_bytes, 0);
        stm_pool_release(&p_);
    }
    operator mill_pool *() const { return p_; }

private:
    mill_pool *p_ = nullptr;
};

struct Columns {
    std::vector<std::string> names;
    std::vector<mill_field> fields;

    /** "a: int64", "b: list<utf8>" */
    explicit Columns(std::vector<std::string> specs)
    {
        names.reserve(specs.size());
        for (const std::string &s : specs) {
            const size_t colon = s.find(": ");
            mill_error err = {};
            const mill_type *type = nullptr;
            EXPECT_EQ(mill_type_parse(s.c_str() + colon + 2, &type, &err), MILL_OK) << err.msg;
            names.push_back(s.substr(0, colon));
            fields.push_back(mill_field{names.back().c_str(), type});
        }
    }
};

/** A line with the padding that the parser needs. */
inline std::string padded(const std::string &line) { return line + std::string(64, 'x'); }

/** A batch as JSON lines. */
inline std::string to_json(const mill_batch *batch, const std::vector<std::string> &names, uint32_t flags = 0)
{
    std::vector<const char *> p;
    for (const std::string &n : names) p.push_back(n.c_str());
    mill_json_writer *w = nullptr;
    EXPECT_EQ(mill_json_writer_create(p.data(), static_cast<int32_t>(p.size()), flags, &w), MILL_OK);
    mill_json_writer_batch(w, batch);
    for (int64_t r = 0; r < mill_batch_rows(batch); r++) {
        EXPECT_EQ(mill_json_writer_row(w, r), MILL_OK);
        EXPECT_EQ(mill_json_writer_end(w), MILL_OK);
    }
    size_t n = 0;
    const char *text = mill_json_writer_data(w, &n);
    std::string out(text, n);
    mill_json_writer_destroy(&w);
    return out;
}

/** Lines of JSON as a batch; all must be good. */
inline mill_batch *from_json(mill_pool *pool, const Columns &c, const std::vector<std::string> &lines)
{
    stm_jsonl *p = nullptr;
    mill_batch *batch = nullptr;
    mill_error err = {};
    EXPECT_EQ(stm_jsonl_create(pool, c.fields.data(), static_cast<int32_t>(c.fields.size()), false, &p), MILL_OK);
    EXPECT_EQ(stm_jsonl_begin(p, static_cast<int64_t>(lines.size()) + 1), MILL_OK);
    for (const std::string &line : lines) {
        stm_jsonl_fault f = {};
        EXPECT_EQ(stm_jsonl_row(p, padded(line).c_str(), line.size(), &f), MILL_OK) << line << ": " << f.cause;
    }
    EXPECT_EQ(stm_jsonl_finish(p, &batch, &err), MILL_OK) << err.msg;
    stm_jsonl_destroy(&p);
    return batch;
}

} // namespace mt
