#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "search/search.h"

enum { CHUNK_ROWS = 4096 };

/* What a rank has: one allocation on its device, cut into these. */
typedef struct rank_state {
    stm_search_memory memory;
    float *query_rows, *block_rows;
    uint16_t *query_units, *block_units;
    double *query_length, *block_length;
    int32_t *self;
    uint64_t *lists;  /* [ranks][chunk][k]; this rank's own is list number rank */
    uint64_t *merged; /* [share][k]; one rank: lists */
    void *scratch;
    int64_t loaded; /* first row of the block that is there; -1: none */
} rank_state;

typedef struct search {
    stm_team *team;
    const mill_topk_args *args;
    const stm_twins *twins;
    stm_vectors own, other;
    const stm_vectors *queries;
    int32_t *self; /* [queries->n_valid] place in own.kept that may not be found; NULL: exclude_self is not asked for */
    int32_t k, dim, ranks;
    int64_t chunk, share, block; /* rows: of a chunk, a rank's share of it, a block */
    rank_state rank[STM_COMM_RANKS];
} search;

bool stm_topk_on_devices(const mill_topk_args *a)
{
    return (a->k <= STM_NEAREST_MAX_K || a->n_corpus <= STM_NEAREST_MAX_K) && a->n_corpus < STM_RANK_ROWS &&
           a->n_queries < STM_RANK_ROWS;
}

