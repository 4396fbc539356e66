/* The contract of a communication library: one suite for all. */
#include "comm/ranks.h"

#include <cmath>
#include <functional>

#include "support/fail_nth.h"

extern "C" {
#include "batch/half.h"
}

namespace {

struct Element {
    const char *name;
    stm_comm_type type;
    double tol; /* of a sum of four values up to 64, relative to 256; 0 = exact */
};
const Element kElements[] = {{"u8", STM_COMM_U8, 0},     {"i32", STM_COMM_I32, 0},  {"i64", STM_COMM_I64, 0},
                             {"f16", STM_COMM_F16, 0x1p-9},
                             {"bf16", STM_COMM_BF16, 0x1p-6}, {"f32", STM_COMM_F32, 0x1p-22}, {"f64", STM_COMM_F64, 0x1p-50}};

void put(stm_comm_type t, char *p, int64_t i, double v)
{
    switch (t) {
    case STM_COMM_U8: reinterpret_cast<uint8_t *>(p)[i] = static_cast<uint8_t>(v); break;
    case STM_COMM_I32: reinterpret_cast<int32_t *>(p)[i] = static_cast<int32_t>(v); break;
    case STM_COMM_I64: reinterpret_cast<int64_t *>(p)[i] = static_cast<int64_t>(v); break;
    case STM_COMM_F16: reinterpret_cast<uint16_t *>(p)[i] = stm_half_from_double(v); break;
    case STM_COMM_BF16: {
        const float f = static_cast<float>(v); /* the values below are exact in it */
        uint32_t bits;
        memcpy(&bits, &f, 4);
        reinterpret_cast<uint16_t *>(p)[i] = static_cast<uint16_t>(bits >> 16);
        break;
    }
    case STM_COMM_F32: reinterpret_cast<float *>(p)[i] = static_cast<float>(v); break;
    case STM_COMM_F64: reinterpret_cast<double *>(p)[i] = v; break;
    }
}
double get(stm_comm_type t, const char *p, int64_t i)
{
    switch (t) {
    case STM_COMM_U8: return reinterpret_cast<const uint8_t *>(p)[i];
    case STM_COMM_I32: return reinterpret_cast<const int32_t *>(p)[i];
    case STM_COMM_I64: return static_cast<double>(reinterpret_cast<const int64_t *>(p)[i]);
    case STM_COMM_F16: return static_cast<double>(stm_half_to_float(reinterpret_cast<const uint16_t *>(p)[i]));
    case STM_COMM_BF16: {
        const uint32_t bits = static_cast<uint32_t>(reinterpret_cast<const uint16_t *>(p)[i]) << 16;
        float f;
        memcpy(&f, &bits, 4);
        return static_cast<double>(f);
    }
    case STM_COMM_F32: return static_cast<double>(reinterpret_cast<const float *>(p)[i]);
    case STM_COMM_F64: return reinterpret_cast<const double *>(p)[i];
    }
    return 0;
}
/* A whole number of 0 .. 63: exact in every type. Differs by rank and place. */
double value(int rank, int64_t i)
{
    return static_cast<double>((static_cast<uint64_t>(i) * 7919 + static_cast<uint64_t>(rank) * 31) % 64);
}

double over_ranks(int n, int64_t i, stm_comm_op op)
{
    double v = value(0, i);
    for (int r = 1; r < n; r++) {
        const double x = value(r, i);
        v = op == STM_COMM_SUM ? v + x : op == STM_COMM_MAX ? std::max(v, x) : std::min(v, x);
    }
    return v;
}

class CommContract : public ::testing::TestWithParam<int> {
protected:
    void SetUp() override
    {
        std::string why;
        ops = mt::comm_library(mt::suite_for(), &why);
        if (ops == nullptr) GTEST_SKIP() << mt::suite_for() << ": " << why;
        n = GetParam();
        if (strcmp(ops->backend, "cpu") != 0 && mt::devices_of(mt::backend(ops->backend, &why)) < n)
            GTEST_SKIP() << "fewer than " << n << " devices";
        before_ = mt::live();
        ready_ = true;
    }
    void TearDown() override
    {
        if (ready_) {
            EXPECT_EQ(mt::live(), before_) << "leak";
        }
    }
    const stm_comm_ops *ops = nullptr;
    int n = 0;

private:
    bool ready_ = false;
    long before_ = 0;
};

/* Queue a group and wait for it. */
void run(stm_comm *c, const std::vector<stm_comm_call> &calls)
{
    mill_error err = {};
    ASSERT_EQ(stm_comm_submit(c, calls.data(), static_cast<int32_t>(calls.size()), &err), MILL_OK) << err.msg;
    ASSERT_EQ(stm_comm_wait(c, &err), MILL_OK) << err.msg;
}

struct Collective {
    const char *name;
    stm_comm_kind kind;
    bool reduces, wide_in, wide_out; /* wide: [ranks][count] */
};
const Collective kCollectives[] = {
    {"all_reduce", STM_COMM_ALL_REDUCE, true, false, false},   {"broadcast", STM_COMM_BROADCAST, false, false, false},
    {"reduce", STM_COMM_REDUCE, true, false, false},           {"all_gather", STM_COMM_ALL_GATHER, false, false, true},
    {"reduce_scatter", STM_COMM_REDUCE_SCATTER, true, true, false},
};

double expected(const Collective &k, int n, int rank, int root, int64_t count, int64_t i, stm_comm_op op)
{
    switch (k.kind) {
    case STM_COMM_BROADCAST: return value(root, i);
    case STM_COMM_ALL_GATHER: return value(static_cast<int>(i / count), i % count);
    case STM_COMM_REDUCE_SCATTER: return over_ranks(n, rank * count + i, op);
    default: return over_ranks(n, i, op);
    }
}

void one_collective(const stm_comm_ops *ops, int n, const Collective &k, const Element &e, stm_comm_op op, int64_t count,
                    bool in_place)
{
    mt::Ranks ranks(ops, n);
    mt::Comm comm(ops, ranks);
    const auto size = static_cast<int64_t>(stm_comm_type_bytes(e.type));
    const int64_t in = k.wide_in ? count * n : count, out = k.wide_out ? count * n : count, root = n - 1;
    std::vector<std::unique_ptr<mt::Buffer>> src, dst;
    std::vector<stm_comm_call> calls;
    for (int r = 0; r < n; r++) {
        /* in place: one buffer, of the wider side */
        src.push_back(std::make_unique<mt::Buffer>(ranks, r, static_cast<size_t>((in_place ? std::max(in, out) : in) * size)));
        dst.push_back(in_place ? nullptr : std::make_unique<mt::Buffer>(ranks, r, static_cast<size_t>(out * size)));
        const int64_t part = in_place && (k.wide_in || k.wide_out) ? r * count : 0; /* where the narrow side lies in it */
        for (int64_t i = 0; i < in; i++) put(e.type, src.back()->host(), (k.wide_out ? part : 0) + i, value(r, i));
        src.back()->up();
        if (!in_place) dst.back()->up();
        char *s = static_cast<char *>(src.back()->device()), *d = in_place ? s : static_cast<char *>(dst.back()->device());
        calls.push_back(mt::call_of(k.kind, r, count, s + (k.wide_out ? part * size : 0), d + (k.wide_in ? part * size : 0),
                                    static_cast<int>(root), e.type, op));
    }
    run(comm, calls);
    for (int r = 0; r < n; r++) {
        mt::Buffer &b = in_place ? *src[static_cast<size_t>(r)] : *dst[static_cast<size_t>(r)];
        b.down();
        if (k.kind == STM_COMM_REDUCE && r != root) continue;
        const int64_t part = in_place && k.wide_in ? r * count : 0;
        for (int64_t i = 0; i < out; i++)
            ASSERT_NEAR(get(e.type, b.host(), part + i), expected(k, n, r, static_cast<int>(root), count, i, op),
                        e.tol * 256) << "rank " << r << " element " << i;
    }
}

} // namespace

