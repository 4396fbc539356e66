/* The backends that the contract suite runs on: cpu always, cuda when there is a device, real or simulated. */
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

extern "C" {
#include "device/copier.h"
#include "device/registry.h"
#include "device/stream.h"
}
#include "support/suite_for.h"

namespace mt {

/** The backend, or NULL with the reason why not; a failure of the test when its devices must be there (simulated ones). */
inline const stm_device_ops *backend(const std::string &name, std::string *why)
{
    stm_backend_report report;
    stm_backend_explain(name.c_str(), &report);
    if (report.devices > 0) return report.ops;
    *why = report.reason;
    if (getenv("STM_TEST_DEVICES") != nullptr) ADD_FAILURE() << name << ": " << *why;
    return nullptr;
}

/** Number of devices to use: the suite takes two where it can. */
inline int devices_of(const stm_device_ops *ops)
{
    int32_t n = 0;
    return ops->count(&n, nullptr) == MILL_OK ? n : 0;
}

/** A device for the life of a test. */
class Device {
public:
    explicit Device(const stm_device_ops *ops, int32_t ordinal = 0)
    {
        mill_error err = {};
        EXPECT_EQ(stm_device_open(ops, ordinal, &dev_, &err), MILL_OK) << err.msg;
    }
    ~Device() { stm_device_unref(&dev_); }
    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;
    operator stm_device *() const { return dev_; }

private:
    stm_device *dev_ = nullptr;
};

class Stream {
public:
    explicit Stream(stm_device *dev)
    {
        mill_error err = {};
        EXPECT_EQ(stm_stream_open(dev, &s_, &err), MILL_OK) << err.msg;
    }
    ~Stream() { stm_stream_close(&s_); }
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;
    operator stm_stream *() const { return s_; }

private:
    stm_stream *s_ = nullptr;
};

/** Memory of one kind. */
class Memory {
public:
    Memory(stm_device *dev, stm_mem_kind kind, size_t bytes) : dev_(dev), kind_(kind)
    {
        mill_error err = {};
        EXPECT_EQ(stm_device_alloc(dev, kind, bytes, &p_, &err), MILL_OK) << err.msg;
    }
    ~Memory() { stm_device_free(dev_, kind_, p_); }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    template <class T = char> T *as() const { return static_cast<T *>(p_); }

private:
    stm_device *dev_;
    stm_mem_kind kind_;
    void *p_ = nullptr;
};

/** Poll until done; false after 20 s. */
inline bool wait_for(stm_stream *s, stm_mark m)
{
    for (int i = 0; i < 200000; i++) {
        mill_error err = {};
        if (stm_stream_poll(s, &err) != MILL_OK) return false;
        if (stm_mark_done(m)) return true;
        struct timespec nap = {0, 100000};
        nanosleep(&nap, nullptr);
    }
    return false;
}

} // namespace mt
