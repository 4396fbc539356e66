#include "support/wrapper_peek.h"

#include "wrapper/replica.h"

mill_cursor *mt_wrapper_cursor(stm_wrapper *w) { return &w->cursor; }
const mill_batch *mt_wrapper_held(const stm_wrapper *w) { return w->held; }
