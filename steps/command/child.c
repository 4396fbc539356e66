#include "steps/command/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "steps/command/guard.h"
#include "steps/command/idle.h"
#include "steps/command/spawn.h"

#define PADDING 64                   /* as STM_LINE_PADDING */
#define SETTLE_MS 50                 /* how long to wait for answers that nobody asked for, of what does not wait for input */
#define SETTLE_MOST_MS 2000          /* and where it computes all the time */
#define CLOSED_MS 5000               /* how long a process may live that has closed its output */
#define TICK_MS 50                   /* where the kernel does not tell, cancelled() and its end are looked at this often, */
#define TICK_MOST_MS 500             /* less often where the wait is long: waiting costs next to nothing then */
#define TICK_SHARE 8                 /* a tick is at most this part of the wait so far */
#define LOOK_SHARE 4                 /* whether it holds back is looked at again after this part of the time that it was quiet, */
#define LOOK_MOST_MS 5000            /* or so long */
#define WAIT_MOST_MS 60000           /* where the kernel tells all */
#define STOPPED_MS 500               /* how much later than it we may hear of a stop */
#define TAIL_BYTES 400               /* of its standard error, for messages */
#define WRITE_BYTES (1 << 20)        /* at a time */
#define LOG_LINES 40                 /* per conversation that are handed on; the rest is counted */
#define KEEP_BYTES ((size_t)1 << 20) /* a bigger buffer is given back after the conversation */

struct stm_child {
    stm_child_opts opts;
    pid_t pid;   /* 0 = none runs */
    int pidfd;   /* -1 = the kernel has none: the tick looks */
    int in, out, err;
    stm_guard guard; /* leads its process group, and kills that when this process is gone; without one it leads its group itself */
    bool ended;      /* waited for; `wait_status` holds */
    int wait_status;
    char *buf;   /* [cap + PADDING] its output */
    size_t cap, begin, end, scanned;
    bool out_end;
    bool answered;   /* a conversation was held */
    bool quiet_told; /* of this process */
    char line[1024]; /* of its standard error, being gathered */
    size_t line_bytes;
    long log_lines; /* in this conversation */
    char tail[TAIL_BYTES + 1];
    size_t tail_bytes;
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

mill_status stm_child_create(const stm_child_opts *opts, stm_child **out, mill_error *err)
{
    stm_child *c = calloc(1, sizeof *c);

    if (c == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a command");
    c->opts = *opts;
    c->pidfd = c->in = c->out = c->err = c->guard.fd = -1;
    *out = c;
    return MILL_OK;
}

bool stm_child_running(const stm_child *c) { return c->pid != 0; }

bool stm_child_has_more(const stm_child *c)
{
    struct pollfd p = {.fd = c->out, .events = POLLIN};

    return c->answered && (c->end > c->begin || (c->out >= 0 && poll(&p, 1, 0) > 0 && (p.revents & POLLIN)));
}

/* ---- start -------------------------------------------------------------------------------------------------------- */

/* A pipe whose ends are above 2, so that putting the far one in place in the child never lands on another. */
static int high_pipe(int fds[2])
{
    int p[2];

    if (pipe2(p, O_CLOEXEC) != 0) return errno;
    for (int i = 0; i < 2; i++) {
        fds[i] = p[i] > 2 ? p[i] : fcntl(p[i], F_DUPFD_CLOEXEC, 3);
        const int e = errno;
        if (fds[i] != p[i]) close(p[i]);
        if (fds[i] < 0) {
            if (i == 0) close(p[1]);
            else close_fd(&fds[0]);
            return e;
        }
    }
    return 0;
}

static mill_status cannot_start(const stm_child *c, int e, mill_error *err)
{
    const char *program = c->opts.argv[0];

    mill_fail(err, e == ENOENT ? MILL_ERR_NOT_FOUND : MILL_ERR_IO, "cannot start %s: %s", program, strerror(e));
    if (e == ENOENT && c->opts.argv[1] == NULL && strchr(program, ' ') != NULL)
        mill_error_remedy(err, "No shell reads argv: write a list, [program, argument, ...], or [sh, -c, '...']");
    return e == ENOENT ? MILL_ERR_NOT_FOUND : MILL_ERR_IO;
}

mill_status stm_child_find(const stm_child *c, mill_error *err)
{
    const int e = stm_spawn_find(&(stm_spawn_opts){.argv = c->opts.argv, .cwd = c->opts.cwd});

    return e == 0 ? MILL_OK : cannot_start(c, e, err);
}

mill_status stm_child_start(stm_child *c, mill_error *err)
{
    int pipes[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}}, e = 0;

    if (c->pid != 0) return MILL_OK;
    stm_guard_start(&c->guard);
    for (int i = 0; i < 3 && e == 0; i++) e = high_pipe(pipes[i]);
    if (e == 0) {
        const stm_spawn_opts opts = {.argv = c->opts.argv,
                                     .envp = c->opts.envp,
                                     .cwd = c->opts.cwd,
                                     .fds = {pipes[0][0], pipes[1][1], pipes[2][1]},
                                     .group = c->guard.pid};
        e = stm_spawn(&opts, &c->pid);
    }
    close_fd(&pipes[0][0]);
    close_fd(&pipes[1][1]);
    close_fd(&pipes[2][1]);
    if (e != 0) {
        stm_guard_stop(&c->guard);
        close_fd(&pipes[0][1]);
        close_fd(&pipes[1][0]);
        close_fd(&pipes[2][0]);
        return cannot_start(c, e, err);
    }
    c->in = pipes[0][1];
    c->out = pipes[1][0];
    c->err = pipes[2][0];
    (void)fcntl(c->in, F_SETFL, O_NONBLOCK);
    (void)fcntl(c->out, F_SETFL, O_NONBLOCK);
    (void)fcntl(c->err, F_SETFL, O_NONBLOCK);
    c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0); /* close-on-exec by itself */
    c->ended = c->out_end = c->answered = c->quiet_told = false;
    c->begin = c->end = c->scanned = 0;
    c->line_bytes = c->tail_bytes = 0;
    return MILL_OK;
}

