/*
 * What hung or lost rows in the system that stepmill replaces (semantics, part B, 3.3), shown to end here: each graph
 * runs under many schedules against the oracle.
 */
#include <random>

#include <gtest/gtest.h>

#include "graphs.h"
#include "sim.h"
#include "support/fail_nth.h"

using namespace flowtest;

namespace {

void must_end(const Graph &g)
{
    mill_type_plain(MILL_INT64);
    Shapes shapes;
    long before = mt::live();
    for (int schedule = 0; schedule < 300; schedule++) {
        std::mt19937_64 r((uint64_t)schedule);
        mill_pool *pool = nullptr;
        ASSERT_EQ(MILL_OK, stm_pool_create(0, &pool));
        {
            Sim sim(g, pool, true, &shapes);
            std::vector<Action> a;
            for (int n = 0; sim.problem().empty(); n++) {
                ASSERT_LT(n, 5000) << "does not end";
                sim.actions(&a);
                if (!a.empty())
                    sim.act(a[schedule == 0 ? 0 : schedule == 1 ? a.size() - 1 : r() % a.size()]);
                else if (sim.quiescent())
                    break;
            }
            ASSERT_EQ("", sim.problem()) << "schedule " << schedule;
        }
        stm_pool_release(&pool);
    }
    EXPECT_EQ(before, mt::live());
}

} // namespace

TEST(FlowDefects, R1_LastBatchWithoutRows)
{
    must_end({gen("g", {4, 4, 0}, 8), step("a", {{0, 0}}, 4, 2), step("b", {{1, 0}}, 2, 2), sink({{2, 0}})});
    must_end({gen("g", {4, 4, 4}, 8), dropping(step("a", {{0, 0}}, 4), 1), step("b", {{1, 0}}, 2), sink({{2, 0}}, 3)});
}

TEST(FlowDefects, R2_UnevenInputsOfAJoin)
{
    must_end({gen("g", {2, 2, 1}, 2), gen("h", {4, 4, 4}, 2), step("j", {{0, 0}, {1, 0}}, 3, 2, JOIN), sink({{2, 0}})});
    must_end({gen("g", {2, 2, 1}, 2), gen("h", {4, 4, 4}, 2), uneven(step("j", {{0, 0}, {1, 0}}, 3, 2, JOIN), STM_UNEVEN_ERROR),
              sink({{2, 0}}), sink({{1, 0}})});
}

TEST(FlowDefects, R3_AGlobalWithoutRows)
{
    must_end({gen("g", {2, 2, 2}, 2), dropping(step("a", {{0, 0}}, 2, 2), 1), sink({{1, 0}}, 0, EACH), reader("out", 2, -1, 1),
              step("b", {{3, 0}}, 2, 2), sink({{4, 0}})});
    must_end(
        {gen("g", {0, 0, 0}, 1), gen("h", {2, 1, 1}, 1), sink({{0, 0}, {1, 0}}, 3, EACH), reader("out", 2, -1, 1), sink({{3, 0}})});
}

TEST(FlowDefects, R4_RoutesThatNeverConverge)
{
    must_end({gen("g", {2, 2, 2, 2}, 4), router({{0, 0}}, 3, 2, 0, 2), sink({{1, 0}}), step("a", {{1, 1}}, 3, 2), sink({{3, 0}}, 2),
              sink({{1, 2}}, 5)});
    must_end({gen("g", {2, 2, 2}, 4), router({{0, 0}}, 2, 2, 2), sink({{1, 0}}), sink({{1, 1}})});
}

TEST(FlowDefects, R5_RoutedToAllBranches)
{
    must_end({gen("g", {3, 3, 3}, 6), router({{0, 0}}, 3, 2, 1), step("a", {{1, 0}}, 1, 2), step("b", {{1, 1}}, 2),
              step("c", {{2, 0}, {3, 0}, {1, 2}}, 4, 2, CONVERGE), sink({{4, 0}})});
}

