// Devices of the simulated machine, and which of them the process sees.
#include "../stm_sim.h"
#include "state.h"
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <pthread.h>

namespace sim {

static __thread int current;
static __thread cudaError_t last_error;
static __thread bool host_function;

void in_host_function(bool yes) { host_function = yes; }

// A made-up but fixed UUID per place in the machine.
static void uuid_of(int machine_index, unsigned char out[16])
{
    static const unsigned char base[16] = {0x5e, 0xed, 0x00, 0x01, 0x51, 0x6d, 0x40, 0x00,
                                           0x80, 0x00, 0x57, 0xe9, 0x31, 0x11, 0x00, 0x00};
    memcpy(out, base, 16);
    out[0] = static_cast<unsigned char>(0x50 + machine_index); // differs early: prefixes of UUIDs name devices, too
    out[15] = static_cast<unsigned char>(machine_index);
}
static std::string uuid_text(int machine_index)
{
    unsigned char u[16];
    uuid_of(machine_index, u);
    char text[64] = "GPU-";
    size_t n = 4;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) text[n++] = '-';
        n += static_cast<size_t>(snprintf(text + n, sizeof text - n, "%02x", u[i]));
    }
    return text;
}

// CUDA_VISIBLE_DEVICES: positions or UUID prefixes; the first bad entry ends the list, a repeated one hides all.
static std::vector<Device> visible()
{
    std::vector<Device> list;
    const int n = settings().machine_devices;
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    std::vector<int> chosen;
    if (!text) {
        for (int i = 0; i < n; i++) chosen.push_back(i);
    } else {
        std::string rest = text;
        while (!rest.empty()) {
            const size_t comma = rest.find(',');
            std::string entry = rest.substr(0, comma);
            rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
            int at = -1;
            if (entry.rfind("GPU-", 0) == 0) {
                for (int i = 0; i < n; i++)
                    if (uuid_text(i).rfind(entry, 0) == 0) at = at == -1 ? i : -2; // ambiguous: bad
            } else {
                char *end = nullptr;
                const long v = strtol(entry.c_str(), &end, 10);
                if (end != entry.c_str() && v >= 0 && v < n) at = static_cast<int>(v);
            }
            bool repeated = false;
            for (int c : chosen) repeated = repeated || c == at;
            if (repeated) chosen.clear();
            if (at < 0 || repeated) break;
            chosen.push_back(at);
        }
    }
    list.resize(chosen.size());
    for (size_t i = 0; i < chosen.size(); i++) list[i].machine_index = chosen[i];
    return list;
}

std::vector<Device> &devices()
{
    static auto *list = new std::vector<Device>(visible());
    return *list;
}

int current_device() { return current; }
Device &this_device() { return devices()[current]; }

cudaError_t result(cudaError_t e)
{
    if (e != cudaSuccess && e != cudaErrorNotReady) last_error = e;
    return e;
}

cudaError_t sticky_of(int device)
{
    Lock l;
    return devices()[device].sticky;
}

// A driver that a process has used cannot be used by those that it forks.
static std::atomic<bool> used, inherited;
static const int watches_forks = pthread_atfork(nullptr, nullptr, [] { inherited = used.load(); });

// Why no call can do anything here.
static cudaError_t no_use()
{
    used.store(true, std::memory_order_relaxed);
    if (!settings().driver) return cudaErrorInsufficientDriver;
    if (inherited.load(std::memory_order_relaxed) && watches_forks == 0) return cudaErrorInitializationError;
    return devices().empty() ? cudaErrorNoDevice : cudaSuccess;
}

cudaError_t enter(const char *api, cudaError_t usual, Call kind)
{
    if (const cudaError_t why = no_use()) return result(why);
    if (host_function) return result(cudaErrorNotPermitted);
    if (strcmp(api, "cudaLaunchKernel") != 0) forget_declarations(); // of a launch that was given up
    const int injected = fault(api, usual, kind);
    if (injected) return result(static_cast<cudaError_t>(injected));
    return result(sticky_of(current));
}

void kill_device(int device, cudaError_t code, const std::string &why)
{
    Lock l;
    Device &d = devices()[device];
    if (d.sticky == cudaSuccess) {
        d.sticky = code;
        d.why = why;
        if (settings().verbose) fprintf(stderr, "sim: device %d lost: %s\n", device, why.c_str());
    }
    notify();
}

