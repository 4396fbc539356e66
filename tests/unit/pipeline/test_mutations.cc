/* Valid pipelines with lines taken out, doubled and moved, and with values put in place of others: valid still, or one error at a
 * place in the file. */
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "mistakes.h"
#include "types.h"

namespace {

const char kReal[] = "stepmill: 1\n"
                     "name: real\n"
                     "steps:\n"
                     "  src: {type: t_source, columns: {id: int64, text: utf8, v: 'list<float32>'}}\n"
                     "  long:\n"
                     "    type: filter\n"
                     "    from: src\n"
                     "    where: length(text) > 2 and id != 7\n"
                     "  line:\n"
                     "    type: template\n"
                     "    from: long\n"
                     "    template: \"{id}: {text}\"\n"
                     "    output: line\n"
                     "  each:\n"
                     "    type: explode\n"
                     "    from: line\n"
                     "    column: v\n"
                     "    index: at\n"
                     "  route:\n"
                     "    type: route_by\n"
                     "    from: each\n"
                     "    to: {a: one, b: two}\n"
                     "    when: {a: id > 3}\n"
                     "  one: {type: select, from: route, rename: {line: l}, cast: {id: utf8}}\n"
                     "  two: {type: select, from: route, keep: [id]}\n"
                     "  first: {type: limit, from: one, rows: 3}\n"
                     "  prog:\n"
                     "    type: command\n"
                     "    from: two\n"
                     "    argv: [cat]\n"
                     "    columns: {x: utf8}\n"
                     "    timeout: {load: 10s}\n"
                     "  out: {type: write_jsonl, from: {union: [first]}, path: a.jsonl.gz, part_rows: 10}\n"
                     "  out2: {type: write_arrow, from: prog, path: b.arrow, errors: true}\n";

std::vector<std::string> lines_of(const std::string &text)
{
    std::vector<std::string> all(1);
    for (const char c : text) {
        all.back() += c;
        if (c == '\n') all.emplace_back();
    }
    all.pop_back();
    return all;
}

/* Where a word of the line begins and ends. */
std::pair<size_t, size_t> word_of(const std::string &line, std::mt19937 &random)
{
    std::vector<std::pair<size_t, size_t>> words;
    for (size_t i = 0; i < line.size();) {
        const size_t n = strspn(line.c_str() + i, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.<>");
        if (n > 0) words.emplace_back(i, n);
        i += n > 0 ? n : 1;
    }
    return words.empty() ? std::make_pair(line.size() - 1, (size_t)0) : words[random() % words.size()];
}

std::string mutated(const std::string &text, std::mt19937 &random)
{
    static const char *const values[] = {"0", "-1", "''", "null", "~", "[]", "{}", "[a]", "{a: b}", "99999999999999999999", ".nan",
                                         ".inf", "1e999", "true", "src", "out", "none", "x: y", "*a", "&a b", "!!int 1",
                                         "\"", "'", "#", "\t", "- ", "? ", "<<: {}", "\xef\xbb\xbf", "\r", "\xff", "\xc3", "ä", "|",
                                         ">", "%TAG", "---", "...", "{", "]", ",", ":",
                                         "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["};
    std::vector<std::string> lines = lines_of(text);
    for (uint32_t n = 1 + random() % 3; n > 0; n--) {
        const size_t i = random() % lines.size(), k = random() % lines.size();
        std::string &line = lines[i];
        const auto word = word_of(line, random);
        switch (random() % 6) {
        case 0:
            if (lines.size() > 1) lines.erase(lines.begin() + (long)i);
            break;
        case 1: lines.insert(lines.begin() + (long)k, std::string(line)); break;
        case 2: std::swap(line, lines[k]); break;
        case 3:
        case 4: line.replace(word.first, word.second, values[random() % (sizeof values / sizeof *values)]); break;
        default: line.insert(random() % line.size(), std::string(1 + random() % 4, ' ')); break;
        }
    }
    std::string out;
    for (const std::string &line : lines) out += line;
    return out;
}

TEST(Mutations, AreValidOrHaveOneErrorAtAPlace)
{
    const std::string bases[] = {mt::kLine, mt::kGraph, kReal};
    std::mt19937 random(20261128);
    int valid = 0, wrong = 0;
    for (int i = -3; i < 600; i++) {
        const std::string text = i < 0 ? bases[i + 3] : mutated(bases[i % 3], random);
        SCOPED_TRACE(text);
        mill_pipeline *p = nullptr;
        mill_error err = {};
        mill_status st = mill_pipeline_parse(text.data(), text.size(), "p.yaml", "/tmp", &p, &err);
        if (st == MILL_OK) st = mill_pipeline_add_types(p, &mt::kTypes, &err);
        if (st == MILL_OK) st = mill_pipeline_check(p, &err);
        mill_pipeline_destroy(&p);
        valid += st == MILL_OK;
        wrong += st != MILL_OK;
        EXPECT_EQ(mt::live_states, 0);
        EXPECT_EQ(err.status, st);
        EXPECT_TRUE(i >= 0 || st == MILL_OK) << "a base: " << err.msg;
        if (st == MILL_OK) continue;
        EXPECT_EQ(err.phase, MILL_PHASE_CHECK) << err.msg;
        EXPECT_STREQ(err.file, "p.yaml") << err.msg;
        EXPECT_STRNE(err.msg, "");
        const std::vector<std::string> lines = lines_of(text + "\n");
        EXPECT_GE(err.line, 1) << err.msg;
        EXPECT_LE((size_t)err.line, lines.size() + 1) << err.msg;
        EXPECT_GE(err.column, 1) << err.msg;
        EXPECT_TRUE(err.line < 1 || (size_t)err.line > lines.size() || (size_t)err.column <= lines[(size_t)err.line - 1].size() + 1)
            << err.line << ":" << err.column << ": " << err.msg;
    }
    EXPECT_GT(valid, 20);
    EXPECT_GT(wrong, 300);
}

} // namespace
