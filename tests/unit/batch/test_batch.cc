/* Batches against the row model: every row carries its key, its mark, its values and which of them were imputed. */
#include <algorithm>

#include "rows.h"
#include "support/sanitized.h"

extern "C" {
#include "memory/buffer.h"
}

using namespace mt;

namespace {

struct ModelRow {
    std::vector<int64_t> key; /* without padding */
    int64_t mark = 0;
    std::vector<Value> values;
    std::vector<bool> imputed;
};
struct Model {
    std::vector<ModelRow> rows;
};
using Types = std::vector<const mill_type *>;

std::vector<int64_t> key_of(const mill_batch *b, int64_t r)
{
    std::vector<int64_t> k((size_t)b->keys.width, 12345);
    stm_batch_key(b, r, k.data());
    while (!k.empty() && k.back() == -1) k.pop_back();
    return k;
}

::testing::AssertionResult same(const mill_batch *b, const Model &want)
{
    if (mill_batch_rows(b) != (int64_t)want.rows.size())
        return ::testing::AssertionFailure() << mill_batch_rows(b) << " rows, want " << want.rows.size();
    for (size_t r = 0; r < want.rows.size(); r++) {
        const ModelRow &w = want.rows[r];
        if (key_of(b, (int64_t)r) != w.key) return ::testing::AssertionFailure() << "key of row " << r;
        const int64_t mark = b->marks != nullptr ? read(b->marks, (int64_t)r).i : 0;
        if (mark != w.mark) return ::testing::AssertionFailure() << "mark of row " << r << ": " << mark << ", want " << w.mark;
        if (b->marks != nullptr && mill_column_is_null(b->marks, (int64_t)r)) return ::testing::AssertionFailure() << "null mark";
        for (int32_t i = 0; i < b->n_columns; i++) {
            const mill_column *c = mill_batch_column(b, i);
            const Value got = c != nullptr ? read(c, (int64_t)r) : Value();
            if (!(got == w.values[(size_t)i]))
                return ::testing::AssertionFailure()
                       << "row " << r << " column " << i << ": " << got.show() << ", want " << w.values[(size_t)i].show();
            if (stm_batch_is_imputed(b, i, (int64_t)r) != w.imputed[(size_t)i])
                return ::testing::AssertionFailure() << "imputed of row " << r << " column " << i;
        }
    }
    return ::testing::AssertionSuccess();
}

/* A batch with random columns (some absent), keys of a random width, and maybe imputed runs. */
Batch random_batch(Rng &rng, mill_pool *pool, const Types &types, int64_t rows, Model *m)
{
    Batch b;
    EXPECT_EQ(stm_batch_create(pool, rows, (int32_t)types.size(), 2, &b.p), MILL_OK);
    m->rows.assign((size_t)rows, ModelRow());
    for (size_t i = 0; i < types.size(); i++) {
        const bool absent = rng() % 5 == 0;
        const Rows values = absent ? Rows((size_t)rows) : random_rows(rng, types[i], rows, (int)(rng() % 2));
        if (!absent) {
            Column c = build(pool, types[i], values);
            EXPECT_EQ(mill_batch_set_column(b.p, (int32_t)i, &c.p), MILL_OK);
        }
        for (size_t r = 0; r < (size_t)rows; r++) m->rows[r].values.push_back(values[r]), m->rows[r].imputed.push_back(false);
    }
    if (rng() % 2) {
        b.p->keys.first = (int64_t)(rng() % 1000);
        for (int64_t r = 0; r < rows; r++) m->rows[(size_t)r].key = {b.p->keys.first + r};
    } else {
        const int32_t width = 1 + (int32_t)(rng() % 4);
        EXPECT_EQ(mill_buffer_create(pool, (size_t)(rows * width) * 8, &b.p->keys.tuples), MILL_OK);
        b.p->keys.width = width;
        int64_t *k = (int64_t *)mill_buffer_data(b.p->keys.tuples);
        for (int64_t r = 0; r < rows; r++)
            for (int32_t i = 0, len = 1 + (int32_t)(rng() % (uint64_t)width); i < width; i++) {
                k[r * width + i] = i < len ? (int64_t)(rng() % 50) : -1;
                if (i < len) m->rows[(size_t)r].key.push_back(k[r * width + i]);
            }
    }
    b.p->seq = rng();
    b.p->covered[1] = 77;
    return b;
}

void impute(Rng &rng, mill_batch *b, Model *m)
{
    const int64_t n = mill_batch_rows(b), first = (int64_t)(rng() % (uint64_t)(n + 1)),
                  rows = (int64_t)(rng() % (uint64_t)(n - first + 1));
    const int32_t column = (int32_t)(rng() % (uint64_t)(b->n_columns + 1)) - 1;
    const int64_t error = 1 + (int64_t)(rng() % 9);
    ASSERT_EQ(stm_batch_impute(b, column, first, rows, error), MILL_OK);
    for (int64_t r = first; r < first + rows; r++) {
        m->rows[(size_t)r].mark = error;
        if (column < 0) continue;
        m->rows[(size_t)r].values[(size_t)column] = Value();
        m->rows[(size_t)r].imputed[(size_t)column] = true;
    }
}

} // namespace

