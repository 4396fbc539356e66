#include "trace/report.h"

#include <stdio.h>
#include <string.h>

#include "stepmill/step.h"
#include "trace/advice.h"
#include "trace/progress.h"

void stm_html_text(stm_text *t, const char *text)
{
    for (const char *p = text; *p != '\0'; p++) {
        switch (*p) {
        case '<': stm_text_addf(t, "&lt;"); break;
        case '>': stm_text_addf(t, "&gt;"); break;
        case '&': stm_text_addf(t, "&amp;"); break;
        case '"': stm_text_addf(t, "&quot;"); break;
        case '\'': stm_text_addf(t, "&#39;"); break;
        default:
            if ((unsigned char)*p >= 0x20 || *p == '\n' || *p == '\t') stm_text_add(t, p, 1);
        }
    }
}

static void cell(stm_text *t, const char *text)
{
    stm_text_addf(t, "<td class=\"w\">");
    stm_html_text(t, text);
    stm_text_addf(t, "</td>");
}

static void number(stm_text *t, int64_t v)
{
    char n[32];

    stm_text_addf(t, "<td>%s</td>", stm_show_grouped(v, n, sizeof n));
}

/* Of what a step cannot have there is no number, which is not the same as none of it. */
static void number_or_none(stm_text *t, bool any, int64_t v)
{
    if (any) number(t, v);
    else stm_text_addf(t, "<td>\u2013</td>");
}

static void term(stm_text *t, const char *name, const char *value)
{
    if (value == NULL || *value == '\0') return;
    stm_text_addf(t, "<dt>%s</dt><dd>", name);
    stm_html_text(t, value);
    stm_text_addf(t, "</dd>");
}

/* ---- head ---------------------------------------------------------------------------------------------------------- */

static void tile(stm_text *t, const char *value, const char *what)
{
    stm_text_addf(t, "<div class=\"tile\"><b>%s</b><span>%s</span></div>", value, what);
}

static void head(const stm_picture *p, stm_text *t)
{
    static const char *const words[] = {"running", "done", "could not load", "failed", "stopped"};
    const stm_picture_sums s = stm_picture_add_up(p);
    const double rate = p->seconds > 0 ? (double)s.rows_in / p->seconds : 0;
    char a[64], b[48], text[200];

    stm_text_addf(t, "<header><h1>");
    stm_html_text(t, p->name);
    stm_text_addf(t, "<span class=\"badge %s\">%s</span></h1><p class=\"sub\">Started %s on ",
                  p->state == STM_PICTURE_DONE                                         ? "good"
                  : p->state == STM_PICTURE_RUNNING || p->state == STM_PICTURE_STOPPED ? "warn"
                                                                                       : "bad",
                  words[p->state], stm_show_time(p->started_s, a, sizeof a));
    stm_html_text(t, p->host[0] != '\0' ? p->host : "an unnamed machine");
    if (p->attempt > 1) stm_text_addf(t, "; attempt %d, %s before it", p->attempt, stm_show_seconds(p->earlier_s, b, sizeof b));
    stm_text_addf(t, ".</p>");
    if (p->error[0] != '\0') {
        stm_text_addf(t, "<p class=\"bad\"><strong>");
        stm_html_text(t, p->error);
        stm_text_addf(t, "</strong></p>");
    }
    stm_text_addf(t, "<div class=\"tiles\">");
    tile(t, stm_show_seconds(p->seconds, a, sizeof a), "time");
    tile(t, stm_show_grouped(s.rows_in, a, sizeof a), "rows in");
    tile(t, stm_show_grouped(s.rows_out, a, sizeof a), "rows out");
    tile(t, stm_show_grouped((int64_t)(rate + 0.5), a, sizeof a), "rows per second");
    stm_show_grouped(p->rows_imputed, a, sizeof a);
    snprintf(text, sizeof text, "rows failed (%s allowed)", stm_show_grouped(p->max_errors, b, sizeof b));
    tile(t, a, text);
    tile(t, stm_show_bytes((double)p->memory_peak, a, sizeof a), "of rows in memory at most");
    snprintf(text, sizeof text, "%.0f %%", p->seconds > 0 && p->processors > 0 ? p->cpu_s / p->seconds / p->processors * 100 : 0.0);
    snprintf(a, sizeof a, "of %d processors", p->processors);
    tile(t, text, a);
    stm_text_addf(t, "</div></header>");
}

