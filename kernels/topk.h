/*
 * Exact nearest neighbours and pairs above a threshold. Contract of the operations: stepmill/ops.h.
 *
 * The fast form screens with matrix products (kernels/screen.h). Per block of queries and tile of the corpus only that
 * tile's scores exist; rows that can still be among the k best are kept per query (kernels/candidates.h) and scored
 * exactly when the block has seen the whole corpus. Tolerance against the reference: none, all bits are equal.
 */
#ifndef STM_KERNELS_TOPK_H
#define STM_KERNELS_TOPK_H

#include "kernels/screen.h"
#include "stepmill/ops.h"

/** What mill_topk and mill_pairs check first. */
mill_status stm_topk_check(const mill_topk_args *a, mill_error *err);
mill_status stm_pairs_check(const mill_pairs_args *a, mill_error *err);
/** Oracles: every score, then a sort. One thread. Arguments must be valid. MILL_ERR_NOMEM. */
mill_status stm_topk_ref(const mill_topk_args *a, mill_error *err);
mill_status stm_pairs_ref(const mill_pairs_args *a, mill_error *err);
/** Fast forms; @p opts NULL = stm_screen_defaults. Arguments must be valid (mill_topk checks them). */
mill_status stm_topk_cpu(const mill_topk_args *a, const stm_screen_opts *opts, mill_error *err);
mill_status stm_pairs_cpu(const mill_pairs_args *a, const stm_screen_opts *opts, mill_error *err);

/** Whether a result with score @p sa and row @p ra stands before another: better score, then lower row. */
static inline bool stm_topk_before(float sa, int64_t ra, float sb, int64_t rb) { return sa > sb || (sa == sb && ra < rb); }

#endif
