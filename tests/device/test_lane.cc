/* Steps that compute on a device, in whole runs: the same rows as on the host, whatever fails. */
#include "device/backend.h"

#include <atomic>
#include <mutex>
#include <set>

#include "support/fail_nth.h"
#include "support/pipe.h"

extern "C" {
#include "lane_peek.h"
}

using namespace mt;

namespace {

enum { MAX_ROWS = 512 };

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
    }
    bool on_device = false;
    std::atomic<int> calls{0}, device_calls{0}, live_replicas{0};
    std::atomic<int64_t> uploads{0}, landings{0};
    std::mutex lock;
    std::set<int> ordinals;

    /* y = the x of the batch, last row first. `misbehave` may make a call fail. */
    Behaviour reverses(std::function<mill_status(mill_batch *const *, mill_error *)> misbehave = nullptr)
    {
        Behaviour b;
        b.flags = MILL_ON_DEVICE;
        b.uses = {{"x", "int64"}};
        b.adds = {{"y", "int64"}};
        b.load = [this](mill_replica *r, mill_error *e) -> mill_status {
            mill_replica_device d = MILL_REPLICA_DEVICE_INIT;
            live_replicas++;
            EXPECT_EQ(mill_replica_device_of(r, &d), on_device);
            if (!on_device) return MILL_OK;
            {
                std::lock_guard<std::mutex> guard(lock);
                ordinals.insert(d.ordinal);
            }
            static int64_t backwards[MAX_ROWS];
            for (int i = 0; i < MAX_ROWS; i++) __atomic_store_n(&backwards[i], MAX_ROWS - 1 - i, __ATOMIC_RELAXED);
            mill_buffer *index = nullptr;
            mill_status st = mill_replica_device_buffer(r, sizeof backwards, &index, e);
            if (st != MILL_OK) return st;
            mill_replica_set_state(r, index);
            return mt_lane_copy(r, mill_buffer_data(index), backwards, sizeof backwards, e);
        };
        b.unload = [this](mill_replica *r) {
            mill_buffer *index = static_cast<mill_buffer *>(mill_replica_state(r));
            int64_t c[4];
            live_replicas--;
            if (index == nullptr) return;
            mt_lane_counts(r, c);
            uploads += c[1], landings += c[2];
            mill_buffer_unref(&index);
            mill_replica_set_state(r, nullptr);
        };
        b.process = [this, misbehave](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out,
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
            if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), rows, 1, &made);
            if (st == MILL_OK) st = mill_batch_set_column(made, 0, &y);
            if (st == MILL_OK) st = mill_emit_batch(out, &made, nullptr, e);
            mill_buffer_unref(&data);
            mill_column_unref(&y);
            mill_batch_destroy(&made);
            return st;
        };
        return b;
    }
    static Pipe::Opts gpu(int64_t batch_rows, int32_t replicas = 1, stm_on_error on_error = STM_ON_ERROR_IMPUTE)
    {
        Pipe::Opts o;
        o.batch_rows = batch_rows, o.replicas = replicas;
        o.policy = [on_error](stm_policy *p) { p->gpus = 1, p->on_error = on_error; };
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

} // namespace

TEST_P(Lane, RowsComeBackRight)
{
    for (int replicas : {1, 3}) {
        Pipe p;
        p.source("rows", 2000, 37);
        p.add("reverse", MILL_STEP, {{"rows"}}, reverses(), gpu(64, replicas)); /* other borders than the source's */
        p.sink("out", "reverse");
        ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
        expect_reversed(p, 2000, 64);
        EXPECT_TRUE(p.errors.empty());
        p.destroy();
    }
    EXPECT_EQ(live_replicas, 0);
    if (on_device) {
        EXPECT_EQ(device_calls, calls);
        EXPECT_EQ(uploads, calls) << "one column a batch";
        EXPECT_EQ(landings, calls);
    }
}

TEST_P(Lane, OneStepAfterAnother)
{
    Pipe p;
    Behaviour again = reverses();
    again.uses = {{"y", "int64"}};
    again.adds = {{"z", "int64"}};
    p.source("rows", 600, 50);
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses(), gpu(100));
    p.add("again", MILL_STEP, {{"reverse"}}, again, gpu(100));
    p.sink("out", "again");
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    expect_reversed(p, 600, 100);
    for (const Row &r : p.rows("out")) ASSERT_EQ(r.values.at("z"), r.values.at("x"));
}

