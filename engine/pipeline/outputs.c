/* Files that a pipeline writes: each is one that can be written, no two sinks write the same one, none writes what the pipeline
 * reads or what the run itself keeps. Known from the plan, before a row is lost to it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/filetype.h"
#include "core/runfiles.h"
#include "pipeline/pipeline.h"
#include "pipeline/yaml.h"
#include "plugin/config.h"

typedef struct output {
    const stm_graph_step *step;
    const mill_param *param;
    stm_place place;
    const char *text; /* as given */
    char *path;       /* the file that it is, absolute */
    bool link;        /* the name itself is a symbolic link */
} output;

/* What is read: by a step (who), or by stepmill itself (who NULL: then what it is). */
typedef struct input {
    char *path; /* real */
    const char *who, *what;
    bool folder;
} input;

typedef struct all_files {
    const char *dir; /* the run directory */
    output *outputs; /* [most] */
    size_t n_outputs;
    input *inputs;
    size_t n_inputs, cap_inputs;
} all_files;

/* ---- names -------------------------------------------------------------------------------------------------------- */

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

static bool below(const char *path, const char *folder)
{
    const size_t n = strlen(folder);

    return strncmp(path, folder, n) == 0 && path[n] == '/';
}

/* ---- what is read --------------------------------------------------------------------------------------------------- */

static mill_status add_input(all_files *f, const char *path, const char *who, const char *what, mill_error *err)
{
    struct stat info;
    char *real = realpath(path, NULL);

    if (real == NULL) return MILL_OK; /* it is not there: nothing to destroy */
    if (stm_grow(&f->inputs, &f->cap_inputs, f->n_inputs + 1, sizeof *f->inputs) != 0) {
        free(real);
        return mill_fail(err, MILL_ERR_NOMEM, "planning");
    }
    f->inputs[f->n_inputs++] =
        (input){.path = real, .who = who, .what = what, .folder = stat(real, &info) == 0 && S_ISDIR(info.st_mode)};
    return MILL_OK;
}

static mill_status inputs_of_step(all_files *f, const stm_graph *g, const stm_plan *plan, int32_t i, mill_error *err)
{
    const mill_config *c = plan->steps[i].step->config;
    const char *name = g->steps[g->order[i]].name;
    mill_status st = MILL_OK;

    for (size_t k = 0; c != NULL && k < c->type->n_params && st == MILL_OK; k++) {
        const int32_t type = c->type->params[k].type;
        const stm_param_value *v = &c->values[k];

        if (type == MILL_PARAM_PATH && v->text != NULL) st = add_input(f, v->text, name, NULL, err);
        for (size_t e = 0; type == MILL_PARAM_PATHS && e < v->n_entries && st == MILL_OK; e++)
            st = add_input(f, v->entries[e].text, name, NULL, err);
    }
    return st;
}

static mill_status list_inputs(all_files *f, const mill_pipeline *p, const stm_graph *g, const stm_plan *plan, mill_error *err)
{
    mill_status st = p->file[0] != '\0' ? add_input(f, p->file, NULL, "is the pipeline file", err) : MILL_OK;
    const char *last = NULL;

    for (size_t i = 0; i < stm_registry_count(p->registry) && st == MILL_OK; i++) {
        const char *origin = stm_registry_origin(p->registry, i);

        if (strchr(origin, '/') == NULL || origin == last) continue; /* built in, or of the plugin looked at before */
        last = origin;
        st = add_input(f, origin, NULL, "is a plugin of the pipeline", err);
    }
    for (int32_t i = 0; i < plan->n_steps && st == MILL_OK; i++) st = inputs_of_step(f, g, plan, i, err);
    return st;
}

/* ---- checks --------------------------------------------------------------------------------------------------------- */

static mill_status refuse(const output *o, mill_error *err)
{
    mill_error_remedy(err, "Choose another path");
    mill_error_place(err, o->place.file, o->place.line, o->place.column);
    if (err != NULL) {
        snprintf(err->step, sizeof err->step, "%s", o->step->name);
        snprintf(err->field, sizeof err->field, "%s", o->param->name);
    }
    return MILL_ERR_INVALID;
}

