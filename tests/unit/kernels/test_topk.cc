#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <ctime>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "support/fail_nth.h"
#include "support/sanitized.h"

extern "C" {
#include "kernels/candidates.h"
#include "kernels/cpu.h"
#include "kernels/dot.h"
#include "kernels/topk.h"
}

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/* ---- data ---- */

enum class Fill { Normal, Clustered, Copies, Ties, Zeros, Nans, Tiny, Huge, Mixed };

/* Vectors with poison between them: a read past a row's end makes scores NaN and so shows. */
struct Vectors {
    int64_t n, dim, stride;
    std::vector<float> data;
    std::vector<const float *> rows;

    Vectors(int64_t n_, int64_t dim_, Fill fill, uint32_t seed) : n(n_), dim(dim_), stride(dim_ + 3)
    {
        std::mt19937 rng(seed);
        std::normal_distribution<float> normal(0.0f, 1.0f);
        data.assign((size_t)(n * stride + 3), kNan);
        for (int64_t r = 0; r < n; r++) {
            float *v = data.data() + r * stride + 3;
            rows.push_back(v);
            const int64_t cluster = r % 7;
            std::mt19937 center(seed + 1000 + (uint32_t)cluster);
            for (int64_t i = 0; i < dim; i++) {
                switch (fill) {
                case Fill::Normal: v[i] = normal(rng); break;
                case Fill::Clustered: v[i] = normal(center) + 0.02f * normal(rng); break; /* many scores within the margin */
                case Fill::Copies: v[i] = normal(center); break;                         /* 7 different vectors in all */
                case Fill::Ties: v[i] = (float)((int)(rng() % 3) - 1); break;             /* small integers: equal scores */
                case Fill::Zeros: v[i] = r % 3 == 0 ? 0.0f : normal(rng); break;
                case Fill::Nans: v[i] = normal(rng); break;
                case Fill::Tiny: v[i] = normal(rng) * 1e-30f * (r % 2 ? 1.0f : 1e-12f); break;
                case Fill::Huge: v[i] = normal(rng) * 1e37f; break;
                case Fill::Mixed: v[i] = normal(rng) * std::pow(10.0f, (float)(r % 9) - 4.0f); break;
                }
            }
            if (fill == Fill::Nans && r % 4 == 1) v[rng() % (uint64_t)dim] = r % 8 == 1 ? kNan : r % 16 == 5 ? kInf : -kInf;
        }
    }
};

struct Found {
    std::vector<int64_t> rows;
    std::vector<float> scores;
    bool operator==(const Found &o) const
    {
        return rows == o.rows && scores.size() == o.scores.size() &&
               (scores.empty() || memcmp(scores.data(), o.scores.data(), scores.size() * sizeof(float)) == 0);
    }
};

struct Case {
    const char *name;
    int64_t n_queries, n_corpus, dim, k; /* n_queries -1: the corpus searches itself */
    Fill fill;
    float threshold;
};
void PrintTo(const Case &c, std::ostream *os) { *os << c.name; }

constexpr Case kCases[] = {
    {"no_queries", 0, 5, 3, 2, Fill::Normal, -kInf},
    {"no_corpus", 5, 0, 3, 2, Fill::Normal, -kInf},
    {"one_by_one", 1, 1, 1, 1, Fill::Normal, -kInf},
    {"self_of_one", -1, 1, 4, 3, Fill::Normal, -kInf},
    {"k_past_n", 5, 7, 9, 20, Fill::Normal, -kInf},
    {"k_is_n", 9, 33, 31, 33, Fill::Normal, -kInf},
    {"one_best", 70, 300, 32, 1, Fill::Normal, -kInf},
    {"odd", 67, 131, 33, 5, Fill::Normal, -kInf},
    {"past_one_tile", 130, 900, 17, 10, Fill::Normal, -kInf},
    {"embedding", -1, 420, 384, 10, Fill::Normal, -kInf},
    {"clustered", -1, 420, 96, 10, Fill::Clustered, -kInf},
    {"copies", -1, 250, 40, 10, Fill::Copies, -kInf},
    {"many_copies", -1, 1000, 8, 3, Fill::Copies, -kInf},
    {"many_copies_others_ask", 90, 3000, 8, 3, Fill::Copies, -kInf},
    {"one_query_of_a_large_corpus", 1, 2000, 24, 9, Fill::Clustered, -kInf},
    {"few_queries_of_a_large_corpus", 70, 2000, 24, 40, Fill::Ties, 0.1f},
    {"copies_threshold", -1, 200, 40, 64, Fill::Copies, 1.0f},
    {"ties", -1, 250, 4, 12, Fill::Ties, -kInf},
    {"ties_threshold", -1, 200, 6, 50, Fill::Ties, 0.5f},
    {"zeros", -1, 200, 16, 8, Fill::Zeros, -kInf},
    {"zeros_threshold", -1, 150, 16, 150, Fill::Zeros, 0.0f},
    {"nans", -1, 400, 24, 6, Fill::Nans, -kInf},
    {"tiny", -1, 300, 12, 5, Fill::Tiny, -kInf},
    {"tiny_threshold", -1, 200, 12, 5, Fill::Tiny, 0.0f},
    {"huge", -1, 300, 12, 5, Fill::Huge, -kInf},
    {"mixed_lengths", 100, 500, 48, 9, Fill::Mixed, -kInf},
    {"mixed_threshold", 100, 500, 48, 500, Fill::Mixed, 0.25f},
    {"threshold_above_all", -1, 100, 64, 4, Fill::Normal, 1e30f},
    {"many_neighbours", 20, 2000, 20, 700, Fill::Normal, -kInf},
    {"wide", 3, 40, 4099, 7, Fill::Normal, -kInf},
};

