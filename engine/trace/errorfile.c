#include "trace/errorfile.h"

#include <string.h>

#include "trace/files.h"

static void json_field(stm_text *t, const char *key, const char *value)
{
    stm_text_addf(t, ",\"%s\":", key);
    if (value[0] == '\0') {
        stm_text_addf(t, "null");
        return;
    }
    stm_text_addf(t, "\"");
    stm_text_add_json(t, value, strlen(value));
    stm_text_addf(t, "\"");
}

void stm_error_line(const mill_error *x, int64_t id, int64_t rows, const char *first_key, const char *last_key, stm_text *t)
{
    static const char *const phases[] = {"none", "load", "process", "check", "unload"};

    stm_text_addf(t, "{\"id\":%lld", (long long)id);
    json_field(t, "step", x->step);
    stm_text_addf(t, ",\"replica\":%d,\"attempt\":%d,\"phase\":\"%s\",\"class\":\"%s\"", x->replica, x->attempt,
                  phases[x->phase >= 0 && x->phase <= 4 ? x->phase : 0],
                  mill_class_text(x->error_class));
    json_field(t, "status", mill_status_text(x->status));
    json_field(t, "message", x->msg);
    json_field(t, "context", x->context);
    json_field(t, "remedy", x->remedy);
    json_field(t, "file", x->file);
    stm_text_addf(t, ",\"line\":%d,\"column\":%d", x->line, x->column);
    json_field(t, "field", x->field);
    stm_text_addf(t, ",\"rows\":%lld", (long long)rows);
    json_field(t, "first_key", first_key);
    json_field(t, "last_key", last_key);
    stm_text_addf(t, ",\"origin\":\"%s:%d\"}\n", x->origin, x->origin_line);
}

mill_status stm_error_file_add(const char *dir, const mill_error *e, mill_error *err)
{
    stm_text t = {0};
    mill_error none = {0};
    int64_t n = 0;
    mill_status st = stm_file_read(dir, "errors.jsonl", &t, &none);

    if (st != MILL_OK && st != MILL_ERR_NOT_FOUND) {
        mill_fail(err, st, "%s", none.msg);
    } else {
        for (size_t i = 0; i < t.bytes; i++) n += t.data[i] == '\n';
        stm_error_line(e, n + 1, 0, "", "", &t);
        st = t.failed ? mill_fail(err, MILL_ERR_NOMEM, "writing errors.jsonl")
                      : stm_file_replace(dir, "errors.jsonl", t.data, t.bytes, err);
    }
    stm_text_free(&t);
    return st;
}
