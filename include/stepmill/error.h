/*
 * The error record: a value of fixed size that says what failed, why, where, and what to do about it.
 *
 * Every function that takes a mill_error accepts NULL: then only the status tells.
 * Functions on a record: Threads: any, one per record at a time. Blocks: no. They allocate nothing and cannot fail.
 */
#ifndef STEPMILL_ERROR_H
#define STEPMILL_ERROR_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "stepmill/status.h"

MILL_BEGIN_DECLS

/** When it failed, as in the exit codes of the command. */
typedef enum mill_phase {
    MILL_PHASE_NONE = 0,
    MILL_PHASE_LOAD = 1,
    MILL_PHASE_PROCESS = 2,
    MILL_PHASE_CHECK = 3,
    MILL_PHASE_UNLOAD = 4
} mill_phase;

/** Whether trying again can help; decides about `retries: {classes: [...]}`. */
typedef enum mill_error_class {
    MILL_CLASS_PERMANENT = 0, /* the same rows will fail again */
    MILL_CLASS_TRANSIENT = 1, /* a service, a deadline, memory */
    MILL_CLASS_DATA = 2,      /* the row itself is bad */
    MILL_CLASS_DEVICE = 3     /* the device or process is lost */
} mill_error_class;
enum { MILL_CLASSES = 4 };
/** "permanent", "transient", "data", "device", as errors.jsonl and pipeline files have them; what is no class is permanent. Static.
 *  Threads: any. Blocks: no. */
MILL_API const char *mill_class_text(int32_t error_class);

/**
 * A failure. Owned by the caller of the function that fills it, normally on the stack; holds no pointers to memory of others, so it
 * can be copied and handed to another thread. Initialise with {0}.
 * The first function to know the cause fills it (mill_fail); functions above add what they know with mill_error_context and pass
 * the status up.
 */
typedef struct mill_error {
    mill_status status;
    int32_t phase;       /* mill_phase */
    int32_t error_class; /* mill_error_class */
    int32_t replica;     /* -1 = none, as mill_fail leaves it */
    int32_t attempt;     /* 0 = first */
    /* 1-based place in `file`; 0 = none. A column without a line: in a value that was given by itself, which `file` shows */
    int32_t line, column;
    int32_t origin_line; /* in `origin` */
    char msg[448];    /* the cause in one line, no full stop */
    char context[256]; /* outer circumstances, innermost first, parted by "; " */
    char remedy[192]; /* what the user can do; may be empty */
    char file[256];   /* file at fault; may be empty */
    char field[96];   /* parameter, column or key at fault; may be empty */
    char step[64];    /* name of the step in the pipeline; may be empty */
    char origin[40];  /* source file that knew first */
} mill_error;

/** Fill @p err (may be NULL) unless it already holds a failure, and return @p status, so that
 *  `return mill_fail(err, MILL_ERR_IO, "cannot open %s: %s", path, strerror(e))` is the whole error path. */
#define mill_fail(err, status, ...) mill_fail_at((err), (status), __FILE__, __LINE__, __VA_ARGS__)
MILL_API mill_status mill_fail_at(mill_error *err, mill_status status, const char *file, int line, const char *fmt, ...)
    MILL_PRINTF(5, 6);

/** Append an outer circumstance ("loading model models/x"); no effect when @p err is NULL or holds no failure. */
MILL_API void mill_error_context(mill_error *err, const char *fmt, ...) MILL_PRINTF(2, 3);
/** Say what the user can do about it. Does not replace a remedy that is there; no effect when @p err is NULL or holds no
 *  failure. */
MILL_API void mill_error_remedy(mill_error *err, const char *fmt, ...) MILL_PRINTF(2, 3);
/** Say which file, line and column (1-based, 0 = unknown) are at fault. Does not replace a place already set; no effect when
 *  @p err is NULL or holds no failure. @p file is copied. */
MILL_API void mill_error_place(mill_error *err, const char *file, int line, int column);
/** One line of text: "file:line:column: step: message (context). Remedy"; control characters in it are shown as spaces and question
 *  marks. Returns the length it would need, as snprintf. */
MILL_API int mill_error_format(const mill_error *err, char *buf, size_t size);

MILL_END_DECLS

#endif
