/* Columns and builders against the row model. */
#include <sys/mman.h>

#include "rows.h"
#include "support/sanitized.h"

extern "C" {
#include "batch/bits.h"
#include "batch/builder.h"
#include "batch/column.h"
#include "memory/buffer.h"
}

using namespace mt;

/* Bits: every alignment of source and target, lengths around words, neighbours untouched. */
TEST(Bits, CopyFillCount)
{
    Rng rng(1);
    std::vector<uint8_t> src(64);
    for (auto &b : src) b = (uint8_t)rng();
    for (int64_t n : {0, 1, 7, 8, 9, 63, 64, 65, 130, 300})
        for (int64_t s = 0; s < 17; s++)
            for (int64_t d = 0; d < 17; d++) {
                std::vector<uint8_t> dst(64), want;
                for (auto &b : dst) b = (uint8_t)rng();
                want = dst;
                for (int64_t i = 0; i < n; i++) stm_bit_put(want.data(), d + i, stm_bit(src.data(), s + i));
                const std::vector<uint8_t> exact_src(src.begin(), src.begin() + (s + n + 7) / 8); /* reads no byte past the run */
                stm_bits_copy(dst.data(), d, exact_src.data(), s, n);
                ASSERT_EQ(dst, want) << n << " bits from " << s << " to " << d;
                int64_t count = 0;
                for (int64_t i = 0; i < n; i++) count += stm_bit(dst.data(), d + i);
                ASSERT_EQ(stm_bits_count(dst.data(), d, n), count);
                for (bool v : {true, false}) {
                    want = dst;
                    for (int64_t i = 0; i < n; i++) stm_bit_put(want.data(), d + i, v);
                    stm_bits_fill(dst.data(), d, n, v);
                    ASSERT_EQ(dst, want);
                }
            }
}

TEST(Half, EveryValueRoundTripsAndRounds)
{
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = stm_half_to_float((uint16_t)h);
        if (f != f) {
            EXPECT_EQ(h & 0x7C00, 0x7C00u);
            const float back = stm_half_to_float(stm_half_from_double((double)f));
            EXPECT_NE(back, back);
            continue;
        }
        ASSERT_EQ(stm_half_from_double((double)f), h);
        if ((h & 0x7FFF) >= 0x7C00) continue;
        const double next = (h & 0x7FFF) == 0x7BFF ? 65536.0 : std::abs((double)stm_half_to_float((uint16_t)(h + 1)));
        const double mid = (std::abs((double)f) + next) / 2;
        const double sign = h & 0x8000 ? -1 : 1;
        ASSERT_EQ(stm_half_from_double(sign * mid), h & 1 ? h + 1 : h) << "ties to even";
        ASSERT_EQ(stm_half_from_double(sign * mid * (1 + 0x1p-50)), h + 1);
        ASSERT_EQ(stm_half_from_double(sign * mid * (1 - 0x1p-50)), h);
    }
    EXPECT_EQ(stm_half_from_double(1e300), 0x7C00);
    EXPECT_EQ(stm_half_from_double(-1e300), 0xFC00);
    EXPECT_EQ(stm_half_from_double(1e-300), 0);
    EXPECT_EQ(stm_half_from_double(-1e-300), 0x8000);
}

/* All types, row counts around byte and growth borders, no, some and all nulls; then slices at every kind of offset. */
TEST(Column, BuildAndSliceEveryType)
{
    const int64_t many = mt::rounds(1000, 200);
    for (const auto &text : all_types())
        for (int64_t rows :
             {(int64_t)0, (int64_t)1, (int64_t)7, (int64_t)8, (int64_t)9, (int64_t)63, (int64_t)64, (int64_t)65, many})
            for (int nulls : {0, 1, 2}) {
                SCOPED_TRACE(text + " rows " + std::to_string(rows) + " nulls " + std::to_string(nulls));
                Rng rng((uint64_t)(rows * 3 + nulls));
                Pool pool;
                const mill_type *t = type_of(text);
                const Rows want = random_rows(rng, t, rows, nulls);
                const Column c = build(pool, t, want);
                ASSERT_TRUE(same(c.p, want));
                EXPECT_EQ(mill_column_type(c.p), t);
                for (int64_t first : {0, 1, 5, 8, 64})
                    for (int64_t n : {(int64_t)0, (int64_t)1, (int64_t)3, (int64_t)64, many - 100}) {
                        Column cut, cut2;
                        const mill_status st = stm_column_slice(c.p, first, n, &cut.p);
                        ASSERT_EQ(st, first + n <= rows ? MILL_OK : MILL_ERR_INVALID);
                        if (st != MILL_OK) continue;
                        ASSERT_TRUE(same(cut.p, Rows(want.begin() + first, want.begin() + first + n)));
                        if (n < 3) continue;
                        ASSERT_EQ(stm_column_slice(cut.p, 1, n - 2, &cut2.p), MILL_OK);
                        cut = Column();
                        ASSERT_TRUE(same(cut2.p, Rows(want.begin() + first + 1, want.begin() + first + n - 1)));
                    }
                Column none;
                ASSERT_EQ(mill_column_nulls(pool, t, rows, &none.p), MILL_OK);
                ASSERT_TRUE(same(none.p, Rows((size_t)rows)));
            }
}

