/*
 * Blocks of rows, two for each device and round where there are several: round g holds blocks g * ranks .., one a device, as A;
 * every block from there on comes by as B, from the device that has it or whose turn it is to bring it, and each device looks at
 * (A, B). Every other round runs backwards, so that the long columns of the triangle and the short ones level out.
 */
#include <string.h>

#include "core/alloc.h"
#include "search/search.h"

enum { ROOM = 1 << 17 };

typedef struct rank_state {
    stm_search_memory memory;
    stm_block a, b;
    float *a_rows, *b_rows;
    uint16_t *a_units, *b_units;
    double *a_length, *b_length;
    stm_near_pair *out;
    int64_t *found;
    void *scratch;
    /* where in (A, B): rows x .. of A against rows y .. of B, height and width of the next launch */
    int64_t x, y, height, width, h, w;
    bool busy; /* a launch is under way */
} rank_state;

typedef struct search {
    stm_team *team;
    const mill_pairs_args *args;
    const stm_twins *twins;
    stm_vectors own;
    mill_pair *pairs; /* [room] */
    int32_t dim, ranks;
    int64_t block, n_blocks, room;
    int64_t a_block[STM_COMM_RANKS]; /* -1: none */
    rank_state rank[STM_COMM_RANKS];
} search;

bool stm_pairs_on_devices(const mill_pairs_args *a) { return a->n < STM_RANK_ROWS; }

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static size_t carve(const search *s, rank_state *r, char *base)
{
    const size_t width = (size_t)stm_unit_width(s->dim), block = (size_t)s->block;
    char *at = base;

    r->a_rows = stm_carve(&at, block * (size_t)s->dim * sizeof(float));
    r->b_rows = stm_carve(&at, block * (size_t)s->dim * sizeof(float));
    r->a_units = stm_carve(&at, block * width * sizeof(uint16_t));
    r->b_units = stm_carve(&at, block * width * sizeof(uint16_t));
    r->a_length = stm_carve(&at, block * sizeof(double));
    r->b_length = stm_carve(&at, block * sizeof(double));
    r->out = stm_carve(&at, (size_t)s->room * sizeof(stm_near_pair));
    r->scratch = stm_carve(&at, stm_near_pairs_scratch_bytes(s->room));
    r->found = stm_carve(&at, 2 * sizeof(int64_t));
    return (size_t)(at - base);
}

/* What comes down: how many a launch found and how many of them it kept, then those. */
static int64_t *found_of(const rank_state *r) { return r->memory.pinned; }
static stm_near_pair *pairs_of(const rank_state *r) { return (stm_near_pair *)(void *)(found_of(r) + 2); }
static size_t pinned_bytes(const search *s) { return 2 * sizeof(int64_t) + (size_t)s->room * sizeof(stm_near_pair); }

static void release(search *s)
{
    for (int32_t r = 0; r < s->ranks; r++) {
        stm_search_free(s->team, r, &s->rank[r].memory);
        memset(&s->rank[r], 0, sizeof s->rank[r]);
    }
    stm_free(s->pairs);
    s->pairs = NULL;
}

static mill_status allocate(search *s, mill_error *err)
{
    mill_status st = MILL_OK;

    for (int32_t r = 0; r < s->ranks && st == MILL_OK; r++) {
        rank_state *at = &s->rank[r];
        st = stm_search_alloc(s->team, r, carve(s, at, NULL), pinned_bytes(s), &at->memory, err);
        if (st == MILL_OK) (void)carve(s, at, at->memory.arena);
    }
    if (st == MILL_OK && (s->pairs = stm_malloc((size_t)s->room * sizeof *s->pairs)) == NULL)
        st = mill_fail(err, MILL_ERR_NOMEM, "no memory for %lld pairs", (long long)s->room);
    if (st != MILL_OK) release(s);
    return st;
}

