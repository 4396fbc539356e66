/*
 * Batches to and from ArrowArray.
 *
 * Export: every node of the array holds a reference of its own to its column, because a consumer may move a child out and
 * release the rest. Nodes are pool blocks, so exporting batch after batch allocates nothing.
 *
 * Import: the moved array sits in one reference-counted owner; each buffer that is shared wraps it. Buffers that are absent,
 * misaligned or of another width are copied.
 */
#include "stepmill/arrow.h"

#include <string.h>

#include "batch/arrow_type.h"
#include "batch/batch.h"
#include "batch/bits.h"
#include "batch/column.h"
#include "batch/type.h"
#include "core/alloc.h"

/* ---- export ---- */

/* What an exported array owns; the children's structs and the pointers to them follow it in the same block. */
typedef struct node {
    mill_pool *pool;
    size_t bytes;
    mill_column *col; /* NULL for the batch itself */
    const void *buffers[3];
    struct ArrowArray *children; /* [n] */
    struct ArrowArray *places[];
} node;

static void release_array(struct ArrowArray *a)
{
    node *p = a->private_data;

    for (int64_t i = 0; i < a->n_children; i++)
        if (a->children[i]->release != NULL) a->children[i]->release(a->children[i]);
    mill_column_unref(&p->col);
    stm_pool_give(p->pool, p, p->bytes);
    a->release = NULL;
}

static node *new_node(mill_pool *pool, int32_t n_children, struct ArrowArray *a)
{
    const size_t bytes = sizeof(node) + (size_t)n_children * (sizeof(struct ArrowArray *) + sizeof(struct ArrowArray));
    node *p = stm_pool_take(pool, bytes);

    if (p == NULL) return NULL;
    memset(p, 0, bytes);
    p->pool = pool;
    p->bytes = bytes;
    p->children = (struct ArrowArray *)(p->places + n_children);
    for (int32_t i = 0; i < n_children; i++) p->places[i] = &p->children[i];
    memset(a, 0, sizeof *a);
    a->private_data = p;
    a->release = release_array;
    a->buffers = p->buffers;
    a->n_children = n_children;
    a->children = n_children > 0 ? p->places : NULL;
    return p;
}

static bool export_column(mill_pool *pool, mill_column *col, struct ArrowArray *a)
{
    const mill_view v = mill_column_view(col);
    node *p = new_node(pool, v.type->n_fields, a);

    if (p == NULL) return false;
    p->col = mill_column_ref(col);
    a->length = v.rows;
    a->offset = v.offset;
    a->null_count = v.null_count;
    p->buffers[a->n_buffers++] = v.validity;
    if (v.offsets != NULL) p->buffers[a->n_buffers++] = v.offsets;
    if (v.type->n_fields == 0 && v.type->id != MILL_STRUCT) p->buffers[a->n_buffers++] = v.data;
    for (int32_t i = 0; i < v.type->n_fields; i++)
        if (!export_column(pool, (mill_column *)v.children[i], a->children[i])) {
            release_array(a);
            return false;
        }
    return true;
}

