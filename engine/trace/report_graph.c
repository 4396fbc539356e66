/* The two pictures of the report. Coordinates are those of the SVG, in pixels at its own size. */
#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "stepmill/step.h"
#include "trace/progress.h"
#include "trace/report.h"

enum { NODE_W = 164, NODE_H = 78, GAP_X = 50, GAP_Y = 26, PAD = 6, MOST_NODES = 200, MOST_TRACKS = 96 };
enum { LABEL_W = 150, LINE_W = 840, TRACK_H = 20, TRACK_GAP = 5, AXIS_H = 26 };

/* ---- the graph ----------------------------------------------------------------------------------------------------- */

struct spot {
    int32_t rank, row; /* column from the left; place in it */
    double middle;     /* mean row of what is in front of it: keeps lines from crossing */
};

/* Ranks by the longest way from a source; rows by where their inputs stand. Gives the number of ranks; *rows = of the fullest. */
static int32_t lay_out(const stm_picture *p, struct spot *at, int32_t *rows)
{
    int32_t ranks = 0;

    *rows = 0;
    for (int32_t i = 0; i < p->n_steps; i++) { /* steps stand behind those they take from */
        for (int32_t k = 0; k < p->steps[i].n_from; k++)
            if (at[p->steps[i].from[k]].rank + 1 > at[i].rank) at[i].rank = at[p->steps[i].from[k]].rank + 1;
        if (at[i].rank + 1 > ranks) ranks = at[i].rank + 1;
    }
    for (int32_t r = 0; r < ranks; r++) {
        int32_t n = 0;
        for (int32_t i = 0; i < p->n_steps; i++) {
            const stm_picture_step *s = &p->steps[i];
            if (at[i].rank != r) continue;
            at[i].middle = n;
            for (int32_t k = 0; k < s->n_from; k++) at[i].middle += (at[s->from[k]].row - at[i].middle) / (k + 1);
            n++;
        }
        for (int32_t i = 0; i < p->n_steps; i++) {
            if (at[i].rank != r) continue;
            at[i].row = 0;
            for (int32_t k = 0; k < p->n_steps; k++)
                at[i].row += k != i && at[k].rank == r && (at[k].middle < at[i].middle || (at[k].middle <= at[i].middle && k < i));
        }
        if (n > *rows) *rows = n;
    }
    return ranks;
}

/* The first @p most characters. */
static void short_name(stm_text *t, const char *name, int most)
{
    char cut[80];
    int n = 0;

    if (strlen(name) <= (size_t)most) {
        stm_html_text(t, name);
        return;
    }
    while (n < most - 1) cut[n] = name[n], n++;
    cut[n] = '\0';
    stm_html_text(t, cut);
    stm_text_addf(t, "&#8230;");
}

static void edge(const stm_picture *p, const struct spot *at, int32_t from, int32_t to, double y0, double y1, stm_text *t)
{
    const stm_picture_step *a = &p->steps[from], *b = &p->steps[to];
    const int64_t rows = b->n_from == 1 ? b->rows_in : a->rows_out;
    const double x0 = PAD + at[from].rank * (NODE_W + GAP_X) + NODE_W, x1 = PAD + at[to].rank * (NODE_W + GAP_X);
    const bool level = fabs(y1 - y0) < 1;
    char n[32];

    stm_text_addf(t, "<path class=\"e\" stroke-width=\"%.1f\" d=\"M%.0f %.1fC%.0f %.1f %.0f %.1f %.0f %.1f\"><title>",
                  rows > 0 ? 1.2 + log10((double)rows) * 0.7 : 1.0, x0, y0, x0 + GAP_X * 0.55, y0, x1 - GAP_X * 0.55, y1, x1, y1);
    stm_html_text(t, a->name);
    stm_text_addf(t, " &#8594; ");
    stm_html_text(t, b->name);
    stm_text_addf(t, ": %s rows</title></path>", stm_show_grouped(rows, n, sizeof n));
    /* above the line, or on it, which is then wiped out as far as the gap between the words */
    if (at[to].rank == at[from].rank + 1)
        stm_text_addf(t, "<text class=\"s o%s\" text-anchor=\"middle\" x=\"%.0f\" y=\"%.1f\">%s</text>", level ? "" : " w",
                      (x0 + x1) / 2, (y0 + y1) / 2 + (level ? -6 : 4), stm_show_count((double)rows, n, sizeof n));
}