/* ---- end ---------------------------------------------------------------------------------------------------------- */

/* All of its group. The number is the guard's, or without one its own, so it is nobody else's before that was waited for. */
static int signal_group(const stm_child *c, int sig) { return kill(c->guard.pid != 0 ? -c->guard.pid : -c->pid, sig); }

/* Whether it has ended; keeps how. What it left behind goes with it. */
static bool reap(stm_child *c, bool block)
{
    siginfo_t info = {0};

    if (c->pid == 0 || c->ended) return true;
    int rc;
    do rc = waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOWAIT | (block ? 0 : WNOHANG));
    while (rc != 0 && errno == EINTR);
    if (rc == 0 && info.si_pid == 0) return false;
    (void)signal_group(c, SIGKILL);
    stm_guard_stop(&c->guard);
    c->wait_status = 0;
    do rc = waitpid(c->pid, &c->wait_status, 0);
    while (rc < 0 && errno == EINTR);
    if (rc < 0) c->wait_status = -1; /* somebody else waited for it */
    c->ended = true;
    return true;
}

/* Closes everything; afterwards it can be started again. */
static void forget(stm_child *c)
{
    close_fd(&c->in);
    close_fd(&c->out);
    close_fd(&c->err);
    close_fd(&c->pidfd);
    c->pid = 0;
    c->begin = c->end = 0;
    c->answered = false;
    if (c->cap > KEEP_BYTES) {
        free(c->buf);
        c->buf = NULL;
        c->cap = 0;
    }
}

void stm_child_kill(stm_child *c)
{
    if (c->pid == 0) return;
    if (!c->ended) (void)signal_group(c, SIGKILL);
    (void)reap(c, true);
    forget(c);
}

static bool gone_within(stm_child *c, double seconds)
{
    const int64_t until = now_ms() + (int64_t)(seconds * 1000);

    while (!reap(c, false)) {
        struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
        const int64_t left = until - now_ms();
        if (left <= 0) return false;
        (void)poll(&p, c->pidfd >= 0, c->pidfd >= 0 ? (int)left : (int)(left < 5 ? left : 5));
    }
    return true;
}

void stm_child_destroy(stm_child **cp, double grace_s)
{
    stm_child *c = *cp;

    if (c == NULL) return;
    if (c->pid != 0) {
        close_fd(&c->in);
        close_fd(&c->out); /* should it be writing: it is not to wait for us */
        close_fd(&c->err);
        if (!gone_within(c, grace_s) && signal_group(c, SIGTERM) == 0) (void)gone_within(c, grace_s);
        stm_child_kill(c);
    }
    free(c->buf);
    free(c);
    *cp = NULL;
}

/* ---- conversation --------------------------------------------------------------------------------------------------- */

