#include "device/stream.h"

#include <string.h>

#include "core/alloc.h"
#include "device/internal.h"

enum { SEEN = 16 }; /* other timelines that a stream remembers having waited for */

/* By number, not by address: a timeline of a device that was opened later may stand where one stood. */
typedef struct seen {
    uint64_t number, tick;
} seen;

struct stm_stream {
    stm_device *device; /* a reference */
    stm_hw_stream *hw;
    stm_timeline *line;
    int32_t n_seen, oldest; /* the first are in use; once all are, the next to be given up */
    seen seen[SEEN];        /* what is queued from now on is behind these anyway */
};

static uint64_t timelines; /* atomic: made so far in this process */

/* ---- timelines -------------------------------------------------------------------------------------------------- */

static mill_status line_make(stm_device *dev, stm_timeline **out, mill_error *err)
{
    stm_timeline *line = stm_aligned(sizeof *line, 64);
    mill_status st = MILL_OK;

    if (line == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a timeline");
    *line = (stm_timeline){.device = dev, .number = __atomic_add_fetch(&timelines, 1, __ATOMIC_RELAXED)};
    for (int32_t i = 0; i < STM_TICKS && st == MILL_OK; i++) {
        st = stm_device_gate(dev, "event creation", err);
        if (st == MILL_OK) st = stm_device_note(dev, dev->ops->event_open(dev->hw, &line->events[i], err));
        if (st == MILL_OK) stm_device_count(&dev->events, 1);
    }
    if (st != MILL_OK) {
        for (int32_t i = 0; i < STM_TICKS; i++) dev->ops->event_close(&line->events[i]);
        stm_free(line);
        return st;
    }
    *out = line;
    return MILL_OK;
}

mill_status stm_timeline_take(stm_device *dev, stm_timeline **out, mill_error *err)
{
    mill_status st = MILL_OK;
    stm_timeline *line = NULL;

    pthread_mutex_lock(&dev->lock);
    for (int32_t i = 0; i < dev->n_lines && line == NULL; i++)
        if (!dev->lines[i]->taken) line = dev->lines[i];
    if (line == NULL && dev->n_lines == STM_MAX_STREAMS)
        st = mill_fail(err, MILL_ERR_BUSY, "%s device %d has %d streams open already", dev->ops->name, (int)dev->ordinal,
                       STM_MAX_STREAMS);
    else if (line == NULL && (st = line_make(dev, &line, err)) == MILL_OK) {
        line->index = dev->n_lines;
        dev->lines[dev->n_lines++] = line;
    }
    if (st == MILL_OK) {
        line->taken = true;
        *out = line;
    }
    pthread_mutex_unlock(&dev->lock);
    return st;
}

void stm_timeline_give(stm_timeline **pline)
{
    stm_timeline *line = *pline;

    if (line == NULL) return;
    *pline = NULL;
    pthread_mutex_lock(&line->device->lock);
    line->taken = false;
    pthread_mutex_unlock(&line->device->lock);
}

void stm_timelines_close(stm_device *dev)
{
    for (int32_t i = 0; i < dev->n_lines; i++) {
        for (int32_t k = 0; k < STM_TICKS; k++) dev->ops->event_close(&dev->lines[i]->events[k]);
        stm_free(dev->lines[i]);
    }
    dev->n_lines = 0;
}

/* ---- streams ---------------------------------------------------------------------------------------------------- */

mill_status stm_stream_open(stm_device *dev, stm_stream **out, mill_error *err)
{
    stm_stream *s = stm_calloc(sizeof *s);
    mill_status st;

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a stream");
    s->device = stm_device_ref(dev);
    st = stm_timeline_take(dev, &s->line, err);
    if (st == MILL_OK) st = stm_device_gate(dev, "stream creation", err);
    if (st == MILL_OK) st = stm_device_note(dev, dev->ops->stream_open(dev->hw, &s->hw, err));
    if (st != MILL_OK) {
        stm_stream_close(&s);
        return st;
    }
    stm_device_count(&dev->streams, 1);
    *out = s;
    return MILL_OK;
}

void stm_stream_close(stm_stream **ps)
{
    stm_stream *s = *ps;

    if (s == NULL) return;
    *ps = NULL;
    if (s->hw != NULL) s->device->ops->stream_close(&s->hw);
    if (s->line != NULL) { /* nothing is queued any more: whoever waits may go on, also for the mark that was only announced */
        const uint64_t next = __atomic_load_n(&s->line->raised, __ATOMIC_RELAXED) + 1;
        __atomic_store_n(&s->line->raised, next, __ATOMIC_RELEASE);
        __atomic_store_n(&s->line->done, next, __ATOMIC_RELEASE);
    }
    stm_timeline_give(&s->line);
    stm_device_unref(&s->device);
    stm_free(s);
}

stm_device *stm_stream_device(const stm_stream *s) { return s->device; }
stm_hw_stream *stm_stream_hw(const stm_stream *s) { return s->hw; }
void *stm_stream_native(const stm_stream *s) { return s->device->ops->stream_native(s->hw); }

int32_t stm_stream_in_flight(const stm_stream *s)
{
    return (int32_t)(__atomic_load_n(&s->line->raised, __ATOMIC_RELAXED) - __atomic_load_n(&s->line->done, __ATOMIC_RELAXED));
}

stm_mark stm_stream_next(const stm_stream *s)
{
    return (stm_mark){s->line, __atomic_load_n(&s->line->raised, __ATOMIC_RELAXED) + 1};
}

mill_status stm_stream_raise(stm_stream *s, stm_mark *out, mill_error *err)
{
    stm_timeline *line = s->line;
    const uint64_t tick = __atomic_load_n(&line->raised, __ATOMIC_RELAXED) + 1;
    mill_status st = stm_device_gate(s->device, "event record", err);

    if (st != MILL_OK) return st;
    if (stm_stream_in_flight(s) >= STM_TICKS)
        return mill_fail(err, MILL_ERR_AGAIN, "%d batches are under way on one stream", STM_TICKS);
    st = stm_device_note(s->device, s->device->ops->event_record(line->events[tick % STM_TICKS], s->hw, err));
    if (st != MILL_OK) return st;
    __atomic_store_n(&line->raised, tick, __ATOMIC_RELEASE);
    stm_device_count(&s->device->raises, 1);
    *out = (stm_mark){line, tick};
    return MILL_OK;
}

mill_status stm_stream_poll(stm_stream *s, mill_error *err)
{
    stm_timeline *line = s->line;
    const uint64_t raised = __atomic_load_n(&line->raised, __ATOMIC_RELAXED);
    uint64_t done = __atomic_load_n(&line->done, __ATOMIC_RELAXED);
    mill_status st = MILL_OK;

    if (done == raised) return MILL_OK;
    st = stm_device_gate(s->device, "event query", err);
    while (st == MILL_OK && done < raised) {
        mill_error not_yet = {0};
        st = s->device->ops->event_query(line->events[(done + 1) % STM_TICKS], &not_yet);
        if (st == MILL_OK)
            done++;
        else if (st != MILL_ERR_AGAIN && err != NULL && err->status == MILL_OK)
            *err = not_yet;
    }
    __atomic_store_n(&line->done, done, __ATOMIC_RELEASE);
    return st == MILL_ERR_AGAIN ? MILL_OK : stm_device_note(s->device, st);
}

static bool is_behind(const stm_stream *s, seen at)
{
    for (int32_t i = 0; i < s->n_seen; i++)
        if (s->seen[i].number == at.number) return s->seen[i].tick >= at.tick;
    return false;
}

static void remember(stm_stream *s, seen at)
{
    int32_t i = 0;

    while (i < s->n_seen && s->seen[i].number != at.number) i++;
    if (i == SEEN)
        i = s->oldest++ % SEEN;
    else if (i == s->n_seen)
        s->n_seen++;
    s->seen[i] = at;
}

mill_status stm_stream_after(stm_stream *s, stm_mark mark, mill_error *err)
{
    seen at;
    mill_status st;

    if (mark.line == NULL || mark.line == s->line || stm_mark_done(mark)) return MILL_OK;
    at = (seen){mark.line->number, mark.tick};
    if (is_behind(s, at)) return MILL_OK;
    st = stm_device_gate(s->device, "stream wait", err);
    if (st != MILL_OK) return st;
    if (mark.line->device->ops !=
        s->device->ops) /* different backends know nothing of each other's events: the host must see it done */
        return mill_fail(err, MILL_ERR_AGAIN, "a %s stream cannot wait for a %s stream", s->device->ops->name,
                         mark.line->device->ops->name);
    st = stm_device_note(s->device, s->device->ops->stream_wait(s->hw, mark.line->events[mark.tick % STM_TICKS], err));
    if (st != MILL_OK) return st;
    remember(s, at);
    stm_device_count(&s->device->waits, 1);
    return MILL_OK;
}

mill_status stm_stream_follow(stm_stream *s, const stm_stream *of, stm_mark mark, mill_error *err)
{
    const mill_status st = stm_stream_after(s, mark, err);

    for (int32_t i = 0; i < of->n_seen && st == MILL_OK; i++)
        if (of->seen[i].number != s->line->number && !is_behind(s, of->seen[i])) remember(s, of->seen[i]);
    return st;
}

mill_status stm_stream_sync(stm_stream *s, mill_error *err)
{
    mill_status st = stm_device_gate(s->device, "stream synchronisation", err);

    if (st != MILL_OK) return st;
    stm_device_count(&s->device->syncs, 1);
    st = stm_device_note(s->device, s->device->ops->stream_sync(s->hw, err));
    if (st == MILL_OK) __atomic_store_n(&s->line->done, __atomic_load_n(&s->line->raised, __ATOMIC_RELAXED), __ATOMIC_RELEASE);
    return st;
}

void stm_stream_settle(stm_stream *s)
{
    mill_error err = {0};

    stm_device_count(&s->device->syncs, 1);
    if (s->device->ops->stream_sync(s->hw, &err) != MILL_OK) { /* it may have told an earlier failure instead */
        memset(&err, 0, sizeof err);
        if (stm_device_note(s->device, s->device->ops->stream_sync(s->hw, &err)) != MILL_OK) return;
    }
    __atomic_store_n(&s->line->done, __atomic_load_n(&s->line->raised, __ATOMIC_RELAXED), __ATOMIC_RELEASE);
}

/* @p to, @p from: of a copy between devices; NULL: of one that is not. */
static mill_status copy_pieces(stm_stream *s, stm_device *to, char *dst, stm_device *from, const char *src, size_t bytes,
                               mill_error *err)
{
    const stm_device_ops *ops = s->device->ops;
    mill_status st = MILL_OK;

    for (size_t at = 0, piece; at < bytes && st == MILL_OK; at += piece) {
        piece = bytes - at < STM_COPY_MOST ? bytes - at : STM_COPY_MOST;
        stm_device_count(to != NULL ? &s->device->peer_copies : &s->device->copies, 1);
        stm_device_count(&s->device->copied_bytes, (int64_t)piece);
        st = to != NULL ? ops->copy_peer(s->hw, to->hw, dst + at, from->hw, src + at, piece, err)
                        : ops->copy(s->hw, dst + at, src + at, piece, err);
        st = stm_device_note(s->device, st);
    }
    return st;
}

mill_status stm_stream_copy(stm_stream *s, void *dst, const void *src, size_t bytes, mill_error *err)
{
    const mill_status st = stm_device_gate(s->device, "copy", err);

    return st == MILL_OK ? copy_pieces(s, NULL, dst, NULL, src, bytes, err) : st;
}

mill_status stm_stream_fill(stm_stream *s, void *dst, int byte, size_t bytes, mill_error *err)
{
    mill_status st = stm_device_gate(s->device, "fill", err);

    if (st != MILL_OK || bytes == 0) return st;
    return stm_device_note(s->device, s->device->ops->fill(s->hw, dst, byte, bytes, err));
}

mill_status stm_stream_copy_peer(stm_stream *s, stm_device *to, void *dst, stm_device *from, const void *src, size_t bytes,
                                 mill_error *err)
{
    const stm_device_ops *ops = s->device->ops;
    mill_status st = stm_device_gate(s->device, "peer copy", err);

    if (st != MILL_OK || bytes == 0) return st;
    if (ops->copy_peer == NULL || to->ops != ops || from->ops != ops)
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "no copies from a %s device to a %s device", from->ops->name, to->ops->name);
    if ((st = stm_device_reach(to, from, err)) != MILL_OK) return st;
    return copy_pieces(s, to, dst, from, src, bytes, err);
}

void stm_range_push(const stm_device *dev, const char *name)
{
    if (dev->ops->range_push != NULL) dev->ops->range_push(name);
}

void stm_range_pop(const stm_device *dev)
{
    if (dev->ops->range_pop != NULL) dev->ops->range_pop();
}
