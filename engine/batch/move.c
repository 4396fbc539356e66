#include "batch/move.h"

#include <string.h>

#include "batch/batch.h"
#include "batch/bits.h"
#include "batch/column.h"
#include "batch/type.h"

/* The column that owns data, offsets and children; *validity is that of the masked column in between, or its own. */
static const mill_column *root_of(const mill_column *col, mill_buffer **validity)
{
    const mill_column *c = col;

    *validity = c->validity;
    while (c->base != NULL) {
        c = c->base;
        if (*validity == NULL) *validity = c->validity;
    }
    return c;
}

void stm_column_buffers(const mill_column *col, void (*visit)(mill_buffer *b, void *user), void *user)
{
    mill_buffer *validity;
    const mill_column *root = root_of(col, &validity);

    if (validity != NULL) visit(validity, user);
    if (root->offsets != NULL) visit(root->offsets, user);
    if (root->data != NULL) visit(root->data, user);
    for (int32_t i = 0; i < root->n_children; i++) stm_column_buffers(root->children[i], visit, user);
}

typedef struct looked {
    const stm_device *but;
    bool found;
} looked;

static void look(mill_buffer *b, void *user)
{
    looked *l = user;

    if (stm_buffer_on_device(b) && (l->but == NULL || stm_buffer_device(b) != l->but)) l->found = true;
}

bool stm_column_is_on_device(const mill_column *col, const stm_device *but)
{
    looked l = {but, false};

    stm_column_buffers(col, look, &l);
    return l.found;
}

/* ---- moving ----------------------------------------------------------------------------------------------------- */

static mill_status take(stm_mover *m, size_t bytes, mill_buffer **out, mill_error *err)
{
    stm_device_pool *p = m->to != NULL ? m->to : m->pinned;

    /* rows may rest in it until they are read */
    if (p != NULL && (m->to != NULL || stm_device_pool_may_keep(p, bytes))) return stm_device_pool_take(p, bytes, out, err);
    return mill_buffer_create(m->pool, bytes, out) == MILL_OK
               ? MILL_OK
               : mill_fail(err, MILL_ERR_NOMEM, "out of memory for %zu bytes from a device", bytes);
}

/* Memory that the device may read until the next mark: the source itself, or its bytes in a pinned buffer. */
static mill_status staged(stm_mover *m, mill_buffer *src, size_t from, size_t bytes, mill_buffer **hold, const char **at,
                          mill_error *err)
{
    mill_status st;

    *hold = NULL;
    *at = (const char *)src->data + from;
    if (src->where != 0 || m->to == NULL || m->pinned == NULL) return MILL_OK;
    st = stm_device_pool_take(m->pinned, bytes, hold, err);
    if (st != MILL_OK) return st;
    memcpy((*hold)->data, *at, bytes);
    *at = (*hold)->data;
    return MILL_OK;
}

/* Bytes [from, from + bytes) of src, cut at its end. */
static mill_status copy_part(stm_mover *m, mill_buffer *src, size_t from, size_t bytes, mill_buffer **out, mill_error *err)
{
    const stm_mark next = stm_stream_next(m->stream);
    stm_device *own = stm_stream_device(m->stream), *of = stm_buffer_device(src);
    mill_buffer *dst = NULL, *hold = NULL;
    const char *at;
    mill_status st;

    if (from > src->bytes) from = src->bytes;
    if (bytes > src->bytes - from) bytes = src->bytes - from;
    st = take(m, bytes, &dst, err);
    if (st == MILL_OK) st = staged(m, src, from, bytes, &hold, &at, err);
    if (st == MILL_OK) st = stm_buffer_await(src, m->stream, err);
    if (st == MILL_OK) {
        if (m->to != NULL && stm_buffer_on_device(src) && of != own && stm_device_ordinal(of) != stm_device_ordinal(own))
            st = stm_stream_copy_peer(m->stream, own, dst->data, of, at, bytes, err);
        else
            st = stm_stream_copy(m->stream, dst->data, at, bytes, err);
    }
    if (st == MILL_OK) {
        stm_buffer_written(dst, next);
        if (m->pairs && dst->where == STM_MEM_PINNED && stm_buffer_on_device(src)) stm_buffer_pair(dst, src, from);
        if (hold != NULL)
            stm_buffer_read_until(hold, next); /* nobody else reads it: there is room for the mark */
        else if (!stm_buffer_read_until(src, next))
            st = stm_stream_sync(m->stream, err); /* more readers than are remembered: rare */
        if (st == MILL_OK && dst->where == 0 && m->pinned != NULL) { /* no marks there */
            st = stm_stream_sync(m->stream, err);
            if (st != MILL_OK) stm_stream_settle(m->stream);
        }
        m->bytes += (int64_t)bytes;
    }
    if (hold != NULL) mill_buffer_unref(&hold);
    if (st != MILL_OK) {
        mill_buffer_unref(&dst);
        return st;
    }
    *out = dst;
    return MILL_OK;
}

