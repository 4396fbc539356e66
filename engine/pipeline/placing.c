#include "pipeline/placing.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "pipeline/yaml.h"
#include "placement/limits.h"

/* Batches that a GPU holds at once: one runs, one is queued behind it, the inputs of a third are on their way. */
enum { BATCHES_ON_GPU = 3 };

int64_t stm_device_bytes(const mill_step *s, const stm_estimate *e)
{
    if (s->policy.memory_bytes > 0) return s->policy.memory_bytes;
    return e->bounded ? (int64_t)(e->bound.resident_bytes + BATCHES_ON_GPU * e->bound.device_bytes) : 0;
}

/* ---- what the file says ---------------------------------------------------------------------------------------------- */

static int32_t gpus_of(const stm_graph_step *s)
{
    return s->keys.gpus > 0 ? (int32_t)s->keys.gpus : s->keys.devices != NULL ? 1 : 0;
}

static mill_status at_resources(const stm_graph_step *s, const stm_value *v, mill_error *err)
{
    const stm_value *resources = v != NULL ? NULL : stm_value_get(s->value, "resources");
    const stm_place *place = v != NULL ? &v->place : resources != NULL ? &resources->key_place : &s->value->key_place;

    mill_error_place(err, place->file, place->line, place->column);
    if (err == NULL) return MILL_ERR_INVALID;
    if (err->step[0] == '\0') snprintf(err->step, sizeof err->step, "%s", s->name);
    if (err->field[0] == '\0') snprintf(err->field, sizeof err->field, v != NULL ? "resources.devices" : "resources");
    return err->status;
}

/* A position, or a UUID as far as it is unique. */
static mill_status find_device(const stm_topology *t, const stm_graph_step *s, const stm_value *v, int32_t *out, mill_error *err)
{
    const size_t n = v->text != NULL ? strlen(v->text) : 0;
    int64_t number;
    int32_t found = -1;

    if (v->text != NULL && stm_parse_int(v->text, &number)) {
        if (number >= 0 && number < t->n_gpus) return *out = (int32_t)number, MILL_OK;
        mill_fail(err, MILL_ERR_INVALID, "there is no GPU %s: this process sees %d", v->text, t->n_gpus);
        return at_resources(s, v, err);
    }
    for (int32_t g = 0; g < t->n_gpus && n >= STM_UUID_LEAST; g++) {
        if (strncmp(t->gpus[g].uuid, v->text, n) != 0) continue;
        if (found >= 0) {
            mill_fail(err, MILL_ERR_INVALID, "the UUIDs of GPUs %d and %d both begin with %.60s", found, g, v->text);
            return at_resources(s, v, err);
        }
        found = g;
    }
    if (found >= 0) return *out = found, MILL_OK;
    mill_fail(err, MILL_ERR_INVALID, "there is no GPU \"%.60s\" among the %d that this process sees",
              v->text != NULL ? v->text : "null", t->n_gpus);
    mill_error_remedy(err, "Positions count as CUDA_VISIBLE_DEVICES does; `stepmill devices` lists them");
    return at_resources(s, v, err);
}

