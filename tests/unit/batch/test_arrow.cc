/* The Arrow C data interface and IPC streams, there and back, and what they refuse. */
#include <functional>

#include "rows.h"
#include "support/sanitized.h"

extern "C" {
#include "batch/ipc.h"
#include "memory/buffer.h"
#include "stepmill/arrow.h"
}

using namespace mt;

namespace {

struct Table {
    Batch batch;
    const mill_type *schema = nullptr;
    std::vector<Rows> columns;
};

Table table(Rng &rng, mill_pool *pool, const mill_type *schema, int64_t rows, int nulls, bool absent = false)
{
    Table t;
    t.schema = schema;
    EXPECT_EQ(mill_batch_create(pool, rows, schema->n_fields, &t.batch.p), MILL_OK);
    for (int32_t i = 0; i < schema->n_fields; i++) {
        const bool none = absent && rng() % 4 == 0;
        t.columns.push_back(none ? Rows((size_t)rows) : random_rows(rng, schema->fields[i].type, rows, nulls));
        if (none) continue;
        Column c = build(pool, schema->fields[i].type, t.columns.back());
        EXPECT_EQ(mill_batch_set_column(t.batch.p, i, &c.p), MILL_OK);
    }
    return t;
}

::testing::AssertionResult same_table(const mill_batch *b, const std::vector<Rows> &want)
{
    if (mill_batch_columns(b) != (int32_t)want.size()) return ::testing::AssertionFailure() << mill_batch_columns(b) << " columns";
    for (size_t i = 0; i < want.size(); i++) {
        const auto r = same(mill_batch_column(b, (int32_t)i), want[i]);
        if (!r) return ::testing::AssertionFailure() << "column " << i << ": " << r.message();
    }
    return ::testing::AssertionSuccess();
}

const mill_type *schema_of(const std::vector<const mill_type *> &types)
{
    std::vector<std::string> names;
    std::vector<mill_field> f;
    for (size_t i = 0; i < types.size(); i++) names.push_back("c" + std::to_string(i));
    for (size_t i = 0; i < types.size(); i++) f.push_back({names[i].c_str(), types[i]});
    return mill_type_struct(f.data(), (int32_t)f.size());
}

/* A stream in memory. */
struct Stream {
    std::string bytes;
    size_t at = 0, piece = SIZE_MAX;
    int fail_after = -1;
    static mill_status put(void *user, const void *p, size_t n, mill_error *err)
    {
        auto *s = (Stream *)user;
        if (s->fail_after == 0) return mill_fail(err, MILL_ERR_IO, "disk full");
        if (s->fail_after > 0) s->fail_after--;
        s->bytes.append((const char *)p, n);
        return MILL_OK;
    }
    static mill_status get(void *user, void *p, size_t n, size_t *got, mill_error *)
    {
        auto *s = (Stream *)user;
        *got = std::min({n, s->bytes.size() - s->at, s->piece});
        memcpy(p, s->bytes.data() + s->at, *got);
        s->at += *got;
        return MILL_OK;
    }
};

void write_stream(Stream *s, const mill_type *schema, const std::vector<const mill_batch *> &batches, bool end = true)
{
    stm_ipc_writer *w = nullptr;
    mill_error err = {};
    ASSERT_EQ(stm_ipc_writer_create(schema, Stream::put, s, &w, &err), MILL_OK) << err.msg;
    for (auto *b : batches) ASSERT_EQ(stm_ipc_writer_batch(w, b, &err), MILL_OK) << err.msg;
    ASSERT_EQ(end ? stm_ipc_writer_end(w, &err) : MILL_OK, MILL_OK);
    stm_ipc_writer_destroy(&w);
}

/* Reads everything; the first failure, or MILL_OK. */
mill_status drain(mill_pool *pool, Stream *s, mill_error *err, const std::function<void(mill_batch *)> &each = {})
{
    stm_ipc_reader *r = nullptr;
    mill_status st = stm_ipc_reader_create(pool, Stream::get, s, &r, err);
    while (st == MILL_OK) {
        mill_batch *b = nullptr;
        st = stm_ipc_reader_next(r, &b, err);
        EXPECT_TRUE(st == MILL_OK || b == nullptr);
        if (b == nullptr) break;
        if (each) each(b);
        mill_batch_destroy(&b);
    }
    stm_ipc_reader_destroy(&r);
    return st;
}

} // namespace

