/* Numbers as text: the shortest decimals that read back to the same bits. C++17's to_chars behind C. */
#ifndef STM_BATCH_JSON_NUMBER_H
#define STM_BATCH_JSON_NUMBER_H

#include <stdint.h>

#include "stepmill/export.h"

MILL_BEGIN_DECLS

#define STM_NUMBER_BYTES 32 /* room that any of these needs at most */

/** Write @p v at @p dst and give the place behind it. Finite values only. Reals always have a point or an exponent: 3.0, 1e+30. */
char *stm_write_double(char *dst, double v);
char *stm_write_float(char *dst, float v);
char *stm_write_int(char *dst, int64_t v);

MILL_END_DECLS

#endif
