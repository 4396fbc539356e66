// What machine the environment makes. It is read once a process, so each case runs in a child; this one calls nothing.
#include <cstdlib>
#include <cuda_runtime_api.h>
#include <functional>
#include <gtest/gtest.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

using Env = std::vector<std::pair<const char *, const char *>>;

static int in_child(const Env &env, const std::function<int()> &body)
{
    const pid_t child = fork();
    if (child == 0) {
        for (const auto &e : env) setenv(e.first, e.second, 1);
        _exit(body());
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int count()
{
    int n = -1;
    return cudaGetDeviceCount(&n) == cudaSuccess ? n : 100 + n;
}
// PCI bus of each visible device as digits, so 2 4 = bus 2, then bus 4.
static int buses()
{
    int n = 0, all = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess) return 200;
    for (int i = 0; i < n; i++) {
        char text[32];
        if (cudaDeviceGetPCIBusId(text, sizeof text, i) != cudaSuccess) return 201;
        all = all * 10 + static_cast<int>(strtol(text + 5, nullptr, 16));
    }
    return all;
}

TEST(SimMachine, VisibleDevices)
{
    const struct {
        const char *what, *visible;
        int buses;
    } cases[] = {
        {"any order", "3,1", 42},
        {"one", "2", 3},
        {"none", "", 200},
        {"the first bad entry ends the list", "1,9,0", 2},
        {"a repeated one hides all", "1,1,0", 200},
        {"but not behind the end", "1,9,1", 2},
        {"by the start of a UUID", "GPU-52,0", 31},
        {"a UUID that nobody has", "GPU-99", 200},
    };
    for (const auto &c : cases) EXPECT_EQ(in_child({{"CUDA_VISIBLE_DEVICES", c.visible}}, buses), c.buses) << c.what;
    EXPECT_EQ(in_child({{"STM_SIM_DEVICES", "2"}}, count), 2);
}

TEST(SimMachine, NoDeviceAndNoDriver)
{
    EXPECT_EQ(in_child({{"STM_SIM_DEVICES", "0"}}, [] { int n; return static_cast<int>(cudaGetDeviceCount(&n)); }),
              cudaErrorNoDevice);
    EXPECT_EQ(in_child({{"STM_SIM_DRIVER", "none"}}, [] { int n; return static_cast<int>(cudaGetDeviceCount(&n)); }),
              cudaErrorInsufficientDriver);
    EXPECT_EQ(in_child({{"STM_SIM_DRIVER", "none"}}, [] { void *p; return static_cast<int>(cudaMalloc(&p, 8)); }),
              cudaErrorInsufficientDriver);
}

TEST(SimMachine, AForkOfAProcessThatUsedTheDriver)
{
    const auto first_call = [] { int n; return static_cast<int>(cudaGetDeviceCount(&n)); };
    EXPECT_EQ(in_child({}, [&] { return in_child({}, first_call); }), cudaSuccess) << "nobody had called anything";
    EXPECT_EQ(in_child({}, [&] { return first_call() != cudaSuccess ? 255 : in_child({}, first_call); }),
              cudaErrorInitializationError);
}

TEST(SimMachine, MemoryPeersAndCapability)
{
    EXPECT_EQ(in_child({{"STM_SIM_MB", "16"}},
                       [] {
                           void *p;
                           return static_cast<int>(cudaMalloc(&p, (16u << 20) + 1));
                       }),
              cudaErrorMemoryAllocation);
    EXPECT_EQ(in_child({{"STM_SIM_PEERS", "none"}},
                       [] {
                           int can = 1;
                           cudaDeviceCanAccessPeer(&can, 0, 1);
                           return can ? 1 : static_cast<int>(cudaDeviceEnablePeerAccess(1, 0));
                       }),
              cudaErrorPeerAccessUnsupported & 255);
    EXPECT_EQ(in_child({{"STM_SIM_CC", "80"}},
                       [] {
                           cudaDeviceProp p;
                           return cudaGetDeviceProperties(&p, 0) == cudaSuccess ? p.major * 10 + p.minor : 255;
                       }),
              80);
}
