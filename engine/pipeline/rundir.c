#include "pipeline/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/filetype.h"
#include "core/runfiles.h"
#include "pipeline/facts.h"
#include "store/journal.h"
#include "trace/files.h"
#include "trace/picture.h"

enum { SHOWN = 3 };

/* Names of others, the first few of them in order. */
typedef struct strangers {
    char names[SHOWN][NAME_MAX + 1];
    size_t n;
} strangers;

static void add_stranger(strangers *s, const char *name)
{
    size_t at = s->n < SHOWN ? s->n : SHOWN;

    s->n++;
    while (at > 0 && strcmp(name, s->names[at - 1]) < 0) at--;
    if (at == SHOWN) return;
    for (size_t i = SHOWN - 1; i > at; i--) memcpy(s->names[i], s->names[i - 1], sizeof s->names[i]);
    snprintf(s->names[at], sizeof s->names[at], "%s", name);
}

static bool is_file(int top, const char *name, const struct stat *file)
{
    struct stat info;

    return file->st_ino != 0 && fstatat(top, name, &info, 0) == 0 && info.st_dev == file->st_dev && info.st_ino == file->st_ino;
}

static bool is_regular(int top, const char *name)
{
    struct stat info;

    return fstatat(top, name, &info, 0) == 0 && S_ISREG(info.st_mode); /* others may not give an end */
}

typedef enum journal { NO_JOURNAL, EMPTY_JOURNAL, A_JOURNAL } journal;

static journal journal_at(int top, const char *name)
{
    unsigned char begin[16] = {0};
    const int fd = stm_journal_epoch_of(name) > 0 && is_regular(top, name) ? openat(top, name, O_RDONLY | O_CLOEXEC) : -1;
    const ssize_t n = fd >= 0 ? read(fd, begin, sizeof begin) : -1;

    if (fd >= 0) close(fd);
    if (n >= 0 && begin[0] == 0) return EMPTY_JOURNAL; /* after a power cut there may be zeros */
    return n > 0 && stm_journal_begins(begin, (size_t)n) ? A_JOURNAL : NO_JOURNAL;
}

static bool has_numbers(int top, const char *dir)
{
    stm_picture *p = NULL;
    stm_text t = {0};
    mill_error none = {0};
    const bool has = is_regular(top, STM_RUN_PROGRESS) && stm_file_read(dir, STM_RUN_PROGRESS, &t, &none) == MILL_OK &&
                     stm_picture_read(t.data != NULL ? t.data : "", t.bytes, &p) == MILL_OK;

    stm_picture_destroy(&p);
    stm_text_free(&t);
    return has;
}

static bool has_facts(int top, const char *dir)
{
    stm_tree_doc *doc = NULL;
    const stm_tree *facts = NULL;
    mill_error none = {0};
    const bool has = is_regular(top, STM_RUN_FACTS) && stm_facts_open(dir, &doc, &facts, &none) == MILL_OK &&
                     stm_tree_get(facts, "steps") != NULL && stm_tree_text(facts, "run")[0] != '\0';

    stm_tree_destroy(&doc);
    return has;
}

static bool is_shard(const char *name)
{
    int i = 0, n = 0, end = 0;

    return sscanf(name, "shard-%d-of-%d%n", &i, &n, &end) == 2 && name[end] == '\0' && i >= 1 && i <= n;
}

static bool is_numbered(const char *name, const char *begin)
{
    const size_t n = strlen(begin);

    return strncmp(name, begin, n) == 0 && name[n] != '\0' && name[n + strspn(name + n, "0123456789")] == '\0';
}

/* What a start leaves that was killed before it had written what tells a run, and what file systems put into folders themselves. */
static bool is_left_over(const char *name)
{
    const size_t n = strlen(name);

    if (is_numbered(name, STM_RUN_OWNER) || is_shard(name)) return true;
    if (strncmp(name, ".spill.", 7) == 0 || strncmp(name, ".nfs", 4) == 0 || strcmp(name, "lost+found") == 0) return true;
    for (size_t i = 0; i < STM_RUN_FILES; i++)
        if (n > 5 && name[0] == '.' && strncmp(name + 1, stm_run_file(i), n - 5) == 0 && strcmp(name + n - 4, ".tmp") == 0)
            return true;
    return false;
}

/* Whether a run wrote there. *s: names that none leaves behind, but for that of @p own. @p shards: look into them. -1: it cannot be
 * read; errno says why. */
static int look(const char *dir, bool shards, const struct stat *own, strangers *s)
{
    const int top = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = top >= 0 ? fdopendir(top) : NULL;
    bool is = false;

    if (d == NULL) {
        if (top >= 0) close(top);
        return -1;
    }
    is = has_numbers(top, dir) || has_facts(top, dir);
    for (struct dirent *e; !is && (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        const journal j = journal_at(top, e->d_name);
        is = j == A_JOURNAL;
        if (!is && shards && is_shard(e->d_name)) {
            strangers none = {.n = 0};
            stm_text path = {0};

            stm_text_addf(&path, "%s/%s", dir, e->d_name);
            is = !path.failed && look(path.data, false, own, &none) > 0;
            stm_text_free(&path);
        }
        if (!is && j != EMPTY_JOURNAL && !is_left_over(e->d_name) && !is_file(top, e->d_name, own)) add_stranger(s, e->d_name);
    }
    closedir(d);
    return is;
}

mill_status stm_rundir_check(const char *dir, const char *own, mill_error *err)
{
    strangers s = {.n = 0};
    struct stat info, file = {.st_ino = 0};
    stm_text names = {0};

    if (stat(dir, &info) != 0) return MILL_OK; /* not there; or making it will say what is wrong */
    if (!S_ISDIR(info.st_mode)) {
        mill_fail(err, MILL_ERR_INVALID, "the run directory %.300s is %s, not a folder", dir, stm_filetype_word(info.st_mode));
        return MILL_ERR_INVALID;
    }
    if (own != NULL && stat(own, &file) != 0) file.st_ino = 0;
    const int is = look(dir, true, &file, &s);
    if (is < 0) return mill_fail(err, MILL_ERR_IO, "cannot read the run directory %.300s: %s", dir, strerror(errno));
    if (is > 0 || s.n == 0) return MILL_OK;
    for (size_t i = 0; i < s.n && i < SHOWN; i++)
        stm_text_addf(&names, "%s%.60s", i == 0 ? "" : i + 1 == s.n ? " and " : ", ", s.names[i]);
    if (s.n > SHOWN) stm_text_addf(&names, " and %zu more", s.n - SHOWN);
    mill_fail(err, MILL_ERR_INVALID, "%.200s is not the directory of a run, and not empty: it holds %s", dir,
              names.failed ? "files" : names.data);
    mill_error_remedy(err, "A run has a directory of its own: name one with --run that is empty or not there yet");
    stm_text_free(&names);
    return MILL_ERR_INVALID;
}