/* Bytes of a row as its values say, found the slow way. */
static int64_t weight(const mill_column *c, int64_t r)
{
    const mill_view v = mill_column_view(c);
    const int64_t at = v.offset + r;
    int64_t sum = 0;
    switch (v.type->id) {
    case MILL_BOOL: return 1;
    case MILL_LIST:
        for (int64_t k = v.offsets[at]; k < v.offsets[at + 1]; k++) sum += weight(v.children[0], k);
        return sum;
    case MILL_FIXED_LIST:
        for (int64_t k = at * v.type->length; k < (at + 1) * v.type->length; k++) sum += weight(v.children[0], k);
        return sum;
    case MILL_STRUCT:
        for (int32_t i = 0; i < v.type->n_fields; i++) sum += weight(v.children[i], at);
        return sum;
    default: return v.offsets != nullptr ? v.offsets[at + 1] - v.offsets[at] : v.type->width;
    }
}

TEST(Column, SpanIsWhatTheValuesWeigh)
{
    for (const auto &text : all_types()) {
        SCOPED_TRACE(text);
        Rng rng(5);
        Pool pool;
        const mill_type *t = type_of(text);
        Column c = build(pool, t, random_rows(rng, t, 200, 1)), cut;
        ASSERT_EQ(stm_column_slice(c.p, 13, 150, &cut.p), MILL_OK);
        c = Column();
        int64_t sum = 0;
        for (int64_t r = 0; r < 150; r++) {
            const int64_t one = stm_column_span(cut.p, r, 1);
            if (text.find("bool") == std::string::npos) {
                ASSERT_EQ(one, weight(cut.p, r)) << r;
            } else {
                ASSERT_LE(one, weight(cut.p, r)) << r; /* bits share bytes */
            }
            sum += one;
        }
        if (text.find("bool") == std::string::npos) {
            EXPECT_EQ(stm_column_span(cut.p, 0, 150), sum);
        }
        EXPECT_EQ(stm_column_span(cut.p, 150, 0), 0);
        Column none;
        ASSERT_EQ(mill_column_nulls(pool, t, 9, &none.p), MILL_OK);
        EXPECT_GE(stm_column_span(none.p, 0, 9), 0);
    }
}

TEST(Column, SliceRefusesWhatIsOutside)
{
    Pool pool;
    const Column c = build(pool, type_of("int32"), Rows(10));
    mill_column *out = nullptr;
    static const struct { int64_t first, rows; } kBad[] = {{-1, 1}, {0, 11}, {10, 1}, {11, 0}, {0, -1}, {INT64_MAX, 1},
                                                           {1, INT64_MAX}};
    for (auto &k : kBad) EXPECT_EQ(stm_column_slice(c.p, k.first, k.rows, &out), MILL_ERR_INVALID) << k.first << " " << k.rows;
    EXPECT_EQ(out, nullptr);
}

/* Cutting what is left of a slice again and again, as re-batching does, must not build a chain. */
TEST(Column, RepeatedSlicingKeepsOneBase)
{
    Pool pool;
    Column c = build(pool, type_of("int64"), Rows(200000));
    const int64_t live = stm_pool_counts(pool).live_bytes;
    while (mill_column_rows(c.p) > 1) {
        Column rest;
        ASSERT_EQ(stm_column_slice(c.p, 1, mill_column_rows(c.p) - 1, &rest.p), MILL_OK);
        c = rest;
    }
    EXPECT_LE(stm_pool_counts(pool).live_bytes, live + 1024);
}

