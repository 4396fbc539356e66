#include "exec/devices.h"

#include "core/log.h"
#include "device/registry.h"
#include "search/team.h"
#include "wrapper/lane.h"

#define SLAB ((size_t)32 << 20)  /* of a replica on its device, and ... */
#define PINNED ((size_t)8 << 20) /* ... on the host, where nobody says that it needs less */
#define PINNED_LEAST ((size_t)64 << 10)

bool stm_step_wants_device(const mill_step *step)
{
    return step->type->kind == MILL_STEP && step->type->process != NULL && (step->type->flags & MILL_ON_DEVICE) != 0 &&
           step->policy.gpus > 0;
}

bool stm_step_wants_team(const mill_step *step)
{
    return step->type->kind == MILL_GLOBAL && (step->type->flags & MILL_ON_DEVICE) != 0 && step->policy.gpus > 0;
}

void stm_run_devices_init(stm_run_devices *d) { pthread_mutex_init(&d->lock, NULL); }

void stm_run_devices_fini(stm_run_devices *d)
{
    for (int32_t i = 0; i < STM_RUN_DEVICES; i++)
        if (d->open[i] != NULL) stm_device_unref(&d->open[i]);
    pthread_mutex_destroy(&d->lock);
}

/* With the lock held. A machine without a module, a driver or a device is no failure; a driver that answers with an error is
 * one. */
static mill_status look(stm_run_devices *d, const mill_step *step, mill_error *err)
{
    const stm_device_ops *ops = NULL;
    mill_error why = {0};
    int32_t n = 0;
    mill_status st = stm_backend_find("cuda", &ops, &why);

    if (st == MILL_OK) {
        st = ops->count(&n, &why);
        if (st != MILL_OK && st != MILL_ERR_NOT_FOUND) {
            if (err != NULL) *err = why;
            return st;
        }
    }
    d->looked = true;
    if (st == MILL_OK && n > 0) {
        d->ops = ops;
        d->n = n < STM_RUN_DEVICES ? n : STM_RUN_DEVICES;
    } else {
        stm_log(STM_WARN, step->name, "computes on the host: %s", st == MILL_OK ? "the driver shows no GPU" : why.msg);
    }
    return MILL_OK;
}

/* With the lock held. */
static mill_status device_for(stm_run_devices *d, const mill_step *step, int32_t planned, int32_t turn, stm_device **out,
                              mill_error *err)
{
    mill_status st = d->looked ? MILL_OK : look(d, step, err);
    int32_t ordinal;

    if (st != MILL_OK) return st;
    if (d->ops == NULL) return MILL_OK;
    ordinal = planned >= 0 ? planned : turn % d->n;
    if (ordinal >= d->n)
        return mill_fail(err, MILL_ERR_NOT_FOUND, "GPU %d is planned for it, but the process sees %d", (int)ordinal, (int)d->n);
    if (d->open[ordinal] == NULL && (st = stm_device_open(d->ops, ordinal, &d->open[ordinal], err)) != MILL_OK) return st;
    *out = d->open[ordinal];
    return MILL_OK;
}

mill_status stm_run_devices_lane(stm_run_devices *d, mill_pool *pool, stm_wrapper *w, int32_t planned, bool traced,
                                 struct stm_lane **lane, mill_error *err)
{
    const mill_step *step = stm_wrapper_step(w);
    const size_t asked = step->policy.memory_bytes > 0 ? (size_t)step->policy.memory_bytes : SLAB;
    const size_t slab = asked < SLAB ? asked : SLAB; /* what is more comes as it is needed: weights may not be in slabs */
    size_t pinned = slab < PINNED ? slab : PINNED;
    stm_device *dev = NULL;
    mill_status st;

    if (d->pinned.limit > 0 && (size_t)d->pinned.limit / 4 < pinned) pinned = (size_t)d->pinned.limit / 4;
    if (pinned < PINNED_LEAST) pinned = PINNED_LEAST;
    pthread_mutex_lock(&d->lock);
    st = device_for(d, step, planned, stm_wrapper_index(w), &dev, err);
    pthread_mutex_unlock(&d->lock);
    if (st != MILL_OK || dev == NULL) return st;
    return stm_lane_open(
        &(stm_lane_opts){
            .device = dev, .host = pool, .slab_bytes = slab, .pinned_bytes = pinned, .share = &d->pinned, .traced = traced},
        lane, err);
}

mill_status stm_run_devices_team(stm_run_devices *d, stm_wrapper *w, const int32_t *planned, int32_t n, struct stm_team **team,
                                 mill_error *err)
{
    const mill_step *step = stm_wrapper_step(w);
    stm_device *devices[STM_COMM_RANKS] = {NULL};
    mill_status st = MILL_OK;

    if (n > STM_COMM_RANKS)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "%d GPUs for one replica: %d are possible", (int)n, STM_COMM_RANKS);
    pthread_mutex_lock(&d->lock);
    if (!d->looked) st = look(d, step, err);
    if (st == MILL_OK && d->ops != NULL && n > d->n)
        st = mill_fail(err, MILL_ERR_NOT_FOUND, "it wants %d GPUs, the process sees %d", (int)n, (int)d->n);
    for (int32_t i = 0; i < n && st == MILL_OK; i++)
        st = device_for(d, step, planned[0] >= 0 ? planned[i] : -1, stm_wrapper_index(w) * n + i, &devices[i], err);
    pthread_mutex_unlock(&d->lock);
    if (st != MILL_OK || devices[0] == NULL) return st;
    return stm_team_open(devices, n, 0, team, err);
}
