/* manifest.json: what a file of an output costs, that readers see all of them at any time, and what is found after a power cut or a
 * failure. */
#include <gtest/gtest.h>

#include <set>

#include "disk.h"
#include "support/sanitized.h"

extern "C" {
#include "store/manifest.h"
}

using namespace mt;

namespace {

const char *const kSteps[] = {"out", "aside \"quoted\""};

std::string name_of(int i) { return "out-" + std::to_string(100000 + i) + ".jsonl"; }

struct Manifest {
    stm_files files; /* outlives it */
    stm_manifest *p = nullptr;
    Manifest(Disk &d, uint64_t epoch) : files(d.files())
    {
        mill_error err = {};
        EXPECT_EQ(stm_manifest_open(&files, "/nowhere/run", epoch, &p, &err), MILL_OK) << err.msg;
    }
    Manifest(const Manifest &) = delete;
    Manifest &operator=(const Manifest &) = delete;
    ~Manifest() { stm_manifest_close(&p); }
    mill_status begin(bool fresh, mill_error *err)
    {
        mill_status st = MILL_OK;
        for (const char *s : kSteps)
            if (st == MILL_OK) st = stm_manifest_begin(p, s, false, err);
        for (const char *s : kSteps)
            if (st == MILL_OK && fresh) st = stm_manifest_begin(p, s, true, err);
        return st;
    }
    mill_status tell(int i, mill_error *err)
    {
        const std::string path = "/nowhere/run/" + name_of(i);
        const mill_part part = {sizeof part, path.c_str(), i, static_cast<uint64_t>(i) * 10 + 1,
                                static_cast<uint32_t>(i) * 2654435761u};
        return stm_manifest_part(p, kSteps[i % 2], &part, err);
    }
    mill_status complete(mill_error *err)
    {
        mill_status st = MILL_OK;
        for (const char *s : kSteps)
            if (st == MILL_OK) st = stm_manifest_complete(p, s, err);
        return st;
    }
};

/* Paths of parts in whole lines of @p text. */
void add_paths(const std::string &text, std::set<std::string> *to)
{
    for (size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
        const std::string line = text.substr(at, end - at);
        const size_t path = line.find("\"path\":\"");
        if (path != std::string::npos && line.find("\"crc32\":\"") != std::string::npos)
            to->insert(line.substr(path + 8, line.find('"', path + 8) - path - 8));
    }
}

/* What somebody reads there who was told how: docs/durable-runs.md. */
std::set<std::string> listed(Disk &d)
{
    std::set<std::string> paths;
    if (d.names.count("manifest.json") == 0) return paths;
    const std::string list = d.contents("manifest.json");
    const size_t more = list.find("\"more\":\"");
    add_paths(list, &paths);
    if (more == std::string::npos) return paths;
    const std::string log = list.substr(more + 8, list.find('"', more + 8) - more - 8);
    if (d.names.count(log) != 0) add_paths(d.contents(log), &paths);
    return paths;
}

struct Cost {
    int64_t bytes = 0, syncs = 0;
};
Cost cost_of(const Disk &d, size_t from)
{
    Cost c;
    for (size_t i = from; i < d.log.size(); i++) {
        c.bytes += static_cast<int64_t>(d.log[i].data.size()) * (d.log[i].kind == Disk::Op::Write);
        c.syncs += d.log[i].kind == Disk::Op::Sync || d.log[i].kind == Disk::Op::SyncNames;
    }
    return c;
}

} // namespace