static void node(const stm_picture *p, int32_t i, double x, double y, int32_t hot, stm_text *t)
{
    const stm_picture_step *s = &p->steps[i];
    double ns[STM_SPENTS] = {0}, sum = 0, left = 0;
    static const stm_spent order[] = {STM_SPENT_BUSY, STM_SPENT_CROWDED, STM_SPENT_BLOCKED};
    const bool source = s->kind == MILL_GENERATOR;
    const double w = NODE_W - 24;
    char n[32];

    for (int32_t k = 0; k < s->replicas; k++)
        for (int d = 0; d < STM_SPENTS; d++) ns[d] += (double)p->all[s->first_replica + k].ns[d];
    for (int d = 0; d < STM_SPENTS; d++) sum += ns[d];
    stm_text_addf(t,
                  "<g><rect class=\"n%s\" x=\"%.0f\" y=\"%.1f\" width=\"%d\" height=\"%d\" rx=\"9\"/><text class=\"h\" x=\"%.0f\" "
                  "y=\"%.1f\">",
                  s->rows_failed > 0 || s->phase == STM_PHASE_FAILED ? " fail"
                  : i == hot                                         ? " hot"
                                                                     : "",
                  x, y, NODE_W, NODE_H, x + 12, y + 21);
    short_name(t, s->name, s->replicas > 1 ? 16 : 20);
    stm_text_addf(t, "</text>");
    if (s->replicas > 1)
        stm_text_addf(t, "<text class=\"s\" text-anchor=\"end\" x=\"%.0f\" y=\"%.1f\">&#215; %d</text>", x + NODE_W - 12, y + 21,
                      s->replicas);
    stm_text_addf(t, "<text class=\"s\" x=\"%.0f\" y=\"%.1f\">", x + 12, y + 38);
    short_name(t, s->type, 24);
    stm_text_addf(t, "</text><text class=\"s\" x=\"%.0f\" y=\"%.1f\">%s rows %s", x + 12, y + 54,
                  stm_show_grouped(source ? s->rows_out : s->rows_in, n, sizeof n), source ? "made" : "in");
    if (s->rows_failed > 0) stm_text_addf(t, ", %s failed", stm_show_grouped(s->rows_failed, n, sizeof n));
    stm_text_addf(t, "</text><rect class=\"starved\" x=\"%.0f\" y=\"%.1f\" width=\"%.0f\" height=\"6\" rx=\"2\"/>", x + 12, y + 63,
                  w);
    for (size_t o = 0; o < sizeof order / sizeof *order && sum > 0; o++) {
        const double part = ns[order[o]] / sum * w;
        if (part >= 0.5)
            stm_text_addf(t, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"6\"/>", stm_spent_names[order[o]],
                          x + 12 + left, y + 63, part);
        left += part;
    }
    stm_text_addf(t, "<title>");
    stm_html_text(t, s->name);
    stm_text_addf(t, ": %s, busy %.0f %%</title></g>", stm_phase_names[s->phase], sum > 0 ? ns[STM_SPENT_BUSY] / sum * 100 : 0.0);
}

void stm_report_graph(const stm_picture *p, stm_text *t)
{
    struct spot *at = p->n_steps > 0 && p->n_steps <= MOST_NODES ? stm_calloc((size_t)p->n_steps * sizeof *at) : NULL;
    int32_t rows, ranks, hot = -1, *count;
    double height;

    if (at == NULL || (count = stm_calloc((size_t)p->n_steps * sizeof *count)) == NULL) {
        stm_free(at);
        stm_text_addf(t, "<p>%d steps are too many for a picture; the table below has them all.</p>", p->n_steps);
        return;
    }
    ranks = lay_out(p, at, &rows);
    height = 2 * PAD + rows * (NODE_H + GAP_Y) - GAP_Y;
    for (int32_t i = 0; i < p->n_steps; i++) {
        count[at[i].rank]++;
        if (p->steps[i].busy >= 0.5 && (hot < 0 || p->steps[i].busy > p->steps[hot].busy)) hot = i;
    }
    stm_text_addf(t,
                  "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"The steps and what flowed between them\"><svg "
                  "role=\"img\" aria-label=\"%d steps, from left to "
                  "right\" width=\"%d\" height=\"%.0f\" viewBox=\"0 0 %d %.0f\">",
                  p->n_steps, 2 * PAD + ranks * (NODE_W + GAP_X) - GAP_X, height, 2 * PAD + ranks * (NODE_W + GAP_X) - GAP_X,
                  height);
#define TOP(i) (PAD + (rows - count[at[i].rank]) * (NODE_H + GAP_Y) / 2.0 + at[i].row * (NODE_H + GAP_Y))
    for (int32_t i = 0; i < p->n_steps; i++)
        for (int32_t k = 0; k < p->steps[i].n_from; k++)
            edge(p, at, p->steps[i].from[k], i, TOP(p->steps[i].from[k]) + NODE_H / 2.0, TOP(i) + NODE_H / 2.0, t);
    for (int32_t i = 0; i < p->n_steps; i++) node(p, i, PAD + at[i].rank * (NODE_W + GAP_X), TOP(i), hot, t);
#undef TOP
    stm_text_addf(t, "</svg></div>");
    stm_free(count);
    stm_free(at);
}

/* ---- the timeline -------------------------------------------------------------------------------------------------- */

