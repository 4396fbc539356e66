/*
 * Generated input and what came of it.
 *
 * Input buffers are pages of their own: readable, never writable once filled, the end (rounded as the contract allows reads
 * to be) against a page that cannot be touched, and unreadable from the moment the last reference goes. So a step that writes
 * to its input, reads past its end, or keeps a pointer into it without a reference faults at once, and the handler knows what
 * the address was. Nothing is ever unmapped: the process is short.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "batch/batch.h"
#include "batch/column.h"
#include "core/alloc.h"
#include "memory/buffer.h"
#include "pipeline/conform.h"
#include "stepmill/json.h"

/* ---- guarded pages ------------------------------------------------------------------------------------------------ */

typedef struct page_run {
    uint8_t *base;
    size_t bytes; /* with the guard page at the end */
    size_t guard;
    const char *column; /* of the arriving schema, or NULL: somewhere inside one */
    bool released;
} page_run;

enum { MAX_RUNS = 20000 };
static page_run runs[MAX_RUNS]; /* of the child; the parent never makes one */
static int32_t n_runs;
static _Atomic int64_t held; /* columns go on any thread of a whole run */
static stm_conform_note *note;

int64_t stm_conform_held(void) { return held; }

static void release_run(void *owner)
{
    page_run *p = owner;

    p->released = true;
    held -= (int64_t)(p->bytes - p->guard);
    mprotect(p->base, p->bytes, PROT_NONE);
}

static bool was_write(void *context)
{
#if defined(__x86_64__) && defined(REG_ERR)
    return (((ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 2) != 0;
#else
    (void)context;
    return true; /* it could be read: so it was written */
#endif
}

/* In a signal handler: no function of the library formats there. */
static void put(char **at, const char *end, const char *text)
{
    while (*text != '\0' && *at < end) *(*at)++ = *text++;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
    const uint8_t *at = info->si_addr;

    for (int32_t i = 0; i < n_runs; i++) {
        const page_run *p = &runs[i];
        const char *before, *behind;
        char *to = note->fault;

        if (at < p->base || at >= p->base + p->bytes) continue;
        if (p->released)
            before = "used memory of input column \"",
            behind = "\" after the input was released; keep a column with mill_column_ref";
        else if (at >= p->base + p->bytes - p->guard)
            before = "went past the end of input column \"", behind = "\"";
        else if (was_write(context))
            before = "wrote to its input (column \"", behind = "\"); inputs are immutable";
        else
            continue;
        put(&to, note->fault + sizeof note->fault - 1, before);
        put(&to, note->fault + sizeof note->fault - 1, p->column != NULL ? p->column : "?");
        put(&to, note->fault + sizeof note->fault - 1, behind);
        *to = '\0';
    }
    signal(sig, SIG_DFL); /* the fault comes again and ends the process */
}

void stm_conform_guard(stm_conform *k)
{
    static uint8_t stack[65536]; /* a stack that ran over has no room for a handler */
    const stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    note = k->note;
    sigaltstack(&alt, NULL);
    sigemptyset(&a.sa_mask);
    sigaction(SIGSEGV, &a, NULL);
    sigaction(SIGBUS, &a, NULL);
}

static mill_status guarded(mill_pool *pool, const char *column, const void *bytes, size_t n, mill_buffer **out)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t room = (n + MILL_BUFFER_ALIGN - 1) / MILL_BUFFER_ALIGN * MILL_BUFFER_ALIGN;
    const size_t whole = (room + page - 1) / page * page + page;
    page_run *p = &runs[n_runs];
    uint8_t *at;
    mill_status st;

    if (n_runs == MAX_RUNS) return MILL_ERR_NOMEM;
    p->base = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p->base == MAP_FAILED) return MILL_ERR_NOMEM;
    at = p->base + whole - page - room;
    if (n > 0) memcpy(at, bytes, n);
    memset(at + n, 0xA5, room - n); /* may be read, says nothing */
    mprotect(p->base, whole - page, PROT_READ);
    mprotect(p->base + whole - page, page, PROT_NONE);
    p->bytes = whole;
    p->guard = page;
    p->column = column;
    p->released = false;
    if ((st = stm_buffer_wrap(pool, at, n, release_run, p, out)) != MILL_OK) return st;
    held += (int64_t)(whole - page);
    n_runs++;
    return MILL_OK;
}

