/* Steps that compute on a device, in whole runs: the same rows as on the host, whatever fails. */
#include "device/lane_run.h"

#include <sched.h>
#include <time.h>

#include "support/fail_nth.h"
#include "support/sanitized.h"

using namespace mt;

namespace {

/* One order does all of a long test, plainly built; the others do some of it. */
bool does_all()
{
    const char *order = getenv("STM_SIM_ORDER"), *lazy = getenv("STM_SIM_LAZY");
    return !leaves_out() && order != nullptr && strcmp(order, "fwd") == 0 && lazy != nullptr && lazy[0] == '0';
}

} // namespace

TEST_P(Lane, RowsComeBackRight)
{
    for (int replicas : {1, 3}) {
        Pipe p;
        p.source("rows", 2000, 37);
        p.add("reverse", MILL_STEP, {{"rows"}}, reverses(), gpu(64, replicas)); /* other borders than the source's */
        p.sink("out", "reverse");
        ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
        expect_reversed(p, 2000, 64);
        EXPECT_TRUE(p.errors.empty());
        p.destroy();
    }
    EXPECT_EQ(live_replicas, 0);
    if (on_device) {
        EXPECT_EQ(device_calls, calls);
        EXPECT_EQ(uploads, calls) << "one column a batch";
        EXPECT_EQ(landings, calls);
    }
}

/* A load group finds the device as the one before it did: what that had there, queues included, is gone before anything is
 * loaded. */
TEST_P(Lane, AStepThatIsDoneKeepsNothing)
{
    std::vector<int64_t> left; /* bytes of the device at each load */
    const auto looks = [&](Behaviour b) {
        b.load = [&, load = b.load](mill_replica *r, mill_error *e) {
            left.push_back(mt_lane_free(r));
            return load(r, e);
        };
        return b;
    };
    Pipe p;
    Pipe::Opts first = gpu(64), second = gpu(64), third = gpu(64);
    second.stage = 1, third.stage = 2;
    p.source("rows", 1000, 50);
    p.add("one", MILL_STEP, {{"rows"}}, looks(reverses()), first);
    p.add("two", MILL_STEP, {{"one"}}, looks(reverses_again()), second);
    p.add("three", MILL_STEP, {{"rows"}}, looks(reverses()), third);
    p.sink("out", "two", second);
    p.sink("out3", "three", third);
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    expect_reversed(p, 1000, 64);
    p.destroy();
    ASSERT_EQ(left.size(), 3u);
    if (dlsym(RTLD_DEFAULT, "stm_sim_live") == nullptr) return; /* of a real device others use some, too */
    EXPECT_GT(left[0], 0);
    EXPECT_EQ(left[1], left[0]);
    EXPECT_EQ(left[2], left[0]);
}

/* What one step leaves on the device the next one finds there: the columns come up once and go down once. */
TEST_P(Lane, OneStepAfterAnother)
{
    Pipe p;
    p.source("rows", 600, 50);
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses(), gpu(100));
    p.add("again", MILL_STEP, {{"reverse"}}, reverses_again(), gpu(100));
    p.sink("out", "again");
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    expect_reversed(p, 600, 100);
    for (const Row &r : p.rows("out")) ASSERT_EQ(r.values.at("z"), r.values.at("x"));
    p.destroy();
    if (!on_device) return;
    EXPECT_EQ(uploads, 6) << "x, a batch; y was there";
    EXPECT_EQ(landings, 12) << "y and z of the second step; y stayed with the first";
    EXPECT_EQ(joined, 0);
}

/* Other batches than the first step made are put together on the device. */
TEST_P(Lane, BatchesArePutTogetherOnTheDevice)
{
    Pipe p;
    p.source("rows", 600, 50);
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses(), gpu(100));
    p.add("again", MILL_STEP, {{"reverse"}}, reverses_again(), gpu(40));
    p.sink("out", "again");
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    expect_reversed(p, 600, 100);
    const auto &rows = p.rows("out");
    for (size_t i = 0; i < rows.size(); i++) ASSERT_EQ(rows[i].values.at("z"), rows[i / 40 * 40 + 39 - i % 40].values.at("y"));
    p.destroy();
    if (!on_device) return;
    EXPECT_EQ(uploads, 6);
    EXPECT_EQ(landings, 30) << "y and z of the second step, 15 batches";
    EXPECT_EQ(joined, 3) << "batches over a border of the first step's: the others are slices";
}

