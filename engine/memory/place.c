#include "memory/place.h"

#include <pthread.h>
#include <string.h>

#include "core/alloc.h"

#define UNIT ((size_t)256)
enum { BINS = 4 * 48, CHUNK = 64 };

typedef struct block block;
struct block {
    char *at;
    size_t bytes;
    block *before, *after; /* neighbours in the slab */
    block *next, *prev;    /* of a bin, of the list of those that wait, of those with a twin; next alone: of spare records */
    stm_device_pool *pool;
    bool free;
    mill_buffer *twin; /* a reference; NULL: none */
    size_t twin_from;
    stm_mark write;
    stm_mark reads[STM_READ_MARKS];
    int32_t n_reads;
};

typedef struct slab {
    void *memory;
    struct slab *next;
} slab;

typedef struct chunk { /* records of blocks */
    struct chunk *next;
    block blocks[CHUNK];
} chunk;

struct stm_device_pool {
    stm_device_pool_opts opts; /* device: a reference */
    pthread_mutex_t lock;      /* all below; no call is made under it but to the driver for another slab */
    block *bins[BINS];
    uint64_t filled[BINS / 64]; /* bit b: bin b has blocks */
    block *waiting;
    block *paired; /* with a twin, the youngest first */
    bool unpairs;  /* no more twins */
    block *spare;
    chunk *chunks;
    slab *slabs;
    int64_t out; /* buffers, and one for the owner */
    stm_device_pool_stats stats;
};

void (*stm_place_watch)(const void *at, size_t bytes, bool taken);

/* ---- blocks ----------------------------------------------------------------------------------------------------- */

static size_t round_up(size_t bytes) { return bytes == 0 ? UNIT : (bytes + UNIT - 1) / UNIT * UNIT; }

/* Four bins per power of two; every block of a bin is at least as large as its lower end. */
static int bin_of(size_t bytes)
{
    const uint64_t units = bytes / UNIT; /* >= 1 */
    const int top = 63 - __builtin_clzll(units);
    const int quarter = top >= 2 ? (int)(units >> (top - 2) & 3) : (int)((units << (2 - top)) & 3);
    const int bin = top * 4 + quarter;

    return bin < BINS ? bin : BINS - 1;
}

/* The first bin all of whose blocks are large enough. */
static int bin_for(size_t bytes)
{
    const int bin = bin_of(bytes);

    return bin + 1 < BINS && bytes > UNIT && bin_of(bytes - UNIT) == bin ? bin + 1 : bin;
}

static void bin_put(stm_device_pool *p, block *b)
{
    const int bin = bin_of(b->bytes);

    b->free = true;
    b->prev = NULL;
    b->next = p->bins[bin];
    if (b->next != NULL) b->next->prev = b;
    p->bins[bin] = b;
    p->filled[bin / 64] |= (uint64_t)1 << (bin % 64);
}

static void bin_remove(stm_device_pool *p, block *b)
{
    const int bin = bin_of(b->bytes);

    if (b->prev != NULL)
        b->prev->next = b->next;
    else
        p->bins[bin] = b->next;
    if (b->next != NULL) b->next->prev = b->prev;
    if (p->bins[bin] == NULL) p->filled[bin / 64] &= ~((uint64_t)1 << (bin % 64));
    b->free = false;
    b->next = b->prev = NULL;
}

static block *bin_find(const stm_device_pool *p, size_t bytes)
{
    const int own = bin_of(bytes);
    int bin = bin_for(bytes);

    for (int word = bin / 64; word < BINS / 64; word++) {
        uint64_t bits = p->filled[word];
        if (word == bin / 64) bits &= ~(uint64_t)0 << (bin % 64);
        if (bits != 0) return p->bins[word * 64 + __builtin_ctzll(bits)];
    }
    for (block *b = p->bins[own]; b != NULL; b = b->next) /* its own bin has smaller ones, too */
        if (b->bytes >= bytes) return b;
    return NULL;
}

static block *record(stm_device_pool *p)
{
    block *b;

    if (p->spare == NULL) {
        chunk *c = stm_calloc(sizeof *c);
        if (c == NULL) return NULL;
        c->next = p->chunks;
        p->chunks = c;
        for (int i = 0; i < CHUNK; i++) {
            c->blocks[i].next = p->spare;
            p->spare = &c->blocks[i];
        }
    }
    b = p->spare;
    p->spare = b->next;
    memset(b, 0, sizeof *b);
    b->pool = p;
    return b;
}