/* Corpus and queries of a case. */
struct Given {
    const Case &c;
    Vectors corpus, queries;
    explicit Given(const Case &c_)
        : c(c_), corpus(c.n_corpus, c.dim, c.fill, 1), queries(c.n_queries < 0 ? 0 : c.n_queries, c.dim, c.fill, 2)
    {
    }
};

Found Search(const Given &given, int metric, bool exclude_self, int threads, const stm_screen_opts *opts, bool ref)
{
    const Case &c = given.c;
    const Vectors &corpus = given.corpus, &queries = given.queries;
    const bool self = c.n_queries < 0;
    const int64_t n = self ? c.n_corpus : c.n_queries;
    constexpr int64_t kGuard = 8;
    Found f;
    f.rows.assign((size_t)(n * c.k + 2 * kGuard), -77);
    f.scores.assign((size_t)(n * c.k + 2 * kGuard), kNan);
    mill_topk_args a = {};
    a.struct_size = sizeof a;
    a.metric = metric, a.threads = threads, a.exclude_self = exclude_self, a.threshold = c.threshold;
    a.queries = self ? corpus.rows.data() : queries.rows.data(), a.n_queries = n;
    a.corpus = corpus.rows.data(), a.n_corpus = c.n_corpus;
    a.dim = c.dim, a.k = c.k;
    a.rows = f.rows.data() + kGuard, a.scores = f.scores.data() + kGuard;
    mill_error err = {};
    const mill_status st = ref ? stm_topk_ref(&a, &err) : opts != nullptr ? stm_topk_cpu(&a, opts, &err) : mill_topk(&a, &err);
    EXPECT_EQ(st, MILL_OK) << err.msg;
    for (int64_t g = 0; g < kGuard; g++) {
        EXPECT_EQ(f.rows[(size_t)g], -77);
        EXPECT_EQ(f.rows[f.rows.size() - 1 - (size_t)g], -77);
        EXPECT_TRUE(std::isnan(f.scores[(size_t)g]) && std::isnan(f.scores[f.scores.size() - 1 - (size_t)g]))
            << "guard overwritten";
    }
    f.rows = std::vector<int64_t>(f.rows.begin() + kGuard, f.rows.end() - kGuard);
    f.scores = std::vector<float>(f.scores.begin() + kGuard, f.scores.end() - kGuard);
    return f;
}

class TopK : public testing::TestWithParam<Case> {};
class TopKReference : public testing::TestWithParam<Case> {};

/* Every way of cutting the work, every instruction set, every type of product: the reference's bits. Under a sanitizer each metric
 * is searched in one of both ways, with the rows themselves or without. */
