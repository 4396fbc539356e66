#include "kernels/compact.h"

void stm_compact_ref(const stm_compact_args *a)
{
    *a->kept = 0;
    for (int64_t r = 0; r < a->rows; r++)
        if (a->keep[r] != 0) a->index[(*a->kept)++] = r;
}
