/* Which folders may be run directories: what of them is looked at, and what is said. */
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "support/chain.h"

extern "C" {
#include "pipeline/rundir.h"
}

namespace {

const std::string kJournal("SMJ1\1\0\0\0", 8);
const std::string kNumbers = "{\"format\":1,\"name\":\"t\",\"state\":\"done\",\"steps\":[]}";
const std::string kFacts = "{\"format\":1,\"name\":\"t\",\"run\":\"/x/runs/t\",\"steps\":[]}";

const struct Case {
    const char *name;
    std::vector<std::pair<std::string, std::string>> files; /* a name that ends in '/' is a folder */
    const char *holds;                                      /* what is said to be in it; "" = it may be taken */
} kCases[] = {
    {"empty", {}, ""},
    {"a run with outputs", {{"journal.3", kJournal}, {"owner.3", ""}, {"out.jsonl", "{}\n"}, {"thesis.txt", "x"}}, ""},
    {"of another version", {{"journal.1", "SMJ9\1"}, {"out.jsonl", "{}\n"}}, ""},
    {"numbers only, as before there were journals", {{"progress.json", kNumbers}, {"out.jsonl", "{}\n"}}, ""},
    {"facts only", {{"run.json", kFacts}, {"out.jsonl", "{}\n"}}, ""},
    {"killed before its first record", {{"owner.1", ""}, {"journal.1", ""}, {".spill.a1b2c3", ""}}, ""},
    {"killed by a power cut", {{"owner.1", ""}, {"journal.1", std::string(64, '\0')}}, ""},
    {"killed while it wrote", {{"owner.2", ""}, {".progress.json.tmp", "{\"for"}}, ""},
    {"a file system of its own", {{"lost+found/", ""}, {".nfs0001", ""}}, ""},
    {"shards that have begun", {{"shard-1-of-2/", ""}, {"shard-1-of-2/owner.1", ""}}, ""},
    {"shards and files of others", {{"shard-1-of-2/", ""}, {"shard-1-of-2/journal.1", kJournal}, {"job.log", "x"}}, ""},
    {"a file of others", {{"thesis.txt", "x"}}, "thesis.txt"},
    {"files of others", {{"d", ""}, {"b", ""}, {"a", ""}, {"c", ""}, {"e", ""}}, "a, b, c and 2 more"},
    {"three files of others", {{"c/", ""}, {"a", ""}, {".b", ""}}, ".b, a and c"},
    {"a site", {{"manifest.json", "{}"}, {"report.html", "<p>"}, {"log.jsonl", "{}\n"}},
     "log.jsonl, manifest.json and report.html"},
    {"a diary", {{"journal.1", "Dear diary"}}, "journal.1"},
    {"numbers of others", {{"progress.json", "{\"percent\": 12}"}, {"run.json", "{\"steps\": []}"}}, "progress.json and run.json"},
    {"a folder named as a shard", {{"shard-1-of-2/", ""}, {"shard-1-of-2/part.csv", "x"}, {"readme", "x"}}, "readme"},
    {"what is being written by others", {{".other.json.tmp", ""}}, ".other.json.tmp"},
    {"pipes", {{"progress.json|", ""}, {"journal.1|", ""}}, "journal.1 and progress.json"},
};

} // namespace

TEST(RunDirectory, AFolderOfOthersIsNone)
{
    for (const Case &c : kCases) {
        SCOPED_TRACE(c.name);
        mt::Folder f;
        mill_error err = {};
        for (const auto &[name, text] : c.files) {
            if (name.back() == '/') ASSERT_EQ(mkdir((f.path + "/" + name).c_str(), 0777), 0);
            else if (name.back() == '|') ASSERT_EQ(mkfifo((f.path + "/" + name.substr(0, name.size() - 1)).c_str(), 0666), 0);
            else f.put(name, text);
        }
        EXPECT_EQ(stm_rundir_check(f.path.c_str(), nullptr, &err), c.holds[0] == '\0' ? MILL_OK : MILL_ERR_INVALID) << err.msg;
        if (c.holds[0] == '\0') continue;
        EXPECT_EQ(std::string(err.msg), f.path + " is not the directory of a run, and not empty: it holds " + c.holds);
        EXPECT_STRNE(err.remedy, "");
    }
}

/* A trace that was asked for stays where the run could not load. */
TEST(RunDirectory, MayHoldTheTrace)
{
    mt::Folder f;
    mill_error err = {};
    const std::string trace = f.put("trace.json", "[");
    EXPECT_EQ(stm_rundir_check(f.path.c_str(), trace.c_str(), &err), MILL_OK) << err.msg;
    EXPECT_EQ(stm_rundir_check(f.path.c_str(), (f.path + "/other.json").c_str(), &err), MILL_ERR_INVALID);
}

TEST(RunDirectory, IsAFolderOrNotThere)
{
    mt::Folder f;
    mill_error err = {};
    EXPECT_EQ(stm_rundir_check((f.path + "/a/b").c_str(), nullptr, &err), MILL_OK);
    const std::string file = f.put("file", "x");
    EXPECT_EQ(stm_rundir_check(file.c_str(), nullptr, &err), MILL_ERR_INVALID);
    EXPECT_EQ(std::string(err.msg), "the run directory " + file + " is a file, not a folder");
}
