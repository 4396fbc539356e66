/* Columns put together on a device: the same rows as on the host, from wherever their parts are. */
#include "device/backend.h"

#include "unit/batch/rows.h"

extern "C" {
#include "wrapper/lane_internal.h"
}

using namespace mt;

namespace {

class Lane {
public:
    Lane(const stm_device_ops *ops, int32_t ordinal, mill_pool *pool, size_t limit = 0) : device_(ops, ordinal)
    {
        mill_error err = {};
        const stm_lane_opts o = {device_, pool, limit != 0 ? limit : (size_t)1 << 20, limit, 1 << 20, false, nullptr};
        EXPECT_EQ(stm_lane_open(&o, &l, &err), MILL_OK) << err.msg;
    }
    ~Lane() { stm_lane_close(&l); }
    Lane(const Lane &) = delete;
    Lane &operator=(const Lane &) = delete;

    Column up(const Column &c)
    {
        Column out;
        mill_error err = {};
        EXPECT_EQ(stm_lane_move(l, STM_TO_DEVICE, c.p, &out.p, &err), MILL_OK) << err.msg;
        EXPECT_EQ(stm_lane_gather_ways(l, &err), MILL_OK) << err.msg;
        return out;
    }
    Column down(const Column &c)
    {
        Column out;
        mill_error err = {};
        EXPECT_EQ(stm_lane_drain(l, 0, &err), MILL_OK) << err.msg;
        EXPECT_EQ(stm_lane_move(l, STM_TO_HOST, c.p, &out.p, &err), MILL_OK) << err.msg;
        EXPECT_EQ(stm_lane_drain(l, 0, &err), MILL_OK) << err.msg;
        return out;
    }
    stm_lane *l = nullptr;

private:
    Device device_;
};

class Assemble : public ::testing::TestWithParam<const char *> {
protected:
    void SetUp() override
    {
        std::string why;
        ops = backend(GetParam(), &why);
        if (ops == nullptr) GTEST_SKIP() << GetParam() << ": " << why;
    }
    const stm_device_ops *ops = nullptr;
};

const char *const kTypes[] = {
    "int32", "float64", "float16", "bool", "fixed_list<float32>[3]", "fixed_list<bool>[5]", "struct<a: int64, b: bool>"};

Rows part(const Rows &r, int64_t first, int64_t n) { return Rows(r.begin() + first, r.begin() + first + n); }

} // namespace

/* Few long runs and many short ones; sources with and without nulls, cut at any bit, on the host, on this device, on another; runs
 * of nulls. */
TEST_P(Assemble, RunsGiveTheRowsOfTheHost)
{
    for (const char *text : kTypes)
        for (int many : {0, 1})
            for (int nulls : {0, 1}) {
                SCOPED_TRACE(std::string(text) + (many ? " many" : " few") + (nulls ? " nulls" : ""));
                Rng rng(static_cast<uint64_t>(many * 2 + nulls + 7));
                Pool pool;
                const mill_type *t = type_of(text);
                Lane here(ops, 0, pool), there(ops, devices_of(ops) > 1 ? 1 : 0, pool);
                Rows rows[4], want;
                Batch sources[4];
                for (int i = 0; i < 4; i++) {
                    rows[i] = random_rows(rng, t, 150, nulls);
                    Column c = build(pool, t, rows[i]);
                    if (i == 2) c = there.up(c);
                    if (i < 2) c = here.up(c);
                    ASSERT_EQ(stm_batch_create(pool, 150, 1, 0, &sources[i].p), MILL_OK);
                    sources[i].p->columns[0] = mill_column_ref(c.p);
                }
                std::vector<stm_run_of_rows> runs;
                for (int k = 0; k < (many ? 90 : 7); k++) {
                    const int from = k == 0 ? 0 : static_cast<int>(rng() % 5); /* one at least is there */
                    const int64_t n = static_cast<int64_t>(rng() % (many ? 3 : 100)), first = static_cast<int64_t>(rng() % 50);
                    runs.push_back({from == 4 ? nullptr : sources[from].p, from == 4 ? 0 : first, n});
                    const Rows more = from == 4 ? Rows(static_cast<size_t>(n)) : part(rows[from], first, n);
                    want.insert(want.end(), more.begin(), more.end());
                }
                mill_error err = {};
                Batch out;
                const stm_site *site = stm_lane_site(here.l, &err);
                ASSERT_EQ(stm_batch_concat_at(site, pool, runs.data(), runs.size(), &t, 1, 0, &out.p), MILL_OK) << err.msg;
                Column made;
                made.p = mill_column_ref(out.p->columns[0]);
                EXPECT_TRUE(stm_column_is_on_device(made.p, nullptr));
                EXPECT_TRUE(same(here.down(made).p, want));
                EXPECT_EQ(stm_lane_counts(here.l).joined, 1);
                EXPECT_EQ(stm_lane_counts(here.l).landings, 0);
            }
}

