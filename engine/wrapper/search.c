/* Searches that a replica makes on its devices, or on the host where it has none. */
#include "search/search.h"

#include "core/log.h"
#include "kernels/topk.h"
#include "stepmill/device.h"
#include "wrapper/replica.h"

mill_status mill_replica_topk(mill_replica *r, const mill_topk_args *args, mill_error *err)
{
    const mill_status st = stm_topk_check(args, err);

    if (st != MILL_OK || r->w->team == NULL) return st != MILL_OK ? st : mill_topk(args, err);
    if (stm_topk_on_devices(args)) return stm_topk_team(r->w->team, args, NULL, err);
    stm_log(STM_WARN, r->step->name, "%lld neighbours are searched for on the host: devices find up to %d", (long long)args->k,
            STM_NEAREST_MAX_K);
    return mill_topk(args, err);
}

mill_status mill_replica_pairs(mill_replica *r, const mill_pairs_args *args, mill_error *err)
{
    const mill_status st = stm_pairs_check(args, err);

    if (st != MILL_OK || r->w->team == NULL || !stm_pairs_on_devices(args)) return st != MILL_OK ? st : mill_pairs(args, err);
    return stm_pairs_team(r->w->team, args, NULL, err);
}
