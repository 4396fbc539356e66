/* Status codes: 0 or negative, grouped by who can act on them. */
#ifndef STEPMILL_STATUS_H
#define STEPMILL_STATUS_H

#include <stdint.h>

#include "stepmill/export.h"

MILL_BEGIN_DECLS

/** What a call came to. Values never change once released; new ones are added inside their group. */
typedef int32_t mill_status;
enum {
    MILL_OK = 0,
    /* The caller asked for something that cannot be (fix the call, the pipeline file or the plugin). */
    MILL_ERR_INVALID = -1,     /* an argument, parameter or file is wrong */
    MILL_ERR_UNSUPPORTED = -2, /* right, but not something this build or device can do */
    MILL_ERR_NOT_FOUND = -3,   /* a file, step type, column or name does not exist */
    MILL_ERR_TYPE = -4,        /* a value or column has another type than expected */
    MILL_ERR_PARSE = -5,       /* text or binary input is malformed */
    /* Trying again may work (transient). */
    MILL_ERR_NOMEM = -20,   /* host memory or a pool limit is exhausted */
    MILL_ERR_AGAIN = -21,   /* not now: full, or not ready */
    MILL_ERR_TIMEOUT = -22, /* a deadline passed */
    MILL_ERR_IO = -23,      /* a read, write or other system call failed */
    MILL_ERR_BUSY = -24,    /* in use by somebody else */
    /* The device or the process is lost. */
    MILL_ERR_DEVICE = -40,     /* the driver refused; the device is unusable from now on */
    MILL_ERR_DEVICE_MEM = -41, /* device memory is exhausted: a smaller batch may fit */
    /* The step or its data. */
    MILL_ERR_STEP = -60,         /* the step failed on this batch */
    MILL_ERR_DATA = -61,         /* a row is not what it should be */
    MILL_ERR_STOPPED = -62,      /* the run was told to stop */
    MILL_ERR_NOT_FINISHED = -63, /* offline batch handed out, not finished: ask again on the next run */
    MILL_ERR_STOP_IF = -64,      /* more rows failed than the pipeline's stop_if allows */
    /* A defect of ours. */
    MILL_ERR_INTERNAL = -80
};

/** Name of a status ("MILL_ERR_NOMEM" gives "out of memory"); "unknown status" for other values.
 *  Threads: any. Blocks: no. Cannot fail; the text is static. */
MILL_API const char *mill_status_text(mill_status status);

MILL_END_DECLS

#endif
