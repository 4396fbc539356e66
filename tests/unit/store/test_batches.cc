/* Batches through the store: every value, key, mark and word of the envelope; over epochs; with bytes that lie. */
#include "../batch/picture.h"
#include "script.h"

extern "C" {
#include "store/batches.h"
#include "store/merged.h"
}

using namespace mt;

namespace {

/* A column that is not there comes back as one of nulls: the same to whoever reads it. */
Picture normal(Picture p)
{
    for (size_t i = 0; i < p.there.size(); i++) {
        if (!p.there[i]) p.columns[i] = Rows(static_cast<size_t>(p.rows));
        p.there[i] = true;
    }
    return p;
}

const mill_type *schema_of(const mill_batch *b)
{
    std::vector<mill_field> fields;
    std::vector<std::string> names;
    for (int32_t i = 0; i < b->n_columns; i++) names.push_back("c" + std::to_string(i));
    for (int32_t i = 0; i < b->n_columns; i++)
        fields.push_back({names[static_cast<size_t>(i)].c_str(),
                          b->columns[i] != nullptr ? mill_column_type(b->columns[i]) : mill_type_plain(MILL_INT64)});
    return mill_type_struct(fields.data(), b->n_columns);
}

struct Sink {
    stm_batch_sink *p = nullptr;
    ~Sink() { stm_batch_sink_destroy(&p); }
};
struct Source {
    stm_batch_source *p = nullptr;
    ~Source() { stm_batch_source_destroy(&p); }
};

mill_status begin_one(stm_vault *v, mill_error *err)
{
    stm_vault_part part = {};
    stm_vault_stream s = {};
    part.name = "all";
    s.name = "rows";
    s.keep = true;
    return stm_vault_begin(v, &part, 1, &s, 1, "", err);
}

} // namespace

TEST(StoredBatches, ComeBackAsTheyWereOverEpochs)
{
    Rng rng(11);
    for (int round = 0; round < 60; round++) {
        SCOPED_TRACE(round);
        Pool pool;
        Disk disk;
        mill_error err = {};
        std::vector<Picture> want;
        const int32_t n_columns = static_cast<int32_t>(rng() % 5);
        Batch first = random_batch(rng, pool, n_columns, 3);
        const mill_type *schema = schema_of(first.p);
        for (int epoch = 0; epoch < 3; epoch++) {
            Vault v;
            ASSERT_EQ(open_vault(disk.files(), &v, &err, 5 + static_cast<uint64_t>(epoch)), MILL_OK) << err.msg;
            ASSERT_EQ(begin_one(v, &err), MILL_OK);
            Sink sink;
            ASSERT_EQ(stm_batch_sink_create(v, 0, schema, &sink.p, &err), MILL_OK) << err.msg;
            for (int k = 0; k < 4; k++) {
                Batch b = random_batch(rng, pool, n_columns, rng() % 6 == 0 ? 0 : static_cast<int64_t>(rng() % 90));
                for (int32_t i = 0; i < n_columns; i++) { /* columns of this stream's types */
                    const mill_type *t = schema->fields[i].type;
                    mill_column_unref(&b.p->columns[i]);
                    if (rng() % 5 == 0) continue;
                    Column c = build(pool, t, random_rows(rng, t, b.p->rows, static_cast<int>(rng() % 3)));
                    ASSERT_EQ(mill_batch_set_column(b.p, i, &c.p), MILL_OK);
                }
                ASSERT_EQ(stm_batch_sink_put(sink.p, b.p, want.size(), &err), MILL_OK) << err.msg;
                want.push_back(look(b.p));
            }
            ASSERT_EQ(stm_vault_mark(v, 0, epoch == 2, &err), MILL_OK);
            ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK) << err.msg;
        }
        for (size_t from = 0; from <= want.size(); from += 5) {
            Vault v;
            Source source;
            ASSERT_EQ(open_vault(disk.files(), &v, &err, 50), MILL_OK);
            ASSERT_EQ(stm_batch_source_create(v, 0, pool, schema, 3, &source.p, &err), MILL_OK);
            ASSERT_EQ(stm_batch_source_skip(source.p, static_cast<int64_t>(from), &err), MILL_OK) << err.msg;
            for (size_t k = from; k < want.size(); k++) {
                Batch b;
                uint64_t label = 0;
                ASSERT_EQ(stm_batch_source_next(source.p, &b.p, &label, &err), MILL_OK) << err.msg;
                ASSERT_NE(b.p, nullptr);
                EXPECT_EQ(label, k);
                Picture got = normal(look(b.p)), w = normal(want[k]);
                got.covered.resize(w.covered.size());
                ASSERT_TRUE(got == w) << "batch " << k;
            }
            Batch none;
            uint64_t label;
            ASSERT_EQ(stm_batch_source_next(source.p, &none.p, &label, &err), MILL_OK);
            EXPECT_EQ(none.p, nullptr);
            EXPECT_EQ(stm_batch_source_skip(source.p, 1, &err), MILL_ERR_DATA);
        }
    }
}

