/* Kernels of the searches: every form against the oracles, bit for bit, with guards around the outputs. */
#include "device/table.h"
#include "support/sanitized.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

extern "C" {
#include "kernels/vectors.h"
#include "stepmill/ops.h"
}

namespace {

class NearKernels : public mt::KernelTable {
protected:
    /* Rows on the host, and on the device with their lengths and units. */
    struct Rows {
        int64_t n = 0;
        int32_t dim = 1;
        std::vector<float> v;
        std::vector<double> length;
        double longest = 0;
    };
    static Rows rows_of(std::vector<float> v, int32_t dim)
    {
        Rows r;
        r.n = static_cast<int64_t>(v.size()) / dim, r.dim = dim, r.v = std::move(v);
        for (int64_t i = 0; i < r.n; i++) {
            r.length.push_back(stm_length(&r.v[i * dim], dim));
            r.longest = std::max(r.longest, r.length.back());
        }
        return r;
    }
    static Rows random_rows(int64_t n, int32_t dim, unsigned seed, float scale = 1.0f)
    {
        std::mt19937 g(seed);
        std::normal_distribution<float> d;
        std::vector<float> v(n * dim);
        for (float &x : v) x = d(g) * scale;
        return rows_of(std::move(v), dim);
    }
    static stm_block here(const Rows &r) { return {r.v.data(), nullptr, r.length.data(), r.n}; }
    /* Poison lies behind the rows of each array, as in a block that is not full. */
    stm_block there(const Rows &r)
    {
        std::vector<float> v = r.v;
        std::vector<double> length = r.length;
        std::vector<uint16_t> units(r.n * stm_unit_width(r.dim), 0x7fc0);
        v.insert(v.end(), 2 * r.dim, NAN);
        length.insert(length.end(), 2, NAN);
        const size_t n = units.size();
        units.insert(units.end(), 2 * stm_unit_width(r.dim), 0x7fc0);
        uint16_t *out = put(units);
        const stm_unit_args a = {put(v), put(length), out, r.n, r.dim};
        EXPECT_EQ(kernels->unit(&a, native()), MILL_OK);
        const std::vector<uint16_t> got = get(out, units.size());
        for (size_t i = n; i < got.size(); i++) EXPECT_EQ(got[i], 0x7fc0);
        return {a.rows, out, a.length, r.n};
    }
    struct Case {
        const char *name;
        Rows queries, corpus;
        int32_t k;
        int metric;
        float threshold;
        bool self;
    };
    void expect_nearest(const Case &c, int64_t first = 0)
    {
        SCOPED_TRACE(c.name);
        std::vector<uint64_t> want(c.queries.n * c.k, STM_NO_RANK);
        std::vector<int32_t> self(c.queries.n);
        for (int64_t i = 0; i < c.queries.n; i++) self[i] = static_cast<int32_t>(first + (i % 3 == 1 ? -1 : i));
        stm_nearest_args a = {};
        a.queries = here(c.queries), a.corpus = here(c.corpus);
        a.self = c.self ? self.data() : nullptr;
        a.dim = c.queries.dim, a.k = c.k, a.metric = c.metric, a.threshold = c.threshold, a.longest = c.corpus.longest,
        a.first = first;
        a.best = want.data();
        const std::vector<uint64_t> before = want;
        stm_nearest_ref(&a);
        a.queries = there(c.queries), a.corpus = there(c.corpus);
        a.self = c.self ? put(self) : nullptr;
        for (stm_tiles form : forms()) {
            SCOPED_TRACE(form == STM_TILES_MMA ? "mma" : "wgmma");
            a.best = put(before);
            a.scratch = put(std::vector<uint8_t>(stm_nearest_scratch_bytes(c.queries.n, c.corpus.n, c.k), 0xa5));
            a.tiles = form;
            ASSERT_EQ(kernels->nearest(&a, native()), MILL_OK);
            ASSERT_EQ(get(a.best, want.size()), want);
        }
        held.clear();
    }
    /* The forms of products that the device has (kernels/tiles.h). */
    const std::vector<stm_tiles> &forms()
    {
        static const std::vector<stm_tiles> all = find_forms(); /* for all tests: the answer takes a while */
        return all;
    }
    std::vector<stm_tiles> find_forms()
    {
        auto *answer = put(std::vector<stm_tiles_answer>(1));
        if (kernels->tiles(answer, native()) == MILL_ERR_UNSUPPORTED) return {STM_TILES_MMA};
        const stm_tiles_answer got = get(answer, 1)[0];
        EXPECT_TRUE(stm_tiles_known(got.wrong, got.right)) << got.wrong << " wrong, " << got.right << " right";
        return {STM_TILES_MMA, STM_TILES_WGMMA};
    }
    static Rows repeated(const Rows &r, int64_t times)
    {
        std::vector<float> v;
        for (int64_t i = 0; i < times; i++) v.insert(v.end(), r.v.begin(), r.v.end());
        return rows_of(std::move(v), r.dim);
    }
};

/* ThreadSanitizer takes a hundred times as long: there each kind of path once. */
const bool kSlow = mt::leaves_out(mt::kThreadSanitizer);

const float kNone = -std::numeric_limits<float>::infinity();

} // namespace

