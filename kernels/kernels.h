/* The kernels that exist for devices, as a table per backend: the same arguments, pointers into the memory of the device, work
 * queued on a stream (cudaStream_t; NULL and done at once on cpu). */
#ifndef STM_KERNELS_KERNELS_H
#define STM_KERNELS_KERNELS_H

#include "device/device_ops.h"
#include "kernels/compact.h"
#include "kernels/gather.h"
#include "kernels/impute.h"
#include "kernels/lengths.h"
#include "kernels/linear.h"
#include "kernels/minhash.h"
#include "kernels/near_pairs.h"
#include "kernels/nearest.h"
#include "kernels/tiles.h"
#include "kernels/token_attention.h"
#include "kernels/token_ops.h"
#include "kernels/values.h"

MILL_BEGIN_DECLS

/** Grows at the end only; size and number of entries are checked when the module is opened. Every entry: MILL_OK when queued;
 *  MILL_ERR_INVALID for arguments that the contract excludes. Threads: the stream's owner. */
typedef struct stm_kernels {
    size_t struct_size;
    mill_status (*impute)(const stm_impute_args *a, void *stream);
    mill_status (*gather)(const stm_gather_args *a, void *stream);
    mill_status (*gather_bits)(const stm_gather_bits_args *a, void *stream);
    mill_status (*compact)(const stm_compact_args *a, void *stream);
    mill_status (*unit)(const stm_unit_args *a, void *stream);
    mill_status (*nearest)(const stm_nearest_args *a, void *stream);
    mill_status (*merge_ranks)(const stm_merge_ranks_args *a, void *stream);
    mill_status (*near_pairs)(const stm_near_pairs_args *a, void *stream);
    mill_status (*minhash)(const stm_minhash_args *a, void *stream);
    mill_status (*convert)(const stm_convert_args *a, void *stream);
    mill_status (*token_norm)(const stm_token_norm_args *a, void *stream);
    mill_status (*token_gelu)(const stm_token_gelu_args *a, void *stream);
    mill_status (*token_pool)(const stm_token_pool_args *a, void *stream);
    mill_status (*token_attention)(const stm_token_attention_args *a, void *stream);
    mill_status (*linear_open)(const stm_linear_opts *o, stm_linear **out, mill_error *err);
    void (*linear_close)(stm_linear **l);
    mill_status (*linear)(stm_linear *l, const stm_linear_args *a, void *stream, mill_error *err);
    mill_status (*tiles)(stm_tiles_answer *a, void *stream); /* MILL_ERR_UNSUPPORTED on cpu */
    mill_status (*lengths)(const stm_lengths_args *a, void *stream);
} stm_kernels;

extern const stm_kernels stm_kernels_cpu;
/** The table of a backend; NULL when its module is of another version. */
const stm_kernels *stm_kernels_of(const stm_device_ops *ops);

MILL_END_DECLS

#endif
