#include "oracle.h"
#include "topologies.h"

#include <algorithm>
#include <set>

#include "support/fail_nth.h"

namespace {

struct PlacementDestroy {
    void operator()(stm_placement *p) const { stm_placement_destroy(&p); }
};
using Placement = std::unique_ptr<stm_placement, PlacementDestroy>;

Placement place(mt::Problem &problem, mill_error *err = nullptr, int32_t *fault = nullptr)
{
    const stm_place_problem p = problem.view();
    stm_placement *out = nullptr;
    mill_error local = {};
    const mill_status st = stm_placement_make(&p, &out, fault, err != nullptr ? err : &local);

    if (err == nullptr) {
        EXPECT_EQ(st, MILL_OK) << local.msg;
    }
    EXPECT_EQ(out != nullptr, st == MILL_OK);
    return Placement(out);
}

std::vector<int32_t> gpus(const stm_placed &e) { return {e.gpus, e.gpus + e.n_gpus}; }

TEST(Plan, SpreadsReplicas)
{
    const mt::Topology t = mt::read_topology("dual-socket-pcie-4gpu.topo");
    mt::Problem p;
    std::set<int32_t> used;

    p.topology = t.get();
    p.add("embed", 1, 4);
    const Placement got = place(p);
    for (int32_t i = 0; i < 4; i++) {
        used.insert(got->entries[i].gpus[0]);
        EXPECT_EQ(got->entries[i].replica, i);
        EXPECT_EQ(got->entries[i].node, t->gpus[got->entries[i].gpus[0]].node);
    }
    EXPECT_EQ(used.size(), 4u);
}

TEST(Plan, MoreReplicasThanGpusAreEven)
{
    const mt::Topology t = mt::read_topology("workstation-2gpu.topo");
    mt::Problem p;
    int count[2] = {0, 0};

    p.topology = t.get();
    p.add("embed", 1, 6);
    const Placement got = place(p);
    for (int32_t i = 0; i < 6; i++) count[got->entries[i].gpus[0]]++;
    EXPECT_EQ(count[0], 3);
    EXPECT_EQ(count[1], 3);
}

TEST(Plan, LinkedGpusForOneReplica)
{
    const mt::Topology t = mt::read_topology("nvlink-pairs-4gpu.topo");
    mt::Problem p;

    p.topology = t.get();
    p.add("read", 0);
    p.add("search", 2, 2).cpus = 2;
    p.connect(0, 1, 1e8);
    const Placement got = place(p);
    std::vector<std::vector<int32_t>> sets = {gpus(got->entries[1]), gpus(got->entries[2])};
    std::sort(sets.begin(), sets.end());
    EXPECT_EQ(sets, (std::vector<std::vector<int32_t>>{{0, 2}, {1, 3}})) << "the pairs with links";
}

TEST(Plan, NeighboursStayNear)
{
    const mt::Topology t = mt::read_topology("pcie-switches-8gpu.topo");
    mt::Problem p;

    p.topology = t.get();
    p.add("embed", 1), p.add("judge", 1);
    p.connect(0, 1, 1e7);
    const Placement got = place(p);
    EXPECT_STREQ(stm_topology_path(t.get(), got->entries[0].gpus[0], got->entries[1].gpus[0]), "PCIe switch");
}

TEST(Plan, HostStepsGoWhereTheirDataIs)
{
    const mt::Topology t = mt::read_topology("many-nodes-2gpu.topo");
    mt::Problem p;

    p.topology = t.get();
    p.add("read", 0), p.add("embed", 1), p.add("write", 0);
    p.devices[1] = {1};
    p.connect(0, 1, 1e8), p.connect(1, 2, 1e8);
    const Placement got = place(p);
    for (const int32_t i : {0, 1, 2}) {
        EXPECT_EQ(got->entries[i].node, t->gpus[1].node);
        EXPECT_EQ(stm_cpus_count(&got->entries[i].cpus), 1);
    }
    EXPECT_FALSE(stm_cpus_equal(&got->entries[0].cpus, &got->entries[1].cpus)) << "there are enough for each to have its own";
}

TEST(Plan, MemoryDecides)
{
    const mt::Topology t = mt::read_topology("uneven-memory-4gpu.topo");
    mt::Problem p;

    p.topology = t.get();
    p.add("large", 1).memory = 60LL << 30;
    p.add("middle", 1).memory = 40LL << 30;
    p.add("small", 1).memory = 20LL << 30;
    p.add("tiny", 1).memory = 10LL << 30;
    const Placement got = place(p);
    EXPECT_EQ(gpus(got->entries[0]), std::vector<int32_t>{3});
    EXPECT_EQ(gpus(got->entries[1]), std::vector<int32_t>{2});
    EXPECT_EQ(gpus(got->entries[2]), std::vector<int32_t>{1});
    EXPECT_EQ(gpus(got->entries[3]), std::vector<int32_t>{0});
}

TEST(Plan, SlowGpusAreUsedUnlessVerySlow)
{
    const mt::Topology t = mt::read_topology("uneven-speed-3gpu.topo");
    mt::Problem p;
    int count[3] = {};

    p.topology = t.get();
    p.add("embed", 1, 3).memory = 1 << 28;
    const Placement got = place(p);
    for (int32_t i = 0; i < 3; i++) count[got->entries[i].gpus[0]]++;
    EXPECT_GE(count[0], 1);
    EXPECT_GE(count[1], 1);
    EXPECT_EQ(count[2], 0) << "the one for the screen";
}

TEST(Plan, StagesDoNotMeet)
{
    const mt::Topology t = mt::read_topology("laptop-1gpu.topo");
    mt::Problem p;

    p.topology = t.get();
    p.add("embed", 1).memory = 6LL << 30;
    p.add("judge", 1).memory = 6LL << 30;
    p.steps[1].stage = 1;
    const Placement got = place(p);
    EXPECT_EQ(got->entries[0].gpus[0], got->entries[1].gpus[0]);
}

TEST(Plan, ExplicitDevicesAreKept)
{
    const mt::Topology t = mt::read_topology("nvswitch-8gpu.topo");
    mt::Problem p;

    p.topology = t.get();
    p.add("a", 1, 3), p.add("b", 2, 2), p.add("c", 1, 2);
    p.devices[0] = {5};
    p.devices[1] = {7, 0, 3, 2};
    const Placement got = place(p);
    for (int i = 0; i < 3; i++) EXPECT_EQ(gpus(got->entries[i]), std::vector<int32_t>{5}) << "several streams on one GPU";
    EXPECT_EQ(gpus(got->entries[3]), (std::vector<int32_t>{7, 0})) << "in the order of the list";
    EXPECT_EQ(gpus(got->entries[4]), (std::vector<int32_t>{3, 2}));
    for (int i = 5; i < 7; i++)
        EXPECT_TRUE(got->entries[i].gpus[0] == 1 || got->entries[i].gpus[0] == 4 || got->entries[i].gpus[0] == 6);
}

TEST(Plan, TakenGpusAreLeftAlone)
{
    const mt::Topology t = mt::read_topology("dual-socket-pcie-4gpu.topo");
    mt::Problem problem;
    const bool taken[4] = {true, false, true, true};
    stm_placement *out = nullptr;

    problem.topology = t.get();
    problem.add("embed", 1, 2);
    stm_place_problem p = problem.view();
    p.taken = taken;
    ASSERT_EQ(stm_placement_make(&p, &out, nullptr, nullptr), MILL_OK);
    const Placement got(out);
    for (int i = 0; i < 2; i++) EXPECT_EQ(got->entries[i].gpus[0], 1);
}

TEST(Plan, InstancesInsteadOfTheirGpu)
{
    const mt::Topology t = mt::read_topology("mig-split.topo");
    mt::Problem p;
    std::set<int32_t> used;

    p.topology = t.get();
    p.add("embed", 1, 4).memory = 8LL << 30;
    const Placement got = place(p);
    for (int i = 0; i < 4; i++) used.insert(got->entries[i].gpus[0]);
    EXPECT_EQ(used.count(0), 0u);
}

TEST(Plan, ProcessorsStayWithinTheMask)
{
    const mt::Topology t = mt::read_topology("dual-socket-pcie-4gpu.topo");
    mt::Problem problem;
    stm_placement *out = nullptr;

    problem.topology = t.get();
    problem.add("embed", 1, 4).cpus = 3;
    stm_place_problem p = problem.view();
    ASSERT_TRUE(stm_cpus_parse("2-5,30-33", &p.allowed));
    ASSERT_EQ(stm_placement_make(&p, &out, nullptr, nullptr), MILL_OK);
    const Placement got(out);
    for (int i = 0; i < 4; i++) {
        const stm_placed &e = got->entries[i];
        const stm_cpus near = stm_cpus_and(&e.cpus, &t->nodes[e.node].cpus), in = stm_cpus_and(&e.cpus, &p.allowed);
        EXPECT_EQ(stm_cpus_count(&e.cpus), 3);
        EXPECT_TRUE(stm_cpus_equal(&near, &e.cpus)) << "near its GPU";
        EXPECT_TRUE(stm_cpus_equal(&in, &e.cpus));
    }
}

TEST(Plan, MaskOfAnotherNodeIsBetterThanNone)
{
    const mt::Topology t = mt::read_topology("dual-socket-pcie-4gpu.topo");
    mt::Problem problem;
    stm_placement *out = nullptr;

    problem.topology = t.get();
    problem.add("embed", 1);
    problem.devices[0] = {3};
    stm_place_problem p = problem.view();
    ASSERT_TRUE(stm_cpus_parse("0-1", &p.allowed)); /* all on node 0; GPU 3 is on node 1 */
    ASSERT_EQ(stm_placement_make(&p, &out, nullptr, nullptr), MILL_OK);
    const Placement got(out);
    EXPECT_EQ(got->entries[0].node, 1);
    EXPECT_EQ(stm_cpus_count(&got->entries[0].cpus), 1);
    const stm_cpus in = stm_cpus_and(&got->entries[0].cpus, &p.allowed);
    EXPECT_EQ(stm_cpus_count(&in), 1);
}

/* ---- what is refused, and in what words -------------------------------------------------------------------------------- */

struct Refusal {
    const char *name, *machine;
    void (*make)(mt::Problem &p);
    int32_t fault;
    std::vector<const char *> says;
};
const Refusal kRefusals[] = {
    {"too_few", "workstation-2gpu.topo", [](mt::Problem &p) { p.add("judge", 4); }, 0, {"takes 4 GPUs", "there are 2"}},
    {"no_gpu", "no-gpu.topo", [](mt::Problem &p) { p.add("judge", 1); }, 0, {"takes 1 GPU,", "there are 0"}},
    {"too_large",
     "laptop-1gpu.topo",
     [](mt::Problem &p) { p.add("judge", 1).memory = 8LL << 30; },
     0,
     {"needs 8 GiB", "7.2 GiB to give"}},
    {"too_large_for_two",
     "uneven-memory-4gpu.topo",
     [](mt::Problem &p) { p.add("judge", 2).memory = 60LL << 30; },
     0,
     {"2 GPUs", "1 has so much"}},
    {"two_that_do_not_share",
     "laptop-1gpu.topo",
     [](mt::Problem &p) { p.add("embed", 1), p.add("judge", 1); },
     1,
     {"embed and judge", "GPU 0 (GPU-0000001a", "do not share"}},
    {"one_of_two_does_not_share",
     "laptop-1gpu.topo",
     [](mt::Problem &p) { p.add("embed", 1).share = true, p.add("judge", 1); },
     1,
     {"embed and judge", "and judge does not share"}},
    {"explicit_conflict",
     "nvswitch-8gpu.topo",
     [](mt::Problem &p) { p.add("a", 1), p.add("b", 1), p.devices[0] = {6}, p.devices[1] = {6}; },
     1,
     {"a and b", "GPU 6"}},
    {"together_too_large",
     "laptop-1gpu.topo",
     [](mt::Problem &p) {
         p.add("embed", 1).share = true, p.add("judge", 1).share = true;
         p.steps[0].memory = p.steps[1].memory = 4LL << 30;
     },
     1,
     {"embed[0], judge[0] together need 8 GiB on GPU 0", "7.2 GiB"}},
    {"replicas_too_large",
     "laptop-1gpu.topo",
     [](mt::Problem &p) { p.add("embed", 1, 3).memory = 3LL << 30; },
     0,
     {"embed[0], embed[1], embed[2] together"}},
    {"not_there", "workstation-2gpu.topo", [](mt::Problem &p) { p.add("a", 1), p.devices[0] = {2}; }, 0, {"no GPU 2", "sees 2"}},
    {"twice_in_a_replica",
     "workstation-2gpu.topo",
     [](mt::Problem &p) {
         p.add("a", 2), p.devices[0] = {1, 1};
     },
     0,
     {"GPU 1 twice"}},
    {"list_too_short",
     "workstation-2gpu.topo",
     [](mt::Problem &p) { p.add("a", 2), p.devices[0] = {1}; },
     0,
     {"takes 2 GPUs", "has 1"}},
    {"list_uneven",
     "nvswitch-8gpu.topo",
     [](mt::Problem &p) {
         p.add("a", 2), p.devices[0] = {1, 2, 3};
     },
     0,
     {"takes 2 GPUs", "has 3"}},
    {"explicit_too_large",
     "uneven-memory-4gpu.topo",
     [](mt::Problem &p) { p.add("a", 1).memory = 20LL << 30, p.devices[0] = {0}; },
     0,
     {"needs 20 GiB", "GPU 0"}},
    {"split_gpu", "mig-split.topo", [](mt::Problem &p) { p.add("a", 1), p.devices[0] = {0}; }, 0, {"split into MIG instances"}},
};

TEST(Plan, Refusals)
{
    for (const Refusal &c : kRefusals) {
        SCOPED_TRACE(c.name);
        const mt::Topology t = mt::read_topology(c.machine);
        mt::Problem p;
        mill_error err = {};
        int32_t fault = -1;

        p.topology = t.get();
        c.make(p);
        EXPECT_EQ(place(p, &err, &fault), nullptr);
        EXPECT_EQ(err.status, MILL_ERR_INVALID);
        EXPECT_EQ(fault, c.fault);
        for (const char *text : c.says) EXPECT_NE(strstr(err.msg, text), nullptr) << err.msg;
    }
}

TEST(Plan, MemoryThatNobodyKnowsIsNotChecked)
{
    const mt::Topology t = mt::parse_topology("stepmill-topology 1\nnode 0 cpus 0\ngpu 0 uuid GPU-1\n");
    mt::Problem p;

    p.topology = t.get();
    p.add("judge", 1).memory = 1LL << 50;
    EXPECT_NE(place(p), nullptr);
}

TEST(Plan, SameProblemSamePlan)
{
    const mt::Topology t = mt::read_topology("cube-mesh-8gpu.topo");
    std::mt19937 rng(3);
    mt::Problem p = mt::random_problem(rng, t.get(), 6, 20);

    for (stm_place_step &s : p.steps) s.share = true, s.memory = 0;
    const Placement a = place(p), b = place(p);
    ASSERT_EQ(a->n, b->n);
    for (int32_t i = 0; i < a->n; i++) {
        EXPECT_EQ(gpus(a->entries[i]), gpus(b->entries[i]));
        EXPECT_TRUE(stm_cpus_equal(&a->entries[i].cpus, &b->entries[i].cpus));
    }
}

TEST(Plan, FailsCleanlyAtEveryAllocation)
{
    const mt::Topology t = mt::read_topology("cube-mesh-8gpu.topo");
    mt::Problem problem;

    problem.topology = t.get();
    problem.add("a", 1, 2), problem.add("b", 2);
    const stm_place_problem p = problem.view();
    for (int nth = 0;; nth++) {
        const long before = mt::live();
        stm_placement *out = nullptr;
        mill_error err = {};
        mt::FailNth fail(nth);
        const mill_status st = stm_placement_make(&p, &out, nullptr, &err);
        const bool fired = fail.fired();

        EXPECT_EQ(st, fired ? MILL_ERR_NOMEM : MILL_OK);
        EXPECT_EQ(out == nullptr, fired);
        stm_placement_destroy(&out);
        EXPECT_EQ(mt::live(), before) << "leak when point " << nth << " fails";
        if (!fired) return;
        EXPECT_STRNE(err.msg, "");
    }
}

} // namespace