TEST(ArrowType, FormatsBothWays)
{
    static const struct { const char *type, *format; } kForms[] = {
        {"bool", "b"}, {"int32", "i"}, {"int64", "l"}, {"float16", "e"}, {"float32", "f"}, {"float64", "g"}, {"utf8", "U"},
        {"binary", "Z"}, {"json", "U"}, {"list<int32>", "+L"}, {"fixed_list<float32>[384]", "+w:384"}, {"struct<a: json>", "+s"},
    };
    for (auto &f : kForms) {
        SCOPED_TRACE(f.type);
        ArrowSchema s = {};
        const mill_type *back = nullptr;
        mill_error err = {};
        ASSERT_EQ(mill_arrow_export_type(type_of(f.type), &s, &err), MILL_OK);
        EXPECT_STREQ(s.format, f.format);
        EXPECT_EQ(s.flags, ARROW_FLAG_NULLABLE);
        ASSERT_EQ(mill_arrow_import_type(&s, &back, &err), MILL_OK) << err.msg;
        EXPECT_EQ(back, type_of(f.type));
        s.release(&s);
        EXPECT_EQ(s.release, nullptr);
    }
    for (uint64_t seed = 0; seed < 300; seed++) {
        Rng rng(seed);
        const mill_type *t = random_type(rng, 4), *back = nullptr;
        ArrowSchema s = {};
        ASSERT_EQ(mill_arrow_export_type(t, &s, nullptr), MILL_OK);
        ASSERT_EQ(mill_arrow_import_type(&s, &back, nullptr), MILL_OK);
        ASSERT_EQ(back, t);
        s.release(&s);
    }
}

TEST(ArrowType, RefusesWhatHasNoCounterpart)
{
    static const struct { const char *format; mill_status want; } kBad[] = {
        {"n", MILL_ERR_UNSUPPORTED}, {"L", MILL_ERR_UNSUPPORTED}, {"tdD", MILL_ERR_UNSUPPORTED}, {"vu", MILL_ERR_UNSUPPORTED},
        {"d:10,2", MILL_ERR_UNSUPPORTED}, {"+m", MILL_ERR_UNSUPPORTED}, {"+w:0", MILL_ERR_INVALID}, {"+l", MILL_ERR_INVALID},
        {"", MILL_ERR_UNSUPPORTED}, {"+us:0", MILL_ERR_UNSUPPORTED}, {"w:4", MILL_ERR_UNSUPPORTED},
    };
    for (auto &b : kBad) {
        SCOPED_TRACE(b.format);
        ArrowSchema s = {};
        s.format = b.format;
        s.name = "price";
        s.release = [](ArrowSchema *) {};
        const mill_type *t = nullptr;
        mill_error err = {};
        EXPECT_EQ(mill_arrow_import_type(&s, &t, &err), b.want);
        EXPECT_NE(std::string(err.msg).find("price"), std::string::npos) << err.msg;
        EXPECT_EQ(t, nullptr);
    }
    ArrowSchema loop = {}, *self = &loop; /* a schema that contains itself ends, too */
    loop.format = "+L";
    loop.n_children = 1;
    loop.children = &self;
    loop.release = [](ArrowSchema *) {};
    const mill_type *t = nullptr;
    EXPECT_EQ(mill_arrow_import_type(&loop, &t, nullptr), MILL_ERR_UNSUPPORTED);
}

