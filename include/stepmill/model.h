/*
 * Models that run inside the process, for model steps: text encoders of the BERT family.
 * UNSTABLE until release 1.0: this header may change in any version, and the step ABI does not cover it.
 */
#ifndef STEPMILL_MODEL_H
#define STEPMILL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stepmill/error.h"
#include "stepmill/numerics.h"

MILL_BEGIN_DECLS

/** What matrix products compute in. Sums, norms and the vectors that come out are float32 in each. */
typedef enum mill_precision {
    MILL_PRECISION_F32 = 0,
    /* 8 times as fast on processors with AMX, cosine to f32 above 0.9999; works on all, slower without AVX512_BF16 */
    MILL_PRECISION_BF16 = 1,
    MILL_PRECISION_F16 = 2 /* on devices: as exact as f32 to 3 digits; MILL_ERR_UNSUPPORTED on the CPU */
} mill_precision;

typedef enum mill_pooling { MILL_POOLING_AUTO = 0, MILL_POOLING_MEAN = 1, MILL_POOLING_CLS = 2 } mill_pooling;
typedef enum mill_choice { MILL_AUTO = 0, MILL_YES = 1, MILL_NO = 2 } mill_choice;

/** How to open an encoder. Initialise with MILL_ENCODER_INIT. */
typedef struct mill_encoder_options {
    size_t struct_size;
    int32_t precision;             /* mill_precision */
    int32_t max_tokens;            /* texts are cut to so many, special ones included; 0 = what the model's files say */
    int32_t pooling;               /* mill_pooling; auto = what the model's files say, else the mean */
    int32_t normalize;             /* mill_choice, to length 1; auto = what the model's files say, else not */
    int32_t threads;               /* host threads that work on one call, the caller's included; < 1 means 1 */
    bool (*cancelled)(void *user); /* asked now and then, from any of the threads; NULL = never */
    void *user;
    int32_t numerics;      /* mill_numerics */
    int32_t device_tokens; /* tokens that go through a device together, at most; 0 = MILL_ENCODER_DEVICE_TOKENS */
    void *queue;           /* mill_replica_device.queue: compute there; NULL = on the CPU. Outlives the encoder */
} mill_encoder_options;
#define MILL_ENCODER_DEVICE_TOKENS 16384
#define MILL_ENCODER_INIT                                                                                                          \
    {                                                                                                                              \
        sizeof(mill_encoder_options), MILL_PRECISION_F32, 0, MILL_POOLING_AUTO, MILL_AUTO, 1, NULL, NULL, MILL_NUMERICS_INVARIANT, \
            0, NULL                                                                                                                \
    }

typedef struct mill_encoder_info {
    int32_t dim;        /* floats of a vector */
    int32_t max_tokens; /* in force */
    int32_t layers, heads, vocabulary, positions;
    int32_t pooling; /* in force: mean or cls */
    bool normalize;  /* in force */
    int64_t parameters;
    int32_t numerics; /* as asked; on the CPU both give the same bits */
    /* with these options on a device, whether it is opened there or not */
    int64_t device_weights_bytes; /* shared by the encoders of one device that have the same file and precision */
    int64_t device_work_bytes;    /* of each encoder */
} mill_encoder_info;

/**
 * Check a model folder without loading weights: its configuration files, tokenizer, and every tensor's name, type, shape and
 * place in the file. The folder is as sentence-transformers writes it: config.json, model.safetensors, tokenizer.json or
 * vocab.txt; optional modules.json, 1_Pooling/config.json, sentence_bert_config.json.
 * @param info  May be NULL. Untouched on failure.
 * @retval MILL_ERR_NOT_FOUND    the folder, a file or a tensor does not exist (the error names the nearest tensor).
 * @retval MILL_ERR_PARSE        a file is damaged or cut short.
 * @retval MILL_ERR_INVALID      shapes that do not fit together, or an option out of range.
 * @retval MILL_ERR_TYPE         a tensor is not of F32, F16 or BF16.
 * @retval MILL_ERR_UNSUPPORTED  another kind of model or tokenizer, or a precision that the CPU does not do.
 * Threads: any. Blocks: on reading files.
 */
MILL_API mill_status mill_encoder_check(const char *dir, const mill_encoder_options *options, mill_encoder_info *info,
                                        mill_error *err);

/** An open encoder. Its weights are shared by all encoders of the process (of the device) that have the same file and precision. */
typedef struct mill_encoder mill_encoder;
/** Open @p dir (see mill_encoder_check). @p out is owned by the caller (mill_encoder_close), untouched on failure.
 *  @retval MILL_ERR_NOMEM, MILL_ERR_DEVICE_MEM  no room for the weights, on the host or on the device; besides, what
 *                                               mill_encoder_check gives.
 *  Threads: any; with a queue, its owner. Blocks: on reading files, and while another thread loads a model. */
MILL_API mill_status mill_encoder_open(const char *dir, const mill_encoder_options *options, mill_encoder **out, mill_error *err);
/** Release it; sets *enc to NULL, accepts NULL. Threads: any, not during mill_encoder_run or _queue. Blocks: joins its threads,
 *  waits for what it queued. Cannot fail. */
MILL_API void mill_encoder_close(mill_encoder **enc);
/** Threads: any. Blocks: no. */
MILL_API mill_encoder_info mill_encoder_info_of(const mill_encoder *enc);

/** Texts in Arrow's layout: text r is bytes offsets[offset + r] .. offsets[offset + r + 1] of data (UTF-8), r < rows. */
typedef struct mill_texts {
    const char *data;
    const int64_t *offsets;
    const uint8_t *validity; /* bit offset + r set = present; NULL = all are */
    int64_t offset, rows;
} mill_texts;

/**
 * One vector per text into out [rows][dim] on the host; zeros for a text that is absent. On the CPU, whatever `numerics` says, the
 * bits of a vector depend on its text, the model, the precision and the processor's instruction set only: not on the other texts,
 * their order, or the number of threads. On a device the same holds with MILL_NUMERICS_INVARIANT (of the device's kind and its
 * libraries instead of the processor). Allocates nothing after the first calls.
 * @retval MILL_ERR_NOMEM    out of memory (first calls only).
 * @retval MILL_ERR_STOPPED  cancelled() said so; out is undefined.
 * Threads: one call at a time on an encoder. Blocks: computes.
 */
MILL_API mill_status mill_encoder_run(mill_encoder *enc, const mill_texts *texts, float *out, mill_error *err);
/**
 * The same on a device, not waited for: @p out [rows][dim] is memory of the device, there once what is queued on the stream now is
 * done. The texts are on the host and are read before it returns. To be called from the thread that owns the stream, which also
 * raises its marks: inside `process` of a step the engine does.
 * @retval MILL_ERR_UNSUPPORTED  the encoder computes on the CPU.
 * @retval MILL_ERR_AGAIN        calls before it are not done: return it, the engine calls again then.
 * @retval MILL_ERR_STOPPED      cancelled() said so.
 * Threads: one call at a time on an encoder. Blocks: no; it tokenises.
 */
MILL_API mill_status mill_encoder_queue(mill_encoder *enc, const mill_texts *texts, float *out, mill_error *err);

MILL_END_DECLS

#endif
