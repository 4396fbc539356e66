/* Inside of a lane: shared by what works with its streams and memory (lane.c, assemble.c, graphs.c, minhash.c). */
#ifndef STM_WRAPPER_LANE_INTERNAL_H
#define STM_WRAPPER_LANE_INTERNAL_H

#include "batch/move.h"
#include "batch/site.h"
#include "kernels/kernels.h"
#include "wrapper/lane.h"

#define STM_LANE_SPANS 16 /* more under way are not noted */

struct stm_lane {
    stm_lane_opts opts;            /* device: a reference */
    stm_stream *streams[STM_WAYS]; /* ACROSS: opened when something comes from another device */
    bool queued[STM_WAYS];         /* something since the last raise */
    stm_device_pool *memory, *pinned;
    const stm_kernels *kernels; /* NULL: of a module of another version */
    const bool *keep, *pair;
    stm_mark due;
    stm_site site;
    struct stm_graphs *graphs; /* NULL: none yet */
    mill_buffer *status[2];    /* on the device, pinned: the word of a batch; NULL: the step does not report */
    mill_error *err;           /* of calls through the site */
    int64_t least;             /* bytes of memory that were in use before a call: what is more is others' */
    bool full;                 /* others were waited for and gave nothing back, and nothing has fitted since */
    stm_lane_stats stats;
    uint64_t began;           /* traced: the batch in hand, stm_ticks, ... */
    uint64_t seen[STM_WAYS];  /* ... and when something was last seen to be done on each stream */
    struct {
        stm_lane_span span; /* end 0: not seen to be done yet */
        stm_mark mark;
    } spans[STM_LANE_SPANS];
    int32_t n_spans;
};

/** The stream to copy from @p src on; MILL_OK with *out set, and noted as having work. */
mill_status stm_lane_way_from(stm_lane *l, const mill_buffer *src, stm_stream **out, mill_error *err);
/** The step's stream runs behind what copies to the device were queued. */
mill_status stm_lane_gather_ways(stm_lane *l, mill_error *err);
/** Raise all streams with work, and wait until at most @p n batches are under way; 0: until nothing is. Blocks. */
mill_status stm_lane_drain(stm_lane *l, int32_t n, mill_error *err);
/** Where to copy a column. */
typedef enum stm_lane_move_to { STM_TO_DEVICE, STM_TO_HOST, STM_TO_BOTH } stm_lane_move_to;
/** A copy of @p col on the device, or on the host, of which the device's is then the twin (STM_TO_BOTH) or not; again when there
 *  was no room and may be now. */
mill_status stm_lane_move(stm_lane *l, stm_lane_move_to to, const mill_column *col, mill_column **out, mill_error *err);
/** Whether something that failed with @p *st for want of room may fit now: queued work was waited for (MILL_ERR_AGAIN), or twins
 *  that have @p bytes were let go (MILL_ERR_DEVICE_MEM). If not, *st and @p err say what it comes to. @p *waited: false at first;
 *  ends, as there are ever fewer twins. */
bool stm_lane_make_room(stm_lane *l, mill_status *st, size_t bytes, bool *waited, mill_error *err);
/** Memory of the device; again when there was no room and may be now. It carries the mark of the step's stream. */
mill_status stm_lane_take(stm_lane *l, size_t bytes, mill_buffer **out, mill_error *err);
/** graphs.c: none is queued or kept afterwards. */
void stm_graphs_drop(stm_lane *l);
void stm_graphs_free(stm_lane *l);
/** assemble.c */
void stm_lane_site_init(stm_lane *l);

#endif
