/* Small graphs that between them hold every kind of node, and every combination that ever hung a pipeline. */
#pragma once

#include "oracle.h"

namespace flowtest {

struct Named {
    const char *name;
    Graph graph;
};

inline Node gen(const char *name, std::vector<int> batches, int64_t credit)
{
    Node n;
    n.name = name, n.kind = STM_NODE_GENERATOR, n.batches = std::move(batches), n.credit = credit;
    return n;
}
inline Node reader(const char *name, int store, int source, int64_t credit)
{
    Node n;
    n.name = name, n.kind = STM_NODE_READER, n.store = store, n.source = source, n.credit = credit;
    return n;
}
inline Node step(const char *name, std::vector<stm_flow_edge> in, int64_t batch_rows = 0, int replicas = 1,
                 stm_input_mode mode = STM_INPUT_SINGLE)
{
    Node n;
    n.name = name, n.in = std::move(in), n.batch_rows = batch_rows, n.replicas = replicas, n.mode = mode;
    return n;
}
inline Node sink(std::vector<stm_flow_edge> in, int64_t batch_rows = 0, stm_input_mode mode = STM_INPUT_SINGLE)
{
    Node n = step("sink", std::move(in), batch_rows, 1, mode);
    n.kind = STM_NODE_TERMINAL;
    return n;
}
inline Node router(std::vector<stm_flow_edge> in, int branches, int64_t batch_rows, int how, int replicas = 1)
{
    Node n = step("router", std::move(in), batch_rows, replicas);
    n.kind = STM_NODE_ROUTER, n.branches = branches, n.route = how;
    return n;
}
inline Node dropping(Node n, int drop)
{
    n.drop = drop;
    return n;
}
inline Node expanding(Node n, int children)
{
    n.children = children;
    return n;
}
inline Node unordered(Node n)
{
    n.unordered = true;
    return n;
}
inline Node missing(Node n, stm_on_missing m)
{
    n.on_missing = m;
    return n;
}
inline Node uneven(Node n, stm_on_uneven u)
{
    n.on_uneven = u;
    return n;
}

inline Node priced(Node n, int64_t budget, int costs)
{
    n.budget = budget, n.costs = costs;
    return n;
}

constexpr auto JOIN = STM_INPUT_JOIN;
constexpr auto UNION = STM_INPUT_UNION;
constexpr auto CONVERGE = STM_INPUT_CONVERGE;
constexpr auto EACH = STM_INPUT_EACH;

inline std::vector<Named> small_graphs()
{
    return {
        {"chain", {gen("g", {2, 2, 2}, 4), step("a", {{0, 0}}, 0, 2), sink({{1, 0}})}},
        {"chain, two replicas, larger batches",
         {gen("g", {2, 2, 2, 2, 2}, 6), step("a", {{0, 0}}, 3, 2), step("b", {{1, 0}}, 2, 2), sink({{2, 0}})}},
        {"chain, smaller batches", {gen("g", {4, 4, 1}, 8), step("a", {{0, 0}}, 2, 2), step("b", {{1, 0}}, 3), sink({{2, 0}})}},
        {"credit of one row forces grants",
         {gen("g", {1, 1, 1, 1, 1, 1}, 1), step("a", {{0, 0}}, 3, 2), step("b", {{1, 0}}, 2, 2), sink({{2, 0}}, 4)}},
        {"credit below one generator batch", {gen("g", {3, 3, 3}, 1), step("a", {{0, 0}}, 5, 2), sink({{1, 0}})}},
        {"no rows at all", {gen("g", {0, 0, 0}, 1), step("a", {{0, 0}}, 2, 2), sink({{1, 0}}, 3)}},
        {"only an end", {gen("g", {0}, 1), step("a", {{0, 0}}, 2), sink({{1, 0}}, 3)}},
        {"everything dropped",
         {gen("g", {2, 2, 2}, 2), dropping(step("a", {{0, 0}}, 1, 2), 1), step("b", {{1, 0}}, 2, 2), sink({{2, 0}}, 3)}},
        {"last batch dropped to nothing",
         {gen("g", {2, 2, 0}, 2), dropping(step("a", {{0, 0}}, 2, 2), 2), step("b", {{1, 0}}, 2), sink({{2, 0}})}},
        {"drop in the middle, short credit",
         {gen("g", {2, 2, 2, 2}, 2), dropping(step("a", {{0, 0}}, 2, 2), 3), step("b", {{1, 0}}, 3), sink({{2, 0}})}},
        {"expansion", {gen("g", {2, 2, 2}, 3), expanding(step("a", {{0, 0}}, 0, 2), 4), step("b", {{1, 0}}, 3, 2), sink({{2, 0}})}},
        {"expansion of expansion",
         {gen("g", {1, 1, 1}, 2), expanding(step("a", {{0, 0}}), 4), expanding(step("b", {{1, 0}}, 2, 2), 3), sink({{2, 0}}, 2)}},
        {"unordered in the middle",
         {gen("g", {1, 1, 1, 1}, 4), step("a", {{0, 0}}, 0, 2), unordered(step("b", {{1, 0}}, 0, 2)), sink({{2, 0}})}},
        {"unordered sink", {gen("g", {1, 1, 1, 1}, 3), step("a", {{0, 0}}, 0, 2), unordered(sink({{1, 0}}))}},
        {"two sinks, one slow", {gen("g", {2, 2, 2}, 3), step("a", {{0, 0}}, 0, 2), sink({{1, 0}}, 4), sink({{0, 0}})}},
        {"diamond",
         {gen("g", {2, 2, 2}, 4), step("a", {{0, 0}}), step("b", {{0, 0}}), step("j", {{1, 0}, {2, 0}}, 0, 1, JOIN),
          sink({{3, 0}})}},
        {"diamond with re-batching",
         {gen("g", {2, 2, 2}, 4), step("a", {{0, 0}}, 3, 2), step("b", {{0, 0}}, 1), step("j", {{1, 0}, {2, 0}}, 4, 1, JOIN),
          sink({{3, 0}})}},
        {"join after a filter: null",
         {gen("g", {2, 2, 2}, 3), dropping(step("a", {{0, 0}}, 2, 2), 2), step("j", {{0, 0}, {1, 0}}, 2, 2, JOIN), sink({{2, 0}})}},
        {"join after a filter, which is the first input",
         {gen("g", {2, 2, 2}, 3), dropping(step("a", {{0, 0}}, 2, 2), 2), step("j", {{1, 0}, {0, 0}}, 2, 1, JOIN), sink({{2, 0}})}},
        {"join after a filter: drop",
         {gen("g", {2, 2, 2}, 3), dropping(step("a", {{0, 0}}, 3, 2), 3),
          missing(step("j", {{0, 0}, {1, 0}}, 2, 1, JOIN), STM_MISSING_DROP), sink({{2, 0}})}},
        {"join after a filter: error",
         {gen("g", {2, 2, 2}, 3), dropping(step("a", {{0, 0}}, 2), 2),
          missing(step("j", {{0, 0}, {1, 0}}, 2, 1, JOIN), STM_MISSING_ERROR), sink({{2, 0}}), sink({{1, 0}})}},
        {"join of an expansion with its source",
         {gen("g", {1, 2, 1}, 2), expanding(step("a", {{0, 0}}, 0, 2), 3), step("j", {{1, 0}, {0, 0}}, 2, 1, JOIN),
          sink({{2, 0}})}},
        {"join with a branch that drops everything",
         {gen("g", {2, 1, 2}, 2), dropping(step("a", {{0, 0}}, 2, 2), 1), step("j", {{1, 0}, {0, 0}}, 3, 1, JOIN), sink({{2, 0}})}},
        {"join of three",
         {gen("g", {1, 1, 1}, 2), step("a", {{0, 0}}, 2), dropping(step("b", {{0, 0}}), 2),
          step("j", {{0, 0}, {1, 0}, {2, 0}}, 2, 1, JOIN), sink({{3, 0}})}},
        {"two generators of different length: null",
         {gen("g", {1, 2, 1}, 2), gen("h", {2, 2, 2}, 2), step("j", {{0, 0}, {1, 0}}, 2, 2, JOIN), sink({{2, 0}})}},
        {"two generators, the first is longer",
         {gen("g", {2, 2, 2}, 2), gen("h", {1, 1, 0}, 1), step("j", {{0, 0}, {1, 0}}, 0, 2, JOIN), sink({{2, 0}}, 4)}},
        {"two generators of different length: error",
         {gen("g", {1, 2, 1}, 2), gen("h", {2, 2, 2}, 2), uneven(step("j", {{0, 0}, {1, 0}}, 2, 2, JOIN), STM_UNEVEN_ERROR),
          sink({{2, 0}}), sink({{0, 0}})}},
        {"two generators of the same length",
         {gen("g", {3, 0, 1}, 3), gen("h", {1, 1, 2}, 1), uneven(step("j", {{0, 0}, {1, 0}}, 3, 1, JOIN), STM_UNEVEN_ERROR),
          sink({{2, 0}})}},
        {"two generators, one empty",
         {gen("g", {0, 0, 0}, 1), gen("h", {2, 1, 1}, 2), step("j", {{0, 0}, {1, 0}}, 3, 2, JOIN), sink({{2, 0}})}},
        {"three generators by position",
         {gen("g", {1, 1, 1}, 1), gen("h", {2, 0, 0}, 2), gen("k", {1, 2, 1}, 2), step("j", {{0, 0}, {1, 0}, {2, 0}}, 2, 1, JOIN),
          sink({{3, 0}})}},
        {"union of two generators",
         {gen("g", {1, 2, 1}, 2), gen("h", {2, 1, 1}, 2), step("u", {{0, 0}, {1, 0}}, 3, 2, UNION), sink({{2, 0}})}},
        {"union of a stream with itself",
         {gen("g", {1, 1, 1}, 1), dropping(step("a", {{0, 0}}, 0, 2), 2), step("u", {{1, 0}, {0, 0}}, 2, 1, UNION),
          sink({{2, 0}})}},
        {"union of nothing and something",
         {gen("g", {0, 0, 0}, 1), gen("h", {1, 1, 1}, 1), step("u", {{0, 0}, {1, 0}}, 2, 2, UNION), sink({{2, 0}})}},
        {"a union of a union in a routed branch",
         {gen("g", {1, 1, 1}, 3), router({{0, 0}}, 2, 3, 2), step("a", {{1, 0}}), step("u", {{1, 0}, {2, 0}}, 0, 1, UNION),
          step("v", {{3, 0}, {2, 0}}, 0, 1, UNION), sink({{4, 0}}), sink({{1, 1}})}},
        {"join below a union",
         {gen("g", {1, 1, 1}, 2), gen("h", {1, 1, 1}, 2), step("u", {{0, 0}, {1, 0}}, 0, 1, UNION),
          dropping(step("a", {{2, 0}}, 2, 2), 2), step("j", {{2, 0}, {3, 0}}, 2, 1, JOIN), sink({{4, 0}})}},
        {"router and convergence",
         {gen("g", {2, 2, 2}, 4), router({{0, 0}}, 2, 2, 0), step("a", {{1, 0}}, 0, 2), step("b", {{1, 1}}),
          step("c", {{2, 0}, {3, 0}}, 0, 1, CONVERGE), sink({{4, 0}})}},
        {"router with replicas and short batches",
         {gen("g", {2, 2, 2}, 4), dropping(step("f", {{0, 0}}), 3), router({{1, 0}}, 2, 2, 3, 2), step("a", {{2, 0}}, 1),
          step("b", {{2, 1}}, 3), step("c", {{3, 0}, {4, 0}}, 3, 1, CONVERGE), sink({{5, 0}})}},
        {"router to all branches",
         {gen("g", {2, 2, 1}, 3), router({{0, 0}}, 2, 2, 1), dropping(step("a", {{1, 0}}, 1), 2), step("b", {{1, 1}}, 0, 2),
          step("c", {{2, 0}, {3, 0}}, 3, 1, CONVERGE), sink({{4, 0}})}},
        {"branches drop and expand",
         {gen("g", {2, 1, 2}, 3), router({{0, 0}}, 2, 2, 3), expanding(step("a", {{1, 0}}), 3), dropping(step("b", {{1, 1}}, 1), 2),
          step("c", {{2, 0}, {3, 0}}, 2, 2, CONVERGE), sink({{4, 0}})}},
        {"branches drop everything",
         {gen("g", {1, 1, 1}, 1), router({{0, 0}}, 2, 2, 1), dropping(step("a", {{1, 0}}, 0, 2), 1),
          dropping(step("b", {{1, 1}}), 1), step("c", {{2, 0}, {3, 0}}, 2, 1, CONVERGE), sink({{4, 0}})}},
        {"a branch filters a whole routed batch: drop",
         {gen("g", {2, 1, 2}, 3), router({{0, 0}}, 2, 2, 3, 2), dropping(step("a", {{1, 0}}, 1), 2), step("b", {{1, 1}}, 0, 2),
          missing(step("c", {{2, 0}, {3, 0}}, 2, 1, CONVERGE), STM_MISSING_DROP), sink({{4, 0}})}},
        {"a branch filters a whole routed batch: error",
         {gen("g", {2, 1, 2}, 3), router({{0, 0}}, 2, 2, 1), step("a", {{1, 0}}, 1), dropping(step("b", {{1, 1}}, 0, 2), 1),
          missing(step("c", {{2, 0}, {3, 0}}, 2, 1, CONVERGE), STM_MISSING_ERROR), sink({{4, 0}}), sink({{2, 0}})}},
        {"branches not taken are not missing",
         {gen("g", {2, 1, 2}, 3), router({{0, 0}}, 3, 2, 0, 2), step("a", {{1, 0}}, 1), step("b", {{1, 1}}, 0, 2),
          step("d", {{1, 2}}),
          missing(step("c", {{2, 0}, {3, 0}, {4, 0}}, 2, 1, CONVERGE), STM_MISSING_ERROR), sink({{5, 0}})}},
        {"a join in a branch that is not taken: error",
         {gen("g", {2, 1, 2}, 3), router({{0, 0}}, 2, 1, 0), step("a", {{1, 0}}, 1), step("j", {{1, 0}, {2, 0}}, 0, 1, JOIN),
          missing(step("c", {{3, 0}, {1, 1}}, 2, 1, CONVERGE), STM_MISSING_ERROR), sink({{4, 0}})}},
        {"a convergence in a branch that is not taken: error",
         {gen("g", {2, 1, 1}, 3), router({{0, 0}}, 2, 1, 0), router({{1, 0}}, 2, 1, 0),
          missing(step("c", {{2, 0}, {2, 1}}, 2, 1, CONVERGE), STM_MISSING_ERROR),
          missing(step("d", {{3, 0}, {1, 1}}, 3, 1, CONVERGE), STM_MISSING_ERROR), sink({{4, 0}})}},
        {"a taken branch expands, the others do not: drop",
         {gen("g", {2, 1, 2}, 3), router({{0, 0}}, 2, 2, 3), expanding(step("a", {{1, 0}}, 0, 2), 3), step("b", {{1, 1}}, 1),
          missing(step("c", {{2, 0}, {3, 0}}, 2, 1, CONVERGE), STM_MISSING_DROP), sink({{4, 0}})}},
        {"a filter before a router in a routed branch: drop",
         {gen("g", {2, 1, 1}, 3), router({{0, 0}}, 2, 2, 1), dropping(step("a", {{1, 0}}), 2), router({{2, 0}}, 2, 1, 0),
          missing(step("c", {{3, 0}, {3, 1}}, 2, 1, CONVERGE), STM_MISSING_DROP),
          missing(step("d", {{4, 0}, {1, 1}}, 3, 1, CONVERGE), STM_MISSING_DROP), sink({{5, 0}})}},
        {"a load group behind a branch that filters: drop",
         {gen("g", {1, 1, 1}, 2), router({{0, 0}}, 2, 1, 3), dropping(step("a", {{1, 0}}), 2), sink({{2, 0}}), sink({{1, 1}}),
          reader("r", 3, 2, 1), reader("s", 4, 4, 1), missing(step("c", {{5, 0}, {6, 0}}, 2, 2, CONVERGE), STM_MISSING_DROP),
          sink({{7, 0}})}},
        {"budget", {gen("g", {2, 2, 2, 2}, 4), priced(step("a", {{0, 0}}, 0, 2), 5, 5), step("b", {{1, 0}}, 2), sink({{2, 0}})}},
        {"budget below what rows cost", {gen("g", {3, 1, 2}, 4), priced(step("a", {{0, 0}}, 0, 2), 2, 7), sink({{1, 0}})}},
        {"budget with a limit of rows",
         {gen("g", {4, 0, 3}, 4), priced(step("a", {{0, 0}}, 2, 2), 9, 6), priced(sink({{1, 0}}), 4, 3)}},
        {"budget far above the credit", {gen("g", {1, 1, 1, 1, 1}, 1), priced(step("a", {{0, 0}}, 0, 2), 40, 3), sink({{1, 0}})}},
        {"budget, everything dropped",
         {gen("g", {2, 2, 2}, 2), dropping(step("a", {{0, 0}}, 0, 2), 1), priced(step("b", {{1, 0}}, 0, 2), 3, 3), sink({{2, 0}})}},
        {"budget behind a filter, short credit",
         {gen("g", {2, 2, 2, 2}, 2), dropping(step("a", {{0, 0}}, 2, 2), 3), priced(step("b", {{1, 0}}), 6, 6), sink({{2, 0}})}},
        {"budget of a join by key",
         {gen("g", {2, 2, 2}, 3), dropping(step("a", {{0, 0}}, 2, 2), 2), priced(step("j", {{0, 0}, {1, 0}}, 0, 2, JOIN), 7, 6),
          sink({{2, 0}})}},
        {"budget of a join by position",
         {gen("g", {1, 2, 1}, 2), gen("h", {2, 2, 2}, 2), priced(step("j", {{0, 0}, {1, 0}}, 0, 2, JOIN), 8, 6), sink({{2, 0}})}},
        {"budget of a union",
         {gen("g", {1, 2, 1}, 2), gen("h", {2, 1, 1}, 2), priced(step("u", {{0, 0}, {1, 0}}, 0, 2, UNION), 6, 5), sink({{2, 0}})}},
        {"budgets in front of a router, in a branch and at its convergence",
         {gen("g", {2, 2, 1}, 4), priced(router({{0, 0}}, 2, 0, 3, 2), 4, 4), priced(step("a", {{1, 0}}, 0, 2), 3, 4),
          step("b", {{1, 1}}),
          priced(step("c", {{2, 0}, {3, 0}}, 0, 1, CONVERGE), 5, 5), sink({{4, 0}})}},
        {"budget of an expansion",
         {gen("g", {1, 2, 1}, 2), expanding(step("a", {{0, 0}}, 0, 2), 4), priced(step("b", {{1, 0}}, 0, 2), 6, 6),
          sink({{2, 0}})}},
        {"budget of a global",
         {gen("g", {1, 1, 1}, 2), gen("h", {2, 1, 0}, 2), priced(sink({{0, 0}, {1, 0}}, 0, EACH), 4, 4), reader("global", 2, -1, 2),
          priced(step("b", {{3, 0}}, 0, 2), 3, 3), sink({{4, 0}})}},
        {"load groups with budgets",
         {gen("g", {2, 2, 2}, 3), priced(step("a", {{0, 0}}, 0, 2), 4, 4), sink({{1, 0}}), reader("r", 2, 1, 1),
          priced(step("b", {{3, 0}}, 0, 2), 6, 4), sink({{4, 0}})}},
        {"a route never taken",
         {gen("g", {2, 2, 2}, 3), router({{0, 0}}, 2, 2, 2, 2), step("a", {{1, 0}}), step("b", {{1, 1}}, 2),
          step("c", {{2, 0}, {3, 0}}, 2, 1, CONVERGE), sink({{4, 0}})}},
        {"routed branches that do not meet",
         {gen("g", {2, 2, 1}, 4), router({{0, 0}}, 2, 2, 0, 2), step("a", {{1, 0}}, 3), sink({{1, 1}}, 2), sink({{2, 0}})}},
        {"one branch is never taken and does not meet",
         {gen("g", {1, 1, 1}, 2), router({{0, 0}}, 2, 1, 2, 2), sink({{1, 0}}, 2), sink({{1, 1}}, 2)}},
        {"a router in a routed branch",
         {gen("g", {2, 1, 1}, 3), router({{0, 0}}, 2, 2, 1), router({{1, 0}}, 2, 1, 0), step("a", {{2, 0}}),
          step("c", {{3, 0}, {2, 1}}, 2, 1, CONVERGE), step("d", {{4, 0}, {1, 1}}, 3, 1, CONVERGE), sink({{5, 0}})}},
        {"a diamond in a routed branch",
         {gen("g", {2, 1, 1}, 3), router({{0, 0}}, 2, 2, 3), dropping(step("a", {{1, 0}}, 1), 2),
          step("j", {{1, 0}, {2, 0}}, 2, 1, JOIN), step("c", {{3, 0}, {1, 1}}, 3, 1, CONVERGE), sink({{4, 0}})}},
        {"global with two inputs",
         {gen("g", {1, 1, 1}, 2), gen("h", {2, 1, 0}, 2), step("a", {{0, 0}}, 2, 2), sink({{2, 0}, {1, 0}}, 2, EACH),
          reader("global", 3, -1, 2), step("b", {{4, 0}}, 3, 2), sink({{5, 0}})}},
        {"global with no rows",
         {gen("g", {0, 0, 0}, 1), sink({{0, 0}}, 0, EACH), reader("global", 1, -1, 1), step("a", {{2, 0}}, 2, 2), sink({{3, 0}})}},
        {"global whose inputs share a root",
         {gen("g", {1, 1, 1, 1}, 2), dropping(step("a", {{0, 0}}, 2, 2), 2), sink({{1, 0}, {0, 0}}, 0, EACH),
          reader("global", 2, -1, 2), sink({{3, 0}}, 3)}},
        {"global that takes batches in any order",
         {gen("g", {1, 1, 1, 1}, 2), step("a", {{0, 0}}, 0, 2), unordered(sink({{1, 0}}, 0, EACH))}},
        {"load groups",
         {gen("g", {2, 2, 2}, 3), step("a", {{0, 0}}, 3, 2), sink({{1, 0}}), reader("r", 2, 1, 2), step("b", {{3, 0}}, 2, 2),
          sink({{4, 0}})}},
        {"load groups, batches larger than the credit",
         {gen("g", {3, 3, 3}, 1), step("a", {{0, 0}}, 4, 2), sink({{1, 0}}), reader("r", 2, 1, 1),
          dropping(step("b", {{3, 0}}, 3, 2), 2), sink({{4, 0}})}},
        {"join of two readers",
         {gen("g", {2, 1, 1}, 2), dropping(step("a", {{0, 0}}, 2, 2), 2), sink({{0, 0}}), sink({{1, 0}}), reader("r", 2, 0, 1),
          reader("s", 3, 1, 1), step("j", {{4, 0}, {5, 0}}, 2, 1, JOIN), sink({{6, 0}})}},
        {"a load group inside a routed branch",
         {gen("g", {1, 1, 1}, 2), router({{0, 0}}, 2, 1, 3), step("a", {{1, 0}}), step("b", {{1, 1}}), sink({{2, 0}}),
          sink({{3, 0}}), reader("r", 4, 2, 1), reader("s", 5, 3, 1), step("c", {{6, 0}, {7, 0}}, 2, 2, CONVERGE), sink({{8, 0}})}},
        {"every group of one step",
         {gen("g", {2, 2, 2}, 1), sink({{0, 0}}), reader("r", 1, 0, 1), step("a", {{2, 0}}, 3, 2), sink({{3, 0}}),
          reader("s", 4, 3, 1), sink({{5, 0}}, 4)}},
    };
}

} // namespace flowtest
