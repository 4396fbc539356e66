#include "kernels/gather.h"

void stm_gather_ref(const stm_gather_args *a)
{
    const uint8_t *src = a->src;
    uint8_t *out = a->out;

    for (int64_t i = 0; i < a->rows; i++)
        for (int64_t b = 0; b < a->width; b++) out[i * a->width + b] = a->index[i] < 0 ? 0 : src[a->index[i] * a->width + b];
}

void stm_gather_bits_ref(const stm_gather_bits_args *a)
{
    for (int64_t i = 0; i < (a->rows + 7) / 8; i++) a->out[i] = 0;
    for (int64_t i = 0; i < a->rows; i++) {
        const int64_t from = a->offset + a->index[i];
        const int set = a->index[i] >= 0 && (a->src == NULL || (a->src[from / 8] >> (from % 8) & 1));
        a->out[i / 8] |= (uint8_t)(set << (i % 8));
    }
}