TEST(Manifest, APartCostsTheSameHoweverManyThereAre)
{
    Disk disk;
    mill_error err = {};
    Manifest m(disk, 1);
    ASSERT_EQ(m.begin(true, &err), MILL_OK) << err.msg;
    std::vector<size_t> at;
    for (int i = 0; i < 4096; i++) {
        if (i % 1024 == 0) at.push_back(disk.log.size());
        ASSERT_EQ(m.tell(i, &err), MILL_OK) << err.msg;
        if (i % 64 == 63) { /* a commit */
            ASSERT_EQ(stm_manifest_sync(m.p, &err), MILL_OK) << err.msg;
            ASSERT_EQ(stm_manifest_sync(m.p, &err), MILL_OK) << err.msg;
        }
    }
    const Cost all = cost_of(disk, at[0]), half = cost_of(disk, at[2]);
    printf("4,096 parts, 64 commits: %.0f bytes and %.3f syncs a part; of the second half %.0f and %.3f\n", all.bytes / 4096.0,
           all.syncs / 4096.0, half.bytes / 2048.0, half.syncs / 2048.0);
    EXPECT_LE(all.bytes, 4096 * 400) << "a line, and twice that for all the lists"; /* lines of 100 bytes */
    EXPECT_LE(all.syncs, 64 * 2 + 13 * 3) << "one or two a commit, and three for each doubling";
    EXPECT_LE(half.syncs, 32 * 2 + 2 * 3);
    ASSERT_EQ(m.complete(&err), MILL_OK) << err.msg;
    EXPECT_EQ(listed(disk).size(), 4096u);
    for (const auto &n : disk.names) EXPECT_EQ(n.first, "manifest.json") << "nothing lies beside it";
    EXPECT_EQ(disk.contents("manifest.json").find("\"more\""), std::string::npos);
}

TEST(Manifest, ReadersSeeEveryPartAtOnceAlsoOfARunThatWasKilled)
{
    Disk disk;
    mill_error err = {};
    int n = 0;
    for (uint64_t epoch = 1; epoch <= 8; epoch++) {
        auto m = std::make_unique<Manifest>(disk, epoch);
        ASSERT_EQ(m->begin(epoch == 1, &err), MILL_OK) << err.msg;
        for (int i = 0; i < 7; i++) {
            ASSERT_EQ(m->tell(n++, &err), MILL_OK) << err.msg;
            ASSERT_EQ(listed(disk).size(), static_cast<size_t>(n));
        }
        if (epoch % 2 == 0) continue; /* closed */
        /* killed: what was written is there, nothing else is */
        const auto now = Disk::cut(disk.log, disk.log.size(), Cut::Kept, 1);
        m.reset();
        disk = *now;
        EXPECT_EQ(listed(disk).size(), static_cast<size_t>(n));
    }
    {
        Manifest m(disk, 9);
        ASSERT_GE(m.files.open(m.files.user, "manifest.log.9.0", STM_OPEN_NEW),
                  0); /* somebody's who was here before and left nothing else */
        ASSERT_EQ(m.begin(false, &err), MILL_OK);
        for (int i = 0; i < 2; i++) ASSERT_EQ(m.tell(n++, &err), MILL_OK) << err.msg;
        ASSERT_EQ(listed(disk).size(), static_cast<size_t>(n));
        ASSERT_EQ(m.tell(3, &err), MILL_OK) << "one that was there is replaced";
        ASSERT_EQ(m.complete(&err), MILL_OK);
    }
    EXPECT_EQ(listed(disk).size(), static_cast<size_t>(n));
    for (const auto &name : disk.names) EXPECT_EQ(name.first, "manifest.json");
}

