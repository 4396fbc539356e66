/* What the engine adds to stepmill/error.h. */
#ifndef STM_CORE_ERROR_H
#define STM_CORE_ERROR_H

#include "stepmill/error.h"

MILL_BEGIN_DECLS

/**
 * A failure that is known before anything has begun: `return stm_refused(mill_fail(err, ...), err, step, remedy)` gives it the
 * phase MILL_PHASE_CHECK. Returns @p st.
 * @param err     May be NULL.
 * @param step    At fault; NULL = as it stands.
 * @param remedy  What to do about it; NULL = as it stands.
 * Threads: any, one per record. Blocks: no.
 */
mill_status stm_refused(mill_status st, mill_error *err, const char *step, const char *remedy);
/** The outcome of an attempt: where @p st is a failure, @p err (may be NULL), unless it holds one, is @p why. Returns @p st.
 *  Threads: any, one per record. Blocks: no. */
mill_status stm_error_hand_on(const mill_error *why, mill_status st, mill_error *err);

MILL_END_DECLS

#endif
