/* What a run that lasts does for its sinks: which files are theirs alone, and the list of those that are complete. */
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "exec/durable_state.h"

#include "core/runfiles.h"
#include "plugin/config.h"
#include "store/footprint.h"
#include "supervise/recorder.h"

static bool opening_over(uint64_t epoch, void *user)
{
    const stm_run *run = user;

    return stm_owner_over(&run->durable->files, run->run_dir, epoch);
}

void stm_durable_forget(const stm_run *run)
{
    const int top = open(run->run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
              folder = top >= 0 ? openat(top, STM_RUN_BATCHES, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    DIR *d = folder >= 0 ? fdopendir(folder) : NULL;

    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.') (void)unlinkat(dirfd(d), e->d_name, 0);
    if (d != NULL) closedir(d);
    else if (folder >= 0) close(folder);
    if (top >= 0) close(top);
}

mill_status stm_durable_footprint(stm_run *run, uint64_t epoch, mill_error *err)
{
    struct stm_recorder *r = run->opts.recorder;
    mill_status st;

    if (run->opts.footprint == NULL) return MILL_OK;
    if ((st = stm_footprint_look(run->opts.footprint, epoch, err)) != MILL_OK) return st;
    if (r != NULL)
        atomic_store_explicit(&r->n_undo, (uint32_t)stm_footprint_write(run->opts.footprint, r->undo, sizeof r->undo),
                              memory_order_release);
    return MILL_OK;
}

static mill_status on_output(stm_wrapper *w, stm_output_event what, const mill_part *part, void *user, mill_error *err)
{
    stm_manifest *m = ((const stm_run *)user)->durable->manifest;
    const char *step = mill_step_name(stm_wrapper_step(w));

    if (what == STM_OUTPUT_PART) return stm_manifest_part(m, step, part, err);
    return what == STM_OUTPUT_BEGINS ? stm_manifest_begin(m, step, true, err) : stm_manifest_complete(m, step, err);
}

/* What steps read is not removed, even if an earlier run wrote it. */
static mill_status note_inputs(stm_manifest *m, const mill_step *s, mill_error *err)
{
    mill_status st = MILL_OK;

    for (size_t k = 0; s != NULL && s->config != NULL && k < s->type->n_params && st == MILL_OK; k++) {
        const int32_t type = s->type->params[k].type;
        const stm_param_value *v = &s->config->values[k];

        if (type == MILL_PARAM_PATH && v->text != NULL) st = stm_manifest_reads(m, v->text, err);
        for (size_t i = 0; type == MILL_PARAM_PATHS && i < v->n_entries && st == MILL_OK; i++)
            st = stm_manifest_reads(m, v->entries[i].text, err);
    }
    return st;
}

mill_status stm_durable_outputs_open(stm_run *run, mill_error *err)
{
    stm_durable *d = run->durable;
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < run->n_stations && st == MILL_OK; i++)
        if (run->stations[i].kind == STM_AT_SINK && !stm_durable_is_others(run, run->stations[i].lasting->part))
            st = stm_manifest_begin(d->manifest, run->stations[i].name, false, err);
    for (int32_t i = 0; i < run->plan->n_steps && st == MILL_OK; i++) st = note_inputs(d->manifest, run->plan->steps[i].step, err);
    run->env.opening = stm_vault_epoch(d->vault);
    run->env.opening_over = opening_over;
    run->env.output = on_output;
    return st;
}
