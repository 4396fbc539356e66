#include "placement/search.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"

#define EPSILON 1e-12

/* ---- what things cost ---------------------------------------------------------------------------------------------- */

static double seconds_of(const stm_search *s, int32_t step, int32_t site)
{
    const double own = s->p->steps[step].seconds > 0 ? s->p->steps[step].seconds : STM_PLACE_SECONDS;

    return site < s->n_gpus ? own / s->speed[site] : own;
}

static double slowness_of(const stm_search *s, int32_t step, int32_t site)
{
    const double own = s->p->steps[step].seconds > 0 ? s->p->steps[step].seconds : STM_PLACE_SECONDS;

    return site < s->n_gpus ? STM_PLACE_SLOWNESS * (own / s->speed[site] - own / s->fastest) : 0;
}

static stm_site_load *load_at(const stm_search *s, int32_t step, int32_t site)
{
    return &s->loads[(size_t)s->p->steps[step].stage * (size_t)s->n_sites + (size_t)site];
}

static double overload(const stm_search *s, int32_t site, double bytes)
{
    return bytes > s->room[site] ? STM_PLACE_NEVER * (s->room[site] > 0 ? (bytes - s->room[site]) / s->room[site] + 1 : 2) : 0;
}

static double crowd(const stm_search *s, int32_t site, double threads, double seconds)
{
    const double rate = s->processors[site] > 0 ? threads / s->processors[site] : 1;

    return rate > 1 ? (rate - 1) * seconds : 0;
}

/* The GPU that a replica's threads stay near: its first one. A set that nobody wrote down is in the order of the bus. */
static int32_t first_site(const stm_search *s, int32_t r, const int32_t *sites, int32_t k)
{
    int32_t first = sites[0];

    for (int32_t i = 1; i < k && !s->replicas[r].pinned; i++)
        if (sites[i] < first) first = sites[i];
    return first;
}

static int32_t node_near(const stm_search *s, int32_t site)
{
    if (site >= s->n_gpus) return site;
    return s->n_gpus + (s->p->topology->gpus[site].node >= 0 ? s->p->topology->gpus[site].node : 0);
}

int32_t stm_search_threads_node(const stm_search *s, int32_t r)
{
    return node_near(s, first_site(s, r, s->sites + s->replicas[r].first, s->replicas[r].k));
}

static double exchange(const stm_search *s, int32_t step, const int32_t *sites, int32_t k)
{
    double sum = 0;

    if (k < 2) return 0;
    for (int32_t i = 0; i < k; i++)
        for (int32_t j = i + 1; j < k; j++) sum += stm_topology_seconds_per_byte(s->p->topology, sites[i], sites[j]);
    return s->arriving[step] * (k - 1) * sum / ((double)k * (k - 1) / 2);
}

bool stm_search_may(const stm_search *s, int32_t r, int32_t site)
{
    const stm_place_step *step = &s->p->steps[s->replicas[r].step];

    if (step->gpus == 0) return site >= s->n_gpus;
    if (site >= s->n_gpus || (s->p->taken != NULL && s->p->taken[site])) return false;
    return !stm_topology_is_split(s->p->topology, site);
}

/* Seconds that a byte of step @p other's replicas needs to @p site, on average. */
static double distance(const stm_search *s, int32_t other, int32_t site)
{
    const double *mean = &s->mean[(size_t)other * (size_t)s->n_sites];
    const double *row = &s->p->topology->seconds_per_byte[(size_t)site * (size_t)s->n_sites];
    double sum = 0;

    for (int32_t y = 0; y < s->n_sites; y++) sum += mean[y] * row[y];
    return sum;
}

/* Whether two replicas may not meet on a GPU. */
static bool conflicting(const stm_search *s, int32_t a, int32_t b)
{
    const stm_place_step *x = &s->p->steps[a], *y = &s->p->steps[b];

    return a != b && !(x->share && y->share);
}

