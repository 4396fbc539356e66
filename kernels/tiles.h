/*
 * tiles: which form of the products of unit vectors a device takes (nearest.h, near_pairs.h). All give the same answers.
 *
 *   STM_TILES_MMA     mma.sync from compute capability 8.0 on, plain arithmetic below: every device has it (unit_tiles.h)
 *   STM_TILES_WGMMA   Hopper's warpgroup products of operands that TMA brings: compute capability 9.0 only (wgmma_tiles.h)
 *
 * The second is taken only where it has given a known answer on the device itself: small integers, whose sums are exact in any
 * order.
 */
#ifndef STM_KERNELS_TILES_H
#define STM_KERNELS_TILES_H

#include <stddef.h>
#include <stdint.h>

#include "stepmill/status.h"

MILL_BEGIN_DECLS

typedef enum stm_tiles { STM_TILES_MMA = 0, STM_TILES_WGMMA = 1 } stm_tiles;

/* The question: more rows than a warpgroup has and more columns than a tile, neither whole, and more steps than stages. */
#define STM_TILES_ROWS 70
#define STM_TILES_COLUMNS 140
#define STM_TILES_WIDTH 96

/* In device memory. */
typedef struct stm_tiles_answer {
    /* each at a multiple of 16 bytes, for TMA */
    uint16_t rows[STM_TILES_ROWS * STM_TILES_WIDTH], columns[STM_TILES_COLUMNS * STM_TILES_WIDTH];
    int32_t wrong, right; /* scores, each asked for twice: with rows that stay, and with rows that come again */
} stm_tiles_answer;

static inline int stm_tiles_known(int32_t wrong, int32_t right)
{
    return wrong == 0 && right == 2 * STM_TILES_ROWS * STM_TILES_COLUMNS;
}

/**
 * Ask the device of the stream. a is aligned to 256 bytes; its contents do not matter. NULL: only whether the device is for
 * STM_TILES_WGMMA.
 * @retval MILL_ERR_UNSUPPORTED  the device is not for STM_TILES_WGMMA, or its driver knows no tensor maps.
 */
mill_status stm_tiles_cuda(stm_tiles_answer *a, void *stream); /* in the module */

MILL_END_DECLS

#endif
