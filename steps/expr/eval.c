#include "steps/expr/expr.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "steps/expr/node.h"

/* Results of a node over the rows of a batch. Arrays hold `cap` rows. */
typedef struct vector {
    uint8_t *null;
    union {
        uint8_t *truth;
        int64_t *whole;
        double *real;
        stm_string *string;
        void *any;
    } v;
} vector;

struct stm_expr_run {
    const stm_expr *e;
    vector *vectors; /* [e->n] */
    int64_t cap;
    uint8_t *result;
    pcre2_match_data *match;
};

static size_t width(stm_kind k)
{
    switch (k) {
    case STM_STRING: return sizeof(stm_string);
    case STM_WHOLE: return sizeof(int64_t);
    case STM_REAL: return sizeof(double);
    default: return 1;
    }
}

mill_status stm_expr_run_create(const stm_expr *e, stm_expr_run **out)
{
    stm_expr_run *run = calloc(1, sizeof *run);

    if (run == NULL) return MILL_ERR_NOMEM;
    run->e = e;
    run->vectors = calloc((size_t)e->n, sizeof *run->vectors);
    run->match = pcre2_match_data_create(1, NULL);
    if (run->vectors == NULL || run->match == NULL) {
        stm_expr_run_destroy(&run);
        return MILL_ERR_NOMEM;
    }
    *out = run;
    return MILL_OK;
}

void stm_expr_run_destroy(stm_expr_run **rp)
{
    stm_expr_run *run = *rp;

    if (run == NULL) return;
    for (int32_t i = 0; run->vectors != NULL && i < run->e->n; i++) {
        free(run->vectors[i].null);
        free(run->vectors[i].v.any);
    }
    free(run->vectors);
    free(run->result);
    if (run->match != NULL) pcre2_match_data_free(run->match);
    free(run);
    *rp = NULL;
}

static bool resize(void **p, size_t bytes)
{
    void *bigger = realloc(*p, bytes);
    if (bigger == NULL) return false;
    *p = bigger;
    return true;
}

static bool grow(stm_expr_run *run, int64_t rows)
{
    if (rows <= run->cap) return true;
    int64_t cap = run->cap ? run->cap : 64;
    while (cap < rows) cap *= 2;
    for (int32_t i = 0; i < run->e->n; i++) {
        void *null = run->vectors[i].null;
        const bool ok = resize(&null, (size_t)cap) && (run->vectors[i].null = null, true) &&
                        resize(&run->vectors[i].v.any, (size_t)cap * width(run->e->nodes[i].kind));
        if (!ok) return false;
    }
    void *result = run->result;
    if (!resize(&result, (size_t)cap)) return false;
    run->result = result;
    run->cap = cap;
    return true;
}

/* ---- leaves -------------------------------------------------------------------------------------------------------- */

static void eval_const(const stm_node *n, vector *x, int64_t rows)
{
    memset(x->null, n->kind == STM_NULL, (size_t)rows);
    for (int64_t r = 0; r < rows; r++) switch (n->kind) {
        case STM_BOOL: x->v.truth[r] = n->value.truth; break;
        case STM_WHOLE: x->v.whole[r] = n->value.whole; break;
        case STM_REAL: x->v.real[r] = n->value.real; break;
        case STM_STRING: x->v.string[r] = n->value.string; break;
        default: x->v.truth[r] = 0;
        }
}

