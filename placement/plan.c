#include "placement/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/text.h"
#include "placement/search.h"

/* ---- what cannot be, before any search ------------------------------------------------------------------------------- */

/* "GPU 1 (GPU-8932f937-...)". */
static const char *gpu_name(const stm_topology *t, int32_t g, char *buf, size_t size)
{
    const char *id = t->gpus[g].uuid[0] != '\0' ? t->gpus[g].uuid : t->gpus[g].pci;

    snprintf(buf, size, "GPU %d%s%.60s%s", g, id[0] != '\0' ? " (" : "", id, id[0] != '\0' ? ")" : "");
    return buf;
}

static mill_status check_devices(const stm_search *s, const stm_place_step *step, mill_error *err)
{
    const stm_topology *t = s->p->topology;
    char name[96], need[40], have[40];

    if (step->n_devices < step->gpus || step->n_devices % step->gpus != 0)
        return mill_fail(err, MILL_ERR_INVALID, "a replica takes %d GPUs, and the list of devices has %d", step->gpus,
                         step->n_devices);
    for (int32_t i = 0; i < step->n_devices; i++) {
        const int32_t g = step->devices[i];

        if (g < 0 || g >= t->n_gpus)
            return mill_fail(err, MILL_ERR_INVALID, "there is no GPU %d: this process sees %d", g, t->n_gpus);
        if (stm_topology_is_split(t, g))
            return mill_fail(err, MILL_ERR_INVALID, "%s is split into MIG instances: name one of them",
                             gpu_name(t, g, name, sizeof name));
        for (int32_t k = i - i % step->gpus; k < i; k++)
            if (step->devices[k] == g) return mill_fail(err, MILL_ERR_INVALID, "one replica has GPU %d twice", g);
        if ((double)step->memory > s->room[g])
            return mill_fail(err, MILL_ERR_INVALID, "a replica needs %s on each GPU, and %s has %s to give",
                             stm_show_bytes((double)step->memory, need, sizeof need), gpu_name(t, g, name, sizeof name),
                             stm_show_bytes(s->room[g], have, sizeof have));
    }
    return MILL_OK;
}

static mill_status check_step(const stm_search *s, int32_t a, mill_error *err)
{
    const stm_place_step *step = &s->p->steps[a];
    int32_t usable = 0, roomy = 0;
    double most = 0;
    char need[40], have[40];

    if (step->gpus == 0) return MILL_OK;
    if (step->devices != NULL) return check_devices(s, step, err);
    for (int32_t g = 0; g < s->n_gpus; g++) {
        if (!stm_search_may(s, s->first_of[a], g)) continue;
        usable++;
        roomy += (double)step->memory <= s->room[g];
        if (s->room[g] > most) most = s->room[g];
    }
    if (usable < step->gpus)
        return mill_fail(err, MILL_ERR_INVALID,
                         "a replica takes %d GPU%s, and there %s %d that this process sees and nobody else has", step->gpus,
                         step->gpus == 1 ? "" : "s", usable == 1 ? "is" : "are", usable);
    if (roomy >= step->gpus) return MILL_OK;
    stm_show_bytes((double)step->memory, need, sizeof need);
    stm_show_bytes(most, have, sizeof have);
    if (step->gpus == 1)
        mill_fail(err, MILL_ERR_INVALID, "a replica needs %s of GPU memory, and the largest GPU has %s to give", need, have);
    else
        mill_fail(err, MILL_ERR_INVALID, "a replica needs %s on each of %d GPUs: %d ha%s so much, the largest has %s to give", need,
                  step->gpus, roomy, roomy == 1 ? "s" : "ve", have);
    mill_error_remedy(err, "Smaller batches, a smaller model, or a lower precision");
    return MILL_ERR_INVALID;
}

/* ---- what did not work out ---------------------------------------------------------------------------------------------- */

static bool share_site(const stm_search *s, int32_t a, int32_t b, int32_t *site)
{
    const stm_search_replica *x = &s->replicas[a], *y = &s->replicas[b];

    for (int32_t i = 0; i < x->k; i++)
        for (int32_t j = 0; j < y->k; j++)
            if (s->sites[x->first + i] == s->sites[y->first + j]) {
                *site = s->sites[x->first + i];
                return true;
            }
    return false;
}

