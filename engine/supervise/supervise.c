/*
 * The parent: starts a child, hands signals on to it, looks whether it moves, and when it is dead decides whether another follows.
 *
 *      start ------> watch ------> the child ended as it wanted -----------------------------> its exit code
 *        ^             |
 *        |             +---------> it died ---> lesson (suspects.h) ---> stop was asked for --> 75
 *        |                            |               |
 *        +----------------------------+               +---> no use to go on ------------------> 1 or 2, with the cause
 *
 * It touches nothing of the pipeline, so that whatever goes wrong there does not go wrong here.
 */
#include "stepmill/supervise.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fault.h"
#include "core/log.h"
#include "stepmill/run.h"
#include "store/footprint.h"
#include "supervise/child.h"
#include "supervise/oom.h"
#include "supervise/suspects.h"
#include "trace/errorfile.h"

#define MOST_HALVINGS 8           /* of what is in flight, before a lack of memory counts as getting nowhere */
#define GAP_NS (3 * STM_NS_PER_S) /* we were stopped ourselves, or the machine slept: nobody's silence */
#define LOOKS 4                   /* at the child in the time that it may be silent for: a stop of our own is told from its */
#define MOST_MS 60000             /* between two looks */

typedef struct parent {
    mill_supervise_options o;
    stm_recorder *recorder;
    int signals, socket;
    sigset_t before;          /* mask that children get, without the signals that are handed on */
    sigset_t forwarded, ours; /* what is handed on; what this process takes */
    pid_t pid;
    int64_t started_ns, looked_ns;
    int64_t kills; /* of the out-of-memory killer, when the child started */
    int32_t came;  /* signals that ask to end */
    bool draining;
    int64_t deadline_ns; /* 0 = none */
    int64_t ask_ns, gone_ns; /* when the time left makes us say "drain", and when all must be over; 0 = no limit */
    bool overdue;        /* we ended the child: its time was over */
    bool named, silent;  /* it does not move: said; ended for it */
    int32_t barren;      /* deaths in a row without getting anywhere */
    int64_t done;        /* committed when the last child died */
} parent;

/* ---- a child ------------------------------------------------------------------------------------------------------ */

static void become_child(parent *p, int socket, pid_t from)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != from) _exit(MILL_EXIT_STOPPED);
    setpgid(0, 0);
    close(p->signals);
    close(p->socket);
    p->socket = socket;
    p->signals = signalfd(-1, &p->forwarded, SFD_CLOEXEC | SFD_NONBLOCK); /* -1: those sent to the child itself wait for ever */
    sigprocmask(SIG_SETMASK, &p->before, NULL);
}

