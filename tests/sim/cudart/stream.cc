// Streams: a queue of operations each, run in order by a thread of the stream's own. An operation starts when all it waits for
// is done; in lazy mode also not before somebody wants its result.
#include "capture.h"
#include "state.h"
#include <algorithm>
#include <chrono>
#include <pthread.h>

namespace sim {

static std::set<Stream *> &live_streams()
{
    static auto *set = new std::set<Stream *>;
    return *set;
}
int live_stream_count() { return static_cast<int>(live_streams().size()); }
void describe_streams()
{
    for (Stream *s : live_streams()) fprintf(stderr, "sim: stream not destroyed: %s\n", describe(s->made).c_str());
}

// A free index may be used again once the host has seen the end of the stream that had it: ticks go on from there. Until then what
// the stream did is still the device's work, for whoever waits for that.
struct Retired {
    int index;
    uint32_t last;
    int device;
    RecordP tail; // null: it never ran anything
};
static std::vector<Retired> &retired() // never destroyed, as all state here: stream threads outlive static objects
{
    static auto *list = new std::vector<Retired>;
    return *list;
}
static int next_index;

static void take_index(Stream *s)
{
    auto &list = retired();
    for (size_t i = 0; i < list.size(); i++)
        if (host_clock().at(list[i].index) >= list[i].last) {
            s->index = list[i].index;
            s->clock.set(s->index, list[i].last);
            list.erase(list.begin() + static_cast<long>(i));
            return;
        }
    s->index = next_index++;
}

static double now_ms()
{
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static std::atomic<double> last_call_ms{0};

static bool ready_locked(const Op &op)
{
    for (const RecordP &r : op.record->before)
        if (!r->done) return false;
    return true;
}

// Marks r and all it needs; iterative, since a lazy queue may be long.
static void want_locked(const RecordP &first)
{
    std::vector<Record *> todo{first.get()};
    while (!todo.empty()) {
        Record *r = todo.back();
        todo.pop_back();
        if (r->done || r->wanted) continue;
        r->wanted = true;
        if (r->stream) wake(&r->stream->gate);
        for (const RecordP &b : r->before) todo.push_back(b.get());
    }
}

static const int kLazyPatienceMs = 50; // then somebody waits outside CUDA, say for a host function

static bool uses_live_memory(const Op &op, Stream *s)
{
    for (const auto &use : op.uses) {
        auto it = allocations().find(use.first);
        if (it != allocations().end() && it->second.id == use.second) continue;
        finding("use after free: [%s] runs after its memory was freed", describe(op.work.site).c_str());
        devices()[s->device].sticky = cudaErrorIllegalAddress;
        devices()[s->device].why = "use after free";
        return false;
    }
    return true;
}

static std::set<Stream *> &closing_streams() // destroyed, with a thread
{
    static auto *s = new std::set<Stream *>; // never destroyed: threads of streams outlive the end of main
    return *s;
}
void forget_work_of_destroyed()
{
    for (Stream *s : closing_streams())
        for (Op &op : s->queue) op.work.run = nullptr;
}

static void run_stream(Stream *s)
{
    Lock l;
    for (;;) {
        if (s->queue.empty()) {
            if (s->destroyed) break;
            sleep_on(&s->gate, -1);
            continue;
        }
        Op &op = s->queue.front();
        if (settings().lazy && !op.record->wanted) {
            bool late = false;
            sleep_on(&s->gate, kLazyPatienceMs, &late);
            if (late && now_ms() - last_call_ms.load() > kLazyPatienceMs && !s->queue.empty()) want_locked(s->queue.back().record);
            continue;
        }
        if (!ready_locked(op)) {
            sleep_on(&s->gate, -1);
            continue;
        }
        Op running = std::move(op);
        s->queue.pop_front();
        for (const RecordP &r : running.record->before) hb_acquire(&r->done_tag);
        hb_acquire(&running.record->queued_tag);
        if (running.work.run && devices()[s->device].sticky == cudaSuccess && uses_live_memory(running, s)) {
            let_go();
            running.work.run();
            take_again();
        }
        hb_release(&running.record->done_tag);
        running.work = Work(); // what the closure holds goes before its end is told
        running.record->before.clear();
        running.record->ms = now_ms();
        running.record->done = true;
        for (Device &d : devices())
            for (Stream *other : d.streams)
                if (other->gate.sleepers && other != s && !other->queue.empty()) wake(&other->gate);
        for (Stream *other : closing_streams())
            if (other->gate.sleepers && other != s && !other->queue.empty()) wake(&other->gate);
        notify();
    }
    retired().push_back({s->index, s->clock.at(s->index), s->device, s->tail});
    live_streams().erase(s);
    closing_streams().erase(s);
    delete s;
}

static void *stream_thread(void *s)
{
    pthread_setname_np(pthread_self(), "sim-stream");
    run_stream(static_cast<Stream *>(s));
    return nullptr;
}

static void start_thread(Stream *s)
{
    s->started = true;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 4 << 20);
    pthread_t thread;
    if (pthread_create(&thread, &attr, stream_thread, s) != 0) {
        fprintf(stderr, "sim: no thread for a stream\n");
        abort();
    }
    pthread_attr_destroy(&attr);
}

RecordP enqueue_locked(Stream *s, Work work, const std::vector<RecordP> &after)
{
    auto r = std::make_shared<Record>();
    r->stream = s;
    r->before = after;
    // The legacy null stream waits for all blocking streams of its device, and they for it.
    Device &d = devices()[s->device];
    if (s->is_null) {
        for (Stream *o : d.streams)
            if (o != s && o->blocking && o->tail && !o->tail->done) r->before.push_back(o->tail);
    } else if (s->blocking && d.null_stream && d.null_stream->tail && !d.null_stream->tail->done) {
        r->before.push_back(d.null_stream->tail);
    }
    Clock clock = s->clock;
    clock.join(host_clock());
    if (s->is_null)
        for (Stream *o : d.streams)
            if (o->blocking) clock.join(o->clock);
    if (s->blocking && d.null_stream) clock.join(d.null_stream->clock);
    for (const RecordP &b : after) clock.join(b->clock);
    clock.set(s->index, s->clock.at(s->index) + 1);
    if (settings().check) check_work(work, s, &clock);
    s->clock = clock;
    r->clock = std::move(clock);
    if (s->tail && !s->tail->done) r->before.push_back(s->tail); // for want_locked; the queue's order does it otherwise
    hb_release(&r->queued_tag);
    s->tail = r;
    Op op{std::move(work), r, {}};
    for (const Access &x : op.work.accesses)
        if (const Allocation *a = find_allocation(x.p)) op.uses.emplace_back(a->at, a->id);
    s->queue.push_back(std::move(op));
    last_call_ms.store(now_ms());
    if (!s->started) start_thread(s);
    wake(&s->gate);
    return r;
}

cudaError_t enqueue(cudaStream_t handle, Work work)
{
    Lock l;
    Stream *s = stream_of(handle);
    if (!s) return cudaErrorInvalidResourceHandle;
    if (s->capture) return capture_add(s, std::move(work), {});
    if (cudaError_t e = capture_forbids_implicit(s)) return e;
    enqueue_locked(s, std::move(work), {});
    return cudaSuccess;
}

StreamInfo stream_info(cudaStream_t handle)
{
    Lock l;
    Stream *s = stream_of(handle);
    return s ? StreamInfo{s->device, true, s->capture != nullptr} : StreamInfo{-1, false, false};
}

Stream *null_stream_locked(int device)
{
    Device &d = devices()[device];
    if (!d.null_stream) {
        Stream *s = d.null_stream = new Stream;
        s->device = device;
        s->is_null = true;
        s->made = {"the null stream", {}};
        take_index(s);
        d.streams.push_back(s);
    }
    return d.null_stream;
}

Stream *stream_of(cudaStream_t handle)
{
    if (!handle || handle == cudaStreamLegacy || handle == cudaStreamPerThread) return null_stream_locked(current_device());
    Stream *s = reinterpret_cast<Stream *>(handle);
    if (live_streams().count(s) && !s->destroyed) return s;
    finding("a stream is used that does not exist (any more): %s", describe(SIM_SITE("the call")).c_str());
    return nullptr;
}

void wait_for(const std::vector<RecordP> &records)
{
    Lock l;
    for (const RecordP &r : records) {
        if (!r->done) want_locked(r);
        while (!r->done) wait();
        hb_acquire(&r->done_tag);
        host_learns_locked(r);
    }
}
void wait_for(const RecordP &record)
{
    if (record) wait_for(std::vector<RecordP>{record});
}

bool poll_locked(const RecordP &r)
{
    if (!r) return true;
    if (!r->done) {
        want_locked(r);
        return false;
    }
    hb_acquire(&r->done_tag);
    host_learns_locked(r);
    return true;
}

std::vector<RecordP> device_tails_locked(int device)
{
    std::vector<RecordP> tails;
    for (Stream *s : devices()[device].streams)
        if (s->tail) tails.push_back(s->tail);
    for (Stream *s : closing_streams()) // destroyed, but for what they had queued: part of the device's work like any other
        if (s->device == device && s->tail) tails.push_back(s->tail);
    for (const Retired &r : retired())
        if (r.device == device && r.tail) tails.push_back(r.tail);
    return tails;
}

} // namespace sim

