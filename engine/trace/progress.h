/* A picture of a run as text for people: a line, or a table with a row per step. */
#ifndef STM_TRACE_PROGRESS_H
#define STM_TRACE_PROGRESS_H

#include "trace/picture.h"

/** How a run is, in one line with its newline. */
void stm_progress_line(const stm_picture *p, stm_text *out);
/**
 * A table at most @p width columns wide (0 = as wide as it is; columns of little weight go first) and @p height lines high (0 = no
 * limit: else steps that are at rest are left out first). Gives the number of its lines.
 */
int stm_progress_table(const stm_picture *p, int width, int height, bool colour, stm_text *out);
/** By a style of stepmill/run.h: a table, progress.json or a line, with or without colours; the number of lines. */
int stm_progress_show(const stm_picture *p, int style, int width, int height, stm_text *out);
/** 1234567 as "1,234,567" into buf. */
char *stm_show_grouped(int64_t v, char *buf, size_t size);

#endif
