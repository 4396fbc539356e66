#include "core/alloc.h"
#include "kernels/linear.h"
#include "kernels/row_ops.h"

struct stm_linear {
    bool invariant; /* it always is */
};

void stm_linear_ref(const stm_linear_args *a)
{
    for (int64_t i = 0; i < a->m; i++)
        for (int64_t j = 0; j < a->n; j++) {
            double sum = a->bias != NULL ? stm_real_at(a->bias, a->type, j) : 0.0;
            for (int64_t p = 0; p < a->k; p++)
                sum += stm_real_at(a->x, a->type, i * a->ldx + p) * stm_real_at(a->w, a->type, j * a->ldw + p);
            stm_real_put(a->out, a->type, i * a->ldo + j, a->act == STM_LINEAR_GELU_TANH ? stm_gelu_ref(sum, STM_GELU_TANH) : sum);
        }
}

mill_status stm_linear_open_cpu(const stm_linear_opts *o, stm_linear **out, mill_error *err)
{
    stm_linear *l = stm_calloc(sizeof *l);

    if (l == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for products");
    l->invariant = o->invariant;
    *out = l;
    return MILL_OK;
}

void stm_linear_close_cpu(stm_linear **l)
{
    stm_free(*l);
    *l = NULL;
}

mill_status stm_linear_cpu(stm_linear *l, const stm_linear_args *a, void *stream, mill_error *err)
{
    (void)l, (void)stream;
    if (!stm_linear_fits(a)) return mill_fail(err, MILL_ERR_INVALID, "a product that the contract excludes");
    stm_linear_ref(a);
    return MILL_OK;
}