/* Random chains of operations; every result is held against the model. */
TEST(Column, RandomOperationsMatchTheModel)
{
    for (uint64_t seed = 0; seed < mt::rounds<uint64_t>(1500, 300); seed++) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Rng rng(seed);
        Pool pool;
        const mill_type *t = random_type(rng, 3);
        std::vector<std::pair<Column, Rows>> have;
        for (int i = 0; i < 3; i++) {
            const int64_t n = (int64_t)(rng() % 40);
            Rows rows = random_rows(rng, t, n, (int)(rng() % 8 ? rng() % 2 : 2));
            Column c = build(pool, t, rows);
            have.emplace_back(std::move(c), std::move(rows));
        }
        for (int op = 0; op < 12; op++) {
            const auto &a = have[rng() % have.size()];
            const int64_t n = (int64_t)a.second.size();
            Column out;
            Rows want;
            switch (rng() % 4) {
            case 0: {
                const int64_t first = (int64_t)(rng() % (uint64_t)(n + 1)), rows = (int64_t)(rng() % (uint64_t)(n - first + 1));
                ASSERT_EQ(stm_column_slice(a.first.p, first, rows, &out.p), MILL_OK);
                want.assign(a.second.begin() + first, a.second.begin() + first + rows);
                break;
            }
            case 1: {
                std::vector<mill_column *> cols;
                for (size_t k = rng() % 4; k > 0; k--) {
                    const auto &b = have[rng() % have.size()];
                    cols.push_back(b.first.p);
                    want.insert(want.end(), b.second.begin(), b.second.end());
                }
                ASSERT_EQ(stm_column_concat(pool, cols.data(), cols.size(), t, &out.p), MILL_OK);
                break;
            }
            case 2: {
                std::vector<int64_t> index;
                for (size_t k = rng() % 50; k > 0; k--) {
                    int64_t i = n == 0 || rng() % 6 == 0 ? -1 : (int64_t)(rng() % (uint64_t)n);
                    if (!index.empty() && index.back() >= 0 && index.back() + 1 < n && rng() % 2) i = index.back() + 1;
                    index.push_back(i);
                    want.push_back(i < 0 ? Value() : a.second[(size_t)i]);
                }
                ASSERT_EQ(stm_column_gather(pool, a.first.p, index.data(), (int64_t)index.size(), &out.p), MILL_OK);
                break;
            }
            default: {
                const int64_t first = (int64_t)(rng() % (uint64_t)(n + 1)), rows = (int64_t)(rng() % (uint64_t)(n - first + 1));
                out = a.first; /* shared: must be copied before it is written */
                want = a.second;
                for (int64_t r = first; r < first + rows; r++) want[(size_t)r] = Value();
                ASSERT_EQ(stm_column_mask(pool, &out.p, first, rows), MILL_OK);
            }
            }
            ASSERT_TRUE(same(out.p, want));
            ASSERT_TRUE(same(a.first.p, a.second)) << "an input changed";
            have.emplace_back(std::move(out), std::move(want));
            if (have.size() > 8) have.erase(have.begin() + (long)(rng() % have.size()));
        }
    }
}

/* Truncation, also of half-made records and between finishes. */
TEST(Builder, TruncateUndoesHalfRecords)
{
    for (uint64_t seed = 0; seed < mt::rounds<uint64_t>(800, 200); seed++) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Rng rng(seed);
        Pool pool;
        const mill_type *t = random_type(rng, 3);
        mill_builder *b = nullptr;
        ASSERT_EQ(mill_builder_create(pool, t, &b), MILL_OK);
        for (int round = 0; round < 3; round++) {
            Rows want;
            for (int op = 0; op < 60; op++) {
                const Value v = random_value(rng, t, 1);
                if (rng() % 8 == 0) {
                    const size_t keep = rng() % (want.size() + 1);
                    mill_builder_truncate(b, (int64_t)keep);
                    want.resize(keep);
                } else if (!v.null && !v.items.empty() && rng() % 4 == 0) { /* a record that breaks off */
                    ASSERT_EQ(append(mill_builder_child(b, 0), t->fields[0].type, v.items[0]), MILL_OK);
                    if (rng() % 2) {
                        mill_builder_truncate(b, mill_builder_rows(b));
                    } else { /* a null in its place drops what was begun */
                        ASSERT_EQ(mill_builder_null(b), MILL_OK);
                        want.push_back(Value());
                    }
                } else {
                    ASSERT_EQ(append(b, t, v), MILL_OK);
                    want.push_back(v);
                }
                ASSERT_EQ(mill_builder_rows(b), (int64_t)want.size());
            }
            Column c;
            ASSERT_EQ(mill_builder_finish(b, &c.p), MILL_OK);
            ASSERT_EQ(mill_builder_rows(b), 0);
            ASSERT_TRUE(same(c.p, want));
        }
        mill_builder_destroy(&b);
    }
}