static mill_status make_room(search *s, const stm_search_opts *opts, mill_error *err)
{
    const int64_t most = (int64_t)65535 * STM_NEAREST_TILE, parts = s->ranks > 1 ? 2 * s->ranks : 1;
    int64_t budget = 0;
    mill_status st = stm_search_budget(s->team, &budget, err);
    rank_state r;

    if (st != MILL_OK) return st;
    s->room = opts->room > STM_NEAR_PAIRS_ROOM ? opts->room : opts->room > 0 ? STM_NEAR_PAIRS_ROOM : ROOM;
    s->block = opts->block_rows > 0 ? opts->block_rows : (s->own.n_valid + parts - 1) / parts;
    if (s->block > most) s->block = most;
    for (;;) {
        mill_error why = {0};
        st = (int64_t)carve(s, &r, NULL) > budget && s->block > STM_NEAREST_TILE ? MILL_ERR_DEVICE_MEM : allocate(s, &why);
        if (st != MILL_ERR_DEVICE_MEM || s->block <= STM_NEAREST_TILE) {
            st = stm_error_hand_on(&why, st, err);
            break;
        }
        s->block = s->block / 2 > STM_NEAREST_TILE ? s->block / 2 : STM_NEAREST_TILE;
        s->room = s->room / 2 > STM_NEAR_PAIRS_ROOM ? s->room / 2 : STM_NEAR_PAIRS_ROOM;
    }
    s->n_blocks = (s->own.n_valid + s->block - 1) / s->block;
    return st;
}

/* ---- blocks ----------------------------------------------------------------------------------------------------- */

static int64_t rows_of(const search *s, int64_t block)
{
    const int64_t left = s->own.n_valid - block * s->block;

    return left < s->block ? left : s->block;
}

static mill_status load(search *s, int32_t r, int64_t block, float *rows, double *length, mill_error *err)
{
    return stm_search_load(s->team, r, s->twins, &s->own, s->own.valid + block * s->block, rows_of(s, block), rows, length, err);
}

/* The A of every rank in round g. */
static mill_status load_round(search *s, int64_t g, mill_error *err)
{
    mill_status st = MILL_OK;

    for (int32_t r = 0; r < s->ranks && st == MILL_OK; r++) {
        rank_state *at = &s->rank[r];
        const int64_t block = g * s->ranks + (g % 2 == 0 ? r : s->ranks - 1 - r);
        s->a_block[r] = block < s->n_blocks ? block : -1;
        if (block >= s->n_blocks) continue;
        at->a = (stm_block){at->a_rows, at->a_units, at->a_length, rows_of(s, block)};
        st = load(s, r, block, at->a_rows, at->a_length, err);
        if (st == MILL_OK) st = stm_search_unit(s->team, r, at->a_rows, at->a_length, at->a_units, at->a.n, s->dim, err);
    }
    return st;
}

/* Block b on every rank that needs it. The rank that has it as A gives it away; else it comes from the host to one of them. */
static mill_status load_b(search *s, int64_t b, mill_error *err)
{
    stm_comm_call calls[2 * STM_COMM_RANKS];
    const int64_t n = rows_of(s, b);
    int32_t from = (int32_t)(b % s->ranks);
    bool has = false;
    mill_status st = MILL_OK;

    for (int32_t r = 0; r < s->ranks; r++)
        if (s->a_block[r] == b) from = r, has = true;
    if (!has) st = load(s, from, b, s->rank[from].b_rows, s->rank[from].b_length, err);
    if (s->ranks == 1) {
        rank_state *at = &s->rank[0];
        at->b = has ? at->a : (stm_block){at->b_rows, at->b_units, at->b_length, n};
        return st != MILL_OK || has ? st : stm_search_unit(s->team, 0, at->b_rows, at->b_length, at->b_units, n, s->dim, err);
    }
    for (int32_t r = 0; r < s->ranks; r++) {
        const rank_state *at = &s->rank[r], *giver = &s->rank[from];
        const stm_comm_call call = {.kind = STM_COMM_BROADCAST, .rank = r, .peer = from};
        calls[r] = calls[s->ranks + r] = call;
        calls[r].type = STM_COMM_F32, calls[r].count = n * s->dim, calls[r].recv = at->b_rows;
        calls[r].send = r != from ? NULL : has ? giver->a_rows : giver->b_rows;
        calls[s->ranks + r].type = STM_COMM_F64, calls[s->ranks + r].count = n, calls[s->ranks + r].recv = at->b_length;
        calls[s->ranks + r].send = r != from ? NULL : has ? giver->a_length : giver->b_length;
    }
    if (st == MILL_OK) st = stm_team_group(s->team, calls, 2 * s->ranks, err);
    for (int32_t r = 0; r < s->ranks && st == MILL_OK; r++) {
        rank_state *at = &s->rank[r];
        at->b = (stm_block){at->b_rows, at->b_units, at->b_length, n};
        if (s->a_block[r] >= 0 && s->a_block[r] <= b)
            st = stm_search_unit(s->team, r, at->b_rows, at->b_length, at->b_units, n, s->dim, err);
    }
    return st == MILL_OK ? stm_team_settle(s->team, err) : st; /* what ranks do together is over before anything is reported */
}