/* Columns of one kind, on top of those of the kinds before it. Neighbours of equal height become one. */
static void columns(const stm_course *line, int32_t track, stm_spent d, int n_below, const stm_spent *below, double y, stm_text *t)
{
    const double w = (double)LINE_W / line->n;
    int32_t from = 0;
    int low_was = -1, high_was = -1;

    stm_text_addf(t, "<path class=\"%s\" d=\"", stm_spent_names[d]);
    for (int32_t i = 0; i <= line->n; i++) {
        int low = -1, high = -1;

        if (i < line->n) {
            const float *ns = stm_course_span(line, track, i);
            double base = 0;
            for (int b = 0; b < n_below; b++) base += (double)ns[below[b]];
            low = (int)(base / (double)line->span_ns * TRACK_H + 0.5);
            high = (int)((base + (double)ns[d]) / (double)line->span_ns * TRACK_H + 0.5);
            if (high > TRACK_H) high = TRACK_H;
        }
        if (low == low_was && high == high_was) continue;
        if (high_was > low_was)
            stm_text_addf(t, "M%.1f %.0fh%.1fv%dh%.1fz", LABEL_W + from * w, y + TRACK_H - high_was, (i - from) * w,
                          high_was - low_was, -(i - from) * w);
        from = i;
        low_was = low;
        high_was = high;
    }
    stm_text_addf(t, "\"/>");
}

/* A round number of seconds that divides the time into four to ten parts. */
static double tick(double seconds)
{
    double step = pow(10, floor(log10(seconds > 0 ? seconds : 1)));

    if (seconds / step < 2)
        step /= 5;
    else if (seconds / step < 4)
        step /= 2;
    return step;
}

void stm_report_timeline(const stm_picture *p, stm_text *t)
{
    static const stm_spent order[] = {STM_SPENT_BUSY, STM_SPENT_CROWDED, STM_SPENT_BLOCKED};
    const stm_course *line = &p->timeline;
    const int32_t tracks = p->n_replicas < MOST_TRACKS ? p->n_replicas : MOST_TRACKS;
    const double shown_s = (double)line->span_ns * line->n / 1e9, step = tick(shown_s);
    const int width = LABEL_W + LINE_W + 24, height = tracks * (TRACK_H + TRACK_GAP) + AXIS_H;
    int32_t track = 0;

    if (line->n == 0) {
        stm_text_addf(t, "<p>Nothing was recorded.</p>");
        return;
    }
    stm_text_addf(t,
                  "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"What each replica did over time\"><svg "
                  "role=\"img\" aria-label=\"%d replicas over %.3g seconds\" "
                  "width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">",
                  tracks, shown_s, width, height, width, height);
    for (int32_t i = 0; i < p->n_steps && track < tracks; i++) {
        const stm_picture_step *s = &p->steps[i];
        for (int32_t k = 0; k < s->replicas && track < tracks; k++, track++) {
            const double y = track * (TRACK_H + TRACK_GAP);
            const int64_t *ns = p->all[s->first_replica + k].ns;

            stm_text_addf(t, "<g><title>");
            stm_html_text(t, s->name);
            stm_text_addf(
                t,
                "[%d]: busy %.3g s, waits for a processor %.3g s, blocked %.3g s, starved %.3g s</title><text x=\"0\" y=\"%.0f\">",
                k, (double)ns[STM_SPENT_BUSY] / 1e9, (double)ns[STM_SPENT_CROWDED] / 1e9, (double)ns[STM_SPENT_BLOCKED] / 1e9,
                (double)ns[STM_SPENT_STARVED] / 1e9, y + 15);
            short_name(t, s->name, s->replicas > 1 ? 14 : 18);
            if (s->replicas > 1) stm_text_addf(t, "<tspan class=\"s\"> %d</tspan>", k);
            stm_text_addf(t, "</text><rect class=\"t\" x=\"%d\" y=\"%.0f\" width=\"%d\" height=\"%d\"/>", LABEL_W, y, LINE_W,
                          TRACK_H);
            columns(line, s->first_replica + k, STM_SPENT_STARVED, 3, order, y, t);
            for (int o = 0; o < 3; o++) columns(line, s->first_replica + k, order[o], o, order, y, t);
            stm_text_addf(t, "</g>");
        }
    }
    for (double at = 0; at <= shown_s * 1.0001; at += step) {
        const double x = LABEL_W + at / shown_s * LINE_W;
        char text[48];
        stm_text_addf(t,
                      "<line class=\"g\" x1=\"%.1f\" x2=\"%.1f\" y1=\"0\" y2=\"%d\"/><text class=\"s\" text-anchor=\"middle\" "
                      "x=\"%.1f\" y=\"%d\">%s</text>",
                      x, x, height - AXIS_H + 4, x, height - 6, at > 0 ? stm_show_seconds(at, text, sizeof text) : "0");
    }
    stm_text_addf(t, "</svg></div>");
    if (tracks < p->n_replicas) stm_text_addf(t, "<p class=\"sub\">The first %d of %d replicas.</p>", tracks, p->n_replicas);
}
