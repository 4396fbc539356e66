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
static double drain_seconds; /* written before the thread starts */
static bool hup_ignored;     /* likewise */

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

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

/* The time is over. No clean-up: something hangs, and nothing here may wait for it. */
static void leave(void)
{
    mill_error err = {0};
    char text[1400];
    const bool locked = pthread_mutex_trylock(&lock) == 0;

    if (locked && watched != NULL && mill_run_hung(watched, &err)) {
        mill_error_format(&err, text, sizeof text - 64);
        say("stepmill: ");
        say(text);
        say("\n");
    }
    say("stepmill: stopped at the deadline; what was not written is lost\n");
    _exit(MILL_EXIT_STOPPED);
}

static void *take_signals(void *unused)
{
    sigset_t set;
    double deadline = -1;

    (void)unused;
    set_of(&set);
    for (;;) {
        struct timespec wait = {3600, 0};
        double left = deadline < 0 ? 3600 : deadline - now();
        int sig;

        if (left < 0) left = 0;
        wait.tv_sec = (time_t)left;
        wait.tv_nsec = (long)((left - (double)wait.tv_sec) * 1e9);
        sig = sigtimedwait(&set, NULL, &wait);
        if (sig < 0 && errno == EINTR) continue;
        pthread_mutex_lock(&lock);
        if (sig >= 0) {
            came++;
            draining = came == 1 && sig != SIGTERM && sig != SIGHUP;
            deadline = now() + (came > 1 ? 1.0 : draining ? drain_seconds : 4.0);
        } else if (deadline >= 0 && now() >= deadline && draining) { /* it would not drain: now as on TERM */
            draining = false;
            deadline = now() + 4.0;
        } else if (deadline >= 0 && now() >= deadline) {
            pthread_mutex_unlock(&lock);
            leave();
        }
        if (came > 0 && watched != NULL) mill_run_stop(watched, draining);
        pthread_mutex_unlock(&lock);
        if (sig >= 0)
            say(draining ? "\nstepmill: finishing the rows in the pipeline; once more to stop now\n" : "\nstepmill: stopping\n");
    }
    return NULL;
}

bool signals_start(double drain_s)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t set;
    struct sigaction hup;
    bool ok;

    hup_ignored = sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler == SIG_IGN;
    set_of(&set);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0 || pthread_attr_init(&attr) != 0) return false;
    drain_seconds = drain_s;
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
