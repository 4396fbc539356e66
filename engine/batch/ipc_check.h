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

#endif
