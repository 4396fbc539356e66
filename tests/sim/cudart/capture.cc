#include "capture.h"
namespace sim {
cudaError_t capture_add(Stream *, Work, const std::vector<size_t> &) { return cudaErrorNotSupported; }
cudaError_t capture_record(Stream *, Event *) { return cudaErrorNotSupported; }
cudaError_t capture_wait(Stream *, Event *) { return cudaErrorNotSupported; }
cudaError_t capture_break(Stream *, cudaError_t why) { return why; }
cudaError_t capture_forbids_implicit(Stream *) { return cudaSuccess; }
cudaError_t capture_forbids_unsafe() { return cudaSuccess; }
void capture_drop(Stream *) {}
int live_graph_count() { return 0; }
int live_exec_count() { return 0; }
} // namespace sim
