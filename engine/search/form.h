/* Which form of the products a device's searches take (kernels/tiles.h). */
#ifndef STM_SEARCH_FORM_H
#define STM_SEARCH_FORM_H

#include "device/stream.h"
#include "kernels/kernels.h"

/**
 * The best form that has given the known answer on the device of @p stream; where the device is for a better one that has not, or
 * that lacks memory for the question, a warning in the log says so. STEPMILL_TILES in the environment decides instead: `mma` asks
 * nothing, `wgmma` insists.
 * @param pinned  Eight bytes of pinned memory.
 * @retval MILL_ERR_UNSUPPORTED  STEPMILL_TILES=wgmma, and the device is not for it or has answered wrongly.
 * @retval MILL_ERR_INVALID      STEPMILL_TILES is another word.
 * Threads: the stream's owner. Blocks: on the stream, at load.
 */
mill_status stm_form_choose(stm_stream *stream, const stm_kernels *kernels, void *pinned, stm_tiles *out, mill_error *err);

#endif
