/*
 * Every passage through a fault point of a small run fails once: allocations, threads, loads, calls into steps, emits. Whatever fails,
 * the run ends in bounded time, every load is unloaded once, nothing leaks, and what the sink got is right.
 */
#include <gtest/gtest.h>

#include <atomic>

#include "support/fail_nth.h"
#include "support/pipe.h"

using namespace mt;

namespace {

struct Lives {
    std::atomic<int> loads{0}, unloads{0};
};

Behaviour counted(Behaviour b, Lives *l)
{
    b.load = [l](mill_replica *, mill_error *) -> mill_status {
        l->loads++;
        return MILL_OK;
    };
    b.unload = [l](mill_replica *) { l->unloads++; };
    return b;
}

Behaviour copies(const char *from, const char *to, uint64_t flags = 0)
{
    Behaviour b;
    b.uses = {{from, "int64"}};
    b.adds = {{to, "int64"}};
    b.flags = flags;
    b.process = [flags](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
        std::vector<int64_t> v, parent;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++) {
            const int64_t x = value(in[0], 0, i);
            const int copies = flags & MILL_EXPANDS ? 2 : flags & MILL_FILTERS ? x % 2 == 0 : 1;
            for (int k = 0; k < copies; k++) v.push_back(x), parent.push_back(i);
        }
        return emit_int64(r, out, v, e, flags & (MILL_EXPANDS | MILL_FILTERS) ? &parent : nullptr);
    };
    return b;
}

using Build = void (*)(Pipe &, Lives *);

void linear(Pipe &p, Lives *l)
{
    Pipe::Opts o;
    o.batch_rows = 4;
    o.replicas = 2;
    p.source("src", 20, 7);
    p.add("a", MILL_STEP, {{"src"}}, counted(copies("x", "a", MILL_PER_ROW), l), o);
    p.add("grow", MILL_STEP, {{"a"}}, counted(copies("a", "g", MILL_EXPANDS), l));
    p.add("thin", MILL_STEP, {{"grow"}}, counted(copies("g", "t", MILL_FILTERS), l));
    p.sink("out", "thin");
}

void diamond(Pipe &p, Lives *l)
{
    Pipe::Opts a, b, j;
    a.batch_rows = 3;
    b.batch_rows = 5;
    j.mode = STM_INPUT_JOIN;
    j.on_missing = STM_MISSING_NULL;
    j.batch_rows = 4;
    p.source("src", 20, 7);
    p.add("a", MILL_STEP, {{"src"}}, counted(copies("x", "a"), l), a);
    p.add("b", MILL_STEP, {{"src"}}, counted(copies("x", "b", MILL_FILTERS), l), b);
    p.add("both", MILL_STEP, {{"a"}, {"b"}}, counted(copies("a", "c"), l), j);
    p.sink("out", "both");
}

void routed(Pipe &p, Lives *l)
{
    Pipe::Opts r, c;
    r.branches = {"even", "odd"};
    r.batch_rows = 3;
    c.mode = STM_INPUT_CONVERGE;
    Behaviour route;
    route.uses = {{"x", "int64"}};
    route.route = [](mill_replica *, const mill_batch *in, mill_route *out, mill_error *e) { return mill_route_to(out, (size_t)(value(in, 0, 0) % 2), e); };
    p.source("src", 20, 7);
    p.add("router", MILL_ROUTER, {{"src"}}, counted(route, l), r);
    p.add("even", MILL_STEP, {{"router", 0}}, counted(copies("x", "y"), l));
    p.add("odd", MILL_STEP, {{"router", 1}}, counted(copies("x", "y"), l));
    p.add("meet", MILL_STEP, {{"even"}, {"odd"}}, counted(Behaviour(), l), c);
    p.sink("out", "meet");
}