static void record_back(stm_device_pool *p, block *b)
{
    b->next = p->spare;
    p->spare = b;
}

static bool marks_done(const block *b)
{
    if (!stm_mark_done(b->write)) return false;
    for (int32_t i = 0; i < b->n_reads; i++)
        if (!stm_mark_done(b->reads[i])) return false;
    return true;
}

/* A block that nobody uses: joined with free neighbours. */
static void block_free(stm_device_pool *p, block *b)
{
    block *other;

    if (stm_place_watch != NULL) stm_place_watch(b->at, b->bytes, false);
    if (p->opts.share != NULL) __atomic_sub_fetch(&p->opts.share->used, (int64_t)b->bytes, __ATOMIC_RELAXED);
    b->n_reads = 0;
    b->write = (stm_mark){NULL, 0};
    if ((other = b->after) != NULL && other->free) {
        bin_remove(p, other);
        b->bytes += other->bytes;
        b->after = other->after;
        if (b->after != NULL) b->after->before = b;
        record_back(p, other);
    }
    if ((other = b->before) != NULL && other->free) {
        bin_remove(p, other);
        other->bytes += b->bytes;
        other->after = b->after;
        if (other->after != NULL) other->after->before = other;
        record_back(p, b);
        b = other;
    }
    bin_put(p, b);
}

static void reap(stm_device_pool *p)
{
    block **at = &p->waiting;

    while (*at != NULL) {
        block *b = *at;
        if (!marks_done(b)) {
            at = &b->next;
            continue;
        }
        *at = b->next;
        p->stats.waiting_bytes -= (int64_t)b->bytes;
        block_free(p, b);
    }
}

/* With the lock held: the driver is called under it, since whoever else wants memory would have to wait for this slab, too. */
static mill_status grow(stm_device_pool *p, size_t bytes, mill_error *err)
{
    const size_t want = bytes > p->opts.slab_bytes ? bytes : p->opts.slab_bytes;
    const mill_status full = p->opts.kind == STM_MEM_DEVICE ? MILL_ERR_DEVICE_MEM : MILL_ERR_NOMEM;
    slab *s;
    block *b;
    mill_status st;

    if (p->opts.limit_bytes != 0 &&
        ((size_t)p->stats.held_bytes > p->opts.limit_bytes || want > p->opts.limit_bytes - (size_t)p->stats.held_bytes))
        return mill_fail(err, full, "%zu bytes do not fit into the %zu bytes that the pool may have", bytes, p->opts.limit_bytes);
    s = stm_calloc(sizeof *s);
    b = s != NULL ? record(p) : NULL;
    if (b == NULL) {
        stm_free(s);
        return mill_fail(err, MILL_ERR_NOMEM, "out of host memory for a slab");
    }
    st = stm_device_alloc(p->opts.device, p->opts.kind, want, &s->memory, err);
    if (st != MILL_OK) {
        record_back(p, b);
        stm_free(s);
        return st;
    }
    s->next = p->slabs;
    p->slabs = s;
    p->stats.slabs++;
    p->stats.held_bytes += (int64_t)want;
    b->at = s->memory;
    b->bytes = want;
    bin_put(p, b);
    return MILL_OK;
}

/* ---- pools ------------------------------------------------------------------------------------------------------ */

static void destroy(stm_device_pool *p)
{
    if (p->opts.share != NULL) __atomic_sub_fetch(&p->opts.share->used, p->stats.waiting_bytes, __ATOMIC_RELAXED);
    for (slab *s = p->slabs, *next; s != NULL; s = next) {
        next = s->next;
        stm_device_free(p->opts.device, p->opts.kind, s->memory);
        stm_free(s);
    }
    for (chunk *c = p->chunks, *next; c != NULL; c = next) {
        next = c->next;
        stm_free(c);
    }
    pthread_mutex_destroy(&p->lock);
    stm_device_unref(&p->opts.device);
    stm_free(p);
}

