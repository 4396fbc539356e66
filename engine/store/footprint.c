#include "store/footprint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/runfiles.h"
#include "core/text.h"

#define COPY_BYTES 65536

/* A file that was there. */
typedef struct entry {
    char *name;
    ino_t inode;
} entry;

typedef struct folder {
    char *path;
    size_t there; /* so much of the path was there: 0 = none of it */
    entry *entries;
    size_t n, cap;
    bool looked;
} folder;

/* A file of the run's own that was there. */
typedef struct kept {
    const char *name;
    int fd;
    struct stat info;
} kept;

struct stm_footprint {
    pthread_mutex_t lock;
    bool over;       /* lock: undone, or nothing is to be undone any more */
    folder *folders; /* [n_folders]; the first is the run directory */
    size_t n_folders;
    char **outputs; /* [n_outputs] */
    size_t n_outputs;
    kept *own; /* [n_own] */
    size_t n_own;
    uint64_t epoch; /* 0 = nobody has looked */
    int spare;      /* a descriptor for whoever looks when all others are taken; -1 = in use */
};

/* ---- before -------------------------------------------------------------------------------------------------------- */

/* @p path without its last part; NULL: no memory. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? stm_strndup(path, slash > path ? (size_t)(slash - path) : 1) : stm_strdup(".");
}

static char *batches_of(const char *dir)
{
    const size_t n = strlen(dir) + sizeof "/" STM_RUN_BATCHES;
    char *path = stm_malloc(n);

    if (path != NULL) snprintf(path, n, "%s/" STM_RUN_BATCHES, dir);
    return path;
}

static size_t part_that_is_there(char *path)
{
    size_t n = strlen(path);
    struct stat info;

    while (n > 0) {
        const char was = path[n];
        path[n] = '\0';
        const bool there = stat(path, &info) == 0;
        path[n] = was;
        if (there) return n;
        while (n > 0 && path[--n] != '/') continue;
    }
    return 0;
}

static mill_status add_folder(stm_footprint *f, char *path, mill_error *err)
{
    if (path == NULL) return mill_fail(err, MILL_ERR_NOMEM, "starting the run");
    for (size_t i = 0; i < f->n_folders; i++) {
        if (strcmp(f->folders[i].path, path) != 0) continue;
        stm_free(path);
        return MILL_OK;
    }
    f->folders[f->n_folders++] = (folder){.path = path, .there = part_that_is_there(path)};
    return MILL_OK;
}

mill_status stm_footprint_create(const char *dir, const char *const *outputs, size_t n, stm_footprint **out, mill_error *err)
{
    stm_footprint *f = stm_calloc(sizeof *f);
    mill_status st = MILL_OK;

    if (f == NULL) return mill_fail(err, MILL_ERR_NOMEM, "starting the run");
    pthread_mutex_init(&f->lock, NULL);
    if ((f->spare = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
        st = mill_fail(err, MILL_ERR_IO, "cannot open /dev/null: %s", strerror(errno));
    f->folders = stm_calloc((n + 2) * sizeof *f->folders);
    f->outputs = stm_calloc((n + 1) * sizeof *f->outputs);
    if (st == MILL_OK && (f->folders == NULL || f->outputs == NULL)) st = mill_fail(err, MILL_ERR_NOMEM, "starting the run");
    if (st == MILL_OK) st = add_folder(f, stm_strdup(dir), err);
    if (st == MILL_OK) st = add_folder(f, batches_of(dir), err);
    for (size_t i = 0; i < n && st == MILL_OK; i++) {
        if ((f->outputs[f->n_outputs] = stm_strdup(outputs[i])) == NULL) st = mill_fail(err, MILL_ERR_NOMEM, "starting the run");
        f->n_outputs += st == MILL_OK;
        if (st == MILL_OK) st = add_folder(f, folder_of(outputs[i]), err);
    }
    if (st != MILL_OK) {
        stm_footprint_destroy(&f);
        return st;
    }
    *out = f;
    return MILL_OK;
}

/* ---- looking --------------------------------------------------------------------------------------------------------- */

/* Of this opening, made before anybody could look. */
static bool is_claim(const stm_footprint *f, const char *name)
{
    char own[40];

    snprintf(own, sizeof own, STM_RUN_OWNER "%llu", (unsigned long long)f->epoch);
    return strcmp(name, own) == 0;
}

