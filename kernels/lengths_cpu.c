#include "kernels/lengths.h"

#include <math.h>
#include <string.h>

#include "kernels/dot.h"
#include "kernels/vectors.h"

typedef double (*length_fn)(const float *a, int64_t dim);

static double length_ref(const float *a, int64_t dim)
{
    const double square = stm_dot_ref(a, a, dim);

    return isfinite(square) ? sqrt(square) : -1.0;
}

static void lengths_with(const stm_lengths_args *a, length_fn length)
{
    for (int64_t r = 0; r < a->n; r++) {
        const float *row = a->rows + r * a->dim;
        uint64_t hash = 0;

        for (int32_t i = 0; i < a->dim; i++) {
            uint32_t bits;
            memcpy(&bits, &row[i], sizeof bits);
            hash += stm_value_hash(bits, i);
        }
        a->length[r] = length(row, a->dim);
        a->hash[r] = hash;
    }
}

void stm_lengths_ref(const stm_lengths_args *a) { lengths_with(a, length_ref); }

mill_status stm_lengths_cpu(const stm_lengths_args *a)
{
    if (!stm_lengths_fits(a)) return MILL_ERR_INVALID;
    lengths_with(a, stm_length);
    return MILL_OK;
}
