#include "store/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/runfiles.h"
#include "core/text.h"
#include "stepmill/crc32.h"

#define NAME STM_RUN_MANIFEST
#define MAX_BYTES ((int64_t)1 << 30)

typedef struct part {
    char *path; /* in the run directory relative to it, else absolute */
    int64_t rows;
    uint64_t bytes;
    uint32_t crc32;
} part;

typedef struct file_list {
    part *at; /* [n] */
    size_t n, cap;
    size_t *slots; /* [n_slots, a power of two] which one has a path, and 1; 0 = none */
    size_t n_slots;
} file_list;

typedef struct output {
    char *step;
    bool known; /* the pipeline has it */
    bool complete;
    file_list parts;
    size_t listed; /* so many of them stood in the list that was found, the others in what was appended to it */
    file_list former; /* of an earlier output, to be removed */
} output;

struct stm_manifest {
    pthread_mutex_t lock;
    const stm_files *files;
    const char *dir;
    uint64_t epoch;
    struct timespec listed[2]; /* when the list was written as it was found, and what was appended to it */
    char log[48];              /* lock; what is appended goes there; empty = the list on the disk names none of ours */
    int log_fd;                /* lock; -1 = not made yet */
    int64_t log_bytes;         /* lock */
    uint32_t logs;             /* lock; so many had a name */
    size_t whole, logged;      /* lock; parts in the list on the disk, and lines appended to it */
    bool unsynced, unnamed;    /* lock; of the log: lines, its name */
    output *outputs; /* lock */
    size_t n, cap;
    char **read; /* lock; real paths of what steps read */
    size_t n_read, cap_read;
};

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "no memory for " NAME); }

/* ---- table --------------------------------------------------------------------------------------------------------- */

static void list_fini(file_list *f)
{
    for (size_t i = 0; i < f->n; i++) stm_free(f->at[i].path);
    stm_free(f->at);
    stm_free(f->slots);
    *f = (file_list){0};
}

static void output_fini(output *o)
{
    list_fini(&o->parts);
    list_fini(&o->former);
    stm_free(o->step);
}

static output *find(stm_manifest *m, const char *step)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->outputs[i].step, step) == 0) return &m->outputs[i];
    return NULL;
}

static output *add_output(stm_manifest *m, const char *step)
{
    output o = {.step = stm_strdup(step)};

    if (o.step == NULL || stm_grow(&m->outputs, &m->cap, m->n + 1, sizeof *m->outputs) != 0) {
        stm_free(o.step);
        return NULL;
    }
    m->outputs[m->n] = o;
    return &m->outputs[m->n++];
}

/* The place of @p path, or where it would be. */
static size_t *slot_of(const file_list *f, const char *path)
{
    size_t i = (size_t)stm_hash64(path, strlen(path), 0);

    for (;; i++) {
        size_t *slot = &f->slots[i & (f->n_slots - 1)];
        if (*slot == 0 || strcmp(f->at[*slot - 1].path, path) == 0) return slot;
    }
}

static part *find_part(const file_list *f, const char *path)
{
    const size_t *slot = f->n_slots > 0 ? slot_of(f, path) : NULL;

    return slot != NULL && *slot > 0 ? &f->at[*slot - 1] : NULL;
}

static bool make_room(file_list *f)
{
    const size_t n = f->n_slots > 0 ? 2 * f->n_slots : 16;
    size_t *slots;

    if (stm_grow(&f->at, &f->cap, f->n + 1, sizeof *f->at) != 0) return false;
    if (2 * (f->n + 1) <= f->n_slots) return true;
    if ((slots = stm_calloc(n * sizeof *slots)) == NULL) return false;
    stm_free(f->slots);
    f->slots = slots;
    f->n_slots = n;
    for (size_t i = 0; i < f->n; i++) *slot_of(f, f->at[i].path) = i + 1;
    return true;
}