TEST_P(NearKernels, RanksKeepScoresAndOrder)
{
    const float inf = std::numeric_limits<float>::infinity();
    const float scores[] = {inf, 3e38f, 1.0f, 0.5f, 1e-45f, 0.0f, -0.0f, -1e-45f, -0.5f, -3e38f, -inf};
    for (float s : scores)
        for (int64_t row : {int64_t(0), int64_t(7), STM_RANK_ROWS - 1}) {
            const uint64_t rank = stm_rank_of(s, row);
            const float back = stm_rank_score(rank);
            EXPECT_EQ(memcmp(&back, &s, sizeof s), 0) << s;
            EXPECT_EQ(stm_rank_row(rank), row);
            EXPECT_LT(rank, STM_NO_RANK);
        }
    for (size_t i = 0; i + 1 < std::size(scores); i++) {
        const bool same = scores[i] == scores[i + 1];
        EXPECT_LT(stm_rank_of(scores[i], same ? 3 : 9), stm_rank_of(scores[i + 1], same ? 4 : 3)) << scores[i];
    }
}

TEST_P(NearKernels, Unit)
{
    for (int32_t dim : {1, 2, 31, 32, 33, 65})
        for (int64_t n : {0, 1, 3, 130}) {
            if (kSlow && dim < 33) continue;
            SCOPED_TRACE(testing::Message() << n << " rows of " << dim);
            Rows r = random_rows(n, dim, 5, 1e3f);
            if (n > 2) {
                std::fill(r.v.begin() + dim, r.v.begin() + 2 * dim, 0.0f); /* a row of zeros */
                std::fill(r.v.begin() + 2 * dim, r.v.end(), 2e38f);        /* and long ones */
                r = rows_of(r.v, dim);
            }
            std::vector<uint16_t> want(n * stm_unit_width(dim), 0xcccc);
            stm_unit_args a = {r.v.data(), r.length.data(), want.data(), n, dim};
            uint16_t *out = put(want);
            stm_unit_ref(&a);
            a = {put(r.v), put(r.length), out, n, dim};
            ASSERT_EQ(kernels->unit(&a, native()), MILL_OK);
            ASSERT_EQ(get(out, want.size()), want);
            held.clear();
        }
}

