/* Shapes for the encoder's kernels on devices: those that tests compare with the oracle, and those that bench/kernels times. */
#pragma once
#include <cstdint>
#include <vector>

extern "C" {
#include "kernels/kernels.h"
}

namespace mt {

enum Use { Check, Time }; /* Check: small, for tests on simulated devices. Time: as large as in use, for benches on real ones */

struct NormCase {
    const char *name;
    Use use;
    int64_t rows, dim, gap; /* gap: values between rows */
    int64_t shift;          /* values by which the matrices are out of line */
    bool indexed, bias;
};
inline const NormCase kNormCases[] = {
    {"no_rows", Check, 0, 8, 0, 0, false, true},
    {"one_value", Check, 1, 1, 0, 0, false, false},
    {"one_vector", Check, 1, 8, 0, 0, false, true},
    {"odd_everywhere", Check, 7, 21, 2, 0, false, true},
    {"out_of_line", Check, 5, 64, 8, 1, false, true},
    {"embedding_odd", Check, 9, 5, 0, 0, true, false},
    {"embedding", Check, 9, 48, 8, 0, true, false},
    {"a_lane_each", Check, 4, 256, 0, 0, false, true},
    {"minilm", Check, 6, 384, 8, 0, false, true},
    {"base", Check, 3, 768, 0, 0, true, true},
    {"large", Check, 5, 1024, 0, 0, false, true},
    {"limit_of_registers", Check, 2, 2048, 0, 0, false, true},
    {"past_registers", Check, 2, 2056, 0, 0, false, true},
    {"rows_past_a_block", Check, 133, 16, 0, 0, false, true},
    {"minilm_embedding", Time, 65536, 384, 0, 0, true, false},
    {"minilm", Time, 65536, 384, 0, 0, false, true},
    {"base", Time, 32768, 768, 0, 0, false, true},
    {"large", Time, 32768, 1024, 0, 0, false, true},
};

struct GeluCase {
    const char *name;
    Use use;
    int64_t rows, cols, gap, shift;
    stm_gelu_kind kind;
    bool bias;
};
inline const GeluCase kGeluCases[] = {
    {"no_rows", Check, 0, 8, 0, 0, STM_GELU_ERF, true},          {"one_value", Check, 1, 1, 0, 0, STM_GELU_ERF, true},
    {"odd_everywhere", Check, 5, 33, 3, 0, STM_GELU_TANH, true}, {"vectors", Check, 17, 64, 8, 0, STM_GELU_ERF, true},
    {"vectors_tanh", Check, 17, 64, 0, 0, STM_GELU_TANH, false}, {"out_of_line", Check, 3, 64, 0, 1, STM_GELU_ERF, true},
    {"past_a_block", Check, 3, 1536, 0, 0, STM_GELU_ERF, true},  {"minilm", Time, 65536, 1536, 0, 0, STM_GELU_ERF, true},
    {"large", Time, 16384, 4096, 0, 0, STM_GELU_TANH, true},
};

struct PoolCase {
    const char *name;
    Use use;
    std::vector<int32_t> lengths; /* Time: repeated `times` times */
    int32_t times;
    int64_t dim, gap;
    bool first_row, normalize;
};
inline const PoolCase kPoolCases[] = {
    {"no_documents", Check, {}, 1, 8, 0, false, true},
    {"one_row_one_value", Check, {1}, 1, 1, 0, false, true},
    {"only_empty", Check, {0}, 1, 16, 0, false, true},
    {"empty_ones_between", Check, {3, 0, 1, 0}, 1, 20, 4, false, true},
    {"empty_first_row", Check, {0, 2}, 1, 20, 0, true, true},
    {"odd_everywhere", Check, {7, 8, 9, 17}, 1, 21, 1, false, false},
    {"first_rows", Check, {2, 5, 1}, 1, 48, 0, true, true},
    {"minilm", Check, {12, 33}, 1, 384, 0, false, true},
    {"long", Check, {512}, 1, 32, 0, false, true},
    {"minilm", Time, {64, 30, 128, 92, 17, 200, 55, 70}, 100, 384, 0, false, true},
    {"bge", Time, {64, 30, 128, 92, 17, 200, 55, 70}, 100, 1024, 0, true, true},
};

struct AttentionCase {
    const char *name;
    Use use;
    std::vector<int32_t> lengths;
    int32_t times, heads, dim;
    int64_t gap;   /* values between the rows of out; those of q, k, v are 3 * heads * dim + gap apart, as in use */
    int64_t shift; /* values by which q is out of line */
    float scores;  /* size of q: scores of about 0.6 times this */
};
inline const AttentionCase kAttentionCases[] = {
    {"no_documents", Check, {}, 1, 1, 8, 0, 0, 1},
    {"one_row", Check, {1}, 1, 1, 32, 0, 0, 1},
    {"one_value", Check, {1, 2}, 1, 1, 1, 0, 0, 1},
    {"odd_everywhere", Check, {5, 33, 7}, 1, 3, 7, 1, 0, 1},
    {"dim_20", Check, {31, 65}, 1, 2, 20, 4, 0, 1},
    {"empty_documents", Check, {0, 3, 0, 2}, 1, 2, 32, 0, 0, 1},
    {"a_tile", Check, {64}, 1, 1, 32, 0, 0, 1},
    {"a_tile_and_one", Check, {65, 1}, 1, 2, 32, 8, 0, 1},
    {"out_of_line", Check, {17}, 1, 1, 32, 0, 1, 1},
    {"dim_64", Check, {17, 70}, 1, 1, 64, 0, 0, 1},
    {"dim_128", Check, {33, 18}, 1, 1, 128, 8, 0, 1},
    {"dim_80", Check, {18}, 1, 1, 80, 0, 0, 1},
    {"dim_256", Check, {3, 9}, 1, 1, 256, 0, 0, 1},
    {"high_scores", Check, {40}, 1, 1, 32, 0, 0, 60},
    {"three_blocks", Check, {130}, 1, 1, 32, 0, 0, 1},
    {"limit_of_bert", Check, {512}, 1, 1, 32, 0, 0, 1},
    {"minilm", Time, {64, 30, 128, 92, 17, 200, 55, 70}, 100, 12, 32, 0, 0, 1},
    {"base", Time, {64, 30, 128, 92, 17, 200, 55, 70}, 50, 12, 64, 0, 0, 1},
    {"uniform_256_dim_64", Time, {256}, 128, 12, 64, 0, 0, 1},
    {"uniform_512_dim_64", Time, {512}, 64, 12, 64, 0, 0, 1},
    {"uniform_512_dim_128", Time, {512}, 64, 8, 128, 0, 0, 1},
};

struct ConvertCase {
    const char *name;
    Use use;
    int64_t count, shift;
};
inline const ConvertCase kConvertCases[] = {
    {"none", Check, 0, 0},           {"one", Check, 1, 0},           {"three", Check, 3, 0},         {"a_vector", Check, 4, 0},
    {"past_a_block", Check, 517, 0}, {"out_of_line", Check, 130, 1}, {"a_layer", Time, 64 << 20, 0},
};

struct LinearCase {
    const char *name;
    Use use;
    int64_t m, n, k, gap;
    bool bias;
    stm_linear_act act;
};
inline const LinearCase kLinearCases[] = {
    {"no_rows", Check, 0, 8, 8, 0, true, STM_LINEAR_PLAIN},
    {"one_value", Check, 1, 1, 1, 0, false, STM_LINEAR_PLAIN},
    {"odd_everywhere", Check, 5, 21, 33, 3, true, STM_LINEAR_PLAIN},
    {"square", Check, 16, 32, 32, 0, true, STM_LINEAR_PLAIN},
    {"gelu", Check, 9, 40, 16, 8, true, STM_LINEAR_GELU_TANH},
    {"gelu_without_bias", Check, 3, 8, 24, 0, false, STM_LINEAR_GELU_TANH},
    {"minilm_qkv", Time, 16384, 1152, 384, 0, true, STM_LINEAR_PLAIN},
    {"minilm_out", Time, 16384, 384, 384, 0, false, STM_LINEAR_PLAIN},
    {"minilm_up", Time, 16384, 1536, 384, 0, true, STM_LINEAR_GELU_TANH},
    {"minilm_down", Time, 16384, 384, 1536, 0, false, STM_LINEAR_PLAIN},
    {"base_up", Time, 16384, 3072, 768, 0, true, STM_LINEAR_GELU_TANH},
    {"large_down", Time, 16384, 1024, 4096, 0, false, STM_LINEAR_PLAIN},
};

} // namespace mt
