/* Step types that come with the program but lie in modules of their own, since they need libraries that the core does not. */
#ifndef STM_PLUGIN_MODULES_H
#define STM_PLUGIN_MODULES_H

#include "plugin/step.h"

MILL_BEGIN_DECLS

/**
 * Make step type @p name known if it lies in a module: opened from $STEPMILL_MODULES (a folder), the folder of the library, or
 * `stepmill/` beside it. MILL_OK also for names that lie in no module, and for types known already.
 * MILL_ERR_UNSUPPORTED: the module is not there, or cannot be opened; @p err says what it would take.
 */
mill_status stm_registry_want(stm_registry *reg, const char *name, mill_error *err);

/** All of them that are there; those that are not are left out. Only NOMEM is an error. */
mill_status stm_registry_want_all(stm_registry *reg, mill_error *err);

/** The name nearest to @p name among types that are known and those that lie in modules; NULL = none is near. */
const char *stm_registry_nearest(const stm_registry *reg, const char *name);

MILL_END_DECLS

#endif
