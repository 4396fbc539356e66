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

int mill_child_command(mill_child *c, double timeout_s)
{
    const int64_t until = stm_now_ns() + (int64_t)(timeout_s < 1e9 ? timeout_s * 1e9 : 1e18);
    int64_t now;

    do {
        struct pollfd p = {c->socket, POLLIN, 0};
        unsigned char sig;
        int left;

        now = stm_now_ns();
        atomic_store_explicit(&c->recorder->now_ns, now, memory_order_relaxed);
        left = until - now < STM_BEAT_MS * 1000000LL ? (int)((until - now + 999999) / 1000000) : STM_BEAT_MS;
        look_at_signals(c, now);
        if (poll(&p, 1, left > 0 ? left : 0) <= 0) continue;
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
