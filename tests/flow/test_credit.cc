/* Credit and grants. */
#include "kit.h"

using namespace kit;

namespace {

void give(Flow &f, mill_pool *pool, int node_at, int input, const Spec &s)
{
    mill_batch *b = make(pool, s);
    ASSERT_EQ(MILL_OK, stm_inlet_push(f.at(node_at), input, &b, nullptr));
}
void finish(Flow &f, int terminal)
{
    stm_ready r;
    while (stm_inlet_take(f.at(terminal), &r)) {
        stm_credit_return(f.f, terminal, r.batch);
        stm_ready_discard(&r);
    }
}

} // namespace

TEST(Credit, IsReturnedByTheSlowestTerminal)
{
    Pool pool;
    Flow f(pool, {generator("g", 10), node("s", STM_NODE_TERMINAL, {{0, 0}}), node("t", STM_NODE_TERMINAL, {{0, 0}})});
    EXPECT_EQ(10, stm_credit_room(f.f, 0));
    stm_credit_admit(f.f, 0, 6);
    EXPECT_EQ(4, stm_credit_room(f.f, 0));
    for (int t : {1, 2}) {
        EXPECT_EQ(0, stm_credit_completed(f.f, 0));
        give(f, pool, t, 0, {.keys = keys_of(0, 6), .covered = 6});
        finish(f, t);
    }
    EXPECT_EQ(6, stm_credit_completed(f.f, 0));
    EXPECT_EQ(10, stm_credit_room(f.f, 0));
}

TEST(Credit, RowsThatWereDroppedComeBack)
{
    Pool pool;
    Flow f(pool, {generator("g", 4), node("t", STM_NODE_TERMINAL, {{0, 0}}, 3)});
    stm_credit_admit(f.f, 0, 4);
    give(f, pool, 1, 0, {.keys = {}, .covered = 4}); /* a filter dropped all of it */
    EXPECT_EQ(1, stm_inlet_ready(f.at(1)));
    finish(f, 1);
    EXPECT_EQ(4, stm_credit_room(f.f, 0));
}

TEST(Credit, GrantsAtLeastDouble)
{
    Pool pool;
    Flow f(pool, {generator("g", 1), node("t", STM_NODE_TERMINAL, {{0, 0}}, 1 << 20)});
    int64_t sent = 0, last = 0;
    int grants = 0;
    for (uint64_t seq = 0; sent < 1000000; seq++) {
        while (stm_credit_room(f.f, 0) < 1) { /* one row at a time, as a step that swallows nearly everything would ask */
            int32_t starved = -1;
            ASSERT_EQ(0, stm_flow_grant(f.f, &starved));
            EXPECT_EQ(1, starved);
            EXPECT_GE(stm_credit_largest_grant(f.f, 0), 2 * last);
            last = stm_credit_largest_grant(f.f, 0);
            grants++;
        }
        int64_t n = stm_credit_room(f.f, 0);
        stm_credit_admit(f.f, 0, n);
        sent += n;
        give(f, pool, 1, 0, {.seq = seq, .keys = {}, .covered = 0}); /* nothing of it is complete */
        finish(f, 1);
    }
    EXPECT_LE(grants, 22);
    EXPECT_EQ(grants, stm_credit_grants(f.f, 0));
}

TEST(Credit, SmallShortfallsDoubleToo)
{
    Pool pool;
    Flow f(pool, {generator("g", 1), node("t", STM_NODE_TERMINAL, {{0, 0}}, 1)});
    int64_t sent = 0;
    for (uint64_t seq = 0; sent < 100000; seq++) {
        int32_t starved;
        while (stm_credit_room(f.f, 0) < 1) ASSERT_EQ(0, stm_flow_grant(f.f, &starved));
        int64_t n = stm_credit_room(f.f, 0);
        stm_credit_admit(f.f, 0, n);
        sent += n;
        give(f, pool, 1, 0, {.seq = seq, .keys = {}, .covered = 0});
        finish(f, 1);
    }
    EXPECT_LE(stm_credit_grants(f.f, 0), 18);
}

