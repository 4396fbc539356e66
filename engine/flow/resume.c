/*
 * Going on in the middle: checkpoints of an inlet.
 *
 * Items are a function of the streams, so an inlet can be put back to where it stood after item n was made, if its producers send
 * their batches again from the oldest one that it still needed. What it is then is its flat state and the pieces that were not
 * sent on, which name rows by (input, seq, row): no pointers. Where every batch is one item (single input, no re-batching, or EACH)
 * there is nothing to remember: item n is batch n.
 *
 * A few checkpoints are kept, in a ring of fixed size; when it is full every second one goes. Any one that is old enough will
 * do: what is made twice is dropped by those behind, who know which batch they need first.
 */
#include "flow/internal.h"

#include <string.h>

#include "core/alloc.h"

#define KEPT 64
#define MAX_PIECES 16 /* of a lane; a place with more is no checkpoint */

/* followed by input[n_inputs], state, pieces[n_lanes][MAX_PIECES][n_columns] */
typedef struct head {
    uint64_t item;
    uint64_t n_pieces[1]; /* lanes: tracked inlets have one */
} head;

typedef struct input_place {
    uint64_t need;  /* oldest batch it uses */
    uint64_t await; /* every batch below has to be there before it goes on */
    uint64_t end;   /* as in the queue */
    int64_t used;   /* rows of batch `need` that are used up */
} input_place;

struct stm_track {
    size_t slot_bytes;
    size_t first, n; /* ring of KEPT */
    uint64_t stride, last; /* items between checkpoints; the newest one's */
    bool any;
    unsigned char *slots;
};

static bool implicit(const stm_inlet *in)
{
    return in->mode == STM_INPUT_EACH || (in->mode == STM_INPUT_SINGLE && in->batch_rows == 0 && in->budget == 0);
}

static input_place *places(void *slot) { return (input_place *)((head *)slot + 1); }
static unsigned char *state_of(const stm_inlet *in, void *slot) { return (unsigned char *)(places(slot) + in->n_inputs); }
static stm_piece *pieces_of(const stm_inlet *in, void *slot)
{
    return (stm_piece *)(state_of(in, slot) + ((in->state_bytes + 7) & ~(size_t)7));
}
static size_t slot_bytes(const stm_inlet *in)
{
    return sizeof(head) + (size_t)in->n_inputs * sizeof(input_place) + ((in->state_bytes + 7) & ~(size_t)7) +
           (size_t)MAX_PIECES * (size_t)in->n_columns * sizeof(stm_piece);
}
static unsigned char *slot_at(const stm_track *t, size_t i) { return t->slots + ((t->first + i) % KEPT) * t->slot_bytes; }

mill_status stm_inlet_track(stm_inlet *in)
{
    stm_track *t;

    if (implicit(in) || in->track != NULL) return MILL_OK;
    t = stm_calloc(sizeof *t);
    if (t == NULL) return MILL_ERR_NOMEM;
    t->slot_bytes = slot_bytes(in);
    t->stride = 1;
    t->slots = stm_calloc(KEPT * t->slot_bytes);
    if (t->slots == NULL) {
        stm_free(t);
        return MILL_ERR_NOMEM;
    }
    in->track = t;
    stm_track_note(in); /* the beginning */
    return MILL_OK;
}

void stm_track_destroy(stm_track **t)
{
    if (*t == NULL) return;
    stm_free((*t)->slots);
    stm_free(*t);
    *t = NULL;
}

static void fill_slot(const stm_inlet *in, void *slot)
{
    const stm_assembly *a = stm_assemblies(in);
    const size_t columns = (size_t)in->n_columns, n = a->n - a->head;
    const stm_piece *from = n > 0 ? in->pieces[0].items + a->head * columns : NULL;
    stm_assembly *saved;

    ((head *)slot)->item = in->now->tail;
    ((head *)slot)->n_pieces[0] = n;
    for (int32_t i = 0; i < in->n_inputs; i++) {
        const stm_cursor *c = &stm_cursors(in->now)[i];
        input_place *p = &places(slot)[i];
        *p = (input_place){.need = c->seq, .await = c->scan > c->seq ? c->scan : c->seq, .end = in->queues[i].end, .used = c->row};
        for (size_t k = 0; k < n; k++) {
            const stm_piece *piece = from + k * columns + (columns > 1 ? (size_t)i : 0);
            if (piece->input != i) continue;
            p->need = piece->seq;
            p->used = piece->first + (k == 0 ? a->skip : 0);
            break;
        }
    }
    memcpy(state_of(in, slot), in->now, in->state_bytes);
    saved = (stm_assembly *)(stm_cursors((stm_state *)state_of(in, slot)) + in->n_inputs);
    saved->n -= saved->head;
    saved->head = 0;
    if (n > 0) memcpy(pieces_of(in, slot), from, n * columns * sizeof *from);
}

void stm_track_note(stm_inlet *in)
{
    stm_track *t = in->track;
    const stm_assembly *a = stm_assemblies(in);

    if (a->n - a->head > MAX_PIECES || in->failed || in->closed) return;
    if (t->any && in->now->tail < t->last + t->stride) return;
    if (t->n == KEPT) { /* thin out, oldest first to stay */
        for (size_t i = 1; 2 * i < KEPT; i++) memcpy(slot_at(t, i), slot_at(t, 2 * i), t->slot_bytes);
        t->n = KEPT / 2;
        t->stride *= 2;
        if (in->now->tail < t->last + t->stride) return;
    }
    fill_slot(in, slot_at(t, t->n++));
    t->last = in->now->tail;
    t->any = true;
}

