/* Names of the files a sink writes: one file, or parts of so many rows each. */
#ifndef STM_STEPS_IO_PARTS_H
#define STM_STEPS_IO_PARTS_H

#include <stdint.h>

#include "stepmill/export.h"

MILL_BEGIN_DECLS

/** Name of part @p part of @p path: `out/a.jsonl.gz` gives `out/a-00003.jsonl.gz`. To be freed; NULL = no memory. */
char *stm_part_name(const char *path, uint32_t part);
/** Name of the file in hand of a sink that writes @p part_rows rows to a part, or (0) all to @p path. To be freed; NULL = no
 *  memory. */
char *stm_part_path(const char *path, int64_t part_rows, uint32_t part);

MILL_END_DECLS

#endif
