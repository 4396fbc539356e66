/* What tests leave out under sanitizers, where all of it would take minutes to hours. The entries of ctest that end in .all (label
 * slow) do all of it. */
#pragma once
#include <cstddef>
#include <cstdlib>
#include <vector>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MT_SANITIZED 2
#elif __has_feature(address_sanitizer)
#define MT_SANITIZED 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define MT_SANITIZED 2
#elif defined(__SANITIZE_ADDRESS__)
#define MT_SANITIZED 1
#endif
#ifndef MT_SANITIZED
#define MT_SANITIZED 0
#endif

namespace mt {

constexpr bool kAddressSanitizer = MT_SANITIZED == 1, kThreadSanitizer = MT_SANITIZED == 2, kSanitized = MT_SANITIZED != 0;

/** Whether a test that is slow under @p sanitizer (one of the above) leaves cases out. */
inline bool leaves_out(bool sanitizer = kSanitized) { return sanitizer && getenv("STM_TEST_ALL") == nullptr; }

/** Whether a test that leaves cases out in every build (stm_all_cases(every ...)) does all of them here. */
inline bool does_every_case() { return getenv("STM_TEST_ALL") != nullptr; }

/** A number of rounds, a size or a stride: fewer under a sanitizer, which looks for what a part of the rounds shows. */
template <class T>
T rounds(T all, T few)
{
    return leaves_out() ? few : all;
}
/** The rows of a table; under a sanitizer the first and each @p nth behind it. */
template <class T, size_t n>
std::vector<T> rows_of(const T (&table)[n], size_t nth)
{
    std::vector<T> v;
    for (size_t i = 0; i < n; i += rounds<size_t>(1, nth)) v.push_back(table[i]);
    return v;
}

} // namespace mt