/* ---- a block against another ------------------------------------------------------------------------------------ */

/* The next launch of a rank, and its counters down. */
static mill_status launch(search *s, int32_t r, int64_t b, mill_error *err)
{
    rank_state *at = &s->rank[r];
    const size_t width = (size_t)stm_unit_width(s->dim);
    stm_near_pairs_args a = {.dim = s->dim,
                             .metric = s->args->metric,
                             .threshold = s->args->threshold,
                             .longest = s->own.longest,
                             .room = s->room,
                             .out = at->out,
                             .found = at->found,
                             .scratch = at->scratch,
                             .tiles = stm_team_tiles(s->team, r)};
    mill_status st;

    at->h = at->a.n - at->x < at->height ? at->a.n - at->x : at->height;
    at->w = at->b.n - at->y < at->width ? at->b.n - at->y : at->width;
    a.a = (stm_block){at->a.rows + at->x * s->dim, at->a.units + (size_t)at->x * width, at->a.length + at->x, at->h};
    a.b = (stm_block){at->b.rows + at->y * s->dim, at->b.units + (size_t)at->y * width, at->b.length + at->y, at->w};
    a.a_first = s->a_block[r] * s->block + at->x;
    a.b_first = b * s->block + at->y;
    if ((st = stm_team_enter(s->team, r, err)) != MILL_OK) return st;
    st = stm_team_kernels(s->team)->near_pairs(&a, stm_stream_native(stm_team_stream(s->team, r)));
    if ((st = stm_team_launched(s->team, r, st, "the search for pairs", err)) != MILL_OK) return st;
    at->busy = true;
    return stm_stream_copy(stm_team_stream(s->team, r), found_of(at), at->found, 2 * sizeof(int64_t), err);
}

/* Half as much, where a launch found more than there is room for. */
static void shrink(rank_state *at)
{
    int64_t *side = at->h > STM_NEAREST_TILE ? &at->height : &at->width, size = (side == &at->height ? at->h : at->w) / 2;

    size = (size + STM_NEAREST_TILE - 1) / STM_NEAREST_TILE * STM_NEAREST_TILE;
    *side = size > STM_NEAREST_TILE ? size : STM_NEAREST_TILE;
}

static void advance(const search *s, rank_state *at, int64_t found)
{
    at->y += at->w;
    if (at->y < at->b.n) return;
    at->y = 0;
    at->x += at->h;
    if (found >= s->room / 4) return;
    if (at->width < at->b.n)
        at->width *= 2;
    else if (at->height < at->a.n)
        at->height *= 2;
}