static mill_status read_devices(const stm_topology *t, const stm_graph_step *s, stm_place_step *out, int32_t **devices,
                                mill_error *err)
{
    const stm_value *list = s->keys.devices;
    const size_t n = list->kind == STM_VALUE_LIST ? list->n_items : 1;
    mill_status st = MILL_OK;

    if ((*devices = stm_malloc(n * sizeof **devices)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "placing step %s", s->name);
    for (size_t i = 0; i < n && st == MILL_OK; i++) {
        const stm_value *v = list->kind == STM_VALUE_LIST ? &list->items[i] : list;

        st = find_device(t, s, v, &(*devices)[i], err);
        for (size_t k = 0; k < i && st == MILL_OK; k++) { /* by position and by UUID */
            if ((*devices)[k] != (*devices)[i]) continue;
            mill_fail(err, MILL_ERR_INVALID, "resources.devices: GPU %d is named twice", (int)(*devices)[i]);
            st = at_resources(s, v, err);
        }
    }
    out->devices = *devices;
    out->n_devices = (int32_t)n;
    return st;
}

/* ---- the problem ------------------------------------------------------------------------------------------------------- */

typedef struct problem {
    stm_place_step *steps;
    stm_place_edge *edges;
    int32_t n_edges;
    int32_t **devices; /* [n_steps] */
    stm_estimate *estimates;
} problem;

static void problem_free(problem *q, int32_t n_steps)
{
    for (int32_t i = 0; q->devices != NULL && i < n_steps; i++) stm_free(q->devices[i]);
    stm_free(q->devices);
    stm_free(q->steps);
    stm_free(q->edges);
    stm_free(q->estimates);
}

static mill_status fill_problem(const stm_graph *g, const stm_plan *plan, problem *q, mill_error *err)
{
    const size_t n = (size_t)plan->n_steps;
    const bool any = plan->topology->n_gpus > 0; /* else what wants GPUs runs on processors */
    size_t edges = 0;
    mill_status st;

    for (size_t i = 0; i < n; i++) edges += (size_t)plan->steps[i].n_inputs;
    q->steps = stm_calloc(n * sizeof *q->steps);
    q->edges = stm_calloc((edges + 1) * sizeof *q->edges);
    q->devices = stm_calloc(n * sizeof *q->devices);
    q->estimates = stm_calloc(n * sizeof *q->estimates);
    if (q->steps == NULL || q->edges == NULL || q->devices == NULL || q->estimates == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "placing steps");
    stm_estimate_steps(plan, q->estimates);
    for (int32_t i = 0; i < plan->n_steps; i++) {
        const stm_graph_step *s = &g->steps[g->order[i]];
        const stm_plan_step *ps = &plan->steps[i];

        q->steps[i] = (stm_place_step){.name = s->name,
                                       .replicas = ps->step->policy.replicas,
                                       .gpus = any ? gpus_of(s) : 0,
                                       .cpus = ps->step->policy.cpus,
                                       .memory = stm_device_bytes(ps->step, &q->estimates[i]),
                                       .share = s->keys.share,
                                       .stage = ps->stage};
        if (s->keys.devices != NULL && any && (st = read_devices(plan->topology, s, &q->steps[i], &q->devices[i], err)) != MILL_OK)
            return st;
        if (g->keys.placement == STM_PLACEMENT_EXPLICIT && q->steps[i].gpus > 0 && q->steps[i].devices == NULL) {
            mill_fail(err, MILL_ERR_INVALID, "placement is explicit, and the step does not say its devices");
            mill_error_remedy(err, "Add resources: {devices: [...]}, or set placement: auto");
            return at_resources(s, NULL, err);
        }
        for (int32_t k = 0; k < ps->n_inputs; k++) {
            const int32_t from = ps->inputs[k].from;

            q->edges[q->n_edges++] =
                (stm_place_edge){from, i, (double)stm_row_bytes(&plan->steps[from].step->out) * (double)q->estimates[i].rows};
        }
    }
    return MILL_OK;
}

static bool wants_gpus(const stm_graph *g)
{
    for (int32_t i = 0; i < g->n_steps; i++)
        if (gpus_of(&g->steps[i]) > 0) return true;
    return false;
}

mill_status stm_pipeline_place(const mill_pipeline *p, const stm_graph *g, stm_plan *plan, const bool *taken, mill_error *err)
{
    problem q = {0};
    stm_place_problem what;
    int32_t fault = 0;
    char why[256];
    mill_status st;

    if (!wants_gpus(g) && p->devices_file == NULL) return MILL_OK; /* the machine is not looked at: start-up time counts */
    if (plan->topology == NULL && (st = stm_devices_open(p->devices_file, &plan->topology, why, err)) != MILL_OK) return st;
    if (plan->topology->n_gpus == 0 && p->devices_file == NULL) return MILL_OK; /* everything runs on processors; a note says so */
    stm_placement_destroy(&plan->placement);
    if ((st = fill_problem(g, plan, &q, err)) == MILL_OK) {
        what = (stm_place_problem){.topology = plan->topology,
                                   .steps = q.steps,
                                   .n_steps = plan->n_steps,
                                   .edges = q.edges,
                                   .n_edges = q.n_edges,
                                   .memory_share = g->keys.memory_cuda,
                                   .taken = taken};
        if (p->devices_file == NULL) what.allowed = stm_cpus_allowed(); /* a recorded machine has other processors */
        st = stm_placement_make(&what, &plan->placement, &fault, err);
        if (st == MILL_ERR_INVALID) at_resources(&g->steps[g->order[fault]], NULL, err);
    }
    problem_free(&q, plan->n_steps);
    return st;
}

/* ---- claims ------------------------------------------------------------------------------------------------------------ */

/* Whether every step on GPU @p gpu shares it; *fixed: whether one of them has to have it. */
static bool shared_on(const stm_graph *g, const stm_plan *plan, int32_t gpu, bool *fixed, bool *used)
{
    bool shared = true;

    *fixed = *used = false;
    for (int32_t i = 0; i < plan->placement->n; i++) {
        const stm_placed *e = &plan->placement->entries[i];
        const stm_graph_step *s = &g->steps[g->order[e->step]];

        for (int32_t k = 0; k < e->n_gpus; k++)
            if (e->gpus[k] == gpu) {
                *used = true;
                *fixed |= s->keys.devices != NULL;
                shared &= s->keys.share;
            }
    }
    return shared;
}

/* Claim all of the plan's GPUs; MILL_ERR_BUSY with *gpu = the one that is not free. */
static mill_status claim_all(const stm_graph *g, const stm_plan *plan, stm_claims *claims, int32_t *gpu, bool *fixed,
                             mill_error *err)
{
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < plan->topology->n_gpus && st == MILL_OK; i++) {
        const stm_topology_gpu *dev = &plan->topology->gpus[i];
        const char *name = dev->uuid[0] != '\0' ? dev->uuid : dev->pci;
        bool used;
        const bool shared = shared_on(g, plan, i, fixed, &used);

        if (!used || name[0] == '\0') continue;
        *gpu = i;
        st = stm_claims_take(claims, name, shared, err);
    }
    return st;
}

