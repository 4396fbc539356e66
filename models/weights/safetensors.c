#include "models/weights/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/text.h"
#include "kernels/bf16.h"
#include "models/json.h"

struct stm_safetensors {
    stm_file file; /* zeroed when parsed from memory */
    char *name;
    stm_json *header; /* owns the names */
    stm_tensor *tensors;
    size_t n, cap;
};

/* Sizes of the format's types in bits; those we cannot compute with are still checked. */
static const struct {
    const char *name;
    int bits;
    stm_dtype dtype;
} types[] = {
    {"F32", 32, STM_DTYPE_F32},
    {"F16", 16, STM_DTYPE_F16},
    {"BF16", 16, STM_DTYPE_BF16},
    {"F64", 64, 0},
    {"I64", 64, 0},
    {"U64", 64, 0},
    {"I32", 32, 0},
    {"U32", 32, 0},
    {"I16", 16, 0},
    {"U16", 16, 0},
    {"I8", 8, 0},
    {"U8", 8, 0},
    {"BOOL", 8, 0},
    {"F8_E5M2", 8, 0},
    {"F8_E4M3", 8, 0},
    {"F8_E8M0", 8, 0},
    {"C64", 64, 0},
};

typedef struct header_state {
    stm_safetensors *st;
    const char *data;
    uint64_t bytes; /* of data */
    int32_t dim;
    stm_tensor *tensor;
    mill_error *err;
    mill_status status;
} header_state;

static bool read_dim(void *user, const char *key, size_t key_bytes, stm_json_value v)
{
    header_state *h = user;
    const int64_t size = stm_json_int(v, -1);

    (void)key, (void)key_bytes;
    if (size < 0 || h->dim == STM_TENSOR_DIMS || __builtin_mul_overflow(h->tensor->values, size, &h->tensor->values)) {
        h->status = MILL_ERR_PARSE;
        return false;
    }
    h->tensor->shape[h->dim++] = size;
    return true;
}

typedef struct range {
    int64_t ends[2];
    int n;
} range;

static bool read_end(void *user, const char *key, size_t key_bytes, stm_json_value v)
{
    range *r = user;

    (void)key, (void)key_bytes;
    if (r->n < 2) r->ends[r->n] = stm_json_int(v, -1);
    return ++r->n <= 2;
}

static bool fault(header_state *h, const char *tensor, const char *what)
{
    h->status = mill_fail(h->err, MILL_ERR_PARSE, "%s: tensor %s %s", h->st->name, tensor, what);
    return false;
}

static bool read_tensor(void *user, const char *key, size_t key_bytes, stm_json_value v)
{
    header_state *h = user;
    stm_safetensors *st = h->st;
    const char *dtype = stm_json_text(stm_json_get(v, "dtype"), NULL);
    const stm_json_value shape = stm_json_get(v, "shape"), offsets = stm_json_get(v, "data_offsets");
    range r = {{-1, -1}, 0};
    stm_tensor t = {0};
    char text[160];
    int bits = 0;
    int64_t need;

    if (strcmp(key, "__metadata__") == 0) return true;
    if (strlen(key) != key_bytes || key_bytes == 0) return fault(h, key, "has an unusable name");
    if (dtype == NULL || stm_json_kind_of(shape) != STM_JSON_ARRAY || stm_json_kind_of(offsets) != STM_JSON_ARRAY)
        return fault(h, key, "lacks dtype, shape or data_offsets");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(dtype, types[i].name) == 0) bits = types[i].bits, t.dtype = types[i].dtype;
    if (bits == 0) {
        snprintf(text, sizeof text, "has dtype %.40s, which this format does not know", dtype);
        return fault(h, key, text);
    }
    t.name = key, t.dtype_name = dtype, t.values = 1;
    h->tensor = &t, h->dim = 0;
    if (!stm_json_each(shape, read_dim, h)) return fault(h, key, "has an impossible shape");
    t.rank = h->dim;
    if (!stm_json_each(offsets, read_end, &r) || r.n != 2 || r.ends[0] < 0 || r.ends[1] < r.ends[0])
        return fault(h, key, "has impossible data_offsets");
    if (__builtin_mul_overflow(t.values, (int64_t)(bits / 8), &need)) return fault(h, key, "has an impossible shape");
    if ((uint64_t)r.ends[1] > h->bytes) {
        snprintf(text, sizeof text, "ends at byte %lld of the data, but the file has only %llu: it is truncated",
                 (long long)r.ends[1], (unsigned long long)h->bytes);
        return fault(h, key, text);
    }
    if (r.ends[1] - r.ends[0] != need) {
        snprintf(text, sizeof text, "has %lld bytes where its dtype %s and shape need %lld", (long long)(r.ends[1] - r.ends[0]),
                 dtype, (long long)need);
        return fault(h, key, text);
    }
    t.data = h->data + r.ends[0], t.bytes = (size_t)need;
    if (stm_grow(&st->tensors, &st->cap, st->n + 1, sizeof *st->tensors) != 0) {
        h->status = mill_fail(h->err, MILL_ERR_NOMEM, "no memory to read %s", st->name);
        return false;
    }
    st->tensors[st->n++] = t;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const stm_tensor *x = a, *y = b;

    if (x->data != y->data) return (const char *)x->data < (const char *)y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b) { return strcmp(((const stm_tensor *)a)->name, ((const stm_tensor *)b)->name); }

