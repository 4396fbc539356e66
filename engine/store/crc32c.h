/* CRC-32C (Castagnoli), as in iSCSI, ext4 and btrfs: RFC 3720, section 12.1. */
#ifndef STM_STORE_CRC32C_H
#define STM_STORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/** Checksum of @p n bytes behind those that gave @p sum (0 = none yet). By the processor's instruction where there is one. Threads:
 *  any. */
uint32_t stm_crc32c(uint32_t sum, const void *bytes, size_t n);
/** The same by tables alone, for processors without it. */
uint32_t stm_crc32c_portable(uint32_t sum, const void *bytes, size_t n);

#endif