/* Keys that two runs have made are told, not written twice. */
TEST(StoredBatches, PutTogetherHaveEveryKeyOnce)
{
    Pool pool;
    Disk disk;
    mill_error err = {};
    Vault v;
    ASSERT_EQ(open_vault(disk.files(), &v, &err, 5), MILL_OK);
    ASSERT_EQ(begin_one(v, &err), MILL_OK);
    mill_batch *b = nullptr;
    ASSERT_EQ(stm_batch_create(pool, 10, 0, 1, &b), MILL_OK);
    b->keys.first = 5;
    {
        Sink sink;
        ASSERT_EQ(stm_batch_sink_create(v, 0, schema_of(b), &sink.p, &err), MILL_OK);
        ASSERT_EQ(stm_batch_sink_put(sink.p, b, 0, &err), MILL_OK) << err.msg;
    }
    mill_batch_destroy(&b);
    ASSERT_EQ(stm_vault_mark(v, 0, true, &err), MILL_OK);
    ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK);
    const auto odd = [](const mill_batch *x, int64_t row, void *) { return (x->keys.first + row) % 2 == 1; };
    for (const bool apart : {true, false}) {
        stm_merged_input in[2] = {};
        stm_merged *m = nullptr;
        const mill_type *none = mill_type_struct(nullptr, 0);
        for (stm_merged_input &i : in) ASSERT_EQ(stm_batch_source_create(v, 0, pool, none, 1, &i.source, &err), MILL_OK);
        in[0].without = odd;
        in[1].without = apart ? [](const mill_batch *x, int64_t row, void *) { return (x->keys.first + row) % 2 == 0; } : odd;
        ASSERT_EQ(stm_merged_create(pool, in, 2, 0, 1, &m, &err), MILL_OK);
        mill_status st = MILL_OK;
        int64_t next = 5;
        uint64_t seq = 0;
        bool ended = false;
        while ((st = stm_merged_next(m, &b, &err)) == MILL_OK && b != nullptr) {
            for (int64_t r = 0; r < b->rows; r++) {
                int64_t key = -1;
                stm_batch_key(b, r, &key);
                EXPECT_EQ(key, next++);
            }
            EXPECT_EQ(b->seq, seq++);
            EXPECT_FALSE(ended);
            ended = b->end;
            mill_batch_destroy(&b);
        }
        EXPECT_EQ(st, apart ? MILL_OK : MILL_ERR_DATA);
        if (apart) {
            EXPECT_EQ(next, 15);
            EXPECT_TRUE(ended);
        }
        stm_merged_destroy(&m);
    }
}

TEST(StoredBatches, OfOtherColumnsAreRefused)
{
    Pool pool;
    Disk disk;
    mill_error err = {};
    Rng rng(4);
    Vault v;
    ASSERT_EQ(open_vault(disk.files(), &v, &err, 5), MILL_OK);
    ASSERT_EQ(begin_one(v, &err), MILL_OK);
    Batch b = random_batch(rng, pool, 2, 10);
    {
        Sink sink;
        ASSERT_EQ(stm_batch_sink_create(v, 0, schema_of(b.p), &sink.p, &err), MILL_OK);
        ASSERT_EQ(stm_batch_sink_put(sink.p, b.p, 0, &err), MILL_OK) << err.msg;
    }
    ASSERT_EQ(stm_vault_mark(v, 0, true, &err), MILL_OK);
    ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK);
    const mill_field other[] = {{"c0", mill_type_plain(MILL_INT64)}};
    Source source;
    Batch got;
    uint64_t label;
    ASSERT_EQ(stm_batch_source_create(v, 0, pool, mill_type_struct(other, 1), 1, &source.p, &err), MILL_OK);
    EXPECT_EQ(stm_batch_source_next(source.p, &got.p, &label, &err), MILL_ERR_DATA) << err.msg;
}

TEST(StoredBatches, EveryAllocationFails)
{
    Pool pool;
    Rng rng(6);
    Batch b = random_batch(rng, pool, 3, 40);
    const mill_type *schema = schema_of(b.p);
    const Picture want = normal(look(b.p));
    stm_pool_trim(pool);
    for (int64_t k = 0;; k++) {
        SCOPED_TRACE(k);
        Disk disk;
        mill_error err = {};
        FailNth fail(k);
        {
            Vault v;
            Sink sink;
            Source source;
            Batch back;
            uint64_t label;
            mill_status st = open_vault(disk.files(), &v, &err, 5);
            if (st == MILL_OK) st = begin_one(v, &err);
            if (st == MILL_OK) st = stm_batch_sink_create(v, 0, schema, &sink.p, &err);
            if (st == MILL_OK) st = stm_batch_sink_put(sink.p, b.p, 0, &err);
            if (st == MILL_OK) st = stm_vault_mark(v, 0, true, &err);
            if (st == MILL_OK) st = stm_vault_commit(v, &err);
            if (st == MILL_OK) st = stm_batch_source_create(v, 0, pool, schema, 3, &source.p, &err);
            if (st == MILL_OK) st = stm_batch_source_next(source.p, &back.p, &label, &err);
            if (st == MILL_OK) {
                Picture got = normal(look(back.p));
                got.covered.resize(want.covered.size());
                EXPECT_TRUE(got == want);
            } else {
                EXPECT_EQ(st, MILL_ERR_NOMEM) << err.msg;
            }
        }
        if (!fail.fired()) break;
        if (testing::Test::HasFailure()) return;
    }
}