/* Replicas on several devices pass columns on by copies between them, and two steps with batches of any size keep the rows. */
TEST_P(Lane, ReplicasOnSeveralDevices)
{
    Pipe p;
    p.source("rows", 1000, 30);
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses(), gpu(50, 2));
    p.add("again", MILL_STEP, {{"reverse"}}, reverses_again(), gpu(70, 2));
    p.sink("out", "again");
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    expect_reversed(p, 1000, 50);
    const auto &rows = p.rows("out");
    for (size_t i = 0; i < rows.size(); i++) {
        const size_t first = i / 70 * 70, last = std::min<size_t>(first + 70, 1000) - 1;
        ASSERT_EQ(rows[i].values.at("z"), rows[first + last - i].values.at("y")) << i;
    }
}

TEST_P(Lane, AFailedBatchIsNulls)
{
    Pipe p;
    p.source("rows", 640, 64);
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses([this](mill_batch *const *, mill_error *e) -> mill_status {
              return calls == 3 ? mill_fail(e, MILL_ERR_STEP, "the fourth call") : MILL_OK;
          }),
          gpu(64));
    p.sink("out", "reverse");
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    expect_reversed(p, 640, 64, [](int64_t i) { return i / 64 == 3; });
    ASSERT_EQ(p.errors.size(), 1u);
    EXPECT_STREQ(p.errors[0].error.msg, "the fourth call");
}

/* What does not fit is halved, whatever on_error says, and nothing is lost. */
TEST_P(Lane, OutOfDeviceMemoryHalvesTheBatch)
{
    Pipe p;
    p.source("rows", 512, 128);
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses([](mill_batch *const *in, mill_error *e) -> mill_status {
              return mill_batch_rows(in[0]) > 32 ? mill_fail(e, MILL_ERR_DEVICE_MEM, "too much") : MILL_OK;
          }),
          gpu(128));
    p.sink("out", "reverse");
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    expect_reversed(p, 512, 32);
    EXPECT_TRUE(p.errors.empty());
}

/* After that, batches are run in parts of what fits, more is tried now and then, and whole batches come back when the memory
 * does. */
TEST_P(Lane, WhatFitsGrowsBackSlowly)
{
    std::vector<int64_t> sizes;
    std::atomic<int64_t> room{32};
    Pipe p;
    p.source("rows", 128 * 300, 128);
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses([&](mill_batch *const *in, mill_error *e) -> mill_status {
              sizes.push_back(mill_batch_rows(in[0]));
              if (sizes.size() > 200) room = 1000; /* somebody else has given memory back */
              return mill_batch_rows(in[0]) > room ? mill_fail(e, MILL_ERR_DEVICE_MEM, "too much") : MILL_OK;
          }),
          gpu(128));
    p.sink("out", "reverse");
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    ASSERT_EQ(p.rows("out").size(), 128u * 300);
    for (size_t i = 0; i < 128 * 300; i++) ASSERT_NE(p.rows("out")[i].values.at("y"), INT64_MIN);
    EXPECT_TRUE(p.errors.empty());
    int failed = 0;
    for (size_t i = 0; i < 200; i++) failed += sizes[i] > 32;
    EXPECT_GE(failed, 3) << "128, 64, and a try for more";
    EXPECT_LE(failed, 6) << "tries become rarer";
    EXPECT_EQ(sizes.back(), 128) << "whole again";
    for (size_t i = 201; i < sizes.size(); i++) /* the rest of a batch is smaller; what a call may have grows by a quarter */
        ASSERT_LE(sizes[i], *std::max_element(sizes.begin() + 3, sizes.begin() + static_cast<long>(i)) * 5 / 4 + 1);
}

