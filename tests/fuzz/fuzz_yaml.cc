/*
 * Pipeline files: any text is read, checked and planned. It must give either a plan or one error that says something, and
 * leave nothing behind. With a first line "set KEY=VALUE" the rest is read and then changed by it.
 */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "types.h"
extern "C" {
#include "core/alloc.h"
}

static void require(bool ok, const char *what, const mill_error &err)
{
    if (ok) return;
    fprintf(stderr, "fuzz_yaml: %s (%s)\n", what, err.msg);
    abort();
}

static void one(const std::string &text, const std::string &key, const std::string &value)
{
    mill_pipeline *p = nullptr;
    mill_error err = {};
    char *plan = nullptr, *notes = nullptr;
    mill_status st = mill_pipeline_parse(text.data(), text.size(), "fuzz.yaml", "/proc/self/attr", &p, &err);

    require((st == MILL_OK) == (p != nullptr), "a pipeline and an error, or neither", err);
    if (st == MILL_OK) require(mill_pipeline_add_types(p, &mt::kTypes, &err) == MILL_OK, "types refused", err);
    if (st == MILL_OK && !key.empty()) st = mill_pipeline_set(p, key.c_str(), value.c_str(), &err);
    if (st == MILL_OK) {
        st = mill_pipeline_plan(p, MILL_FORMAT_JSON, &plan, &err);
        require((st == MILL_OK) == (plan != nullptr), "a plan and an error, or neither", err);
        require(st == MILL_OK || err.phase == MILL_PHASE_CHECK, "an error of no phase", err);
    }
    if (st == MILL_OK) {
        require(mill_pipeline_check(p, &err) == MILL_OK, "what can be planned does not check out", err);
        require(mill_pipeline_notes(p, &notes, &err) == MILL_OK, "no notes", err);
    }
    require(st == MILL_OK || err.msg[0] != '\0', "an error that says nothing", err);
    require(st == MILL_OK || strlen(mill_status_text(st)) > 0, "an unknown status", err);
    mill_text_free(&plan);
    mill_text_free(&notes);
    mill_pipeline_destroy(&p);
    require(mt::live_states == 0, "a step that was not destroyed", err);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static int warm;
    std::string text(reinterpret_cast<const char *>(data), bytes), key, value;

    if (text.compare(0, 4, "set ") == 0) {
        const size_t end = text.find('\n'), equals = text.find('=');
        if (end != std::string::npos && equals < end) {
            key = text.substr(4, equals - 4);
            value = text.substr(equals + 1, end - equals - 1);
            text = text.substr(end + 1);
        }
    }
    /* plugins would run, and paths could lead anywhere on this machine */
    for (const char *no : {"plugin", "/", ".."})
        if (text.find(no) != std::string::npos || key.find(no) != std::string::npos || value.find(no) != std::string::npos)
            return 0;
    if (warm++ == 0) one(text, key, value); /* column types are kept for the life of the process */
    one(text, key, value);
    const long before = stm_alloc_counts().live;
    one(text, key, value);
    if (stm_alloc_counts().live != before) {
        fprintf(stderr, "fuzz_yaml: a leak\n");
        abort();
    }
    return 0;
}
