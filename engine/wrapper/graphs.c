/* Graphs of a step's work, one per key: a bounded cache, the least recently used one goes. */
#include <string.h>

#include "core/alloc.h"
#include "device/graph.h"
#include "wrapper/lane_internal.h"
#include "wrapper/replica.h"

typedef struct kept {
    stm_graph *graph;
    stm_mark last; /* behind its last launch */
    uint64_t used; /* by the clock of the cache */
    size_t bytes;
    unsigned char key[MILL_GRAPH_KEY];
} kept;

struct stm_graphs {
    kept of[MILL_GRAPHS];
    int32_t n;
    uint64_t clock;
};

void stm_graphs_drop(stm_lane *l)
{
    mill_error err = {0};

    if (l->graphs == NULL) return;
    if (l->graphs->n > 0) stm_lane_drain(l, 0, &err);
    for (int32_t i = 0; i < l->graphs->n; i++) stm_graph_close(&l->graphs->of[i].graph);
    l->graphs->n = 0;
}

void stm_graphs_free(stm_lane *l)
{
    stm_graphs_drop(l);
    stm_free(l->graphs);
    l->graphs = NULL;
}

static kept *find(struct stm_graphs *c, const void *key, size_t bytes)
{
    for (int32_t i = 0; i < c->n; i++)
        if (c->of[i].bytes == bytes && memcmp(c->of[i].key, key, bytes) == 0) return &c->of[i];
    return NULL;
}

/* A free place: the oldest one's when all are taken. It may be on its way still: then that is waited for. */
static mill_status place(stm_lane *l, kept **out, mill_error *err)
{
    struct stm_graphs *c = l->graphs;
    kept *oldest = &c->of[0];

    if (c->n < MILL_GRAPHS) {
        *out = &c->of[c->n];
        return MILL_OK;
    }
    for (int32_t i = 1; i < c->n; i++)
        if (c->of[i].used < oldest->used) oldest = &c->of[i];
    if (!stm_mark_done(oldest->last)) {
        const mill_status st = stm_lane_drain(l, 0, err);
        if (st != MILL_OK) return st;
    }
    stm_graph_close(&oldest->graph);
    *oldest = c->of[--c->n];
    memset(&c->of[c->n], 0, sizeof c->of[c->n]);
    *out = &c->of[c->n];
    return MILL_OK;
}

static mill_status capture(mill_replica *r, mill_graph_queue queue, void *user, stm_graph **out, mill_error *err)
{
    stm_stream *s = r->w->lane->streams[STM_WAY_STEP];
    mill_error late = {0};
    mill_status st = stm_graph_begin(s, err), ended;

    if (st != MILL_OK) return st;
    st = queue(r, user, err);
    ended = stm_graph_end(s, st == MILL_OK ? out : NULL, &late);
    if (st != MILL_OK) return st;
    if (ended != MILL_OK && err != NULL && err->status == MILL_OK) *err = late;
    return ended;
}

mill_status mill_replica_graph(mill_replica *r, const void *key, size_t bytes, mill_graph_queue queue, void *user, mill_error *err)
{
    stm_lane *l = r->w->lane;
    kept *k;
    mill_status st;

    if (l == NULL) return mill_fail(err, MILL_ERR_UNSUPPORTED, "this replica has no device");
    if (bytes > MILL_GRAPH_KEY) return mill_fail(err, MILL_ERR_INVALID, "a key of %zu bytes; at most %d", bytes, MILL_GRAPH_KEY);
    if (!stm_graphs_supported(l->opts.device)) return queue(r, user, err);
    if (l->graphs == NULL && (l->graphs = stm_calloc(sizeof *l->graphs)) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "out of memory for graphs");
    k = find(l->graphs, key, bytes);
    if (k == NULL) {
        stm_graph *made = NULL;
        if ((st = capture(r, queue, user, &made, err)) != MILL_OK) return st;
        if ((st = place(l, &k, err)) != MILL_OK) {
            stm_graph_close(&made);
            return st;
        }
        l->graphs->n++;
        k->graph = made;
        k->bytes = bytes;
        memcpy(k->key, key, bytes);
    }
    k->used = ++l->graphs->clock;
    k->last = stm_stream_next(l->streams[STM_WAY_STEP]);
    l->queued[STM_WAY_STEP] = true;
    return stm_graph_launch(k->graph, l->streams[STM_WAY_STEP], err);
}

void mill_replica_graphs_drop(mill_replica *r)
{
    if (r->w->lane != NULL) stm_graphs_drop(r->w->lane);
}