/* Tensors cover the data exactly: no overlap (two names for the same bytes hide a damaged header), no gap, nothing after. */
static mill_status check_cover(stm_safetensors *st, const char *data, uint64_t bytes, mill_error *err)
{
    const char *end = data;

    if (st->n > 1) qsort(st->tensors, st->n, sizeof *st->tensors, by_place); /* qsort takes no NULL */
    for (size_t i = 0; i < st->n; i++) {
        const stm_tensor *t = &st->tensors[i];
        if ((const char *)t->data < end)
            return mill_fail(err, MILL_ERR_PARSE, "%s: tensors %s and %s overlap", st->name, st->tensors[i - 1].name, t->name);
        if ((const char *)t->data > end)
            return mill_fail(err, MILL_ERR_PARSE, "%s: %lld bytes before tensor %s belong to no tensor", st->name,
                             (long long)((const char *)t->data - end), t->name);
        end += t->bytes;
    }
    if (end != data + bytes)
        return mill_fail(err, MILL_ERR_PARSE, "%s: %lld bytes after the last tensor", st->name, (long long)(data + bytes - end));
    if (st->n > 1) qsort(st->tensors, st->n, sizeof *st->tensors, by_name);
    for (size_t i = 1; i < st->n; i++)
        if (by_name(&st->tensors[i - 1], &st->tensors[i]) == 0)
            return mill_fail(err, MILL_ERR_PARSE, "%s: tensor %s stands twice in the header", st->name, st->tensors[i].name);
    return MILL_OK;
}

static mill_status read_header(stm_safetensors *st, const void *data, size_t bytes, mill_error *err)
{
    const char *text;
    header_state h = {.st = st, .err = err};
    uint64_t length = 0;
    mill_status status;

    if (bytes < 8) return mill_fail(err, MILL_ERR_PARSE, "%s: %zu bytes are too few for a safetensors file", st->name, bytes);
    text = (const char *)data + 8;
    for (int i = 7; i >= 0; i--) length = length << 8 | ((const uint8_t *)data)[i];
    if (length > STM_SAFETENSORS_HEADER_MAX || length < 2 || (bytes > 8 && text[0] != '{'))
        return mill_fail(err, MILL_ERR_PARSE, "%s is not a safetensors file", st->name);
    if (length > bytes - 8)
        return mill_fail(err, MILL_ERR_PARSE, "%s: the header has %llu bytes, but the file only %zu: it is truncated", st->name,
                         (unsigned long long)length, bytes);
    if ((status = stm_json_parse(text, (size_t)length, st->name, &st->header, err)) != MILL_OK) return status;
    h.data = text + length, h.bytes = bytes - 8 - length;
    if (stm_json_kind_of(stm_json_root(st->header)) != STM_JSON_OBJECT)
        return mill_fail(err, MILL_ERR_PARSE, "%s is not a safetensors file", st->name);
    if (!stm_json_each(stm_json_root(st->header), read_tensor, &h)) return h.status;
    return check_cover(st, h.data, h.bytes, err);
}

static stm_safetensors *create(const char *name, mill_error *err)
{
    stm_safetensors *st = stm_calloc(sizeof *st);

    if (st != NULL && (st->name = stm_strdup(name)) != NULL) return st;
    stm_free(st);
    (void)mill_fail(err, MILL_ERR_NOMEM, "no memory to read %s", name);
    return NULL;
}

