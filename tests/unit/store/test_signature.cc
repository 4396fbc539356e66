/* Which of the fields that a part was signed with are about a result, and whether they still hold for it. */
#include <gtest/gtest.h>

#include <string>
#include <vector>

extern "C" {
#include "store/signature.h"
}

namespace {

using Fields = std::vector<std::pair<std::string, std::string>>;

std::string bytes(const Fields &fields)
{
    std::string s;
    for (const auto &f : fields) s += f.first + '\0' + f.second + '\0';
    return s;
}

const Fields kWas = {{"seed", "7"},
                     {STM_CONNECTIONS " up to a", "file:1"},
                     {STM_CONNECTIONS " up to b", "file:2"},
                     {"step src: path", "in.jsonl"},
                     {"step src: extra", ""},
                     {"step a: mode", "fine"},
                     {"step b: mode", "fine"},
                     {"step bb: mode", "fine"}};

struct Case {
    const char *name;
    Fields now; /* of what leads to b */
    bool holds;
};

const Fields kOfB = {{"seed", "7"},
                     {STM_CONNECTIONS " up to b", "file:2"},
                     {"step src: path", "in.jsonl"},
                     {"step src: extra", ""},
                     {"step b: mode", "fine"}};

/* kOfB with the value of a field changed, a field added (@p name is new), or taken away (@p value is NULL). */
Fields of_b(const char *name, const char *value)
{
    Fields out;
    bool there = false;
    for (const auto &f : kOfB) {
        const bool it = f.first == name;
        there = there || it;
        if (!it) out.push_back(f);
        if (it && value != nullptr) out.push_back({name, value});
    }
    if (!there) out.push_back({name, value});
    return out;
}

const Case kCases[] = {
    {"the_same", kOfB, true},
    {"another_value", of_b("step b: mode", "hang"), false},
    {"another_value_of_all", of_b("seed", "8"), false},
    {"other_connections", of_b(STM_CONNECTIONS " up to b", "file:3"), false},
    {"a_result_that_was_not_there", of_b(STM_CONNECTIONS " up to c", "file:2"), false},
    {"a_field_that_was_not_there", of_b("step b: at", "1"), false},
    {"a_field_of_a_step_is_gone", of_b("step src: extra", nullptr), false},
    {"a_field_of_all_is_gone", of_b("seed", nullptr), false},
    {"a_step_is_gone", of_b("step b: mode", nullptr), true}, /* then its connections are others */
    {"nothing", {}, false},
};

class Signature : public testing::TestWithParam<Case> {};

TEST_P(Signature, Holds)
{
    const std::string was = bytes(kWas), now = bytes(GetParam().now);
    EXPECT_EQ(stm_signature_holds(was.data(), was.size(), now.data(), now.size()), GetParam().holds);
    EXPECT_FALSE(stm_signature_holds(nullptr, 0, now.data(), now.size())) << "of nothing nothing is known";
    /* bytes of a file */
    for (size_t cut = 0; cut < was.size(); cut++) (void)stm_signature_holds(was.data(), cut, now.data(), now.size());
}
INSTANTIATE_TEST_SUITE_P(Table, Signature, testing::ValuesIn(kCases), [](const auto &i) { return std::string(i.param.name); });

TEST(SignatureConnections, AreComparedBothWays)
{
    const std::string was = bytes(kWas),
                      same = bytes({{STM_CONNECTIONS " up to b", "file:2"},
                                    {STM_CONNECTIONS " up to a", "file:1"},
                                    {"step b: mode", "hang"}}),
                      fewer = bytes({{STM_CONNECTIONS " up to a", "file:1"}});
    EXPECT_TRUE(stm_signature_same_connections(was.data(), was.size(), same.data(), same.size()));
    EXPECT_FALSE(stm_signature_same_connections(was.data(), was.size(), fewer.data(), fewer.size()));
    EXPECT_FALSE(stm_signature_same_connections(fewer.data(), fewer.size(), was.data(), was.size()));
    EXPECT_FALSE(stm_signature_same_connections(nullptr, 0, was.data(), was.size()));
}

} // namespace
