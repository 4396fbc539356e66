#include "pipeline/yaml.h"

#include <libfyaml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"

/*
 * The reader takes libfyaml's events and builds the tree itself: so depth, size, repeated keys and aliases are bounded
 * here, and every error has the place of the thing at fault. Open lists and maps stand on a stack of fixed depth.
 */

struct anchor {
    char *name;
    stm_value value;
    long nodes; /* written out */
};

struct level {
    stm_value value; /* the list or map being read */
    size_t cap;      /* of value.items */
    long nodes;      /* in it so far, itself included */
    const char *key; /* map: key read, value not yet */
    stm_place key_place;
    const char *anchor;
};

struct reader {
    stm_arena *arena;
    const char *file;
    const char *text; /* the input */
    size_t bytes;
    struct level *levels; /* [STM_YAML_MAX_DEPTH] */
    int depth;
    struct anchor *anchors;
    size_t n_anchors, cap_anchors;
    bool have_root, more; /* more: another document has begun */
    stm_value root;
    mill_error *err;
};

static mill_status fail_at(struct reader *r, stm_place at, mill_status st, const char *what)
{
    mill_fail(r->err, st, "%s", what);
    mill_error_place(r->err, r->file, at.line, at.column);
    return st;
}

static mill_status no_memory(struct reader *r) { return mill_fail(r->err, MILL_ERR_NOMEM, "reading %s", r->file); }

static stm_place place_of(const struct reader *r, struct fy_event *e)
{
    const struct fy_mark *m = fy_event_start_mark(e);
    stm_place p = {r->file, 0, 0};

    if (m != NULL) p.line = m->line + 1, p.column = m->column + 1;
    return p;
}

/* Line and column of byte `at`; columns count characters. */
static stm_place place_of_byte(const char *file, const char *text, size_t at)
{
    stm_place p = {file, 1, 1};

    for (size_t i = 0; i < at; i++) {
        if (text[i] == '\n')
            p.line++, p.column = 1;
        else if (((unsigned char)text[i] & 0xc0) != 0x80)
            p.column++;
    }
    return p;
}

/* Index of the first byte that is not well-formed UTF-8 (or is NUL), or `n`. */
static size_t utf8_fault(const unsigned char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        const unsigned char c = s[i];
        size_t len;
        unsigned char lo = 0x80, hi = 0xbf;

        if (c == 0) return i;
        if (c < 0x80) {
            i++;
            continue;
        }
        if (c >= 0xc2 && c <= 0xdf)
            len = 2;
        else if (c >= 0xe0 && c <= 0xef)
            len = 3, lo = c == 0xe0 ? 0xa0 : 0x80, hi = c == 0xed ? 0x9f : 0xbf;
        else if (c >= 0xf0 && c <= 0xf4)
            len = 4, lo = c == 0xf0 ? 0x90 : 0x80, hi = c == 0xf4 ? 0x8f : 0xbf;
        else
            return i;
        if (n - i < len || s[i + 1] < lo || s[i + 1] > hi) return i;
        for (size_t k = 2; k < len; k++)
            if ((s[i + k] & 0xc0) != 0x80) return i;
        i += len;
    }
    return n;
}

static int by_key(const void *a, const void *b)
{
    const stm_value *x = *(const stm_value *const *)a, *y = *(const stm_value *const *)b;
    const int c = strcmp(x->key, y->key);

    return c != 0 ? c : (x > y) - (x < y); /* equal keys in file order: the later one is at fault */
}

/* A map is complete: no key may stand twice. Sorting keeps a large map from costing its square. */
static mill_status check_keys(struct reader *r, const stm_value *map)
{
    const stm_value **sorted;
    const stm_value *twice = NULL, *first = NULL;
    char what[200];

    if (map->n_items < 2) return MILL_OK;
    if ((sorted = stm_malloc(map->n_items * sizeof(stm_value *))) == NULL) return no_memory(r);
    for (size_t i = 0; i < map->n_items; i++) sorted[i] = &map->items[i];
    qsort(sorted, map->n_items, sizeof(stm_value *), by_key);
    for (size_t i = 1; i < map->n_items; i++)
        if (strcmp(sorted[i - 1]->key, sorted[i]->key) == 0 && (twice == NULL || sorted[i] < twice))
            twice = sorted[i], first = sorted[i - 1];
    stm_free(sorted);
    if (twice == NULL) return MILL_OK;
    snprintf(what, sizeof what, "key \"%.80s\" stands twice (first on line %d)", twice->key, first->key_place.line);
    return fail_at(r, twice->key_place, MILL_ERR_PARSE, what);
}

