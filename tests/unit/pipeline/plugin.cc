/* The step types of types.h as a plugin, for tests of the command. */
#include "types.h"

extern "C" MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);
extern "C" const mill_plugin *mill_plugin_v1(void) { return &mt::kTypes; }