TEST_P(Lane, AFailedBatchIsNulls)
{
    Pipe p;
    p.source("rows", 640, 64);
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses([this](mill_batch *const *, mill_error *e) -> mill_status {
              return calls == 3 ? mill_fail(e, MILL_ERR_STEP, "the fourth call") : MILL_OK;
          }),
          gpu(64));
    p.sink("out", "reverse");
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    expect_reversed(p, 640, 64, [](int64_t i) { return i / 64 == 3; });
    ASSERT_EQ(p.errors.size(), 1u);
    EXPECT_STREQ(p.errors[0].error.msg, "the fourth call");
}

/* What does not fit is halved, whatever on_error says, and nothing is lost. */
TEST_P(Lane, OutOfDeviceMemoryHalvesTheBatch)
{
    Pipe p;
    p.source("rows", 512, 128);
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses([](mill_batch *const *in, mill_error *e) -> mill_status {
              return mill_batch_rows(in[0]) > 32 ? mill_fail(e, MILL_ERR_DEVICE_MEM, "too much") : MILL_OK;
          }),
          gpu(128));
    p.sink("out", "reverse");
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    expect_reversed(p, 512, 32);
    EXPECT_TRUE(p.errors.empty());
}

/* A device that is lost is no fault of the rows: the run fails and says so, it does not impute all that follows. */
TEST_P(Lane, ALostDeviceEndsTheRun)
{
    Pipe p;
    p.source("rows", 640, 64);
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses([this](mill_batch *const *, mill_error *e) -> mill_status {
              return calls >= 2 ? mill_fail(e, MILL_ERR_DEVICE, "an illegal address was met") : MILL_OK;
          }),
          gpu(64));
    p.sink("out", "reverse");
    EXPECT_EQ(p.run(60), STM_END_FAILED);
    EXPECT_NE(strstr(p.error.msg, "illegal address"), nullptr) << p.error.msg;
    EXPECT_EQ(p.error.status, MILL_ERR_DEVICE);
    for (const Row &r : p.rows("out")) ASSERT_NE(r.values.at("y"), INT64_MIN) << "row " << r.values.at("x") << " was made null";
    p.destroy();
    EXPECT_EQ(live_replicas, 0);
}

/* Every device call of a small run fails once: the right rows, or nulls with a record, or a failed run with a cause; no leak, no hang. */
TEST_P(Lane, EveryDeviceCallFailsOnce)
{
    if (!on_device) return; /* then there are none: test_fault_run fails the rest */
    const long before = live();
    int done = 0, imputed = 0, failed = 0;
    for (int nth = 0;; nth++) {
        bool fired;
        {
            Pipe p;
            calls = 0;
            p.source("rows", 64, 16);
            p.add("reverse", MILL_STEP, {{"rows"}}, reverses(), gpu(16));
            p.sink("out", "reverse");
            FailNth fail(nth, STM_FAULT_DEVICE);
            const stm_run_end end = p.run(60);
            fired = fail.fired();
            if (end == STM_END_DONE && p.errors.empty()) {
                done++;
                expect_reversed(p, 64, 16);
            } else if (end == STM_END_DONE) {
                imputed++;
                EXPECT_EQ(p.rows("out").size(), 64u);
                EXPECT_STRNE(p.errors[0].error.msg, "");
            } else {
                failed++;
                EXPECT_STRNE(p.error.msg, "") << nth;
            }
            p.destroy();
        }
        EXPECT_EQ(live_replicas, 0) << nth;
        EXPECT_EQ(live(), before) << "leak when device call " << nth << " fails";
        if (!fired) break;
        ASSERT_LT(nth, 3000);
    }
    EXPECT_GT(imputed, 3);
    EXPECT_GT(failed, 10);
    std::printf("%d runs done, %d with nulls, %d failed\n", done, imputed, failed);
}

INSTANTIATE_TEST_SUITE_P(Backends, Lane, ::testing::Values(STM_TEST_BACKEND), [](const auto &i) { return std::string(i.param); });