static void fill_self(const void *user, int64_t first, int64_t n, void *out)
{
    memcpy(out, (const int32_t *)user + first, (size_t)n * sizeof(int32_t));
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

/* Cut a rank's arena; with base NULL only the size is meant. */
static size_t carve(const search *s, rank_state *r, char *base)
{
    const size_t width = (size_t)stm_unit_width(s->dim), chunk = (size_t)s->chunk, block = (size_t)s->block, k = (size_t)s->k;
    char *at = base;

    r->query_rows = stm_carve(&at, chunk * (size_t)s->dim * sizeof(float));
    r->query_units = stm_carve(&at, chunk * width * sizeof(uint16_t));
    r->query_length = stm_carve(&at, chunk * sizeof(double));
    r->self = stm_carve(&at, chunk * sizeof(int32_t));
    r->lists = stm_carve(&at, (size_t)s->ranks * chunk * k * sizeof(uint64_t));
    r->merged = s->ranks > 1 ? stm_carve(&at, (size_t)s->share * k * sizeof(uint64_t)) : r->lists;
    r->scratch = stm_carve(&at, stm_nearest_scratch_bytes(s->chunk, s->block, s->k));
    r->block_rows = stm_carve(&at, block * (size_t)s->dim * sizeof(float));
    r->block_units = stm_carve(&at, block * width * sizeof(uint16_t));
    r->block_length = stm_carve(&at, block * sizeof(double));
    r->loaded = -1;
    return (size_t)(at - base);
}

static void release(search *s)
{
    for (int32_t r = 0; r < s->ranks; r++) {
        stm_search_free(s->team, r, &s->rank[r].memory);
        memset(&s->rank[r], 0, sizeof s->rank[r]);
    }
}

static mill_status allocate(search *s, mill_error *err)
{
    mill_status st = MILL_OK;

    for (int32_t r = 0; r < s->ranks && st == MILL_OK; r++) {
        rank_state *at = &s->rank[r];
        st = stm_search_alloc(s->team, r, carve(s, at, NULL), (size_t)(s->share * s->k) * sizeof(uint64_t), &at->memory, err);
        if (st == MILL_OK) (void)carve(s, at, at->memory.arena);
    }
    if (st != MILL_OK) release(s);
    return st;
}

static bool halve(search *s)
{
    if (s->block <= STM_NEAREST_TILE && s->share <= STM_NEAREST_TILE) return false;
    if (s->block > STM_NEAREST_TILE && s->block >= s->share)
        s->block = s->block / 2 > STM_NEAREST_TILE ? s->block / 2 : STM_NEAREST_TILE;
    else
        s->share = s->share / 2 > STM_NEAREST_TILE ? s->share / 2 : STM_NEAREST_TILE;
    s->chunk = s->share * s->ranks;
    return true;
}

/* Until it fits. */
static mill_status make_room(search *s, const stm_search_opts *opts, mill_error *err)
{
    const int64_t shard = (s->own.n_kept + s->ranks - 1) / s->ranks, all = s->queries->n_valid;
    const int64_t chunk = opts->chunk_rows > 0 ? opts->chunk_rows : all < CHUNK_ROWS ? all : CHUNK_ROWS;
    int64_t budget = 0;
    mill_status st = stm_search_budget(s->team, &budget, err);
    rank_state r;

    s->share = (chunk + s->ranks - 1) / s->ranks;
    s->chunk = s->share * s->ranks;
    s->block = opts->block_rows > 0 && opts->block_rows < shard ? opts->block_rows : shard;
    if (st != MILL_OK) return st;
    while ((int64_t)carve(s, &r, NULL) > budget && halve(s)) {
    }
    for (;;) {
        mill_error why = {0};
        st = allocate(s, &why);
        if (st != MILL_ERR_DEVICE_MEM || !halve(s)) return stm_error_hand_on(&why, st, err);
    }
}

/* ---- a chunk ---------------------------------------------------------------------------------------------------- */

static stm_comm_call gather(int32_t rank, stm_comm_type type, int64_t count, const void *send, void *recv)
{
    return (stm_comm_call){.kind = STM_COMM_ALL_GATHER, .type = type, .rank = rank, .count = count, .send = send, .recv = recv};
}

/* Queries first .. first + n - 1 on every device, as units too; lists empty. */
static mill_status load_queries(search *s, int64_t first, int64_t n, mill_error *err)
{
    stm_comm_call calls[2 * STM_COMM_RANKS];
    mill_status st = MILL_OK;

    for (int32_t r = 0; r < s->ranks && st == MILL_OK; r++) {
        rank_state *at = &s->rank[r];
        const int64_t from = r * s->share, to = n < from + s->share ? n : from + s->share;
        if (from < to)
            st = stm_search_load(s->team, r, s->twins, s->queries, s->queries->valid + first + from, to - from,
                                 at->query_rows + from * s->dim, at->query_length + from, err);
        if (st == MILL_OK && s->self != NULL)
            st = stm_team_upload(s->team, r, at->self, n, sizeof(int32_t), fill_self, s->self + first, err);
        calls[r] = gather(r, STM_COMM_F32, s->share * s->dim, at->query_rows + from * s->dim, at->query_rows);
        calls[s->ranks + r] = gather(r, STM_COMM_F64, s->share, at->query_length + from, at->query_length);
    }
    if (st == MILL_OK) st = stm_team_group(s->team, calls, 2 * s->ranks, err);
    for (int32_t r = 0; r < s->ranks && st == MILL_OK; r++) {
        rank_state *at = &s->rank[r];
        st = stm_search_unit(s->team, r, at->query_rows, at->query_length, at->query_units, n, s->dim, err);
        if (st == MILL_OK)
            st = stm_stream_fill(stm_team_stream(s->team, r), at->lists + r * s->chunk * s->k, 0xff,
                                 (size_t)(s->chunk * s->k) * sizeof(uint64_t), err);
    }
    return st;
}

/* Rows first .. first + n - 1 of what can be found. */
static mill_status load_block(search *s, int32_t r, int64_t first, int64_t n, mill_error *err)
{
    rank_state *at = &s->rank[r];
    mill_status st;

    if (at->loaded == first) return MILL_OK;
    at->loaded = -1;
    st = stm_search_load(s->team, r, s->twins, &s->own, s->own.kept + first, n, at->block_rows, at->block_length, err);
    if (st == MILL_OK) st = stm_search_unit(s->team, r, at->block_rows, at->block_length, at->block_units, n, s->dim, err);
    if (st == MILL_OK) at->loaded = first;
    return st;
}

static mill_status search_block(search *s, int32_t r, int64_t n_queries, int64_t first, int64_t n, mill_error *err)
{
    rank_state *at = &s->rank[r];
    const stm_nearest_args a = {
        .queries = {at->query_rows, at->query_units, at->query_length, n_queries},
        .corpus = {at->block_rows, at->block_units, at->block_length, n},
        .self = s->self != NULL ? at->self : NULL,
        .dim = s->dim,
        .k = s->k,
        .metric = s->args->metric,
        .threshold = s->args->threshold,
        .longest = s->own.longest,
        .first = first,
        .best = at->lists + r * s->chunk * s->k,
        .scratch = at->scratch,
        .tiles = stm_team_tiles(s->team, r),
    };
    mill_status st = stm_team_enter(s->team, r, err);

    if (st == MILL_OK) st = load_block(s, r, first, n, err);
    if (st != MILL_OK) return st;
    return stm_team_launched(s->team, r, stm_team_kernels(s->team)->nearest(&a, stm_stream_native(stm_team_stream(s->team, r))),
                             "the search for neighbours", err);
}

/* All lists to all devices; each merges its share of the queries and sends it down. */
static mill_status collect(search *s, int64_t n, mill_error *err)
{
    stm_comm_call calls[STM_COMM_RANKS];
    mill_status st;

    for (int32_t r = 0; r < s->ranks; r++)
        calls[r] = gather(r, STM_COMM_I64, s->chunk * s->k, s->rank[r].lists + r * s->chunk * s->k, s->rank[r].lists);
    st = stm_team_group(s->team, calls, s->ranks, err);
    for (int32_t r = 0; r < s->ranks && st == MILL_OK; r++) {
        rank_state *at = &s->rank[r];
        const int64_t from = r * s->share, left = n - from, mine = left < s->share ? left : s->share;
        if (mine <= 0) break;
        if (s->ranks > 1) {
            const stm_merge_ranks_args a = {at->lists, s->chunk * s->k, from, mine, s->ranks, s->k, at->merged};
            if ((st = stm_team_enter(s->team, r, err)) != MILL_OK) break;
            st = stm_team_launched(s->team, r,
                                   stm_team_kernels(s->team)->merge_ranks(&a, stm_stream_native(stm_team_stream(s->team, r))),
                                   "merging lists", err);
        }
        if (st == MILL_OK)
            st = stm_stream_copy(stm_team_stream(s->team, r), at->memory.pinned, at->merged,
                                 (size_t)(mine * s->k) * sizeof(uint64_t), err);
    }
    return st == MILL_OK ? stm_team_settle(s->team, err) : st;
}

static void write_down(const search *s, int64_t first, int64_t n)
{
    const mill_topk_args *a = s->args;

    for (int64_t i = 0; i < n; i++) {
        const int64_t q = s->queries->valid[first + i];
        const uint64_t *list = (const uint64_t *)s->rank[i / s->share].memory.pinned + i % s->share * s->k;
        for (int32_t j = 0; j < s->k && list[j] != STM_NO_RANK; j++) {
            a->rows[q * a->k + j] = s->own.kept[stm_rank_row(list[j])];
            a->scores[q * a->k + j] = stm_rank_score(list[j]);
        }
    }
}

static mill_status search_chunk(search *s, int64_t first, int64_t n, mill_error *err)
{
    const mill_topk_args *a = s->args;
    const int64_t rows = s->own.n_kept;
    mill_status st = load_queries(s, first, n, err);

    for (int64_t wave = 0, more = 1; more && st == MILL_OK; wave++) {
        more = 0;
        if (a->cancelled != NULL && a->cancelled(a->user)) return mill_fail(err, MILL_ERR_STOPPED, "the search was told to stop");
        for (int32_t r = 0; r < s->ranks && st == MILL_OK; r++) {
            const int64_t begin = rows * r / s->ranks + wave * s->block, end = rows * (r + 1) / s->ranks;
            if (begin >= end) continue;
            more = 1;
            st = search_block(s, r, n, begin, end - begin < s->block ? end - begin : s->block, err);
        }
    }
    return st == MILL_OK ? collect(s, n, err) : st;
}

/* The chunk again on a new communicator, where it was that which failed. */
static mill_status search_chunk_surely(search *s, int64_t first, int64_t n, mill_error *err)
{
    for (int32_t attempt = 1;; attempt++) {
        mill_error why = {0};
        mill_status st = search_chunk(s, first, n, &why);
        if (st == MILL_OK || (st = stm_search_recover(s->team, attempt, st, &why, err)) != MILL_OK) return st;
        for (int32_t r = 0; r < s->ranks; r++) s->rank[r].loaded = -1;
    }
}

/* ---- the search ------------------------------------------------------------------------------------------------- */

static mill_status find_selves(search *s, mill_error *err)
{
    int64_t c = 0;

    if (!s->args->exclude_self) return MILL_OK;
    s->self = stm_malloc(((size_t)s->queries->n_valid + 1) * sizeof *s->self);
    if (s->self == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for %lld queries", (long long)s->queries->n_valid);
    for (int64_t i = 0; i < s->queries->n_valid; i++) {
        while (c < s->own.n_kept && s->own.kept[c] < s->queries->valid[i]) c++;
        s->self[i] = c < s->own.n_kept && s->own.kept[c] == s->queries->valid[i] ? (int32_t)c : -1;
    }
    return MILL_OK;
}

static mill_status measure(search *s, mill_error *err)
{
    const mill_topk_args *a = s->args;
    mill_status st = stm_search_measure(s->team, s->twins, a->corpus, a->n_corpus, a->dim, true, a->threads, &s->own, err);

    s->queries = &s->own;
    if (st == MILL_OK && s->k + 1 < s->own.n_valid) st = stm_vectors_drop_copies(&s->own, s->k + 1, a->threads, err);
    if (st == MILL_OK && !(a->queries == a->corpus && a->n_queries == a->n_corpus)) {
        st = stm_search_measure(s->team, s->twins, a->queries, a->n_queries, a->dim, false, a->threads, &s->other, err);
        s->queries = &s->other;
    }
    return st == MILL_OK ? find_selves(s, err) : st;
}

mill_status stm_topk_team(stm_team *t, const mill_topk_args *a, const stm_search_opts *opts, mill_error *err)
{
    static const stm_search_opts usual = {0};
    search s = {.team = t, .args = a, .dim = (int32_t)a->dim, .ranks = stm_team_size(t)};
    mill_status st;

    s.twins = opts != NULL ? opts->twins : NULL;
    s.k = (int32_t)(a->k < a->n_corpus ? a->k : a->n_corpus);
    for (int64_t i = 0; i < a->n_queries * a->k; i++) a->rows[i] = -1, a->scores[i] = 0.0f;
    if (a->n_queries == 0 || s.k == 0) return MILL_OK;
    st = measure(&s, err);
    if (st == MILL_OK && s.own.n_kept > 0 && s.queries->n_valid > 0) {
        st = make_room(&s, opts != NULL ? opts : &usual, err);
        for (int64_t first = 0; first < s.queries->n_valid && st == MILL_OK; first += s.chunk) {
            const int64_t left = s.queries->n_valid - first, n = left < s.chunk ? left : s.chunk;
            if ((st = search_chunk_surely(&s, first, n, err)) == MILL_OK) write_down(&s, first, n);
        }
        release(&s);
    }
    stm_free(s.self);
    stm_vectors_fini(&s.own);
    stm_vectors_fini(&s.other);
    return st;
}
