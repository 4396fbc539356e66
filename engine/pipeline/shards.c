#include "pipeline/shards.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/error.h"
#include "pipeline/facts.h"
#include "pipeline/yaml.h"
#include "plugin/config.h"

enum { MOST_SHARDS = 65536 };

void stm_shards_fini(stm_shards *s)
{
    for (int32_t i = 0; i < s->n; i++) stm_free(s->dirs[i]);
    stm_free(s->dirs);
    *s = (stm_shards){NULL, 0};
}

/* Which shard a directory is, by its run.json. */
static mill_status look_at(const char *dir, int64_t *shard, int64_t *shards, mill_error *err)
{
    stm_tree_doc *doc = NULL;
    const stm_tree *facts = NULL;
    mill_status st = stm_facts_open(dir, &doc, &facts, err);

    if (st == MILL_OK) {
        *shard = stm_tree_whole(facts, "shard", 0);
        *shards = stm_tree_whole(facts, "shards", 0);
        if (*shard < 1 || *shards < *shard || *shards > MOST_SHARDS)
            st = mill_fail(err, MILL_ERR_INVALID, "%s is not a shard: it was run without --shard", dir);
    }
    stm_tree_destroy(&doc);
    return st == MILL_OK ? st : stm_refused(st, err, NULL, NULL);
}

static mill_status take(stm_shards *s, const char *dir, const char *run_dir, const char *first, mill_error *err)
{
    int64_t shard = 0, shards = 0;
    mill_status st = look_at(dir, &shard, &shards, err);

    if (st != MILL_OK) return st;
    if (s->dirs == NULL) {
        if ((s->dirs = stm_calloc((size_t)shards * sizeof *s->dirs)) == NULL)
            return mill_fail(err, MILL_ERR_NOMEM, "no memory for a merge");
        s->n = (int32_t)shards;
    }
    if (shards != s->n)
        mill_fail(err, MILL_ERR_INVALID, "%s is a shard of %d, %s one of %d", first, (int)s->n, dir, (int)shards);
    else if (s->dirs[shard - 1] != NULL)
        mill_fail(err, MILL_ERR_INVALID, "shard %d of %d is there twice: %s and %s", (int)shard, (int)shards, s->dirs[shard - 1],
                  dir);
    else if (strcmp(dir, run_dir) == 0)
        mill_fail(err, MILL_ERR_INVALID, "%s is a shard, and nothing is merged into one", dir);
    else
        return (s->dirs[shard - 1] = stm_strdup(dir)) != NULL ? MILL_OK : mill_fail(err, MILL_ERR_NOMEM, "no memory for a merge");
    return stm_refused(MILL_ERR_INVALID, err, NULL, NULL);
}

mill_status stm_shards_order(const mill_run_options *o, const char *run_dir, stm_shards *out, mill_error *err)
{
    stm_shards s = {0};
    char *dir;
    mill_status st = MILL_OK;

    for (size_t i = 0; i < o->n_merge && st == MILL_OK; i++) {
        if ((dir = stm_path_absolute(NULL, o->merge[i])) == NULL) st = mill_fail(err, MILL_ERR_NOMEM, "no memory for a merge");
        if (st == MILL_OK) st = take(&s, dir, run_dir, o->merge[0], err);
        stm_free(dir);
    }
    for (int32_t i = 0; i < s.n && st == MILL_OK; i++) {
        if (s.dirs[i] != NULL) continue;
        st = stm_refused(mill_fail(err, MILL_ERR_INVALID, "shard %d of %d is missing", (int)i + 1, (int)s.n), err, NULL, NULL);
        mill_error_remedy(err, "Run it: stepmill run FILE --shard %d/%d", (int)i + 1, (int)s.n);
    }
    if (st == MILL_OK)
        *out = s;
    else
        stm_shards_fini(&s);
    return st;
}

mill_status stm_shards_outputs(const stm_graph *g, const stm_plan *plan, const char *run_dir, mill_error *err)
{
    const size_t n = run_dir != NULL ? strlen(run_dir) : 0;

    for (int32_t i = 0; i < plan->n_steps && run_dir != NULL; i++) {
        const mill_step *s = plan->steps[i].step;
        const int32_t k = stm_graph_find(g, s->name);

        for (size_t j = 0; s->type->kind == MILL_SINK && !plan->steps[i].for_merge && k >= 0 && j < s->type->n_params; j++) {
            const mill_param *p = &s->type->params[j];
            const char *path = p->type == MILL_PARAM_OUT_PATH ? mill_config_text(s->config, p->name) : NULL;
            const stm_value *v = stm_value_get(g->steps[k].value, p->name);

            if (path == NULL || (strncmp(path, run_dir, n) == 0 && path[n] == '/')) continue;
            mill_fail(err, MILL_ERR_INVALID, "parameter \"%s\": all shards would write %s", p->name, path);
            if (v != NULL) mill_error_place(err, v->place.file, v->place.line, v->place.column);
            return stm_refused(MILL_ERR_INVALID, err, s->name,
                               "A path that does not open with '/' is in the run directory of the shard");
        }
    }
    return MILL_OK;
}
