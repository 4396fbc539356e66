#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

extern "C" {
#include "placement/cpus.h"
#include "placement/limits.h"
}
#include "support/temp_dir.h"

namespace {

struct ListCase {
    const char *name, *text;
    bool ok;
    int32_t count;
    const char *shown; /* nullptr = as written */
};
const ListCase kLists[] = {
    {"one", "3", true, 1, nullptr},
    {"range", "0-3", true, 4, nullptr},
    {"several", "0-3,8,10-11", true, 7, nullptr},
    {"joined", "0-1,2-3", true, 4, "0-3"},
    {"any_order", "9,1", true, 2, "1,9"},
    {"spaces", " 1 , 2 ", true, 2, "1-2"},
    {"empty", "", true, 0, "none"},
    {"newline", "0-63\n", true, 64, "0-63"},
    {"word_border", "62-65", true, 4, nullptr},
    {"the_last", "4095", true, 1, nullptr},
    {"beyond", "4096", false, 0, nullptr},
    {"huge", "99999999999999999999", false, 0, nullptr},
    {"backwards", "3-1", false, 0, nullptr},
    {"open", "3-", false, 0, nullptr},
    {"comma", "3,", false, 0, nullptr},
    {"letter", "a", false, 0, nullptr},
    {"minus", "-1", false, 0, nullptr},
};

TEST(Cpus, Lists)
{
    for (const ListCase &c : kLists) {
        SCOPED_TRACE(c.name);
        stm_cpus s = {};
        char buf[64];

        stm_cpus_add(&s, 77); /* must not survive success, must survive failure */
        ASSERT_EQ(stm_cpus_parse(c.text, &s), c.ok);
        EXPECT_EQ(stm_cpus_count(&s), c.ok ? c.count : 1);
        if (c.ok) {
            EXPECT_STREQ(stm_cpus_show(&s, buf, sizeof buf), c.shown != nullptr ? c.shown : c.text);
        }
    }
}

TEST(Cpus, ShowIsCutNotOverrun)
{
    stm_cpus s = {};
    for (int i = 0; i < 200; i += 2) stm_cpus_add(&s, i);
    for (size_t size = 1; size < 40; size++) {
        char buf[41];
        memset(buf, 'x', sizeof buf);
        stm_cpus_show(&s, buf, size);
        EXPECT_LT(strnlen(buf, size), size);
        for (size_t i = size; i < sizeof buf; i++) EXPECT_EQ(buf[i], 'x') << size;
    }
}

TEST(Cpus, NextVisitsEach)
{
    stm_cpus s = {};
    const int32_t want[] = {0, 1, 63, 64, 65, 127, 128, 4095};
    size_t n = 0;

    for (int32_t c : want) stm_cpus_add(&s, c);
    stm_cpus_add(&s, -1);
    stm_cpus_add(&s, STM_CPUS_MAX);
    for (int32_t c = stm_cpus_next(&s, -1); c >= 0; c = stm_cpus_next(&s, c)) {
        ASSERT_LT(n, sizeof want / sizeof *want);
        EXPECT_EQ(c, want[n++]);
    }
    EXPECT_EQ(n, sizeof want / sizeof *want);
}

/* A root of the file system with control groups as the kernel shows them. */
class Root {
public:
    void write(const std::string &file, const std::string &text)
    {
        std::filesystem::create_directories(dir_.path() + file.substr(0, file.rfind('/')));
        std::ofstream(dir_.path() + file) << text;
    }
    const char *path() const { return dir_.path().c_str(); }

private:
    mt::TempDir dir_;
};

TEST(Limits, QuotaOfControlGroups)
{
    const struct {
        const char *name;
        std::vector<std::pair<const char *, const char *>> files;
        double want;
    } cases[] = {
        {"nothing", {}, 0},
        {"v2_none", {{"/proc/self/cgroup", "0::/a/b\n"}, {"/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"}}, 0},
        {"v2_own", {{"/proc/self/cgroup", "0::/a/b\n"}, {"/sys/fs/cgroup/a/b/cpu.max", "150000 100000\n"}}, 1.5},
        {"v2_above_is_stricter",
         {{"/proc/self/cgroup", "0::/a/b\n"},
          {"/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n"},
          {"/sys/fs/cgroup/a/cpu.max", "200000 100000\n"}},
         2},
        {"v2_container_sees_its_own_root",
         {{"/proc/self/cgroup", "0::/host/path\n"}, {"/sys/fs/cgroup/cpu.max", "50000 100000\n"}},
         0.5},
        {"v2_root", {{"/proc/self/cgroup", "0::/\n"}, {"/sys/fs/cgroup/cpu.max", "300000 100000\n"}}, 3},
        {"v1",
         {{"/proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/x\n0::/\n"},
          {"/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "250000\n"},
          {"/sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n"}},
         2.5},
        {"v1_none",
         {{"/proc/self/cgroup", "4:cpu:/x\n"},
          {"/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "-1\n"},
          {"/sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n"}},
         0},
        {"nonsense", {{"/proc/self/cgroup", "x\n::\n0::/a\n"}, {"/sys/fs/cgroup/a/cpu.max", "many few\n"}}, 0},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.name);
        Root root;
        for (const auto &f : c.files) root.write(f.first, f.second);
        EXPECT_DOUBLE_EQ(stm_cpu_quota(root.path()), c.want);
    }
}

TEST(Limits, CountIsOfTheMask)
{
    const stm_cpus allowed = stm_cpus_allowed();

    EXPECT_GE(stm_cpus_count(&allowed), 1);
    EXPECT_GE(stm_cpu_count(), 1);
    EXPECT_LE(stm_cpu_count(), stm_cpus_count(&allowed));
}

} // namespace
