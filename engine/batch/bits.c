#include "batch/bits.h"

#include <string.h>

void stm_bits_fill(void *bits, int64_t from, int64_t n, bool v)
{
    if (n <= 0) return; /* bits may be NULL then */
    for (; n > 0 && (from & 7) != 0; n--) stm_bit_put(bits, from++, v);
    if (n >= 8) memset((uint8_t *)bits + (from >> 3), v ? 0xFF : 0, (size_t)(n >> 3));
    from += n & ~(int64_t)7;
    for (n &= 7; n > 0; n--) stm_bit_put(bits, from++, v);
}

void stm_bits_copy(void *dst, int64_t dst_from, const void *src, int64_t src_from, int64_t n)
{
    uint8_t *d;
    const uint8_t *s;
    unsigned shift;

    if (n <= 0) return;
    for (; n > 0 && (dst_from & 7) != 0; n--) stm_bit_put(dst, dst_from++, stm_bit(src, src_from++));
    d = (uint8_t *)dst + (dst_from >> 3);
    s = (const uint8_t *)src + (src_from >> 3);
    shift = (unsigned)(src_from & 7);
    if (shift == 0) {
        if (n >= 8) memcpy(d, s, (size_t)(n >> 3));
    } else {
        int64_t i = 0, bytes = n >> 3;

        for (; i + 8 <= bytes; i += 8) { /* 64 bits that start inside byte i end inside byte i + 8 */
            uint64_t w;

            memcpy(&w, s + i, 8);
            w = w >> shift | (uint64_t)s[i + 8] << (64 - shift);
            memcpy(d + i, &w, 8);
        }
        for (; i < bytes; i++) d[i] = (uint8_t)(s[i] >> shift | s[i + 1] << (8 - shift));
    }
    dst_from += n & ~(int64_t)7;
    src_from += n & ~(int64_t)7;
    for (n &= 7; n > 0; n--) stm_bit_put(dst, dst_from++, stm_bit(src, src_from++));
}

int64_t stm_bits_count(const void *bits, int64_t from, int64_t n)
{
    const uint8_t *b;
    int64_t count = 0, i = 0, bytes;

    if (n <= 0) return 0;
    for (; n > 0 && (from & 7) != 0; n--) count += stm_bit(bits, from++);
    b = (const uint8_t *)bits + (from >> 3);
    bytes = n >> 3;
    for (; i + 8 <= bytes; i += 8) {
        uint64_t w;

        memcpy(&w, b + i, 8);
        count += __builtin_popcountll(w);
    }
    for (; i < bytes; i++) count += __builtin_popcount(b[i]);
    from += n & ~(int64_t)7;
    for (n &= 7; n > 0; n--) count += stm_bit(bits, from++);
    return count;
}