TEST(Credit, TheStarvingInputsRootIsGranted)
{
    Pool pool;
    auto j = node("j", STM_NODE_TERMINAL, {{0, 0}, {1, 0}}, 4, STM_INPUT_JOIN);
    Flow f(pool, {generator("g", 8), generator("h", 2), j});
    give(f, pool, 2, 0, {.keys = keys_of(0, 8), .covered = 8, .root = 0, .roots = 2});
    stm_credit_admit(f.f, 0, 8);
    stm_credit_admit(f.f, 1, 2);
    give(f, pool, 2, 1, {.keys = keys_of(0, 2), .covered = 2, .root = 1, .roots = 2});
    EXPECT_EQ(6, stm_inlet_shortfall(f.at(2)));
    int32_t starved = -1;
    EXPECT_EQ(1, stm_flow_grant(f.f, &starved));
    EXPECT_EQ(2, starved);
    EXPECT_GE(stm_credit_room(f.f, 1), 6);
    EXPECT_EQ(0, stm_credit_room(f.f, 0));
}

TEST(Credit, AWholeGeneratorBatchIsGranted)
{
    Pool pool;
    Flow f(pool, {generator("g", 1, 64), node("t", STM_NODE_TERMINAL, {{0, 0}}, 2)});
    int32_t starved;
    EXPECT_EQ(0, stm_flow_grant(f.f, &starved));
    EXPECT_GE(stm_credit_room(f.f, 0), 64);
}

TEST(Credit, EndedAndPausedRootsGetNoGrant)
{
    Pool pool;
    Flow f(pool, {generator("g", 1), generator("h", 1), node("t", STM_NODE_TERMINAL, {{0, 0}}, 2),
                  node("u", STM_NODE_TERMINAL, {{1, 0}}, 2)});
    int32_t starved = -1;
    stm_credit_pause(f.f, 0, true);
    EXPECT_EQ(1, stm_flow_grant(f.f, &starved));
    EXPECT_EQ(3, starved);
    stm_credit_end(f.f, 1);
    EXPECT_EQ(-1, stm_flow_grant(f.f, &starved));
    stm_credit_pause(f.f, 0, false);
    EXPECT_EQ(0, stm_flow_grant(f.f, &starved));
    EXPECT_EQ(2, starved);
}

TEST(Credit, ACutTerminalIsNotWaitedFor)
{
    Pool pool;
    auto r = node("r", STM_NODE_READER, {});
    r.source = 1, r.credit_rows = 5;
    Flow f(pool, {generator("g", 10), node("s", STM_NODE_STEP, {{0, 0}}), node("t", STM_NODE_TERMINAL, {{1, 0}}),
                  node("u", STM_NODE_TERMINAL, {{0, 0}}), r, node("v", STM_NODE_TERMINAL, {{4, 0}})});
    ASSERT_EQ(MILL_OK, f.status);
    give(f, pool, 2, 0, {.seq = 1, .keys = keys_of(0, 3), .covered = 3, .root = 0, .roots = 2});
    stm_credit_admit(f.f, 0, 10);
    bool closed[6] = {};
    stm_flow_cut(f.f, 1, closed);
    EXPECT_FALSE(closed[0]);
    EXPECT_TRUE(closed[1] && closed[2] && closed[4] && closed[5]); /* readers of its stream, too */
    EXPECT_FALSE(closed[3]);
    EXPECT_EQ(0, stm_inlet_rows(f.at(2)));
    EXPECT_TRUE(stm_inlet_ended(f.at(2)));
    give(f, pool, 2, 0, {.keys = keys_of(0, 3), .covered = 3, .root = 0, .roots = 2}); /* pushes are thrown away */
    EXPECT_EQ(0, stm_inlet_ready(f.at(2)));
    give(f, pool, 3, 0, {.keys = keys_of(0, 10), .covered = 10, .end = true, .root = 0, .roots = 2});
    finish(f, 3);
    EXPECT_EQ(10, stm_credit_completed(f.f, 0));
    stm_flow_cut(f.f, 3, closed);
    EXPECT_EQ(INT64_MAX, stm_credit_room(f.f, 0)); /* nobody left */
}
