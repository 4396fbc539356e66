/* The checksum of gzip, zip and a run's manifest. */
#ifndef STEPMILL_CRC32_H
#define STEPMILL_CRC32_H

#include <stddef.h>
#include <stdint.h>

#include "stepmill/export.h"

MILL_BEGIN_DECLS

/** CRC-32 (ISO 3309; RFC 1952, section 8: polynomial 0xEDB88320, bits reversed) of the bytes whose sum is @p crc (0 = there are
 *  none) and @p n more behind them, as mill_part.crc32 has it. @p bytes may be NULL where n is 0. Some ten times as fast as by
 *  tables where the processor multiplies without carries. Threads: any. Blocks: no. Cannot fail. */
MILL_API uint32_t mill_crc32(uint32_t crc, const void *bytes, size_t n);

MILL_END_DECLS

#endif
