#include "support/bad_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

namespace mt {
namespace {

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

size_t content_length(const std::string &head)
{
    for (size_t at = 0; (at = head.find("\r\n", at)) != std::string::npos;) {
        at += 2;
        if (strncasecmp(head.c_str() + at, "content-length:", 15) == 0) return strtoul(head.c_str() + at + 15, nullptr, 10);
    }
    return 0;
}

} // namespace

BadServer::BadServer(Handler h) : handler_(std::move(h))
{
    sockaddr_in a = {};
    socklen_t n = sizeof a;
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener_ < 0 || bind(listener_, reinterpret_cast<sockaddr *>(&a), sizeof a) != 0 || listen(listener_, 512) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr *>(&a), &n) != 0)
        abort();
    port_ = ntohs(a.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
}

BadServer::~BadServer()
{
    quit_ = true;
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    {
        std::lock_guard<std::mutex> g(lock_);
        for (int fd : open_) shutdown(fd, SHUT_RDWR);
    }
    for (std::thread &t : threads_) t.join();
    close(listener_);
}

void BadServer::accept_all()
{
    while (!quit_) {
        const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd < 0) return;
        const int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        std::lock_guard<std::mutex> g(lock_);
        open_.insert(fd);
        const int64_t number = connections_++;
        threads_.emplace_back([this, fd, number] { serve(fd, number); });
    }
}

/* Sleeps; false: the other side went, or the server does. */
bool BadServer::wait(double s, int fd)
{
    const double until = now_s() + s;
    while (!quit_ && now_s() < until) {
        pollfd p = {fd, POLLRDHUP, 0};
        poll(&p, 1, static_cast<int>((until - now_s()) * 1000 < 20 ? (until - now_s()) * 1000 + 1 : 20));
        if (p.revents != 0) return false;
    }
    return !quit_;
}

void BadServer::serve(int fd, int64_t connection)
{
    std::string in;
    char buf[65536];
    for (int64_t k = 0; !quit_; k++) {
        size_t end, length = 0;
        while ((end = in.find("\r\n\r\n")) == std::string::npos ||
               in.size() < end + 4 + (length = content_length(in.substr(0, end)))) {
            const ssize_t n = recv(fd, buf, sizeof buf, 0);
            if (n <= 0) goto out;
            in.append(buf, static_cast<size_t>(n));
        }
        {
            Request r = {requests_++, connection, k, in.substr(0, end), in.substr(end + 4, length)};
            in.erase(0, end + 4 + length);
            const int64_t at_once = ++now_;
            for (int64_t m = most_; at_once > m && !most_.compare_exchange_weak(m, at_once);) {}
            {
                std::lock_guard<std::mutex> g(lock_);
                times_.push_back(now_s());
                seen_.push_back(r);
            }
            const Reply reply = handler_(r);
            bool alive = wait(reply.never ? 3600 : reply.before_s, fd);
            if (reply.between_s > 0) {
                for (size_t i = 0; i < reply.bytes.size() && alive; i++)
                    alive = send(fd, &reply.bytes[i], 1, MSG_NOSIGNAL) == 1 && wait(reply.between_s, fd);
            } else {
                for (size_t sent = 0; sent < reply.bytes.size() && alive;) {
                    const ssize_t n = send(fd, reply.bytes.data() + sent, reply.bytes.size() - sent, MSG_NOSIGNAL);
                    alive = n > 0;
                    if (alive) sent += static_cast<size_t>(n);
                }
            }
            now_--;
            if (!alive || reply.close) goto out;
        }
    }
out:
    std::lock_guard<std::mutex> g(lock_);
    open_.erase(fd);
    close(fd);
}

std::vector<double> BadServer::times()
{
    std::lock_guard<std::mutex> g(lock_);
    return times_;
}

std::vector<BadServer::Request> BadServer::seen()
{
    std::lock_guard<std::mutex> g(lock_);
    return seen_;
}

BadServer::Reply BadServer::reply(int status, const std::string &body, const std::string &headers)
{
    Reply r;
    r.bytes = "HTTP/1.1 " + std::to_string(status) + " Because\r\nContent-Type: application/json\r\n" + headers +
              "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    return r;
}

} // namespace mt
