#include "core/tree.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"

enum { MAX_DEPTH = 64, CHUNK = 256 };

struct chunk {
    struct chunk *next;
    int n;
    stm_tree nodes[CHUNK];
};

struct stm_tree_doc {
    struct chunk *chunks;
    char *copy; /* texts are unescaped in place */
};

struct reader {
    stm_tree_doc *doc;
    char *p, *end;
    mill_status st;
};

static stm_tree *node(struct reader *r)
{
    struct chunk *c = r->doc->chunks;
    stm_tree *j;

    if (c == NULL || c->n == CHUNK) {
        if ((c = stm_malloc(sizeof *c)) == NULL) {
            r->st = MILL_ERR_NOMEM;
            return NULL;
        }
        c->n = 0;
        c->next = r->doc->chunks;
        r->doc->chunks = c;
    }
    j = &c->nodes[c->n++];
    *j = (stm_tree){.key = "", .text = ""};
    return j;
}

static void space(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r')) r->p++;
}

static int hex4(const char *p)
{
    int v = 0;

    for (int i = 0; i < 4; i++) {
        const char c = p[i];
        const int d = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    return v;
}

static char *put_utf8(char *to, int c)
{
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 63));
        *to++ = (char)(0x80 | (c & 63));
    } else {
        *to++ = (char)(0xf0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 63));
        *to++ = (char)(0x80 | (c >> 6 & 63));
        *to++ = (char)(0x80 | (c & 63));
    }
    return to;
}

/* Behind \u: the character; -1 = malformed. Halves of pairs that stand alone become U+FFFD. */
static int escaped(struct reader *r)
{
    int c = r->end - r->p >= 4 ? hex4(r->p) : -1;

    if (c < 0) return -1;
    r->p += 4;
    if (c >= 0xd800 && c < 0xdc00 && r->end - r->p >= 6 && r->p[0] == '\\' && r->p[1] == 'u') {
        const int low = hex4(r->p + 2);
        if (low >= 0xdc00 && low < 0xe000) {
            r->p += 6;
            return 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        }
    }
    return c >= 0xd800 && c < 0xe000 ? 0xfffd : c;
}

/* At a quote. NULL = malformed. */
static const char *text(struct reader *r)
{
    char *const begin = ++r->p, *to = begin;

    while (r->p < r->end && *r->p != '"') {
        static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
        const char *at;
        int c;

        if ((unsigned char)*r->p < 0x20) return NULL;
        if (*r->p != '\\') {
            *to++ = *r->p++;
            continue;
        }
        if (++r->p >= r->end) return NULL;
        if (*r->p == 'u') {
            r->p++;
            if ((c = escaped(r)) < 0) return NULL;
            to = put_utf8(to, c); /* never longer than what it stands for */
        } else if (*r->p != '\0' && (at = strchr(from, *r->p)) != NULL) {
            *to++ = into[at - from];
            r->p++;
        } else {
            return NULL;
        }
    }
    if (r->p >= r->end) return NULL;
    r->p++;
    *to = '\0'; /* at the quote or before it */
    return begin;
}

static bool word(struct reader *r, const char *w)
{
    const size_t n = strlen(w);

    if ((size_t)(r->end - r->p) < n || memcmp(r->p, w, n) != 0) return false;
    r->p += n;
    return true;
}

static bool number(struct reader *r, stm_tree *j)
{
    char *stop = NULL;

    if (*r->p != '-' && (*r->p < '0' || *r->p > '9')) return false; /* strtod takes more than JSON has */
    j->kind = STM_TREE_NUMBER;
    j->number = strtod(r->p, &stop); /* the copy ends with a NUL */
    if (stop == r->p || stop > r->end) return false;
    j->whole = memchr(r->p, '.', (size_t)(stop - r->p)) == NULL && fabs(j->number) < 9e18 && fabs(j->number) > 1e15
                   ? strtoll(r->p, NULL, 10)
               : fabs(j->number) < 9e18 ? (int64_t)j->number
                                        : 0;
    r->p = stop;
    return true;
}

