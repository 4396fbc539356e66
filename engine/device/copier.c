#include "device/copier.h"

#include "core/alloc.h"
#include "device/internal.h"

enum { PIECES = 8 }; /* marks of pieces under way */

typedef struct piece {
    stm_mark mark;
    size_t bytes;
} piece;

struct stm_copier {
    stm_device *device, *peer; /* references; peer NULL = host */
    stm_stream *stream;        /* on device */
    bool staged;
    stm_stream *up;         /* staged: on peer */
    char *stage[2];         /* staged: pinned, STM_COPY_PIECE each */
    stm_mark stage_free[2]; /* on up: when the piece in it has arrived */
    int32_t next_stage;
    stm_copy *first, *last;  /* not yet queued, in turn */
    piece under_way[PIECES]; /* ring */
    int32_t head, n;
    size_t window; /* bytes under way */
};

mill_status stm_copier_open(stm_device *dev, stm_device *peer, bool staged, stm_copier **out, mill_error *err)
{
    stm_copier *c = stm_calloc(sizeof *c);
    const stm_device_ops *ops = stm_device_ops_of(dev);
    mill_status st;
    bool direct = false;

    if (c == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a copier");
    c->device = stm_device_ref(dev);
    if (peer != NULL) c->peer = stm_device_ref(peer);
    c->staged = peer != NULL && (staged || ops->copy_peer == NULL || stm_device_ops_of(peer) != ops);
    st = stm_stream_open(dev, &c->stream, err);
    if (st == MILL_OK && peer != NULL && !c->staged) st = stm_device_peer(dev, peer, &direct, err);
    if (st == MILL_OK && c->staged) {
        st = stm_stream_open(peer, &c->up, err);
        for (int i = 0; i < 2 && st == MILL_OK; i++)
            st = stm_device_alloc(dev, STM_MEM_PINNED, STM_COPY_PIECE, (void **)&c->stage[i], err);
    }
    if (st != MILL_OK) {
        stm_copier_close(&c);
        return st;
    }
    *out = c;
    return MILL_OK;
}

static void finish(stm_copier *c, mill_status st)
{
    stm_copy *r = c->first;

    c->first = r->next;
    if (c->first == NULL) c->last = NULL;
    r->next = NULL;
    r->status = st;
    r->queued = true;
}

void stm_copier_close(stm_copier **pc)
{
    stm_copier *c = *pc;

    if (c == NULL) return;
    *pc = NULL;
    while (c->first != NULL) finish(c, MILL_ERR_STOPPED);
    stm_stream_close(&c->stream);
    stm_stream_close(&c->up);
    for (int i = 0; i < 2; i++) stm_device_free(c->device, STM_MEM_PINNED, c->stage[i]);
    if (c->peer != NULL) stm_device_unref(&c->peer);
    stm_device_unref(&c->device);
    stm_free(c);
}

/* One piece of r on the way; *mark is behind it. */
static mill_status issue(stm_copier *c, stm_copy *r, size_t bytes, stm_mark *mark, mill_error *err)
{
    char *dst = (char *)r->dst + r->issued;
    const char *src = (const char *)r->src + r->issued;
    stm_stream *last = c->staged ? c->up : c->stream;
    mill_status st = r->issued == 0 ? stm_stream_after(c->stream, r->after, err) : MILL_OK;

    if (st != MILL_OK) return st;
    if (!c->staged)
        st = c->peer != NULL ? stm_stream_copy_peer(c->stream, c->peer, dst, c->device, src, bytes, err)
                             : stm_stream_copy(c->stream, dst, src, bytes, err);
    else {
        const int32_t at = c->next_stage;
        stm_mark down = {NULL, 0};
        st = stm_stream_after(c->stream, c->stage_free[at], err);
        if (st == MILL_OK) st = stm_stream_copy(c->stream, c->stage[at], src, bytes, err);
        if (st == MILL_OK) st = stm_stream_raise(c->stream, &down, err);
        if (st == MILL_OK) st = stm_stream_after(c->up, down, err);
        if (st == MILL_OK) st = stm_stream_copy(c->up, dst, c->stage[at], bytes, err);
    }
    if (st == MILL_OK) st = stm_stream_raise(last, mark, err);
    if (st == MILL_OK && c->staged) {
        c->stage_free[c->next_stage] = *mark;
        c->next_stage ^= 1;
    }
    return st;
}

/* Queue pieces while there is room. Requests take turns, one piece each. */
static void advance(stm_copier *c)
{
    while (c->first != NULL && c->n < PIECES) {
        stm_copy *r = c->first;
        const size_t left = r->bytes - r->issued, bytes = left < STM_COPY_PIECE ? left : STM_COPY_PIECE;
        mill_error err = {0};
        mill_status st;

        if (c->window > 0 && c->window + bytes > STM_COPY_WINDOW) return;
        st = issue(c, r, bytes, &r->mark, &err);
        if (st == MILL_ERR_AGAIN) return; /* marks are short: the next poll goes on here */
        if (st != MILL_OK) {
            finish(c, st);
            continue;
        }
        c->under_way[(c->head + c->n++) % PIECES] = (piece){r->mark, bytes};
        c->window += bytes;
        r->issued += bytes;
        if (r->issued == r->bytes)
            finish(c, MILL_OK);
        else if (r->next != NULL) { /* to the end of the line */
            c->first = r->next;
            r->next = NULL;
            c->last->next = r;
            c->last = r;
        }
    }
}

void stm_copier_add(stm_copier *c, stm_copy *r)
{
    r->issued = 0;
    r->queued = false;
    r->status = MILL_OK;
    r->mark = r->after; /* of a copy of no bytes */
    r->next = NULL;
    if (r->bytes == 0) {
        r->queued = true;
        return;
    }
    if (r->bytes < STM_COPY_PIECE && c->first != NULL) { /* in front of large ones, behind small ones that came before */
        stm_copy **at = &c->first;
        while (*at != NULL && (*at)->bytes < STM_COPY_PIECE) at = &(*at)->next;
        r->next = *at;
        *at = r;
        if (r->next == NULL) c->last = r;
    } else {
        if (c->last != NULL)
            c->last->next = r;
        else
            c->first = r;
        c->last = r;
    }
    advance(c);
}

mill_status stm_copier_poll(stm_copier *c, mill_error *err)
{
    mill_status st = stm_stream_poll(c->stream, err);

    if (st == MILL_OK && c->up != NULL) st = stm_stream_poll(c->up, err);
    if (st == MILL_ERR_DEVICE)
        while (c->first != NULL) finish(c, st);
    if (st != MILL_OK) return st;
    while (c->n > 0 && stm_mark_done(c->under_way[c->head].mark)) {
        c->window -= c->under_way[c->head].bytes;
        c->head = (c->head + 1) % PIECES;
        c->n--;
    }
    advance(c);
    return MILL_OK;
}

bool stm_copier_busy(const stm_copier *c) { return c->first != NULL || c->n > 0; }