bool device_dead(int device)
{
    Lock l;
    return devices()[device].sticky != cudaSuccess;
}

static bool bad_ordinal(int device) { return device < 0 || static_cast<size_t>(device) >= devices().size(); }

static int attribute(cudaDeviceAttr a, int device, bool *known)
{
    *known = true;
    switch (a) {
    case cudaDevAttrMaxThreadsPerBlock: return 1024;
    case cudaDevAttrMaxBlockDimX: case cudaDevAttrMaxBlockDimY: return 1024;
    case cudaDevAttrMaxBlockDimZ: return 64;
    case cudaDevAttrMaxGridDimX: return 2147483647;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: return 65535;
    case cudaDevAttrMaxSharedMemoryPerBlock: return 48 * 1024;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return 227 * 1024;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return 228 * 1024;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMaxRegistersPerBlock: case cudaDevAttrMaxRegistersPerMultiprocessor: return 65536;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
    case cudaDevAttrMultiProcessorCount: return 4;
    case cudaDevAttrAsyncEngineCount: return 2;
    case cudaDevAttrConcurrentKernels: case cudaDevAttrUnifiedAddressing: case cudaDevAttrCanMapHostMemory: return 1;
    case cudaDevAttrCooperativeLaunch: case cudaDevAttrMemoryPoolsSupported: case cudaDevAttrStreamPrioritiesSupported: return 1;
    case cudaDevAttrCanUseHostPointerForRegisteredMem: case cudaDevAttrHostRegisterSupported: return 1;
    case cudaDevAttrComputeCapabilityMajor: return settings().major;
    case cudaDevAttrComputeCapabilityMinor: return settings().minor;
    case cudaDevAttrPciBusId: return devices()[device].machine_index + 1;
    case cudaDevAttrPciDeviceId: case cudaDevAttrPciDomainId: return 0;
    case cudaDevAttrL2CacheSize: return 4 << 20;
    case cudaDevAttrClockRate: return 1000000; // kHz; nothing here takes time
    case cudaDevAttrIntegrated: case cudaDevAttrManagedMemory: case cudaDevAttrPageableMemoryAccess: return 0;
    case cudaDevAttrComputeMode: case cudaDevAttrTccDriver: case cudaDevAttrKernelExecTimeout: case cudaDevAttrEccEnabled: return 0;
    default: *known = false; return 0;
    }
}

} // namespace sim

using namespace sim;