static void keep_tail(stm_child *c, const char *text, size_t n)
{
    if (n > TAIL_BYTES) {
        text += n - TAIL_BYTES;
        n = TAIL_BYTES;
    }
    if (c->tail_bytes + n > TAIL_BYTES) {
        const size_t drop = c->tail_bytes + n - TAIL_BYTES;
        memmove(c->tail, c->tail + drop, c->tail_bytes - drop);
        c->tail_bytes -= drop;
    }
    memcpy(c->tail + c->tail_bytes, text, n);
    c->tail_bytes += n;
}

static void flush_log_line(stm_child *c, const stm_child_hooks *hooks)
{
    if (c->line_bytes == 0) return;
    c->line[c->line_bytes] = 0;
    c->line_bytes = 0;
    if (c->log_lines++ < LOG_LINES) hooks->log(hooks->user, c->line);
}

static void read_stderr(stm_child *c, const stm_child_hooks *hooks)
{
    char buf[4096];
    ssize_t n;

    /* Bounded: a child that floods its standard error must not keep us here. */
    for (int round = 0; round < 64 && (n = read(c->err, buf, sizeof buf)) > 0; round++) {
        keep_tail(c, buf, (size_t)n);
        for (ssize_t i = 0; i < n; i++) {
            if (buf[i] != '\n' && c->line_bytes < sizeof c->line - 1) c->line[c->line_bytes++] = buf[i];
            if (buf[i] == '\n' || c->line_bytes == sizeof c->line - 1) flush_log_line(c, hooks);
        }
        if ((size_t)n < sizeof buf) break;
    }
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) close_fd(&c->err);
}

/* The end of its standard error as one line. */
static const char *tail_text(stm_child *c)
{
    size_t from = 0;

    while (c->tail_bytes > 0 && (unsigned char)c->tail[c->tail_bytes - 1] <= ' ') c->tail_bytes--;
    for (size_t i = 0; i < c->tail_bytes; i++)
        if ((unsigned char)c->tail[i] < ' ') c->tail[i] = ' ';
    while (from < c->tail_bytes && ((unsigned char)c->tail[from] & 0xc0) == 0x80) from++; /* cut inside of a character */
    c->tail[c->tail_bytes] = 0;
    return c->tail + from;
}

static mill_status died(stm_child *c, const char *when, mill_error *err)
{
    char how[96];
    const char *tail = tail_text(c), *stderr_says = tail[0] ? "; standard error: " : "";
    const int s = c->wait_status;

    if (s == -1) snprintf(how, sizeof how, "ended");
    else if (WIFEXITED(s)) snprintf(how, sizeof how, "exited with code %d", WEXITSTATUS(s));
    else snprintf(how, sizeof how, "was killed by signal %d (%s)", WTERMSIG(s), strsignal(WTERMSIG(s)));
    return mill_fail(err, MILL_ERR_STEP, "%s %s %s%s%s", c->opts.argv[0], how, when, stderr_says, tail);
}

/* How somebody ends who was told to: by one of the signals for it, or with the code that shells give for that, or of his own free
 * will. */
