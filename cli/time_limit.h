/*
 * The time that a call may take, --time-left or the end of a Slurm job, and what of it is kept for ending in order:
 *
 *     now                             ask               gone        end
 *      | rows are taken                | a drain, a stop  | reserve  |
 *
 * From `ask` on no more rows are taken; at `gone` the last process has ended, exit code 75, and what is behind it is for whoever
 * called us: a job script that puts its job into the queue again, copies files. The drain has its --drain-timeout and 4 s for a
 * stop, the reserve 30 s, but the two have at most a sixth and a twelfth of the time left, so that three quarters of it go into
 * work however short it is.
 */
#ifndef STM_CLI_TIME_LIMIT_H
#define STM_CLI_TIME_LIMIT_H

#include <stdbool.h>

typedef struct time_limit {
    double left, margin, reserve; /* s: until the end; from `ask` to the end; from `gone` to the end. 0 = no limit */
    double ask, gone;             /* by time_limit_now; 0 = no limit */
} time_limit;

/** Seconds of the monotonic clock. */
double time_limit_now(void);
/** Divide @p left_s, > 0, of a run that drains for @p drain_s at most. `ask` and `gone` are seconds from now then. */
time_limit time_limit_divide(double left_s, double drain_s);
/** Of SLURM_JOB_END_TIME @p text (NULL = not there) at @p wall_s of the wall clock: seconds left; 0 = there is no limit; < 0: @p
 *  text is no time to come, which *why says. A job that works after its end was given more time, which its environment does not
 *  know. */
double time_limit_of_job(const char *text, double wall_s, const char **why);

#endif
