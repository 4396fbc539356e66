/* Steps of a test that compute on a device, in whole runs. */
#pragma once
#include "device/backend.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <mutex>
#include <set>

#include "support/pipe.h"
#include "support/sim_watch.h"

extern "C" {
#include "device/lane_peek.h"
}

namespace mt {

enum { MAX_ROWS = 512 };

/* Emits a batch of one column of @p data, which it takes over where that succeeds. */
inline mill_status emit_column(mill_replica *r, mill_emit *out, const mill_type *type, int64_t rows, mill_buffer **data,
                               mill_error *err)
{
    mill_column *y = nullptr;
    mill_batch *made = nullptr;
    mill_status st = mill_column_create(mill_replica_pool(r), type, rows, nullptr, nullptr, data, nullptr, &y, err);
    if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), rows, 1, &made);
    if (st == MILL_OK) st = mill_batch_set_column(made, 0, &y);
    if (st == MILL_OK) st = mill_emit_batch(out, &made, nullptr, err);
    mill_column_unref(&y);
    mill_batch_destroy(&made);
    return st;
}

class Lane : public ::testing::TestWithParam<const char *> {
protected:
    void SetUp() override
    {
        std::string why;
        if (std::string(GetParam()) == "cpu") { /* the same pipeline where there is no device: none is looked for but this one */
            stm_backend_report r;
            stm_backend_explain("cuda", &r);
            on_device = r.devices > 0;
            return;
        }
        if (backend(GetParam(), &why) == nullptr) GTEST_SKIP() << GetParam() << ": " << why;
        on_device = true;
        watch_pools();
    }
    void TearDown() override { stm_place_watch = nullptr; }
    bool on_device = false;
    std::atomic<int> calls{0}, device_calls{0}, live_replicas{0};
    std::atomic<int64_t> uploads{0}, landings{0}, joined{0};
    std::mutex lock;
    std::set<int> ordinals;

    /* y = the x of the batch, last row first; `same`: more columns that are y. `misbehave` may make a call fail. */
    Behaviour reverses(std::function<mill_status(mill_batch *const *, mill_error *)> misbehave = nullptr,
                       const std::vector<std::string> &same = {})
    {
        Behaviour b;
        b.flags = MILL_ON_DEVICE;
        b.uses = {{"x", "int64"}};
        b.adds = {{"y", "int64"}};
        for (const std::string &name : same) b.adds.push_back({name, "int64"});
        b.load = [this](mill_replica *r, mill_error *e) -> mill_status {
            mill_replica_device d = MILL_REPLICA_DEVICE_INIT;
            live_replicas++;
            EXPECT_EQ(mill_replica_device_of(r, &d), on_device);
            if (!on_device) return MILL_OK;
            {
                std::lock_guard<std::mutex> guard(lock);
                ordinals.insert(d.ordinal);
            }
            static const std::vector<int64_t> backwards = [] {
                std::vector<int64_t> v;
                for (int i = 0; i < MAX_ROWS; i++) v.push_back(MAX_ROWS - 1 - i);
                return v;
            }();
            mill_buffer *index = nullptr;
            mill_status st = mill_replica_device_buffer(r, MAX_ROWS * 8, &index, e);
            if (st != MILL_OK) return st;
            mill_replica_set_state(r, index);
            return mt_lane_copy(r, mill_buffer_data(index), backwards.data(), MAX_ROWS * 8, e);
        };
        b.unload = [this](mill_replica *r) {
            mill_buffer *index = static_cast<mill_buffer *>(mill_replica_state(r));
            int64_t c[5];
            live_replicas--;
            if (index == nullptr) return;
            mt_lane_counts(r, c);
            uploads += c[1], landings += c[2], joined += c[4];
            mill_buffer_unref(&index);
            mill_replica_set_state(r, nullptr);
        };
        b.process = [this, misbehave, n = b.adds.size()](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out,
                                      mill_error *e) -> mill_status {
            const int64_t rows = mill_batch_rows(in[0]);
            mill_status st = misbehave ? misbehave(in, e) : MILL_OK;
            calls++;
            if (st != MILL_OK) return st;
            if (!on_device) {
                std::vector<int64_t> v;
                for (int64_t i = rows; i-- > 0;) v.push_back(value(in[0], 0, i));
                return emit_int64(r, out, v, e);
            }
            device_calls++;
            mill_column *x = mill_batch_column(in[0], 0), *y = nullptr;
            EXPECT_TRUE(mill_column_is_on_device(x));
            const mill_view v = mill_column_view(x);
            mill_buffer *data = nullptr, *index = static_cast<mill_buffer *>(mill_replica_state(r));
            mill_batch *made = nullptr;
            st = mill_replica_device_buffer(r, static_cast<size_t>(rows) * 8, &data, e);
            if (st == MILL_OK)
                st = mt_lane_gather(r, static_cast<const int64_t *>(v.data) + v.offset,
                                    static_cast<const int64_t *>(mill_buffer_data(index)) + (MAX_ROWS - rows),
                                    mill_buffer_data(data), rows, e);
            if (st == MILL_OK) st = mill_column_create(mill_replica_pool(r), v.type, rows, nullptr, nullptr, &data, nullptr, &y, e);
            if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), rows, static_cast<int32_t>(n), &made);
            for (size_t c = 0; c < n && st == MILL_OK; c++) {
                mill_column *once_more = mill_column_ref(y);
                st = mill_batch_set_column(made, static_cast<int32_t>(c), &once_more);
            }
            if (st == MILL_OK) st = mill_emit_batch(out, &made, nullptr, e);
            mill_buffer_unref(&data);
            mill_column_unref(&y);
            mill_batch_destroy(&made);
            return st;
        };
        return b;
    }
    /* The same from y to z: a second step that finds its input where the first one left it. */
    Behaviour reverses_again(std::function<mill_status(mill_batch *const *, mill_error *)> misbehave = nullptr)
    {
        Behaviour b = reverses(misbehave);
        b.uses = {{"y", "int64"}};
        b.adds = {{"z", "int64"}};
        return b;
    }
    static Pipe::Opts gpu(int64_t batch_rows, int32_t replicas = 1, stm_on_error on_error = STM_ON_ERROR_IMPUTE)
    {
        Pipe::Opts o;
        o.batch_rows = batch_rows, o.replicas = replicas;
        o.policy = [on_error](stm_policy *p) { p->gpus = 1, p->on_error = on_error, p->memory_bytes = 1 << 20; };
        return o;
    }
    /* Rows of batches of `size` with y reversed inside each; rows for which `failed` says so are null. */
    static void expect_reversed(Pipe &p, int64_t n, int64_t size, std::function<bool(int64_t)> failed = nullptr)
    {
        ASSERT_EQ(static_cast<int64_t>(p.rows("out").size()), n);
        for (int64_t i = 0; i < n; i++) {
            const int64_t first = i / size * size, last = std::min(first + size, n) - 1;
            ASSERT_EQ(p.rows("out")[static_cast<size_t>(i)].values.at("x"), i);
            ASSERT_EQ(p.rows("out")[static_cast<size_t>(i)].values.at("y"), failed && failed(i) ? INT64_MIN : first + last - i)
                << "row " << i;
        }
    }
};

} // namespace mt
