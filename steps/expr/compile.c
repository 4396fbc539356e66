#include "steps/expr/expr.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "steps/expr/node.h"

#define MAX_DEPTH 200
#define MAX_NODES 10000

typedef enum token_kind { T_END, T_NAME, T_COLUMN, T_STRING, T_WHOLE, T_REAL, T_PUNCT } token_kind;

typedef struct token {
    token_kind kind;
    size_t at;      /* byte in the source */
    char text[128]; /* names, punctuation */
    stm_scalar value;
} token;

typedef struct compiler {
    const char *source;
    size_t at;
    token tok; /* the one in hand */
    stm_expr *e;
    stm_expr_lookup lookup;
    void *user;
    mill_error *err;
    int depth;
} compiler;

static mill_status fail_at(const compiler *c, size_t at, mill_status st, const char *fmt, ...) MILL_PRINTF(4, 5);
static mill_status fail_at(const compiler *c, size_t at, mill_status st, const char *fmt, ...)
{
    char msg[300];
    va_list args;
    size_t character = 1;

    for (size_t i = 0; i < at; i++)
        if (((unsigned char)c->source[i] & 0xc0) != 0x80) character++;
    va_start(args, fmt);
    vsnprintf(msg, sizeof msg, fmt, args);
    va_end(args);
    return mill_fail(c->err, st, "character %zu: %s", character, msg);
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static mill_status read_string(compiler *c, char quote)
{
    const size_t start = c->at++;
    char *d = c->e->literals + c->e->literal_bytes;

    c->tok.kind = quote == '`' ? T_COLUMN : T_STRING;
    c->tok.value.string.text = d;
    for (;; c->at++) {
        char ch = c->source[c->at];
        if (ch == 0) return fail_at(c, start, MILL_ERR_PARSE, "this %c has no second one", quote);
        if (ch == quote) break;
        if (ch == '\\' && quote != '`') {
            ch = c->source[++c->at];
            switch (ch) {
            case 'n': ch = '\n'; break;
            case 't': ch = '\t'; break;
            case 'r': ch = '\r'; break;
            case '\\': case '"': case '\'': break;
            default: /* left as it stands, so that regular expressions read well: "\d" */
                *d++ = '\\';
                if (ch == 0) return fail_at(c, start, MILL_ERR_PARSE, "this %c has no second one", quote);
            }
        }
        *d++ = ch;
    }
    c->at++;
    *d++ = 0;
    c->tok.value.string.bytes = d - 1 - c->tok.value.string.text;
    c->e->literal_bytes = (size_t)(d - c->e->literals);
    return MILL_OK;
}

static mill_status read_number(compiler *c)
{
    const char *s = c->source + c->at;
    const size_t digits = strspn(s, "0123456789");
    char *end;

    errno = 0;
    if (s[digits] == '.' || s[digits] == 'e' || s[digits] == 'E') {
        c->tok.kind = T_REAL;
        c->tok.value.real = strtod(s, &end);
        if (!isfinite(c->tok.value.real)) return fail_at(c, c->at, MILL_ERR_PARSE, "this number is out of range");
    } else {
        c->tok.kind = T_WHOLE;
        c->tok.value.whole = strtoll(s, &end, 10);
        if (errno == ERANGE) return fail_at(c, c->at, MILL_ERR_PARSE, "this number is out of range");
    }
    if (isalnum((unsigned char)*end) || *end == '_')
        return fail_at(c, c->at, MILL_ERR_PARSE, "a number cannot go on with a letter");
    c->at = (size_t)(end - c->source);
    return MILL_OK;
}

static mill_status next(compiler *c)
{
    static const char *const doubles[] = {"==", "!=", "<=", ">="};
    const char *s;

    while (isspace((unsigned char)c->source[c->at])) c->at++;
    s = c->source + c->at;
    c->tok.at = c->at;
    c->tok.text[0] = 0;
    if (*s == 0) {
        c->tok.kind = T_END;
        return MILL_OK;
    }
    if (*s == '"' || *s == '\'' || *s == '`') return read_string(c, *s);
    if (isdigit((unsigned char)*s) || (*s == '.' && isdigit((unsigned char)s[1]))) return read_number(c);
    if (isalpha((unsigned char)*s) || *s == '_' || (unsigned char)*s >= 0x80) {
        size_t n = 0;
        while (isalnum((unsigned char)s[n]) || s[n] == '_' || (unsigned char)s[n] >= 0x80) n++;
        if (n >= sizeof c->tok.text) return fail_at(c, c->at, MILL_ERR_PARSE, "this name is too long");
        c->tok.kind = T_NAME;
        memcpy(c->tok.text, s, n);
        c->tok.text[n] = 0;
        c->at += n;
        return MILL_OK;
    }
    size_t n = 0;
    for (size_t i = 0; i < 4; i++)
        if (strncmp(s, doubles[i], 2) == 0) n = 2;
    if (n == 0 && strchr("<>()+-*/%,", *s) != NULL) n = 1;
    if (n == 0) {
        if (*s == '=') return fail_at(c, c->at, MILL_ERR_PARSE, "to compare, write ==");
        if (*s == '&' || *s == '|' || *s == '!') return fail_at(c, c->at, MILL_ERR_PARSE, "write and, or, not");
        return fail_at(c, c->at, MILL_ERR_PARSE, "%c does not belong here", *s);
    }
    c->tok.kind = T_PUNCT;
    memcpy(c->tok.text, s, n);
    c->tok.text[n] = 0;
    c->at += n;
    return MILL_OK;
}

static bool is(const compiler *c, const char *text)
{
    return (c->tok.kind == T_NAME || c->tok.kind == T_PUNCT) && strcmp(c->tok.text, text) == 0;
}

static mill_status expect(compiler *c, const char *text)
{
    if (!is(c, text)) return fail_at(c, c->tok.at, MILL_ERR_PARSE, "%s is expected here", text);
    return next(c);
}

/* ---- nodes -------------------------------------------------------------------------------------------------------- */

static mill_status add(compiler *c, stm_node node, int32_t *out)
{
    stm_expr *e = c->e;

    if (e->n == MAX_NODES) return fail_at(c, c->tok.at, MILL_ERR_PARSE, "this expression is too long");
    if (e->n == e->cap) {
        const int32_t cap = e->cap ? 2 * e->cap : 16;
        stm_node *bigger = realloc(e->nodes, (size_t)cap * sizeof *bigger);
        if (bigger == NULL) return mill_fail(c->err, MILL_ERR_NOMEM, "no memory for an expression");
        e->nodes = bigger;
        e->cap = cap;
    }
    e->nodes[e->n] = node;
    *out = e->n++;
    return MILL_OK;
}

static const char *kind_text(stm_kind k)
{
    static const char *const texts[] = {"null", "a bool", "a number", "a number", "a text", "a value of another kind"};
    return texts[k];
}

static bool is_number(stm_kind k) { return k == STM_WHOLE || k == STM_REAL || k == STM_NULL; }
static bool is_string(stm_kind k) { return k == STM_STRING || k == STM_NULL; }
static bool is_bool(stm_kind k) { return k == STM_BOOL || k == STM_NULL; }
static stm_kind kind_of(const compiler *c, int32_t node) { return c->e->nodes[node].kind; }

static mill_status need(const compiler *c, size_t at, int32_t node, bool (*test)(stm_kind), const char *what)
{
    if (test(kind_of(c, node))) return MILL_OK;
    return fail_at(c, at, MILL_ERR_TYPE, "%s is expected here, this is %s", what, kind_text(kind_of(c, node)));
}

static mill_status binary(compiler *c, stm_op op, stm_kind kind, int32_t a, int32_t b, int32_t *out)
{
    return add(c, (stm_node){.op = op, .kind = kind, .a = a, .b = b}, out);
}

/* ---- grammar ------------------------------------------------------------------------------------------------------- */

static mill_status parse_or(compiler *c, int32_t *out);

static mill_status parse_call(compiler *c, const char *name, size_t at, int32_t *out)
{
    mill_status st;
    int32_t arg;
    const bool length = strcmp(name, "length") == 0;

    if (!length && strcmp(name, "bytes") != 0)
        return fail_at(c, at, MILL_ERR_NOT_FOUND, "there is no function %s; there are length and bytes", name);
    if ((st = next(c)) != MILL_OK) return st; /* ( */
    const size_t arg_at = c->tok.at;
    if ((st = parse_or(c, &arg)) != MILL_OK || (st = expect(c, ")")) != MILL_OK) return st;
    const stm_node *n = &c->e->nodes[arg];
    if (!is_string(n->kind) && !(length && n->kind == STM_OTHER && n->op == STM_OP_COLUMN))
        return fail_at(c, arg_at, MILL_ERR_TYPE, "%s takes a text%s, this is %s", name, length ? " or a list" : "",
                       kind_text(n->kind));
    return add(c, (stm_node){.op = length ? STM_OP_LENGTH : STM_OP_BYTES, .kind = STM_WHOLE, .a = arg, .b = -1}, out);
}

static mill_status parse_column(compiler *c, const char *name, size_t at, int32_t *out)
{
    const mill_type *type = NULL;
    int32_t index = 0;
    stm_kind kind;
    mill_error cause = {0};
    const mill_status st = c->lookup(c->user, name, &type, &index, &cause);

    if (st != MILL_OK) {
        (void)fail_at(c, at, st, "%s", cause.msg);
        if (cause.remedy[0] != 0) mill_error_remedy(c->err, "%s", cause.remedy);
        return st;
    }
    switch (type->id) {
    case MILL_BOOL: kind = STM_BOOL; break;
    case MILL_INT32: case MILL_INT64: kind = STM_WHOLE; break;
    case MILL_FLOAT32: case MILL_FLOAT64: kind = STM_REAL; break;
    case MILL_UTF8: case MILL_JSON: kind = STM_STRING; break;
    default: kind = STM_OTHER;
    }
    return add(c, (stm_node){.op = STM_OP_COLUMN, .kind = kind, .a = -1, .b = -1, .column = index}, out);
}

static mill_status constant(compiler *c, stm_kind kind, stm_scalar v, int32_t *out)
{
    return add(c, (stm_node){.op = STM_OP_CONST, .kind = kind, .a = -1, .b = -1, .value = v}, out);
}

static bool reserved(const char *name)
{
    static const char *const words[] = {"and", "or", "not", "is", "in", "contains", "starts_with", "ends_with", "matches"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i], name) == 0) return true;
    return false;
}

