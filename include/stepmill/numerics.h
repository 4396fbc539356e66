/* What the pipeline asks of arithmetic: `numerics: invariant | fast`. */
#ifndef STEPMILL_NUMERICS_H
#define STEPMILL_NUMERICS_H

#include "stepmill/export.h"

MILL_BEGIN_DECLS

typedef enum mill_numerics {
    MILL_NUMERICS_INVARIANT = 0, /* a row's result has the same bits in any batch, order and number of threads */
    MILL_NUMERICS_FAST = 1       /* the bits may depend on what else is in the batch */
} mill_numerics;

MILL_END_DECLS

#endif