static void eval_column(const stm_node *n, vector *x, const mill_batch *batch, int64_t rows)
{
    const mill_column *col = mill_batch_column(batch, n->column);

    if (col == NULL) {
        memset(x->null, 1, (size_t)rows);
        memset(x->v.any, 0, (size_t)rows * width(n->kind));
        return;
    }
    const mill_view v = mill_column_view(col);
    for (int64_t r = 0; r < rows; r++) {
        const int64_t i = v.offset + r;
        x->null[r] = v.validity != NULL && !(v.validity[i >> 3] >> (i & 7) & 1);
        switch (n->kind) {
        case STM_BOOL: x->v.truth[r] = ((const uint8_t *)v.data)[i >> 3] >> (i & 7) & 1; break;
        case STM_WHOLE:
            x->v.whole[r] = v.type->id == MILL_INT32 ? ((const int32_t *)v.data)[i] : ((const int64_t *)v.data)[i];
            break;
        case STM_REAL:
            x->v.real[r] = v.type->id == MILL_FLOAT32 ? (double)((const float *)v.data)[i] : ((const double *)v.data)[i];
            break;
        case STM_STRING:
            x->v.string[r] = (stm_string){x->null[r] ? "" : (const char *)v.data + v.offsets[i],
                                          x->null[r] ? 0 : v.offsets[i + 1] - v.offsets[i]};
            break;
        default: break;
        }
    }
}

/* ---- operators ------------------------------------------------------------------------------------------------------ */

static double real_at(const stm_node *n, const vector *x, int64_t r)
{
    return n->kind == STM_REAL ? x->v.real[r] : n->kind == STM_WHOLE ? (double)x->v.whole[r] : 0.0;
}

static int order_strings(stm_string a, stm_string b)
{
    const size_t n = (size_t)(a.bytes < b.bytes ? a.bytes : b.bytes);
    const int c = n > 0 ? memcmp(a.text, b.text, n) : 0;
    return c != 0 ? c : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

/* -1, 0, 1; 2 = no order (a NaN). */
static int order(const stm_node *na, const stm_node *nb, const vector *a, const vector *b, int64_t r)
{
    if (na->kind == STM_STRING) {
        const int c = order_strings(a->v.string[r], b->v.string[r]);
        return (c > 0) - (c < 0);
    }
    if (na->kind == STM_BOOL) return a->v.truth[r] - b->v.truth[r];
    if (na->kind == STM_WHOLE && nb->kind == STM_WHOLE) return (a->v.whole[r] > b->v.whole[r]) - (a->v.whole[r] < b->v.whole[r]);
    const double x = real_at(na, a, r), y = real_at(nb, b, r);
    return isnan(x) || isnan(y) ? 2 : (x > y) - (x < y);
}

static void eval_compare(stm_op op, const stm_node *na, const stm_node *nb, const vector *a, const vector *b, vector *x,
                         int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        x->v.truth[r] = 0;
        x->null[r] = a->null[r] | b->null[r];
        if (x->null[r]) continue;
        const int c = order(na, nb, a, b, r);
        switch (op) {
        case STM_OP_EQ: x->v.truth[r] = c == 0; break;
        case STM_OP_NE: x->v.truth[r] = c != 0; break;
        case STM_OP_LT: x->v.truth[r] = c == -1; break;
        case STM_OP_LE: x->v.truth[r] = c == -1 || c == 0; break;
        case STM_OP_GT: x->v.truth[r] = c == 1; break;
        default: x->v.truth[r] = c == 1 || c == 0; break;
        }
    }
}

static void eval_logic(stm_op op, const vector *a, const vector *b, vector *x, int64_t rows)
{
    const uint8_t decisive = op == STM_OP_OR; /* the value that settles it, whatever the other is */

    for (int64_t r = 0; r < rows; r++) {
        const bool da = !a->null[r] && a->v.truth[r] == decisive, db = !b->null[r] && b->v.truth[r] == decisive;
        x->null[r] = !da && !db && (a->null[r] || b->null[r]);
        x->v.truth[r] = da || db ? decisive : !decisive;
    }
}

