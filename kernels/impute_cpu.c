#include <string.h>

#include "kernels/impute.h"

/* 64 bits from bit i on; reads the bytes that hold them only. */
static uint64_t load(const uint8_t *bits, int64_t i, int64_t n)
{
    const int shift = (int)(i % 8);
    const int64_t bytes = (shift + n + 7) / 8;
    uint64_t low = 0;

    memcpy(&low, bits + i / 8, (size_t)(bytes < 8 ? bytes : 8));
    low >>= shift;
    if (bytes > 8) low |= (uint64_t)bits[i / 8 + 8] << (64 - shift); /* then shift > 0 */
    return low;
}

mill_status stm_impute_cpu(const stm_impute_args *a)
{
    if (!stm_impute_fits(a)) return MILL_ERR_INVALID;
    for (int64_t r = 0; r < a->rows; r += 64) {
        const int64_t n = a->rows - r < 64 ? a->rows - r : 64;
        uint64_t word = n < 64 ? ((uint64_t)1 << n) - 1 : ~(uint64_t)0;

        if (a->valid != NULL) word &= load(a->valid, a->offset + r, n);
        word = a->failed != NULL ? word & ~load(a->failed, r, n) : 0;
        memcpy(a->out + r / 8, &word, (size_t)((n + 7) / 8));
    }
    return MILL_OK;
}
