/* Calls what nobody defines: cannot be opened. */
#include "stepmill/step.h"

const mill_plugin *nobody_has_this(void);
MILL_PLUGIN_EXPORT const mill_plugin *mill_plugin_v1(void);
const mill_plugin *mill_plugin_v1(void) { return nobody_has_this(); }
