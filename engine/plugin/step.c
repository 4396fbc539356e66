#include "plugin/step.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/text.h"
#include "plugin/io.h"

stm_policy stm_policy_default(const mill_step_type *type)
{
    return (stm_policy){
        .on_error = type->flags & MILL_PER_ROW ? STM_ON_ERROR_ISOLATE : STM_ON_ERROR_IMPUTE,
        .retry_backoff_s = 1,
        .retry_classes = 1u << MILL_CLASS_TRANSIENT,
        .load_timeout_s = 600,
        .unload_timeout_s = 60,
        .batch_timeout_s = -1,
        .replicas = 1,
        .cpus = 1,
    };
}

const char *mill_step_name(const mill_step *s) { return s->name; }

mill_numerics mill_step_numerics(const mill_step *s) { return s->policy.numerics; }

void *mill_step_state(const mill_step *s) { return s->state; }

void mill_step_set_state(mill_step *s, void *state, void (*destroy)(void *state))
{
    if (s->destroy_state != NULL && s->state != state) s->destroy_state(s->state);
    s->state = state;
    s->destroy_state = destroy;
}

/* Whether a step of this kind can stand where the pipeline puts it. */
static mill_status check_position(const stm_step_spec *spec, mill_error *err)
{
    const mill_step_type *type = spec->type;

    if (type->kind == MILL_GENERATOR && spec->n_arriving > 0)
        return mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" is a generator and takes no input", type->name);
    if (type->kind != MILL_GENERATOR && spec->n_arriving == 0)
        return mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" needs an input", type->name);
    if (type->kind == MILL_ROUTER && spec->n_branches == 0)
        return mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" is a router and needs branches", type->name);
    if (type->kind != MILL_ROUTER && spec->n_branches > 0)
        return mill_fail(err, MILL_ERR_INVALID, "step type \"%s\" is no router and cannot have branches", type->name);
    return MILL_OK;
}

static mill_status copy_spec(const stm_step_spec *spec, mill_step *s, mill_error *err)
{
    s->type = spec->type;
    s->policy = spec->policy;
    s->batch_rows = spec->batch_rows;
    s->budget_tokens = spec->budget_tokens;
    s->budget_bytes = spec->budget_bytes;
    s->converge = spec->converge;
    s->seed = stm_hash64(spec->name, strlen(spec->name), spec->run_seed);
    s->name = stm_strdup(spec->name);
    s->said = stm_strdup(spec->said != NULL ? spec->said : spec->name);
    s->branches = stm_calloc((size_t)spec->n_branches * sizeof *s->branches);
    if (s->name == NULL || s->said == NULL || s->branches == NULL) goto no_memory;
    for (int32_t i = 0; i < spec->n_branches; i++) {
        if ((s->branches[i] = stm_strdup(spec->branches[i])) == NULL) goto no_memory;
        s->n_branches = i + 1;
    }
    return MILL_OK;
no_memory:
    return mill_fail(err, MILL_ERR_NOMEM, "out of memory for step \"%s\"", spec->name);
}

/* What is said of a file, and not at which parameter: the one whose file the message names. */
static void blame_file(const mill_config *c, mill_error *err)
{
    const stm_place *found = NULL;
    const char *param = NULL;
    size_t longest = 0;

    for (size_t i = 0; c != NULL && i < c->type->n_params; i++) {
        const mill_param *p = &c->type->params[i];
        const stm_param_value *v = &c->values[i];
        const bool one = p->type == MILL_PARAM_PATH || p->type == MILL_PARAM_OUT_PATH;
        const size_t n = one ? v->text != NULL : p->type == MILL_PARAM_PATHS ? v->n_entries : 0;

        for (size_t k = 0; k < n; k++) {
            const char *path = one ? v->text : v->entries[k].text;

            if (strlen(path) <= longest || strstr(err->msg, path) == NULL) continue;
            longest = strlen(path);
            found = one ? &v->place : &v->entries[k].place;
            param = p->name;
        }
    }
    if (found == NULL || err->file[0] != '\0') return;
    mill_error_place(err, found->file, found->line, found->column);
    if (err->field[0] == '\0') snprintf(err->field, sizeof err->field, "%s", param);
}