static stm_tree *value(struct reader *r, int depth)
{
    stm_tree *j = node(r), **tail;
    char close;

    if (j == NULL) return NULL;
    space(r);
    if (r->p >= r->end || depth > MAX_DEPTH) return NULL;
    if (*r->p == '"') {
        j->kind = STM_TREE_TEXT;
        return (j->text = text(r)) != NULL ? j : NULL;
    }
    if (*r->p != '{' && *r->p != '[') {
        if (word(r, "null")) return j;
        j->kind = STM_TREE_BOOL;
        if (word(r, "true")) return j->number = 1, j->whole = 1, j;
        if (word(r, "false")) return j;
        return number(r, j) ? j : NULL;
    }
    j->kind = *r->p == '{' ? STM_TREE_OBJECT : STM_TREE_ARRAY;
    close = *r->p++ == '{' ? '}' : ']';
    tail = &j->first;
    space(r);
    if (r->p < r->end && *r->p == close) return r->p++, j;
    for (;;) {
        const char *key = "";

        space(r);
        if (j->kind == STM_TREE_OBJECT) {
            if (r->p >= r->end || *r->p != '"' || (key = text(r)) == NULL) return NULL;
            space(r);
            if (r->p >= r->end || *r->p++ != ':') return NULL;
        }
        if ((*tail = value(r, depth + 1)) == NULL) return NULL;
        (*tail)->key = key;
        tail = &(*tail)->next;
        j->n++;
        space(r);
        if (r->p >= r->end) return NULL;
        if (*r->p == close) return r->p++, j;
        if (*r->p++ != ',') return NULL;
    }
}

mill_status stm_tree_parse(const char *bytes, size_t n, stm_tree_doc **out, const stm_tree **root)
{
    stm_tree_doc *doc = stm_calloc(sizeof *doc);
    struct reader r = {.doc = doc, .st = MILL_ERR_DATA};

    if (doc == NULL || (doc->copy = stm_malloc(n + 1)) == NULL) {
        stm_tree_destroy(&doc);
        return MILL_ERR_NOMEM;
    }
    if (n > 0) memcpy(doc->copy, bytes, n);
    doc->copy[n] = '\0';
    r.p = doc->copy;
    r.end = doc->copy + n;
    *root = value(&r, 0);
    space(&r);
    if (*root == NULL || r.p != r.end) {
        *root = NULL;
        stm_tree_destroy(&doc);
        return r.st;
    }
    *out = doc;
    return MILL_OK;
}

void stm_tree_destroy(stm_tree_doc **doc)
{
    if (doc == NULL || *doc == NULL) return;
    for (struct chunk *c = (*doc)->chunks, *next; c != NULL; c = next) {
        next = c->next;
        stm_free(c);
    }
    stm_free((*doc)->copy);
    stm_free(*doc);
    *doc = NULL;
}

const stm_tree *stm_tree_get(const stm_tree *object, const char *key)
{
    if (object == NULL || object->kind != STM_TREE_OBJECT) return NULL;
    for (const stm_tree *j = object->first; j != NULL; j = j->next)
        if (strcmp(j->key, key) == 0) return j;
    return NULL;
}

const char *stm_tree_text(const stm_tree *object, const char *key)
{
    const stm_tree *j = stm_tree_get(object, key);

    return j != NULL ? j->text : "";
}

double stm_tree_number(const stm_tree *object, const char *key, double otherwise)
{
    const stm_tree *j = stm_tree_get(object, key);

    return j != NULL && j->kind == STM_TREE_NUMBER ? j->number : otherwise;
}

int64_t stm_tree_whole(const stm_tree *object, const char *key, int64_t otherwise)
{
    const stm_tree *j = stm_tree_get(object, key);

    return j != NULL && j->kind == STM_TREE_NUMBER ? j->whole : otherwise;
}
