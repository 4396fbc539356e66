/* The power goes after every single change that a run of a hundred commits made on the disk. */
#include "script.h"
#include "support/sanitized.h"

using namespace mt;

namespace {

struct Played {
    std::vector<Disk::Op> log;
    std::vector<int> tried, acked; /* by number of recorded changes: commits begun, commits that had returned */
};

/* @p commits commits, the run directory opened again before every commit of @p reopen. */
Played play(int commits, const std::vector<int> &reopen)
{
    Played p;
    Disk disk;
    int tried = 0, acked = 0;
    auto note = [&] {
        p.tried.resize(disk.log.size() + 1, tried);
        p.acked.resize(disk.log.size() + 1, acked);
    };
    auto v = std::make_unique<Vault>();
    mill_error err = {};
    uint64_t nonce = 1000;
    EXPECT_EQ(open_vault(disk.files(), v.get(), &err, nonce++), MILL_OK);
    EXPECT_EQ(begin(*v, &err), MILL_OK) << err.msg;
    note();
    for (int c = 1; c <= commits; c++) {
        for (int r : reopen)
            if (r == c) {
                v = std::make_unique<Vault>();
                EXPECT_EQ(open_vault(disk.files(), v.get(), &err, nonce++), MILL_OK) << err.msg;
                EXPECT_EQ(commit_of(*v), c - 1);
                EXPECT_EQ(begin(*v, &err), MILL_OK) << err.msg;
                note();
            }
        EXPECT_EQ(append(*v, c, &err), MILL_OK) << err.msg;
        note();
        tried = c;
        EXPECT_EQ(stm_vault_commit(*v, &err), MILL_OK) << err.msg;
        p.tried.resize(disk.log.size(), tried); /* a cut behind the last change is after the return */
        p.acked.resize(disk.log.size(), acked);
        acked = c;
        note();
    }
    p.log = disk.log;
    return p;
}

} // namespace

TEST(PowerCut, EveryPointOfAHundredCommits)
{
    const Played p = play(100, {20, 50, 51, 90});
    const std::pair<Cut,
    const char *> ways[] = {{Cut::Dropped, "dropped"}, {Cut::Kept, "kept"}, {Cut::Torn, "torn"}, {Cut::Torn, "torn again"}};
    int64_t cuts = 0, partial = 0;
    ASSERT_GE(p.log.size(), 300u);
    for (size_t n = 0; n <= p.log.size(); n += mt::rounds<size_t>(1, 5)) /* each fifth under a sanitizer */
        for (const auto &way : ways) {
            const auto disk = Disk::cut(p.log, n, way.first, static_cast<uint32_t>(n * 4) + static_cast<uint32_t>(&way - ways));
            SCOPED_TRACE("cut after change " + std::to_string(n) + ", unsynced " + way.second);
            Vault v;
            mill_error err = {};
            ASSERT_EQ(open_vault(disk->files(), &v, &err, 5000), MILL_OK) << err.msg;
            const int c = commit_of(v);
            ASSERT_GE(c, p.acked[n]) << "a commit that had returned is lost";
            ASSERT_LE(c, p.tried[n]);
            ASSERT_EQ(read_back(v, c, &err), MILL_OK) << err.msg;
            partial += c > 0 && c < 100;
            cuts++;
            if (n % 7 != 0) continue; /* and it goes on from there */
            ASSERT_EQ(begin(v, &err), MILL_OK) << err.msg;
            ASSERT_EQ(append(v, c + 1, &err), MILL_OK) << err.msg;
            ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK) << err.msg;
            ASSERT_EQ(read_back(v, c + 1, &err), MILL_OK) << err.msg;
            Vault again;
            ASSERT_EQ(open_vault(disk->files(), &again, &err, 5001), MILL_OK) << err.msg;
            ASSERT_EQ(commit_of(again), c + 1);
            ASSERT_EQ(read_back(again, c + 1, &err), MILL_OK) << err.msg;
            if (testing::Test::HasFailure()) return;
        }
    printf("%zu points, %lld cuts recovered, %lld of them in the middle\n", p.log.size(), static_cast<long long>(cuts),
           static_cast<long long>(partial));
}

TEST(PowerCut, CutsWhileRecoveringFromACut)
{
    const Played p = play(6, {4});
    int64_t cuts = 0;
    for (size_t n = 0; n <= p.log.size(); n++) {
        const auto first = Disk::cut(p.log, n, Cut::Torn, static_cast<uint32_t>(n));
        mill_error err = {};
        int before = 0;
        std::vector<Disk::Op> log;
        for (const auto &file : first->names) { /* what is there when the machine comes up is on the disk */
            log.push_back({Disk::Op::Create, file.second, 0, file.first, ""});
            log.push_back({Disk::Op::Write, file.second, 0, first->contents(file.first), ""});
            log.push_back({Disk::Op::Sync, file.second, 0, "", ""});
        }
        log.push_back({Disk::Op::SyncNames, -1, 0, "", ""});
        const size_t settled = log.size();
        {
            Vault v;
            ASSERT_EQ(open_vault(first->files(), &v, &err, 6000), MILL_OK) << err.msg;
            before = commit_of(v);
            ASSERT_EQ(begin(v, &err), MILL_OK) << err.msg;
            ASSERT_EQ(append(v, before + 1, &err), MILL_OK);
            ASSERT_EQ(stm_vault_commit(v, &err), MILL_OK) << err.msg;
        }
        log.insert(log.end(), first->log.begin(), first->log.end());
        for (size_t k = settled; k <= log.size(); k++) {
            const auto second = Disk::cut(log, k, k % 2 == 0 ? Cut::Torn : Cut::Dropped, static_cast<uint32_t>(k));
            SCOPED_TRACE("cut after " + std::to_string(n) + ", then after " + std::to_string(k - settled));
            Vault v;
            ASSERT_EQ(open_vault(second->files(), &v, &err, 7000), MILL_OK) << err.msg;
            const int c = commit_of(v);
            ASSERT_GE(c, before);
            ASSERT_LE(c, before + 1);
            if (k == log.size()) {
                ASSERT_EQ(c, before + 1);
            }
            ASSERT_EQ(read_back(v, c, &err), MILL_OK) << err.msg;
            cuts++;
        }
    }
    printf("%lld cuts behind cuts\n", static_cast<long long>(cuts));
}
