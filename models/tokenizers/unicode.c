#include "models/tokenizers/unicode.h"

#include <stddef.h>
#include <string.h>
#include <utf8proc.h>

typedef struct range {
    uint32_t first, last;
} range;

/* Where the reference and utf8proc 2.8 differ, found by comparing every code point. */
static const range not_control[] = {
    {0x890, 0x891},
    {0x8e2, 0x8e2},
    {0x110cd, 0x110cd},
    {0x13430, 0x1343f},
};
static const range punctuation_differs[] = {
    {0x61d, 0x61d},     {0x9fd, 0x9fd},     {0xa76, 0xa76},     {0xc77, 0xc77},     {0xc84, 0xc84},     {0x166d, 0x166d},
    {0x1b7d, 0x1b7e},   {0x2e43, 0x2e4f},   {0x2e52, 0x2e5d},   {0x10ead, 0x10ead}, {0x10f55, 0x10f59}, {0x10f86, 0x10f89},
    {0x111c9, 0x111c9}, {0x1144b, 0x1144f}, {0x1145a, 0x1145b}, {0x1145d, 0x1145d}, {0x11660, 0x1166c}, {0x116b9, 0x116b9},
    {0x1183b, 0x1183b}, {0x11944, 0x11946}, {0x119e2, 0x119e2}, {0x11a3f, 0x11a46}, {0x11a9a, 0x11a9c}, {0x11a9e, 0x11aa2},
    {0x11b00, 0x11b09}, {0x11c41, 0x11c45}, {0x11c70, 0x11c71}, {0x11ef7, 0x11ef8}, {0x11f43, 0x11f4f}, {0x11fff, 0x11fff},
    {0x12ff1, 0x12ff2}, {0x16e97, 0x16e9a}, {0x16fe2, 0x16fe2}, {0x1e95e, 0x1e95f},
};
static const range accent_differs[] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8e1},     {0x9fe, 0x9fe},     {0xafa, 0xaff},     {0xb55, 0xb55},
    {0xc04, 0xc04},     {0xc3c, 0xc3c},     {0xd00, 0xd00},     {0xd3b, 0xd3c},     {0xd81, 0xd81},     {0xeba, 0xeba},
    {0xece, 0xece},     {0x1734, 0x1734},   {0x180f, 0x180f},   {0x1885, 0x1886},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfb},
    {0xa82c, 0xa82c},   {0xa8c5, 0xa8c5},   {0xa8ff, 0xa8ff},   {0xa9bd, 0xa9bd},   {0x10d24, 0x10d27}, {0x10eab, 0x10eac},
    {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x11073, 0x11074}, {0x110c2, 0x110c2},
    {0x111c9, 0x111c9}, {0x111cf, 0x111cf}, {0x1123e, 0x1123e}, {0x11241, 0x11241}, {0x1133b, 0x1133b}, {0x11438, 0x1143f},
    {0x11442, 0x11444}, {0x11446, 0x11446}, {0x1145e, 0x1145e}, {0x1182f, 0x11837}, {0x11839, 0x1183a}, {0x1193b, 0x1193c},
    {0x1193e, 0x1193e}, {0x11943, 0x11943}, {0x119d4, 0x119d7}, {0x119da, 0x119db}, {0x119e0, 0x119e0}, {0x11a01, 0x11a0a},
    {0x11a33, 0x11a38}, {0x11a3b, 0x11a3e}, {0x11a47, 0x11a47}, {0x11a51, 0x11a56}, {0x11a59, 0x11a5b}, {0x11a8a, 0x11a96},
    {0x11a98, 0x11a99}, {0x11c30, 0x11c36}, {0x11c38, 0x11c3d}, {0x11c3f, 0x11c3f}, {0x11c92, 0x11ca7}, {0x11caa, 0x11cb0},
    {0x11cb2, 0x11cb3}, {0x11cb5, 0x11cb6}, {0x11d31, 0x11d36}, {0x11d3a, 0x11d3a}, {0x11d3c, 0x11d3d}, {0x11d3f, 0x11d45},
    {0x11d47, 0x11d47}, {0x11d90, 0x11d91}, {0x11d95, 0x11d95}, {0x11d97, 0x11d97}, {0x11ef3, 0x11ef4}, {0x11f00, 0x11f01},
    {0x11f36, 0x11f3a}, {0x11f40, 0x11f40}, {0x11f42, 0x11f42}, {0x13440, 0x13440}, {0x13447, 0x13455}, {0x16f4f, 0x16f4f},
    {0x16fe4, 0x16fe4}, {0x1cf00, 0x1cf2d}, {0x1cf30, 0x1cf46}, {0x1e000, 0x1e006}, {0x1e008, 0x1e018}, {0x1e01b, 0x1e021},
    {0x1e023, 0x1e024}, {0x1e026, 0x1e02a}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef},
    {0x1e4ec, 0x1e4ef}, {0x1e944, 0x1e94a},
};
static const range class_is_newer[] = {
    /* than the reference's order of marks, which leaves these where they stand */
    {0x7fd, 0x7fd},     {0x898, 0x8d3},     {0x9fe, 0x9fe},     {0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},
    {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},   {0x10d24, 0x10f85}, {0x11070, 0x11070},
    {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x11839, 0x11a99}, {0x11d42, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e4ef},
};
static const struct {
    uint32_t first, last;
    int32_t delta;
} newer_case[] = {
    {0x1c89, 0x1c89, 1}, {0xa7cb, 0xa7cb, -42343}, {0xa7cc, 0xa7cc, 1},      {0xa7ce, 0xa7ce, 1},    {0xa7d2, 0xa7d2, 1},
    {0xa7d4, 0xa7d4, 1}, {0xa7da, 0xa7da, 1},      {0xa7dc, 0xa7dc, -42561}, {0x10d50, 0x10d65, 32}, {0x16ea0, 0x16eb8, 27},
};
static const range cjk[] = {
    {0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},   {0x20000, 0x2a6df},
    {0x2a700, 0x2b81f}, {0x2b920, 0x2ceaf}, {0x2f800, 0x2fa1f},
};