TEST(ArrowType, FailsCleanlyAtEveryAllocation)
{
    const mill_type *t = type_of("struct<a: list<struct<x: utf8, y: json>>, b: fixed_list<bool>[3]>");
    for (int nth = 0;; nth++) {
        const long before = live();
        ArrowSchema s = {};
        const mill_type *back = nullptr;
        FailNth fail(nth);
        mill_status st = mill_arrow_export_type(t, &s, nullptr);
        EXPECT_EQ(s.release != nullptr, st == MILL_OK);
        if (st == MILL_OK) {
            st = mill_arrow_import_type(&s, &back, nullptr);
            s.release(&s);
        }
        const bool fired = fail.fired();
        EXPECT_EQ(st, fired ? MILL_ERR_NOMEM : MILL_OK);
        EXPECT_EQ(live(), before);
        if (!fired) break;
    }
}

TEST(ArrowArray, EveryTypeRoundTripsWithoutCopies)
{
    for (const auto &text : all_types())
        for (int64_t rows : {0, 1, 9, 200})
            for (int nulls : {0, 1, 2})
                for (int64_t first : {0, 1, 8}) {
                    if (first > rows) continue;
                    SCOPED_TRACE(text + " rows " + std::to_string(rows) + " nulls " + std::to_string(nulls) + " from " +
                                 std::to_string(first));
                    Rng rng((uint64_t)rows);
                    Pool pool;
                    const mill_type *schema = schema_of({type_of(text)});
                    Table t = table(rng, pool, schema, rows, nulls);
                    Batch cut, back;
                    ASSERT_EQ(stm_batch_slice(t.batch.p, first, rows - first, &cut.p), MILL_OK);
                    const void *data = mill_column_view(mill_batch_column(cut.p, 0)).data;
                    t.batch = Batch();
                    ArrowSchema s = {};
                    ArrowArray a = {};
                    mill_error err = {};
                    ASSERT_EQ(mill_arrow_export_type(schema, &s, &err), MILL_OK);
                    ASSERT_EQ(mill_arrow_export_batch(cut.p, schema, &a, &err), MILL_OK) << err.msg;
                    cut = Batch(); /* the array lives on its own */
                    EXPECT_EQ(a.length, rows - first);
                    ASSERT_EQ(mill_arrow_import_batch(pool, &s, &a, &back.p, &err), MILL_OK) << err.msg << err.context;
                    EXPECT_EQ(a.release, nullptr);
                    s.release(&s);
                    const std::vector<Rows> want = {Rows(t.columns[0].begin() + first, t.columns[0].end())};
                    ASSERT_TRUE(same_table(back.p, want));
                    const mill_view v = mill_column_view(mill_batch_column(back.p, 0));
                    EXPECT_TRUE(type_of(text)->width == 0 || rows == first || v.data == data) << "shared";
                    /* what came in may be cut, joined and masked like any other */
                    Batch joined;
                    const stm_run_of_rows runs[] = {{back.p, 0, rows - first}, {back.p, 0, rows - first}};
                    ASSERT_EQ(stm_batch_concat(pool, runs, 2, &schema->fields[0].type, 1, 0, &joined.p), MILL_OK);
                    back = Batch();
                    std::vector<Rows> twice = want;
                    twice[0].insert(twice[0].end(), want[0].begin(), want[0].end());
                    ASSERT_TRUE(same_table(joined.p, twice));
                }
}

TEST(ArrowArray, ChildrenMayBeMovedOut)
{
    Pool pool;
    Rng rng(1);
    const mill_type *schema = type_of("struct<a: list<utf8>, b: int32>");
    Table t = table(rng, pool, schema, 50, 1);
    ArrowArray a = {};
    ASSERT_EQ(mill_arrow_export_batch(t.batch.p, schema, &a, nullptr), MILL_OK);
    t.batch = Batch();
    ArrowArray child = *a.children[0];
    a.children[0]->release = nullptr;
    a.release(&a);
    EXPECT_EQ(child.length, 50);
    ArrowArray items = *child.children[0];
    child.children[0]->release = nullptr;
    child.release(&child);
    const auto *offsets = (const int64_t *)items.buffers[1];
    EXPECT_GE(offsets[items.length], 0);
    items.release(&items);
}

