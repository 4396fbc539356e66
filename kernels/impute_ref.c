#include "kernels/impute.h"

static int bit(const uint8_t *bits, int64_t i) { return bits == 0 || (bits[i / 8] >> (i % 8) & 1); }

void stm_impute_ref(const stm_impute_args *a)
{
    for (int64_t i = 0; i < (a->rows + 7) / 8; i++) a->out[i] = 0;
    for (int64_t r = 0; r < a->rows; r++)
        if (bit(a->valid, a->offset + r) && !bit(a->failed, r)) a->out[r / 8] |= (uint8_t)(1u << (r % 8));
}
