/* Offline batches of chat, complete and embed_remote: runs that end while they wait, and a service that loses answers, mixes them
 * up, and lets batches fail. */
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>
#include <string>

#include "endpoint_run.h"
#include "support/bad_server.h"

namespace fs = std::filesystem;

namespace {

using mt::BadServer;
using Reply = BadServer::Reply;
using Request = BadServer::Request;

using mt::kKey;
using mt::slurp;
using Result = mt::EndpointResult;

/* Text behind a key of JSON that this test wrote, or the client in a form that it knows. */
std::string member(const std::string &json, const std::string &key)
{
    const std::string mark = "\"" + key + "\":\"";
    const size_t at = json.find(mark);
    return at == std::string::npos ? "" : json.substr(at + mark.size(), json.find('"', at + mark.size()) - at - mark.size());
}

/* A service for batches. What a test wants otherwise, it sets. */
class Service {
public:
    Service() : server([this](const Request &r) { return answer(r); }) {}
    std::string url() const { return "http://127.0.0.1:" + std::to_string(server.port()) + "/v1"; }

    struct Batch {
        std::string token, file;
        int asked = 0;
    };
    /** From now on batches are answered, or are not. */
    void ready(bool yes)
    {
        std::lock_guard<std::mutex> g(lock);
        ready_after = yes ? 0 : 1 << 30;
    }
    std::mutex lock;
    std::map<std::string, std::string> files;
    std::map<std::string, Batch> batches;
    int ready_after = 0;             /* questions that are answered "in_progress" */
    std::string status = "completed";
    bool lose_create = false;        /* makes the batch, and closes the connection without a word; once */
    int unavailable = 0;             /* so many requests are answered by 503 */
    int refuse = 0;                  /* status of every upload */
    size_t page = 100;               /* batches on a page of the list */
    bool knows_after = true;         /* or the first page comes whatever is asked for */
    std::string only;                /* answers rows whose text holds it; "" = all */
    bool has_list = true;
    int lists = 0;
    BadServer server;

private:
    Reply answer(const Request &r)
    {
        std::lock_guard<std::mutex> g(lock);
        const std::string line = r.head.substr(0, r.head.find("\r\n"));
        if (r.head.find(std::string("Bearer ") + kKey) == std::string::npos)
            return BadServer::reply(401, R"({"error":{"message":"no key"}})");
        if (unavailable > 0) return unavailable--, BadServer::reply(503, "{}");
        if (line.find("POST /v1/files ") == 0) return upload(r);
        if (line.find("POST /v1/batches ") == 0) return create(r);
        if (line.find("GET /v1/batches?") == 0) return list(line);
        if (line.find("GET /v1/batches/") == 0) return look(line.substr(16, line.find(' ', 16) - 16));
        if (line.find("GET /v1/files/") == 0) return fetch(line.substr(14, line.find("/content") - 14));
        return BadServer::reply(404, R"({"error":{"message":"no such path"}})");
    }
    Reply upload(const Request &r)
    {
        if (refuse != 0) return BadServer::reply(refuse, R"({"error":{"message":"this is not taken"}})");
        const size_t at = r.body.find("{\"custom_id\""), end = r.body.find("\r\n--", at);
        const std::string id = "file-" + std::to_string(files.size());
        if (r.body.find("\r\nbatch\r\n") == std::string::npos || at == std::string::npos)
            return BadServer::reply(400, R"({"error":{"message":"no batch file"}})");
        files[id] = r.body.substr(at, end - at);
        return BadServer::reply(200, "{\"id\":\"" + id + "\",\"object\":\"file\"}");
    }
    Reply create(const Request &r)
    {
        if (r.head.find("application/json") == std::string::npos)
            return BadServer::reply(400, R"({"error":{"message":"no JSON"}})");
        const std::string id = "batch_" + std::to_string(batches.size());
        batches[id] = {member(r.body, "stepmill"), member(r.body, "input_file_id"), 0};
        if (!lose_create) return BadServer::reply(200, said(id, "validating"));
        lose_create = false;
        Reply a;
        a.close = true;
        return a;
    }
    std::string said(const std::string &id, const std::string &how, const std::string &more = "")
    {
        return "{\"id\":\"" + id + "\",\"object\":\"batch\",\"status\":\"" + how + "\",\"metadata\":{\"stepmill\":\"" +
               batches[id].token + "\"}" + more + "}";
    }
    Reply list(const std::string &line)
    {
        std::string all, after;
        size_t n = 0;
        lists++;
        if (!has_list) return BadServer::reply(404, R"({"error":{"message":"no list"}})");
        const size_t at = line.find("after=");
        if (at != std::string::npos && knows_after) after = line.substr(at + 6, line.find(' ', at) - at - 6);
        auto b = after.empty() ? batches.begin() : ++batches.find(after);
        for (; b != batches.end() && n < page; b++, n++) all += (n > 0 ? "," : "") + said(b->first, "in_progress");
        return BadServer::reply(200, "{\"object\":\"list\",\"data\":[" + all +
                                         "],\"has_more\":" + (b != batches.end() ? "true" : "false") + "}");
    }
    Reply look(const std::string &id)
    {
        if (batches.count(id) == 0) return BadServer::reply(404, R"({"error":{"message":"no such batch"}})");
        if (batches[id].asked++ < ready_after) return BadServer::reply(200, said(id, "in_progress"));
        return BadServer::reply(
            200, said(id, status,
                      ",\"output_file_id\":\"out-" + id + "\",\"error_file_id\":\"err-" + id + "\"" +
                          (status == "failed" ? R"(,"errors":{"data":[{"code":"x","message":"the file is wrong"}]})" : "")));
    }
    /* Last first; rows with "bad" were refused, those with "late" not asked. */
    Reply fetch(const std::string &id)
    {
        const std::string file = files[batches[id.substr(4)].file];
        std::istringstream in(file);
        std::vector<std::string> out;
        std::string line;
        const bool errors = id.compare(0, 3, "err") == 0;
        while (std::getline(in, line)) {
            const std::string name = member(line, "custom_id"), mark = "\"role\":\"user\",\"content\":\"";
            const size_t at = line.find(mark) + mark.size();
            const std::string text = line.substr(at, line.find('"', at) - at),
                              head = "{\"id\":\"x\",\"custom_id\":\"" + name + "\",";
            if (text.find(only) == std::string::npos) continue;
            const bool bad = text.find("bad") != std::string::npos, late = text.find("late") != std::string::npos;
            if (errors && bad)
                out.push_back(head + R"("response":{"status_code":400,"body":{"error":{"message":"not this"}}},"error":null})");
            if (errors && late) out.push_back(head + R"("response":null,"error":{"code":"batch_expired","message":"too late"}})");
            if (!errors && !bad && !late)
                out.push_back(
                    head +
                    R"("response":{"status_code":200,"request_id":"y","body":{)"
                    R"("choices":[{"index":0,"message":{"role":"assistant","content":"re: )" +
                    text + R"("},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}},"error":null})");
        }
        std::reverse(out.begin(), out.end());
        std::string all = errors ? "" : "not JSON\n{\"custom_id\":\"r999999\",\"response\":null}\n{\"custom_id\":\"theirs\"}\n";
        for (const std::string &l : out) all += l + "\n";
        return BadServer::reply(200, all);
    }
};

