/* From /proc: `syscall` says where a process is blocked, `stat` which group it belongs to. */
#include "steps/command/idle.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef enum what { BUSY, WAITS_FOR_INPUT, WAITS_FOR_CHILDREN } what;

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

    if (!read_file(pid, "syscall", text, sizeof text)) return BUSY;
    const long call = strtol(text, &end, 10);
    if (end == text) return BUSY;
    switch (call) {
    case SYS_read: return strncmp(end, " 0x0 ", 5) == 0 ? WAITS_FOR_INPUT : BUSY;
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
    default: return BUSY;
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

bool stm_group_idle(pid_t pgid)
{
    const struct dirent *e;
    bool idle = true, readers = false;

    switch (doing((int)pgid)) {
    case BUSY: return false;
    case WAITS_FOR_INPUT: return true;
    case WAITS_FOR_CHILDREN: break;
    }
    DIR *proc = opendir("/proc");
    if (proc == NULL) return false;
    while (idle && (e = readdir(proc)) != NULL) {
        const int pid = atoi(e->d_name);
        int group = 0;
        bool zombie = false;
        if (pid <= 0 || pid == (int)pgid || !group_of(pid, &group, &zombie) || group != (int)pgid || zombie) continue;
        const what w = doing(pid);
        readers = readers || w == WAITS_FOR_INPUT;
        idle = w != BUSY;
    }
    closedir(proc);
    return idle && readers;
}
