#include "wrapper/choice.h"

#include "core/alloc.h"
#include "wrapper/replica.h"

bool stm_row_ranges_have(const stm_row_range *r, size_t n, int64_t row)
{
    size_t low = 0, high = n;

    while (low < high) {
        const size_t mid = low + (high - low) / 2;

        if (r[mid].last < row)
            low = mid + 1;
        else
            high = mid;
    }
    return low < n && r[low].first <= row;
}

int64_t stm_row_choice_of(const stm_row_choice *c, int64_t first, int64_t n, int64_t *index)
{
    int64_t taken = 0;

    for (int64_t i = 0; i < n; i++)
        if (c->shards > 0 ? (first + i) / STM_SHARD_BLOCK % c->shards == c->shard : stm_row_ranges_have(c->ranges, c->n, first + i))
            index[taken++] = i;
    return taken;
}

mill_status stm_choose_rows(stm_wrapper *w, mill_batch **bp, mill_error *err)
{
    mill_emit *e = &w->emit;
    mill_batch *b = *bp, *chosen = NULL;
    int64_t *index = stm_malloc((size_t)(b->rows + 1) * sizeof *index), n;
    size_t errors = 0;
    mill_status st = MILL_ERR_NOMEM;

    if (index != NULL) {
        n = stm_row_choice_of(w->choice, b->keys.first, b->rows, index);
        for (size_t i = 0; i < e->n_row_errors; i++)
            for (int64_t k = 0; k < n; k++)
                if (index[k] == e->row_errors[i].row) {
                    e->row_errors[errors] = e->row_errors[i];
                    e->row_errors[errors++].row = k;
                    break;
                }
        e->n_row_errors = errors;
        st = stm_batch_gather(w->env->pool, b, index, n, NULL, &chosen);
    }
    stm_free(index);
    if (st != MILL_OK) return mill_fail(err, st, "batch of generator %s", w->step->name);
    mill_batch_destroy(bp);
    *bp = chosen;
    return MILL_OK;
}
