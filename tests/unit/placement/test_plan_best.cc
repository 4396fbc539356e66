/* The planner against the best of all placements. */
#include "support/sanitized.h"

#include "oracle.h"
#include "topologies.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <filesystem>

namespace {

struct PlacementDestroy {
    void operator()(stm_placement *p) const { stm_placement_destroy(&p); }
};
using Placement = std::unique_ptr<stm_placement, PlacementDestroy>;

struct Tally {
    int compared = 0, refused = 0, exact = 0;
    double worst = 1;
};

/* One problem: within 1.05 of the best, refused exactly when there is none, and of the cost that it says. */
void compare(mt::Problem &problem, Tally &tally)
{
    const stm_place_problem p = problem.view();
    const double best = mt::oracle_best(p);
    stm_placement *placed = nullptr;
    mill_error err = {};
    const mill_status st = stm_placement_make(&p, &placed, nullptr, &err);
    const Placement owned(placed);

    if (std::isinf(best)) {
        EXPECT_EQ(st, MILL_ERR_INVALID) << "there is no placement";
        EXPECT_STRNE(err.msg, "");
        tally.refused++;
        return;
    }
    ASSERT_EQ(st, MILL_OK) << err.msg << ", but there is one of cost " << best;
    const double said = mt::oracle_cost(p, mt::sites_of(p, *placed));
    EXPECT_NEAR(placed->cost, said, 1e-9 + 1e-6 * said) << "its cost is not what plan.h says";
    EXPECT_LE(said, best * 1.05 + 1e-12);
    EXPECT_GE(said, best * (1 - 1e-9) - 1e-12) << "better than the best: the oracle is wrong";
    tally.compared++;
    tally.exact += said <= best * (1 + 1e-9) + 1e-15;
    if (best > 0) tally.worst = std::max(tally.worst, said / best);
}

struct Machine {
    std::string name;
    mt::Topology topology;
};

/* Those with one to eight GPUs: invented and recorded ones, and published ones where they are. */
const std::vector<Machine> &machines()
{
    static const std::vector<Machine> all = [] {
        namespace fs = std::filesystem;
        const char *shared = getenv("STEPMILL_SHARED");
        std::vector<std::string> files;
        std::vector<Machine> found;

        for (const std::string &name : mt::invented()) files.push_back(TOPOLOGY_DIR "/" + name);
        files.insert(files.end(), {TOPOLOGY_DIR "/nccl-4gpu.xml", TOPOLOGY_DIR "/recorded-3gpu.xml"});
        const auto own = static_cast<long>(files.size());
        for (const char *folder : {"/topologies/hwloc", "/topologies/nccl"})
            if (const std::string dir = std::string(shared != nullptr ? shared : "") + folder; fs::exists(dir))
                for (const auto &entry : fs::directory_iterator(dir)) files.push_back(entry.path());
        std::sort(files.begin() + own, files.end());
        for (const std::string &file : files) {
            stm_topology *t = nullptr;
            mill_error err = {};
            EXPECT_EQ(stm_topology_read(file.c_str(), &t, &err), MILL_OK) << file << ": " << err.msg;
            Machine m = {fs::path(file).filename(), mt::Topology(t)};
            if (t != nullptr && t->n_gpus > 0 && t->n_gpus <= 8) found.push_back(std::move(m));
        }
        return found;
    }();
    return all;
}

/* Six steps on each machine: a chain with a join, as a pipeline of embed, judge and friends would be. */
TEST(PlanBest, SixStepsOnEveryMachine)
{
    Tally tally;

    for (const Machine &machine : machines()) {
        const stm_topology *t = machine.topology.get();
        SCOPED_TRACE(machine.name);
        for (double scale : {1e-2, 1.0, 1e2}) { /* transfers that hardly count, that matter, and that are all */
            mt::Problem p;
            p.topology = t;
            for (int i = 0; i < 6; i++) {
                stm_place_step &s = p.add("s" + std::to_string(i), 1);
                s.share = true;
                s.memory = (int64_t)(i % 3 + 1) << 28;
                s.seconds = 1e-3 * (1 + i % 2);
            }
            for (int i = 1; i < 6; i++) p.connect(i - 1, i, 4e6 * scale * i);
            p.connect(0, 5, 1e6 * scale);
            compare(p, tally);
        }
    }
    EXPECT_GE(machines().size(), 14u);
    EXPECT_EQ(tally.compared, 3 * static_cast<int>(machines().size())) << "there is room for all on each";
    printf("%d compared, %d of them exactly the best, worst %.4f\n", tally.compared, tally.exact, tally.worst);
}

TEST(PlanBest, RandomProblems)
{
    std::mt19937 rng(20261122);
    Tally tally;
    const int problems = mt::rounds(400, 100);
    for (int i = 0; i < problems; i++) {
        SCOPED_TRACE("problem " + std::to_string(i));
        const stm_topology *t = machines()[rng() % machines().size()].topology.get();
        mt::Problem p = mt::random_problem(rng, t, 6, t->n_gpus > 4 ? 6 : 7);
        compare(p, tally);
        if (HasFailure()) return;
    }
    EXPECT_GE(tally.compared, problems / 2);
    EXPECT_GE(tally.refused, problems / 40);
    printf("%d compared, %d of them exactly the best, worst %.4f; %d refused\n", tally.compared, tally.exact, tally.worst,
           tally.refused);
}

/* Large plans are fast, and no worse than spreading in turn. */
TEST(PlanBest, ManyReplicas)
{
    const mt::Topology t = mt::read_topology("two-boards-16gpu.topo");
    mt::Problem problem;
    stm_placement *placed = nullptr;
    mill_error err = {};

    problem.topology = t.get();
    for (int i = 0; i < 4; i++) {
        stm_place_step &s = problem.add("s" + std::to_string(i), i == 3 ? 2 : 1, 32);
        s.share = true, s.memory = 1 << 28;
        if (i > 0) problem.connect(i - 1, i, 1e6 * i);
    }
    const stm_place_problem p = problem.view();
    const std::clock_t from = std::clock();
    ASSERT_EQ(stm_placement_make(&p, &placed, nullptr, &err), MILL_OK) << err.msg;
    const double took = (double)(std::clock() - from) / CLOCKS_PER_SEC;
    const Placement owned(placed);
    EXPECT_LT(took, 30) << "seconds of a processor; it takes well below one without a sanitizer";
    mt::Sites turns;
    for (int32_t r = 0; r < 128; r++)
        turns.push_back(r < 96 ? std::vector<int32_t>{r % 16} : std::vector<int32_t>{r % 16, (r + 1) % 16});
    EXPECT_LE(placed->cost, mt::oracle_cost(p, turns));
    EXPECT_NEAR(placed->cost, mt::oracle_cost(p, mt::sites_of(p, *placed)), 1e-6 * placed->cost);
    printf("128 replicas on 16 GPUs: %.3f s\n", took);
}

} // namespace
