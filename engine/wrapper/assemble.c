/*
 * Columns put together on the device of a replica: re-batching, slices, joins and picked rows, queued on the replica's streams.
 *
 *      few long runs      each is copied to its place: one copy per run and buffer
 *      many short ones    their sources lie end to end in scratch, rows are picked by an index (kernels/gather.h)
 *      bits               likewise, unless every run begins at a byte
 *
 * Runs may lie on the host, on this device or on others; what is made is on this one, behind the next mark of the step's stream.
 * Where there is no room or no kernel for it, sources come to the host and are put together there.
 */
#include <string.h>

#include "batch/bits.h"
#include "batch/column.h"
#include "batch/type.h"
#include "core/alloc.h"
#include "wrapper/lane_internal.h"

enum { FEW = 16 }; /* runs that are copied one by one */

/* A run of rows of one column; col NULL = nulls. */
typedef struct run {
    const mill_column *col;
    int64_t first, rows;
} run;

/* Elements first .. first + rows - 1 of a buffer of a column; buffer NULL = there is none: all set (validity), zeros (values). */
typedef struct part {
    mill_buffer *buffer;
    int64_t first, rows;
    bool set; /* bits without a buffer: their value */
} part;

/* The root that owns the buffers, and the validity that counts. */
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

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

/* Bytes of src to dst, wherever src is. Pageable memory goes through a pinned buffer. */
static mill_status bring(stm_lane *l, char *dst, mill_buffer *src, size_t from, size_t bytes)
{
    stm_stream *s = NULL;
    mill_buffer *hold = NULL;
    const char *at = (const char *)src->data + from;
    stm_device *own = l->opts.device, *of = stm_buffer_device(src);
    mill_status st;

    if (bytes == 0) return MILL_OK;
    st = stm_lane_way_from(l, src, &s, l->err);
    if (st == MILL_OK) st = stm_buffer_await(src, s, l->err);
    if (st == MILL_OK && src->where == 0) {
        st = stm_device_pool_take(l->pinned, bytes, &hold, l->err);
        if (st == MILL_OK) at = memcpy(hold->data, at, bytes);
    }
    if (st == MILL_OK)
        st = s == l->streams[STM_WAY_ACROSS] ? stm_stream_copy_peer(s, own, dst, of, at, bytes, l->err)
                                             : stm_stream_copy(s, dst, at, bytes, l->err);
    if (st == MILL_OK && !stm_buffer_read_until(hold != NULL ? hold : src, stm_stream_next(s))) st = stm_stream_sync(s, l->err);
    if (hold != NULL) mill_buffer_unref(&hold);
    return st;
}

/* An index on the device: rows of what is picked from. */
static mill_status bring_index(stm_lane *l, const int64_t *index, int64_t rows, mill_buffer **out)
{
    const size_t bytes = (size_t)rows * sizeof *index;
    stm_stream *up = l->streams[STM_WAY_UP];
    mill_buffer *hold = NULL, *there = NULL;
    mill_status st = stm_device_pool_take(l->pinned, bytes, &hold, l->err);

    if (st != MILL_OK) return st;
    st = stm_lane_take(l, bytes, &there, l->err);
    if (st == MILL_OK) {
        memcpy(hold->data, index, bytes);
        l->queued[STM_WAY_UP] = true;
        st = stm_stream_copy(up, mill_buffer_data(there), hold->data, bytes, l->err);
        if (!stm_buffer_read_until(hold, stm_stream_next(up))) st = stm_stream_sync(up, l->err);
    }
    mill_buffer_unref(&hold);
    if (st == MILL_OK)
        *out = there;
    else
        mill_buffer_unref(&there);
    return st;
}

/* ---- rows of a fixed number of bytes ----------------------------------------------------------------------------------- */

static mill_status fill(stm_lane *l, char *dst, int byte, size_t bytes)
{
    l->queued[STM_WAY_STEP] = true;
    return bytes == 0 ? MILL_OK : stm_stream_fill(l->streams[STM_WAY_STEP], dst, byte, bytes, l->err);
}

