/*
 * Budgets: batches that cost the same. A row comes with its cost, a number of whatever unit the consumer counts; an item takes rows
 * in order while the sum stays within the budget, and at least one, so a row above the budget goes alone.
 *
 * A row costs at least 1. Hence an item has at most `budget` rows, however cheap they are, and what an inlet lacks has an end.
 */
#include "flow/internal.h"

/* Cost of row @p k of a run: what its rows in all inputs cost together. The branches of a convergence carry copies of the same row:
 * the dearest counts. */
static int64_t cost_of(const stm_inlet *in, const stm_piece *run, int64_t k)
{
    int64_t sum = 0;
    for (int32_t c = 0; c < in->n_columns; c++) {
        if (run[c].input < 0) continue;
        const stm_slot *slot = stm_queue_slot(&in->queues[run[c].input], run[c].seq);
        int64_t cost = slot->costs ? ((const int64_t *)mill_buffer_data(slot->costs))[run[c].first + k] : 1;
        if (cost > in->budget) cost = in->budget + 1; /* sums stay in range */
        if (in->mode != STM_INPUT_CONVERGE)
            sum += cost < 1 ? 1 : cost;
        else if (cost > sum)
            sum = cost;
    }
    return sum < 1 ? 1 : sum;
}

int64_t stm_budget_rows(stm_inlet *in, int32_t lane)
{
    stm_assembly *a = &stm_assemblies(in)[lane];
    size_t columns = (size_t)in->n_columns;
    for (;;) {
        if (a->seen_cost >= in->budget || (in->batch_rows > 0 && a->seen_rows == in->batch_rows)) return a->seen_rows;
        if (a->seen_rows == a->pending) return 0;
        while (a->seen_row == in->pieces[lane].items[a->seen * columns].rows) a->seen++, a->seen_row = 0;
        int64_t cost = cost_of(in, in->pieces[lane].items + a->seen * columns, a->seen_row);
        if (a->seen_rows > 0 && a->seen_cost + cost > in->budget) return a->seen_rows;
        a->seen_cost += cost;
        a->seen_rows++;
        a->seen_row++;
    }
}

void stm_budget_restart(stm_inlet *in, int32_t lane)
{
    stm_assembly *a = &stm_assemblies(in)[lane];
    a->seen = a->head;
    a->seen_row = a->skip;
    a->seen_rows = a->seen_cost = 0;
}

int64_t stm_budget_lacks(const stm_inlet *in, int32_t lane)
{
    const stm_assembly *a = &stm_assemblies(in)[lane];
    if (a->seen_rows == 0) return 1;
    return (in->budget - a->seen_cost) / (a->seen_cost / a->seen_rows);
}