TEST(BatchModel, RandomOperationsMatch)
{
    for (uint64_t seed = 0; seed < mt::rounds<uint64_t>(1500, 300); seed++) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Rng rng(seed);
        Pool pool;
        Types types;
        for (size_t n = rng() % 4; n > 0; n--) types.push_back(random_type(rng, 2));
        std::vector<std::pair<Batch, Model>> have;
        for (int i = 0; i < 3; i++) {
            Model m;
            Batch b = random_batch(rng, pool, types, (int64_t)(rng() % 30), &m);
            have.emplace_back(std::move(b), std::move(m));
        }
        for (int op = 0; op < 12; op++) {
            auto &a = have[rng() % have.size()];
            const int64_t n = (int64_t)a.second.rows.size();
            Batch out;
            Model want;
            switch (rng() % 5) {
            case 0: {
                const int64_t first = (int64_t)(rng() % (uint64_t)(n + 1)), rows = (int64_t)(rng() % (uint64_t)(n - first + 1));
                ASSERT_EQ(stm_batch_slice(a.first.p, first, rows, &out.p), MILL_OK);
                want.rows.assign(a.second.rows.begin() + first, a.second.rows.begin() + first + rows);
                ASSERT_EQ(out.p->seq, a.first.p->seq);
                break;
            }
            case 1: {
                std::vector<stm_run_of_rows> runs;
                for (size_t k = rng() % 5; k > 0; k--) {
                    auto &s = have[rng() % have.size()];
                    const int64_t len = (int64_t)s.second.rows.size();
                    stm_run_of_rows run = {s.first.p, (int64_t)(rng() % (uint64_t)(len + 1)), 0};
                    run.rows = (int64_t)(rng() % (uint64_t)(len - run.first + 1));
                    if (rng() % 6 == 0) run = {nullptr, 0, (int64_t)(rng() % 5)};
                    for (int64_t r = 0; r < run.rows; r++) {
                        ModelRow row;
                        row.values.resize(types.size());
                        row.imputed.resize(types.size());
                        want.rows.push_back(run.batch ? s.second.rows[(size_t)(run.first + r)] : row);
                    }
                    runs.push_back(run);
                }
                ASSERT_EQ(stm_batch_concat(pool, runs.data(), runs.size(), types.data(), (int32_t)types.size(), 2, &out.p),
                          MILL_OK);
                ASSERT_EQ(out.p->seq, 0u) << "envelope zeroed";
                ASSERT_EQ(out.p->covered[1], 0);
                break;
            }
            case 2: {
                std::vector<int64_t> index;
                const bool run = rng() % 4 == 0 && n > 0;
                for (size_t k = run ? 1 + rng() % (uint64_t)n : rng() % 30; k > 0; k--)
                    index.push_back(run ? (int64_t)index.size() : n == 0 || rng() % 5 == 0 ? -1 : (int64_t)(rng() % (uint64_t)n));
                for (int64_t i : index) {
                    ModelRow row;
                    row.values.resize(types.size());
                    row.imputed.resize(types.size());
                    want.rows.push_back(i < 0 ? row : a.second.rows[(size_t)i]);
                }
                ASSERT_EQ(stm_batch_gather(pool, a.first.p, index.data(), (int64_t)index.size(), types.data(), &out.p), MILL_OK);
                break;
            }
            case 3:
                ASSERT_EQ(stm_batch_clone(a.first.p, &out.p), MILL_OK);
                ASSERT_EQ(out.p->seq, a.first.p->seq);
                ASSERT_EQ(out.p->covered[1], a.first.p->covered[1]);
                want = a.second;
                impute(rng, out.p, &want); /* a clone's contents are its own */
                break;
            default:
                impute(rng, a.first.p, &a.second);
            }
            ASSERT_TRUE(same(a.first.p, a.second)) << "input";
            if (!out.p) continue;
            ASSERT_TRUE(same(out.p, want));
            have.emplace_back(std::move(out), std::move(want));
            if (have.size() > 8) have.erase(have.begin() + (long)(rng() % have.size()));
        }
        for (auto &x : have)
            for (auto &y : have) /* order of keys is that of vectors padded with -1 */
                for (size_t i = 0; i < x.second.rows.size(); i += 3)
                    for (size_t k = 0; k < y.second.rows.size(); k += 3) {
                        auto ka = x.second.rows[i].key, kb = y.second.rows[k].key;
                        ka.resize(8, -1), kb.resize(8, -1);
                        ASSERT_EQ(stm_batch_key_compare(x.first.p, (int64_t)i, y.first.p, (int64_t)k), ka < kb ? -1 : ka > kb);
                    }
    }
}

