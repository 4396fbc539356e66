// Stream capture, as the other files meet it. All with the lock.
#pragma once
#include "state.h"
#include <cstdio>

namespace sim {

cudaError_t capture_add(Stream *s, Work work, const std::vector<size_t> &after); // a node instead of queued work
cudaError_t capture_record(Stream *s, Event *e);
cudaError_t capture_wait(Stream *s, Event *e);
cudaError_t capture_break(Stream *s, cudaError_t why);    // an illegal call: the capture is lost
cudaError_t capture_forbids_implicit(Stream *s);          // use of the null stream while a blocking stream is captured
cudaError_t capture_forbids_unsafe();                     // cudaMalloc and the like while a capture is on
void capture_drop(Stream *s);                             // the stream is destroyed
void forget_capture_in_events(Capture *c);                // event.cc

// live objects, for leaks
int live_stream_count();
int live_event_count();
int live_graph_count();
int live_exec_count();
void describe_streams();
void describe_events();

} // namespace sim