void stm_inlet_forget(stm_inlet *in, uint64_t item)
{
    stm_track *t = in->track;

    if (t == NULL) return;
    while (t->n > 1 && ((head *)slot_at(t, 1))->item <= item) t->first = (t->first + 1) % KEPT, t->n--;
    if (t->n < KEPT / 4 && t->stride > 1) t->stride /= 2;
}

size_t stm_inlet_checkpoint_bytes(const stm_inlet *in) { return implicit(in) ? 0 : slot_bytes(in); }

uint64_t stm_inlet_checkpoint(const stm_inlet *in, uint64_t item, uint64_t *need, void *out)
{
    const stm_track *t = in->track;
    size_t k;

    if (t == NULL) {
        for (int32_t i = 0; i < in->n_inputs; i++) need[i] = item;
        return item;
    }
    for (k = t->n; k > 1 && ((head *)slot_at(t, k - 1))->item > item; k--) {}
    memcpy(out, slot_at(t, k - 1), t->slot_bytes);
    for (int32_t i = 0; i < in->n_inputs; i++) {
        const input_place *p = &places(out)[i];
        need[i] = p->end != STM_NO_SEQ && p->need > p->end ? UINT64_MAX : p->need;
    }
    return ((head *)out)->item;
}

/* Put the queue of an input where batch @p seq comes next. */
static void set_queue(stm_inlet *in, int32_t input, uint64_t seq, uint64_t end)
{
    stm_queue *q = &in->queues[input];

    q->base = q->next = q->top = q->start = seq;
    if (end != STM_NO_SEQ && seq > end) q->end = end;
}

void stm_inlet_begin_at(stm_inlet *in, int32_t input, uint64_t item)
{
    const int32_t lane = in->mode == STM_INPUT_EACH ? input : 0;

    set_queue(in, input, item, STM_NO_SEQ);
    stm_cursors(in->now)[input].seq = item;
    in->taken[lane] = item;
    if (in->mode == STM_INPUT_SINGLE) in->head = in->now->tail = item;
    memcpy(in->saved, in->now, in->state_bytes);
}

static bool sound(const stm_inlet *in, void *slot)
{
    const head *h = slot;
    const stm_state *s = (const stm_state *)state_of(in, slot);
    const stm_cursor *c = stm_cursors((stm_state *)state_of(in, slot));
    const stm_assembly *a = (const stm_assembly *)(c + in->n_inputs);
    int64_t pending = 0;

    if (h->n_pieces[0] > MAX_PIECES || s->tail != h->item || a->n != h->n_pieces[0] || a->head != 0 || a->skip < 0 || s->lead < 0 ||
        s->lead > in->n_inputs)
        return false;
    for (size_t k = 0; k < h->n_pieces[0]; k++)
        for (int32_t i = 0; i < in->n_columns; i++) {
            const stm_piece *p = pieces_of(in, slot) + k * (size_t)in->n_columns + i;
            if (p->rows < 0 || p->first < 0 || p->input >= in->n_inputs || p->input < -1) return false;
            if (p->input >= 0 && (p->seq < places(slot)[p->input].need || p->seq >= places(slot)[p->input].await)) return false;
            if (i == 0) pending += p->rows;
        }
    for (int32_t i = 0; i < in->n_inputs; i++)
        if (c[i].seq < places(slot)[i].need || c[i].row < 0 || places(slot)[i].await < c[i].seq) return false;
    return pending - a->skip == a->pending;
}

mill_status stm_inlet_restore(stm_inlet *in, const void *checkpoint, size_t n, mill_error *err)
{
    unsigned char *slot;
    mill_status st = MILL_OK;

    if (in->track == NULL || n != in->track->slot_bytes)
        return mill_fail(err, MILL_ERR_DATA, "a checkpoint of '%s' is of another graph", in->flow->nodes[in->node].name);
    slot = in->track->slots; /* the only one from now on */
    memcpy(slot, checkpoint, n);
    if (!sound(in, slot))
        return mill_fail(err, MILL_ERR_DATA, "a checkpoint of '%s' makes no sense", in->flow->nodes[in->node].name);
    const size_t pieces = ((head *)slot)->n_pieces[0] * (size_t)in->n_columns;
    if (stm_grow(&in->pieces[0].items, &in->pieces[0].cap, pieces, sizeof(stm_piece)) != 0)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for a checkpoint");
    if (pieces > 0) memcpy(in->pieces[0].items, pieces_of(in, slot), pieces * sizeof(stm_piece));
    memcpy(in->now, state_of(in, slot), in->state_bytes);
    if (in->budget > 0) stm_budget_restart(in, 0); /* costs come with the batches */
    in->now->rows = 0;
    for (int32_t i = 0; i < in->n_inputs; i++) {
        const input_place *p = &places(slot)[i];
        set_queue(in, i, p->need, p->end);
        in->queues[i].await = p->await;
        in->now->rows -= p->used; /* they come again, with the batch */
        if (p->await > p->need) in->restoring = true;
        if (in->queues[i].end != STM_NO_SEQ) in->plain = false;
    }
    if (stm_assemblies(in)->n > 0 || in->restoring) in->plain = false;
    memcpy(in->saved, in->now, in->state_bytes);
    in->head = in->taken[0] = in->now->tail;
    in->track->first = 0;
    in->track->n = 1;
    in->track->last = in->now->tail;
    return st;
}

bool stm_track_restored(stm_inlet *in)
{
    for (int32_t i = 0; i < in->n_inputs; i++)
        if (in->queues[i].next < in->queues[i].await) return false;
    in->restoring = false;
    return true;
}