TEST(FlowDefects, R6_RouterWithReplicas)
{
    must_end({gen("g", {2, 2, 2, 2, 2}, 10), router({{0, 0}}, 2, 2, 0, 3), step("a", {{1, 0}}, 2, 2), step("b", {{1, 1}}, 2, 2),
              step("c", {{2, 0}, {3, 0}}, 2, 1, CONVERGE), sink({{4, 0}})});
}

TEST(FlowDefects, R7_ShortBatchesInFrontOfARouter)
{
    must_end({gen("g", {4, 4, 4}, 8), dropping(step("f", {{0, 0}}, 4), 2), router({{1, 0}}, 2, 2, 0), step("a", {{2, 0}}, 4),
              step("b", {{2, 1}}, 4), step("c", {{3, 0}, {4, 0}}, 4, 1, CONVERGE), sink({{5, 0}})});
}

TEST(FlowDefects, R8_BranchesThatChangeTheNumberOfRows)
{
    must_end({gen("g", {4, 4, 3}, 8), router({{0, 0}}, 2, 4, 3, 2), expanding(step("a", {{1, 0}}, 3, 2), 4),
              dropping(step("b", {{1, 1}}, 2, 2), 2), step("c", {{2, 0}, {3, 0}}, 5, 1, CONVERGE), sink({{4, 0}})});
}

TEST(FlowDefects, R9_StepsOfALaterLoadGroup)
{
    must_end({gen("g", {4, 4, 4, 4}, 4), sink({{0, 0}}), reader("r", 1, 0, 2), step("a", {{2, 0}}, 2, 2), sink({{3, 0}}),
              reader("s", 4, 3, 2), step("b", {{5, 0}}, 3), sink({{6, 0}})});
}

TEST(FlowDefects, R11_BranchesWithTheirOwnColumns)
{
    must_end({gen("g", {3, 3, 3}, 9), router({{0, 0}}, 2, 2, 0), dropping(step("a", {{1, 0}}, 1, 2), 3), step("b", {{1, 1}}, 2, 2),
              step("c", {{2, 0}, {3, 0}}, 50, 1, CONVERGE), sink({{4, 0}}, 50)});
}

/* The rows past the end of a union have keys of one element: no frontier may stand behind the first of them. */
TEST(FlowDefects, KeysPastTheEndOfAUnion)
{
    const Graph g = {gen("g", {1, 1, 0}, 3), gen("h", {2, 3, 3}, 3), step("a", {{0, 0}}), step("u", {{0, 0}, {2, 0}}, 0, 1, UNION),
                     step("j", {{3, 0}, {1, 0}}, 1, 1, JOIN), step("k", {{4, 0}}, 3), step("m", {{4, 0}, {5, 0}}, 2, 1, JOIN),
                     sink({{6, 0}})};
    must_end(g);
}

/* A stream of rows and of children of the same rows, expanded again: children keep the order of what they come from, and the
 * children of a row are no children of its first child. Behind it a join by key and a convergence pair by these keys. */
TEST(FlowDefects, KeysOfRowsAndOfTheirChildrenExpandedTogether)
{
    const Graph joined = {gen("g", {2, 3, 2}, 4),
                          expanding(step("e", {{0, 0}}, 2), 3),
                          step("both", {{1, 0}, {0, 0}}, 3, 1, JOIN),
                          expanding(step("again", {{2, 0}}, 2), 3),
                          dropping(step("some", {{3, 0}}, 3), 3),
                          step("meet", {{3, 0}, {4, 0}, {1, 0}}, 2, 1, JOIN),
                          sink({{5, 0}})};
    must_end(joined);
    const Graph routed = {gen("g", {2, 3, 2}, 4),
                          expanding(step("e", {{0, 0}}, 2), 3),
                          step("both", {{0, 0}, {1, 0}}, 3, 1, JOIN),
                          router({{2, 0}}, 2, 2, 3),
                          expanding(step("a", {{3, 0}}, 2), 3),
                          expanding(step("b", {{3, 1}}), 4),
                          step("meet", {{4, 0}, {5, 0}}, 2, 1, CONVERGE),
                          sink({{6, 0}})};
    must_end(routed);
}
