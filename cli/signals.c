#include "signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static mill_run *watched;    /* lock */
static int came;             /* lock; number of signals so far */
static bool draining;        /* lock; the last one asked for a drain */
static double drain_seconds; /* written before the thread starts, as are the next three */
static mill_child *child;    /* NULL = nobody supervises */
static double ask, gone;     /* when the time left asks for a drain, and when all must be over; by time_limit_now; 0 = no limit */
static bool hup_ignored;     /* written by signals_block */

/* Whoever supervises ends this process at the full times: it is better to go by oneself, and say what hung. */
#define STOP_S (child != NULL ? 3.7 : 4.0)
#define AGAIN_S (child != NULL ? 0.75 : 1.0)
#define KEEP_S 0.25 /* of the time left, for the same reason */

static void set_of(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGUSR1);
    if (!hup_ignored) sigaddset(set, SIGHUP); /* the terminal has gone: as TERM, unless under nohup */
}

static void say(const char *text)
{
    const size_t n = strlen(text);

    if (write(STDERR_FILENO, text, n) != (ssize_t)n) return; /* nothing to be done about it */
}

/* The lock is held for moments only; but on a busy machine its holder may have lost its processor. */
static bool lock_soon(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 100000000L;
    if (until.tv_nsec >= 1000000000L) until.tv_sec++, until.tv_nsec -= 1000000000L;
    return pthread_mutex_timedlock(&lock, &until) == 0;
}

/* The time is over, counted from the signal; the run may have been told much later, if it was being started then. So whoever is
 * inside a call is named, however short a time it has known. No clean-up: something hangs, and nothing here may wait for it. */
static void leave(void)
{
    mill_error err = {0};
    char text[1400];

    if (lock_soon() && watched != NULL && mill_run_at_work(watched, &err)) {
        mill_error_format(&err, text, sizeof text - 64);
        say("stepmill: ");
        say(text);
        say("\n");
    }
    say("stepmill: stopped at the deadline; what was not written is lost\n");
    if (child != NULL) mill_child_end(child);
    _exit(MILL_EXIT_STOPPED);
}

/* The next signal; 0: none came in @p left_s. */
static int next(double left_s)
{
    /* whoever supervises has the same limit, and asks */
    const double asked = child == NULL && ask > 0 ? ask - time_limit_now() : 1e9;

    if (asked <= 0) {
        ask = 0;
        return SIGUSR1;
    }
    if (asked < left_s) left_s = asked;
    struct timespec wait = {(time_t)left_s, (long)((left_s - (double)(time_t)left_s) * 1e9)};
    sigset_t set;
    int sig;

    if (child != NULL) return mill_child_command(child, left_s);
    set_of(&set);
    do sig = sigtimedwait(&set, NULL, &wait);
    while (sig < 0 && errno == EINTR);
    return sig > 0 ? sig : 0;
}

/* When a time that begins now is over: the time left in all may be shorter, and @p keep of it, but at most half, is for what comes
 * after. */
static double over_in(double seconds, double keep)
{
    const double t = time_limit_now(), left = gone > t ? gone - t : 0;

    if (keep > left / 2) keep = left / 2;
    return gone <= 0 || seconds < left - keep ? t + seconds : t + left - keep;
}

static void *take_signals(void *unused)
{
    double deadline = -1;

    (void)unused;
    for (;;) {
        const double left = deadline < 0 ? 3600 : deadline - time_limit_now();
        const int sig = next(left > 0 ? left : 0);

        pthread_mutex_lock(&lock);
        if (sig > 0) {
            came++;
            draining = came == 1 && sig != SIGTERM && sig != SIGHUP;
            deadline = came > 1   ? over_in(AGAIN_S, 0)
                       : draining ? over_in(drain_seconds, STOP_S + KEEP_S)
                                  : over_in(STOP_S, KEEP_S);
        } else if (deadline >= 0 && time_limit_now() >= deadline && draining) { /* it would not drain: now as on TERM */
            draining = false;
            deadline = over_in(STOP_S, KEEP_S);
        } else if (deadline >= 0 && time_limit_now() >= deadline) {
            pthread_mutex_unlock(&lock);
            leave();
        }
        if (came > 0 && watched != NULL) mill_run_stop(watched, draining);
        pthread_mutex_unlock(&lock);
        if (sig > 0)
            say(draining ? "\nstepmill: finishing the rows in the pipeline; once more to stop now\n" : "\nstepmill: stopping\n");
    }
    return NULL;
}

void signals_block(void)
{
    sigset_t set;
    struct sigaction hup;

    hup_ignored = sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler == SIG_IGN;
    set_of(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

bool signals_start(double drain_s, const time_limit *limit, mill_child *of)
{
    pthread_t thread;
    pthread_attr_t attr;
    bool ok;

    if (pthread_attr_init(&attr) != 0) return false;
    drain_seconds = drain_s;
    ask = limit->ask;
    gone = limit->gone;
    child = of;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 128 * 1024);
    ok = pthread_create(&thread, &attr, take_signals, NULL) == 0;
    pthread_attr_destroy(&attr);
    return ok;
}

void signals_watch(mill_run *run)
{
    pthread_mutex_lock(&lock);
    watched = run;
    if (came > 0 && run != NULL) mill_run_stop(run, draining);
    pthread_mutex_unlock(&lock);
}

bool signals_came(void)
{
    bool c;

    pthread_mutex_lock(&lock);
    c = came > 0;
    pthread_mutex_unlock(&lock);
    return c;
}