mill_status mill_arrow_export_batch(const mill_batch *batch, const mill_type *schema, struct ArrowArray *out, mill_error *err)
{
    struct ArrowArray a;
    node *p;

    if (schema == NULL || schema->id != MILL_STRUCT || schema->n_fields != batch->n_columns)
        return mill_fail(err, MILL_ERR_INVALID, "the schema of a batch of %d columns is a struct of as many fields",
                         (int)batch->n_columns);
    for (int32_t i = 0; i < batch->n_columns; i++)
        if (batch->columns[i] != NULL && batch->columns[i]->view.type != schema->fields[i].type)
            return mill_fail(err, MILL_ERR_TYPE, "column \"%s\" has another type than the schema says", schema->fields[i].name);
    p = new_node(batch->pool, batch->n_columns, &a);
    if (p == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for an Arrow array");
    a.length = batch->rows;
    a.n_buffers = 1;
    for (int32_t i = 0; i < batch->n_columns; i++) {
        mill_column *nulls = NULL;
        bool ok =
            batch->columns[i] != NULL || mill_column_nulls(batch->pool, schema->fields[i].type, batch->rows, &nulls) == MILL_OK;

        ok = ok && export_column(batch->pool, nulls != NULL ? nulls : batch->columns[i], a.children[i]);
        mill_column_unref(&nulls);
        if (ok) continue;
        release_array(&a);
        return mill_fail(err, MILL_ERR_NOMEM, "out of memory for an Arrow array");
    }
    *out = a;
    return MILL_OK;
}

/* ---- import ---- */

typedef struct owner {
    struct ArrowArray array;
    mill_pool *pool;
    int32_t refs; /* atomic: the import itself and every wrapped buffer */
} owner;

static void owner_unref(void *p)
{
    owner *o = p;

    if (!stm_refs_drop(&o->refs)) return;
    if (o->array.release != NULL) o->array.release(&o->array);
    stm_pool_give(o->pool, o, sizeof *o);
}

typedef struct importer {
    mill_pool *pool;
    owner *owner;
    mill_error *err;
} importer;

static mill_status no_memory(importer *im) { return mill_fail(im->err, MILL_ERR_NOMEM, "out of memory for an Arrow column"); }

/* Share bytes of the array, or copy them when they do not lie on their width. */
static mill_status share(importer *im, const void *data, int64_t bytes, int64_t width, mill_buffer **out)
{
    if (bytes < 0 || bytes > (int64_t)MILL_BUFFER_MAX_BYTES)
        return mill_fail(im->err, MILL_ERR_DATA, "Arrow buffer of %lld bytes", (long long)bytes);
    if (data == NULL && bytes > 0) return mill_fail(im->err, MILL_ERR_DATA, "Arrow buffer is missing");
    if (data == NULL || bytes == 0 || (uintptr_t)data % (uintptr_t)width != 0) {
        if (mill_buffer_create(im->pool, (size_t)bytes, out) != MILL_OK) return no_memory(im);
        if (bytes > 0) memcpy((*out)->data, data, (size_t)bytes);
        return MILL_OK;
    }
    if (stm_buffer_wrap(im->pool, data, (size_t)bytes, owner_unref, im->owner, out) != MILL_OK) return no_memory(im);
    stm_refs_add(&im->owner->refs);
    return MILL_OK;
}

/* Offsets [0, n]; of width 32 they are widened. An array without rows may have an empty buffer, so nothing is read of it. */
static mill_status import_offsets(importer *im, const void *data, int64_t n, stm_arrow_form form, mill_buffer **out)
{
    int64_t *dst;

    if (data == NULL || n == 0 || form == STM_ARROW_SMALL) {
        if (data == NULL && n > 0) return mill_fail(im->err, MILL_ERR_DATA, "Arrow offsets are missing");
        if (mill_buffer_create(im->pool, (size_t)(n + 1) * 8, out) != MILL_OK) return no_memory(im);
        dst = (*out)->data;
        dst[0] = 0;
        for (int64_t i = 0; i <= n && n > 0; i++) {
            int32_t v;

            memcpy(&v, (const char *)data + i * 4, 4);
            dst[i] = v;
        }
        return MILL_OK;
    }
    return share(im, data, (n + 1) * 8, 8, out);
}

static mill_status import_values(importer *im, const mill_type *t, const void *data, int64_t n, stm_arrow_form form,
                                 mill_buffer **out)
{
    const uint8_t *src = data;

    if (t->id == MILL_BOOL) return share(im, data, stm_bits_bytes(n), 1, out);
    if (form == STM_ARROW_SAME) return share(im, data, n * t->width, t->width, out);
    if (data == NULL && n > 0) return mill_fail(im->err, MILL_ERR_DATA, "Arrow buffer is missing");
    if (mill_buffer_create(im->pool, (size_t)(n * t->width), out) != MILL_OK) return no_memory(im);
    for (int64_t i = 0; i < n; i++) {
        int32_t *dst = (int32_t *)(*out)->data + i;
        int16_t s16;
        uint16_t u16;
        uint32_t u32;

        switch (form) {
        case STM_ARROW_INT8: *dst = (int8_t)src[i]; break;
        case STM_ARROW_UINT8: *dst = src[i]; break;
        case STM_ARROW_INT16:
            memcpy(&s16, src + i * 2, 2);
            *dst = s16;
            break;
        case STM_ARROW_UINT16:
            memcpy(&u16, src + i * 2, 2);
            *dst = u16;
            break;
        default:
            memcpy(&u32, src + i * 4, 4);
            ((int64_t *)(*out)->data)[i] = u32;
        }
    }
    return MILL_OK;
}

static mill_status check_shape(importer *im, const struct ArrowSchema *s, const struct ArrowArray *a, const mill_type *t)
{
    const int64_t buffers = t->id == MILL_STRUCT || t->id == MILL_FIXED_LIST ? 1 : stm_type_is_text(t) ? 3 : 2;
    const char *name = s->name != NULL ? s->name : "";

    if (a->release == NULL) return mill_fail(im->err, MILL_ERR_INVALID, "Arrow array \"%.64s\" is released", name);
    if (a->length < 0 || a->offset < 0 || a->length > (int64_t)1 << 45 || a->offset > (int64_t)1 << 45)
        return mill_fail(im->err, MILL_ERR_DATA, "Arrow array \"%.64s\" has %lld rows from %lld", name, (long long)a->length,
                         (long long)a->offset);
    if (a->n_buffers != buffers || a->n_children != t->n_fields || a->dictionary != NULL)
        return mill_fail(im->err, MILL_ERR_DATA,
                         "Arrow array \"%.64s\" has %lld buffers and %lld children, its type needs %lld and %d", name,
                         (long long)a->n_buffers, (long long)a->n_children, (long long)buffers, (int)t->n_fields);
    return MILL_OK;
}

static mill_status import_column(importer *im, const struct ArrowSchema *s, const struct ArrowArray *a, const mill_type *t,
                                 mill_column **out)
{
    const int64_t end = a->offset + a->length;
    const stm_arrow_form form = stm_arrow_form_of(s);
    mill_column *c;
    mill_status st = check_shape(im, s, a, t);

    if (st != MILL_OK) return st;
    c = stm_column_new(im->pool, t, a->length);
    if (c == NULL) return no_memory(im);
    c->view.offset = a->offset;
    if (a->buffers[0] != NULL && a->null_count != 0 && a->length > 0 &&
        (st = share(im, a->buffers[0], stm_bits_bytes(end), 1, &c->validity)) != MILL_OK)
        goto fail;
    if (stm_type_has_offsets(t)) {
        if ((st = import_offsets(im, a->buffers[1], end, form, &c->offsets)) != MILL_OK) goto fail;
        if (stm_type_is_text(t) &&
            (st = share(im, a->buffers[2], ((const int64_t *)c->offsets->data)[end], 1, &c->data)) != MILL_OK)
            goto fail;
    } else if (stm_type_is_plain(t)) {
        if ((st = import_values(im, t, a->buffers[1], end, form, &c->data)) != MILL_OK) goto fail;
    }
    for (int32_t i = 0; i < t->n_fields; i++) {
        int64_t need = t->id == MILL_STRUCT ? end : 0;

        if ((st = import_column(im, s->children[i], a->children[i], t->fields[i].type, &c->children[i])) != MILL_OK) goto fail;
        if (t->id == MILL_FIXED_LIST && __builtin_mul_overflow(end, (int64_t)t->length, &need)) need = INT64_MAX;
        if (c->children[i]->view.rows >= need) continue;
        st = mill_fail(im->err, MILL_ERR_DATA, "Arrow array \"%.64s\" has %lld values, its parent needs %lld", t->fields[i].name,
                       (long long)c->children[i]->view.rows, (long long)need);
        goto fail;
    }
    stm_column_fix_view(c);
    *out = c;
    return MILL_OK;
fail:
    mill_column_unref(&c);
    return st;
}

/* The struct's own rows [offset, offset + length) of each child. */
static mill_status import_rows(importer *im, const struct ArrowSchema *schema, const struct ArrowArray *a, const mill_type *t,
                               mill_batch *b)
{
    for (int32_t i = 0; i < t->n_fields; i++) {
        mill_column *whole = NULL;
        mill_status st = import_column(im, schema->children[i], a->children[i], t->fields[i].type, &whole);

        if (st == MILL_OK && stm_column_slice(whole, a->offset, a->length, &b->columns[i]) == MILL_ERR_INVALID)
            st = mill_fail(im->err, MILL_ERR_DATA, "it has %lld values, %lld are needed", (long long)whole->view.rows,
                           (long long)(a->offset + a->length));
        else if (st == MILL_OK && b->columns[i] == NULL)
            st = no_memory(im);
        mill_column_unref(&whole);
        if (st == MILL_OK) st = stm_column_validate(b->columns[i], im->err);
        if (st != MILL_OK) {
            mill_error_context(im->err, "importing Arrow column \"%.64s\"", t->fields[i].name);
            return st;
        }
    }
    return MILL_OK;
}

mill_status mill_arrow_import_batch(mill_pool *pool, const struct ArrowSchema *schema, struct ArrowArray *array, mill_batch **out,
                                    mill_error *err)
{
    importer im = {pool, NULL, err};
    mill_batch *b = NULL;
    const mill_type *t;
    mill_status st;

    if ((st = mill_arrow_import_type(schema, &t, err)) != MILL_OK) return st;
    if (t->id != MILL_STRUCT) return mill_fail(err, MILL_ERR_INVALID, "a batch is imported from a struct array");
    if ((st = check_shape(&im, schema, array, t)) != MILL_OK) return st;
    if (array->null_count != 0 && array->buffers[0] != NULL &&
        stm_bits_count(array->buffers[0], array->offset, array->length) != array->length)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "Arrow rows that are null as a whole have no counterpart");
    im.owner = stm_pool_take(pool, sizeof *im.owner);
    if (im.owner == NULL) return no_memory(&im);
    memset(im.owner, 0, sizeof *im.owner);
    im.owner->pool = pool;
    im.owner->refs = 1;
    st = mill_batch_create(pool, array->length, t->n_fields, &b);
    if (st != MILL_OK) st = mill_fail(err, st, "no batch of %lld rows and %d columns", (long long)array->length, (int)t->n_fields);
    if (st == MILL_OK) st = import_rows(&im, schema, array, t, b);
    if (st == MILL_OK) {
        im.owner->array = *array;
        array->release = NULL;
        *out = b;
    } else {
        mill_batch_destroy(&b); /* the owner's array is still empty: the caller keeps his */
    }
    owner_unref(im.owner);
    return st;
}
