#include "wrapper/state.h"

#include <stddef.h>

mill_status stm_wrapper_move(stm_wrapper_state *state, stm_wrapper_event event)
{
    static const struct { stm_wrapper_state from; stm_wrapper_event on; stm_wrapper_state to; } moves[] = {
        {STM_NEW, STM_ON_START, STM_LOADING},
        {STM_NEW, STM_ON_STOP, STM_DONE},
        {STM_LOADING, STM_ON_LOADED, STM_LOADED},
        {STM_LOADING, STM_ON_STOP, STM_DRAINING},
        {STM_LOADING, STM_ON_FAULT, STM_LOAD_FAILED},
        {STM_LOADED, STM_ON_RUN, STM_RUNNING},
        {STM_LOADED, STM_ON_STOP, STM_DRAINING},
        {STM_RUNNING, STM_ON_END, STM_DRAINING},
        {STM_RUNNING, STM_ON_STOP, STM_DRAINING},
        {STM_RUNNING, STM_ON_FAULT, STM_FAILED},
        {STM_DRAINING, STM_ON_DRAINED, STM_UNLOADING},
        {STM_DRAINING, STM_ON_FAULT, STM_FAILED},
        {STM_UNLOADING, STM_ON_UNLOADED, STM_DONE},
    };

    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++)
        if (moves[i].from == *state && moves[i].on == event) {
            *state = moves[i].to;
            return MILL_OK;
        }
    return MILL_ERR_INVALID;
}

const char *stm_wrapper_state_name(stm_wrapper_state state)
{
    static const char *const names[STM_WRAPPER_STATES] = {"new",       "loading", "loaded",      "running", "draining",
                                                          "unloading", "done",    "load failed", "failed"};

    return (unsigned)state < STM_WRAPPER_STATES ? names[state] : "unknown";
}
