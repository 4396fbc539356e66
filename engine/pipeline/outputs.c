/* Files that a pipeline writes: no two sinks write the same one, none writes what the pipeline reads or what the run itself keeps. Known
 * from the plan, before a row is lost to it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "pipeline/pipeline.h"
#include "pipeline/yaml.h"
#include "plugin/config.h"

/* What stands for the run directory where there is none yet: nothing else starts like it. */
#define NO_DIR "/\001run"

typedef struct output {
    const stm_graph_step *step;
    const mill_param *param;
    stm_place place;
    char *path; /* the file that it is, absolute */
} output;

/* Takes "." and ".." out of an absolute path, as if no folder were a link: folders may not be there yet. */
static void tidy(char *path)
{
    char *to = path;

    for (const char *part = path; *part == '/';) {
        const size_t n = strcspn(part + 1, "/");

        if (n == 2 && part[1] == '.' && part[2] == '.') {
            while (to > path && *--to != '/') continue;
        } else if (n > 1 || (n == 1 && part[1] != '.')) {
            memmove(to, part, n + 1);
            to += n + 1;
        }
        part += n + 1;
    }
    *to = '\0';
}

/* The same name for the same file, also for one that does not exist: links of its folder are followed where that is there. */
static char *one_name(char *path)
{
    char *slash, *real, *name;
    size_t folder, bytes;

    tidy(path);
    slash = strrchr(path, '/');
    folder = slash != NULL ? (size_t)(slash - path) : 0;
    if ((real = realpath(path, NULL)) == NULL && folder > 0) {
        *slash = '\0';
        real = realpath(path, NULL);
        *slash = '/';
        bytes = real != NULL ? strlen(real) + strlen(slash) + 1 : 0;
        if ((name = real != NULL ? stm_malloc(bytes) : NULL) != NULL) snprintf(name, bytes, "%s%s", real, slash);
    } else {
        name = real != NULL ? stm_strdup(real) : NULL;
    }
    free(real);
    if (name == NULL) return path;
    stm_free(path);
    return name;
}

static mill_status refuse(const output *o, mill_error *err)
{
    mill_error_place(err, o->place.file, o->place.line, o->place.column);
    if (err != NULL) {
        snprintf(err->step, sizeof err->step, "%s", o->step->name);
        snprintf(err->field, sizeof err->field, "%s", o->param->name);
    }
    return MILL_ERR_INVALID;
}

static mill_status not_read(const output *o, const stm_graph *g, const stm_plan *plan, mill_error *err)
{
    for (int32_t i = 0; i < plan->n_steps; i++) {
        const mill_config *c = plan->steps[i].step->config;

        for (size_t k = 0; c != NULL && k < c->type->n_params; k++) {
            const int32_t type = c->type->params[k].type;
            const stm_param_value *v = &c->values[k];

            if (type != MILL_PARAM_PATHS && (type != MILL_PARAM_PATH || v->text == NULL)) continue;
            for (size_t e = 0; e < (type == MILL_PARAM_PATH ? 1 : v->n_entries); e++) {
                char *read = realpath(type == MILL_PARAM_PATH ? v->text : v->entries[e].text, NULL);
                const bool same = read != NULL && strcmp(read, o->path) == 0;

                free(read);
                if (!same) continue;
                mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": step %s reads the file that this would write", o->param->name,
                          g->steps[g->order[i]].name);
                mill_error_remedy(err, "Choose another path");
                return refuse(o, err);
            }
        }
    }
    return MILL_OK;
}

/* Names in the run directory that are the run's own. */
static bool kept_by_the_run(const char *name)
{
    const size_t n = strlen(name);

    return strcmp(name, "errors.jsonl") == 0 || strncmp(name, "journal.", 8) == 0 || strncmp(name, "owner.", 6) == 0 ||
           (n > 4 && strcmp(name + n - 4, ".seg") == 0);
}

static mill_status check_output(const output *all, size_t n, const char *dir, mill_error *err)
{
    const output *o = &all[n];
    const size_t bytes = strlen(dir);

    for (size_t i = 0; i < n; i++) {
        if (strcmp(all[i].path, o->path) != 0) continue;
        mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": step %s writes this file already", o->param->name, all[i].step->name);
        mill_error_remedy(err, "Give every sink a path of its own; {union: [...]} puts rows into one file");
        return refuse(o, err);
    }
    if (strncmp(o->path, dir, bytes) == 0 && o->path[bytes] == '/' && kept_by_the_run(o->path + bytes + 1)) {
        mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": %s in the run directory is a file of the run itself", o->param->name,
                  o->path + bytes + 1);
        mill_error_remedy(err, "Choose another path");
        return refuse(o, err);
    }
    return MILL_OK;
}

static mill_status add_output(output *o, const stm_graph_step *s, const mill_param *p, const char *dir, mill_error *err)
{
    const stm_value *v = stm_value_get(s->value, p->name);
    const char *text = v != NULL && v->kind == STM_VALUE_SCALAR ? v->text : p->default_value;
    mill_status st;

    if (text == NULL) return MILL_OK;
    *o = (output){.step = s, .param = p, .place = v != NULL ? v->place : s->value->key_place};
    st = stm_path_join(dir, text, &o->path, err);
    if (st == MILL_OK) o->path = one_name(o->path);
    return st;
}

mill_status stm_check_outputs(const stm_graph *g, const stm_plan *plan, const char *run_dir, mill_error *err)
{
    char *real = run_dir != NULL ? realpath(run_dir, NULL) : NULL; /* of a run directory not made yet: as it was given */
    const char *dir = real != NULL ? real : run_dir != NULL ? run_dir : NO_DIR;
    output *all = NULL;
    size_t n = 0, most = 0;
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < g->n_steps; i++) most += g->steps[i].type->n_params;
    if (most > 0 && (all = stm_calloc(most * sizeof *all)) == NULL) st = mill_fail(err, MILL_ERR_NOMEM, "planning");
    for (int32_t i = 0; i < g->n_steps && st == MILL_OK; i++) {
        const stm_graph_step *s = &g->steps[g->order[i]];

        for (size_t k = 0; k < s->type->n_params && st == MILL_OK; k++) {
            if (s->type->kind != MILL_SINK || s->type->params[k].type != MILL_PARAM_OUT_PATH) continue;
            st = add_output(&all[n], s, &s->type->params[k], dir, err);
            if (st != MILL_OK || all[n].path == NULL) continue;
            st = check_output(all, n, dir, err);
            if (st == MILL_OK) st = not_read(&all[n], g, plan, err);
            n++;
        }
    }
    for (size_t i = 0; i < n; i++) stm_free(all[i].path);
    stm_free(all);
    free(real);
    return st;
}
