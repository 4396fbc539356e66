/*
 * Expressions over columns, for filters and routers:
 *
 *     length(text) > 20 and (lang == "en" or lang is null) and not title matches "^draft"
 *
 *   or, and, not            three-valued, as in SQL: null means "not known"; `a or true` is true whatever a is
 *   == != < <= > >=         numbers, texts (by bytes), bools (== and != only)
 *   x is null, x is not null
 *   x in (1, 2, 3), x not in (...)
 *   a contains b, a starts_with b, a ends_with b       texts
 *   a matches "regex"       PCRE2; finds it anywhere in a
 *   + - * / %               numbers; whole numbers stay whole but for /; a division by zero or an overflow is null
 *   length(x)               characters of a text, items of a list
 *   bytes(x)                bytes of a text
 *   "text", 'text' with \n \t \\ \" \'; numbers; true, false, null; column names; `any name` in back quotes
 *
 * An expression is compiled once, with its types checked; evaluation goes node by node over all rows of a batch.
 */
#ifndef STM_STEPS_EXPR_EXPR_H
#define STM_STEPS_EXPR_EXPR_H

#include "stepmill/batch.h"

MILL_BEGIN_DECLS

typedef struct stm_expr stm_expr;
typedef struct stm_expr_run stm_expr_run;

/** Find column @p name: its type, and its place in the batches to come. On failure fills @p err (the place in the text is
 *  added). */
typedef mill_status (*stm_expr_lookup)(void *user, const char *name, const mill_type **type, int32_t *index, mill_error *err);

/**
 * Compile @p text to an expression that gives a bool. A fault is MILL_ERR_PARSE, _TYPE or _NOT_FOUND with a message that opens
 * with "character N: ". The caller owns *out. Threads: any.
 */
mill_status stm_expr_compile(const char *text, stm_expr_lookup lookup, void *user, stm_expr **out, mill_error *err);
void stm_expr_destroy(stm_expr **e);

/** Scratch to evaluate @p e (borrowed for its life) with; one thread at a time. */
mill_status stm_expr_run_create(const stm_expr *e, stm_expr_run **out);
void stm_expr_run_destroy(stm_expr_run **run);
/** Evaluate over all rows of @p batch: *result [rows] is 1 true, 0 false, 2 null; valid until the next call.
 *  MILL_ERR_NOMEM; MILL_ERR_DATA when a regular expression gives up on a text. No allocation in the steady state. */
mill_status stm_expr_eval(stm_expr_run *run, const mill_batch *batch, const uint8_t **result, mill_error *err);

MILL_END_DECLS

#endif
