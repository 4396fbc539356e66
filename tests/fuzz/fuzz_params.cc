/*
 * Parameters of a step: arbitrary trees of values go through stm_step_create of a type that has one parameter of each
 * type. The input is a line of parameter YAML, or, where it starts with a NUL byte, a tree written byte by byte, which
 * reaches what no parser would give (no text, no key, any bytes).
 */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

extern "C" {
#include "core/alloc.h"
#include "plugin/step.h"
#include "plugin/value.h"
}

namespace {

const mill_param kParams[] = {
    {"flag", MILL_PARAM_BOOL, 0, "false", 0, 0, nullptr, "a flag"},
    {"count", MILL_PARAM_INT, 0, "3", 1, 64, nullptr, "an integer"},
    {"share", MILL_PARAM_FLOAT, 0, "0.5", 0, 1, nullptr, "a number"},
    {"word", MILL_PARAM_STRING, 0, "x", 0, 0, nullptr, "text"},
    {"mode", MILL_PARAM_ENUM, 0, "fast", 0, 0, "fast|exact|auto", "a choice"},
    {"size", MILL_PARAM_BYTES, 0, "64MiB", 1024, 1 << 30, nullptr, "bytes"},
    {"wait", MILL_PARAM_DURATION, 0, "1.5s", 0, 3600, nullptr, "a duration"},
    {"names", MILL_PARAM_STRINGS, 0, "[a, b]", 0, 0, nullptr, "texts"},
    {"labels", MILL_PARAM_MAP, 0, "{x: one}", 0, 0, nullptr, "a map"},
    {"cols", MILL_PARAM_COLUMNS, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "columns"},
    {"extra", MILL_PARAM_JSON, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "anything"},
    {"in", MILL_PARAM_PATH, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "an input"},
    {"ins", MILL_PARAM_PATHS, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "inputs"},
    {"to_file", MILL_PARAM_OUT_PATH, MILL_PARAM_OPTIONAL, nullptr, 0, 0, nullptr, "an output"},
};
const size_t kCount = sizeof kParams / sizeof kParams[0];

void require(bool ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "fuzz_params: %s\n", what);
    abort();
}

/* What the interface promises of values that were let through. */
mill_status configure(mill_step *, const mill_config *c, mill_io *io, mill_error *err)
{
    const int64_t count = mill_config_int(c, "count");
    const double share = mill_config_float(c, "share");
    require(count >= 1 && count <= 64, "count out of range");
    require(share >= 0 && share <= 1, "share out of range");
    require(mill_config_int(c, "size") >= 1024 && mill_config_int(c, "size") <= 1 << 30, "size out of range");
    require(strstr("fast|exact|auto", mill_config_text(c, "mode")) != nullptr, "mode is no choice");
    for (size_t i = 0; i < kCount; i++) {
        const char *name = kParams[i].name;
        for (size_t k = 0; k < mill_config_count(c, name); k++) {
            require(mill_config_key(c, name, k) != nullptr && mill_config_item(c, name, k) != nullptr, "an entry without text");
            require((mill_config_type(c, name, k) != nullptr) == (kParams[i].type == MILL_PARAM_COLUMNS), "a type too many or few");
        }
        if (mill_config_text(c, name) != nullptr) require(mill_config_has(c, name), "text of what is not there");
    }
    const char *in = mill_config_text(c, "in");
    require(in == nullptr || in[0] == '/', "a path that is not absolute");
    /* columns named by parameters, as many steps have them */
    for (size_t k = 0; k < mill_config_count(c, "names"); k++) {
        const mill_status st = mill_io_use(io, 0, mill_config_item(c, "names", k), "any", nullptr, err);
        if (st != MILL_OK) return st;
    }
    return mill_config_has(c, "word") && strcmp(mill_config_text(c, "word"), "fail") == 0
               ? mill_config_fail(c, "names[1]", err, MILL_ERR_INVALID, "as asked")
               : MILL_OK;
}

mill_status process(mill_replica *, mill_batch *const *, size_t, mill_emit *, mill_error *) { return MILL_OK; }