TEST(Builder, RefusesWrongTypesAndShapes)
{
    Pool pool;
    struct Case {
        const char *type;
        mill_status as_bool, as_int, as_float, as_text, as_row;
    };
    const mill_status ok = MILL_OK, ty = MILL_ERR_TYPE, inv = MILL_ERR_INVALID;
    static const Case kCases[] = {
        {"bool", ok, ty, ty, ty, ty},      {"int32", ty, ok, ty, ty, ty},       {"int64", ty, ok, ty, ty, ty},
        {"float16", ty, ty, ok, ty, ty},   {"float32", ty, ty, ok, ty, ty},     {"float64", ty, ty, ok, ty, ty},
        {"utf8", ty, ty, ty, ok, ty},      {"binary", ty, ty, ty, ok, ty},      {"json", ty, ty, ty, ok, ty},
        {"list<int32>", ty, ty, ty, ty, ok}, {"fixed_list<int32>[2]", ty, ty, ty, ty, inv},
        {"struct<a: bool>", ty, ty, ty, ty, inv},
        {"struct<>", ty, ty, ty, ty, ok},
    };
    for (auto &c : kCases) {
        SCOPED_TRACE(c.type);
        mill_builder *b = nullptr;
        ASSERT_EQ(mill_builder_create(pool, type_of(c.type), &b), MILL_OK);
        int64_t rows = 0;
        auto check = [&](mill_status got, mill_status want) {
            EXPECT_EQ(got, want);
            rows += got == MILL_OK;
            EXPECT_EQ(mill_builder_rows(b), rows);
        };
        check(mill_builder_bool(b, true), c.as_bool);
        check(mill_builder_int(b, 1), c.as_int);
        check(mill_builder_float(b, 1), c.as_float);
        check(mill_builder_text(b, "x", 1), c.as_text);
        check(mill_builder_close_row(b), c.as_row);
        EXPECT_EQ(mill_builder_child(b, 1), nullptr);
        EXPECT_EQ(mill_builder_child(b, -1), nullptr);
        EXPECT_EQ(mill_builder_reserve(b, -1, 0), MILL_ERR_INVALID);
        EXPECT_EQ(mill_builder_reserve(b, INT64_MAX, 0), MILL_ERR_NOMEM);
        mill_builder_destroy(&b);
    }
    mill_builder *b = nullptr;
    ASSERT_EQ(mill_builder_create(pool, type_of("int32"), &b), MILL_OK);
    EXPECT_EQ(mill_builder_int(b, INT32_MAX), MILL_OK);
    EXPECT_EQ(mill_builder_int(b, INT32_MIN), MILL_OK);
    EXPECT_EQ(mill_builder_int(b, (int64_t)INT32_MAX + 1), MILL_ERR_TYPE);
    EXPECT_EQ(mill_builder_int(b, (int64_t)INT32_MIN - 1), MILL_ERR_TYPE);
    EXPECT_EQ(mill_builder_rows(b), 2);
    mill_builder_destroy(&b);
    ASSERT_EQ(mill_builder_create(pool, type_of("utf8"), &b), MILL_OK);
    EXPECT_EQ(mill_builder_text(b, "", -1), MILL_ERR_INVALID);
    EXPECT_EQ(mill_builder_reserve(b, 10, INT64_MAX), MILL_ERR_NOMEM);
    mill_builder_destroy(&b);
}

TEST(Builder, ReserveThenAppendsTakeNothing)
{
    Pool pool;
    mill_builder *b = nullptr;
    ASSERT_EQ(mill_builder_create(pool, type_of("utf8"), &b), MILL_OK);
    ASSERT_EQ(mill_builder_reserve(b, 5000, 50000), MILL_OK);
    const int64_t live = stm_pool_counts(pool).live_bytes;
    for (int i = 0; i < 5000; i++) ASSERT_EQ(mill_builder_text(b, "0123456789", 10), MILL_OK);
    EXPECT_EQ(stm_pool_counts(pool).live_bytes, live);
    mill_builder_destroy(&b);
}

/* The n-th allocation fails; the builder stays as it was and the same append then succeeds. */
TEST(Builder, SurvivesEveryFailedAllocation)
{
    for (const auto &text : all_types()) {
        SCOPED_TRACE(text);
        const mill_type *t = type_of(text);
        Rng rng(7);
        const Rows want = random_rows(rng, t, 300, 1);
        for (int nth = 0;; nth++) {
            Pool pool;
            mill_builder *b = nullptr;
            bool fired;
            {
                FailNth fail(nth);
                mill_status st = mill_builder_create(pool, t, &b);
                if (st != MILL_OK) {
                    ASSERT_EQ(b, nullptr);
                    ASSERT_EQ(mill_builder_create(pool, t, &b), MILL_OK);
                }
                for (auto &v : want) {
                    const int64_t rows = mill_builder_rows(b);
                    if (append(b, t, v) == MILL_OK) continue;
                    ASSERT_EQ(mill_builder_rows(b), rows);
                    mill_builder_truncate(b, rows); /* the record was half-made */
                    ASSERT_EQ(append(b, t, v), MILL_OK);
                }
                Column c;
                if (mill_builder_finish(b, &c.p) != MILL_OK) {
                    ASSERT_EQ(c.p, nullptr);
                    ASSERT_EQ(mill_builder_finish(b, &c.p), MILL_OK);
                }
                fired = fail.fired();
                ASSERT_TRUE(same(c.p, want)) << "when allocation " << nth << " fails";
            }
            mill_builder_destroy(&b);
            if (!fired) break;
        }
    }
}

