/* Which form of products a device's searches take: by its answer to the known question, and by STEPMILL_TILES. */
#include "device/backend.h"

extern "C" {
#include "core/log.h"
#include "search/form.h"
}

namespace {

/* What the device answers in a test. */
mill_status answer;
int32_t wrong, asked;
const int32_t kRight = 2 * STM_TILES_ROWS * STM_TILES_COLUMNS;

mill_status tiles(stm_tiles_answer *a, void *)
{
    asked++;
    if (a == nullptr) return answer == MILL_ERR_UNSUPPORTED ? answer : MILL_OK;
    a->wrong = wrong; /* cpu: device memory is the host's */
    a->right = kRight - wrong;
    return answer;
}

class Form : public ::testing::Test {
protected:
    void SetUp() override
    {
        answer = MILL_OK, wrong = asked = 0;
        unsetenv("STEPMILL_TILES");
        stm_log_set([](stm_level, const char *, const char *line, void *user) { static_cast<std::string *>(user)->append(line); },
                    &log, STM_INFO);
    }
    void TearDown() override
    {
        unsetenv("STEPMILL_TILES");
        stm_log_set(nullptr, nullptr, STM_INFO);
    }
    mill_status choose(stm_tiles *out)
    {
        stm_kernels fake = stm_kernels_cpu;
        alignas(8) int32_t counts[2] = {-1, -1};
        fake.tiles = tiles;
        err = {};
        return stm_form_choose(stream, &fake, counts, out, &err);
    }

    mt::Device dev{&stm_device_cpu};
    mt::Stream stream{dev};
    mill_error err = {};
    std::string log;
};

} // namespace

TEST_F(Form, ByTheAnswer)
{
    stm_tiles got = STM_TILES_MMA;
    EXPECT_EQ(choose(&got), MILL_OK) << err.msg;
    EXPECT_EQ(got, STM_TILES_WGMMA);
    EXPECT_EQ(log, "");
    wrong = 3;
    EXPECT_EQ(choose(&got), MILL_OK) << err.msg;
    EXPECT_EQ(got, STM_TILES_MMA);
    EXPECT_NE(log.find("gave 3 wrong scores"), std::string::npos) << log;
}

TEST_F(Form, OfADeviceThatIsNotForIt)
{
    stm_tiles got = STM_TILES_WGMMA;
    answer = MILL_ERR_UNSUPPORTED;
    EXPECT_EQ(choose(&got), MILL_OK) << err.msg;
    EXPECT_EQ(got, STM_TILES_MMA);
    EXPECT_EQ(log, "");
    got = STM_TILES_WGMMA;
    EXPECT_EQ(stm_form_choose(stream, &stm_kernels_cpu, &got, &got, &err), MILL_OK) << err.msg;
    EXPECT_EQ(got, STM_TILES_MMA);
}

TEST_F(Form, ByTheEnvironment)
{
    stm_tiles got = STM_TILES_WGMMA;
    setenv("STEPMILL_TILES", "mma", 1);
    EXPECT_EQ(choose(&got), MILL_OK);
    EXPECT_EQ(got, STM_TILES_MMA);
    EXPECT_EQ(asked, 0);
    setenv("STEPMILL_TILES", "wgmma", 1);
    EXPECT_EQ(choose(&got), MILL_OK);
    EXPECT_EQ(got, STM_TILES_WGMMA);
    wrong = 1;
    EXPECT_EQ(choose(&got), MILL_ERR_UNSUPPORTED);
    EXPECT_NE(std::string(err.msg).find("1 wrong scores"), std::string::npos) << err.msg;
    answer = MILL_ERR_UNSUPPORTED;
    EXPECT_EQ(choose(&got), MILL_ERR_UNSUPPORTED);
    EXPECT_NE(std::string(err.msg).find("compute capability 9.0"), std::string::npos) << err.msg;
    setenv("STEPMILL_TILES", "hmma", 1);
    EXPECT_EQ(choose(&got), MILL_ERR_INVALID);
    EXPECT_NE(std::string(err.msg).find("`hmma`"), std::string::npos) << err.msg;
}

TEST_F(Form, WhatFailsIsNoAnswer)
{
    stm_tiles got = STM_TILES_WGMMA;
    answer = MILL_ERR_DEVICE_MEM;
    EXPECT_EQ(choose(&got), MILL_OK) << err.msg;
    EXPECT_EQ(got, STM_TILES_MMA);
    EXPECT_STREQ(err.msg, "");
    EXPECT_NE(log.find("no memory to check"), std::string::npos) << log;
    answer = MILL_ERR_STEP;
    EXPECT_EQ(choose(&got), MILL_ERR_STEP);
    EXPECT_NE(std::string(err.msg).find("cpu device 0"), std::string::npos) << err.msg;
}
