/*
 * linear: out = act(x w^T + bias), a layer of a network on a device, by cuBLASLt, which is opened when the first one is made.
 *
 *     x [m][k], w [n][k], out [m][n], all of one type, sums in f32
 *
 * How a product is computed is chosen once for each shape and kept, for the STM_LINEAR_PLANS shapes used last. With `invariant` the
 * choice is made for n, k and the kind of product alone, once for all m (and for products that sum k in one piece, without
 * scratch): then the bits of a row of out depend on that row of x and on w only, not on m. Without, each m has a choice of its own,
 * and may use the workspace.
 *
 * Tolerance: k * 2^-24 * the sum of |x w|, and half a unit of the type.
 */
#ifndef STM_KERNELS_LINEAR_H
#define STM_KERNELS_LINEAR_H

#include <stdbool.h>

#include "kernels/values.h"
#include "stepmill/error.h"

MILL_BEGIN_DECLS

#define STM_LINEAR_PLANS 64

typedef enum stm_linear_act {
    STM_LINEAR_PLAIN = 0,
    STM_LINEAR_GELU_TANH = 1 /* of f32 sums; differs from the one with erf by at most 5e-4 */
} stm_linear_act;

/** What products of one stream on one device share. */
typedef struct stm_linear stm_linear;

typedef struct stm_linear_opts {
    bool invariant;
    void *workspace; /* device memory, aligned to 256 bytes; outlives it; NULL = none */
    size_t workspace_bytes;
} stm_linear_opts;

typedef struct stm_linear_args {
    const void *x, *w; /* [m][ldx], [n][ldw]; pointers are aligned to 16 bytes, as out and bias */
    const void *bias;  /* [n], of `type`; NULL = none */
    void *out;         /* [m][ldo]; overlaps nothing */
    stm_real type;
    stm_linear_act act;
    int64_t m, n, k; /* m 0 .. 2^31 - 1; n, k 1 .. 2^31 - 1 */
    int64_t ldx, ldw, ldo;
} stm_linear_args;

static inline int stm_linear_fits(const stm_linear_args *a)
{
    const int64_t most = INT32_MAX;

    return stm_real_known(a->type) && (a->act == STM_LINEAR_PLAIN || a->act == STM_LINEAR_GELU_TANH) && a->m >= 0 && a->m <= most &&
           a->n >= 1 && a->n <= most && a->k >= 1 && a->k <= most && a->ldx >= a->k && a->ldw >= a->k && a->ldo >= a->n &&
           (a->m == 0 || (a->x != NULL && a->w != NULL && a->out != NULL)) &&
           (((uintptr_t)a->x | (uintptr_t)a->w | (uintptr_t)a->out | (uintptr_t)a->bias) % 16) == 0;
}

/** On the device that the calling thread has entered. MILL_ERR_UNSUPPORTED: cuBLASLt is nowhere. Threads: any; then one owner. */
mill_status stm_linear_open_cuda(const stm_linear_opts *o, stm_linear **out, mill_error *err); /* in the module, as the next two */
/** All work queued is done. Sets *l to NULL, accepts NULL. */
void stm_linear_close_cuda(stm_linear **l);
/** MILL_ERR_UNSUPPORTED: the library does not compute such a product. Threads: owner. Blocks: no. */
mill_status stm_linear_cuda(stm_linear *l, const stm_linear_args *a, void *stream, mill_error *err);

/** Oracle: sums in double; the host's form, too. */
void stm_linear_ref(const stm_linear_args *a);
mill_status stm_linear_open_cpu(const stm_linear_opts *o, stm_linear **out, mill_error *err);
void stm_linear_close_cpu(stm_linear **l);
mill_status stm_linear_cpu(stm_linear *l, const stm_linear_args *a, void *stream, mill_error *err);

MILL_END_DECLS

#endif
