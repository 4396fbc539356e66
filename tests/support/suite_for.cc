#include "support/suite_for.h"

const char *mt::suite_for() { return STM_SUITE_FOR; }