class Offline : public mt::EndpointRun {
protected:
    Result run(const Service &s, const std::string &more = "", bool fresh = false)
    {
        std::ostringstream yaml;
        yaml << "stepmill: 1\nname: p\nmax_errors: 1000000\nsteps:\n"
                "  rows: {type: read_jsonl, path: rows.jsonl, columns: {id: int64, q: utf8}, extra: '', batch_size: 8}\n"
                "  ask: {type: chat, from: rows, url: \""
             << s.url()
             << "\", model: m, inputs: {prompt: q}, offline: true, input_batch_size: 10, api_key_env: STEPMILL_TEST_KEY,\n"
                "    batch_poll: 20ms, backoff: 5ms, attempts: 3"
             << more
             << "}\n"
                "  out: {type: write_jsonl, from: ask, path: out.jsonl, errors: true}\n";
        return run_yaml(yaml.str(), fresh, 60);
    }
    /* Runs until it does not end as stopped; at most @p most times. */
    Result run_on(const Service &s, int most, int *times, const std::string &more = "")
    {
        Result r = {};
        for (*times = 1; *times <= most; ++*times) {
            r = run(s, more);
            if (r.state != MILL_RUN_STOPPED) break;
        }
        return r;
    }
    /* As if the process had ended before the number of the batch was on the disk. */
    void forget_numbers()
    {
        for (const auto &e : fs::directory_iterator(dir_ / "run" / "batches")) {
            const std::string text = slurp(e.path());
            std::ofstream(e.path(), std::ios::trunc) << text.substr(0, text.find('\n')) << "\n\n";
        }
    }
    size_t notes() const
    {
        size_t n = 0;
        for (const auto &e : fs::directory_iterator(dir_ / "run" / "batches")) n += e.is_regular_file();
        return n;
    }
};

