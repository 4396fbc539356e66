#include "steps/http/rate.h"

#define MINUTE_NS 60e9
#define BUCKET_NS 6e9 /* a burst of a tenth of a minute: servers count in windows of a minute, some of them in shorter ones */

void stm_rate_init(stm_rate *r, double per_minute, int64_t now_ns)
{
    r->per_ns = per_minute > 0.0 ? per_minute / MINUTE_NS : 0.0;
    r->most = r->per_ns * BUCKET_NS > 1.0 ? r->per_ns * BUCKET_NS : 1.0;
    r->have = r->most;
    r->at_ns = now_ns;
}

int64_t stm_rate_wait(stm_rate *r, double n, int64_t now_ns)
{
    const double need = n < r->most ? n : r->most;

    if (r->per_ns <= 0.0) return 0;
    r->have += (double)(now_ns - r->at_ns) * r->per_ns;
    if (r->have > r->most) r->have = r->most;
    r->at_ns = now_ns;
    if (r->have >= need) return 0;
    const double wait = (need - r->have) / r->per_ns;
    return wait < 3600e9 ? (int64_t)wait + 1 : (int64_t)3600e9;
}

void stm_rate_take(stm_rate *r, double n)
{
    if (r->per_ns <= 0.0) return;
    r->have -= n;
    if (r->have > r->most) r->have = r->most;
}
