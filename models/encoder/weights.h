/* Weights of an encoder, packed for the kernels; shared by all that read the same file in the same precision. */
#ifndef STM_ENCODER_WEIGHTS_H
#define STM_ENCODER_WEIGHTS_H

#include "kernels/gemm.h"
#include "models/encoder/config.h"
#include "models/encoder/shared.h"
#include "models/weights/safetensors.h"

typedef struct stm_encoder_norm {
    float *gain, *bias; /* [hidden] */
} stm_encoder_norm;

typedef struct stm_encoder_layer {
    stm_gemm_weight *query, *key, *value, *output; /* [hidden][hidden] */
    stm_gemm_weight *up, *down;                    /* [feed_forward][hidden], [hidden][feed_forward] */
    stm_encoder_norm attention_norm, output_norm;
} stm_encoder_layer;

/** Read only once made. */
typedef struct stm_encoder_weights {
    stm_shared shared; /* first */
    stm_gemm_type type;
    stm_encoder_layer *layers;
    int32_t n_layers;
    char *packed; /* the matrices of all layers, one layer after another */
    const float *words, *positions; /* in the mapped file where they are f32, else copies */
    float *words_copy, *positions_copy;
    float *type_row; /* [hidden] of token type 0 */
    stm_encoder_norm embedding_norm;
    float *vectors; /* holds norms and type_row */
    int64_t parameters;
    stm_safetensors *file;
} stm_encoder_weights;

/** Check that @p file has every tensor that @p c asks for. @p parameters may be NULL. */
mill_status stm_encoder_weights_check(const stm_safetensors *file, const stm_encoder_config *c, int64_t *parameters,
                                      mill_error *err);
/** A reference to the weights of @p path, loaded if no other holder has them. */
mill_status stm_encoder_weights_get(const char *path, const stm_encoder_config *c, stm_gemm_type type, stm_encoder_weights **out,
                                    mill_error *err);
/** Drop it; sets *w to NULL, accepts NULL. */
void stm_encoder_weights_put(stm_encoder_weights **w);

#endif