mill_status stm_pipeline_claim(const mill_pipeline *p, const stm_graph *g, stm_plan *plan, stm_claims **out, mill_error *err)
{
    bool taken[STM_TOPOLOGY_MAX_GPUS] = {false}, fixed = false;
    mill_error first = {0};
    mill_status st = MILL_OK;

    if (plan->placement == NULL || g->keys.placement == STM_PLACEMENT_EXTERNAL) return MILL_OK;
    for (int32_t tries = 0; tries <= plan->topology->n_gpus; tries++) {
        stm_claims *claims = NULL;
        mill_error busy = {0};
        int32_t gpu = 0;

        if ((st = stm_claims_create(&claims, err)) != MILL_OK) return st;
        if ((st = claim_all(g, plan, claims, &gpu, &fixed, &busy)) == MILL_OK) return *out = claims, MILL_OK;
        stm_claims_destroy(&claims);
        if (first.status == MILL_OK) first = busy;
        if (st != MILL_ERR_BUSY || fixed) break;
        taken[gpu] = true;
        if (stm_pipeline_place(p, g, plan, taken, NULL) != MILL_OK) break; /* the rest does not do: say who has what we wanted */
    }
    if (err != NULL && err->status == MILL_OK) *err = first;
    return first.status;
}

/* ---- what `plan` shows --------------------------------------------------------------------------------------------------- */

static void show_gpu(const stm_topology *t, int32_t g, stm_text *out)
{
    const stm_topology_gpu *gpu = &t->gpus[g];

    stm_text_addf(out, "GPU %d -> %s -> %s", g, gpu->uuid[0] != '\0' ? gpu->uuid : "UUID not known",
                  gpu->pci[0] != '\0' ? gpu->pci : "PCI not known");
}

void stm_placing_show(const stm_plan *plan, int32_t step, int width, stm_text *out)
{
    const stm_topology *t = plan->topology;
    char cpus[200];

    for (int32_t i = 0; plan->placement != NULL && i < plan->placement->n; i++) {
        const stm_placed *e = &plan->placement->entries[i];

        if (e->step != step) continue;
        stm_text_addf(out, "  %*s    [%d] ", width, "", e->replica);
        for (int32_t k = 0; k < e->n_gpus; k++) {
            show_gpu(t, e->gpus[k], out);
            stm_text_addf(out, k + 1 < e->n_gpus ? ", " : " -> ");
        }
        stm_text_addf(out, "node %d -> cores %s\n", t->nodes[e->node].os_index, stm_cpus_show(&e->cpus, cpus, sizeof cpus));
    }
}

void stm_placing_json(const stm_plan *plan, int32_t step, stm_text *out)
{
    const stm_topology *t = plan->topology;
    char cpus[2000];
    bool first = true;

    if (plan->placement == NULL) return;
    stm_text_addf(out, ",\"placement\":[");
    for (int32_t i = 0; i < plan->placement->n; i++) {
        const stm_placed *e = &plan->placement->entries[i];

        if (e->step != step) continue;
        stm_text_addf(out, "%s{\"replica\":%d,\"devices\":[", first ? "" : ",", e->replica);
        first = false;
        for (int32_t k = 0; k < e->n_gpus; k++) {
            const stm_topology_gpu *gpu = &t->gpus[e->gpus[k]];

            stm_text_addf(out, "%s{\"position\":%d,\"uuid\":\"", k > 0 ? "," : "", e->gpus[k]);
            stm_text_add_json(out, gpu->uuid, strlen(gpu->uuid));
            stm_text_addf(out, "\",\"pci\":\"%s\"}", gpu->pci);
        }
        stm_text_addf(out, "],\"numa_node\":%d,\"cores\":\"%s\"}", t->nodes[e->node].os_index,
                      stm_cpus_show(&e->cpus, cpus, sizeof cpus));
    }
    stm_text_addf(out, "]");
}
