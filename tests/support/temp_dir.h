/* A folder for a test. */
#pragma once
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace mt {

/** A folder that goes with the object, and everything in it: below TMPDIR, else /tmp. */
class TempDir {
public:
    /** @p in_memory: where syncing costs nothing, if there is such a place; for hundreds of runs. */
    explicit TempDir(bool in_memory = false)
    {
        std::string fast = "/dev/shm/stepmill-test-XXXXXX", name = std::filesystem::temp_directory_path() / "stepmill-test-XXXXXX";
        if (in_memory && mkdtemp(fast.data()) != nullptr) path_ = fast;
        else if (mkdtemp(name.data()) != nullptr) path_ = name;
        else throw std::runtime_error("no folder for a test in " + name);
    }
    ~TempDir()
    {
        std::error_code ignored; /* a test may have removed it, or made it unreadable */
        std::filesystem::remove_all(path_, ignored);
    }
    TempDir(const TempDir &) = delete;
    TempDir &operator=(const TempDir &) = delete;
    const std::string &path() const { return path_; }

private:
    std::string path_;
};

} // namespace mt