static bool by_signal(const stm_child *c)
{
    static const int those[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    const int s = c->wait_status, sig = s == -1 ? 0 : WIFSIGNALED(s) ? WTERMSIG(s) : WEXITSTATUS(s) - 128;

    for (size_t i = 0; i < sizeof those / sizeof *those; i++)
        if (sig == those[i]) return true;
    return false;
}

/* It ended before its time: whether that is because all of us are to stop. */
static bool stopped_too(const stm_child *c, const stm_child_hooks *hooks)
{
    const int64_t until = now_ms() + STOPPED_MS;

    if (!by_signal(c) && c->wait_status != 0) return false;
    while (!hooks->cancelled(hooks->user)) {
        if (now_ms() >= until) return false;
        (void)poll(NULL, 0, 5);
    }
    return true;
}

/* write() that gives EPIPE and no signal, whatever the program that we are part of does about SIGPIPE. */
static ssize_t write_quietly(int fd, const char *p, size_t n)
{
    const struct timespec no_time = {0, 0};
    sigset_t pipe_only, before, pending;

    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    const ssize_t w = write(fd, p, n);
    const int e = errno;
    if (w < 0 && e == EPIPE && !sigismember(&pending, SIGPIPE))
        while (sigtimedwait(&pipe_only, NULL, &no_time) < 0 && errno == EINTR) continue;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = e;
    return w;
}

static mill_status room(stm_child *c, mill_error *err)
{
    if (c->begin > 0) {
        memmove(c->buf, c->buf + c->begin, c->end - c->begin);
        c->end -= c->begin;
        c->begin = 0;
    }
    if (c->cap - c->end >= 16384) return MILL_OK;
    const size_t cap = c->cap ? 2 * c->cap : 65536;
    char *bigger = realloc(c->buf, cap + PADDING);
    if (bigger == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a line of %zu bytes", c->end);
    memset(bigger + cap, 0, PADDING);
    c->buf = bigger;
    c->cap = cap;
    return MILL_OK;
}

/* Hands over whole lines. At the end of its output a last line without newline counts, too. */
static mill_status give_lines(stm_child *c, const stm_child_hooks *hooks, bool *done, mill_error *err)
{
    if (c->buf == NULL) return MILL_OK; /* nothing has come yet */
    while (!*done) {
        const char *text = c->buf + c->begin;
        const size_t there = c->end - c->begin;
        const char *nl = there > c->scanned ? memchr(text + c->scanned, '\n', there - c->scanned) : NULL;
        const size_t bytes = nl != NULL ? (size_t)(nl - text) : there;
        if (bytes > c->opts.max_line)
            return mill_fail(err, MILL_ERR_DATA, "%s answered with a line of more than %zu bytes", c->opts.argv[0],
                             c->opts.max_line);
        if (nl == NULL && !(c->out_end && there > 0)) {
            c->scanned = there;
            return MILL_OK;
        }
        c->begin += bytes + (nl != NULL);
        c->scanned = 0;
        const mill_status st = hooks->line(hooks->user, text, bytes, done, err);
        if (st != MILL_OK) return st;
    }
    return MILL_OK;
}

static mill_status read_stdout(stm_child *c, const stm_child_hooks *hooks, bool *done, mill_error *err)
{
    mill_status st;

    if ((st = room(c, err)) != MILL_OK) return st;
    const ssize_t n = read(c->out, c->buf + c->end, c->cap - c->end);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return MILL_OK;
    if (n < 0) return mill_fail(err, MILL_ERR_IO, "cannot read from %s: %s", c->opts.argv[0], strerror(errno));
    c->end += (size_t)n;
    if (n == 0) {
        c->out_end = true;
        close_fd(&c->out);
    }
    return give_lines(c, hooks, done, err);
}

typedef struct talk { /* what is left to write */
    const char *text;
    size_t bytes;
    bool close_input;
    bool refused; /* it closed its input before it had all */
    int stop_fd;      /* hooks->cancel_fd */
    int64_t moved_ms; /* when it last took or gave something */
    int64_t closed_ms; /* since when its output has ended; 0 = it has not */
} talk;

static mill_status write_some(stm_child *c, talk *t, mill_error *err)
{
    const ssize_t w = write_quietly(c->in, t->text, t->bytes < WRITE_BYTES ? t->bytes : WRITE_BYTES);

    if (w < 0 && (errno == EAGAIN || errno == EINTR)) return MILL_OK;
    if (w < 0 && errno != EPIPE) return mill_fail(err, MILL_ERR_IO, "cannot write to %s: %s", c->opts.argv[0], strerror(errno));
    if (w < 0) { /* it closed its input; what it answers and how it ends will tell */
        t->bytes = 0;
        t->refused = true;
        close_fd(&c->in);
        return MILL_OK;
    }
    t->text += w;
    t->bytes -= (size_t)w;
    if (t->bytes == 0 && t->close_input) close_fd(&c->in);
    return MILL_OK;
}

static mill_status serve(stm_child *c, talk *t, int64_t tick_ms, bool *done, const stm_child_hooks *hooks, mill_error *err)
{
    enum { IN, OUT, ERR, END, STOP, N };
    struct pollfd p[N] = {{.fd = t->bytes > 0 ? c->in : -1, .events = POLLOUT}, {.fd = c->out, .events = POLLIN},
                          {.fd = c->err, .events = POLLIN}, {.fd = c->pidfd, .events = POLLIN},
                          {.fd = t->stop_fd, .events = POLLIN}};
    mill_status st = MILL_OK;

    if (poll(p, N, (int)tick_ms) < 0 && errno != EINTR) return mill_fail(err, MILL_ERR_IO, "poll: %s", strerror(errno));
    if (p[STOP].fd >= 0 && p[STOP].revents != 0) t->stop_fd = hooks->cancel_fd(hooks->user);
    if (p[ERR].fd >= 0 && p[ERR].revents != 0) read_stderr(c, hooks);
    if ((p[OUT].fd >= 0 && p[OUT].revents != 0) || (p[IN].fd >= 0 && p[IN].revents != 0)) t->moved_ms = now_ms();
    if (p[OUT].fd >= 0 && p[OUT].revents != 0) st = read_stdout(c, hooks, done, err);
    if (st == MILL_OK && p[IN].fd >= 0 && p[IN].revents != 0) st = write_some(c, t, err);
    return st;
}

/* It has ended: what is still in its pipes. Bounded, since something it started may go on writing. */
static mill_status drain(stm_child *c, bool *done, const stm_child_hooks *hooks, mill_error *err)
{
    mill_status st = MILL_OK;

    for (int round = 0; round < 4096 && c->out >= 0 && st == MILL_OK && !*done; round++) {
        struct pollfd p = {.fd = c->out, .events = POLLIN};
        if (poll(&p, 1, 0) <= 0) break;
        st = read_stdout(c, hooks, done, err);
    }
    if (st == MILL_OK && !*done) {
        c->out_end = true;
        st = give_lines(c, hooks, done, err);
    }
    if (c->err >= 0) read_stderr(c, hooks);
    flush_log_line(c, hooks);
    return st;
}

/* More than was awaited: a line too many is in the pipe when the program has ended, or waits for input again. Of one that does not
 * wait, or where the kernel does not tell, a line too many has SETTLE_MS to come, in which it does not compute; with numbered
 * answers there is no need to wait. */
static mill_status settle(stm_child *c, bool over, const stm_child_hooks *hooks, mill_error *err)
{
    const int64_t last = now_ms() + SETTLE_MOST_MS;
    int64_t until = now_ms() + SETTLE_MS;
    bool done = true, idle = over || c->opts.numbered;
    mill_status st = MILL_OK;

    while (st == MILL_OK && c->out >= 0 && c->end == c->begin) {
        struct pollfd more = {.fd = c->out, .events = POLLIN};
        /* before the look at the pipe: what it wrote is there then */
        const stm_group_state state = idle ? STM_GROUP_IDLE : stm_group_look(c->pid, c->guard.pid);
        idle = state == STM_GROUP_IDLE;
        if (state == STM_GROUP_RUNS) until = now_ms() + SETTLE_MS;
        if (poll(&more, 1, idle ? 0 : 1) > 0)
            st = read_stdout(c, hooks, &done, err);
        else if (idle || now_ms() >= (until < last ? until : last) || hooks->cancelled(hooks->user))
            break;
    }
    return st;
}

static int64_t between(int64_t least, int64_t x, int64_t most) { return x < least ? least : x > most ? most : x; }

/* It was given everything, while answers are awaited. */
static bool owes(const talk *t, bool done) { return !done && t->bytes == 0 && !t->close_input; }

/* It owes answers, and waits for more. */
static bool holds_back(const stm_child *c, const talk *t, bool done)
{
    return owes(t, done) && stm_group_look(c->pid, c->guard.pid) == STM_GROUP_IDLE;
}

/* How long to wait for events until something else is due. @p quiet: whether it holds back, too. */
static int64_t tick_ms(const stm_child *c, const talk *t, int64_t since, int64_t until, bool quiet)
{
    const int64_t now = now_ms(), still = now - t->moved_ms;
    int64_t tick = WAIT_MOST_MS;

    if (c->pidfd < 0 || t->stop_fd < 0) tick = between(TICK_MS, (now - since) / TICK_SHARE, TICK_MOST_MS);
    if (t->closed_ms > 0) tick = between(0, t->closed_ms + CLOSED_MS - now, tick);
    if (quiet && still < STM_CHILD_QUIET_S * 1000)
        tick = between(0, STM_CHILD_QUIET_S * 1000 - still, tick);
    else if (quiet)
        tick = between(0, between(TICK_MOST_MS, still / LOOK_SHARE, LOOK_MOST_MS), tick);
    return between(0, until - now, tick);
}

static mill_status talk_on(stm_child *c, talk *t, bool awaits, double deadline_s, const stm_child_hooks *hooks, mill_error *err)
{
    const int64_t since = now_ms(), until = deadline_s < 0 ? INT64_MAX : since + (int64_t)(deadline_s * 1000);
    bool done = !awaits, over = false;
    mill_status st = MILL_OK;

    /* Output before input is left over from the batch before: it came after `settle` had given up. */
    if (stm_child_has_more(c))
        return mill_fail(err, MILL_ERR_STEP,
                         "%s answered a batch before with more lines than there were rows, late: answers may stand in wrong rows",
                         c->opts.argv[0]);

    if (t->bytes == 0 && t->close_input) close_fd(&c->in);
    t->moved_ms = since;
    t->stop_fd = hooks->cancel_fd(hooks->user);
    while (st == MILL_OK && !over) {
        /* Nothing more to say, all answers there: without close_input it stays for the next conversation. */
        if (done && t->bytes == 0 && !t->close_input) break;
        const bool quiet = !c->quiet_told && hooks->quiet != NULL && owes(t, done);
        st = serve(c, t, tick_ms(c, t, since, until, quiet), &done, hooks, err);
        if (st == MILL_OK && reap(c, false)) {
            over = true;
            st = drain(c, &done, hooks, err);
        }
        if (st == MILL_OK && !over && hooks->cancelled(hooks->user))
            st = mill_fail(err, MILL_ERR_STOPPED, "%s was stopped before it had answered", c->opts.argv[0]);
        if (c->out_end && t->closed_ms == 0) t->closed_ms = now_ms();
        if (st == MILL_OK && !over && t->closed_ms > 0 && now_ms() >= t->closed_ms + CLOSED_MS)
            st = mill_fail(err, MILL_ERR_STEP, "%s closed its output, but did not end within %d s", c->opts.argv[0],
                           CLOSED_MS / 1000);
        if (st == MILL_OK && !over && now_ms() >= until) {
            st = mill_fail(err, MILL_ERR_TIMEOUT, "%s did not answer within %g s", c->opts.argv[0], deadline_s);
            if (err != NULL) err->error_class = MILL_CLASS_TRANSIENT;
            if (holds_back(c, t, done)) mill_error_remedy(err, "It waits for more input; if it has answered, " STM_CHILD_FLUSH);
        }
        if (st == MILL_OK && !over && !c->quiet_told && hooks->quiet != NULL &&
            now_ms() - t->moved_ms >= STM_CHILD_QUIET_S * 1000 && holds_back(c, t, done)) {
            c->quiet_told = true;
            hooks->quiet(hooks->user);
        }
    }
    /* Output that ends within a line: so did it, perhaps. */
    if (st != MILL_OK && !over && c->out_end) over = gone_within(c, TICK_MS / 1e3);
    /* What it did not read it cannot have dealt with. */
    done = done || (st == MILL_OK && over && c->opts.until_end && !t->refused && t->bytes == 0);
    /* One that is kept may go once it has answered: whether it is seen going now or at the next batch is chance. */
    const bool early = over && (st != MILL_OK || !done || (t->close_input && c->wait_status != 0));
    if (early && stopped_too(c, hooks)) {
        if (err != NULL) memset(err, 0, sizeof *err);
        return mill_fail(err, MILL_ERR_STOPPED, "%s was stopped before it had answered", c->opts.argv[0]);
    }
    if (st == MILL_OK && early) st = died(c, done ? "after its last answer" : "before it had answered", err);
    if (st == MILL_ERR_STEP && early && by_signal(c) && err != NULL) err->error_class = MILL_CLASS_TRANSIENT;
    if (st != MILL_OK) return st;
    if ((st = settle(c, over, hooks, err)) != MILL_OK) return st;
    if (c->end > c->begin)
        return mill_fail(err, MILL_ERR_STEP, "%s answered with more lines than there were rows", c->opts.argv[0]);
    return MILL_OK;
}

mill_status stm_child_talk(stm_child *c, const char *text, size_t bytes, bool awaits, bool close_input, double deadline_s,
                           const stm_child_hooks *hooks, mill_error *err)
{
    talk t = {.text = text, .bytes = bytes, .close_input = close_input};
    mill_status st;

    c->log_lines = 0;
    if (c->pid == 0) return mill_fail(err, MILL_ERR_INTERNAL, "%s does not run", c->opts.argv[0]);
    st = talk_on(c, &t, awaits, deadline_s, hooks, err);
    c->answered = true;
    if (c->log_lines > LOG_LINES) {
        char more[64];
        snprintf(more, sizeof more, "... and %ld more lines", c->log_lines - LOG_LINES);
        hooks->log(hooks->user, more);
    }
    if (st != MILL_OK || c->ended) stm_child_kill(c);
    return st;
}
