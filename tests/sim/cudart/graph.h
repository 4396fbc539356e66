// Graphs: work with dependencies, as capture makes them.
#pragma once
#include "state.h"

namespace sim {

struct Node {
    Work work;
    std::vector<size_t> after;                        // earlier nodes of the same graph
    std::vector<std::pair<uintptr_t, uint64_t>> uses; // allocations and their ids at capture
};
struct Graph {
    std::vector<std::unique_ptr<Node>> nodes; // in an order that fits the dependencies
    Site made;
};
struct Exec {
    std::vector<Node> nodes;
    RecordP last; // launches of one instance follow each other
    Site made;
};

Graph *graph_new(const Site &made);                               // these three with the lock
size_t graph_add(Graph *g, Work work, std::vector<size_t> after); // index of the node
void graph_delete(Graph *g);
// Every node that leads to one of `from`, those included.
std::vector<bool> graph_ancestors(const Graph &g, const std::vector<size_t> &from);

} // namespace sim