/* ---- where the time went ------------------------------------------------------------------------------------------- */

static const stm_spent shown[] = {STM_SPENT_BUSY, STM_SPENT_CROWDED, STM_SPENT_BLOCKED, STM_SPENT_STARVED};
static const char *const shown_names[] = {"busy", "waits for a processor", "blocked", "starved"};

static void legend(stm_text *t)
{
    static const char *const what[] = {"in its functions", "work is there, nobody took it up yet",
                                       "what it makes would only wait (for credit or memory)", "nothing is there for it"};

    stm_text_addf(t, "<p>");
    for (int i = 0; i < 4; i++)
        stm_text_addf(t, "<span class=\"k\"><i class=\"%s\"></i>%s: %s</span>", stm_spent_names[shown[i]], shown_names[i], what[i]);
    stm_text_addf(t, "</p>");
}

static void shares(const stm_picture *p, stm_text *t)
{
    stm_text_addf(t, "<section><h2>Where the time went</h2>");
    legend(t);
    stm_text_addf(t, "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Time by "
                     "step\"><table><thead><tr><th>step</th><th class=\"l\" style=\"width:45%%\">share of its "
                     "replicas&#39; time</th>");
    for (int i = 0; i < 4; i++) stm_text_addf(t, "<th>%s</th>", shown_names[i]);
    stm_text_addf(t, "</tr></thead><tbody>");
    for (int32_t i = 0; i < p->n_steps; i++) {
        const stm_picture_step *s = &p->steps[i];
        double ns[STM_SPENTS] = {0}, sum = 0;

        for (int32_t k = 0; k < s->replicas; k++)
            for (int d = 0; d < STM_SPENTS; d++) ns[d] += (double)p->all[s->first_replica + k].ns[d];
        for (int d = 0; d < STM_SPENTS; d++) sum += ns[d];
        stm_text_addf(t, "<tr><th scope=\"row\">");
        stm_html_text(t, s->name);
        stm_text_addf(t, "</th><td class=\"l\"><div class=\"bar\" aria-hidden=\"true\">");
        for (int d = 0; d < 4 && sum > 0; d++)
            if (ns[shown[d]] / sum >= 0.001)
                stm_text_addf(t, "<i class=\"%s\" style=\"width:%.1f%%\"></i>", stm_spent_names[shown[d]],
                              ns[shown[d]] / sum * 100);
        stm_text_addf(t, "</div></td>");
        for (int d = 0; d < 4; d++) {
            if (sum > 0)
                stm_text_addf(t, "<td>%.1f %%</td>", ns[shown[d]] / sum * 100);
            else
                stm_text_addf(t, "<td>&#8211;</td>");
        }
        stm_text_addf(t, "</tr>");
    }
    stm_text_addf(t, "</tbody></table></div></section>");
}

