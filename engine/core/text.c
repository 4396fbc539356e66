#include "core/text.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"

/* The C locale: numbers in files and messages have a point whatever the embedding program's locale is. With these
 * arguments the C library hands out a static object: no allocation, nothing to free. */
static locale_t c_locale(void) { return newlocale(LC_ALL_MASK, "C", (locale_t)0); }

/* ---- nearest name ------------------------------------------------------------------------------------------ */

enum { NAME_MAX_BYTES = 96 }; /* longer names get no suggestion */
enum { LANES = 4 };

/* Edit distance with swaps of neighbours (each place changed at most once), in three rows. */
static size_t edit_distance(const char *a, size_t na, const char *b, size_t nb)
{
    size_t rows[3][NAME_MAX_BYTES + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];

    memset(rows, 0, sizeof rows);
    for (size_t j = 0; j <= nb; j++) above[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *spare = before;

        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);

            if (above[j] + 1 < best) best = above[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
        before = above;
        above = row;
        row = spare;
    }
    return above[nb];
}

const char *stm_nearest(const char *name, const char *const *candidates, size_t n)
{
    const char *best = NULL;
    size_t best_distance = SIZE_MAX, length = strlen(name);

    if (length == 0 || length > NAME_MAX_BYTES) return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t other, distance;

        if (candidates[i] == NULL) continue;
        other = strlen(candidates[i]);
        if (other == 0 || other > NAME_MAX_BYTES) continue;
        distance = edit_distance(name, length, candidates[i], other);
        /* at most a third is wrong (a short name may have one fault), and something must be right */
        if (3 * distance >= length + 3 || distance >= (length > other ? length : other)) continue;
        if (distance < best_distance) {
            best = candidates[i];
            best_distance = distance;
        }
    }
    return best;
}

/* ---- numbers ------------------------------------------------------------------------------------------------ */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* An unsigned decimal at *text: digits, then optionally a point and digits; *text is moved behind it. */
static bool scan_decimal(const char **text, uint64_t *whole, double *fraction)
{
    const char *p = *text;
    double scale = 1;

    *whole = 0;
    *fraction = 0;
    if (!is_digit(*p)) return false;
    for (; is_digit(*p); p++) {
        if (__builtin_mul_overflow(*whole, 10u, whole) || __builtin_add_overflow(*whole, (uint64_t)(*p - '0'), whole)) return false;
    }
    if (*p == '.') {
        if (!is_digit(*++p)) return false;
        for (; is_digit(*p); p++) {
            if (scale < 1e17) { /* digits past a double's precision change nothing */
                scale *= 10;
                *fraction = *fraction * 10 + (*p - '0');
            }
        }
        *fraction /= scale;
    }
    *text = p;
    return true;
}

/* 0x1f and 0o17, as YAML 1.2 has them: without a sign. */
static bool is_based(const char *text) { return text[0] == '0' && (text[1] == 'x' || text[1] == 'o') && text[2] != '\0'; }

static bool parse_based(const char *text, int64_t *out)
{
    const unsigned base = text[1] == 'x' ? 16 : 8;
    uint64_t v = 0;

    for (text += 2; *text != '\0'; text++) {
        const unsigned low = (unsigned char)*text | 0x20u, digit = is_digit(*text) ? low - '0' : low >= 'a' ? low - 'a' + 10 : base;
        if (digit >= base || v > (uint64_t)INT64_MAX / base) return false;
        v = v * base + digit;
    }
    *out = (int64_t)v;
    return true;
}

bool stm_parse_bytes(const char *text, int64_t *out)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } units[] = {
        {"", 1},
        {"B", 1},
        {"kB", 1000},
        {"KB", 1000},
        {"MB", 1000000},
        {"GB", 1000000000},
        {"TB", 1000000000000},
        {"kiB", (uint64_t)1 << 10},
        {"KiB", (uint64_t)1 << 10},
        {"MiB", (uint64_t)1 << 20},
        {"GiB", (uint64_t)1 << 30},
        {"TiB", (uint64_t)1 << 40},
    };
    uint64_t whole, bytes;
    double fraction, rest;

    if (is_based(text)) return parse_based(text, out);
    if (!scan_decimal(&text, &whole, &fraction)) return false;
    if (*text == ' ' && text[1] != '\0') text++; /* "1.5 GiB", as we print it */
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(text, units[i].name) != 0) continue;
        if (fraction != 0 && units[i].bytes == 1) return false; /* half a byte */
        rest = floor(fraction * (double)units[i].bytes + 0.5);
        if (__builtin_mul_overflow(whole, units[i].bytes, &bytes) || __builtin_add_overflow(bytes, (uint64_t)rest, &bytes) ||
            bytes > INT64_MAX)
            return false;
        *out = (int64_t)bytes;
        return true;
    }
    return false;
}

