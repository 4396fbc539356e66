/* A run as it was started, from its run.json. */
#include <string.h>

#include "core/alloc.h"
#include "core/error.h"
#include "pipeline/facts.h"

/* mill_pipeline_set, as it was called then. */
static mill_status set_again(mill_pipeline *p, const stm_tree *facts, mill_error *err)
{
    const stm_tree *list = stm_tree_get(facts, "set");
    mill_status st = MILL_OK;

    for (const stm_tree *pair = list != NULL ? list->first : NULL; pair != NULL && st == MILL_OK; pair = pair->next)
        if (pair->n == 2 && pair->first->kind == STM_TREE_TEXT)
            st = mill_pipeline_set(p, pair->first->text, pair->first->next->text, err);
    return st == MILL_OK || st == MILL_ERR_NOMEM ? st : stm_refused(st, err, NULL, NULL);
}

static mill_status open_again(const char *dir, const stm_tree *facts, mill_pipeline **out, mill_error *err)
{
    const char *file = stm_tree_text(facts, "file");
    const stm_tree *edited = stm_tree_get(facts, "edited");
    char *path;
    mill_status st;

    if (file[0] == '\0' || edited == NULL || edited->number != 0)
        return mill_fail(
            err, MILL_ERR_INVALID,
            "the run in %s was not started from a pipeline file alone: only the program that made its pipeline can go on with it",
            dir);
    if ((path = stm_path_absolute(stm_tree_text(facts, "directory"), file)) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "reading %s", file);
    st = mill_pipeline_open(path, out, err);
    if (st == MILL_ERR_NOT_FOUND) {
        mill_error_context(err, "the run in %s was started with it", dir);
        mill_error_remedy(err, "Put it back, or give it: stepmill run FILE --run %s", dir);
    }
    stm_free(path);
    return st;
}

mill_status mill_run_reopen(const char *dir, mill_pipeline **out, mill_run_options *options, mill_error *err)
{
    stm_tree_doc *doc = NULL;
    const stm_tree *facts = NULL;
    mill_pipeline *p = NULL;
    mill_error local = {0};
    mill_error *e = err != NULL ? err : &local;
    mill_status st = stm_facts_open(dir, &doc, &facts, e);

    if (st == MILL_OK && stm_tree_get(facts, "merged") != NULL && stm_tree_get(facts, "merged")->number != 0) {
        st = mill_fail(e, MILL_ERR_INVALID, "%s is put together from shards", dir);
        mill_error_remedy(e, "To go on with that: stepmill merge");
    }
    if (st == MILL_OK) st = open_again(dir, facts, &p, e);
    if (st == MILL_OK) st = set_again(p, facts, e);
    if (st == MILL_OK) {
        options->dir = dir;
        options->fresh = options->dry_run = false;
        options->resume = true;
        options->limit = stm_tree_whole(facts, "limit", 0);
        options->shard = (int32_t)stm_tree_whole(facts, "shard", 0);
        options->shards = (int32_t)stm_tree_whole(facts, "shards", 0);
        *out = p;
    } else {
        mill_pipeline_destroy(&p);
    }
    stm_tree_destroy(&doc);
    return st;
}