static mill_status keep_anchor(struct reader *r, const char *name, const stm_value *v, long nodes)
{
    struct anchor *a = NULL;

    for (size_t i = 0; i < r->n_anchors; i++)
        if (strcmp(r->anchors[i].name, name) == 0) a = &r->anchors[i]; /* a later anchor takes the name over */
    if (a == NULL) {
        if (r->n_anchors == 256) return fail_at(r, v->place, MILL_ERR_PARSE, "more than 256 anchors");
        if (stm_grow(&r->anchors, &r->cap_anchors, r->n_anchors + 1, sizeof *r->anchors) != 0) return no_memory(r);
        a = &r->anchors[r->n_anchors++];
        a->name = (char *)name;
    }
    a->value = *v;
    a->nodes = nodes;
    return MILL_OK;
}

/* A value is complete: it goes into the list or map it stands in. */
static mill_status put(struct reader *r, stm_value *v, long nodes, const char *anchor)
{
    struct level *top;

    if (anchor != NULL) {
        const mill_status st = keep_anchor(r, anchor, v, nodes);

        if (st != MILL_OK) return st;
    }
    if (r->depth == 0) {
        r->root = *v;
        r->have_root = true;
        return MILL_OK;
    }
    top = &r->levels[r->depth - 1];
    v->key = NULL;
    if (top->value.kind == STM_VALUE_MAP) {
        v->key = top->key;
        v->key_place = top->key_place;
        top->key = NULL;
    }
    top->nodes += nodes;
    if (top->nodes > STM_YAML_MAX_NODES) return fail_at(r, v->place, MILL_ERR_PARSE, "too many values (aliases written out)");
    if (top->value.n_items == top->cap) {
        const size_t cap = top->cap != 0 ? top->cap * 2 : 8;
        stm_value *grown = stm_arena_take(r->arena, cap * sizeof *grown);

        if (grown == NULL) return no_memory(r);
        if (top->cap != 0) memcpy(grown, top->value.items, top->cap * sizeof *grown);
        top->value.items = grown;
        top->cap = cap;
    }
    top->value.items[top->value.n_items++] = *v;
    return MILL_OK;
}

/*
 * Text of a token. fy_token_get_text of libfyaml 0.7 leaks when a text has many pieces (a block of nine lines is enough), and its
 * iterator counts adjacent quotes of a single-quoted text twice. So single-quoted texts are decoded here, all others are
 * gathered from the iterator, and the library's own length is the check on both.
 */
static size_t single_quoted(const char *s, size_t n, char *out)
{
    size_t used = 0;

    for (size_t i = 0; i < n; i++) {
        size_t breaks = 0;

        if (s[i] == '\'' && i + 1 < n && s[i + 1] == '\'') i++;
        if (s[i] != '\n' && s[i] != '\r') {
            out[used++] = s[i];
            continue;
        }
        while (used > 0 && (out[used - 1] == ' ' || out[used - 1] == '\t'))
            used--; /* a line end takes the blanks around it along */
        for (; i < n && (s[i] == ' ' || s[i] == '\t' || s[i] == '\r' || s[i] == '\n'); i++)
            breaks += s[i] == '\n' || (s[i] == '\r' && (i + 1 == n || s[i + 1] != '\n'));
        i--;
        if (breaks == 1) out[used++] = ' ';
        for (; breaks > 1; breaks--) out[used++] = '\n';
    }
    return used;
}

static size_t gather(struct fy_token *t, char *out, size_t size)
{
    struct fy_token_iter *it = fy_token_iter_create(t);
    const struct fy_iter_chunk *c;
    size_t used = 0;
    int fault = 0;

    if (it == NULL) return SIZE_MAX;
    for (c = fy_token_iter_peek_chunk(it); (c = fy_token_iter_chunk_next(it, c, &fault)) != NULL;) {
        if (c->len > size - used) break;
        memcpy(out + used, c->str, c->len);
        used += c->len;
    }
    fy_token_iter_destroy(it);
    return c != NULL || fault != 0 ? SIZE_MAX : used;
}

