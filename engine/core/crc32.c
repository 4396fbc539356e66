#include "stepmill/crc32.h"

#include <zlib.h>

#if defined(__x86_64__)
#include <immintrin.h>

/*
 * A message is a polynomial, its sum the remainder by another one. What stands d bits before a block may be carried over into it,
 * multiplied by x^d, of which the remainder will do: the low half of 16 bytes, which stands first, by that of x^(d + 32), the high
 * half by that of x^(d - 32) (all bits reversed, and moved by one, which the product of reversed polynomials needs). So blocks are
 * carried into the next ones, several at a time, until only the last ones are left: their sum, begun with a register of zeros, is
 * that of the message.
 */
#define NARROW ((size_t)64) /* carried at a time, in registers of 16 bytes */
#define WIDE ((size_t)256)  /* of 64 */

__attribute__((target("pclmul,sse4.1"))) static void carry_narrow(uint32_t state, const uint8_t *p, size_t n, uint8_t *last)
{
    const __m128i factors = _mm_set_epi64x(0x1c6e41596, 0x154442bd4); /* d = 512 */
    __m128i x[4];

    for (int i = 0; i < 4; i++) x[i] = _mm_loadu_si128((const __m128i *)(p + 16 * i));
    x[0] = _mm_xor_si128(x[0], _mm_cvtsi32_si128((int)state));
    for (p += NARROW, n -= NARROW; n > 0; p += NARROW, n -= NARROW)
        for (int i = 0; i < 4; i++) {
            const __m128i low = _mm_clmulepi64_si128(x[i], factors, 0x00), high = _mm_clmulepi64_si128(x[i], factors, 0x11);
            x[i] = _mm_xor_si128(_mm_xor_si128(low, high), _mm_loadu_si128((const __m128i *)(p + 16 * i)));
        }
    for (int i = 0; i < 4; i++) _mm_storeu_si128((__m128i *)(last + 16 * i), x[i]);
}

__attribute__((target("avx512f,vpclmulqdq"))) static void carry_wide(uint32_t state, const uint8_t *p, size_t n, uint8_t *last)
{
    const __m512i factors = _mm512_broadcast_i32x4(_mm_set_epi64x(0x1322d1430, 0x11542778a)); /* d = 2048 */
    __m512i x[4];

    for (int i = 0; i < 4; i++) x[i] = _mm512_loadu_si512(p + 64 * i);
    x[0] = _mm512_xor_si512(x[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state)));
    for (p += WIDE, n -= WIDE; n > 0; p += WIDE, n -= WIDE)
        for (int i = 0; i < 4; i++) {
            const __m512i low = _mm512_clmulepi64_epi128(x[i], factors, 0x00), high = _mm512_clmulepi64_epi128(x[i], factors, 0x11);
            x[i] = _mm512_xor_si512(_mm512_xor_si512(low, high), _mm512_loadu_si512(p + 64 * i));
        }
    for (int i = 0; i < 4; i++) _mm512_storeu_si512(last + 64 * i, x[i]);
}

/* Carries the whole blocks of @p p over into the last one. How many bytes that has, 0: too few to be worth it, or no such
 * processor. */
static size_t carry(uint32_t state, const uint8_t *p, size_t n, uint8_t last[WIDE])
{
    if (n >= 4 * WIDE && __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx512f")) {
        carry_wide(state, p, n & ~(WIDE - 1), last);
        return WIDE;
    }
    if (n >= 4 * NARROW && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1")) {
        carry_narrow(state, p, n & ~(NARROW - 1), last);
        return NARROW;
    }
    return 0;
}
#else
#define WIDE ((size_t)1)
static size_t carry(uint32_t state, const uint8_t *p, size_t n, uint8_t last[WIDE])
{
    (void)state, (void)p, (void)n, (void)last;
    return 0;
}
#endif

uint32_t mill_crc32(uint32_t crc, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint8_t last[WIDE];

    if (n == 0) return crc; /* zlib takes NULL for the question how sums begin */
    const size_t block = carry(~crc, p, n, last); /* ~: zlib inverts the register before and after */
    if (block > 0) {
        crc = (uint32_t)crc32_z(~0u, last, block);
        p += n & ~(block - 1);
        n &= block - 1;
    }
    return (uint32_t)crc32_z(crc, p, n);
}
