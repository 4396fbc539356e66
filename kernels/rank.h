/*
 * Places in a list of neighbours as one number: the better score first, equal scores by row. Smaller is better, so lists are merged
 * and sorted as plain integers, and travel between devices as they are.
 *
 *     bits 63..32   the score, mapped so that larger floats are smaller numbers; -0 counts as 0
 *     bits 31..1    the row
 *     bit 0         the score was -0 (it comes back as such)
 */
#ifndef STM_KERNELS_RANK_H
#define STM_KERNELS_RANK_H

#include <stdint.h>
#include <string.h>

#include "kernels/both.h"

#define STM_NO_RANK UINT64_MAX           /* behind everything */
#define STM_RANK_ROWS ((int64_t)1 << 31) /* rows are below it */

/** Larger floats give larger numbers; not for NaN. */
STM_BOTH uint32_t stm_ordered(float v)
{
    uint32_t u;

    memcpy(&u, &v, sizeof u);
    return u >> 31 ? ~u : u | 0x80000000u;
}
STM_BOTH float stm_unordered(uint32_t u)
{
    const uint32_t bits = u >> 31 ? u & 0x7fffffffu : ~u;
    float v;

    memcpy(&v, &bits, sizeof v);
    return v;
}

/** @p score is not NaN. */
STM_BOTH uint64_t stm_rank_of(float score, int64_t row)
{
    uint32_t bits;

    memcpy(&bits, &score, sizeof bits);
    return (uint64_t)~stm_ordered(score == 0.0f ? 0.0f : score) << 32 | (uint64_t)row << 1 | (bits == 0x80000000u ? 1u : 0u);
}
STM_BOTH float stm_rank_score(uint64_t rank) { return rank & 1 ? -0.0f : stm_unordered(~(uint32_t)(rank >> 32)); }
STM_BOTH int64_t stm_rank_row(uint64_t rank) { return (int64_t)((uint32_t)rank >> 1); }

#endif
