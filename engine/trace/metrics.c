#include "trace/metrics.h"

#include <string.h>

/* A label's value: backslash, quote and newline are escaped. */
static void label(stm_text *t, const char *value)
{
    for (; *value != '\0'; value++) {
        if (*value == '\\' || *value == '"')
            stm_text_addf(t, "\\%c", *value);
        else if (*value == '\n')
            stm_text_addf(t, "\\n");
        else
            stm_text_add(t, value, 1);
    }
}

static void head(stm_text *t, const char *name, const char *type, const char *help)
{
    stm_text_addf(t, "# HELP stepmill_%s %s\n# TYPE stepmill_%s %s\n", name, help, name, type);
}

static void of_run(const stm_picture *p, const char *name, stm_text *t)
{
    stm_text_addf(t, "stepmill_%s{run=\"", name);
    label(t, p->name);
    stm_text_addf(t, "\"} ");
}

static void of_step(const stm_picture *p, const stm_picture_step *s, const char *name, stm_text *t)
{
    stm_text_addf(t, "stepmill_%s{run=\"", name);
    label(t, p->name);
    stm_text_addf(t, "\",step=\"");
    label(t, s->name);
    stm_text_addf(t, "\"");
}

static void whole(const stm_picture *p, const char *name, const char *type, const char *help, int64_t v, stm_text *t)
{
    head(t, name, type, help);
    of_run(p, name, t);
    stm_text_addf(t, "%lld\n", (long long)v);
}

static void real(const stm_picture *p, const char *name, const char *type, const char *help, double v, stm_text *t)
{
    head(t, name, type, help);
    of_run(p, name, t);
    stm_text_addf(t, "%.6g\n", v);
}

static const struct column {
    const char *name, *type, *help;
    size_t at;
} columns[] = {
#define COLUMN(name, type, help, field)                     \
    {                                                       \
        name, type, help, offsetof(stm_picture_step, field) \
    }
    COLUMN("rows_in_total", "counter", "Rows that a step took.", rows_in),
    COLUMN("rows_out_total", "counter", "Rows that a step gave.", rows_out),
    COLUMN("batches_in_total", "counter", "Batches that a step took.", batches_in),
    COLUMN("batches_out_total", "counter", "Batches that a step gave.", batches_out),
    COLUMN("rows_failed_total", "counter", "Rows whose outputs became nulls because the step failed on them.", rows_failed),
    COLUMN("rows_skipped_total", "counter", "Rows that a step did not see, for an earlier one had failed on them.", rows_skipped),
    COLUMN("rows_dropped_total", "counter", "Rows that a step filtered out.", rows_dropped),
    COLUMN("retries_total", "counter", "Calls that were made again after a failure.", retries),
    COLUMN("queued_rows", "gauge", "Rows that wait in front of a step.", queued_rows),
#undef COLUMN
};

void stm_metrics_write(const stm_picture *p, stm_text *t)
{
    const stm_picture_sums sums = stm_picture_add_up(p);

    head(t, "run_info", "gauge", "The run; always 1.");
    stm_text_addf(t, "stepmill_run_info{run=\"");
    label(t, p->name);
    stm_text_addf(t, "\",version=\"%s\",state=\"%s\",attempt=\"%d\"} 1\n", p->version, stm_picture_state_names[p->state],
                  p->attempt);
    whole(p, "up", "gauge", "Whether the run goes on.", p->state == STM_PICTURE_RUNNING, t);
    real(p, "run_seconds", "gauge", "How long this attempt has taken.", p->seconds, t);
    whole(p, "updated_timestamp_ms", "gauge", "When these numbers were read, ms since 1970.", p->wall_ms, t);
    real(p, "cpu_seconds_total", "counter", "Processor time of the process.", p->cpu_s, t);
    whole(p, "rows_imputed_total", "counter", "Rows with nulls made by imputation.", p->rows_imputed, t);
    whole(p, "memory_bytes", "gauge", "Memory of rows.", p->memory_live, t);
    whole(p, "memory_peak_bytes", "gauge", "Largest memory of rows so far.", p->memory_peak, t);
    whole(p, "memory_limit_bytes", "gauge", "memory_limit of the pipeline.", p->memory_limit, t);
    whole(p, "disk_bytes", "gauge", "Rows that wait on disk.", p->on_disk, t);
    if (sums.eta_s >= 0) real(p, "eta_seconds", "gauge", "How long the run will take from now on.", sums.eta_s, t);
    head(t, "errors_total", "counter", "Error records by class.");
    for (int c = 0; c < 4; c++) {
        stm_text_addf(t, "stepmill_errors_total{run=\"");
        label(t, p->name);
        stm_text_addf(t, "\",class=\"%s\"} %lld\n", mill_class_text(c), (long long)p->classes[c]);
    }
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
        head(t, columns[c].name, columns[c].type, columns[c].help);
        for (int32_t i = 0; i < p->n_steps; i++) {
            int64_t v;
            memcpy(&v, (const char *)&p->steps[i] + columns[c].at, sizeof v);
            of_step(p, &p->steps[i], columns[c].name, t);
            stm_text_addf(t, "} %lld\n", (long long)v);
        }
    }
    head(t, "replica_seconds_total", "counter", "How the replicas of a step spent their time.");
    for (int32_t i = 0; i < p->n_steps; i++)
        for (int32_t k = 0; k < p->steps[i].replicas; k++)
            for (int d = 0; d < STM_SPENTS; d++) {
                of_step(p, &p->steps[i], "replica_seconds_total", t);
                stm_text_addf(t, ",replica=\"%d\",doing=\"%s\"} %.6f\n", k, stm_spent_names[d],
                              (double)p->all[p->steps[i].first_replica + k].ns[d] / 1e9);
            }
}