TEST_P(CommContract, CollectivesOfEveryTypeAndReduction)
{
    for (const Collective &k : kCollectives)
        for (const Element &e : kElements)
            for (stm_comm_op op : {STM_COMM_SUM, STM_COMM_MAX, STM_COMM_MIN}) {
                if (!k.reduces && op != STM_COMM_SUM) continue;
                if (e.type == STM_COMM_U8 && op == STM_COMM_SUM && n > 4) continue; /* would not fit */
                SCOPED_TRACE(std::string(k.name) + " " + e.name + " op " + std::to_string(op));
                one_collective(ops, n, k, e, op, 37, false);
                if (HasFatalFailure()) return;
            }
}

TEST_P(CommContract, InPlaceAndOfEverySize)
{
    for (const Collective &k : kCollectives)
        for (int64_t count : {0, 1, 1000})
            for (bool in_place : {false, true}) {
                SCOPED_TRACE(std::string(k.name) + " of " + std::to_string(count) + (in_place ? " in place" : ""));
                one_collective(ops, n, k, kElements[5], STM_COMM_SUM, count, in_place);
                if (HasFatalFailure()) return;
            }
}

TEST_P(CommContract, MessagesAndCollectivesInOneGroup)
{
    if (n < 2) return; /* nobody to send to: the other sizes do */
    mt::Ranks ranks(ops, n);
    mt::Comm comm(ops, ranks);
    const int64_t count = 129;
    std::vector<std::unique_ptr<mt::Buffer>> src, left, right, sum;
    std::vector<stm_comm_call> calls;
    for (int r = 0; r < n; r++) {
        for (auto *list : {&src, &left, &right, &sum}) list->push_back(std::make_unique<mt::Buffer>(ranks, r, count * 4));
        for (int64_t i = 0; i < count; i++) put(STM_COMM_F32, src.back()->host(), i, value(r, i));
        for (auto *list : {&src, &left, &right, &sum}) list->back()->up();
        const int next = (r + 1) % n, last = (r + n - 1) % n;
        calls.push_back(mt::call_of(STM_COMM_RECV, r, count, nullptr, left.back()->device(), last));
        calls.push_back(mt::call_of(STM_COMM_ALL_REDUCE, r, count, src.back()->device(), sum.back()->device()));
        calls.push_back(mt::call_of(STM_COMM_SEND, r, count, src.back()->device(), nullptr, next));
        calls.push_back(mt::call_of(STM_COMM_SEND, r, count, src.back()->device(), nullptr, last));
        calls.push_back(mt::call_of(STM_COMM_RECV, r, count, nullptr, right.back()->device(), next));
    }
    for (int turn = 0; turn < 3; turn++) run(comm, calls);
    for (int r = 0; r < n; r++) {
        for (auto *list : {&left, &right, &sum}) (*list)[static_cast<size_t>(r)]->down();
        for (int64_t i = 0; i < count; i++) {
            ASSERT_EQ(get(STM_COMM_F32, left[static_cast<size_t>(r)]->host(), i), value((r + n - 1) % n, i));
            ASSERT_EQ(get(STM_COMM_F32, right[static_cast<size_t>(r)]->host(), i), value((r + 1) % n, i));
            ASSERT_EQ(get(STM_COMM_F32, sum[static_cast<size_t>(r)]->host(), i), over_ranks(n, i, STM_COMM_SUM));
        }
    }
}