static bool put_part(file_list *f, const part *p)
{
    part *at = find_part(f, p->path);

    if (at == NULL) {
        part new = {.path = make_room(f) ? stm_strdup(p->path) : NULL};
        if (new.path == NULL) return false;
        f->at[f->n] = new;
        *slot_of(f, new.path) = f->n + 1;
        at = &f->at[f->n++];
    }
    at->rows = p->rows;
    at->bytes = p->bytes;
    at->crc32 = p->crc32;
    return true;
}

/* ---- reading back ----------------------------------------------------------------------------------------------------
 * Only what this file writes is understood: a line is one object, keys in the order below. Of what was appended a line counts when
 * it is whole. */

/* Text behind @p key on the line, unescaped; NULL: not there, or no memory. */
static char *text_of(const char *line, const char *key)
{
    const char *p = strstr(line, key);
    char *out, *to;

    if (p == NULL) return NULL;
    p += strlen(key);
    out = to = stm_malloc(strlen(p) + 1);
    if (out == NULL) return NULL;
    for (; *p != '"' && *p != 0; p++) {
        if (*p != '\\') {
            *to++ = *p;
            continue;
        }
        p++;
        if (*p == 0) break;
        if (*p == 'u') {
            unsigned code = 0;
            for (int i = 0; i < 4 && p[1] != 0; i++) {
                const char c = *++p;
                code = code * 16 + (unsigned)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
            }
            *to++ = (char)code; /* control characters only */
        } else {
            *to++ = *p == 'n' ? '\n' : *p == 't' ? '\t' : *p == 'r' ? '\r' : *p == 'b' ? '\b' : *p == 'f' ? '\f' : *p;
        }
    }
    *to = 0;
    return out;
}

static unsigned long long number_of(const char *line, const char *key, int base)
{
    const char *p = strstr(line, key);

    return p != NULL ? strtoull(p + strlen(key), NULL, base) : 0;
}

static part part_of(const char *line, char *path)
{
    return (part){.path = path,
                  .rows = (int64_t)number_of(line, "\"rows\":", 10),
                  .bytes = number_of(line, "\"bytes\":", 10),
                  .crc32 = (uint32_t)number_of(line, "\"crc32\":\"", 16)};
}

/* @p log: gets the name of what was appended. */
static void read_line(stm_manifest *m, const char *line, char **log)
{
    char *text = text_of(line, "{\"step\":\"");
    output *o = m->n > 0 ? &m->outputs[m->n - 1] : NULL;

    if (text != NULL) {
        o = find(m, text) == NULL ? add_output(m, text) : NULL;
        if (o != NULL) o->complete = strstr(line, "\"complete\":true") != NULL;
    } else if (o != NULL && (text = text_of(line, "{\"path\":\"")) != NULL) {
        const part p = part_of(line, text);
        (void)put_part(&o->parts, &p); /* what is missing is found out anew */
    } else if (o != NULL && (text = text_of(line, "{\"former\":\"")) != NULL) {
        (void)put_part(&o->former, &(part){.path = text});
    } else if (o == NULL && *log == NULL) {
        *log = text_of(line, "\"more\":\"");
    }
    stm_free(text);
}

static void read_appended(stm_manifest *m, const char *line)
{
    const size_t n = strlen(line);
    char *step = n > 2 && strcmp(line + n - 2, "\"}") == 0 ? text_of(line, "{\"step\":\"") : NULL,
         *path = step != NULL ? text_of(line, ",\"path\":\"") : NULL;
    output *o = path != NULL ? find(m, step) : NULL;
    const part p = part_of(line, path);

    if (o != NULL) (void)put_part(&o->parts, &p);
    stm_free(step);
    stm_free(path);
}

/* A file's text, stm_free; NULL: it is not there, or cannot be read. */
static char *text_in(const stm_manifest *m, const char *name, struct timespec *written)
{
    const stm_files *f = m->files;
    const int fd = f->open(f->user, name, STM_OPEN_READ);
    const int64_t size = fd >= 0 ? f->size(f->user, fd) : 0;
    char *text = size > 0 && size < MAX_BYTES ? stm_malloc((size_t)size + 1) : NULL;
    stm_text path = {0};
    struct stat info;

    if (text != NULL && stm_files_read_all(f, fd, text, (size_t)size, 0, name, NULL) == MILL_OK) {
        text[size] = 0;
    } else {
        stm_free(text);
        text = NULL;
    }
    if (fd >= 0) f->close(f->user, fd);
    stm_text_addf(&path, "%s/%s", m->dir, name);
    if (!path.failed && stat(path.data, &info) == 0) *written = info.st_mtim;
    stm_text_free(&path);
    return text;
}

