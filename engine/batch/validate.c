/* Full check of a column that came from outside: after it, every reader may trust offsets and text. */
#include <string.h>

#include "batch/batch.h"
#include "batch/bits.h"
#include "batch/column.h"
#include "batch/type.h"
#include "batch/utf8.h"

const unsigned char *stm_utf8_bad(const unsigned char *p, const unsigned char *end)
{
    while (p < end) {
        int more;
        unsigned low = 0x80, high = 0xBF;
        uint64_t w;

        while (end - p >= 8 && (memcpy(&w, p, 8), (w & 0x8080808080808080u) == 0)) p += 8;
        if (p == end) break;
        if (*p < 0x80) {
            p++;
            continue;
        }
        if (*p >= 0xC2 && *p <= 0xDF) {
            more = 1;
        } else if ((*p & 0xF0) == 0xE0) {
            more = 2;
            if (*p == 0xE0) low = 0xA0;  /* shorter form exists */
            if (*p == 0xED) high = 0x9F; /* surrogates */
        } else if (*p >= 0xF0 && *p <= 0xF4) {
            more = 3;
            if (*p == 0xF0) low = 0x90;
            if (*p == 0xF4) high = 0x8F; /* past U+10FFFF */
        } else {
            return p;
        }
        if (end - p <= more || p[1] < low || p[1] > high) return p;
        for (int i = 2; i <= more; i++)
            if ((p[i] & 0xC0) != 0x80) return p;
        p += more + 1;
    }
    return NULL;
}

static mill_status check_offsets(const mill_column *col, int64_t limit, mill_error *err)
{
    const mill_view *v = stm_view(col);
    const int64_t *o = v->offsets + v->offset;

    if (o[0] < 0) return mill_fail(err, MILL_ERR_DATA, "offset of row 0 is %lld, below 0", (long long)o[0]);
    for (int64_t r = 0; r < v->rows; r++)
        if (o[r + 1] < o[r])
            return mill_fail(err, MILL_ERR_DATA, "offsets decrease at row %lld: %lld, then %lld", (long long)r, (long long)o[r],
                             (long long)o[r + 1]);
    if (o[v->rows] > limit)
        return mill_fail(err, MILL_ERR_DATA, "last offset is %lld, past the %lld there are", (long long)o[v->rows],
                         (long long)limit);
    return MILL_OK;
}

static mill_status check_text(const mill_column *col, mill_error *err)
{
    for (int64_t r = 0; r < col->view.rows; r++) {
        int64_t n;
        const unsigned char *text = (const unsigned char *)mill_column_text(col, r, &n), *bad;

        if (text == NULL || (bad = stm_utf8_bad(text, text + n)) == NULL) continue;
        return mill_fail(err, MILL_ERR_DATA, "row %lld is not UTF-8: byte %lld is 0x%02X", (long long)r, (long long)(bad - text),
                         *bad);
    }
    return MILL_OK;
}

mill_status stm_column_validate(const mill_column *col, mill_error *err)
{
    const mill_view *v = stm_view(col);
    const mill_column *root = col;
    const int64_t end = v->offset + v->rows;
    mill_status st = MILL_OK;

    while (root->base != NULL) root = root->base;
    if (v->type->id == MILL_LIST) {
        st = check_offsets(col, v->children[0]->view.rows, err);
    } else if (stm_type_is_text(v->type)) {
        st = check_offsets(col, (int64_t)root->data->bytes, err);
        if (st == MILL_OK && v->type->id != MILL_BINARY) st = check_text(col, err);
    } else if (v->type->id == MILL_FIXED_LIST && v->children[0]->view.rows / v->type->length < end) {
        st = mill_fail(err, MILL_ERR_DATA, "fixed list of %lld rows has a child of %lld", (long long)end,
                       (long long)v->children[0]->view.rows);
    }
    for (int32_t i = 0; i < v->type->n_fields && st == MILL_OK; i++) {
        if (v->type->id == MILL_STRUCT && v->children[i]->view.rows < end)
            st = mill_fail(err, MILL_ERR_DATA, "struct of %lld rows has a child of %lld", (long long)end,
                           (long long)v->children[i]->view.rows);
        else
            st = stm_column_validate(v->children[i], err);
        if (st != MILL_OK) mill_error_context(err, "in child \"%s\"", v->type->fields[i].name);
    }
    return st;
}
