/* Inside of attention: its forms. */
#ifndef STM_KERNELS_ATTENTION_FORMS_H
#define STM_KERNELS_ATTENTION_FORMS_H

#include "kernels/attention.h"

void stm_generic_attention(const stm_attention_args *a);
void stm_avx2_attention(const stm_attention_args *a);
void stm_avx512_attention(const stm_attention_args *a);
void stm_amx_attention(const stm_attention_args *a); /* bf16 out */

#endif
