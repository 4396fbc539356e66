// The simulated NCCL: each collective on 1, 2 and 4 ranks against sums made here, from one thread in groups, from a thread a rank,
// blocking and not; then what happens when something fails.
#include "device_vec.h"
#include "nccl/stm_sim_nccl.h"
#include "stm_sim.h"
#include <cstring>
#include <memory>
#include <nccl.h>
#include <thread>

#define NCCL_OK(call) ASSERT_EQ((call), ncclSuccess) << #call

namespace {

// n ranks of this process with a stream each.
struct Ranks {
    std::vector<ncclComm_t> comms;
    std::vector<std::unique_ptr<Stream>> streams;
    explicit Ranks(int n) : comms(static_cast<size_t>(n))
    {
        EXPECT_EQ(ncclCommInitAll(comms.data(), n, nullptr), ncclSuccess);
        open_streams(n);
    }
    explicit Ranks(std::vector<ncclComm_t> made) : comms(std::move(made)) { open_streams(static_cast<int>(comms.size())); }
    void open_streams(int n)
    {
        for (int i = 0; i < n; i++) {
            CUDA_EXPECT(cudaSetDevice(i));
            streams.push_back(std::make_unique<Stream>());
        }
        CUDA_EXPECT(cudaSetDevice(0));
    }
    void wait()
    {
        for (auto &s : streams) s->wait();
    }
    void abort()
    {
        for (ncclComm_t &c : comms) EXPECT_EQ(ncclCommAbort(c), ncclSuccess);
        comms.clear();
    }
    ~Ranks()
    {
        for (ncclComm_t c : comms) EXPECT_EQ(ncclCommDestroy(c), ncclSuccess);
    }
    int n() const { return static_cast<int>(streams.size()); }
};

// A buffer a rank, with known contents.
struct Buffers {
    std::vector<std::unique_ptr<DeviceVec<float>>> at;
    Buffers(int n, size_t count, bool filled)
    {
        for (int r = 0; r < n; r++) {
            CUDA_EXPECT(cudaSetDevice(r));
            std::vector<float> v(count);
            for (size_t i = 0; i < count; i++) v[i] = filled ? value(r, i) : -1.0f;
            at.push_back(std::make_unique<DeviceVec<float>>(v));
        }
        CUDA_EXPECT(cudaSetDevice(0));
    }
    static float value(int rank, size_t i) { return static_cast<float>(i % 97) + 100.0f * static_cast<float>(rank); }
    float *operator[](int r) { return *at[static_cast<size_t>(r)]; }
    std::vector<float> read(int r) { return at[static_cast<size_t>(r)]->download(); }
};

float sum_at(int n, size_t i)
{
    float s = 0;
    for (int r = 0; r < n; r++) s += Buffers::value(r, i);
    return s;
}

std::vector<ncclComm_t> init_late(int n, ncclResult_t *first)
{
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    std::vector<ncclComm_t> comms(static_cast<size_t>(n));
    EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess);
    EXPECT_EQ(ncclGroupStart(), ncclSuccess);
    for (int r = 0; r < n; r++) {
        CUDA_EXPECT(cudaSetDevice(r));
        const ncclResult_t e = ncclCommInitRankConfig(&comms[static_cast<size_t>(r)], n, id, r, &config);
        EXPECT_TRUE(e == ncclSuccess || e == ncclInProgress);
    }
    *first = ncclGroupEnd();
    CUDA_EXPECT(cudaSetDevice(0));
    return comms;
}
ncclResult_t poll(ncclComm_t c)
{
    ncclResult_t e = ncclInProgress;
    for (int i = 0; i < 1000 && e == ncclInProgress; i++) EXPECT_EQ(ncclCommGetAsyncError(c, &e), ncclSuccess);
    return e;
}

class SimNccl : public testing::TestWithParam<int> {};

} // namespace

TEST_P(SimNccl, AllReduceInAndOutOfPlace)
{
    const int n = GetParam();
    const size_t count = 1000;
    Ranks ranks(n);
    Buffers in(n, count, true), out(n, count, false);
    NCCL_OK(ncclGroupStart());
    for (int r = 0; r < n; r++)
        NCCL_OK(ncclAllReduce(in[r], out[r], count, ncclFloat32, ncclSum, ranks.comms[static_cast<size_t>(r)],
                              *ranks.streams[static_cast<size_t>(r)]));
    NCCL_OK(ncclGroupEnd());
    NCCL_OK(ncclGroupStart());
    for (int r = 0; r < n; r++)
        NCCL_OK(ncclAllReduce(in[r], in[r], count, ncclFloat32, ncclMax, ranks.comms[static_cast<size_t>(r)],
                              *ranks.streams[static_cast<size_t>(r)]));
    NCCL_OK(ncclGroupEnd());
    ranks.wait();
    for (int r = 0; r < n; r++) {
        const auto sums = out.read(r), most = in.read(r);
        for (size_t i = 0; i < count; i++) {
            ASSERT_EQ(sums[i], sum_at(n, i)) << r << " " << i;
            ASSERT_EQ(most[i], Buffers::value(n - 1, i));
        }
    }
}

