#include "store/signature.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"

#define CHUNK ((size_t)1 << 16)
#define SAMPLES 64
#define SAMPLE ((int64_t)1 << 14) /* bytes */
#define FILE_MARK "file:" /* values that are digests: nobody wants to read those */

void stm_signature_add(stm_signature *s, const char *name, const char *value)
{
    stm_text_add(&s->fields, name, strlen(name) + 1);
    stm_text_add(&s->fields, value, strlen(value) + 1);
}

void stm_signature_fini(stm_signature *s) { stm_text_free(&s->fields); }

void stm_signature_digest(const stm_signature *s, unsigned char out[STM_SIGNATURE_BYTES])
{
    for (uint64_t i = 0; i < STM_SIGNATURE_BYTES / 8; i++) {
        const uint64_t h = stm_hash64(s->fields.data != NULL ? s->fields.data : "", s->fields.bytes, 0x5747 + i);
        memcpy(out + i * 8, &h, 8);
    }
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

static uint64_t hash_range(int fd, int64_t at, int64_t n, unsigned char *buf, uint64_t seed)
{
    while (n > 0) {
        const ssize_t got = pread(fd, buf, n < (int64_t)CHUNK ? (size_t)n : CHUNK, at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return stm_hash64("short", 5, seed);
        seed = stm_hash64_long(buf, (size_t)got, seed);
        at += got;
        n -= got;
    }
    return seed;
}

static uint64_t hash_file(const char *path, const struct stat *st)
{
    const int64_t size = st->st_size;
    uint64_t h = stm_hash64(&size, sizeof size, 1);
    unsigned char *buf = stm_malloc(CHUNK);
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || buf == NULL) {
        h = stm_hash64("unreadable", 10, h);
    } else if (size <= STM_WHOLE_FILE_BYTES) {
        h = hash_range(fd, 0, size, buf, h);
    } else {
        const int64_t time[2] = {st->st_mtim.tv_sec, st->st_mtim.tv_nsec};
        h = stm_hash64(time, sizeof time, h);
        for (int64_t i = 0; i < SAMPLES; i++)
            h = hash_range(fd, i < SAMPLES - 1 ? (size - SAMPLE) / (SAMPLES - 1) * i : size - SAMPLE, SAMPLE, buf, h);
    }
    if (fd >= 0) close(fd);
    stm_free(buf);
    return h;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The files directly in a folder, by name: a model. */
static uint64_t hash_folder(const char *path)
{
    uint64_t h = stm_hash64("folder", 6, 2);
    DIR *d = opendir(path);
    const struct dirent *e;
    char **names = NULL;
    size_t n = 0, cap = 0;

    while (d != NULL && (e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.' || stm_grow(&names, &cap, n + 1, sizeof *names) != 0) continue;
        if ((names[n] = stm_strdup(e->d_name)) != NULL) n++;
    }
    if (d != NULL) closedir(d);
    if (n > 1) qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        stm_text full = {0};
        struct stat st;
        stm_text_addf(&full, "%s/%s", path, names[i]);
        if (!full.failed && stat(full.data, &st) == 0 && S_ISREG(st.st_mode)) {
            const uint64_t f = hash_file(full.data, &st);
            h = stm_hash64(names[i], strlen(names[i]), h);
            h = stm_hash64(&f, sizeof f, h);
        }
        stm_text_free(&full);
        stm_free(names[i]);
    }
    stm_free(names);
    return h;
}

void stm_signature_add_file(stm_signature *s, const char *name, const char *path)
{
    char value[64];
    struct stat st;

    if (stat(path, &st) != 0)
        snprintf(value, sizeof value, FILE_MARK "none");
    else if (S_ISREG(st.st_mode))
        snprintf(value, sizeof value, FILE_MARK "%016llx", (unsigned long long)hash_file(path, &st));
    else if (S_ISDIR(st.st_mode))
        snprintf(value, sizeof value, FILE_MARK "d%016llx", (unsigned long long)hash_folder(path));
    else
        snprintf(value, sizeof value, FILE_MARK "special"); /* nothing can be known of its contents; no step reads such a file */
    stm_signature_add(s, name, value);
}

/* ---- what changed ------------------------------------------------------------------------------------------------- */

typedef struct field {
    const char *name, *value;
} field;

/* The next field; false at the end, or where the list is not one. */
static bool next(const char **at, const char *end, field *f)
{
    const char *nul = *at < end ? memchr(*at, 0, (size_t)(end - *at)) : NULL;

    if (nul == NULL) return false;
    f->name = *at;
    f->value = nul + 1;
    nul = f->value < end ? memchr(f->value, 0, (size_t)(end - f->value)) : NULL;
    if (nul == NULL) return false;
    *at = nul + 1;
    return true;
}

static bool find(const char *at, size_t n, const char *name, field *f)
{
    const char *end = at + n;

    while (next(&at, end, f))
        if (strcmp(f->name, name) == 0) return true;
    return false;
}

static bool is_file(const char *value) { return strncmp(value, FILE_MARK, sizeof FILE_MARK - 1) == 0; }

int stm_signature_changes(const void *before, size_t n_before, const void *after, size_t n_after, int max, stm_text *out)
{
    const char *at = after, *end = at + n_after;
    int n = 0;
    field f, old;

    while (next(&at, end, &f)) {
        const bool had = n_before > 0 && find(before, n_before, f.name, &old);
        if (had && strcmp(old.value, f.value) == 0) continue;
        if (n++ >= max) continue;
        if (n > 1) stm_text_addf(out, "; ");
        if (is_file(f.value))
            stm_text_addf(out, had ? "%s changed" : "%s is new", f.name);
        else if (had)
            stm_text_addf(out, "%s was %.60s, is %.60s", f.name, old.value[0] ? old.value : "empty",
                          f.value[0] ? f.value : "empty");
        else
            stm_text_addf(out, "%s is new", f.name);
    }
    at = before;
    end = at != NULL ? at + n_before : NULL;
    while (n_before > 0 && next(&at, end, &f)) {
        if (n_after > 0 && find(after, n_after, f.name, &old)) continue;
        if (n++ < max) stm_text_addf(out, "%s%s is gone", n > 1 ? "; " : "", f.name);
    }
    if (n > max) stm_text_addf(out, "; and %d more", n - max);
    return n;
}

/* Whether all fields of @p a stand in @p b. */
static bool all_in(const char *a, size_t n_a, const char *b, size_t n_b)
{
    const char *at = a, *end = a + n_a;
    const size_t mark = sizeof STM_EACH_TIME - 1;
    field f, other;

    while (n_a > 0 && next(&at, end, &f)) {
        if (n_b == 0 || !find(b, n_b, f.name, &other)) return false;
        if (strcmp(f.value, other.value) != 0 &&
            (strncmp(f.value, STM_EACH_TIME, mark) != 0 || strncmp(other.value, STM_EACH_TIME, mark) != 0))
            return false;
    }
    return true;
}

bool stm_signature_same_but_times(const void *before, size_t n_before, const void *after, size_t n_after)
{
    return all_in(before, n_before, after, n_after) && all_in(after, n_after, before, n_before);
}

static bool is_connection(const char *name) { return strncmp(name, STM_CONNECTIONS, sizeof STM_CONNECTIONS - 1) == 0; }

static bool is_same_in(const char *list, size_t n, const field *f)
{
    field other;

    return n > 0 && find(list, n, f->name, &other) && strcmp(f->value, other.value) == 0;
}

/* "step NAME: ", or all of the name. */
static size_t subject(const char *name)
{
    const char *colon = strstr(name, ": ");

    return colon != NULL ? (size_t)(colon - name) + 2 : strlen(name);
}

static bool is_about(const char *list, size_t n, const char *name)
{
    const char *at = list, *end = list + n;
    field f;

    while (next(&at, end, &f))
        if (subject(f.name) == subject(name) && strncmp(f.name, name, subject(name)) == 0) return true;
    return false;
}

bool stm_signature_holds(const void *before, size_t n_before, const void *fields, size_t n)
{
    const char *at = fields, *end = at != NULL ? at + n : NULL;
    field f;

    while (n > 0 && next(&at, end, &f))
        if (!is_same_in(before, n_before, &f)) return false;
    at = before;
    end = at != NULL ? at + n_before : NULL;
    while (n_before > 0 && next(&at, end, &f)) { /* what was there and is gone */
        const bool of_all = strstr(f.name, ": ") == NULL && !is_connection(f.name);
        if ((of_all || (!is_connection(f.name) && is_about(fields, n, f.name))) && !is_same_in(fields, n, &f)) return false;
    }
    return n > 0;
}

static bool connections_in(const char *a, size_t n_a, const char *b, size_t n_b)
{
    const char *at = a, *end = a != NULL ? a + n_a : NULL;
    field f;

    while (n_a > 0 && next(&at, end, &f))
        if (is_connection(f.name) && !is_same_in(b, n_b, &f)) return false;
    return true;
}

bool stm_signature_same_connections(const void *before, size_t n_before, const void *after, size_t n_after)
{
    return connections_in(before, n_before, after, n_after) && connections_in(after, n_after, before, n_before);
}

const char *stm_signature_value(const void *fields, size_t n, const char *name)
{
    field f;

    return n > 0 && find(fields, n, name, &f) ? f.value : NULL;
}
