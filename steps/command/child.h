/*
 * A child process that answers lines with lines over pipes. It has its own process group, which goes with it: whatever it
 * started is killed when it ends.
 */
#ifndef STM_STEPS_COMMAND_CHILD_H
#define STM_STEPS_COMMAND_CHILD_H

#include <stdbool.h>
#include <stddef.h>

#include "stepmill/error.h"

MILL_BEGIN_DECLS

#define STM_CHILD_QUIET_S 2
/** What helps then. */
#define STM_CHILD_FLUSH \
    "it has to flush its output after each row: python3 -u or print(..., flush=True); of other programs stdbuf -oL"

typedef struct stm_child stm_child;

typedef struct stm_child_opts {
    char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
    char *const *envp; /* NULL = this process's */
    const char *cwd;   /* NULL = this process's */
    size_t max_line;   /* longest line that it may answer */
    bool until_end;    /* any number of answers: the last one is the one before its end */
    bool numbered;     /* answers say which row they are for: the caller sees it when they are out of step */
} stm_child_opts;

/** What the conversation needs from outside. All are called from inside of stm_child_talk only. */
typedef struct stm_child_hooks {
    /** A line of its output, without newline, STM_LINE_PADDING bytes readable behind it. *done = true: that was the last one
     *  awaited. A status other than MILL_OK ends the conversation with it (the hook filled err). */
    mill_status (*line)(void *user, const char *text, size_t bytes, bool *done, mill_error *err);
    /** A line that it wrote to its standard error. */
    void (*log)(void *user, const char *text);
    /** Whether to give up. */
    bool (*cancelled)(void *user);
    /** As mill_replica_cancel_fd. */
    int (*cancel_fd)(void *user);
    /** It has all that was written, waits for more, and has answered nothing for STM_CHILD_QUIET_S, though answers are awaited:
     *  what it has to say may be in a buffer of its own. Once per child process. May be NULL. */
    void (*quiet)(void *user);
    void *user;
} stm_child_hooks;

/** A child that is not running yet. @p opts and what it points to are borrowed for its life. */
mill_status stm_child_create(const stm_child_opts *opts, stm_child **out, mill_error *err);
/** Ends it: its input is closed; if it does not go within @p grace_s it is told to, then killed. Waits for it. */
void stm_child_destroy(stm_child **c, double grace_s);
/** Start it unless it runs. */
mill_status stm_child_start(stm_child *c, mill_error *err);
/** Whether there is a program to start, without starting it. */
mill_status stm_child_find(const stm_child *c, mill_error *err);
/** Kill it and its group at once, and wait. No effect when it does not run. */
void stm_child_kill(stm_child *c);
bool stm_child_running(const stm_child *c);
/** Between conversations: it has written what no conversation awaited. Does not wait. */
bool stm_child_has_more(const stm_child *c);

/**
 * Write @p text to it, @p close_input then, while handing over what it answers, until a line says done (and, with
 * close_input, it has ended by itself with code 0). Both directions are served at once, so full pipes cannot lock up.
 * Without done as its first awaited line (@p awaits = false) it only writes.
 * @p deadline_s: seconds this may take; < 0 = no limit.
 * On any failure the child is killed; start it again for the next conversation. MILL_ERR_STEP: it ended, or answered more than was
 * awaited; the message has its exit code or signal and the end of what it wrote to standard error; of class transient, when it was
 * sent away by a signal, for which its rows can do nothing. MILL_ERR_TIMEOUT, MILL_ERR_STOPPED, MILL_ERR_IO, MILL_ERR_NOMEM, or
 * what the line hook gave. A scheduler that ends a job signals all its processes at once, so a child that goes in order is
 * MILL_ERR_STOPPED, too, if cancelled() follows within half a second.
 */
mill_status stm_child_talk(stm_child *c, const char *text, size_t bytes, bool awaits, bool close_input, double deadline_s,
                           const stm_child_hooks *hooks, mill_error *err);

MILL_END_DECLS

#endif