static mill_status parse_primary(compiler *c, int32_t *out)
{
    const token t = c->tok;
    mill_status st;

    if (is(c, "(")) {
        if ((st = next(c)) != MILL_OK || (st = parse_or(c, out)) != MILL_OK) return st;
        return expect(c, ")");
    }
    if (t.kind == T_END) return fail_at(c, t.at, MILL_ERR_PARSE, "the expression ends where a value is expected");
    if (t.kind == T_PUNCT || (t.kind == T_NAME && reserved(t.text)))
        return fail_at(c, t.at, MILL_ERR_PARSE, "a value is expected here, not %s", t.text);
    if ((st = next(c)) != MILL_OK) return st;
    switch (t.kind) {
    case T_STRING: return constant(c, STM_STRING, t.value, out);
    case T_WHOLE: return constant(c, STM_WHOLE, t.value, out);
    case T_REAL: return constant(c, STM_REAL, t.value, out);
    case T_COLUMN: return parse_column(c, t.value.string.text, t.at, out);
    default: break;
    }
    if (strcmp(t.text, "true") == 0 || strcmp(t.text, "false") == 0)
        return constant(c, STM_BOOL, (stm_scalar){.truth = t.text[0] == 't'}, out);
    if (strcmp(t.text, "null") == 0) return constant(c, STM_NULL, (stm_scalar){.truth = 0}, out);
    if (is(c, "(")) return parse_call(c, t.text, t.at, out);
    return parse_column(c, t.text, t.at, out);
}

