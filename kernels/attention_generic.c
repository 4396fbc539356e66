#include <math.h>

#include "kernels/attention_forms.h"

#define FORM(name) stm_generic_##name
#define TARGET
#define LEVEL 0
#include "kernels/attention_form.h"