static mill_status report(search *s, int32_t r, int64_t n, mill_error *err)
{
    const stm_near_pair *from = pairs_of(&s->rank[r]);

    for (int64_t i = 0; i < n; i++)
        s->pairs[i] = (mill_pair){s->own.valid[from[i].i], s->own.valid[from[i].j], s->args->scores ? from[i].score : 0.0f};
    return n > 0 ? s->args->found(s->args->user, s->pairs, n, err) : MILL_OK;
}

/* Every rank's A against its B, in as many launches as it takes. */
static mill_status look(search *s, int64_t b, mill_error *err)
{
    bool more = true;
    mill_status st = MILL_OK;

    for (int32_t r = 0; r < s->ranks; r++) {
        rank_state *at = &s->rank[r];
        const bool takes_part = s->a_block[r] >= 0 && s->a_block[r] <= b;
        at->x = takes_part ? 0 : INT64_MAX;
        at->y = 0, at->height = at->a.n, at->width = at->b.n, at->busy = false;
    }
    while (more && st == MILL_OK) {
        more = false;
        if (s->args->cancelled != NULL && s->args->cancelled(s->args->user))
            return mill_fail(err, MILL_ERR_STOPPED, "the search was told to stop");
        for (int32_t r = 0; r < s->ranks && st == MILL_OK; r++)
            if (s->rank[r].x < s->rank[r].a.n) st = launch(s, r, b, err);
        if (st == MILL_OK) st = stm_team_settle(s->team, err);
        for (int32_t r = 0; r < s->ranks && st == MILL_OK; r++) { /* the pairs themselves */
            rank_state *at = &s->rank[r];
            const int64_t *found = found_of(at);
            if (at->busy && found[0] <= s->room && found[1] > 0)
                st = stm_stream_copy(stm_team_stream(s->team, r), pairs_of(at), at->out,
                                     (size_t)found[1] * sizeof(stm_near_pair), err);
        }
        if (st == MILL_OK) st = stm_team_settle(s->team, err);
        for (int32_t r = 0; r < s->ranks && st == MILL_OK; r++) {
            rank_state *at = &s->rank[r];
            const int64_t *found = found_of(at);
            if (!at->busy) continue;
            at->busy = false;
            if (found[0] > s->room) {
                shrink(at);
            } else {
                st = report(s, r, found[1], err);
                advance(s, at, found[0]);
            }
            more = more || at->x < at->a.n;
        }
    }
    return st;
}

/* Blocks as A and B on a new communicator, where it was that which failed; nothing of them was reported. */
static mill_status load_surely(search *s, int64_t g, int64_t b, bool round, mill_error *err)
{
    for (int32_t attempt = 1;; attempt++) {
        mill_error why = {0};
        mill_status st = round || attempt > 1 ? load_round(s, g, &why) : MILL_OK;
        if (st == MILL_OK) st = load_b(s, b, &why);
        if (st == MILL_OK || (st = stm_search_recover(s->team, attempt, st, &why, err)) != MILL_OK) return st;
    }
}

mill_status stm_pairs_team(stm_team *t, const mill_pairs_args *a, const stm_search_opts *opts, mill_error *err)
{
    static const stm_search_opts usual = {0};
    search s = {.team = t, .args = a, .dim = (int32_t)a->dim, .ranks = stm_team_size(t)};
    mill_status st;

    s.twins = opts != NULL ? opts->twins : NULL;
    st = stm_search_measure(t, s.twins, a->vectors, a->n, a->dim, false, a->threads, &s.own, err);
    if (st == MILL_OK && s.own.n_valid > 1) {
        st = make_room(&s, opts != NULL ? opts : &usual, err);
        for (int64_t g = 0; g * s.ranks < s.n_blocks && st == MILL_OK; g++)
            for (int64_t b = g * s.ranks; b < s.n_blocks && st == MILL_OK; b++) {
                st = load_surely(&s, g, b, b == g * s.ranks, err);
                if (st == MILL_OK) st = look(&s, b, err);
            }
        if (st != MILL_OK) stm_team_drain(t);
        release(&s);
    }
    stm_vectors_fini(&s.own);
    return st;
}