static mill_status find_conflict(const stm_search *s, int32_t *fault, mill_error *err)
{
    char name[96];
    int32_t g;

    for (int32_t b = 0; b < s->n_replicas; b++)
        for (int32_t a = 0; a < b; a++) {
            const int32_t i = s->replicas[a].step, k = s->replicas[b].step;
            const stm_place_step *x = &s->p->steps[i], *y = &s->p->steps[k];

            if (i == k || x->gpus == 0 || y->gpus == 0 || x->stage != y->stage || (x->share && y->share) ||
                !share_site(s, a, b, &g))
                continue;
            *fault = k;
            gpu_name(s->p->topology, g, name, sizeof name);
            if (!x->share && !y->share)
                mill_fail(err, MILL_ERR_INVALID, "%s and %s would both be on %s, and do not share", x->name, y->name, name);
            else
                mill_fail(err, MILL_ERR_INVALID, "%s and %s would both be on %s, and %s does not share", x->name, y->name, name,
                          x->share ? y->name : x->name);
            mill_error_remedy(err, "Give them other devices or fewer replicas, load them one after the other (load_groups), or set "
                                   "share: true in both");
            return MILL_ERR_INVALID;
        }
    return MILL_OK;
}

static mill_status find_overload(const stm_search *s, int32_t *fault, mill_error *err)
{
    char name[96], need[40], have[40];

    for (int32_t stage = 0; stage < s->n_stages; stage++)
        for (int32_t g = 0; g < s->n_gpus; g++) {
            const double used = s->loads[(size_t)stage * (size_t)s->n_sites + (size_t)g].bytes;
            stm_text who = {0};

            if (used <= s->room[g]) continue;
            for (int32_t r = 0; r < s->n_replicas; r++) {
                const stm_search_replica *q = &s->replicas[r];

                if (s->p->steps[q->step].stage != stage || s->p->steps[q->step].memory == 0) continue;
                for (int32_t i = 0; i < q->k; i++)
                    if (s->sites[q->first + i] == g) {
                        if (who.bytes < 200)
                            stm_text_addf(&who, "%s%s[%d]", who.bytes > 0 ? ", " : "", s->p->steps[q->step].name,
                                          r - s->first_of[q->step]);
                        *fault = q->step;
                    }
            }
            mill_fail(err, MILL_ERR_INVALID, "%s together need %s on %s, which has %s to give",
                      who.data != NULL ? who.data : "replicas", stm_show_bytes(used, need, sizeof need),
                      gpu_name(s->p->topology, g, name, sizeof name), stm_show_bytes(s->room[g], have, sizeof have));
            mill_error_remedy(err, "Fewer replicas, smaller batches, or load_groups");
            stm_text_free(&who);
            return MILL_ERR_INVALID;
        }
    return MILL_OK;
}

/* ---- processors --------------------------------------------------------------------------------------------------------- */

/* Hands out the processors of a node in turn, so that replicas of one stage get their own while there are some. */
typedef struct dealer {
    stm_cpus usable;
    int32_t last;
} dealer;

static stm_cpus deal(dealer *d, int32_t n)
{
    const int32_t most = stm_cpus_count(&d->usable);
    stm_cpus out = {0};

    for (int32_t i = 0; i < n && i < most; i++) {
        d->last = stm_cpus_next(&d->usable, d->last);
        if (d->last < 0) d->last = stm_cpus_next(&d->usable, -1);
        stm_cpus_add(&out, d->last);
    }
    return out;
}

static mill_status give_processors(const stm_search *s, stm_placement *out, mill_error *err)
{
    const stm_topology *t = s->p->topology;
    const stm_cpus all = stm_topology_cpus(t);
    const bool any = stm_cpus_count(&s->p->allowed) == 0;
    dealer *dealers = stm_calloc(((size_t)t->n_nodes + 1) * sizeof *dealers); /* the last one for nodes without any */

    if (dealers == NULL) return mill_fail(err, MILL_ERR_NOMEM, "placing replicas");
    for (int32_t stage = 0; stage < s->n_stages; stage++) {
        for (int32_t i = 0; i <= t->n_nodes; i++) {
            const stm_cpus *of = i < t->n_nodes ? &t->nodes[i].cpus : &all;

            dealers[i] = (dealer){any ? *of : stm_cpus_and(of, &s->p->allowed), -1};
        }
        if (stm_cpus_count(&dealers[t->n_nodes].usable) == 0)
            dealers[t->n_nodes].usable = s->p->allowed; /* a topology of another machine */
        for (int32_t r = 0; r < out->n; r++) {
            stm_placed *e = &out->entries[r];
            dealer *d = &dealers[e->node];

            if (s->p->steps[e->step].stage != stage) continue;
            if (stm_cpus_count(&d->usable) == 0) d = &dealers[t->n_nodes];
            e->cpus = deal(d, s->p->steps[e->step].cpus);
        }
    }
    stm_free(dealers);
    return MILL_OK;
}

