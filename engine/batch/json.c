#include "stepmill/json.h"

#include <math.h>
#include <string.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "batch/json_number.h"
#include "core/alloc.h"

#define CHUNK 4096 /* bytes of a string between looks at the room left */

#define SLACK 64   /* bytes that may be scribbled on behind what a copy in blocks wrote */

typedef struct key_text { /* `,"name":` */
    char *text; /* SLACK bytes readable behind it */
    size_t bytes;
} key_text;

struct mill_json_writer {
    key_text *keys;   /* [n] */
    mill_view *views; /* [n]; type NULL = the batch does not have the column */
    int32_t n;
    uint32_t flags;
    bool first; /* no key on this line yet */
    size_t row_bytes; /* room for all keys and all values that are no text or list */
    char *data;
    size_t bytes, cap;
};

static bool reserve(mill_json_writer *w, size_t more)
{
    if (w->cap - w->bytes >= more) return true;
    size_t cap = w->cap < 4096 ? 4096 : w->cap;
    while (cap - w->bytes < more) cap *= 2;
    char *p = stm_realloc(w->data, cap);
    if (p == NULL) return false;
    w->data = p;
    w->cap = cap;
    return true;
}

static bool put(mill_json_writer *w, const char *text, size_t n)
{
    if (!reserve(w, n)) return false;
    if (n != 0) memcpy(w->data + w->bytes, text, n); /* an empty text may have no address */
    w->bytes += n;
    return true;
}

/* n bytes in blocks of 16: SLACK bytes of room at d, and as many readable at s, behind the end. */
static char *copy_blocks(char *d, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i += 16) memcpy(d + i, s + i, 16);
    return d + n;
}

static bool put_char(mill_json_writer *w, char c) { return put(w, &c, 1); }

/* ---- strings --------------------------------------------------------------------------------------------------- */

/* Length of the well-formed character at s, n >= 1 bytes there; 0 = malformed. */
static size_t utf8_length(const uint8_t *s, size_t n)
{
    const uint8_t c = s[0];
    const size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

    if (len == 0 || len > n) return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if ((c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] >= 0xa0) || (c == 0xf0 && s[1] < 0x90) || (c == 0xf4 && s[1] >= 0x90))
        return 0;
    return len;
}

static char *escape(char *d, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";
    char short_form;

    switch (c) {
    case '"': short_form = '"'; break;
    case '\\': short_form = '\\'; break;
    case '\n': short_form = 'n'; break;
    case '\r': short_form = 'r'; break;
    case '\t': short_form = 't'; break;
    case '\b': short_form = 'b'; break;
    case '\f': short_form = 'f'; break;
    default:
        memcpy(d, "\\u00", 4);
        d[4] = hex[c >> 4];
        d[5] = hex[c & 15];
        return d + 6;
    }
    *d++ = '\\';
    *d++ = short_form;
    return d;
}

/* Bytes that need no look: eight at a time, the high bit of each byte of the result says "stop here". */
static uint64_t needs_care(uint64_t x)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    const uint64_t quote = x ^ (ones * '"'), slash = x ^ (ones * '\\');
    return ((x - ones * 0x20) | (quote - ones) | (slash - ones) | x) & high;
}

#ifdef __SSE2__
/* copy_plain in blocks of 64 bytes, the last one, which may not be readable to its end, too. */
__attribute__((target("avx512f,avx512bw"))) static char *copy_plain_wide(char *d, const uint8_t **sp, const uint8_t *end)
{
    const __m512i space = _mm512_set1_epi8(' '), quote = _mm512_set1_epi8('"'), slash = _mm512_set1_epi8('\\');
    const uint8_t *s = *sp;

    while (s < end) {
        const size_t n = end - s < 64 ? (size_t)(end - s) : 64;
        const __mmask64 there = ~(__mmask64)0 >> (64 - n);
        const __m512i v = _mm512_maskz_loadu_epi8(there, s);
        /* signed, as below */
        const __mmask64 bad =
            there & (_mm512_cmplt_epi8_mask(v, space) | _mm512_cmpeq_epi8_mask(v, quote) | _mm512_cmpeq_epi8_mask(v, slash));
        const size_t plain = bad != 0 ? (size_t)__builtin_ctzll(bad) : n;
        _mm512_storeu_si512(d, v);
        s += plain;
        d += plain;
        if (bad != 0) break;
    }
    *sp = s;
    return d;
}
#endif