TEST_P(TopK, EveryFormHasTheBitsOfTheReference)
{
    const Case &c = GetParam();
    const Given given(c);
    const stm_cpu_level top = stm_cpu();
    struct { stm_screen_opts opts; int threads; stm_cpu_level level; } const forms[] = {
        {{STM_GEMM_F32, 384, 512}, 1, top},  {{STM_GEMM_F32, 1, 64}, 1, top},    {{STM_GEMM_F32, 33, 128}, 3, top},
        {{STM_GEMM_BF16, 768, 512}, 1, top}, {{STM_GEMM_BF16, 100, 64}, 2, top}, {{STM_GEMM_F32, 64, 64}, 2, STM_CPU_GENERIC},
        {{STM_GEMM_F32, 96, 64}, 1, STM_CPU_AVX2}, {{STM_GEMM_BF16, 64, 128}, 2, STM_CPU_GENERIC},
        {{STM_GEMM_BF16, 200, 64}, 5, STM_CPU_AVX512_BF16},
    };
    for (int metric : {MILL_COSINE, MILL_DOT})
        for (bool exclude_self : {false, true}) {
            if (mt::leaves_out() && exclude_self != (metric == MILL_COSINE)) continue;
            const Found want = Search(given, metric, exclude_self, 1, nullptr, true);
            SCOPED_TRACE(std::string(metric == MILL_COSINE ? "cosine" : "dot") + (exclude_self ? ", without self" : ""));
            EXPECT_TRUE(Search(given, metric, exclude_self, 2, nullptr, false) == want) << "defaults";
            for (const auto &f : forms) {
                if (c.n_corpus * c.dim > 300000 && (f.opts.tile_rows == 1 || f.level < top)) continue; /* time */
                stm_cpu_limit(std::min(f.level, top));
                const Found got = Search(given, metric, exclude_self, f.threads, &f.opts, false);
                stm_cpu_limit(top);
                ASSERT_EQ(got.rows, want.rows) << "type " << f.opts.type << ", tile " << f.opts.tile_rows << ", level " << f.level;
                ASSERT_TRUE(got == want) << "type " << f.opts.type << ", tile " << f.opts.tile_rows << ", level " << f.level;
            }
        }
}

/* The oracle itself, against a definition that shares no code with it. */
TEST_P(TopKReference, MeetsItsDefinition)
{
    const Case &c = GetParam();
    const Given given(c);
    const Vectors &corpus = given.corpus, &qs = c.n_queries < 0 ? corpus : given.queries;
    for (int metric : {MILL_COSINE, MILL_DOT}) {
        const Found got = Search(given, metric, true, 1, nullptr, true);
        for (int64_t q = 0; q < qs.n; q++) {
            const int64_t *rows = got.rows.data() + q * c.k;
            const float *scores = got.scores.data() + q * c.k;
            int64_t n = 0;
            std::set<int64_t> seen;
            std::vector<long double> exact((size_t)c.n_corpus);
            std::vector<bool> part((size_t)c.n_corpus);
            for (int64_t r = 0; r < c.n_corpus; r++) {
                long double dot = 0, qq = 0, rr = 0;
                for (int64_t i = 0; i < c.dim; i++) {
                    const long double x = qs.rows[(size_t)q][i], y = corpus.rows[(size_t)r][i];
                    dot += x * y, qq += x * x, rr += y * y;
                }
                part[(size_t)r] = std::isfinite(qq) && std::isfinite(rr) && r != q;
                exact[(size_t)r] = metric == MILL_DOT ? dot : qq > 0 && rr > 0 ? dot / std::sqrt(qq) / std::sqrt(rr) : 0.0L;
            }
            const auto near = [&](long double x) { return std::fabs((double)x) * 0x1p-22 + 0x1p-140; };
            for (; n < c.k && rows[n] >= 0; n++) {
                ASSERT_LT(rows[n], c.n_corpus);
                ASSERT_TRUE(part[(size_t)rows[n]]);
                ASSERT_TRUE(seen.insert(rows[n]).second) << "a row twice";
                if (std::isfinite(scores[n])) {
                    ASSERT_NEAR((double)scores[n], (double)exact[(size_t)rows[n]], near(exact[(size_t)rows[n]]) + 1e-13);
                }
                ASSERT_GE(scores[n], c.threshold);
                if (n > 0) {
                    ASSERT_TRUE(stm_topk_before(scores[n - 1], rows[n - 1], scores[n], rows[n]));
                }
            }
            for (int64_t i = n; i < c.k; i++) ASSERT_EQ(rows[i], -1);
            for (int64_t r = 0; r < c.n_corpus; r++) {
                if (!part[(size_t)r] || seen.count(r)) continue;
                const long double bar = n == c.k ? std::max<long double>(scores[n - 1], c.threshold) : c.threshold;
                ASSERT_LE(exact[(size_t)r], bar + near(bar) + 1e-13) << "row " << r << " was left out of query " << q;
            }
        }
    }
}
/* It takes each product in long double: what a sanitizer may find in the oracle the smallest cases show. */
std::vector<Case> Smaller()
{
    std::vector<Case> v;
    for (const Case &c : kCases)
        if ((c.n_queries < 0 ? c.n_corpus : c.n_queries) * c.n_corpus * c.dim < mt::rounds(3000000, 300000)) v.push_back(c);
    return v;
}
INSTANTIATE_TEST_SUITE_P(Cases, TopKReference, testing::ValuesIn(Smaller()),
                         [](const auto &i) { return std::string(i.param.name); });