/* A device that is lost is no fault of the rows: the run fails and says so, it does not impute all that follows. */
TEST_P(Lane, ALostDeviceEndsTheRun)
{
    Pipe p;
    p.source("rows", 640, 64);
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses([this](mill_batch *const *, mill_error *e) -> mill_status {
              return calls >= 2 ? mill_fail(e, MILL_ERR_DEVICE, "an illegal address was met") : MILL_OK;
          }),
          gpu(64));
    p.sink("out", "reverse");
    EXPECT_EQ(p.run(60), STM_END_FAILED);
    EXPECT_NE(strstr(p.error.msg, "illegal address"), nullptr) << p.error.msg;
    EXPECT_EQ(p.error.status, MILL_ERR_DEVICE);
    for (const Row &r : p.rows("out")) ASSERT_NE(r.values.at("y"), INT64_MIN) << "row " << r.values.at("x") << " was made null";
    p.destroy();
    EXPECT_EQ(live_replicas, 0);
}

namespace {
/* What a step that uses graphs has of its own: addresses that stay. */
struct GraphState {
    mill_buffer *in = nullptr, *out = nullptr, *index = nullptr;
    int64_t rows = 0;
    int queued = 0;
};
mill_status queue_reverse(mill_replica *r, void *user, mill_error *e)
{
    GraphState *g = static_cast<GraphState *>(user);
    g->queued++;
    return mt_lane_gather(r, mill_buffer_data(g->in),
                          static_cast<const int64_t *>(mill_buffer_data(g->index)) + (MAX_ROWS - g->rows), mill_buffer_data(g->out),
                          g->rows, e);
}
} // namespace

/* Work that is the same for all batches of a shape is captured once and launched then; a cache that is too small loses time, never
 * rows. */
TEST_P(Lane, GraphsPerShape)
{
    for (int variants : {1, 40}) {
        Pipe p;
        GraphState g;
        Behaviour b = reverses();
        const auto load = b.load;
        b.load = [&](mill_replica *r, mill_error *e) -> mill_status {
            mill_status st = load(r, e);
            if (!on_device || st != MILL_OK) return st;
            g.index = static_cast<mill_buffer *>(mill_replica_state(r));
            st = mill_replica_device_buffer(r, MAX_ROWS * 8, &g.in, e);
            return st == MILL_OK ? mill_replica_device_buffer(r, MAX_ROWS * 8, &g.out, e) : st;
        };
        const auto unload = b.unload;
        b.unload = [&](mill_replica *r) {
            mill_buffer_unref(&g.in);
            mill_buffer_unref(&g.out);
            unload(r);
        };
        const auto on_host = b.process;
        b.process = [&](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
            if (!on_device) return on_host(r, in, n, out, e);
            const mill_view v = mill_column_view(mill_batch_column(in[0], 0));
            mill_buffer *data = nullptr;
            g.rows = mill_batch_rows(in[0]);
            const size_t bytes = static_cast<size_t>(g.rows) * 8;
            const int64_t key[] = {g.rows, calls++ % variants};
            mill_status st = mill_replica_device_buffer(r, bytes, &data, e);
            if (st == MILL_OK)
                st = mt_lane_copy(r, mill_buffer_data(g.in), static_cast<const int64_t *>(v.data) + v.offset, bytes, e);
            if (st == MILL_OK) st = mill_replica_graph(r, key, sizeof key, queue_reverse, &g, e);
            if (st == MILL_OK) st = mt_lane_copy(r, mill_buffer_data(data), mill_buffer_data(g.out), bytes, e);
            if (st == MILL_OK) st = mt::emit_column(r, out, v.type, g.rows, &data, e);
            mill_buffer_unref(&data);
            return st;
        };
        calls = 0;
        p.source("rows", 64 * 120 + 10, 64);
        p.add("reverse", MILL_STEP, {{"rows"}}, b, gpu(64));
        p.sink("out", "reverse");
        ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
        expect_reversed(p, 64 * 120 + 10, 64);
        EXPECT_TRUE(p.errors.empty());
        p.destroy();
        if (on_device) {
            EXPECT_EQ(g.queued, variants == 1 ? 2 : 121) << "64 and 10 rows; 40 keys in turn are more than are kept";
        }
    }
}