static mill_status parse_unary(compiler *c, int32_t *out)
{
    const size_t at = c->tok.at;
    mill_status st;
    int32_t a;

    if (!is(c, "-")) return parse_primary(c, out);
    if (++c->depth > MAX_DEPTH) return fail_at(c, at, MILL_ERR_PARSE, "this expression is nested too deeply");
    if ((st = next(c)) != MILL_OK || (st = parse_unary(c, &a)) != MILL_OK) return st;
    c->depth--;
    if ((st = need(c, at, a, is_number, "a number")) != MILL_OK) return st;
    return add(c, (stm_node){.op = STM_OP_NEG, .kind = kind_of(c, a), .a = a, .b = -1}, out);
}

static mill_status arithmetic(compiler *c, stm_op op, size_t at_a, size_t at_b, int32_t *a, int32_t b)
{
    mill_status st;

    if ((st = need(c, at_a, *a, is_number, "a number")) != MILL_OK || (st = need(c, at_b, b, is_number, "a number")) != MILL_OK)
        return st;
    const stm_kind ka = kind_of(c, *a), kb = kind_of(c, b);
    stm_kind kind = ka == STM_REAL || kb == STM_REAL || op == STM_OP_DIV ? STM_REAL : STM_WHOLE;
    if (ka == STM_NULL || kb == STM_NULL) kind = STM_NULL;
    return binary(c, op, kind, *a, b, a);
}

