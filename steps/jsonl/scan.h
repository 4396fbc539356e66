/* Strings and values of JSON text whose structure simdjson has already indexed. C++, used by parse.cc and guess.cc. */
#ifndef STM_STEPS_JSONL_SCAN_H
#define STM_STEPS_JSONL_SCAN_H

#include <simdjson.h>

#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace stm_jsonl_scan {

namespace od = simdjson::ondemand;

/** Bytes that grow; memory is kept for the next batch. */
struct Bytes {
    char *data = nullptr;
    size_t size = 0, cap = 0;

    ~Bytes() { free(data); }
    /** Room for @p more bytes behind size. */
    bool reserve(size_t more)
    {
        if (cap - size >= more) return true;
        size_t bigger = cap < 4096 ? 4096 : cap;
        if (more > SIZE_MAX / 4 - size) return false;
        while (bigger - size < more) bigger *= 2;
        char *p = static_cast<char *>(realloc(data, bigger));
        if (p == nullptr) return false;
        data = p;
        cap = bigger;
        return true;
    }
    bool add(const char *p, size_t n)
    {
        if (!reserve(n)) return false;
        memcpy(data + size, p, n);
        size += n;
        return true;
    }
};

/** The escape at *@p src, a backslash: moves src behind it and dst behind what was written, at most as many bytes as were read. */
bool escape(const char *&src, char *&dst);
/**
 * Unescape the inside of a string: @p src behind the opening quote, @p end the end of the line (64 bytes behind it are
 * readable), @p dst with room for end - src + 16 bytes. Moves dst behind what was written and gives the closing quote;
 * nullptr: an escape is malformed or there is no closing quote.
 */
const char *unescape(const char *src, const char *end, char *&dst);
/** As unescape, writing nothing. */
const char *check_string(const char *src, const char *end);

/** Behind the number at @p s, by the grammar of JSON; NULL: there is none. *whole: it has neither point nor exponent. */
inline const char *number_end(const char *s, bool *whole)
{
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };

    *whole = true;
    if (*s == '-') s++;
    if (!digit(*s)) return nullptr;
    if (*s == '0')
        s++;
    else
        while (digit(*s)) s++;
    if (*s == '.') {
        *whole = false;
        if (!digit(*++s)) return nullptr;
        while (digit(*s)) s++;
    }
    if ((*s | 0x20) == 'e') {
        *whole = false;
        s++;
        if (*s == '+' || *s == '-') s++;
        if (!digit(*s)) return nullptr;
        while (digit(*s)) s++;
    }
    return s;
}

/** The number @p v, rounded; also one whose exponent has more digits, zeros in front, than simdjson reads. */
simdjson::error_code to_double(od::value &v, double &out);

/** Checks JSON values completely, also inside of nested ones, which On Demand skips without a look. */
class Checker {
public:
    /** The text of @p v, without white space around it. UTF-8 was checked by the first pass over the line. */
    simdjson::error_code raw(od::value &v, const char *end, std::string_view &out);

private:
    simdjson::dom::parser dom_;
    size_t cap_ = 0;
};

/** Grow @p p so that lines of @p bytes need no further allocation. */
simdjson::error_code reserve(od::parser &p, size_t bytes);
/** Whether nothing stands behind the value that was read. */
inline bool at_end(od::document &doc)
{
    const char *where;
    return doc.current_location().get(where) == simdjson::OUT_OF_BOUNDS;
}
/** Our words for an error. */
const char *words(simdjson::error_code e);

} // namespace stm_jsonl_scan

#endif
