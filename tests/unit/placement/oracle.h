/* The cost of a placement straight from the words of placement/plan.h, and the best of all placements by trying them. */
#pragma once
#include <random>
#include <string>
#include <vector>

extern "C" {
#include "placement/plan.h"
}

namespace mt {

/** A problem that owns what it points to. */
struct Problem {
    const stm_topology *topology = nullptr;
    std::vector<std::string> names;
    std::vector<stm_place_step> steps;
    std::vector<stm_place_edge> edges;
    std::vector<std::vector<int32_t>> devices; /* by step; empty = any */
    double memory_share = 0.9;

    /** A step on GPUs; more by changing steps.back(). */
    stm_place_step &add(const std::string &name, int32_t gpus, int32_t replicas = 1);
    void connect(int32_t from, int32_t to, double bytes) { edges.push_back({from, to, bytes}); }
    stm_place_problem view();
};

using Sites = std::vector<std::vector<int32_t>>; /* per replica, step by step */

/** INFINITY for what is refused: too much memory, steps that do not share on one GPU. */
double oracle_cost(const stm_place_problem &p, const Sites &sites);
/** The least cost of all placements; INFINITY = there is none. Exponential. */
double oracle_best(const stm_place_problem &p);
/** Where the planner put them. */
Sites sites_of(const stm_place_problem &p, const stm_placement &placed);
/** A problem of at most @p most_steps steps and @p most_replicas replicas. */
Problem random_problem(std::mt19937 &rng, const stm_topology *t, int most_steps, int most_replicas);

} // namespace mt