/* A root column, copied to guarded pages. */
static mill_status guard_column(mill_pool *pool, const char *name, const mill_column *col, mill_column **out)
{
    const mill_view v = mill_column_view(col);
    const int32_t n = v.type->n_fields;
    mill_buffer *validity = NULL, *offsets = NULL, *data = NULL;
    mill_column **children = stm_calloc(((size_t)n + 1) * sizeof(mill_column *));
    mill_status st = children != NULL ? MILL_OK : MILL_ERR_NOMEM;

    if (st == MILL_OK && v.validity != NULL) st = guarded(pool, name, v.validity, (size_t)(v.rows + 7) / 8, &validity);
    if (st == MILL_OK && v.offsets != NULL) st = guarded(pool, name, v.offsets, (size_t)(v.rows + 1) * 8, &offsets);
    if (st == MILL_OK && n == 0) {
        const size_t bytes = v.offsets != NULL           ? (size_t)v.offsets[v.rows]
                             : v.type->id == MILL_BOOL ? (size_t)(v.rows + 7) / 8
                                                         : (size_t)v.rows * (size_t)v.type->width;
        st = guarded(pool, name, v.data, bytes, &data);
    }
    for (int32_t i = 0; i < n && st == MILL_OK; i++) st = guard_column(pool, name, v.children[i], &children[i]);
    if (st == MILL_OK)
        st = mill_column_create(pool, v.type, v.rows, validity != NULL ? &validity : NULL, offsets != NULL ? &offsets : NULL,
                                data != NULL ? &data : NULL, n > 0 ? children : NULL, out, NULL);
    mill_buffer_unref(&validity);
    mill_buffer_unref(&offsets);
    mill_buffer_unref(&data);
    for (int32_t i = 0; i < n && children != NULL; i++) mill_column_unref(&children[i]);
    stm_free(children);
    return st;
}

/* ---- values ------------------------------------------------------------------------------------------------------- */

/* Value i of a column: a function of the type, i and a salt, so that rows are the same in any batch. */
static mill_status value(mill_builder *b, const mill_type *t, int64_t i, uint64_t salt, int depth)
{
    static const char *const texts[] = {"a mill",
                                        "",
                                        "grinds grain. Into flour!",
                                        "Caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\xbe",
                                        " ",
                                        "one\ntwo\t\"three\"",
                                        "{brace} \\ 'quote'"};
    static const char *const json[] = {"{\"a\": 1, \"b\": [true, null]}", "\"text\"", "[]", "-1.5e3", "null",
                                       "{\"a\": {\"\": \"\\u00e9\"}}"};
    static const double numbers[] = {0.0, 1.5, -2.25, 1e-3, -0.0, 12345.678, 3.0, -1e9};
    static const int64_t wholes[] = {0, 1, -1, 42, 7, 1000000, -300, 2};
    const uint64_t h = (uint64_t)i * 0x9e3779b97f4a7c15ull + salt * 0xbf58476d1ce4e5b9ull;
    const int pick = (int)(h >> 33) & 0xffff;
    char longer[400];
    mill_status st = MILL_OK;

    if (depth > 6 || (i + (int64_t)(salt % 5)) % 6 == 4) return mill_builder_null(b);
    switch (t->id) {
    case MILL_BOOL: return mill_builder_bool(b, pick & 1);
    case MILL_INT32:
    case MILL_INT64: return mill_builder_int(b, pick % 3 != 0 ? i : wholes[pick % 8]);
    case MILL_FLOAT16:
    case MILL_FLOAT32:
    case MILL_FLOAT64: return mill_builder_float(b, numbers[pick % 8] + (pick % 3 != 0 ? (double)(i % 32) / 4 : 0.0));
    case MILL_JSON: return mill_builder_text(b, json[pick % 6], (int64_t)strlen(json[pick % 6]));
    case MILL_UTF8:
    case MILL_BINARY:
        if (i % 11 == 9) { /* longer than what fits a small buffer */
            memset(longer, 'a' + (int)(i % 26), sizeof longer);
            for (size_t c = 7; c < sizeof longer; c += 8) longer[c] = ' ';
            return mill_builder_text(b, longer, (int64_t)sizeof longer);
        }
        if (pick % 7 == 0) return mill_builder_text(b, longer, snprintf(longer, sizeof longer, "row %lld", (long long)i));
        return mill_builder_text(b, texts[i % 7], (int64_t)strlen(texts[i % 7]));
    case MILL_LIST:
    case MILL_FIXED_LIST: {
        const int64_t n = t->id == MILL_LIST ? pick % 4 : t->length;
        mill_builder *items = mill_builder_child(b, 0);
        const bool number = t->fields[0].type->id >= MILL_FLOAT16 && t->fields[0].type->id <= MILL_FLOAT64;

        for (int64_t c = 0; c < n && st == MILL_OK; c++)
            if (t->id == MILL_FIXED_LIST && number) /* vectors have no holes */
                st = mill_builder_float(items, (double)((i * 31 + c * 7) % 19 - 9) / 8);
            else
                st = value(items, t->fields[0].type, i * 5 + c, salt + 1, depth + 1);
        break;
    }
    case MILL_STRUCT:
        for (int32_t c = 0; c < t->n_fields && st == MILL_OK; c++)
            st = value(mill_builder_child(b, c), t->fields[c].type, i, salt + 2 + (uint64_t)c, depth + 1);
        break;
    default: return MILL_ERR_INVALID;
    }
    return st == MILL_OK ? mill_builder_close_row(b) : st;
}