bool stm_parse_duration(const char *text, double *seconds)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {
        {"", 1}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}, {"d", 86400},
    };
    uint64_t whole;
    int64_t number;
    double fraction;

    if (strcmp(text, "none") == 0) {
        *seconds = -1;
        return true;
    }
    if (is_based(text)) return parse_based(text, &number) ? *seconds = (double)number, true : false;
    if (!scan_decimal(&text, &whole, &fraction)) return false;
    if (*text == ' ' && text[1] != '\0') text++;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(text, units[i].name) != 0) continue;
        *seconds = ((double)whole + fraction) * units[i].seconds;
        return true;
    }
    return false;
}

bool stm_parse_int(const char *text, int64_t *out)
{
    bool negative = *text == '-';
    uint64_t v = 0;

    if (is_based(text)) return parse_based(text, out);
    if (*text == '-' || *text == '+') text++;
    if (!is_digit(*text)) return false;
    for (; is_digit(*text); text++) {
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v)) return false;
    }
    if (*text != '\0' || v > (uint64_t)INT64_MAX + negative) return false;
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

bool stm_parse_float(const char *text, double *out)
{
    const char *p = text;
    char *end;
    double v;
    int64_t whole;
    size_t digits = 0;

    if (is_based(text)) return parse_based(text, &whole) ? *out = (double)whole, true : false;
    if (*p == '-' || *p == '+') p++;
    if (strcmp(p, ".inf") == 0 || strcmp(p, "inf") == 0) {
        *out = *text == '-' ? -INFINITY : INFINITY;
        return true;
    }
    /* our own grammar first: strtod also takes blanks, hexadecimal, "nan", "infinity" */
    for (; is_digit(*p); p++) digits++;
    if (*p == '.')
        for (p++; is_digit(*p); p++) digits++;
    if (digits == 0) return false;
    if (*p == 'e' || *p == 'E') {
        p++;
        if (*p == '-' || *p == '+') p++;
        if (!is_digit(*p)) return false;
        while (is_digit(*p)) p++;
    }
    if (*p != '\0') return false;
    v = strtod_l(text, &end, c_locale());
    if (end != p || isinf(v)) return false; /* 1e999 is a slip, not infinity */
    *out = v;
    return true;
}

/* ---- quantities for people ---------------------------------------------------------------------------------- */

/* One decimal below 100, none where it would be zero: 999, 12.3, 1. */
static void show_scaled(double v, const char *unit, char *buf, size_t size)
{
    if (v < 99.95) v = floor(v * 10 + 0.5) / 10;
    if (v >= 100 || v == floor(v))
        snprintf(buf, size, "%.0f%s%s", v, *unit != '\0' ? " " : "", unit);
    else
        snprintf(buf, size, "%.1f%s%s", v, *unit != '\0' ? " " : "", unit);
}

static char *show_in_units(double v, double base, const char *const *units, size_t n, char *buf, size_t size)
{
    char number[64];
    size_t u = 0;
    double shown = fabs(v);

    if (isnan(v)) shown = 0;
    while (u + 1 < n && shown >= base * 0.9995) { /* 999.9 k would round to "1000 k" */
        shown /= base;
        u++;
    }
    show_scaled(shown, units[u], number, sizeof number);
    snprintf(buf, size, "%s%s", v < 0 ? "-" : "", number);
    return buf;
}

char *stm_show_bytes(double bytes, char *buf, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};

    return show_in_units(bytes, 1024, units, sizeof units / sizeof units[0], buf, size);
}

char *stm_show_count(double n, char *buf, size_t size)
{
    static const char *const units[] = {"", "k", "M", "G", "T"};

    return show_in_units(n, 1000, units, sizeof units / sizeof units[0], buf, size);
}

char *stm_show_seconds(double s, char *buf, size_t size)
{
    int64_t whole;

    if (!(s >= 0)) { /* also not a number */
        snprintf(buf, size, "?");
    } else if (s < 0.9995e-3) {
        show_scaled(s * 1e6, "us", buf, size);
    } else if (s < 0.9995) {
        show_scaled(s * 1e3, "ms", buf, size);
    } else if (s < 59.95) {
        show_scaled(s, "s", buf, size);
    } else if (s > 8.64e10) { /* a million days: no clock says that */
        snprintf(buf, size, "?");
    } else {
        whole = (int64_t)(s + 0.5);
        if (whole < 3600)
            snprintf(buf, size, "%d min %d s", (int)(whole / 60), (int)(whole % 60));
        else if (whole < 86400)
            snprintf(buf, size, "%d h %d min", (int)(whole / 3600), (int)(whole % 3600 / 60));
        else
            snprintf(buf, size, "%d d %d h", (int)(whole / 86400), (int)(whole % 86400 / 3600));
    }
    return buf;
}

/* ---- growing string ------------------------------------------------------------------------------------------ */

static bool reserve(stm_text *t, size_t more)
{
    if (t->failed) return false;
    if (more > SIZE_MAX / 4 - t->bytes || stm_grow(&t->data, &t->cap, t->bytes + more + 1, 1) != 0) {
        t->failed = true;
        return false;
    }
    return true;
}

