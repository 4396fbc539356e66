#include "trace/progress.h"

#include <stdio.h>
#include <string.h>

#include "stepmill/run.h"
#include "stepmill/step.h"

char *stm_show_grouped(int64_t v, char *buf, size_t size)
{
    char digits[32];
    const int n = snprintf(digits, sizeof digits, "%lld", (long long)v);
    size_t at = 0;

    for (int i = 0; i < n && at + 2 < size; i++) {
        if (i > 0 && (n - i) % 3 == 0 && digits[i - 1] != '-') buf[at++] = ',';
        buf[at++] = digits[i];
    }
    buf[at] = '\0';
    return buf;
}

/* Where the work is once all rows are made: the first step that has some left. NULL before, and after the end. */
static const stm_picture_step *at_work(const stm_picture *p)
{
    const stm_picture_step *at = NULL;

    if (p->state != STM_PICTURE_RUNNING) return NULL;
    for (int32_t i = 0; i < p->n_steps; i++) {
        const stm_picture_step *s = &p->steps[i];
        if (s->phase == STM_PHASE_DONE || s->phase == STM_PHASE_FAILED) continue;
        if (s->kind == MILL_GENERATOR) return NULL;
        if (at == NULL) at = s;
    }
    return at;
}

static void headline(const stm_picture *p, stm_text *t)
{
    const stm_picture_sums s = stm_picture_add_up(p);
    const stm_picture_step *at = at_work(p);
    char a[32], b[32], c[48];

    stm_text_addf(t, "%s: ", stm_show_seconds(p->seconds, c, sizeof c));
    for (int32_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].phase == STM_PHASE_LOADING) {
            stm_text_addf(t, "loading %s, ", p->steps[i].name);
            break;
        }
    stm_text_addf(t, "%s", stm_show_grouped(s.rows_in, a, sizeof a));
    if (s.rows_total >= (double)s.rows_in && s.rows_total > 0)
        stm_text_addf(t, " of %s", stm_show_grouped((int64_t)(s.rows_total + 0.5), b, sizeof b));
    stm_text_addf(t, " rows in, %s out, ", stm_show_grouped(s.rows_out, a, sizeof a));
    if (at != NULL) stm_text_addf(t, "%s at %s, ", at->name, stm_show_grouped(at->rows_in, a, sizeof a));
    stm_text_addf(t, "%s rows/s", stm_show_grouped((int64_t)((at != NULL ? at->rate : s.rate) + 0.5), b, sizeof b));
    if (s.rows_failed > 0)
        stm_text_addf(t, ", %s row%s failed", stm_show_grouped(s.rows_failed, a, sizeof a), s.rows_failed == 1 ? "" : "s");
    if (s.eta_s > 0 || (s.eta_s == 0 && !s.more))
        stm_text_addf(t, ", %s%s left", s.more ? "at least " : "", stm_show_seconds(s.eta_s, c, sizeof c));
}

