/* report.html: one file that shows a run to a person. It asks for nothing from anywhere, and all of it is there without scripts. */
#ifndef STM_TRACE_REPORT_H
#define STM_TRACE_REPORT_H

#include "trace/picture.h"

/**
 * @param facts   run.json as a tree: pipeline, command line, devices; NULL = not there.
 * @param errors  errors.jsonl; NULL = not there.
 */
void stm_report_write(const stm_picture *p, const stm_tree *facts, const char *errors, size_t errors_bytes, stm_text *out);

/** Text with the five characters that HTML gives a meaning escaped, and control characters left out. */
void stm_html_text(stm_text *t, const char *text);
/* report_graph.c: steps as boxes, what flowed between them; what every replica did, over time. SVG. */
void stm_report_graph(const stm_picture *p, stm_text *t);
void stm_report_timeline(const stm_picture *p, stm_text *t);
/* report_style.c */
extern const char stm_report_style[];

#endif
