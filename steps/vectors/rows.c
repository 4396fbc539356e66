#include "steps/vectors/rows.h"

#include <stdlib.h>
#include <string.h>

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "no memory for the rows"); }

/* ---- layout ---- */

int32_t stm_rows_layout_column(const stm_rows_layout *l, const char *name)
{
    for (int32_t i = 0; i < l->n_columns; i++)
        if (strcmp(l->names[i], name) == 0) return i;
    return -1;
}

mill_status stm_rows_layout_taken(const char *name, mill_error *err)
{
    mill_fail(err, MILL_ERR_INVALID, "a column \"%s\" arrives already", name);
    mill_error_remedy(err, "Give it another name in the step that makes it (outputs:)");
    return MILL_ERR_INVALID;
}

mill_status stm_rows_layout_add(const stm_rows_layout *l, mill_io *io, const char *name, const mill_type *type, mill_error *err)
{
    return stm_rows_layout_column(l, name) >= 0 ? stm_rows_layout_taken(name, err) : mill_io_add(io, name, type, NULL, err);
}

static mill_status add_column(stm_rows_layout *l, mill_io *io, size_t input, const char *name, size_t width, mill_error *err)
{
    int32_t place, at;
    mill_status st;

    if ((st = mill_io_use(io, input, name, "any", &place, err)) != MILL_OK) return st;
    at = stm_rows_layout_column(l, name);
    if (at < 0) {
        at = l->n_columns;
        if ((l->names[at] = strdup(name)) == NULL) return no_memory(err);
        l->types[at] = mill_io_used_type(io, input, place);
        l->n_columns++;
    } else if (l->types[at] != mill_io_used_type(io, input, place)) {
        char a[128], b[128];

        mill_type_format(l->types[at], a, sizeof a);
        mill_type_format(mill_io_used_type(io, input, place), b, sizeof b);
        return mill_fail(err, MILL_ERR_TYPE, "column \"%s\" arrives as %s and, on another input, as %s", name, a, b);
    }
    l->places[input * width + (size_t)at] = place;
    return MILL_OK;
}

static mill_status add_embedding(stm_rows_layout *l, mill_io *io, size_t input, bool signatures, int32_t *place, mill_error *err)
{
    const mill_type *t;
    char shown[128];
    bool fits;
    mill_status st;

    if ((st = mill_io_use(io, input, "embedding", "any", place, err)) != MILL_OK) return st;
    t = mill_io_used_type(io, input, *place);
    mill_type_format(t, shown, sizeof shown);
    fits =
        t->id == MILL_FIXED_LIST && (t->fields[0].type->id == MILL_FLOAT32 || (signatures && t->fields[0].type->id == MILL_INT32));
    if (!fits || t->length < 1)
        return mill_fail(err, MILL_ERR_TYPE, "the column read as \"embedding\" is %s, expected fixed_list<float32>[n]%s", shown,
                         signatures ? ", or fixed_list<int32>[n] for signatures" : "");
    if (l->dim != 0 && l->signatures != (t->fields[0].type->id == MILL_INT32))
        return mill_fail(err, MILL_ERR_TYPE, "one input has vectors, another signatures");
    l->signatures = t->fields[0].type->id == MILL_INT32;
    if (l->dim != 0 && l->dim != t->length)
        return mill_fail(err, MILL_ERR_TYPE, "vectors of one input have %d components, those of another %d", (int)l->dim,
                         (int)t->length);
    l->dim = t->length;
    return MILL_OK;
}

