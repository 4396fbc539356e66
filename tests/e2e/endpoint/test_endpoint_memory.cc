/*
 * chat, complete and embed_remote while memory runs out: every allocation that their module makes itself fails once, from the
 * pipeline's configuration to the last answer. Each run ends; it could not begin, and says that memory is out, or its rows are
 * right, or null with an error; nothing leaks.
 */
#include <dlfcn.h>

#include "endpoint_run.h"
#include "support/alloc_points.h"
#include "support/bad_server.h"
#include "support/fail_nth.h"

namespace {

using mt::BadServer;
using Request = BadServer::Request;

/* Row 1 is refused for good, row 2 once; a group with row 1 in it is refused as a whole. */
BadServer::Reply answer(const Request &r)
{
    static const char choice[] =
        R"({"choices":[{"index":0,"message":{"content":"yes"},"text":"yes","finish_reason":"stop"}],)"
        R"("usage":{"prompt_tokens":5,"completion_tokens":2}})";
    const bool embeds = r.head.find("/embeddings ") != std::string::npos;
    if (r.body.find("row 1\"") != std::string::npos || r.body.find("row 1\\\"") != std::string::npos)
        return BadServer::reply(400, R"({"error":{"message":"not this one"}})");
    if (!embeds) return BadServer::reply(200, choice);
    std::string data;
    for (size_t at = 0, n = 0; (at = r.body.find("\"row ", at)) != std::string::npos; at++, n++)
        data += (n > 0 ? "," : "") + std::string("{\"index\":") + std::to_string(n) + ",\"embedding\":[" +
                std::to_string(atoi(r.body.c_str() + at + 5)) + ",1]}";
    return BadServer::reply(200, "{\"data\":[" + data + "],\"usage\":{\"total_tokens\":3}}");
}

struct Case {
    const char *name, *type, *input, *more;
};
const Case kCases[] = {
    {"chat", "chat", "prompt",
     "    system: be brief\n    temperature: 0.5\n    max_tokens: 9\n    response_format: {type: json_object}\n    extra_body: "
     "{min_p: 0.1}\n    raw: true\n"},
    {"messages", "chat", "messages", "    ask: messages\n    api_key_file: key\n"},
    {"complete", "complete", "prompt", "    ca_file: key\n"},
    {"embed_remote", "embed_remote", "text", "    dimensions: 2\n    texts_per_request: 4\n"},
};

class EndpointMemory : public mt::EndpointRun, public testing::WithParamInterface<Case> {};

TEST_P(EndpointMemory, EveryAllocationOfTheModuleFailsOnce)
{
    const Case c = GetParam();
    void *module = dlopen(MODULES "/libstepmill-http.so", RTLD_NOW); /* and it stays while runs come and go */
    ASSERT_NE(module, nullptr) << dlerror();
    BadServer s(answer);
    std::ofstream(dir_ / "key") << mt::kKey;
    std::ofstream rows(dir_ / "rows.jsonl");
    for (int i = 0; i < 6; i++) {
        const std::string text = "row " + std::to_string(i);
        rows << "{\"id\":" << i << ",\"q\":"
             << (i == 3                               ? "null"
                 : std::string(c.input) == "messages" ? "\"[{\\\"content\\\":\\\"" + text + "\\\"}]\""
                                                      : "\"" + text + "\"")
             << "}\n";
    }
    rows.close();
    const std::string yaml = std::string("stepmill: 1\nname: p\nmax_errors: 1000\nsteps:\n"
                                         "  rows: {type: read_jsonl, path: rows.jsonl, columns: {id: int64, q: utf8}, extra: \"\", "
                                         "batch_size: 6}\n  ask:\n    type: ") +
                             c.type + "\n    from: rows\n    url: http://127.0.0.1:" + std::to_string(s.port()) +
                             "/v1\n    model: m\n    backoff: 1ms\n    concurrency: 4\n    inputs: {" + c.input + ": q}\n" +
                             c.more + "  out: {type: write_jsonl, from: ask, path: out.jsonl, errors: true}\n";
    const auto lines = [](const std::string &text) {
        std::istringstream in(text);
        std::vector<std::string> all;
        for (std::string line; std::getline(in, line);) all.push_back(line);
        return all;
    };
    const mt::EndpointResult whole = run_yaml(yaml, true, 30);
    ASSERT_EQ(whole.state, MILL_RUN_DONE) << whole.error.msg;
    const std::vector<std::string> want = lines(whole.out);
    ASSERT_EQ(want.size(), 6u);
    ASSERT_EQ(whole.errors.size(), 1u) << "row 1";
    ASSERT_NE(want[2].find("\"_error\":null"), std::string::npos) << want[2];

    const auto arm = reinterpret_cast<decltype(&mt_alloc_arm)>(dlsym(module, "mt_alloc_arm"));
    const auto disarm = reinterpret_cast<decltype(&mt_alloc_disarm)>(dlsym(module, "mt_alloc_disarm"));
    const auto living = reinterpret_cast<decltype(&mt_alloc_live)>(dlsym(module, "mt_alloc_live"));
    ASSERT_TRUE(arm != nullptr && disarm != nullptr && living != nullptr);
    const int64_t mine = living();
    const long engine = mt::live();
    int64_t refused = 0, nulled = 0, points = 0;
    for (;; points++) {
        SCOPED_TRACE("allocation " + std::to_string(points));
        arm(points);
        const mt::EndpointResult r = run_yaml(yaml, true, 30);
        const bool fired = disarm();
        EXPECT_EQ(living(), mine) << "the module leaks";
        EXPECT_EQ(mt::live(), engine) << "the engine leaks";
        if (r.state != MILL_RUN_DONE) {
            refused++;
            EXPECT_TRUE(fired);
            EXPECT_EQ(r.error.status, MILL_ERR_NOMEM) << r.error.msg;
            EXPECT_NE(std::string(r.error.msg).find("memory"), std::string::npos) << r.error.msg;
        } else {
            const std::vector<std::string> got = lines(r.out);
            ASSERT_EQ(got.size(), want.size());
            int64_t lost = 0;
            for (size_t i = 0; i < got.size(); i++) {
                if (got[i] == want[i]) continue;
                const std::string id = "{\"id\":" + std::to_string(i) + ",";
                EXPECT_EQ(got[i].compare(0, id.size(), id), 0) << got[i];
                EXPECT_NE(got[i].find(std::string(c.type) == "embed_remote" ? "\"embedding\":null" : "\"answer\":null"),
                          std::string::npos)
                    << got[i];
                EXPECT_TRUE(got[i].find("memory") != std::string::npos || i == 1)
                    << got[i]; /* row 1 may lose the server's words only */
                lost += i != 1;
            }
            if (lost > 0) {
                EXPECT_GT(r.errors.size(), 1u);
            }
            if (!fired) {
                EXPECT_EQ(r.out, whole.out);
            }
            nulled += lost > 0;
        }
        if (!fired || HasFailure()) break;
    }
    printf("%s: %lld allocations, %lld of them without a run, %lld with rows nulled\n", c.name, static_cast<long long>(points),
           static_cast<long long>(refused),
           static_cast<long long>(nulled)); /* else submit was called again, for the halves of its batch */
    EXPECT_GT(refused, 10);
    EXPECT_GT(nulled, 0);
    dlclose(module);
}

INSTANTIATE_TEST_SUITE_P(Types, EndpointMemory, testing::ValuesIn(kCases), [](const auto &i) { return std::string(i.param.name); });

} // namespace
