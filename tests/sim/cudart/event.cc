// Events: a record stands for the work queued on its stream when it was made; waiting takes the record as of the call.
#include "capture.h"
#include "state.h"

namespace sim {

static std::set<Event *> &live_events()
{
    static auto *set = new std::set<Event *>;
    return *set;
}
int live_event_count() { return static_cast<int>(live_events().size()); }
void describe_events()
{
    for (Event *e : live_events()) fprintf(stderr, "sim: event not destroyed: %s\n", describe(e->made).c_str());
}
void forget_capture_in_events(Capture *c)
{
    for (Event *e : live_events())
        if (e->capture == c) {
            e->capture = nullptr;
            e->nodes.clear();
        }
}

static long waits_again; // under the lock

static Event *event_of(cudaEvent_t handle)
{
    Event *e = reinterpret_cast<Event *>(handle);
    if (live_events().count(e)) return e;
    finding("an event is used that does not exist (any more): %s", describe(SIM_SITE("the call")).c_str());
    return nullptr;
}

} // namespace sim

using namespace sim;

extern "C" {

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    cudaError_t e = enter("cudaEventCreate", cudaErrorMemoryAllocation);
    if (e) return e;
    if (flags & ~7u) return result(cudaErrorInvalidValue);
    Lock l;
    auto *v = new Event;
    v->device = current_device();
    v->timing = !(flags & cudaEventDisableTiming);
    v->blocking_sync = flags & cudaEventBlockingSync;
    v->made = SIM_SITE("cudaEventCreate");
    live_events().insert(v);
    *out = reinterpret_cast<cudaEvent_t>(v);
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *out) { return cudaEventCreateWithFlags(out, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t handle)
{
    const auto injected = static_cast<cudaError_t>(fault("cudaEventDestroy", cudaErrorUnknown, Call::Quiet));
    Lock l;
    Event *v = event_of(handle);
    if (!v) return result(cudaErrorInvalidResourceHandle);
    live_events().erase(v);
    const cudaError_t sticky = devices()[v->device].sticky;
    delete v;
    return result(injected ? injected : sticky);
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t handle, cudaStream_t stream, unsigned)
{
    cudaError_t e = enter("cudaEventRecord");
    if (e) return e;
    Lock l;
    Event *v = event_of(handle);
    Stream *s = stream_of(stream);
    if (!v || !s || v->device != s->device) return result(cudaErrorInvalidResourceHandle); // both of one device
    if (s->capture) return result(capture_record(s, v));
    if (cudaError_t f = capture_forbids_implicit(s)) return result(f);
    v->capture = nullptr;
    v->nodes.clear();
    v->record = enqueue_locked(s, Work{"event", SIM_SITE("cudaEventRecord"), nullptr, {}}, {});
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream) { return cudaEventRecordWithFlags(handle, stream, 0); }

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t handle, unsigned)
{
    cudaError_t e = enter("cudaStreamWaitEvent");
    if (e) return e;
    Lock l;
    Event *v = event_of(handle);
    Stream *s = stream_of(stream);
    if (!v || !s) return result(cudaErrorInvalidResourceHandle);
    if (s->capture || v->capture) return result(capture_wait(s, v));
    if (!v->record) return cudaSuccess;
    enqueue_locked(s, Work{"wait", SIM_SITE("cudaStreamWaitEvent"), nullptr, {}}, {v->record});
    waits_again += v->record->ordered;
    v->record->ordered = true;
    return cudaSuccess;
}

long stm_sim_waits_again(void)
{
    Lock l;
    return waits_again;
}

cudaError_t cudaEventQuery(cudaEvent_t handle)
{
    cudaError_t e = enter("cudaEventQuery");
    if (e) return e;
    Lock l;
    Event *v = event_of(handle);
    if (!v) return result(cudaErrorInvalidResourceHandle);
    if (v->capture) return result(cudaErrorCapturedEvent);
    if (cudaError_t f = capture_forbids_unsafe()) return result(f);
    if (devices()[v->device].sticky) return result(devices()[v->device].sticky);
    return poll_locked(v->record) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle)
{
    cudaError_t e = enter("cudaEventSynchronize");
    if (e) return e;
    RecordP record;
    int device;
    {
        Lock l;
        Event *v = event_of(handle);
        if (!v) return result(cudaErrorInvalidResourceHandle);
        if (v->capture) return result(cudaErrorCapturedEvent);
        if (cudaError_t f = capture_forbids_unsafe()) return result(f);
        record = v->record;
        device = v->device;
    }
    wait_for(record);
    return result(sticky_of(device));
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t first, cudaEvent_t last)
{
    cudaError_t e = enter("cudaEventElapsedTime");
    if (e) return e;
    Lock l;
    Event *a = event_of(first), *b = event_of(last);
    if (!a || !b || !a->timing || !b->timing || !a->record || !b->record || a->device != b->device)
        return result(cudaErrorInvalidResourceHandle);
    if (!a->record->done || !b->record->done) return cudaErrorNotReady;
    *ms = static_cast<float>(b->record->ms - a->record->ms);
    return cudaSuccess;
}

} // extern "C"
