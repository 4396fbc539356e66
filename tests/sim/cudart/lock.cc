// The runtime's lock and its sleepers, from atomics and futexes: a mutex would be seen by ThreadSanitizer, which would then take
// every call of the runtime for an ordering of the program's memory. What the lock holder does to its own state (and what
// intercepted functions like memcpy do on its behalf) TSan is told to ignore.
#include "../exec/sanitizer.h"
#include "state.h"
#include <cerrno>
#include <climits>
#include <ctime>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace sim {

static std::atomic<int> lock_word{0}; // 0 free, 1 held, 2 held and wanted

static long futex(std::atomic<int> *word, int op, int value, const timespec *timeout = nullptr)
{
    return syscall(SYS_futex, reinterpret_cast<int *>(word), op | FUTEX_PRIVATE_FLAG, value, timeout, nullptr, 0);
}

static void acquire()
{
    int seen = 0;
    if (!lock_word.compare_exchange_strong(seen, 1)) {
        if (seen != 2) seen = lock_word.exchange(2);
        while (seen != 0) {
            futex(&lock_word, FUTEX_WAIT, 2);
            seen = lock_word.exchange(2);
        }
    }
    stm_sim_ignore(true);
}

static void release()
{
    stm_sim_ignore(false);
    if (lock_word.exchange(0) == 2) futex(&lock_word, FUTEX_WAKE, 1);
}

void let_go() { release(); }
void take_again() { acquire(); }

Lock::Lock() { acquire(); }
Lock::~Lock() { release(); }

void sleep_on(Gate *gate, int timeout_ms, bool *timed_out)
{
    const int epoch = gate->epoch.load();
    timespec t = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
    gate->sleepers++;
    release();
    const long r = futex(&gate->epoch, FUTEX_WAIT, epoch, timeout_ms < 0 ? nullptr : &t);
    const bool late = r != 0 && errno == ETIMEDOUT;
    acquire();
    gate->sleepers--;
    if (timed_out) *timed_out = late;
}

void wake(Gate *gate)
{
    gate->epoch++;
    if (gate->sleepers) futex(&gate->epoch, FUTEX_WAKE, INT_MAX);
}

static Gate everybody; // host threads that wait for records, library ranks that wait for each other

void notify() { wake(&everybody); }

bool wait(int timeout_ms)
{
    bool late = false;
    sleep_on(&everybody, timeout_ms, &late);
    return !late;
}

} // namespace sim
