/* What a run made goes, and what was there is as it was: names, contents, times, who may read and write it. */
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

extern "C" {
#include "store/footprint.h"
}
#include "support/temp_dir.h"

namespace {

namespace fs = std::filesystem;

class Footprint : public testing::Test {
protected:
    void write(const std::string &name, const std::string &text) const
    {
        fs::create_directories(fs::path(top + "/" + name).parent_path());
        std::ofstream(top + "/" + name) << text;
    }
    std::map<std::string, std::string> all() const
    {
        std::map<std::string, std::string> found;
        for (const auto &e : fs::recursive_directory_iterator(top)) {
            struct stat s = {};
            stat(e.path().c_str(), &s);
            std::ifstream in(e.path());
            found[e.path()] = e.is_directory() ? ""
                                               : std::string(std::istreambuf_iterator<char>(in), {}) +
                                                     std::to_string(s.st_mtim.tv_nsec) + ", " + std::to_string(s.st_mode);
        }
        return found;
    }
    stm_footprint *create() const
    {
        const std::string in = top + "/run/out.jsonl", away = top + "/a/b/far.jsonl", near = top + "/near.jsonl";
        const char *const outputs[] = {in.c_str(), away.c_str(), near.c_str()};
        mill_error err = {};
        stm_footprint *f = nullptr;
        EXPECT_EQ(stm_footprint_create((top + "/run").c_str(), outputs, 3, &f, &err), MILL_OK) << err.msg;
        return f;
    }
    void look(stm_footprint *f, uint64_t epoch) const
    {
        mill_error err = {};
        EXPECT_EQ(stm_footprint_look(f, epoch, &err), MILL_OK) << err.msg;
    }
    /* What a run makes until it has loaded. */
    void begin(const std::string &epoch) const
    {
        for (const char *name : {"run.json", "progress.json", "metrics.prom"}) {
            write("run/." + std::string(name) + ".tmp", "of this run");
            fs::rename(top + "/run/." + name + ".tmp", top + "/run/" + name);
        }
        std::ofstream(top + "/run/log.jsonl", std::ios::app) << "more\n";
        for (const std::string &name :
             {"run/journal." + epoch, "run/owner." + epoch, "run/errors." + epoch + ".seg",
              std::string("a/b/far.jsonl.r0123.1.tmp"), std::string("near-00000.jsonl.1.tmp"), "run/out.jsonl." + epoch + ".tmp"})
            write(name, "new");
    }
    mt::TempDir dir;
    std::string top{dir.path()};
};

TEST_F(Footprint, OfAFirstRunIsGone)
{
    write("in.jsonl", "1");
    const auto before = all();
    stm_footprint *f = create();
    fs::create_directories(top + "/run");
    look(f, 1);
    begin("1");
    stm_footprint_undo(f);
    EXPECT_EQ(all(), before);
    stm_footprint_undo(f);
    stm_footprint_destroy(&f);
}

TEST_F(Footprint, OfALaterRunLeavesTheEarlierOne)
{
    for (const char *name :
         {"run.json", "progress.json", "log.jsonl", "manifest.json", "journal.3", "rows.2.seg", "out.jsonl.3.tmp", "mine.txt"})
        write(std::string("run/") + name, "old");
    fs::permissions(top + "/run/manifest.json", fs::perms(0666)); /* more than the process gives a file that it makes */
    const auto before = all();
    stm_footprint *f = create();
    look(f, 4);
    fs::rename(top + "/run/out.jsonl.3.tmp", top + "/run/out.jsonl.4.tmp"); /* taken over */
    std::ofstream(top + "/run/log.jsonl", std::ios::app) << "more\n";
    for (const char *name : {"journal.4", "owner.4", "metrics.prom"}) write(std::string("run/") + name, "new");
    write("run/.manifest.json.tmp", "new");
    fs::rename(top + "/run/.manifest.json.tmp", top + "/run/manifest.json");
    fs::remove(top + "/run/progress.json");
    stm_footprint_undo(f);
    EXPECT_EQ(all(), before);
    stm_footprint_destroy(&f);
}

TEST_F(Footprint, StaysOnceRowsFlow)
{
    stm_footprint *f = create();
    fs::create_directories(top + "/run");
    look(f, 1);
    begin("1");
    stm_footprint_forget(f);
    const auto before = all();
    stm_footprint_undo(f);
    EXPECT_EQ(all(), before);
    stm_footprint_destroy(&f);
}

TEST_F(Footprint, OfSomebodyElseIsLeftAlone)
{
    stm_footprint *f = create();
    fs::create_directories(top + "/run");
    begin("1");
    const auto before = all();
    stm_footprint_undo(f); /* nobody looked: it was not ours */
    EXPECT_EQ(all(), before);
    stm_footprint_destroy(&f);
    f = create();
    look(f, 2);
    begin("2");
    write("run/journal.3", "of the next");
    const auto taken = all();
    stm_footprint_undo(f);
    EXPECT_EQ(all(), taken);
    stm_footprint_destroy(&f);
}

TEST_F(Footprint, OfFilesThatNobodyKnowsStay)
{
    stm_footprint *f = create();
    fs::create_directories(top + "/run");
    look(f, 1);
    begin("1");
    write("run/notes.txt", "a user's");
    write("near.jsonl.orig", "a user's");
    stm_footprint_undo(f);
    const auto left = all();
    EXPECT_EQ(left.size(), 3u);
    EXPECT_EQ(left.count(top + "/run/notes.txt") + left.count(top + "/near.jsonl.orig") + left.count(top + "/run"), 3u);
    stm_footprint_destroy(&f);
}

TEST_F(Footprint, IsHandedOn)
{
    write("in.jsonl", "1");
    const auto before = all();
    stm_footprint *f = create();
    char bytes[4096];
    EXPECT_EQ(stm_footprint_write(f, bytes, sizeof bytes), 0u) << "nobody has looked";
    fs::create_directories(top + "/run");
    look(f, 1);
    const size_t n = stm_footprint_write(f, bytes, sizeof bytes);
    ASSERT_GT(n, 0u);
    EXPECT_EQ(stm_footprint_write(f, bytes, n - 1), 0u);
    stm_footprint_write(f, bytes, sizeof bytes);
    stm_footprint_destroy(&f);
    for (size_t i = 0; i < n; i++) { /* of a process that was writing when it died */
        stm_footprint *cut = stm_footprint_read(bytes, i);
        EXPECT_EQ(cut, nullptr) << i;
        stm_footprint_destroy(&cut);
    }
    begin("1");
    f = stm_footprint_read(bytes, n);
    ASSERT_NE(f, nullptr);
    stm_footprint_undo(f);
    EXPECT_EQ(all(), before);
    stm_footprint_destroy(&f);
}

TEST_F(Footprint, NamesThatBeginWithBlanksAreHandedOn)
{
    const std::string out = top + "/away/ far.jsonl";
    const char *const outputs[] = {out.c_str()};
    write("away/ far.jsonl.9.tmp", "of an earlier run");
    const auto before = all();
    mill_error err = {};
    stm_footprint *f = nullptr;
    ASSERT_EQ(stm_footprint_create((top + "/run").c_str(), outputs, 1, &f, &err), MILL_OK) << err.msg;
    fs::create_directories(top + "/run");
    look(f, 1);
    char bytes[4096];
    const size_t n = stm_footprint_write(f, bytes, sizeof bytes);
    stm_footprint_destroy(&f);
    write("away/ far.jsonl.1.tmp", "new");
    f = stm_footprint_read(bytes, n);
    ASSERT_NE(f, nullptr);
    stm_footprint_undo(f);
    EXPECT_EQ(all(), before);
    stm_footprint_destroy(&f);
}

TEST_F(Footprint, OfARunThatWasThereIsNotHandedOn)
{
    write("run/run.json", "old");
    stm_footprint *f = create();
    look(f, 1);
    char bytes[4096];
    EXPECT_EQ(stm_footprint_write(f, bytes, sizeof bytes), 0u);
    stm_footprint_destroy(&f);
}

} // namespace