/* 0 in the child, its number in the parent, -1: cannot be. */
static pid_t start(parent *p)
{
    const pid_t self = getpid();
    int ends[2];

    fflush(NULL); /* or both would print what is buffered */
    if (stm_fault_fires(STM_FAULT_OPEN) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return -1;
    stm_recorder_reset(p->recorder);
    p->recorder->supervisor = self;
    p->socket = ends[0];
    p->named = p->silent = p->overdue = false;
    p->kills = stm_oom_kills();
    p->started_ns = p->looked_ns = stm_now_ns();
    p->pid = stm_fault_fires(STM_FAULT_THREAD) ? (errno = EAGAIN, -1) : fork();
    if (p->pid == 0) {
        become_child(p, ends[1], self);
        return 0;
    }
    close(ends[1]);
    if (p->pid < 0)
        close(ends[0]);
    else
        setpgid(p->pid, p->pid); /* as the child does: whoever comes first */
    return p->pid;
}

static const stm_record *first_busy(const stm_recorder *r)
{
    const int32_t n = atomic_load(&r->n_records);

    for (int32_t i = 0; i < n; i++)
        if (atomic_load(&r->records[i].doing) != STM_DOING_NOTHING) return &r->records[i];
    return NULL;
}

/* Everybody at work, for a message. */
static void show_busy(const stm_recorder *r, char *buf, size_t size)
{
    const int32_t n = atomic_load(&r->n_records);
    const int64_t now = stm_now_ns();
    size_t used = 0;
    int shown = 0;

    snprintf(buf, size, "no step is at work");
    for (int32_t i = 0; i < n && used + 8 < size; i++) {
        const int64_t since = atomic_load(&r->records[i].since_ns);
        char one[256];

        if (atomic_load(&r->records[i].doing) == STM_DOING_NOTHING) continue;
        if (++shown > 8) {
            snprintf(buf + used, size - used, ", ...");
            return;
        }
        used += (size_t)snprintf(buf + used, size - used, "%s%s",
                                 shown > 1 ? "; " : "at work: ", stm_record_show(&r->records[i], one, sizeof one));
        if (since != 0 && used < size)
            used += (size_t)snprintf(buf + used, size - used, ", for %.1f s", (double)(now - since) / 1e9);
    }
}

/* T = stopped, D = waits for a disk, ...; ? = not to be known. */
static char state_of(pid_t pid)
{
    char path[64], text[512] = "";
    const char *end;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if ((f = fopen(path, "re")) == NULL) return '?';
    if (fgets(text, sizeof text, f) == NULL) text[0] = '\0';
    fclose(f);
    end = strrchr(text, ')');
    return end != NULL && end[1] == ' ' ? end[2] : '?';
}

/* When it was last seen to move. */
static int64_t last_beat(const parent *p)
{
    const int64_t beat = atomic_load(&p->recorder->now_ns);

    return beat > p->started_ns ? beat : p->started_ns;
}

/* When it will have been silent for too long, if it does not move until then. */
static int64_t silent_at(const parent *p)
{
    return last_beat(p) + (int64_t)(p->o.silence_s * 1e9) * (p->named ? 2 : 1);
}

static void look_at_silence(parent *p)
{
    const int64_t now = stm_now_ns(), gap = now - p->looked_ns, limit = (int64_t)(p->o.silence_s * 1e9);
    int64_t beat;
    char busy[2048], state;

    p->looked_ns = now;
    if (gap > GAP_NS && gap > limit / 2) p->started_ns = now; /* give it its time again */
    beat = last_beat(p);
    if (now - beat <= limit) {
        p->named = false;
        return;
    }
    if (!p->named) {
        p->named = true;
        state = state_of(p->pid);
        show_busy(p->recorder, busy, sizeof busy);
        stm_log(STM_WARN, "", "process %d has not moved for %.1f s (%s); %s", (int)p->pid, (double)(now - beat) / 1e9,
                state == 'T' || state == 't' ? "it was stopped by a signal or a debugger"
                : state == 'D'               ? "it waits for a disk"
                                             : "the cause is not known",
                busy);
    } else if (now - beat > 2 * limit) {
        p->silent = true;
        kill(p->pid, SIGKILL);
    }
}

static void take_signal(parent *p, int sig)
{
    const unsigned char message = (unsigned char)sig;

    if (sig == SIGTSTP) {
        kill(-p->pid, SIGSTOP);
        raise(SIGSTOP); /* until somebody says CONT */
        kill(-p->pid, SIGCONT);
        p->started_ns = p->looked_ns = stm_now_ns();
        return;
    }
    if (sig == SIGCHLD) return;
    p->came++;
    p->draining = p->came == 1 && sig != SIGTERM && sig != SIGHUP;
    p->deadline_ns = stm_now_ns() + (int64_t)((p->came > 1   ? p->o.again_s
                                               : p->draining ? p->o.drain_s + p->o.stop_s
                                                             : p->o.stop_s) *
                                              1e9);
    if (p->gone_ns != 0 && p->deadline_ns > p->gone_ns) p->deadline_ns = p->gone_ns;
    if (send(p->socket, &message, 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1) return; /* it is dying: seen next */
}

/* Milliseconds until @p then, rounded up, at most @p most. */
static int until(int64_t then, int64_t now, int most)
{
    if (then - now >= most * 1000000LL) return most;
    return then > now ? (int)((then - now) / 1000000) + 1 : 0;
}

/* The time left is nearly over: as if somebody had sent USR1, unless somebody did send something. */
static void look_at_time(parent *p, int64_t now)
{
    if (p->ask_ns == 0 || now < p->ask_ns) return;
    p->ask_ns = 0;
    if (p->came > 0) return;
    stm_log(STM_INFO, "", "the time is nearly over: %.1f s are left to finish the rows in the pipeline",
            (double)(p->gone_ns - now) / 1e9);
    take_signal(p, SIGUSR1);
}

/* Until the child is dead; its status as of waitpid. */
static int watch(parent *p)
{
    struct signalfd_siginfo s;
    int status;

    for (;;) {
        struct pollfd f = {p->signals, POLLIN, 0};
        const int64_t now = stm_now_ns();
        int ms = p->o.silence_s < LOOKS * MOST_MS / 1e3 ? (int)(p->o.silence_s * 1e3 / LOOKS) + 1 : MOST_MS;

        if (!p->silent) ms = until(silent_at(p), now, ms);
        if (p->deadline_ns != 0 && !p->overdue) ms = until(p->deadline_ns, now, ms);
        if (p->ask_ns != 0) ms = until(p->ask_ns, now, ms);
        const pid_t gone = waitpid(p->pid, &status, WNOHANG);

        if (gone == p->pid) return status;
        if (gone < 0 && errno == ECHILD) return SIGKILL; /* somebody else has waited for it: how it ended is not known */
        if (gone < 0) ms = 10; /* its SIGCHLD may have been taken already, and does not come again */
        if (poll(&f, 1, ms) > 0)
            while (read(p->signals, &s, sizeof s) == (ssize_t)sizeof s) take_signal(p, (int)s.ssi_signo);
        if (p->deadline_ns != 0 && stm_now_ns() >= p->deadline_ns && !p->overdue) {
            p->overdue = true;
            kill(p->pid, SIGKILL);
        }
        look_at_time(p, stm_now_ns());
        look_at_silence(p);
    }
}

/* ---- a death ------------------------------------------------------------------------------------------------------ */

static bool is_stopped(const parent *p) { return p->came > 0; }

static void save(const parent *p)
{
    mill_error err = {0};

    if (p->recorder->dir[0] != '\0' && stm_suspects_save(p->recorder, p->recorder->dir, &err) != MILL_OK)
        stm_log(STM_WARN, "", "%s", err.msg);
}

static void show_end(int status, char *buf, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(buf, size, "signal %d (SIG%s)", WTERMSIG(status),
                 sigabbrev_np(WTERMSIG(status)) != NULL ? sigabbrev_np(WTERMSIG(status)) : "?");
    else
        snprintf(buf, size, "exit(%d) from within", WEXITSTATUS(status));
}

/* The record that the last word of the child is about. */
static const stm_record *find(const stm_recorder *r, const mill_error *e)
{
    const int32_t n = atomic_load(&r->n_records);

    for (int32_t i = 0; i < n; i++)
        if (strcmp(r->records[i].step, e->step) == 0 && r->records[i].replica == e->replica &&
            atomic_load(&r->records[i].doing) != STM_DOING_NOTHING)
            return &r->records[i];
    return NULL;
}

/* Steps load at the same time: who else was at it may be the cause as well. */
static const char *show_others(const stm_recorder *r, const stm_record *who, char *buf, size_t size)
{
    const int32_t n = atomic_load(&r->n_records);
    size_t at = 0;
    char one[128];

    buf[0] = '\0';
    for (int32_t i = 0; i < n && at < size; i++) {
        const stm_record *other = &r->records[i];
        if (other == who || atomic_load(&other->doing) != STM_DOING_LOAD) continue;
        at += (size_t)snprintf(buf + at, size - at, ", or in %s", stm_record_show(other, one, sizeof one));
    }
    return buf;
}

static int end_for(const parent *p, const stm_record *who, mill_status status, const char *cause, mill_error *err)
{
    const int32_t doing = who != NULL ? atomic_load(&who->doing) : STM_DOING_NOTHING;
    const bool unsure = doing == STM_DOING_LOAD && status != MILL_ERR_TIMEOUT;
    char text[256], others[256];

    if (who != NULL) {
        mill_fail(err, status, "the process ended by %s in %s%s", cause, stm_record_show(who, text, sizeof text),
                  unsure ? show_others(p->recorder, who, others, sizeof others) : "");
        snprintf(err->step, sizeof err->step, "%s", who->step);
        err->replica = who->replica;
    } else {
        mill_fail(err, status, "the process ended by %s; no step was at work", cause);
    }
    err->error_class = MILL_CLASS_DEVICE;
    err->phase = doing == STM_DOING_LOAD ? MILL_PHASE_LOAD : doing == STM_DOING_UNLOAD ? MILL_PHASE_UNLOAD : MILL_PHASE_PROCESS;
    if (p->o.restarts > 0 && p->barren > p->o.restarts)
        mill_error_context(err, "%d processes in a row got nowhere", (int)p->barren);
    return err->phase == MILL_PHASE_LOAD ? MILL_EXIT_LOAD : MILL_EXIT_PROCESS;
}

/* It died while it loaded what its first rows need: as of every run that could not load, nothing is left. */
static void leave_nothing(const parent *p)
{
    const size_t n = atomic_load_explicit(&p->recorder->n_undo, memory_order_acquire);
    stm_footprint *made = n > 0 && n <= sizeof p->recorder->undo ? stm_footprint_read(p->recorder->undo, n) : NULL;

    if (made == NULL) return;
    stm_footprint_undo(made);
    stm_footprint_destroy(&made);
    p->recorder->dir[0] = '\0';
}

/* The child died, and nobody wanted that. The exit code of the run; -1: another child goes on. */
static int learn(parent *p, int status, mill_error *err)
{
    stm_recorder *r = p->recorder;
    const bool told = atomic_load_explicit(&r->lost, memory_order_acquire) == 2;
    const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    const bool memory = killed && !p->silent && p->kills >= 0 && stm_oom_kills() > p->kills;
    const mill_status what = told ? r->last.status : MILL_ERR_STEP;
    const stm_record *who = NULL, *culprit = told && what == MILL_ERR_TIMEOUT ? find(r, &r->last) : NULL;
    stm_lesson lesson = STM_LESSON_NONE;
    char cause[160], busy[2048];
    int code = -1;

    if (told)
        snprintf(cause, sizeof cause, "%.*s", (int)sizeof cause - 1,
                 what == MILL_ERR_TIMEOUT ? "a call that did not return by its deadline" : r->last.msg);
    else if (p->silent)
        snprintf(cause, sizeof cause, "us, since it did not move for %g s", 2 * p->o.silence_s);
    else if (memory)
        snprintf(cause, sizeof cause, "the out-of-memory killer");
    else
        show_end(status, cause, sizeof cause);
    show_busy(r, busy, sizeof busy);
    stm_suspects_prune(r, false);
    if (memory)
        r->halvings++;
    else if (!killed || told) /* a kill from outside is nobody's fault */
        lesson = stm_suspects_learn(r, culprit, what, cause, &who);
    if (who == NULL) who = first_busy(r);
    if (lesson == STM_LESSON_NARROW || lesson == STM_LESSON_BARRED || atomic_load(&r->done) > p->done ||
        (memory && r->halvings <= MOST_HALVINGS))
        p->barren = 0;
    else
        p->barren++;
    p->done = atomic_load(&r->done);
    save(p);
    if (is_stopped(p)) return MILL_EXIT_STOPPED;
    if (lesson == STM_LESSON_END || p->barren > p->o.restarts || p->o.restarts == 0 ||
        (!killed && who != NULL && atomic_load(&who->doing) == STM_DOING_LOAD))
        code = end_for(p, who, what, cause, err);
    if (code == MILL_EXIT_LOAD) leave_nothing(p);
    if (code < 0)
        stm_log(STM_WARN, "", "process %d was ended by %s; %s; going on in another (%s)", (int)p->pid, cause, busy,
                memory                        ? "half of it in flight"
                : lesson == STM_LESSON_NARROW ? "the cause is narrowed down"
                : lesson == STM_LESSON_BARRED ? "without this call, which counts as failed"
                : lesson == STM_LESSON_AGAIN  ? "these run alone"
                                              : "nobody is blamed");
    return code;
}

/* The child is dead. The exit code of the run; -1: another child goes on. */
static int after(parent *p, int status, mill_error *err)
{
    stm_recorder *r = p->recorder;
    const int32_t n = r->n_suspects;
    const stm_record *who;
    char busy[2048];

    if (WIFEXITED(status) && atomic_load(&r->ended) != 0) {
        stm_suspects_prune(r, WEXITSTATUS(status) != MILL_EXIT_STOPPED);
        if (r->n_suspects != n) save(p);
        return WEXITSTATUS(status);
    }
    kill(-p->pid, SIGKILL); /* programs that it has started */
    if (is_stopped(p) && (p->overdue || WIFEXITED(status))) {
        show_busy(r, busy, sizeof busy);
        if (p->overdue && (who = first_busy(r)) != NULL)
            fprintf(stderr, "stepmill: %s[%d]: %s has not returned\n", who->step, (int)who->replica,
                    stm_doing_name(atomic_load(&who->doing)));
        if (p->overdue)
            fprintf(stderr, "stepmill: process %d did not end in time (%s); what was not written is lost\n", (int)p->pid, busy);
        return MILL_EXIT_STOPPED;
    }
    return learn(p, status, err);
}

/* ---- entry -------------------------------------------------------------------------------------------------------- */

static bool prepare(parent *p)
{
    static const int forwarded[] = {SIGINT, SIGTERM, SIGUSR1};
    struct sigaction a;

    if (sigaction(SIGCHLD, NULL, &a) != 0) return false;
    /* as whoever started us may have left it: children would vanish without a status */
    if (a.sa_handler == SIG_IGN) signal(SIGCHLD, SIG_DFL);
    sigemptyset(&p->ours);
    for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++) sigaddset(&p->ours, forwarded[i]);
    if (sigaction(SIGHUP, NULL, &a) == 0 && a.sa_handler != SIG_IGN) sigaddset(&p->ours, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &p->ours, &p->before) != 0) return false;
    for (int s = 1; s < NSIG; s++)
        if (sigismember(&p->ours, s) == 1) sigaddset(&p->before, s);
    sigaddset(&p->before, SIGTTOU); /* it may write to the terminal although it is not in front */
    p->forwarded = p->ours;
    sigaddset(&p->ours, SIGCHLD);
    if (sigaction(SIGTSTP, NULL, &a) == 0 && a.sa_handler != SIG_IGN) sigaddset(&p->ours, SIGTSTP);
    if (sigprocmask(SIG_BLOCK, &p->ours, NULL) != 0) return false;
    p->signals = signalfd(-1, &p->ours, SFD_CLOEXEC | SFD_NONBLOCK);
    return p->signals >= 0;
}

