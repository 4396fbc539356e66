/* GELU of sixteen lanes (contract: row_ops.h), for the forms of row_ops and for products that end in it. Included after what
 * lanes.h asks for is defined. */
#ifndef STM_KERNELS_GELU_FORM_H
#define STM_KERNELS_GELU_FORM_H

#include "kernels/lanes.h"
#include "kernels/row_ops.h"

/* erf(x / sqrt 2) = x P(x^2) / Q(x^2) on |x| <= 5.4, where it is 1 but for 7e-8. Coefficients fitted for the smallest
 * largest error (1.1e-8). */
LANE v16 FORM(gelu_erf)(v16 x)
{
    const v16 c = FORM(max)(FORM(min)(x, V16(5.4f)), V16(-5.4f)), z = c * c;
    v16 p = V16(4.677345089e-8f), q = V16(1.216579335e-6f);

    p = p * z + V16(1.271973451e-5f), q = q * z + V16(7.239695697e-5f);
    p = p * z + V16(3.286264546e-4f), q = q * z + V16(1.858934644e-3f);
    p = p * z + V16(9.301599115e-3f), q = q * z + V16(2.837825008e-2f);
    p = p * z + V16(6.674299389e-2f), q = q * z + V16(2.503160238e-1f);
    p = p * z + V16(7.978844643e-1f), q = q * z + V16(1.0f);
    const v16 half = V16(0.5f) * x;
    return half + half * (FORM(min)(FORM(max)(c * p / q, V16(-1.0f)), V16(1.0f)));
}

/* The same on |x| <= 4 with an error of 1e-4, for results that keep 8 bits. */
LANE v16 FORM(gelu_erf_short)(v16 x)
{
    const v16 c = FORM(max)(FORM(min)(x, V16(4.0f)), V16(-4.0f)), z = c * c;
    const v16 p = (V16(5.336405244e-3f) * z + V16(6.531861424e-2f)) * z + V16(7.977541089e-1f);
    const v16 q = ((V16(4.463877121e-4f) * z + V16(2.359975316e-2f)) * z + V16(2.479442656e-1f)) * z + V16(1.0f);
#if LEVEL >= 2
    const v16 r = (v16)_mm512_rcp14_ps((__m512)q); /* error 6e-5, the same on every processor */
#else
    const v16 r = V16(1.0f) / q;
#endif
    const v16 half = V16(0.5f) * x;
    return half + half * (c * p * r);
}

/* 0.5 (1 + tanh u) = 1 / (1 + exp(-2u)). */
LANE v16 FORM(gelu_tanh)(v16 x)
{
    const v16 u = x * (V16(1.0f) + V16(0.044715f) * x * x);
    const v16 t = V16(-2.302208198f) * u; /* -2 sqrt(2/pi) log2 e */
    return x / (V16(1.0f) + FORM(exp2)(FORM(max)(FORM(min)(t, V16(126.0f)), V16(-126.0f))));
}

LANE v16 FORM(gelu_any)(v16 x, stm_gelu_kind kind, stm_gemm_type type)
{
    if (kind == STM_GELU_TANH) return FORM(gelu_tanh)(x);
    return type == STM_GEMM_BF16 ? FORM(gelu_erf_short)(x) : FORM(gelu_erf)(x);
}

#endif
