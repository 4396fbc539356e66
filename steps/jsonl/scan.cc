#include "steps/jsonl/scan.h"

#include <charconv>

namespace stm_jsonl_scan {

namespace {

int hex4(const char *p)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned char c = static_cast<unsigned char>(p[i]);
        int d;
        if (c >= '0' && c <= '9') d = c - '0';
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') d = (c | 0x20) - 'a' + 10;
        else return -1;
        v = v << 4 | d;
    }
    return v;
}

} // namespace

bool escape(const char *&src, char *&dst)
{
    char c = src[1];

    switch (c) {
    case '"': case '\\': case '/': break;
    case 'b': c = '\b'; break;
    case 'f': c = '\f'; break;
    case 'n': c = '\n'; break;
    case 'r': c = '\r'; break;
    case 't': c = '\t'; break;
    case 'u': {
        int cp = hex4(src + 2);
        if (cp < 0) return false;
        src += 6;
        if (cp >= 0xd800 && cp < 0xdc00) { /* needs its other half */
            if (src[0] != '\\' || src[1] != 'u') return false;
            const int low = hex4(src + 2);
            if (low < 0xdc00 || low > 0xdfff) return false;
            cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
            src += 6;
        } else if (cp >= 0xdc00 && cp < 0xe000) {
            return false;
        }
        if (cp < 0x80) {
            *dst++ = static_cast<char>(cp);
        } else if (cp < 0x800) {
            *dst++ = static_cast<char>(0xc0 | cp >> 6);
            *dst++ = static_cast<char>(0x80 | (cp & 63));
        } else if (cp < 0x10000) {
            *dst++ = static_cast<char>(0xe0 | cp >> 12);
            *dst++ = static_cast<char>(0x80 | (cp >> 6 & 63));
            *dst++ = static_cast<char>(0x80 | (cp & 63));
        } else {
            *dst++ = static_cast<char>(0xf0 | cp >> 18);
            *dst++ = static_cast<char>(0x80 | (cp >> 12 & 63));
            *dst++ = static_cast<char>(0x80 | (cp >> 6 & 63));
            *dst++ = static_cast<char>(0x80 | (cp & 63));
        }
        return true;
    }
    default: return false;
    }
    *dst++ = c;
    src += 2;
    return true;
}

const char *unescape(const char *src, const char *end, char *&dst)
{
    char *d = dst;

    while (src < end) {
#ifdef __SSE2__
        const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i *>(src));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(d), v);
        const int hit =
            _mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))));
        if (hit == 0) {
            src += 16;
            d += 16;
            continue;
        }
        const int n = __builtin_ctz(static_cast<unsigned>(hit));
        src += n;
        d += n;
#else
        while (src < end && *src != '"' && *src != '\\') *d++ = *src++;
#endif
        if (src >= end) return nullptr;
        if (*src == '"') {
            dst = d;
            return src;
        }
        if (!escape(src, d)) return nullptr;
    }
    return nullptr;
}

const char *check_string(const char *src, const char *end)
{
    char scratch[8];

    while (src < end) {
        if (*src == '"') return src;
        if (*src == '\\') {
            char *d = scratch;
            if (!escape(src, d)) return nullptr;
        } else {
            src++;
        }
    }
    return nullptr;
}

simdjson::error_code to_double(od::value &v, double &out)
{
    const char *s = v.raw_json_token().data();
    bool whole;

    const simdjson::error_code error = v.get_double().get(out);
    if (error != simdjson::NUMBER_ERROR) return error;
    const char *e = number_end(s, &whole);
    if (e == nullptr || whole || strchr(",]} \t\r\n", *e) == nullptr) return error;
    return std::from_chars(s, e, out).ec == std::errc() ? simdjson::SUCCESS : error;
}

simdjson::error_code Checker::raw(od::value &v, const char *end, std::string_view &out)
{
    od::json_type type;

    if (auto e = v.type().get(type)) return e;
    switch (type) {
    case od::json_type::array:
    case od::json_type::object: {
        if (auto e = simdjson::to_json_string(v).get(out)) return e;
        while (!out.empty() && static_cast<unsigned char>(out.back()) <= ' ') out.remove_suffix(1);
        if (out.size() > cap_) { /* powers of two: settles after a few lines */
            size_t cap = cap_ < 4096 ? 4096 : cap_;
            while (cap < out.size()) cap *= 2;
            if (auto e = dom_.allocate(cap)) return e;
            if (auto e = dom_.doc.allocate(cap)) return e;
            cap_ = cap;
        }
        return dom_.parse(out.data(), out.size(), false).error();
    }
    case od::json_type::string: {
        od::raw_json_string s;
        if (auto e = v.get_raw_json_string().get(s)) return e;
        const char *close = check_string(s.raw(), end);
        if (close == nullptr) return simdjson::STRING_ERROR;
        out = std::string_view(s.raw() - 1, static_cast<size_t>(close - s.raw()) + 2);
        return simdjson::SUCCESS;
    }
    default: break;
    }
    out = v.raw_json_token();
    while (!out.empty() && static_cast<unsigned char>(out.back()) <= ' ') out.remove_suffix(1);
    if (type == od::json_type::number) {
        od::number n;
        double d; /* a whole number beyond 64 bits is JSON all the same */
        return v.get_number().get(n) == simdjson::SUCCESS ? simdjson::SUCCESS : to_double(v, d);
    }
    if (type == od::json_type::boolean) {
        bool b;
        return v.get_bool().get(b) == simdjson::SUCCESS ? simdjson::SUCCESS : simdjson::T_ATOM_ERROR;
    }
    bool null;
    return v.is_null().get(null) == simdjson::SUCCESS && null ? simdjson::SUCCESS : simdjson::N_ATOM_ERROR;
}

simdjson::error_code reserve(od::parser &p, size_t bytes)
{
    if (p.capacity() >= bytes) return simdjson::SUCCESS;
    size_t cap = 16384;
    while (cap < bytes) cap *= 2;
    return p.allocate(cap);
}

const char *words(simdjson::error_code e)
{
    switch (e) {
    case simdjson::STRING_ERROR: return "a string holds a malformed escape";
    case simdjson::NUMBER_ERROR: return "a number is malformed or out of range";
    case simdjson::T_ATOM_ERROR:
    case simdjson::F_ATOM_ERROR:
    case simdjson::N_ATOM_ERROR: return "a word that is not true, false or null";
    case simdjson::UTF8_ERROR: return "the text is not UTF-8";
    case simdjson::UNESCAPED_CHARS: return "a string holds a control character";
    case simdjson::UNCLOSED_STRING: return "a string has no closing quote";
    case simdjson::INCOMPLETE_ARRAY_OR_OBJECT: return "an object or array is not closed, or more stands behind it";
    case simdjson::DEPTH_ERROR: return "values are nested too deeply";
    default: return "the line is not well-formed JSON";
    }
}

} // namespace stm_jsonl_scan
