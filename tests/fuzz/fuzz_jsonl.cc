/*
 * JSON lines: any bytes as a file. Every line that is not blank is one row, good or bad; a row that was let through is valid
 * JSON to simdjson's own full parser; the quick way and simdjson's read the same; written again it reads back as the same row, byte
 * for byte.
 */
#include <simdjson.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "steps/jsonl/walk.h"

extern "C" {
#include "batch/batch.h"
#include "stepmill/json.h"
#include "steps/io/lines.h"
#include "steps/jsonl/parse.h"
}

namespace {

void require(bool ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "fuzz_jsonl: %s\n", what);
    abort();
}

/* Lines that are more than blanks, the plain way. */
size_t count_lines(const char *p, size_t n)
{
    size_t lines = 0, i = 0;
    if (n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) i = 3;
    while (i < n) {
        bool blank = true;
        for (; i < n && p[i] != '\n'; i++) blank = blank && (p[i] == ' ' || p[i] == '\t' || p[i] == '\r');
        lines += !blank;
        i++;
    }
    return lines;
}

std::string as_json(const mill_batch *b, const std::vector<const char *> &names)
{
    mill_json_writer *w = nullptr;
    require(mill_json_writer_create(names.data(), static_cast<int32_t>(names.size()), 0, &w) == MILL_OK, "no writer");
    mill_json_writer_batch(w, b);
    for (int64_t r = 0; r < mill_batch_rows(b); r++)
        require(mill_json_writer_row(w, r) == MILL_OK && mill_json_writer_end(w) == MILL_OK, "row not written");
    size_t n = 0;
    const char *text = mill_json_writer_data(w, &n);
    std::string out(n ? text : "", n);
    mill_json_writer_destroy(&w);
    return out;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    /* The first byte chooses: columns from the lines, or given ones of every kind, or those of them that have a quick way. */
    const bool guessed = data[0] & 1;
    const size_t n_given = data[0] & 2 ? 4 : 10;
    const char *bytes = reinterpret_cast<const char *>(data) + 1;
    size--;
    /* Compressed input is the business of other libraries. */
    if (size >= 2 && ((data[1] == 0x1f && data[2] == 0x8b) || data[1] == 0x28 || (data[1] & 0xf0) == 0x50)) return 0;

    const int fd = memfd_create("fuzz", MFD_CLOEXEC);
    require(fd >= 0 && write(fd, bytes, size) == static_cast<ssize_t>(size), "memfd");
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    const char *paths[] = {path.c_str()};
    mill_error err = {};
    stm_lines *lines = nullptr;
    stm_jsonl_guess *guess = nullptr;
    stm_line line;
    bool end = false;

    require(stm_jsonl_guess_create(&guess) == MILL_OK && stm_lines_create(paths, 1, 4096, &lines, &err) == MILL_OK, "set up");
    while (stm_lines_next(lines, &line, &end, &err) == MILL_OK && !end)
        if (!line.too_long) require(stm_jsonl_guess_line(guess, line.text, line.bytes) == MILL_OK, "guess");
    require(err.status == MILL_OK, err.msg);

    std::vector<mill_field> fields;
    static const char *const given[][2] = {{"a", "int64"},
                                           {"b", "utf8"},
                                           {"c", "float64"},
                                           {"d", "bool"},
                                           {"e", "json"},
                                           {"f", "list<int32>"},
                                           {"g", "fixed_list<float32>[2]"},
                                           {"h", "struct<x: utf8, y: list<utf8>>"},
                                           {"i", "float16"},
                                           {"j", "int32"}};
    if (guessed) {
        for (int32_t i = 0; i < stm_jsonl_guess_count(guess); i++) fields.push_back(stm_jsonl_guess_field(guess, i));
    } else {
        for (size_t i = 0; i < n_given; i++) {
            const mill_type *type = nullptr;
            require(mill_type_parse(given[i][1], &type, &err) == MILL_OK, "type");
            fields.push_back(mill_field{given[i][0], type});
        }
    }
    bool extra = true; /* a column of that name cannot be told apart when read again */
    for (const mill_field &f : fields) extra = extra && strcmp(f.name, "extra!") != 0;

    mill_pool *pool = nullptr;
    stm_jsonl *parser = nullptr, *slow = nullptr;
    mill_batch *batch = nullptr, *same = nullptr, *again = nullptr;
    const stm_place_in_files start = {0, 0, 0};
    const size_t expected = count_lines(bytes, size);
    require(stm_pool_create(0, &pool) == MILL_OK, "pool");
    require(stm_jsonl_create(pool, fields.data(), static_cast<int32_t>(fields.size()), extra, &parser) == MILL_OK, "parser");
    require(stm_jsonl_create(pool, fields.data(), static_cast<int32_t>(fields.size()), extra, &slow) == MILL_OK, "parser");
    stm_jsonl_no_quick(slow);
    require(stm_jsonl_begin(parser, static_cast<int64_t>(expected) + 1) == MILL_OK, "begin");
    require(stm_jsonl_begin(slow, static_cast<int64_t>(expected) + 1) == MILL_OK, "begin");
    stm_lines_goto(lines, &start);
    simdjson::dom::parser dom;
    for (end = false; stm_lines_next(lines, &line, &end, &err) == MILL_OK && !end;) {
        stm_jsonl_fault fault = {};
        if (line.too_long) {
            stm_jsonl_null_row(parser);
            stm_jsonl_null_row(slow);
            continue;
        }
        const mill_status st = stm_jsonl_row(parser, line.text, line.bytes, &fault);
        require(st == MILL_OK || st == MILL_ERR_DATA, "status of a row");
        stm_jsonl_fault other = {};
        require(stm_jsonl_row(slow, line.text, line.bytes, &other) == st, "the quick way and the other disagree about a row");
        require(fault.byte == other.byte && strcmp(fault.cause, other.cause) == 0,
                "the quick way and the other give different causes");
        require(st == MILL_OK || fault.cause[0] != 0, "a bad row without a cause");
        require(st == MILL_OK || fault.byte >= 1, "a bad row without a place");
        require(fault.byte >= 0 && fault.byte <= static_cast<int64_t>(line.bytes) + 1, "a byte outside of the line");
        if (st == MILL_OK) {
            const auto e = dom.parse(line.text, line.bytes).error();
            require(e == simdjson::SUCCESS || e == simdjson::NUMBER_ERROR, "a row that is not JSON was let through");
            require(stm_jsonl_scan::walk(line.text, line.bytes, line.text + line.bytes).fault == nullptr, "a good row has a fault");
        }
    }
    require(stm_jsonl_rows(parser) == static_cast<int64_t>(expected), "a row was lost or made up");
    require(stm_jsonl_finish(parser, &batch, &err) == MILL_OK, err.msg);
    require(stm_jsonl_finish(slow, &same, &err) == MILL_OK, err.msg);
    for (int32_t i = 0; i < mill_batch_columns(batch); i++)
        require(stm_column_validate(mill_batch_column(batch, i), &err) == MILL_OK, err.msg);

    /* Out and in again. */
    std::vector<const char *> names;
    for (const mill_field &f : fields) names.push_back(f.name);
    if (extra) names.push_back("extra!");
    require(as_json(batch, names) == as_json(same, names), "the quick way and the other read different rows");
    if (extra) names.pop_back();
    const std::string once = as_json(batch, names) + std::string(64, ' ');
    stm_jsonl *second = nullptr;
    require(stm_jsonl_create(pool, fields.data(), static_cast<int32_t>(fields.size()), false, &second) == MILL_OK, "parser");
    require(stm_jsonl_begin(second, static_cast<int64_t>(expected) + 1) == MILL_OK, "begin");
    for (size_t at = 0; at + 64 < once.size();) {
        const size_t nl = once.find('\n', at);
        stm_jsonl_fault fault = {};
        require(stm_jsonl_row(second, once.data() + at, nl - at, &fault) == MILL_OK, "what was written cannot be read");
        at = nl + 1;
    }
    require(stm_jsonl_finish(second, &again, &err) == MILL_OK, err.msg);
    require(as_json(again, names) + std::string(64, ' ') == once, "written and read, a row has changed");

    mill_batch_destroy(&again);
    mill_batch_destroy(&batch);
    mill_batch_destroy(&same);
    stm_jsonl_destroy(&slow);
    stm_jsonl_destroy(&second);
    stm_jsonl_destroy(&parser);
    require(stm_pool_counts(pool).live_bytes == 0, "memory of the pool is lost");
    stm_pool_release(&pool);
    stm_lines_destroy(&lines);
    stm_jsonl_guess_destroy(&guess);
    close(fd);
    return 0;
}