static mill_status make_column(mill_pool *pool, const mill_field *f, uint64_t salt, int64_t first, int64_t rows, int64_t lead,
                               mill_column **out)
{
    mill_builder *b = NULL;
    mill_column *plain = NULL, *whole = NULL;
    mill_status st = mill_builder_create(pool, f->type, &b);

    for (int64_t i = first - lead; i < first + rows && st == MILL_OK; i++) st = value(b, f->type, i, salt, 0);
    if (st == MILL_OK) st = mill_builder_finish(b, &plain);
    if (st == MILL_OK) st = guard_column(pool, f->name, plain, &whole);
    if (st == MILL_OK && lead > 0)
        st = stm_column_slice(whole, lead, rows, out);
    else if (st == MILL_OK) {
        *out = whole;
        whole = NULL;
    }
    mill_column_unref(&whole);
    mill_column_unref(&plain);
    mill_builder_destroy(&b);
    return st;
}

mill_batch *stm_conform_batch(stm_conform *k, mill_pool *pool, int64_t first, int64_t rows, int64_t lead, bool absent)
{
    mill_batch *b = NULL;
    mill_status st = stm_batch_create(pool, rows, k->arriving.n, STM_BATCH_ROOTS, &b);

    if (lead > first) lead = first;
    for (int32_t c = 0; c < k->arriving.n && st == MILL_OK && !absent; c++)
        st =
            make_column(pool, &k->arriving.fields[c], stm_hash64(k->arriving.fields[c].name, strlen(k->arriving.fields[c].name), 1),
                        first, rows, lead, &b->columns[c]);
    if (st != MILL_OK) {
        mill_batch_destroy(&b);
        stm_conform_skip(k, "there is no memory for the generated input");
        return NULL;
    }
    b->keys = (stm_keys){.first = first, .width = 1};
    return b;
}

/* ---- results ------------------------------------------------------------------------------------------------------ */

/* All bits of a value. */
static uint64_t hash_value(const mill_column *col, int64_t r, uint64_t seed)
{
    const mill_view v = mill_column_view(col);
    const int64_t at = v.offset + r;

    if (mill_column_is_null(col, r)) return stm_hash64("null", 4, seed);
    if (v.type->id == MILL_BOOL) {
        const uint8_t bit = ((const uint8_t *)v.data)[at >> 3] >> (at & 7) & 1;
        return stm_hash64(&bit, 1, seed);
    }
    if (v.type->n_fields == 0 && v.offsets == NULL)
        return stm_hash64((const uint8_t *)v.data + at * v.type->width, (size_t)v.type->width, seed);
    if (v.type->n_fields == 0) {
        const uint64_t n = (uint64_t)(v.offsets[at + 1] - v.offsets[at]);
        seed = stm_hash64(&n, sizeof n, seed);
        return n > 0 ? stm_hash64((const uint8_t *)v.data + v.offsets[at], (size_t)n, seed) : seed;
    }
    if (v.type->id == MILL_STRUCT) {
        for (int32_t i = 0; i < v.type->n_fields; i++) seed = hash_value(v.children[i], at, seed);
        return seed;
    }
    const int64_t first = v.type->id == MILL_LIST ? v.offsets[at] : at * v.type->length;
    const int64_t end = v.type->id == MILL_LIST ? v.offsets[at + 1] : first + v.type->length;
    seed = stm_hash64(&(int64_t){end - first}, sizeof end, seed);
    for (int64_t i = first; i < end; i++) seed = hash_value(v.children[0], i, seed);
    return seed;
}

mill_status stm_conform_rows_init(stm_conform_rows *rows, size_t n)
{
    rows->row = stm_calloc((n + 1) * sizeof *rows->row);
    rows->n = rows->cap = n;
    return rows->row != NULL ? MILL_OK : MILL_ERR_NOMEM;
}

void stm_conform_rows_fini(stm_conform_rows *rows)
{
    for (size_t i = 0; i < rows->n; i++) stm_free(rows->row[i].text);
    stm_free(rows->row);
    *rows = (stm_conform_rows){0};
}

