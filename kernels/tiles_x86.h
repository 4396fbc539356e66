/*
 * Tile instructions (AMX). Assembly rather than intrinsics: those of gcc 12 do not say that loading the configuration reads
 * memory, so the stores that fill it may come too late.
 */
#ifndef STM_KERNELS_TILES_X86_H
#define STM_KERNELS_TILES_X86_H

#include <stdint.h>

typedef struct stm_tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} stm_tile_config;

/* Eight tiles of 16 rows of 64 bytes. */
static const stm_tile_config stm_tiles_full = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

#define TILE_CONFIG(cfg) __asm__ volatile("ldtilecfg %0" : : "m"(cfg) : "memory")
#define TILE_RELEASE() __asm__ volatile("tilerelease" : : : "memory")
#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t : : : "memory")
/* stride in bytes between the 16 rows */
#define TILE_LOAD(t, ptr, stride) __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(ptr), "r"((int64_t)(stride)) : "memory")
#define TILE_STORE(t, ptr, stride) \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(ptr), "r"((int64_t)(stride)) : "memory")
/* c += a . b: a 16 rows of 32 bf16, b 16 rows of 16 pairs */
#define TILE_DOT(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : : : "memory")

#endif
