#include <math.h>

#include "kernels/row_ops_forms.h"

#define FORM(name) generic_##name
#define TARGET
#define LEVEL 0
#include "kernels/row_ops_form.h"

const stm_row_ops stm_row_ops_generic = {generic_embed, generic_add_norm, generic_gelu, generic_pool_rows};
