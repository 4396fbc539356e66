/* The devices of a run: each opened once, when the first replica that computes there is loaded, and closed after everything that
 * was in their memory. */
#ifndef STM_EXEC_DEVICES_H
#define STM_EXEC_DEVICES_H

#include <pthread.h>

#include "device/device.h"
#include "memory/place.h"
#include "wrapper/wrapper.h"

#define STM_RUN_DEVICES 64

typedef struct stm_run_devices {
    pthread_mutex_t lock;              /* a leaf, but that devices are opened under it: taken by loaders only */
    const stm_device_ops *ops;         /* lock; NULL: not looked for yet, or there are none */
    int32_t n;                         /* lock */
    bool looked;                       /* lock */
    stm_device *open[STM_RUN_DEVICES]; /* lock */
    stm_pool_share pinned;             /* of all replicas; limit: before the first of them */
} stm_run_devices;

/** Whether replicas of @p step compute on a device where there is one. */
bool stm_step_wants_device(const mill_step *step);
/** The same for globals, on all devices of their replica. */
bool stm_step_wants_team(const mill_step *step);
void stm_run_devices_init(stm_run_devices *d);
/** After everything that was in their memory is gone. */
void stm_run_devices_fini(stm_run_devices *d);
/** What a replica has on its device: the one that was @p planned for it, or (-1) replicas take the devices in turn. *lane untouched
 *  when the machine has no device: then the step computes on the host, and a warning says why. Blocks: while the device is opened
 *  and memory is allocated. Threads: loaders. */
mill_status stm_run_devices_lane(stm_run_devices *d, mill_pool *pool, stm_wrapper *w, int32_t planned, bool traced,
                                 struct stm_lane **lane, mill_error *err);

/** The devices of a replica of a global: the @p n that are planned for it (@p planned[0] < 0: none is planned, the next ones in
 *  turn). *team untouched as *lane above. */
mill_status stm_run_devices_team(stm_run_devices *d, stm_wrapper *w, const int32_t *planned, int32_t n, struct stm_team **team,
                                 mill_error *err);

#endif
