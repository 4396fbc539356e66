/* Signatures of texts and groups of those that are alike, against plain code. */
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "support/chain.h"

extern "C" {
#include "stepmill/ops.h"
#include "stepmill/run.h"
#include "steps/vectors/signatures.h"
}

using namespace mt;

namespace {

typedef std::vector<uint32_t> Numbers;

std::set<std::string> shingles(const std::string &text, size_t width)
{
    std::set<std::string> all;
    if (!text.empty() && text.size() < width) all.insert(text);
    for (size_t i = 0; i + width <= text.size(); i++) all.insert(text.substr(i, width));
    return all;
}

double overlap(const std::string &a, const std::string &b, size_t width)
{
    const std::set<std::string> x = shingles(a, width), y = shingles(b, width);
    double both = 0;
    for (const std::string &s : x) both += static_cast<double>(y.count(s));
    return both / (static_cast<double>(x.size() + y.size()) - both);
}

/* What the header of the operation says, word by word. */
Numbers plainly(const std::string &text, size_t width, uint64_t seed)
{
    Numbers out(MILL_MINHASHES, UINT32_MAX);
    for (const std::string &s : shingles(text, width)) {
        uint32_t h = 2166136261u;
        for (char c : s) h = (h ^ static_cast<uint8_t>(c)) * 16777619u;
        h ^= h >> 16, h *= 0x85ebca6bu, h ^= h >> 13, h *= 0xc2b2ae35u, h ^= h >> 16;
        for (size_t j = 0; j < out.size(); j++) {
            uint64_t z = seed + (j + 1) * 0x9e3779b97f4a7c15u;
            z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
            z = (z ^ z >> 27) * 0x94d049bb133111ebu;
            z ^= z >> 31;
            out[j] = std::min(out[j], h * (static_cast<uint32_t>(z >> 32) | 1u) + static_cast<uint32_t>(z));
        }
    }
    return out;
}

std::vector<Numbers> sign(const std::vector<std::string> &texts, int32_t width, uint64_t seed, int32_t threads)
{
    std::string bytes = "not of the first text";
    std::vector<int64_t> offsets = {static_cast<int64_t>(bytes.size())};
    for (const std::string &t : texts) {
        bytes += t;
        offsets.push_back(static_cast<int64_t>(bytes.size()));
    }
    Numbers flat(texts.size() * MILL_MINHASHES);
    mill_minhash_args a = MILL_MINHASH_INIT;
    mill_error err = {};
    const std::vector<char> exact(bytes.begin(), bytes.end()); /* a byte too many is seen by AddressSanitizer */
    a.threads = threads, a.width = width, a.seed = seed, a.bytes = exact.data(), a.offsets = offsets.data();
    a.rows = static_cast<int64_t>(texts.size()), a.out = flat.data();
    EXPECT_EQ(mill_minhash(&a, &err), MILL_OK) << err.msg;
    std::vector<Numbers> out;
    for (size_t i = 0; i < texts.size(); i++)
        out.emplace_back(flat.begin() + static_cast<long>(i * MILL_MINHASHES),
                         flat.begin() + static_cast<long>((i + 1) * MILL_MINHASHES));
    return out;
}

std::string random_text(std::mt19937 &rng, size_t n)
{
    std::string s;
    for (size_t i = 0; i < n; i++) s += static_cast<char>('a' + rng() % 26);
    return s;
}

double share(const Numbers &a, const Numbers &b)
{
    double same = 0;
    for (size_t i = 0; i < a.size(); i++) same += a[i] == b[i];
    return same / static_cast<double>(a.size());
}

/* Groups by every pair, and by a fixed point. */
std::vector<int64_t> groups_of(const std::vector<std::vector<int32_t>> &rows, float threshold)
{
    std::vector<int64_t> group(rows.size());
    for (size_t i = 0; i < rows.size(); i++) group[i] = static_cast<int64_t>(i);
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < rows.size(); i++)
            for (size_t k = 0; k < i; k++) {
                const auto length = static_cast<int64_t>(rows[i].size());
                if (group[i] == group[k] || stm_signatures_score(rows[i].data(), rows[k].data(), length) < threshold) continue;
                const int64_t from = std::max(group[i], group[k]), to = std::min(group[i], group[k]);
                for (int64_t &g : group) g = g == from ? to : g;
                more = true;
            }
    }
    return group;
}

mill_status link(const std::vector<std::vector<int32_t>> &rows, float threshold, bool (*cancelled)(void *),
                 std::vector<int64_t> *out)
{
    std::vector<const int32_t *> at;
    for (const auto &r : rows) at.push_back(r.data());
    stm_forest f = {};
    mill_error err = {};
    const stm_signatures s = {
        at.data(), static_cast<int64_t>(rows.size()), rows.empty() ? 1 : static_cast<int64_t>(rows[0].size()), threshold, cancelled,
        nullptr};
    mill_status st = stm_forest_init(&f, s.n, &err);
    if (st == MILL_OK) st = stm_signatures_link(&s, &f, &err);
    if (st == MILL_OK) st = stm_forest_settle(&f, &err);
    if (st == MILL_OK) out->assign(f.parent, f.parent + s.n);
    stm_forest_fini(&f);
    return st;
}

