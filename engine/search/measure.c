/*
 * Lengths and hashes of vectors before a search. What is on a device is measured there, and eight bytes of either come down for
 * each; the host looks at vectors that are nowhere else, and at those whose hashes are equal.
 */
#include "core/alloc.h"
#include "search/search.h"

/* rows that are measured before their lengths come down; bytes */
enum { ROOM = 1 << 16, ARENA = ROOM * (int)(sizeof(double) + sizeof(uint64_t)) };

/* Of one rank. */
typedef struct meter {
    stm_team *team;
    stm_vectors *v;
    int32_t rank;
    void *arena, *pinned;
    double *length, *length_here; /* [ROOM] */
    uint64_t *hash, *hash_here;   /* [ROOM] */
    int64_t *row;                 /* [n] rows of v that are measured */
    int64_t n;
} meter;

static mill_status open_meter(meter *m, mill_error *err)
{
    mill_status st;

    if (m->row != NULL) return MILL_OK;
    if ((m->row = stm_malloc(ROOM * sizeof *m->row)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory to measure vectors");
    st = stm_team_alloc(m->team, m->rank, STM_MEM_DEVICE, ARENA, &m->arena, err);
    if (st == MILL_OK) st = stm_team_alloc(m->team, m->rank, STM_MEM_PINNED, ARENA, &m->pinned, err);
    if (st != MILL_OK) return st;
    m->length = m->arena, m->length_here = m->pinned;
    m->hash = (uint64_t *)(m->length + ROOM), m->hash_here = (uint64_t *)(m->length_here + ROOM);
    return MILL_OK;
}

static void close_meter(meter *m)
{
    stm_team_free(m->team, m->rank, STM_MEM_DEVICE, &m->arena);
    stm_team_free(m->team, m->rank, STM_MEM_PINNED, &m->pinned);
    stm_free(m->row);
}

/* What was measured comes down. */
static mill_status read_meter(meter *m, mill_error *err)
{
    stm_stream *s = stm_team_stream(m->team, m->rank);
    mill_status st;

    if (m->n == 0) return MILL_OK;
    st = stm_stream_copy(s, m->length_here, m->length, (size_t)m->n * sizeof *m->length, err);
    if (st == MILL_OK && m->v->hash != NULL) st = stm_stream_copy(s, m->hash_here, m->hash, (size_t)m->n * sizeof *m->hash, err);
    if (st == MILL_OK) st = stm_team_settle(m->team, err);
    for (int64_t i = 0; i < m->n && st == MILL_OK; i++) {
        m->v->length[m->row[i]] = m->length_here[i];
        if (m->v->hash != NULL) m->v->hash[m->row[i]] = m->hash_here[i];
    }
    m->n = 0;
    return st;
}

/* Rows first .. first + n - 1, which lie together in @p w. */
static mill_status measure_run(meter *m, const stm_twin *w, int64_t first, int64_t n, mill_error *err)
{
    stm_stream *s = stm_team_stream(m->team, m->rank);
    const void *there;
    mill_status st = stm_team_enter(m->team, m->rank, err), read;

    if (st == MILL_OK) st = stm_twin_await(w, m->v->rows[first], s, &there, err);
    if (st != MILL_OK) return st;
    st = stm_team_launched(
        m->team, m->rank,
        stm_team_kernels(m->team)->lengths(&(stm_lengths_args){there, m->length + m->n, m->hash + m->n, n, (int32_t)m->v->dim},
                                           stm_stream_native(s)),
        "measuring vectors", err);
    read = stm_twin_read(w, s, st == MILL_OK ? err : NULL);
    for (int64_t i = 0; i < n; i++) m->row[m->n++] = first + i;
    return st != MILL_OK ? st : read;
}

/* The rows that are on the device of this rank. */
static mill_status measure_there(meter *m, const stm_twins *twins, mill_error *err)
{
    const stm_vectors *v = m->v;
    const size_t width = (size_t)v->dim * sizeof(float);
    const int32_t own = stm_device_ordinal(stm_team_device(m->team, m->rank));
    mill_status st = MILL_OK;

    for (int64_t i = 0, end; i < v->n && st == MILL_OK; i = end) {
        const stm_twin *w = stm_twins_at(twins, v->rows[i], width);

        end = i + 1;
        if (w == NULL || stm_device_ordinal(stm_buffer_device(w->there)) != own) continue;
        if ((st = open_meter(m, err)) != MILL_OK) break;
        while (end < v->n && end - i < ROOM - m->n && v->rows[end] == v->rows[i] + (end - i) * v->dim &&
               (size_t)((const char *)v->rows[end] - w->host) + width <= w->bytes)
            end++;
        st = measure_run(m, w, i, end - i, err);
        if (st == MILL_OK && m->n == ROOM) st = read_meter(m, err);
    }
    return st == MILL_OK ? read_meter(m, err) : st;
}

mill_status stm_search_measure(stm_team *t, const stm_twins *twins, const float *const *rows, int64_t n, int64_t dim, bool copies,
                               int32_t threads, stm_vectors *v, mill_error *err)
{
    const bool some = twins != NULL && twins->n > 0;
    mill_status st = stm_vectors_begin(v, rows, n, dim, some && copies, err);

    for (int32_t r = 0; some && r < stm_team_size(t) && st == MILL_OK; r++) {
        meter m = {.team = t, .v = v, .rank = r};
        mill_error why = {0};

        if ((st = measure_there(&m, twins, &why)) != MILL_OK) {
            stm_team_drain(t);
            if (st == MILL_ERR_DEVICE_MEM)
                st = MILL_OK; /* then on the host */
            else
                *err = why;
        }
        close_meter(&m);
    }
    if (st == MILL_OK) stm_vectors_measure(v, threads);
    return st;
}