static mill_status parse_product(compiler *c, int32_t *out)
{
    const size_t at = c->tok.at;
    mill_status st = parse_unary(c, out);

    while (st == MILL_OK && (is(c, "*") || is(c, "/") || is(c, "%"))) {
        const stm_op op = is(c, "*") ? STM_OP_MUL : is(c, "/") ? STM_OP_DIV : STM_OP_MOD;
        int32_t b;
        if ((st = next(c)) != MILL_OK) break;
        const size_t at_b = c->tok.at;
        if ((st = parse_unary(c, &b)) == MILL_OK) st = arithmetic(c, op, at, at_b, out, b);
    }
    return st;
}

static mill_status parse_sum(compiler *c, int32_t *out)
{
    const size_t at = c->tok.at;
    mill_status st = parse_product(c, out);

    while (st == MILL_OK && (is(c, "+") || is(c, "-"))) {
        const stm_op op = is(c, "+") ? STM_OP_ADD : STM_OP_SUB;
        int32_t b;
        if ((st = next(c)) != MILL_OK) break;
        const size_t at_b = c->tok.at;
        if ((st = parse_product(c, &b)) == MILL_OK) st = arithmetic(c, op, at, at_b, out, b);
    }
    return st;
}

static mill_status compare(compiler *c, stm_op op, size_t at, int32_t a, int32_t b, int32_t *out)
{
    const stm_kind ka = kind_of(c, a), kb = kind_of(c, b);

    if (!(is_number(ka) && is_number(kb)) && !(is_string(ka) && is_string(kb)) && !(is_bool(ka) && is_bool(kb)))
        return fail_at(c, at, MILL_ERR_TYPE, "cannot compare %s with %s", kind_text(ka), kind_text(kb));
    if ((ka == STM_BOOL || kb == STM_BOOL) && op != STM_OP_EQ && op != STM_OP_NE)
        return fail_at(c, at, MILL_ERR_TYPE, "bools have no order; use == or !=");
    return binary(c, op, STM_BOOL, a, b, out);
}

