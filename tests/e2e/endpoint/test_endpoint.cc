/* chat, complete and embed_remote in whole runs, against servers of our own: right ones, and wrong ones in every way. */
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "endpoint_run.h"
#include "support/bad_server.h"

extern "C" {
#include "steps/http/width.h"
}

namespace fs = std::filesystem;

namespace {

using mt::BadServer;
using Reply = BadServer::Reply;
using Request = BadServer::Request;

using mt::kKey;
using mt::slurp;

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/* The user's text in a request, as it stands in its JSON. */
std::string asked(const std::string &body)
{
    const std::string mark = "\"role\":\"user\",\"content\":\"";
    const size_t at = body.find(mark) + mark.size();
    return body.substr(at, body.find('"', at) - at);
}

std::string choice(const std::string &content)
{
    return R"({"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":")" + content +
           R"("},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}})";
}

Reply echo(const Request &r) { return BadServer::reply(200, choice("re: " + asked(r.body))); }

Reply raw(const std::string &bytes, bool close)
{
    Reply r;
    r.bytes = bytes;
    r.close = close;
    return r;
}

struct Result : mt::EndpointResult {
    double seconds;
};

class Endpoint : public mt::EndpointRun {
protected:
    using EndpointRun::rows;
    void rows(const std::string &text) { std::ofstream(dir_ / "rows.jsonl", std::ios::trunc) << text; }

    std::string pipeline(const std::string &url, const std::string &more, const std::string &type = "chat",
                         const std::string &input = "prompt")
    {
        std::string y = "stepmill: 1\nname: p\nmax_errors: 1000000\nsteps:\n"
                        "  rows: {type: read_jsonl, path: rows.jsonl, columns: {id: int64, q: utf8}, batch_size: 8}\n"
                        "  ask:\n    type: " +
                        type + "\n    from: rows\n    url: " + url + "\n    model: m\n    inputs: {" + input + ": q}\n" + more +
                        "  out: {type: write_jsonl, from: ask, path: out.jsonl, errors: true}\n";
        return y;
    }

    Result run(const std::string &yaml, double stop_after_s = -1)
    {
        const double begin = now_s();
        fs::remove_all(dir_ / "run");
        Result r = {run_yaml(yaml, false, 30, stop_after_s), 0};
        const std::string extra = "\"extra\":null,"; /* keys of the input beside those named: there are none */
        for (size_t at; (at = r.out.find(extra)) != std::string::npos;) r.out.erase(at, extra.size());
        r.seconds = now_s() - begin;
        no_key_anywhere(r);
        return r;
    }

    /* Nor in error records. */
    void no_key_anywhere(const Result &r)
    {
        no_key_in_files();
        for (const mill_run_error &e : r.errors) {
            char text[2048];
            mill_error_format(&e.error, text, sizeof text);
            EXPECT_EQ(std::string(text).find(kKey), std::string::npos) << text;
        }
    }

    std::string url(const BadServer &s) { return "http://127.0.0.1:" + std::to_string(s.port()) + "/v1"; }
};

std::string right_rows(int n)
{
    std::string s;
    for (int i = 0; i < n; i++)
        s += "{\"id\":" + std::to_string(i) + ",\"q\":\"row " + std::to_string(i) + "\",\"answer\":\"re: row " + std::to_string(i) +
             "\",\"finish_reason\":\"stop\",\"prompt_tokens\":5,\"completion_tokens\":2,\"_error\":null}\n";
    return s;
}

/* ---- what works -------------------------------------------------------------------------------------------------- */

TEST_F(Endpoint, ManyAtOnceInOrderOverFewConnections)
{
    BadServer s([](const Request &r) {
        Reply a = echo(r);
        a.before_s = 0.002 * static_cast<double>(r.number % 7); /* answers overtake each other */
        return a;
    });
    rows(400);
    const Result r = run(pipeline(url(s), "    concurrency: 16\n"));
    EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
    EXPECT_EQ(r.out, right_rows(400));
    EXPECT_EQ(s.requests(), 400);
    EXPECT_LE(s.connections(), 32); /* kept alive */
    EXPECT_GE(s.most_at_once(), 8);
    EXPECT_LE(s.most_at_once(), 16);
}