TEST(Keys, AreReadFromTheirTexts)
{
    static const struct Case {
        const char *text;
        std::vector<int64_t> key; /* of four elements at most */
        const char *rest;
    } kCases[] = {
        {"12", {12}, ""},          {"12.0.3", {12, 0, 3}, ""}, {"12.-.3", {12, -1, 3}, ""},
        {"-", {-1}, ""},           {"0.9223372036854775807", {0, INT64_MAX}, ""},
        {"", {}, ""},              {".", {}, "."},             {"x", {}, "x"},
        {"12.", {12}, "."},        {"12..3", {12}, "..3"},     {"12.x", {12}, ".x"},
        {"12 ", {12}, " "},        {"+1", {}, "+1"},           {"1.2.3.4.5", {1, 2, 3, 4}, ".5"},
        {"--1", {-1}, "-1"},
    };
    for (const Case &c : kCases) {
        SCOPED_TRACE(c.text);
        int64_t key[4];
        const char *rest = nullptr;
        const int32_t n = stm_key_parse(c.text, key, 4, &rest);
        EXPECT_EQ(std::vector<int64_t>(key, key + n), c.key);
        EXPECT_STREQ(rest, c.rest);
    }
    Pool pool;
    Rng rng(5);
    const Types types = {type_of("int64")};
    for (int i = 0; i < 50; i++) {
        Model m;
        Batch b = random_batch(rng, pool, types, 20, &m);
        for (int64_t r = 0; r < 20; r++) {
            char text[256];
            int64_t key[16];
            const char *rest = nullptr;
            stm_batch_key_text(b.p, r, text, sizeof text);
            const int32_t n = stm_key_parse(text, key, 16, &rest);
            EXPECT_EQ(std::vector<int64_t>(key, key + n), key_of(b.p, r)) << text;
            EXPECT_STREQ(rest, "");
        }
    }
}