TEST(ArrowArray, AbsentColumnsBecomeNulls)
{
    Pool pool;
    const mill_type *schema = type_of("struct<a: list<utf8>, b: int32>");
    Batch b, back;
    ASSERT_EQ(mill_batch_create(pool, 3, 2, &b.p), MILL_OK);
    ArrowArray a = {};
    ArrowSchema s = {};
    ASSERT_EQ(mill_arrow_export_batch(b.p, schema, &a, nullptr), MILL_OK);
    ASSERT_EQ(mill_arrow_export_type(schema, &s, nullptr), MILL_OK);
    EXPECT_EQ(a.children[1]->null_count, 3);
    ASSERT_EQ(mill_arrow_import_batch(pool, &s, &a, &back.p, nullptr), MILL_OK);
    EXPECT_TRUE(same_table(back.p, {Rows(3), Rows(3)}));
    s.release(&s);
    EXPECT_EQ(mill_arrow_export_batch(b.p, type_of("struct<a: bool>"), &a, nullptr), MILL_ERR_INVALID);
    EXPECT_EQ(mill_arrow_export_batch(back.p, type_of("struct<a: bool, b: int32>"), &a, nullptr), MILL_ERR_TYPE);
}

/* Arrays as other libraries make them: small offsets, narrow integers, missing and misaligned buffers. */
TEST(ArrowArray, ForeignFormsAreWidened)
{
    struct Foreign {
        const char *format;
        std::vector<const void *> buffers;
        int64_t length, offset;
        const char *type;
        std::vector<std::string> want; /* text or number; "-" = null */
    };
    static const int32_t small[] = {0, 1, 3, 3};
    static const int8_t i8[] = {-128, 127, 0};
    static const uint8_t u8[] = {255, 0, 1}, valid[] = {0b101};
    static const int16_t i16[] = {-32768, 32767, 5};
    static const uint16_t u16[] = {65535, 0, 7};
    static const uint32_t u32[] = {4294967295u, 0, 9};
    static const char shifted[] = "\0\1\0\0\0\2\0\0\0\3\0\0\0"; /* int32 at an odd address */
    static const Foreign kForeign[] = {
        {"u", {nullptr, small, "abc"}, 3, 0, "utf8", {"a", "bc", ""}},
        {"u", {valid, small, "abc"}, 3, 0, "utf8", {"a", "-", ""}},
        {"z", {nullptr, small, "abc"}, 2, 1, "binary", {"bc", ""}},
        {"U", {nullptr, nullptr, nullptr}, 0, 0, "utf8", {}},
        {"u", {nullptr, nullptr, nullptr}, 0, 0, "utf8", {}},
        {"c", {nullptr, i8}, 3, 0, "int32", {"-128", "127", "0"}},
        {"C", {valid, u8}, 3, 0, "int32", {"255", "-", "1"}},
        {"s", {nullptr, i16}, 2, 1, "int32", {"32767", "5"}},
        {"S", {nullptr, u16}, 3, 0, "int32", {"65535", "0", "7"}},
        {"I", {nullptr, u32}, 3, 0, "int64", {"4294967295", "0", "9"}},
        {"i", {nullptr, shifted + 1}, 3, 0, "int32", {"1", "2", "3"}},
        {"i", {nullptr, nullptr}, 0, 0, "int32", {}},
    };
    for (auto &f : kForeign) {
        SCOPED_TRACE(f.format);
        Pool pool;
        static int released;
        released = 0;
        ArrowSchema cs = {}, s = {}, *csp = &cs;
        ArrowArray ca = {}, a = {}, *cap = &ca;
        const void *none[1] = {nullptr};
        auto buffers = f.buffers;
        cs.format = f.format, cs.name = "c", cs.release = [](ArrowSchema *) {};
        s.format = "+s", s.n_children = 1, s.children = &csp, s.release = [](ArrowSchema *) {};
        ca.length = f.length, ca.offset = f.offset, ca.null_count = -1, ca.n_buffers = (int64_t)buffers.size(),
        ca.buffers = buffers.data();
        ca.release = [](ArrowArray *x) { x->release = nullptr; };
        a.length = f.length, a.n_buffers = 1, a.buffers = none, a.n_children = 1, a.children = &cap;
        a.release = [](ArrowArray *x) { released++, x->release = nullptr; };
        Batch b;
        mill_error err = {};
        ASSERT_EQ(mill_arrow_import_batch(pool, &s, &a, &b.p, &err), MILL_OK) << err.msg;
        const mill_column *c = mill_batch_column(b.p, 0);
        EXPECT_EQ(mill_column_type(c), type_of(f.type));
        ASSERT_EQ(mill_column_rows(c), (int64_t)f.want.size());
        for (size_t r = 0; r < f.want.size(); r++) {
            const Value v = read(c, (int64_t)r);
            EXPECT_EQ(v.null ? "-" : f.format[0] == 'u' || f.format[0] == 'z' ? v.bytes : std::to_string(v.i), f.want[r]) << r;
        }
        b = Batch();
        EXPECT_EQ(released, 1) << "released once, with the last column";
    }
}