/* Each group takes the result of the one before it, with work of the stream between them and no wait of the host. */
TEST_P(CommContract, GroupsFollowEachOtherOnTheirStreams)
{
    mt::Ranks ranks(ops, n);
    mt::Comm comm(ops, ranks);
    const int64_t count = 64;
    std::vector<std::unique_ptr<mt::Buffer>> a, b;
    std::vector<stm_comm_call> calls;
    mill_error err = {};
    for (int r = 0; r < n; r++) {
        for (auto *list : {&a, &b}) list->push_back(std::make_unique<mt::Buffer>(ranks, r, count * 4));
        for (int64_t i = 0; i < count; i++) put(STM_COMM_F32, a.back()->host(), i, 1);
        a.back()->up();
        calls.push_back(mt::call_of(STM_COMM_ALL_REDUCE, r, count, a.back()->device(), b.back()->device()));
    }
    double want = 1;
    int turns = 0;
    for (int tries = 0; turns < 10 && tries < 200000; tries++) {
        mill_status st = stm_comm_poll(comm, &err);
        if (st == MILL_OK) st = stm_comm_submit(comm, calls.data(), n, nullptr);
        ASSERT_LE(stm_comm_in_flight(comm), STM_COMM_DEPTH);
        if (st == MILL_ERR_AGAIN) {
            const struct timespec nap = {0, 20000};
            nanosleep(&nap, nullptr);
            continue;
        }
        ASSERT_EQ(st, MILL_OK) << err.msg;
        turns++;
        while ((st = stm_comm_poll(comm, &err)) == MILL_ERR_AGAIN) {} /* queued: what follows may be */
        ASSERT_EQ(st, MILL_OK) << err.msg;
        for (int r = 0; r < n; r++)
            ASSERT_EQ(stm_stream_copy(ranks.stream(r), a[static_cast<size_t>(r)]->device(), b[static_cast<size_t>(r)]->device(),
                                      count * 4, &err), MILL_OK) << err.msg;
        want *= n;
    }
    ASSERT_EQ(turns, 10);
    ASSERT_EQ(stm_comm_wait(comm, &err), MILL_OK) << err.msg;
    EXPECT_EQ(stm_comm_in_flight(comm), 0);
    for (int r = 0; r < n; r++) {
        a[static_cast<size_t>(r)]->down();
        EXPECT_EQ(get(STM_COMM_F32, a[static_cast<size_t>(r)]->host(), count - 1), want);
    }
}

