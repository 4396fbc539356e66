/* The server of metrics: what a browser or a program gets, and what it does when it cannot serve. */
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

extern "C" {
#include "trace/serve.h"
}

namespace {

const char *page(const char *path, stm_text *out, void *)
{
    if (strcmp(path, "/here") != 0) return nullptr;
    stm_text_add(out, "some text", 9);
    return "text/plain";
}

class Serve : public testing::Test {
protected:
    void SetUp() override
    {
        mill_error err = {};
        ASSERT_EQ(stm_server_start(0, page, nullptr, &server, &err), MILL_OK) << err.msg;
    }
    void TearDown() override { stm_server_stop(&server); }
    int connected() const
    {
        const int fd = opened();
        EXPECT_EQ(connect_to(fd), 0);
        return fd;
    }
    static int opened()
    {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const timeval most = {20, 0};
        EXPECT_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most), 0);
        return fd;
    }
    int connect_to(int fd) const
    {
        sockaddr_in at = {};
        at.sin_family = AF_INET;
        at.sin_port = htons(static_cast<uint16_t>(stm_server_port(server)));
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return connect(fd, reinterpret_cast<sockaddr *>(&at), sizeof at);
    }
    static std::string ask(int fd, const std::string &request)
    {
        std::string got;
        char buf[512];
        EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
        for (ssize_t n; (n = recv(fd, buf, sizeof buf, 0)) > 0;) got.append(buf, static_cast<size_t>(n));
        close(fd);
        return got;
    }
    stm_server *server = nullptr;
};

TEST_F(Serve, AnswersByTheBook)
{
    static const struct Case {
        const char *name, *request, *begins, *ends;
    } kCases[] = {
        {"page", "GET /here HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n", "some text"},
        {"question", "GET /here?a=b HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n", "some text"},
        {"head", "HEAD /here HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n", "\r\n\r\n"},
        {"elsewhere", "GET /there HTTP/1.1\r\n\r\n", "HTTP/1.1 404", "404 Not Found\n"},
        {"method", "PUT /here HTTP/1.1\r\n\r\n", "HTTP/1.1 405", "405 Method Not Allowed\n"},
        {"nonsense", "?\r\n\r\n", "HTTP/1.1 400", "400 Bad Request\n"},
    };
    for (const Case &c : kCases) {
        SCOPED_TRACE(c.name);
        const std::string got = ask(connected(), c.request), ends = c.ends;
        EXPECT_EQ(got.substr(0, strlen(c.begins)), c.begins);
        EXPECT_EQ(got.substr(got.size() - std::min(got.size(), ends.size())), ends);
    }
    EXPECT_EQ(ask(connected(), "GET /here HTTP/1.1\r\n" + std::string(4096, 'x')).substr(0, 12), "HTTP/1.1 431");
}

double cpu_s()
{
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

/* A process without a descriptor left cannot take who asks: it waits for one, and does not try again and again meanwhile. */
TEST_F(Serve, SleepsWhileNoDescriptorIsLeft)
{
    const rlim_t few = 64; /* no fewer than poll is given */
    const int fd = opened();
    std::vector<int> all;
    rlimit before;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    const rlimit none = {few, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int one; (one = dup(fd)) >= 0;) all.push_back(one);
    EXPECT_EQ(connect_to(fd), 0);
    const double began = cpu_s();
    usleep(400000);
    EXPECT_LT(cpu_s() - began, 0.1);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    for (int one : all) close(one);
    EXPECT_EQ(ask(fd, "GET /here HTTP/1.1\r\n\r\n").substr(0, 12), "HTTP/1.1 200");
}

} // namespace