void stm_text_add(stm_text *t, const char *bytes, size_t n)
{
    if (!reserve(t, n)) return;
    if (n > 0) memcpy(t->data + t->bytes, bytes, n);
    t->bytes += n;
    t->data[t->bytes] = '\0';
}

void stm_text_addf(stm_text *t, const char *fmt, ...)
{
    locale_t old = uselocale(c_locale());
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        t->failed = true;
    } else if (reserve(t, (size_t)n)) {
        va_start(ap, fmt);
        vsnprintf(t->data + t->bytes, (size_t)n + 1, fmt, ap);
        va_end(ap);
        t->bytes += (size_t)n;
    }
    uselocale(old);
}

/* Length of the well-formed UTF-8 sequence at p, or 0 with *skip = bytes that one U+FFFD stands for: the longest
 * beginning of a sequence that could have become well formed, at least 1 (what the Unicode standard advises). */
static size_t utf8_sequence(const unsigned char *p, size_t n, size_t *skip)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t need;

    *skip = 1;
    if (p[0] < 0x80) return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        need = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        need = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        need = 4;
    else
        return 0;
    if (p[0] == 0xe0) low = 0xa0;  /* overlong */
    if (p[0] == 0xed) high = 0x9f; /* surrogates */
    if (p[0] == 0xf0) low = 0x90;  /* overlong */
    if (p[0] == 0xf4) high = 0x8f; /* past U+10FFFF */
    for (size_t i = 1; i < need; i++) {
        if (i >= n || p[i] < low || p[i] > high) {
            *skip = i;
            return 0;
        }
        low = 0x80;
        high = 0xbf;
    }
    return need;
}

void stm_text_add_json(stm_text *t, const char *bytes, size_t n)
{
    const unsigned char *p = (const unsigned char *)bytes;
    size_t plain = 0, i = 0; /* bytes [plain, i) go out as they are */

    while (i < n) {
        size_t skip, length = utf8_sequence(p + i, n - i, &skip);

        if (length > 1 || (length == 1 && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\')) {
            i += length;
            continue;
        }
        stm_text_add(t, bytes + plain, i - plain);
        if (length == 0) {
            stm_text_add(t, "\xef\xbf\xbd", 3);
        } else {
            switch (p[i]) {
            case '"': stm_text_add(t, "\\\"", 2); break;
            case '\\': stm_text_add(t, "\\\\", 2); break;
            case '\n': stm_text_add(t, "\\n", 2); break;
            case '\r': stm_text_add(t, "\\r", 2); break;
            case '\t': stm_text_add(t, "\\t", 2); break;
            case '\b': stm_text_add(t, "\\b", 2); break;
            case '\f': stm_text_add(t, "\\f", 2); break;
            default: {
                static const char hex[] = "0123456789abcdef";
                char code[6] = {'\\', 'u', '0', '0', hex[p[i] >> 4], hex[p[i] & 15]};

                stm_text_add(t, code, sizeof code);
            }
            }
        }
        i += skip;
        plain = i;
    }
    stm_text_add(t, bytes + plain, n - plain);
}

void stm_text_free(stm_text *t)
{
    stm_free(t->data);
    memset(t, 0, sizeof *t);
}

/* ---- hash ----------------------------------------------------------------------------------------------------- */

/* Bijective scrambling of 64 bits: two rounds of multiply and fold. */
static uint64_t scramble(uint64_t h)
{
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    h ^= h >> 29;
    h *= 0xa0761d6478bd642fu;
    h ^= h >> 32;
    return h;
}

static uint64_t read_le(const unsigned char *p, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* A bijection of h and of the word. */
static uint64_t take_word(uint64_t h, uint64_t word)
{
    h ^= word;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 31;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

uint64_t stm_hash64(const void *bytes, size_t n, uint64_t seed)
{
    const unsigned char *p = bytes;
    uint64_t h = scramble(seed + 0x9e3779b97f4a7c15u);
    size_t left = n;

    for (; left >= 8; left -= 8, p += 8) h = take_word(h, read_le(p, 8));
    h ^= read_le(p, left) + ((uint64_t)n << 56) + n; /* the length tells "a" from "a\0" */
    return scramble(h);
}

uint64_t stm_hash64_long(const void *bytes, size_t n, uint64_t seed)
{
    const unsigned char *p = bytes;
    uint64_t lanes[LANES];
    size_t left = n;

    for (uint64_t i = 0; i < LANES; i++) lanes[i] = scramble(seed + i);
    for (; left >= sizeof lanes; left -= sizeof lanes, p += sizeof lanes) /* none waits for another */
        for (size_t i = 0; i < LANES; i++) lanes[i] = take_word(lanes[i], read_le(p + 8 * i, 8));
    for (uint64_t i = 0; i < LANES; i++) seed = take_word(seed, lanes[i]);
    return stm_hash64(p, left, seed ^ n);
}