/* Text of a token in the arena; NULL with an error when out of memory or when it holds a NUL. */
static const char *token_text(struct reader *r, struct fy_token *t, stm_place at)
{
    const struct fy_mark *from = fy_token_start_mark(t), *to = fy_token_end_mark(t);
    size_t n = fy_token_get_text_length(t), got;
    const char *s;
    char *copy;

    if (n == (size_t)-1) return no_memory(r), NULL;
    if ((copy = stm_arena_take(r->arena, n + 1)) == NULL) return no_memory(r), NULL;
    if (fy_token_scalar_style(t) == FYSS_SINGLE_QUOTED && from != NULL && to != NULL && to->input_pos <= r->bytes &&
        to->input_pos >= from->input_pos) {
        const size_t raw = to->input_pos - from->input_pos;
        char *wide = stm_arena_take(r->arena, raw + 1); /* decoding never makes it longer */

        if (wide == NULL) return no_memory(r), NULL;
        got = single_quoted(r->text + from->input_pos, raw, wide);
        if (got == n) memcpy(copy, wide, n);
    } else {
        got = gather(t, copy, n);
    }
    if (got != n) { /* neither way agrees with the library: its own text, leak or not */
        if ((s = fy_token_get_text(t, &got)) == NULL) return no_memory(r), NULL;
        if ((copy = stm_arena_copy(r->arena, s, got)) == NULL) return no_memory(r), NULL;
        n = got;
    }
    copy[n] = '\0';
    if (memchr(copy, '\0', n) != NULL) return fail_at(r, at, MILL_ERR_PARSE, "a NUL character in a text"), NULL;
    return copy;
}

static mill_status anchor_name(struct reader *r, struct fy_event *e, stm_place at, const char **out)
{
    struct fy_token *t = fy_event_get_anchor_token(e);

    *out = NULL;
    if (t == NULL) return MILL_OK;
    return (*out = token_text(r, t, at)) != NULL ? MILL_OK : r->err->status;
}

/* The key of the next value, if this event is in a map and no key is pending. */
static bool wants_key(const struct reader *r)
{
    return r->depth > 0 && r->levels[r->depth - 1].value.kind == STM_VALUE_MAP && r->levels[r->depth - 1].key == NULL;
}

static mill_status on_scalar(struct reader *r, struct fy_event *e)
{
    stm_value v = {.kind = STM_VALUE_SCALAR, .place = place_of(r, e)};
    struct fy_token *t = e->scalar.value;
    const enum fy_scalar_style style = t != NULL ? fy_token_scalar_style(t) : FYSS_PLAIN;
    const char *anchor;
    mill_status st = anchor_name(r, e, v.place, &anchor);

    if (st != MILL_OK) return st;
    if (style == FYSS_SINGLE_QUOTED || style == FYSS_DOUBLE_QUOTED) v.place.column--; /* the mark stands behind the quote */
    if (t != NULL && (v.text = token_text(r, t, v.place)) == NULL) return r->err->status;
    v.quoted = style != FYSS_PLAIN;
    if (wants_key(r)) {
        struct level *top = &r->levels[r->depth - 1];

        if (v.text == NULL || (!v.quoted && v.text[0] == '\0'))
            return fail_at(r, v.place.line > 0 ? v.place : top->value.place, MILL_ERR_PARSE, "expected a key before ':'");
        if (!v.quoted && strcmp(v.text, "<<") == 0)
            return fail_at(r, v.place, MILL_ERR_PARSE,
                           "merge keys (<<) are not used in pipeline files: an alias stands for a whole value");
        if (anchor != NULL && (st = keep_anchor(r, anchor, &v, 1)) != MILL_OK) return st;
        top->key = v.text;
        top->key_place = v.place;
        return MILL_OK;
    }
    if (!v.quoted && v.text != NULL &&
        (v.text[0] == '\0' || strcmp(v.text, "~") == 0 || strcmp(v.text, "null") == 0 || strcmp(v.text, "Null") == 0 ||
         strcmp(v.text, "NULL") == 0))
        v.text = NULL;
    if (v.place.line == 0 && r->depth > 0) { /* nothing after "key:" : say it at the key */
        const struct level *top = &r->levels[r->depth - 1];

        v.place = top->value.kind == STM_VALUE_MAP ? top->key_place : top->value.place;
    }
    return put(r, &v, 1, anchor);
}

