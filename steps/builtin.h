/* The built-in step types: one const descriptor per file of this folder, listed in builtin.c. */
#ifndef STM_STEPS_BUILTIN_H
#define STM_STEPS_BUILTIN_H

#include "stepmill/step.h"

/** The plugin that every registry starts with. Static, never NULL. Threads: any. */
const mill_plugin *stm_builtin_steps(void);

/* One line per step type, in alphabetical order. */
extern const mill_step_type stm_step_command;
extern const mill_step_type stm_step_command_rows;
extern const mill_step_type stm_step_deduplicate;
extern const mill_step_type stm_step_embed_text;
extern const mill_step_type stm_step_explode;
extern const mill_step_type stm_step_filter;
extern const mill_step_type stm_step_limit;
extern const mill_step_type stm_step_minhash_text;
extern const mill_step_type stm_step_nearest_neighbours;
extern const mill_step_type stm_step_read_arrow;
extern const mill_step_type stm_step_read_jsonl;
extern const mill_step_type stm_step_round_robin;
extern const mill_step_type stm_step_route_by;
extern const mill_step_type stm_step_select;
extern const mill_step_type stm_step_template;
extern const mill_step_type stm_step_write_arrow;
extern const mill_step_type stm_step_write_jsonl;

#endif