/* Copy the plain ASCII at *s to d; whole blocks are copied, so SLACK bytes of room are needed behind. */
static char *copy_plain(char *d, const uint8_t **sp, const uint8_t *end)
{
    const uint8_t *s = *sp;

#ifdef __SSE2__
    if (end - s >= 32 && __builtin_cpu_supports("avx512bw")) return copy_plain_wide(d, sp, end);
    while (end - s >= 16) {
        const __m128i v = _mm_loadu_si128((const __m128i *)s);
        /* signed: below ' ' are the control characters and everything from 0x80 up */
        const __m128i bad =
            _mm_or_si128(_mm_cmplt_epi8(v, _mm_set1_epi8(' ')),
                         _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))));
        const unsigned hit = (unsigned)_mm_movemask_epi8(bad);
        _mm_storeu_si128((__m128i *)d, v);
        if (hit != 0) {
            const int n = __builtin_ctz(hit);
            *sp = s + n;
            return d + n;
        }
        s += 16;
        d += 16;
    }
#endif
    while (end - s >= 8) {
        uint64_t x;
        memcpy(&x, s, 8);
        if (needs_care(x) != 0) break; /* a borrow can flag a byte too many, never one too few */
        memcpy(d, &x, 8);
        s += 8;
        d += 8;
    }
    while (s < end && *s >= 0x20 && *s < 0x80 && *s != '"' && *s != '\\') *d++ = (char)*s++;
    *sp = s;
    return d;
}

/* The text at s, escaped, at d, which has room for six times its length and SLACK. `end`: the whole text's, since a
 * character may reach over `stop`; moves *sp behind what was written. */
static char *write_text(char *d, const uint8_t **sp, const uint8_t *stop, const uint8_t *end)
{
    const uint8_t *s = *sp;

    for (;;) {
        d = copy_plain(d, &s, stop);
        if (s >= stop) break;
        if (*s >= 0x80) {
            const size_t n = utf8_length(s, (size_t)(end - s));
            if (n == 0) {
                memcpy(d, "\xef\xbf\xbd", 3);
                d += 3;
                s++;
            } else {
                memcpy(d, s, n);
                d += n;
                s += n;
            }
        } else {
            d = escape(d, *s++);
        }
    }
    *sp = s;
    return d;
}

static bool put_string(mill_json_writer *w, const char *text, int64_t bytes)
{
    const uint8_t *s = (const uint8_t *)text, *const end = s + bytes;

    if (!put_char(w, '"')) return false;
    while (s < end) {
        /* Nothing grows by more than six: room for a chunk at a time, so that a huge text does not ask for six times
         * its size. */
        const uint8_t *const stop = end - s > CHUNK ? s + CHUNK : end;
        if (!reserve(w, 6 * (size_t)(stop - s) + SLACK)) return false;
        w->bytes = (size_t)(write_text(w->data + w->bytes, &s, stop, end) - w->data);
    }
    return put_char(w, '"');
}

static bool put_json(mill_json_writer *w, const char *text, int64_t bytes)
{
    if (bytes == 0) return put(w, "null", 4);
    const size_t at = w->bytes;
    if (!put(w, text, (size_t)bytes)) return false;
    /* One row, one line: a newline in valid JSON is white space. */
    char *p = w->data + at, *const end = p + bytes;
    while ((p = memchr(p, '\n', (size_t)(end - p))) != NULL) *p++ = ' ';
    return true;
}

