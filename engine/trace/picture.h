/*
 * The picture of a run: all that is known of it at one moment. Whoever watches a run fills one; the table, progress.json, the
 * metrics and the report are drawn from it, whether it came from a run in this process or was read back from a run directory.
 */
#ifndef STM_TRACE_PICTURE_H
#define STM_TRACE_PICTURE_H

#include "core/text.h"
#include "core/tree.h"
#include "stepmill/error.h"
#include "trace/timeline.h"

typedef enum stm_phase {
    STM_PHASE_WAITING,
    STM_PHASE_LOADING,
    STM_PHASE_RUNNING,
    STM_PHASE_DONE,
    STM_PHASE_FAILED,
    STM_PHASES
} stm_phase;
extern const char *const stm_phase_names[STM_PHASES];

typedef enum stm_picture_state {
    STM_PICTURE_RUNNING, /* the numbers of mill_run_state */
    STM_PICTURE_DONE,
    STM_PICTURE_LOAD_FAILED,
    STM_PICTURE_FAILED,
    STM_PICTURE_STOPPED,
    STM_PICTURE_STATES
} stm_picture_state;
extern const char *const stm_picture_state_names[STM_PICTURE_STATES];

typedef struct stm_picture_replica {
    stm_spent doing;        /* when last looked at */
    int64_t rows, batches;  /* taken; of a generator made */
    int64_t ns[STM_SPENTS]; /* how its time was spent so far; OFF is not counted */
} stm_picture_replica;

enum { STM_PICTURE_NAME = 64 };

typedef struct stm_picture_step {
    char name[STM_PICTURE_NAME], type[STM_PICTURE_NAME];
    int32_t kind; /* mill_kind */
    stm_phase phase;
    bool kept; /* done by an earlier attempt: the numbers are those of then, and no sum of this one has them */
    int32_t replicas, loaded;
    bool devices;       /* computes on devices */
    bool may_replicate; /* more replicas are possible */
    int64_t batches_in, rows_in, batches_out, rows_out;
    int64_t rows_dropped, parents_expanded, children, rows_failed, rows_skipped, retries;
    int64_t queued_rows, ready_batches, stalls;
    double done;                            /* generators: share of their input that is read, 0 .. 1; < 0 = unknown */
    int64_t rows_before;                    /* generators: made by earlier attempts */
    double rate;                            /* rows/s (generators: made, else taken), smoothed over about 5 s */
    double busy, starved, blocked, crowded; /* share of its replicas' time, smoothed likewise */
    double eta_s;                           /* < 0 = unknown */
    int64_t first_ns, last_ns;              /* since the start: when rows first and last moved; 0 = never */
    int32_t *from, n_from;                  /* steps in front of it */
    int32_t first_replica;                  /* in stm_picture.all; its track in the timeline */
} stm_picture_step;

typedef struct stm_picture {
    char name[STM_PICTURE_NAME], host[STM_PICTURE_NAME], version[16];
    stm_picture_state state;
    int32_t pid, attempt;       /* attempt: 1, 2, ...: how often the directory was started on */
    int64_t started_s, wall_ms; /* of the start, of this picture: time of day, since 1970 */
    double seconds, earlier_s;  /* of this attempt, of those before */
    int64_t rows_imputed, max_errors, errors;
    int64_t classes[4]; /* error records by class: permanent, transient, data, device */
    int64_t memory_live, memory_peak, memory_limit, on_disk;
    double cpu_s;       /* of the process */
    int32_t processors; /* it may use */
    char error[256];    /* why it failed; "" = it did not */
    stm_picture_step *steps;
    int32_t n_steps;
    stm_picture_replica *all; /* [n_replicas] step by step */
    int32_t n_replicas;
    stm_course timeline;
} stm_picture;

/** What follows from the steps. */
typedef struct stm_picture_sums {
    int64_t rows_in, rows_out, rows_failed; /* made by generators, taken by sinks, imputed where they were */
    double rows_total;                      /* that generators will make, by what they say of their inputs; < 0 = unknown */
    double rate, eta_s;                     /* rows/s made; seconds, < 0 = unknown */
    bool more;                              /* some steps take longer, nobody knows how much */
} stm_picture_sums;
stm_picture_sums stm_picture_add_up(const stm_picture *p);

/** Room for @p n_steps steps, whose replicas, name, kind, n_from and from are set afterwards. */
mill_status stm_picture_create(int32_t n_steps, stm_picture **out);
/** After the steps' replicas are known: room for them and for the timeline. */
mill_status stm_picture_replicas(stm_picture *p);
mill_status stm_picture_from(stm_picture_step *s, int32_t n);
void stm_picture_destroy(stm_picture **p);

/** progress.json. */
void stm_picture_write(const stm_picture *p, stm_text *out);
/** The inverse. MILL_ERR_DATA: no such file, or damaged. */
mill_status stm_picture_read(const char *bytes, size_t n, stm_picture **out);
/** "2026-11-28T12:00:00Z" */
char *stm_show_time(int64_t seconds, char *buf, size_t size);

#endif
