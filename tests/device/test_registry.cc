/* Finding modules and the libraries that they need, and saying why not. */
#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/fail_nth.h"
#include "support/temp_dir.h"

extern "C" {
#include "device/library.h"
#include "device/registry.h"
}

namespace {

struct Env {
    Env(const char *name, const std::string &value) : name_(name)
    {
        const char *old = getenv(name);
        had_ = old != nullptr;
        old_ = had_ ? old : "";
        setenv(name, value.c_str(), 1);
    }
    ~Env() { had_ ? setenv(name_, old_.c_str(), 1) : unsetenv(name_); }
    const char *name_;
    std::string old_;
    bool had_;
};

} // namespace

TEST(Registry, CpuIsAlwaysThere)
{
    const stm_device_ops *ops = nullptr;
    mill_error err = {};
    ASSERT_EQ(stm_backend_find("cpu", &ops, &err), MILL_OK);
    EXPECT_EQ(ops, &stm_device_cpu);
    stm_backend_report r;
    stm_backend_explain("cpu", &r);
    EXPECT_EQ(r.devices, 1);
    EXPECT_STREQ(r.reason, "");
}

TEST(Registry, UnknownNames)
{
    const stm_device_ops *ops = nullptr;
    mill_error err = {};
    EXPECT_EQ(stm_backend_find("tpu", &ops, &err), MILL_ERR_NOT_FOUND);
    EXPECT_NE(strstr(err.msg, "tpu"), nullptr);
    EXPECT_EQ(ops, nullptr);
}

TEST(Registry, CudaIsUsableOrSaysWhyNot)
{
    stm_backend_report r;
    stm_backend_explain("cuda", &r);
    EXPECT_EQ(r.devices == 0, r.reason[0] != '\0') << r.reason;
    if (r.ops != nullptr) {
        EXPECT_STRNE(r.module, "");
        EXPECT_NE(strstr(r.libraries, "libcudart"), nullptr) << r.libraries;
    }
}

TEST(Library, ANameThatIsNowhere)
{
    void *handle = nullptr;
    mill_error err = {};
    EXPECT_EQ(stm_library_open("libcudart.so.99", nullptr, &handle, nullptr, 0, &err), MILL_ERR_UNSUPPORTED);
    EXPECT_EQ(handle, nullptr);
    EXPECT_NE(strstr(err.msg, "libcudart.so.99"), nullptr);
    EXPECT_NE(strstr(err.remedy, "nvidia-cuda-runtime"), nullptr) << err.remedy;
}

TEST(Library, AFileThatIsNoLibrary)
{
    const mt::TempDir temp;
    const std::string &dir = temp.path();
    std::ofstream(dir + "/libnccl.so.2") << "not a library";
    Env asked("STEPMILL_CUDA_LIBRARIES", "/nowhere:" + dir);
    void *handle = nullptr;
    mill_error err = {};
    char where[512] = "";
    /* the machine may have a good one elsewhere; the bad one is told only when there is none */
    if (stm_library_open("libnccl.so.2", nullptr, &handle, where, sizeof where, &err) == MILL_OK) {
        EXPECT_NE(std::string(where), dir + "/libnccl.so.2");
    } else {
        EXPECT_NE(strstr(err.msg, dir.c_str()), nullptr) << err.msg;
    }
}

/* A library is found in a wheel's folder of the environment that is active, and of those that a checkout has: libz, put there under
 * a name that exists nowhere else. */
TEST(Library, InAPythonEnvironment)
{
    const struct {
        const char *environment, *inside;
    } places[] = {{"", "nvidia/cu13/lib"},
                  {"", "nvidia/cuda_runtime/lib"},
                  {"/.venv", "nvidia/cu13/lib"},
                  {"/.venv-cuda", "nvidia/cu13/lib"}};
    const std::filesystem::path before = std::filesystem::current_path();
    std::deque<mt::TempDir> all; /* removed at the end: the loader knows a library by its inode */
    for (const auto &p : places) {
        const std::string dir = all.emplace_back().path(), environment = dir + p.environment,
                          place = environment + "/lib/python3.11/site-packages/" + p.inside;
        ASSERT_EQ(system(("mkdir -p " + place + " && cp $(ldconfig -p | sed -n 's/.*libz\\.so\\.1 .*=> //p' | head -n 1) " + place +
                          "/libcudart.so.98")
                             .c_str()),
                  0);
        Env active("VIRTUAL_ENV", p.environment[0] == '\0' ? dir : "");
        if (p.environment[0] != '\0') std::filesystem::current_path(dir);
        void *handle = nullptr;
        char where[512] = "";
        mill_error err = {};
        EXPECT_EQ(stm_library_open("libcudart.so.98", nullptr, &handle, where, sizeof where, &err), MILL_OK) << err.msg;
        std::error_code none;
        EXPECT_TRUE(std::filesystem::equivalent(where, place + "/libcudart.so.98", none)) << where;
        std::filesystem::current_path(before);
    }
}

TEST(Module, NotThere)
{
    Env asked("STEPMILL_MODULES", "/nowhere");
    char path[512];
    mill_error err = {};
    EXPECT_EQ(stm_module_find("libstepmill-nothing.so", path, sizeof path, &err), MILL_ERR_NOT_FOUND);
    EXPECT_NE(strstr(err.msg, "libstepmill-nothing.so"), nullptr);
}

/* Damaged modules are refused with a reason and never read past their end. */
TEST(Module, DamagedFiles)
{
    const mt::TempDir temp;
    const std::string &dir = temp.path();
    std::ifstream self("/proc/self/exe", std::ios::binary);
    std::string whole((std::istreambuf_iterator<char>(self)), {});
    if (whole.size() > 1 << 16) whole.resize(1 << 16);
    for (size_t keep : {(size_t)0, (size_t)1, (size_t)63, (size_t)64, (size_t)200, (size_t)4096, whole.size()}) {
        const std::string path = dir + "/libstepmill-cut.so";
        std::ofstream(path, std::ios::binary) << whole.substr(0, keep);
        void *handle = nullptr;
        mill_error err = {};
        EXPECT_NE(stm_module_open(path.c_str(), &handle, nullptr, 0, &err), MILL_OK) << keep;
        EXPECT_EQ(handle, nullptr);
        EXPECT_STRNE(err.msg, "") << keep;
    }
}