TEST_F(Endpoint, TheRequestIsWhatWasAsked)
{
    BadServer s(echo);
    rows("{\"id\":0,\"q\":\"a \\\"b\\\"\\n\\u00e9\\\\\"}\n");
    run(pipeline(
        url(s),
        "    api_key_env: STEPMILL_TEST_KEY\n    system: be \"brief\"\n    temperature: 0.5\n    max_tokens: 9\n    seed: 7\n"
        "    response_format: {type: json_object}\n    extra_body: {min_p: 0.1, stop: [x]}\n"));
    ASSERT_EQ(s.seen().size(), 1u);
    const Request q = s.seen()[0];
    EXPECT_EQ(q.body, "{\"model\":\"m\",\"temperature\":0.5,\"max_tokens\":9,\"seed\":7,\"response_format\":{\"type\": "
                      "\"json_object\"},\"min_p\": 0.1, \"stop\": [\"x\"],"
                      "\"messages\":[{\"role\":\"system\",\"content\":\"be \\\"brief\\\"\"},{\"role\":\"user\",\"content\":\"a "
                      "\\\"b\\\"\\né\\\\\"}]}");
    EXPECT_NE(q.head.find("POST /v1/chat/completions HTTP/1.1"), std::string::npos) << q.head;
    EXPECT_NE(q.head.find(std::string("Authorization: Bearer ") + kKey), std::string::npos);
    EXPECT_EQ(q.head.find("Expect"), std::string::npos);
}

TEST_F(Endpoint, NullsAskNothing)
{
    BadServer s(echo);
    rows("{\"id\":0,\"q\":null}\n{\"id\":1,\"q\":\"row 1\"}\n{\"id\":2,\"q\":null}\n");
    const Result r = run(pipeline(url(s), ""));
    EXPECT_EQ(r.out, "{\"id\":0,\"q\":null,\"answer\":null,\"finish_reason\":null,\"prompt_tokens\":null,\"completion_tokens\":"
                     "null,\"_error\":null}\n"
                     "{\"id\":1,\"q\":\"row 1\",\"answer\":\"re: row "
                     "1\",\"finish_reason\":\"stop\",\"prompt_tokens\":5,\"completion_tokens\":2,\"_error\":null}\n"
                     "{\"id\":2,\"q\":null,\"answer\":null,\"finish_reason\":null,\"prompt_tokens\":null,\"completion_tokens\":"
                     "null,\"_error\":null}\n");
    EXPECT_EQ(s.requests(), 1);
}

TEST_F(Endpoint, MessagesOfAColumn)
{
    BadServer s(echo);
    rows("{\"id\":0,\"q\":\"[{\\\"role\\\":\\\"user\\\",\\\"content\\\":\\\"row 0\\\"}]\"}\n"
         "{\"id\":1,\"q\":\"[] , \\\"model\\\":\\\"other\\\"\"}\n{\"id\":2,\"q\":\"[]\"}\n{\"id\":3,\"q\":\"[1]\"}\n");
    const Result r = run(pipeline(url(s), "    ask: messages\n    system: s\n", "chat", "messages"));
    EXPECT_EQ(s.requests(), 1);
    EXPECT_EQ(r.errors.size(), 3u);
    EXPECT_NE(r.out.find("\"answer\":\"re: row 0\""), std::string::npos);
    EXPECT_EQ(s.seen()[0].body,
              "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"row 0\"}]}");
}

TEST_F(Endpoint, RawAnswersHideAKeyThatTheServerRepeats)
{
    BadServer s(
        [](const Request &r) { return BadServer::reply(200, choice(r.head.substr(r.head.find("Bearer ") + 7, sizeof kKey - 1))); });
    rows(2);
    std::ofstream(dir_ / "key") << "  " << kKey << "\n";
    const Result r = run(pipeline(url(s), "    raw: true\n    api_key_file: key\n"));
    EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
    EXPECT_NE(r.out.find("\"answer\":\"************************\""), std::string::npos) << r.out;
    EXPECT_NE(r.out.find("\"raw\":{\"id\":\"x\""), std::string::npos) << r.out;
}