void stm_progress_line(const stm_picture *p, stm_text *t)
{
    headline(p, t);
    stm_text_add(t, "\n", 1);
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

enum { COLUMNS = 11, CELL = 32 };

static const struct column {
    const char *head;
    int least; /* width */
    bool left;
    int weight; /* those of the least go first when the terminal is narrow */
} columns[COLUMNS] = {
    {"step", 4, true, 99},     {"", 7, true, 70},        {"replicas", 8, false, 10}, {"rows", 9, false, 90},
    {"rows/s", 7, false, 80},  {"queued", 7, false, 60}, {"busy", 5, false, 75},     {"starved", 7, false, 40},
    {"blocked", 7, false, 41}, {"failed", 6, false, 65}, {"left", 6, false, 50},
};

static void percent(double share, char *buf)
{
    snprintf(buf, CELL, "%.0f %%", share <= 0 ? 0.0 : share >= 1 ? 100.0 : share * 100);
}

static void cells(const stm_picture_step *s, char cell[COLUMNS][CELL])
{
    const bool source = s->kind == MILL_GENERATOR, moved = s->busy + s->starved + s->blocked + s->crowded > 0;

    snprintf(cell[0], CELL, "%.31s", s->name);
    snprintf(cell[1], CELL, "%s", s->kept ? "kept" : stm_phase_names[s->phase]);
    if (s->phase == STM_PHASE_LOADING || s->phase == STM_PHASE_RUNNING)
        snprintf(cell[2], CELL, "%d/%d", s->loaded, s->replicas);
    else
        snprintf(cell[2], CELL, "%d", s->replicas);
    stm_show_grouped(source ? s->rows_out : s->rows_in, cell[3], CELL);
    stm_show_grouped((int64_t)(s->rate + 0.5), cell[4], CELL);
    if (source)
        snprintf(cell[5], CELL, "-");
    else
        stm_show_grouped(s->queued_rows, cell[5], CELL);
    for (int i = 6; i < 9; i++) snprintf(cell[i], CELL, "-");
    if (moved) percent(s->busy, cell[6]), percent(s->starved, cell[7]), percent(s->blocked, cell[8]);
    stm_show_grouped(s->rows_failed, cell[9], CELL);
    if (s->eta_s >= 0 && s->phase == STM_PHASE_RUNNING)
        stm_show_seconds(s->eta_s, cell[10], CELL);
    else
        snprintf(cell[10], CELL, "-");
}

/* Colour of a cell; NULL = none. */
static const char *paint(const stm_picture_step *s, int c)
{
    if (c == 1 && s->phase == STM_PHASE_FAILED) return "\033[31m";
    if (c == 1 && s->phase == STM_PHASE_RUNNING) return "\033[32m";
    if (c == 1 && s->phase == STM_PHASE_LOADING) return "\033[33m";
    if (c == 6 && s->busy >= 0.8) return "\033[1m";
    if (c == 9 && s->rows_failed > 0) return "\033[31m";
    if (s->phase == STM_PHASE_DONE || s->phase == STM_PHASE_WAITING) return "\033[2m";
    return NULL;
}

/* How many columns @p n bytes take, when every character is one wide. */
static int wide(const char *text, size_t n)
{
    int w = 0;

    for (size_t i = 0; i < n; i++) w += ((unsigned char)text[i] & 0xc0) != 0x80;
    return w;
}

/* Ends the line that opened at byte `from` and has no colours, cut to `width` columns. */
static void end_plain(stm_text *t, size_t from, int width)
{
    if (t->failed || t->data == NULL) return;
    while (width > 0 && t->bytes > from && wide(t->data + from, t->bytes - from) > width) t->data[--t->bytes] = '\0';
    stm_text_add(t, "\n", 1);
}

/* Which steps have a line when not all have: those that failed, then those that run, in their order. */
static bool shown(const stm_picture *p, int32_t i, int32_t room)
{
    int32_t ahead = 0;

    if (p->n_steps <= room) return true;
    for (int32_t k = 0; k < p->n_steps; k++) {
        static const int rank[STM_PHASES] = {4, 1, 2, 3, 0};
        const int a = rank[p->steps[k].phase], b = rank[p->steps[i].phase];
        ahead += a < b || (a == b && k < i);
    }
    return ahead < room;
}

int stm_progress_table(const stm_picture *p, int width, int height, bool colour, stm_text *t)
{
    char cell[COLUMNS][CELL];
    int w[COLUMNS], sum = -2, lines = 2;
    const int32_t room = height > 0 && p->n_steps > height - 2 ? (height > 4 ? height - 3 : 1) : p->n_steps;
    size_t from = t->bytes;

    for (int c = 0; c < COLUMNS; c++) w[c] = columns[c].least;
    for (int32_t i = 0; i < p->n_steps; i++) {
        if (!shown(p, i, room)) continue;
        cells(&p->steps[i], cell);
        for (int c = 0; c < COLUMNS; c++)
            if ((int)strlen(cell[c]) > w[c]) w[c] = (int)strlen(cell[c]);
    }
    for (int c = 0; c < COLUMNS; c++) sum += w[c] + 2;
    while (width > 0 && sum > width) {
        int least = 0;
        for (int c = 1; c < COLUMNS; c++)
            if (w[c] > 0 && (w[least] == 0 || columns[c].weight < columns[least].weight)) least = c;
        if (least == 0) { /* the name is all that is left */
            w[0] = width;
            break;
        }
        sum -= w[least] + 2;
        w[least] = 0;
    }
    headline(p, t);
    end_plain(t, from, width);
    if (colour) stm_text_addf(t, "\033[2m");
    from = t->bytes;
    for (int c = 0; c < COLUMNS; c++)
        if (w[c] > 0) stm_text_addf(t, "%s%*s", c > 0 ? "  " : "", columns[c].left ? -w[c] : w[c], columns[c].head);
    if (colour) {
        stm_text_addf(t, "\033[0m\n");
    } else {
        end_plain(t, from, width);
    }
    for (int32_t i = 0; i < p->n_steps; i++) {
        const stm_picture_step *s = &p->steps[i];

        if (!shown(p, i, room)) continue;
        cells(s, cell);
        for (int c = 0; c < COLUMNS; c++) {
            const char *on = colour ? paint(s, c) : NULL;
            const int fill = w[c] - (int)strlen(cell[c]);

            if (w[c] == 0) continue;
            stm_text_addf(t, "%s%*s%s%.*s%s%*s", c > 0 ? "  " : "", columns[c].left || fill < 0 ? 0 : fill, "",
                          on != NULL ? on : "", w[c], cell[c], on != NULL ? "\033[0m" : "", columns[c].left && fill > 0 ? fill : 0,
                          "");
        }
        stm_text_add(t, "\n", 1);
        lines++;
    }
    if (room < p->n_steps) {
        from = t->bytes;
        stm_text_addf(t, "(%d more steps)", (int)(p->n_steps - room));
        end_plain(t, from, width);
        lines++;
    }
    return lines;
}

int stm_progress_show(const stm_picture *p, int style, int width, int height, stm_text *t)
{
    const bool colour = (style & MILL_PROGRESS_COLOUR) != 0;
    size_t from = t->bytes;
    int lines = 0;

    style &= ~MILL_PROGRESS_COLOUR;
    if (style == MILL_PROGRESS_TABLE) return stm_progress_table(p, width, height, colour, t);
    if (style == MILL_PROGRESS_JSON)
        stm_picture_write(p, t);
    else
        stm_progress_line(p, t);
    for (; t->data != NULL && from < t->bytes; from++) lines += t->data[from] == '\n';
    return lines;
}
