/* The table of kernels of a backend, with device memory that has guards behind it. */
#pragma once
#include "device/backend.h"

extern "C" {
#include "kernels/kernels.h"
}

namespace mt {

class KernelTable : public ::testing::TestWithParam<const char *> {
protected:
    static constexpr char kGuard = 0x5a;
    static constexpr size_t kGuardBytes = 64;

    void SetUp() override
    {
        std::string why;
        ops = backend(GetParam(), &why);
        if (ops == nullptr) GTEST_SKIP() << GetParam() << ": " << why;
        kernels = stm_kernels_of(ops);
        ASSERT_NE(kernels, nullptr);
        dev = std::make_unique<Device>(ops);
        stream = std::make_unique<Stream>(*dev);
    }
    void TearDown() override
    {
        held.clear();
        stream.reset();
        dev.reset();
    }
    /* On the device, with guards behind. */
    template <class T> T *put(const std::vector<T> &v)
    {
        held.push_back(std::make_unique<Memory>(*dev, STM_MEM_DEVICE, v.size() * sizeof(T) + kGuardBytes));
        T *p = held.back()->template as<T>();
        EXPECT_EQ(stm_stream_fill(*stream, p, kGuard, v.size() * sizeof(T) + kGuardBytes, nullptr), MILL_OK);
        EXPECT_EQ(stm_stream_copy(*stream, p, v.data(), v.size() * sizeof(T), nullptr), MILL_OK);
        EXPECT_EQ(stm_stream_sync(*stream, nullptr), MILL_OK);
        return p;
    }
    template <class T> std::vector<T> get(const T *p, size_t n)
    {
        std::vector<T> v(n);
        std::vector<char> all(n * sizeof(T) + kGuardBytes);
        mill_error err = {};
        EXPECT_EQ(stm_stream_copy(*stream, all.data(), p, all.size(), &err), MILL_OK) << err.msg;
        EXPECT_EQ(stm_stream_sync(*stream, &err), MILL_OK) << err.msg;
        if (n > 0) memcpy(static_cast<void *>(v.data()), all.data(), n * sizeof(T));
        for (size_t i = n * sizeof(T); i < all.size(); i++) EXPECT_EQ(all[i], kGuard) << "wrote past the end";
        return v;
    }
    void *native() { return stm_stream_native(*stream); }

    const stm_device_ops *ops = nullptr;
    const stm_kernels *kernels = nullptr;
    std::unique_ptr<Device> dev;
    std::unique_ptr<Stream> stream;
    std::vector<std::unique_ptr<Memory>> held;
};

} // namespace mt