TEST_F(Endpoint, Completions)
{
    BadServer s([](const Request &r) {
        EXPECT_NE(r.head.find("POST /v1/completions "), std::string::npos);
        return BadServer::reply(200, R"({"choices":[{"index":0,"text":" there","finish_reason":"length"}]})");
    });
    rows(1);
    const Result r = run(pipeline(url(s) + "/", "    max_tokens: 2\n", "complete"));
    EXPECT_EQ(r.out, "{\"id\":0,\"q\":\"row 0\",\"answer\":\" "
                     "there\",\"finish_reason\":\"length\",\"prompt_tokens\":null,\"completion_tokens\":null,\"_error\":null}\n");
    EXPECT_EQ(s.seen()[0].body, "{\"model\":\"m\",\"max_tokens\":2,\"prompt\":\"row 0\"}");
}

/* Vectors [number of the row, 1] for "row N", last text first; a text "bad" fails its whole request. */
Reply vectors(const Request &r)
{
    std::string data;
    int n = 0;
    if (r.body.find("row 13\"") != std::string::npos) return BadServer::reply(400, R"({"error":{"message":"row 13 is unlucky"}})");
    for (size_t at = 0; (at = r.body.find("\"row ", at)) != std::string::npos; at++, n++)
        data = "{\"index\":" + std::to_string(n) + ",\"embedding\":[" + std::to_string(atoi(r.body.c_str() + at + 5)) + ",1e0]}" +
               (data.empty() ? "" : ",") + data;
    return BadServer::reply(200, "{\"data\":[" + data + "],\"usage\":{\"total_tokens\":3}}");
}

TEST_F(Endpoint, EmbeddingsInGroupsAndOneBadTextFailsAlone)
{
    BadServer s(vectors);
    rows(40);
    const Result r = run(pipeline(url(s), "    dimensions: 2\n    texts_per_request: 8\n", "embed_remote", "text"));
    EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
    std::istringstream lines(r.out);
    std::string line;
    for (int i = 0; std::getline(lines, line); i++) {
        const std::string value = i == 13 ? "null" : "[" + std::to_string(i) + ".0,1.0]";
        EXPECT_NE(line.find("\"embedding\":" + value), std::string::npos) << line;
    }
    ASSERT_EQ(r.errors.size(), 1u);
    EXPECT_NE(std::string(r.errors[0].error.msg).find("row 13 is unlucky"), std::string::npos) << r.errors[0].error.msg;
    EXPECT_EQ(s.requests(), 5 + 6); /* a group of 8 with one bad text: 2 of 4, 2 of 2, 2 of 1 */
}

/* ---- what fails -------------------------------------------------------------------------------------------------- */

struct Wrong {
    const char *name;
    BadServer::Handler handler; /* of row 1; the others get their echo */
    const char *more;           /* parameters */
    int error_class;            /* -1 = comes right in the end */
    const char *words;          /* in the message */
    int64_t requests;           /* for the 3 rows; 0 = not counted */
};

std::string http_date(int in_s)
{
    char text[64];
    const time_t t = time(nullptr) + in_s;
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    return text;
}

/* Wrong the first @p n times. */
BadServer::Handler first(int n, BadServer::Handler wrong)
{
    auto left = std::make_shared<std::atomic<int>>(n);
    return [left, wrong](const Request &r) { return --*left >= 0 ? wrong(r) : echo(r); };
}

Reply never(const Request &)
{
    Reply r;
    r.never = true;
    return r;
}

