#include "supervise/child.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/clock.h"
#include "stepmill/run.h"

/* Somebody sent a signal to this process: the parent is the one to act on it. */
static void look_at_signals(mill_child *c, int64_t now)
{
    struct signalfd_siginfo s;

    if (c->direct_ns == 0 && read(c->signals, &s, sizeof s) == (ssize_t)sizeof s && now - c->heard_ns > STM_SAME_SIGNAL_NS) {
        c->direct = (int)s.ssi_signo;
        c->direct_ns = now + STM_SAME_SIGNAL_NS;
    }
    if (c->direct_ns == 0 || now < c->direct_ns) return;
    c->direct_ns = 0;
    if (now - c->heard_ns > 2 * STM_SAME_SIGNAL_NS) kill((pid_t)c->recorder->supervisor, c->direct);
}

/* Whether a call into a step has begun since the clock of the records went on: then it must be told from the next one. */
static bool any_began(const stm_recorder *r)
{
    const int64_t clock = atomic_load_explicit(&r->now_ns, memory_order_relaxed);
    const int32_t n = atomic_load_explicit(&r->n_records, memory_order_relaxed);

    for (int32_t i = 0; i < n; i++)
        if (atomic_load_explicit(&r->records[i].since_ns, memory_order_relaxed) == clock) return true;
    return false;
}

int mill_child_command(mill_child *c, double timeout_s)
{
    const int64_t until = stm_now_ns() + (int64_t)(timeout_s < 1e9 ? timeout_s * 1e9 : 1e18);
    int64_t now;

    do {
        const int64_t beat_ns = any_began(c->recorder) && STM_BEAT_NS < c->rest_ns ? STM_BEAT_NS : c->rest_ns;
        int64_t next;
        unsigned char sig;

        now = stm_now_ns();
        atomic_store_explicit(&c->recorder->now_ns, now, memory_order_relaxed);
        look_at_signals(c, now);
        next = until - now < beat_ns ? until : now + beat_ns;
        if (c->direct_ns != 0 && c->direct_ns < next) next = c->direct_ns;
        /* one that waits to be handed up is the only one that is looked at */
        struct pollfd p[] = {{c->socket, POLLIN, 0}, {c->direct_ns == 0 ? c->signals : -1, POLLIN, 0}};
        if (poll(p, 2, next > now ? (int)((next - now + 999999) / 1000000) : 0) <= 0 || p[0].revents == 0) continue;
        switch (recv(c->socket, &sig, 1, MSG_DONTWAIT)) {
        case 1: c->heard_ns = now; return sig;
        case 0: kill(getpid(), SIGKILL); /* the parent has gone, and the kernel has not told us yet */
        default: break;
        }
    } while (now < until);
    return 0;
}

int mill_child_number(const mill_child *c) { return c->recorder->worker; }
bool mill_child_went_on(const mill_child *c) { return atomic_load(&c->recorder->begun) != 0; }
void mill_child_end(mill_child *c) { atomic_store(&c->recorder->ended, 1); }

void mill_child_lose(mill_child *c, const mill_error *cause)
{
    stm_recorder_lose(c->recorder, cause);
    fflush(NULL);
    _exit(MILL_EXIT_PROCESS);
}
