/* The compiled form of an expression: nodes in the order of evaluation, operands before operators. */
#ifndef STM_STEPS_EXPR_NODE_H
#define STM_STEPS_EXPR_NODE_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdbool.h>

#include "steps/expr/expr.h"

MILL_BEGIN_DECLS

typedef enum stm_kind { STM_NULL, STM_BOOL, STM_WHOLE, STM_REAL, STM_STRING, STM_OTHER } stm_kind;

typedef enum stm_op {
    STM_OP_CONST, STM_OP_COLUMN,
    STM_OP_AND, STM_OP_OR, STM_OP_NOT,
    STM_OP_EQ, STM_OP_NE, STM_OP_LT, STM_OP_LE, STM_OP_GT, STM_OP_GE,
    STM_OP_IS_NULL, STM_OP_IS_NOT_NULL,
    STM_OP_CONTAINS, STM_OP_STARTS, STM_OP_ENDS, STM_OP_MATCHES,
    STM_OP_ADD, STM_OP_SUB, STM_OP_MUL, STM_OP_DIV, STM_OP_MOD, STM_OP_NEG,
    STM_OP_LENGTH, STM_OP_BYTES
} stm_op;

typedef struct stm_string {
    const char *text;
    int64_t bytes;
} stm_string;

typedef union stm_scalar {
    uint8_t truth;
    int64_t whole;
    double real;
    stm_string string;
} stm_scalar;

typedef struct stm_node {
    stm_op op;
    stm_kind kind;     /* of the result */
    int32_t a, b;      /* operands: nodes before this one; -1 = none */
    int32_t column;    /* STM_OP_COLUMN */
    stm_scalar value;  /* STM_OP_CONST; kind STM_NULL = null. Text is owned by the expression */
    pcre2_code *regex; /* STM_OP_MATCHES */
} stm_node;

struct stm_expr {
    stm_node *nodes;
    int32_t n, cap;
    char *literals; /* bytes of the texts; as long as the source, so it never moves */
    size_t literal_bytes;
};

MILL_END_DECLS

#endif