static bool within(const range *ranges, size_t n, uint32_t c)
{
    size_t lo = 0, hi = n;

    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (c > ranges[mid].last)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && c >= ranges[lo].first;
}
#define WITHIN(table, c) within(table, sizeof(table) / sizeof *(table), c)

static utf8proc_category_t category(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c); }

bool stm_char_is_space(uint32_t c)
{
    return (c >= 0x9 && c <= 0xd) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool stm_char_is_control(uint32_t c)
{
    if (c == '\t' || c == '\n' || c == '\r') return false;
    if (c == 0 || c == 0xfffd) return true;
    switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO: return !WITHIN(not_control, c);
    default: return false;
    }
}

bool stm_char_is_punctuation(uint32_t c)
{
    if (c < 0x80) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    const utf8proc_category_t cat = category(c);
    return (cat >= UTF8PROC_CATEGORY_PC && cat <= UTF8PROC_CATEGORY_PO) != WITHIN(punctuation_differs, c);
}

bool stm_char_is_cjk(uint32_t c) { return c >= 0x3400 && WITHIN(cjk, c); }

bool stm_char_is_accent(uint32_t c) { return (category(c) == UTF8PROC_CATEGORY_MN) != WITHIN(accent_differs, c); }

bool stm_char_is_word(uint32_t c)
{
    switch (category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9); /* joiners; circled letters */
    }
}

uint8_t stm_char_class(uint32_t c)
{
    const uint8_t class = (uint8_t)utf8proc_get_property((utf8proc_int32_t)c)->combining_class;

    return class != 0 && WITHIN(class_is_newer, c) ? 0 : class;
}

int stm_char_decompose(uint32_t c, uint32_t *out)
{
    utf8proc_int32_t parts[STM_CHAR_PARTS];
    int boundary = 0;
    const utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, parts, STM_CHAR_PARTS, UTF8PROC_DECOMPOSE, &boundary);

    if (n < 1 || n > STM_CHAR_PARTS || c == 0x11938) { /* newer than the reference's decompositions */
        out[0] = c;
        return 1;
    }
    for (int i = 0; i < n; i++) out[i] = (uint32_t)parts[i];
    return (int)n;
}

int stm_char_lower(uint32_t c, uint32_t *out)
{
    if (c == 0x130) { /* the one character whose lower case is two */
        out[0] = 'i', out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    if (c >= newer_case[0].first)
        for (size_t i = 0; i < sizeof newer_case / sizeof *newer_case; i++)
            if (c >= newer_case[i].first && c <= newer_case[i].last) out[0] = c + (uint32_t)newer_case[i].delta;
    return 1;
}

uint32_t stm_utf8_read(const char *text, int64_t bytes, int64_t *at)
{
    const uint8_t *s = (const uint8_t *)text + *at;
    const int64_t left = bytes - *at;
    uint32_t c = 0xfffd;
    int n = 1;

    if (s[0] < 0x80) {
        c = s[0];
    } else if (s[0] >= 0xc2 && s[0] < 0xe0 && left >= 2 && (s[1] & 0xc0) == 0x80) {
        c = (uint32_t)(s[0] & 0x1f) << 6 | (s[1] & 0x3f), n = 2;
    } else if ((s[0] & 0xf0) == 0xe0 && left >= 3 && (s[1] & 0xc0) == 0x80 && (s[2] & 0xc0) == 0x80) {
        const uint32_t v = (uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
        if (v >= 0x800 && (v < 0xd800 || v > 0xdfff)) c = v, n = 3;
    } else if ((s[0] & 0xf8) == 0xf0 && left >= 4 && (s[1] & 0xc0) == 0x80 && (s[2] & 0xc0) == 0x80 && (s[3] & 0xc0) == 0x80) {
        const uint32_t v =
            (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 | (uint32_t)(s[2] & 0x3f) << 6 | (s[3] & 0x3f);
        if (v >= 0x10000 && v <= 0x10ffff) c = v, n = 4;
    }
    *at += n;
    return c;
}

int stm_utf8_write(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 0x3f)), out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18), out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f)), out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}
