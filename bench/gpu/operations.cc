/*
 * How fast are the kernels of the encoder, and those that move rows, beside a copy on the device?
 *
 *   bench_gpu_operations [--quick] [FILTER]
 *
 * Runs the cases marked Time of tests/device/token_cases.h and row_cases.h whose names contain FILTER, and prints of each `name`,
 * unit and rounds. GB/s count each byte that must be read or written once; `name copy` is a copy's, in the same rounds. TFLOP/s
 * count multiplications and additions. A round queues work for a few milliseconds and waits once. Data is random, and buffers take
 * turns so that together they are larger than any L2. --quick: small, one of each kind, to see that all of it runs where nothing
 * can be measured (a simulated device).
 */
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "bench/gpu/measure.h"
#include "device/row_cases.h"

extern "C" {
#include "device/registry.h"
#include "device/stream.h"
}

using namespace mt;

namespace {

const size_t kCache = size_t(256) << 20; /* more than the L2 of any device */
const char *const kNames[] = {"f32", "bf16", "f16"};

struct Options {
    const char *filter = "";
    bool quick = false;
    int rounds() const { return quick ? 1 : 7; }
    double share() const { return quick ? 1.0 / 4096 : 1.0; }
};

[[noreturn]] void die(const char *what, const mill_error &err)
{
    fprintf(stderr, "bench_gpu_operations: %s: %s\n", what, err.msg);
    exit(1);
}

/* The device, and memory on it until the case is over. */
class Bench {
public:
    Bench(const Options &o_, const stm_device_ops *ops) : o(o_), kernels(stm_kernels_of(ops))
    {
        mill_error err = {};
        if (stm_device_open(ops, 0, &dev_, &err) != MILL_OK || stm_stream_open(dev_, &stream_, &err) != MILL_OK)
            die("opening the device", err);
        if (stm_device_enter(dev_, &err) != MILL_OK) die("opening the device", err);
        copy_bytes_ = std::max<size_t>(size_t(double(kCache) * o.share()), 4096);
        from_ = take(copy_bytes_), to_ = take(copy_bytes_);
        kept_ = held_.size();
    }
    ~Bench()
    {
        release(0);
        stm_stream_close(&stream_);
        stm_device_unref(&dev_);
    }
    Bench(const Bench &) = delete;
    Bench &operator=(const Bench &) = delete;

    int64_t part(int64_t rows) const { return std::max<int64_t>(1, int64_t(double(rows) * o.share())); }
    void *stream() const { return stm_stream_native(stream_); }
    void check(mill_status st, const char *what)
    {
        if (st != MILL_OK) {
            fprintf(stderr, "bench_gpu_operations: %s: status %d\n", what, int(st));
            exit(1);
        }
    }
    template <class T> T *put(const std::vector<T> &v)
    {
        T *p = static_cast<T *>(take(v.size() * sizeof(T)));
        check(stm_stream_copy(stream_, p, v.data(), v.size() * sizeof(T), nullptr), "uploading");
        check(stm_stream_sync(stream_, nullptr), "uploading");
        return p;
    }
    /* Random values of a type: a block of them again and again. */
    void *values(stm_real type, int64_t n)
    {
        std::mt19937 g(1);
        std::vector<uint8_t> v(size_t(std::min<int64_t>(n, 1 << 16)) * stm_real_bytes(type));
        for (size_t i = 0; i < v.size() / stm_real_bytes(type); i++)
            stm_real_put(v.data(), type, int64_t(i), double(g() >> 8) / 8388608.0 - 1.0);
        const size_t bytes = size_t(n) * stm_real_bytes(type);
        char *p = static_cast<char *>(take(bytes));
        for (size_t at = 0; at < bytes; at += v.size())
            check(stm_stream_copy(stream_, p + at, v.data(), std::min(v.size(), bytes - at), nullptr), "uploading");
        check(stm_stream_sync(stream_, nullptr), "uploading");
        return p;
    }
    void *take(size_t bytes)
    {
        mill_error err = {};
        void *p = nullptr;
        if (stm_device_alloc(dev_, STM_MEM_DEVICE, std::max<size_t>(bytes, 1), &p, &err) != MILL_OK)
            die("memory on the device", err);
        held_.push_back(p);
        return p;
    }
    void release() { release(kept_); }
    void keep() { kept_ = held_.size(); } /* what is held now outlives the cases */

    /* Sets of buffers that together pass the caches. */
    int sets(double bytes) const
    {
        return int(std::min(8.0, std::max(1.0, std::ceil(double(kCache) * o.share() / std::max(bytes, 1.0)))));
    }

