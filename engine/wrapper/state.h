/*
 * Lifecycle of a replica.
 *
 *     NEW --start--> LOADING --loaded--> LOADED --run--> RUNNING --end,stop--> DRAINING --drained--> UNLOADING --unloaded--> DONE
 *      |stop            |fault              |stop           |fault                |fault
 *      v                v                   v               v                     v
 *     DONE          LOAD_FAILED          DRAINING         FAILED               FAILED
 *
 * A stop while LOADING goes to DRAINING: the load call is left to return (drained), then everything is released.
 *
 * What may be trusted: the step's load has been called exactly in LOADING and after; unload is owed in every state after
 * NEW until UNLOADING is left or a failed state was released. LOAD_FAILED, FAILED and DONE are final.
 */
#ifndef STM_WRAPPER_STATE_H
#define STM_WRAPPER_STATE_H

#include "stepmill/status.h"

typedef enum stm_wrapper_state {
    STM_NEW,
    STM_LOADING,
    STM_LOADED,
    STM_RUNNING,
    STM_DRAINING,
    STM_UNLOADING,
    STM_DONE,
    STM_LOAD_FAILED,
    STM_FAILED
} stm_wrapper_state;
#define STM_WRAPPER_STATES 9

typedef enum stm_wrapper_event {
    STM_ON_START,
    STM_ON_LOADED,
    STM_ON_RUN,
    STM_ON_END,
    STM_ON_STOP,
    STM_ON_DRAINED,
    STM_ON_UNLOADED,
    STM_ON_FAULT
} stm_wrapper_event;
#define STM_WRAPPER_EVENTS 8

/** Move *state on @p event; MILL_ERR_INVALID and no change when the table has no such move. */
mill_status stm_wrapper_move(stm_wrapper_state *state, stm_wrapper_event event);
/** Lower-case word for people. */
const char *stm_wrapper_state_name(stm_wrapper_state state);

#endif
