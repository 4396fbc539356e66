/* The checksum of gzip, zip and the manifest over bytes that are written. */
#ifndef STM_STEPS_IO_CRC32_H
#define STM_STEPS_IO_CRC32_H

#include <stddef.h>
#include <stdint.h>

#include "stepmill/status.h"

MILL_BEGIN_DECLS

/** The CRC-32 of what has the sum @p crc (0: of nothing) with @p n bytes behind it, as crc32_z of zlib tells it. Where the
 *  processor multiplies without carries, some ten times as fast. Threads: any. Blocks: no. Cannot fail. */
uint32_t stm_crc32(uint32_t crc, const void *bytes, size_t n);

MILL_END_DECLS

#endif
