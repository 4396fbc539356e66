/*
 * Selection from approximate scores: scan a row of scores against a cut, and keep what can still be among the k best.
 */
#ifndef STM_KERNELS_CANDIDATES_H
#define STM_KERNELS_CANDIDATES_H

#include "stepmill/error.h"

/** Positions p < n with s[p] >= cut, increasing, into out [n]; returns how many. A NaN is never among them. Reads no
 *  further than s[n-1]. Threads: any. */
int64_t stm_scan_above(const float *s, int64_t n, float cut, int32_t *out);
int64_t stm_scan_above_ref(const float *s, int64_t n, float cut, int32_t *out);

typedef struct stm_candidate {
    int64_t row;
    float score;
} stm_candidate;

/**
 * Candidates of one query. A row may be left out for good once k others are better by more than `margin`; so the list
 * holds every row with score >= (k-th best so far) - margin, and some more: it is cut back only when it is full, which
 * makes an append cost O(1). Caller's storage; zeroed = empty, to be given stm_candidates_reset.
 */
typedef struct stm_candidates {
    stm_candidate *items; /* owned */
    int64_t n, cap;
    float cut; /* rows with a lower score need not be added */
} stm_candidates;

/** Empty it, with room for 2 k + 64 rows. MILL_ERR_NOMEM. */
mill_status stm_candidates_reset(stm_candidates *c, int64_t k, float floor);
/** Add a row with score >= c->cut. MILL_ERR_NOMEM (then nothing changed). */
mill_status stm_candidates_add(stm_candidates *c, int64_t k, float margin, int64_t row, float score);
/** Drop what cannot be among the k best. */
void stm_candidates_cut_back(stm_candidates *c, int64_t k, float margin);
void stm_candidates_fini(stm_candidates *c);

#endif
