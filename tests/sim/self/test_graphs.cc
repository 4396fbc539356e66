// Capture, instances, updates: the positive side; what is refused is in test_bad.cc.
#include "device_vec.h"
#include "good.h"
#include "stm_sim.h"
#include <functional>

static cudaGraph_t capture(cudaStream_t s, const std::function<void()> &work)
{
    cudaGraph_t g = nullptr;
    CUDA_EXPECT(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    cudaStreamCaptureStatus status;
    CUDA_EXPECT(cudaStreamIsCapturing(s, &status));
    EXPECT_EQ(status, cudaStreamCaptureStatusActive);
    work();
    CUDA_EXPECT(cudaStreamEndCapture(s, &g));
    return g;
}
static cudaGraphExec_t instance(cudaGraph_t g)
{
    cudaGraphExec_t x = nullptr;
    CUDA_EXPECT(cudaGraphInstantiate(&x, g, 0));
    return x;
}

TEST(SimGraphs, NothingRunsAtCaptureEverythingAtEachLaunch)
{
    const int n = 256;
    Stream s;
    DeviceVec<float> a(std::vector<float>(n, 1.0f)), b(std::vector<float>(n, 0.0f));
    const long before = stm_sim_kernels(0);
    cudaGraph_t g = capture(s, [&] { CUDA_EXPECT(good_add(a, b, b, n, s)); });
    s.wait();
    EXPECT_EQ(stm_sim_kernels(0), before);
    cudaGraphExec_t x = instance(g);
    CUDA_OK(cudaGraphDestroy(g)); // the instance has its own copy
    for (int i = 0; i < 5; i++) CUDA_OK(cudaGraphLaunch(x, s));
    s.wait();
    EXPECT_EQ(b.download(), std::vector<float>(n, 5.0f));
    EXPECT_EQ(stm_sim_kernels(0), before + 5);
    CUDA_OK(cudaGraphExecDestroy(x));
}

TEST(SimGraphs, AForkedStreamIsPartOfIt)
{
    const int n = 64;
    Stream s, side;
    cudaEvent_t fork, join;
    CUDA_OK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    CUDA_OK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    DeviceVec<float> a(std::vector<float>(n, 1.0f)), b(n), c(n), d(n);
    cudaGraph_t g = capture(s, [&] {
        CUDA_EXPECT(cudaEventRecord(fork, s));
        CUDA_EXPECT(cudaStreamWaitEvent(side, fork, 0));
        CUDA_EXPECT(good_add(a, a, b, n, side)); // both read a
        CUDA_EXPECT(good_add(a, a, c, n, s));
        CUDA_EXPECT(cudaEventRecord(join, side));
        CUDA_EXPECT(cudaStreamWaitEvent(s, join, 0));
        CUDA_EXPECT(good_add(b, c, d, n, s));
        EXPECT_EQ(cudaEventQuery(join), cudaErrorCapturedEvent);
    });
    size_t nodes = 0;
    CUDA_OK(cudaGraphGetNodes(g, nullptr, &nodes));
    EXPECT_EQ(nodes, 3u);
    cudaGraphExec_t x = instance(g);
    CUDA_OK(cudaGraphLaunch(x, s));
    s.wait();
    EXPECT_EQ(d.download(), std::vector<float>(n, 4.0f));
    CUDA_OK(cudaGraphExecDestroy(x));
    CUDA_OK(cudaGraphDestroy(g));
    CUDA_OK(cudaEventDestroy(fork));
    CUDA_OK(cudaEventDestroy(join));
    EXPECT_EQ(stm_sim_findings(), 0);
}

TEST(SimGraphs, AnUpdateChangesArgumentsNotTheShape)
{
    const int n = 32;
    Stream s;
    DeviceVec<float> one(std::vector<float>(n, 1.0f)), two(std::vector<float>(n, 2.0f)), out(n);
    cudaGraph_t first = capture(s, [&] { CUDA_EXPECT(good_add(one, one, out, n, s)); });
    cudaGraph_t second = capture(s, [&] { CUDA_EXPECT(good_add(one, two, out, n, s)); });
    cudaGraph_t longer = capture(s, [&] {
        CUDA_EXPECT(good_add(one, two, out, n, s));
        CUDA_EXPECT(good_add(one, two, out, n, s));
    });
    cudaGraph_t other = capture(s, [&] { CUDA_EXPECT(cudaMemsetAsync(out, 0, out.bytes(), s)); });
    cudaGraphExec_t x = instance(first);
    cudaGraphExecUpdateResultInfo info;
    CUDA_OK(cudaGraphLaunch(x, s));
    CUDA_OK(cudaGraphExecUpdate(x, second, &info)); // after the launch above: that one keeps its arguments
    EXPECT_EQ(info.result, cudaGraphExecUpdateSuccess);
    s.wait();
    EXPECT_EQ(out.download(), std::vector<float>(n, 2.0f));
    CUDA_OK(cudaGraphLaunch(x, s));
    s.wait();
    EXPECT_EQ(out.download(), std::vector<float>(n, 3.0f));
    EXPECT_EQ(cudaGraphExecUpdate(x, longer, &info), cudaErrorGraphExecUpdateFailure);
    EXPECT_EQ(info.result, cudaGraphExecUpdateErrorTopologyChanged);
    EXPECT_EQ(cudaGraphExecUpdate(x, other, &info), cudaErrorGraphExecUpdateFailure);
    EXPECT_EQ(info.result, cudaGraphExecUpdateErrorNodeTypeChanged);
    CUDA_OK(cudaGraphExecDestroy(x));
    for (cudaGraph_t g : {first, second, longer, other}) CUDA_OK(cudaGraphDestroy(g));
}

TEST(SimGraphs, ABrokenCaptureEndsClean)
{
    Stream s;
    DeviceVec<float> a(16);
    CUDA_OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    CUDA_OK(cudaMemsetAsync(a, 0, a.bytes(), s));
    EXPECT_EQ(cudaStreamSynchronize(s), cudaErrorStreamCaptureUnsupported);
    EXPECT_EQ(cudaMemsetAsync(a, 0, a.bytes(), s), cudaErrorStreamCaptureInvalidated);
    cudaGraph_t g = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(s, &g), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(g, nullptr);
    CUDA_OK(cudaMemsetAsync(a, 0, a.bytes(), s)); // an ordinary stream again
    s.wait();
    EXPECT_EQ(stm_sim_live("graph"), 0);
    EXPECT_EQ(cudaStreamEndCapture(s, &g), cudaErrorIllegalState);
}

TEST(SimGraphs, LaunchesOfOneInstanceFollowEachOtherOnTwoStreams)
{
    const int n = 64;
    Stream s, t;
    DeviceVec<float> a(std::vector<float>(n, 1.0f)), sum(std::vector<float>(n, 0.0f));
    cudaGraph_t g = capture(s, [&] { CUDA_EXPECT(good_add(a, sum, sum, n, s)); });
    cudaGraphExec_t x = instance(g);
    for (int i = 0; i < 8; i++) CUDA_OK(cudaGraphLaunch(x, i % 2 ? s : t));
    s.wait();
    t.wait();
    EXPECT_EQ(sum.download(), std::vector<float>(n, 8.0f));
    CUDA_OK(cudaGraphExecDestroy(x));
    CUDA_OK(cudaGraphDestroy(g));
    EXPECT_EQ(stm_sim_findings(), 0);
}