static void read_back(stm_manifest *m)
{
    char *text = text_in(m, NAME, &m->listed[0]), *log = NULL, *more = NULL, *end;

    m->listed[1] = m->listed[0];
    for (char *line = text; line != NULL && *line != 0; line = end) {
        end = strchr(line, '\n');
        if (end != NULL) *end++ = 0;
        read_line(m, line, &log);
    }
    if (log != NULL && strncmp(log, STM_RUN_MANIFEST_LOG, strlen(STM_RUN_MANIFEST_LOG)) == 0 && strchr(log, '/') == NULL)
        more = text_in(m, log, &m->listed[1]);
    for (size_t i = 0; i < m->n; i++) m->outputs[i].listed = m->outputs[i].parts.n;
    for (char *line = more; line != NULL && (end = strchr(line, '\n')) != NULL; line = end) {
        *end++ = 0;
        read_appended(m, line);
    }
    stm_free(text);
    stm_free(log);
    stm_free(more);
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

static void add_text(stm_text *t, const char *before, const char *text, const char *after)
{
    stm_text_addf(t, "%s", before);
    stm_text_add_json(t, text, strlen(text));
    stm_text_addf(t, "%s", after);
}

static void add_facts(stm_text *t, const part *p)
{
    stm_text_addf(t, ",\"rows\":%lld,\"bytes\":%llu,\"crc32\":\"%08x\"}", (long long)p->rows, (unsigned long long)p->bytes,
                  (unsigned)p->crc32);
}

static void add_one(stm_text *t, const output *o)
{
    int64_t rows = 0;
    uint64_t bytes = 0;

    for (size_t i = 0; i < o->parts.n; i++) {
        rows += o->parts.at[i].rows;
        bytes += o->parts.at[i].bytes;
    }
    add_text(t, "{\"step\":\"", o->step, "\"");
    stm_text_addf(t, ",\"complete\":%s,\"rows\":%lld,\"bytes\":%llu,\"parts\":[", o->complete ? "true" : "false", (long long)rows,
                  (unsigned long long)bytes);
    for (size_t i = 0; i < o->parts.n; i++) {
        add_text(t, i > 0 ? ",\n{\"path\":\"" : "\n{\"path\":\"", o->parts.at[i].path, "\"");
        add_facts(t, &o->parts.at[i]);
    }
    stm_text_addf(t, "]");
    for (size_t i = 0; i < o->former.n; i++)
        add_text(t, i > 0 ? ",\n{\"former\":\"" : ",\"former\":[\n{\"former\":\"", o->former.at[i].path, "\"}");
    stm_text_addf(t, o->former.n > 0 ? "]}" : "}");
}

static void close_log(stm_manifest *m)
{
    if (m->log_fd >= 0) m->files->close(m->files->user, m->log_fd);
    m->log_fd = -1;
    m->log[0] = 0;
    m->unsynced = m->unnamed = false;
}

/* The whole list. @p more: parts may follow, and are appended to a file that it names, of this opening alone: what a process that
 * was thought dead appends is in another one. */
static mill_status write_out(stm_manifest *m, bool more, mill_error *err)
{
    stm_text t = {0};
    bool complete = true, first = true;
    char log[sizeof m->log] = "";
    size_t n = 0;
    mill_status st;

    for (size_t i = 0; i < m->n; i++) complete = complete && (m->outputs[i].complete || !m->outputs[i].known);
    stm_text_addf(&t, "{\"version\":1,\"complete\":%s,", complete ? "true" : "false");
    if (more && !complete) {
        snprintf(log, sizeof log, STM_RUN_MANIFEST_LOG "%llu.%u", (unsigned long long)m->epoch, (unsigned)m->logs++);
        stm_text_addf(&t, "\"more\":\"%s\",", log);
    }
    stm_text_addf(&t, "\"outputs\":[");
    for (size_t i = 0; i < m->n; i++) {
        if (!m->outputs[i].known) continue;
        stm_text_addf(&t, first ? "\n" : ",\n");
        add_one(&t, &m->outputs[i]);
        n += m->outputs[i].parts.n;
        first = false;
    }
    stm_text_addf(&t, "\n]}\n");
    st = t.failed ? no_memory(err) : stm_files_replace(m->files, NAME, t.data, t.bytes, err);
    stm_text_free(&t);
    if (st != MILL_OK) {
        m->logged = SIZE_MAX; /* nothing is appended to what may not be there */
        return st;
    }
    if (m->log_fd >= 0) (void)m->files->remove(m->files->user, m->log);
    close_log(m);
    memcpy(m->log, log, sizeof log);
    m->log_bytes = 0;
    m->logged = 0;
    m->whole = n;
    return MILL_OK;
}

/* One line more: what it costs does not depend on how many there are. The list is written anew when it would become longer by half
 * of it: so at least half of all parts stand in there, and each was written twice. */
static mill_status append(stm_manifest *m, const output *o, const part *p, mill_error *err)
{
    const stm_files *f = m->files;
    stm_text t = {0};
    mill_status st;

    if (m->log[0] == 0 || m->logged >= m->whole) return write_out(m, true, err);
    if (m->log_fd < 0) {
        const int fd = f->open(f->user, m->log, STM_OPEN_NEW);
        if (fd == -EEXIST) return write_out(m, true, err); /* of somebody who came to grief: another name is as good */
        if (fd < 0) return mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", m->log, strerror(-fd));
        m->log_fd = fd;
        m->unnamed = true;
    }
    add_text(&t, "{\"step\":\"", o->step, "\"");
    add_text(&t, ",\"path\":\"", p->path, "\"");
    add_facts(&t, p);
    stm_text_addf(&t, "\n");
    st = t.failed ? no_memory(err) : stm_files_write_all(f, m->log_fd, t.data, t.bytes, m->log_bytes, m->log, err);
    m->log_bytes += (int64_t)t.bytes;
    m->logged = st == MILL_OK ? m->logged + 1 : SIZE_MAX; /* behind half a line nothing is read */
    m->unsynced = true;
    stm_text_free(&t);
    return st;
}

mill_status stm_manifest_sync(stm_manifest *m, mill_error *err)
{
    const stm_files *f = m->files;
    mill_status st = MILL_OK;
    int code = 0;

    pthread_mutex_lock(&m->lock);
    if (m->unsynced) code = f->sync(f->user, m->log_fd);
    if (code >= 0 && m->unnamed) code = f->sync_names(f->user);
    if (code < 0) st = mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", m->log, strerror(-code));
    if (code >= 0) m->unsynced = m->unnamed = false;
    pthread_mutex_unlock(&m->lock);
    return st;
}

typedef struct old_logs {
    const stm_manifest *m;
    char **names; /* [n] */
    size_t n, cap;
} old_logs;

static void note_old(const char *name, void *ctx)
{
    old_logs *l = ctx;

    if (strncmp(name, STM_RUN_MANIFEST_LOG, strlen(STM_RUN_MANIFEST_LOG)) != 0 || strcmp(name, l->m->log) == 0) return;
    if (stm_grow(&l->names, &l->cap, l->n + 1, sizeof *l->names) == 0 && (l->names[l->n] = stm_strdup(name)) != NULL) l->n++;
}

/* Files of lines that stand in the list by now, of earlier openings. */
static void remove_old(stm_manifest *m)
{
    old_logs l = {.m = m};

    (void)m->files->list(m->files->user, note_old, &l);
    for (size_t i = 0; i < l.n; i++) {
        (void)m->files->remove(m->files->user, l.names[i]); /* the next opening tries again */
        stm_free(l.names[i]);
    }
    stm_free(l.names);
}

/* ---- open, close --------------------------------------------------------------------------------------------------- */

mill_status stm_manifest_open(const stm_files *files, const char *dir, uint64_t epoch, stm_manifest **out, mill_error *err)
{
    stm_manifest *m = stm_calloc(sizeof *m);

    if (m == NULL) return no_memory(err);
    m->files = files;
    m->dir = dir;
    m->epoch = epoch;
    m->log_fd = -1;
    pthread_mutex_init(&m->lock, NULL);
    read_back(m);
    *out = m;
    return MILL_OK;
}

void stm_manifest_forget(stm_manifest *m)
{
    pthread_mutex_lock(&m->lock);
    close_log(m);
    pthread_mutex_unlock(&m->lock);
}

void stm_manifest_close(stm_manifest **manifest)
{
    stm_manifest *m = *manifest;

    if (m == NULL) return;
    /* else the lines stay where they are, which the list says */
    if (m->log[0] != 0 && write_out(m, false, NULL) == MILL_OK) remove_old(m);
    close_log(m);
    for (size_t i = 0; i < m->n; i++) output_fini(&m->outputs[i]);
    for (size_t i = 0; i < m->n_read; i++) stm_free(m->read[i]);
    stm_free(m->read);
    stm_free(m->outputs);
    pthread_mutex_destroy(&m->lock);
    stm_free(m);
    *manifest = NULL;
}

mill_status stm_manifest_begin(stm_manifest *m, const char *step, bool fresh, mill_error *err)
{
    output *o;
    bool ok;

    pthread_mutex_lock(&m->lock);
    o = find(m, step);
    if (o == NULL) o = add_output(m, step);
    ok = o != NULL;
    if (ok) o->known = true;
    if (ok && fresh) {
        o->complete = false;
        for (size_t i = 0; i < o->parts.n; i++) ok = put_part(&o->former, &o->parts.at[i]) && ok;
        list_fini(&o->parts);
    }
    mill_status st = ok ? MILL_OK : no_memory(err);
    if (ok && fresh) st = write_out(m, true, err);
    pthread_mutex_unlock(&m->lock);
    return st;
}

/* ---- parts --------------------------------------------------------------------------------------------------------- */

static const char *relative(const stm_manifest *m, const char *path)
{
    const size_t n = strlen(m->dir);

    return strncmp(path, m->dir, n) == 0 && path[n] == '/' && path[n + 1] != 0 ? path + n + 1 : path;
}

static mill_status read_part(const mill_part *from, part *to, mill_error *err)
{
    unsigned char buf[16384];
    FILE *f = fopen(from->path, "rbe");
    size_t n;

    if (f == NULL) return mill_fail(err, MILL_ERR_IO, "cannot open %s, a complete part of the output", from->path);
    to->bytes = 0;
    to->crc32 = 0;
    while ((n = fread(buf, 1, sizeof buf, f)) > 0) {
        to->crc32 = mill_crc32(to->crc32, buf, n);
        to->bytes += n;
    }
    const bool bad = ferror(f) != 0;
    fclose(f);
    return bad ? mill_fail(err, MILL_ERR_IO, "cannot read %s", from->path) : MILL_OK;
}

mill_status stm_manifest_part(stm_manifest *m, const char *step, const mill_part *given, mill_error *err)
{
    mill_status st = MILL_OK;
    part p = {
        .path = (char *)(uintptr_t)relative(m, given->path), .rows = given->rows, .bytes = given->bytes, .crc32 = given->crc32};

    pthread_mutex_lock(&m->lock);
    output *o = find(m, step);
    if (o == NULL) {
        st = mill_fail(err, MILL_ERR_INVALID, "step %s has no output", step);
    } else if (given->bytes != 0 || given->rows == 0 || find_part(&o->parts, p.path) == NULL) {
        if (given->bytes == 0 && given->rows > 0) st = read_part(given, &p, err);
        if (st == MILL_OK && !put_part(&o->parts, &p)) st = no_memory(err);
        if (st == MILL_OK) st = append(m, o, &p, err);
    }
    pthread_mutex_unlock(&m->lock);
    return st;
}

/* Whether @p path is to stay: a file of some output, or what a step reads. */
static bool is_used(const stm_manifest *m, const char *path, const char *absolute)
{
    char *real;
    bool used = false;

    for (size_t i = 0; i < m->n && !used; i++) used = m->outputs[i].known && find_part(&m->outputs[i].parts, path) != NULL;
    if (used || m->n_read == 0 || (real = realpath(absolute, NULL)) == NULL) return used;
    for (size_t i = 0; i < m->n_read && !used; i++) {
        const size_t n = strlen(m->read[i]);

        used = strncmp(real, m->read[i], n) == 0 && (real[n] == 0 || (real[n] == '/' && strchr(real + n + 1, '/') == NULL));
    }
    free(real);
    return used;
}

static void remove_former(stm_manifest *m, output *o)
{
    for (size_t i = 0; i < o->former.n; i++) {
        const char *name = o->former.at[i].path;
        stm_text path = {0};

        if (name[0] != '/') stm_text_addf(&path, "%s/", m->dir);
        stm_text_addf(&path, "%s", name);
        if (!path.failed && !is_used(m, name, path.data)) (void)unlink(path.data); /* it may be gone */
        stm_text_free(&path);
    }
    list_fini(&o->former);
}

mill_status stm_manifest_complete(stm_manifest *m, const char *step, mill_error *err)
{
    mill_status st = MILL_OK;
    bool all = true;

    pthread_mutex_lock(&m->lock);
    output *o = find(m, step);
    if (o != NULL) o->complete = true;
    for (size_t i = 0; i < m->n; i++) all = all && (m->outputs[i].complete || !m->outputs[i].known);
    /* Not before: a file that was one output's may be becoming another's, which lists it only when it is there. */
    for (size_t i = 0; all && i < m->n; i++)
        if (m->outputs[i].known) remove_former(m, &m->outputs[i]);
    if (o != NULL) st = write_out(m, true, err);
    if (o != NULL && all && st == MILL_OK) remove_old(m);
    pthread_mutex_unlock(&m->lock);
    return st;
}

mill_status stm_manifest_reads(stm_manifest *m, const char *path, mill_error *err)
{
    char *real = realpath(path, NULL);
    mill_status st = MILL_OK;

    if (real == NULL) return MILL_OK;
    pthread_mutex_lock(&m->lock);
    if (stm_grow(&m->read, &m->cap_read, m->n_read + 1, sizeof *m->read) == 0 && (m->read[m->n_read] = stm_strdup(real)) != NULL)
        m->n_read++;
    else
        st = no_memory(err);
    pthread_mutex_unlock(&m->lock);
    free(real);
    return st;
}

static bool newer(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

static bool part_differs(const stm_manifest *m, const part *p, const struct timespec *listed, stm_text *why)
{
    stm_text path = {0};
    struct stat info;
    bool gone = false, other = false;

    if (p->path[0] != '/') stm_text_addf(&path, "%s/", m->dir);
    stm_text_addf(&path, "%s", p->path);
    if (path.failed) return false;
    if (stat(path.data, &info) != 0) {
        gone = true;
    } else if ((uint64_t)info.st_size != p->bytes) {
        other = true;
    } else if (newer(&info.st_mtim, listed)) {
        const mill_part given = {.path = path.data};
        part now;
        other = read_part(&given, &now, NULL) != MILL_OK || now.crc32 != p->crc32;
    }
    if (gone || other) stm_text_addf(why, "%s %s", path.data, gone ? "is gone" : "was changed by somebody else");
    stm_text_free(&path);
    return gone || other;
}

bool stm_manifest_differs(stm_manifest *m, const char *step, stm_text *why)
{
    bool differs = false;

    pthread_mutex_lock(&m->lock);
    const output *o = find(m, step);
    for (size_t i = 0; o != NULL && i < o->parts.n && !differs; i++)
        differs = part_differs(m, &o->parts.at[i], &m->listed[i < o->listed ? 0 : 1], why);
    pthread_mutex_unlock(&m->lock);
    return differs;
}