TEST_P(NearKernels, Lengths)
{
    const float inf = std::numeric_limits<float>::infinity();
    for (int32_t dim : {1, 2, 15, 16, 17, 65, 384})
        for (int64_t n : {0, 1, 3, 9}) {
            if (kSlow && dim != 17 && dim != 65) continue;
            SCOPED_TRACE(testing::Message() << n << " rows of " << dim);
            std::vector<float> v = random_rows(n, dim, 5, 1e3f).v;
            if (n > 3) {
                std::fill(v.begin(), v.begin() + dim, 0.0f);
                std::fill(v.begin() + dim, v.begin() + 2 * dim, -0.0f);                /* as long, but not the same bits */
                /* finite, though no float holds its length */
                std::fill(v.begin() + 2 * dim, v.begin() + 3 * dim, 3.4e38f);
                v[3 * dim + dim / 2] = NAN, v[4 * dim] = inf, v[6 * dim - 1] = -inf;
                std::copy_n(v.begin() + 6 * dim, dim, v.begin() + 7 * dim);            /* a copy */
                if (dim > 1) std::swap(v[8 * dim], v[8 * dim + 1]);
            }
            std::vector<double> length(n, 7.0);
            std::vector<uint64_t> hash(n, 7);
            stm_lengths_args a = {v.data(), length.data(), hash.data(), n, dim};
            double *lengths = put(length);
            uint64_t *hashes = put(hash);
            stm_lengths_ref(&a);
            for (int64_t i = 0; i < n; i++) ASSERT_EQ(length[i], stm_length(&v[i * dim], dim)) << i;
            if (n > 3) {
                EXPECT_NE(hash[0], hash[1]);
                EXPECT_EQ(hash[6], hash[7]);
                for (int i : {3, 4, 5}) EXPECT_EQ(length[i], -1.0);
            }
            std::vector<float> behind = v; /* what lies behind the rows is not theirs */
            behind.insert(behind.end(), dim, NAN);
            a = {put(behind), lengths, hashes, n, dim};
            ASSERT_EQ(kernels->lengths(&a, native()), MILL_OK);
            ASSERT_EQ(get(lengths, length.size()), length);
            ASSERT_EQ(get(hashes, hash.size()), hash);
            held.clear();
        }
    float row = 1.0f;
    double length;
    uint64_t hash;
    for (const stm_lengths_args &a : {stm_lengths_args{&row, &length, &hash, -1, 1}, stm_lengths_args{&row, &length, &hash, 1, 0},
                                      stm_lengths_args{nullptr, &length, &hash, 1, 1}, stm_lengths_args{&row, nullptr, &hash, 1, 1},
                                      stm_lengths_args{&row, &length, nullptr, 1, 1}})
        EXPECT_EQ(kernels->lengths(&a, native()), MILL_ERR_INVALID);
}

TEST_P(NearKernels, Nearest)
{
    const Case cases[] = {
        {"no query", random_rows(0, 8, 1), random_rows(5, 8, 2), 3, 0, kNone, false},
        {"no corpus", random_rows(3, 8, 1), random_rows(0, 8, 2), 3, 0, kNone, false},
        {"one and one", random_rows(1, 1, 1), random_rows(1, 1, 2), 1, 0, kNone, false},
        {"itself only", random_rows(1, 5, 1), random_rows(1, 5, 1), 1, 0, kNone, true},
        {"fewer rows than k", random_rows(3, 17, 1), random_rows(9, 17, 2), 20, 0, kNone, true},
        {"past a tile", random_rows(129, 33, 1), random_rows(300, 33, 2), 1, 0, kNone, true},
        {"dot, of all lengths", random_rows(5, 20, 1, 30.0f), random_rows(400, 20, 2, 1e-3f), 7, 1, kNone, false},
        {"a threshold", random_rows(6, 24, 1), random_rows(260, 24, 2), 12, 0, 0.25f, false},
        {"a threshold of dot", random_rows(6, 24, 1), random_rows(260, 24, 2), 12, 1, 6.0f, false},
        {"k at a border of the lists", random_rows(3, 4, 1), random_rows(200, 4, 2), 33, 0, kNone, false},
        {"four warpgroups, rows that stay", random_rows(200, 384, 1), random_rows(40, 384, 2), 5, 0, kNone, false},
        {"two, rows that come again", random_rows(100, 1000, 1), random_rows(30, 1000, 2), 5, 1, kNone, true},
        {"the largest k", random_rows(1, 3, 1), random_rows(1300, 3, 2), STM_NEAREST_MAX_K, 0, kNone, false},
    };
    for (const Case &c : cases)
        if (!kSlow || &c - cases >= 5) expect_nearest(c);
}

/* A query's own place counts from the block's first row: the row of that number within the block is another one. */
TEST_P(NearKernels, SelfIsAPlaceInTheWhole)
{
    const Rows q = random_rows(40, 8, 1);
    Rows c = random_rows(300, 8, 2);
    for (int64_t i = 0; i < q.n; i++) std::copy_n(q.v.begin() + i * 8, 8, c.v.begin() + (100 + i) * 8);
    expect_nearest({"its twin is 100 rows further on", q, rows_of(c.v, 8), 2, 0, kNone, true}, 100);
}

