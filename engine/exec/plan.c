#include "exec/plan.h"

#include "core/alloc.h"

void stm_plan_destroy(stm_plan **plan)
{
    stm_plan *p = *plan;

    if (p == NULL) return;
    for (int32_t i = 0; i < p->n_steps; i++) {
        stm_step_destroy(&p->steps[i].step);
        stm_free(p->steps[i].inputs);
        stm_text_free(&p->steps[i].signature);
    }
    stm_free(p->steps);
    stm_placement_destroy(&p->placement);
    stm_topology_destroy(&p->topology);
    stm_free(p->name);
    stm_free(p);
    *plan = NULL;
}
