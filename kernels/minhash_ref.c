#include "kernels/minhash.h"

void stm_minhash_ref(const stm_minhash_args *a)
{
    for (int64_t r = 0; r < a->rows; r++) {
        const uint8_t *text = a->bytes + a->offsets[r];
        const int64_t n = a->offsets[r + 1] - a->offsets[r];
        for (int32_t j = 0; j < STM_MINHASHES; j++) {
            const uint64_t f = stm_minhash_factors(a->seed, j);
            uint32_t least = UINT32_MAX;
            for (int64_t i = 0; i == 0 ? n > 0 : i + a->width <= n; i++) {
                const uint32_t h =
                    stm_shingle(text + i, n < a->width ? (int32_t)n : a->width) * ((uint32_t)(f >> 32) | 1u) + (uint32_t)f;
                if (h < least) least = h;
            }
            a->out[r * STM_MINHASHES + j] = least;
        }
    }
}
