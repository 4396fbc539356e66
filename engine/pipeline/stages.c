#include <stdio.h>
#include <string.h>

#include "pipeline/graph.h"
#include "pipeline/yaml.h"

/*
 * Load groups. Group i of the list is stage i. A step in no group goes with its producers (the last stage of any of
 * them); a generator in no group with the first step that takes its rows. `sequential` is one stage per step.
 */

static mill_status fail_value(const stm_value *v, mill_error *err, mill_status st)
{
    mill_error_place(err, v->place.file, v->place.line, v->place.column);
    return st;
}

static mill_status read_groups(stm_graph *g, const stm_value *groups, mill_error *err)
{
    if (groups->kind != STM_VALUE_LIST)
        return stm_key_expected(groups, "load_groups", "a list of lists of steps, or sequential", err);
    for (size_t i = 0; i < groups->n_items; i++) {
        const stm_value *group = &groups->items[i];

        if (group->kind != STM_VALUE_LIST || group->n_items == 0)
            return stm_key_expected(group, "load_groups", "a list of steps", err);
        for (size_t k = 0; k < group->n_items; k++) {
            const stm_value *v = &group->items[k];
            int32_t s;

            if (v->kind != STM_VALUE_SCALAR || v->text == NULL)
                return stm_key_expected(v, "load_groups", "the name of a step", err);
            if ((s = stm_graph_find(g, v->text)) < 0)
                return stm_graph_unknown_step(g, "load_groups: unknown step", v->text, v->place, err);
            if (g->steps[s].stage >= 0)
                return fail_value(v, err, mill_fail(err, MILL_ERR_INVALID, "load_groups: %s is in a group already", v->text));
            g->steps[s].stage = (int32_t)i;
        }
    }
    g->n_stages = groups->n_items > 0 ? (int32_t)groups->n_items : 1;
    return MILL_OK;
}

/* Where step @p name stands in the list, for the place of an error. */
static const stm_value *group_entry(const stm_value *groups, const char *name)
{
    for (size_t i = 0; i < groups->n_items; i++)
        for (size_t k = 0; k < groups->items[i].n_items; k++)
            if (strcmp(groups->items[i].items[k].text, name) == 0) return &groups->items[i].items[k];
    return groups;
}

mill_status stm_graph_stages(stm_arena *a, stm_graph *g, mill_error *err)
{
    const stm_value *groups = g->keys.load_groups;
    int32_t *first_consumer; /* [n_steps] lowest stage of its consumers */
    mill_status st;

    g->n_stages = 1;
    if (groups == NULL || (groups->kind == STM_VALUE_SCALAR && groups->text == NULL)) return MILL_OK; /* all zero: one stage */
    if (groups->kind == STM_VALUE_SCALAR) {
        if (strcmp(groups->text, "sequential") != 0)
            return stm_key_expected(groups, "load_groups", "a list of lists of steps, or sequential", err);
        for (int32_t i = 0; i < g->n_steps; i++) g->steps[g->order[i]].stage = i;
        g->n_stages = g->n_steps;
        return MILL_OK;
    }
    if ((first_consumer = stm_arena_take(a, (size_t)g->n_steps * sizeof *first_consumer)) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "planning the stages");
    for (int32_t i = 0; i < g->n_steps; i++) g->steps[i].stage = -1, first_consumer[i] = INT32_MAX;
    if ((st = read_groups(g, groups, err)) != MILL_OK) return st;
    for (int32_t i = 0; i < g->n_steps; i++) {
        stm_graph_step *s = &g->steps[g->order[i]];
        int32_t least = -1, of = -1;

        for (int32_t k = 0; k < s->n_inputs; k++) {
            const stm_graph_step *p = &g->steps[s->inputs[k].step];

            if (p->stage > least) least = p->stage, of = s->inputs[k].step;
        }
        while (of >= 0 && g->steps[of].gathers) { /* it came into the group of the last of these */
            const stm_graph_step *p = &g->steps[of];

            for (int32_t k = 0; k < p->n_inputs; k++)
                if (g->steps[p->inputs[k].step].stage == least) of = p->inputs[k].step;
        }
        if (s->stage >= 0 && s->stage < least)
            return fail_value(group_entry(groups, s->name), err,
                              mill_fail(err, MILL_ERR_INVALID,
                                        "load_groups: %s (group %d) needs rows of %s, which is loaded later (group %d)", s->name,
                                        s->stage + 1, g->steps[of].name, least + 1));
        if (s->stage < 0 && s->type->kind != MILL_GENERATOR) s->stage = least; /* -1 while all its producers are open generators */
    }
    for (int32_t i = g->n_steps - 1; i >= 0; i--) { /* against the flow: what is still open goes with the first who needs it */
        stm_graph_step *s = &g->steps[g->order[i]];

        if (s->stage < 0) s->stage = first_consumer[g->order[i]] == INT32_MAX ? 0 : first_consumer[g->order[i]];
        for (int32_t k = 0; k < s->n_inputs; k++)
            if (s->stage < first_consumer[s->inputs[k].step]) first_consumer[s->inputs[k].step] = s->stage;
    }
    return MILL_OK;
}