/* A step that reports: a batch whose word is set is made null, with what the device said, and the others are not. */
TEST_P(Lane, ABatchThatTheDeviceReports)
{
    static const int32_t seven = 7;
    Pipe p;
    Behaviour b = reverses();
    const auto process = b.process;
    b.flags |= MILL_REPORTS_STATUS;
    b.process = [&](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        const bool third = calls == 2;
        mill_status st = process(r, in, n, out, e);
        if (!third || st != MILL_OK) return st;
        if (!on_device) return mill_fail(e, MILL_ERR_STEP, "the device reports 7 for this batch");
        EXPECT_NE(mill_replica_device_status(r), nullptr);
        return mt_lane_copy(r, mill_replica_device_status(r), &seven, sizeof seven, e);
    };
    p.source("rows", 640, 64);
    p.add("reverse", MILL_STEP, {{"rows"}}, b, gpu(64));
    p.sink("out", "reverse");
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    expect_reversed(p, 640, 64, [](int64_t i) { return i / 64 == 2; });
    ASSERT_EQ(p.errors.size(), 1u);
    EXPECT_STREQ(p.errors[0].error.msg, "the device reports 7 for this batch");
}

/* While a batch is at work the next one is queued behind it, and its inputs are there already. */
TEST_P(Lane, TheNextBatchIsUnderWayBesideTheOneAtWork)
{
    using HostFunc = void (*)(void *);
    const auto host_func = reinterpret_cast<int (*)(void *, HostFunc, void *)>(dlsym(RTLD_DEFAULT, "cudaLaunchHostFunc"));
    static const auto copied = reinterpret_cast<void (*)(const char *, long *, long long *)>(dlsym(RTLD_DEFAULT, "stm_sim_copied"));
    if (!on_device || host_func == nullptr || copied == nullptr) return;
    static const auto up = [] {
        long n = 0;
        long long bytes = 0;
        copied("h2d", &n, &bytes);
        return n;
    };
    struct Work { /* of the first batch: over when the second one has been queued and copied, or long after */
        std::atomic<int> &calls;
        long before;
        bool lazy, queued = false, there = false;
        static void waits(void *user)
        {
            Work *w = static_cast<Work *>(user);
            const struct timespec nap = {0, 1000000};
            for (int i = 0; i < 20000 && !(w->queued && w->there); i++) {
                w->queued = w->calls >= 2;
                w->there =
                    w->lazy ||
                    up() >= w->before + 3; /* what load copied, too. Lazy devices copy nothing before somebody waits for it */
                nanosleep(&nap, nullptr);
            }
        }
    } work = {calls, up(), getenv("STM_SIM_LAZY") != nullptr && getenv("STM_SIM_LAZY")[0] == '1'};
    Pipe p;
    Behaviour b = reverses();
    const auto process = b.process;
    b.process = [&](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
        mill_replica_device d = MILL_REPLICA_DEVICE_INIT;
        EXPECT_TRUE(mill_replica_device_of(r, &d));
        if (calls == 0) {
            EXPECT_EQ(host_func(d.stream, Work::waits, &work), 0);
        }
        return process(r, in, n, out, e);
    };
    p.source("rows", 64, 16);
    p.add("reverse", MILL_STEP, {{"rows"}}, b, gpu(16));
    p.sink("out", "reverse");
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    expect_reversed(p, 64, 16);
    EXPECT_TRUE(work.queued);
    EXPECT_TRUE(work.there);
}

/* While the device works the replica's thread naps: it takes a twentieth of a processor at most. */
TEST_P(Lane, WaitingCostsNextToNothing)
{
    using HostFunc = void (*)(void *);
    const auto host_func = reinterpret_cast<int (*)(void *, HostFunc, void *)>(dlsym(RTLD_DEFAULT, "cudaLaunchHostFunc"));
    if (!on_device || host_func == nullptr) return;
    double best = 1.0;
    for (int round = 0; round < 3 && best > 0.05; round++) {
        struct timespec cpu[2] = {}, wall[2] = {};
        Pipe p;
        Behaviour b = reverses();
        const auto process = b.process;
        calls = 0;
        b.process = [&](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) -> mill_status {
            mill_replica_device d = MILL_REPLICA_DEVICE_INIT;
            EXPECT_TRUE(mill_replica_device_of(r, &d));
            const int at = calls;
            if (at == 2) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu[1]), clock_gettime(CLOCK_MONOTONIC, &wall[1]);
            if (at < 2) {
                EXPECT_EQ(host_func(
                              d.stream,
                              [](void *) {
                                  const struct timespec nap = {0, 300000000};
                                  nanosleep(&nap, nullptr);
                              },
                              nullptr),
                          0);
            }
            const mill_status st = process(r, in, n, out, e);
            if (at == 1) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu[0]), clock_gettime(CLOCK_MONOTONIC, &wall[0]);
            return st;
        };
        p.source("rows", 64, 16);
        p.add("reverse", MILL_STEP, {{"rows"}}, b, gpu(16));
        p.sink("out", "reverse");
        ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
        expect_reversed(p, 64, 16);
        const auto seconds = [](const struct timespec *t) {
            return static_cast<double>(t[1].tv_sec - t[0].tv_sec) + static_cast<double>(t[1].tv_nsec - t[0].tv_nsec) / 1e9;
        };
        ASSERT_GT(seconds(wall), 0.1) << "two batches were under way, and the third waited for the first";
        best = std::min(best, seconds(cpu) / seconds(wall));
    }
    EXPECT_LE(best, 0.05) << "of a processor";
    std::printf("%.4f of a processor while two batches are under way\n", best);
}

