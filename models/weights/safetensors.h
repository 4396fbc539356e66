/*
 * safetensors: 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, then the tensors end to end.
 * Everything the header says is checked against the file before a tensor is handed out.
 */
#ifndef STM_MODELS_SAFETENSORS_H
#define STM_MODELS_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "models/weights/file.h"

#define STM_TENSOR_DIMS 8
#define STM_SAFETENSORS_HEADER_MAX ((uint64_t)100 << 20) /* bytes, as in the format's own library */

typedef enum stm_dtype { STM_DTYPE_OTHER = 0, STM_DTYPE_F32, STM_DTYPE_F16, STM_DTYPE_BF16 } stm_dtype;

typedef struct stm_tensor {
    const char *name;
    const char *dtype_name; /* as in the file */
    stm_dtype dtype;
    int32_t rank;
    int64_t shape[STM_TENSOR_DIMS];
    int64_t values;
    const void *data; /* in the mapped file; no alignment promised */
    size_t bytes;
} stm_tensor;

typedef struct stm_safetensors stm_safetensors;

/** Map and check. MILL_ERR_PARSE for anything wrong inside, naming the tensor. Threads: any; read only afterwards. */
mill_status stm_safetensors_open(const char *path, stm_safetensors **out, mill_error *err);
/** Check bytes in memory, which must stay (tests, fuzzing). */
mill_status stm_safetensors_parse(const void *data, size_t bytes, const char *name, stm_safetensors **out, mill_error *err);
void stm_safetensors_close(stm_safetensors **st);
const stm_file_id *stm_safetensors_id(const stm_safetensors *st);
size_t stm_safetensors_count(const stm_safetensors *st);
const stm_tensor *stm_safetensors_at(const stm_safetensors *st, size_t i); /* by name */
/** NULL when there is none. */
const stm_tensor *stm_safetensors_find(const stm_safetensors *st, const char *name);
/** Tensor @p name of float values with exactly this shape; the error names the file, the tensor, what is there, and
 *  the nearest name. */
mill_status stm_safetensors_need(const stm_safetensors *st, const char *name, int32_t rank, const int64_t *shape,
                                 const stm_tensor **out, mill_error *err);
/** Convert values first .. first+count-1 to f32. @p t is F32, F16 or BF16. */
void stm_tensor_read(const stm_tensor *t, int64_t first, int64_t count, float *out);

#endif