std::string right_rows(int n, const std::string &text = "row ")
{
    std::string s;
    for (int i = 0; i < n; i++)
        s += "{\"id\":" + std::to_string(i) + ",\"q\":\"" + text + std::to_string(i) + "\",\"answer\":\"re: " + text +
             std::to_string(i) + "\",\"finish_reason\":\"stop\",\"prompt_tokens\":5,\"completion_tokens\":2,\"_error\":null}\n";
    return s;
}

TEST_F(Offline, ARunEndsWhenOnlyWaitingIsLeftAndTheNextAsksAgain)
{
    Service s;
    s.ready(false);
    rows(35); /* batches of 10, 10, 10, 5 */
    const Result first = run(s);
    EXPECT_EQ(first.state, MILL_RUN_STOPPED) << first.error.msg;
    EXPECT_TRUE(first.errors.empty());
    EXPECT_EQ(s.batches.size(), 4u); /* all of them, though none was answered */
    EXPECT_EQ(notes(), 4u);
    EXPECT_EQ(run(s).state, MILL_RUN_STOPPED);
    s.ready(true);
    int times;
    const Result r = run_on(s, 5, &times);
    EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
    EXPECT_EQ(r.out, right_rows(35)); /* in order, though answers came last first */
    EXPECT_EQ(s.batches.size(), 4u);
    EXPECT_EQ(s.files.size(), 4u);
    EXPECT_EQ(s.lists, 0);
}

TEST_F(Offline, ARunMayStayUntilTheAnswersCome)
{
    Service s;
    s.ready_after = 5;
    rows(12);
    const Result r = run(s, ", batch_wait: 50s");
    EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
    EXPECT_EQ(r.out, right_rows(12));
}

/* The process ends, or the answer is lost, after the service made the batch and before its number is written down. */
TEST_F(Offline, ABatchIsCreatedOnceWhateverIsLost)
{
    Service s;
    s.lose_create = true;
    s.page = 2;
    rows(35);
    int times;
    s.ready(false);
    EXPECT_EQ(run(s).state, MILL_RUN_STOPPED);
    EXPECT_EQ(s.batches.size(), 4u);
    EXPECT_GE(s.lists, 1);
    forget_numbers();
    s.ready(true);
    const Result r = run_on(s, 8, &times);
    EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
    EXPECT_EQ(r.out, right_rows(35));
    EXPECT_EQ(s.batches.size(), 4u);
}

/* A list that never ends tells nothing either: the rows fail, and nobody asks for ever. */
TEST_F(Offline, AListThatNeverEndsIsGivenUp)
{
    Service s;
    s.lose_create = true;
    s.page = 2;
    s.ready(false);
    rows(35);
    EXPECT_EQ(run(s).state, MILL_RUN_STOPPED);
    forget_numbers();
    s.knows_after = false;
    s.ready(true);
    int times;
    const Result r = run_on(s, 8, &times);
    EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
    EXPECT_EQ(s.batches.size(), 4u) << "none is created again";
    EXPECT_LE(s.lists, 40);
    EXPECT_NE(r.out.find("gives the same page again and again"), std::string::npos) << r.out;
}

/* Without a list nobody can know; it is not created again. */
TEST_F(Offline, WithoutAListABatchIsNotCreatedTwice)
{
    Service s;
    s.has_list = false;
    s.ready(false);
    rows(5);
    EXPECT_EQ(run(s).state, MILL_RUN_STOPPED);
    forget_numbers();
    const Result r = run(s);
    EXPECT_EQ(r.state, MILL_RUN_DONE);
    EXPECT_EQ(s.batches.size(), 1u);
    ASSERT_EQ(r.errors.size(), 5u);
    EXPECT_NE(std::string(r.errors[0].error.msg).find("no list"), std::string::npos) << r.errors[0].error.msg;
}

TEST_F(Offline, RowsFailOneByOneForTheirOwnReasons)
{
    Service s;
    std::ofstream(dir_ / "rows.jsonl")
        << "{\"id\":0,\"q\":\"a\"}\n{\"id\":1,\"q\":\"bad b\"}\n{\"id\":2,\"q\":null}\n{\"id\":3,\"q\":\"late "
           "c\"}\n{\"id\":4,\"q\":\"d\"}\n{\"id\":5,\"q\":\"xd\"}\n";
    s.only = "";
    Result r = run(s, ", batch_wait: 50s");
    EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
    ASSERT_EQ(r.errors.size(), 2u);
    EXPECT_NE(std::string(r.errors[0].error.msg).find("HTTP status 400: not this"), std::string::npos) << r.errors[0].error.msg;
    EXPECT_NE(std::string(r.errors[1].error.msg).find("too late"), std::string::npos) << r.errors[1].error.msg;
    EXPECT_EQ(r.keys[0], "rows:1");
    EXPECT_NE(r.out.find("{\"id\":2,\"q\":null,\"answer\":null,\"finish_reason\":null,\"prompt_tokens\":null,\"completion_tokens\":"
                         "null,\"_error\":null}"),
              std::string::npos)
        << r.out;
    EXPECT_NE(r.out.find("{\"id\":4,\"q\":\"d\",\"answer\":\"re: d\""), std::string::npos) << r.out;
}

