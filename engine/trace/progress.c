#include "trace/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/text.h"
#include "stepmill/step.h"

struct history {
    int64_t rows, busy_ns;
    double rate, busy; /* smoothed rows/s, share of its replicas' time */
};

struct stm_progress {
    stm_progress_step *steps;
    struct history *history;
    int32_t n;
    int64_t last_ns; /* of the sample before */
    stm_text text;
};

mill_status stm_progress_create(int32_t n_steps, stm_progress **out)
{
    stm_progress *p = stm_calloc(sizeof *p);

    if (p == NULL) return MILL_ERR_NOMEM;
    p->n = n_steps;
    p->steps = stm_calloc((size_t)n_steps * sizeof *p->steps);
    p->history = stm_calloc((size_t)n_steps * sizeof *p->history);
    if (p->steps == NULL || p->history == NULL) {
        stm_progress_destroy(&p);
        return MILL_ERR_NOMEM;
    }
    *out = p;
    return MILL_OK;
}

void stm_progress_destroy(stm_progress **p)
{
    if (p == NULL || *p == NULL) return;
    stm_free((*p)->steps);
    stm_free((*p)->history);
    stm_text_free(&(*p)->text);
    stm_free(*p);
    *p = NULL;
}

stm_progress_step *stm_progress_steps(stm_progress *p) { return p->steps; }

/* Rows that say how far a step is: those it made (generators), else those it took. */
static int64_t rows_of(const stm_progress_step *s) { return s->kind == MILL_GENERATOR ? s->rows_out : s->rows_in; }

/* Rates over about the last five seconds: a sample of dt seconds weighs 1 - exp(-dt / 5). */
static void sample(stm_progress *p, int64_t now_ns)
{
    const double dt = (double)(now_ns - p->last_ns) / 1e9;
    const double weight = p->last_ns == 0 ? 1.0 : 1.0 - exp(-dt / 5.0);

    if (dt <= 0) return;
    for (int32_t i = 0; i < p->n; i++) {
        const stm_progress_step *s = &p->steps[i];
        struct history *h = &p->history[i];
        const double rate = (double)(rows_of(s) - h->rows) / dt;
        double busy = (double)(s->busy_ns - h->busy_ns) / 1e9 / dt / (s->replicas > 0 ? s->replicas : 1);

        if (busy > 1) busy = 1; /* a call that ended just now counts whole */
        if (busy < 0) busy = 0;
        h->rate += weight * (rate - h->rate);
        h->busy += weight * (busy - h->busy);
        h->rows = rows_of(s);
        h->busy_ns = s->busy_ns;
    }
    p->last_ns = now_ns;
}

struct sums {
    int64_t made, total, out, failed; /* total -1 = unknown */
    double rate, eta;                 /* rows/s made over the whole run; seconds, < 0 = unknown */
    const char *loading;
};

static struct sums add_up(const stm_progress *p, int64_t elapsed_ns)
{
    struct sums s = {.eta = -1};

    for (int32_t i = 0; i < p->n; i++) {
        const stm_progress_step *step = &p->steps[i];

        s.failed += step->rows_failed;
        if (step->phase == STM_PROGRESS_LOADING && s.loading == NULL) s.loading = step->name;
        if (step->kind == MILL_SINK) s.out += step->rows_in;
        if (step->kind != MILL_GENERATOR) continue;
        s.made += step->rows_out;
        s.rate += p->history[i].rate;
        if (step->phase == STM_PROGRESS_DONE)
            s.total += s.total >= 0 ? step->rows_out : 0;
        else
            s.total = s.total < 0 || step->rows_total < 0 ? -1 : s.total + step->rows_total;
    }
    if (s.total > s.made && s.rate > 0 && elapsed_ns > 1000000000) s.eta = (double)(s.total - s.made) / s.rate;
    return s;
}

/* 1234567 as "1,234,567" */
static const char *grouped(int64_t v, char *buf, size_t size)
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

static void headline(const struct sums *s, int64_t elapsed_ns, stm_text *t)
{
    char a[32], b[32], c[48];

    stm_text_addf(t, "%s: ", stm_show_seconds((double)elapsed_ns / 1e9, c, sizeof c));
    if (s->loading != NULL) stm_text_addf(t, "loading %s, ", s->loading);
    stm_text_addf(t, "%s", grouped(s->made, a, sizeof a));
    if (s->total >= s->made) stm_text_addf(t, " of %s", grouped(s->total, b, sizeof b));
    stm_text_addf(t, " rows in, %s out, %s rows/s", grouped(s->out, a, sizeof a), grouped((int64_t)(s->rate + 0.5), b, sizeof b));
    if (s->failed > 0) stm_text_addf(t, ", %s row%s failed", grouped(s->failed, a, sizeof a), s->failed == 1 ? "" : "s");
    if (s->eta >= 0) stm_text_addf(t, ", %s left", stm_show_seconds(s->eta, c, sizeof c));
}

