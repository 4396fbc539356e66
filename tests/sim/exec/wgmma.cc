// Hopper's warpgroup products: d[64][n] (+)= a[64][16] * b[n][16]^T, both operands in shared memory, K-major, described by 64-bit
// descriptors. As on the device, the registers of d must not be read before the wait; here they keep their old values until then.
#include "gang.h"
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

// Element [row][k] of the operand a descriptor tells: start address, stride between groups of 8 rows, swizzle.
static uint16_t element(uint64_t descriptor, int row, int k)
{
    static const size_t spans[4] = {16, 128, 64, 32}; // bytes of a row of the swizzle atom, by mode
    const unsigned mode = static_cast<unsigned>(descriptor >> 62);
    const size_t start = static_cast<size_t>(descriptor & 0x3fff) << 4, group = static_cast<size_t>(descriptor >> 32 & 0x3fff) << 4;
    const size_t leading = static_cast<size_t>(descriptor >> 16 & 0x3fff) << 4;
    size_t at = start + static_cast<size_t>(row / 8) * group + static_cast<size_t>(row % 8) * spans[mode];
    if (mode == 0) at += static_cast<size_t>(k / 8) * leading + static_cast<size_t>(k % 8) * 2; // core matrices of 8 x 16 bytes
    else at += static_cast<size_t>(k) * 2;
    if (mode == 1) at ^= (at >> 7 & 7) << 4;
    if (mode == 2) at ^= (at >> 7 & 3) << 4;
    if (mode == 3) at ^= (at >> 7 & 1) << 4;
    uint16_t v;
    memcpy(&v, fiber->block->arena + at, sizeof v);
    return v;
}

static void multiply(float *d, int n, uint64_t a, uint64_t b, bool accumulate, bool bf16)
{
    auto number = [bf16](uint16_t v) { return bf16 ? from_bf16(v) : from_half(v); };
    const int t = static_cast<int>(fiber->self.rank) % 128, warp = t / 32, lane = t % 32;
    for (int e = 0; e < n / 2; e++) {
        const int row = 16 * warp + lane / 4 + 8 * (e / 2 % 2), col = 8 * (e / 4) + 2 * (lane % 4) + e % 2;
        float sum = accumulate ? d[e] : 0.0f;
        for (int k = 0; k < 16; k++) sum += number(element(a, row, k)) * number(element(b, col, k));
        d[e] = sum;
    }
}

} // namespace sim

using namespace sim;

extern "C" {

void stm_sim_warpgroup_sync(const char *site)
{
    Quiet quiet;
    Fiber *me = fiber;
    Block *b = me->block;
    const unsigned group = me->self.rank / 128;
    if (b->threads < static_cast<int>(group + 1) * 128 || group >= 8) {
        fail(cudaErrorLaunchFailure, "%s: %s at %s is not in a full warpgroup of 128 threads", gang->kernel->name, thread_name(*me).c_str(), site);
        to_scheduler();
    }
    Barrier &r = b->warpgroups[group];
    if (r.site && r.site != site && strcmp(r.site, site) != 0) {
        fail(cudaErrorLaunchFailure, "%s: divergent warpgroup: %s at %s, %d other(s) at %s", gang->kernel->name, thread_name(*me).c_str(), site,
             r.count, r.site);
        to_scheduler();
    }
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

void stm_sim_wgmma(float *d, int n, uint64_t a, uint64_t b, int accumulate, int bf16, const char *)
{
    Quiet quiet;
    fiber->products.open.push_back([=] { multiply(d, n, a, b, accumulate != 0, bf16 != 0); }); // d: an array in the kernel's frame
}
void stm_sim_wgmma_commit(void)
{
    commit(&fiber->products);
}
void stm_sim_wgmma_wait(unsigned newest, const char *site)
{
    finish(&fiber->products, newest);
    stm_sim_warpgroup_sync(site); // nobody overwrites the operands while a neighbour still multiplies
}

} // extern "C"
