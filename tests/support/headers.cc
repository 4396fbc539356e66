/* Nothing but the compiled headers. */
#include "headers.h"
