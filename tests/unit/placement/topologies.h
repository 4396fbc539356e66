/* The recorded and invented machines of tests/data/topologies. */
#pragma once
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

extern "C" {
#include "placement/topology.h"
}

namespace mt {

struct TopologyDestroy {
    void operator()(stm_topology *t) const { stm_topology_destroy(&t); }
};
using Topology = std::unique_ptr<stm_topology, TopologyDestroy>;

inline Topology read_topology(const std::string &name)
{
    stm_topology *t = nullptr;
    mill_error err = {};

    EXPECT_EQ(stm_topology_read((std::string(TOPOLOGY_DIR "/") + name).c_str(), &t, &err), MILL_OK) << name << ": " << err.msg;
    return Topology(t);
}

inline Topology parse_topology(const std::string &text)
{
    stm_topology *t = nullptr;
    mill_error err = {};

    EXPECT_EQ(stm_topology_parse(text.data(), text.size(), "text", &t, &err), MILL_OK) << err.msg << " at line " << err.line;
    return Topology(t);
}

/* Invented machines, in text; each is there for what its first comment says. */
inline const std::vector<std::string> &invented()
{
    static const std::vector<std::string> all = {"laptop-1gpu.topo",
                                                 "workstation-2gpu.topo",
                                                 "nvlink-pairs-4gpu.topo",
                                                 "nvswitch-8gpu.topo",
                                                 "dual-socket-pcie-4gpu.topo",
                                                 "cube-mesh-8gpu.topo",
                                                 "no-gpu.topo",
                                                 "mig-split.topo",
                                                 "many-nodes-2gpu.topo",
                                                 "uneven-memory-4gpu.topo",
                                                 "no-numa-3gpu.topo",
                                                 "uneven-speed-3gpu.topo",
                                                 "pcie-switches-8gpu.topo",
                                                 "two-boards-16gpu.topo"};
    return all;
}

} // namespace mt
