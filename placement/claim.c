#include "placement/claim.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "core/text.h"

#define PREFIX "stepmill/gpu/"
enum { NAME_BYTES = 108, BACKLOG = 4096 }; /* of sun_path; of connections that ask who we are and are never accepted */

struct stm_claims {
    struct claim {
        char uuid[64];
        int fd;
    } * held;
    size_t n, cap;
};

static socklen_t address_of(const char *name, struct sockaddr_un *out)
{
    const size_t n = strlen(name);

    memset(out, 0, sizeof *out);
    out->sun_family = AF_UNIX;
    memcpy(out->sun_path + 1, name, n < NAME_BYTES - 1 ? n : NAME_BYTES - 1); /* the NUL in front makes it abstract */
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (n < NAME_BYTES - 1 ? n : NAME_BYTES - 1));
}

/* Whose socket that is: a process id, 0 = nobody's, -1 = of a process that cannot be seen. */
static int32_t owner_of(const char *name)
{
    struct sockaddr_un to;
    const socklen_t n = address_of(name, &to);
    struct ucred who = {0};
    socklen_t size = sizeof who;
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int32_t pid = -1;

    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&to, n) != 0)
        pid = errno == ECONNREFUSED ? 0 : -1; /* EAGAIN: its backlog is full, but it is there */
    else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.pid > 0)
        pid = who.pid;
    close(fd);
    return pid;
}

/* A sharer of the device, from the kernel's list of sockets. As owner_of. */
static int32_t sharer_of(const char *uuid)
{
    char line[512], want[NAME_BYTES];
    int32_t pid = 0;
    FILE *f = fopen("/proc/net/unix", "re");

    if (f == NULL) return 0;
    snprintf(want, sizeof want, "@" PREFIX "%s/", uuid);
    while (pid == 0 && fgets(line, sizeof line, f) != NULL) {
        const char *at = strchr(line, '@');

        if (at == NULL || strncmp(at, want, strlen(want)) != 0) continue;
        line[strcspn(line, "\n")] = '\0';
        pid = owner_of(at + 1); /* 0: it is gone since */
    }
    fclose(f);
    return pid;
}

int32_t stm_claim_holder(const char *uuid, bool *shared)
{
    char name[NAME_BYTES];
    int32_t pid;

    snprintf(name, sizeof name, PREFIX "%s", uuid);
    pid = owner_of(name);
    if (shared != NULL) *shared = false;
    if (pid != 0) return pid;
    pid = sharer_of(uuid);
    if (shared != NULL) *shared = pid != 0;
    return pid;
}

/* @p what: "device X", and what to do about it. */
static mill_status busy(const char *what, const char *remedy, int32_t pid, mill_error *err)
{
    char path[64], command[64] = "";
    FILE *f;

    if (pid > 0) {
        snprintf(path, sizeof path, "/proc/%d/comm", pid);
        if ((f = fopen(path, "re")) != NULL) {
            if (fgets(command, sizeof command, f) != NULL) command[strcspn(command, "\n")] = '\0';
            fclose(f);
        }
    }
    if (pid == (int32_t)getpid())
        mill_fail(err, MILL_ERR_BUSY, "%s is in use by another run of this process", what);
    else if (pid > 0)
        mill_fail(err, MILL_ERR_BUSY, "%s is in use by process %d (%s)", what, pid, command[0] != '\0' ? command : "?");
    else
        mill_fail(err, MILL_ERR_BUSY, "%s is in use by a process that cannot be seen from here", what);
    mill_error_remedy(err, "%s", remedy);
    return MILL_ERR_BUSY;
}

static mill_status device_busy(const char *uuid, int32_t pid, mill_error *err)
{
    char what[96];

    snprintf(what, sizeof what, "device %s", uuid);
    return busy(what, "Wait for it, choose other devices, or set share: true in both", pid, err);
}