/* Lists that fill up and are cut back, several parts of a corpus, and a k whose lists have a block for each warp. */
TEST_P(NearKernels, ListsFillUp)
{
    if (!kSlow) expect_nearest({"several parts", random_rows(3, 3, 1), random_rows(2300, 3, 2), 5, 0, kNone, true}, 1000);
    expect_nearest({"better and better", random_rows(1, 2, 1),
                    [] {
                        std::vector<float> v; /* ever smaller angles to (1, 0): each tile is better than those before */
                        for (int i = 0; i < (kSlow ? 640 : 1024); i++)
                            v.push_back(1.0f), v.push_back(40.0f / static_cast<float>(1 + i));
                        return rows_of(std::move(v), 2);
                    }(),
                    4, 0, kNone, false});
    if (!kSlow) expect_nearest({"a large k", random_rows(2, 3, 1), random_rows(900, 3, 2), 300, 0, kNone, false});
}

/* More rows within the margin than a list holds: all are scored exactly. Equal scores go by row. */
TEST_P(NearKernels, TooManyNearlyEqual)
{
    Rows same = repeated(random_rows(1, 7, 9), 700);
    expect_nearest({"copies", random_rows(2, 7, 1), same, 3, 0, kNone, true});
    if (kSlow) return;
    same.v[7 * 650] *= 1.0001f; /* one that differs by less than the screen can see */
    expect_nearest({"nearly copies", random_rows(2, 7, 1), rows_of(same.v, 7), 3, 0, kNone, false});
    expect_nearest({"zeros", rows_of(std::vector<float>(14), 7), rows_of(std::vector<float>(7 * 520), 7), 2, 0, kNone, false});
    expect_nearest(
        {"dot beyond the scale of floats", random_rows(2, 5, 1, 1e-30f), random_rows(150, 5, 2, 1e-30f), 3, 1, kNone, false});
    expect_nearest({"dot that overflows", random_rows(2, 5, 1, 1e30f), random_rows(150, 5, 2, 1e30f), 3, 1, kNone, false});
}

/* A corpus in blocks gives what the whole gives; lists of several devices, merged, too. */
TEST_P(NearKernels, BlocksAndMerge)
{
    const int32_t dim = 9, k = 6;
    const Rows q = random_rows(70, dim, 1), c = random_rows(500, dim, 2);
    std::vector<uint64_t> want(q.n * k, STM_NO_RANK);
    stm_nearest_args a = {};
    a.queries = here(q), a.corpus = here(c), a.dim = dim, a.k = k, a.threshold = kNone, a.longest = c.longest, a.best = want.data();
    stm_nearest_ref(&a);

    const stm_block queries = there(q);
    const std::vector<stm_tiles> &both = forms();
    uint64_t *lists = put(std::vector<uint64_t>(2 * q.n * k, STM_NO_RANK));
    void *scratch = put(std::vector<uint8_t>(stm_nearest_scratch_bytes(q.n, c.n, k)));
    for (int64_t first = 0, size; first < c.n; first += size) { /* blocks of 1, 3, 9, ... rows; every other to the other list */
        static int turn;
        size = std::min<int64_t>(first * 2 + 1, c.n - first);
        const Rows part = rows_of({c.v.begin() + first * dim, c.v.begin() + (first + size) * dim}, dim);
        a.queries = queries, a.corpus = there(part), a.first = first, a.longest = part.longest, a.scratch = scratch;
        a.best = lists + (turn++ % 2) * q.n * k;
        a.tiles = both[turn / 2 % both.size()];
        ASSERT_EQ(kernels->nearest(&a, native()), MILL_OK);
    }
    uint64_t *out = put(std::vector<uint64_t>((q.n - 3) * k, 0));
    const stm_merge_ranks_args m = {lists, q.n * k, 3, q.n - 3, 2, k, out};
    ASSERT_EQ(kernels->merge_ranks(&m, native()), MILL_OK);
    ASSERT_EQ(get(out, (q.n - 3) * k), std::vector<uint64_t>(want.begin() + 3 * k, want.end()));
}