TEST_P(CommContract, CallsThatDoNotFitAreRefusedAndHarmNothing)
{
    mt::Ranks ranks(ops, n);
    mt::Comm comm(ops, ranks);
    std::vector<std::unique_ptr<mt::Buffer>> b;
    std::vector<stm_comm_call> good;
    for (int r = 0; r < n; r++) {
        b.push_back(std::make_unique<mt::Buffer>(ranks, r, 64));
        b.back()->up();
        good.push_back(mt::call_of(STM_COMM_ALL_REDUCE, r, 4, b.back()->device(), b.back()->device()));
    }
    struct Bad {
        const char *name;
        std::function<void(std::vector<stm_comm_call> &)> spoil;
        bool alone; /* also wrong with one rank */
    };
    void *const p = b[0]->device();
    const Bad bad[] = {
        {"nothing", [](auto &g) { g.clear(); }, true},
        {"a rank is missing", [](auto &g) { g.pop_back(); }, true},
        {"another count", [](auto &g) { g.back().count++; }, false},
        {"another type", [](auto &g) { g.back().type = STM_COMM_I32; }, false},
        {"another reduction", [](auto &g) { g.back().op = STM_COMM_MAX; }, false},
        {"another kind", [](auto &g) { g.back().kind = STM_COMM_BROADCAST; }, false},
        {"another root", [](auto &g) { for (auto &c : g) c.kind = STM_COMM_BROADCAST, c.peer = c.rank; }, false},
        {"no such rank", [this](auto &g) { g.back().rank = n; }, true},
        {"no such peer", [](auto &g) { g.back().peer = -1; }, true},
        {"no such kind", [](auto &g) { g.back().kind = static_cast<stm_comm_kind>(0); }, true},
        {"no such type", [](auto &g) { g.back().type = static_cast<stm_comm_type>(99); }, true},
        {"no such reduction", [](auto &g) { g.back().op = static_cast<stm_comm_op>(0); }, true},
        {"no buffer to send", [](auto &g) { g.back().send = nullptr; }, true},
        {"no buffer to receive", [](auto &g) { g.back().recv = nullptr; }, true},
        {"fewer than none", [](auto &g) { g.back().count = -1; }, true},
        {"a send without its receive", [p](auto &g) { g.push_back(mt::call_of(STM_COMM_SEND, 0, 4, p, nullptr, 1)); }, true},
        {"a receive without its send", [p](auto &g) { g.push_back(mt::call_of(STM_COMM_RECV, 0, 4, nullptr, p, 1)); }, true},
        {"a send to itself", [p](auto &g) { g.push_back(mt::call_of(STM_COMM_SEND, 0, 4, p, nullptr, 0)); }, true},
        {"a receive of another size",
         [p](auto &g) {
             g.push_back(mt::call_of(STM_COMM_SEND, 0, 4, p, nullptr, 1));
             g.push_back(mt::call_of(STM_COMM_RECV, 1, 5, nullptr, p, 0));
         },
         true},
        {"too many", [](auto &g) { g.resize(STM_COMM_CALLS + 1, g[0]); }, true},
    };
    for (const Bad &x : bad) {
        if (n == 1 && !x.alone) continue;
        std::vector<stm_comm_call> calls = good;
        x.spoil(calls);
        mill_error err = {};
        EXPECT_EQ(stm_comm_submit(comm, calls.data(), static_cast<int32_t>(calls.size()), &err), MILL_ERR_INVALID) << x.name;
        EXPECT_STRNE(err.msg, "") << x.name;
        EXPECT_EQ(stm_comm_state_of(comm), STM_COMM_READY) << x.name;
    }
    run(comm, good);
}