void stm_search_pull(stm_search *s, int32_t r)
{
    const int32_t a = s->replicas[r].step;
    const stm_place_step *step = &s->p->steps[a];

    for (int32_t x = 0; x < s->n_sites; x++) {
        double transfer = 0;

        if (!stm_search_may(s, r, x)) continue;
        for (int32_t e = 0; e < s->p->n_edges; e++) {
            const stm_place_edge *edge = &s->p->edges[e];
            const int32_t other = edge->from == a ? edge->to : edge->to == a ? edge->from : -1;

            if (other < 0 || s->p->steps[other].stage != step->stage) continue;
            transfer += edge->bytes * s->p->steps[edge->to].replicas / step->replicas * distance(s, other, x);
        }
        s->pull[x] = transfer / s->replicas[r].k + slowness_of(s, a, x) / s->replicas[r].k;
    }
    if (step->gpus == 0) return;
    for (int32_t q = 0; q < s->n_replicas; q++) { /* who is there already */
        const stm_search_replica *other = &s->replicas[q];
        const bool never = conflicting(s, a, other->step);

        if (q == r || !other->placed || s->p->steps[other->step].gpus == 0 || s->p->steps[other->step].stage != step->stage)
            continue;
        for (int32_t i = 0; i < other->k; i++) {
            const int32_t x = s->sites[other->first + i];
            const double mine = seconds_of(s, a, x), theirs = seconds_of(s, other->step, x);

            s->pull[x] += (mine < theirs ? mine : theirs) + (never ? STM_PLACE_NEVER : 0);
        }
    }
}

static double price(const stm_search *s, int32_t r, const int32_t *sites, int32_t k)
{
    const int32_t a = s->replicas[r].step;
    const stm_place_step *step = &s->p->steps[a];
    const int32_t first = first_site(s, r, sites, k), node = node_near(s, first);
    const stm_site_load *l = load_at(s, a, node);
    const double seconds = seconds_of(s, a, first);
    double sum = exchange(s, a, sites, k);

    for (int32_t i = 0; i < k; i++) {
        sum += s->pull[sites[i]];
        if (step->memory > 0 && sites[i] < s->n_gpus) {
            const double used = load_at(s, a, sites[i])->bytes;

            sum += overload(s, sites[i], used + (double)step->memory) - overload(s, sites[i], used);
        }
    }
    return sum + crowd(s, node, l->threads + step->cpus, l->seconds + seconds) - crowd(s, node, l->threads, l->seconds);
}

double stm_search_price(const stm_search *s, int32_t r, const int32_t *sites) { return price(s, r, sites, s->replicas[r].k); }

/* ---- putting and taking ---------------------------------------------------------------------------------------------- */

static void change(stm_search *s, int32_t r, double sign)
{
    const stm_search_replica *q = &s->replicas[r];
    const stm_place_step *step = &s->p->steps[q->step];
    const int32_t *sites = s->sites + q->first;
    const int32_t first = first_site(s, r, sites, q->k);
    stm_site_load *node = load_at(s, q->step, node_near(s, first));

    for (int32_t i = 0; i < q->k; i++) {
        double *mean = &s->mean[(size_t)q->step * (size_t)s->n_sites + (size_t)sites[i]];

        *mean += sign / ((double)step->replicas * q->k);
        if (*mean < EPSILON) *mean = 0;
        if (sites[i] < s->n_gpus) load_at(s, q->step, sites[i])->bytes += sign * (double)step->memory;
    }
    node->threads += sign * step->cpus;
    node->seconds += sign * seconds_of(s, q->step, first);
}

void stm_search_put(stm_search *s, int32_t r)
{
    change(s, r, 1);
    s->replicas[r].placed = true;
}

void stm_search_take(stm_search *s, int32_t r)
{
    change(s, r, -1);
    s->replicas[r].placed = false;
}