static mill_status lay_bytes(stm_lane *l, const part *p, size_t n, int64_t width, char *dst)
{
    mill_status st = MILL_OK;

    for (size_t i = 0; i < n && st == MILL_OK; i++) {
        const size_t bytes = (size_t)p[i].rows * (size_t)width;
        st = p[i].buffer != NULL ? bring(l, dst, p[i].buffer, (size_t)p[i].first * (size_t)width, bytes) : fill(l, dst, 0, bytes);
        dst += bytes;
    }
    return st;
}

/* The ranges of distinct buffers that the parts need. */
typedef struct source {
    mill_buffer *buffer;
    int64_t first, end, at; /* elements; place in scratch */
} source;

static size_t sources_of(const part *p, size_t n, source *s)
{
    size_t n_s = 0;

    for (size_t i = 0; i < n; i++) {
        size_t k = n_s;
        if (p[i].buffer == NULL || p[i].rows == 0) continue;
        while (k > 0 && s[k - 1].buffer != p[i].buffer) k--; /* the last one first: runs go along */
        if (k == 0) {
            s[n_s++] = (source){p[i].buffer, p[i].first, p[i].first + p[i].rows, 0};
            continue;
        }
        k--;
        if (p[i].first < s[k].first) s[k].first = p[i].first;
        if (p[i].first + p[i].rows > s[k].end) s[k].end = p[i].first + p[i].rows;
    }
    return n_s;
}

static const source *source_of(const source *s, size_t n, const mill_buffer *b)
{
    for (size_t k = n; k-- > 0;)
        if (s[k].buffer == b) return &s[k];
    return NULL;
}

/* index[row] = place in scratch; those without a buffer: absent. */
static void index_of(const part *p, size_t n, const source *s, size_t n_s, int64_t set, int64_t absent, int64_t *index)
{
    for (size_t i = 0; i < n; i++) {
        const source *of = p[i].buffer != NULL ? source_of(s, n_s, p[i].buffer) : NULL;
        for (int64_t r = 0; r < p[i].rows; r++)
            *index++ = of != NULL ? of->at + p[i].first - of->first + r : p[i].set ? set : absent;
    }
}

/* What came of queueing a kernel that picks rows. */
static mill_status picked(stm_lane *l, mill_status st)
{
    l->queued[STM_WAY_STEP] = true; /* also where it failed: nobody knows how far it got */
    if (st != MILL_OK) mill_fail(l->err, st, "queueing a kernel that picks rows failed");
    stm_device_note(l->opts.device, st);
    return st;
}

static mill_status pick_bytes(stm_lane *l, const part *p, size_t n, int64_t width, int64_t rows, char *dst)
{
    source *s = stm_malloc((n + 1) * sizeof *s);
    int64_t *index = stm_malloc(((size_t)rows + 1) * sizeof *index), at = 0;
    mill_buffer *scratch = NULL, *there = NULL;
    mill_status st = s != NULL && index != NULL ? MILL_OK : MILL_ERR_NOMEM;
    const size_t n_s = st == MILL_OK ? sources_of(p, n, s) : 0;

    for (size_t k = 0; k < n_s; k++) {
        s[k].at = at;
        at += s[k].end - s[k].first;
    }
    if (st == MILL_OK) st = stm_lane_take(l, (size_t)at * (size_t)width, &scratch, l->err);
    for (size_t k = 0; k < n_s && st == MILL_OK; k++)
        st = bring(l, (char *)mill_buffer_data(scratch) + s[k].at * width, s[k].buffer, (size_t)(s[k].first * width),
                   (size_t)((s[k].end - s[k].first) * width));
    if (st == MILL_OK) {
        index_of(p, n, s, n_s, -1, -1, index);
        st = bring_index(l, index, rows, &there);
    }
    if (st == MILL_OK) st = stm_lane_gather_ways(l, l->err);
    if (st == MILL_OK) {
        const stm_gather_args a = {mill_buffer_data(scratch), mill_buffer_data(there), dst, rows, width};
        st = picked(l, l->kernels->gather(&a, stm_stream_native(l->streams[STM_WAY_STEP])));
    }
    if (st != MILL_OK) stm_lane_drain(l, 0, NULL);
    mill_buffer_unref(&scratch);
    mill_buffer_unref(&there);
    stm_free(s);
    stm_free(index);
    return st;
}