TEST_P(NearKernels, NearPairs)
{
    const struct {
        const char *name;
        Rows a, b;
        int64_t a_first, b_first;
        int metric;
        float threshold;
        int64_t room;
    } cases[] = {
        {"none and none", random_rows(0, 3, 1), random_rows(0, 3, 1), 0, 0, 0, 0.0f, 4},
        {"one with itself", random_rows(1, 3, 1), random_rows(1, 3, 1), 0, 0, 0, -1.0f, 4},
        {"two", random_rows(2, 3, 1), random_rows(2, 3, 1), 5, 5, 0, -1.0f, 1},
        {"a triangle past a tile", random_rows(200, 6, 1), random_rows(200, 6, 1), 0, 0, 0, 0.6f, 20000},
        {"a square", random_rows(140, 33, 1), random_rows(60, 33, 2), 0, 1000, 0, 0.3f, 9000},
        {"below the diagonal", random_rows(10, 33, 1), random_rows(60, 33, 2), 1000, 0, 0, -1.0f, 10},
        {"across the diagonal", random_rows(60, 3, 1), random_rows(60, 3, 2), 30, 0, 0, 0.0f, 4000},
        {"dot", random_rows(50, 8, 1, 3.0f), random_rows(150, 8, 2), 0, 50, 1, 9.0f, 9000},
        {"dot without a threshold", random_rows(20, 8, 1), random_rows(20, 8, 1), 0, 0, 1, kNone, 400},
        {"copies", repeated(random_rows(2, 4, 3), 30), repeated(random_rows(2, 4, 3), 30), 0, 0, 0, 1.0f, 3600},
        {"several blocks and spans", random_rows(300, 5, 1), random_rows(300, 5, 1), 0, 0, 0, 0.9f, 20000},
    };
    for (const auto &c : cases) {
        if (kSlow && c.a.n > 150) continue;
        SCOPED_TRACE(c.name);
        std::vector<stm_near_pair> want(c.room), out(c.room, {-7, -7, -7.0f});
        std::vector<int64_t> found(2, -7);
        stm_near_pairs_args a = {here(c.a), here(c.b),   c.a_first,    c.b_first,
                                 c.a.dim,   c.metric,    c.threshold,  std::max(c.a.longest, c.b.longest),
                                 c.room,    want.data(), found.data(), nullptr, STM_TILES_MMA};
        stm_near_pairs_ref(&a);
        const int64_t n = found[1];
        a.a = there(c.a), a.b = there(c.b);
        for (stm_tiles form : forms()) {
            SCOPED_TRACE(form == STM_TILES_MMA ? "mma" : "wgmma");
            a.tiles = form;
            a.out = put(out), a.found = put(std::vector<int64_t>(2, -7));
            a.scratch = put(std::vector<uint8_t>(stm_near_pairs_scratch_bytes(c.room)));
            ASSERT_EQ(kernels->near_pairs(&a, native()), MILL_OK);
            found = get(a.found, 2);
            EXPECT_LE(found[0], c.room);
            EXPECT_GE(found[0], found[1]) << "pairs that passed the screen";
            ASSERT_EQ(found[1], n);
            std::vector<stm_near_pair> got = get(a.out, out.size());
            for (int64_t i = n; i < c.room; i++) EXPECT_EQ(got[i].i, -7) << "wrote past what it found";
            got.resize(n);
            const auto before = [](const stm_near_pair &x, const stm_near_pair &y) { return x.i != y.i ? x.i < y.i : x.j < y.j; };
            std::sort(got.begin(), got.end(), before);
            for (int64_t i = 0; i < n; i++) {
                ASSERT_EQ(got[i].i, want[i].i);
                ASSERT_EQ(got[i].j, want[i].j);
                ASSERT_EQ(got[i].score, want[i].score);
            }
        }
        held.clear();
    }
}

/* More pairs than there is room for: told, and nothing behind the room is written. */
TEST_P(NearKernels, NearPairsWithoutRoom)
{
    const Rows r = repeated(random_rows(1, 5, 1), 40);
    const int64_t room = 100, pairs = 40 * 39 / 2;
    stm_near_pairs_args a = {there(r),
                             there(r),
                             0,
                             0,
                             5,
                             0,
                             0.5f,
                             r.longest,
                             room,
                             put(std::vector<stm_near_pair>(room)),
                             put(std::vector<int64_t>(2)),
                             put(std::vector<uint8_t>(stm_near_pairs_scratch_bytes(room))),
                             STM_TILES_MMA};
    for (stm_tiles form : forms()) {
        a.tiles = form;
        ASSERT_EQ(kernels->near_pairs(&a, native()), MILL_OK);
        EXPECT_EQ(get(a.found, 2)[0], pairs);
        (void)get(a.out, room);
        (void)get(static_cast<uint8_t *>(a.scratch), stm_near_pairs_scratch_bytes(room));
    }
}