TEST(ArrowArray, RefusalsLeaveTheArrayToTheCaller)
{
    static const int64_t down[] = {0, 5, 2}, good[] = {0, 1, 2}, neg[] = {-4, 1, 2};
    struct Bad {
        const char *name, *format;
        std::vector<const void *> buffers;
        int64_t length, offset;
        mill_status want;
    };
    static const Bad kBad[] = {
        {"offsets decrease", "U", {nullptr, down, "abcdef"}, 2, 0, MILL_ERR_DATA},
        {"offset below 0", "U", {nullptr, neg, "abcdef"}, 2, 0, MILL_ERR_DATA},
        {"not UTF-8", "U", {nullptr, good, "\xFF\xFF"}, 2, 0, MILL_ERR_DATA},
        {"offsets missing", "U", {nullptr, nullptr, "ab"}, 2, 0, MILL_ERR_DATA},
        {"bytes missing", "U", {nullptr, good, nullptr}, 2, 0, MILL_ERR_DATA},
        {"values missing", "l", {nullptr, nullptr}, 2, 0, MILL_ERR_DATA},
        {"narrow values missing", "c", {nullptr, nullptr}, 2, 0, MILL_ERR_DATA},
        {"too few buffers", "U", {nullptr, good}, 2, 0, MILL_ERR_DATA},
        {"negative length", "l", {nullptr, good}, -1, 0, MILL_ERR_DATA},
        {"negative offset", "l", {nullptr, good}, 1, -1, MILL_ERR_DATA},
        {"absurd length", "l", {nullptr, good}, INT64_MAX, 0, MILL_ERR_DATA},
        {"shorter than the struct", "l", {nullptr, good}, 1, 0, MILL_ERR_DATA},
    };
    for (auto &f : kBad) {
        SCOPED_TRACE(f.name);
        Pool pool;
        ArrowSchema cs = {}, s = {}, *csp = &cs;
        ArrowArray ca = {}, a = {}, *cap = &ca;
        const void *none[1] = {nullptr};
        auto buffers = f.buffers;
        cs.format = f.format, cs.name = "c", cs.release = [](ArrowSchema *) {};
        s.format = "+s", s.n_children = 1, s.children = &csp, s.release = [](ArrowSchema *) {};
        ca.length = f.length, ca.offset = f.offset, ca.n_buffers = (int64_t)buffers.size(), ca.buffers = buffers.data();
        ca.release = [](ArrowArray *) {};
        a.length = 2, a.n_buffers = 1, a.buffers = none, a.n_children = 1, a.children = &cap;
        a.release = [](ArrowArray *) { ADD_FAILURE() << "not ours to release"; };
        mill_batch *b = nullptr;
        mill_error err = {};
        EXPECT_EQ(mill_arrow_import_batch(pool, &s, &a, &b, &err), f.want) << err.msg;
        EXPECT_NE(a.release, nullptr);
        EXPECT_EQ(b, nullptr);
        EXPECT_STRNE(err.msg, "");
    }
}