/* ---- bits -------------------------------------------------------------------------------------------------------- */

static bool bytewise(const part *p, size_t n)
{
    int64_t at = 0;

    for (size_t i = 0; i < n; i++) {
        if ((at & 7) != 0 || (p[i].buffer != NULL && (p[i].first & 7) != 0)) return false;
        at += p[i].rows;
    }
    return true;
}

static mill_status lay_bits(stm_lane *l, const part *p, size_t n, char *dst)
{
    mill_status st = MILL_OK;

    for (size_t i = 0; i < n && st == MILL_OK; i++) {
        const size_t bytes = (size_t)stm_bits_bytes(p[i].rows);
        st = p[i].buffer != NULL ? bring(l, dst, p[i].buffer, (size_t)(p[i].first / 8), bytes)
                                 : fill(l, dst, p[i].set ? 0xff : 0, bytes);
        dst += bytes;
    }
    return st;
}

/* The first byte of scratch is all set, for parts without a buffer. */
static mill_status pick_bits(stm_lane *l, const part *p, size_t n, int64_t rows, char *dst)
{
    source *s = stm_malloc((n + 1) * sizeof *s);
    int64_t *index = stm_malloc(((size_t)rows + 1) * sizeof *index), at = 8;
    mill_buffer *scratch = NULL, *there = NULL;
    mill_status st = s != NULL && index != NULL ? MILL_OK : MILL_ERR_NOMEM;
    const size_t n_s = st == MILL_OK ? sources_of(p, n, s) : 0;

    for (size_t k = 0; k < n_s; k++) {
        s[k].first = s[k].first / 8 * 8;
        s[k].at = at;
        at += stm_bits_bytes(s[k].end - s[k].first) * 8;
    }
    if (st == MILL_OK) st = stm_lane_take(l, (size_t)at / 8, &scratch, l->err);
    if (st == MILL_OK) st = fill(l, mill_buffer_data(scratch), 0xff, 1);
    for (size_t k = 0; k < n_s && st == MILL_OK; k++)
        st = bring(l, (char *)mill_buffer_data(scratch) + s[k].at / 8, s[k].buffer, (size_t)(s[k].first / 8),
                   (size_t)stm_bits_bytes(s[k].end - s[k].first));
    if (st == MILL_OK) {
        index_of(p, n, s, n_s, 0, -1, index);
        st = bring_index(l, index, rows, &there);
    }
    if (st == MILL_OK) st = stm_lane_gather_ways(l, l->err);
    if (st == MILL_OK) {
        const stm_gather_bits_args a = {mill_buffer_data(scratch), 0, mill_buffer_data(there), (uint8_t *)dst, rows};
        st = picked(l, l->kernels->gather_bits(&a, stm_stream_native(l->streams[STM_WAY_STEP])));
    }
    if (st != MILL_OK) stm_lane_drain(l, 0, NULL);
    mill_buffer_unref(&scratch);
    mill_buffer_unref(&there);
    stm_free(s);
    stm_free(index);
    return st;
}

/* ---- columns ----------------------------------------------------------------------------------------------------- */

/* Types of which every buffer has a fixed number of elements per row. */
static bool is_fixed(const mill_type *t)
{
    if (stm_type_is_plain(t)) return true;
    if (t->id != MILL_FIXED_LIST && t->id != MILL_STRUCT) return false;
    for (int32_t i = 0; i < t->n_fields; i++)
        if (!is_fixed(t->fields[i].type)) return false;
    return true;
}

static mill_status join_values(stm_lane *l, const mill_type *t, const run *runs, part *p, size_t n, int64_t rows, mill_column *c)
{
    const bool bits = t->id == MILL_BOOL;
    mill_status st;

    for (size_t i = 0; i < n; i++) {
        mill_buffer *validity;
        p[i] = (part){.rows = runs[i].rows};
        if (runs[i].col == NULL) continue;
        p[i].buffer = root_of(runs[i].col, &validity)->data;
        p[i].first = runs[i].col->view.offset + runs[i].first;
    }
    st = stm_lane_take(l, bits ? (size_t)stm_bits_bytes(rows) : (size_t)rows * (size_t)t->width, &c->data, l->err);
    if (st != MILL_OK) return st;
    if (bits)
        return bytewise(p, n) ? lay_bits(l, p, n, mill_buffer_data(c->data)) : pick_bits(l, p, n, rows, mill_buffer_data(c->data));
    return n <= FEW ? lay_bytes(l, p, n, t->width, mill_buffer_data(c->data))
                    : pick_bytes(l, p, n, t->width, rows, mill_buffer_data(c->data));
}