static void use_spare(stm_footprint *f)
{
    if (f->spare >= 0) close(f->spare);
    f->spare = -1;
}

static mill_status note_files(const stm_footprint *f, folder *at, mill_error *err)
{
    DIR *d = opendir(at->path);

    if (d == NULL && errno != ENOENT)
        return mill_fail(err, MILL_ERR_IO, "cannot read the folder %s: %s", at->path, strerror(errno));
    at->looked = true;
    for (struct dirent *e; d != NULL && at->looked && (e = readdir(d)) != NULL;) {
        if (at == f->folders && is_claim(f, e->d_name)) continue;
        at->looked = stm_grow(&at->entries, &at->cap, at->n + 1, sizeof *at->entries) == 0 &&
                     (at->entries[at->n] = (entry){stm_strdup(e->d_name), e->d_ino}).name != NULL;
        at->n += at->looked;
    }
    if (d != NULL) closedir(d);
    return at->looked ? MILL_OK : mill_fail(err, MILL_ERR_NOMEM, "starting the run");
}

static mill_status keep_file(stm_footprint *f, const char *name, mill_error *err)
{
    kept k = {.name = name, .fd = -1};
    stm_text path = {0};
    mill_status st = MILL_OK;

    stm_text_addf(&path, "%s/%s", f->folders[0].path, name);
    if (path.failed)
        st = mill_fail(err, MILL_ERR_NOMEM, "starting the run");
    else if ((k.fd = open(path.data, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)) < 0 && (errno == EMFILE || errno == ENFILE))
        st = mill_fail(err, MILL_ERR_IO, "cannot open %s: %s", path.data, strerror(errno));
    else if (k.fd >= 0 && fstat(k.fd, &k.info) == 0 && S_ISREG(k.info.st_mode))
        f->own[f->n_own++] = k;
    else if (k.fd >= 0)
        close(k.fd); /* nothing that a run could have written */
    stm_text_free(&path);
    return st;
}

mill_status stm_footprint_look(stm_footprint *f, uint64_t epoch, mill_error *err)
{
    mill_status st = MILL_OK;

    f->epoch = epoch;
    use_spare(f);
    for (size_t i = 0; i < f->n_folders && st == MILL_OK; i++) st = note_files(f, &f->folders[i], err);
    f->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    f->own = stm_calloc(STM_RUN_FILES * sizeof *f->own);
    if (st == MILL_OK && f->own == NULL) st = mill_fail(err, MILL_ERR_NOMEM, "starting the run");
    for (size_t i = 0; i < STM_RUN_FILES && st == MILL_OK; i++) st = keep_file(f, stm_run_file(i), err);
    return st;
}

/* ---- handing on ------------------------------------------------------------------------------------------------------ */

size_t stm_footprint_write(const stm_footprint *f, char *to, size_t room)
{
    stm_text t = {0};
    size_t n = 0;

    if (f->epoch == 0 || f->folders[0].there == strlen(f->folders[0].path)) return 0;
    stm_text_addf(&t, "%llu %zu %zu", (unsigned long long)f->epoch, f->n_folders, f->n_outputs);
    stm_text_add(&t, "", 1);
    for (size_t i = 0; i < f->n_folders; i++) {
        const folder *at = &f->folders[i];

        stm_text_addf(&t, "%zu %zu %d %s", at->there, at->n, (int)at->looked, at->path);
        stm_text_add(&t, "", 1);
        for (size_t k = 0; k < at->n; k++) {
            stm_text_addf(&t, "%llu %s", (unsigned long long)at->entries[k].inode, at->entries[k].name);
            stm_text_add(&t, "", 1);
        }
    }
    for (size_t i = 0; i < f->n_outputs; i++) stm_text_add(&t, f->outputs[i], strlen(f->outputs[i]) + 1);
    if (!t.failed && t.bytes <= room) memcpy(to, t.data, n = t.bytes);
    stm_text_free(&t);
    return n;
}

/* The next text; *from is set behind it. NULL: there is none. */
static const char *next_text(const char **from, const char *end)
{
    const char *text = *from, *zero = text < end ? memchr(text, '\0', (size_t)(end - text)) : NULL;

    if (zero != NULL) *from = zero + 1;
    return zero != NULL ? text : NULL;
}