namespace {

constexpr int kParts = 40;
const std::set<int> kCommits = {3, 9, 17, 18, 30}, kOpened = {11, 25};

struct Played {
    std::vector<Disk::Op> log;
    std::vector<int> told, synced; /* by number of recorded changes */
};

Played play()
{
    Played p;
    Disk disk;
    mill_error err = {};
    uint64_t epoch = 1;
    int told = 0, synced = 0;
    auto note = [&] {
        p.told.resize(disk.log.size() + 1, told);
        p.synced.resize(disk.log.size() + 1, synced);
    };
    auto m = std::make_unique<Manifest>(disk, epoch);
    EXPECT_EQ(m->begin(true, &err), MILL_OK);
    note();
    for (int i = 0; i < kParts; i++) {
        if (kOpened.count(i) != 0) {
            m = std::make_unique<Manifest>(disk, ++epoch);
            EXPECT_EQ(m->begin(false, &err), MILL_OK);
            note();
        }
        told = i + 1;
        EXPECT_EQ(m->tell(i, &err), MILL_OK) << err.msg;
        note();
        if (kCommits.count(i) == 0) continue;
        EXPECT_EQ(stm_manifest_sync(m->p, &err), MILL_OK);
        p.told.resize(disk.log.size(), told);
        p.synced.resize(disk.log.size(), synced);
        synced = told;
        note();
    }
    EXPECT_EQ(m->complete(&err), MILL_OK);
    p.told.resize(disk.log.size() + 1, told);
    p.synced.resize(disk.log.size(), synced);
    p.synced.push_back(told);
    p.log = disk.log;
    return p;
}

/* From @p first on all parts come again, as after a commit that stood there; what is listed in the end is what an undisturbed run
 * lists. */
void finish(Disk &disk, int first)
{
    mill_error err = {};
    {
        Manifest m(disk, 50);
        ASSERT_EQ(m.begin(first == 0, &err), MILL_OK) << err.msg;
        for (int i = first; i < kParts; i++) ASSERT_EQ(m.tell(i, &err), MILL_OK) << err.msg;
        ASSERT_EQ(m.complete(&err), MILL_OK) << err.msg;
    }
    std::set<std::string> all;
    for (int i = 0; i < kParts; i++) all.insert(name_of(i));
    ASSERT_EQ(listed(disk), all);
    for (const auto &name : disk.names) ASSERT_EQ(name.first.rfind("manifest.log.", 0), std::string::npos) << name.first;
}

} // namespace

TEST(Manifest, WhatACommitCountsOnOutlastsAPowerCut)
{
    const Played p = play();
    int cuts = 0;
    for (size_t n = 0; n <= p.log.size(); n += rounds<size_t>(1, 3))
        for (uint32_t way = 0; way < 4; way++) {
            const auto disk = Disk::cut(p.log, n,
                                        way == 0   ? Cut::Dropped
                                        : way == 1 ? Cut::Kept
                                                   : Cut::Torn,
                                        static_cast<uint32_t>(n) * 4 + way);
            SCOPED_TRACE("cut after change " + std::to_string(n) + ", way " + std::to_string(way));
            const std::set<std::string> found = listed(*disk);
            for (int i = 0; i < p.synced[n]; i++) ASSERT_EQ(found.count(name_of(i)), 1u) << "part " << i << " is lost";
            finish(*disk, p.synced[n]);
            if (testing::Test::HasFatalFailure()) return;
            cuts++;
        }
    printf("%d power cuts\n", cuts);
    EXPECT_GE(p.log.size(), 80u);
}

TEST(Manifest, FailuresOfTheDiskAreToldAndNothingIsLost)
{
    for (int on = 0; on < 2; on++) /* one call fails; all fail from there on, and then the next process finds the disk mended */
        for (int64_t k = 0;; k++) {
            Disk disk;
            mill_error err = {};
            int done = 0;
            bool failed = false;
            SCOPED_TRACE("call " + std::to_string(k) + (on != 0 ? " and all behind it" : ""));
            {
                Manifest m(disk, 1);
                ASSERT_EQ(m.begin(true, &err), MILL_OK) << err.msg;
                disk.ops = 0;
                disk.fail_at = k;
                disk.fail_on = on != 0;
                for (int i = 0; i < kParts && !failed; i++) {
                    failed = m.tell(i, &err) != MILL_OK;
                    if (!failed && i % 8 == 7) failed = stm_manifest_sync(m.p, &err) != MILL_OK;
                    if (!failed && i % 8 == 7) done = i + 1;
                }
                if (failed) {
                    EXPECT_STRNE(err.msg, "");
                }
                for (int i = failed && on == 0 ? done : kParts; i < kParts; i++)
                    ASSERT_EQ(m.tell(i, &err), MILL_OK) << "others may come all the same: " << err.msg;
            }
            const bool reached = disk.ops > k;
            disk.fail_at = -1;
            for (int i = 0; i < done; i++) ASSERT_EQ(listed(disk).count(name_of(i)), 1u) << i;
            finish(disk, done);
            if (testing::Test::HasFatalFailure() || !reached) {
                printf("%lld calls\n", static_cast<long long>(k));
                break;
            }
        }
}
