/* Make the n-th passage through fault points fail, once; and count what is alive. */
#pragma once
#include <cstdint>

extern "C" {
#include "core/alloc.h"
#include "core/fault.h"
}

namespace mt {

/** Arms fault points for its own life. */
class FailNth {
public:
    explicit FailNth(int64_t nth, uint32_t kinds = STM_FAULT_ALLOC) { stm_fault_arm(kinds, nth); }
    ~FailNth()
    {
        if (armed_) stm_fault_disarm();
    }
    FailNth(const FailNth &) = delete;
    FailNth &operator=(const FailNth &) = delete;
    /** Disarm; whether it fired. */
    bool fired()
    {
        if (armed_) fired_ = stm_fault_disarm(), armed_ = false;
        return fired_;
    }

private:
    bool armed_ = true, fired_ = false;
};

/** Blocks of the engine's allocator alive now. */
long live();

} // namespace mt
