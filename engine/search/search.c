/* What topk.c and pairs.c share: a rank's memory and rows, and what a failed communicator costs. */
#include "search/search.h"

/* ---- memory ----------------------------------------------------------------------------------------------------- */

mill_status stm_search_budget(stm_team *t, int64_t *bytes, mill_error *err)
{
    int64_t least = INT64_MAX;

    for (int32_t r = 0; r < stm_team_size(t); r++) {
        int64_t free_bytes = 0, total = 0;
        const mill_status st = stm_device_memory(stm_team_device(t, r), &free_bytes, &total, err);
        if (st != MILL_OK) return st;
        if (free_bytes < least) least = free_bytes;
    }
    *bytes = least / 10 * 8; /* others may want some of it */
    return MILL_OK;
}

mill_status stm_search_alloc(stm_team *t, int32_t rank, size_t device_bytes, size_t pinned_bytes, stm_search_memory *out,
                             mill_error *err)
{
    const mill_status st = stm_team_alloc(t, rank, STM_MEM_DEVICE, device_bytes, &out->arena, err);

    return st == MILL_OK ? stm_team_alloc(t, rank, STM_MEM_PINNED, pinned_bytes, &out->pinned, err) : st;
}

void stm_search_free(stm_team *t, int32_t rank, stm_search_memory *m)
{
    stm_team_free(t, rank, STM_MEM_DEVICE, &m->arena);
    stm_team_free(t, rank, STM_MEM_PINNED, &m->pinned);
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

typedef struct picked {
    const stm_vectors *v;
    const int64_t *pick;
} picked;

static void fill_lengths(const void *user, int64_t first, int64_t n, void *out)
{
    const picked *p = user;

    for (int64_t i = 0; i < n; i++) ((double *)out)[i] = p->v->length[p->pick[first + i]];
}

mill_status stm_search_load(stm_team *t, int32_t rank, const stm_twins *twins, const stm_vectors *v, const int64_t *pick, int64_t n,
                            float *rows, double *lengths, mill_error *err)
{
    static const stm_twins none = {0};
    const mill_status st = stm_twins_rows(twins != NULL ? twins : &none, t, rank, v->rows, pick, n, v->dim, rows, err);

    return st != MILL_OK ? st : stm_team_upload(t, rank, lengths, n, sizeof(double), fill_lengths, &(picked){v, pick}, err);
}

mill_status stm_search_unit(stm_team *t, int32_t rank, const float *rows, const double *lengths, uint16_t *out, int64_t n,
                            int32_t dim, mill_error *err)
{
    const stm_unit_args a = {rows, lengths, out, n, dim};
    mill_status st = stm_team_enter(t, rank, err);

    if (st != MILL_OK) return st;
    st = stm_team_kernels(t)->unit(&a, stm_stream_native(stm_team_stream(t, rank)));
    return stm_team_launched(t, rank, st, "scaling vectors", err);
}

/* ---- failures --------------------------------------------------------------------------------------------------- */

mill_status stm_search_recover(stm_team *t, int32_t attempt, mill_status st, mill_error *why, mill_error *err)
{
    stm_team_drain(t);
    if (stm_team_size(t) > 1 && stm_comm_verdict(st) == STM_RETRY && attempt < STM_SEARCH_TRIES) {
        st = stm_team_rebuild(t, why);
        if (st == MILL_OK) return MILL_OK;
    }
    return stm_error_hand_on(why, st, err);
}
