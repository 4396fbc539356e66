/* A tiny HTTP server on 127.0.0.1 that gives away a text: one thread, a few connections, each with a deadline. */
#ifndef STM_TRACE_SERVE_H
#define STM_TRACE_SERVE_H

#include <stdint.h>

#include "core/text.h"
#include "stepmill/error.h"

/** Fills @p out with what @p path stands for; its type of content, NULL = there is nothing. Threads: the server's. */
typedef const char *(*stm_serve_page)(const char *path, stm_text *out, void *user);

typedef struct stm_server stm_server;
/**
 * Listen on 127.0.0.1:@p port; port 0 takes any, stm_server_port says which.
 * @retval MILL_ERR_BUSY  somebody else has it. @retval MILL_ERR_NOMEM  no memory, no thread.
 */
mill_status stm_server_start(int32_t port, stm_serve_page page, void *user, stm_server **out, mill_error *err);
int32_t stm_server_port(const stm_server *s);
/** Stops the thread, drops what is open. Sets *s to NULL, accepts NULL. */
void stm_server_stop(stm_server **s);

#endif
