/* Searches on 1, 2 and 4 devices give the bits of the host, however they are cut. */
#include "search/vectors.h"
#include "support/sanitized.h"

using namespace mt;

namespace {

class Search : public ::testing::TestWithParam<int> {
protected:
    void SetUp() override
    {
        std::string why;
        comm = comm_library(suite_for(), &why);
        if (comm == nullptr) GTEST_SKIP() << why;
        if (strcmp(comm->backend, "cpu") != 0 && devices_of(backend(comm->backend, &why)) < GetParam())
            GTEST_SKIP() << "too few devices";
        team = std::make_unique<Team>(comm, GetParam());
    }
    void expect_topk(const Vectors &q, const Vectors &c, int64_t k, int32_t metric, const std::vector<stm_search_opts> &all,
                     const std::function<void(mill_topk_args *)> &change = nullptr)
    {
        Neighbours want, got;
        mill_error err = {};
        mill_topk_args a = topk_args(q, c, k, metric, &want);
        if (change) change(&a);
        ASSERT_EQ(mill_topk(&a, &err), MILL_OK) << err.msg;
        for (const stm_search_opts &o : all) {
            SCOPED_TRACE(testing::Message() << "chunks of " << o.chunk_rows << ", blocks of " << o.block_rows);
            a = topk_args(q, c, k, metric, &got);
            if (change) change(&a);
            ASSERT_TRUE(stm_topk_on_devices(&a));
            ASSERT_EQ(stm_topk_team(*team, &a, &o, &err), MILL_OK) << err.msg;
            ASSERT_TRUE(got == want);
        }
    }
    void expect_pairs(const Vectors &v, float threshold, int32_t metric, const std::vector<stm_search_opts> &all)
    {
        Pairs want;
        mill_error err = {};
        mill_pairs_args a = pairs_args(v, threshold, metric, &want);
        ASSERT_EQ(mill_pairs(&a, &err), MILL_OK) << err.msg;
        for (const stm_search_opts &o : all) {
            SCOPED_TRACE(testing::Message() << "blocks of " << o.block_rows << ", room for " << o.room);
            Pairs got;
            a = pairs_args(v, threshold, metric, &got);
            ASSERT_EQ(stm_pairs_team(*team, &a, &o, &err), MILL_OK) << err.msg;
            ASSERT_TRUE(same_pairs(got, want)) << got.found.size() << " pairs, " << want.found.size() << " on the host";
        }
    }
    /* Of @p c, as it is where it is, in whatever places its rows are given by. */
    void expect_same_topk(const Vectors &c, const Vectors &there, int64_t k, const stm_search_opts &o)
    {
        Neighbours want, got;
        mill_error err = {};
        mill_topk_args a = topk_args(c, c, k, MILL_COSINE, &want), b = topk_args(there, there, k, MILL_COSINE, &got);
        ASSERT_EQ(mill_topk(&a, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_topk_team(*team, &b, &o, &err), MILL_OK) << err.msg;
        ASSERT_TRUE(got == want);
    }
    const stm_comm_ops *comm = nullptr;
    std::unique_ptr<Team> team;
};

} // namespace

TEST_P(Search, Neighbours)
{
    Vectors c(90, 20, 1), q(21, 20, 2);
    c.spoil(), q.spoil();
    expect_topk(q, c, 5, MILL_COSINE, {{}, {12, 16, 0, nullptr}});
    expect_topk(q, c, 7, MILL_DOT, {{8, 30, 0, nullptr}}, [](mill_topk_args *a) { a->threshold = 0.5f; });
    expect_topk(c, c, 3, MILL_COSINE, {{64, 30, 0, nullptr}}, [](mill_topk_args *a) { a->exclude_self = true; });
    expect_topk(q, c, 2, MILL_COSINE, {{64, 30, 0, nullptr}},
                [](mill_topk_args *a) { a->exclude_self = true; }); /* row q of another corpus */
}

TEST_P(Search, NeighboursAtTheEdges)
{
    const Vectors none(0, 4, 1), one(1, 4, 2), three(3, 4, 3);
    Vectors invalid(3, 4, 4);
    for (int64_t i = 0; i < 3; i++) invalid.at(i)[1] = NAN;
    for (int64_t k : {4}) {
        expect_topk(none, three, k, MILL_COSINE, {{}});
        expect_topk(three, none, k, MILL_COSINE, {{}});
        expect_topk(one, one, k, MILL_COSINE, {{}});
        expect_topk(one, one, k, MILL_COSINE, {{}}, [](mill_topk_args *a) { a->exclude_self = true; });
        expect_topk(three, three, k, MILL_DOT, {{}});
        expect_topk(invalid, three, k, MILL_COSINE, {{}});
        expect_topk(three, invalid, k, MILL_COSINE, {{}});
    }
    mill_topk_args large = {};
    large.k = STM_NEAREST_MAX_K + 1, large.n_corpus = STM_NEAREST_MAX_K + 1;
    EXPECT_FALSE(stm_topk_on_devices(&large));
}

TEST_P(Search, Pairs)
{
    Vectors v(190, 12, 5);
    v.spoil();
    expect_pairs(v, 0.7f, MILL_COSINE, {{}, {0, 70, 1, nullptr}});
    expect_pairs(v, 12.0f, MILL_DOT, {{0, 90, 0, nullptr}});
    expect_pairs(v, -1.0f, MILL_COSINE, {{0, 0, 1, nullptr}}); /* all of them: launches find more than there is room for */
    expect_pairs(Vectors(0, 3, 1), 0.5f, MILL_COSINE, {{}});
    expect_pairs(Vectors(1, 3, 1), 0.5f, MILL_COSINE, {{}});
    expect_pairs(Vectors(2, 3, 1), -1.0f, MILL_COSINE, {{}});
}

/* Rows that are on devices are taken from there, from whichever and wherever they lie, and the others from the host. */
TEST_P(Search, RowsThatAreThereAlready)
{
    Vectors c(90, 20, 1), q(21, 20, 2);
    c.spoil(), q.spoil();
    const Twins there(c, team->devices(), 7);
    EXPECT_GT(there.twins.n, 0u);
    expect_topk(there.of, there.of, 3, MILL_COSINE, {{64, 30, 0, &there.twins}},
                [](mill_topk_args *a) { a->exclude_self = true; });
    expect_topk(q, there.of, 5, MILL_DOT, {{12, 16, 0, &there.twins}});
    expect_pairs(there.of, 0.7f, MILL_COSINE, {{0, 0, 0, &there.twins}, {0, 20, 1, &there.twins}});
}

/* And the host does not look at them: what they are there counts, copies among them included. */
TEST_P(Search, RowsThatAreThereAreNotLookedAtOnTheHost)
{
    Vectors c(90, 20, 1);
    c.spoil();
    for (int64_t i = 40; i < 60; i++) std::copy(c.at(39), c.at(39) + c.dim, c.at(i)); /* more copies than k */
    Twins there(c, team->devices(), 7);
    there.spoil_host();
    expect_same_topk(c, there.of, 5, {64, 30, 0, &there.twins});
    Pairs want, got;
    mill_error err = {};
    mill_pairs_args a = pairs_args(c, 0.7f, MILL_COSINE, &want), b = pairs_args(there.of, 0.7f, MILL_COSINE, &got);
    const stm_search_opts o = {0, 0, 0, &there.twins};
    ASSERT_EQ(mill_pairs(&a, &err), MILL_OK) << err.msg;
    ASSERT_EQ(stm_pairs_team(*team, &b, &o, &err), MILL_OK) << err.msg;
    EXPECT_TRUE(same_pairs(got, want)) << got.found.size() << " pairs, " << want.found.size() << " on the host";
}

TEST_P(Search, Stops)
{
    const Vectors v(60, 6, 5);
    Neighbours n;
    Pairs p, refused;
    mill_error err = {};
    mill_topk_args a = topk_args(v, v, 2, MILL_COSINE, &n);
    a.cancelled = [](void *) { return true; };
    EXPECT_EQ(stm_topk_team(*team, &a, nullptr, &err), MILL_ERR_STOPPED);
    mill_pairs_args b = pairs_args(v, 0.5f, MILL_COSINE, &p);
    b.cancelled = [](void *) { return true; };
    err = {};
    EXPECT_EQ(stm_pairs_team(*team, &b, nullptr, &err), MILL_ERR_STOPPED);
    refused.refuse = 1;
    b = pairs_args(v, -1.0f, MILL_COSINE, &refused);
    err = {};
    EXPECT_EQ(stm_pairs_team(*team, &b, nullptr, &err), MILL_ERR_STEP);
    EXPECT_STREQ(err.msg, "enough");
    EXPECT_EQ(refused.calls, 1) << "no call after a refusal";
    expect_topk(v, v, 2, MILL_COSINE, {{}}); /* the team is as good as new */
}

INSTANTIATE_TEST_SUITE_P(Devices, Search,
                         ::testing::ValuesIn(mt::leaves_out(mt::kThreadSanitizer) ? std::vector<int>{3}
                                                                                  : std::vector<int>{1, 2, 4}),
                         [](const auto &i) { return std::to_string(i.param); });