/* It names a file that can be made: neither a folder nor a pipe stands there, nor a file where a folder of it has to be. */
static mill_status check_place(const output *o, mill_error *err)
{
    const char *last = strrchr(o->text, '/') != NULL ? strrchr(o->text, '/') + 1 : o->text;
    char *folder, *slash;
    struct stat info;
    mill_status st = MILL_OK;

    if (last[0] == '\0' || strcmp(last, ".") == 0 || strcmp(last, "..") == 0) {
        mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\" is \"%s\", which names a folder, not a file", o->param->name, o->text);
        return refuse(o, err);
    }
    const bool there = stat(o->path, &info) == 0;
    if (o->link && (!there || S_ISREG(info.st_mode))) { /* /dev/stdout may be one */
        mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": %s is a symbolic link, which the output would replace", o->param->name,
                  o->text);
        return refuse(o, err);
    }
    if (there) {
        if (S_ISREG(info.st_mode)) return MILL_OK;
        mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": %s is %s, not a file that can be replaced", o->param->name, o->path,
                  stm_filetype_word(info.st_mode));
        return refuse(o, err);
    }
    if ((folder = stm_strdup(o->path)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "planning");
    while ((slash = strrchr(folder, '/')) != NULL && slash > folder) {
        *slash = '\0';
        if (stat(folder, &info) != 0) continue;
        if (!S_ISDIR(info.st_mode)) {
            mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": %s is %s, not a folder", o->param->name, folder,
                      stm_filetype_word(info.st_mode));
            st = refuse(o, err);
        }
        break;
    }
    stm_free(folder);
    return st;
}

static mill_status check_inputs(const all_files *f, const output *o, mill_error *err)
{
    for (size_t i = 0; i < f->n_inputs; i++) {
        const input *in = &f->inputs[i];
        const size_t n = strlen(in->path);
        /* of a folder a step reads what lies right in it */
        const bool inside = in->folder && below(o->path, in->path) && strchr(o->path + n + 1, '/') == NULL;

        if (!inside && (in->folder || !stm_output_writes(o->path, in->path))) continue;
        if (in->who == NULL)
            mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": %s %s", o->param->name, in->path, in->what);
        else if (inside)
            mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": step %s reads the folder %s, which this would write into",
                      o->param->name, in->who, in->path);
        else if (strcmp(in->path, o->path) == 0)
            mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": step %s reads the file that this would write", o->param->name,
                      in->who);
        else
            mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": step %s reads %s, which this may write: it has the name of a part",
                      o->param->name, in->who, in->path);
        return refuse(o, err);
    }
    return MILL_OK;
}

static mill_status check_others(const all_files *f, const output *o, mill_error *err)
{
    for (const output *other = f->outputs; other < o; other++) {
        const bool nested = below(o->path, other->path) || below(other->path, o->path);

        if (!nested && !stm_output_writes(other->path, o->path) && !stm_output_writes(o->path, other->path)) continue;
        if (nested)
            mill_fail(err, MILL_ERR_INVALID,
                      "parameter \"%s\": what step %s writes as a file, this needs as a folder, or the other way round",
                      o->param->name, other->step->name);
        else if (strcmp(o->path, other->path) == 0)
            mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": step %s writes this file already", o->param->name,
                      other->step->name);
        else
            mill_fail(err, MILL_ERR_INVALID,
                      "parameter \"%s\": of this file and that of step %s one has the name of a part of the other", o->param->name,
                      other->step->name);
        mill_error_remedy(err, "Give every sink a path of its own; {union: [...]} puts rows into one file");
        return refuse(o, err);
    }
    return MILL_OK;
}

/* Only a run itself writes into its directory: what it goes on with is there. */
static mill_status check_not_in_a_run(const all_files *f, const output *o, mill_error *err)
{
    char *folder = below(o->path, f->dir) ? NULL : stm_strdup(o->path), *slash;
    mill_status st = MILL_OK;

    while (st == MILL_OK && folder != NULL && (slash = strrchr(folder, '/')) != NULL && slash > folder) {
        stm_text facts = {0}, progress = {0};

        *slash = '\0';
        stm_text_addf(&facts, "%s/" STM_RUN_FACTS, folder);
        stm_text_addf(&progress, "%s/" STM_RUN_PROGRESS, folder);
        if (facts.failed || progress.failed) {
            st = mill_fail(err, MILL_ERR_NOMEM, "planning");
        } else if (strcmp(folder, f->dir) != 0 && access(facts.data, F_OK) == 0 && access(progress.data, F_OK) == 0) {
            mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": %s is the run directory of another run, which alone writes there",
                      o->param->name, folder);
            st = refuse(o, err);
        }
        stm_text_free(&facts);
        stm_text_free(&progress);
    }
    stm_free(folder);
    return st;
}

static mill_status check_output(const all_files *f, const output *o, mill_error *err)
{
    const size_t bytes = strlen(f->dir);
    mill_status st;

    if (below(o->path, f->dir) && stm_run_keeps(o->path + bytes + 1)) {
        mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": %s in the run directory is a file of the run itself", o->param->name,
                  o->path + bytes + 1);
        return refuse(o, err);
    }
    if ((st = check_others(f, o, err)) != MILL_OK) return st;
    if ((st = check_inputs(f, o, err)) != MILL_OK) return st;
    if ((st = check_not_in_a_run(f, o, err)) != MILL_OK) return st;
    return check_place(o, err);
}