mill_status stm_rows_layout_init(stm_rows_layout *l, mill_io *io, bool signatures, mill_error *err)
{
    size_t width = 1, narrow; /* embedding, and all that arrives */
    mill_status st;

    memset(l, 0, sizeof *l);
    l->n_inputs = mill_io_inputs(io);
    if (l->n_inputs == 0) return mill_fail(err, MILL_ERR_INVALID, "there is no input");
    for (size_t i = 0; i < l->n_inputs; i++) width += mill_io_column_count(io, i);
    l->names = calloc(width, sizeof *l->names);
    l->types = calloc(width, sizeof *l->types);
    l->places = malloc(l->n_inputs * width * sizeof *l->places);
    if (l->names == NULL || l->types == NULL || l->places == NULL) return no_memory(err);
    for (size_t i = 0; i < l->n_inputs * width; i++) l->places[i] = -1;
    for (size_t i = 0; i < l->n_inputs; i++) {
        const size_t n = mill_io_column_count(io, i);

        if ((st = add_embedding(l, io, i, signatures, &l->places[i * width + width - 1], err)) != MILL_OK) return st;
        for (size_t c = 0; c < n; c++) {
            if ((st = add_column(l, io, i, mill_io_column_name(io, i, c), width, err)) != MILL_OK) return st;
        }
    }
    /* Rows of `places` were as wide as could be needed; close the gaps. */
    narrow = (size_t)l->n_columns + 1;
    for (size_t i = 0; i < l->n_inputs; i++) {
        const int32_t embedding = l->places[i * width + width - 1];
        memmove(l->places + i * narrow, l->places + i * width, (size_t)l->n_columns * sizeof *l->places);
        l->places[i * narrow + narrow - 1] = embedding;
    }
    return MILL_OK;
}

void stm_rows_layout_fini(stm_rows_layout *l)
{
    for (int32_t i = 0; i < l->n_columns; i++) free(l->names[i]);
    free(l->names);
    free(l->types);
    free(l->places);
    memset(l, 0, sizeof *l);
}

/* ---- rows ---- */

/* The address of a T * in `items`; memcpy keeps aliasing rules. */
static bool grow(void *items, size_t *cap, size_t need, size_t item_bytes)
{
    size_t n = *cap > 0 ? *cap : 16;
    void *old, *grown;

    if (need <= *cap) return true;
    while (n < need) n *= 2;
    memcpy(&old, items, sizeof old);
    if ((grown = realloc(old, n * item_bytes)) == NULL) return false;
    memcpy(items, &grown, sizeof grown);
    *cap = n;
    return true;
}

mill_status stm_rows_accept(stm_rows *t, const stm_rows_layout *l, size_t input, const mill_batch *in, mill_error *err)
{
    const size_t n = (size_t)l->n_columns + 1, at = t->n_chunks * n;

    if (!grow(&t->chunks, &t->chunks_cap, t->n_chunks + 1, sizeof *t->chunks) ||
        !grow(&t->columns, &t->columns_cap, at + n, sizeof *t->columns))
        return no_memory(err);
    for (size_t c = 0; c < n; c++) {
        const int32_t place = l->places[input * n + c];
        mill_column *col = place >= 0 ? mill_batch_column(in, place) : NULL;
        t->columns[at + c] = col != NULL ? mill_column_ref(col) : NULL;
    }
    t->chunks[t->n_chunks] = (stm_rows_chunk){.input = input, .arrived = t->n_chunks, .rows = mill_batch_rows(in), .columns = at};
    t->n_chunks++;
    t->n_rows += mill_batch_rows(in);
    return MILL_OK;
}

static int by_input(const void *x, const void *y)
{
    const stm_rows_chunk *a = x, *b = y;

    if (a->input != b->input) return a->input < b->input ? -1 : 1;
    return a->arrived < b->arrived ? -1 : a->arrived > b->arrived;
}

static bool bit(const uint8_t *bits, int64_t i) { return bits == NULL || (bits[i >> 3] >> (i & 7) & 1) != 0; }

static void list_vectors(stm_rows *t, const stm_rows_layout *l, const stm_rows_chunk *k)
{
    const mill_column *col = t->columns[k->columns + (size_t)l->n_columns];
    mill_view list, values;

    if (col == NULL || k->rows == 0) return;
    list = mill_column_view(col);
    values = mill_column_view(list.children[0]);
    for (int64_t r = 0; r < k->rows; r++) {
        const int64_t first = values.offset + (list.offset + r) * l->dim;
        bool whole = bit(list.validity, list.offset + r);

        if (values.null_count > 0)
            for (int64_t i = 0; whole && i < l->dim; i++) whole = bit(values.validity, first + i);
        if (!whole) continue;
        t->vectors[t->n_vectors] = (const float *)values.data + first;
        t->row_of[t->n_vectors++] = k->first + r;
    }
}

