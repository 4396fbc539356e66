#include "store/manifest.h"

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

#define NAME STM_RUN_MANIFEST
#define MAX_BYTES ((int64_t)1 << 30)

typedef struct part {
    char *path; /* in the run directory relative to it, else absolute */
    int64_t rows;
    uint64_t bytes;
    uint32_t crc32;
} part;

typedef struct output {
    char *step;
    bool known; /* the pipeline has it */
    bool complete;
    part *parts;
    size_t n, cap;
    char **former; /* files of an earlier output, to be removed */
    size_t n_former, cap_former;
} output;

struct stm_manifest {
    pthread_mutex_t lock;
    const stm_files *files;
    const char *dir;
    output *outputs; /* lock */
    size_t n, cap;
    char **read; /* lock; real paths of what steps read */
    size_t n_read, cap_read;
};

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "no memory for " NAME); }

/* ---- table --------------------------------------------------------------------------------------------------------- */

static void output_fini(output *o)
{
    for (size_t i = 0; i < o->n; i++) stm_free(o->parts[i].path);
    for (size_t i = 0; i < o->n_former; i++) stm_free(o->former[i]);
    stm_free(o->parts);
    stm_free(o->former);
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

/* The newest are looked for most. */
static part *find_part(const output *o, const char *path)
{
    for (size_t i = o->n; i > 0; i--)
        if (strcmp(o->parts[i - 1].path, path) == 0) return &o->parts[i - 1];
    return NULL;
}

static bool put_part(output *o, const part *p)
{
    part *at = find_part(o, p->path);

    if (at == NULL) {
        if (stm_grow(&o->parts, &o->cap, o->n + 1, sizeof *o->parts) != 0) return false;
        at = &o->parts[o->n];
        *at = (part){.path = stm_strdup(p->path)};
        if (at->path == NULL) return false;
        o->n++;
    }
    at->rows = p->rows;
    at->bytes = p->bytes;
    at->crc32 = p->crc32;
    return true;
}

static bool put_former(output *o, const char *path)
{
    for (size_t i = 0; i < o->n_former; i++)
        if (strcmp(o->former[i], path) == 0) return true;
    if (stm_grow(&o->former, &o->cap_former, o->n_former + 1, sizeof *o->former) != 0) return false;
    o->former[o->n_former] = stm_strdup(path);
    return o->former[o->n_former] != NULL && ++o->n_former > 0;
}

/* ---- reading back ----------------------------------------------------------------------------------------------------
 * Only what this file writes is understood: a line is one object, keys in the order below. */

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

static void read_line(stm_manifest *m, const char *line)
{
    char *text = text_of(line, "{\"step\":\"");
    output *o = m->n > 0 ? &m->outputs[m->n - 1] : NULL;

    if (text != NULL) {
        o = find(m, text) == NULL ? add_output(m, text) : NULL;
        if (o != NULL) o->complete = strstr(line, "\"complete\":true") != NULL;
    } else if (o != NULL && (text = text_of(line, "{\"path\":\"")) != NULL) {
        const part p = {.path = text,
                        .rows = (int64_t)number_of(line, "\"rows\":", 10),
                        .bytes = number_of(line, "\"bytes\":", 10),
                        .crc32 = (uint32_t)number_of(line, "\"crc32\":\"", 16)};
        (void)put_part(o, &p); /* what is missing is found out anew */
    } else if (o != NULL && (text = text_of(line, "{\"former\":\"")) != NULL) {
        (void)put_former(o, text);
    }
    stm_free(text);
}

static void read_back(stm_manifest *m)
{
    const stm_files *f = m->files;
    const int fd = f->open(f->user, NAME, STM_OPEN_READ);
    const int64_t size = fd >= 0 ? f->size(f->user, fd) : 0;
    char *text = size > 0 && size < MAX_BYTES ? stm_malloc((size_t)size + 1) : NULL;

    if (text != NULL && stm_files_read_all(f, fd, text, (size_t)size, 0, NAME, NULL) == MILL_OK) {
        text[size] = 0;
        for (char *line = text, *end; line != NULL && *line != 0; line = end) {
            end = strchr(line, '\n');
            if (end != NULL) *end++ = 0;
            read_line(m, line);
        }
    }
    stm_free(text);
    if (fd >= 0) f->close(f->user, fd);
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

static void add_text(stm_text *t, const char *before, const char *text, const char *after)
{
    stm_text_addf(t, "%s", before);
    stm_text_add_json(t, text, strlen(text));
    stm_text_addf(t, "%s", after);
}

static void add_one(stm_text *t, const output *o)
{
    int64_t rows = 0;
    uint64_t bytes = 0;

    for (size_t i = 0; i < o->n; i++) {
        rows += o->parts[i].rows;
        bytes += o->parts[i].bytes;
    }
    add_text(t, "{\"step\":\"", o->step, "\"");
    stm_text_addf(t, ",\"complete\":%s,\"rows\":%lld,\"bytes\":%llu,\"parts\":[", o->complete ? "true" : "false", (long long)rows,
                  (unsigned long long)bytes);
    for (size_t i = 0; i < o->n; i++) {
        const part *p = &o->parts[i];
        add_text(t, i > 0 ? ",\n{\"path\":\"" : "\n{\"path\":\"", p->path, "\"");
        stm_text_addf(t, ",\"rows\":%lld,\"bytes\":%llu,\"crc32\":\"%08x\"}", (long long)p->rows, (unsigned long long)p->bytes,
                      (unsigned)p->crc32);
    }
    stm_text_addf(t, "]");
    for (size_t i = 0; i < o->n_former; i++)
        add_text(t, i > 0 ? ",\n{\"former\":\"" : ",\"former\":[\n{\"former\":\"", o->former[i], "\"}");
    stm_text_addf(t, o->n_former > 0 ? "]}" : "}");
}

static mill_status write_out(stm_manifest *m, mill_error *err)
{
    stm_text t = {0};
    bool complete = true, first = true;
    mill_status st;

    for (size_t i = 0; i < m->n; i++) complete = complete && (m->outputs[i].complete || !m->outputs[i].known);
    stm_text_addf(&t, "{\"version\":1,\"complete\":%s,\"outputs\":[", complete ? "true" : "false");
    for (size_t i = 0; i < m->n; i++) {
        if (!m->outputs[i].known) continue;
        stm_text_addf(&t, first ? "\n" : ",\n");
        add_one(&t, &m->outputs[i]);
        first = false;
    }
    stm_text_addf(&t, "\n]}\n");
    st = t.failed ? no_memory(err) : stm_files_replace(m->files, NAME, t.data, t.bytes, err);
    stm_text_free(&t);
    return st;
}

/* ---- open, close --------------------------------------------------------------------------------------------------- */

mill_status stm_manifest_open(const stm_files *files, const char *dir, stm_manifest **out, mill_error *err)
{
    stm_manifest *m = stm_calloc(sizeof *m);

    if (m == NULL) return no_memory(err);
    m->files = files;
    m->dir = dir;
    pthread_mutex_init(&m->lock, NULL);
    read_back(m);
    *out = m;
    return MILL_OK;
}

void stm_manifest_close(stm_manifest **manifest)
{
    stm_manifest *m = *manifest;

    if (m == NULL) return;
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
        for (size_t i = 0; i < o->n; i++) {
            ok = put_former(o, o->parts[i].path) && ok;
            stm_free(o->parts[i].path);
        }
        o->n = 0;
    }
    mill_status st = ok ? MILL_OK : no_memory(err);
    if (ok && fresh) st = write_out(m, err);
    pthread_mutex_unlock(&m->lock);
    return st;
}

/* ---- parts --------------------------------------------------------------------------------------------------------- */

static const char *relative(const stm_manifest *m, const char *path)
{
    const size_t n = strlen(m->dir);

    return strncmp(path, m->dir, n) == 0 && path[n] == '/' && path[n + 1] != 0 ? path + n + 1 : path;
}

/* CRC-32 as in gzip; a table of four bits: it is for files that were listed once and are not any more. */
static uint32_t crc32_more(uint32_t crc, const unsigned char *p, size_t n)
{
    uint32_t table[16];

    for (uint32_t i = 0; i < 16; i++) {
        uint32_t c = i;
        for (int k = 0; k < 4; k++) c = (c >> 1) ^ (c & 1 ? 0xedb88320u : 0);
        table[i] = c;
    }
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc = (crc >> 4) ^ table[(crc ^ p[i]) & 15];
        crc = (crc >> 4) ^ table[(crc ^ (uint32_t)(p[i] >> 4)) & 15];
    }
    return ~crc;
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
        to->crc32 = crc32_more(to->crc32, buf, n);
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
    } else if (given->bytes != 0 || given->rows == 0 || find_part(o, p.path) == NULL) {
        if (given->bytes == 0 && given->rows > 0) st = read_part(given, &p, err);
        if (st == MILL_OK && !put_part(o, &p)) st = no_memory(err);
        if (st == MILL_OK) st = write_out(m, err);
    }
    pthread_mutex_unlock(&m->lock);
    return st;
}