double stm_search_cost(stm_search *s)
{
    const stm_place_problem *p = s->p;
    double sum = 0;

    for (int32_t e = 0; e < p->n_edges; e++) {
        const stm_place_edge *edge = &p->edges[e];
        const double *mean = &s->mean[(size_t)edge->from * (size_t)s->n_sites];

        if (p->steps[edge->from].stage != p->steps[edge->to].stage) continue;
        for (int32_t x = 0; x < s->n_sites; x++)
            if (mean[x] > 0) sum += edge->bytes * p->steps[edge->to].replicas * mean[x] * distance(s, edge->to, x);
    }
    for (int32_t r = 0; r < s->n_replicas; r++) {
        const stm_search_replica *a = &s->replicas[r];
        const int32_t *sites = s->sites + a->first;

        sum += exchange(s, a->step, sites, a->k);
        for (int32_t i = 0; i < a->k; i++) sum += slowness_of(s, a->step, sites[i]) / a->k;
        for (int32_t q = 0; q < r && p->steps[a->step].gpus > 0; q++) {
            const stm_search_replica *b = &s->replicas[q];

            if (p->steps[b->step].gpus == 0 || p->steps[b->step].stage != p->steps[a->step].stage) continue;
            for (int32_t i = 0; i < a->k; i++)
                for (int32_t j = 0; j < b->k; j++) {
                    const double x = seconds_of(s, a->step, sites[i]), y = seconds_of(s, b->step, sites[i]);

                    if (sites[i] == s->sites[b->first + j])
                        sum += (x < y ? x : y) + (conflicting(s, a->step, b->step) ? STM_PLACE_NEVER : 0);
                }
        }
    }
    for (int32_t stage = 0; stage < s->n_stages; stage++)
        for (int32_t x = 0; x < s->n_sites; x++) {
            const stm_site_load *l = &s->loads[(size_t)stage * (size_t)s->n_sites + (size_t)x];

            sum += x < s->n_gpus ? overload(s, x, l->bytes) : crowd(s, x, l->threads, l->seconds);
        }
    return sum;
}

/* ---- searching ------------------------------------------------------------------------------------------------------- */

static uint32_t draw(stm_search *s, uint32_t below)
{
    s->random = s->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((s->random >> 33) % below);
}

static bool among(const int32_t *sites, int32_t n, int32_t x)
{
    for (int32_t i = 0; i < n; i++)
        if (sites[i] == x) return true;
    return false;
}

/* The best further site for the n that are there; -1 = none is left. */
static int32_t best_next(const stm_search *s, int32_t r, int32_t *sites, int32_t n)
{
    double least = INFINITY;
    int32_t best = -1;

    for (int32_t x = 0; x < s->n_sites; x++) {
        double cost;

        if (!stm_search_may(s, r, x) || among(sites, n, x)) continue;
        sites[n] = x;
        if ((cost = price(s, r, sites, n + 1)) < least) least = cost, best = x;
    }
    return best;
}

/* Exchange one of k sites for another while that helps. */
static double exchange_members(const stm_search *s, int32_t r, int32_t *sites, int32_t k)
{
    double cost = price(s, r, sites, k);
    bool better = true;

    while (better) {
        better = false;
        for (int32_t i = 0; i < k; i++)
            for (int32_t x = 0; x < s->n_sites; x++) {
                const int32_t was = sites[i];
                double c;

                if (!stm_search_may(s, r, x) || among(sites, k, x)) continue;
                sites[i] = x;
                if ((c = price(s, r, sites, k)) < cost - EPSILON)
                    cost = c, better = true;
                else
                    sites[i] = was;
            }
    }
    return cost;
}

/* The best place for replica @p r as everything else stands, into @p out [k]. False = there is none. */
static bool best_place(stm_search *s, int32_t r, int32_t *out)
{
    enum { STARTS = 16 };
    const int32_t k = s->replicas[r].k;
    double least = INFINITY;
    int32_t sites[STM_TOPOLOGY_MAX_GPUS], tried = 0;

    stm_search_pull(s, r);
    if (k == 1) {
        out[0] = best_next(s, r, sites, 0);
        return out[0] >= 0;
    }
    for (int32_t x = 0; x < s->n_sites && tried < STARTS; x++) { /* grow from each GPU */
        double cost;

        if (!stm_search_may(s, r, x)) continue;
        sites[0] = x;
        for (int32_t n = 1; n < k; n++)
            if ((sites[n] = best_next(s, r, sites, n)) < 0) return false;
        tried++;
        if ((cost = exchange_members(s, r, sites, k)) < least) {
            least = cost;
            memcpy(out, sites, (size_t)k * sizeof *out);
        }
    }
    return tried > 0;
}