extern "C" {

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = settings().driver ? 13000 : 0;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    if (const cudaError_t why = no_use()) return result(why);
    const int injected = fault("cudaGetDeviceCount", cudaErrorUnknown);
    if (injected) return result(static_cast<cudaError_t>(injected));
    *count = static_cast<int>(devices().size());
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    if (const cudaError_t why = no_use()) return result(why);
    if (bad_ordinal(device)) return result(cudaErrorInvalidDevice);
    const int injected = fault("cudaSetDevice", cudaErrorDevicesUnavailable);
    if (injected) return result(static_cast<cudaError_t>(injected));
    current = device;
    return result(sticky_of(device));
}
cudaError_t cudaInitDevice(int device, unsigned, unsigned)
{
    return bad_ordinal(device) ? result(cudaErrorInvalidDevice) : enter("cudaInitDevice");
}
cudaError_t cudaGetDevice(int *device)
{
    if (const cudaError_t why = no_use()) return result(why);
    *device = current;
    return cudaSuccess;
}
cudaError_t cudaSetDeviceFlags(unsigned) { return enter("cudaSetDeviceFlags"); }
cudaError_t cudaGetDeviceFlags(unsigned *flags)
{
    *flags = cudaDeviceScheduleAuto;
    return enter("cudaGetDeviceFlags");
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr a, int device)
{
    cudaError_t e = enter("cudaDeviceGetAttribute");
    if (e) return e;
    if (bad_ordinal(device)) return result(cudaErrorInvalidDevice);
    bool known = false;
    const int v = attribute(a, device, &known);
    if (!known) return result(cudaErrorInvalidValue); // asked for what nobody has thought about: add it above
    *value = v;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    cudaError_t e = enter("cudaGetDeviceProperties");
    if (e) return e;
    if (bad_ordinal(device)) return result(cudaErrorInvalidDevice);
    bool known;
    auto get = [&](cudaDeviceAttr a) { return attribute(a, device, &known); };
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "Simulated GPU");
    uuid_of(devices()[device].machine_index, reinterpret_cast<unsigned char *>(p->uuid.bytes));
    p->totalGlobalMem = settings().device_bytes;
    p->major = settings().major;
    p->minor = settings().minor;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->multiProcessorCount = get(cudaDevAttrMultiProcessorCount);
    p->sharedMemPerBlock = 48 * 1024;
    p->sharedMemPerBlockOptin = 227 * 1024;
    p->sharedMemPerMultiprocessor = 228 * 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->l2CacheSize = get(cudaDevAttrL2CacheSize);
    p->asyncEngineCount = 2;
    p->concurrentKernels = p->unifiedAddressing = p->canMapHostMemory = p->cooperativeLaunch = 1;
    p->memoryPoolsSupported = p->streamPrioritiesSupported = p->hostRegisterSupported = 1;
    p->pciBusID = get(cudaDevAttrPciBusId);
    p->memoryBusWidth = 128;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int bytes, int device)
{
    if (bad_ordinal(device)) return result(cudaErrorInvalidDevice);
    if (snprintf(text, static_cast<size_t>(bytes), "0000:%02X:00.0", devices()[device].machine_index + 1) >= bytes)
        return result(cudaErrorInvalidValue);
    return cudaSuccess;
}
cudaError_t cudaDeviceGetByPCIBusId(int *device, const char *text)
{
    unsigned domain = 0, bus = 0, dev = 0;
    if (sscanf(text, "%x:%x:%x", &domain, &bus, &dev) == 3)
        for (size_t i = 0; i < devices().size(); i++)
            if (devices()[i].machine_index + 1 == static_cast<int>(bus)) {
                *device = static_cast<int>(i);
                return cudaSuccess;
            }
    return result(cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    if (bad_ordinal(device) || bad_ordinal(peer)) return result(cudaErrorInvalidDevice);
    *can = settings().peers && device != peer;
    return enter("cudaDeviceCanAccessPeer");
}
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags)
{
    cudaError_t e = enter("cudaDeviceEnablePeerAccess");
    if (e) return e;
    if (bad_ordinal(peer) || peer == current) return result(cudaErrorInvalidDevice);
    if (flags) return result(cudaErrorInvalidValue);
    if (!settings().peers) return result(cudaErrorPeerAccessUnsupported);
    Lock l;
    return result(this_device().peers.insert(peer).second ? cudaSuccess : cudaErrorPeerAccessAlreadyEnabled);
}
cudaError_t cudaDeviceDisablePeerAccess(int peer)
{
    cudaError_t e = enter("cudaDeviceDisablePeerAccess", cudaErrorUnknown, Call::Quiet);
    if (e) return e;
    if (bad_ordinal(peer)) return result(cudaErrorInvalidDevice);
    Lock l;
    return result(this_device().peers.erase(peer) ? cudaSuccess : cudaErrorPeerAccessNotEnabled);
}
cudaError_t cudaDeviceGetP2PAttribute(int *value, cudaDeviceP2PAttr attr, int a, int b)
{
    if (bad_ordinal(a) || bad_ordinal(b) || a == b) return result(cudaErrorInvalidDevice);
    *value = attr == cudaDevP2PAttrPerformanceRank ? 0 : settings().peers;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    if (devices().empty()) {
        const cudaError_t e = last_error;
        last_error = cudaSuccess;
        return e;
    }
    const cudaError_t sticky = sticky_of(current), e = sticky ? sticky : last_error;
    last_error = cudaSuccess;
    return e;
}
cudaError_t cudaPeekAtLastError(void)
{
    const cudaError_t sticky = devices().empty() ? cudaSuccess : sticky_of(current);
    return sticky ? sticky : last_error;
}

const char *stm_sim_last_message(int device)
{
    static thread_local std::string text;
    Lock l;
    text = bad_ordinal(device) ? "" : devices()[device].why;
    return text.c_str();
}

long stm_sim_kernels(int device)
{
    Lock l;
    return bad_ordinal(device) ? 0 : devices()[device].kernels;
}

void stm_sim_revive(void)
{
    Lock l;
    forget_work_of_destroyed();
    for (Device &d : devices()) {
        d.sticky = cudaSuccess;
        d.why.clear();
    }
}

} // extern "C"