static void eval_text_test(stm_op op, const vector *a, const vector *b, vector *x, int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        x->v.truth[r] = 0;
        x->null[r] = a->null[r] | b->null[r];
        if (x->null[r]) continue;
        const stm_string s = a->v.string[r], t = b->v.string[r];
        if (t.bytes == 0) x->v.truth[r] = 1;
        else if (t.bytes > s.bytes) x->v.truth[r] = 0;
        else if (op == STM_OP_CONTAINS) x->v.truth[r] = memmem(s.text, (size_t)s.bytes, t.text, (size_t)t.bytes) != NULL;
        else x->v.truth[r] = memcmp(op == STM_OP_STARTS ? s.text : s.text + s.bytes - t.bytes, t.text, (size_t)t.bytes) == 0;
    }
}

static mill_status eval_matches(stm_expr_run *run, const stm_node *n, const vector *a, vector *x, int64_t rows, mill_error *err)
{
    for (int64_t r = 0; r < rows; r++) {
        x->v.truth[r] = 0;
        x->null[r] = a->null[r];
        if (x->null[r]) continue;
        const int rc =
            pcre2_match(n->regex, (PCRE2_SPTR)a->v.string[r].text, (PCRE2_SIZE)a->v.string[r].bytes, 0, 0, run->match, NULL);
        if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
            PCRE2_UCHAR why[160];
            pcre2_get_error_message(rc, why, sizeof why);
            return mill_fail(err, MILL_ERR_DATA, "the regular expression gives up on row %lld: %s", (long long)r,
                             (const char *)why);
        }
        x->v.truth[r] = rc != PCRE2_ERROR_NOMATCH;
    }
    return MILL_OK;
}

/* Whole numbers: an overflow is null. */
static bool whole_result(stm_op op, int64_t a, int64_t b, int64_t *out)
{
    switch (op) {
    case STM_OP_ADD: return !__builtin_add_overflow(a, b, out);
    case STM_OP_SUB: return !__builtin_sub_overflow(a, b, out);
    case STM_OP_MUL: return !__builtin_mul_overflow(a, b, out);
    default: /* STM_OP_MOD */
        if (b == 0) return false;
        *out = b == -1 ? 0 : a % b;
        return true;
    }
}

static double real_result(stm_op op, double a, double b)
{
    switch (op) {
    case STM_OP_ADD: return a + b;
    case STM_OP_SUB: return a - b;
    case STM_OP_MUL: return a * b;
    case STM_OP_DIV: return a / b;
    default: return fmod(a, b);
    }
}

static void eval_arithmetic(const stm_node *n, const stm_node *na, const stm_node *nb, const vector *a, const vector *b, vector *x,
                            int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        x->null[r] = a->null[r] | b->null[r];
        if (n->kind == STM_WHOLE) {
            x->v.whole[r] = 0;
            if (!x->null[r]) x->null[r] = !whole_result(n->op, a->v.whole[r], b->v.whole[r], &x->v.whole[r]);
        } else if (n->kind == STM_REAL) {
            const double divisor = real_at(nb, b, r);
            const bool zero = (n->op == STM_OP_DIV || n->op == STM_OP_MOD) && divisor == 0.0;
            x->null[r] |= zero;
            x->v.real[r] = zero ? 0.0 : real_result(n->op, real_at(na, a, r), divisor);
        } else {
            x->null[r] = 1;
            x->v.truth[r] = 0;
        }
    }
}

static void eval_negative(const stm_node *n, const vector *a, vector *x, int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        x->null[r] = a->null[r];
        if (n->kind == STM_WHOLE) {
            x->v.whole[r] = 0;
            x->null[r] |= __builtin_sub_overflow((int64_t)0, a->v.whole[r], &x->v.whole[r]);
        } else if (n->kind == STM_REAL) {
            x->v.real[r] = -a->v.real[r];
        }
    }
}