TEST(ArrowArray, FailsCleanlyAtEveryAllocation)
{
    const mill_type *schema = type_of("struct<a: list<struct<x: utf8, y: json>>, b: fixed_list<bool>[3], c: int32>");
    int failures = 0;
    for (int nth = 0;; nth++) {
        Pool pool;
        Rng rng(1);
        Table t = table(rng, pool, schema, 20, 1);
        ArrowSchema s = {};
        ArrowArray a = {};
        ASSERT_EQ(mill_arrow_export_type(schema, &s, nullptr), MILL_OK);
        stm_pool_trim(pool);
        mill_batch *back = nullptr;
        FailNth fail(nth);
        mill_status st = mill_arrow_export_batch(t.batch.p, schema, &a, nullptr);
        EXPECT_EQ(a.release != nullptr, st == MILL_OK);
        if (st == MILL_OK) st = mill_arrow_import_batch(pool, &s, &a, &back, nullptr);
        const bool fired = fail.fired();
        EXPECT_TRUE(st == MILL_OK || (fired && st == MILL_ERR_NOMEM)) << st; /* the pool also allocates ahead,
        which may fail unseen */
        EXPECT_EQ(back != nullptr, st == MILL_OK);
        failures += st != MILL_OK;
        EXPECT_TRUE(!back || same_table(back, t.columns));
        if (a.release) a.release(&a);
        s.release(&s);
        mill_batch_destroy(&back);
        if (!fired) break;
    }
    EXPECT_GT(failures, 10);
}

TEST(Ipc, RandomTablesRoundTrip)
{
    for (uint64_t seed = 0; seed < mt::rounds<uint64_t>(400, 100); seed++) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Rng rng(seed);
        Pool pool;
        std::vector<const mill_type *> types;
        for (size_t n = rng() % 5; n > 0; n--) types.push_back(random_type(rng, 3));
        const mill_type *schema = schema_of(types);
        std::vector<Batch> batches;
        std::vector<std::vector<Rows>> want;
        std::vector<const mill_batch *> list;
        for (size_t n = rng() % 4; n > 0; n--) {
            const int64_t rows = (int64_t)(rng() % 40);
            Table t = table(rng, pool, schema, rows, (int)(rng() % 3), true);
            const int64_t first = (int64_t)(rng() % (uint64_t)(rows + 1)), len = (int64_t)(rng() % (uint64_t)(rows - first + 1));
            Batch cut; /* slices: IPC has no offsets, so they are compacted */
            ASSERT_EQ(stm_batch_slice(t.batch.p, first, len, &cut.p), MILL_OK);
            for (auto &c : t.columns) c = Rows(c.begin() + first, c.begin() + first + len);
            batches.push_back(std::move(cut));
            want.push_back(std::move(t.columns));
        }
        for (auto &b : batches) list.push_back(b.p);
        Stream s;
        write_stream(&s, schema, list, rng() % 4 != 0); /* without the end mark, too */
        s.piece = rng() % 3 == 0 ? 1 + rng() % 50 : SIZE_MAX;
        size_t at = 0;
        mill_error err = {};
        ASSERT_EQ(drain(pool, &s, &err,
                        [&](mill_batch *b) {
                            ASSERT_LT(at, want.size());
                            ASSERT_TRUE(same_table(b, want[at])) << "batch " << at;
                            at++;
                        }),
                  MILL_OK)
            << err.msg << " " << err.context;
        ASSERT_EQ(at, want.size());
    }
}

