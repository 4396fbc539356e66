#include "store/owner.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/clock.h"
#include "core/runfiles.h"
#include "core/text.h"
#include "store/crc32c.h"

/* What a heartbeat file holds, rewritten in place: less than a sector, so it is never torn. */
typedef struct beat {
    uint64_t epoch, wall_ns, machine; /* machine: 0 = it has no socket to be known by */
    uint32_t gone;                    /* released: nobody has to wait */
    uint32_t crc;
} beat;

struct stm_owner {
    const stm_files *files;
    uint64_t epoch;
    int socket; /* -1 = could not be had: only heartbeats */
    int beat_fd;
    uint64_t machine;
    char beat_name[40];
    int64_t next_beat_ns;
};

/* ---- machines ----------------------------------------------------------------------------------------------------- */

static void first_line(const char *path, char *buf, size_t size)
{
    FILE *f = fopen(path, "re");

    buf[0] = 0;
    if (f == NULL) return;
    if (fgets(buf, (int)size, f) == NULL) buf[0] = 0;
    buf[strcspn(buf, "\n")] = 0;
    fclose(f);
}

/* "boot/namespace": the same for two processes exactly when they see each other's abstract sockets. */
static void machine(char *buf, size_t size)
{
    char boot[64], net[64];
    ssize_t n = readlink("/proc/self/ns/net", net, sizeof net - 1);

    first_line("/proc/sys/kernel/random/boot_id", boot, sizeof boot);
    net[n > 0 ? n : 0] = 0;
    snprintf(buf, size, "%s/%s", boot, net);
}

void stm_owner_who(long pid, char *buf, size_t size)
{
    char host[65], where[140];

    if (gethostname(host, sizeof host - 1) != 0) host[0] = 0;
    host[sizeof host - 1] = 0;
    machine(where, sizeof where);
    snprintf(buf, size, "%s\n%s\n%ld\n", where, host, pid != 0 ? pid : (long)getpid());
}

/* Lines of what stm_owner_who said. */
static void read_who(const char *who, char *where, size_t n_where, char *said, size_t n_said)
{
    const char *host = strchr(who, '\n'), *pid = host != NULL ? strchr(host + 1, '\n') : NULL;

    snprintf(where, n_where, "%.*s", (int)strcspn(who, "\n"), who);
    if (pid != NULL)
        snprintf(said, n_said, "process %.*s on %.*s", (int)strcspn(pid + 1, "\n"), pid + 1, (int)(pid - host - 1), host + 1);
    else
        snprintf(said, n_said, "another process");
}

/* ---- the socket --------------------------------------------------------------------------------------------------- */

static bool address(const char *dir, uint64_t epoch, struct sockaddr_un *a, socklen_t *len)
{
    struct stat s;
    int n;

    if (stat(dir, &s) != 0) return false;
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    n = snprintf(a->sun_path + 1, sizeof a->sun_path - 1, "stepmill-run/%llx-%llx/%llu", (unsigned long long)s.st_dev,
                 (unsigned long long)s.st_ino, (unsigned long long)epoch);
    *len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    return true;
}

/* Whether somebody answers there within @p seconds. The kernel takes the connection even for a process that is stopped. */
static bool answers(const char *dir, uint64_t epoch, double seconds)
{
    const int64_t until = stm_now_ns() + (int64_t)(seconds * 1e9);
    struct sockaddr_un a;
    socklen_t len;
    char byte;
    bool yes = false;
    int fd;

    if (!address(dir, epoch, &a, &len)) return false;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    if (connect(fd, (const struct sockaddr *)&a, len) == 0)
        for (;;) {
            struct pollfd p = {.fd = fd, .events = POLLIN};
            const int64_t left = (until - stm_now_ns()) / 1000000;
            if (left <= 0) break;
            if (poll(&p, 1, (int)left) <= 0) {
                if (errno == EINTR) continue;
                break;
            }
            yes = read(fd, &byte, 1) == 1; /* closed without a word: it is going away */
            break;
        }
    close(fd);
    return yes;
}

static int listen_at(const char *dir, uint64_t epoch, bool *taken)
{
    struct sockaddr_un a;
    socklen_t len;
    int fd;

    *taken = false;
    if (!address(dir, epoch, &a, &len)) return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    if (bind(fd, (const struct sockaddr *)&a, len) == 0 && listen(fd, 64) == 0) return fd;
    *taken = errno == EADDRINUSE;
    close(fd);
    return -1;
}

/* ---- heartbeats --------------------------------------------------------------------------------------------------- */

static uint64_t wall_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void beat_name(uint64_t epoch, char *buf, size_t size)
{
    snprintf(buf, size, STM_RUN_OWNER "%llu", (unsigned long long)epoch);
}

/* 1: read; 0: there is no such file; -1: there is one that says nothing. */
static int read_beat(const stm_files *f, uint64_t epoch, beat *b)
{
    char name[40];
    int fd;
    bool whole;

    beat_name(epoch, name, sizeof name);
    fd = f->open(f->user, name, STM_OPEN_READ);
    if (fd < 0) return fd == -ENOENT ? 0 : -1;
    whole = f->pread(f->user, fd, b, sizeof *b, 0) == (int64_t)sizeof *b && b->crc == stm_crc32c(0, b, offsetof(beat, crc)) &&
            b->epoch == epoch;
    f->close(f->user, fd);
    return whole ? 1 : -1;
}

