/* What a run that lasts tells whoever supervises it, and takes over from processes that died. */
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "exec/durable_state.h"
#include "supervise/suspects.h"

/* Whether anything is kept of what the step made. */
static bool counts(const stm_run *run, const char *step)
{
    for (int32_t i = 0; i < run->n_stations; i++)
        if (run->stations[i].plan_step >= 0 && strcmp(run->stations[i].name, step) == 0) return run->durable->counts[i];
    return false;
}

void stm_durable_suspects(stm_run *run)
{
    stm_recorder *r = run->opts.recorder;
    mill_error err = {0};
    int32_t n;

    if (r == NULL) return;
    snprintf(r->dir, sizeof r->dir, "%s", run->run_dir);
    if (atomic_load(&r->begun) == 0) { /* later processes of one supervisor have its table */
        if (!run->opts.fresh && stm_suspects_load(r, r->dir, &err) != MILL_OK) stm_log(STM_WARN, "", "%s: it is not used", err.msg);
        n = r->n_suspects;
        for (int32_t i = 0; i < n; i++)
            if (!counts(run, r->suspects[i].step)) atomic_store(&r->suspects[i].verdict, STM_CLEARED);
        stm_suspects_prune(r, false);
        memset(&err, 0, sizeof err);
        if ((r->n_suspects != n || run->opts.fresh) && stm_suspects_save(r, r->dir, &err) != MILL_OK)
            stm_log(STM_WARN, "", "%s", err.msg);
    }
    atomic_store(&r->begun, 1);
}

void stm_durable_progress(const stm_run *run)
{
    stm_recorder *r = run->opts.recorder;
    int64_t done = 0;

    if (r == NULL) return;
    for (int32_t i = 0; i < run->n_stations; i++)
        if (run->stations[i].n_outs == 0) done += (int64_t)run->stations[i].lasting->said.items;
    if (done > atomic_load(&r->done)) atomic_store(&r->done, done);
}