INSTANTIATE_TEST_SUITE_P(Cases, TopK, testing::ValuesIn(kCases), [](const auto &i) { return std::string(i.param.name); });

/* ---- pairs ---- */

typedef std::vector<std::tuple<int64_t, int64_t, float>> PairList;

struct Collect {
    PairList pairs;
    std::atomic<int> inside{0};
    int64_t refuse_after = -1;
};

mill_status Take(void *user, const mill_pair *pairs, int64_t n, mill_error *err)
{
    auto *c = static_cast<Collect *>(user);
    EXPECT_EQ(c->inside.fetch_add(1), 0) << "two calls at once";
    for (int64_t i = 0; i < n; i++) c->pairs.emplace_back(pairs[i].i, pairs[i].j, pairs[i].score);
    c->inside--;
    if (c->refuse_after >= 0 && (int64_t)c->pairs.size() >= c->refuse_after) return mill_fail(err, MILL_ERR_STEP, "enough");
    return MILL_OK;
}

mill_pairs_args PairArgs(const Vectors &v, int metric, float threshold, Collect *c)
{
    mill_pairs_args a = {};
    a.struct_size = sizeof a;
    a.metric = metric, a.threads = 1, a.vectors = v.rows.data(), a.n = v.n, a.dim = v.dim;
    a.threshold = threshold, a.scores = true, a.found = Take, a.user = c;
    return a;
}

struct PairCase {
    const char *name;
    int64_t n, dim;
    Fill fill;
    float threshold;
};
void PrintTo(const PairCase &c, std::ostream *os) { *os << c.name; }
constexpr PairCase kPairCases[] = {
    {"none", 0, 3, Fill::Normal, 0.5f},       {"one", 1, 3, Fill::Normal, -1.0f},     {"two", 2, 3, Fill::Copies, -1.0f},
    {"odd", 131, 33, Fill::Normal, 0.2f},     {"tile_edge", 384, 20, Fill::Ties, 0.5f},
    {"clustered", 700, 64, Fill::Clustered, 0.999f},
    {"copies", 400, 24, Fill::Copies, 1.0f},  {"zeros", 200, 8, Fill::Zeros, 0.0f},   {"nans", 300, 24, Fill::Nans, 0.1f},
    {"tiny", 150, 12, Fill::Tiny, 0.0f},      {"huge", 150, 12, Fill::Huge, 0.5f},    {"mixed", 400, 40, Fill::Mixed, 0.3f},
    {"everything", 200, 5, Fill::Normal, -kInf}, {"nothing", 200, 5, Fill::Normal, 2e38f},
};
class Pairs : public testing::TestWithParam<PairCase> {};

TEST_P(Pairs, EveryFormFindsThoseOfTheReference)
{
    const PairCase &c = GetParam();
    const Vectors v(c.n, c.dim, c.fill, 3);
    for (int metric : {MILL_COSINE, MILL_DOT}) {
        Collect want;
        const mill_pairs_args ra = PairArgs(v, metric, c.threshold, &want);
        ASSERT_EQ(stm_pairs_ref(&ra, nullptr), MILL_OK);
        std::sort(want.pairs.begin(), want.pairs.end());
        PairList without_scores = want.pairs;
        for (auto &pair : without_scores) std::get<2>(pair) = 0.0f;
        const stm_screen_opts forms[] = {{STM_GEMM_F32, 384, 512}, {STM_GEMM_F32, 7, 64}, {STM_GEMM_BF16, 768, 128},
                                         {STM_GEMM_BF16, 65, 64}};
        for (const auto &f : forms)
            for (int threads : {1, 3})
                for (bool scores : {true, false}) {
                    Collect got;
                    mill_pairs_args a = PairArgs(v, metric, c.threshold, &got);
                    a.threads = threads, a.scores = scores;
                    ASSERT_EQ(stm_pairs_cpu(&a, &f, nullptr), MILL_OK);
                    std::sort(got.pairs.begin(), got.pairs.end());
                    ASSERT_EQ(got.pairs.size(), want.pairs.size()) << "type " << f.type << ", tile " << f.tile_rows;
                    ASSERT_TRUE(got.pairs == (scores ? want.pairs : without_scores))
                        << "type " << f.type << ", tile " << f.tile_rows;
                }
    }
}
INSTANTIATE_TEST_SUITE_P(Cases, Pairs, testing::ValuesIn(kPairCases), [](const auto &i) { return std::string(i.param.name); });

