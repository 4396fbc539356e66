/*
 * A pool is a row of size classes, four per power of two, each a stack of free blocks under a spin lock of its own (held
 * for a few instructions; no call is made under it). Blocks have no header: the giver says the size again.
 *
 * How much a pool may hold: a block is allocated only when its class is empty, so a class never owns more blocks than
 * were live at once. Every WINDOW gives of payload-sized blocks the pool looks back: a class keeps at most twice the
 * blocks it needed in this and the last window, a class not used in either is emptied. A miss that finds more than
 * twice the recent need in all free lists together sheds the surplus, largest blocks first.
 *
 * Threads that handle many batches have a stock of small blocks each (stm_pool_attach). It is filled and emptied half at a
 * time, so the shared lists and counters are touched once for many blocks. To the pool, what is in a stock is live.
 *
 * Closing: stm_pool_release takes all class locks, marks every class closed and counts what is out. From then on each
 * give frees its block and counts down; whoever counts to zero frees the pool. A give that came before saw its class
 * open under the lock, so its block was not counted.
 */
#include "memory/pool.h"

#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "core/alloc.h"

#if defined(__SANITIZE_ADDRESS__)
#define POISONING 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISONING 1
#endif
#endif
#ifdef POISONING
#include <sanitizer/asan_interface.h>
#define HIDE(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define SHOW(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define HIDE(p, n) ((void)0)
#define SHOW(p, n) ((void)0)
#endif

enum {
    LINE = 64,
    FIRST_SHIFT = 8,                                      /* up to 256 bytes: 16, 32, 48, 64, 128, 192, 256 */
    MAX_SHIFT = 30,                                       /* largest class: 1 GiB; above, blocks are not kept */
    N_CLASSES = 7 + (MAX_SHIFT - FIRST_SHIFT) * 4,
    PAYLOAD_BYTES = 4096,                                 /* from here on blocks count for the window */
    WINDOW = 4096,                                        /* payload gives */
    SPINS = 64
};
enum {
    STOCK_BYTES = 4096,
    STOCK_CLASSES = 7 + (12 - FIRST_SHIFT) * 4, /* classes up to that */
    STOCK = 32,                                 /* blocks per class */
    AHEAD = 64                                  /* blocks made before they are needed, at most */
};
#define SLACK_BYTES ((int64_t)1 << 20) /* free lists up to here are never worth trimming */

typedef struct block {
    struct block *next;
} block;

typedef struct size_class {
    alignas(LINE) atomic_int lock;
    bool closed;      /* lock; set once */
    int32_t idle;     /* lock; windows since the last take */
    block *free;      /* lock */
    int64_t n_free;   /* lock; read without it for sums */
    int64_t n_live;   /* lock */
    int64_t peak[2];  /* lock; most live in this and in the last window */
} size_class;

struct mill_pool {
    int64_t limit;                /* constant */
    alignas(LINE) _Atomic int64_t live; /* bytes; relaxed */
    _Atomic int64_t peak;         /* relaxed */
    _Atomic int64_t recent[2];    /* relaxed; most live bytes in this and in the last window */
    _Atomic int64_t misses;       /* relaxed */
    _Atomic uint32_t gives;       /* relaxed; of payload size */
    atomic_int trimming;          /* one thread looks back at a time */
    _Atomic int64_t out;          /* blocks still out once closed, and one for the closer */
    size_class classes[N_CLASSES];
};

