#include "store/crc32c.h"

#include <pthread.h>
#include <string.h>

#define POLYNOMIAL 0x82F63B78u /* bits reversed */

static uint32_t table[8][256]; /* made once */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) c = (c >> 1) ^ (POLYNOMIAL & (0u - (c & 1)));
        table[0][i] = c;
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t i = 0; i < 256; i++) table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 255];
}

uint32_t stm_crc32c_portable(uint32_t sum, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint32_t c = ~sum;

    pthread_once(&once, make_table);
    for (; n >= 8; n -= 8, p += 8) { /* eight bytes at a time: table[k] moves a byte past k others */
        c ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        c = table[7][c & 255] ^ table[6][c >> 8 & 255] ^ table[5][c >> 16 & 255] ^ table[4][c >> 24] ^ table[3][p[4]] ^
            table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
    }
    for (; n > 0; n--, p++) c = (c >> 8) ^ table[0][(c ^ *p) & 255];
    return ~c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t sum, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint64_t c = (uint32_t)~sum;

    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        c = __builtin_ia32_crc32di(c, word);
    }
    for (; n > 0; n--, p++) c = __builtin_ia32_crc32qi((uint32_t)c, *p);
    return ~(uint32_t)c;
}

uint32_t stm_crc32c(uint32_t sum, const void *bytes, size_t n)
{
    return __builtin_cpu_supports("sse4.2") ? by_instruction(sum, bytes, n) : stm_crc32c_portable(sum, bytes, n);
}
#else
uint32_t stm_crc32c(uint32_t sum, const void *bytes, size_t n) { return stm_crc32c_portable(sum, bytes, n); }
#endif