/* Concat, gather, nulls, slice, mask: at every failed allocation no output, no leak, inputs whole. */
TEST(Column, OperationsFailCleanlyAtEveryAllocation)
{
    for (const auto &text : all_types()) {
        SCOPED_TRACE(text);
        const mill_type *t = type_of(text);
        Rng rng(11);
        const Rows rows = random_rows(rng, t, 90, 1);
        const int64_t index[] = {5, 6, 7, -1, 80, 3, 3, -1, -1, 89, 0};
        for (int op = 0; op < 5; op++) {
            int failures = 0;
            for (int nth = 0;; nth++) {
                Pool pool;
                Column a = build(pool, t, rows), cut, out;
                mill_column *none = nullptr;
                ASSERT_EQ(stm_column_slice(a.p, 3, 70, &cut.p), MILL_OK);
                stm_pool_trim(pool);
                mill_column *both[] = {a.p, cut.p};
                if (op == 4) out = cut;
                mill_status st;
                bool fired;
                {
                    FailNth fail(nth);
                    mill_column **to = op == 4 ? &out.p : &none;
                    st = op == 0   ? stm_column_concat(pool, both, 2, t, to)
                         : op == 1 ? stm_column_gather(pool, a.p, index, 11, to)
                         : op == 2 ? mill_column_nulls(pool, t, 50, to)
                         : op == 3 ? stm_column_slice(a.p, 1, 2, to)
                                   : stm_column_mask(pool, to, 2, 9);
                    fired = fail.fired();
                }
                ASSERT_TRUE(st == MILL_OK || (fired && st == MILL_ERR_NOMEM)) << "op " << op << " nth " << nth;
                ASSERT_EQ(none != nullptr, st == MILL_OK && op != 4);
                ASSERT_TRUE(same(a.p, rows));
                ASSERT_TRUE(same(cut.p, Rows(rows.begin() + 3, rows.begin() + 73)));
                mill_column_unref(&none);
                failures += st != MILL_OK;
                if (!fired) break;
            }
            EXPECT_GT(failures, 0) << "op " << op;
        }
    }
}

TEST(Column, BuildingAndJoiningTakeNoMemoryInTheSteadyState)
{
    Pool pool;
    const mill_type *t = type_of("struct<a: utf8, b: list<int64>, c: fixed_list<float32>[4], d: bool>");
    Rng rng(3);
    const Rows rows = random_rows(rng, t, 500, 1);
    mill_builder *b = nullptr;
    ASSERT_EQ(mill_builder_create(pool, t, &b), MILL_OK);
    std::vector<int64_t> index;
    for (int i = 0; i < 300; i++) index.push_back((int64_t)(rng() % 500));
    auto work = [&] {
        Column c, cut, both, some;
        for (auto &v : rows) ASSERT_EQ(append(b, t, v), MILL_OK);
        ASSERT_EQ(mill_builder_finish(b, &c.p), MILL_OK);
        ASSERT_EQ(stm_column_slice(c.p, 10, 400, &cut.p), MILL_OK);
        mill_column *cols[] = {c.p, cut.p};
        ASSERT_EQ(stm_column_concat(pool, cols, 2, t, &both.p), MILL_OK);
        ASSERT_EQ(stm_column_gather(pool, both.p, index.data(), 300, &some.p), MILL_OK);
    };
    work();
    work();
    const auto before = stm_alloc_counts();
    const int64_t misses = stm_pool_counts(pool).misses;
    for (int i = 0; i < 50; i++) work();
    EXPECT_EQ(stm_alloc_counts().allocs, before.allocs);
    EXPECT_EQ(stm_pool_counts(pool).misses, misses);
    mill_builder_destroy(&b);
}