TEST_P(CommContract, DevicesThatDoNotFitAreRefused)
{
    mt::Ranks ranks(ops, n);
    stm_comm *c = nullptr;
    mill_error err = {};
    EXPECT_EQ(stm_comm_open(ops, ranks.streams(), 0, 0, &c, &err), MILL_ERR_INVALID);
    err = {};
    EXPECT_EQ(stm_comm_open(ops, ranks.streams(), STM_COMM_RANKS + 1, 0, &c, &err), MILL_ERR_INVALID);
    err = {};
    const stm_comm_ops *other = nullptr;
    if (strcmp(ops->name, "cpu") != 0) {
        stm_stream *const twice[] = {ranks.stream(0), ranks.stream(0)};
        EXPECT_EQ(stm_comm_open(ops, twice, 2, 0, &c, &err), MILL_ERR_INVALID) << "one device twice";
        err = {};
        ASSERT_EQ(stm_comm_find("cpu", &other, nullptr), MILL_OK);
        EXPECT_EQ(stm_comm_open(other, ranks.streams(), n, 0, &c, &err), MILL_ERR_INVALID) << "devices of another backend";
    }
    EXPECT_EQ(stm_comm_find("carrier pigeons", &other, nullptr), MILL_ERR_NOT_FOUND);
    EXPECT_EQ(c, nullptr);
}

/* Fails at each passage in turn: an error, no leak, and after a rebuild it works. */
TEST_P(CommContract, FailsCleanlyAtEveryPointAndIsBuiltAgain)
{
    mt::Ranks ranks(ops, n);
    std::vector<std::unique_ptr<mt::Buffer>> b;
    std::vector<stm_comm_call> calls;
    for (int r = 0; r < n; r++) {
        b.push_back(std::make_unique<mt::Buffer>(ranks, r, 64));
        b.back()->up();
        calls.push_back(mt::call_of(STM_COMM_ALL_REDUCE, r, 16, b.back()->device(), b.back()->device()));
    }
    /* the late points are those of waiting, which are all alike */
    for (int nth = 0;; nth += nth < 60 ? 1 : nth / 4) {
        ASSERT_LT(nth, 100000);
        const long before = mt::live();
        stm_comm *c = nullptr;
        mill_error err = {};
        mt::FailNth fail(nth, STM_FAULT_ALLOC | STM_FAULT_DEVICE);
        mill_status st = stm_comm_open(ops, ranks.streams(), n, 0, &c, &err);
        if (st == MILL_OK) st = stm_comm_wait(c, &err);
        if (st == MILL_OK) st = stm_comm_submit(c, calls.data(), n, &err);
        if (st == MILL_OK) st = stm_comm_wait(c, &err);
        const bool fired = fail.fired();
        EXPECT_EQ(st == MILL_OK, !fired) << nth << ": " << err.msg;
        if (fired) {
            EXPECT_STRNE(err.msg, "") << nth;
        }
        if (c != nullptr && fired) {
            mill_error again = {};
            EXPECT_EQ(stm_comm_state_of(c), STM_COMM_BROKEN) << nth;
            EXPECT_EQ(stm_comm_poll(c, &again), st) << nth << ": the first failure stays";
            again = {};
            EXPECT_EQ(stm_comm_rebuild(c, &again), MILL_OK) << nth << ": " << again.msg;
            EXPECT_EQ(stm_comm_wait(c, &again), MILL_OK) << nth << ": " << again.msg;
            run(c, calls);
        }
        stm_comm_close(&c);
        EXPECT_EQ(c, nullptr);
        ASSERT_EQ(mt::live(), before) << "leak when point " << nth << " fails";
        if (!fired) break;
    }
}

INSTANTIATE_TEST_SUITE_P(Ranks, CommContract, ::testing::Values(1, 2, 4));
