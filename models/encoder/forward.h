/*
 * Documents through the layers, one thread at a time. A group of documents, laid end to end without padding, goes through
 * all layers while its activations stay in the thread's L2 cache.
 */
#ifndef STM_ENCODER_FORWARD_H
#define STM_ENCODER_FORWARD_H

#include "models/encoder/weights.h"

/** What one thread works in. */
typedef struct stm_encoder_work stm_encoder_work;

/** For groups of up to @p rows tokens. */
mill_status stm_encoder_work_create(const stm_encoder_config *c, stm_gemm_type type, int64_t rows, stm_encoder_work **out,
                                    mill_error *err);
void stm_encoder_work_destroy(stm_encoder_work **work);
/** Begin a group. */
void stm_encoder_work_reset(stm_encoder_work *work);
/** Tokens in the group, and how many it may have. */
int64_t stm_encoder_work_rows(const stm_encoder_work *work);
int64_t stm_encoder_work_docs(const stm_encoder_work *work);
/** Where the ids of the next document go: room for max_tokens of them while rows + max_tokens does not pass the limit. */
int32_t *stm_encoder_work_ids(stm_encoder_work *work);
/** The @p n ids written there become a document whose vector goes to @p out [hidden]. */
void stm_encoder_work_add(stm_encoder_work *work, int32_t n, float *out);
/** Compute the group's vectors. */
mill_status stm_encoder_forward(const stm_encoder_config *c, const stm_encoder_weights *w, stm_encoder_work *work, mill_error *err);

#endif
