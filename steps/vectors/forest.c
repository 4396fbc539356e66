#include "steps/vectors/forest.h"

#include <stdlib.h>
#include <string.h>

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "no memory for groups"); }

mill_status stm_forest_init(stm_forest *f, int64_t n, mill_error *err)
{
    memset(f, 0, sizeof *f);
    f->n = n;
    f->parent = malloc(((size_t)n + 1) * sizeof *f->parent);
    f->next = malloc(((size_t)n + 1) * sizeof *f->next);
    f->size = calloc((size_t)n + 1, sizeof *f->size);
    if (f->parent == NULL || f->next == NULL || f->size == NULL) return no_memory(err);
    for (int64_t i = 0; i < n; i++) f->parent[i] = i, f->next[i] = -1;
    return MILL_OK;
}

void stm_forest_fini(stm_forest *f)
{
    free(f->parent);
    free(f->next);
    free(f->size);
    memset(f, 0, sizeof *f);
}

int64_t stm_forest_root(stm_forest *f, int64_t i)
{
    while (f->parent[i] != i) {
        f->parent[i] = f->parent[f->parent[i]]; /* halve the path */
        i = f->parent[i];
    }
    return i;
}

void stm_forest_link(stm_forest *f, int64_t i, int64_t j)
{
    const int64_t a = stm_forest_root(f, i), b = stm_forest_root(f, j);

    if (a < b)
        f->parent[b] = a;
    else if (b < a)
        f->parent[a] = b;
}

mill_status stm_forest_settle(stm_forest *f, mill_error *err)
{
    int64_t *last = malloc(((size_t)f->n + 1) * sizeof *last);

    if (last == NULL) return no_memory(err);
    for (int64_t i = 0; i < f->n; i++) { /* a root comes before its members */
        const int64_t root = stm_forest_root(f, i);
        f->parent[i] = root;
        if (root != i) f->next[last[root]] = i;
        last[root] = i;
        f->size[root]++;
    }
    free(last);
    return MILL_OK;
}
