/* What a run looks like while it goes on: a table that is drawn again and again on a terminal, a line now and then elsewhere. */
#ifndef STM_CLI_VIEW_H
#define STM_CLI_VIEW_H

#include <stdbool.h>
#include <stddef.h>

enum { VIEW_LINES = 512 };

/** Where the text of a frame comes from: *lines of it, at most @p width columns and @p height lines (table). Valid until the next
 *  call. */
typedef const char *(*view_source)(void *user, bool table, bool colour, int width, int height, int *lines);

typedef struct view {
    view_source source;
    void *user;
    bool quiet, table, colour;
    int drawn;            /* lines of the table on the screen */
    int wide[VIEW_LINES]; /* columns of each */
    double next;          /* when to show again */
} view;

/** Of the engine's log only warnings and errors are shown from here on. */
void view_hush(void);
/** On standard error; log lines of the engine are shown above the table from here on. One view at a time. */
void view_start(view *v, view_source source, void *user, bool quiet);
/** Show, if it is time for it. */
void view_draw(view *v);
/** Show the last state of a table that was shown; it stays. */
void view_end(view *v);

#endif
