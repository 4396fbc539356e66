/* Shapes for the kernels that move rows: those that tests compare with the oracle, and those that bench/kernels times. */
#pragma once
#include "device/token_cases.h"

namespace mt {

struct ImputeCase {
    const char *name;
    Use use;
    int64_t rows, offset;
    bool valid, failed;
};
inline const ImputeCase kImputeCases[] = {
    {"no_rows", Check, 0, 0, true, true},
    {"one_row", Check, 1, 0, true, true},
    {"a_row_at_an_odd_place", Check, 1, 7, true, true},
    {"a_byte", Check, 8, 0, true, true},
    {"across_bytes", Check, 8, 3, true, true},
    {"not_whole_bytes", Check, 61, 5, true, true},
    {"a_word", Check, 64, 0, true, true},
    {"a_word_shifted", Check, 64, 1, true, true},
    {"past_a_block", Check, 128 * 8 + 3, 9, true, true},
    {"nothing_was_null", Check, 77, 0, false, true},
    {"all_fail", Check, 77, 2, true, false},
    {"all_fail_nothing_was_null", Check, 77, 0, false, false},
    {"a_large_batch", Check, 40000, 13, true, true},
    {"flags_of_a_column", Time, 1 << 28, 3, true, true},
};

struct GatherCase {
    const char *name;
    Use use;
    int64_t rows, source, width, shift; /* shift: bytes by which the source is out of line */
};
inline const GatherCase kGatherCases[] = {
    {"no_rows", Check, 0, 4, 8, 0},
    {"one_byte", Check, 1, 1, 1, 0},
    {"bytes", Check, 1000, 300, 1, 0},
    {"int16", Check, 129, 50, 2, 0},
    {"int32", Check, 128, 50, 4, 0},
    {"int64", Check, 127, 9, 8, 0},
    {"16_bytes", Check, 300, 40, 16, 0},
    {"3_bytes", Check, 77, 10, 3, 0},
    {"int64_out_of_line", Check, 55, 9, 8, 4},
    {"a_vector", Check, 40, 17, 1536, 0},
    {"a_vector_out_of_line", Check, 40, 17, 1536, 1},
    {"17_bytes", Check, 99, 20, 17, 0},
    {"20_bytes", Check, 99, 20, 20, 0},
    {"one_long_row", Check, 1, 2, 100003, 0},
    {"many_rows", Check, 70000, 64, 4, 0},
    {"int64_column", Time, 16 << 20, 16 << 20, 8, 0},
    {"vectors_of_384", Time, 128 << 10, 128 << 10, 1536, 0},
};

struct GatherBitsCase {
    const char *name;
    Use use;
    int64_t rows, source, offset;
    bool has;
};
inline const GatherBitsCase kGatherBitsCases[] = {
    {"no_rows", Check, 0, 4, 0, true},
    {"one", Check, 1, 1, 0, true},
    {"seven", Check, 7, 20, 3, true},
    {"eight", Check, 8, 20, 5, true},
    {"not_whole_bytes", Check, 1027, 600, 11, true},
    {"no_source", Check, 100, 50, 0, false},
    {"flags_of_a_column", Time, 32 << 20, 32 << 20, 5, true},
};

struct CompactCase {
    const char *name;
    Use use;
    int64_t rows;
    int keep_of_256; /* share of rows kept */
};
inline const CompactCase kCompactCases[] = {
    {"no_rows", Check, 0, 128},
    {"one_dropped", Check, 1, 0},
    {"one_kept", Check, 1, 256},
    {"none_of_a_tile", Check, STM_COMPACT_TILE, 0},
    {"a_tile", Check, STM_COMPACT_TILE, 256},
    {"a_tile_and_one", Check, STM_COMPACT_TILE + 1, 200},
    {"few", Check, 5000, 3},
    {"many", Check, 5000, 250},
    {"more_tiles_than_a_block_has_threads", Check, 130 * STM_COMPACT_TILE + 17, 100},
    {"half", Time, 32 << 20, 128},
};

} // namespace mt