TEST(BatchOps, ConsecutiveKeysStayConsecutive)
{
    Pool pool;
    Batch a, b, joined, cut, far;
    ASSERT_EQ(stm_batch_create(pool, 10, 0, 0, &a.p), MILL_OK);
    ASSERT_EQ(stm_batch_create(pool, 5, 0, 0, &b.p), MILL_OK);
    a.p->keys.first = 100;
    b.p->keys.first = 110;
    const stm_run_of_rows runs[] = {{a.p, 4, 6}, {b.p, 0, 3}};
    ASSERT_EQ(stm_batch_concat(pool, runs, 2, nullptr, 0, 0, &joined.p), MILL_OK);
    EXPECT_EQ(joined.p->keys.tuples, nullptr) << "no tuples are written for the common case";
    EXPECT_EQ(joined.p->keys.first, 104);
    const stm_run_of_rows gap[] = {{a.p, 0, 3}, {a.p, 4, 1}};
    ASSERT_EQ(stm_batch_concat(pool, gap, 2, nullptr, 0, 0, &far.p), MILL_OK);
    EXPECT_EQ(key_of(far.p, 3), std::vector<int64_t>{104});
    const int64_t index[] = {3, 4, 5};
    ASSERT_EQ(stm_batch_gather(pool, a.p, index, 3, nullptr, &cut.p), MILL_OK);
    EXPECT_EQ(cut.p->keys.tuples, nullptr);
    EXPECT_EQ(cut.p->keys.first, 103);
}

TEST(BatchOps, OneWholeRunSharesItsBuffers)
{
    Pool pool;
    Rng rng(1);
    const mill_type *t = type_of("utf8");
    const Types types = {t};
    Model m;
    Batch a = random_batch(rng, pool, types, 0, &m), whole, part;
    a = Batch();
    ASSERT_EQ(stm_batch_create(pool, 50, 1, 0, &a.p), MILL_OK);
    Column c = build(pool, t, random_rows(rng, t, 50, 1));
    const void *data = mill_column_view(c.p).data;
    ASSERT_EQ(mill_batch_set_column(a.p, 0, &c.p), MILL_OK);
    const stm_run_of_rows all = {a.p, 0, 50}, some = {a.p, 10, 5};
    ASSERT_EQ(stm_batch_concat(pool, &all, 1, types.data(), 1, 3, &whole.p), MILL_OK);
    ASSERT_EQ(stm_batch_concat(pool, &some, 1, types.data(), 1, 3, &part.p), MILL_OK);
    EXPECT_EQ(mill_column_view(mill_batch_column(whole.p, 0)).data, data);
    EXPECT_EQ(mill_column_view(mill_batch_column(part.p, 0)).data, data);
    EXPECT_EQ(whole.p->n_roots, 3);
    EXPECT_GE(stm_batch_bytes(whole.p), 50 * 8);
}

TEST(BatchOps, CloneEmptyKeepsTheEnvelope)
{
    Pool pool;
    Batch a, e;
    ASSERT_EQ(stm_batch_create(pool, 7, 3, 2, &a.p), MILL_OK);
    a.p->seq = 9;
    a.p->frontier[0] = 5, a.p->frontier[1] = 6;
    a.p->covered[0] = 1, a.p->covered[1] = 2;
    a.p->borders = 5;
    a.p->skipped = 4;
    a.p->end = true;
    ASSERT_EQ(stm_batch_clone_empty(a.p, &e.p), MILL_OK);
    EXPECT_EQ(mill_batch_rows(e.p), 0);
    EXPECT_EQ(mill_batch_columns(e.p), 3);
    EXPECT_TRUE(e.p->seq == 9 && e.p->frontier[0] == 5 && e.p->frontier[1] == 6 && e.p->covered[0] == 1 && e.p->covered[1] == 2);
    EXPECT_TRUE(e.p->borders == 5 && e.p->skipped == 4 && e.p->end);
}

