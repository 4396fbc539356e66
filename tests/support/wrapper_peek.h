/* A generator's place, which the wrapper keeps to itself: for tests that go on from a cursor. C, since its struct has _Atomic. */
#pragma once
#include "wrapper/wrapper.h"

mill_cursor *mt_wrapper_cursor(stm_wrapper *w);
const mill_batch *mt_wrapper_held(const stm_wrapper *w); /* made one ahead; NULL = none */
