#include <charconv>

#include "steps/jsonl/columns.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif

#define STRING_ROOM 64 /* bytes that may be scribbled on behind the text of a string */

using namespace stm_jsonl_scan;

namespace {

const char *skip_space(const char *s)
{
    while (*s == ' ' || *s == '\t' || *s == '\r') s++; /* the padding, or the newline, ends it */
    return s;
}

#ifdef __SSE2__
/* string in blocks of 64 bytes. */
__attribute__((target("avx512f,avx512bw"))) const char *string_wide(const char *src, const char *end, char *&dst, unsigned *high)
{
    const __m512i space = _mm512_set1_epi8(' '), quote = _mm512_set1_epi8('"'), slash = _mm512_set1_epi8('\\');
    char *d = dst;
    __mmask64 top = 0;

    while (src < end) {
        const __m512i v = _mm512_loadu_si512(src);
        const __mmask64 hit =
            _mm512_cmplt_epu8_mask(v, space) | _mm512_cmpeq_epi8_mask(v, quote) | _mm512_cmpeq_epi8_mask(v, slash);
        const __mmask64 high_bits = _mm512_movepi8_mask(v);
        _mm512_storeu_si512(d, v);
        if (hit == 0) {
            top |= high_bits;
            src += 64;
            d += 64;
            continue;
        }
        const int n = __builtin_ctzll(hit);
        top |= high_bits & ((__mmask64{1} << n) - 1);
        src += n;
        d += n;
        if (src >= end) return nullptr;
        if (*src == '"') {
            *high |= top != 0;
            dst = d;
            return src + 1;
        }
        if (*src != '\\' || !escape(src, d)) return nullptr;
    }
    return nullptr;
}
#endif

/* The text of the string whose inside begins at src, into dst with room for the line and STRING_ROOM bytes. Behind its closing
 * quote; NULL: a control character, a malformed escape, no end. *high gets the top bits of its bytes: not 0 = more than ASCII. */
const char *string(const char *src, const char *end, char *&dst, unsigned *high)
{
    char *d = dst;

#ifdef __SSE2__
    if (end - src >= 64 && __builtin_cpu_supports("avx512bw")) return string_wide(src, end, dst, high);
#endif

    while (src < end) {
#ifdef __SSE2__
        const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i *>(src));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(d), v);
        /* unsigned v < 0x20: what the saturated difference to 0x1f leaves nothing of */
        const __m128i control = _mm_cmpeq_epi8(_mm_subs_epu8(v, _mm_set1_epi8(0x1f)), _mm_setzero_si128());
        const __m128i special = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
        const unsigned hit = static_cast<unsigned>(_mm_movemask_epi8(_mm_or_si128(special, control)));
        const unsigned top = static_cast<unsigned>(_mm_movemask_epi8(v));
        if (hit == 0) {
            *high |= top;
            src += 16;
            d += 16;
            continue;
        }
        const int n = __builtin_ctz(hit);
        *high |= top & ((1u << n) - 1);
        src += n;
        d += n;
#else
        while (src < end && *src != '"' && *src != '\\' && static_cast<unsigned char>(*src) >= ' ') {
            *high |= static_cast<unsigned char>(*src) >> 7;
            *d++ = *src++;
        }
#endif
        if (src >= end) return nullptr;
        if (*src == '"') {
            dst = d;
            return src + 1;
        }
        if (*src != '\\' || !escape(src, d)) return nullptr;
    }
    return nullptr;
}

/* The value at s into row r of c; behind it, or NULL. */
const char *value(stm_jsonl *p, Column &c, const char *s, int64_t r, unsigned *high)
{
    bool whole;
    const char *e;

    if (s >= p->end) return nullptr; /* white space led into the line behind this one */
    if (*s == 'n') {
        c.put_null(r); /* no column here has a builder, which could fail */
        return memcmp(s, "null", 4) == 0 ? s + 4 : nullptr;
    }
    switch (c.type->id) {
    case MILL_UTF8: {
        if (*s != '"' || !c.text.reserve(static_cast<size_t>(p->end - s) + STRING_ROOM)) return nullptr;
        char *dst = c.text.data + c.text.size;
        if ((s = string(s + 1, p->end, dst, high)) == nullptr) return nullptr;
        c.text.size = static_cast<size_t>(dst - c.text.data);
        c.off[r + 1] = static_cast<int64_t>(c.text.size);
        return s;
    }
    case MILL_INT64: {
        int64_t v;
        if ((e = number_end(s, &whole)) == nullptr || !whole || std::from_chars(s, e, v).ec != std::errc()) return nullptr;
        static_cast<int64_t *>(c.values)[r] = v;
        return e;
    }
    case MILL_FLOAT64: {
        double v;
        if ((e = number_end(s, &whole)) == nullptr || std::from_chars(s, e, v).ec != std::errc()) return nullptr;
        static_cast<double *>(c.values)[r] = v;
        return e;
    }
    default: /* MILL_BOOL */
        if (memcmp(s, "false", 5) == 0) return s + 5;
        if (memcmp(s, "true", 4) != 0) return nullptr;
        static_cast<uint8_t *>(c.values)[r >> 3] |= static_cast<uint8_t>(1u << (r & 7));
        return s + 4;
    }
}

} // namespace

bool stm_jsonl_quick(stm_jsonl *p, const char *line, size_t bytes)
{
    const int64_t r = p->rows;
    const char *s = skip_space(line);
    unsigned high = 0;
    int32_t i = 0;

    if (*s != '{') return false;
    do {
        if (i == p->n) return false;
        Column &c = p->cols[i++];
        s = skip_space(s + 1);
        if (*s != '"' || !c.is_named(s + 1, p->end)) return false;
        s = skip_space(s + 1 + c.name_bytes + 1);
        if (*s != ':') return false;
        if ((s = value(p, c, skip_space(s + 1), r, &high)) == nullptr) return false;
        s = skip_space(s);
    } while (*s == ',');
    if (*s != '}' || skip_space(s + 1) != p->end) return false;
    if (high != 0 && !simdjson::validate_utf8(line, bytes)) return false;
    for (; i < p->n_all; i++) p->cols[i].put_null(r);
    return true;
}
