/*
 * What every peer of the engine bench shares: its command line, the batch that goes through, work of a fixed number of
 * steps, and the one line of JSON it prints.
 *
 * The pipeline is source -> A -> B -> C -> sink; --copies 2 lets two batches be in B at once. Batches leave the sink in order,
 * at most --inflight are under way. --latency 1: one batch at a time, its time from source to sink is kept.
 */
#ifndef BENCH_ENGINE_PEER_H
#define BENCH_ENGINE_PEER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define PEER_POOL 256 /* more than can be under way */
#define PEER_ROWS 64
#define PEER_HOPS 4

typedef struct peer_batch {
    uint64_t seq, made_ns, sum, seen[3];
    void *columns[PEER_ROWS];
} __attribute__((aligned(64))) peer_batch;

typedef struct peer_run {
    int64_t batches, steps; /* steps: length of the work of A, B and C */
    int inflight, copies, workers;
    bool latency;
    peer_batch *pool; /* [PEER_POOL] */
    int64_t made, done; /* each by one thread at a time */
    int64_t out_of_order;
    int64_t first_ns, last_ns;
    struct rusage before, after;
    int64_t *times; /* [batches] when latency */
} peer_run;

static peer_run peer;

static inline int64_t peer_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* A chain of dependent multiplications: the same amount of work whatever the clock says meanwhile. */
static inline uint64_t peer_chain(int64_t steps, uint64_t x)
{
    for (int64_t i = 0; i < steps; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}

static inline void peer_work(peer_batch *b, int stage)
{
    b->seen[stage] = b->seq;
    b->sum += peer_chain(peer.steps, b->seq) | 1;
}

/* The next batch, or NULL after the last. */
static inline peer_batch *peer_make(void)
{
    peer_batch *b;

    if (peer.made == peer.batches) return NULL;
    if (peer.made == 0) {
        getrusage(RUSAGE_SELF, &peer.before);
        peer.first_ns = peer_now();
    }
    b = &peer.pool[peer.made % PEER_POOL];
    b->seq = (uint64_t)peer.made++;
    if (peer.latency) b->made_ns = (uint64_t)peer_now();
    return b;
}

/* Take a batch out; true after the last. */
static inline bool peer_take(peer_batch *b)
{
    if (peer.latency) peer.times[peer.done] = peer_now() - (int64_t)b->made_ns;
    peer.out_of_order += b->seq != (uint64_t)peer.done;
    if (++peer.done < peer.batches) return false;
    peer.last_ns = peer_now();
    getrusage(RUSAGE_SELF, &peer.after);
    return true;
}

static inline void peer_open(int argc, char **argv)
{
    peer.batches = 100000, peer.inflight = 16, peer.copies = 1, peer.workers = 2;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *o = argv[i];
        const long long v = atoll(argv[i + 1]);
        if (!strcmp(o, "--batches")) peer.batches = v;
        else if (!strcmp(o, "--steps")) peer.steps = v;
        else if (!strcmp(o, "--inflight")) peer.inflight = (int)v;
        else if (!strcmp(o, "--copies")) peer.copies = (int)v;
        else if (!strcmp(o, "--workers")) peer.workers = (int)v;
        else if (!strcmp(o, "--latency")) peer.latency = v != 0;
        else {
            fprintf(stderr, "unknown option %s\n", o);
            exit(64);
        }
    }
    if (peer.latency) peer.inflight = 1;
    peer.pool = (peer_batch *)aligned_alloc(64, sizeof(peer_batch) * PEER_POOL);
    peer.times = (int64_t *)calloc((size_t)peer.batches, sizeof *peer.times);
    if (peer.pool == NULL || peer.times == NULL) exit(1);
    memset(peer.pool, 0, sizeof(peer_batch) * PEER_POOL);
}

static inline int peer_by_size(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static inline double peer_cpu_ns(const struct rusage *u)
{
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1e9 + (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) * 1e3;
}

static inline int peer_report(void)
{
    const double n = (double)peer.batches;
    int64_t skip = peer.batches / 10, m = peer.batches - skip;

    if (peer.done != peer.batches || peer.out_of_order != 0) {
        fprintf(stderr, "%lld of %lld batches, %lld out of order\n", (long long)peer.done, (long long)peer.batches,
                (long long)peer.out_of_order);
        return 1;
    }
    qsort(peer.times + skip, (size_t)m, sizeof *peer.times, peer_by_size); /* the first tenth warms up */
    printf("{\"batch_ns\": %.2f, \"cpu_ns\": %.2f, \"switches\": %.5f, \"p50_ns\": %lld, \"p99_ns\": %lld}\n",
           (double)(peer.last_ns - peer.first_ns) / n, (peer_cpu_ns(&peer.after) - peer_cpu_ns(&peer.before)) / n,
           (double)(peer.after.ru_nvcsw - peer.before.ru_nvcsw) / n, (long long)peer.times[skip + m / 2],
           (long long)peer.times[skip + m * 99 / 100]);
    return 0;
}

#endif