/* A replica's threads run where the plan puts its GPU, and nobody else's are touched. */
TEST_P(Lane, ThreadsAreNearTheDevice)
{
    if (!on_device) return; /* on the host nobody is bound */
    cpu_set_t before;
    ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    std::vector<int> allowed;
    for (int c = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, &before)) allowed.push_back(c);
    std::string why;
    const int gpus = std::min(2, devices_of(backend("cuda", &why))); /* one: both replicas have it */
    const auto check = [&](const mill_replica *r) { /* replica i has GPU i, at the node of the i-th processor */
        cpu_set_t now;
        EXPECT_EQ(sched_getaffinity(0, sizeof now, &now), 0);
        EXPECT_EQ(CPU_COUNT(&now), 1);
        EXPECT_TRUE(CPU_ISSET(allowed[static_cast<size_t>(mill_replica_index(r) % gpus) % allowed.size()], &now));
    };
    Pipe p;
    Behaviour b = reverses(), elsewhere;
    const auto process = b.process;
    const auto load = b.load;
    b.load = [&](mill_replica *r, mill_error *e) {
        check(r);
        return load(r, e);
    };
    b.process = [&](mill_replica *r, mill_batch *const *in, size_t n, mill_emit *out, mill_error *e) {
        check(r);
        return process(r, in, n, out, e);
    };
    elsewhere.uses = {{"x", "int64"}};
    elsewhere.process = [&](mill_replica *, mill_batch *const *, size_t, mill_emit *out, mill_error *e) {
        cpu_set_t now;
        EXPECT_EQ(sched_getaffinity(0, sizeof now, &now), 0);
        EXPECT_TRUE(CPU_EQUAL(&now, &before));
        return mill_emit_pass(out, e);
    };
    p.source("rows", 600, 50);
    p.add("elsewhere", MILL_STEP, {{"rows"}}, elsewhere);
    p.add("reverse", MILL_STEP, {{"elsewhere"}}, b, gpu(50, 2));
    p.sink("out", "reverse");
    p.adjust = [&](stm_plan *plan) {
        mill_error err = {};
        stm_place_step steps[4] = {};
        ASSERT_EQ(stm_topology_create("a test", &plan->topology, &err), MILL_OK) << err.msg;
        for (int i = 0; i < gpus; i++) {
            stm_topology_node node = {};
            stm_topology_gpu device = {};
            node.os_index = i;
            stm_cpus_add(&node.cpus, allowed[static_cast<size_t>(i) % allowed.size()]);
            device.node = i;
            device.pci_switch = device.part_of = device.instance[0] = device.instance[1] = -1;
            device.memory = (int64_t)1 << 30;
            device.cpus = node.cpus;
            ASSERT_EQ(stm_topology_add_node(plan->topology, &node, &err), MILL_OK) << err.msg;
            ASSERT_EQ(stm_topology_add_gpu(plan->topology, &device, &err), MILL_OK) << err.msg;
        }
        ASSERT_EQ(stm_topology_close(plan->topology, &err), MILL_OK) << err.msg;
        const int32_t in_turn[] = {0, gpus - 1};
        for (int i = 0; i < 4; i++) steps[i].name = plan->steps[i].step->name, steps[i].replicas = steps[i].cpus = 1;
        steps[2].replicas = 2, steps[2].gpus = 1, steps[2].devices = in_turn, steps[2].n_devices = 2, steps[2].share = gpus < 2;
        stm_place_problem problem = {};
        problem.topology = plan->topology, problem.steps = steps, problem.n_steps = 4;
        int32_t fault = -1;
        ASSERT_EQ(stm_placement_make(&problem, &plan->placement, &fault, &err), MILL_OK) << err.msg;
    };
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    expect_reversed(p, 600, 50);
    if (on_device) {
        EXPECT_EQ(ordinals, (std::set<int>{0, gpus - 1})) << "as planned";
    }
    cpu_set_t after;
    ASSERT_EQ(sched_getaffinity(0, sizeof after, &after), 0);
    EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