/* ---- the plan ------------------------------------------------------------------------------------------------------------ */

static mill_status hand_out(const stm_search *s, stm_placement **out, mill_error *err)
{
    stm_placement *p = stm_calloc(sizeof *p);
    mill_status st;

    if (p == NULL || (p->entries = stm_calloc(((size_t)s->n_replicas + 1) * sizeof *p->entries)) == NULL ||
        (p->gpus = stm_malloc(((size_t)s->total_sites + 1) * sizeof *p->gpus)) == NULL) {
        stm_placement_destroy(&p);
        return mill_fail(err, MILL_ERR_NOMEM, "placing replicas");
    }
    p->n = s->n_replicas;
    memcpy(p->gpus, s->sites, (size_t)s->total_sites * sizeof *p->gpus);
    for (int32_t r = 0; r < p->n; r++) {
        const stm_search_replica *q = &s->replicas[r];
        stm_placed *e = &p->entries[r];
        int32_t *gpus = p->gpus + q->first;

        *e = (stm_placed){.step = q->step, .replica = r - s->first_of[q->step]};
        e->node = stm_search_threads_node(s, r) - s->n_gpus;
        if (s->p->steps[q->step].gpus == 0) continue;
        e->gpus = gpus, e->n_gpus = q->k;
        for (int32_t i = 1; i < q->k && !q->pinned; i++) /* a list that somebody wrote keeps its order */
            for (int32_t k = i; k > 0 && gpus[k - 1] > gpus[k]; k--) {
                const int32_t x = gpus[k];
                gpus[k] = gpus[k - 1];
                gpus[k - 1] = x;
            }
    }
    if ((st = give_processors(s, p, err)) != MILL_OK)
        stm_placement_destroy(&p);
    else
        *out = p;
    return st;
}

/* More starts where they are cheap: the search is for thousands of replicas, too. */
static int32_t starts_for(int32_t replicas)
{
    return replicas <= 16 ? 100 : replicas <= 32 ? 30 : replicas <= 128 ? 6 : replicas <= 512 ? 2 : 1;
}

mill_status stm_placement_make(const stm_place_problem *p, stm_placement **out, int32_t *fault, mill_error *err)
{
    stm_search s;
    int32_t at = 0, *best = NULL;
    double cost = 0;
    mill_status st = stm_search_init(&s, p, err);

    if (fault == NULL) fault = &at;
    if (st != MILL_OK) return st;
    for (int32_t a = 0; a < p->n_steps; a++) {
        *fault = a;
        if ((st = check_step(&s, a, err)) != MILL_OK) goto fail;
    }
    if ((best = stm_malloc(((size_t)s.total_sites + 1) * sizeof *best)) == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "placing replicas");
        goto fail;
    }
    cost = stm_search_run(&s, starts_for(s.n_replicas), best, &st);
    if (st != MILL_OK) {
        mill_fail(err, st, "no place for all replicas");
        goto fail;
    }
    if (cost >= STM_PLACE_NEVER &&
        ((st = find_conflict(&s, fault, err)) != MILL_OK || (st = find_overload(&s, fault, err)) != MILL_OK))
        goto fail;
    if ((st = hand_out(&s, out, err)) == MILL_OK) (*out)->cost = cost;
fail:
    stm_free(best);
    stm_search_fini(&s);
    return st;
}

void stm_placement_destroy(stm_placement **p)
{
    if (p == NULL || *p == NULL) return;
    stm_free((*p)->entries);
    stm_free((*p)->gpus);
    stm_free(*p);
    *p = NULL;
}

double stm_placement_cost(const stm_place_problem *p, const int32_t *sites)
{
    stm_search s;
    double cost;

    if (stm_search_init(&s, p, NULL) != MILL_OK) return INFINITY;
    memcpy(s.sites, sites, (size_t)s.total_sites * sizeof *sites);
    for (int32_t r = 0; r < s.n_replicas; r++) stm_search_put(&s, r);
    cost = stm_search_cost(&s);
    stm_search_fini(&s);
    return cost;
}