std::vector<Wrong> wrongs()
{
    const int kPerm = MILL_CLASS_PERMANENT, kPass = MILL_CLASS_TRANSIENT, kData = MILL_CLASS_DATA;
    auto says = [](int status, const std::string &body, const std::string &headers = "") {
        return [=](const Request &) { return BadServer::reply(status, body, headers); };
    };
    auto wire = [](const std::string &bytes, bool close = true) { return [=](const Request &) { return raw(bytes, close); }; };
    return {
        {"bad request", says(400, R"({"error":{"message":"context too long"}})"), "", kPerm, "HTTP status 400: context too long",
         3},
        {"unauthorised", says(401, R"({"error":"no key"})"), "", kPerm, "HTTP status 401: no key", 3},
        {"forbidden", says(403, R"({"message":"not you"})"), "", kPerm, "not you", 3},
        {"not found, in HTML", says(404, "<html>\n<b>no\tsuch</b></html>"), "", kPerm, "<html> <b>no such</b></html>", 3},
        {"unprocessable, with detail", says(422, R"({"detail":"temperature"})"), "", kPerm, "temperature", 3},
        {"error without a body", says(418, ""), "", kPerm, "said nothing more", 3},
        {"long words are shortened", says(400, std::string(5000, 'x')), "", kPerm, "xxx...", 3},
        {"500 once", first(1, says(500, "oops")), "", -1, "", 4},
        {"502 twice", first(2, says(502, "")), "", -1, "", 5},
        {"500 for ever", says(500, R"({"error":{"message":"overheated"}})"), "", kPass, "HTTP status 500: overheated", 5},
        {"501 is for good", says(501, ""), "", kPerm, "HTTP status 501", 3},
        {"429 without Retry-After", first(1, says(429, "")), "", -1, "", 4},
        {"429 with seconds", first(1, says(429, "", "Retry-After: 1\r\n")), "", -1, "", 4},
        {"429 with a date", first(1, says(429, "", "Retry-After: " + http_date(2) + "\r\n")), "", -1, "", 4},
        {"429 for longer than a row may take", says(429, "slow down", "Retry-After: 1000\r\n"), "    row_timeout: 1s\n", kPass,
         "HTTP status 429: slow down", 3},
        {"503 with Retry-After", first(1, says(503, "", "Retry-After: 1\r\n")), "", -1, "", 4},
        {"redirect", says(302, "", "Location: http://127.0.0.1:1/steal\r\n"), "", kPerm, "HTTP status 302", 3},
        {"no JSON", says(200, "I am well"), "", kData, "not JSON", 3},
        {"empty answer", says(200, ""), "", kData, "empty", 3},
        {"cut JSON", says(200, R"({"choices":[{"mess)"), "", kData, "not JSON", 3},
        {"deep JSON", says(200, std::string(100000, '[')), "", kData, "not JSON", 3},
        {"not UTF-8", says(200, choice("\xff\xfe")), "", kData, "not JSON", 3},
        {"no choices", says(200, R"({"choices":[]})"), "", kData, "0 choices", 3},
        {"two choices", says(200, R"({"choices":[{"message":{"content":"a"}},{"message":{"content":"b"}}]})"), "", kData,
         "2 choices", 3},
        {"choices of another kind", says(200, R"({"choices":7})"), "", kData, "no list", 3},
        {"a list", says(200, "[1,2]"), "", kData, "no list", 3},
        {"no message", says(200, R"({"choices":[{}]})"), "", kData, "no \"message\"", 3},
        {"content of another kind", says(200, R"({"choices":[{"message":{"content":[1]}}]})"), "", kData, "is no text", 3},
        {"huge answer", says(200, choice(std::string(100000, 'y'))), "    max_answer_bytes: 4096\n", kData,
         "longer than max_answer_bytes (4096)", 3},
        {"huge error", says(400, std::string(100000, 'y')), "    max_answer_bytes: 4096\n", kData, "longer than max_answer_bytes",
         3},
        {"endless answer", wire("HTTP/1.1 200 OK\r\n\r\n" + std::string(3000000, ' '), false), "    max_answer_bytes: 64kB\n",
         kData, "longer than", 3},
        {"closes before it answers, once", first(1, wire("")), "", -1, "", 0},
        {"closes for ever", wire(""), "", kPass, "no answer", 0},
        {"closes in the headers", wire("HTTP/1.1 200 OK\r\nContent-Le"), "", kPass, "no answer", 0},
        {"closes in the body, once", first(1, wire("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"choi")), "", -1, "", 4},
        {"closes in the body", wire("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"choi"), "", kPass, "no answer", 5},
        {"closes in a chunk", wire("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{\"choi"), "", kPass, "no answer",
         5},
        {"broken chunks", wire("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"), "", kPass, "no answer", 5},
        {"another protocol", wire("SSH-2.0-OpenSSH_9.2\r\n"), "", kPerm, "no answer", 3},
        {"never answers", never, "    request_timeout: 200ms\n    attempts: 2\n", kPass, "timed out", 4},
        {"never answers, until the row's deadline", never, "    row_timeout: 400ms\n", kPass, "timed out", 3},
        {"a byte now and then", [](const Request &r) { Reply a = echo(r); a.between_s = 0.05; return a; },
         "    request_timeout: 300ms\n    attempts: 1\n", kPass, "timed out", 3},
        {"slow, in time", [](const Request &r) { Reply a = echo(r); a.before_s = 0.3; return a; }, "", -1, "", 3},
        {"chunked", [](const Request &r) {
             const std::string body = choice("re: " + asked(r.body));
             std::string w = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
             for (char c : body) w += std::string("1\r\n") + c + "\r\n";
             return raw(w + "0\r\n\r\n", false);
         }, "", -1, "", 3},
        {"HTTP/1.0", [](const Request &r) { return raw("HTTP/1.0 200 OK\r\n\r\n" + choice("re: " + asked(r.body)), true); }, "", -1,
         "", 3},
        {"100 continue first",
         [](const Request &r) { Reply a = echo(r); a.bytes = "HTTP/1.1 100 Continue\r\n\r\n" + a.bytes; return a; }, "", -1, "", 3},
    };
}

class WrongAnswer : public Endpoint, public testing::WithParamInterface<size_t> {};

TEST_P(WrongAnswer, HasItsClassAndFailsItsRowAlone)
{
    const Wrong w = wrongs()[GetParam()];
    SCOPED_TRACE(w.name);
    BadServer s([&](const Request &r) { return asked(r.body) == "row 1" ? w.handler(r) : echo(r); });
    rows(3);
    const Result r = run(pipeline(url(s), std::string(w.more) + (strstr(w.more, "attempts") ? "" : "    attempts: 3\n") +
                                              "    backoff: 10ms\n    api_key_env: STEPMILL_TEST_KEY\n"));
    EXPECT_EQ(r.state, MILL_RUN_DONE) << r.error.msg;
    EXPECT_LT(r.seconds, 5);
    if (w.requests > 0) {
        EXPECT_EQ(s.requests(), w.requests);
    }
    if (w.error_class < 0) {
        EXPECT_EQ(r.out, right_rows(3));
        return;
    }
    ASSERT_EQ(r.errors.size(), 1u);
    char text[2048];
    mill_error_format(&r.errors[0].error, text, sizeof text);
    EXPECT_EQ(r.errors[0].rows, 1);
    EXPECT_EQ(r.errors[0].error.error_class, w.error_class) << text;
    EXPECT_NE(std::string(text).find(w.words), std::string::npos) << text;
    EXPECT_NE(std::string(text).find("http://127.0.0.1:"), std::string::npos) << text;
    EXPECT_NE(r.out.find("\"answer\":\"re: row 0\""), std::string::npos);
    EXPECT_NE(r.out.find("\"q\":\"row 1\",\"answer\":null"), std::string::npos);
    EXPECT_NE(r.out.find("\"answer\":\"re: row 2\""), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Table, WrongAnswer, testing::Range<size_t>(0, wrongs().size()));

TEST_F(Endpoint, WrongVectors)
{
    const struct {
        const char *name, *body, *words;
    } cases[] = {
        {"no data", R"({})", "no list \"data\""},
        {"too few", R"({"data":[]})", "0 vectors, expected 1"},
        {"too many", R"({"data":[{"embedding":[1,2]},{"embedding":[1,2]}]})", "2 vectors, expected 1"},
        {"too short", R"({"data":[{"index":0,"embedding":[1]}]})", "1 values, expected 2"},
        {"another index", R"({"data":[{"index":1,"embedding":[1,2]}]})", "numbered otherwise"},
        {"negative index", R"({"data":[{"index":-1,"embedding":[1,2]}]})", "numbered otherwise"},
        {"text in it", R"({"data":[{"index":0,"embedding":[1,"2"]}]})", "no number"},
        {"too large for a float", R"({"data":[{"index":0,"embedding":[1,1e300]}]})", "no number"},
        {"base64", R"({"data":[{"index":0,"embedding":"AAAA"}]})", "no list \"embedding\""},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.name);
        BadServer s([&](const Request &) { return BadServer::reply(200, c.body); });
        rows(1);
        const Result r = run(pipeline(url(s), "    dimensions: 2\n", "embed_remote", "text"));
        ASSERT_EQ(r.errors.size(), 1u);
        EXPECT_NE(std::string(r.errors[0].error.msg).find(c.words), std::string::npos) << r.errors[0].error.msg;
        EXPECT_EQ(r.errors[0].error.error_class, MILL_CLASS_DATA);
    }
}

TEST_F(Endpoint, NobodyListensOrSpeaksTls)
{
    int port;
    {
        BadServer s(echo);
        port = s.port();
    }
    rows(2);
    Result r = run(pipeline("http://127.0.0.1:" + std::to_string(port), "    attempts: 2\n    backoff: 10ms\n"));
    ASSERT_EQ(r.errors.size(), 2u);
    EXPECT_EQ(r.errors[0].error.error_class, MILL_CLASS_TRANSIENT);
    BadServer s(echo);
    r = run(pipeline("https://127.0.0.1:" + std::to_string(s.port()),
                     "    attempts: 2\n    backoff: 10ms\n    connect_timeout: 1s\n    request_timeout: 1s\n"));
    ASSERT_EQ(r.errors.size(), 2u);
    EXPECT_NE(std::string(r.errors[0].error.msg).find("no answer"), std::string::npos) << r.errors[0].error.msg;
    r = run(pipeline("http://no-such-host.invalid", "    attempts: 1\n"));
    ASSERT_EQ(r.errors.size(), 2u);
}

TEST_F(Endpoint, ConnectionsThatEndAfterAFewRequests)
{
    BadServer s([](const Request &r) {
        Reply a = echo(r);
        a.close = r.on_connection == 2; /* without saying so before */
        return a;
    });
    rows(60);
    const Result r = run(pipeline(url(s), "    concurrency: 4\n    backoff: 5ms\n"));
    EXPECT_EQ(r.out, right_rows(60));
    EXPECT_GE(s.connections(), 20);
}

TEST_F(Endpoint, PausesAreNoLongerThanTheyAreMeantToBe)
{
    BadServer s(first(19, [](const Request &) { return BadServer::reply(500, ""); }));
    rows(1); /* nothing else goes on that would wake the client */
    const Result r = run(pipeline(url(s), "    attempts: 20\n    backoff: 1ms\n    backoff_max: 1ms\n"));
    EXPECT_EQ(r.out, right_rows(1));
    EXPECT_LT(r.seconds, 9) << "nineteen pauses of a millisecond";
}

TEST_F(Endpoint, RetryAfterHoldsEverybodyBack)
{
    BadServer s(first(1, [](const Request &) { return BadServer::reply(429, "", "Retry-After: 1\r\n"); }));
    rows(20);
    const Result r = run(pipeline(url(s), "    concurrency: 1\n"));
    EXPECT_EQ(r.out, right_rows(20));
    const std::vector<double> t = s.times();
    ASSERT_EQ(t.size(), 21u);
    EXPECT_GE(t[1] - t[0], 0.95);
}

TEST(Width, HalvesOncePerRoundAndGrowsByOne)
{
    stm_width w;
    stm_width_init(&w, 16);
    const uint32_t first = w.round;
    for (int i = 0; i < 40; i++) stm_width_answer(&w, first, 16, false);
    EXPECT_EQ(w.now, 16) << "never more than the user allows";
    for (int i = 0; i < 16; i++) stm_width_answer(&w, first, 16, true);
    EXPECT_EQ(w.now, 8) << "one refusal of all that were under way";
    for (int i = 0; i < 100; i++) stm_width_answer(&w, first, 16, false);
    EXPECT_EQ(w.now, 8) << "what was under way before says nothing about eight";
    for (int i = 0; i < 7; i++) stm_width_answer(&w, w.round, 8, false);
    EXPECT_EQ(w.now, 8);
    stm_width_answer(&w, w.round, 8, false);
    EXPECT_EQ(w.now, 9);
    stm_width_answer(&w, w.round, 3, true);
    EXPECT_EQ(w.now, 1) << "half of the three that it had";
    stm_width_answer(&w, w.round, 1, true);
    EXPECT_EQ(w.now, 1) << "somebody has to ask";
    int answers = 0;
    for (; w.now < 16; answers++) stm_width_answer(&w, w.round, w.now, false);
    EXPECT_EQ(answers, 120) << "1 + 2 + ... + 15";
    EXPECT_EQ(w.least, 1);
}

/* Sixteen at once are turned away. From then on the server holds requests until as many are there as may be: eight, and one more
 * after every round, up to sixteen again; there are just enough rows for that. */
TEST_F(Endpoint, AServerThatRefusesGetsHalfAndThenOneMoreARound)
{
    const struct {
        int status;
        const char *headers;
    } refusals[] = {{429, ""}, {429, "Retry-After: 1\r\n"}, {503, ""}};
    for (const auto &refusal : refusals) {
        SCOPED_TRACE(std::to_string(refusal.status) + " " + refusal.headers);
        std::mutex lock;
        std::condition_variable changed;
        stm_width width;
        int came = 0, here = 0, round = 0, most = 0;
        bool stuck = false;
        stm_width_init(&width, 16);
        BadServer s([&](const Request &r) {
            std::unique_lock<std::mutex> l(lock);
            const bool refused = ++came <= 16;
            const int mine = round;
            if (++here > width.now) ADD_FAILURE() << here << " at once where " << width.now << " may be";
            most = std::max(most, refused ? 0 : here);
            if (here == width.now) { /* all are there: their answers go out */
                const uint32_t begun = width.round;
                for (int i = 0, n = here; i < n; i++) stm_width_answer(&width, begun, n, refused);
                here = 0, round++;
                changed.notify_all();
            } else if (!changed.wait_for(l, std::chrono::seconds(10), [&] { return round != mine; })) {
                stuck = true;
            }
            return refused ? BadServer::reply(refusal.status, "", refusal.headers) : echo(r);
        });
        rows(92 + 16); /* 8 + 9 + ... + 15, and a round of sixteen */
        const Result r = run(pipeline(url(s), "    concurrency: 16\n    backoff: 10ms\n"));
        EXPECT_EQ(r.out, right_rows(92 + 16));
        EXPECT_EQ(s.requests(), 16 + 92 + 16);
        EXPECT_EQ(most, 16) << "as many as the user allows, in the end";
        EXPECT_FALSE(stuck) << "fewer at once than may be";
    }
}

/* From before the first request can be sent: on a busy machine the server may see that one late. */
TEST_F(Endpoint, RateLimits)
{
    BadServer s(echo);
    rows(75); /* a burst of 60 of 600 a minute, then ten a second */
    double began = now_s();
    Result r = run(pipeline(url(s), "    requests_per_minute: 600\n    concurrency: 32\n"));
    EXPECT_EQ(r.out, right_rows(75));
    EXPECT_GE(s.times().back() - began, 1.4);
    EXPECT_LT(s.times().back() - began, 30.0);
    BadServer tokens(echo);
    /* 7 each, as told: a burst of 60, then ten a second */
    began = now_s();
    r = run(pipeline(url(tokens), "    tokens_per_minute: 4200\n    max_tokens: 2\n    concurrency: 4\n"));
    EXPECT_EQ(r.out, right_rows(75));
    EXPECT_GE(tokens.times().back() - began, 1.0);
    EXPECT_LT(tokens.times().back() - began, 30.0);
}

/* ---- deadlines, cancel, stop ------------------------------------------------------------------------------------- */

TEST_F(Endpoint, TicketsPastTheirDeadlineAreCancelled)
{
    BadServer s([](const Request &r) { return asked(r.body) == "row 1" ? never(r) : echo(r); });
    rows(24);
    const Result r = run(pipeline(url(s), "    timeout: {batch: 500ms}\n    on_error: impute\n"));
    EXPECT_EQ(r.state, MILL_RUN_DONE);
    EXPECT_LT(r.seconds, 5);
    ASSERT_GE(r.errors.size(), 1u);
    EXPECT_EQ(r.errors[0].error.status, MILL_ERR_TIMEOUT);
    EXPECT_NE(r.out.find("\"answer\":\"re: row 23\""), std::string::npos);
}

TEST_F(Endpoint, AStopDropsWhatIsUnderWay)
{
    BadServer s(never);
    rows(100);
    const Result r = run(pipeline(url(s), ""), 0.3);
    EXPECT_EQ(r.state, MILL_RUN_STOPPED);
    EXPECT_LT(r.seconds, 3);
}

TEST_F(Endpoint, AStopInAPause)
{
    BadServer s([](const Request &) { return BadServer::reply(429, "", "Retry-After: 500\r\n"); });
    rows(100);
    const Result r = run(pipeline(url(s), ""), 0.3);
    EXPECT_EQ(r.state, MILL_RUN_STOPPED);
    EXPECT_LT(r.seconds, 3);
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

TEST_F(Endpoint, WhatTheFileMustNotSay)
{
    const struct {
        const char *name, *url, *more, *words;
    } cases[] = {
        {"another protocol", "ftp://x/v1", "", "neither http:// nor https://"},
        {"no address", "'http://'", "", "no address"},
        {"a password in the url", "http://u:secret@x/v1", "", "api_key_env or api_key_file"},
        {"a query", "http://x/v1?key=secret", "", "behind ? or #"},
        {"two keys", "http://x/v1", "    api_key_env: A\n    api_key_file: p.yaml\n", "not from both"},
        {"a header with a line break", "http://x/v1", "    api_key_header: \"a\\nb\"\n", "no name of a header"},
        {"extra_body with stream", "http://x/v1", "    extra_body: {stream: true}\n", "\"stream\" is not for extra_body"},
        {"extra_body a list", "http://x/v1", "    extra_body: [1]\n", "expected a map"},
        {"response_format a text", "http://x/v1", "    response_format: json\n", "expected a map"},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.name);
        rows(1);
        const Result r = run(pipeline(c.url, c.more));
        EXPECT_EQ(r.error.phase, MILL_PHASE_CHECK);
        EXPECT_NE(std::string(r.error.msg).find(c.words), std::string::npos) << r.error.msg;
        EXPECT_EQ(std::string(r.error.msg).find("secret"), std::string::npos) << r.error.msg;
        EXPECT_GT(r.error.line, 0);
    }
}

TEST_F(Endpoint, KeysThatAreNotThere)
{
    rows(1);
    Result r = run(pipeline("http://127.0.0.1:1", "    api_key_env: STEPMILL_NO_SUCH_KEY\n"));
    EXPECT_EQ(r.state, MILL_RUN_LOAD_FAILED);
    EXPECT_NE(std::string(r.error.msg).find("STEPMILL_NO_SUCH_KEY"), std::string::npos) << r.error.msg;
    std::ofstream(dir_ / "key") << "two\nlines\n";
    r = run(pipeline("http://127.0.0.1:1", "    api_key_file: key\n"));
    EXPECT_EQ(r.state, MILL_RUN_LOAD_FAILED);
    EXPECT_NE(std::string(r.error.msg).find("printable ASCII"), std::string::npos) << r.error.msg;
    EXPECT_EQ(std::string(r.error.msg).find("two"), std::string::npos);
}

} // namespace