/* Characters, or items where the operand is a list column. */
static void eval_length(const stm_node *n, const stm_node *na, const vector *a, vector *x, const mill_batch *batch, int64_t rows)
{
    const mill_column *list = na->kind == STM_OTHER ? mill_batch_column(batch, na->column) : NULL;
    const mill_view v = list != NULL ? mill_column_view(list) : (mill_view){0};

    for (int64_t r = 0; r < rows; r++) {
        int64_t length = 0;
        x->null[r] = a->null[r];
        if (na->kind == STM_OTHER) {
            if (list == NULL) length = 0;
            else if (v.type->id == MILL_LIST) length = v.offsets[v.offset + r + 1] - v.offsets[v.offset + r];
            else if (v.type->id == MILL_FIXED_LIST) length = v.type->length;
            else if (v.offsets != NULL) length = v.offsets[v.offset + r + 1] - v.offsets[v.offset + r]; /* binary: bytes */
            else x->null[r] = 1;
        } else if (na->kind == STM_STRING) {
            const stm_string s = a->v.string[r];
            length = s.bytes;
            if (n->op == STM_OP_LENGTH)
                for (int64_t i = 0; i < s.bytes; i++) length -= ((unsigned char)s.text[i] & 0xc0) == 0x80;
        }
        x->v.whole[r] = x->null[r] ? 0 : length;
    }
}

static mill_status eval_node(stm_expr_run *run, int32_t i, const mill_batch *batch, int64_t rows, mill_error *err)
{
    const stm_node *nodes = run->e->nodes, *n = &nodes[i];
    vector *x = &run->vectors[i];
    const stm_node *na = n->a >= 0 ? &nodes[n->a] : NULL, *nb = n->b >= 0 ? &nodes[n->b] : NULL;
    const vector *a = na ? &run->vectors[n->a] : NULL, *b = nb ? &run->vectors[n->b] : NULL;

    switch (n->op) {
    case STM_OP_CONST: eval_const(n, x, rows); break;
    case STM_OP_COLUMN: eval_column(n, x, batch, rows); break;
    case STM_OP_AND:
    case STM_OP_OR: eval_logic(n->op, a, b, x, rows); break;
    case STM_OP_NOT:
        for (int64_t r = 0; r < rows; r++) {
            x->null[r] = a->null[r];
            x->v.truth[r] = !a->v.truth[r];
        }
        break;
    case STM_OP_IS_NULL:
    case STM_OP_IS_NOT_NULL:
        memset(x->null, 0, (size_t)rows);
        for (int64_t r = 0; r < rows; r++) x->v.truth[r] = a->null[r] == (n->op == STM_OP_IS_NULL);
        break;
    case STM_OP_CONTAINS:
    case STM_OP_STARTS:
    case STM_OP_ENDS: eval_text_test(n->op, a, b, x, rows); break;
    case STM_OP_MATCHES: return eval_matches(run, n, a, x, rows, err);
    case STM_OP_ADD:
    case STM_OP_SUB:
    case STM_OP_MUL:
    case STM_OP_DIV:
    case STM_OP_MOD: eval_arithmetic(n, na, nb, a, b, x, rows); break;
    case STM_OP_NEG: eval_negative(n, a, x, rows); break;
    case STM_OP_LENGTH:
    case STM_OP_BYTES: eval_length(n, na, a, x, batch, rows); break;
    default: eval_compare(n->op, na, nb, a, b, x, rows); break;
    }
    return MILL_OK;
}

mill_status stm_expr_eval(stm_expr_run *run, const mill_batch *batch, const uint8_t **result, mill_error *err)
{
    const int64_t rows = mill_batch_rows(batch);
    const int32_t root = run->e->n - 1; /* operands come first, so the last node is the whole */

    if (!grow(run, rows))
        return mill_fail(err, MILL_ERR_NOMEM, "no memory to evaluate an expression over %lld rows", (long long)rows);
    for (int32_t i = 0; i <= root && rows > 0; i++) { /* without rows there may be no vectors yet */
        const mill_status st = eval_node(run, i, batch, rows, err);
        if (st != MILL_OK) return st;
    }
    for (int64_t r = 0; r < rows; r++) run->result[r] = run->vectors[root].null[r] ? 2 : run->vectors[root].v.truth[r];
    *result = run->result;
    return MILL_OK;
}