mill_status stm_safetensors_parse(const void *data, size_t bytes, const char *name, stm_safetensors **out, mill_error *err)
{
    stm_safetensors *st = create(name, err);
    mill_status status;

    if (st == NULL) return MILL_ERR_NOMEM;
    if ((status = read_header(st, data, bytes, err)) != MILL_OK)
        stm_safetensors_close(&st);
    else
        *out = st;
    return status;
}

mill_status stm_safetensors_open(const char *path, stm_safetensors **out, mill_error *err)
{
    stm_safetensors *st = create(path, err);
    mill_status status;

    if (st == NULL) return MILL_ERR_NOMEM;
    status = stm_file_map(path, &st->file, false, err);
    if (status == MILL_OK) status = read_header(st, st->file.data, st->file.bytes, err);
    if (status != MILL_OK)
        stm_safetensors_close(&st);
    else
        *out = st;
    return status;
}

void stm_safetensors_close(stm_safetensors **st)
{
    if (*st == NULL) return;
    stm_file_unmap(&(*st)->file);
    stm_json_close(&(*st)->header);
    stm_free((*st)->tensors);
    stm_free((*st)->name);
    stm_free(*st);
    *st = NULL;
}

const stm_file_id *stm_safetensors_id(const stm_safetensors *st) { return &st->file.id; }
size_t stm_safetensors_count(const stm_safetensors *st) { return st->n; }
const stm_tensor *stm_safetensors_at(const stm_safetensors *st, size_t i) { return &st->tensors[i]; }

const stm_tensor *stm_safetensors_find(const stm_safetensors *st, const char *name)
{
    const stm_tensor key = {.name = name};

    return st->n == 0 ? NULL : bsearch(&key, st->tensors, st->n, sizeof key, by_name);
}

static void show_shape(int32_t rank, const int64_t *shape, char *buf, size_t size)
{
    size_t used = (size_t)snprintf(buf, size, "[");

    for (int32_t i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(buf + used, size - used, i == 0 ? "%lld" : ", %lld", (long long)shape[i]);
    if (used < size) snprintf(buf + used, size - used, "]");
}

static mill_status missing(const stm_safetensors *st, const char *name, mill_error *err)
{
    const char **names = stm_malloc(st->n * sizeof *names), *near = NULL;

    for (size_t i = 0; names != NULL && i < st->n; i++) names[i] = st->tensors[i].name;
    if (names != NULL) near = stm_nearest(name, names, st->n);
    stm_free(names);
    if (near == NULL) return mill_fail(err, MILL_ERR_NOT_FOUND, "%s has no tensor %s", st->name, name);
    return mill_fail(err, MILL_ERR_NOT_FOUND, "%s has no tensor %s; the nearest is %s", st->name, name, near);
}

mill_status stm_safetensors_need(const stm_safetensors *st, const char *name, int32_t rank, const int64_t *shape,
                                 const stm_tensor **out, mill_error *err)
{
    const stm_tensor *t = stm_safetensors_find(st, name);
    char want[96], found[96];

    if (t == NULL) return missing(st, name, err);
    if (t->rank != rank || memcmp(t->shape, shape, (size_t)rank * sizeof *shape) != 0) {
        show_shape(rank, shape, want, sizeof want);
        show_shape(t->rank, t->shape, found, sizeof found);
        return mill_fail(err, MILL_ERR_INVALID, "%s: tensor %s has shape %s, expected %s", st->name, name, found, want);
    }
    if (t->dtype == STM_DTYPE_OTHER)
        return mill_fail(err, MILL_ERR_TYPE, "%s: tensor %s has dtype %s, expected F32, F16 or BF16", st->name, name,
                         t->dtype_name);
    *out = t;
    return MILL_OK;
}

/* Bits of a half as a float; exact for every value. */
static float from_half(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 0x1fu, fraction = h & 0x3ffu;
    uint32_t u;
    float v;

    if (exponent == 0) { /* zero and denormals: fraction * 2^-24 */
        v = (float)fraction * 0x1p-24f;
        return sign != 0 ? -v : v;
    }
    u = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    memcpy(&v, &u, sizeof v);
    return v;
}

void stm_tensor_read(const stm_tensor *t, int64_t first, int64_t count, float *out)
{
    const char *src = (const char *)t->data + first * (t->dtype == STM_DTYPE_F32 ? 4 : 2);
    uint16_t h;

    if (t->dtype == STM_DTYPE_F32) {
        memcpy(out, src, (size_t)count * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        memcpy(&h, src + 2 * i, sizeof h); /* the file promises no alignment */
        out[i] = t->dtype == STM_DTYPE_BF16 ? stm_bf16_to(h) : from_half(h);
    }
}
