/* A communicator over n devices, with a stream each and buffers, for the tests of this folder. */
#pragma once
#include "device/backend.h"

extern "C" {
#include "comm/comm.h"
}

namespace mt {

/** The library that the suite is built for, or NULL with the reason why not. */
inline const stm_comm_ops *comm_library(const char *name, std::string *why)
{
    const stm_comm_ops *ops = nullptr;
    mill_error err = {};
    if (backend(strcmp(name, "cpu") == 0 ? "cpu" : "cuda", why) == nullptr) return nullptr;
    if (stm_comm_find(name, &ops, &err) == MILL_OK) return ops;
    *why = err.msg;
    if (getenv("STM_TEST_DEVICES") != nullptr) ADD_FAILURE() << *why;
    return nullptr;
}

/** n devices and streams. */
class Ranks {
public:
    Ranks(const stm_comm_ops *ops, int n) : n_(n)
    {
        std::string why;
        const stm_device_ops *dev = backend(ops->backend, &why);
        for (int r = 0; r < n; r++) {
            /* the one cpu device stands for as many as are wanted */
            devices_.push_back(std::make_unique<Device>(dev, strcmp(ops->backend, "cpu") == 0 ? 0 : r));
            streams_.push_back(std::make_unique<Stream>(*devices_.back()));
            list_.push_back(*streams_.back());
        }
    }
    int n() const { return n_; }
    stm_device *device(int r) const { return *devices_[static_cast<size_t>(r)]; }
    stm_stream *stream(int r) const { return list_[static_cast<size_t>(r)]; }
    stm_stream *const *streams() const { return list_.data(); }

private:
    int n_;
    std::vector<std::unique_ptr<Device>> devices_;
    std::vector<std::unique_ptr<Stream>> streams_;
    std::vector<stm_stream *> list_;
};

/** An open and connected communicator. */
class Comm {
public:
    Comm(const stm_comm_ops *ops, const Ranks &ranks, int64_t timeout_ns = 0)
    {
        mill_error err = {};
        EXPECT_EQ(stm_comm_open(ops, ranks.streams(), ranks.n(), timeout_ns, &c_, &err), MILL_OK) << err.msg;
        EXPECT_EQ(stm_comm_wait(c_, &err), MILL_OK) << err.msg;
    }
    ~Comm() { stm_comm_close(&c_); }
    Comm(const Comm &) = delete;
    Comm &operator=(const Comm &) = delete;
    operator stm_comm *() const { return c_; }

private:
    stm_comm *c_ = nullptr;
};

/** Device memory of one rank with a pinned copy of it. */
class Buffer {
public:
    Buffer(const Ranks &ranks, int rank, size_t bytes)
        : stream_(ranks.stream(rank)), bytes_(bytes), there_(ranks.device(rank), STM_MEM_DEVICE, bytes + 1),
          here_(ranks.device(rank), STM_MEM_PINNED, bytes + 1)
    {
        memset(here_.as(), 0x5a, bytes);
    }
    char *host() { return here_.as(); }
    void *device() { return there_.as(); }
    void up()
    {
        mill_error err = {};
        EXPECT_EQ(stm_stream_copy(stream_, there_.as(), here_.as(), bytes_, &err), MILL_OK) << err.msg;
    }
    void down()
    {
        mill_error err = {};
        EXPECT_EQ(stm_stream_copy(stream_, here_.as(), there_.as(), bytes_, &err), MILL_OK) << err.msg;
        idle();
    }
    /** Nothing queued uses the pinned side any more: it may be written. */
    void idle()
    {
        mill_error err = {};
        EXPECT_EQ(stm_stream_sync(stream_, &err), MILL_OK) << err.msg;
    }

private:
    stm_stream *stream_;
    size_t bytes_;
    Memory there_, here_;
};

inline stm_comm_call call_of(stm_comm_kind kind, int rank, int64_t count, const void *send, void *recv, int peer = 0,
                             stm_comm_type type = STM_COMM_F32, stm_comm_op op = STM_COMM_SUM)
{
    stm_comm_call c = {};
    c.kind = kind;
    c.type = type;
    c.op = op;
    c.rank = rank;
    c.peer = peer;
    c.count = count;
    c.send = send;
    c.recv = recv;
    return c;
}

} // namespace mt