/* What mill_column_create refuses; on a refusal every buffer is still the caller's. */
TEST(Column, CreateChecksItsParts)
{
    Pool pool;
    struct Case {
        const char *name, *type;
        int64_t rows;
        int validity, offsets, data; /* bytes, -1 = NULL */
        int child_rows;              /* -1 = none */
        const char *child_type;
        mill_status want;
    };
    static const Case kCases[] = {
        {"plain", "int32", 10, -1, -1, 40, -1, nullptr, MILL_OK},
        {"plain with validity", "int32", 10, 2, -1, 40, -1, nullptr, MILL_OK},
        {"data too small", "int32", 10, -1, -1, 39, -1, nullptr, MILL_ERR_INVALID},
        {"data missing", "int64", 0, -1, -1, -1, -1, nullptr, MILL_ERR_INVALID},
        {"validity too small", "int32", 9, 1, -1, 40, -1, nullptr, MILL_ERR_INVALID},
        {"negative rows", "int32", -1, -1, -1, 40, -1, nullptr, MILL_ERR_INVALID},
        {"absurd rows", "int32", INT64_MAX, -1, -1, 40, -1, nullptr, MILL_ERR_INVALID},
        {"bool", "bool", 9, -1, -1, 2, -1, nullptr, MILL_OK},
        {"bool too small", "bool", 17, -1, -1, 2, -1, nullptr, MILL_ERR_INVALID},
        {"text", "utf8", 2, -1, 24, 0, -1, nullptr, MILL_OK},
        {"text without offsets", "utf8", 2, -1, -1, 0, -1, nullptr, MILL_ERR_INVALID},
        {"text, offsets too small", "json", 2, -1, 23, 0, -1, nullptr, MILL_ERR_INVALID},
        {"text without bytes", "binary", 2, -1, 24, -1, -1, nullptr, MILL_ERR_INVALID},
        {"empty text still has an offset", "utf8", 0, -1, 0, 0, -1, nullptr, MILL_ERR_INVALID},
        {"list", "list<bool>", 2, -1, 24, -1, 5, "bool", MILL_OK},
        {"list without child", "list<bool>", 2, -1, 24, -1, -1, nullptr, MILL_ERR_INVALID},
        {"list of another type", "list<bool>", 2, -1, 24, -1, 5, "int32", MILL_ERR_INVALID},
        {"fixed list", "fixed_list<bool>[3]", 2, -1, -1, -1, 6, "bool", MILL_OK},
        {"fixed list, child too short", "fixed_list<bool>[3]", 2, -1, -1, -1, 5, "bool", MILL_ERR_INVALID},
        {"fixed list, product overflows", "fixed_list<struct<>>[2147483647]", (int64_t)1 << 46, -1, -1, -1, 5, "struct<>",
         MILL_ERR_INVALID},
        {"struct", "struct<a: bool>", 5, 1, -1, -1, 6, "bool", MILL_OK},
        {"struct, child too short", "struct<a: bool>", 5, 1, -1, -1, 4, "bool", MILL_ERR_INVALID},
        {"nothing", "struct<>", 1000, -1, -1, -1, -1, nullptr, MILL_OK},
    };
    for (auto &c : kCases) {
        SCOPED_TRACE(c.name);
        mill_buffer *parts[3] = {};
        const int bytes[3] = {c.validity, c.offsets, c.data};
        for (int i = 0; i < 3; i++) {
            if (bytes[i] < 0) continue;
            ASSERT_EQ(mill_buffer_create(pool, (size_t)bytes[i], &parts[i]), MILL_OK);
            memset(parts[i]->data, 0, (size_t)bytes[i]);
        }
        mill_column *child = nullptr, *out = nullptr;
        if (c.child_rows >= 0) {
            ASSERT_EQ(mill_column_nulls(pool, type_of(c.child_type), c.child_rows, &child), MILL_OK);
        }
        mill_buffer *const was[3] = {parts[0], parts[1], parts[2]};
        mill_error err = {};
        EXPECT_EQ(mill_column_create(pool, type_of(c.type), c.rows, &parts[0], &parts[1], &parts[2], &child, &out, &err), c.want);
        if (c.want == MILL_OK) {
            EXPECT_TRUE(!parts[0] && !parts[1] && !parts[2] && !child);
        } else {
            EXPECT_STRNE(err.msg, "");
            for (int i = 0; i < 3; i++) EXPECT_EQ(parts[i], was[i]);
            EXPECT_EQ(child != nullptr, c.child_rows >= 0);
        }
        mill_column_unref(&out);
        mill_column_unref(&child);
        for (auto &p : parts) mill_buffer_unref(&p);
    }
}

