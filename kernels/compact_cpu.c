#include "kernels/compact.h"

mill_status stm_compact_cpu(const stm_compact_args *a)
{
    int64_t n = 0;

    if (!stm_compact_fits(a)) return MILL_ERR_INVALID;
    for (int64_t r = 0; r < a->rows;
         r++) { /* no branch: which rows are kept cannot be foretold. index[n], n <= r, is always in range */
        a->index[n] = r;
        n += a->keep[r] != 0;
    }
    *a->kept = n;
    return MILL_OK;
}