/* The steady state, counted by the simulator: nothing is allocated, created or waited for, nothing is copied between two steps on
 * one device, and what a stream made of a batch is waited for once, however many columns it is. (10,000 batches in one order, fewer
 * in the others.) */
TEST_P(Lane, TheSteadyStateIsCounted)
{
    const auto calls_of = reinterpret_cast<long (*)(const char *)>(dlsym(RTLD_DEFAULT, "stm_sim_calls"));
    const auto copied = reinterpret_cast<void (*)(const char *, long *, long long *)>(dlsym(RTLD_DEFAULT, "stm_sim_copied"));
    const auto waits_again = reinterpret_cast<long (*)()>(dlsym(RTLD_DEFAULT, "stm_sim_waits_again"));
    const bool all = does_all();
    const int64_t batches = all ? 10300 : 800, warm = 100, size = 8;
    /* By the names that the simulator counts them under: a wrong one would count nothing, so those that opening devices calls must
     * have been seen. */
    static const char *const once[] = {"cudaMalloc", "cudaHostAlloc", "cudaEventCreate", "cudaStreamCreate"};
    static const char *const never[] = {
        "cudaMalloc*",           "cudaHostAlloc",    "cudaFreeHost",         "cudaFree",          "cudaFreeAsync",
        "cudaEventCreate",       "cudaEventDestroy", "cudaStreamCreate",     "cudaStreamDestroy", "cudaDeviceSynchronize",
        "cudaStreamSynchronize", "cudaMemPool*",     "cudaEventSynchronize", "cudaMemcpy",        "cudaMemset"};
    if (!on_device || calls_of == nullptr) return;
    std::map<std::string, long> before;
    const auto copies = [copied](const char *way) {
        long n = 0;
        long long bytes = 0;
        copied(way, &n, &bytes);
        return n;
    };
    std::atomic<int64_t> seen{0};
    long up = 0, down = 0, waits = 0, records = 0;
    int64_t from = 0, to = 0;
    Pipe p;
    p.source("rows", batches * size, size);
    Behaviour again = reverses_again([&](mill_batch *const *, mill_error *) -> mill_status {
        const int64_t at = seen++;
        if (at == warm || at == batches - 200) {
            const long sign = at == warm ? -1 : 1;
            for (const char *api : never) before[api] += sign * calls_of(api);
            before["d2d"] += sign * copies("d2d"), before["p2p"] += sign * copies("p2p");
            before["waits for what was waited for"] += sign * waits_again();
            up += sign * copies("h2d"), down += sign * copies("d2h");
            waits += sign * calls_of("cudaStreamWaitEvent"), records += sign * calls_of("cudaEventRecord");
            (at == warm ? from : to) = at;
        }
        return MILL_OK;
    });
    again.uses.push_back({"y2", "int64"}); /* two columns of each batch of the first step, of which there is one record */
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses(nullptr, {"y2"}), gpu(size));
    p.add("again", MILL_STEP, {{"reverse"}}, again, gpu(size));
    p.sink("out", "again");
    ASSERT_EQ(p.run(100), STM_END_DONE) << p.error.msg;
    expect_reversed(p, batches * size, size);
    p.destroy();
    for (const char *api : once) EXPECT_GT(calls_of(api), 0) << api << " is counted under another name";
    for (const auto &c : before) EXPECT_EQ(c.second, 0) << c.first << " in the steady state";
    const long n = static_cast<long>(to - from), slack = 16 * 3; /* batches on their way between the two steps */
    EXPECT_EQ(uploads, batches);
    EXPECT_EQ(landings, 3 * batches);
    EXPECT_LE(std::abs(up - n), slack) << "x alone comes up: nothing that the first step made";
    EXPECT_LE(std::abs(down - 3 * n), 3 * slack);
    EXPECT_LE(waits, 3 * (n + slack)) << "copies up, the first step, the second";
    EXPECT_LE(records, 4 * (n + slack)) << "both steps' streams, copies up, copies down";
    EXPECT_GE(records, 4 * (n - slack));
    std::printf("%ld batches: %ld waits, %ld records, %ld copies up, %ld down\n", n, waits, records, up, down);
}

