/* What a verified Arrow message must have besides, before it is decoded. */
#ifndef STM_BATCH_IPC_CHECK_H
#define STM_BATCH_IPC_CHECK_H

#include "stepmill/type.h"

/**
 * The flatbuffer verifier makes sure that everything lies inside the message, not that what is needed is there: an absent
 * table or string is a null pointer to the decoder, and lengths may be any number. This looks at all of them.
 * @param message  The message's flatbuffer, verified.
 * @param schema   Of the stream; NULL before it is known (then record batches are refused).
 * @retval MILL_ERR_PARSE, MILL_ERR_UNSUPPORTED
 */
mill_status stm_ipc_check(const void *message, const mill_type *schema, mill_error *err);
/** Sizes that a compressed batch says of its buffers, which lie in its body: allocated before anything is unpacked, so not believed
 *  beyond what zstd can pack. @p message: one that stm_ipc_check let through. */
mill_status stm_ipc_check_body(const void *message, const uint8_t *body, mill_error *err);

#endif
