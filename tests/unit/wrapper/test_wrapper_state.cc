/* The table is the specification of a replica's life; all else must be refused. */
#include <gtest/gtest.h>

#include <set>
#include <string>

extern "C" {
#include "wrapper/state.h"
}

static const struct Move {
    stm_wrapper_state from;
    stm_wrapper_event on;
    stm_wrapper_state to;
} kLegal[] = {
    {STM_NEW, STM_ON_START, STM_LOADING},        {STM_NEW, STM_ON_STOP, STM_DONE},
    {STM_LOADING, STM_ON_LOADED, STM_LOADED},    {STM_LOADING, STM_ON_FAULT, STM_LOAD_FAILED},
    {STM_LOADING, STM_ON_STOP, STM_DRAINING},    {STM_LOADED, STM_ON_RUN, STM_RUNNING},
    {STM_LOADED, STM_ON_STOP, STM_DRAINING},     {STM_RUNNING, STM_ON_END, STM_DRAINING},
    {STM_RUNNING, STM_ON_STOP, STM_DRAINING},    {STM_RUNNING, STM_ON_FAULT, STM_FAILED},
    {STM_DRAINING, STM_ON_DRAINED, STM_UNLOADING}, {STM_DRAINING, STM_ON_FAULT, STM_FAILED},
    {STM_UNLOADING, STM_ON_UNLOADED, STM_DONE},
};

TEST(WrapperState, OnlyLegalMoves)
{
    int legal = 0, refused = 0;
    for (int from = 0; from < STM_WRAPPER_STATES; from++)
        for (int on = 0; on < STM_WRAPPER_EVENTS; on++) {
            SCOPED_TRACE(std::string(stm_wrapper_state_name((stm_wrapper_state)from)) + " on event " + std::to_string(on));
            const Move *want = nullptr;
            for (const Move &m : kLegal)
                if (m.from == from && m.on == on) want = &m;
            stm_wrapper_state now = (stm_wrapper_state)from;
            EXPECT_EQ(stm_wrapper_move(&now, (stm_wrapper_event)on), want ? MILL_OK : MILL_ERR_INVALID);
            EXPECT_EQ(now, want ? want->to : from);
            (want ? legal : refused)++;
        }
    EXPECT_EQ(legal, 13);
    EXPECT_EQ(legal + refused, STM_WRAPPER_STATES * STM_WRAPPER_EVENTS);
}

/* A stop is legal in every state before DRAINING, and from everywhere an end is reached by going on. */
TEST(WrapperState, StopLeadsToAnEndFromEverywhere)
{
    for (stm_wrapper_state from : {STM_NEW, STM_LOADING, STM_LOADED, STM_RUNNING}) {
        stm_wrapper_state now = from;
        EXPECT_EQ(stm_wrapper_move(&now, STM_ON_STOP), MILL_OK);
        if (now == STM_DONE) continue;
        EXPECT_EQ(now, STM_DRAINING);
        EXPECT_EQ(stm_wrapper_move(&now, STM_ON_DRAINED), MILL_OK);
        EXPECT_EQ(stm_wrapper_move(&now, STM_ON_UNLOADED), MILL_OK);
        EXPECT_EQ(now, STM_DONE);
    }
    std::set<std::string> names;
    for (int s = 0; s < STM_WRAPPER_STATES; s++) names.insert(stm_wrapper_state_name((stm_wrapper_state)s));
    EXPECT_EQ(names.size(), (size_t)STM_WRAPPER_STATES);
}
