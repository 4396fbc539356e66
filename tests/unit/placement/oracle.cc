#include "oracle.h"

#include <algorithm>
#include <cmath>

namespace mt {

stm_place_step &Problem::add(const std::string &name, int32_t gpus, int32_t replicas)
{
    steps.push_back({});
    stm_place_step &s = steps.back();
    s.gpus = gpus, s.replicas = replicas, s.cpus = 1;
    names.push_back(name);
    devices.emplace_back();
    return s;
}

stm_place_problem Problem::view()
{
    stm_place_problem p = {};

    for (size_t i = 0; i < steps.size(); i++) {
        steps[i].name = names[i].c_str();
        steps[i].devices = devices[i].empty() ? nullptr : devices[i].data();
        steps[i].n_devices = (int32_t)devices[i].size();
    }
    p.topology = topology;
    p.steps = steps.data(), p.n_steps = (int32_t)steps.size();
    p.edges = edges.data(), p.n_edges = (int32_t)edges.size();
    p.memory_share = memory_share;
    return p;
}

namespace {

struct Replica {
    int32_t step, index;
};

std::vector<Replica> replicas_of(const stm_place_problem &p)
{
    std::vector<Replica> out;
    for (int32_t a = 0; a < p.n_steps; a++)
        for (int32_t i = 0; i < p.steps[a].replicas; i++) out.push_back({a, i});
    return out;
}

double speed(const stm_topology *t, int32_t g)
{
    double sum = 0;
    int known = 0;
    for (int32_t i = 0; i < t->n_gpus; i++)
        if (t->gpus[i].units > 0) sum += t->gpus[i].units, known++;
    return t->gpus[g].units > 0 ? t->gpus[g].units * known / sum : 1;
}

double batch_seconds(const stm_place_step &s) { return s.seconds > 0 ? s.seconds : STM_PLACE_SECONDS; }

double per_byte(const stm_place_problem &p, int32_t a, int32_t b) { return stm_topology_seconds_per_byte(p.topology, a, b); }

/* What two replicas cost each other; INFINITY when they may not meet. */
double pair_cost(const stm_place_problem &p, int32_t a, const std::vector<int32_t> &x, int32_t b, const std::vector<int32_t> &y)
{
    const stm_place_step &s = p.steps[a], &t = p.steps[b];
    double cost = 0, mean = 0;

    if (s.stage != t.stage) return 0;
    for (int32_t i : x)
        for (int32_t k : y) {
            mean += per_byte(p, i, k) / (double)(x.size() * y.size());
            if (i != k || s.gpus == 0 || t.gpus == 0) continue;
            if (a != b && !(s.share && t.share)) return INFINITY;
            cost += std::min(batch_seconds(s), batch_seconds(t)) / speed(p.topology, i);
        }
    for (int32_t e = 0; e < p.n_edges; e++) {
        const stm_place_edge &edge = p.edges[e];
        if ((edge.from == a && edge.to == b) || (edge.from == b && edge.to == a)) /* each pair has its share of what crosses */
            cost += edge.bytes * p.steps[edge.to].replicas * mean / ((double)s.replicas * t.replicas);
    }
    return cost;
}

/* What a replica costs alone. */
double own_cost(const stm_place_problem &p, int32_t a, const std::vector<int32_t> &x)
{
    const stm_place_step &s = p.steps[a];
    double fastest = 0, arriving = 0, cost = 0, between = 0;
    int pairs = 0;

    if (s.gpus == 0) return 0;
    for (int32_t g = 0; g < p.topology->n_gpus; g++) fastest = std::max(fastest, speed(p.topology, g));
    for (int32_t g : x) cost += STM_PLACE_SLOWNESS * batch_seconds(s) * (1 / speed(p.topology, g) - 1 / fastest) / (double)x.size();
    for (int32_t e = 0; e < p.n_edges; e++)
        if (p.edges[e].to == a) arriving += p.edges[e].bytes;
    for (size_t i = 0; i < x.size(); i++)
        for (size_t k = 0; k < i; k++) between += per_byte(p, x[i], x[k]), pairs++;
    return pairs > 0 ? cost + arriving * (double)(x.size() - 1) * between / pairs : cost;
}

/* What the stages' totals cost: memory (INFINITY above what there is) and processors. Sums are by stage and site. */
class Totals {
public:
    explicit Totals(const stm_place_problem &p) : p_(p), sites_((size_t)p.topology->n_gpus + (size_t)p.topology->n_nodes)
    {
        int32_t stages = 1;

        for (int32_t a = 0; a < p.n_steps; a++) stages = std::max(stages, p.steps[a].stage + 1);
        sums_.resize((size_t)stages * sites_);
        for (int32_t g = 0; g < p.topology->n_gpus; g++) {
            speeds_.push_back(speed(p.topology, g));
            room_.push_back((double)p.topology->gpus[g].memory * (p.memory_share > 0 ? p.memory_share : 1));
        }
        for (int32_t n = 0; n < p.topology->n_nodes; n++) processors_.push_back(stm_cpus_count(&p.topology->nodes[n].cpus));
    }
    /* Of the first @p n replicas. */
    double cost(const std::vector<Replica> &replicas, const Sites &sites, size_t n)
    {
        const size_t gpus = (size_t)p_.topology->n_gpus;
        double cost = 0;

        std::fill(sums_.begin(), sums_.end(), Sum());
        for (size_t r = 0; r < n; r++) {
            const stm_place_step &s = p_.steps[replicas[r].step];
            const size_t first = (size_t)sites[r][0];
            Sum *stage = &sums_[(size_t)s.stage * sites_];
            Sum &node = stage[s.gpus > 0 ? gpus + (size_t)std::max(0, p_.topology->gpus[first].node) : first];

            node.threads += s.cpus;
            node.seconds += s.gpus > 0 ? batch_seconds(s) / speeds_[first] : batch_seconds(s);
            for (int32_t g : sites[r])
                if (s.gpus > 0) stage[g].bytes += (double)s.memory;
        }
        for (size_t i = 0; i < sums_.size(); i++) {
            const size_t site = i % sites_;
            if (site < gpus) {
                if (room_[site] > 0 && sums_[i].bytes > room_[site]) return INFINITY;
            } else {
                const double there = processors_[site - gpus];
                if (there > 0 && sums_[i].threads > there) cost += (sums_[i].threads / there - 1) * sums_[i].seconds;
            }
        }
        return cost;
    }

private:
    struct Sum {
        double bytes = 0, threads = 0, seconds = 0;
    };
    const stm_place_problem &p_;
    const size_t sites_;
    std::vector<Sum> sums_;
    std::vector<double> speeds_, room_, processors_;
};

/* Every choice of k of @p from. */
void choose(const std::vector<int32_t> &from, size_t k, size_t at, std::vector<int32_t> &now,
            std::vector<std::vector<int32_t>> &out)
{
    if (now.size() == k) {
        out.push_back(now);
        return;
    }
    for (size_t i = at; i < from.size(); i++) {
        now.push_back(from[i]);
        choose(from, k, i + 1, now, out);
        now.pop_back();
    }
}

std::vector<std::vector<int32_t>> options_of(const stm_place_problem &p, const Replica &r)
{
    const stm_place_step &s = p.steps[r.step];
    std::vector<std::vector<int32_t>> out;
    std::vector<int32_t> from, now;

    if (s.gpus > 0 && s.devices != nullptr) {
        for (int32_t k = 0; k < s.gpus; k++) now.push_back(s.devices[(r.index * s.gpus + k) % s.n_devices]);
        return {now};
    }
    for (int32_t g = 0; s.gpus > 0 && g < p.topology->n_gpus; g++)
        if (!stm_topology_is_split(p.topology, g) && !(p.taken != nullptr && p.taken[g])) from.push_back(g);
    for (int32_t n = 0; s.gpus == 0 && n < p.topology->n_nodes; n++) from.push_back(p.topology->n_gpus + n);
    choose(from, s.gpus > 0 ? (size_t)s.gpus : 1, 0, now, out);
    return out;
}

/* No part of the cost can be below 0, so what costs as much as the best does is not gone on from. */
class Trial {
public:
    explicit Trial(const stm_place_problem &p)
        : p_(p), replicas_(replicas_of(p)), totals_(p), sites_(replicas_.size()), chosen_(replicas_.size())
    {
        for (const Replica &r : replicas_) {
            first_.push_back(own_.size());
            options_.push_back(options_of(p, r));
            for (const auto &site : options_.back()) own_.push_back(own_cost(p, r.step, site));
        }
        pairs_.assign(own_.size() * own_.size(), NAN);
    }
    double best()
    {
        go(0, 0);
        return best_;
    }

private:
    /* Of replica r at its option o and an earlier one at what was chosen for it; calculated when it is first asked for. */
    double pair(size_t r, size_t o, size_t q)
    {
        double &cost = pairs_[(first_[r] + o) * own_.size() + first_[q] + chosen_[q]];

        if (std::isnan(cost)) cost = pair_cost(p_, replicas_[r].step, options_[r][o], replicas_[q].step, sites_[q]);
        return cost;
    }
    void go(size_t r, double pairs)
    {
        const double totals = totals_.cost(replicas_, sites_, r);

        if (!(pairs + totals < best_)) return;
        if (r == replicas_.size()) {
            best_ = pairs + totals;
            return;
        }
        /* replicas of a step are alike: only in one order */
        for (size_t o = r > 0 && replicas_[r - 1].step == replicas_[r].step && options_[r].size() > 1 ? chosen_[r - 1] : 0;
             o < options_[r].size(); o++) {
            double cost = pairs + own_[first_[r] + o];

            for (size_t q = 0; q < r && cost < best_; q++) cost += pair(r, o, q);
            if (!(cost < best_)) continue;
            sites_[r] = options_[r][o];
            chosen_[r] = o;
            go(r + 1, cost);
        }
    }