/* A device that is not for a form says so, and does nothing. */
TEST_P(NearKernels, FormsOfProducts)
{
    stm_tiles_answer *answer = put(std::vector<stm_tiles_answer>(1));
    const mill_status st = kernels->tiles(answer, native());
    if (st == MILL_OK) {
        const stm_tiles_answer got = get(answer, 1)[0];
        EXPECT_TRUE(stm_tiles_known(got.wrong, got.right)) << got.wrong << " wrong, " << got.right << " right";
        return;
    }
    EXPECT_EQ(st, MILL_ERR_UNSUPPORTED);
    EXPECT_EQ(get(answer, 1)[0].wrong, 0);
    if (strcmp(ops->name, "cuda") != 0) return; /* the host has one form */
    const Rows r = random_rows(3, 8, 1);
    stm_nearest_args a = {there(r), there(r), nullptr, 8, 1, 0, kNone, r.longest, 0, put(std::vector<uint64_t>(3, STM_NO_RANK)),
                          put(std::vector<uint8_t>(stm_nearest_scratch_bytes(3, 3, 1))), STM_TILES_WGMMA};
    EXPECT_EQ(kernels->nearest(&a, native()), MILL_ERR_UNSUPPORTED);
    EXPECT_EQ(get(a.best, 3), std::vector<uint64_t>(3, STM_NO_RANK));
    stm_near_pairs_args p = {a.queries,
                             a.corpus,
                             0,
                             0,
                             8,
                             0,
                             0.0f,
                             r.longest,
                             4,
                             put(std::vector<stm_near_pair>(4)),
                             put(std::vector<int64_t>(2)),
                             put(std::vector<uint8_t>(stm_near_pairs_scratch_bytes(4))),
                             STM_TILES_WGMMA};
    EXPECT_EQ(kernels->near_pairs(&p, native()), MILL_ERR_UNSUPPORTED);
}

TEST_P(NearKernels, MinHash)
{
    std::mt19937 g(3);
    std::vector<uint8_t> bytes(4000);
    for (uint8_t &b : bytes) b = static_cast<uint8_t>(g());
    const int64_t lengths[] = {0, 1, 4, 5, 6, 132, 133, 260, 400, 700, 0, 5};
    std::vector<int64_t> offsets = {17};
    for (int64_t n : lengths) offsets.push_back(offsets.back() + n);
    const int64_t rows = std::size(lengths);
    for (int32_t width : {1, 5, STM_SHINGLE_MAX})
        for (int64_t n : {int64_t(0), int64_t(1), rows}) {
            SCOPED_TRACE(testing::Message() << n << " texts, shingles of " << width);
            std::vector<uint32_t> want(n * STM_MINHASHES, 7);
            stm_minhash_args a = {bytes.data(), offsets.data(), n, width, 42, want.data()};
            uint32_t *out = put(want);
            stm_minhash_ref(&a);
            a = {put(bytes), put(offsets), n, width, 42, out};
            ASSERT_EQ(kernels->minhash(&a, native()), MILL_OK);
            ASSERT_EQ(get(out, want.size()), want);
            held.clear();
        }
}

/* What it is for: the share of equal numbers is near the share of common shingles. 128 draws: 4 standard deviations are 0.18. */
TEST_P(NearKernels, MinHashEstimatesOverlap)
{
    std::mt19937 g(4);
    std::vector<uint8_t> bytes(1200);
    for (uint8_t &b : bytes) b = static_cast<uint8_t>(g());
    std::copy(bytes.begin() + 200, bytes.begin() + 600, bytes.begin() + 600); /* texts of 600 with 400 bytes in common */
    const std::vector<int64_t> offsets = {0, 600, 1200};
    uint32_t *out = put(std::vector<uint32_t>(2 * STM_MINHASHES));
    const stm_minhash_args a = {put(bytes), put(offsets), 2, 5, 1, out};
    ASSERT_EQ(kernels->minhash(&a, native()), MILL_OK);
    const std::vector<uint32_t> h = get(out, 2 * STM_MINHASHES);
    int same = 0;
    for (int j = 0; j < STM_MINHASHES; j++) same += h[j] == h[STM_MINHASHES + j];
    EXPECT_NEAR(same / 128.0, 396.0 / (2 * 596 - 396), 0.18);
}

