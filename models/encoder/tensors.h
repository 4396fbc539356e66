/* The tensors of an encoder's file by what they are. */
#ifndef STM_ENCODER_TENSORS_H
#define STM_ENCODER_TENSORS_H

#include "models/encoder/config.h"
#include "models/weights/safetensors.h"

typedef struct stm_norm_tensors {
    const stm_tensor *gain, *bias; /* [hidden] */
} stm_norm_tensors;

typedef struct stm_linear_tensors {
    const stm_tensor *weight, *bias; /* [n][k], [n] */
} stm_linear_tensors;

typedef struct stm_embedding_tensors {
    const stm_tensor *words, *positions, *types; /* [vocabulary | positions | types][hidden] */
    stm_norm_tensors norm;
} stm_embedding_tensors;

typedef struct stm_layer_tensors {
    stm_linear_tensors query, key, value, output, up, down;
    stm_norm_tensors attention_norm, output_norm;
} stm_layer_tensors;

/** Find them and check their shapes; *parameters (may be NULL) grows by their values. The error names the file, the tensor and the
 *  nearest name. Threads: any. */
mill_status stm_embedding_tensors_find(const stm_safetensors *file, const stm_encoder_config *c, stm_embedding_tensors *out,
                                       int64_t *parameters, mill_error *err);
mill_status stm_layer_tensors_find(const stm_safetensors *file, const stm_encoder_config *c, int32_t layer, stm_layer_tensors *out,
                                   int64_t *parameters, mill_error *err);

#endif