TEST(PairsCall, ARefusalEndsTheSearchAndIsReturned)
{
    const Vectors v(3000, 8, Fill::Normal, 4);
    for (int threads : {1, 4}) {
        Collect c;
        c.refuse_after = 5000;
        mill_pairs_args a = PairArgs(v, MILL_COSINE, -1.0f, &c);
        a.threads = threads;
        mill_error err = {};
        EXPECT_EQ(mill_pairs(&a, &err), MILL_ERR_STEP);
        EXPECT_STREQ(err.msg, "enough");
        EXPECT_LT(c.pairs.size(), 5000u + 4096u) << "called again after it refused";
    }
}

/* ---- calls ---- */

bool Always(void *calls)
{
    (*static_cast<std::atomic<int> *>(calls))++;
    return true;
}

TEST(TopKCall, StopsWhenCancelled)
{
    const Vectors v(4000, 32, Fill::Normal, 5);
    std::vector<int64_t> rows(4000 * 2);
    std::vector<float> scores(4000 * 2);
    std::atomic<int> calls{0};
    mill_topk_args a = {};
    a.struct_size = sizeof a, a.threads = 2, a.queries = a.corpus = v.rows.data(), a.n_queries = a.n_corpus = v.n, a.dim = 32,
    a.k = 2;
    a.threshold = -kInf, a.rows = rows.data(), a.scores = scores.data(), a.cancelled = Always, a.user = &calls;
    mill_error err = {};
    EXPECT_EQ(mill_topk(&a, &err), MILL_ERR_STOPPED);
    EXPECT_LE(calls.load(), 2); /* each thread asks before its first tile */
    Collect c;
    mill_pairs_args p = PairArgs(v, MILL_COSINE, 0.9f, &c);
    p.cancelled = Always, p.user = &calls;
    EXPECT_EQ(mill_pairs(&p, &err), MILL_ERR_STOPPED);
    EXPECT_TRUE(c.pairs.empty());
}

static std::atomic<int> g_askers{0};
static bool CountThreads(void *)
{
    thread_local bool mine = (g_askers++, true);
    if (mine && g_askers < 3) std::this_thread::sleep_for(std::chrono::milliseconds(5)); /* let the others come, too */
    return false;
}

/* A single query occupied one thread; now the corpus is cut. */
TEST(TopKCall, OneQueryKeepsEveryThreadBusy)
{
    const Vectors corpus(60000, 16, Fill::Normal, 5), query(1, 16, Fill::Normal, 6);
    int64_t rows[4];
    float scores[4];
    mill_topk_args a = {};
    a.struct_size = sizeof a, a.threshold = -kInf;
    a.threads = 3, a.queries = query.rows.data(), a.n_queries = 1, a.corpus = corpus.rows.data(), a.n_corpus = corpus.n, a.dim = 16,
    a.k = 4;
    a.rows = rows, a.scores = scores, a.cancelled = CountThreads;
    g_askers = 0;
    mill_error err = {};
    ASSERT_EQ(mill_topk(&a, &err), MILL_OK) << err.msg;
    EXPECT_EQ(g_askers.load(), 3);
}

