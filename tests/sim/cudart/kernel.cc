// Kernels: how to call one (the shim registers that when a program is loaded), launches, attributes.
#include "capture.h"
#include "state.h"
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <dlfcn.h>

namespace sim {

struct Kernels {
    std::unordered_map<const void *, stm_sim_kernel> by_entry;
    std::unordered_map<std::string, const void *> by_name;     // mangled
    std::unordered_map<const void *, std::string> stub_names;  // nvcc's host stubs
    std::map<std::pair<const void *, int>, int> dynamic_limit; // entry and device: bytes a launch may ask for
};
static Kernels &kernels()
{
    static auto *k = new Kernels;
    return *k;
}
static const size_t kDynamicDefault = 48 * 1024, kDynamicMost = 227 * 1024;

void register_stub(const void *stub, const char *mangled)
{
    Lock l;
    kernels().stub_names[stub] = mangled;
}

// The nvcc-built program knows its kernels by stubs; the bodies, compiled for the CPU, come from the libraries of STM_SIM_KERNELS
// (a:b).
static void load_bodies()
{
    static const int loaded = [] {
        const char *paths = getenv("STM_SIM_KERNELS");
        int n = 0;
        for (std::string left = paths ? paths : ""; !left.empty();) {
            const size_t end = std::min(left.find(':'), left.size());
            if (dlopen(left.substr(0, end).c_str(), RTLD_NOW | RTLD_LOCAL)) n++;
            else fprintf(stderr, "sim: %s\n", dlerror());
            left.erase(0, end + 1);
        }
        return n;
    }();
    (void)loaded;
}

static const stm_sim_kernel *resolve(const void *f)
{
    std::string name;
    {
        Lock l;
        auto k = kernels().by_entry.find(f);
        if (k != kernels().by_entry.end()) return &k->second;
        auto stub = kernels().stub_names.find(f);
        if (stub == kernels().stub_names.end()) return nullptr;
        name = stub->second;
    }
    load_bodies();
    Lock l;
    auto body = kernels().by_name.find(name);
    if (body == kernels().by_name.end()) {
        fprintf(stderr, "sim: no CPU body for kernel %s; set STM_SIM_KERNELS to the library that has it\n", name.c_str());
        return nullptr;
    }
    return &kernels().by_entry[body->second];
}

// ---- what a launch touches ----
static thread_local std::vector<Access> declared;

void forget_declarations() { declared.clear(); }

static bool covered(const std::vector<Access> &by, const void *p)
{
    for (const Access &a : by)
        if (p >= a.p && static_cast<const char *>(p) < static_cast<const char *>(a.p) + a.bytes) return true;
    return false;
}

// Without declarations: a const T* is a read, a T* a write, a pointer inside a struct a read, each of the first byte only (how
// far a kernel goes cannot be known, and buffers share slabs).
static std::vector<Access> touches(const stm_sim_kernel &k, void **args)
{
    std::vector<Access> found = std::move(declared);
    declared.clear();
    const bool explicit_all = !found.empty();
    for (unsigned i = 0; i < k.arg_count; i++) {
        const stm_sim_arg &arg = k.args[i];
        for (size_t at = 0; at + sizeof(void *) <= arg.bytes; at += sizeof(void *)) {
            void *p;
            memcpy(&p, static_cast<const char *>(args[i]) + at, sizeof p);
            Lock l;
            if (!find_allocation(p) || covered(found, p)) continue;
            if (settings().declared)
                finding("undeclared: kernel %s gets a pointer, argument %u byte %zu, that no STM_READS or STM_WRITES of its launch "
                        "covers",
                        k.name, i, at);
            if (explicit_all) continue;
            found.push_back({p, 1, arg.kind == STM_SIM_ARG_WRITE ? Touch::Write : Touch::Read});
        }
    }
    return found;
}

// A device reaches its own memory, pinned memory, and that of peers it has enabled. "" or what is wrong. Counts the kernel.
static std::string reach(const char *name, const std::vector<Access> &accesses, int device)
{
    Lock l;
    Device &d = devices()[device];
    d.kernels++;
    for (const Access &x : accesses) {
        const Allocation *a = find_allocation(x.p);
        if (a && a->type == cudaMemoryTypeDevice && a->device != device && !d.peers.count(a->device))
            return std::string(name) + " on device " + std::to_string(device) + " touches memory of device " +
                   std::to_string(a->device) + " without peer access";
    }
    return "";
}

static cudaError_t check_shape(const cudaLaunchConfig_t &c, const stm_sim_kernel &k)
{
    const dim3 g = c.gridDim, b = c.blockDim;
    const uint64_t threads = uint64_t(b.x) * b.y * b.z;
    if (threads == 0 || threads > 1024 || b.x > 1024 || b.y > 1024 || b.z > 64) return cudaErrorInvalidConfiguration;
    if (!g.x || !g.y || !g.z || g.x > 2147483647u || g.y > 65535 || g.z > 65535) return cudaErrorInvalidConfiguration;
    if (c.dynamicSmemBytes > kDynamicDefault) {
        Lock l;
        auto limit = kernels().dynamic_limit.find({k.entry, current_device()});
        if (limit == kernels().dynamic_limit.end() || static_cast<size_t>(limit->second) < c.dynamicSmemBytes)
            return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

// "void softmax<4>(float const*, int)" -> "softmax<4>"
static std::string short_name(const std::string &plain)
{
    int depth = 0;
    for (size_t i = 0; i < plain.size(); i++) {
        depth += (plain[i] == '<') - (plain[i] == '>');
        if (depth || plain[i] != '(') continue;
        const size_t from = plain.rfind("void ", 0) == 0 ? 5 : 0;
        return plain.substr(from, i - from);
    }
    return plain;
}

struct Arguments {
    std::vector<size_t> at;
    std::shared_ptr<char> bytes;
};
static Arguments copy_arguments(const stm_sim_kernel &k, void **args)
{
    Arguments a;
    size_t total = 0;
    for (unsigned i = 0; i < k.arg_count; i++) {
        total = (total + k.args[i].align - 1) / k.args[i].align * k.args[i].align;
        a.at.push_back(total);
        total += k.args[i].bytes;
    }
    a.bytes.reset(static_cast<char *>(aligned_alloc(128, (total + 128) / 128 * 128)), free);
    for (unsigned i = 0; i < k.arg_count; i++) memcpy(a.bytes.get() + a.at[i], args[i], k.args[i].bytes);
    return a;
}

static Work kernel_work(const stm_sim_kernel &k, const cudaLaunchConfig_t &c, void **args, int device, bool cooperative,
                        const Site &from)
{
    Work w{"kernel", from, nullptr, touches(k, args)};
    w.site.what = k.name;
    const Arguments arguments = copy_arguments(k, args);
    const dim3 grid = c.gridDim, block = c.blockDim;
    const size_t dynamic = c.dynamicSmemBytes;
    w.run = [=, kernel = &k, accesses = w.accesses] {
        const int injected = async_fault("kernel");
        if (injected)
            return kill_device(device, static_cast<cudaError_t>(injected), std::string("injected fault of kernel ") + kernel->name);
        std::string why = reach(kernel->name, accesses, device);
        if (!why.empty()) return kill_device(device, cudaErrorIllegalAddress, why);
        std::vector<void *> pointers;
        for (size_t at : arguments.at) pointers.push_back(arguments.bytes.get() + at);
        pointers.push_back(nullptr);
        GridOptions opts = settings().grid;
        opts.cooperative = cooperative;
        const cudaError_t e = run_grid(*kernel, grid, block, dynamic, pointers.data(), opts, &why);
        if (e) kill_device(device, e, why);
    };
    return w;
}

static cudaError_t launch(const cudaLaunchConfig_t &c, const void *f, void **args, const Site &site)
{
    const stm_sim_kernel *k = resolve(f);
    if (!k) return cudaErrorInvalidDeviceFunction;
    cudaError_t e = check_shape(c, *k);
    bool cooperative = false;
    for (unsigned i = 0; i < c.numAttrs; i++)
        if (c.attrs[i].id == cudaLaunchAttributeCooperative) cooperative = c.attrs[i].val.cooperative != 0;
    const StreamInfo info = stream_info(c.stream);
    if (!e && !info.valid) e = cudaErrorInvalidResourceHandle;
    if (!e && info.device != current_device()) e = cudaErrorInvalidResourceHandle; // a stream of another device
    if (!e && cooperative && uint64_t(c.gridDim.x) * c.gridDim.y * c.gridDim.z > 64) e = cudaErrorCooperativeLaunchTooLarge;
    if (e) {
        forget_declarations();
        return e;
    }
    return enqueue(c.stream, kernel_work(*k, c, args, info.device, cooperative, site));
}

} // namespace sim

using namespace sim;

extern "C" {

void stm_sim_register(const stm_sim_kernel *kernel)
{
    stm_sim_kernel k = *kernel;
    Dl_info where = {};
    const char *mangled = dladdr(k.entry, &where) && where.dli_saddr == k.entry ? where.dli_sname : nullptr;
    if (mangled) {
        int status = 0;
        char *plain = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
        k.name = intern(short_name(plain ? plain : mangled));
        free(plain);
    } else {
        k.name = intern(k.name);
    }
    Lock l;
    kernels().by_entry[k.entry] = k;
    if (mangled) kernels().by_name[mangled] = k.entry;
}

void stm_sim_touch(const void *p, size_t bytes, int how) { declared.push_back({p, bytes, static_cast<Touch>(how)}); }

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *f, void **args)
{
    cudaError_t e = enter("cudaLaunchKernel", cudaErrorLaunchOutOfResources);
    if (e) {
        forget_declarations();
        return e;
    }
    return result(launch(*config, f, args, SIM_SITE("launch")));
}
cudaError_t cudaLaunchKernel(const void *f, dim3 grid, dim3 block, void **args, size_t dynamic_bytes, cudaStream_t stream)
{
    cudaLaunchConfig_t c = {};
    c.gridDim = grid;
    c.blockDim = block;
    c.dynamicSmemBytes = dynamic_bytes;
    c.stream = stream;
    return cudaLaunchKernelExC(&c, f, args);
}
cudaError_t cudaLaunchCooperativeKernel(const void *f, dim3 grid, dim3 block, void **args, size_t dynamic_bytes,
                                        cudaStream_t stream)
{
    cudaLaunchAttribute attr = {};
    attr.id = cudaLaunchAttributeCooperative;
    attr.val.cooperative = 1;
    cudaLaunchConfig_t c = {};
    c.gridDim = grid;
    c.blockDim = block;
    c.dynamicSmemBytes = dynamic_bytes;
    c.stream = stream;
    c.attrs = &attr;
    c.numAttrs = 1;
    return cudaLaunchKernelExC(&c, f, args);
}

cudaError_t cudaFuncSetAttribute(const void *f, cudaFuncAttribute attr, int value)
{
    cudaError_t e = enter("cudaFuncSetAttribute", cudaErrorInvalidValue);
    if (e) return e;
    const stm_sim_kernel *k = resolve(f);
    if (!k) return result(cudaErrorInvalidDeviceFunction);
    if (attr == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (value < 0 || static_cast<size_t>(value) > kDynamicMost) return result(cudaErrorInvalidValue);
        Lock l;
        kernels().dynamic_limit[{k->entry, current_device()}] = value;
    }
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *out, const void *f)
{
    cudaError_t e = enter("cudaFuncGetAttributes");
    if (e) return e;
    const stm_sim_kernel *k = resolve(f);
    if (!k) return result(cudaErrorInvalidDeviceFunction);
    memset(out, 0, sizeof *out);
    out->maxThreadsPerBlock = 1024;
    out->numRegs = 32;
    out->ptxVersion = out->binaryVersion = settings().major * 10 + settings().minor;
    Lock l;
    auto limit = kernels().dynamic_limit.find({k->entry, current_device()});
    out->maxDynamicSharedSizeBytes = limit == kernels().dynamic_limit.end() ? static_cast<int>(kDynamicDefault) : limit->second;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *f, int threads, size_t dynamic,
                                                                   unsigned)
{
    cudaError_t e = enter("cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    if (e) return e;
    if (!resolve(f)) return result(cudaErrorInvalidDeviceFunction);
    if (threads < 1) return result(cudaErrorInvalidValue);
    const size_t by_memory = dynamic ? 228 * 1024 / (dynamic + 1024) : 16; // cooperative launches fit 4 * 16 blocks at most
    const size_t by_threads = 2048 / ((static_cast<size_t>(threads) + 31) / 32 * 32);
    *blocks = static_cast<int>(std::min<size_t>({by_memory, by_threads, 16}));
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *f, int threads, size_t dynamic)
{
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, f, threads, dynamic, 0);
}

} // extern "C"