TEST(Column, ValidateFindsEveryLie)
{
    Pool pool;
    struct Case { const char *name, *type; std::vector<int64_t> offsets; std::string bytes; const char *says; };
    static const Case kCases[] = {
        {"good", "utf8", {0, 1, 1, 4}, "a\xE2\x82\xAC", nullptr},
        {"good from the middle", "utf8", {2, 3, 3}, "xxa", nullptr},
        {"negative", "utf8", {-1, 0}, "abc", "below 0"},
        {"decreasing", "utf8", {0, 2, 1}, "abc", "decrease at row 1"},
        {"past the end", "binary", {0, 4}, "abc", "past the 3"},
        {"huge", "utf8", {0, INT64_MAX}, "abc", "past the 3"},
        {"wraps", "utf8", {0, INT64_MIN}, "abc", "decrease"},
        {"lone continuation", "utf8", {0, 1}, "\x80", "byte 0 is 0x80"},
        {"cut sequence", "utf8", {0, 2}, "\xE2\x82", "byte 0 is 0xE2"},
        {"split over rows", "json", {0, 1, 3}, "\xE2\x82\xAC", "row 0 is not UTF-8"},
        {"overlong 2", "utf8", {0, 2}, "\xC0\x80", "0xC0"},
        {"overlong 3", "utf8", {0, 3}, "\xE0\x80\x80", "0xE0"},
        {"overlong 4", "utf8", {0, 4}, "\xF0\x80\x80\x80", "0xF0"},
        {"surrogate", "utf8", {0, 3}, "\xED\xA0\x80", "0xED"},
        {"past unicode", "utf8", {0, 4}, "\xF4\x90\x80\x80", "0xF4"},
        {"0xFF", "utf8", {0, 12}, "0123456789a\xFF", "byte 11"},
        {"last code point", "utf8", {0, 4}, "\xF4\x8F\xBF\xBF", nullptr},
        {"binary is anything", "binary", {0, 2}, "\xFF\x80", nullptr},
        {"list past its child", "list<bool>", {0, 3, 9}, "", "past the 8"},
        {"list", "list<bool>", {0, 3, 8}, "", nullptr},
    };
    for (auto &c : kCases) {
        SCOPED_TRACE(c.name);
        mill_buffer *off = nullptr, *data = nullptr;
        mill_column *child = nullptr;
        Column col;
        ASSERT_EQ(mill_buffer_create(pool, c.offsets.size() * 8, &off), MILL_OK);
        memcpy(off->data, c.offsets.data(), c.offsets.size() * 8);
        ASSERT_EQ(mill_buffer_create(pool, c.bytes.size(), &data), MILL_OK);
        memcpy(data->data, c.bytes.data(), c.bytes.size());
        ASSERT_EQ(mill_column_nulls(pool, type_of("bool"), 8, &child), MILL_OK);
        mill_error err = {};
        ASSERT_EQ(mill_column_create(pool, type_of(c.type), (int64_t)c.offsets.size() - 1, nullptr, &off, &data, &child, &col.p,
                                     &err), MILL_OK);
        EXPECT_EQ(stm_column_validate(col.p, &err), c.says ? MILL_ERR_DATA : MILL_OK);
        EXPECT_NE(std::string(err.msg).find(c.says ? c.says : ""), std::string::npos) << err.msg;
        mill_buffer_unref(&off);
        mill_buffer_unref(&data);
        mill_column_unref(&child);
    }
}

/* Offsets past 2 GiB and 4 GiB: the child of a list may be a struct without fields, which has rows but no bytes. */
TEST(LargeColumn, ListOffsetsPast32Bits)
{
    Pool pool;
    const mill_type *t = type_of("list<struct<>>");
    const int64_t g = (int64_t)1 << 31;
    const int64_t offsets[] = {0, g - 1, g + 5, 2 * g + 7, 2 * g + 7, 5 * g};
    mill_buffer *off = nullptr;
    mill_column *child = nullptr;
    Column col, cut, joined, some;
    mill_error err = {};
    ASSERT_EQ(mill_buffer_create(pool, sizeof offsets, &off), MILL_OK);
    memcpy(off->data, offsets, sizeof offsets);
    ASSERT_EQ(mill_column_create(pool, t->fields[0].type, 5 * g, nullptr, nullptr, nullptr, nullptr, &child, &err), MILL_OK);
    ASSERT_EQ(mill_column_create(pool, t, 5, nullptr, &off, nullptr, &child, &col.p, &err), MILL_OK);
    ASSERT_EQ(stm_column_slice(col.p, 2, 3, &cut.p), MILL_OK);
    mill_column *both[] = {cut.p, col.p};
    ASSERT_EQ(stm_column_concat(pool, both, 2, t, &joined.p), MILL_OK);
    ASSERT_EQ(stm_column_validate(joined.p, &err), MILL_OK) << err.msg;
    const int64_t want[] = {0, g + 2, g + 2, 4 * g - 5, 5 * g - 6, 5 * g, 6 * g + 2, 6 * g + 2, 9 * g - 5};
    const mill_view v = mill_column_view(joined.p);
    for (int i = 0; i < 9; i++) EXPECT_EQ(v.offsets[i], want[i]) << i;
    EXPECT_EQ(mill_column_rows(v.children[0]), 9 * g - 5);
    const int64_t index[] = {4, 2, -1, 0, 1};
    ASSERT_EQ(stm_column_gather(pool, col.p, index, 5, &some.p), MILL_OK);
    const int64_t len[] = {3 * g - 7, g + 2, 0, g - 1, 6};
    const mill_view s = mill_column_view(some.p);
    for (int i = 0; i < 5; i++) EXPECT_EQ(s.offsets[i + 1] - s.offsets[i], len[i]) << i;
}

