// Hopper's warpgroup products: d[64][n] (+)= a[64][16] * b[n][16]^T, both operands in shared memory, K-major, described by 64-bit
// descriptors. As on the device, the registers of d must not be touched before the wait; here they keep their old values until
// then.
#include "gang.h"
#include <cstdio>
#include <cstring>

namespace sim {

static float from_half(uint16_t h)
{
    const uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    uint32_t bits;
    float f;
    if (exponent == 0) {
        f = static_cast<float>(fraction) * 0x1p-24f;
        return sign ? -f : f;
    }
    bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static float from_bf16(uint16_t h)
{
    const uint32_t bits = uint32_t(h) << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static const size_t kSpans[4] = {16, 128, 64, 32}; // bytes of a row of the swizzle atom, by mode

// Row `row` of the operand that a descriptor tells, 16 elements: start address, stride between groups of 8 rows, swizzle. From the
// asynchronous proxy's view: what plain stores wrote is there from the fence on.
static void operand(uint64_t descriptor, int row, bool bf16, float *out)
{
    const unsigned mode = static_cast<unsigned>(descriptor >> 62);
    const size_t start = static_cast<size_t>(descriptor & 0x3fff) << 4, group = static_cast<size_t>(descriptor >> 32 & 0x3fff) << 4;
    const size_t leading = static_cast<size_t>(descriptor >> 16 & 0x3fff) << 4;
    for (int half = 0; half < 2; half++) {
        size_t at = start + static_cast<size_t>(row / 8) * group + static_cast<size_t>(row % 8) * kSpans[mode];
        if (mode == 0) at += static_cast<size_t>(half) * leading; // core matrices of 8 x 16 bytes
        else at += static_cast<size_t>(half) * 16;
        if (mode == 1) at ^= (at >> 7 & 7) << 4;
        if (mode == 2) at ^= (at >> 7 & 3) << 4;
        if (mode == 3) at ^= (at >> 7 & 1) << 4;
        uint16_t v[8];
        memcpy(v, async_view(fiber->block) + at, sizeof v);
        for (int i = 0; i < 8; i++) out[8 * half + i] = bf16 ? from_bf16(v[i]) : from_half(v[i]);
    }
}

static void multiply(const Product &p)
{
    const int t = static_cast<int>(fiber->self.rank) % 128, warp = t / 32, lane = t % 32;
    float rows[2][16], column[16];
    for (int h = 0; h < 2; h++) operand(p.a, 16 * warp + lane / 4 + 8 * h, p.bf16, rows[h]);
    for (int block = 0; block < p.n / 8; block++)
        for (int side = 0; side < 2; side++) {
            operand(p.b, 8 * block + 2 * (lane % 4) + side, p.bf16, column);
            for (int h = 0; h < 2; h++) {
                float *d = p.d + 4 * block + 2 * h + side, sum = p.accumulate ? *d : 0.0f;
                for (int k = 0; k < 16; k++) sum += rows[h][k] * column[k];
                *d = sum;
            }
        }
}

[[noreturn]] static void mistake(const char *what, const char *site)
{
    fail(cudaErrorLaunchFailure, "%s: %s, at %s, %s", gang->kernel->name, what, site, thread_name(*fiber).c_str());
    to_scheduler();
    __builtin_trap();
}

// The oldest product of this thread takes place.
static void next_product()
{
    Product p;
    {
        Quiet quiet;
        p = std::move(fiber->multiplying.front());
        fiber->multiplying.pop_front();
    }
    const size_t bytes = static_cast<size_t>(p.n / 2) * sizeof *p.d;
    if (memcmp(p.d, p.before.data(), bytes) != 0) mistake("registers of a product were written before it was waited for", p.site);
    multiply(p);
    for (Product &later : fiber->multiplying)
        if (later.d == p.d && later.n == p.n) memcpy(later.before.data(), p.d, bytes);
}

// What the device leaves undefined if it is wrong: a start within the first row of a repetition of the swizzle, nothing in the bits
// that are not fields, no offset of the base, and all within shared memory.
static void check_operand(uint64_t descriptor, int rows, const char *name, const char *site)
{
    const unsigned mode = static_cast<unsigned>(descriptor >> 62);
    const size_t start = static_cast<size_t>(descriptor & 0x3fff) << 4, group = static_cast<size_t>(descriptor >> 32 & 0x3fff) << 4;
    const char *wrong = nullptr;
    if (descriptor & ~(uint64_t(3) << 62 | uint64_t(0x3fff) << 32 | uint64_t(0x3fff) << 16 | 0x3fff))
        wrong = "bits that are no field, or a base offset, are set";
    else if (mode != 0 && start % (8 * kSpans[mode]) + 32 > kSpans[mode])
        wrong = "starts behind the first row of a repetition of its swizzle";
    else if (mode != 0 && group % (8 * kSpans[mode]) != 0) wrong = "groups of 8 rows do not lie as its swizzle repeats";
    else if (start + static_cast<size_t>(rows / 8 - 1) * group + 8 * kSpans[mode] > fiber->block->used)
        wrong = "ends behind the block's shared memory";
    if (!wrong) return;
    char text[160];
    snprintf(text, sizeof text, "operand %s of wgmma, descriptor %016llx, %s", name, static_cast<unsigned long long>(descriptor),
             wrong);
    mistake(text, site);
}

// All 128 threads of a warpgroup meet, having asked for the same.
static void meet(const char *site)
{
    Quiet quiet;
    Fiber *me = fiber;
    Block *b = me->block;
    const unsigned group = me->self.rank / 128;
    if (b->threads < static_cast<int>(group + 1) * 128 || group >= 8) mistake("not in a full warpgroup of 128 threads", site);
    Barrier &r = b->warpgroups[group];
    if (r.site && r.site != site && strcmp(r.site, site) != 0) {
        fail(cudaErrorLaunchFailure, "%s: divergent warpgroup: %s at %s, %d other(s) at %s", gang->kernel->name,
             thread_name(*me).c_str(), site, r.count, r.site);
        to_scheduler();
    }
    if (r.count == 0) r.asked = me->asked;
    else if (r.asked != me->asked) mistake("threads of a warpgroup gave different operands to wgmma", site);
    const int generation = r.generation & 1;
    r.site = me->site = site;
    hb_release(&r.tag[generation]);
    if (++r.count == 128) {
        r.count = 0;
        r.site = nullptr;
        r.generation++;
        for (Fiber &f : b->fibers)
            if (f.state == State::Warpgroup && f.barrier == static_cast<int8_t>(group)) f.state = State::Ready;
    } else {
        me->barrier = static_cast<int8_t>(group);
        me->state = State::Warpgroup;
        to_scheduler();
    }
    hb_acquire(&r.tag[generation]);
}

} // namespace sim

using namespace sim;

extern "C" {

void stm_sim_registers(const char *site) { meet(site); }

void stm_sim_wgmma_fence(const char *site)
{
    meet(site);
    fiber->fenced = true;
}

void stm_sim_wgmma(float *d, int n, uint64_t a, uint64_t b, int accumulate, int bf16, const char *site)
{
    if (!fiber->fenced) mistake("wgmma without a wgmma.fence since the last wait", site);
    check_operand(a, 64, "a", site);
    check_operand(b, n, "b", site);
    Quiet quiet;
    for (uint64_t v : {a, b, static_cast<uint64_t>(n) << 2 | uint64_t(accumulate != 0) << 1 | uint64_t(bf16 != 0)})
        fiber->asked = (fiber->asked ^ v) * 0x9e3779b97f4a7c15u + 1;
    fiber->multiplying.push_back({d, n, a, b, accumulate != 0, bf16 != 0, std::vector<float>(d, d + n / 2), site});
    fiber->products.open.push_back(next_product);
}
void stm_sim_wgmma_commit(void)
{
    commit(&fiber->products);
}
void stm_sim_wgmma_wait(unsigned newest, const char *site)
{
    finish(&fiber->products, newest);
    meet(site); // nobody overwrites the operands while a neighbour still multiplies
    fiber->asked = 0;
    fiber->fenced = false;
}

} // extern "C"
