/* Files that are no files: what gives its bytes once only is never read, and refused where it is named, by `check` as by `run`, at
 * once. */
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "command.h"

namespace {

struct Case {
    const char *name, *steps; /* FIFO stands for a pipe without a writer */
    const char *says;         /* the folder is DIR */
};

#define SINK "  o: {type: write_jsonl, from: r, path: out.jsonl}\n"

const Case kCases[] = {
    {"input", "steps:\n  r: {type: read_jsonl, path: FIFO}\n" SINK,
     "p.yaml:3:31: r: DIR/fifo is a pipe, which cannot be read again (parameter \"path\"). Write what it gives to a file first, "
     "and name that"},
    {"input_with_columns", "steps:\n  r: {type: read_jsonl, columns: {id: int64}, path: [in.jsonl, FIFO]}\n" SINK,
     "p.yaml:3:64: r: DIR/fifo is a pipe, which cannot be read again"},
    {"no_file", "steps:\n  r: {type: read_jsonl, path: []}\n" SINK, "p.yaml:3:31: r: parameter \"path\" names no file"},
    {"match_of_a_pattern", "steps:\n  r: {type: read_jsonl, path: 'f*o'}\n" SINK,
     "p.yaml:3:31: r: DIR/fifo is a pipe, which cannot be read again"},
    {"standard_input", "steps:\n  r: {type: read_jsonl, path: /dev/stdin}\n" SINK,
     "p.yaml:3:31: r: /dev/stdin is a device, which cannot be read again"},
#ifdef HAVE_PARQUET
    {"parquet", "steps:\n  r: {type: read_parquet, path: FIFO}\n" SINK,
     "p.yaml:3:33: r: DIR/fifo is a pipe, which cannot be read again"},
#endif
    {"plugin", "plugins: [FIFO]\nsteps:\n  r: {type: read_jsonl, path: in.jsonl}\n" SINK,
     "p.yaml:2:11: DIR/fifo is a pipe, which cannot be read again (plugin DIR/fifo)"},
    {"model", "steps:\n  r: {type: read_jsonl, path: in.jsonl}\n  e: {type: embed_text, from: r, model: FIFO}\n",
     "p.yaml:4:41: e: DIR/fifo is a pipe, which cannot be read again"},
    {"file_of_a_model",
     "steps:\n  r: {type: read_jsonl, path: in.jsonl}\n  e: {type: embed_text, from: r, inputs: {text: id}, model: model}\n",
     "p.yaml:4:61: e: parameter \"model\": DIR/model/config.json is a pipe, not a file"},
    {"folder_of_a_program",
     "steps:\n  r: {type: read_jsonl, path: in.jsonl}\n  c: {type: command, from: r, argv: [cat], columns: {x: utf8}, cwd: FIFO}\n",
     "p.yaml:4:69: c: DIR/fifo is a pipe, which cannot be read again"},
};

class NotRegular : public testing::TestWithParam<Case> {};

TEST_P(NotRegular, IsRefusedAtOnceWithItsPlace)
{
    const mt::Folder f;
    const std::string fifo = f.path() + "/fifo", at = f.path();
    ASSERT_EQ(mkfifo(fifo.c_str(), 0666), 0);
    ASSERT_EQ(mkdir((at + "/model").c_str(), 0777), 0);
    ASSERT_EQ(mkfifo((at + "/model/config.json").c_str(), 0666), 0);
    f.write("in.jsonl", "{\"id\":\"1\"}\n");
    std::string text = std::string("stepmill: 1\n") + GetParam().steps;
    for (size_t i; (i = text.find("FIFO")) != std::string::npos;) text.replace(i, 4, "fifo");
    f.write("p.yaml", text);
    const std::vector<std::string> before = f.list();
    for (const char *verb : {"check", "run"}) {
        const mt::Result r = mt::run(f, {verb, "p.yaml"});
        std::string said = r.err;
        for (size_t i; (i = said.find(at)) != std::string::npos;) said.replace(i, at.size(), "DIR");
        EXPECT_EQ(r.code, 65) << verb << ": " << r.err;
        EXPECT_EQ(said.find(std::string("error: ") + GetParam().says), 0u) << said;
        EXPECT_EQ(f.list(), before) << "nothing may be written";
    }
}

INSTANTIATE_TEST_SUITE_P(Table, NotRegular, testing::ValuesIn(kCases), [](const auto &i) { return std::string(i.param.name); });

} // namespace