TEST(Ipc, SchemaKeepsJson)
{
    Pool pool;
    Stream s;
    const mill_type *schema = type_of("struct<a: json, \"b c\": utf8>");
    write_stream(&s, schema, {});
    stm_ipc_reader *r = nullptr;
    mill_error err = {};
    ASSERT_EQ(stm_ipc_reader_create(pool, Stream::get, &s, &r, &err), MILL_OK) << err.msg;
    EXPECT_EQ(stm_ipc_reader_schema(r), schema);
    stm_ipc_reader_destroy(&r);
}

TEST(Ipc, SinkFailureIsPassedUp)
{
    Pool pool;
    Rng rng(1);
    const mill_type *schema = type_of("struct<a: utf8>");
    Table t = table(rng, pool, schema, 10, 0);
    for (int after = 0; after < 4; after++) {
        Stream s;
        s.fail_after = after;
        stm_ipc_writer *w = nullptr;
        mill_error err = {};
        mill_status st = stm_ipc_writer_create(schema, Stream::put, &s, &w, &err);
        EXPECT_EQ(w != nullptr, st == MILL_OK);
        if (st == MILL_OK) st = stm_ipc_writer_batch(w, t.batch.p, &err);
        if (st == MILL_OK) st = stm_ipc_writer_end(w, &err);
        EXPECT_EQ(st, MILL_ERR_IO);
        EXPECT_STREQ(err.msg, "disk full");
        stm_ipc_writer_destroy(&w);
    }
}

/* Cut anywhere: an error or, at a message's border, an early end; never anything else. */
TEST(Ipc, EveryTruncationIsNoticed)
{
    Pool pool;
    Rng rng(2);
    const mill_type *schema = type_of("struct<a: utf8, b: list<int32>>");
    Table t = table(rng, pool, schema, 8, 1);
    Stream whole;
    write_stream(&whole, schema, {t.batch.p, t.batch.p});
    int borders = 0;
    for (size_t n = 0; n < whole.bytes.size(); n++) {
        Stream s;
        s.bytes = whole.bytes.substr(0, n);
        mill_error err = {};
        int batches = 0;
        const mill_status st = drain(pool, &s, &err, [&](mill_batch *b) {
            batches++;
            EXPECT_TRUE(same_table(b, t.columns));
        });
        borders += st == MILL_OK;
        EXPECT_TRUE(st == MILL_OK || st == MILL_ERR_PARSE);
        EXPECT_LE(batches, 2);
    }
    EXPECT_EQ(borders, 3) << "after the schema and after each batch";
}

