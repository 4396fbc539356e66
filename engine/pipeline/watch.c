#include "stepmill/watch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/runfiles.h"
#include "core/tree.h"
#include "exec/run.h"
#include "pipeline/facts.h"
#include "trace/errorfile.h"
#include "trace/files.h"
#include "trace/progress.h"
#include "trace/report.h"
#include "wrapper/errors.h"

#define FRESH_S 30.0 /* numbers are rewritten every second, by a slow disk less often */

struct mill_watch {
    char *dir;
    stm_picture *picture;
    stm_text text;
    char *folder;
};

static mill_status read_picture(const char *dir, stm_picture **out, mill_error *err)
{
    stm_text t = {0};
    mill_error why = {0};
    mill_status st = stm_file_read(dir, STM_RUN_PROGRESS, &t, &why);

    if (st == MILL_ERR_NOT_FOUND)
        (void)stm_no_run(dir, STM_RUN_PROGRESS, err);
    else if (st != MILL_OK)
        (void)mill_fail(err, st, "%s", why.msg);
    if (st == MILL_OK && (st = stm_picture_read(t.data != NULL ? t.data : "", t.bytes, out)) != MILL_OK)
        (void)mill_fail(err, st, "cannot read %s/progress.json: %s", dir,
                        st == MILL_ERR_NOMEM ? "out of memory" : "it is damaged, or of another version");
    stm_text_free(&t);
    return st;
}

mill_status mill_watch_open(const char *dir, mill_watch **out, mill_error *err)
{
    mill_watch *w = stm_calloc(sizeof *w);
    stm_tree_doc *doc = NULL;
    const stm_tree *facts = NULL;
    mill_error none = {0}; /* what can be seen of a run does not hang on it */
    mill_status st;

    if (w == NULL || (w->dir = stm_strdup(dir)) == NULL) {
        mill_watch_destroy(&w);
        return mill_fail(err, MILL_ERR_NOMEM, "reading %s", dir);
    }
    if ((st = read_picture(dir, &w->picture, err)) != MILL_OK) {
        mill_watch_destroy(&w);
        return st;
    }
    if (stm_facts_open(dir, &doc, &facts, &none) == MILL_OK) w->folder = stm_strdup(stm_tree_text(facts, "directory"));
    stm_tree_destroy(&doc);
    *out = w;
    return MILL_OK;
}

mill_status mill_watch_look(mill_watch *w, mill_error *err)
{
    stm_picture *now = NULL;
    const mill_status st = read_picture(w->dir, &now, err);

    if (st != MILL_OK) return st;
    stm_picture_destroy(&w->picture);
    w->picture = now;
    return MILL_OK;
}

void mill_watch_destroy(mill_watch **w)
{
    if (w == NULL || *w == NULL) return;
    stm_picture_destroy(&(*w)->picture);
    stm_text_free(&(*w)->text);
    stm_free((*w)->dir);
    stm_free((*w)->folder);
    stm_free(*w);
    *w = NULL;
}

const char *mill_watch_show(mill_watch *w, int style, int width, int height, int *lines)
{
    w->text.bytes = 0;
    w->text.failed = false;
    *lines = stm_progress_show(w->picture, style, width, height, &w->text);
    if (w->text.failed || w->text.data == NULL) *lines = 0;
    return *lines > 0 ? w->text.data : "";
}

mill_run_state mill_watch_state(const mill_watch *w) { return (mill_run_state)w->picture->state; }
const char *mill_watch_name(const mill_watch *w) { return w->picture->name; }
const char *mill_watch_host(const mill_watch *w) { return w->picture->host; }
int32_t mill_watch_pid(const mill_watch *w) { return w->picture->pid; }

const char *mill_watch_folder(const mill_watch *w) { return w->folder != NULL ? w->folder : ""; }

int mill_watch_exit_code(const mill_watch *w)
{
    switch (w->picture->state) {
    case STM_PICTURE_DONE: return w->picture->rows_imputed > w->picture->max_errors ? MILL_EXIT_ERRORS : MILL_EXIT_OK;
    case STM_PICTURE_LOAD_FAILED: return MILL_EXIT_LOAD;
    case STM_PICTURE_FAILED: return MILL_EXIT_PROCESS;
    default: return MILL_EXIT_STOPPED;
    }
}

double mill_watch_age(const mill_watch *w)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9 - (double)w->picture->wall_ms / 1e3;
}

/* A process that has ended and that nobody has waited for yet is still there by name: a container without an init leaves it so for
 * good. */
static bool is_there(pid_t pid)
{
    char path[40], text[160] = "";
    const char *name_end;
    FILE *f;

    if (kill(pid, 0) != 0 && errno != EPERM) return false;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if ((f = fopen(path, "re")) == NULL) return true;
    if (fgets(text, sizeof text, f) == NULL) text[0] = '\0';
    fclose(f);
    name_end = strrchr(text, ')');
    return name_end == NULL || strncmp(name_end, ") Z", 3) != 0;
}