/* Whether @p path is to stay: a file of some output, or what a step reads. */
static bool is_used(const stm_manifest *m, const char *path, const char *absolute)
{
    char *real;
    bool used = false;

    for (size_t i = 0; i < m->n && !used; i++) used = m->outputs[i].known && find_part(&m->outputs[i], path) != NULL;
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
    for (size_t i = 0; i < o->n_former; i++) {
        stm_text path = {0};

        if (o->former[i][0] != '/') stm_text_addf(&path, "%s/", m->dir);
        stm_text_addf(&path, "%s", o->former[i]);
        if (!path.failed && !is_used(m, o->former[i], path.data)) (void)unlink(path.data); /* it may be gone */
        stm_text_free(&path);
        stm_free(o->former[i]);
    }
    o->n_former = 0;
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
    if (o != NULL) st = write_out(m, err);
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

static bool newer(const struct timespec *a, const struct timespec *b) { return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec; }

static bool part_differs(const stm_manifest *m, const part *p, const struct stat *list, stm_text *why)
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
    } else if (newer(&info.st_mtim, &list->st_mtim)) {
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
    stm_text name = {0};
    struct stat list = {0};
    bool differs = false;

    stm_text_addf(&name, "%s/" NAME, m->dir);
    if (!name.failed) (void)stat(name.data, &list);
    stm_text_free(&name);
    pthread_mutex_lock(&m->lock);
    const output *o = find(m, step);
    for (size_t i = 0; o != NULL && i < o->n && !differs; i++) differs = part_differs(m, &o->parts[i], &list, why);
    pthread_mutex_unlock(&m->lock);
    return differs;
}