static void set_sites(stm_search *s, int32_t r, const int32_t *sites)
{
    memcpy(s->sites + s->replicas[r].first, sites, (size_t)s->replicas[r].k * sizeof *sites);
}

static bool move_one(stm_search *s, int32_t r)
{
    int32_t sites[STM_TOPOLOGY_MAX_GPUS];
    double now, then;

    stm_search_take(s, r);
    if (!best_place(s, r, sites)) return stm_search_put(s, r), false;
    now = stm_search_price(s, r, s->sites + s->replicas[r].first);
    then = stm_search_price(s, r, sites);
    if (then < now - EPSILON) set_sites(s, r, sites);
    stm_search_put(s, r);
    return then < now - EPSILON;
}

/* What replicas a and b (both taken off) add at their sites. */
static double price_of_two(stm_search *s, int32_t a, int32_t b)
{
    double sum;

    stm_search_pull(s, a);
    sum = stm_search_price(s, a, s->sites + s->replicas[a].first);
    stm_search_put(s, a);
    stm_search_pull(s, b);
    sum += stm_search_price(s, b, s->sites + s->replicas[b].first);
    stm_search_take(s, a);
    return sum;
}

static void exchange_sites(stm_search *s, int32_t a, int32_t b)
{
    int32_t *x = s->sites + s->replicas[a].first, *y = s->sites + s->replicas[b].first;

    for (int32_t i = 0; i < s->replicas[a].k; i++) {
        const int32_t t = x[i];
        x[i] = y[i];
        y[i] = t;
    }
}

static bool swap_two(stm_search *s, int32_t a, int32_t b)
{
    const stm_search_replica *x = &s->replicas[a], *y = &s->replicas[b];
    const stm_place_step *of_x = &s->p->steps[x->step], *of_y = &s->p->steps[y->step];
    double now, then;

    if (x->pinned || y->pinned || x->k != y->k || x->step == y->step || of_x->stage != of_y->stage ||
        (of_x->gpus == 0) != (of_y->gpus == 0) ||
        memcmp(s->sites + x->first, s->sites + y->first, (size_t)x->k * sizeof *s->sites) == 0)
        return false;
    stm_search_take(s, a);
    stm_search_take(s, b);
    now = price_of_two(s, a, b);
    exchange_sites(s, a, b);
    then = price_of_two(s, a, b);
    if (!(then < now - EPSILON)) exchange_sites(s, a, b);
    stm_search_put(s, a);
    stm_search_put(s, b);
    return then < now - EPSILON;
}

/* Moves, and exchanges of two, until nothing helps. */
static void improve(stm_search *s)
{
    enum { MAX_SWEEPS = 100, SWAPS_UP_TO = 256 };
    bool better = true;

    for (int32_t sweep = 0; better && sweep < MAX_SWEEPS; sweep++) {
        better = false;
        for (int32_t r = 0; r < s->n_replicas; r++)
            if (!s->replicas[r].pinned) better = move_one(s, r) || better;
        if (better || s->n_replicas > SWAPS_UP_TO) continue;
        for (int32_t a = 0; a < s->n_replicas; a++)
            for (int32_t b = a + 1; b < s->n_replicas; b++) better = swap_two(s, a, b) || better;
    }
}

/* The hardest first: those with most GPUs, then with most memory. */
static bool harder(const stm_search *s, int32_t a, int32_t b)
{
    const stm_place_step *x = &s->p->steps[s->replicas[a].step], *y = &s->p->steps[s->replicas[b].step];

    return x->gpus != y->gpus ? x->gpus > y->gpus : x->memory > y->memory;
}