static void steps(const stm_picture *p, stm_text *t)
{
    static const char *const heads[] = {"type",   "replicas", "rows in", "rows out", "dropped",
                                        "failed", "skipped",  "retries", "batches",  "rows/s"};
    bool any_kept = false;

    stm_text_addf(t, "<section><h2>Steps</h2><div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Numbers of each "
                     "step\"><table><thead><tr><th>step</th>");
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        stm_text_addf(t, "<th%s>%s</th>", i == 0 ? " class=\"l\"" : "", heads[i]);
    stm_text_addf(t, "</tr></thead><tbody>");
    for (int32_t i = 0; i < p->n_steps; i++) {
        const stm_picture_step *s = &p->steps[i];

        stm_text_addf(t, "<tr><th scope=\"row\">");
        stm_html_text(t, s->name);
        any_kept = any_kept || s->kept;
        stm_text_addf(t, "%s</th><td class=\"l\">", s->kept ? " (kept)" : "");
        stm_html_text(t, s->type);
        stm_text_addf(t, "</td>");
        number(t, s->replicas);
        number_or_none(t, s->kind != MILL_GENERATOR, s->rows_in);
        number_or_none(t, s->kind != MILL_SINK, s->rows_out);
        number(t, s->rows_dropped);
        number(t, s->rows_failed);
        number(t, s->rows_skipped);
        number(t, s->retries);
        number(t, s->kind == MILL_GENERATOR ? s->batches_out : s->batches_in);
        number(t, (int64_t)(s->rate + 0.5));
        stm_text_addf(t, "</tr>");
    }
    stm_text_addf(
        t, "</tbody></table></div>%s</section>",
        any_kept ? "<p class=\"sub\">Kept: an earlier attempt had done all of the step; its numbers are those of then.</p>" : "");
}

/* ---- errors -------------------------------------------------------------------------------------------------------- */

enum { MOST_GROUPS = 30, MESSAGE = 240 };

/* Records with the same step, class and message are one line. */
struct group {
    char step[64], class[16], message[MESSAGE], key[64];
    int64_t rows, records;
};

static void copy_text(char *to, size_t size, const char *from) { snprintf(to, size, "%.*s", (int)size - 1, from); }

static int collect(const char *text, size_t n, struct group *g)
{
    int groups = 0;

    for (const char *p = text, *end; p != NULL && p < text + n; p = end + 1) {
        stm_tree_doc *doc = NULL;
        const stm_tree *e;
        int at = 0;

        if ((end = memchr(p, '\n', (size_t)(text + n - p))) == NULL) break;
        if (stm_tree_parse(p, (size_t)(end - p), &doc, &e) != MILL_OK) continue;
        while (at < groups &&
               (strcmp(g[at].step, stm_tree_text(e, "step")) != 0 || strcmp(g[at].class, stm_tree_text(e, "class")) != 0 ||
                strncmp(g[at].message, stm_tree_text(e, "message"), MESSAGE - 1) != 0))
            at++;
        if (at < MOST_GROUPS) {
            if (at == groups) {
                g[groups++] = (struct group){0};
                copy_text(g[at].step, sizeof g[at].step, stm_tree_text(e, "step"));
                copy_text(g[at].class, sizeof g[at].class, stm_tree_text(e, "class"));
                copy_text(g[at].message, sizeof g[at].message, stm_tree_text(e, "message"));
                copy_text(g[at].key, sizeof g[at].key, stm_tree_text(e, "first_key"));
            }
            g[at].records++;
            g[at].rows += stm_tree_whole(e, "rows", 0);
        }
        stm_tree_destroy(&doc);
    }
    return groups;
}