static bool put_base64(mill_json_writer *w, const char *text, int64_t bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *s = (const uint8_t *)text;

    if (!reserve(w, (size_t)(bytes + 2) / 3 * 4 + 2)) return false;
    char *d = w->data + w->bytes;
    *d++ = '"';
    for (; bytes > 0; bytes -= 3, s += 3) {
        const uint32_t v = (uint32_t)s[0] << 16 | (bytes > 1 ? (uint32_t)s[1] << 8 : 0) | (bytes > 2 ? s[2] : 0);
        *d++ = digits[v >> 18];
        *d++ = digits[v >> 12 & 63];
        *d++ = bytes > 1 ? digits[v >> 6 & 63] : '=';
        *d++ = bytes > 2 ? digits[v & 63] : '=';
    }
    *d++ = '"';
    w->bytes = (size_t)(d - w->data);
    return true;
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

static float from_half(uint16_t h)
{
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    float v;

    if (exponent == 31) v = fraction ? NAN : INFINITY;
    else if (exponent == 0) v = ldexpf((float)fraction, -24);
    else v = ldexpf((float)(fraction + 1024), exponent - 25);
    return h & 0x8000 ? -v : v;
}

static bool put_real(mill_json_writer *w, double v, bool wide)
{
    if (!isfinite(v)) return put(w, "null", 4);
    if (!reserve(w, STM_NUMBER_BYTES)) return false;
    char *d = w->data + w->bytes;
    d = wide ? stm_write_double(d, v) : stm_write_float(d, (float)v);
    w->bytes = (size_t)(d - w->data);
    return true;
}

static bool put_whole(mill_json_writer *w, int64_t v)
{
    if (!reserve(w, STM_NUMBER_BYTES)) return false;
    w->bytes = (size_t)(stm_write_int(w->data + w->bytes, v) - w->data);
    return true;
}

static bool is_null(const mill_view *v, int64_t row)
{
    const int64_t i = v->offset + row;
    return v->validity != NULL && !(v->validity[i >> 3] >> (i & 7) & 1);
}

static bool put_value(mill_json_writer *w, const mill_view *v, int64_t row);

static bool put_values(mill_json_writer *w, const mill_column *child, int64_t first, int64_t n)
{
    const mill_view v = mill_column_view(child);

    if (!put_char(w, '[')) return false;
    for (int64_t i = 0; i < n; i++)
        if ((i > 0 && !put_char(w, ',')) || !put_value(w, &v, first + i)) return false;
    return put_char(w, ']');
}

static bool put_struct(mill_json_writer *w, const mill_view *v, int64_t i)
{
    if (!put_char(w, '{')) return false;
    for (int32_t f = 0; f < v->type->n_fields; f++) {
        const mill_view child = mill_column_view(v->children[f]);
        const char *name = v->type->fields[f].name;
        if (f > 0 && !put_char(w, ',')) return false;
        if (!put_string(w, name, (int64_t)strlen(name)) || !put_char(w, ':') || !put_value(w, &child, i)) return false;
    }
    return put_char(w, '}');
}

static bool put_value(mill_json_writer *w, const mill_view *v, int64_t row)
{
    const int64_t i = v->offset + row;

    if (is_null(v, row)) return put(w, "null", 4);
    switch (v->type->id) {
    case MILL_BOOL: return ((const uint8_t *)v->data)[i >> 3] >> (i & 7) & 1 ? put(w, "true", 4) : put(w, "false", 5);
    case MILL_INT32: return put_whole(w, ((const int32_t *)v->data)[i]);
    case MILL_INT64: return put_whole(w, ((const int64_t *)v->data)[i]);
    case MILL_FLOAT16: return put_real(w, (double)from_half(((const uint16_t *)v->data)[i]), false);
    case MILL_FLOAT32: return put_real(w, (double)((const float *)v->data)[i], false);
    case MILL_FLOAT64: return put_real(w, ((const double *)v->data)[i], true);
    case MILL_UTF8: return put_string(w, (const char *)v->data + v->offsets[i], v->offsets[i + 1] - v->offsets[i]);
    case MILL_BINARY: return put_base64(w, (const char *)v->data + v->offsets[i], v->offsets[i + 1] - v->offsets[i]);
    case MILL_JSON: return put_json(w, (const char *)v->data + v->offsets[i], v->offsets[i + 1] - v->offsets[i]);
    case MILL_LIST: return put_values(w, v->children[0], v->offsets[i], v->offsets[i + 1] - v->offsets[i]);
    case MILL_FIXED_LIST: return put_values(w, v->children[0], i * v->type->length, v->type->length);
    case MILL_STRUCT: return put_struct(w, v, i);
    default: return put(w, "null", 4);
    }
}

/* ---- the writer ------------------------------------------------------------------------------------------------- */

mill_status mill_json_writer_create(const char *const *names, int32_t n, uint32_t flags, mill_json_writer **out)
{
    mill_json_writer *w = stm_calloc(sizeof *w);

    if (w == NULL) return MILL_ERR_NOMEM;
    w->flags = flags;
    w->keys = stm_calloc(((size_t)n + 1) * sizeof *w->keys);
    w->views = stm_calloc(((size_t)n + 1) * sizeof *w->views);
    if (w->keys == NULL || w->views == NULL) goto fail;
    w->n = n;
    for (int32_t i = 0; i < n; i++) {
        w->bytes = 0;
        if (!put_char(w, ',') || !put_string(w, names[i], (int64_t)strlen(names[i])) || !put_char(w, ':')) goto fail;
        w->keys[i].text = stm_calloc(w->bytes + SLACK);
        if (w->keys[i].text == NULL) goto fail;
        memcpy(w->keys[i].text, w->data, w->bytes);
        w->keys[i].bytes = w->bytes;
        w->row_bytes += w->bytes + STM_NUMBER_BYTES;
    }
    w->row_bytes += SLACK;
    w->bytes = 0;
    *out = w;
    return MILL_OK;
fail:
    mill_json_writer_destroy(&w);
    return MILL_ERR_NOMEM;
}

void mill_json_writer_destroy(mill_json_writer **wp)
{
    mill_json_writer *w = *wp;

    if (w == NULL) return;
    for (int32_t i = 0; i < w->n; i++) stm_free(w->keys[i].text);
    stm_free(w->keys);
    stm_free(w->views);
    stm_free(w->data);
    stm_free(w);
    *wp = NULL;
}

void mill_json_writer_batch(mill_json_writer *w, const mill_batch *batch)
{
    const int32_t there = mill_batch_columns(batch);

    for (int32_t i = 0; i < w->n; i++) {
        const mill_column *col = i < there ? mill_batch_column(batch, i) : NULL;
        if (col != NULL) w->views[i] = mill_column_view(col);
        else memset(&w->views[i], 0, sizeof w->views[i]);
    }
}

/* The value of row `row` at d, which has room for a number and SLACK; NULL: not one of the short ones. */
static char *write_short(char *d, const mill_view *v, int64_t row)
{
    const int64_t i = v->offset + row;

    switch (v->type->id) {
    case MILL_BOOL: {
        const bool yes = ((const uint8_t *)v->data)[i >> 3] >> (i & 7) & 1;
        memcpy(d, yes ? "true " : "false", 5);
        return d + (yes ? 4 : 5);
    }
    case MILL_INT32: return stm_write_int(d, ((const int32_t *)v->data)[i]);
    case MILL_INT64: return stm_write_int(d, ((const int64_t *)v->data)[i]);
    case MILL_FLOAT32: {
        const float x = ((const float *)v->data)[i];
        return isfinite(x) ? stm_write_float(d, x) : (char *)memcpy(d, "null", 4) + 4;
    }
    case MILL_FLOAT64: {
        const double x = ((const double *)v->data)[i];
        return isfinite(x) ? stm_write_double(d, x) : (char *)memcpy(d, "null", 4) + 4;
    }
    default: return NULL;
    }
}

mill_status mill_json_writer_row(mill_json_writer *w, int64_t row)
{
    const size_t before = w->bytes;
    const size_t left = w->row_bytes; /* no less than what the keys and short values to come need */

    if (!reserve(w, left)) return MILL_ERR_NOMEM;
    char *d = w->data + w->bytes;
    for (int32_t i = 0; i < w->n; i++) {
        const mill_view *v = &w->views[i];
        const bool null = v->type == NULL || is_null(v, row);
        if (null && (w->flags & MILL_JSON_OMIT_NULLS)) continue;
        d = copy_blocks(d, w->keys[i].text, w->keys[i].bytes);
        if (null) {
            memcpy(d, "null", 4);
            d += 4;
            continue;
        }
        const int64_t at = v->offset + row;
        const int64_t bytes = v->type->id == MILL_UTF8 ? v->offsets[at + 1] - v->offsets[at] : CHUNK;
        if (bytes < CHUNK) { /* a text of usual length */
            const uint8_t *s = (const uint8_t *)v->data + v->offsets[at], *const end = s + bytes;
            w->bytes = (size_t)(d - w->data);
            if (!reserve(w, 6 * (size_t)bytes + 2 + SLACK + left)) goto fail;
            d = w->data + w->bytes;
            *d++ = '"';
            d = write_text(d, &s, end, end);
            *d++ = '"';
            continue;
        }
        char *behind = write_short(d, v, row);
        if (behind != NULL) {
            d = behind;
            continue;
        }
        w->bytes = (size_t)(d - w->data);
        if (!put_value(w, v, row) || !reserve(w, left)) goto fail;
        d = w->data + w->bytes;
    }
    w->bytes = (size_t)(d - w->data);
    w->first = w->bytes == before;
    if (w->first) {
        if (!put_char(w, '{')) goto fail;
    } else {
        w->data[before] = '{'; /* in place of the first comma */
    }
    return MILL_OK;
fail:
    w->bytes = before;
    return MILL_ERR_NOMEM;
}

static bool begin_named(mill_json_writer *w, const char *key)
{
    if (!w->first && !put_char(w, ',')) return false;
    w->first = false;
    return put_string(w, key, (int64_t)strlen(key)) && put_char(w, ':');
}

mill_status mill_json_writer_text(mill_json_writer *w, const char *key, const char *text)
{
    if (text == NULL && (w->flags & MILL_JSON_OMIT_NULLS)) return MILL_OK;
    if (!begin_named(w, key)) return MILL_ERR_NOMEM;
    return (text == NULL ? put(w, "null", 4) : put_string(w, text, (int64_t)strlen(text))) ? MILL_OK : MILL_ERR_NOMEM;
}

mill_status mill_json_writer_int(mill_json_writer *w, const char *key, int64_t value)
{
    return begin_named(w, key) && put_whole(w, value) ? MILL_OK : MILL_ERR_NOMEM;
}

mill_status mill_json_writer_value(mill_json_writer *w, const mill_column *col, int64_t row)
{
    const mill_view v = mill_column_view(col);
    const size_t before = w->bytes;
    const int64_t i = v.offset + row;

    if (v.type->id == MILL_UTF8 && !is_null(&v, row))
        return mill_json_writer_raw(w, (const char *)v.data + v.offsets[i], (size_t)(v.offsets[i + 1] - v.offsets[i]));
    if (put_value(w, &v, row)) return MILL_OK;
    w->bytes = before;
    return MILL_ERR_NOMEM;
}

mill_status mill_json_writer_raw(mill_json_writer *w, const char *bytes, size_t n)
{
    return put(w, bytes, n) ? MILL_OK : MILL_ERR_NOMEM;
}

mill_status mill_json_writer_end(mill_json_writer *w) { return put(w, "}\n", 2) ? MILL_OK : MILL_ERR_NOMEM; }

const char *mill_json_writer_data(const mill_json_writer *w, size_t *bytes)
{
    *bytes = w->bytes;
    return w->data;
}

void mill_json_writer_clear(mill_json_writer *w) { w->bytes = 0; }

void mill_json_writer_truncate(mill_json_writer *w, size_t bytes)
{
    if (bytes < w->bytes) w->bytes = bytes;
}