/* Whether the writer of @p epoch has shown itself lately. A clock that goes wrong by up to half a minute does no harm. */
static bool beats(const stm_files *f, uint64_t epoch)
{
    beat b;

    if (read_beat(f, epoch, &b) != 1 || b.gone != 0) return false;
    const double age = ((double)wall_ns() - (double)b.wall_ns) / 1e9;
    return age < STM_OWNER_STALE_S && age > -STM_OWNER_STALE_S;
}

static uint64_t machine_number(void)
{
    char where[140];

    machine(where, sizeof where);
    return stm_hash64(where, strlen(where), 1) | 1;
}

/* Whether the socket of @p epoch is held by nobody here; a stopped process holds its own. */
static bool unheld(const char *dir, uint64_t epoch)
{
    struct sockaddr_un a;
    socklen_t len;
    int fd;

    if (!address(dir, epoch, &a, &len) || (fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) < 0) return false;
    const bool refused = connect(fd, (const struct sockaddr *)&a, len) != 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

bool stm_owner_over(const stm_files *files, const char *dir, uint64_t epoch)
{
    beat b;
    const int found = read_beat(files, epoch, &b);

    if (found == 0 || (found == 1 && b.gone != 0)) return true;
    return found == 1 && b.machine == machine_number() && unheld(dir, epoch);
}

typedef struct openings {
    uint64_t *epochs;
    size_t n, cap;
} openings;

static void note_opening(const char *name, void *ctx)
{
    openings *o = ctx;
    const uint64_t epoch = strncmp(name, "owner.", 6) == 0 ? strtoull(name + 6, NULL, 10) : 0;

    if (epoch > 0 && stm_grow(&o->epochs, &o->cap, o->n + 1, sizeof *o->epochs) == 0) o->epochs[o->n++] = epoch;
}

/* Files of writers that were killed. Those that may still be there are asked for by whoever goes on with their outputs. */
static void clear_beats(const stm_files *f, const char *dir, uint64_t before)
{
    openings o = {0};
    char name[40];

    (void)f->list(f->user, note_opening, &o);
    for (size_t i = 0; i < o.n; i++) {
        if (o.epochs[i] >= before || !stm_owner_over(f, dir, o.epochs[i])) continue;
        beat_name(o.epochs[i], name, sizeof name);
        (void)f->remove(f->user, name);
    }
    stm_free(o.epochs);
}

static void write_beat(stm_owner *o, bool gone)
{
    beat b = {.epoch = o->epoch, .wall_ns = wall_ns(), .machine = o->machine, .gone = gone};

    b.crc = stm_crc32c(0, &b, offsetof(beat, crc));
    if (o->beat_fd >= 0)
        (void)o->files->pwrite(o->files->user, o->beat_fd, &b, sizeof b, 0); /* nobody can be told; the next one may work */
    o->next_beat_ns = stm_now_ns() + (int64_t)(STM_OWNER_BEAT_S * 1e9);
}

/* ---- the owner ---------------------------------------------------------------------------------------------------- */

static mill_status busy(const char *dir, const char *said, mill_error *err)
{
    mill_fail(err, MILL_ERR_BUSY, "the run directory %s is in use by another run (%s)", dir, said);
    mill_error_remedy(err, "Wait for it, or choose another with --run");
    return MILL_ERR_BUSY;
}

mill_status stm_owner_claim(const stm_vault *v, const stm_files *files, const char *dir, double answer_s, stm_owner **out,
                            mill_error *err)
{
    const uint64_t found = stm_vault_epoch(v), next = stm_vault_next_epoch(v);
    char where[140], here[140], said[160];
    stm_owner *o;
    bool taken;

    machine(here, sizeof here);
    read_who(stm_vault_who(v), where, sizeof where, said, sizeof said);
    if (found > 0 && (strcmp(where, here) == 0 ? answers(dir, found, answer_s) : beats(files, found))) return busy(dir, said, err);
    if (next > found + 1 && answers(dir, next - 1, answer_s))
        return busy(dir, "it has just begun", err); /* its first record is not written yet */
    o = stm_calloc(sizeof *o);
    if (o == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory to open the run directory");
    o->files = files;
    o->epoch = next;
    o->socket = listen_at(dir, next, &taken);
    o->machine = o->socket >= 0 ? machine_number() : 0;
    o->beat_fd = -1;
    if (taken) {
        stm_free(o);
        return busy(dir, "it has just begun", err);
    }
    beat_name(next, o->beat_name, sizeof o->beat_name);
    o->beat_fd = files->open(files->user, o->beat_name, STM_OPEN_WRITE); /* without it: only on this machine */
    write_beat(o, false);
    clear_beats(files, dir, next);
    *out = o;
    return MILL_OK;
}

void stm_owner_tick(stm_owner *o)
{
    int fd;

    while (o->socket >= 0 && (fd = accept4(o->socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        (void)!write(fd, "", 1); /* fits; and who asked may be gone */
        close(fd);
    }
    if (stm_now_ns() >= o->next_beat_ns) write_beat(o, false);
}

void stm_owner_release(stm_owner **owner)
{
    stm_owner *o = *owner;

    if (o == NULL) return;
    *owner = NULL;
    write_beat(o, true);
    if (o->beat_fd >= 0) o->files->close(o->files->user, o->beat_fd);
    if (o->socket >= 0) close(o->socket);
    (void)o->files->remove(o->files->user, o->beat_name);
    stm_free(o);
}
