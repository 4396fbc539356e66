#include <string.h>

#include "kernels/gather.h"

/* One loop per usual width, so that a copy is a load and a store. */
#define ROWS(WIDTH)                                                                  \
    for (int64_t i = 0; i < a->rows; i++) {                                          \
        if (a->index[i] < 0)                                                         \
            memset(out + i * (WIDTH), 0, (size_t)(WIDTH));                           \
        else                                                                         \
            memcpy(out + i * (WIDTH), src + a->index[i] * (WIDTH), (size_t)(WIDTH)); \
    }                                                                                \
    return MILL_OK

mill_status stm_gather_cpu(const stm_gather_args *a)
{
    const char *src = a->src;
    char *out = a->out;

    if (!stm_gather_fits(a)) return MILL_ERR_INVALID;
    switch (a->width) {
    case 1: ROWS(1);
    case 2: ROWS(2);
    case 4: ROWS(4);
    case 8: ROWS(8);
    case 16: ROWS(16);
    default: ROWS(a->width);
    }
}

mill_status stm_gather_bits_cpu(const stm_gather_bits_args *a)
{
    if (!stm_gather_bits_fits(a)) return MILL_ERR_INVALID;
    for (int64_t i = 0; i < a->rows; i += 8) {
        const int64_t n = a->rows - i < 8 ? a->rows - i : 8;
        unsigned bits = 0;
        for (int64_t k = 0; k < n; k++) {
            const int64_t from = a->index[i + k];
            const int64_t at = a->offset + from;
            if (from >= 0 && (a->src == NULL || (a->src[at / 8] >> (at % 8) & 1))) bits |= 1u << k;
        }
        a->out[i / 8] = (uint8_t)bits;
    }
    return MILL_OK;
}