int mill_supervise(const mill_supervise_options *options, int (*work)(mill_child *, void *), void *user, mill_error *err)
{
    static const mill_supervise_options defaults = MILL_SUPERVISE_OPTIONS_INIT;
    parent p = {.o = defaults, .signals = -1, .socket = -1};
    mill_error why = {0}, unseen = {0};
    int code = -1;
    pid_t pid = 1;

    if (err == NULL) err = &unseen;
    if (options != NULL) memcpy(&p.o, options, options->struct_size < sizeof p.o ? options->struct_size : sizeof p.o);
    if (p.o.left_s > 0) {
        p.gone_ns = stm_now_ns() + (int64_t)(p.o.left_s * 1e9);
        p.ask_ns = p.gone_ns - (int64_t)(p.o.margin_s * 1e9);
    }
    if (!prepare(&p) || stm_recorder_create(&p.recorder, &why) != MILL_OK || (pid = start(&p)) < 0) {
        stm_log(STM_WARN, "", "nobody supervises this run: %s", why.status != MILL_OK ? why.msg : strerror(errno));
        if (p.signals >= 0) close(p.signals);
        sigdelset(&p.before, SIGTTOU);
        sigprocmask(SIG_SETMASK, &p.before, NULL);
        stm_recorder_destroy(&p.recorder);
        return work(NULL, user);
    }
    while (pid > 0 && code < 0) {
        const int status = watch(&p);

        close(p.socket);
        code = after(&p, status, err);
        if (code >= 0) break;
        p.recorder->worker++;
        if ((pid = start(&p)) < 0) {
            mill_fail(err, MILL_ERR_NOMEM, "cannot start another process: %s", strerror(errno));
            code = MILL_EXIT_PROCESS;
        }
    }
    if (pid == 0) {
        mill_child *child =
            stm_malloc(sizeof *child); /* for as long as the process lives, as are socket and recorder: threads listen there */

        if (child == NULL) _exit(MILL_EXIT_PROCESS);
        *child = (mill_child){.recorder = p.recorder, .socket = p.socket, .signals = p.signals, .rest_ns = STM_REST_NS};
        if (p.o.silence_s / STM_REST_SHARE < STM_REST_NS / 1e9) child->rest_ns = (int64_t)(p.o.silence_s / STM_REST_SHARE * 1e9);
        code = work(child, user);
        mill_child_end(child);
        return code;
    }
    if (err->status != MILL_OK && p.recorder->dir[0] != '\0' && stm_error_file_add(p.recorder->dir, err, &why) != MILL_OK)
        stm_log(STM_WARN, "", "%s", why.msg);
    close(p.signals);
    stm_recorder_destroy(&p.recorder);
    return code;
}
