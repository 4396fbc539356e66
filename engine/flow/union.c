/* Union: all rows of the first input, then all of the second, ... Keys get the number of the input in front. */
#include "flow/internal.h"

#include <string.h>

int stm_step_union(stm_inlet *in)
{
    stm_state *s = in->now;
    if (s->done) return 0;
    int32_t i = s->lead;
    stm_cursor *c = &stm_cursors(s)[i];
    const stm_queue *q = &in->queues[i];
    if (c->seq == q->next) return 0;
    const mill_batch *b = stm_queue_batch(q, c->seq);
    if (b->rows > 0) {
        stm_piece *p = stm_assembly_add(in, 0, b->rows);
        if (!p) return MILL_ERR_NOMEM;
        *p = (stm_piece){.rows = b->rows, .seq = c->seq, .input = i};
    }
    if (in->n_roots > 0) memcpy(stm_covered(in, i), b->covered, (size_t)in->n_roots * sizeof *b->covered);
    int64_t covered[64];
    stm_compose(in, stm_covered(in, 0), covered);
    stm_envelope e = {.covered = covered,
                      .frontier = {b->end ? i + 1 : i, b->end ? 0 : b->frontier[0]},
                      .borders = b->borders & in->borders_out[0],
                      .skipped = b->skipped,
                      .end = b->end && i + 1 == in->n_inputs};
    mill_status st = stm_assembly_finish(in, 0, &e);
    if (st != MILL_OK) return st;
    c->seq++;
    if (b->end) s->lead++;
    s->done = e.end;
    return 1;
}
