/* Columns of a step while it is configured: what is behind mill_io. */
#ifndef STM_PLUGIN_IO_H
#define STM_PLUGIN_IO_H

#include "plugin/config.h"

typedef struct stm_seen_column { /* a column of the row that input 0 shows */
    const char *name;            /* of the arriving schema */
    const mill_type *type;
    int32_t input, column;
    bool dropped;
} stm_seen_column;

struct mill_io {
    mill_step *step; /* its inputs, outputs are filled in here */
    const stm_step_spec *spec;
    stm_seen_column *seen;
    int32_t n_seen;
    bool side_by_side; /* input 0 shows the joined row; false for globals */
    bool pass;
    bool *in_taken, *out_taken; /* [n_map_in], [n_map_out] the mapping was for a declared name */
};

/** Copy the arriving schemas into io->step, unite or join them, declare the descriptor's columns. io zeroed but for step, spec. */
mill_status stm_io_open(mill_io *io, mill_error *err);
/** After configure: check that mappings were used and names are unique, work out the leaving schema. */
mill_status stm_io_close(mill_io *io, mill_error *err);
void stm_io_fini(mill_io *io);
/** Whether @p type is what the text form @p wanted asks for; MILL_ERR_TYPE if not, MILL_ERR_PARSE if @p wanted is no type. */
mill_status stm_type_matches(const mill_type *type, const char *wanted, mill_error *err);

#endif