static void errors(const stm_picture *p, const char *text, size_t n, stm_text *t)
{
    static const char *const what[] = {"the same rows will fail again", "a service, a deadline, memory", "the row itself is bad",
                                       "a device or the process was lost"};
    struct group g[MOST_GROUPS];
    const int groups = text != NULL ? collect(text, n, g) : 0;

    stm_text_addf(t, "<section><h2>Errors</h2>");
    if (p->errors == 0 && groups == 0) {
        stm_text_addf(t, "<p class=\"good\">None.</p></section>");
        return;
    }
    stm_text_addf(t, "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Errors by "
                     "class\"><table><thead><tr><th>class</th><th class=\"l\">meaning</th><th>records"
                     "</th></tr></thead><tbody>");
    for (int c = 0; c < 4; c++) {
        stm_text_addf(t, "<tr><th scope=\"row\">%s</th>", mill_class_text(c));
        cell(t, what[c]);
        number(t, p->classes[c]);
        stm_text_addf(t, "</tr>");
    }
    stm_text_addf(t, "</tbody></table></div>");
    if (groups > 0) {
        stm_text_addf(t, "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Errors by message\" "
                         "style=\"margin-top:14px\"><table><thead><tr><th>step</th><th "
                         "class=\"l\">class</th><th class=\"l\">what happened</th><th>records</th><th>rows</th><th "
                         "class=\"l\">first row</th></tr></thead><tbody>");
        for (int i = 0; i < groups; i++) {
            stm_text_addf(t, "<tr><th scope=\"row\">");
            stm_html_text(t, g[i].step);
            stm_text_addf(t, "</th><td class=\"l\">");
            stm_html_text(t, g[i].class);
            stm_text_addf(t, "</td>");
            cell(t, g[i].message);
            number(t, g[i].records);
            number(t, g[i].rows);
            stm_text_addf(t, "<td class=\"l\"><code>");
            stm_html_text(t, g[i].key);
            stm_text_addf(t, "</code></td></tr>");
        }
        stm_text_addf(t, "</tbody></table></div>");
    }
    if (groups == MOST_GROUPS) stm_text_addf(t, "<p class=\"sub\">The first %d kinds; errors.jsonl has all.</p>", MOST_GROUPS);
    stm_text_addf(t, "</section>");
}

/* ---- devices and provenance ---------------------------------------------------------------------------------------- */

static void devices(const stm_tree *facts, stm_text *t)
{
    const stm_tree *list = stm_tree_get(facts, "steps");
    bool any = false;

    for (const stm_tree *s = list != NULL ? list->first : NULL; s != NULL; s = s->next) {
        const stm_tree *placed = stm_tree_get(s, "placement");
        for (const stm_tree *r = placed != NULL ? placed->first : NULL; r != NULL; r = r->next) {
            const stm_tree *gpus = stm_tree_get(r, "devices");
            if (!any)
                stm_text_addf(t, "<section><h2>Devices</h2><div class=\"scroll\" tabindex=\"0\" role=\"group\" "
                                 "aria-label=\"Devices of each replica\"><table><thead><tr><th>replica"
                                 "</th><th class=\"l\">devices</th><th class=\"l\">NUMA node</th><th "
                                 "class=\"l\">cores</th></tr></thead><tbody>");
            any = true;
            stm_text_addf(t, "<tr><th scope=\"row\">");
            stm_html_text(t, stm_tree_text(s, "step"));
            stm_text_addf(t, "[%lld]</th><td class=\"w\">", (long long)stm_tree_whole(r, "replica", 0));
            if (gpus == NULL || gpus->n == 0) stm_text_addf(t, "cpu");
            for (const stm_tree *g = gpus != NULL ? gpus->first : NULL; g != NULL; g = g->next) {
                stm_text_addf(t, "%s%lld ", g != gpus->first ? ", " : "", (long long)stm_tree_whole(g, "position", 0));
                stm_html_text(t, stm_tree_text(g, "uuid"));
            }
            stm_text_addf(t, "</td><td class=\"l\">%lld</td>", (long long)stm_tree_whole(r, "numa_node", 0));
            cell(t, stm_tree_text(r, "cores"));
            stm_text_addf(t, "</tr>");
        }
    }
    if (any) stm_text_addf(t, "</tbody></table></div></section>");
}