mill_status stm_rows_seal(stm_rows *t, const stm_rows_layout *l, mill_error *err)
{
    int64_t first = 0;

    if (t->n_chunks > 0) qsort(t->chunks, t->n_chunks, sizeof *t->chunks, by_input);
    t->vectors = malloc(((size_t)t->n_rows + 1) * sizeof *t->vectors);
    t->row_of = malloc(((size_t)t->n_rows + 1) * sizeof *t->row_of);
    if (t->vectors == NULL || t->row_of == NULL) return no_memory(err);
    for (size_t i = 0; i < t->n_chunks; i++) {
        t->chunks[i].first = first;
        first += t->chunks[i].rows;
        list_vectors(t, l, &t->chunks[i]);
    }
    return MILL_OK;
}

void stm_rows_fini(stm_rows *t, const stm_rows_layout *l)
{
    for (size_t i = 0; i < stm_rows_columns(t, l); i++) mill_column_unref(&t->columns[i]);
    free(t->chunks);
    free(t->columns);
    free(t->vectors);
    free(t->row_of);
    memset(t, 0, sizeof *t);
}

const stm_rows_chunk *stm_rows_chunk_of(const stm_rows *t, int64_t row)
{
    size_t lo = 0, hi = t->n_chunks; /* the last chunk with first <= row */

    while (hi - lo > 1) {
        const size_t mid = lo + (hi - lo) / 2;
        if (t->chunks[mid].first <= row)
            lo = mid;
        else
            hi = mid;
    }
    return &t->chunks[lo];
}

bool stm_rows_can_append(const mill_type *type)
{
    return type->id == MILL_BOOL || type->id == MILL_INT32 || type->id == MILL_INT64 || type->id == MILL_FLOAT32 ||
           type->id == MILL_FLOAT64 || type->id == MILL_UTF8 || type->id == MILL_BINARY || type->id == MILL_JSON;
}

mill_status stm_rows_append(const stm_rows *t, const stm_rows_layout *l, int32_t column, int64_t row, mill_builder *b)
{
    const stm_rows_chunk *k = stm_rows_chunk_of(t, row);
    const mill_column *col = t->columns[k->columns + (size_t)column];
    mill_view v;
    int64_t r = row - k->first, bytes;
    const char *text;

    if (col == NULL || mill_column_is_null(col, r)) return mill_builder_null(b);
    v = mill_column_view(col);
    switch (l->types[column]->id) {
    case MILL_BOOL: return mill_builder_bool(b, bit(v.data, v.offset + r));
    case MILL_INT32: return mill_builder_int(b, ((const int32_t *)v.data)[v.offset + r]);
    case MILL_INT64: return mill_builder_int(b, ((const int64_t *)v.data)[v.offset + r]);
    case MILL_FLOAT32: return mill_builder_float(b, (double)((const float *)v.data)[v.offset + r]);
    case MILL_FLOAT64: return mill_builder_float(b, ((const double *)v.data)[v.offset + r]);
    default: text = mill_column_text(col, r, &bytes); return mill_builder_text(b, text, bytes);
    }
}

mill_status stm_rows_batch(const stm_rows *t, const stm_rows_layout *l, const stm_rows_chunk *k, int32_t extra, mill_pool *pool,
                           mill_batch **out, mill_error *err)
{
    mill_batch *b = NULL;

    if (mill_batch_create(pool, k->rows, l->n_columns + extra, &b) != MILL_OK) return no_memory(err);
    for (int32_t c = 0; c < l->n_columns; c++) {
        mill_column *col = t->columns[k->columns + (size_t)c];
        if (col == NULL) continue;
        (void)mill_column_ref(col);
        (void)mill_batch_set_column(b, c, &col); /* same rows, right place: cannot fail */
    }
    *out = b;
    return MILL_OK;
}

/* ---- calls of a step type ---- */

static const stm_rows_layout *layout_of(const mill_replica *r) { return mill_step_state(mill_replica_step(r)); }

mill_status stm_rows_load(mill_replica *r, mill_error *err)
{
    stm_rows *t = calloc(1, sizeof *t);

    if (t == NULL) return no_memory(err);
    mill_replica_set_state(r, t);
    return MILL_OK;
}

void stm_rows_unload(mill_replica *r)
{
    stm_rows *t = mill_replica_state(r);

    if (t == NULL) return;
    stm_rows_fini(t, layout_of(r));
    free(t);
    mill_replica_set_state(r, NULL);
}

mill_status stm_rows_take(mill_replica *r, size_t input, const mill_batch *in, mill_error *err)
{
    return stm_rows_accept(mill_replica_state(r), layout_of(r), input, in, err);
}
