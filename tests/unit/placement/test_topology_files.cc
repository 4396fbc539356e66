#include "topologies.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "support/fail_nth.h"

extern "C" {
#include "placement/sources.h"
}

namespace {

struct BadText {
    const char *name, *text;
    int line, column;
    const char *says;
};
#define HEAD "stepmill-topology 1\nnode 0 cpus 0-3\n"
const BadText kBad[] = {
    {"nothing", "", 1, 1, "first line"},
    {"no_head", "node 0 cpus 0-3\n", 1, 1, "first line"},
    {"other_version", "stepmill-topology 2\n", 1, 1, "first line"},
    {"only_head", "stepmill-topology 1\n", 2, 1, "no node"},
    {"unknown_line", HEAD "gup 0\n", 3, 1, "got \"gup\""},
    {"node_without_cpus", "stepmill-topology 1\nnode 0\n", 2, 1, "needs cpus"},
    {"node_twice", HEAD "  node 0 cpus 4\n", 3, 8, "stands above"},
    {"bad_cpus", "stepmill-topology 1\nnode 0 cpus 3-1\n", 2, 13, "processors"},
    {"gpu_out_of_order", HEAD "gpu 1 memory 1GiB\n", 3, 5, "0, 1, ..."},
    {"gpu_bad_uuid", HEAD "gpu 0 uuid 123\n", 3, 12, "GPU-..."},
    {"gpu_same_uuid", HEAD "gpu 0 uuid GPU-1\ngpu 1 uuid GPU-1\n", 4, 12, "another GPU"},
    {"gpu_bad_pci", HEAD "gpu 0 pci 3b\n", 3, 11, "PCI bus id"},
    {"gpu_bad_node", HEAD "gpu 0 node 7\n", 3, 12, "node that stands above"},
    {"gpu_no_value", HEAD "gpu 0 memory\n", 3, 1, "expected bytes"},
    {"gpu_bad_memory", HEAD "gpu 0 memory lots\n", 3, 14, "expected bytes"},
    {"gpu_bad_instance", HEAD "gpu 0 instance 1-0\n", 3, 16, "as 1/0"},
    {"gpu_bad_word", HEAD "gpu 0 colour red\n", 3, 7, "expected uuid"},
    {"mig_of_nothing", HEAD "mig 0 of 0\n", 3, 7, "whole GPU above"},
    {"mig_of_mig", HEAD "gpu 0 memory 1GiB\nmig 1 of 0 memory 1GiB\nmig 2 of 1 memory 1GiB\n", 5, 7, "whole GPU above"},
    {"nvlink_to_itself", HEAD "gpu 0 memory 1GiB\nnvlink 0 0 1GB\n", 4, 10, "another GPU"},
    {"nvlink_without_rate", HEAD "gpu 0 memory 1GiB\ngpu 1 memory 1GiB\nnvlink 0 1\n", 5, 1, "bytes a second"},
    {"nvswitch_beyond", HEAD "gpu 0 memory 1GiB\nnvswitch 0-7 1GB\n", 4, 10, "GPUs above"},
    {"between_nodes_zero", HEAD "between-nodes 0\n", 3, 15, "bytes a second"},
};

TEST(TopologyText, FaultsHavePlaces)
{
    for (const BadText &c : kBad) {
        SCOPED_TRACE(c.name);
        stm_topology *t = nullptr;
        mill_error err = {};

        EXPECT_EQ(stm_topology_parse(c.text, strlen(c.text), "machine.topo", &t, &err), MILL_ERR_PARSE);
        EXPECT_EQ(t, nullptr);
        EXPECT_STREQ(err.file, "machine.topo");
        EXPECT_EQ(err.line, c.line);
        EXPECT_EQ(err.column, c.column);
        EXPECT_NE(strstr(err.msg, c.says), nullptr) << err.msg;
    }
}

TEST(TopologyText, EveryAttribute)
{
    const mt::Topology t =
        mt::parse_topology("stepmill-topology 1  # head\r\n"
                           "node 3 cpus 0-1,4 memory 2GiB\n\n"
                           "\tgpu 0 uuid GPU-abc pci 3B:00.0 node 3 memory 4GiB units 5 pcie 6GB/s switch 7 name A GPU of mine\n"
                           "mig 1 of 0 uuid MIG-def memory 1GiB units 2 instance 3/4\n"
                           "between-nodes 9GB/s");
    ASSERT_NE(t, nullptr);
    ASSERT_EQ(t->n_gpus, 2);
    EXPECT_EQ(t->nodes[0].os_index, 3);
    EXPECT_EQ(t->nodes[0].memory, 2LL << 30);
    EXPECT_STREQ(t->gpus[0].pci, "0000:3b:00.0");
    EXPECT_STREQ(t->gpus[0].name, "A GPU of mine");
    EXPECT_EQ(t->gpus[0].memory, 4LL << 30);
    EXPECT_EQ(t->gpus[0].units, 5);
    EXPECT_EQ(t->gpus[0].pcie, 6e9);
    EXPECT_EQ(t->gpus[0].pci_switch, 7);
    EXPECT_EQ(t->gpus[1].part_of, 0);
    EXPECT_STREQ(t->gpus[1].pci, "0000:3b:00.0") << "an instance is where its GPU is";
    EXPECT_EQ(t->gpus[1].instance[1], 4);
    EXPECT_EQ(t->gpus[1].units, 2);
    EXPECT_EQ(t->nodes_bandwidth, 9e9);
    EXPECT_EQ(stm_cpus_count(&t->gpus[1].cpus), 3);
}

TEST(TopologyText, BytesThatAreNoText)
{
    const char text[] = HEAD "gpu 0\0 memory 1GiB\n";
    stm_topology *t = nullptr;
    mill_error err = {};

    EXPECT_EQ(stm_topology_parse(text, sizeof text - 1, "x", &t, &err), MILL_ERR_PARSE);
    EXPECT_NE(strstr(err.msg, "NUL"), nullptr);
}

/* ---- hwloc ---------------------------------------------------------------------------------------------------------- */

TEST(TopologyHwloc, RecordedXml)
{
    const mt::Topology t = mt::read_topology("recorded-3gpu.xml");
    ASSERT_NE(t, nullptr);
    ASSERT_EQ(t->n_nodes, 2);
    EXPECT_EQ(t->nodes[1].memory, 64LL << 30);
    EXPECT_EQ(stm_cpus_count(&t->nodes[0].cpus), 8);
    ASSERT_EQ(t->n_gpus, 3) << "the card for the screen is none of ours";
    /* in CUDA's order, which is not that of the bus */
    EXPECT_STREQ(t->gpus[0].pci, "0000:13:00.0");
    EXPECT_STREQ(t->gpus[1].pci, "0000:12:00.0");
    EXPECT_STREQ(t->gpus[2].pci, "0000:82:00.0");
    EXPECT_STREQ(t->gpus[0].uuid, "GPU-000000f1-1111-4222-8333-0000000000f1");
    EXPECT_STREQ(t->gpus[0].name, "Recorded GPU");
    EXPECT_EQ(t->gpus[0].memory, 40LL << 30);
    EXPECT_EQ(t->gpus[2].units, 54);
    EXPECT_EQ(t->gpus[0].node, 0);
    EXPECT_EQ(t->gpus[2].node, 1);
    EXPECT_EQ(t->gpus[0].pci_switch, t->gpus[1].pci_switch);
    EXPECT_NE(t->gpus[0].pci_switch, t->gpus[2].pci_switch);
    EXPECT_NEAR(t->gpus[0].pcie, 31.507692e9 * 0.8, 1e4);
    EXPECT_STREQ(stm_topology_path(t.get(), 0, 1), "NVLink");
    EXPECT_NEAR(1 / stm_topology_seconds_per_byte(t.get(), 0, 1), 100e9, 1);
    EXPECT_STREQ(stm_topology_path(t.get(), 0, 2), "PCIe and between nodes");
}

TEST(TopologyHwloc, Synthetic)
{
    stm_topology *t = nullptr;
    mill_error err = {};

    ASSERT_EQ(stm_topology_synthetic("pack:2 [numa(memory=1073741824)] core:4 pu:2", &t, &err), MILL_OK) << err.msg;
    EXPECT_EQ(t->n_gpus, 0);
    ASSERT_EQ(t->n_nodes, 2);
    EXPECT_EQ(t->nodes[0].memory, 1 << 30);
    EXPECT_EQ(stm_cpus_count(&t->nodes[1].cpus), 8);
    stm_topology_destroy(&t);
    EXPECT_EQ(stm_topology_synthetic("pack:0 nonsense", &t, &err), MILL_ERR_PARSE);
    EXPECT_EQ(t, nullptr);
}

TEST(TopologyHwloc, SyntheticWithDevices)
{
    stm_topology *machine = nullptr, *t = nullptr;
    stm_gpu_info gpus[2] = {};

    ASSERT_EQ(stm_topology_synthetic("pack:2 [numa] core:4 pu:1", &machine, nullptr), MILL_OK);
    strcpy(gpus[0].uuid, "GPU-a"), gpus[0].numa_node = 1, gpus[0].memory = 1 << 30;
    strcpy(gpus[1].uuid, "GPU-b"), gpus[1].numa_node = -1;
    ASSERT_EQ(stm_topology_merge(machine, gpus, 2, &t, nullptr), MILL_OK);
    EXPECT_EQ(t->gpus[0].node, 1);
    EXPECT_TRUE(stm_cpus_equal(&t->gpus[0].cpus, &t->nodes[1].cpus));
    EXPECT_EQ(t->gpus[1].node, -1);
    EXPECT_EQ(stm_cpus_count(&t->gpus[1].cpus), 8);
    stm_topology_destroy(&t);
    stm_topology_destroy(&machine);
}

/* ---- NCCL, and what is neither ---------------------------------------------------------------------------------------- */

TEST(TopologyNccl, Nested)
{
    const mt::Topology t = mt::read_topology("nccl-4gpu.xml");
    ASSERT_NE(t, nullptr);
    ASSERT_EQ(t->n_gpus, 4);
    ASSERT_EQ(t->n_nodes, 2);
    EXPECT_TRUE(stm_cpus_has(&t->nodes[1].cpus, 32 + 15));
    EXPECT_FALSE(stm_cpus_has(&t->nodes[1].cpus, 31));
    EXPECT_EQ(t->gpus[0].pci_switch, t->gpus[1].pci_switch);
    EXPECT_EQ(t->gpus[2].pci_switch, -1);
    EXPECT_NEAR(t->gpus[0].pcie, 51.2e9, 1);
    EXPECT_NEAR(1 / stm_topology_seconds_per_byte(t.get(), 0, 1), 360e9, 1) << "18 links to the fabric";
    EXPECT_NEAR(1 / stm_topology_seconds_per_byte(t.get(), 2, 3), 80e9, 1) << "4 links";
    EXPECT_STREQ(stm_topology_path(t.get(), 0, 2), "PCIe and between nodes");
}

struct BadFile {
    const char *name, *text, *says;
    mill_status status;
};
const BadFile kBadFiles[] = {
    {"another_xml", "<html></html>", "not a topology", MILL_ERR_PARSE},
    {"cut", "<system version=\"1\"><cpu numaid=\"0\">", "no end", MILL_ERR_PARSE},
    {"wrong_end", "<system><cpu numaid=\"0\"></system>", "no start", MILL_ERR_PARSE},
    {"open_tag", "<system", "not a topology", MILL_ERR_PARSE},
    {"no_numaid", "<system><cpu/></system>", "numaid", MILL_ERR_PARSE},
    {"bad_mask", "<system><cpu numaid=\"0\" affinity=\"xyz\"/></system>", "affinity", MILL_ERR_PARSE},
    {"gpu_without_bus", "<system><cpu numaid=\"0\"><pci class=\"0x030200\"/></cpu></system>", "busid", MILL_ERR_PARSE},
    {"stray_nvlink", "<system><nvlink target=\"0000:01:00.0\" count=\"1\"/></system>", "outside", MILL_ERR_PARSE},
    {"comment_without_end", "<system><!-- ", "no end", MILL_ERR_PARSE},
    {"hwloc_of_the_future", "<topology version=\"3.0\"></topology>", "hwloc refused", MILL_ERR_PARSE},
};

TEST(TopologyFiles, BadOnes)
{
    const std::string path = testing::TempDir() + "stm-bad-topology";
    for (const BadFile &c : kBadFiles) {
        SCOPED_TRACE(c.name);
        stm_topology *t = nullptr;
        mill_error err = {};

        std::ofstream(path) << c.text;
        EXPECT_EQ(stm_topology_read(path.c_str(), &t, &err), c.status);
        EXPECT_EQ(t, nullptr);
        EXPECT_NE(strstr(err.msg, c.says), nullptr) << err.msg;
        EXPECT_EQ(err.file, path);
    }
    std::filesystem::remove(path);
    stm_topology *t = nullptr;
    mill_error err = {};
    EXPECT_EQ(stm_topology_read("/nowhere/machine.xml", &t, &err), MILL_ERR_NOT_FOUND);
}

/* Every file of the fixtures, cut after every so many bytes: an error or a topology, never worse. */
TEST(TopologyFiles, CutAnywhere)
{
    for (const char *name : {"nccl-4gpu.xml", "cube-mesh-8gpu.topo"}) {
        std::ifstream f(std::string(TOPOLOGY_DIR "/") + name);
        const std::string text((std::istreambuf_iterator<char>(f)), {});
        ASSERT_FALSE(text.empty());
        for (size_t n = 0; n < text.size(); n += 7) {
            std::vector<char> exact(text.begin(), text.begin() + (ptrdiff_t)n); /* reads past the end show under asan */
            stm_topology *t = nullptr;
            if (name[0] == 'n')
                stm_topology_nccl(exact.data(), n, name, &t, nullptr);
            else
                stm_topology_parse(exact.data(), n, name, &t, nullptr);
            stm_topology_destroy(&t);
        }
    }
}

TEST(TopologyDriver, ProcAndSys)
{
    namespace fs = std::filesystem;
    const fs::path root = fs::path(testing::TempDir()) / "stm-driver-root";
    const auto write = [&](const std::string &file, const std::string &text) {
        fs::create_directories((root / file).parent_path());
        std::ofstream(root / file) << text;
    };
    fs::remove_all(root);
    write("proc/driver/nvidia/gpus/0000:3b:00.0/information",
          "Model: \t\t NVIDIA H200\nIRQ:   \t\t 77\nGPU UUID: \t GPU-01234567-89ab\nBus Type: \t PCIe\n");
    write("proc/driver/nvidia/gpus/0000:5e:00.0/information", "Model: \t\t NVIDIA H200\nGPU UUID: \t GPU-\?\?\?\?-\?\?\n");
    write("proc/driver/nvidia/gpus/other/information", "Model: x\n");
    write("sys/bus/pci/devices/0000:3b:00.0/max_link_speed", "32.0 GT/s PCIe\n");
    write("sys/bus/pci/devices/0000:3b:00.0/current_link_width", "16\n");
    write("sys/bus/pci/devices/0000:5e:00.0/numa_node", "1\n");
    const mt::Topology t =
        mt::parse_topology("stepmill-topology 1\nnode 0 cpus 0\nnode 1 cpus 1\ngpu 0 pci 0000:3b:00.0 node 0 pcie 4GB\n");
    ASSERT_EQ(stm_topology_driver(t.get(), root.c_str(), nullptr), MILL_OK);
    ASSERT_EQ(stm_topology_close(t.get(), nullptr), MILL_OK);
    ASSERT_EQ(t->n_gpus, 2);
    EXPECT_STREQ(t->gpus[0].uuid, "GPU-01234567-89ab");
    EXPECT_STREQ(t->gpus[0].name, "NVIDIA H200");
    EXPECT_NEAR(t->gpus[0].pcie, 51.2e9, 1) << "not the speed of an idle link";
    EXPECT_STREQ(t->gpus[1].uuid, "") << "a driver that does not know says so";
    EXPECT_EQ(t->gpus[1].node, 1);
    fs::remove_all(root);
}

/* ---- published topologies, where they are ----------------------------------------------------------------------------- */

struct Published {
    const char *file;
    int32_t gpus, nodes;
    int32_t node_of_first, node_of_last; /* os index; -2 = no GPUs */
    double first_link;                   /* NVLink of GPUs 0 and 1, 0 = none */
    double link_to_last;
};
const Published kPublished[] = {
    {"hwloc/hwloc-nvidiaDGX2.xml", 16, 2, 0, 1, 150e9, 150e9},
    {"hwloc/hwloc-power8gpudistances.xml", 4, 2, 0, 1, 40e9, 0},
    {"hwloc/hwloc-32em64t-2n8c2t-pci-wholeio.xml", 1, 2, 1, 1, 0, 0},
    {"hwloc/mpibind-g4dnmetal.xml", 8, 2, 0, 1, 0, 0},
    {"hwloc/mpibind-coral-lassen.xml", 4, 2, 0, 8, 0, 0},
    {"hwloc/mpibind-cts1-pascal.xml", 2, 2, 0, 0, 0, 0},
    {"hwloc/mpibind-cts1-quartz-smt1.xml", 0, 2, -2, -2, 0, 0},
    {"nccl/azure-ndv5-topo.xml", 8, 2, 0, 1, 0, 0},
    {"nccl/azure-ndv4-topo.xml", 8, 4, 0, 3, 0, 0},
    {"nccl/azure-ndv2-topo.xml", 8, 2, 0, 1, 0, 0},
    {"nccl/azure-ncv4-topo.xml", 4, 4, 0, 3, 0, 0},
    {"nccl/aws-p4d-24xl-topo.xml", 8, 2, 0, 1, 0, 0},
    {"nccl/aws-p4de-24xl-topo.xml", 8, 2, 0, 1, 0, 0},
    {"nccl/aws-g5.48xl-topo.xml", 0, 2, -2, -2, 0, 0},
};

TEST(TopologyPublished, AllAreRead)
{
    const char *shared = getenv("STEPMILL_SHARED");
    const std::string dir = std::string(shared != nullptr ? shared : "/nowhere") + "/topologies/";

    if (!std::filesystem::exists(dir)) GTEST_SKIP() << "STEPMILL_SHARED does not lead to topologies";
    for (const Published &c : kPublished) {
        SCOPED_TRACE(c.file);
        stm_topology *t = nullptr;
        mill_error err = {};

        ASSERT_EQ(stm_topology_read((dir + c.file).c_str(), &t, &err), MILL_OK) << err.msg << " " << err.line;
        const mt::Topology owned(t);
        EXPECT_EQ(t->n_gpus, c.gpus);
        EXPECT_EQ(t->n_nodes, c.nodes);
        for (int32_t g = 0; g < t->n_gpus; g++) {
            EXPECT_GE(t->gpus[g].node, 0);
            EXPECT_GT(t->gpus[g].pcie, 1e9);
            EXPECT_EQ(strlen(t->gpus[g].pci), 12u);
        }
        if (c.gpus == 0) continue;
        EXPECT_EQ(t->nodes[std::max(0, t->gpus[0].node)].os_index, c.node_of_first);
        EXPECT_EQ(t->nodes[std::max(0, t->gpus[t->n_gpus - 1].node)].os_index, c.node_of_last);
        if (c.gpus > 1) {
            EXPECT_EQ(t->nvlink[1], c.first_link);
        }
        if (c.gpus > 1) {
            EXPECT_EQ(t->nvlink[t->n_gpus - 1], c.link_to_last);
        }
    }
}

} // namespace