/* Lines of documents through minhash_text and deduplicate, in batches of @p batch. */
std::string run_lines(const std::string &lines, int batch)
{
    Folder here;
    mill_pipeline *p = nullptr;
    mill_run *r = nullptr;
    mill_run_options o = MILL_RUN_OPTIONS_INIT;
    mill_error err = {};
    const std::string dir = here.path + "/run",
                      yaml =
                          "stepmill: 1\nname: near-texts\nsteps:\n"
                          "  docs: {type: read_jsonl, path: docs.jsonl, columns: {text: utf8}, batch_size: " +
                          std::to_string(batch) +
                          "}\n"
                          "  sign: {type: minhash_text, from: docs, seed: 5, replicas: 2}\n"
                          "  groups: {type: deduplicate, from: sign, inputs: {embedding: signature}, threshold: 0.8, columns: []}\n"
                          "  slim: {type: select, from: groups, drop: [scores]}\n"
                          "  out: {type: write_jsonl, from: slim, path: groups.jsonl}\n";
    here.put("docs.jsonl", lines);
    o.dir = dir.c_str();
    if (mill_pipeline_parse(yaml.data(), yaml.size(), "p.yaml", here.path.c_str(), &p, &err) != MILL_OK) return err.msg;
    EXPECT_EQ(mill_run_start(p, &o, &r, &err), MILL_OK) << err.msg;
    EXPECT_EQ(mill_run_wait(r, 60, &err), MILL_RUN_DONE) << err.msg;
    EXPECT_EQ(mill_run_finish(r, &err), MILL_OK) << err.msg;
    mill_run_destroy(&r);
    mill_pipeline_destroy(&p);
    return here.get("run/groups.jsonl");
}

} // namespace

TEST(MinHash, IsWhatPlainCodeSays)
{
    std::mt19937 rng(1);
    std::vector<std::string> texts = {"", "x", "abcd", "abcde", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t n : {15, 16, 17, 20, 24, 36, 275, 600}) texts.push_back(random_text(rng, n));
    texts.push_back(std::string(400, '\0') + "\xff");
    for (int i = 0; i < 40; i++) texts.push_back(random_text(rng, rng() % 60)); /* for several threads */
    for (int32_t width : {1, 5, 9, MILL_SHINGLE_MAX})
        for (int32_t threads : {0, 3}) {
            const std::vector<Numbers> got = sign(texts, width, 77, threads);
            for (size_t i = 0; i < texts.size(); i++)
                ASSERT_EQ(got[i], plainly(texts[i], static_cast<size_t>(width), 77)) << "text " << i << ", shingles of " << width;
        }
    EXPECT_NE(sign(texts, 5, 78, 1)[6], sign(texts, 5, 77, 1)[6]);
}

/* 128 draws: a standard deviation is sqrt(J (1 - J) / 128). */
TEST(MinHash, EstimatesTheOverlap)
{
    std::mt19937 rng(2);
    double bias = 0, pairs = 0;
    for (int i = 0; i < 60; i++) {
        const std::string a = random_text(rng, 500), b = a.substr(0, 10 + rng() % 490) + random_text(rng, rng() % 500);
        const std::vector<Numbers> s = sign({a, b}, 5, static_cast<uint64_t>(i), 1);
        const double want = overlap(a, b, 5), got = share(s[0], s[1]);
        ASSERT_NEAR(got, want, 4 * std::sqrt(want * (1 - want) / 128) + 1e-9);
        bias += got - want, pairs++;
    }
    EXPECT_NEAR(bias / pairs, 0, 4 * 0.0442 / std::sqrt(pairs));
}

TEST(MinHash, RefusesWhatItCannotDo)
{
    uint32_t out[MILL_MINHASHES];
    const int64_t offsets[2] = {0, 0};
    for (int what = 0; what < 6; what++) {
        mill_minhash_args a = MILL_MINHASH_INIT;
        mill_error err = {};
        a.offsets = offsets, a.rows = 1, a.out = out;
        if (what == 0) a.width = 0;
        if (what == 1) a.width = MILL_SHINGLE_MAX + 1;
        if (what == 2) a.rows = -1;
        if (what == 3) a.offsets = nullptr;
        if (what == 4) a.out = nullptr;
        if (what == 5) a.struct_size = 8;
        EXPECT_EQ(mill_minhash(&a, &err), MILL_ERR_INVALID) << what;
        EXPECT_STRNE(err.msg, "");
    }
}

