#include "steps/http/width.h"

void stm_width_init(stm_width *w, int32_t most) { *w = (stm_width){.most = most, .now = most, .least = most}; }

void stm_width_answer(stm_width *w, uint32_t round, int32_t under_way, bool refused)
{
    if (round != w->round) return;
    if (refused) { /* half of what the server had, which may be less than it was allowed */
        if (under_way < w->now) w->now = under_way;
        w->now = w->now > 1 ? w->now / 2 : 1;
        if (w->now < w->least) w->least = w->now;
        w->good = 0;
        w->round++;
    } else if (w->now < w->most && ++w->good >= w->now) {
        w->now++;
        w->good = 0;
    }
}
