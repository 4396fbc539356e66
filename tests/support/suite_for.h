/* A suite is compiled once and linked into one program a backend. */
#pragma once

namespace mt {

/** What this program runs its suite for: "cpu", "cuda", "nccl"; a constant (stm_suite_for of cmake/functions.cmake). */
const char *suite_for();

} // namespace mt