static mill_status parse_in(compiler *c, size_t at, int32_t a, int32_t *out)
{
    mill_status st;
    int32_t all = -1;

    if ((st = next(c)) != MILL_OK || (st = expect(c, "(")) != MILL_OK) return st;
    for (;;) {
        int32_t b, eq;
        if ((st = parse_sum(c, &b)) != MILL_OK || (st = compare(c, STM_OP_EQ, at, a, b, &eq)) != MILL_OK) return st;
        if (all < 0) all = eq;
        else if ((st = binary(c, STM_OP_OR, STM_BOOL, all, eq, &all)) != MILL_OK) return st;
        if (!is(c, ",")) break;
        if ((st = next(c)) != MILL_OK) return st;
    }
    *out = all;
    return expect(c, ")");
}

static mill_status parse_matches(compiler *c, size_t at, int32_t a, int32_t *out)
{
    int code;
    PCRE2_SIZE offset;
    PCRE2_UCHAR why[160];
    mill_status st;
    const token t = c->tok;

    if (t.kind != T_STRING) return fail_at(c, t.at, MILL_ERR_PARSE, "matches needs a regular expression in quotes");
    if ((st = need(c, at, a, is_string, "a text")) != MILL_OK || (st = next(c)) != MILL_OK) return st;
    pcre2_code *regex = pcre2_compile((PCRE2_SPTR)t.value.string.text, (PCRE2_SIZE)t.value.string.bytes,
                                      PCRE2_UTF | PCRE2_MATCH_INVALID_UTF, &code, &offset, NULL);
    if (regex == NULL) {
        pcre2_get_error_message(code, why, sizeof why);
        return fail_at(c, t.at, MILL_ERR_PARSE, "the regular expression, at its byte %zu: %s", offset + 1, (const char *)why);
    }
    (void)pcre2_jit_compile(regex, PCRE2_JIT_COMPLETE); /* without it: slower */
    st = add(c, (stm_node){.op = STM_OP_MATCHES, .kind = STM_BOOL, .a = a, .b = -1, .regex = regex}, out);
    if (st != MILL_OK) pcre2_code_free(regex);
    return st;
}

static mill_status parse_compare(compiler *c, int32_t *out)
{
    static const struct { const char *text; stm_op op; } ops[] = {
        {"==", STM_OP_EQ}, {"!=", STM_OP_NE}, {"<", STM_OP_LT}, {"<=", STM_OP_LE}, {">", STM_OP_GT}, {">=", STM_OP_GE},
        {"contains", STM_OP_CONTAINS}, {"starts_with", STM_OP_STARTS}, {"ends_with", STM_OP_ENDS}};
    const size_t at = c->tok.at;
    mill_status st;
    int32_t a, b;

    if ((st = parse_sum(c, &a)) != MILL_OK) return st;
    *out = a;
    if (is(c, "is")) {
        if ((st = next(c)) != MILL_OK) return st;
        const bool negative = is(c, "not");
        if (negative && (st = next(c)) != MILL_OK) return st;
        if ((st = expect(c, "null")) != MILL_OK) return st;
        return add(c, (stm_node){.op = negative ? STM_OP_IS_NOT_NULL : STM_OP_IS_NULL, .kind = STM_BOOL, .a = a, .b = -1}, out);
    }
    const bool negative = is(c, "not"); /* `x not in`, `x not matches` */
    if (negative && (st = next(c)) != MILL_OK) return st;
    if (is(c, "in")) {
        st = parse_in(c, at, a, out);
    } else if (is(c, "matches")) {
        if ((st = next(c)) == MILL_OK) st = parse_matches(c, at, a, out);
    } else {
        size_t i = negative ? 6 : 0;
        while (i < sizeof ops / sizeof ops[0] && !is(c, ops[i].text)) i++;
        if (i == sizeof ops / sizeof ops[0])
            return negative
                       ? fail_at(c, c->tok.at, MILL_ERR_PARSE, "in, contains, matches, starts_with or ends_with is expected here")
                       : MILL_OK;
        if ((st = next(c)) != MILL_OK) return st;
        const size_t at_b = c->tok.at;
        if ((st = parse_sum(c, &b)) != MILL_OK) return st;
        if (ops[i].op >= STM_OP_CONTAINS) {
            if ((st = need(c, at, a, is_string, "a text")) != MILL_OK || (st = need(c, at_b, b, is_string, "a text")) != MILL_OK)
                return st;
            st = binary(c, ops[i].op, STM_BOOL, a, b, out);
        } else {
            st = compare(c, ops[i].op, at, a, b, out);
        }
    }
    if (st != MILL_OK || !negative) return st;
    return add(c, (stm_node){.op = STM_OP_NOT, .kind = STM_BOOL, .a = *out, .b = -1}, out);
}

