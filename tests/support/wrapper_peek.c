#include "support/wrapper_peek.h"

#include "wrapper/replica.h"

mill_cursor *mt_wrapper_cursor(stm_wrapper *w) { return &w->cursor; }
void *mt_wrapper_state(const stm_wrapper *w) { return mill_replica_state(&w->replica); }
const mill_batch *mt_wrapper_held(const stm_wrapper *w) { return w->held; }