TEST(BatchOps, RefusesWhatCannotBe)
{
    Pool pool;
    Batch a;
    mill_batch *out = nullptr;
    const mill_type *i32 = type_of("int32"), *utf8 = type_of("utf8");
    EXPECT_EQ(mill_batch_create(pool, -1, 1, &out), MILL_ERR_INVALID);
    EXPECT_EQ(mill_batch_create(pool, 1, -1, &out), MILL_ERR_INVALID);
    EXPECT_EQ(stm_batch_create(pool, 1, 1, -1, &out), MILL_ERR_INVALID);
    ASSERT_EQ(mill_batch_create(pool, 4, 1, &a.p), MILL_OK);
    Column five = build(pool, i32, Rows(5)), four = build(pool, i32, Rows(4));
    mill_column *const was = five.p;
    EXPECT_EQ(mill_batch_set_column(a.p, 0, &five.p), MILL_ERR_INVALID);
    EXPECT_EQ(mill_batch_set_column(a.p, 1, &four.p), MILL_ERR_INVALID);
    EXPECT_EQ(mill_batch_set_column(a.p, -1, &four.p), MILL_ERR_INVALID);
    EXPECT_EQ(five.p, was);
    ASSERT_EQ(mill_batch_set_column(a.p, 0, &four.p), MILL_OK);
    EXPECT_EQ(mill_batch_column(a.p, 1), nullptr);
    EXPECT_EQ(mill_batch_column(a.p, -1), nullptr);
    EXPECT_EQ(stm_batch_slice(a.p, 2, 3, &out), MILL_ERR_INVALID);
    EXPECT_EQ(stm_batch_impute(a.p, 0, 3, 2, 1), MILL_ERR_INVALID);
    EXPECT_EQ(stm_batch_impute(a.p, 1, 0, 1, 1), MILL_ERR_INVALID);
    const stm_run_of_rows past = {a.p, 1, 4}, ok = {a.p, 0, 2}, two[] = {ok, ok};
    EXPECT_EQ(stm_batch_concat(pool, &past, 1, &i32, 1, 0, &out), MILL_ERR_INVALID);
    EXPECT_EQ(stm_batch_concat(pool, &ok, 1, &utf8, 1, 0, &out), MILL_ERR_TYPE);
    EXPECT_EQ(stm_batch_concat(pool, two, 2, &utf8, 1, 0, &out), MILL_ERR_TYPE);
    const int64_t outside[] = {4}, below[] = {-2};
    EXPECT_EQ(stm_batch_gather(pool, a.p, outside, 1, &i32, &out), MILL_ERR_INVALID);
    EXPECT_EQ(stm_batch_gather(pool, a.p, below, 1, &i32, &out), MILL_ERR_INVALID);
    EXPECT_EQ(out, nullptr);
}

TEST(BatchOps, ImputingAloneWritesInPlace)
{
    Pool pool;
    Batch a;
    const mill_type *i32 = type_of("int32");
    ASSERT_EQ(mill_batch_create(pool, 1000, 1, &a.p), MILL_OK);
    Column c = build(pool, i32, random_rows(*std::make_unique<Rng>(1), i32, 1000, 0));
    ASSERT_EQ(mill_batch_set_column(a.p, 0, &c.p), MILL_OK);
    ASSERT_EQ(stm_batch_impute(a.p, 0, 0, 1, 3), MILL_OK);
    const mill_column *marks = a.p->marks, *col = mill_batch_column(a.p, 0);
    const int64_t live = stm_pool_counts(pool).live_bytes;
    for (int r = 1; r < 1000; r += 7) ASSERT_EQ(stm_batch_impute(a.p, 0, r, 1, r), MILL_OK);
    EXPECT_EQ(a.p->marks, marks);
    EXPECT_EQ(mill_batch_column(a.p, 0), col);
    EXPECT_EQ(stm_pool_counts(pool).live_bytes, live);
    EXPECT_EQ(mill_column_view(col).null_count, 1 + 143);
}