void stm_conform_rows_add(stm_conform_rows *rows, size_t at, const mill_step *s, const mill_batch *b, int64_t r)
{
    stm_conform_row *row;
    mill_json_writer *w = NULL;
    stm_text t = {0};
    const char *names[64], *line;
    size_t n = 0;
    int32_t columns = b->n_columns < 64 ? b->n_columns : 64;

    if (at == rows->n) {
        if (stm_grow(&rows->row, &rows->cap, rows->n + 1, sizeof *rows->row) != 0) return;
        rows->row[rows->n++] = (stm_conform_row){0};
    }
    row = &rows->row[at];
    row->hash = stm_hash64(&row->hash, sizeof row->hash, 17); /* one row more, also when it has no columns */
    for (int32_t c = 0; c < b->n_columns; c++)
        row->hash = b->columns[c] != NULL ? hash_value(b->columns[c], r, row->hash) : stm_hash64("null", 4, row->hash);
    for (int32_t c = 0; c < columns; c++) names[c] = c < s->n_outputs ? s->outputs[c].name : "?";
    if (mill_json_writer_create(names, columns, 0, &w) == MILL_OK) {
        mill_json_writer_batch(w, b);
        if (mill_json_writer_row(w, r) == MILL_OK) mill_json_writer_end(w);
        line = mill_json_writer_data(w, &n);
        while (n > 0 && line[n - 1] == '\n') n--;
        stm_text_addf(&t, "%s%s%.*s", row->text != NULL ? row->text : "", row->text != NULL ? " " : "", (int)(n < 2000 ? n : 2000),
                      line);
        if (!t.failed) {
            stm_free(row->text);
            row->text = t.data;
            t.data = NULL;
        }
        stm_text_free(&t);
    }
    mill_json_writer_destroy(&w);
}

static bool look_at(stm_conform *k, const mill_step *s, const mill_batch *b)
{
    bool good = true;

    for (int32_t c = 0; c < b->n_columns; c++) {
        mill_error e = {0};

        if (b->columns[c] == NULL || stm_column_validate(b->columns[c], &e) == MILL_OK) continue;
        stm_conform_find(k, "output column \"%s\" is malformed: %s", c < s->n_outputs ? s->outputs[c].name : "?", e.msg);
        good = false;
    }
    return good;
}

void stm_conform_rows_take(stm_conform *k, stm_conform_rows *rows, const mill_step *s, const stm_probe_out *out, size_t base,
                           int64_t in_rows)
{
    int64_t at = 0;

    for (size_t p = 0; p < out->n; p++) {
        const mill_batch *b = out->parts[p].batch;
        const int64_t *parent = out->parts[p].parent != NULL ? mill_buffer_data(out->parts[p].parent) : NULL;

        if (!look_at(k, s, b)) { /* reading it could end in a crash of ours */
            for (int64_t r = 0; r < in_rows; r++) rows->row[base + (size_t)r].failed = true;
            continue;
        }
        for (int64_t r = 0; r < b->rows; r++, at++)
            stm_conform_rows_add(rows, in_rows < 0 ? rows->n : base + (size_t)(parent != NULL ? parent[r] : at), s, b, r);
    }
    for (size_t i = 0; i < out->n_row_errors; i++) {
        const size_t r = (in_rows < 0 ? rows->n - (size_t)at : base) + (size_t)out->row_errors[i];
        if (r < rows->n) rows->row[r].failed = true;
    }
}

int64_t stm_conform_rows_differ(const stm_conform_rows *a, const stm_conform_rows *b)
{
    const size_t n = a->n < b->n ? a->n : b->n;

    for (size_t i = 0; i < n; i++) {
        if (a->row[i].failed != b->row[i].failed) return (int64_t)i;
        if (!a->row[i].failed && a->row[i].hash != b->row[i].hash) return (int64_t)i;
    }
    return a->n != b->n ? (int64_t)n : -1;
}

const char *stm_conform_rows_show(const stm_conform_rows *rows, int64_t i, char *buf, size_t size)
{
    const stm_conform_row *r = i < (int64_t)rows->n ? &rows->row[i] : NULL;
    const char *text = r == NULL ? "nothing" : r->failed ? "a failure" : r->text != NULL ? r->text : "no row";
    size_t n = strlen(text);

    if (n >= size) {
        for (n = size - 4; n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80;) n--; /* not inside a character */
        snprintf(buf, size, "%.*s...", (int)n, text);
    } else {
        snprintf(buf, size, "%s", text);
    }
    return buf;
}

void stm_conform_rows_tell(stm_conform *k, const stm_conform_rows *a, const char *how_a, const stm_conform_rows *b,
                           const char *how_b, const char *so)
{
    const int64_t at = stm_conform_rows_differ(a, b);
    char ta[120], tb[120];

    if (at < 0) return;
    stm_conform_find(k, "row %lld gives %s %s and %s %s; %s", (long long)at, stm_conform_rows_show(a, at, ta, sizeof ta), how_a,
                     stm_conform_rows_show(b, at, tb, sizeof tb), how_b, so);
}
