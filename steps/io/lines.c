#include "steps/io/lines.h"

#include <stdlib.h>
#include <string.h>

struct stm_lines {
    const char *const *paths;
    size_t n_paths;
    size_t max_bytes;
    stm_source *source;       /* of place.file; NULL = not open */
    stm_place_in_files place; /* of buf[begin] */
    char *buf;                /* [cap + STM_LINE_PADDING] */
    size_t cap, begin, end;
    size_t scanned; /* bytes from begin known to hold no newline */
    bool source_end;
};

mill_status stm_lines_create(const char *const *paths, size_t n, size_t max_bytes, stm_lines **out, mill_error *err)
{
    stm_lines *l = calloc(1, sizeof *l);

    if (l == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a reader");
    l->paths = paths;
    l->n_paths = n;
    l->max_bytes = max_bytes;
    l->cap = STM_LINES_WINDOW;
    l->buf = calloc(1, l->cap + STM_LINE_PADDING);
    if (l->buf == NULL) {
        stm_lines_destroy(&l);
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a reader");
    }
    *out = l;
    return MILL_OK;
}

void stm_lines_destroy(stm_lines **lp)
{
    stm_lines *l = *lp;

    if (l == NULL) return;
    stm_source_close(&l->source);
    free(l->buf);
    free(l);
    *lp = NULL;
}

void stm_lines_goto(stm_lines *l, const stm_place_in_files *at)
{
    stm_source_close(&l->source);
    l->place = *at;
    l->begin = l->end = l->scanned = 0;
    l->source_end = false;
}

stm_place_in_files stm_lines_place(const stm_lines *l) { return l->place; }

double stm_lines_share(const stm_lines *l)
{
    double here = 0.0;

    if (l->n_paths == 0 || l->place.file >= l->n_paths) return 1.0;
    if (l->source != NULL && (here = stm_source_share(l->source, l->place.offset)) < 0.0) return -1.0;
    return ((double)l->place.file + here) / (double)l->n_paths;
}

static mill_status resize(stm_lines *l, size_t cap, mill_error *err)
{
    char *bigger = malloc(cap + STM_LINE_PADDING);

    if (bigger == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a line of %zu bytes", cap);
    memcpy(bigger, l->buf + l->begin, l->end - l->begin);
    memset(bigger + cap, 0, STM_LINE_PADDING);
    free(l->buf);
    l->buf = bigger;
    l->cap = cap;
    l->end -= l->begin;
    l->begin = 0;
    return MILL_OK;
}

/* More bytes behind `end`; makes room by moving what is left to the front, or by a bigger window when a line fills it. */
static mill_status fill(stm_lines *l, mill_error *err)
{
    mill_status st;
    size_t got = 0;

    if (l->begin > 0) {
        const size_t left = l->end - l->begin;
        /* Back to the usual size once the long line is gone. */
        if (l->cap > 4 * STM_LINES_WINDOW && left < STM_LINES_WINDOW / 2) {
            if ((st = resize(l, STM_LINES_WINDOW, err)) != MILL_OK) return st;
        } else {
            memmove(l->buf, l->buf + l->begin, left);
            l->end = left;
            l->begin = 0;
        }
    } else if (l->end == l->cap && (st = resize(l, 2 * l->cap, err)) != MILL_OK) {
        return st;
    }
    if ((st = stm_source_read(l->source, l->buf + l->end, l->cap - l->end, &got, err)) != MILL_OK) return st;
    l->end += got;
    l->source_end = got == 0;
    return MILL_OK;
}

static mill_status open_next(stm_lines *l, mill_error *err)
{
    mill_status st;

    if ((st = stm_source_open(l->paths[l->place.file], &l->source, err)) != MILL_OK) return st;
    l->begin = l->end = l->scanned = 0;
    l->source_end = false;
    if (l->place.offset > 0) return stm_source_seek(l->source, l->place.offset, err);
    while (l->end < 3 && !l->source_end)
        if ((st = fill(l, err)) != MILL_OK) return st;
    if (l->end >= 3 && memcmp(l->buf, "\xef\xbb\xbf", 3) == 0) {
        l->begin = 3;
        l->place.offset = 3;
    }
    return MILL_OK;
}

static void advance(stm_lines *l, size_t bytes)
{
    l->begin += bytes;
    l->place.offset += bytes;
    l->scanned = 0;
}

/* Skip up to and with the next newline. */
static mill_status skip_rest(stm_lines *l, mill_error *err)
{
    mill_status st;

    for (;;) {
        const char *nl = memchr(l->buf + l->begin, '\n', l->end - l->begin);
        if (nl != NULL) {
            advance(l, (size_t)(nl - (l->buf + l->begin)) + 1);
            return MILL_OK;
        }
        advance(l, l->end - l->begin);
        if (l->source_end) return MILL_OK;
        if ((st = fill(l, err)) != MILL_OK) return st;
    }
}

static bool is_blank(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != ' ' && p[i] != '\t' && p[i] != '\r') return false;
    return true;
}

mill_status stm_lines_next(stm_lines *l, stm_line *out, bool *end, mill_error *err)
{
    mill_status st;

    for (;;) {
        if (l->source == NULL) {
            if (l->place.file >= l->n_paths) {
                *end = true;
                return MILL_OK;
            }
            if ((st = open_next(l, err)) != MILL_OK) {
                stm_source_close(&l->source);
                return st;
            }
        }
        const char *text = l->buf + l->begin;
        const size_t there = l->end - l->begin;
        const char *nl = there > l->scanned ? memchr(text + l->scanned, '\n', there - l->scanned) : NULL;
        size_t bytes = nl != NULL ? (size_t)(nl - text) : there;

        if (nl == NULL && !l->source_end && bytes <= l->max_bytes) {
            l->scanned = there;
            if ((st = fill(l, err)) != MILL_OK) return st;
            continue;
        }
        if (nl == NULL && l->source_end && there == 0) { /* this file is done */
            stm_source_close(&l->source);
            l->place = (stm_place_in_files){.file = l->place.file + 1};
            continue;
        }
        l->place.line++;
        if (bytes > l->max_bytes) {
            *out = (stm_line){.text = "", .file = l->place.file, .number = l->place.line, .too_long = true};
            *end = false;
            return skip_rest(l, err);
        }
        advance(l, bytes + (nl != NULL));
        if (is_blank(text, bytes)) continue;
        *out = (stm_line){.text = text, .bytes = bytes, .file = l->place.file, .number = l->place.line};
        *end = false;
        return MILL_OK;
    }
}