/* Damaged bytes: whatever is accepted must be a valid batch; nothing crashes, nothing leaks (the sanitizers watch). */
TEST(Ipc, DamagedStreamsAreRefusedOrValid)
{
    Pool pool;
    Rng rng(3);
    const mill_type *schema = type_of("struct<a: utf8, b: list<struct<x: int32, y: json>>, c: fixed_list<bool>[3], d: float16>");
    Table t = table(rng, pool, schema, 12, 1);
    Stream whole;
    write_stream(&whole, schema, {t.batch.p});
    int refused = 0;
    for (int round = 0; round < mt::rounds(20000, 4000); round++) {
        Stream s;
        s.bytes = whole.bytes;
        for (size_t n = 1 + rng() % 3; n > 0; n--) {
            const size_t at = rng() % s.bytes.size();
            switch (rng() % 4) {
            case 0: s.bytes[at] = (char)rng(); break;
            case 1: s.bytes[at] = (char)(s.bytes[at] ^ 1 << rng() % 8); break;
            case 2: s.bytes[at] = rng() % 2 ? '\xFF' : '\x7F'; break;
            default: {
                const uint64_t v = rng() % 2 ? UINT64_MAX : (uint64_t)1 << rng() % 64;
                for (size_t i = 0; i < 8 && at + i < s.bytes.size(); i++) s.bytes[at + i] = (char)(v >> (8 * i));
            }
            }
        }
        mill_error err = {};
        const mill_status st = drain(pool, &s, &err, [&](mill_batch *b) {
            for (int32_t i = 0; i < mill_batch_columns(b); i++) {
                mill_column *c = mill_batch_column(b, i);
                mill_error why = {};
                ASSERT_EQ(stm_column_validate(c, &why), MILL_OK) << why.msg;
                for (int64_t r = 0; r < mill_column_rows(c); r++) read(c, r);
            }
        });
        if (st != MILL_OK) {
            refused++;
            ASSERT_STRNE(err.msg, "");
            ASSERT_NE(st, MILL_ERR_INTERNAL);
        }
    }
    EXPECT_GT(refused, 1000);
}

TEST(Ipc, FalseSizesTakeNoMemory)
{
    Pool pool;
    Rng rng(4);
    const mill_type *schema = type_of("struct<a: int64>");
    Stream head, whole;
    write_stream(&head, schema, {}, false);
    Table t = table(rng, pool, schema, 4, 0);
    write_stream(&whole, schema, {t.batch.p}, false);
    Stream s;
    s.bytes = whole.bytes;
    const int64_t body = 32; /* the body length stands in the batch's metadata; there is one such number */
    size_t found = 0;
    for (size_t i = head.bytes.size(); i + 8 <= s.bytes.size() - 32; i++)
        if (memcmp(&s.bytes[i], &body, 8) == 0) {
            const int64_t lie = (int64_t)1 << 45;
            Stream liar;
            liar.bytes = s.bytes;
            memcpy(&liar.bytes[i], &lie, 8);
            mill_error err = {};
            EXPECT_EQ(drain(pool, &liar, &err), MILL_ERR_PARSE) << err.msg;
            found++;
        }
    EXPECT_GE(found, 1u);
    Stream huge; /* 2 GiB of metadata */
    huge.bytes = std::string("\xFF\xFF\xFF\xFF\xF8\xFF\xFF\x7F", 8);
    mill_error err = {};
    EXPECT_EQ(drain(pool, &huge, &err), MILL_ERR_PARSE);
}

TEST(Ipc, FailsCleanlyAtEveryAllocation)
{
    const mill_type *schema = type_of("struct<a: list<utf8>, c: int32>");
    Stream whole;
    {
        Pool pool;
        Rng rng(1);
        Table t = table(rng, pool, schema, 20, 1);
        write_stream(&whole, schema, {t.batch.p});
    }
    int failures = 0;
    for (int nth = 0;; nth++) {
        Pool pool;
        Rng rng(1);
        Table t = table(rng, pool, schema, 20, 1);
        Batch cut;
        ASSERT_EQ(stm_batch_slice(t.batch.p, 3, 9, &cut.p), MILL_OK);
        stm_pool_trim(pool);
        stm_ipc_writer *w = nullptr;
        Stream s, in = whole;
        FailNth fail(nth);
        mill_error err = {};
        mill_status st = stm_ipc_writer_create(schema, Stream::put, &s, &w, &err);
        if (st == MILL_OK) st = stm_ipc_writer_batch(w, cut.p, &err);
        stm_ipc_writer_destroy(&w);
        if (st == MILL_OK) st = drain(pool, &in, &err);
        const bool fired = fail.fired();
        EXPECT_TRUE(st == MILL_OK || (fired && st == MILL_ERR_NOMEM)) << err.msg << nth;
        failures += st != MILL_OK;
        if (!fired) break;
    }
    EXPECT_GT(failures, 10);
}