static const char *const phases[] = {"waiting", "loading", "running", "done", "failed"};

/* Ends the line that opened at byte `from`, cut to `width` columns (names are ASCII). */
static void end_line(stm_text *t, size_t from, int width)
{
    if (t->failed || t->data == NULL) return;
    if (width > 0 && t->bytes - from > (size_t)width) {
        t->bytes = from + (size_t)width;
        t->data[t->bytes] = '\0';
    }
    stm_text_add(t, "\n", 1);
}

static void show_table(stm_progress *p, const struct sums *s, int width, int64_t elapsed_ns, int *lines)
{
    stm_text *t = &p->text;
    char a[32], b[32], c[32];
    size_t from = 0;
    int name = 4;

    headline(s, elapsed_ns, t);
    end_line(t, from, width);
    for (int32_t i = 0; i < p->n; i++)
        if ((int)strlen(p->steps[i].name) > name) name = (int)strlen(p->steps[i].name);
    from = t->bytes;
    stm_text_addf(t, "%-*s  %-8s %13s %11s %11s %5s %9s", name, "step", "", "rows", "rows/s", "queued", "busy", "failed");
    end_line(t, from, width);
    for (int32_t i = 0; i < p->n; i++) {
        const stm_progress_step *step = &p->steps[i];
        const struct history *h = &p->history[i];

        from = t->bytes;
        stm_text_addf(t, "%-*s  %-8s %13s %11s %11s %4.0f%% %9s", name, step->name, phases[step->phase],
                      grouped(rows_of(step), a, sizeof a), grouped((int64_t)(h->rate + 0.5), b, sizeof b),
                      step->kind == MILL_GENERATOR ? "-" : grouped(step->queued_rows, c, sizeof c), h->busy * 100,
                      grouped(step->rows_failed, (char[32]){0}, 32));
        end_line(t, from, width);
    }
    *lines = p->n + 2;
}

static void show_json(stm_progress *p, const struct sums *s, int64_t elapsed_ns)
{
    stm_text *t = &p->text;

    stm_text_addf(t, "{\"seconds\":%.3f,\"rows_in\":%lld,\"rows_out\":%lld,\"rows_failed\":%lld,\"rows_per_s\":%.1f",
                  (double)elapsed_ns / 1e9, (long long)s->made, (long long)s->out, (long long)s->failed, s->rate);
    if (s->total >= 0) stm_text_addf(t, ",\"rows_total\":%lld", (long long)s->total);
    if (s->eta >= 0) stm_text_addf(t, ",\"eta_s\":%.1f", s->eta);
    stm_text_addf(t, ",\"steps\":[");
    for (int32_t i = 0; i < p->n; i++) {
        const stm_progress_step *step = &p->steps[i];

        stm_text_addf(t, "%s{\"step\":\"", i > 0 ? "," : "");
        stm_text_add_json(t, step->name, strlen(step->name));
        stm_text_addf(t,
                      "\",\"phase\":\"%s\",\"replicas\":%d,\"loaded\":%d,\"rows_in\":%lld,\"rows_out\":%lld,\"queued_rows\":%lld,"
                      "\"rows_failed\":%lld,\"busy\":%.3f,\"rows_per_s\":%.1f}",
                      phases[step->phase], step->replicas, step->loaded, (long long)step->rows_in, (long long)step->rows_out,
                      (long long)step->queued_rows, (long long)step->rows_failed, p->history[i].busy, p->history[i].rate);
    }
    stm_text_addf(t, "]}\n");
}

const char *stm_progress_show(stm_progress *p, stm_progress_style style, int width, int64_t elapsed_ns, int *lines)
{
    struct sums s;

    sample(p, elapsed_ns);
    s = add_up(p, elapsed_ns);
    p->text.bytes = 0;
    p->text.failed = false;
    *lines = 1;
    if (style == STM_PROGRESS_TABLE) {
        show_table(p, &s, width, elapsed_ns, lines);
    } else if (style == STM_PROGRESS_JSON) {
        show_json(p, &s, elapsed_ns);
    } else {
        headline(&s, elapsed_ns, &p->text);
        stm_text_add(&p->text, "\n", 1);
    }
    if (!p->text.failed && p->text.data != NULL) return p->text.data;
    *lines = 0;
    return "";
}