static mill_status on_alias(struct reader *r, struct fy_event *e)
{
    stm_place at = place_of(r, e);
    const char *name;
    char what[160];
    stm_value v;

    at.column--; /* the mark stands behind the '*' */
    if ((name = token_text(r, e->alias.anchor, at)) == NULL) return r->err->status;
    for (size_t i = 0; i < r->n_anchors; i++) {
        if (strcmp(r->anchors[i].name, name) != 0) continue;
        v = r->anchors[i].value;
        if (wants_key(r)) {
            if (v.kind != STM_VALUE_SCALAR || v.text == NULL) return fail_at(r, at, MILL_ERR_PARSE, "a key must be a text");
            r->levels[r->depth - 1].key = v.text;
            r->levels[r->depth - 1].key_place = at;
            return MILL_OK;
        }
        return put(r, &v, r->anchors[i].nodes, NULL);
    }
    for (int i = 0; i < r->depth; i++)
        if (r->levels[i].anchor != NULL && strcmp(r->levels[i].anchor, name) == 0)
            return fail_at(r, at, MILL_ERR_PARSE, "an alias stands inside its own anchor");
    snprintf(what, sizeof what, "no anchor \"&%.80s\" before this alias", name);
    return fail_at(r, at, MILL_ERR_PARSE, what);
}

static mill_status on_open(struct reader *r, struct fy_event *e, int kind)
{
    const stm_place at = place_of(r, e);
    struct level *top;
    mill_status st;

    if (wants_key(r)) return fail_at(r, at, MILL_ERR_PARSE, "a key must be a text");
    if (r->depth == STM_YAML_MAX_DEPTH) return fail_at(r, at, MILL_ERR_PARSE, "lists and maps nested too deep (limit 48)");
    top = &r->levels[r->depth];
    memset(top, 0, sizeof *top);
    top->value.kind = kind;
    top->value.place = at;
    top->nodes = 1;
    if ((st = anchor_name(r, e, at, &top->anchor)) != MILL_OK) return st;
    r->depth++;
    return MILL_OK;
}

static mill_status on_close(struct reader *r)
{
    struct level *top = &r->levels[r->depth - 1];
    mill_status st = MILL_OK;
    stm_value v;

    if (top->value.kind == STM_VALUE_MAP) st = check_keys(r, &top->value);
    if (st != MILL_OK) return st;
    v = top->value;
    r->depth--;
    return put(r, &v, top->nodes, top->anchor);
}

static mill_status on_event(struct reader *r, struct fy_event *e)
{
    /* A document may begin without a mark: then it is said at the first thing in it. */
    r->more = r->more || (e->type == FYET_DOCUMENT_START && r->have_root);
    if (r->more && place_of(r, e).line > 0)
        return fail_at(r, place_of(r, e), MILL_ERR_PARSE, "a second document: a pipeline file holds one");
    if (fy_event_get_tag_token(e) != NULL && e->type != FYET_DOCUMENT_START)
        return fail_at(r, place_of(r, e), MILL_ERR_PARSE, "tags (!...) are not used in pipeline files");
    switch (e->type) {
    case FYET_SCALAR: return on_scalar(r, e);
    case FYET_ALIAS: return on_alias(r, e);
    case FYET_MAPPING_START: return on_open(r, e, STM_VALUE_MAP);
    case FYET_SEQUENCE_START: return on_open(r, e, STM_VALUE_LIST);
    case FYET_MAPPING_END:
    case FYET_SEQUENCE_END: return on_close(r);
    default: return MILL_OK;
    }
}

/* Some of the parser's words say what it saw instead of what is wrong. */
static const char *plain_words(const char *msg)
{
    static const struct {
        const char *theirs, *ours;
    } words[] = {
        {"wrongly indented double-quoted scalar", "double-quoted text without closing quote, or its next line stands too far left"},
        {"wrongly indented single-quoted scalar", "single-quoted text without closing quote, or its next line stands too far left"},
        {"wrongly indented flow sequence", "a list without closing ']', or its next line stands too far left"},
        {"wrongly indented flow mapping", "a map without closing '}', or its next line stands too far left"},
        {"invalid multiline plain key", "a key without ':', or a line that stands too far right"},
        {"invalid nested block mapping on the same line", "a second ':' in one line: put the text in quotes"},
        {"missing comma in flow mapping", "expected ',' or '}'"},
        {"missing comma in flow sequence", "expected ',' or ']'"},
        {"flow sequence without a closing bracket", "a list without closing ']'"},
        {"flow mapping without a closing brace", "a map without closing '}'"},
    };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(msg, words[i].theirs) == 0) return words[i].ours;
    return msg;
}

