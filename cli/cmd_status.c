/* status RUN: how a run is, from what it keeps in its directory. */
#include <time.h>

#include "cli.h"
#include "stepmill/watch.h"
#include "view.h"

static const char *frame(void *user, bool table, bool colour, int width, int height, int *lines)
{
    return mill_watch_show(user, (table ? MILL_PROGRESS_TABLE : MILL_PROGRESS_LINE) | (colour ? MILL_PROGRESS_COLOUR : 0), width,
                           height, lines);
}

static void say(mill_watch *w)
{
    static const char *const words[] = {"running", "done", "could not load", "failed", "stopped"};
    const mill_run_state state = mill_watch_state(w);
    int lines;

    printf("%s: ", mill_watch_name(w));
    if (state != MILL_RUN_RUNNING)
        printf("%s", words[state]);
    else if (mill_watch_live(w))
        printf("running, process %d on %s, numbers of %.1f s ago", (int)mill_watch_pid(w), mill_watch_host(w), mill_watch_age(w));
    else
        printf("nobody works on it; process %d on %s was last seen %.0f s ago. `stepmill run` goes on from there",
               (int)mill_watch_pid(w), mill_watch_host(w), mill_watch_age(w));
    printf("\n%s", mill_watch_show(w, MILL_PROGRESS_TABLE, 0, 0, &lines));
}

static void follow(mill_watch *w)
{
    view v;
    double gone = 0;

    view_start(&v, frame, w, false);
    v.next = 0; /* whoever asks is looking */
    while (mill_watch_state(w) == MILL_RUN_RUNNING && gone < CLI_GONE_S) {
        view_draw(&v);
        nanosleep(&(struct timespec){0, 250000000}, NULL);
        (void)mill_watch_look(w, NULL); /* what was read before stays */
        gone = mill_watch_live(w) ? 0 : gone + 0.25;
    }
    view_end(&v);
}

int cmd_status(const cli_args *a)
{
    mill_watch *w = NULL;
    mill_error err = {0};
    int lines;

    if (mill_watch_open(a->operands[0], &w, &err) != MILL_OK) {
        cli_say_error(a, &err);
        return MILL_EXIT_USAGE;
    }
    if (a->given[CLI_FOLLOW] && !a->given[CLI_JSON]) follow(w);
    if (a->given[CLI_JSON])
        fputs(mill_watch_show(w, MILL_PROGRESS_JSON, 0, 0, &lines), stdout);
    else
        say(w);
    mill_watch_destroy(&w);
    return MILL_EXIT_OK;
}
