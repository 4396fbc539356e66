/*
 * Weights of an encoder on a device: uploaded once per device, file, configuration and type, shared by all encoders there.
 *
 * Matrices are of the type of the products, in rows of whole 16 bytes with zeros behind the last column; vectors that kernels of
 * ours read are f32, those that the products' epilogues read are of the products' type. Queries, keys and values are one matrix.
 * The row of token type 0 is added to the positions.
 */
#ifndef STM_ENCODER_DEVICE_WEIGHTS_H
#define STM_ENCODER_DEVICE_WEIGHTS_H

#include "device/stream.h"
#include "kernels/values.h"
#include "models/encoder/config.h"
#include "models/encoder/shared.h"
#include "models/weights/file.h"

typedef struct stm_device_norm {
    float *gain, *shift; /* [hidden] */
} stm_device_norm;

typedef struct stm_device_layer {
    void *qkv, *qkv_bias;           /* [3 hidden][ld], [3 hidden] */
    void *output, *up, *down;       /* [hidden][ld], [feed_forward][ld], [hidden][ld_wide] */
    float *output_bias, *down_bias; /* [hidden]; added with the residual */
    void *up_bias;                  /* [feed_forward], where the product does GELU */
    float *up_bias_f32;             /* [feed_forward], where a kernel of ours does */
    stm_device_norm attention_norm, output_norm;
} stm_device_layer;

/** Read only once made. */
typedef struct stm_device_weights {
    stm_shared shared; /* first */
    stm_real type;
    stm_encoder_config config;
    int64_t ld, ld_wide; /* strides of hidden and of feed_forward values */
    bool gelu_in_product;
    void *words, *positions; /* [..][ld] */
    stm_device_norm embedding_norm;
    stm_device_layer *layers; /* host memory */
    int64_t parameters;
    size_t bytes; /* on the device */
    stm_device *device; /* a reference */
    void *memory;
    stm_file_id file;
} stm_device_weights;

/** Stride of rows of @p n values: whole 16 bytes in any type. */
static inline int64_t stm_device_stride(int64_t n) { return (n + 7) / 8 * 8; }

/** A reference to the weights of @p path on the stream's device; waits for the stream where they must be uploaded.
 *  Threads: any; the stream's owner. Blocks: on reading, and while another thread uploads. */
mill_status stm_device_weights_get(const char *path, const stm_encoder_config *c, stm_real type, stm_stream *stream,
                                   stm_device_weights **out, mill_error *err);
/** Drop it: no work that reads them is queued any more. Sets *w to NULL, accepts NULL. */
void stm_device_weights_put(stm_device_weights **w);

#endif
