#include "topologies.h"

#include "support/fail_nth.h"

namespace {

double bandwidth(const stm_topology *t, int32_t a, int32_t b)
{
    const double s = stm_topology_seconds_per_byte(t, a, b);
    return s > 0 ? 1 / s : 0;
}

TEST(Topology, InventedMachinesAreSound)
{
    for (const std::string &name : mt::invented()) {
        SCOPED_TRACE(name);
        const mt::Topology t = mt::read_topology(name);
        ASSERT_NE(t, nullptr);
        const int32_t n = stm_topology_sites(t.get());

        ASSERT_GE(t->n_nodes, 1);
        for (int32_t a = 0; a < n; a++)
            for (int32_t b = 0; b < n; b++) {
                const double s = stm_topology_seconds_per_byte(t.get(), a, b);
                EXPECT_EQ(s, stm_topology_seconds_per_byte(t.get(), b, a));
                EXPECT_EQ(s == 0, a == b) << a << " " << b;
                EXPECT_LT(s, 1e-8) << "slower than 100 MB/s";
            }
        for (int32_t g = 0; g < t->n_gpus; g++) {
            EXPECT_GT(t->gpus[g].memory, 0);
            EXPECT_GT(stm_cpus_count(&t->gpus[g].cpus), 0);
            EXPECT_NE(t->gpus[g].uuid[0], '\0');
        }
    }
}

struct PathCase {
    const char *name, *file;
    int32_t a, b; /* sites */
    const char *path;
    double bytes_per_s;
};
const PathCase kPaths[] = {
    {"itself", "nvswitch-8gpu.topo", 3, 3, "same place", 0},
    {"fabric", "nvswitch-8gpu.topo", 0, 7, "NVLink", 450e9},
    {"linked_pair_across_the_bus", "nvlink-pairs-4gpu.topo", 0, 2, "NVLink", 56e9},
    {"unlinked_pair_of_a_node", "nvlink-pairs-4gpu.topo", 0, 1, "PCIe", 20e9},
    {"unlinked_pair_of_two_nodes", "nvlink-pairs-4gpu.topo", 0, 3, "PCIe and between nodes", 18e9},
    {"double_link", "cube-mesh-8gpu.topo", 0, 3, "NVLink", 50e9},
    {"no_link_two_nodes", "cube-mesh-8gpu.topo", 0, 7, "PCIe and between nodes", 8.64e9},
    {"switch", "pcie-switches-8gpu.topo", 0, 1, "PCIe switch", 12e9},
    {"above_switches", "pcie-switches-8gpu.topo", 1, 2, "PCIe", 9.6e9},
    {"near_host", "nvswitch-8gpu.topo", 0, 8, "PCIe", 50e9},
    {"far_host", "two-boards-16gpu.topo", 0, 17, "PCIe and between nodes", 10.8e9},
    {"nodes", "nvswitch-8gpu.topo", 8, 9, "between nodes", 60e9},
    {"default_between_nodes", "dual-socket-pcie-4gpu.topo", 4, 5, "between nodes", STM_BANDWIDTH_NODES},
    {"instances_of_one_gpu", "mig-split.topo", 1, 2, "host", 12.5e9},
    {"place_not_known", "no-numa-3gpu.topo", 0, 3, "PCIe and between nodes", 0.9 * STM_BANDWIDTH_PCIE},
    {"place_not_known_either", "no-numa-3gpu.topo", 0, 4, "PCIe and between nodes", 0.9 * STM_BANDWIDTH_PCIE},
    {"places_not_known", "no-numa-3gpu.topo", 0, 1, "PCIe and between nodes", 0.9 * 0.8 * STM_BANDWIDTH_PCIE},
};

TEST(Topology, Paths)
{
    for (const PathCase &c : kPaths) {
        SCOPED_TRACE(c.name);
        const mt::Topology t = mt::read_topology(c.file);
        ASSERT_NE(t, nullptr);
        EXPECT_STREQ(stm_topology_path(t.get(), c.a, c.b), c.path);
        EXPECT_NEAR(bandwidth(t.get(), c.a, c.b), c.bytes_per_s, 1);
    }
}

TEST(Topology, PciBusIds)
{
    const struct {
        const char *text, *want; /* nullptr = none */
    } cases[] = {{"0000:3b:00.0", "0000:3b:00.0"},
                 {"00000000:3B:00.0", "0000:3b:00.0"},
                 {"3B:00.0", "0000:3b:00.0"},
                 {"0001:00:00", "0001:00:00.0"},
                 {"1:2", "0000:01:02.0"},
                 {"0:0:0:0", nullptr},
                 {"3b", nullptr},
                 {"3b:00.", nullptr},
                 {"ffff:ff:1f.7", "ffff:ff:1f.7"},
                 {"", nullptr},
                 {"gpu", nullptr},
                 {"0000:3b:20.0", nullptr},
                 {"0000:3b:00.8", nullptr},
                 {"12345678:00:00.0", nullptr},
                 {"0000:3b:00.0x", nullptr}};
    for (const auto &c : cases) {
        char out[16] = "";
        ASSERT_EQ(stm_pci_normalize(c.text, out), c.want != nullptr) << c.text;
        if (c.want != nullptr) {
            EXPECT_STREQ(out, c.want);
        }
    }
}

TEST(Topology, SelectKeepsOrderAndLinks)
{
    const mt::Topology all = mt::read_topology("cube-mesh-8gpu.topo");
    const int32_t keep[] = {7, 0, 3};
    stm_topology *t = nullptr;

    ASSERT_EQ(stm_topology_select(all.get(), keep, 3, &t, nullptr), MILL_OK);
    const mt::Topology some(t);
    ASSERT_EQ(t->n_gpus, 3);
    for (int i = 0; i < 3; i++) EXPECT_STREQ(t->gpus[i].uuid, all->gpus[keep[i]].uuid);
    EXPECT_NEAR(bandwidth(t, 0, 2), 25e9, 1); /* 7-3 */
    EXPECT_NEAR(bandwidth(t, 1, 2), 50e9, 1); /* 0-3 */
    EXPECT_STREQ(stm_topology_path(t, 0, 1), "PCIe and between nodes");
    EXPECT_EQ(t->n_nodes, 2);
}

TEST(Topology, SelectedInstanceStaysOne)
{
    const mt::Topology all = mt::read_topology("mig-split.topo");
    const int32_t keep[] = {2};
    stm_topology *t = nullptr;

    ASSERT_EQ(stm_topology_select(all.get(), keep, 1, &t, nullptr), MILL_OK);
    const mt::Topology some(t);
    EXPECT_FALSE(stm_topology_is_split(t, 0)) << "it can be used though its GPU is hidden";
    EXPECT_TRUE(stm_topology_is_split(all.get(), 0));
}

/* What the CUDA module knows is laid over what the bus knows. */
TEST(Topology, MergeFindsByBusIdAndUuid)
{
    const mt::Topology base = mt::read_topology("cube-mesh-8gpu.topo");
    stm_gpu_info gpus[3] = {};
    stm_topology *t = nullptr;

    strcpy(gpus[0].pci, "00000000:0B:00.0"); /* GPU 3 of the base, by its bus id as NVML writes it */
    strcpy(gpus[0].uuid, "GPU-of-cuda");
    gpus[0].memory = 7, gpus[0].units = 9, gpus[0].numa_node = -1;
    strcpy(gpus[1].uuid, base->gpus[0].uuid); /* GPU 0 */
    gpus[1].numa_node = -1;
    strcpy(gpus[2].pci, "0000:99:00.0"); /* not in the base */
    gpus[2].numa_node = 1;
    ASSERT_EQ(stm_topology_merge(base.get(), gpus, 3, &t, nullptr), MILL_OK);
    const mt::Topology merged(t);
    ASSERT_EQ(t->n_gpus, 3);
    EXPECT_STREQ(t->gpus[0].uuid, "GPU-of-cuda");
    EXPECT_EQ(t->gpus[0].memory, 7);
    EXPECT_EQ(t->gpus[0].units, 9);
    EXPECT_EQ(t->gpus[0].node, 0);
    EXPECT_STREQ(t->gpus[1].pci, base->gpus[0].pci);
    EXPECT_EQ(t->gpus[1].memory, base->gpus[0].memory);
    EXPECT_NEAR(bandwidth(t, 0, 1), 50e9, 1); /* the link of 3 and 0 */
    EXPECT_EQ(t->gpus[2].node, 1);
    EXPECT_STREQ(stm_topology_path(t, 0, 2), "PCIe and between nodes");
}

TEST(Topology, MergeOntoNothing)
{
    const mt::Topology base = mt::read_topology("no-gpu.topo");
    stm_topology *t = nullptr;

    ASSERT_EQ(stm_topology_merge(base.get(), nullptr, 0, &t, nullptr), MILL_OK);
    EXPECT_EQ(t->n_gpus, 0);
    stm_topology_destroy(&t);
}

TEST(Topology, LimitsAreErrors)
{
    stm_topology *t = nullptr;
    stm_topology_gpu g = {};
    stm_topology_node n = {};
    mill_error err = {};

    ASSERT_EQ(stm_topology_create("full", &t, nullptr), MILL_OK);
    for (int i = 0; i < STM_TOPOLOGY_MAX_GPUS; i++) ASSERT_EQ(stm_topology_add_gpu(t, &g, nullptr), MILL_OK);
    for (int i = 0; i < STM_TOPOLOGY_MAX_NODES; i++) ASSERT_EQ(stm_topology_add_node(t, &n, nullptr), MILL_OK);
    EXPECT_EQ(stm_topology_add_gpu(t, &g, &err), MILL_ERR_INVALID);
    EXPECT_EQ(stm_topology_add_node(t, &n, nullptr), MILL_ERR_INVALID);
    EXPECT_NE(strstr(err.msg, "256"), nullptr) << err.msg;
    stm_topology_destroy(&t);
    stm_topology_destroy(&t);
}

TEST(Topology, SharedDiscoveryIsOne)
{
    const stm_topology *a = nullptr, *b = nullptr;

    ASSERT_EQ(stm_topology_here(&a, nullptr), MILL_OK);
    ASSERT_EQ(stm_topology_here(&b, nullptr), MILL_OK);
    EXPECT_EQ(a, b);
    EXPECT_GE(a->n_nodes, 1);
}

TEST(Topology, FailsCleanlyAtEveryAllocation)
{
    const mt::Topology base = mt::read_topology("cube-mesh-8gpu.topo");
    const int32_t keep[] = {1, 2};
    stm_gpu_info info[2] = {};

    for (int nth = 0;; nth++) {
        const long before = mt::live();
        stm_topology *t = nullptr, *u = nullptr, *v = nullptr;
        mill_error err = {};
        mt::FailNth fail(nth);
        mill_status st = stm_topology_read(TOPOLOGY_DIR "/mig-split.topo", &t, &err);
        if (st == MILL_OK) st = stm_topology_select(base.get(), keep, 2, &u, &err);
        if (st == MILL_OK) st = stm_topology_merge(base.get(), info, 2, &v, &err);
        const bool fired = fail.fired();

        EXPECT_EQ(st == MILL_OK, !fired);
        if (fired) {
            EXPECT_EQ(st, MILL_ERR_NOMEM);
        }
        stm_topology_destroy(&t), stm_topology_destroy(&u), stm_topology_destroy(&v);
        EXPECT_EQ(mt::live(), before) << "leak when point " << nth << " fails";
        if (!fired) break;
        ASSERT_LT(nth, 10000);
    }
}

} // namespace