static mill_status bind_name(const char *name, int *out)
{
    struct sockaddr_un at;
    const socklen_t n = address_of(name, &at);
    const int fd = stm_fault_fires(STM_FAULT_OPEN) ? -1 : socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int code;

    if (fd < 0) return MILL_ERR_IO;
    if (bind(fd, (struct sockaddr *)&at, n) == 0 && listen(fd, BACKLOG) == 0) {
        *out = fd;
        return MILL_OK;
    }
    code = errno;
    close(fd);
    errno = code;
    return code == EADDRINUSE ? MILL_ERR_BUSY : MILL_ERR_IO;
}

mill_status stm_claims_create(stm_claims **out, mill_error *err)
{
    stm_claims *c = stm_calloc(sizeof *c);

    if (c == NULL) return mill_fail(err, MILL_ERR_NOMEM, "claiming devices");
    *out = c;
    return MILL_OK;
}

void stm_claims_destroy(stm_claims **c)
{
    if (c == NULL || *c == NULL) return;
    for (size_t i = 0; i < (*c)->n; i++) close((*c)->held[i].fd);
    stm_free((*c)->held);
    stm_free(*c);
    *c = NULL;
}

mill_status stm_claims_take(stm_claims *c, const char *uuid, bool shared, mill_error *err)
{
    static _Atomic uint32_t count;
    char alone[NAME_BYTES], name[NAME_BYTES];
    int32_t other;
    int fd = -1;
    mill_status st;

    if (strlen(uuid) >= sizeof c->held->uuid) return mill_fail(err, MILL_ERR_INVALID, "\"%.80s\" names no device", uuid);
    if (stm_grow(&c->held, &c->cap, c->n + 1, sizeof *c->held) != 0) return mill_fail(err, MILL_ERR_NOMEM, "claiming devices");
    snprintf(alone, sizeof alone, PREFIX "%s", uuid);
    st = MILL_ERR_BUSY;
    for (int i = 0; st == MILL_ERR_BUSY && i < (shared ? 64 : 1);
         i++) { /* a sharer's name may be taken by our number in another namespace */
        if (shared)
            snprintf(name, sizeof name, PREFIX "%s/%d.%u", uuid, (int)getpid(), atomic_fetch_add(&count, 1));
        else
            snprintf(name, sizeof name, "%s", alone);
        st = bind_name(name, &fd);
    }
    if (st == MILL_ERR_BUSY) return device_busy(uuid, owner_of(alone), err);
    if (st != MILL_OK) return mill_fail(err, st, "cannot claim device %s: %s", uuid, strerror(errno));
    other = shared ? owner_of(alone) : sharer_of(uuid);
    if (other != 0) {
        close(fd);
        return device_busy(uuid, other, err);
    }
    snprintf(c->held[c->n].uuid, sizeof c->held->uuid, "%s", uuid);
    c->held[c->n++].fd = fd;
    return MILL_OK;
}

mill_status stm_claims_take_file(stm_claims *c, const char *path, mill_error *err)
{
    char name[NAME_BYTES], what[400];
    int fd = -1;
    mill_status st;

    if (stm_grow(&c->held, &c->cap, c->n + 1, sizeof *c->held) != 0) return mill_fail(err, MILL_ERR_NOMEM, "claiming outputs");
    snprintf(name, sizeof name, "stepmill/out/%016llx", (unsigned long long)stm_hash64(path, strlen(path), 0));
    st = bind_name(name, &fd);
    if (st == MILL_ERR_BUSY) {
        snprintf(what, sizeof what, "the output %s", path);
        return busy(what, "Wait for it, or choose another path", owner_of(name), err);
    }
    if (st != MILL_OK) return MILL_OK;
    c->held[c->n] = (struct claim){.fd = fd}; /* no device's: it is let go with all */
    c->n++;
    return MILL_OK;
}

void stm_claims_drop(stm_claims *c, const char *uuid)
{
    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->held[i].uuid, uuid) == 0) {
            close(c->held[i].fd);
            c->held[i] = c->held[--c->n];
            return;
        }
}