void global_and_groups(Pipe &p, Lives *l)
{
    Pipe::Opts later;
    later.stage = 1;
    Behaviour g;
    g.adds = {{"x", "int64"}};
    g.finish = [](mill_replica *r, mill_emit *out, mill_error *e) -> mill_status {
        for (int64_t i = 0; i < 4; i++)
            if (mill_status st = emit_int64(r, out, {i, i}, e)) return st;
        return MILL_OK;
    };
    p.source("src", 20, 7);
    p.add("all", MILL_GLOBAL, {{"src"}}, counted(g, l));
    p.add("a", MILL_STEP, {{"all"}}, counted(copies("x", "a"), l), later);
    p.sink("out", "a", later);
    p.sink("other", "src");
}

const struct {
    const char *name;
    Build build;
} kPipes[] = {{"linear", linear}, {"diamond", diamond}, {"routed", routed}, {"global and groups", global_and_groups}};

const struct {
    const char *name;
    uint32_t kinds;
} kFaults[] = {{"alloc and thread", STM_FAULT_ALLOC | STM_FAULT_THREAD}, {"load", STM_FAULT_LOAD}, {"process", STM_FAULT_PROCESS}, {"emit", STM_FAULT_EMIT}};

} // namespace

TEST(FaultRun, EveryPointOfEveryPipeline)
{
    int64_t points = 0;
    for (auto &pipe : kPipes)
        for (auto &fault : kFaults) {
            int64_t here = 0;
            for (int64_t nth = 0;; nth++, here++) {
                SCOPED_TRACE(std::string(pipe.name) + ", " + fault.name + " point " + std::to_string(nth));
                const long before = live();
                Lives lives;
                bool fired;
                {
                    Pipe p;
                    pipe.build(p, &lives);
                    FailNth fail(nth, fault.kinds);
                    const mill_status st = p.start(2);
                    stm_run_end end = STM_END_LOAD_FAILED;
                    if (st == MILL_OK) end = stm_run_wait(p.handle(), 20, &p.error);
                    ASSERT_NE(end, STM_END_RUNNING) << "does not end";
                    const int64_t imputed = st == MILL_OK ? stm_run_imputed_rows(p.handle()) : 0;
                    for (int32_t i = 0; end == STM_END_DONE && i < stm_run_steps(p.handle()); i++) { /* rows are conserved at every step */
                        stm_step_stats s;
                        stm_run_stats(p.handle(), i, &s);
                        const int32_t kind = stm_run_step(p.handle(), i)->type->kind;
                        if (kind == MILL_STEP || kind == MILL_ROUTER) {
                            EXPECT_EQ(s.rows_out, s.rows_in - s.rows_dropped - s.parents_expanded + s.children) << stm_run_step(p.handle(), i)->name;
                        }
                        if (kind == MILL_GENERATOR) { EXPECT_EQ(s.rows_out, 20); }
                    }
                    p.destroy();
                    fired = fail.fired();
                    if (end != STM_END_DONE) {
                        EXPECT_TRUE(fired);
                        EXPECT_STRNE(p.error.msg, "");
                        if (fault.kinds == STM_FAULT_LOAD) { EXPECT_EQ(end, STM_END_LOAD_FAILED); }
                    } else {
                        EXPECT_TRUE(p.finalized("out"));
                        EXPECT_EQ(p.errors.size() > 0, imputed > 0);
                        if (!fired) { EXPECT_EQ(imputed, 0); }
                    }
                    std::string last = "";
                    for (auto &row : p.rows("out")) EXPECT_NE(row.key, last), last = row.key;
                }
                EXPECT_EQ(live(), before) << "leak";
                EXPECT_EQ(lives.loads, lives.unloads) << "every load is unloaded, also the ones that failed half-way";
                if (!fired || ::testing::Test::HasFailure()) break;
            }
            printf("%-18s %-17s %lld points\n", pipe.name, fault.name, (long long)here);
            EXPECT_GT(here, 2);
            points += here;
            if (::testing::Test::HasFailure()) return;
        }
    printf("%lld points in all\n", (long long)points);
}
