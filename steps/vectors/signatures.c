/*
 * A band at a time, rows in their order. Rows with the same numbers in it are a bucket; in a bucket rows that are linked already
 * are a class. A row is compared with those of a class until one is alike: then it is of the class, and the rest of it need not be
 * looked at. So a large group costs one comparison a row and band, and only rows that share a band without being alike are all
 * compared.
 */
#include "steps/vectors/signatures.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ASK = 4096 }; /* rows between two looks at whether it should stop */

typedef struct band {
    const stm_signatures *s;
    stm_forest *f;
    int64_t need;          /* equal numbers of two that are alike */
    int64_t from, n;       /* numbers of the band */
    int64_t *slots;       /* [mask + 1] first class of a bucket, by the row that it begins with; -1: free */
    size_t mask;
    int64_t *next_class;  /* [rows] at the first row of a class: that of the next one of the bucket; -1: last */
    int64_t *next, *last; /* [rows] next row of a class, -1: last; at its first row: its last */
} band;

static int64_t equal(const int32_t *a, const int32_t *b, int64_t length)
{
    int64_t n = 0;

    for (int64_t i = 0; i < length; i += 128) { /* sums of a piece fit what is added at once */
        const int64_t end = length - i < 128 ? length : i + 128;
        int32_t some = 0;
        for (int64_t k = i; k < end; k++) some += a[k] == b[k];
        n += some;
    }
    return n;
}

float stm_signatures_score(const int32_t *a, const int32_t *b, int64_t length)
{
    return (float)((double)equal(a, b, length) / (double)length);
}

static uint64_t hash(const int32_t *numbers, int64_t n)
{
    uint64_t h = 0x9e3779b97f4a7c15u;

    for (int64_t i = 0; i < n; i++) {
        h = (h ^ (uint32_t)numbers[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h;
}

/* The slot of the bucket of row @p i: its own, or one that is free. */
static int64_t *bucket_of(band *b, int64_t i)
{
    const int32_t *own = b->s->rows[i] + b->from;

    for (size_t at = hash(own, b->n) & b->mask;; at = (at + 1) & b->mask) {
        const int64_t first = b->slots[at];
        if (first < 0 || memcmp(b->s->rows[first] + b->from, own, (size_t)b->n * sizeof *own) == 0) return &b->slots[at];
    }
}

/* Whether row @p i is of the class that begins with @p first, already or because it is like one of them. */
static bool belongs(band *b, int64_t i, int64_t first)
{
    const int32_t *own = b->s->rows[i];

    if (stm_forest_root(b->f, i) == stm_forest_root(b->f, first)) return true;
    for (int64_t k = first; k >= 0; k = b->next[k])
        if (equal(own, b->s->rows[k], b->s->length) >= b->need) {
            stm_forest_link(b->f, i, k);
            return true;
        }
    return false;
}

static void append(band *b, int64_t to, int64_t rows)
{
    b->next[b->last[to]] = rows;
    b->last[to] = b->last[rows];
}

/* Row @p i joins its bucket; classes that it is of become one. */
static void add(band *b, int64_t i)
{
    int64_t *bucket = bucket_of(b, i), *at = bucket, mine = -1;

    b->next[i] = b->next_class[i] = -1;
    b->last[i] = i;
    while (*at >= 0) {
        const int64_t first = *at;
        if (!belongs(b, i, first)) {
            at = &b->next_class[first];
        } else if (mine < 0) {
            mine = first;
            at = &b->next_class[first];
        } else {
            *at = b->next_class[first];
            append(b, mine, first);
        }
    }
    if (mine < 0)
        *at = i;
    else
        append(b, mine, i);
}

static mill_status link_band(band *b, const int64_t *kinds, int64_t n_kinds, mill_error *err)
{
    for (size_t i = 0; i <= b->mask; i++) b->slots[i] = -1;
    for (int64_t i = 0; i < n_kinds; i++) {
        if (i % ASK == 0 && b->s->cancelled != NULL && b->s->cancelled(b->s->user))
            return mill_fail(err, MILL_ERR_STOPPED, "the search for pairs was told to stop");
        add(b, kinds[i]);
    }
    return MILL_OK;
}

/* Copies are linked at once, and the first of each kind stands for all of it. */
static int64_t link_copies(band *b, int64_t *kinds)
{
    int64_t n = 0;

    b->from = 0, b->n = b->s->length;
    for (size_t i = 0; i <= b->mask; i++) b->slots[i] = -1;
    for (int64_t i = 0; i < b->s->n; i++) {
        int64_t *slot = bucket_of(b, i);
        if (*slot < 0)
            *slot = kinds[n++] = i;
        else
            stm_forest_link(b->f, *slot, i);
    }
    return n;
}

mill_status stm_signatures_link(const stm_signatures *s, stm_forest *f, mill_error *err)
{
    const double share = ceil((double)s->threshold * (double)s->length);
    const int64_t most = s->length > 1 ? s->length / 2 : 1;
    band b = {.s = s, .f = f, .need = share > 0.0 ? (int64_t)share : 0, .mask = 63};
    int64_t *kinds = malloc(((size_t)s->n + 1) * sizeof *kinds), n_kinds, bands = s->length - b.need + 1;
    mill_status st = MILL_OK;

    if (bands > most) bands = most;
    while (b.mask + 1 < 2 * (size_t)s->n) b.mask = 2 * b.mask + 1;
    b.slots = malloc((b.mask + 1) * sizeof *b.slots);
    b.next_class = malloc(((size_t)s->n + 1) * sizeof *b.next_class);
    b.next = malloc(((size_t)s->n + 1) * sizeof *b.next);
    b.last = malloc(((size_t)s->n + 1) * sizeof *b.last);
    if (kinds == NULL || b.slots == NULL || b.next_class == NULL || b.next == NULL || b.last == NULL)
        st = mill_fail(err, MILL_ERR_NOMEM, "no memory for groups of %lld signatures", (long long)s->n);
    if (st == MILL_OK && b.need == 0) {
        for (int64_t i = 1; i < s->n; i++) stm_forest_link(f, 0, i);
    } else if (st == MILL_OK) {
        n_kinds = link_copies(&b, kinds);
        for (int64_t k = 0; k < bands && st == MILL_OK; k++) {
            b.from = k * s->length / bands;
            b.n = (k + 1) * s->length / bands - b.from;
            st = link_band(&b, kinds, n_kinds, err);
        }
    }
    free(kinds);
    free(b.slots);
    free(b.next_class);
    free(b.next);
    free(b.last);
    return st;
}
