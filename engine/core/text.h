/* Small helpers on text: nearest name for "did you mean", quantities, a growing string. */
#ifndef STM_CORE_TEXT_H
#define STM_CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stepmill/export.h"

/** The candidate nearest to @p name by edit distance (insert, delete, replace, swap of neighbours), or NULL when
 *  none is nearer than a third of its length + 1. */
const char *stm_nearest(const char *name, const char *const *candidates, size_t n);
/** "64MiB", "1.5GB", "1000": bytes. False when malformed or out of range. */
bool stm_parse_bytes(const char *text, int64_t *out);
/** "10s", "1.5h", "200ms", "2m", "1d", plain numbers are seconds; "none" gives a negative value. */
bool stm_parse_duration(const char *text, double *seconds);
/** Whole text as a 64-bit integer / a finite or infinite double, as YAML 1.2 writes them: 7, -7, +7, 0x1f, 0o17. */
bool stm_parse_int(const char *text, int64_t *out);
bool stm_parse_float(const char *text, double *out);
/** "1.5 GiB", "12.3 k", "1 min 5 s" into buf; returns buf. */
char *stm_show_bytes(double bytes, char *buf, size_t size);
char *stm_show_count(double n, char *buf, size_t size);
char *stm_show_seconds(double s, char *buf, size_t size);

/** A growing string: once an append fails for memory, `failed` stays set and appends do nothing. */
typedef struct stm_text {
    char *data; /* NUL-terminated; NULL when nothing was appended */
    size_t bytes, cap;
    bool failed;
} stm_text;
void stm_text_add(stm_text *t, const char *bytes, size_t n);
void stm_text_addf(stm_text *t, const char *fmt, ...) MILL_PRINTF(2, 3);
/** Append @p n bytes as the inside of a JSON string: quotes, backslashes, control characters and malformed UTF-8
 *  (replaced by U+FFFD) escaped. */
void stm_text_add_json(stm_text *t, const char *bytes, size_t n);
void stm_text_free(stm_text *t);
/** 64-bit hash of bytes (not secret, stable across runs and machines). */
uint64_t stm_hash64(const void *bytes, size_t n, uint64_t seed);
/** Another such hash, some four times as fast on kilobytes. */
uint64_t stm_hash64_long(const void *bytes, size_t n, uint64_t seed);

#endif