static mill_status join_validity(stm_lane *l, const run *runs, part *p, size_t n, int64_t rows, mill_column *c)
{
    bool any = false;
    mill_status st;

    for (size_t i = 0; i < n; i++) {
        p[i] = (part){.rows = runs[i].rows};
        if (runs[i].col != NULL) {
            root_of(runs[i].col, &p[i].buffer);
            p[i].first = runs[i].col->view.offset + runs[i].first;
            p[i].set = p[i].buffer == NULL;
        }
        any = any || (runs[i].rows > 0 && !p[i].set);
    }
    if (!any) return MILL_OK;
    st = stm_lane_take(l, (size_t)stm_bits_bytes(rows), &c->validity, l->err);
    if (st != MILL_OK) return st;
    return bytewise(p, n) ? lay_bits(l, p, n, mill_buffer_data(c->validity))
                          : pick_bits(l, p, n, rows, mill_buffer_data(c->validity));
}

static mill_status join(stm_lane *l, const mill_type *t, const run *runs, size_t n, bool nulls, mill_column **out)
{
    int64_t rows = 0;
    mill_column *c;
    part *p = stm_malloc((n + 1) * sizeof *p);
    run *below = t->n_fields > 0 ? stm_malloc((n + 1) * sizeof *below) : NULL;
    mill_status st = MILL_OK;

    for (size_t i = 0; i < n; i++) rows += runs[i].rows;
    c = stm_column_new(l->opts.host, t, rows);
    if (c == NULL || p == NULL || (t->n_fields > 0 && below == NULL)) st = MILL_ERR_NOMEM;
    if (st == MILL_OK && nulls) st = join_validity(l, runs, p, n, rows, c);
    if (st == MILL_OK && stm_type_is_plain(t)) st = join_values(l, t, runs, p, n, rows, c);
    for (int32_t k = 0; k < t->n_fields && st == MILL_OK; k++) {
        const int64_t each = t->id == MILL_FIXED_LIST ? t->length : 1;
        bool valid = true; /* what lies below null rows is zeros, and not null: nobody looks there */
        for (size_t i = 0; i < n; i++) {
            mill_buffer *validity;
            const mill_column *root = runs[i].col != NULL ? root_of(runs[i].col, &validity) : NULL;
            below[i] = (run){root != NULL ? root->children[k] : NULL, 0, runs[i].rows * each};
            if (root == NULL) continue;
            below[i].first = (runs[i].col->view.offset + runs[i].first) * each;
            root_of(root->children[k], &validity);
            valid = valid && validity == NULL;
        }
        st = join(l, t->fields[k].type, below, n, !valid, &c->children[k]);
    }
    stm_free(p);
    stm_free(below);
    if (c != NULL && st == MILL_OK) stm_column_fix_view(c);
    *out = c; /* also on failure: it is let go when nothing is written to it any more */
    return st;
}

static void written(mill_buffer *b, void *user)
{
    const stm_lane *l = user;

    stm_buffer_written(b, stm_stream_next(l->streams[STM_WAY_STEP])); /* a raise on the way would have let its mark pass */
}

static mill_status join_there(stm_lane *l, const mill_type *t, const run *runs, size_t n, mill_column **out)
{
    mill_column *made = NULL;
    mill_status st;

    if (l->kernels == NULL || !is_fixed(t)) return MILL_ERR_UNSUPPORTED;
    st = stm_device_enter(l->opts.device, l->err);
    if (st == MILL_OK) st = join(l, t, runs, n, true, &made);
    if (st == MILL_OK) st = stm_lane_gather_ways(l, l->err);
    if (st != MILL_OK) { /* copies may be under way into what is let go: it carries the mark of another stream */
        mill_error late = {0};
        stm_lane_drain(l, 0, &late);
        mill_column_unref(&made);
        return st;
    }
    stm_column_buffers(made, written, l);
    l->queued[STM_WAY_STEP] = true;
    *out = made;
    return MILL_OK;
}

