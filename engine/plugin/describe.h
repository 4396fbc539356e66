/* Step types for people and programs: `stepmill steps list / describe`, `stepmill schema`, editors. */
#ifndef STM_PLUGIN_DESCRIBE_H
#define STM_PLUGIN_DESCRIBE_H

#include "core/text.h"
#include "plugin/step.h"

/** All that there is to say on a type, in lines of plain text: summary, flags, columns, parameters. Look at out->failed
 *  afterwards. */
void stm_describe_text(const mill_step_type *type, const char *origin, stm_text *out);
/** The same as one JSON object: {"name", "kind", "summary", "version", "origin", "flags": [..], "inputs": [{"name", "type",
 *  "text"}], "outputs": [..], "parameters": [{"name", "type", "required", "default", "min", "max", "choices", "text", "result"}]}.
 *  Defaults are JSON values of the parameter; keys that do not apply are left out. */
void stm_describe_json(const mill_step_type *type, const char *origin, stm_text *out);
/** Members of a JSON Schema (2020-12) "properties" object, one per parameter, parted by commas, without the braces: the
 *  pipeline's schema adds the keys of every step. Nothing when there are no parameters. */
void stm_describe_schema_properties(const mill_step_type *type, stm_text *out);
/** Elements of the "required" array: "path", "k". Nothing when none is. */
void stm_describe_schema_required(const mill_step_type *type, stm_text *out);
/** Keywords for one of "a|b|c". */
void stm_describe_schema_choices(const char *choices, stm_text *out);
/** Keywords for a size from @p min to @p max bytes: a whole number, or a text with a unit as stm_parse_bytes reads it. */
void stm_describe_schema_bytes(double min, double max, stm_text *out);
/** The same for a time in seconds, as stm_parse_duration reads it. @p min below 0: none is one, too. @p above: @p min itself, or 0,
 *  is too little. */
void stm_describe_schema_duration(double min, double max, bool above, stm_text *out);
/** "generator", "step", "global", "sink", "router". */
const char *stm_kind_name(int32_t kind);

#endif
