/* minhash_text: a MinHash signature for every text, on the CPU or on the GPU of its replica; deduplicate makes groups of texts
 * whose signatures are alike. */
#include <stdlib.h>
#include <string.h>

#include "stepmill/device.h"
#include "steps/builtin.h"

typedef struct settings {
    const mill_type *signature; /* fixed_list<int32>[MILL_MINHASHES] */
    int32_t width;
    uint64_t seed;
} settings;

static mill_status configure(mill_step *step, const mill_config *c, mill_io *io, mill_error *err)
{
    settings *s = calloc(1, sizeof *s);

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a step");
    mill_step_set_state(step, s, free);
    s->width = (int32_t)mill_config_int(c, "shingle");
    s->seed = (uint64_t)mill_config_int(c, "seed");
    s->signature = mill_type_fixed_list(mill_type_plain(MILL_INT32), MILL_MINHASHES);
    if (s->signature == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a column type");
    return mill_io_add(io, "signature", s->signature, NULL, err);
}

static mill_status bound(const mill_step *step, int64_t rows, int64_t bytes, mill_bound *out)
{
    (void)step;
    out->host_bytes = (size_t)rows * MILL_MINHASHES * sizeof(int32_t);
    out->device_bytes = out->host_bytes + (size_t)bytes + ((size_t)rows + 1) * sizeof(int64_t);
    return MILL_OK;
}

static bool is_text(const mill_view *v, int64_t r)
{
    const int64_t at = v->offset + r;

    return v->offsets[at + 1] > v->offsets[at] && (v->validity == NULL || (v->validity[at / 8] >> at % 8 & 1) != 0);
}

/* Null texts and empty ones have no shingles, and so no signature. NULL: all have one. */
static mill_status mark_texts(mill_pool *pool, const mill_view *v, mill_buffer **out)
{
    const size_t bytes = (size_t)(v->rows + 7) / 8;
    int64_t first = 0;
    uint8_t *bits;
    mill_status st;

    while (first < v->rows && is_text(v, first)) first++;
    if (first == v->rows) return MILL_OK;
    if ((st = mill_buffer_create(pool, bytes, out)) != MILL_OK) return st;
    bits = mill_buffer_data(*out);
    memset(bits, 0, bytes);
    for (int64_t r = 0; r < v->rows; r++) bits[r / 8] |= (uint8_t)((unsigned)is_text(v, r) << r % 8);
    return MILL_OK;
}

static mill_status sign(mill_replica *r, const settings *s, const mill_column *texts, int64_t rows, mill_column **out,
                        mill_error *err)
{
    mill_minhash_args a = MILL_MINHASH_INIT;
    mill_pool *pool = mill_replica_pool(r);
    mill_buffer *numbers = NULL, *validity = NULL;
    mill_column *child = NULL;
    mill_view v;
    mill_status st;

    if (texts == NULL) {
        st = mill_column_nulls(pool, s->signature, rows, out);
        return st == MILL_OK ? st : mill_fail(err, st, "no memory for %lld signatures", (long long)rows);
    }
    v = mill_column_view(texts);
    a.threads = mill_replica_cpus(r);
    a.width = s->width, a.seed = s->seed;
    a.bytes = v.data, a.offsets = v.offsets + v.offset, a.rows = rows;
    if ((st = mark_texts(pool, &v, &validity)) != MILL_OK)
        (void)mill_fail(err, st, "no memory for %lld signatures", (long long)rows);
    if (st == MILL_OK) st = mill_replica_minhash(r, &a, &numbers, err);
    if (st == MILL_OK)
        st = mill_column_create(pool, s->signature->fields[0].type, rows * MILL_MINHASHES, NULL, NULL, &numbers, NULL, &child, err);
    if (st == MILL_OK) st = mill_column_create(pool, s->signature, rows, &validity, NULL, NULL, &child, out, err);
    mill_column_unref(&child);
    mill_buffer_unref(&numbers);
    mill_buffer_unref(&validity);
    return st;
}

static mill_status process(mill_replica *r, mill_batch *const *in, size_t n_in, mill_emit *out, mill_error *err)
{
    const int64_t rows = mill_batch_rows(in[0]);
    mill_column *signatures = NULL;
    mill_batch *batch = NULL;
    mill_status st = sign(r, mill_step_state(mill_replica_step(r)), mill_batch_column(in[0], 0), rows, &signatures, err);

    (void)n_in;
    if (st == MILL_OK && (st = mill_batch_create(mill_replica_pool(r), rows, 1, &batch)) != MILL_OK)
        (void)mill_fail(err, st, "no memory for a batch");
    if (st == MILL_OK) st = mill_batch_set_column(batch, 0, &signatures);
    if (st == MILL_OK) st = mill_emit_batch(out, &batch, NULL, err);
    mill_column_unref(&signatures);
    mill_batch_destroy(&batch);
    return st;
}

static const mill_param params[] = {
    {"shingle", MILL_PARAM_INT, 0, "9", 1, MILL_SHINGLE_MAX, NULL,
     "bytes of a shingle: texts are as near as their sets of shingles overlap; 5 for lines, 9 for pages"},
    {"seed", MILL_PARAM_INT, 0, "0", 0, 9.0e15, NULL,
     "of the 128 hash functions: only signatures of one seed and shingle can be compared"},
};
static const mill_column_decl inputs[] = {{"text", "utf8", "bytes as they are; a null or empty text has no signature"}};

const mill_step_type stm_step_minhash_text = {
    .struct_size = sizeof(mill_step_type),
    .abi = MILL_ABI_1,
    .kind = MILL_STEP,
    .flags = MILL_PER_ROW | MILL_ON_DEVICE | MILL_INPUTS_ON_HOST,
    .name = "minhash_text",
    .summary = "A MinHash signature for every text, on the CPU or a GPU: 128 numbers, of which similar texts share many",
    .version = "1",
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .inputs = inputs,
    .n_inputs = 1,
    .configure = configure,
    .bound = bound,
    .process = process,
};
