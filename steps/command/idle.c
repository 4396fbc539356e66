/* From /proc: `syscall` says where a process is blocked, `stat` which group it belongs to. */
#include "steps/command/idle.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef enum what { RUNS, SLEEPS, WAITS_FOR_INPUT, WAITS_FOR_CHILDREN } what;

static bool read_file(int pid, const char *name, char *text, size_t size)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const ssize_t n = read(fd, text, size - 1);
    close(fd);
    if (n <= 0) return false;
    text[n] = 0;
    return true;
}

/* "running", or the number of the system call it sleeps in and its arguments. */
static what doing(int pid)
{
    char text[256], *end;

    if (!read_file(pid, "syscall", text, sizeof text)) return SLEEPS;
    if (strncmp(text, "running", 7) == 0) return RUNS;
    const long call = strtol(text, &end, 10);
    if (end == text) return SLEEPS;
    switch (call) {
    case SYS_read: return strncmp(end, " 0x0 ", 5) == 0 ? WAITS_FOR_INPUT : SLEEPS;
    case SYS_ppoll:
    case SYS_pselect6:
    case SYS_epoll_pwait:
#ifdef SYS_poll
    case SYS_poll:
#endif
#ifdef SYS_select
    case SYS_select:
#endif
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
#endif
#ifdef SYS_epoll_pwait2
    case SYS_epoll_pwait2:
#endif
        return WAITS_FOR_INPUT;
    case SYS_wait4:
    case SYS_waitid: return WAITS_FOR_CHILDREN;
    default: return SLEEPS;
    }
}

/* Its group, and whether it is a zombie. The name in between may hold anything, brackets too. */
static bool group_of(int pid, int *group, bool *zombie)
{
    char text[512], state;

    if (!read_file(pid, "stat", text, sizeof text)) return false;
    const char *after = strrchr(text, ')');
    if (after == NULL || sscanf(after + 1, " %c %*d %d", &state, group) != 2) return false;
    *zombie = state == 'Z' || state == 'X';
    return true;
}

/* How often it has gone to sleep or was put off the processor: the same number twice means that it did not run in between. */
static long switches_of(int pid)
{
    char text[4096];
    long n = 0;

    if (!read_file(pid, "status", text, sizeof text)) return -1;
    /* nonvoluntary, too */
    for (const char *at = text; (at = strstr(at, "voluntary_ctxt_switches:")) != NULL; at++) n += atol(at + 24);
    return n;
}

/* All of a group but @p leader, one after the other. @p switches: the sum over them. */
static stm_group_state look_at_all(pid_t pgid, pid_t leader, long *switches)
{
    const struct dirent *e;
    bool runs = false, sleeps = false, reads = false;
    DIR *proc = opendir("/proc");

    *switches = 0;
    if (proc == NULL) return STM_GROUP_WAITS;
    while (!runs && (e = readdir(proc)) != NULL) {
        const int pid = atoi(e->d_name);
        int group = 0;
        bool zombie = false;
        if (pid <= 0 || pid == (int)leader || !group_of(pid, &group, &zombie) || group != (int)pgid || zombie) continue;
        *switches += switches_of(pid);
        const what w = doing(pid);
        runs = w == RUNS;
        sleeps = sleeps || w == SLEEPS;
        reads = reads || w == WAITS_FOR_INPUT;
    }
    closedir(proc);
    return runs ? STM_GROUP_RUNS : sleeps || !reads ? STM_GROUP_WAITS : STM_GROUP_IDLE;
}

stm_group_state stm_group_look(pid_t pid, pid_t leader)
{
    const pid_t pgid = leader != 0 ? leader : pid;
    long before, after;

    switch (doing((int)pid)) {
    case RUNS: return STM_GROUP_RUNS;
    case SLEEPS: return STM_GROUP_WAITS;
    case WAITS_FOR_INPUT: return STM_GROUP_IDLE;
    case WAITS_FOR_CHILDREN: break;
    }
    const stm_group_state first = look_at_all(pgid, leader, &before);
    if (first != STM_GROUP_IDLE) return first;
    /* One may have woken another that was seen asleep already, and gone to sleep before it was looked at itself. */
    const stm_group_state second = look_at_all(pgid, leader, &after);
    return second == STM_GROUP_IDLE && after != before ? STM_GROUP_RUNS : second;
}
