/* The parameters of one step, read and defaulted: what is behind mill_config. */
#ifndef STM_PLUGIN_CONFIG_H
#define STM_PLUGIN_CONFIG_H

#include "plugin/param.h"

struct mill_config {
    const mill_step_type *type;
    stm_param_value *values; /* [type->n_params] */
    stm_place place;         /* of the step */
    char **files;            /* names that places point to */
    size_t n_files, cap_files;
    int64_t batch_rows;
    bool row_errors; /* sinks: `errors: true` */
};

/** Read spec->params against spec->type's table. Errors as stm_step_create. */
mill_status stm_config_create(const stm_step_spec *spec, mill_config **out, mill_error *err);
void stm_config_destroy(mill_config **c);
/** Where a parameter's value says @p name (as a whole, or else as a part of it): the place of a fault that only shows when
 *  columns are looked up. false = nowhere. */
bool stm_config_locate(const mill_config *c, const char *name, stm_place *place, const char **param);

#endif
