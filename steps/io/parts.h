/* Names of the files a sink writes: one file, or parts of so many rows each. */
#ifndef STM_STEPS_IO_PARTS_H
#define STM_STEPS_IO_PARTS_H

#include <stdint.h>

#include "stepmill/export.h"

MILL_BEGIN_DECLS

/** Name of part @p part of @p path: `out/a.jsonl.gz` gives `out/a-00003.jsonl.gz`. To be freed; NULL = no memory. */
char *stm_part_name(const char *path, uint32_t part);

MILL_END_DECLS

#endif
