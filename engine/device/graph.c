#include "device/graph.h"

#include "core/alloc.h"
#include "device/internal.h"

struct stm_graph {
    stm_device *device; /* a reference */
    stm_hw_graph *hw;
};

bool stm_graphs_supported(const stm_device *dev) { return stm_device_ops_of(dev)->graph_begin != NULL; }

mill_status stm_graph_begin(stm_stream *st, mill_error *err)
{
    stm_device *dev = stm_stream_device(st);
    mill_status status = stm_device_gate(dev, "graph capture", err);

    if (status != MILL_OK) return status;
    if (!stm_graphs_supported(dev)) return mill_fail(err, MILL_ERR_UNSUPPORTED, "%s has no graphs", stm_device_ops_of(dev)->name);
    return stm_device_note(dev, stm_device_ops_of(dev)->graph_begin(stm_stream_hw(st), err));
}

mill_status stm_graph_end(stm_stream *st, stm_graph **out, mill_error *err)
{
    stm_device *dev = stm_stream_device(st);
    stm_graph *g = out != NULL ? stm_calloc(sizeof *g) : NULL;
    stm_hw_graph *hw = NULL;
    mill_status status = stm_device_ops_of(dev)->graph_end(stm_stream_hw(st), &hw, err);

    if (status == MILL_OK && g != NULL) {
        stm_device_count(&dev->graphs, 1);
        g->device = stm_device_ref(dev);
        g->hw = hw;
        *out = g;
        return MILL_OK;
    }
    if (hw != NULL) stm_device_ops_of(dev)->graph_close(&hw);
    if (status == MILL_OK && out != NULL) status = mill_fail(err, MILL_ERR_NOMEM, "out of memory for a graph");
    stm_free(g);
    return stm_device_note(dev, status);
}

mill_status stm_graph_launch(stm_graph *g, stm_stream *st, mill_error *err)
{
    stm_device *dev = stm_stream_device(st);
    const mill_status status = stm_device_gate(dev, "graph launch", err);

    if (status != MILL_OK) return status;
    stm_device_count(&dev->launches, 1);
    return stm_device_note(dev, stm_device_ops_of(dev)->graph_launch(g->hw, stm_stream_hw(st), err));
}

void stm_graph_close(stm_graph **pg)
{
    stm_graph *g = *pg;

    if (g == NULL) return;
    *pg = NULL;
    stm_device_ops_of(g->device)->graph_close(&g->hw);
    stm_device_unref(&g->device);
    stm_free(g);
}