bool mill_watch_live(const mill_watch *w)
{
    char host[STM_PICTURE_NAME] = "";

    if (w->picture->state != STM_PICTURE_RUNNING || w->picture->pid <= 0) return false;
    if (gethostname(host, sizeof host - 1) == 0 && strcmp(host, w->picture->host) == 0)
        return is_there(w->picture->pid);
    return mill_watch_age(w) < FRESH_S;
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/* Why a process gave the run up is told by whoever looked after it, in the last line of a file that is younger than the numbers. */
static void add_last_word(const char *dir, int64_t wall_ms, int64_t id, stm_text *out)
{
    stm_text path = {0}, file = {0};
    struct stat s;
    mill_error none = {0};
    size_t from;

    stm_text_addf(&path, "%s/" STM_RUN_ERRORS, dir);
    if (!path.failed && stat(path.data, &s) == 0 && (int64_t)s.st_mtim.tv_sec * 1000 + s.st_mtim.tv_nsec / 1000000 >= wall_ms &&
        stm_file_read(dir, STM_RUN_ERRORS, &file, &none) == MILL_OK && file.bytes > 1) {
        for (from = file.bytes - 1; from > 0 && file.data[from - 1] != '\n';) from--;
        const char *rest = memchr(file.data + from, ',', file.bytes - from); /* its number is of that file */
        if (rest != NULL && strstr(rest, ",\"rows\":0,") != NULL)
            stm_text_addf(out, "{\"id\":%lld%.*s", (long long)id, (int)(file.data + file.bytes - rest), rest);
    }
    stm_text_free(&path);
    stm_text_free(&file);
}

static mill_status read_committed(const char *dir, stm_text *out, int64_t *n, mill_error *err)
{
    stm_errors *log = NULL;
    const stm_error_record *r;
    mill_status st = stm_errors_create(NULL, NULL, &log);

    *n = 0;
    if (st != MILL_OK) return mill_fail(err, st, "reading the errors of %s", dir);
    if ((st = stm_run_look_at_errors(dir, log, err)) == MILL_OK)
        while ((r = stm_errors_nth(log, *n)) != NULL) stm_error_line(&r->error, ++*n, r->rows, r->first_key, r->last_key, out);
    stm_errors_destroy(&log);
    return st;
}

/* As mill_errors_read says; @p p: the run's numbers. */
static mill_status read_errors(const char *dir, const stm_picture *p, stm_text *out, mill_error *err)
{
    const mill_watch w = {.picture = (stm_picture *)p};
    mill_error why = {0};
    int64_t n;
    mill_status st;

    if (p->state != STM_PICTURE_RUNNING) {
        st = stm_file_read(dir, STM_RUN_ERRORS, out, &why);
        return st == MILL_OK ? st : mill_fail(err, st, "%s", why.msg);
    }
    /* another process may have taken over in between, and removed what it read */
    if ((st = read_committed(dir, out, &n, &why)) != MILL_OK) {
        out->bytes = 0;
        if ((st = read_committed(dir, out, &n, err)) != MILL_OK) return st;
    }
    if (!mill_watch_live(&w)) add_last_word(dir, p->wall_ms, n + 1, out);
    return MILL_OK;
}

mill_status mill_errors_read(const char *dir, char **out, mill_error *err)
{
    stm_picture *p = NULL;
    stm_text t = {0};
    mill_status st = read_picture(dir, &p, err);

    if (st != MILL_OK) return st;
    st = read_errors(dir, p, &t, err);
    stm_picture_destroy(&p);
    if (st == MILL_OK) {
        stm_text_add(&t, "", 0); /* a text also of none */
        return stm_text_hand_out(&t, out, err);
    }
    stm_text_free(&t);
    return st;
}

mill_status mill_errors_add(const char *dir, const mill_error *cause, mill_error *err)
{
    return stm_error_file_add(dir, cause, err);
}

mill_status mill_report_write(const char *dir, const char *path, mill_error *err)
{
    stm_picture *p = NULL;
    stm_text errors = {0}, html = {0};
    stm_tree_doc *doc = NULL;
    const stm_tree *facts = NULL;
    mill_error none = {0};
    mill_status st = read_picture(dir, &p, err);

    if (st != MILL_OK) return st;
    if (stm_facts_open(dir, &doc, &facts, &none) != MILL_OK) facts = NULL;
    if (read_errors(dir, p, &errors, &none) != MILL_OK) errors.bytes = 0;
    stm_report_write(p, facts, errors.bytes > 0 ? errors.data : NULL, errors.bytes, &html);
    if (html.failed || html.data == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "making the report of %s", dir);
    } else if (path == NULL) {
        st = stm_file_replace(dir, STM_RUN_REPORT, html.data, html.bytes, err);
    } else {
        const char *slash = strrchr(path, '/');
        char *folder = slash != NULL ? stm_strndup(path, (size_t)(slash - path)) : stm_strdup(".");
        st = folder == NULL ? mill_fail(err, MILL_ERR_NOMEM, "writing %s", path)
                            : stm_file_replace(folder, slash != NULL ? slash + 1 : path, html.data, html.bytes, err);
        stm_free(folder);
    }
    stm_tree_destroy(&doc);
    stm_picture_destroy(&p);
    stm_text_free(&errors);
    stm_text_free(&html);
    return st;
}
