// What the environment says, read once.
#include "state.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace sim {

static long number(const char *name, long fallback)
{
    const char *text = getenv(name);
    return text && *text ? strtol(text, nullptr, 10) : fallback;
}
static bool is(const char *name, const char *value)
{
    const char *text = getenv(name);
    return text && strcmp(text, value) == 0;
}

static Settings read()
{
    Settings s;
    s.machine_devices = static_cast<int>(number("STM_SIM_DEVICES", 4));
    s.driver = !is("STM_SIM_DRIVER", "none");
    s.lazy = number("STM_SIM_LAZY", 0) != 0;
    s.check = !is("STM_SIM_CHECK", "off");
    s.declared = is("STM_SIM_CHECK", "declared");
    s.at_exit = !is("STM_SIM_AT_EXIT", "off");
    s.verbose = number("STM_SIM_VERBOSE", 0) != 0;
    s.peers = !is("STM_SIM_PEERS", "none");
    s.device_bytes = static_cast<size_t>(number("STM_SIM_MB", 1024)) << 20;
    s.fill_bytes = static_cast<size_t>(number("STM_SIM_FILL_KB", 64 << 10)) << 10;
    const long cc = number("STM_SIM_CC", 90);
    s.major = static_cast<int>(cc / 10);
    s.minor = static_cast<int>(cc % 10);
    s.grid.strict = number("STM_SIM_STRICT", 1) != 0;
    s.grid.spin_limit_ms = static_cast<int>(number("STM_SIM_SPIN_MS", 5000));
    const char *order = getenv("STM_SIM_ORDER");
    if (order && strcmp(order, "rev") == 0) s.grid.order.kind = Order::Reverse;
    else if (order && strncmp(order, "rand:", 5) == 0) {
        s.grid.order.kind = Order::Random;
        s.grid.order.seed = strtoull(order + 5, nullptr, 10);
    } else if (order && *order && strcmp(order, "fwd") != 0) {
        fprintf(stderr, "sim: STM_SIM_ORDER=%s is none of fwd, rev, rand:<seed>\n", order);
        exit(64);
    }
    return s;
}

const Settings &settings()
{
    static const Settings s = read();
    return s;
}

} // namespace sim