TEST_P(Assemble, PickedRowsAreThoseOfTheHost)
{
    for (const char *text : kTypes)
        for (int nulls : {0, 1}) {
            SCOPED_TRACE(text);
            Rng rng(3);
            Pool pool;
            const mill_type *t = type_of(text);
            Lane lane(ops, 0, pool);
            const Rows rows = random_rows(rng, t, 100, nulls);
            Column c = lane.up(build(pool, t, rows)), cut;
            ASSERT_EQ(stm_column_slice(c.p, 3, 90, &cut.p), MILL_OK);
            for (int64_t n : {0, 1, 60}) {
                std::vector<int64_t> index;
                Rows want;
                for (int64_t i = 0; i < n; i++) {
                    index.push_back(static_cast<int64_t>(rng() % 91) - 1);
                    want.push_back(index.back() < 0 ? Value() : rows[static_cast<size_t>(3 + index.back())]);
                }
                mill_error err = {};
                Column made;
                const stm_site *site = stm_lane_site(lane.l, &err);
                ASSERT_EQ(site->gather(site->user, cut.p, index.data(), n, &made.p), MILL_OK) << err.msg;
                EXPECT_TRUE(same(lane.down(made).p, want));
            }
        }
}

/* What has lengths, and what does not fit, is put together on the host. */
TEST_P(Assemble, TheHostIsTheWayThatIsLeft)
{
    Rng rng(5);
    Pool pool;
    const struct {
        const char *type;
        size_t limit;
    } cases[] = {{"utf8", 0}, {"list<int32>", 0}, {"int64", 16384}};
    for (const auto &kase : cases) {
        SCOPED_TRACE(kase.type);
        const mill_type *t = type_of(kase.type);
        Lane lane(ops, 0, pool, kase.limit);
        const Rows rows = random_rows(rng, t, 1500, 1);
        Column c = lane.up(build(pool, t, rows));
        Batch source, out;
        ASSERT_EQ(stm_batch_create(pool, 1500, 1, 0, &source.p), MILL_OK);
        source.p->columns[0] = mill_column_ref(c.p);
        const stm_run_of_rows runs[] = {{source.p, 700, 800}, {nullptr, 0, 2}, {source.p, 0, 700}};
        Rows want = part(rows, 700, 800);
        want.resize(802);
        const Rows rest = part(rows, 0, 700);
        want.insert(want.end(), rest.begin(), rest.end());
        mill_error err = {};
        ASSERT_EQ(stm_batch_concat_at(stm_lane_site(lane.l, &err), pool, runs, 3, &t, 1, 0, &out.p), MILL_OK) << err.msg;
        EXPECT_FALSE(stm_column_is_on_device(out.p->columns[0], nullptr));
        EXPECT_TRUE(same(out.p->columns[0], want));
        EXPECT_EQ(err.status, MILL_OK) << err.msg;
    }
}

/* Every device call fails once: the rows, or a cause; nothing is left behind. */
TEST_P(Assemble, FailsCleanlyAtEveryPoint)
{
    for (int nth = 0;; nth++) {
        Rng rng(1);
        Pool pool;
        const mill_type *t = type_of("fixed_list<bool>[5]");
        Lane lane(ops, 0, pool);
        const Rows rows = random_rows(rng, t, 40, 1);
        Column c = lane.up(build(pool, t, rows)), made;
        std::vector<int64_t> index;
        Rows want;
        for (int64_t i = 0; i < 40; i += 2) index.push_back(i), want.push_back(rows[static_cast<size_t>(i)]);
        mill_error err = {};
        const stm_site *site = stm_lane_site(lane.l, &err);
        bool fired;
        mill_status st;
        {
            FailNth fail(nth, STM_FAULT_DEVICE);
            st = site->gather(site->user, c.p, index.data(), 20, &made.p);
            fired = fail.fired();
        }
        if (st == MILL_OK)
            EXPECT_TRUE(same(lane.down(made).p, want));
        else
            EXPECT_STRNE(err.msg, "");
        if (!fired) break;
        ASSERT_LT(nth, 200);
    }
}

INSTANTIATE_TEST_SUITE_P(Backends, Assemble, ::testing::Values(mt::suite_for()),
                         [](const auto &i) { return std::string(i.param); });
