#include "steps/expr/lookup.h"

mill_status stm_expr_lookup_io(void *user, const char *name, const mill_type **type, int32_t *index, mill_error *err)
{
    mill_io *io = user;
    const mill_status st = mill_io_use(io, 0, name, "any", index, err);

    if (st == MILL_OK) *type = mill_io_used_type(io, 0, *index);
    return st;
}