/* ---- all ------------------------------------------------------------------------------------------------------------ */

static mill_status add_output(all_files *f, const stm_graph_step *s, const mill_param *p, mill_error *err)
{
    const stm_value *v = stm_value_get(s->value, p->name);
    const char *text = v != NULL && v->kind == STM_VALUE_SCALAR ? v->text : p->default_value;
    output *o = &f->outputs[f->n_outputs];
    struct stat info;
    mill_status st;

    if (text == NULL) return MILL_OK;
    *o = (output){.step = s, .param = p, .place = v != NULL ? v->place : s->value->key_place, .text = text};
    if ((st = stm_path_join(f->dir, text, &o->path, err)) != MILL_OK) return st;
    o->link = lstat(o->path, &info) == 0 && S_ISLNK(info.st_mode);
    o->path = one_name(o->path);
    f->n_outputs++;
    return check_output(f, o, err);
}

mill_status stm_check_outputs(const mill_pipeline *p, const stm_graph *g, const stm_plan *plan, const char *run_dir,
                              mill_error *err)
{
    char *real = realpath(run_dir, NULL); /* of a run directory not made yet: as it was given */
    all_files f = {.dir = real != NULL ? real : run_dir};
    size_t most = 0;
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < g->n_steps; i++) most += g->steps[i].type->n_params;
    if (most > 0 && (f.outputs = stm_calloc(most * sizeof *f.outputs)) == NULL) st = mill_fail(err, MILL_ERR_NOMEM, "planning");
    if (st == MILL_OK) st = list_inputs(&f, p, g, plan, err);
    for (int32_t i = 0; i < g->n_steps && st == MILL_OK; i++) {
        const stm_graph_step *s = &g->steps[g->order[i]];

        for (size_t k = 0; k < s->type->n_params && st == MILL_OK; k++)
            if (s->type->kind == MILL_SINK && s->type->params[k].type == MILL_PARAM_OUT_PATH)
                st = add_output(&f, s, &s->type->params[k], err);
    }
    for (size_t i = 0; i < f.n_outputs; i++) stm_free(f.outputs[i].path);
    for (size_t i = 0; i < f.n_inputs; i++) free(f.inputs[i].path);
    stm_free(f.outputs);
    stm_free(f.inputs);
    free(real);
    return st;
}

mill_status stm_claim_outputs(const stm_plan *plan, const char *run_dir, stm_claims **claims, mill_error *err)
{
    char *real = realpath(run_dir, NULL);
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < plan->n_steps && st == MILL_OK; i++) {
        const mill_config *c = plan->steps[i].step->config;

        for (size_t k = 0; c != NULL && c->type->kind == MILL_SINK && k < c->type->n_params && st == MILL_OK; k++) {
            char *path =
                c->type->params[k].type == MILL_PARAM_OUT_PATH && c->values[k].text != NULL ? stm_strdup(c->values[k].text) : NULL;

            if (path == NULL) continue;
            path = one_name(path);
            if (!below(path, run_dir) && !(real != NULL && below(path, real))) {
                if (*claims == NULL) st = stm_claims_create(claims, err);
                if (st == MILL_OK) st = stm_claims_take_file(*claims, path, err);
                if (st != MILL_OK && err != NULL) {
                    snprintf(err->step, sizeof err->step, "%s", plan->steps[i].step->name);
                    mill_error_place(err, c->values[k].place.file, c->values[k].place.line, c->values[k].place.column);
                }
            }
            stm_free(path);
        }
    }
    free(real);
    return st;
}

mill_status stm_note_outputs(const stm_plan *plan, const char *run_dir, stm_footprint **out, mill_error *err)
{
    const char **paths = NULL;
    size_t n = 0, cap = 0;
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < plan->n_steps && st == MILL_OK; i++) {
        const mill_config *c = plan->steps[i].step->config;

        for (size_t k = 0; c != NULL && c->type->kind == MILL_SINK && k < c->type->n_params && st == MILL_OK; k++) {
            if (c->type->params[k].type != MILL_PARAM_OUT_PATH || c->values[k].text == NULL) continue;
            if (stm_grow(&paths, &cap, n + 1, sizeof *paths) != 0) st = mill_fail(err, MILL_ERR_NOMEM, "starting the run");
            else paths[n++] = c->values[k].text;
        }
    }
    if (st == MILL_OK) st = stm_footprint_create(run_dir, paths, n, out, err);
    stm_free(paths);
    return st;
}
