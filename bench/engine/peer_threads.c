/* One thread per stage, bounded queues of a mutex and two condition variables: what one writes in an afternoon. */
#include <pthread.h>

#include "peer.h"

enum { ROOM = 16, QUEUES = 5 };

typedef struct queue {
    pthread_mutex_t lock;
    pthread_cond_t filled, freed;
    peer_batch *slots[ROOM]; /* lock */
    unsigned head, tail;     /* lock */
} queue;

static queue queues[QUEUES];
static uint64_t turn; /* B twice: whose batch may be put next; queues[2].lock */

static void put(queue *q, peer_batch *b, bool in_turn)
{
    pthread_mutex_lock(&q->lock);
    while (q->tail - q->head == ROOM || (in_turn && b != NULL && b->seq != turn)) pthread_cond_wait(&q->freed, &q->lock);
    q->slots[q->tail++ % ROOM] = b;
    if (in_turn && b != NULL) {
        turn++;
        pthread_cond_broadcast(&q->freed);
    }
    pthread_cond_signal(&q->filled);
    pthread_mutex_unlock(&q->lock);
}

static peer_batch *take(queue *q)
{
    peer_batch *b;

    pthread_mutex_lock(&q->lock);
    while (q->tail == q->head) pthread_cond_wait(&q->filled, &q->lock);
    b = q->slots[q->head % ROOM];
    if (b != NULL || q != &queues[1]) q->head++; /* the end stays for the other copy of B */
    else pthread_cond_signal(&q->filled);
    pthread_cond_broadcast(&q->freed);
    pthread_mutex_unlock(&q->lock);
    return b;
}

static void *source(void *unused)
{
    (void)unused;
    for (peer_batch *b; (b = peer_make()) != NULL;) {
        put(&queues[0], b, false);
        if (peer.latency) (void)take(&queues[4]); /* until the sink has had it */
    }
    put(&queues[0], NULL, false);
    return NULL;
}

static void *stage(void *index)
{
    const int k = (int)(intptr_t)index;
    peer_batch *b;

    while ((b = take(&queues[k])) != NULL) {
        peer_work(b, k);
        put(&queues[k + 1], b, k == 1 && peer.copies > 1);
    }
    if (k != 1) put(&queues[k + 1], NULL, false);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t from, a, b[2], c;

    peer_open(argc, argv);
    for (int i = 0; i < QUEUES; i++) {
        pthread_mutex_init(&queues[i].lock, NULL);
        pthread_cond_init(&queues[i].filled, NULL);
        pthread_cond_init(&queues[i].freed, NULL);
    }
    pthread_create(&from, NULL, source, NULL);
    pthread_create(&a, NULL, stage, (void *)0);
    for (int i = 0; i < peer.copies; i++) pthread_create(&b[i], NULL, stage, (void *)1);
    pthread_create(&c, NULL, stage, (void *)2);
    for (bool last = false; !last;) {
        peer_batch *got = take(&queues[3]);
        last = peer_take(got);
        if (peer.latency) put(&queues[4], got, false);
    }
    pthread_join(from, NULL);
    pthread_join(a, NULL);
    for (int i = 0; i < peer.copies; i++) pthread_join(b[i], NULL);
    put(&queues[2], NULL, false);
    pthread_join(c, NULL);
    return peer_report();
}