/* The way that always goes: a copy of the column on the host. */
static mill_status to_host(stm_lane *l, const mill_column *col, mill_column **out)
{
    mill_status st = stm_lane_drain(l, 0, l->err); /* what fills it may be behind a mark that is not raised yet */

    if (st == MILL_OK) st = stm_lane_move(l, STM_TO_HOST, col, out, l->err);
    l->stats.landings++;
    return st;
}

static bool try_host(stm_lane *l, mill_status st)
{
    if (st != MILL_ERR_UNSUPPORTED && st != MILL_ERR_DEVICE_MEM && st != MILL_ERR_AGAIN) return false;
    if (l->err != NULL) memset(l->err, 0, sizeof *l->err);
    return true;
}

static mill_status concat(void *user, const mill_type *type, const stm_run_of_rows *from, size_t n, int32_t column,
                          mill_column **out)
{
    stm_lane *l = user;
    run *runs = stm_malloc((n + 1) * sizeof *runs);
    mill_column **cols;
    size_t made = 0;
    mill_status st;

    if (runs == NULL) return MILL_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const mill_batch *b = from[i].batch;
        runs[i] = (run){b != NULL && column < b->n_columns ? b->columns[column] : NULL, from[i].first, from[i].rows};
    }
    st = join_there(l, type, runs, n, out);
    l->stats.joined += st == MILL_OK;
    if (st == MILL_OK || !try_host(l, st)) {
        stm_free(runs);
        return st;
    }
    cols = stm_calloc((n + 1) * sizeof *cols);
    st = cols != NULL ? MILL_OK : MILL_ERR_NOMEM;
    for (; made < n && st == MILL_OK; made++) {
        mill_column *cut = NULL;
        if (runs[made].col == NULL) {
            st = mill_column_nulls(l->opts.host, type, runs[made].rows, &cols[made]);
            continue;
        }
        st = stm_column_slice((mill_column *)(uintptr_t)runs[made].col, runs[made].first, runs[made].rows, &cut);
        if (st == MILL_OK && stm_column_is_on_device(cut, NULL))
            st = to_host(l, cut, &cols[made]);
        else if (st == MILL_OK)
            cols[made] = mill_column_ref(cut);
        mill_column_unref(&cut);
    }
    if (st == MILL_OK) st = stm_lane_drain(l, 0, l->err);
    if (st == MILL_OK) st = stm_column_concat(l->opts.host, cols, n, type, out);
    for (size_t i = 0; i < made; i++) mill_column_unref(&cols[i]);
    stm_free(cols);
    stm_free(runs);
    return st;
}

static mill_status gather(void *user, const mill_column *col, const int64_t *index, int64_t n, mill_column **out)
{
    stm_lane *l = user;
    size_t n_runs = 0;
    run *runs = stm_malloc(((size_t)n + 1) * sizeof *runs);
    mill_column *here = NULL;
    mill_status st;

    if (runs == NULL) return MILL_ERR_NOMEM;
    for (int64_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && (index[i] < 0 ? index[end] < 0 : index[end] == index[end - 1] + 1); end++) {
        }
        runs[n_runs++] = (run){index[i] < 0 ? NULL : col, index[i] < 0 ? 0 : index[i], end - i};
    }
    st = join_there(l, col->view.type, runs, n_runs, out);
    stm_free(runs);
    l->stats.joined += st == MILL_OK;
    if (st == MILL_OK || !try_host(l, st)) return st;
    st = to_host(l, col, &here);
    if (st == MILL_OK) st = stm_lane_drain(l, 0, l->err);
    if (st == MILL_OK) st = stm_column_gather(l->opts.host, here, index, n, out);
    mill_column_unref(&here);
    return st;
}

void stm_lane_site_init(stm_lane *l) { l->site = (stm_site){.user = l, .concat = concat, .gather = gather}; }

const stm_site *stm_lane_site(stm_lane *l, mill_error *err)
{
    l->err = err;
    return &l->site;
}
