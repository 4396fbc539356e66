/* Lines of a list of files, one after the other, through a window that grows only for long lines. */
#ifndef STM_STEPS_IO_LINES_H
#define STM_STEPS_IO_LINES_H

#include <stdbool.h>

#include "steps/io/source.h"

MILL_BEGIN_DECLS

#define STM_LINE_PADDING 64 /* bytes readable behind a line */
#define STM_LINES_WINDOW ((size_t)256 << 10)

/** Where reading goes on: before the first byte of a line. */
typedef struct stm_place_in_files {
    uint32_t file;   /* index of the path; == number of paths at the end */
    uint64_t offset; /* byte of the decompressed contents */
    uint64_t line;   /* lines before it in that file */
} stm_place_in_files;

typedef struct stm_line {
    const char *text; /* without its newline; valid until the next call; STM_LINE_PADDING bytes behind it are readable */
    size_t bytes;
    uint32_t file;
    uint64_t number; /* 1-based, in its file */
    bool too_long;   /* longer than max_bytes: text is empty, the line was skipped */
} stm_line;

typedef struct stm_lines stm_lines;
/** @p paths is borrowed for the life of the reader. @p max_bytes: longest line that is given whole. */
mill_status stm_lines_create(const char *const *paths, size_t n, size_t max_bytes, stm_lines **out, mill_error *err);
void stm_lines_destroy(stm_lines **l);
/** Go on at @p at; its file is opened by the next call of stm_lines_next. */
void stm_lines_goto(stm_lines *l, const stm_place_in_files *at);
/** The place behind the last line given. */
stm_place_in_files stm_lines_place(const stm_lines *l);
/** What share of all files is read, 0 .. 1, each counted alike; < 0 = unknown. */
double stm_lines_share(const stm_lines *l);
/** The next line that has more than white space; *end = true behind the last one. A byte order mark at the start of a
 *  file is left out. No allocation but for a line longer than any before. Threads: owner. Blocks: on the disk. */
mill_status stm_lines_next(stm_lines *l, stm_line *out, bool *end, mill_error *err);

MILL_END_DECLS

#endif