static void lock(atomic_int *l)
{
    int spins = 0;

    while (atomic_exchange_explicit(l, 1, memory_order_acquire) != 0) {
        while (atomic_load_explicit(l, memory_order_relaxed) != 0) {
            if (++spins > SPINS) sched_yield(); /* the holder may have lost its core */
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    }
}
static void unlock(atomic_int *l) { atomic_store_explicit(l, 0, memory_order_release); }

/* Class of a block, N_CLASSES or more when it is too large to keep. */
static unsigned class_of(size_t bytes)
{
    unsigned shift;

    if (bytes <= 64) return bytes == 0 ? 0 : (unsigned)((bytes - 1) / 16);
    if (bytes <= 256) return 3 + (unsigned)((bytes - 1) / 64);
    shift = 63 - (unsigned)__builtin_clzll(bytes - 1);
    return 7 + (shift - FIRST_SHIFT) * 4 + (unsigned)((bytes - 1) >> (shift - 2) & 3);
}

static size_t class_bytes(unsigned c)
{
    unsigned shift;

    if (c < 4) return (c + 1) * 16;
    if (c < 7) return (c - 2) * 64;
    shift = FIRST_SHIFT + (c - 7) / 4;
    return ((size_t)5 + (c - 7) % 4) << (shift - 2);
}

size_t stm_pool_block_bytes(size_t bytes)
{
    const unsigned c = class_of(bytes);

    return c < N_CLASSES ? class_bytes(c) : (bytes + LINE - 1) / LINE * LINE;
}

mill_status stm_pool_create(int64_t limit_bytes, mill_pool **out)
{
    mill_pool *p = stm_aligned(sizeof *p, LINE);

    if (p == NULL) return MILL_ERR_NOMEM;
    memset(p, 0, sizeof *p);
    p->limit = limit_bytes;
    *out = p;
    return MILL_OK;
}

/* Every change goes through here: held_bytes reads without the lock. */
static void add_free(size_class *k, int64_t n) { __atomic_store_n(&k->n_free, k->n_free + n, __ATOMIC_RELAXED); }

/* Bytes in free lists, a moment's picture. A sum when asked costs less than a shared counter on every give. */
static int64_t held_bytes(const mill_pool *p)
{
    int64_t n = 0;

    for (unsigned c = 0; c < N_CLASSES; c++)
        n += __atomic_load_n(&p->classes[c].n_free, __ATOMIC_RELAXED) * (int64_t)class_bytes(c);
    return n;
}

static void free_chain(block *b, size_t bytes)
{
    while (b != NULL) {
        block *next;

        SHOW(b, bytes);
        next = b->next;
        stm_free(b);
        b = next;
    }
    (void)bytes;
}

/* Free blocks of class c until at most keep are left. */
static void shed_class(mill_pool *p, unsigned c, int64_t keep)
{
    size_class *k = &p->classes[c];
    block *chain = NULL;

    lock(&k->lock);
    for (; k->n_free > keep; add_free(k, -1)) {
        block *b = k->free;

        SHOW(b, sizeof *b);
        k->free = b->next;
        b->next = chain;
        chain = b;
    }
    unlock(&k->lock);
    free_chain(chain, class_bytes(c));
}

/* A window ended: forget peaks older than two windows and free what is beyond twice the need. */
static void look_back(mill_pool *p)
{
    if (atomic_exchange_explicit(&p->trimming, 1, memory_order_acquire) != 0) return;
    atomic_store_explicit(&p->recent[1], atomic_load_explicit(&p->recent[0], memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(&p->recent[0], atomic_load_explicit(&p->live, memory_order_relaxed), memory_order_relaxed);
    for (unsigned c = 0; c < N_CLASSES; c++) {
        size_class *k = &p->classes[c];
        int64_t need, surplus;

        lock(&k->lock);
        need = k->peak[0] > k->peak[1] ? k->peak[0] : k->peak[1];
        surplus = k->n_live + k->n_free - 2 * need;
        k->idle++;
        if (k->idle > 2) surplus = k->n_free;
        k->peak[1] = k->peak[0];
        k->peak[0] = k->n_live;
        need = surplus > 0 && k->n_free > surplus ? k->n_free - surplus : surplus > 0 ? 0 : k->n_free;
        unlock(&k->lock);
        if (surplus > 0) shed_class(p, c, need);
    }
    atomic_store_explicit(&p->trimming, 0, memory_order_release);
}

/* Before the allocator is called: the free lists of other classes must not outgrow what the work needs. */
static void shed_surplus(mill_pool *p)
{
    const int64_t r0 = atomic_load_explicit(&p->recent[0], memory_order_relaxed);
    const int64_t r1 = atomic_load_explicit(&p->recent[1], memory_order_relaxed);
    const int64_t keep = 2 * (r0 > r1 ? r0 : r1) + SLACK_BYTES;
    int64_t surplus = held_bytes(p) - keep;

    for (unsigned c = N_CLASSES; c-- > 0 && surplus > 0;) {
        const int64_t size = (int64_t)class_bytes(c), n = __atomic_load_n(&p->classes[c].n_free, __ATOMIC_RELAXED);
        const int64_t shed = n < (surplus + size - 1) / size ? n : (surplus + size - 1) / size;

        if (shed > 0) shed_class(p, c, n - shed);
        surplus -= shed * size;
    }
}

static void raise_to(_Atomic int64_t *top, int64_t v)
{
    int64_t now = atomic_load_explicit(top, memory_order_relaxed);

    while (v > now && !atomic_compare_exchange_weak_explicit(top, &now, v, memory_order_relaxed, memory_order_relaxed)) {}
}

/* Room under the limit for size more bytes; false when there is none. */
static bool charge(mill_pool *p, int64_t size)
{
    const int64_t live = atomic_fetch_add_explicit(&p->live, size, memory_order_relaxed) + size;

    if (p->limit != 0 && live > p->limit) {
        atomic_fetch_sub_explicit(&p->live, size, memory_order_relaxed);
        return false;
    }
    if (live > atomic_load_explicit(&p->recent[0], memory_order_relaxed)) {
        raise_to(&p->recent[0], live);
        raise_to(&p->peak, live);
    }
    return true;
}

/* As charge, for blocks that are taken whatever the limit says: a stock is bounded itself. */
static void charge_always(mill_pool *p, int64_t size)
{
    const int64_t live = atomic_fetch_add_explicit(&p->live, size, memory_order_relaxed) + size;

    if (live > atomic_load_explicit(&p->recent[0], memory_order_relaxed)) {
        raise_to(&p->recent[0], live);
        raise_to(&p->peak, live);
    }
}

static void uncharge(mill_pool *p, int64_t size) { atomic_fetch_sub_explicit(&p->live, size, memory_order_relaxed); }

/* The block came back to a closed pool, or the closer is done: the last one frees the pool. */
static void leave(mill_pool *p)
{
    if (atomic_fetch_sub_explicit(&p->out, 1, memory_order_acq_rel) != 1) return;
    for (unsigned c = 0; c < N_CLASSES; c++) free_chain(p->classes[c].free, class_bytes(c));
    stm_free(p);
}

/* ---- stocks of threads ----------------------------------------------------------------------------------------------- */

typedef struct stock {
    mill_pool *pool;
    int32_t n[STOCK_CLASSES];
    block *blocks[STOCK_CLASSES][STOCK];
} stock;

static _Thread_local stock *mine __attribute__((tls_model("initial-exec")));

/* Half a stock of class c from the shared list, what there is of it; charged at once. */
static void stock_fill(stock *s, unsigned c)
{
    mill_pool *p = s->pool;
    size_class *k = &p->classes[c];
    const int64_t size = (int64_t)class_bytes(c);
    int32_t n = 0;

    lock(&k->lock);
    while (!k->closed && n < STOCK / 2 && k->free != NULL) {
        block *b = k->free;
        SHOW(b, sizeof *b);
        k->free = b->next;
        HIDE(b, (size_t)size);
        s->blocks[c][n++] = b;
    }
    add_free(k, -n);
    k->n_live += n;
    if (k->n_live > k->peak[0]) k->peak[0] = k->n_live;
    k->idle = 0;
    unlock(&k->lock);
    if (n == 0) return;
    s->n[c] = n;
    charge_always(p, n * size);
}

/* Blocks beyond `keep` go back to the shared list, or to the allocator when the pool is closed. */
static void stock_empty(stock *s, unsigned c, int32_t keep)
{
    mill_pool *p = s->pool;
    size_class *k = &p->classes[c];
    const int64_t size = (int64_t)class_bytes(c);
    const int32_t n = s->n[c] - keep;
    bool closed;

    if (n <= 0) return;
    uncharge(p, n * size);
    lock(&k->lock);
    closed = k->closed;
    k->n_live -= n;
    for (int32_t i = keep; !closed && i < s->n[c]; i++) {
        block *b = s->blocks[c][i];
        SHOW(b, sizeof *b);
        b->next = k->free;
        k->free = b;
        HIDE(b, (size_t)size);
    }
    if (!closed) add_free(k, n);
    unlock(&k->lock);
    for (int32_t i = keep; closed && i < s->n[c]; i++) {
        SHOW(s->blocks[c][i], (size_t)size);
        stm_free(s->blocks[c][i]);
        leave(p);
    }
    s->n[c] = keep;
}

void stm_pool_attach(mill_pool *pool)
{
    if (mine != NULL) return;
    mine = stm_calloc(sizeof *mine);
    if (mine != NULL) mine->pool = pool;
}

void stm_pool_detach(void)
{
    if (mine == NULL) return;
    for (unsigned c = 0; c < STOCK_CLASSES; c++) stock_empty(mine, c, 0);
    stm_free(mine);
    mine = NULL;
}

/* A class of small blocks that ran empty gets half as many again as are live, so that it stops running empty after a few times
 * however slowly the number in flight creeps to its peak. Best effort. */
static void grow_ahead(mill_pool *p, unsigned c)
{
    size_class *k = &p->classes[c];
    const size_t size = class_bytes(c);
    block *chain = NULL, *last = NULL;
    int64_t want, n = 0;
    bool closed;

    lock(&k->lock);
    want = k->n_live / 2;
    unlock(&k->lock);
    if (want > AHEAD) want = AHEAD;
    for (; n < want; n++) {
        block *b = stm_aligned(size, size >= LINE ? LINE : 16);
        if (b == NULL) break;
        b->next = chain;
        if (chain == NULL) last = b;
        chain = b;
    }
    if (n == 0) return;
    lock(&k->lock);
    closed = k->closed;
    if (!closed) {
        last->next = k->free;
        k->free = chain;
        add_free(k, n);
        for (block *b = chain; n > 0; n--) { /* hidden from plugins, as every free block */
            block *next = b->next;
            HIDE(b, size);
            b = next;
        }
    }
    unlock(&k->lock);
    if (closed) free_chain(chain, size);
}

/* Blocks above the largest class are counted in the last class for closing, with their own size for bytes. */
static __attribute__((noinline)) void *take_shared(mill_pool *p, size_t bytes)
{
    const unsigned c = class_of(bytes), slot = c < N_CLASSES ? c : N_CLASSES - 1;
    const size_t size = stm_pool_block_bytes(bytes);
    size_class *k = &p->classes[slot];
    block *b = NULL;
    bool closed;

    if (!charge(p, (int64_t)size)) return NULL;
    lock(&k->lock);
    if (k->closed) {
        unlock(&k->lock);
        uncharge(p, (int64_t)size);
        return NULL;
    }
    k->idle = 0;
    if (++k->n_live > k->peak[0]) k->peak[0] = k->n_live;
    if (c == slot && k->free != NULL) {
        b = k->free;
        SHOW(b, sizeof *b);
        k->free = b->next;
        add_free(k, -1);
    }
    unlock(&k->lock);
    if (b != NULL) {
        SHOW(b, bytes);
        return b;
    }
    shed_surplus(p);
    atomic_fetch_add_explicit(&p->misses, 1, memory_order_relaxed);
    b = stm_aligned(size, size >= LINE ? LINE : 16);
    if (b != NULL) {
        HIDE((char *)b + bytes, size - bytes);
        if (c < STOCK_CLASSES) grow_ahead(p, c);
        return b;
    }
    uncharge(p, (int64_t)size);
    lock(&k->lock);
    k->n_live--;
    closed = k->closed; /* while the allocator was busy: then this block was counted */
    unlock(&k->lock);
    if (closed) leave(p);
    return NULL;
}

static __attribute__((noinline)) void give_shared(mill_pool *p, void *ptr, size_t bytes)
{
    const unsigned c = class_of(bytes), slot = c < N_CLASSES ? c : N_CLASSES - 1;
    const size_t size = stm_pool_block_bytes(bytes);
    size_class *k = &p->classes[slot];
    block *b = ptr;
    bool closed;

    uncharge(p, (int64_t)size);
    lock(&k->lock);
    closed = k->closed;
    k->n_live--;
    if (!closed && c == slot) {
        SHOW(b, sizeof *b);
        b->next = k->free;
        k->free = b;
        add_free(k, 1);
        HIDE(b, size);
    }
    unlock(&k->lock);
    if (closed || c != slot) {
        SHOW(b, size);
        stm_free(b);
        if (closed) leave(p);
        return;
    }
    if (size >= PAYLOAD_BYTES && (atomic_fetch_add_explicit(&p->gives, 1, memory_order_relaxed) + 1) % WINDOW == 0) look_back(p);
}

/* The way of nearly every call: a block from or to the thread's own stock, nothing shared touched. All else is a call at the end of
 * the function, so that this way saves no registers. */
static __attribute__((noinline)) void *take_refilled(stock *s, unsigned c, size_t bytes)
{
    block *b;

    stock_fill(s, c);
    if (s->n[c] == 0) return take_shared(s->pool, bytes);
    b = s->blocks[c][--s->n[c]];
    SHOW(b, bytes);
    return b;
}

static __attribute__((noinline)) void give_to_full(stock *s, unsigned c, block *b)
{
    stock_empty(s, c, STOCK / 2);
    s->blocks[c][s->n[c]++] = b;
}

void *stm_pool_take(mill_pool *p, size_t bytes)
{
    stock *s = mine;

    if (s != NULL && s->pool == p && bytes <= STOCK_BYTES) {
        const unsigned c = class_of(bytes);
        const int32_t n = s->n[c];
        block *b;

        if (__builtin_expect(n == 0, 0)) return take_refilled(s, c, bytes);
        s->n[c] = n - 1;
        b = s->blocks[c][n - 1];
        SHOW(b, bytes);
        return b;
    }
    return take_shared(p, bytes);
}

void stm_pool_give(mill_pool *p, void *ptr, size_t bytes)
{
    stock *s = mine;

    if (ptr == NULL) return;
    if (s != NULL && s->pool == p && bytes <= STOCK_BYTES) {
        const unsigned c = class_of(bytes);
        const int32_t n = s->n[c];

        HIDE(ptr, class_bytes(c));
        if (__builtin_expect(n == STOCK, 0)) {
            give_to_full(s, c, ptr);
            return;
        }
        s->blocks[c][n] = ptr;
        s->n[c] = n + 1;
        return;
    }
    give_shared(p, ptr, bytes);
}

void stm_pool_release(mill_pool **pool)
{
    mill_pool *p = *pool;
    int64_t out = 1;

    if (p == NULL) return;
    *pool = NULL;
    for (unsigned c = 0; c < N_CLASSES; c++) lock(&p->classes[c].lock);
    for (unsigned c = 0; c < N_CLASSES; c++) {
        p->classes[c].closed = true;
        out += p->classes[c].n_live;
    }
    atomic_store_explicit(&p->out, out, memory_order_relaxed);
    for (unsigned c = 0; c < N_CLASSES; c++) unlock(&p->classes[c].lock);
    stm_pool_trim(p);
    leave(p);
}

void stm_pool_trim(mill_pool *pool)
{
    for (unsigned c = 0; c < N_CLASSES; c++) shed_class(pool, c, 0);
}

int64_t stm_pool_live(const mill_pool *pool)
{
    return atomic_load_explicit(&((mill_pool *)(uintptr_t)pool)->live, memory_order_relaxed);
}

stm_pool_stats stm_pool_counts(const mill_pool *pool)
{
    mill_pool *p = (mill_pool *)pool;
    stm_pool_stats s;

    s.live_bytes = atomic_load_explicit(&p->live, memory_order_relaxed);
    s.held_bytes = held_bytes(p);
    s.peak_bytes = atomic_load_explicit(&p->peak, memory_order_relaxed);
    s.misses = atomic_load_explicit(&p->misses, memory_order_relaxed);
    return s;
}