struct Ending {
    const char *status, *words;
    bool transient;
};
const Ending kEndings[] = {{"expired", "expired before this row was answered", true}, {"cancelled", "was cancelled before", true},
                           {"failed", "the file is wrong", false},
                           {"completed", "is completed without an answer for this row", true}};

TEST_F(Offline, WhatABatchLeavesOutIsNullAndSaysWhy)
{
    for (const Ending &e : kEndings) {
        SCOPED_TRACE(e.status);
        Service s;
        s.status = e.status;
        s.only = "row 3"; /* the only one answered before that */
        rows(8);
        const Result r = run(s, ", batch_wait: 50s", true);
        EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
        ASSERT_EQ(r.errors.size(), 7u);
        EXPECT_NE(std::string(r.errors[0].error.msg).find(e.words), std::string::npos) << r.errors[0].error.msg;
        EXPECT_EQ(r.errors[0].error.error_class, e.transient ? MILL_CLASS_TRANSIENT : MILL_CLASS_PERMANENT);
        EXPECT_NE(r.out.find("\"answer\":\"re: row 3\""), std::string::npos) << r.out;
        EXPECT_EQ(static_cast<int>(std::count(r.out.begin(), r.out.end(), '\n')), 8);
    }
}

/* `retries` hands over what expired in a batch of its own; the next process finds both again. */
TEST_F(Offline, RetriesAreBatchesOfTheirOwn)
{
    Service s;
    s.status = "expired";
    s.only = "row 3";
    rows(8);
    Result r = run(s, ", batch_wait: 50s, retries: {times: 1}, on_error: impute");
    EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
    EXPECT_GE(s.batches.size(), 2u);
}

TEST_F(Offline, AServiceInTroubleCostsNoRows)
{
    Service s;
    s.unavailable = 7; /* more than the attempts of one request */
    rows(12);
    int times;
    const Result r = run_on(s, 8, &times);
    EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
    EXPECT_EQ(r.out, right_rows(12));
    EXPECT_EQ(s.batches.size(), 2u);
}

TEST_F(Offline, WhatIsRefusedFailsAtOnce)
{
    Service s;
    s.refuse = 413;
    rows(12);
    const Result r = run(s);
    EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
    ASSERT_EQ(r.errors.size(), 12u);
    EXPECT_NE(std::string(r.errors[0].error.msg).find("HTTP status 413: this is not taken"),
              std::string::npos) << r.errors[0].error.msg;
    EXPECT_EQ(s.batches.size(), 0u);
}

/* What is not noted is not sent, and nothing lies about. */
TEST_F(Offline, WhatCannotBeNotedIsNotSent)
{
    Service s;
    s.ready(false);
    rows(5);
    EXPECT_EQ(run(s).state, MILL_RUN_STOPPED);
    ASSERT_EQ(notes(), 1u);
    const fs::path note = fs::directory_iterator(dir_ / "run" / "batches")->path();
    fs::remove(note);
    fs::create_directory(note); /* a file cannot take its name */
    s.ready(true);
    const Result r = run(s);
    EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
    ASSERT_EQ(r.errors.size(), 5u);
    EXPECT_NE(std::string(r.errors[0].error.msg).find("cannot be written to `batches` of the run directory: Is a directory"),
              std::string::npos)
        << r.errors[0].error.msg;
    EXPECT_EQ(s.batches.size(), 1u) << "that of the first run";
    EXPECT_EQ(notes(), 0u) << "an unfinished note was left";
}

/* Other rows, or none of an earlier run, are other batches. */
TEST_F(Offline, FreshRunsAndOtherRowsAskAnew)
{
    Service s;
    s.ready(false);
    rows(5);
    int times;
    EXPECT_EQ(run(s).state, MILL_RUN_STOPPED);
    EXPECT_EQ(s.batches.size(), 1u);
    s.ready(true);
    EXPECT_EQ(run(s, ", batch_wait: 50s", true).state, MILL_RUN_DONE);
    EXPECT_EQ(s.batches.size(), 2u);
    rows(5, "other ");
    const Result r = run_on(s, 3, &times);
    EXPECT_EQ(r.out, right_rows(5, "other "));
    EXPECT_EQ(s.batches.size(), 3u);
}

} // namespace