static bool read_folder(folder *at, const char **from, const char *end)
{
    const char *text = next_text(from, end);
    size_t n = 0;
    int looked = 0, path = 0;

    if (text == NULL || sscanf(text, "%zu %zu %d%n", &at->there, &n, &looked, &path) != 3 || text[path] != ' ') return false;
    at->looked = looked != 0;
    if ((at->path = stm_strdup(text + path + 1)) == NULL || at->there > strlen(at->path)) return false;
    for (; at->n < n; at->n++) {
        unsigned long long inode = 0;
        int name = 0;

        if ((text = next_text(from, end)) == NULL || sscanf(text, "%llu%n", &inode, &name) != 1 || text[name] != ' ') return false;
        if (stm_grow(&at->entries, &at->cap, at->n + 1, sizeof *at->entries) != 0) return false;
        if ((at->entries[at->n].name = stm_strdup(text + name + 1)) == NULL) return false; /* which may begin with blanks */
        at->entries[at->n].inode = (ino_t)inode;
    }
    return true;
}

stm_footprint *stm_footprint_read(const char *from, size_t n)
{
    const char *end = from + n, *text = next_text(&from, end);
    stm_footprint *f = text != NULL ? stm_calloc(sizeof *f) : NULL;
    unsigned long long epoch = 0;
    size_t folders = 0, outputs = 0;
    bool ok;

    if (f == NULL) return NULL;
    pthread_mutex_init(&f->lock, NULL);
    f->spare = -1;
    ok = sscanf(text, "%llu %zu %zu", &epoch, &folders, &outputs) == 3 && folders > 0 && folders <= n && outputs <= n;
    f->epoch = epoch;
    f->folders = ok ? stm_calloc(folders * sizeof *f->folders) : NULL;
    f->outputs = ok ? stm_calloc((outputs + 1) * sizeof *f->outputs) : NULL;
    ok = f->folders != NULL && f->outputs != NULL;
    /* counted also when it was not whole */
    while (ok && f->n_folders < folders) ok = read_folder(&f->folders[f->n_folders++], &from, end);
    for (; ok && f->n_outputs < outputs; f->n_outputs += ok)
        ok = (text = next_text(&from, end)) != NULL && (f->outputs[f->n_outputs] = stm_strdup(text)) != NULL;
    if (!ok) stm_footprint_destroy(&f);
    return f;
}

/* ---- undoing --------------------------------------------------------------------------------------------------------- */

static const entry *find_inode(const folder *at, ino_t inode)
{
    for (size_t i = 0; i < at->n; i++)
        if (at->entries[i].inode == inode) return &at->entries[i];
    return NULL;
}

static bool was_there(const folder *at, const char *name)
{
    for (size_t i = 0; i < at->n; i++)
        if (strcmp(at->entries[i].name, name) == 0) return true;
    return false;
}

/* An unfinished file of an output: nobody finishes one before rows flow. */
static bool is_unfinished(const stm_footprint *f, const folder *at, const char *name)
{
    const size_t n = strlen(name);
    stm_text path = {0};
    bool is = false;

    if (n < 4 || strcmp(name + n - 4, ".tmp") != 0) return false;
    stm_text_addf(&path, "%s/%s", strcmp(at->path, "/") == 0 ? "" : at->path, name);
    for (size_t i = 0; i < f->n_outputs && !is && !path.failed; i++) is = stm_output_writes(f->outputs[i], path.data);
    stm_text_free(&path);
    return is;
}

/* What is under the name of a file that was there is put_back's. */
static void clear(const stm_footprint *f, const folder *at)
{
    DIR *d = at->looked ? opendir(at->path) : NULL;

    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        const bool unfinished = is_unfinished(f, at, e->d_name);
        const entry *before = unfinished ? find_inode(at, e->d_ino) : NULL;

        if (was_there(at, e->d_name) || !(unfinished || (at == f->folders && stm_run_keeps(e->d_name)))) continue;
        if (before == NULL || !is_unfinished(f, at, before->name)) /* a number that was free again says nothing */
            (void)unlinkat(dirfd(d), e->d_name, 0);
        else if (faccessat(dirfd(d), before->name, F_OK, AT_SYMLINK_NOFOLLOW) != 0)
            (void)renameat(dirfd(d), e->d_name, dirfd(d), before->name);
    }
    if (d != NULL) closedir(d);
}