    /* `queue(i)` queues the work once, on set i; `amount` of it makes the unit: bytes, or operations. */
    void measure(const std::string &name, double amount, bool bytes, const std::function<void(int)> &queue)
    {
        double ours[ROUNDS_MOST], copies[ROUNDS_MOST];
        const int times = int(std::min(1000.0, std::max(1.0, o.quick ? 1.0 : 5e-3 / std::max(took(1, queue), 1e-7))));
        for (int r = o.quick ? 0 : -3; r < o.rounds(); r++) {
            const double our = amount * times / took(times, queue) * (bytes ? 1e-9 : 1e-12);
            const double copy = 2e-9 * double(copy_bytes_) / took(1, [&](int) {
                                    check(stm_stream_copy(stream_, to_, from_, copy_bytes_, nullptr), "copying");
                                });
            if (r >= 0) ours[r] = our, copies[r] = copy;
        }
        print_figure(name.c_str(), bytes ? "GB/s" : "TFLOP/s", ours, o.rounds());
        if (bytes) print_figure((name + " copy").c_str(), "GB/s", copies, o.rounds());
    }

    const Options &o;
    const stm_kernels *kernels;

private:
    double took(int times, const std::function<void(int)> &queue)
    {
        check(stm_stream_sync(stream_, nullptr), "waiting");
        const double begin = seconds();
        for (int i = 0; i < times; i++) queue(i);
        check(stm_stream_sync(stream_, nullptr), "the work");
        return seconds() - begin;
    }
    void release(size_t to)
    {
        while (held_.size() > to) {
            stm_device_free(dev_, STM_MEM_DEVICE, held_.back());
            held_.pop_back();
        }
    }
    stm_device *dev_ = nullptr;
    stm_stream *stream_ = nullptr;
    std::vector<void *> held_;
    size_t kept_ = 0, copy_bytes_ = 0;
    void *from_ = nullptr, *to_ = nullptr;
};

/* "kernel case type" where the filter takes it, else "". */
std::string named(const Bench &b, const char *kernel, const char *name, stm_real type)
{
    const std::string s = std::string(kernel) + " " + name + " " + kNames[type];
    return s.find(b.o.filter) != std::string::npos ? s : "";
}

void norms(Bench &b, const NormCase &c, stm_real type)
{
    const std::string name = named(b, "token_norm", c.indexed ? c.name : (std::string(c.name) + " residual").c_str(), type);
    if (c.use != Time || name.empty()) return;
    const int64_t rows = b.part(c.rows), words = c.indexed ? std::min<int64_t>(30522, rows) : rows;
    const double bytes = double(rows * c.dim) * double(stm_real_bytes(type)) * 3;
    std::vector<stm_token_norm_args> sets;
    std::vector<int32_t> ids;
    std::mt19937 g(2);
    for (int64_t r = 0; r < rows && c.indexed; r++) ids.push_back(int32_t(g() % size_t(words)));
    float *gain = static_cast<float *>(b.values(STM_F32, c.dim));
    for (int i = 0; i < b.sets(bytes); i++) {
        stm_token_norm_args a = {};
        a.x = b.values(type, words * c.dim), a.y = b.values(type, words * c.dim);
        if (c.indexed) a.x_index = b.put(ids), a.y_index = b.put(ids);
        a.bias = c.bias ? gain : nullptr, a.gain = a.shift = gain;
        a.out = b.take(size_t(rows * c.dim) * stm_real_bytes(type));
        a.type = type, a.eps = 1e-12f, a.rows = rows, a.dim = a.ldx = a.ldy = a.ldo = c.dim;
        sets.push_back(a);
    }
    b.measure(name, bytes, true,
              [&](int i) { b.check(b.kernels->token_norm(&sets[size_t(i) % sets.size()], b.stream()), "token_norm"); });
    b.release();
}

void gelus(Bench &b, const GeluCase &c, stm_real type)
{
    const std::string name = named(b, "token_gelu", c.name, type);
    if (c.use != Time || name.empty()) return;
    const int64_t rows = b.part(c.rows);
    const double bytes = double(rows * c.cols) * double(stm_real_bytes(type)) * 2;
    std::vector<stm_token_gelu_args> sets;
    float *bias = static_cast<float *>(b.values(STM_F32, c.cols));
    for (int i = 0; i < b.sets(bytes); i++)
        sets.push_back({b.values(type, rows * c.cols), bias, type, c.kind, rows, c.cols, c.cols});
    b.measure(name, bytes, true,
              [&](int i) { b.check(b.kernels->token_gelu(&sets[size_t(i) % sets.size()], b.stream()), "token_gelu"); });
    b.release();
}

/* Starts of the case's documents, in the share that is asked for. */
std::vector<int32_t> documents(const Bench &b, const std::vector<int32_t> &lengths, int32_t times)
{
    std::vector<int32_t> s = {0};
    for (int64_t t = 0; t < b.part(times); t++)
        for (int32_t n : lengths) s.push_back(s.back() + (b.o.quick ? std::min(n, 16) : n));
    return s;
}

void pools(Bench &b, const PoolCase &c, stm_real type)
{
    const std::string name = named(b, "token_pool", c.name, type);
    if (c.use != Time || name.empty()) return;
    const std::vector<int32_t> starts = documents(b, c.lengths, c.times);
    const int64_t docs = int64_t(starts.size()) - 1;
    const double bytes =
        double(c.first_row ? docs : starts.back()) * double(c.dim) * double(stm_real_bytes(type)) + 4.0 * double(docs * c.dim);
    std::vector<stm_token_pool_args> sets;
    for (int i = 0; i < b.sets(bytes); i++)
        sets.push_back({b.values(type, starts.back() * c.dim), b.put(starts),
                        static_cast<float *>(b.take(size_t(docs * c.dim) * 4)), type, docs, c.dim, c.dim, c.first_row,
                        c.normalize});
    b.measure(name, bytes, true,
              [&](int i) { b.check(b.kernels->token_pool(&sets[size_t(i) % sets.size()], b.stream()), "token_pool"); });
    b.release();
}

void converts(Bench &b, const ConvertCase &c, stm_real to)
{
    const std::string name = named(b, "convert f32 to", c.name, to);
    if (c.use != Time || name.empty() || to == STM_F32) return;
    const int64_t n = b.part(c.count);
    const stm_convert_args a = {b.values(STM_F32, n), b.take(size_t(n) * 2), STM_F32, to, n};
    b.measure(name, double(n) * 6, true, [&](int) { b.check(b.kernels->convert(&a, b.stream()), "convert"); });
    b.release();
}

void linears(Bench &b, stm_linear *l, const LinearCase &c, stm_real type)
{
    const std::string name = named(b, "linear", c.name, type);
    if (c.use != Time || name.empty()) return;
    const int64_t m = b.part(c.m);
    const size_t size = stm_real_bytes(type);
    const double flops = 2.0 * double(m) * double(c.n) * double(c.k);
    std::vector<stm_linear_args> sets;
    for (int i = 0; i < b.sets(double(m * (c.n + c.k)) * double(size)); i++)
        sets.push_back({b.values(type, m * c.k), b.values(type, c.n * c.k), c.bias ? b.values(type, c.n) : nullptr,
                        b.take(size_t(m * c.n) * size), type, c.act, m, c.n, c.k, c.k, c.k, c.n});
    mill_error err = {};
    b.measure(name, flops, false, [&](int i) {
        if (b.kernels->linear(l, &sets[size_t(i) % sets.size()], b.stream(), &err) != MILL_OK) die(name.c_str(), err);
    });
    b.release();
}

void attentions(Bench &b, const AttentionCase &c, stm_real type)
{
    const std::string name = named(b, "token_attention", c.name, type);
    if (c.use != Time || name.empty()) return;
    const std::vector<int32_t> starts = documents(b, c.lengths, c.times);
    const int64_t docs = int64_t(starts.size()) - 1, rows = starts.back(), width = int64_t(c.heads) * c.dim;
    const size_t size = stm_real_bytes(type);
    double flops = 0;
    for (int64_t d = 0; d < docs; d++) flops += 4.0 * std::pow(starts[size_t(d) + 1] - starts[size_t(d)], 2) * double(width);
    std::vector<stm_token_tile> tiles(size_t(stm_token_tiles(starts.data(), docs, nullptr)));
    stm_token_tiles(starts.data(), docs, tiles.data());
    std::vector<stm_token_attention_args> sets;
    for (int i = 0; i < b.sets(double(rows * width * 4) * double(size)); i++) {
        const char *qkv = static_cast<const char *>(b.values(type, rows * 3 * width));
        sets.push_back({qkv, qkv + size_t(width) * size, qkv + size_t(2 * width) * size, b.take(size_t(rows * width) * size), type,
                        b.put(tiles), int64_t(tiles.size()), rows, c.heads, c.dim, 1.0f / std::sqrt(float(c.dim)), 3 * width,
                        width});
    }
    b.measure(name, flops, false,
              [&](int i) { b.check(b.kernels->token_attention(&sets[size_t(i) % sets.size()], b.stream()), "token_attention"); });
    b.release();
}

/* Kernels that move rows, which know no types: "kernel case". */
std::string named(const Bench &b, const char *kernel, const char *name)
{
    const std::string s = std::string(kernel) + " " + name;
    return s.find(b.o.filter) != std::string::npos ? s : "";
}

/* Rows 0 .. n-1 in random order. */
std::vector<int64_t> shuffled(int64_t n)
{
    std::vector<int64_t> v(static_cast<size_t>(n));
    std::mt19937_64 g(3);
    for (int64_t i = 0; i < n; i++) v[size_t(i)] = i;
    std::shuffle(v.begin(), v.end(), g);
    return v;
}

void imputes(Bench &b, const ImputeCase &c)
{
    const std::string name = named(b, "impute", c.name);
    if (c.use != Time || name.empty()) return;
    const int64_t rows = b.part(c.rows), bytes = (c.offset + rows + 7) / 8;
    const auto *valid = static_cast<const uint8_t *>(b.values(STM_F32, bytes / 4 + 1)),
               *failed = static_cast<const uint8_t *>(b.values(STM_F32, bytes / 4 + 1));
    const stm_impute_args a = {valid, c.offset, failed, static_cast<uint8_t *>(b.take(size_t(bytes))), rows};
    b.measure(name, double(bytes) * 3, true, [&](int) { b.check(b.kernels->impute(&a, b.stream()), "impute"); });
    b.release();
}

void gathers(Bench &b, const GatherCase &c)
{
    const std::string name = named(b, "gather", c.name);
    if (c.use != Time || name.empty()) return;
    const int64_t rows = b.part(c.rows);
    const stm_gather_args a = {b.values(STM_F32, rows * c.width / 4), b.put(shuffled(rows)), b.take(size_t(rows * c.width)), rows,
                               c.width};
    b.measure(name, double(rows) * double(2 * c.width + 8), true,
              [&](int) { b.check(b.kernels->gather(&a, b.stream()), "gather"); });
    b.release();
}

void gathers_bits(Bench &b, const GatherBitsCase &c)
{
    const std::string name = named(b, "gather_bits", c.name);
    if (c.use != Time || name.empty()) return;
    const int64_t rows = b.part(c.rows);
    const auto *bits = static_cast<const uint8_t *>(b.values(STM_F32, (c.offset + rows) / 32 + 1));
    const stm_gather_bits_args a = {bits, c.offset, b.put(shuffled(rows)), static_cast<uint8_t *>(b.take(size_t(rows / 8 + 1))),
                                    rows};
    b.measure(name, double(rows) * (8 + 2.0 / 8), true,
              [&](int) { b.check(b.kernels->gather_bits(&a, b.stream()), "gather_bits"); });
    b.release();
}

void compacts(Bench &b, const CompactCase &c)
{
    const std::string name = named(b, "compact", c.name);
    if (c.use != Time || name.empty()) return;
    const int64_t rows = b.part(c.rows);
    std::vector<uint8_t> keep(static_cast<size_t>(rows));
    std::mt19937 g(4);
    double kept = 0;
    for (uint8_t &k : keep) kept += k = int(g() % 256) < c.keep_of_256;
    const stm_compact_args a = {b.put(keep), static_cast<int64_t *>(b.take(size_t(rows) * 8)), static_cast<int64_t *>(b.take(8)),
                                rows, b.take(stm_compact_scratch_bytes(rows))};
    b.measure(name, double(rows) + 8 * kept, true, [&](int) { b.check(b.kernels->compact(&a, b.stream()), "compact"); });
    b.release();
}

} // namespace