bool stm_step_is_of(const mill_step *s, const mill_error *err)
{
    return strcmp(s->said, err->step) == 0 && (strcmp(s->name, s->said) != 0) == (strcmp(err->field, "from") == 0);
}

void stm_step_blame(const mill_step *s, mill_error *err)
{
    if (s->config == NULL) return;
    blame_file(s->config, err);
    mill_error_place(err, s->config->place.file, s->config->place.line, s->config->place.column);
}

/* The step type's own configure, which may forget to say what is wrong. */
static mill_status configure(mill_step *s, mill_io *io, mill_error *err)
{
    mill_error inner = {0};
    mill_status st;

    if (s->type->configure == NULL) return MILL_OK;
    st = s->type->configure(s, s->config, io, &inner);
    if (st == MILL_OK) return MILL_OK;
    if (inner.status == MILL_OK)
        mill_fail(&inner, st < 0 ? st : MILL_ERR_STEP, "step type \"%s\" cannot be configured: %s", s->type->name,
                  mill_status_text(st < 0 ? st : MILL_ERR_STEP));
    blame_file(s->config, &inner);
    if (err != NULL && err->status == MILL_OK) *err = inner;
    return inner.status;
}

mill_status stm_step_create(const stm_step_spec *spec, mill_step **out, mill_error *err)
{
    mill_error inner = {0};
    mill_step *s = stm_calloc(sizeof *s);
    mill_io io = {.step = s, .spec = spec};
    mill_status st;

    if (s == NULL) {
        st = mill_fail(&inner, MILL_ERR_NOMEM, "out of memory for step \"%s\"", spec->name);
        goto fail;
    }
    if ((st = check_position(spec, &inner)) != MILL_OK) goto fail;
    if ((st = copy_spec(spec, s, &inner)) != MILL_OK) goto fail;
    if ((st = stm_config_create(spec, &s->config, &inner)) != MILL_OK) goto fail;
    if ((st = stm_io_open(&io, &inner)) != MILL_OK) goto fail;
    if ((st = configure(s, &io, &inner)) != MILL_OK) goto fail;
    if ((st = stm_io_close(&io, &inner)) != MILL_OK) goto fail;
    stm_io_fini(&io);
    *out = s;
    return MILL_OK;
fail:
    mill_error_place(&inner, spec->place.file, spec->place.line, spec->place.column);
    if (inner.phase == MILL_PHASE_NONE) inner.phase = MILL_PHASE_CHECK;
    if (inner.step[0] == '\0') snprintf(inner.step, sizeof inner.step, "%s", spec->said != NULL ? spec->said : spec->name);
    if (err != NULL && err->status == MILL_OK) *err = inner;
    stm_io_fini(&io);
    stm_step_destroy(&s);
    return st;
}

void stm_step_destroy(mill_step **step)
{
    mill_step *s = *step;

    if (s == NULL) return;
    *step = NULL;
    if (s->destroy_state != NULL) s->destroy_state(s->state);
    for (int32_t i = 0; i < s->n_inputs; i++) {
        for (int32_t k = 0; k < s->inputs[i].n_used; k++) {
            stm_free(s->inputs[i].used[k].name);
            stm_free(s->inputs[i].used[k].in_branch);
        }
        stm_free(s->inputs[i].used);
        stm_schema_fini(&s->inputs[i].schema);
    }
    stm_free(s->inputs);
    for (int32_t i = 0; i < s->n_united; i++) stm_free(s->united[i].from);
    stm_free(s->united);
    for (int32_t i = 0; i < s->n_outputs; i++) {
        stm_free(s->outputs[i].name);
        stm_free(s->outputs[i].mapped);
    }
    stm_free(s->outputs);
    for (int32_t i = 0; i < s->n_pass; i++) stm_free(s->pass[i].in_branch);
    stm_free(s->pass);
    for (int32_t i = 0; i < s->n_branches; i++) stm_free(s->branches[i]);
    stm_free(s->branches);
    stm_schema_fini(&s->out);
    stm_config_destroy(&s->config);
    stm_free(s->name);
    stm_free(s->said);
    stm_free(s);
}
