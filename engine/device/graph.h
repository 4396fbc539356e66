/*
 * Graphs: work that is queued on a stream once, kept, and queued again with one call.
 *
 *      begin ... queue work ... end -> graph        nothing has run
 *      launch, launch, ...                          runs on the stream, in its turn, as if it were queued piece by piece
 *
 * Memory that the work names must stay. Between begin and end nothing may wait for the stream, and no mark may be raised on it.
 */
#ifndef STM_DEVICE_GRAPH_H
#define STM_DEVICE_GRAPH_H

#include "device/stream.h"

MILL_BEGIN_DECLS

typedef struct stm_graph stm_graph;

/** Whether the backend has them. */
bool stm_graphs_supported(const stm_device *dev);
/** Keep what is queued from now on. Threads: owner of the stream, as all of these. Blocks: no. */
mill_status stm_graph_begin(stm_stream *st, mill_error *err);
/** End it. @p out NULL: throw it away. Always to be called after a begin that succeeded, also when queueing failed. */
mill_status stm_graph_end(stm_stream *st, stm_graph **out, mill_error *err);
mill_status stm_graph_launch(stm_graph *g, stm_stream *st, mill_error *err);
/** Every launch is done. Sets *g to NULL, accepts NULL. */
void stm_graph_close(stm_graph **g);

MILL_END_DECLS

#endif
