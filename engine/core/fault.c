#include "core/fault.h"

#include <stdatomic.h>

uint32_t stm_fault_kinds;
static _Atomic int64_t remaining; /* passages before the one that fails; below 0: it has failed */
static _Atomic int fired;

void stm_fault_arm(uint32_t kinds, int64_t nth)
{
    atomic_store(&remaining, nth);
    atomic_store(&fired, 0);
    stm_fault_kinds = kinds;
}

bool stm_fault_disarm(void)
{
    stm_fault_kinds = 0;
    return atomic_load(&fired) != 0;
}

bool stm_fault_fires_slow(uint32_t kind)
{
    (void)kind;
    if (atomic_fetch_sub(&remaining, 1) != 0) return false;
    atomic_store(&fired, 1);
    return true;
}