int main(int argc, char **argv)
{
    Options o;
    const stm_device_ops *ops = nullptr;
    mill_error err = {};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--quick"))
            o.quick = true;
        else
            o.filter = argv[i];
    }
    if (stm_backend_find("cuda", &ops, &err) != MILL_OK) die("the CUDA module", err);
    Bench b(o, ops);
    stm_linear *l = nullptr;
    const size_t room = size_t(32) << 20;
    const stm_linear_opts how = {false, b.take(room), room};
    b.keep();
    if (b.kernels->linear_open(&how, &l, &err) != MILL_OK) die("products", err);
    for (stm_real type : {STM_BF16, STM_F16, STM_F32}) {
        for (const LinearCase &c : kLinearCases) linears(b, l, c, type);
        for (const AttentionCase &c : kAttentionCases) attentions(b, c, type);
        for (const NormCase &c : kNormCases) norms(b, c, type);
        for (const GeluCase &c : kGeluCases) gelus(b, c, type);
        for (const PoolCase &c : kPoolCases) pools(b, c, type);
        for (const ConvertCase &c : kConvertCases) converts(b, c, type);
        if (o.quick) break;
    }
    for (const ImputeCase &c : kImputeCases) imputes(b, c);
    for (const GatherCase &c : kGatherCases) gathers(b, c);
    for (const GatherBitsCase &c : kGatherBitsCases) gathers_bits(b, c);
    for (const CompactCase &c : kCompactCases) compacts(b, c);
    b.kernels->linear_close(&l);
    return 0;
}
