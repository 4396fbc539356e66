/* The child's end of supervision. */
#ifndef STM_SUPERVISE_CHILD_H
#define STM_SUPERVISE_CHILD_H

#include "stepmill/supervise.h"
#include "supervise/recorder.h"

struct mill_child {
    stm_recorder *recorder;
    int socket;                  /* one byte a message: the number of a signal */
    int signals;                 /* signalfd: those that somebody sent to this process itself */
    int64_t heard_ns, direct_ns; /* when the last message came; when a signal is handed up, 0 = none waits */
    int direct;                  /* that signal */
    int64_t rest_ns;             /* between two beats while no call begins */
};

/* A signal to every process of a job comes to both, and counts once: the parent hears of ours when it has not got one of its own
 * within so long. */
#define STM_SAME_SIGNAL_NS 300000000LL
#define STM_BEAT_NS 250000000LL  /* how often a child shows that it moves; while no call begins, */
#define STM_REST_NS 1000000000LL /* so often, or in this part of the time that it may be silent for */
#define STM_REST_SHARE 4

#endif
