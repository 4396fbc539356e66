/*
 * gather: rows of a column of fixed width in another order.
 *
 *     out[i] = src[index[i]]          i = 0 .. rows-1; rows of `width` bytes
 *     out[i] = zeros                  where index[i] is -1
 *
 * gather_bits: the same for one bit a row (validity, bool columns), where -1 gives a cleared bit and a NULL source counts as all
 * set; the last byte of out is padded with zeros. An index may come any number of times. Exact: no tolerance.
 */
#ifndef STM_KERNELS_GATHER_H
#define STM_KERNELS_GATHER_H

#include <stddef.h>
#include <stdint.h>

#include "stepmill/status.h"

MILL_BEGIN_DECLS

typedef struct stm_gather_args {
    const void *src;      /* [source rows][width] bytes */
    const int64_t *index; /* [rows] -1, or a row of src; not checked */
    void *out;            /* [rows][width] bytes; overlaps nothing */
    int64_t rows;         /* 0 .. 2^40 */
    int64_t width;        /* bytes: 1 .. 2^30 */
} stm_gather_args;

typedef struct stm_gather_bits_args {
    const uint8_t *src;   /* bits; NULL = all set */
    int64_t offset;       /* bits before row 0 of src; >= 0 */
    const int64_t *index; /* [rows] -1, or a row of src; not checked */
    uint8_t *out;         /* [(rows + 7) / 8] bytes; overlaps nothing */
    int64_t rows;         /* 0 .. 2^40 */
} stm_gather_bits_args;

static inline int stm_gather_fits(const stm_gather_args *a)
{
    return a->rows >= 0 && a->rows <= (int64_t)1 << 40 && a->width >= 1 && a->width <= (int64_t)1 << 30 &&
           (a->rows == 0 || (a->src != NULL && a->index != NULL && a->out != NULL));
}
static inline int stm_gather_bits_fits(const stm_gather_bits_args *a)
{
    return a->rows >= 0 && a->rows <= (int64_t)1 << 40 && a->offset >= 0 && (a->rows == 0 || (a->index != NULL && a->out != NULL));
}

void stm_gather_ref(const stm_gather_args *a);
void stm_gather_bits_ref(const stm_gather_bits_args *a);
mill_status stm_gather_cpu(const stm_gather_args *a);
mill_status stm_gather_bits_cpu(const stm_gather_bits_args *a);
mill_status stm_gather_cuda(const stm_gather_args *a, void *stream); /* in the module, as the next */
mill_status stm_gather_bits_cuda(const stm_gather_bits_args *a, void *stream);

MILL_END_DECLS

#endif