using namespace sim;

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority)
{
    cudaError_t e = enter("cudaStreamCreate", cudaErrorMemoryAllocation);
    if (e) return e;
    if (flags & ~static_cast<unsigned>(cudaStreamNonBlocking)) return result(cudaErrorInvalidValue);
    Lock l;
    auto *s = new Stream;
    s->device = current_device();
    s->blocking = !(flags & cudaStreamNonBlocking);
    s->priority = std::max(-1, std::min(0, priority));
    s->made = SIM_SITE("cudaStreamCreate");
    take_index(s);
    this_device().streams.push_back(s);
    live_streams().insert(s);
    *out = reinterpret_cast<cudaStream_t>(s);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) { return cudaStreamCreateWithPriority(out, flags, 0); }
cudaError_t cudaStreamCreate(cudaStream_t *out) { return cudaStreamCreateWithPriority(out, 0, 0); }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    if (least) *least = 0;
    if (greatest) *greatest = -1;
    return enter("cudaDeviceGetStreamPriorityRange");
}
cudaError_t cudaStreamGetPriority(cudaStream_t handle, int *priority)
{
    Lock l;
    Stream *s = stream_of(handle);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    *priority = s->priority;
    return cudaSuccess;
}
cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned *flags)
{
    Lock l;
    Stream *s = stream_of(handle);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    *flags = s->blocking ? cudaStreamDefault : cudaStreamNonBlocking;
    return cudaSuccess;
}
cudaError_t cudaStreamGetDevice(cudaStream_t handle, int *device)
{
    Lock l;
    Stream *s = stream_of(handle);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    *device = s->device;
    return cudaSuccess;
}

