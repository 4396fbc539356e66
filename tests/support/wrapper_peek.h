/* What the wrapper keeps to itself: a generator's place, for tests that go on from a cursor, and what load made. C, since its
 * struct has _Atomic. */
#pragma once
#include "wrapper/wrapper.h"

mill_cursor *mt_wrapper_cursor(stm_wrapper *w);
void *mt_wrapper_state(const stm_wrapper *w); /* mill_replica_state */
const mill_batch *mt_wrapper_held(const stm_wrapper *w); /* made one ahead; NULL = none */