static mill_status move_rows(stm_mover *m, const mill_column *col, int64_t first, int64_t rows, mill_column **out, mill_error *err);

/* Elements start .. start + n - 1 of root: start is a multiple of 8, so that bits begin at a byte. */
static mill_status move_parts(stm_mover *m, const mill_column *root, mill_buffer *validity, int64_t start, int64_t n,
                              mill_column *c, mill_error *err)
{
    const mill_type *t = root->view.type;
    mill_status st = MILL_OK;

    if (validity != NULL) st = copy_part(m, validity, (size_t)(start / 8), (size_t)stm_bits_bytes(n), &c->validity, err);
    if (st == MILL_OK && root->offsets != NULL)
        st = copy_part(m, root->offsets, (size_t)start * 8, (size_t)(n + 1) * 8, &c->offsets, err);
    if (st == MILL_OK && root->data != NULL) {
        if (!stm_type_is_plain(t))
            st = copy_part(m, root->data, 0, root->data->bytes, &c->data, err);
        else if (t->id == MILL_BOOL)
            st = copy_part(m, root->data, (size_t)(start / 8), (size_t)stm_bits_bytes(n), &c->data, err);
        else
            st = copy_part(m, root->data, (size_t)start * (size_t)t->width, (size_t)n * (size_t)t->width, &c->data, err);
    }
    for (int32_t i = 0; i < root->n_children && st == MILL_OK; i++) {
        const mill_column *child = root->children[i];
        if (t->id == MILL_FIXED_LIST)
            st = move_rows(m, child, start * t->length, n * t->length, &c->children[i], err);
        else if (t->id == MILL_STRUCT)
            st = move_rows(m, child, start, n, &c->children[i], err);
        else
            st = move_rows(m, child, 0, child->view.rows, &c->children[i], err);
    }
    return st;
}

static mill_status move_rows(stm_mover *m, const mill_column *col, int64_t first, int64_t rows, mill_column **out, mill_error *err)
{
    const int64_t at = col->view.offset + first, start = at / 8 * 8;
    mill_buffer *validity;
    const mill_column *root = root_of(col, &validity);
    mill_column *c = stm_column_new(m->pool, col->view.type, at - start + rows);
    mill_status st;

    if (c == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a column");
    st = move_parts(m, root, validity, start, at - start + rows, c, err);
    if (st == MILL_OK) {
        stm_column_fix_view(c);
        st = stm_column_slice(c, at - start, rows, out);
        if (st != MILL_OK) mill_fail(err, st, "out of memory for a column");
    }
    mill_column_unref(&c);
    return st;
}

mill_status stm_column_move(stm_mover *m, const mill_column *col, mill_column **out, mill_error *err)
{
    return move_rows(m, col, 0, col->view.rows, out, err);
}

/* ---- twins ------------------------------------------------------------------------------------------------------ */

/* The twin of @p b if it begins where b does, else b; a reference. */
static mill_buffer *twin_or_self(mill_buffer *b, bool *any)
{
    size_t from = 0;
    mill_buffer *twin;

    if (b == NULL) return NULL;
    twin = stm_buffer_twin(b, &from);
    if (twin != NULL && from != 0) mill_buffer_unref(&twin);
    *any = *any || twin != NULL;
    return twin != NULL ? twin : mill_buffer_ref(b);
}

static mill_status pair_of(mill_pool *pool, const mill_column *col, bool *any, mill_column **out)
{
    mill_buffer *validity;
    const mill_column *root = root_of(col, &validity);
    mill_column *c = stm_column_new(pool, root->view.type, root->view.offset + root->view.rows);
    mill_status st = c != NULL ? MILL_OK : MILL_ERR_NOMEM;

    if (st != MILL_OK) return st;
    c->validity = twin_or_self(validity, any);
    c->offsets = twin_or_self(root->offsets, any);
    c->data = twin_or_self(root->data, any);
    for (int32_t i = 0; i < root->n_children && st == MILL_OK; i++) st = pair_of(pool, root->children[i], any, &c->children[i]);
    stm_column_fix_view(c);
    if (st == MILL_OK) st = stm_column_slice(c, col->view.offset, col->view.rows, out);
    mill_column_unref(&c);
    return st;
}

mill_status stm_column_twin(mill_pool *pool, const mill_column *col, mill_column **out)
{
    mill_column *made = NULL;
    bool any = false;
    const mill_status st = pair_of(pool, col, &any, &made);

    if (st == MILL_OK && any)
        *out = made;
    else
        mill_column_unref(&made);
    return st;
}
