/* One parameter: from the value in the pipeline file to what mill_config_* hands out. */
#ifndef STM_PLUGIN_PARAM_H
#define STM_PLUGIN_PARAM_H

#include "plugin/value.h"

typedef struct stm_param_entry { /* of strings, paths, map, columns */
    char *key;                   /* "" for strings and paths */
    char *text;
    const mill_type *type; /* columns */
    stm_place place;
} stm_param_entry;

typedef struct stm_param_value {
    bool present; /* given or defaulted */
    bool truth;
    int64_t whole;
    double number;
    char *text;
    stm_param_entry *entries;
    size_t n_entries, cap_entries;
    stm_place place; /* line 0 = not given */
} stm_param_value;

/** Where relative paths start. looks = false: paths are neither completed nor looked at (defaults of a descriptor). */
typedef struct stm_param_dirs {
    const char *base, *run; /* NULL = the working directory / none */
    bool looks;
} stm_param_dirs;

/** Read @p v as parameter @p p. On failure *out is empty and @p err has the place of the part at fault, what was expected, a
 *  nearest name. */
mill_status stm_param_read(const mill_param *p, const stm_value *v, const stm_param_dirs *dirs, stm_param_value *out,
                           mill_error *err);
void stm_param_value_fini(stm_param_value *v);
/** "an integer from 1 to 64", "one of f32, bf16": what a parameter takes, for people. */
void stm_param_expected(const mill_param *p, char *buf, size_t size);
/** Append an entry to @p out; texts are copied. */
mill_status stm_param_add(stm_param_value *out, const char *key, const char *text, const mill_type *type, stm_place place,
                          mill_error *err);
/** Word for a type: "int", "duration"; NULL for a number that is none. */
const char *stm_param_type_name(int32_t type);

/* path.c */

/** An existing file or folder: *out = its absolute path (stm_free). NOT_FOUND names the nearest name in its folder; INVALID: it is
 *  a pipe or the like (core/filetype.h). */
mill_status stm_path_input(const char *base, const char *path, char **out, mill_error *err);
/** What a path or glob stands for, sorted, appended to @p out as entries at @p place. */
mill_status stm_path_expand(const char *base, const char *pattern, stm_place place, stm_param_value *out, mill_error *err);
/** @p path, put behind @p base unless it is absolute (stm_free); base NULL = the working directory. */
mill_status stm_path_join(const char *base, const char *path, char **out, mill_error *err);

#endif