TEST_P(SimNccl, TheOtherCollectives)
{
    const int n = GetParam();
    const size_t count = 128, all = count * static_cast<size_t>(n);
    Ranks ranks(n);
    Buffers in(n, all, true), cast(n, all, false), red(n, all, false), gathered(n, all, false), scattered(n, count, false);
    const int root = n - 1;
    NCCL_OK(ncclGroupStart());
    for (int r = 0; r < n; r++) {
        const ncclComm_t c = ranks.comms[static_cast<size_t>(r)];
        const cudaStream_t s = *ranks.streams[static_cast<size_t>(r)];
        NCCL_OK(ncclBroadcast(in[r], cast[r], all, ncclFloat32, root, c, s));
        NCCL_OK(ncclReduce(in[r], red[r], all, ncclFloat32, ncclSum, root, c, s));
        NCCL_OK(ncclAllGather(in[r], gathered[r], count, ncclFloat32, c, s));
        NCCL_OK(ncclReduceScatter(in[r], scattered[r], count, ncclFloat32, ncclSum, c, s));
    }
    NCCL_OK(ncclGroupEnd());
    ranks.wait();
    for (int r = 0; r < n; r++) {
        const auto a = cast.read(r), b = red.read(r), c = gathered.read(r), d = scattered.read(r);
        for (size_t i = 0; i < all; i++) {
            ASSERT_EQ(a[i], Buffers::value(root, i));
            ASSERT_EQ(b[i], r == root ? sum_at(n, i) : -1.0f);
            ASSERT_EQ(c[i], Buffers::value(static_cast<int>(i / count), i % count));
        }
        for (size_t i = 0; i < count; i++) ASSERT_EQ(d[i], sum_at(n, static_cast<size_t>(r) * count + i));
    }
}

TEST_P(SimNccl, RingOfSendsAndReceives)
{
    const int n = GetParam();
    const size_t count = 300;
    long operations = 0, before_operations = 0;
    long long bytes = 0, before = 0;
    stm_sim_nccl_moved(&before_operations, &before);
    Ranks ranks(n);
    Buffers in(n, count, true), out(n, count, false);
    for (int turn = 0; turn < 3; turn++) {
        NCCL_OK(ncclGroupStart());
        for (int r = 0; r < n; r++) {
            NCCL_OK(ncclSend(in[r], count, ncclFloat32, (r + 1) % n, ranks.comms[static_cast<size_t>(r)],
                             *ranks.streams[static_cast<size_t>(r)]));
            NCCL_OK(ncclRecv(out[r], count, ncclFloat32, (r + n - 1) % n, ranks.comms[static_cast<size_t>(r)],
                             *ranks.streams[static_cast<size_t>(r)]));
        }
        NCCL_OK(ncclGroupEnd());
    }
    ranks.wait();
    for (int r = 0; r < n; r++) {
        const auto v = out.read(r);
        for (size_t i = 0; i < count; i++) ASSERT_EQ(v[i], Buffers::value((r + n - 1) % n, i));
    }
    stm_sim_nccl_moved(&operations, &bytes);
    EXPECT_EQ(operations - before_operations, 3L * n);
    EXPECT_EQ(bytes - before, 3LL * n * static_cast<long long>(count) * 4);
}

TEST_P(SimNccl, AThreadARank)
{
    const int n = GetParam();
    const size_t count = 64;
    ncclUniqueId id;
    NCCL_OK(ncclGetUniqueId(&id));
    Buffers in(n, count, true);
    std::vector<std::thread> threads;
    for (int r = 0; r < n; r++)
        threads.emplace_back([&, r] {
            ncclComm_t c = nullptr;
            CUDA_EXPECT(cudaSetDevice(r));
            EXPECT_EQ(ncclCommInitRank(&c, n, id, r), ncclSuccess);
            {
                Stream s;
                for (int turn = 0; turn < 3; turn++)
                    EXPECT_EQ(ncclAllReduce(in[r], in[r], count, ncclFloat32, ncclAvg, c, s), ncclSuccess);
                s.wait();
            }
            EXPECT_EQ(ncclCommDestroy(c), ncclSuccess);
        });
    for (auto &t : threads) t.join();
    for (int r = 0; r < n; r++) EXPECT_EQ(in.read(r)[5], sum_at(n, 5) / static_cast<float>(n));
}

