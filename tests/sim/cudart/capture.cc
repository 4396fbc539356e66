// Stream capture: while a stream is captured, work put on it becomes nodes of a graph. An event recorded in it stands for the
// nodes before it; a stream that waits for such an event is drawn into the capture, and has to come back by an event of its own
// before the end. What cannot be part of a graph breaks the capture: every later call on it fails until its end.
#include "capture.h"
#include "graph.h"
#include <algorithm>
#include <pthread.h>

namespace sim {

struct Capture {
    Stream *origin;
    cudaStreamCaptureMode mode;
    pthread_t thread;
    unsigned long long id;
    Graph *graph;
    bool broken = false;
    std::map<Stream *, std::vector<size_t>> tails; // of the streams in it: nodes that the next one comes after
};
static std::vector<Capture *> &captures()
{
    static auto *all = new std::vector<Capture *>;
    return *all;
}
static thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
static unsigned long long next_id;

static void unite(std::vector<size_t> *to, const std::vector<size_t> &from)
{
    for (size_t n : from)
        if (std::find(to->begin(), to->end(), n) == to->end()) to->push_back(n);
}

cudaError_t capture_add(Stream *s, Work work, const std::vector<size_t> &after)
{
    Capture *c = s->capture;
    if (c->broken) return cudaErrorStreamCaptureInvalidated;
    std::vector<size_t> all = c->tails[s];
    unite(&all, after);
    c->tails[s] = {graph_add(c->graph, std::move(work), std::move(all))};
    return cudaSuccess;
}

cudaError_t capture_record(Stream *s, Event *e)
{
    if (s->capture->broken) return cudaErrorStreamCaptureInvalidated;
    e->capture = s->capture;
    e->nodes = s->capture->tails[s];
    return cudaSuccess;
}

cudaError_t capture_wait(Stream *s, Event *e)
{
    if (!e->capture) {
        if (s->capture->broken) return cudaErrorStreamCaptureInvalidated;
        if (!e->record) return cudaSuccess; // never recorded: nothing to wait for
        return capture_break(s, cudaErrorStreamCaptureIsolation);
    }
    Capture *c = e->capture;
    if (c->broken) return cudaErrorStreamCaptureInvalidated;
    if (!s->capture) {
        if (s->is_null) {
            c->broken = true;
            return cudaErrorStreamCaptureImplicit;
        }
        s->capture = c;
        c->tails[s] = e->nodes;
        return cudaSuccess;
    }
    if (s->capture != c) {
        c->broken = true;
        return capture_break(s, cudaErrorStreamCaptureMerge);
    }
    unite(&c->tails[s], e->nodes);
    return cudaSuccess;
}

cudaError_t capture_break(Stream *s, cudaError_t why)
{
    if (s->capture->broken) return cudaErrorStreamCaptureInvalidated;
    s->capture->broken = true;
    return why;
}

cudaError_t capture_forbids_implicit(Stream *s)
{
    if (!s->is_null) return cudaSuccess;
    cudaError_t e = cudaSuccess;
    for (Capture *c : captures())
        if (c->origin->blocking && c->origin->device == s->device) {
            c->broken = true;
            e = cudaErrorStreamCaptureImplicit;
        }
    return e;
}

// What a thread may not call is decided by its own mode and by the captures that are on (cudaThreadExchangeStreamCaptureMode).
cudaError_t capture_forbids_unsafe()
{
    if (thread_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
    cudaError_t e = cudaSuccess;
    for (Capture *c : captures()) {
        const bool mine = pthread_equal(c->thread, pthread_self()) && c->mode != cudaStreamCaptureModeRelaxed;
        const bool global = thread_mode == cudaStreamCaptureModeGlobal && c->mode == cudaStreamCaptureModeGlobal;
        if (!mine && !global) continue;
        c->broken = true;
        e = cudaErrorStreamCaptureUnsupported;
    }
    return e;
}

// Ends it: streams and events are themselves again; the graph stays with the caller.
static Graph *dissolve(Capture *c)
{
    for (auto &t : c->tails) t.first->capture = nullptr;
    forget_capture_in_events(c);
    captures().erase(std::find(captures().begin(), captures().end(), c));
    Graph *g = c->graph;
    delete c;
    return g;
}

void capture_drop(Stream *s)
{
    Capture *c = s->capture;
    c->broken = true;
    if (s == c->origin) {
        graph_delete(dissolve(c));
    } else {
        c->tails.erase(s);
        s->capture = nullptr;
    }
}

static bool all_joined(const Capture &c)
{
    const std::vector<bool> before = graph_ancestors(*c.graph, c.tails.at(c.origin));
    for (const auto &t : c.tails)
        for (size_t n : t.second)
            if (!before[n]) return false;
    return true;
}

} // namespace sim

using namespace sim;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    cudaError_t e = enter("cudaStreamBeginCapture");
    if (e) return e;
    if (mode < cudaStreamCaptureModeGlobal || mode > cudaStreamCaptureModeRelaxed) return result(cudaErrorInvalidValue);
    Lock l;
    Stream *s = stream_of(stream);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    if (s->is_null) return result(cudaErrorStreamCaptureUnsupported);
    if (s->capture) return result(cudaErrorIllegalState);
    auto *c = new Capture{s, mode, pthread_self(), ++next_id, graph_new(SIM_SITE("cudaStreamBeginCapture")), false, {}};
    c->tails[s];
    s->capture = c;
    captures().push_back(c);
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    const int injected = fault("cudaStreamEndCapture", cudaErrorUnknown);
    Lock l;
    Stream *s = stream_of(stream);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    if (!s->capture) return result(cudaErrorIllegalState);
    Capture *c = s->capture;
    if (c->origin != s) return result(cudaErrorStreamCaptureUnmatched);
    if (c->mode != cudaStreamCaptureModeRelaxed && !pthread_equal(c->thread, pthread_self()))
        return result(cudaErrorStreamCaptureWrongThread);
    cudaError_t e = injected ? static_cast<cudaError_t>(injected) : cudaSuccess;
    if (!e && c->broken) e = cudaErrorStreamCaptureInvalidated;
    if (!e && !all_joined(*c)) e = cudaErrorStreamCaptureUnjoined;
    Graph *g = dissolve(c);
    *out = nullptr;
    if (e) graph_delete(g);
    else *out = reinterpret_cast<cudaGraph_t>(g);
    return result(e);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *out)
{
    cudaError_t e = enter("cudaStreamIsCapturing");
    if (e) return e;
    Lock l;
    Stream *s = stream_of(stream);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    *out = !s->capture ? cudaStreamCaptureStatusNone
                       : s->capture->broken ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status, unsigned long long *id,
                                     cudaGraph_t *graph, const cudaGraphNode_t **nodes, const cudaGraphEdgeData **, size_t *count)
{
    cudaError_t e = cudaStreamIsCapturing(stream, status);
    if (e || *status != cudaStreamCaptureStatusActive) return e;
    if (nodes || count) return result(cudaErrorNotSupported);
    Lock l;
    const Capture *c = stream_of(stream)->capture;
    if (id) *id = c->id;
    if (graph) *graph = reinterpret_cast<cudaGraph_t>(c->graph);
    return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode)
{
    std::swap(*mode, thread_mode);
    return cudaSuccess;
}

} // extern "C"