TEST_P(NearKernels, RefuseWhatTheContractExcludes)
{
    float row = 1.0f;
    double length = 1.0;
    alignas(16) uint16_t unit[32];
    uint64_t rank = 0;
    const stm_block one = {&row, unit, &length, 1}, bad = {nullptr, unit, &length, 1};
    for (const stm_unit_args &a : {stm_unit_args{&row, &length, unit, -1, 1}, stm_unit_args{&row, &length, unit, 1, 0},
                                   stm_unit_args{nullptr, &length, unit, 1, 1}, stm_unit_args{&row, &length, unit + 1, 1, 1}})
        EXPECT_EQ(kernels->unit(&a, native()), MILL_ERR_INVALID);
    for (const stm_nearest_args &a :
         {stm_nearest_args{bad, one, nullptr, 1, 1, 0, 0.0f, 1.0, 0, &rank, unit, STM_TILES_MMA},
          stm_nearest_args{one, bad, nullptr, 1, 1, 0, 0.0f, 1.0, 0, &rank, unit, STM_TILES_MMA},
          stm_nearest_args{one, one, nullptr, 0, 1, 0, 0.0f, 1.0, 0, &rank, unit, STM_TILES_MMA},
          stm_nearest_args{one, one, nullptr, 1, 0, 0, 0.0f, 1.0, 0, &rank, unit, STM_TILES_MMA},
          stm_nearest_args{one, one, nullptr, 1, STM_NEAREST_MAX_K + 1, 0, 0.0f, 1.0, 0, &rank, unit, STM_TILES_MMA},
          stm_nearest_args{one, one, nullptr, 1, 1, 2, 0.0f, 1.0, 0, &rank, unit, STM_TILES_MMA},
          stm_nearest_args{one, one, nullptr, 1, 1, 0, NAN, 1.0, 0, &rank, unit, STM_TILES_MMA},
          stm_nearest_args{one, one, nullptr, 1, 1, 0, 0.0f, 1.0, STM_RANK_ROWS, &rank, unit, STM_TILES_MMA},
          stm_nearest_args{one, one, nullptr, 1, 1, 0, 0.0f, 1.0, 0, nullptr, unit, STM_TILES_MMA}})
        EXPECT_EQ(kernels->nearest(&a, native()), MILL_ERR_INVALID);
    for (const stm_merge_ranks_args &a :
         {stm_merge_ranks_args{&rank, 1, 0, 2, 1, 1, &rank}, stm_merge_ranks_args{&rank, 1, 0, 1, 0, 1, &rank},
          stm_merge_ranks_args{nullptr, 1, 0, 1, 1, 1, &rank}, stm_merge_ranks_args{&rank, 1, -1, 1, 1, 1, &rank}})
        EXPECT_EQ(kernels->merge_ranks(&a, native()), MILL_ERR_INVALID);
    stm_near_pair pair;
    int64_t found[2];
    for (const stm_near_pairs_args &a :
         {stm_near_pairs_args{bad, one, 0, 0, 1, 0, 0.0f, 1.0, 1, &pair, found, unit, STM_TILES_MMA},
          stm_near_pairs_args{one, one, 0, -1, 1, 0, 0.0f, 1.0, 1, &pair, found, unit, STM_TILES_MMA},
          stm_near_pairs_args{one, one, 0, 0, 1, 0, 0.0f, 1.0, 0, &pair, found, unit, STM_TILES_MMA},
          stm_near_pairs_args{one, one, 0, 0, 1, 0, 0.0f, 1.0, 1, nullptr, found, unit, STM_TILES_MMA}})
        EXPECT_EQ(kernels->near_pairs(&a, native()), MILL_ERR_INVALID);
    const int64_t offsets[2] = {0, 0};
    uint32_t hashes[STM_MINHASHES];
    for (const stm_minhash_args &a :
         {stm_minhash_args{nullptr, offsets, -1, 1, 0, hashes}, stm_minhash_args{nullptr, offsets, 1, 0, 0, hashes},
          stm_minhash_args{nullptr, offsets, 1, STM_SHINGLE_MAX + 1, 0, hashes},
          stm_minhash_args{nullptr, nullptr, 1, 1, 0, hashes}})
        EXPECT_EQ(kernels->minhash(&a, native()), MILL_ERR_INVALID);
}

INSTANTIATE_TEST_SUITE_P(Backends, NearKernels, ::testing::Values(mt::suite_for()),
                         [](const auto &i) { return std::string(i.param); });