/* Kinds of signatures with some of their numbers changed, so that many pairs are just alike or just not. */
TEST(Signatures, AreGroupedAsByEveryPair)
{
    std::mt19937 rng(3);
    for (size_t length : {128u, 31u, 2u, 1u})
        for (float threshold : {1.0f, 0.9f, 0.8f, 0.7f, 0.6f, 0.51f}) {
            std::vector<std::vector<int32_t>> kinds(12, std::vector<int32_t>(length)), rows;
            for (auto &k : kinds)
                for (int32_t &x : k) x = static_cast<int32_t>(rng() % 50); /* some are equal by chance */
            for (int i = 0; i < 300; i++) {
                rows.push_back(kinds[rng() % kinds.size()]);
                const double changed = (1.0 - static_cast<double>(threshold)) * static_cast<double>(length) * 0.8 *
                                       static_cast<double>(rng() % 100) / 100;
                for (int c = 0; c < static_cast<int>(changed); c++) rows.back()[rng() % length] = static_cast<int32_t>(rng());
            }
            std::vector<int64_t> got;
            const std::vector<int64_t> want = groups_of(rows, threshold);
            ASSERT_EQ(link(rows, threshold, nullptr, &got), MILL_OK);
            ASSERT_EQ(got, want) << "of " << length << ", " << threshold;
        }
}

TEST(Signatures, AtTheEdges)
{
    std::vector<int64_t> got;
    EXPECT_EQ(link({}, 0.8f, nullptr, &got), MILL_OK);
    EXPECT_EQ(link({{1, 2}}, 0.8f, nullptr, &got), MILL_OK);
    EXPECT_EQ(got, std::vector<int64_t>({0}));
    EXPECT_EQ(link({{1, 2}, {3, 4}, {5, 6}}, 0.0f, nullptr, &got), MILL_OK);
    EXPECT_EQ(got, std::vector<int64_t>({0, 0, 0})) << "no number in common is asked for";
    EXPECT_EQ(link({{1, 2}, {3, 4}}, 0.5f, [](void *) { return true; }, &got), MILL_ERR_STOPPED);
    EXPECT_FLOAT_EQ(stm_signatures_score(std::vector<int32_t>({1, 2, 3, 4}).data(), std::vector<int32_t>({1, 0, 3, 5}).data(), 4),
                    0.5f);
}

/* A group of many that are a little different from each other costs a comparison or so each, not one a pair. */
TEST(Signatures, LargeGroupsAreQuick)
{
    std::mt19937 rng(4);
    std::vector<std::vector<int32_t>> rows(20000, std::vector<int32_t>(128, 7));
    for (auto &r : rows)
        for (int c = 0; c < 8; c++) r[rng() % 128] = static_cast<int32_t>(rng());
    std::vector<int64_t> got;
    ASSERT_EQ(link(rows, 0.8f, nullptr, &got), MILL_OK);
    EXPECT_EQ(got, std::vector<int64_t>(rows.size(), 0));
}

/* Text to groups, in whole runs. */
TEST(MinHashText, GroupsOfNearTexts)
{
    std::mt19937 rng(5);
    std::vector<std::string> texts;
    std::string lines, want;
    for (int i = 0; i < 60; i++)
        texts.push_back(i >= 20 && i % 2 == 0 ? texts[static_cast<size_t>(i - 20)] + " and more" : random_text(rng, 300));
    texts[10].clear(), texts[30].clear(); /* no shingles: alike to nothing */
    for (size_t i = 0; i < texts.size(); i++) lines += "{\"text\":" + (i == 40 ? "null" : "\"" + texts[i] + "\"") + "}\n";
    std::vector<std::vector<int32_t>> rows;
    std::vector<size_t> row_of;
    const std::vector<Numbers> signatures = sign(texts, 9, 5, 1);
    for (size_t i = 0; i < texts.size(); i++) {
        if (texts[i].empty() || i == 40) continue;
        rows.emplace_back(signatures[i].begin(), signatures[i].end());
        row_of.push_back(i);
    }
    const std::vector<int64_t> group = groups_of(rows, 0.8f);
    for (size_t i = 0, n = 0; i < rows.size(); i++) {
        std::string members;
        int size = 0;
        for (size_t k = 0; k < rows.size(); k++)
            if (group[k] == static_cast<int64_t>(i)) members += (size++ > 0 ? "," : "") + std::to_string(row_of[k]);
        if (size > 1)
            want += "{\"group\":" + std::to_string(n++) + ",\"size\":" + std::to_string(size) + ",\"rows\":[" + members + "]}\n";
    }
    ASSERT_GT(std::count(want.begin(), want.end(), '\n'), 7);
    std::string got = run_lines(lines, 7);
    EXPECT_EQ(got, want);
    EXPECT_EQ(run_lines(lines, 100), want);
}