    const stm_place_problem &p_;
    const std::vector<Replica> replicas_;
    Totals totals_;
    std::vector<std::vector<std::vector<int32_t>>> options_; /* of each replica */
    std::vector<size_t> first_;                              /* its first option's place in: */
    std::vector<double> own_, pairs_;                        /* what options cost alone, and two of them together */
    Sites sites_;
    std::vector<size_t> chosen_;
    double best_ = INFINITY;
};

} // namespace

double oracle_cost(const stm_place_problem &p, const Sites &sites)
{
    const std::vector<Replica> replicas = replicas_of(p);
    double cost = Totals(p).cost(replicas, sites, sites.size());

    for (size_t r = 0; r < sites.size(); r++) {
        cost += own_cost(p, replicas[r].step, sites[r]);
        for (size_t q = 0; q < r; q++) cost += pair_cost(p, replicas[r].step, sites[r], replicas[q].step, sites[q]);
    }
    return cost;
}

double oracle_best(const stm_place_problem &p) { return Trial(p).best(); }

Sites sites_of(const stm_place_problem &p, const stm_placement &placed)
{
    Sites out;
    for (int32_t i = 0; i < placed.n; i++) {
        const stm_placed &e = placed.entries[i];
        if (e.n_gpus > 0)
            out.emplace_back(e.gpus, e.gpus + e.n_gpus);
        else
            out.push_back({p.topology->n_gpus + e.node});
    }
    return out;
}

Problem random_problem(std::mt19937 &rng, const stm_topology *t, int most_steps, int most_replicas)
{
    const auto upto = [&](int n) { return (int)(rng() % (unsigned)n); };
    const auto log_uniform = [&](double lo, double hi) { return lo * std::pow(hi / lo, (double)(rng() % 10000) / 10000); };
    Problem p;
    const int n = 2 + upto(most_steps - 1);
    const bool crowded = upto(4) == 0; /* much memory, and steps that do not share: often there is no placement */
    int left = most_replicas - n;

    p.topology = t;
    for (int i = 0; i < n; i++) {
        const int more = left > 0 ? upto(std::min(left, 3) + 1) : 0;
        const int kind = upto(8);
        stm_place_step &s = p.add("s" + std::to_string(i), kind == 0 ? 0 : kind == 1 && t->n_gpus >= 2 ? 2 : 1, 1 + more);
        const int64_t memory = t->n_gpus > 0 ? t->gpus[upto(t->n_gpus)].memory : 0;

        left -= more;
        s.share = crowded ? upto(2) != 0 : upto(10) != 0;
        s.seconds = upto(4) == 0 ? 0 : log_uniform(1e-4, 1e-2);
        s.memory = (int64_t)((double)memory * (crowded ? 0.9 : 0.4) * upto(1000) / 1000);
        s.cpus = 1 + (upto(4) == 0 ? upto(8) : 0);
        s.stage = upto(6) == 0 ? 1 : 0;
    }
    for (int i = 1; i < n; i++) { /* one draw at a time: arguments have no order */
        const int from = upto(3) == 0 ? upto(i) : i - 1;
        p.connect(from, i, log_uniform(1e3, 1e9));
    }
    if (n > 2 && upto(2) == 0) p.connect(0, n - 1, log_uniform(1e3, 1e8)); /* a join */
    return p;
}

} // namespace mt
