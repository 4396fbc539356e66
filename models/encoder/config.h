/* What the configuration files of a BERT-family folder say. */
#ifndef STM_ENCODER_CONFIG_H
#define STM_ENCODER_CONFIG_H

#include "kernels/row_ops.h"
#include "stepmill/model.h"

typedef struct stm_encoder_config {
    int32_t layers, hidden, heads, feed_forward;
    int32_t vocabulary, positions, types;
    float eps;
    stm_gelu_kind gelu;
    mill_pooling pooling;
    bool normalize;
    int32_t max_tokens;
} stm_encoder_config;

/** Read config.json and the optional files of @p dir, apply @p options, check ranges. */
mill_status stm_encoder_config_read(const char *dir, const mill_encoder_options *options, stm_encoder_config *out, mill_error *err);

#endif
