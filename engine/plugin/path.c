/* Paths of parameters: where relative ones start, whether they are there, globs. */
#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/filetype.h"
#include "plugin/param.h"

static mill_status no_memory(mill_error *err) { return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a path"); }

/* ./data and data are one file: one name in messages and signatures. */
static const char *without_dots(const char *path)
{
    while (path[0] == '.' && path[1] == '/') {
        path++;
        while (*path == '/') path++;
        if (*path == '\0') return ".";
    }
    return path;
}

/* Append one more part of a path, behind a single slash. */
static void add_part(stm_text *t, const char *part)
{
    while (t->bytes > 1 && t->data[t->bytes - 1] == '/') t->data[--t->bytes] = '\0';
    if (t->bytes > 0 && t->data[t->bytes - 1] != '/') stm_text_add(t, "/", 1);
    stm_text_add(t, part, strlen(part));
}

mill_status stm_path_join(const char *base, const char *path, char **out, mill_error *err)
{
    stm_text joined = {0};
    char cwd[4096];

    if (path[0] != '/') {
        if (base == NULL || base[0] != '/') {
            if (getcwd(cwd, sizeof cwd) == NULL) {
                mill_fail(err, MILL_ERR_IO, "cannot tell the working directory: %s", strerror(errno));
                return MILL_ERR_IO;
            }
            add_part(&joined, cwd);
        }
        if (base != NULL && base[0] != '\0') add_part(&joined, without_dots(base));
    }
    add_part(&joined, without_dots(path));
    if (joined.failed) {
        stm_text_free(&joined);
        no_memory(err);
        return MILL_ERR_NOMEM;
    }
    *out = joined.data;
    return MILL_OK;
}

/* Name in the folder of @p path that its last part was probably meant to be, into buf; false = none. */
static bool nearest_in_folder(const char *path, char *buf, size_t size)
{
    enum { LOOKED_AT = 4096 }; /* a folder of millions is not worth a hint */
    const char *slash = strrchr(path, '/');
    const char *best = NULL;
    char *folder;
    DIR *dir;
    struct dirent *entry;
    size_t distance_budget = 0;

    if (slash == NULL || slash[1] == '\0') return false;
    folder = slash == path ? stm_strdup("/") : stm_strndup(path, (size_t)(slash - path));
    if (folder == NULL) return false;
    dir = opendir(folder);
    stm_free(folder);
    if (dir == NULL) return false;
    buf[0] = '\0';
    while (distance_budget++ < LOOKED_AT && (entry = readdir(dir)) != NULL) {
        const char *two[2] = {buf[0] != '\0' ? buf : NULL, entry->d_name};

        if (entry->d_name[0] == '.' || strlen(entry->d_name) >= size) continue;
        best = stm_nearest(slash + 1, two, 2); /* the better of the best so far and this one */
        if (best == entry->d_name) memcpy(buf, entry->d_name, strlen(entry->d_name) + 1);
    }
    closedir(dir);
    return buf[0] != '\0';
}

static mill_status missing(const char *absolute, int error, mill_error *err)
{
    char nearest[128];
    struct stat info;
    mill_status st;

    if (error == ENOENT && lstat(absolute, &info) == 0)
        return mill_fail(err, MILL_ERR_NOT_FOUND, "%s is a link that leads nowhere", absolute);
    if (error != ENOENT && error != ENOTDIR) return mill_fail(err, MILL_ERR_IO, "cannot read %s: %s", absolute, strerror(error));
    st = mill_fail(err, MILL_ERR_NOT_FOUND, "cannot find %s", absolute);
    if (nearest_in_folder(absolute, nearest, sizeof nearest)) mill_error_remedy(err, "Did you mean \"%s\"?", nearest);
    return st;
}

/* What a pattern found may be a link that leads nowhere, or gone already. */
static mill_status usable(const char *absolute, mill_error *err)
{
    const mill_status st = stm_filetype_check(absolute, err);

    return st == MILL_ERR_NOT_FOUND || st == MILL_ERR_IO ? missing(absolute, errno, err) : st;
}

mill_status stm_path_input(const char *base, const char *path, char **out, mill_error *err)
{
    char *absolute = NULL;
    mill_status st = stm_path_join(base, path, &absolute, err);

    if (st != MILL_OK) return st;
    if (access(absolute, R_OK) != 0)
        st = missing(absolute, errno, err);
    else
        st = usable(absolute, err);
    if (st == MILL_OK)
        *out = absolute;
    else
        stm_free(absolute);
    return st;
}

static bool has_magic(const char *path) { return strpbrk(path, "*?[") != NULL; }

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* @p pattern behind @p base, with the base's own stars and brackets escaped. */
static mill_status join_pattern(const char *base, const char *pattern, char **out, mill_error *err)
{
    stm_text t = {0};
    char *absolute;
    mill_status st;

    if (pattern[0] == '/') {
        *out = stm_strdup(pattern);
        return *out != NULL ? MILL_OK : no_memory(err);
    }
    st = stm_path_join(base, ".", &absolute, err); /* "<base>/." */
    if (st != MILL_OK) return st;
    for (const char *p = absolute; p[1] != '\0'; p++) {
        if (strchr("*?[\\", *p) != NULL) stm_text_add(&t, "\\", 1);
        stm_text_add(&t, p, 1);
    }
    stm_text_add(&t, pattern, strlen(pattern));
    stm_free(absolute);
    if (t.failed) {
        stm_text_free(&t);
        return no_memory(err);
    }
    *out = t.data;
    return MILL_OK;
}

mill_status stm_path_expand(const char *base, const char *pattern, stm_place place, stm_param_value *out, mill_error *err)
{
    char *absolute = NULL;
    glob_t found = {0};
    mill_status st;
    int rc;

    if (!has_magic(pattern)) {
        if ((st = stm_path_input(base, pattern, &absolute, err)) == MILL_OK)
            st = stm_param_add(out, "", absolute, NULL, place, err);
        stm_free(absolute);
        return st;
    }
    if ((st = stm_path_join(base, pattern, &absolute, err)) != MILL_OK) return st;
    if (access(absolute, R_OK) == 0) { /* a file that is really called a[1].txt */
        if ((st = usable(absolute, err)) == MILL_OK) st = stm_param_add(out, "", absolute, NULL, place, err);
        stm_free(absolute);
        return st;
    }
    stm_free(absolute);
    if (pattern[0] != '/') pattern = without_dots(pattern);
    if ((st = join_pattern(base, pattern, &absolute, err)) != MILL_OK) return st;
    rc = glob(absolute, GLOB_NOSORT, NULL, &found); /* sorted below: glob would follow the locale */
    if (rc == GLOB_NOSPACE)
        st = no_memory(err);
    else if (rc == GLOB_NOMATCH || found.gl_pathc == 0)
        st = mill_fail(err, MILL_ERR_NOT_FOUND, "no file matches %s", absolute);
    else if (rc != 0)
        st = mill_fail(err, MILL_ERR_IO, "cannot read the folders of %s", absolute);
    else
        qsort(found.gl_pathv, found.gl_pathc, sizeof *found.gl_pathv, by_bytes);
    for (size_t i = 0; st == MILL_OK && i < found.gl_pathc; i++)
        if ((st = usable(found.gl_pathv[i], err)) == MILL_OK)
            st = stm_param_add(out, "", found.gl_pathv[i], NULL, place, err);
    globfree(&found);
    stm_free(absolute);
    return st;
}
