/* An HTTP server on a free port of 127.0.0.1 that does what a test says, right or wrong, byte by byte. */
#pragma once
#include <atomic>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace mt {

class BadServer {
public:
    struct Request {
        int64_t number;     /* of the server, from 0 */
        int64_t connection; /* from 0 */
        int64_t on_connection; /* number on its connection, from 0 */
        std::string head, body;
    };
    /** Bytes on the wire, and what then becomes of the connection. */
    struct Reply {
        std::string bytes;
        bool close = false;        /* after the bytes */
        double before_s = 0.0;     /* waits this long first */
        double between_s = 0.0;    /* and this long after every byte */
        bool never = false;        /* sends nothing, keeps the connection */
    };
    typedef std::function<Reply(const Request &)> Handler;

    explicit BadServer(Handler h);
    ~BadServer();
    BadServer(const BadServer &) = delete;

    int port() const { return port_; }
    int64_t requests() const { return requests_; }
    int64_t connections() const { return connections_; }
    int64_t most_at_once() const { return most_; }
    std::vector<double> times(); /* of the requests, s */
    std::vector<Request> seen();

    /** A reply with length, of HTTP/1.1. */
    static Reply reply(int status, const std::string &body, const std::string &headers = "");

private:
    void accept_all();
    void serve(int fd, int64_t connection);
    bool wait(double s, int fd);
    Handler handler_;
    int listener_ = -1, port_ = 0;
    std::atomic<bool> quit_{false};
    std::atomic<int64_t> requests_{0}, connections_{0}, now_{0}, most_{0};
    std::mutex lock_;
    std::vector<std::thread> threads_; /* lock */
    std::set<int> open_;               /* lock */
    std::vector<double> times_;        /* lock */
    std::vector<Request> seen_;        /* lock */
    std::thread acceptor_;
};

} // namespace mt