/* An event that cannot be recorded behind a batch's copies to the host: its columns have landed, but nobody may look at them before
 * they are there, also when the step failed for it and the batch goes on with nulls. */
TEST_P(Lane, WhatHasLandedIsWaitedForWhenTheCallFails)
{
    const auto fault = reinterpret_cast<void (*)(const char *, long, int, int)>(dlsym(RTLD_DEFAULT, "stm_sim_fault"));
    const auto clear = reinterpret_cast<void (*)()>(dlsym(RTLD_DEFAULT, "stm_sim_fault_clear"));
    const auto fired = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "stm_sim_fault_fired"));
    const auto finding = reinterpret_cast<const char *(*)()>(dlsym(RTLD_DEFAULT, "stm_sim_take_finding"));
    if (!on_device || fault == nullptr) return;
    int imputed = 0;
    for (long k = 1;; k++) {
        Pipe p;
        calls = 0;
        p.source("rows", 64, 16);
        p.add("reverse", MILL_STEP, {{"rows"}}, reverses(), gpu(16));
        p.add("again", MILL_STEP, {{"reverse"}}, reverses_again(), gpu(16));
        p.sink("out", "again");
        fault("cudaEventRecord", k, 1, 0);
        EXPECT_EQ(p.run(60), STM_END_DONE) << k << ": " << p.error.msg;
        const bool struck = fired() != 0;
        clear();
        p.destroy();
        ASSERT_STREQ(finding(), "") << "when record " << k << " fails";
        ASSERT_EQ(p.rows("out").size(), 64u);
        for (int64_t i = 0; i < 64; i++) {
            const auto &row = p.rows("out")[static_cast<size_t>(i)].values;
            const int64_t y = i / 16 * 16 + 15 - i % 16;
            ASSERT_EQ(row.at("x"), i) << k;
            ASSERT_TRUE(row.at("y") == y || row.at("y") == INT64_MIN)
                << "row " << i << " has " << row.at("y") << " when record " << k << " fails";
            ASSERT_TRUE(row.at("z") == i || row.at("z") == INT64_MIN)
                << "row " << i << " has " << row.at("z") << " when record " << k << " fails";
        }
        imputed += !p.errors.empty();
        if (!struck) break;
        ASSERT_LT(k, 500);
    }
    EXPECT_GT(imputed, 0);
}

/* Every device call of a small run of two steps fails once: the right rows, or nulls with a record, or a failed run with a cause;
 * no leak, no hang. All calls in one order, every seventh in the others. */
TEST_P(Lane, EveryDeviceCallFailsOnce)
{
    if (!on_device) return; /* then there are none: test_fault_run fails the rest */
    const auto findings = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "stm_sim_findings"));
    const bool all = does_all();
    const long before = live();
    int done = 0, imputed = 0, failed = 0;
    for (int nth = 0;; nth += all ? 1 : 7) {
        bool fired;
        {
            Pipe p;
            calls = 0;
            p.source("rows", 64, 16);
            p.add("reverse", MILL_STEP, {{"rows"}}, reverses(), gpu(16));
            p.add("again", MILL_STEP, {{"reverse"}}, reverses_again(), gpu(8));
            p.sink("out", "again");
            FailNth fail(nth, STM_FAULT_DEVICE);
            const stm_run_end end = p.run(60);
            fired = fail.fired();
            if (end == STM_END_DONE && p.errors.empty()) {
                done++;
                expect_reversed(p, 64, 16);
            } else if (end == STM_END_DONE) {
                imputed++;
                EXPECT_EQ(p.rows("out").size(), 64u);
                EXPECT_STRNE(p.errors[0].error.msg, "");
            } else {
                failed++;
                EXPECT_STRNE(p.error.msg, "") << nth;
            }
            p.destroy();
        }
        EXPECT_EQ(live_replicas, 0) << nth;
        EXPECT_EQ(live(), before) << "leak when device call " << nth << " fails";
        if (findings != nullptr) {
            ASSERT_EQ(findings(), 0) << "when device call " << nth << " fails";
        }
        if (!fired) break;
        ASSERT_LT(nth, 3000);
    }
    EXPECT_GT(imputed, all ? 3 : 0);
    EXPECT_GT(failed, all ? 10 : 1);
    std::printf("%d runs done, %d with nulls, %d failed\n", done, imputed, failed);
}