static bool place_greedily(stm_search *s, int32_t *order)
{
    int32_t sites[STM_TOPOLOGY_MAX_GPUS], n = 0;

    for (int32_t r = 0; r < s->n_replicas; r++) {
        int32_t at = n;

        if (s->replicas[r].pinned) {
            stm_search_put(s, r);
            continue;
        }
        for (; at > 0 && harder(s, r, order[at - 1]); at--) order[at] = order[at - 1];
        order[at] = r;
        n++;
    }
    for (int32_t i = 0; i < n; i++) {
        if (!best_place(s, order[i], sites)) return false;
        set_sites(s, order[i], sites);
        stm_search_put(s, order[i]);
    }
    return true;
}

/* Throw some replicas anywhere. */
static void kick(stm_search *s)
{
    const int32_t n = s->n_replicas / 3 + 2;

    for (int32_t i = 0; i < n; i++) {
        const int32_t r = (int32_t)draw(s, (uint32_t)s->n_replicas), k = s->replicas[r].k;
        int32_t sites[STM_TOPOLOGY_MAX_GPUS], from[STM_TOPOLOGY_MAX_GPUS + STM_TOPOLOGY_MAX_NODES], left = 0;

        if (s->replicas[r].pinned) continue;
        for (int32_t x = 0; x < s->n_sites; x++)
            if (stm_search_may(s, r, x)) from[left++] = x;
        for (int32_t j = 0; j < k; j++) {
            const uint32_t at = draw(s, (uint32_t)left);

            sites[j] = from[at];
            from[at] = from[--left];
        }
        stm_search_take(s, r);
        set_sites(s, r, sites);
        stm_search_put(s, r);
    }
}

static void go_to(stm_search *s, const int32_t *sites)
{
    for (int32_t r = 0; r < s->n_replicas; r++)
        if (s->replicas[r].placed) stm_search_take(s, r);
    memcpy(s->sites, sites, (size_t)s->total_sites * sizeof *sites);
    for (int32_t r = 0; r < s->n_replicas; r++) stm_search_put(s, r);
}

double stm_search_run(stm_search *s, int32_t starts, int32_t *best, mill_status *st)
{
    int32_t *order = stm_malloc(((size_t)s->n_replicas + 1) * sizeof *order);
    double least;

    *st = order != NULL ? MILL_OK : MILL_ERR_NOMEM;
    if (order == NULL) return 0;
    if (!place_greedily(s, order)) {
        stm_free(order);
        *st = MILL_ERR_INVALID;
        return 0;
    }
    stm_free(order);
    improve(s);
    least = stm_search_cost(s);
    memcpy(best, s->sites, (size_t)s->total_sites * sizeof *best);
    for (int32_t i = 1; i < starts; i++) {
        double cost;

        kick(s);
        improve(s);
        cost = stm_search_cost(s);
        if (cost < least - EPSILON) {
            least = cost;
            memcpy(best, s->sites, (size_t)s->total_sites * sizeof *best);
        } else {
            go_to(s, best);
        }
    }
    go_to(s, best);
    return least;
}

/* ---- making one ------------------------------------------------------------------------------------------------------ */

static void measure_sites(stm_search *s)
{
    const stm_topology *t = s->p->topology;
    double units = 0;
    int32_t known = 0;
    const bool any = stm_cpus_count(&s->p->allowed) == 0;

    for (int32_t g = 0; g < s->n_gpus; g++)
        if (t->gpus[g].units > 0) units += t->gpus[g].units, known++;
    s->fastest = 0;
    for (int32_t g = 0; g < s->n_gpus; g++) {
        s->speed[g] = t->gpus[g].units > 0 ? t->gpus[g].units / (units / known) : 1;
        if (s->speed[g] > s->fastest) s->fastest = s->speed[g];
        s->room[g] =
            t->gpus[g].memory > 0 ? (double)t->gpus[g].memory * (s->p->memory_share > 0 ? s->p->memory_share : 1) : INFINITY;
    }
    for (int32_t i = 0; i < t->n_nodes; i++) {
        const stm_cpus usable = any ? t->nodes[i].cpus : stm_cpus_and(&t->nodes[i].cpus, &s->p->allowed);

        s->processors[s->n_gpus + i] = stm_cpus_count(&usable);
        s->room[s->n_gpus + i] = INFINITY;
    }
}