// Returns at once; what is queued still runs.
cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    const auto injected = static_cast<cudaError_t>(fault("cudaStreamDestroy", cudaErrorUnknown, Call::Quiet));
    if (!handle || handle == cudaStreamLegacy || handle == cudaStreamPerThread) return result(cudaErrorInvalidResourceHandle);
    Lock l;
    Stream *s = stream_of(handle);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    if (s->capture) capture_drop(s);
    auto &all = devices()[s->device].streams;
    all.erase(std::find(all.begin(), all.end(), s));
    const cudaError_t sticky = devices()[s->device].sticky;
    s->destroyed = true;
    if (s->started) {
        if (!s->queue.empty()) want_locked(s->queue.back().record);
        live_streams().erase(s);
        closing_streams().insert(s);
        wake(&s->gate); // its thread deletes it
    } else {
        live_streams().erase(s);
        retired().push_back({s->index, s->clock.at(s->index), s->device, nullptr});
        delete s;
    }
    return result(injected ? injected : sticky);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    cudaError_t e = enter("cudaStreamSynchronize");
    if (e) return e;
    RecordP tail;
    int device;
    {
        Lock l;
        Stream *s = stream_of(handle);
        if (!s) return result(cudaErrorInvalidResourceHandle);
        if (s->capture) return result(capture_break(s, cudaErrorStreamCaptureUnsupported));
        if (cudaError_t f = capture_forbids_implicit(s)) return result(f);
        tail = s->tail;
        device = s->device;
    }
    wait_for(tail);
    return result(sticky_of(device));
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    cudaError_t e = enter("cudaStreamQuery");
    if (e) return e;
    Lock l;
    Stream *s = stream_of(handle);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    if (s->capture) return result(capture_break(s, cudaErrorStreamCaptureUnsupported));
    if (devices()[s->device].sticky) return result(devices()[s->device].sticky);
    return poll_locked(s->tail) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize(void)
{
    cudaError_t e = enter("cudaDeviceSynchronize");
    if (e) return e;
    std::vector<RecordP> tails;
    {
        Lock l;
        if (cudaError_t f = capture_forbids_unsafe()) return result(f);
        tails = device_tails_locked(current_device());
    }
    wait_for(tails);
    return result(sticky_of(current_device()));
}

// On a real device this ends all its state under everybody's feet; here it must find nothing alive.
cudaError_t cudaDeviceReset(void)
{
    cudaError_t e = cudaDeviceSynchronize();
    if (e) return e;
    Lock l;
    for (const auto &a : allocations())
        if (a.second.device == current_device()) {
            finding("cudaDeviceReset with live allocations, e.g. %s", describe(a.second.made).c_str());
            break;
        }
    this_device().peers.clear();
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t fn, void *data)
{
    cudaError_t e = enter("cudaLaunchHostFunc");
    if (e) return e;
    const int device = stream_info(handle).device;
    Work w{"host", SIM_SITE("cudaLaunchHostFunc"), nullptr, {}};
    w.run = [fn, data, device] {
        const int injected = async_fault("host");
        if (injected) return kill_device(device, static_cast<cudaError_t>(injected), "injected fault of a host function");
        in_host_function(true);
        fn(data);
        in_host_function(false);
    };
    return result(enqueue(handle, std::move(w)));
}

} // extern "C"
