/* Parameter values as trees: helpers on stm_value (plugin/step.h). */
#ifndef STM_PLUGIN_VALUE_H
#define STM_PLUGIN_VALUE_H

#include "core/text.h"
#include "plugin/step.h"

enum { STM_VALUE_MAX_DEPTH = 64 }; /* lists and maps in each other; deeper ones are refused, so recursion is bounded */

/** Whether @p v is YAML's null: no text, or an unquoted `null` or `~`. */
bool stm_value_is_null(const stm_value *v);
/** true/false as YAML 1.2 writes them, unquoted. */
bool stm_value_as_bool(const stm_value *v, bool *out);
/** Read the one-line YAML of a default: a scalar, [list] or {map}, nested, with 'single' and "double" quotes (escapes \" \\ \n \t).
 *  Free with stm_value_free. MILL_ERR_PARSE: @p err says what is wrong where. */
mill_status stm_value_parse(const char *text, stm_value **out, mill_error *err);
void stm_value_free(stm_value **v);
/** Append as JSON text: unquoted scalars that are null, booleans or numbers stay that, all else becomes a string.
 *  MILL_ERR_TYPE: nested too deeply, or a number JSON does not have (infinity); *at = the part at fault. */
mill_status stm_value_json(const stm_value *v, stm_text *out, const stm_value **at);
/** One line for messages: the scalar, cut to a readable length, or "a list", "a map", "null". */
void stm_value_show(const stm_value *v, char *buf, size_t size);

#endif