/* All of one direction: every vector ties with every other. Without leaving copies out this takes n * n exact scores. */
TEST(TopKCall, ManyEqualVectorsAreNotScoredOneByOne)
{
    const int64_t kRows = mt::rounds(40000, 10000), kDim = 64;
    const Vectors one(1, kDim, Fill::Normal, 7);
    std::vector<const float *> all(kRows, one.rows[0]);
    std::vector<int64_t> rows(kRows * 2);
    std::vector<float> scores(kRows * 2);
    mill_topk_args a = {};
    a.struct_size = sizeof a, a.threshold = -kInf;
    a.threads = 2, a.queries = a.corpus = all.data(), a.n_queries = a.n_corpus = kRows, a.dim = kDim, a.k = 2,
    a.exclude_self = true;
    a.rows = rows.data(), a.scores = scores.data();
    struct timespec from, to;
    mill_error err = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    ASSERT_EQ(mill_topk(&a, &err), MILL_OK) << err.msg;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    EXPECT_LT(to.tv_sec - from.tv_sec, 10) << "processor seconds; one by one it is minutes";
    for (int64_t r = 0; r < kRows; r++) {
        ASSERT_EQ(rows[(size_t)(2 * r)], r == 0 ? 1 : 0) << r;
        ASSERT_EQ(rows[(size_t)(2 * r + 1)], r <= 1 ? 2 : 1) << r;
        ASSERT_EQ(scores[(size_t)(2 * r)], 1.0f);
    }
}

TEST(TopKCall, RefusesArgumentsOutOfRange)
{
    const Vectors v(2, 2, Fill::Normal, 6);
    int64_t rows[4];
    float scores[4];
    mill_topk_args good = {};
    good.struct_size = sizeof good, good.queries = good.corpus = v.rows.data(), good.n_queries = good.n_corpus = 2, good.dim = 2,
    good.k = 2;
    good.threshold = -kInf, good.rows = rows, good.scores = scores;
    ASSERT_EQ(mill_topk(&good, nullptr), MILL_OK);
    const struct { const char *name; void (*spoil)(mill_topk_args *); } cases[] = {
        {"size", [](mill_topk_args *a) { a->struct_size = 8; }},
        {"metric", [](mill_topk_args *a) { a->metric = 2; }},
        {"dim 0", [](mill_topk_args *a) { a->dim = 0; }},
        {"dim too large", [](mill_topk_args *a) { a->dim = MILL_OPS_MAX_DIM + 1; }},
        {"k 0", [](mill_topk_args *a) { a->k = 0; }},
        {"k too large", [](mill_topk_args *a) { a->k = MILL_OPS_MAX_K + 1; }},
        {"negative queries", [](mill_topk_args *a) { a->n_queries = -1; }},
        {"negative corpus", [](mill_topk_args *a) { a->n_corpus = -1; }},
        {"NaN threshold", [](mill_topk_args *a) { a->threshold = kNan; }},
        {"infinite threshold", [](mill_topk_args *a) { a->threshold = kInf; }},
        {"no queries array", [](mill_topk_args *a) { a->queries = nullptr; }},
        {"no corpus array", [](mill_topk_args *a) { a->corpus = nullptr; }},
        {"no output", [](mill_topk_args *a) { a->rows = nullptr; }},
    };
    for (const auto &c : cases) {
        mill_topk_args a = good;
        mill_error err = {};
        c.spoil(&a);
        EXPECT_EQ(mill_topk(&a, &err), MILL_ERR_INVALID) << c.name;
        EXPECT_STRNE(err.msg, "") << c.name;
    }
    EXPECT_EQ(mill_topk(nullptr, nullptr), MILL_ERR_INVALID);
    EXPECT_EQ(mill_pairs(nullptr, nullptr), MILL_ERR_INVALID);
}

/* Any allocation or thread may fail: a clean error and nothing left, or (threads) the same result. */
TEST(TopKCall, FailsCleanlyAtEveryPoint)
{
    const Vectors v(900, 16, Fill::Clustered, 7);
    for (bool pairs : {false, true})
        for (uint32_t kind : {STM_FAULT_ALLOC, STM_FAULT_THREAD})
            for (int nth = 0;; nth++) {
                ASSERT_LT(nth, 100000);
                const long before = mt::live();
                std::vector<int64_t> rows(900 * 2);
                std::vector<float> scores(900 * 2);
                Collect c;
                mill_topk_args a = {};
                a.struct_size = sizeof a, a.threads = 2, a.queries = a.corpus = v.rows.data(), a.n_queries = a.n_corpus = v.n;
                a.dim = 16, a.k = 2, a.threshold = -kInf, a.rows = rows.data(), a.scores = scores.data();
                mill_pairs_args p = PairArgs(v, MILL_COSINE, 0.999f, &c);
                p.threads = 2;
                mill_error err = {};
                mt::FailNth fail(nth, kind);
                const mill_status st = pairs ? mill_pairs(&p, &err) : mill_topk(&a, &err);
                const bool fired = fail.fired();
                EXPECT_EQ(mt::live(), before) << "leak when point " << nth << " fails";
                if (st != MILL_OK) {
                    EXPECT_TRUE(fired && kind == STM_FAULT_ALLOC);
                    EXPECT_EQ(st, MILL_ERR_NOMEM);
                    EXPECT_STRNE(err.msg, "");
                }
                if (!fired) break;
            }
}