static void provenance(const stm_picture *p, const stm_tree *facts, stm_text *t)
{
    const stm_tree *list = stm_tree_get(facts, "steps"), *argv = stm_tree_get(facts, "command");
    const char *pipeline = stm_tree_text(facts, "pipeline");
    char text[64], n[32];

    stm_text_addf(t, "<section><h2>Where it comes from</h2><dl>");
    term(t, "stepmill", p->version);
    term(t, "build", stm_tree_text(facts, "build"));
    if (argv != NULL && argv->n > 0) {
        stm_text_addf(t, "<dt>command line</dt><dd><code>");
        for (const stm_tree *a = argv->first; a != NULL; a = a->next) {
            stm_html_text(t, a->text);
            stm_text_addf(t, a->next != NULL ? " " : "");
        }
        stm_text_addf(t, "</code></dd>");
    }
    term(t, "in", stm_tree_text(facts, "directory"));
    term(t, "pipeline file", stm_tree_text(facts, "file"));
    term(t, "run directory", stm_tree_text(facts, "run"));
    term(t, "machine", p->host);
    term(t, "system", stm_tree_text(facts, "system"));
    term(t, "processor", stm_tree_text(facts, "processor"));
    snprintf(n, sizeof n, "%d", p->processors);
    term(t, "processors used", n);
    term(t, "memory for rows", stm_show_bytes((double)p->memory_limit, text, sizeof text));
    term(t, "last numbers", stm_show_time(p->wall_ms / 1000, text, sizeof text));
    stm_text_addf(t, "</dl>");
    if (list != NULL && list->n > 0) {
        stm_text_addf(t, "<details><summary>Signatures: what the results depend on, as one number per step</summary><div "
                         "class=\"scroll\" tabindex=\"0\" role=\"group\" "
                         "aria-label=\"Signatures\"><table><thead><tr><th>step</th><th class=\"l\">type</th><th "
                         "class=\"l\">version</th><th class=\"l\">signature</th></tr></thead>"
                         "<tbody>");
        for (const stm_tree *s = list->first; s != NULL; s = s->next) {
            stm_text_addf(t, "<tr><th scope=\"row\">");
            stm_html_text(t, stm_tree_text(s, "step"));
            stm_text_addf(t, "</th><td class=\"l\">");
            stm_html_text(t, stm_tree_text(s, "type"));
            stm_text_addf(t, "</td><td class=\"l\">");
            stm_html_text(t, stm_tree_text(s, "version"));
            stm_text_addf(t, "</td><td class=\"l\"><code>");
            stm_html_text(t, stm_tree_text(s, "signature"));
            stm_text_addf(t, "</code></td></tr>");
        }
        stm_text_addf(t, "</tbody></table></div></details>");
    }
    if (pipeline[0] != '\0') {
        stm_text_addf(t, "<details><summary>The pipeline</summary><pre tabindex=\"0\">");
        stm_html_text(t, pipeline);
        stm_text_addf(t, "</pre></details>");
    }
    stm_text_addf(t, "</section>");
}

void stm_report_write(const stm_picture *p, const stm_tree *facts, const char *error_lines, size_t error_bytes, stm_text *t)
{
    const stm_advice advice = stm_advise(p);
    stm_text say = {0};

    stm_text_addf(
        t, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
           "content=\"width=device-width,initial-scale=1\">"
           "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline';img-src data:\">"
           "<link rel=\"icon\" href=\"data:,\"><title>");
    stm_html_text(t, p->name);
    stm_text_addf(t, " &#8211; stepmill</title><style>%s</style></head><body><main>", stm_report_style);
    head(p, t);
    stm_advice_say(p, &advice, &say);
    stm_text_addf(t, "<section class=\"advice\"><h2>What would make it faster</h2><p style=\"margin:0\">");
    if (say.data != NULL) stm_html_text(t, say.data);
    stm_text_addf(t, "</p></section><section><h2>What flowed</h2>");
    stm_report_graph(p, t);
    stm_text_addf(t, "</section>");
    shares(p, t);
    stm_text_addf(t, "<section><h2>Replicas over time</h2>");
    stm_report_timeline(p, t);
    stm_text_addf(t, "</section>");
    steps(p, t);
    errors(p, error_lines, error_bytes, t);
    devices(facts, t);
    provenance(p, facts, t);
    stm_text_addf(t,
                  "<footer>Made by stepmill %s. The numbers are in progress.json beside this file.</footer></main></body></html>\n",
                  p->version);
    t->failed = t->failed || say.failed;
    stm_text_free(&say);
}
