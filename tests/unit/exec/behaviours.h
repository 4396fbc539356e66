/* Steps that the tests of this folder use again and again. */
#pragma once
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>

#include "support/pipe.h"

namespace mt {

inline Behaviour maps(std::function<int64_t(int64_t)> f, const char *out = "y")
{
    Behaviour b;
    b.uses = {{"x", "int64"}};
    b.adds = {{out, "int64"}};
    b.process = [f](mill_replica *r, mill_batch *const *in, size_t, mill_emit *o, mill_error *e) -> mill_status {
        std::vector<int64_t> v;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++) v.push_back(f(value(in[0], 0, i)));
        return emit_int64(r, o, v, e);
    };
    return b;
}

inline Behaviour keeps(std::function<bool(int64_t)> want)
{
    Behaviour b;
    b.uses = {{"x", "int64"}};
    b.adds = {{"kept", "int64"}};
    b.flags = MILL_FILTERS;
    b.process = [want](mill_replica *r, mill_batch *const *in, size_t, mill_emit *o, mill_error *e) -> mill_status {
        std::vector<int64_t> v, parent;
        for (int64_t i = 0; i < mill_batch_rows(in[0]); i++)
            if (want(value(in[0], 0, i))) v.push_back(1), parent.push_back(i);
        return emit_int64(r, o, v, e, &parent);
    };
    return b;
}

inline Behaviour fails(const char *why)
{
    Behaviour b;
    b.uses = {{"x", "int64"}};
    b.adds = {{"y", "int64"}};
    b.process = [why](mill_replica *, mill_batch *const *, size_t, mill_emit *, mill_error *e) -> mill_status {
        return mill_fail(e, MILL_ERR_STEP, "%s", why);
    };
    return b;
}

/* Sends batch k to branch choose(k-th first x). */
inline Behaviour routes(std::function<std::vector<size_t>(int64_t)> choose)
{
    Behaviour b;
    b.uses = {{"x", "int64"}};
    b.route = [choose](mill_replica *, const mill_batch *in, mill_route *out, mill_error *e) -> mill_status {
        for (size_t i : choose(value(in, 0, 0)))
            if (mill_status st = mill_route_to(out, i, e)) return st;
        return MILL_OK;
    };
    return b;
}

inline Pipe::Opts rows_per_batch(int64_t n, int32_t replicas = 1)
{
    Pipe::Opts o;
    o.batch_rows = n;
    o.replicas = replicas;
    return o;
}

inline void expect_rows(Pipe &p, const char *sink, int64_t n)
{
    ASSERT_EQ((int64_t)p.rows(sink).size(), n) << sink;
    for (int64_t i = 0; i < n; i++) ASSERT_EQ(p.rows(sink)[i].values.at("x"), i) << sink;
}

} // namespace mt
