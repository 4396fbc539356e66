/* One slow walk over a line of JSON, to say where it is wrong: simdjson knows that it is, and mostly not at which byte. */
#ifndef STM_STEPS_JSONL_WALK_H
#define STM_STEPS_JSONL_WALK_H

#include <cstddef>

namespace stm_jsonl_scan {

struct Walk {
    const char *fault =
        nullptr; /* the first byte that cannot stand there; the end of the line where more is missing; NULL = none */
    const char *cause = nullptr; /* of the fault, no full stop */
    const char *key = nullptr;   /* the last key of the line's object up to where the walk went, and its value; NULL = none */
    const char *value = nullptr;
};

/**
 * Walk over @p line (UTF-8, 64 readable bytes behind it) up to its first fault or to @p stop, which is inside of it, or its end.
 * Numbers that are too large are none of its faults. Allocates nothing.
 */
Walk walk(const char *line, size_t bytes, const char *stop);

} // namespace stm_jsonl_scan

#endif