/* The same for what the driver says, at every k-th of its calls: out of memory where it allocates, an error that leaves the device
 * well, one that does not, and work that kills the device as it runs. */
TEST_P(Lane, EveryKthCallOfTheDriverFails)
{
    const auto fault = reinterpret_cast<void (*)(const char *, long, int, int)>(dlsym(RTLD_DEFAULT, "stm_sim_fault"));
    const auto clear = reinterpret_cast<void (*)()>(dlsym(RTLD_DEFAULT, "stm_sim_fault_clear"));
    const auto fired = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "stm_sim_fault_fired"));
    const auto revive = reinterpret_cast<void (*)()>(dlsym(RTLD_DEFAULT, "stm_sim_revive"));
    const auto alive = reinterpret_cast<int (*)(const char *)>(dlsym(RTLD_DEFAULT, "stm_sim_live"));
    const auto findings = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "stm_sim_findings"));
    if (!on_device || fault == nullptr) return;
    const int stride = does_every_case() ? 1 : does_all() ? 3 : 29;
    const struct {
        const char *api;
        int code, async; /* as the driver counts: 1 invalid value, 700 illegal address */
    } kinds[] = {{"cuda*", 1, 0}, {"cuda*", 700, 0}, {"kernel", 700, 1}, {"copy", 700, 1}};
    const long before = live();
    int ends[3] = {};
    for (const auto &kind : kinds)
        for (long k = 2;; k += kind.async ? 1 : stride) { /* the first one counts devices: then the host does it */
            bool struck;
            {
                Pipe p;
                calls = 0;
                p.source("rows", 64, 16);
                p.add("reverse", MILL_STEP, {{"rows"}}, reverses(), gpu(16));
                p.add("again", MILL_STEP, {{"reverse"}}, reverses_again(), gpu(8));
                p.sink("out", "again");
                fault(kind.api, k, kind.code, kind.async);
                const stm_run_end end = p.run(60);
                p.destroy();
                struck = fired() != 0;
                clear();
                if (end == STM_END_DONE) {
                    EXPECT_EQ(p.rows("out").size(), 64u) << kind.api << " " << k;
                    if (p.errors.empty()) expect_reversed(p, 64, 16);
                } else {
                    EXPECT_TRUE(end == STM_END_FAILED || end == STM_END_LOAD_FAILED) << end;
                    EXPECT_STRNE(p.error.msg, "") << kind.api << " " << k;
                }
                ends[end != STM_END_DONE ? 2 : p.errors.empty() ? 0 : 1]++;
            }
            revive();
            EXPECT_EQ(live_replicas, 0) << kind.api << " " << k;
            EXPECT_EQ(live(), before) << "leak when " << kind.api << " fails at " << k;
            EXPECT_EQ(alive("*"), 0) << "left on the device when " << kind.api << " fails at " << k;
            ASSERT_EQ(findings(), 0) << kind.api << " " << kind.code << " at " << k;
            if (!struck) break;
            ASSERT_LT(k, 3000);
        }
    EXPECT_GT(ends[2], 4);
    std::printf("%d runs done, %d with nulls, %d failed\n", ends[0], ends[1], ends[2]);
}

INSTANTIATE_TEST_SUITE_P(Backends, Lane, ::testing::Values(mt::suite_for()), [](const auto &i) { return std::string(i.param); });