static mill_status parse_not(compiler *c, int32_t *out)
{
    mill_status st;
    int32_t a;

    if (!is(c, "not")) return parse_compare(c, out);
    if (++c->depth > MAX_DEPTH) return fail_at(c, c->tok.at, MILL_ERR_PARSE, "this expression is nested too deeply");
    if ((st = next(c)) != MILL_OK) return st;
    const size_t at = c->tok.at;
    if ((st = parse_not(c, &a)) != MILL_OK || (st = need(c, at, a, is_bool, "true or false")) != MILL_OK) return st;
    c->depth--;
    return add(c, (stm_node){.op = STM_OP_NOT, .kind = STM_BOOL, .a = a, .b = -1}, out);
}

static mill_status parse_logic(compiler *c, bool disjunction, int32_t *out)
{
    const char *word = disjunction ? "or" : "and";
    const size_t at = c->tok.at;
    mill_status st = disjunction ? parse_logic(c, false, out) : parse_not(c, out);

    while (st == MILL_OK && is(c, word)) {
        int32_t b;
        if ((st = need(c, at, *out, is_bool, "true or false")) != MILL_OK || (st = next(c)) != MILL_OK) break;
        const size_t at_b = c->tok.at;
        if ((st = disjunction ? parse_logic(c, false, &b) : parse_not(c, &b)) != MILL_OK) break;
        if ((st = need(c, at_b, b, is_bool, "true or false")) != MILL_OK) break;
        st = binary(c, disjunction ? STM_OP_OR : STM_OP_AND, STM_BOOL, *out, b, out);
    }
    return st;
}

static mill_status parse_or(compiler *c, int32_t *out)
{
    if (++c->depth > MAX_DEPTH) return fail_at(c, c->tok.at, MILL_ERR_PARSE, "this expression is nested too deeply");
    const mill_status st = parse_logic(c, true, out);
    c->depth--;
    return st;
}

mill_status stm_expr_compile(const char *text, stm_expr_lookup lookup, void *user, stm_expr **out, mill_error *err)
{
    compiler c = {.source = text, .lookup = lookup, .user = user, .err = err};
    mill_status st;
    int32_t root;

    c.e = calloc(1, sizeof *c.e);
    if (c.e == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for an expression");
    c.e->literals = malloc(strlen(text) + 1); /* a text in quotes is longer than its bytes and a NUL */
    if (c.e->literals == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "no memory for an expression");
        goto fail;
    }
    if ((st = next(&c)) != MILL_OK || (st = parse_or(&c, &root)) != MILL_OK) goto fail;
    if (c.tok.kind != T_END) {
        st = fail_at(&c, c.tok.at, MILL_ERR_PARSE, "the expression should end here, or go on with and, or, or a comparison");
        goto fail;
    }
    if (!is_bool(c.e->nodes[root].kind)) {
        st = fail_at(&c, 0, MILL_ERR_TYPE, "this gives %s, not true or false", kind_text(c.e->nodes[root].kind));
        goto fail;
    }
    *out = c.e;
    return MILL_OK;
fail:
    stm_expr_destroy(&c.e);
    return st;
}

void stm_expr_destroy(stm_expr **ep)
{
    stm_expr *e = *ep;

    if (e == NULL) return;
    for (int32_t i = 0; i < e->n; i++)
        if (e->nodes[i].regex != NULL) pcre2_code_free(e->nodes[i].regex);
    free(e->nodes);
    free(e->literals);
    free(e);
    *ep = NULL;
}