TEST_P(SimNccl, NothingBlocksWhereThatIsAsked)
{
    const int n = GetParam();
    const size_t count = 64;
    ncclResult_t first;
    std::vector<ncclComm_t> comms = init_late(n, &first);
    EXPECT_EQ(first, ncclInProgress);
    for (ncclComm_t c : comms) EXPECT_EQ(poll(c), ncclSuccess);
    {
        Ranks ranks(comms);
        Buffers in(n, count, true);
        NCCL_OK(ncclGroupStart());
        for (int r = 0; r < n; r++)
            NCCL_OK(ncclAllReduce(in[r], in[r], count, ncclFloat32, ncclSum, comms[static_cast<size_t>(r)],
                                  *ranks.streams[static_cast<size_t>(r)]));
        EXPECT_EQ(ncclGroupEnd(), ncclInProgress);
        for (ncclComm_t c : comms) EXPECT_EQ(poll(c), ncclSuccess);
        ranks.wait();
        for (int r = 0; r < n; r++) EXPECT_EQ(in.read(r)[7], sum_at(n, 7));
        for (ncclComm_t c : comms) EXPECT_EQ(ncclCommFinalize(c), ncclInProgress);
        for (ncclComm_t c : comms) EXPECT_EQ(poll(c), ncclSuccess);
    }
    EXPECT_EQ(stm_sim_findings(), 0);
}
INSTANTIATE_TEST_SUITE_P(Ranks, SimNccl, testing::Values(1, 2, 4));

TEST(SimNcclSplit, ByColourAndKey)
{
    Ranks all(4);
    std::vector<ncclComm_t> parts(4);
    NCCL_OK(ncclGroupStart());
    for (int r = 0; r < 4; r++)
        NCCL_OK(ncclCommSplit(all.comms[static_cast<size_t>(r)], r % 2, -r, &parts[static_cast<size_t>(r)], nullptr));
    NCCL_OK(ncclGroupEnd());
    for (int r = 0; r < 4; r++) {
        int rank = -1, n = 0;
        NCCL_OK(ncclCommUserRank(parts[static_cast<size_t>(r)], &rank));
        NCCL_OK(ncclCommCount(parts[static_cast<size_t>(r)], &n));
        EXPECT_EQ(n, 2);
        EXPECT_EQ(rank, r < 2 ? 1 : 0) << "the higher rank has the lower key";
        NCCL_OK(ncclCommDestroy(parts[static_cast<size_t>(r)]));
    }
}

TEST(SimNcclFaults, ACallFails)
{
    Ranks ranks(2);
    Buffers in(2, 8, true);
    stm_sim_fault("ncclAllReduce", 2, ncclSystemError, 0);
    NCCL_OK(ncclGroupStart());
    EXPECT_EQ(ncclAllReduce(in[0], in[0], 8, ncclFloat32, ncclSum, ranks.comms[0], *ranks.streams[0]), ncclSuccess);
    EXPECT_EQ(ncclAllReduce(in[1], in[1], 8, ncclFloat32, ncclSum, ranks.comms[1], *ranks.streams[1]), ncclSystemError);
    EXPECT_EQ(ncclGroupEnd(), ncclSystemError);
    stm_sim_fault_clear();
    ranks.wait();
    EXPECT_EQ(in.read(0)[1], Buffers::value(0, 1)) << "nothing of the group was queued";
    ranks.abort(); // the ranks do not count alike any more
}

TEST(SimNcclFaults, AnAsynchronousErrorIsToldToAllAndEndedByAbort)
{
    Ranks ranks(2);
    Buffers in(2, 8, true);
    stm_sim_fault("nccl", 1, ncclSystemError, 1);
    NCCL_OK(ncclGroupStart());
    for (int r = 0; r < 2; r++)
        NCCL_OK(ncclAllReduce(in[r], in[r], 8, ncclFloat32, ncclSum, ranks.comms[static_cast<size_t>(r)],
                              *ranks.streams[static_cast<size_t>(r)]));
    NCCL_OK(ncclGroupEnd());
    int remote = 0, own = 0;
    for (int r = 0; r < 2; r++) {
        ncclResult_t e = ncclSuccess;
        for (int i = 0; i < 2000 && e == ncclSuccess; i++) {
            NCCL_OK(ncclCommGetAsyncError(ranks.comms[static_cast<size_t>(r)], &e));
            (void)cudaStreamQuery(*ranks.streams[static_cast<size_t>(r)]);
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        remote += e == ncclRemoteError;
        own += e == ncclSystemError;
    }
    EXPECT_EQ(remote, 1);
    EXPECT_EQ(own, 1);
    EXPECT_EQ(cudaStreamQuery(*ranks.streams[0]), cudaErrorNotReady) << "what failed stays until the abort";
    stm_sim_fault_clear();
    ranks.abort();
    ranks.wait();
    EXPECT_NE(in.read(0)[1], Buffers::value(0, 1)) << "poisoned";
}

TEST(SimNcclFaults, TwoRanksOnOneDeviceAreRefused)
{
    const int devices[] = {1, 1};
    ncclComm_t comms[2];
    EXPECT_EQ(ncclCommInitAll(comms, 2, devices), ncclInvalidUsage);
}