TEST(LargeColumn, FixedListProductsPast32Bits)
{
    Pool pool;
    const mill_type *t = type_of("fixed_list<struct<>>[2000000000]");
    Column a, b, cut, joined, some;
    mill_error err = {};
    mill_column *child = nullptr;
    ASSERT_EQ(mill_column_create(pool, t->fields[0].type, 7 * (int64_t)2000000000, nullptr, nullptr, nullptr, nullptr, &child,
                                 &err), MILL_OK);
    ASSERT_EQ(mill_column_create(pool, t, 7, nullptr, nullptr, nullptr, &child, &a.p, &err), MILL_OK);
    ASSERT_EQ(stm_column_slice(a.p, 3, 4, &cut.p), MILL_OK);
    mill_column *both[] = {a.p, cut.p};
    ASSERT_EQ(stm_column_concat(pool, both, 2, t, &joined.p), MILL_OK);
    EXPECT_EQ(mill_column_rows(mill_column_view(joined.p).children[0]), 11 * (int64_t)2000000000);
    const int64_t index[] = {6, 0};
    ASSERT_EQ(stm_column_gather(pool, a.p, index, 2, &some.p), MILL_OK);
    EXPECT_EQ(mill_column_rows(mill_column_view(some.p).children[0]), 4000000000);
    EXPECT_EQ(mill_column_nulls(pool, t, (int64_t)1 << 46, &b.p), MILL_ERR_NOMEM) << "product past 2^63";
    EXPECT_EQ(b.p, nullptr);
}

/* Text whose bytes lie past 4 GiB, in memory that is mapped and never touched but for a few pages. */
TEST(LargeColumn, TextPast4GiB)
{
    const size_t bytes = ((size_t)5 << 30) + 100;
    char *map = (char *)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(map, MAP_FAILED);
    struct Map { char *p; size_t n; } owner = {map, bytes};
    memcpy(map + bytes - 5, "hello", 5);
    memcpy(map + ((size_t)1 << 31), "two", 3);
    {
        Pool pool;
        const int64_t offsets[] = {0, (int64_t)1 << 31, ((int64_t)1 << 31) + 3, (int64_t)bytes - 5, (int64_t)bytes};
        mill_buffer *off = nullptr, *data = nullptr;
        Column col, cut, some;
        mill_error err = {};
        ASSERT_EQ(mill_buffer_create(pool, sizeof offsets, &off), MILL_OK);
        memcpy(off->data, offsets, sizeof offsets);
        ASSERT_EQ(stm_buffer_wrap(pool, map, bytes, [](void *o) { munmap(((Map *)o)->p, ((Map *)o)->n); }, &owner, &data), MILL_OK);
        ASSERT_EQ(mill_column_create(pool, type_of("utf8"), 4, nullptr, &off, &data, nullptr, &col.p, &err), MILL_OK);
        ASSERT_EQ(stm_column_slice(col.p, 1, 3, &cut.p), MILL_OK);
        col = Column();
        const int64_t index[] = {2, 0, 2, -1};
        ASSERT_EQ(stm_column_gather(pool, cut.p, index, 4, &some.p), MILL_OK);
        cut = Column();
        Rows want(4);
        want[0].null = want[1].null = want[2].null = false;
        want[0].bytes = want[2].bytes = "hello";
        want[1].bytes = "two";
        EXPECT_TRUE(same(some.p, want));
    }
}

/* Embeddings: the fast way of gather, alone, behind other rows, and from slices; with nulls the general way. */
TEST(Column, GatherOfVectors)
{
    for (const char *text : {"fixed_list<float32>[3]", "fixed_list<float16>[1]", "fixed_list<int64>[17]", "fixed_list<bool>[5]",
                             "list<fixed_list<float32>[2]>", "struct<v: fixed_list<float32>[4]>"})
        for (int nulls : {0, 1}) {
            SCOPED_TRACE(std::string(text) + " nulls " + std::to_string(nulls));
            Pool pool;
            Rng rng(2);
            const mill_type *t = type_of(text);
            const Rows rows = random_rows(rng, t, 100, nulls);
            const Column whole = build(pool, t, rows);
            for (int64_t first : {0, 7}) {
                Column c;
                ASSERT_EQ(stm_column_slice(whole.p, first, 90, &c.p), MILL_OK);
                for (bool with_missing : {false, true}) {
                    std::vector<int64_t> index;
                    mill_builder *b = nullptr;
                    Rows want;
                    ASSERT_EQ(mill_builder_create(pool, t, &b), MILL_OK);
                    for (int round = 0; round < 3; round++) {
                        index.clear();
                        for (int i = 0; i < 60; i++) {
                            index.push_back(with_missing && round == 1 && i % 9 == 0 ? -1 : (int64_t)(rng() % 90));
                            want.push_back(index.back() < 0 ? Value() : rows[(size_t)(first + index.back())]);
                        }
                        ASSERT_EQ(stm_builder_gather(b, c.p, index.data(), 60), MILL_OK);
                    }
                    Column out;
                    ASSERT_EQ(mill_builder_finish(b, &out.p), MILL_OK);
                    mill_builder_destroy(&b);
                    ASSERT_TRUE(same(out.p, want));
                }
            }
        }
}