/* What the parser complained about first. */
static mill_status syntax_error(struct reader *r, struct fy_diag *diag)
{
    void *it = NULL;
    const struct fy_diag_error *e = fy_diag_errors_iterate(diag, &it);
    stm_place at = {r->file, 0, 0};

    if (e == NULL) return mill_fail(r->err, MILL_ERR_PARSE, "%s is not YAML", r->file);
    at.line = e->line;
    at.column = e->column;
    return fail_at(r, at, MILL_ERR_PARSE, e->msg != NULL ? plain_words(e->msg) : "not YAML");
}

mill_status stm_yaml_parse(stm_arena *a, const char *text, size_t bytes, const char *file, stm_value *out, mill_error *err)
{
    mill_error local = {0};
    struct reader r = {.arena = a, .file = file, .text = text, .bytes = bytes, .err = err != NULL ? err : &local};
    struct fy_diag_cfg diag_cfg;
    struct fy_parse_cfg cfg = {.flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG | FYPCF_DISABLE_MMAP_OPT | FYPCF_JSON_NONE |
                                        FYPCF_DEFAULT_VERSION_1_2};
    struct fy_diag *diag = NULL;
    struct fy_parser *parser = NULL;
    struct fy_event *e;
    mill_status st = MILL_OK;
    size_t fault;

    if (bytes > STM_YAML_MAX_BYTES) {
        mill_fail(r.err, MILL_ERR_PARSE, "the file has more than %zu MiB", STM_YAML_MAX_BYTES >> 20);
        mill_error_place(r.err, file, 0, 0);
        return MILL_ERR_PARSE;
    }
    if ((fault = utf8_fault((const unsigned char *)text, bytes)) < bytes)
        return fail_at(&r, place_of_byte(file, text, fault), MILL_ERR_PARSE,
                       text[fault] == '\0' ? "a NUL byte: this is not a text file" : "not UTF-8");
    r.levels = stm_calloc(STM_YAML_MAX_DEPTH * sizeof *r.levels);
    fy_diag_cfg_default(&diag_cfg);
    diag_cfg.fp = NULL;
    diag_cfg.colorize = false;
    if (r.levels != NULL && (diag = fy_diag_create(&diag_cfg)) != NULL) {
        fy_diag_set_collect_errors(diag, true);
        cfg.diag = diag;
        parser = fy_parser_create(&cfg);
    }
    if (parser == NULL || fy_parser_set_string(parser, text, bytes) != 0) st = no_memory(&r);
    while (st == MILL_OK && (e = fy_parser_parse(parser)) != NULL) {
        st = on_event(&r, e);
        fy_parser_event_free(parser, e);
    }
    if (st == MILL_OK && fy_parser_get_stream_error(parser)) st = syntax_error(&r, diag);
    fy_parser_destroy(parser);
    fy_diag_destroy(diag);
    stm_free(r.levels);
    stm_free(r.anchors);
    if (st != MILL_OK) return st;
    if (!r.have_root) r.root = (stm_value){.kind = STM_VALUE_SCALAR, .place = {file, 1, 1}};
    *out = r.root;
    return MILL_OK;
}

stm_value *stm_value_get(const stm_value *map, const char *key)
{
    if (map == NULL || map->kind != STM_VALUE_MAP) return NULL;
    for (size_t i = 0; i < map->n_items; i++)
        if (strcmp(map->items[i].key, key) == 0) return &map->items[i];
    return NULL;
}

stm_value *stm_value_append(stm_arena *a, stm_value *to, const stm_value *item)
{
    stm_value *grown = stm_arena_take(a, (to->n_items + 1) * sizeof *grown);

    if (grown == NULL) return NULL;
    if (to->n_items > 0) memcpy(grown, to->items, to->n_items * sizeof *grown);
    grown[to->n_items] = *item;
    to->items = grown;
    return &to->items[to->n_items++];
}

bool stm_value_own(stm_arena *a, stm_value *map)
{
    stm_value *items;

    if (map->n_items == 0) return true;
    if ((items = stm_arena_take(a, map->n_items * sizeof *items)) == NULL) return false;
    memcpy(items, map->items, map->n_items * sizeof *items);
    map->items = items;
    return true;
}

const char *stm_yaml_show(const stm_value *v, char *buf, size_t size)
{
    if (v == NULL || (v->kind == STM_VALUE_SCALAR && v->text == NULL))
        snprintf(buf, size, "nothing");
    else if (v->kind == STM_VALUE_SCALAR)
        snprintf(buf, size, "\"%.60s%s\"", v->text, strlen(v->text) > 60 ? "..." : "");
    else
        snprintf(buf, size, v->kind == STM_VALUE_LIST ? "a list" : "a map");
    return buf;
}
