/* Searches that a replica makes on its devices, or on the host where it has none. */
#include "search/search.h"

#include "core/log.h"
#include "kernels/topk.h"
#include "stepmill/device.h"
#include "wrapper/replica.h"

mill_status mill_replica_topk(mill_replica *r, const mill_topk_args *args, mill_column *const *columns, size_t n_columns,
                              mill_error *err)
{
    stm_twins twins = {0};
    mill_status st = stm_topk_check(args, err);

    if (st != MILL_OK || r->w->team == NULL) return st != MILL_OK ? st : mill_topk(args, err);
    if (!stm_topk_on_devices(args)) {
        stm_log(STM_WARN, r->step->name, "%lld neighbours are searched for on the host: devices find up to %d", (long long)args->k,
                STM_NEAREST_MAX_K);
        return mill_topk(args, err);
    }
    st = stm_twins_find(&twins, columns, n_columns, err);
    if (st == MILL_OK) st = stm_topk_team(r->w->team, args, &(stm_search_opts){.twins = &twins}, err);
    stm_twins_fini(&twins);
    return st;
}

mill_status mill_replica_pairs(mill_replica *r, const mill_pairs_args *args, mill_column *const *columns, size_t n_columns,
                               mill_error *err)
{
    stm_twins twins = {0};
    mill_status st = stm_pairs_check(args, err);

    if (st != MILL_OK || r->w->team == NULL || !stm_pairs_on_devices(args)) return st != MILL_OK ? st : mill_pairs(args, err);
    st = stm_twins_find(&twins, columns, n_columns, err);
    if (st == MILL_OK) st = stm_pairs_team(r->w->team, args, &(stm_search_opts){.twins = &twins}, err);
    stm_twins_fini(&twins);
    return st;
}
