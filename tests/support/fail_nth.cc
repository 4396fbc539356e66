#include "support/fail_nth.h"

namespace mt {
long live() { return stm_alloc_counts().live; }
} // namespace mt
