#include <ctype.h>
#include <string.h>

#include "placement/sources.h"

void stm_xml_start(stm_xml_reader *r, const char *text, size_t bytes, const char *file)
{
    if (bytes == 0) text = ""; /* may be NULL then */
    *r = (stm_xml_reader){.p = text, .end = text + bytes, .start = text, .file = file};
}

static mill_status malformed(const stm_xml_reader *r, const char *at, mill_error *err, const char *what)
{
    int line = 1, column = 1;

    for (const char *p = r->start; p < at && p < r->end; p++) {
        column++;
        if (*p == '\n') line++, column = 1;
    }
    mill_fail(err, MILL_ERR_PARSE, "not well-formed XML: %s", what);
    mill_error_place(err, r->file, line, column);
    return MILL_ERR_PARSE;
}

static bool begins(const stm_xml_reader *r, const char *word)
{
    const size_t n = strlen(word);

    return (size_t)(r->end - r->p) >= n && memcmp(r->p, word, n) == 0;
}

/* Past the next @p word; false = there is none. */
static bool skip_past(stm_xml_reader *r, const char *word)
{
    const size_t n = strlen(word);
    const char *at = memmem(r->p, (size_t)(r->end - r->p), word, n);

    if (at == NULL) return false;
    r->p = at + n;
    return true;
}

/* To the next tag, past text, comments, declarations. 1 = a tag, 0 = the end, -1 = cut short. */
static int find_tag(stm_xml_reader *r)
{
    for (;;) {
        r->p = memchr(r->p, '<', (size_t)(r->end - r->p));
        if (r->p == NULL) return r->p = r->end, 0;
        if (begins(r, "<!--")) {
            if (!skip_past(r, "-->")) return -1;
        } else if (begins(r, "<?")) {
            if (!skip_past(r, "?>")) return -1;
        } else if (begins(r, "<!")) {
            if (!skip_past(r, ">")) return -1;
        } else {
            return 1;
        }
    }
}

static size_t name_length(const char *p, const char *end)
{
    size_t n = 0;

    while (p + n < end && (isalnum((unsigned char)p[n]) || strchr("_-.:", p[n]) != NULL) && p[n] != '\0') n++;
    return n;
}

/* The '>' that ends the tag; quoted ones do not count. NULL = none. */
static const char *tag_end(const char *p, const char *end)
{
    char quote = 0;

    for (; p < end; p++) {
        if (quote != 0) {
            if (*p == quote) quote = 0;
        } else if (*p == '"' || *p == '\'') {
            quote = *p;
        } else if (*p == '>') {
            return p;
        }
    }
    return NULL;
}

static mill_status close_element(stm_xml_reader *r, stm_xml_element *out)
{
    r->depth--;
    *out = (stm_xml_element){.event = STM_XML_CLOSE, .name = r->open[r->depth].at, .name_bytes = r->open[r->depth].n};
    return MILL_OK;
}

mill_status stm_xml_next(stm_xml_reader *r, stm_xml_element *out, mill_error *err)
{
    const char *tag, *end;
    bool is_end;
    int found;
    size_t n;

    if (r->closing) {
        r->closing = false;
        return close_element(r, out);
    }
    tag = r->p;
    if ((found = find_tag(r)) < 0) return malformed(r, tag, err, "a comment or declaration has no end");
    if (found == 0) {
        if (r->depth > 0) return malformed(r, r->end, err, "an element has no end");
        *out = (stm_xml_element){.event = STM_XML_END};
        return MILL_OK;
    }
    tag = r->p;
    is_end = begins(r, "</");
    r->p += is_end ? 2 : 1;
    n = name_length(r->p, r->end);
    if (n == 0) return malformed(r, tag, err, "a tag has no name");
    if ((end = tag_end(r->p + n, r->end)) == NULL) return malformed(r, tag, err, "a tag has no end");
    if (is_end) {
        if (r->depth == 0 || r->open[r->depth - 1].n != n || memcmp(r->open[r->depth - 1].at, r->p, n) != 0)
            return malformed(r, tag, err, "an end tag has no start");
        r->p = end + 1;
        return close_element(r, out);
    }
    if (r->depth == STM_XML_MAX_DEPTH) return malformed(r, tag, err, "elements are nested too deeply");
    r->open[r->depth].at = r->p;
    r->open[r->depth++].n = n;
    r->closing = end[-1] == '/' && end - 1 >= r->p + n;
    *out = (stm_xml_element){STM_XML_OPEN, r->p, n, r->p + n, (size_t)(end - (r->p + n)) - r->closing};
    r->p = end + 1;
    return MILL_OK;
}

bool stm_xml_is(const stm_xml_element *e, const char *name)
{
    return strlen(name) == e->name_bytes && memcmp(name, e->name, e->name_bytes) == 0;
}

bool stm_xml_attribute(const stm_xml_element *e, const char *name, char *buf, size_t size)
{
    const char *p = e->attributes, *end = p + e->attributes_bytes;
    const size_t want = strlen(name);

    while (p < end) {
        const char *at, *value, *close;
        size_t n;

        while (p < end && isspace((unsigned char)*p)) p++;
        at = p;
        n = name_length(p, end);
        p += n;
        while (p < end && isspace((unsigned char)*p)) p++;
        if (n == 0 || p >= end || *p++ != '=') return false;
        while (p < end && isspace((unsigned char)*p)) p++;
        if (p >= end || (*p != '"' && *p != '\'')) return false;
        value = p + 1;
        if ((close = memchr(value, *p, (size_t)(end - value))) == NULL) return false;
        if (n == want && memcmp(at, name, n) == 0) {
            size_t k = (size_t)(close - value);

            if (k >= size) k = size - 1;
            memcpy(buf, value, k);
            buf[k] = '\0';
            return true;
        }
        p = close + 1;
    }
    return false;
}