static bool copy(int from, int to)
{
    char *buf = stm_malloc(COPY_BYTES);
    ssize_t got = buf != NULL ? 1 : -1;
    off_t at = 0;

    while (got > 0) {
        got = pread(from, buf, COPY_BYTES, at);
        if (got < 0 && errno == EINTR) got = 1;
        else if (got > 0 && pwrite(to, buf, (size_t)got, at) != got) got = -1;
        else if (got > 0) at += got;
    }
    stm_free(buf);
    return got == 0;
}

/* Replaced by another file, or longer: as it was. Written beside and renamed, so that there is one of the two at every moment. */
static void put_back(const char *dir, const kept *k)
{
    const struct timespec times[2] = {k->info.st_atim, k->info.st_mtim};
    stm_text path = {0}, beside = {0};
    struct stat now;
    int fd;

    stm_text_addf(&path, "%s/%s", dir, k->name);
    stm_text_addf(&beside, "%s/.%s.tmp", dir, k->name);
    if (!path.failed && !beside.failed && stat(path.data, &now) == 0 && now.st_ino == k->info.st_ino) {
        if (now.st_size > k->info.st_size && truncate(path.data, k->info.st_size) == 0)
            (void)utimensat(AT_FDCWD, path.data, times, 0);
    } else if (!path.failed && !beside.failed &&
               (fd = open(beside.data, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, k->info.st_mode & 0777)) >= 0) {
        /* or a loss of power leaves neither */
        const bool whole = fchmod(fd, k->info.st_mode & 07777) == 0 && copy(k->fd, fd) && fsync(fd) == 0;

        (void)futimens(fd, times);
        close(fd);
        if (!whole || rename(beside.data, path.data) != 0) (void)unlink(beside.data);
    }
    stm_text_free(&path);
    stm_text_free(&beside);
}

/* Empty ones, from the innermost outwards, as far as they were not there. */
static void clear_folders(folder *at)
{
    for (size_t n = strlen(at->path); n > at->there && at->there > 0;) {
        const char *last = strrchr(at->path, '/') + 1;
        const bool no_name = strcmp(last, ".") == 0 || strcmp(last, "..") == 0;

        if (!no_name && rmdir(at->path) != 0 && errno != ENOENT) return;
        while (n > 0 && at->path[--n] != '/') continue;
        at->path[n] = '\0';
    }
}

/* Somebody else has opened the directory since: what is there is theirs. */
static bool is_taken(const stm_footprint *f)
{
    char name[40];
    stm_text path = {0};
    bool taken;

    snprintf(name, sizeof name, STM_RUN_JOURNAL "%llu", (unsigned long long)f->epoch + 1);
    stm_text_addf(&path, "%s/%s", f->folders[0].path, name);
    taken = path.failed || access(path.data, F_OK) == 0;
    stm_text_free(&path);
    return taken;
}

void stm_footprint_undo(stm_footprint *f)
{
    pthread_mutex_lock(&f->lock);
    if (!f->over && !(f->epoch != 0 && is_taken(f))) {
        f->over = true;
        use_spare(f);
        for (size_t i = 0; i < f->n_folders && f->epoch != 0; i++) clear(f, &f->folders[i]);
        for (size_t i = 0; i < f->n_own; i++) put_back(f->folders[0].path, &f->own[i]);
        for (size_t i = f->n_folders; i-- > 0;) clear_folders(&f->folders[i]); /* the run directory last: others may be in it */
    }
    pthread_mutex_unlock(&f->lock);
}

/* ---- the end ----------------------------------------------------------------------------------------------------------- */

void stm_footprint_forget(stm_footprint *f)
{
    pthread_mutex_lock(&f->lock);
    f->over = true;
    use_spare(f);
    for (size_t i = 0; i < f->n_own; i++) close(f->own[i].fd);
    f->n_own = 0;
    pthread_mutex_unlock(&f->lock);
}

void stm_footprint_destroy(stm_footprint **footprint)
{
    stm_footprint *f = *footprint;

    if (f == NULL) return;
    stm_footprint_forget(f);
    for (size_t i = 0; f->folders != NULL && i < f->n_folders; i++) {
        for (size_t k = 0; k < f->folders[i].n; k++) stm_free(f->folders[i].entries[k].name);
        stm_free(f->folders[i].entries);
        stm_free(f->folders[i].path);
    }
    for (size_t i = 0; i < f->n_outputs; i++) stm_free(f->outputs[i]);
    pthread_mutex_destroy(&f->lock);
    stm_free(f->folders);
    stm_free(f->outputs);
    stm_free(f->own);
    stm_free(f);
    *footprint = NULL;
}