static void list_replicas(stm_search *s)
{
    int32_t r = 0, at = 0;

    for (int32_t a = 0; a < s->p->n_steps; a++) {
        const stm_place_step *step = &s->p->steps[a];

        s->first_of[a] = r;
        for (int32_t i = 0; i < step->replicas; i++, r++) {
            stm_search_replica *q = &s->replicas[r];

            *q = (stm_search_replica){a, step->gpus > 0 ? step->gpus : 1, at, step->devices != NULL && step->gpus > 0, false};
            for (int32_t k = 0; q->pinned && k < q->k; k++)
                s->sites[at + k] = step->devices[((int64_t)i * q->k + k) % step->n_devices];
            at += q->k;
        }
    }
    s->first_of[s->p->n_steps] = r;
}

mill_status stm_search_init(stm_search *s, const stm_place_problem *p, mill_error *err)
{
    size_t sites, replicas = 0, total = 0;

    *s =
        (stm_search){.p = p, .n_sites = stm_topology_sites(p->topology), .n_gpus = p->topology->n_gpus, .n_stages = 1, .random = 1};
    sites = (size_t)s->n_sites;
    for (int32_t a = 0; a < p->n_steps; a++) {
        replicas += (size_t)p->steps[a].replicas;
        total += (size_t)p->steps[a].replicas * (size_t)(p->steps[a].gpus > 0 ? p->steps[a].gpus : 1);
        if (p->steps[a].stage >= s->n_stages) s->n_stages = p->steps[a].stage + 1;
    }
    if (replicas > STM_PLACE_MAX_REPLICAS) return mill_fail(err, MILL_ERR_INVALID, "more than %d replicas", STM_PLACE_MAX_REPLICAS);
    s->n_replicas = (int32_t)replicas, s->total_sites = (int32_t)total;
    s->replicas = stm_calloc((replicas + 1) * sizeof *s->replicas);
    s->sites = stm_calloc((total + 1) * sizeof *s->sites);
    s->first_of = stm_calloc(((size_t)p->n_steps + 1) * sizeof *s->first_of);
    s->speed = stm_calloc(sites * sizeof *s->speed);
    s->room = stm_calloc(sites * sizeof *s->room);
    s->processors = stm_calloc(sites * sizeof *s->processors);
    s->arriving = stm_calloc(((size_t)p->n_steps + 1) * sizeof *s->arriving);
    s->mean = stm_calloc(((size_t)p->n_steps + 1) * sites * sizeof *s->mean);
    s->loads = stm_calloc((size_t)s->n_stages * sites * sizeof *s->loads);
    s->pull = stm_calloc(sites * sizeof *s->pull);
    if (s->replicas == NULL || s->sites == NULL || s->first_of == NULL || s->speed == NULL || s->room == NULL ||
        s->processors == NULL || s->arriving == NULL || s->mean == NULL || s->loads == NULL || s->pull == NULL) {
        stm_search_fini(s);
        return mill_fail(err, MILL_ERR_NOMEM, "placing replicas");
    }
    for (int32_t e = 0; e < p->n_edges; e++) s->arriving[p->edges[e].to] += p->edges[e].bytes;
    measure_sites(s);
    list_replicas(s);
    return MILL_OK;
}

void stm_search_fini(stm_search *s)
{
    stm_free(s->replicas);
    stm_free(s->sites);
    stm_free(s->first_of);
    stm_free(s->speed);
    stm_free(s->room);
    stm_free(s->processors);
    stm_free(s->arriving);
    stm_free(s->mean);
    stm_free(s->loads);
    stm_free(s->pull);
    *s = (stm_search){0};
}
