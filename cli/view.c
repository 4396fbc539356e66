#include "view.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

#define TABLE_S 0.25 /* between two frames */
#define LINE_S 10.0  /* between two lines where nobody may be looking */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* the screen; log lines come from any thread */
static view *shown;                                      /* lock */

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void size_of_screen(int *width, int *height)
{
    struct winsize w;

    *width = 100;
    *height = 50;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) != 0) return;
    if (w.ws_col > 10) *width = w.ws_col;
    if (w.ws_row > 4) *height = w.ws_row;
}

/* To the terminal at once: a frame that comes in pieces flickers. */
static void put(const char *text, size_t n)
{
    while (n > 0) {
        const ssize_t k = write(STDERR_FILENO, text, n);

        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return;
        text += k;
        n -= (size_t)k;
    }
}

/* How far up the table begins: its lines have been broken into several where the window became narrower. Into buf; its length. */
static int go_up(const view *v, int width, char *buf, size_t size)
{
    int rows = 0;

    if (v->drawn == 0) return 0;
    for (int i = 0; i < v->drawn; i++) rows += v->wide[i] > width ? (v->wide[i] + width - 1) / width : 1;
    return snprintf(buf, size, "\r\033[%dA\033[J", rows);
}

/* Columns of every line; colours take none, and any character is taken to be one wide. */
static int measure(const char *text, int *wide)
{
    int n = 0;

    for (; *text != '\0' && n < VIEW_LINES; n++) {
        wide[n] = 0;
        for (; *text != '\0' && *text != '\n'; text++) {
            if (*text == '\033') {
                while (*text != '\0' && *text != 'm') text++;
                if (*text == '\0') break;
            } else {
                wide[n] += ((unsigned char)*text & 0xc0) != 0x80;
            }
        }
        if (*text == '\n') text++;
    }
    return n;
}

/* lock */
static void frame(view *v)
{
    int lines = 0, width, height;
    char up[32], *all;
    size_t n, text_bytes;
    const char *text;

    size_of_screen(&width, &height);
    if (height > VIEW_LINES) height = VIEW_LINES;
    text = v->source(v->user, v->table, v->colour, width - 1, v->table ? height - 1 : 0, &lines);
    text_bytes = strlen(text);
    n = v->table ? (size_t)go_up(v, width, up, sizeof up) : 0;
    if ((all = malloc(n + text_bytes + 1)) == NULL) return;
    memcpy(all, up, n);
    memcpy(all + n, text, text_bytes);
    put(all, n + text_bytes);
    free(all);
    v->drawn = v->table ? measure(text, v->wide) : 0;
}

/* A line of the engine's log: above the table. */
static void log_line(int level, const char *who, const char *line, void *user)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    char up[32];
    int width, height;

    (void)user;
    pthread_mutex_lock(&lock);
    if (shown != NULL && shown->drawn > 0) {
        size_of_screen(&width, &height);
        put(up, (size_t)go_up(shown, width, up, sizeof up));
        shown->drawn = 0;
    }
    fprintf(stderr, "stepmill: %s: %s%s%s\n", names[level >= 0 && level <= 3 ? level : 1], who, *who != '\0' ? ": " : "", line);
    fflush(stderr);
    pthread_mutex_unlock(&lock);
}

static void warning_line(int level, const char *who, const char *line, void *user)
{
    if (level >= MILL_WARN) log_line(level, who, line, user);
}

void view_hush(void) { mill_log_to(warning_line, NULL); }

void view_start(view *v, view_source source, void *user, bool quiet)
{
    const char *term = getenv("TERM");

    *v = (view){.source = source, .user = user, .quiet = quiet, .colour = cli_colour()};
    v->table = isatty(STDERR_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
    v->next = now() + (v->table ? TABLE_S : LINE_S);
    if (!v->table || quiet) return;
    pthread_mutex_lock(&lock);
    shown = v;
    pthread_mutex_unlock(&lock);
    mill_log_to(log_line, NULL);
}

void view_draw(view *v)
{
    const double t = now();

    if (v->quiet || t < v->next) return;
    v->next = t + (v->table ? TABLE_S : LINE_S);
    pthread_mutex_lock(&lock);
    frame(v);
    pthread_mutex_unlock(&lock);
}

void view_end(view *v)
{
    if (!v->table || v->quiet) return;
    pthread_mutex_lock(&lock);
    if (v->drawn > 0) frame(v);
    shown = NULL;
    pthread_mutex_unlock(&lock);
}