/* Bytes to a tree; every string is kept until the run is over. */
class Tree {
public:
    Tree(const uint8_t *p, size_t n) : p_(p), end_(p + n) {}
    std::vector<stm_value> params()
    {
        std::vector<stm_value> out;
        while (p_ < end_ && out.size() < 32) {
            const uint8_t b = next();
            stm_value v = value(0);
            v.key = b < 250 ? kParams[b % kCount].name : text();
            v.place = v.key_place = {"fuzz.yaml", 1 + next(), 1};
            out.push_back(v);
        }
        return out;
    }

private:
    uint8_t next() { return p_ < end_ ? *p_++ : 0; }
    const char *text()
    {
        const size_t want = next() % 64, n = want < size_t(end_ - p_) ? want : size_t(end_ - p_);
        texts_.emplace_back(reinterpret_cast<const char *>(p_), n);
        p_ += n;
        return texts_.back().c_str();
    }
    stm_value value(int depth)
    {
        stm_value v = {};
        const uint8_t kind = next();
        v.place = {"fuzz.yaml", kind, 1};
        if (depth > 80 || kind % 4 < 2) {
            v.kind = stm_value::STM_VALUE_SCALAR;
            v.quoted = kind & 4;
            v.text = kind & 8 && kind & 16 ? nullptr : text();
            return v;
        }
        v.kind = kind % 4 == 2 ? stm_value::STM_VALUE_LIST : stm_value::STM_VALUE_MAP;
        std::vector<stm_value> items;
        for (size_t n = kind / 16; n > 0 && p_ < end_; n--) {
            stm_value item = value(depth + 1);
            if (v.kind == stm_value::STM_VALUE_MAP) item.key = next() < 8 ? nullptr : text();
            items.push_back(item);
        }
        lists_.push_back(std::move(items));
        v.items = lists_.back().data();
        v.n_items = lists_.back().size();
        return v;
    }
    const uint8_t *p_, *end_;
    std::deque<std::string> texts_;
    std::deque<std::vector<stm_value>> lists_;
};

/* A pattern that starts at the root would walk the machine: slow, and different everywhere. */
bool leaves_the_folder(const stm_value &v)
{
    if (v.kind == stm_value::STM_VALUE_SCALAR) {
        return v.text != nullptr && (v.text[0] == '/' || strstr(v.text, "..") != nullptr) && strpbrk(v.text, "*?[") != nullptr;
    }
    for (size_t i = 0; i < v.n_items; i++)
        if (leaves_the_folder(v.items[i])) return true;
    return false;
}

void create(const stm_value *params, size_t n)
{
    mill_step_type type = {};
    type.struct_size = sizeof type;
    type.abi = MILL_ABI_1;
    type.kind = MILL_STEP;
    type.name = "every";
    type.summary = "has one parameter of each type";
    type.params = kParams;
    type.n_params = kCount;
    type.configure = configure;
    type.process = process;
    const mill_field fields[] = {{"a", mill_type_plain(MILL_UTF8)}, {"b", mill_type_plain(MILL_INT64)}};
    const stm_schema arriving = {const_cast<mill_field *>(fields), 2};

    for (size_t i = 0; i < n; i++)
        if (leaves_the_folder(params[i])) return;
    stm_step_spec spec = {};
    spec.name = "s";
    spec.type = &type;
    spec.params = params;
    spec.n_params = n;
    spec.base_dir = "/proc/self/attr"; /* a small folder that is everywhere */
    spec.run_dir = "/run";
    spec.arriving = &arriving;
    spec.n_arriving = 1;
    spec.policy = stm_policy_default(&type);
    const long before = stm_alloc_counts().live;
    mill_step *step = nullptr;
    mill_error err = {};
    const mill_status st = stm_step_create(&spec, &step, &err);
    require((st == MILL_OK) == (step != nullptr), "a step and an error, or neither");
    require((st == MILL_OK) == (err.status == MILL_OK), "an error without a record, or the reverse");
    require(st == MILL_OK || (err.msg[0] != '\0' && err.phase == MILL_PHASE_CHECK), "an error that says nothing");
    stm_step_destroy(&step);
    require(stm_alloc_counts().live == before, "a leak");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes > 0 && data[0] == 0) {
        Tree tree(data + 1, bytes - 1);
        const std::vector<stm_value> params = tree.params();
        create(params.data(), params.size());
        return 0;
    }
    stm_value *v = nullptr;
    const std::string text(reinterpret_cast<const char *>(data), bytes);
    if (stm_value_parse(text.c_str(), &v, nullptr) == MILL_OK) {
        if (v->kind == stm_value::STM_VALUE_MAP) create(v->items, v->n_items);
        stm_value_free(&v);
    }
    return 0;
}