/* ---- parts ---- */

TEST(Dot, EveryLevelHasTheSameBits)
{
    const stm_cpu_level top = stm_cpu();
    for (int64_t n : {0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 384, 1001}) {
        const Vectors v(2, n > 0 ? n : 1, Fill::Mixed, 8);
        const double want = stm_dot_ref(v.rows[0], v.rows[1], n);
        for (int level = STM_CPU_GENERIC; level <= top; level++) {
            stm_cpu_limit((stm_cpu_level)level);
            EXPECT_EQ(stm_dot(v.rows[0], v.rows[1], n), want) << n << " at level " << level;
        }
        stm_cpu_limit(top);
        EXPECT_EQ(stm_dot(v.rows[1], v.rows[0], n), want);
    }
}

TEST(Score, OfEqualVectorsIsOne)
{
    const Vectors v(200, 384, Fill::Mixed, 9);
    for (const float *r : v.rows) EXPECT_EQ(mill_score(MILL_COSINE, r, r, 384), 1.0f);
    const float zero[2] = {0, 0}, one[2] = {1, 0}, nan[2] = {1, kNan};
    EXPECT_EQ(mill_score(MILL_COSINE, zero, one, 2), 0.0f);
    EXPECT_TRUE(std::isnan(mill_score(MILL_DOT, nan, one, 2)));
}

TEST(Scan, FindsWhatTheReferenceFinds)
{
    const stm_cpu_level top = stm_cpu();
    std::mt19937 rng(10);
    for (int64_t n : {0, 1, 15, 16, 31, 32, 63, 64, 65, 127, 384, 500}) {
        std::vector<float> s((size_t)n + 70, kInf); /* what stands past the end would pass */
        for (int64_t i = 0; i < n; i++) s[(size_t)i] = i % 11 == 3 ? kNan : (float)(rng() % 16);
        for (float cut : {-kInf, 0.0f, 7.0f, 15.0f, 16.0f, kInf}) {
            std::vector<int32_t> want((size_t)n + 1, -1), got((size_t)n + 1, -1);
            const int64_t w = stm_scan_above_ref(s.data(), n, cut, want.data());
            for (int level = STM_CPU_GENERIC; level <= top; level++) {
                stm_cpu_limit((stm_cpu_level)level);
                std::fill(got.begin(), got.end(), -1);
                EXPECT_EQ(stm_scan_above(s.data(), n, cut, got.data()), w);
                EXPECT_EQ(got, want) << n << " scores, cut " << cut << ", level " << level;
            }
            stm_cpu_limit(top);
        }
    }
}

/* Rows within the margin of the k-th best are kept whatever the order of arrival; far ones go. */
TEST(Candidates, KeepEverythingWithinTheMargin)
{
    for (int order = 0; order < 3; order++) {
        std::vector<float> s;
        for (int i = 0; i < 5000; i++) s.push_back((float)(i % 1000) / 1000.0f);
        std::mt19937 rng(11);
        if (order == 1) std::sort(s.begin(), s.end());
        if (order == 2) std::shuffle(s.begin(), s.end(), rng);
        const int64_t k = 12;
        const float margin = 0.05f;
        stm_candidates c = {};
        ASSERT_EQ(stm_candidates_reset(&c, k, -kInf), MILL_OK);
        for (size_t i = 0; i < s.size(); i++)
            if (s[i] >= c.cut) {
                ASSERT_EQ(stm_candidates_add(&c, k, margin, (int64_t)i, s[i]), MILL_OK);
            }
        stm_candidates_cut_back(&c, k, margin);
        std::vector<float> sorted = s;
        std::sort(sorted.rbegin(), sorted.rend());
        const float bar = sorted[k - 1] - margin;
        std::multiset<int64_t> got;
        for (int64_t i = 0; i < c.n; i++) got.insert(c.items[i].row);
        for (size_t i = 0; i < s.size(); i++) EXPECT_EQ(got.count((int64_t)i), s[i] >= bar ? 1u : 0u) << s[i];
        stm_candidates_fini(&c);
    }
}

} // namespace