TEST(BatchOps, FailCleanlyAtEveryAllocation)
{
    const Types types = {type_of("utf8"), type_of("list<int32>"), type_of("bool")};
    for (int op = 0; op < 6; op++) {
        int failures = 0;
        for (int nth = 0;; nth++) {
            Rng rng(5);
            Pool pool;
            Model m;
            Batch a = random_batch(rng, pool, types, 40, &m);
            ASSERT_EQ(stm_batch_impute(a.p, 0, 3, 4, 1), MILL_OK);
            for (int r = 3; r < 7; r++)
                m.rows[(size_t)r].mark = 1, m.rows[(size_t)r].values[0] = Value(), m.rows[(size_t)r].imputed[0] = true;
            Batch b;
            ASSERT_EQ(stm_batch_clone(a.p, &b.p), MILL_OK);
            stm_pool_trim(pool);
            const stm_run_of_rows runs[] = {{a.p, 0, 40}, {nullptr, 0, 3}, {b.p, 5, 20}};
            const int64_t index[] = {5, 1, -1, 39};
            mill_batch *out = nullptr;
            mill_status st;
            bool fired;
            {
                FailNth fail(nth);
                st = op == 0   ? stm_batch_concat(pool, runs, 3, types.data(), 3, 2, &out)
                     : op == 1 ? stm_batch_concat(pool, runs + 2, 1, types.data(), 3, 2, &out)
                     : op == 2 ? stm_batch_gather(pool, a.p, index, 4, types.data(), &out)
                     : op == 3 ? stm_batch_slice(a.p, 2, 9, &out)
                     : op == 4 ? stm_batch_clone_empty(a.p, &out)
                               : stm_batch_impute(b.p, 1, 0, 10, 2);
                fired = fail.fired();
            }
            ASSERT_TRUE(st == MILL_OK || (fired && st == MILL_ERR_NOMEM)) << "op " << op << " nth " << nth;
            ASSERT_EQ(out != nullptr, st == MILL_OK && op != 5);
            ASSERT_TRUE(same(a.p, m));
            ASSERT_TRUE(st == MILL_OK || same(b.p, m)) << "a failed call shows nothing";
            mill_batch_destroy(&out);
            failures += st != MILL_OK;
            if (!fired) break;
        }
        EXPECT_GT(failures, 0) << "op " << op;
    }
}

/* What an engine does per batch: make, cut, join, gather, mark, destroy. */
TEST(BatchOps, SteadyStateTakesNoMemory)
{
    Pool pool;
    Rng rng(9);
    const Types types = {type_of("utf8"), type_of("fixed_list<float32>[16]")};
    const Rows texts = random_rows(rng, types[0], 256, 1), vectors = random_rows(rng, types[1], 256, 0);
    Column a = build(pool, types[0], texts), v = build(pool, types[1], vectors);
    std::vector<int64_t> index;
    for (int i = 0; i < 256; i += 2) index.push_back(i);
    auto work = [&] {
        Batch b, first, second, joined, half;
        Column ca = a, cv = v;
        ASSERT_EQ(stm_batch_create(pool, 256, 2, 1, &b.p), MILL_OK);
        ASSERT_EQ(mill_batch_set_column(b.p, 0, &ca.p), MILL_OK);
        ASSERT_EQ(mill_batch_set_column(b.p, 1, &cv.p), MILL_OK);
        ASSERT_EQ(stm_batch_slice(b.p, 0, 100, &first.p), MILL_OK);
        ASSERT_EQ(stm_batch_slice(b.p, 100, 156, &second.p), MILL_OK);
        ASSERT_EQ(stm_batch_impute(second.p, 0, 5, 3, 1), MILL_OK);
        const stm_run_of_rows runs[] = {{first.p, 50, 50}, {second.p, 0, 156}};
        ASSERT_EQ(stm_batch_concat(pool, runs, 2, types.data(), 2, 1, &joined.p), MILL_OK);
        ASSERT_EQ(stm_batch_gather(pool, b.p, index.data(), (int64_t)index.size(), types.data(), &half.p), MILL_OK);
    };
    work();
    work();
    const auto before = stm_alloc_counts();
    const int64_t misses = stm_pool_counts(pool).misses;
    for (int i = 0; i < 2000; i++) work();
    EXPECT_EQ(stm_alloc_counts().allocs, before.allocs);
    EXPECT_EQ(stm_alloc_counts().frees, before.frees);
    EXPECT_EQ(stm_pool_counts(pool).misses, misses);
}
