#include "search/twins.h"

#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"

/* ---- where they are --------------------------------------------------------------------------------------------- */

typedef struct finding {
    stm_twins *to;
    size_t cap;
    mill_status st;
} finding;

static void add(mill_buffer *b, void *user)
{
    finding *f = user;
    stm_twins *t = f->to;
    size_t from = 0;
    mill_buffer *there = stm_buffer_twin(b, &from);

    if (there == NULL) return;
    if (f->st == MILL_OK && stm_grow(&t->all, &f->cap, t->n + 1, sizeof *t->all) != 0) f->st = MILL_ERR_NOMEM;
    if (f->st == MILL_OK)
        t->all[t->n++] = (stm_twin){mill_buffer_data(b), mill_buffer_bytes(b), there, from};
    else
        mill_buffer_unref(&there);
}

static int by_address(const void *x, const void *y)
{
    const stm_twin *a = x, *b = y;

    return a->host < b->host ? -1 : a->host > b->host;
}

mill_status stm_twins_find(stm_twins *t, mill_column *const *columns, size_t n, mill_error *err)
{
    finding f = {.to = t};
    size_t kept = 0;

    for (size_t i = 0; i < n; i++)
        if (columns[i] != NULL) stm_column_buffers(columns[i], add, &f);
    if (f.st != MILL_OK) return mill_fail(err, f.st, "no memory for the places of %zu columns", n);
    if (t->n > 1) qsort(t->all, t->n, sizeof *t->all, by_address);
    for (size_t i = 0; i < t->n; i++) { /* columns share buffers */
        if (kept > 0 && t->all[i].host == t->all[kept - 1].host)
            mill_buffer_unref(&t->all[i].there);
        else
            t->all[kept++] = t->all[i];
    }
    t->n = kept;
    return MILL_OK;
}

void stm_twins_fini(stm_twins *t)
{
    for (size_t i = 0; i < t->n; i++) mill_buffer_unref(&t->all[i].there);
    stm_free(t->all);
    memset(t, 0, sizeof *t);
}

const stm_twin *stm_twins_at(const stm_twins *t, const void *host, size_t bytes)
{
    const char *at = host;
    size_t lo = 0, hi = t->n; /* the last that begins at or before it */

    while (hi - lo > 1) {
        const size_t mid = lo + (hi - lo) / 2;
        if (t->all[mid].host <= at)
            lo = mid;
        else
            hi = mid;
    }
    if (lo == hi || at < t->all[lo].host || (size_t)(at - t->all[lo].host) + bytes > t->all[lo].bytes) return NULL;
    return &t->all[lo];
}

/* ---- rows to a device ------------------------------------------------------------------------------------------- */

typedef struct picked {
    const float *const *rows;
    const int64_t *pick;
    int64_t dim;
} picked;

static void fill(const void *user, int64_t first, int64_t n, void *out)
{
    const picked *p = user;

    for (int64_t i = 0; i < n; i++)
        memcpy((float *)out + i * p->dim, p->rows[p->pick[first + i]], (size_t)p->dim * sizeof(float));
}

mill_status stm_twin_await(const stm_twin *w, const void *host, stm_stream *s, const void **there, mill_error *err)
{
    *there = (const char *)mill_buffer_data(w->there) + w->from + ((const char *)host - w->host);
    return stm_buffer_await(w->there, s, err);
}

mill_status stm_twin_read(const stm_twin *w, stm_stream *s, mill_error *err)
{
    /* else there are more readers than are remembered */
    return stm_buffer_read_until(w->there, stm_stream_next(s)) ? MILL_OK : stm_stream_sync(s, err);
}

/* Floats at @p row, which @p w has, from there. */
static mill_status copy(stm_team *team, int32_t rank, const stm_twin *w, const float *row, size_t bytes, float *dst,
                        mill_error *err)
{
    stm_stream *s = stm_team_stream(team, rank);
    stm_device *own = stm_team_device(team, rank), *of = stm_buffer_device(w->there);
    const void *src;
    mill_status st = stm_twin_await(w, row, s, &src, err), read;

    if (st != MILL_OK) return st;
    st = stm_device_ordinal(of) == stm_device_ordinal(own) ? stm_stream_copy(s, dst, src, bytes, err)
                                                           : stm_stream_copy_peer(s, own, dst, of, src, bytes, err);
    read = stm_twin_read(w, s, st == MILL_OK ? err : NULL);
    return st != MILL_OK ? st : read;
}

mill_status stm_twins_rows(const stm_twins *t, stm_team *team, int32_t rank, const float *const *rows, const int64_t *pick,
                           int64_t n, int64_t dim, float *dst, mill_error *err)
{
    const size_t width = (size_t)dim * sizeof(float);
    mill_status st = MILL_OK;

    /* runs: rows that lie together there, or are nowhere but on the host */
    for (int64_t i = 0, end; i < n && st == MILL_OK; i = end) {
        const float *row = rows[pick[i]];
        const stm_twin *w = stm_twins_at(t, row, width);
        for (end = i + 1; end < n; end++) {
            const float *next = rows[pick[end]];
            if (w == NULL ? stm_twins_at(t, next, width) != NULL
                          : next != row + (end - i) * dim || (size_t)((const char *)next - w->host) + width > w->bytes)
                break;
        }
        st = w != NULL ? copy(team, rank, w, row, (size_t)(end - i) * width, dst + i * dim, err)
                       : stm_team_upload(team, rank, dst + i * dim, end - i, width, fill, &(picked){rows, pick + i, dim}, err);
    }
    return st;
}