mill_status stm_device_pool_create(const stm_device_pool_opts *opts, stm_device_pool **out, mill_error *err)
{
    stm_device_pool *p = stm_calloc(sizeof *p);
    mill_status st;

    if (p == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a device pool");
    p->opts = *opts;
    p->opts.slab_bytes = round_up(opts->slab_bytes);
    p->opts.device = stm_device_ref(opts->device);
    p->out = 1;
    pthread_mutex_init(&p->lock, NULL);
    st = grow(p, UNIT, err);
    if (st != MILL_OK) {
        destroy(p);
        return st;
    }
    *out = p;
    return MILL_OK;
}

/* Called without the lock. */
static void leave(stm_device_pool *p)
{
    bool last;

    pthread_mutex_lock(&p->lock);
    last = --p->out == 0;
    pthread_mutex_unlock(&p->lock);
    if (last) destroy(p); /* what still waits goes with its slab: the owner said that its streams are idle */
}

void stm_device_pool_release(stm_device_pool **pool)
{
    stm_device_pool *p = *pool;

    if (p == NULL) return;
    *pool = NULL;
    leave(p);
}

/* With the lock held: a block's twin, which is the caller's to let go without it. */
static mill_buffer *unpair(stm_device_pool *p, block *b)
{
    mill_buffer *twin = b->twin;

    if (twin == NULL) return NULL;
    if (b->prev != NULL)
        b->prev->next = b->next;
    else
        p->paired = b->next;
    if (b->next != NULL) b->next->prev = b->prev;
    b->next = b->prev = NULL;
    b->twin = NULL;
    return twin;
}

static void let_twin_go(mill_buffer *twin)
{
    stm_device_keep(stm_buffer_device(twin), -(int64_t)twin->bytes);
    mill_buffer_unref(&twin);
}

/* The last reference to a buffer is gone. */
static void let_go(void *owner)
{
    block *b = owner;
    stm_device_pool *p = b->pool;
    mill_buffer *twin;

    pthread_mutex_lock(&p->lock);
    twin = unpair(p, b);
    p->stats.live_bytes -= (int64_t)b->bytes;
    if (marks_done(b))
        block_free(p, b);
    else {
        p->stats.waiting_bytes += (int64_t)b->bytes;
        b->next = p->waiting;
        p->waiting = b;
    }
    pthread_mutex_unlock(&p->lock);
    if (twin != NULL) let_twin_go(twin);
    leave(p);
}

/* With the lock held. */
static mill_status take_block(stm_device_pool *p, size_t bytes, block **out, mill_error *err)
{
    block *b, *rest = NULL;
    mill_status st;

    if (p->waiting != NULL) reap(p); /* a few loads each; memory that was just used is the best to use again */
    b = bin_find(p, bytes);
    if (b == NULL) {
        mill_error why = {0};
        st = grow(p, bytes, &why);
        if (st != MILL_OK && st != MILL_ERR_DEVICE && p->waiting != NULL)
            return mill_fail(err, MILL_ERR_AGAIN, "no room for %zu bytes until queued work is done", bytes);
        if (st != MILL_OK) {
            if (err != NULL && err->status == MILL_OK) *err = why;
            return st;
        }
        b = bin_find(p, bytes);
    }
    if (b->bytes > bytes && (rest = record(p)) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "out of host memory for a device buffer");
    bin_remove(p, b);
    if (rest != NULL) {
        rest->at = b->at + bytes;
        rest->bytes = b->bytes - bytes;
        rest->before = b;
        rest->after = b->after;
        if (rest->after != NULL) rest->after->before = rest;
        b->after = rest;
        b->bytes = bytes;
        bin_put(p, rest);
    }
    *out = b;
    return MILL_OK;
}

mill_status stm_device_pool_take(stm_device_pool *p, size_t bytes, mill_buffer **out, mill_error *err)
{
    mill_buffer *head = NULL;
    block *b = NULL;
    mill_status st;

    if (bytes > MILL_BUFFER_MAX_BYTES) return mill_fail(err, MILL_ERR_INVALID, "a buffer of %zu bytes", bytes);
    st = stm_buffer_wrap(p->opts.heads, NULL, bytes, let_go, NULL, &head);
    if (st != MILL_OK) return mill_fail(err, st, "out of host memory for a device buffer");
    pthread_mutex_lock(&p->lock);
    st = take_block(p, round_up(bytes), &b, err);
    if (st == MILL_OK) {
        p->out++;
        p->stats.live_bytes += (int64_t)b->bytes;
        if (p->opts.share != NULL) __atomic_add_fetch(&p->opts.share->used, (int64_t)b->bytes, __ATOMIC_RELAXED);
        if (p->stats.live_bytes + p->stats.waiting_bytes > p->stats.peak_bytes)
            p->stats.peak_bytes = p->stats.live_bytes + p->stats.waiting_bytes;
        if (stm_place_watch != NULL) stm_place_watch(b->at, b->bytes, true);
    }
    pthread_mutex_unlock(&p->lock);
    if (st != MILL_OK) {
        head->release = NULL; /* nothing to let go */
        mill_buffer_unref(&head);
        return st;
    }
    head->where = p->opts.kind;
    head->data = b->at;
    head->owner = b;
    *out = head;
    return MILL_OK;
}

bool stm_device_pool_may_keep(stm_device_pool *p, size_t bytes)
{
    const stm_pool_share *share = p->opts.share;

    if (share == NULL || share->limit == 0) return true;
    stm_device_pool_reap(p);
    return __atomic_load_n(&share->used, __ATOMIC_RELAXED) + (int64_t)round_up(bytes) <= share->limit;
}

void stm_device_pool_reap(stm_device_pool *p)
{
    pthread_mutex_lock(&p->lock);
    reap(p);
    pthread_mutex_unlock(&p->lock);
}

stm_device_pool_stats stm_device_pool_counts(stm_device_pool *p)
{
    stm_device_pool_stats s;

    pthread_mutex_lock(&p->lock);
    s = p->stats;
    pthread_mutex_unlock(&p->lock);
    return s;
}

/* ---- marks ------------------------------------------------------------------------------------------------------ */

stm_device *stm_buffer_device(const mill_buffer *b) { return b->where == 0 ? NULL : ((const block *)b->owner)->pool->opts.device; }

void stm_buffer_written(mill_buffer *b, stm_mark mark)
{
    if (b->where != 0) ((block *)b->owner)->write = mark;
}

stm_mark stm_buffer_write_mark(const mill_buffer *b)
{
    return b->where == 0 ? (stm_mark){NULL, 0} : ((const block *)b->owner)->write;
}

bool stm_buffer_read_until(mill_buffer *buf, stm_mark mark)
{
    block *b = buf->owner;
    int32_t n = 0;
    bool kept = false;

    if (buf->where == 0 || mark.line == NULL) return true;
    pthread_mutex_lock(&b->pool->lock);
    for (int32_t i = 0; i < b->n_reads; i++) {
        if (b->reads[i].line == mark.line) {
            if (b->reads[i].tick < mark.tick) b->reads[i].tick = mark.tick;
            kept = true;
        }
        if (!stm_mark_done(b->reads[i])) b->reads[n++] = b->reads[i];
    }
    if (!kept && n < STM_READ_MARKS) {
        b->reads[n++] = mark;
        kept = true;
    }
    b->n_reads = n;
    pthread_mutex_unlock(&b->pool->lock);
    return kept;
}

/* ---- twins ------------------------------------------------------------------------------------------------------ */

void stm_buffer_pair(mill_buffer *host, mill_buffer *there, size_t from)
{
    block *b = host->owner;
    stm_device_pool *p;
    bool pairs;

    if (host->where != STM_MEM_PINNED || !stm_device_keep(stm_buffer_device(there), (int64_t)there->bytes)) return;
    p = b->pool;
    pthread_mutex_lock(&p->lock);
    pairs = !p->unpairs && b->twin == NULL;
    if (pairs) {
        mill_buffer_ref(there);
        b->twin = there;
        b->twin_from = from;
        b->prev = NULL;
        b->next = p->paired;
        if (b->next != NULL) b->next->prev = b;
        p->paired = b;
    }
    pthread_mutex_unlock(&p->lock);
    if (!pairs) stm_device_keep(stm_buffer_device(there), -(int64_t)there->bytes);
}

mill_buffer *stm_buffer_twin(const mill_buffer *host, size_t *from)
{
    block *b = host->owner;
    mill_buffer *twin = NULL;

    if (host->where != STM_MEM_PINNED) return NULL;
    pthread_mutex_lock(&b->pool->lock);
    if (b->twin != NULL) {
        twin = mill_buffer_ref(b->twin);
        *from = b->twin_from;
    }
    pthread_mutex_unlock(&b->pool->lock);
    return twin;
}

bool stm_device_pool_unpair(stm_device_pool *p, size_t bytes)
{
    size_t gone = 0;
    bool any = false;

    while (gone < bytes) {
        mill_buffer *twin;
        pthread_mutex_lock(&p->lock);
        p->unpairs = true;
        twin = p->paired != NULL ? unpair(p, p->paired) : NULL;
        pthread_mutex_unlock(&p->lock);
        if (twin == NULL) break;
        any = true;
        gone += twin->bytes;
        let_twin_go(twin);
    }
    return any;
}
