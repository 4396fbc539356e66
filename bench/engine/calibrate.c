/* Prints the two limits that the figures stand beside: steps of work per microsecond, and the cost of a plain call per batch and
 * hop. */
#include "peer.h"

static __attribute__((noinline)) void hop(peer_batch *b, int stage)
{
    __asm__ volatile("" : "+r"(b));
    b->seen[stage] = b->seq;
}

int main(void)
{
    double steps = 0, call = 1e9;

    peer_open(0, NULL);
    for (int i = 0; i < 40; i++) {
        int64_t t = peer_now();
        (void)peer_chain(200000, 3);
        const double rate = 200000.0 * 1000.0 / (double)(peer_now() - t);
        if (rate > steps) steps = rate;
        t = peer_now();
        for (int n = 0; n < 100000; n++)
            for (int k = 0; k < 4; k++) hop(&peer.pool[n % PEER_POOL], k % 3);
        const double ns = (double)(peer_now() - t) / 400000.0;
        if (ns < call) call = ns;
    }
    printf("{\"steps_per_us\": %.1f, \"call_ns\": %.3f}\n", steps, call);
    return 0;
}
