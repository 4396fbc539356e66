#include "device/library.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "core/text.h"

#define MAX_NEEDS 32

int stm_own_folder(char *out, size_t size)
{
    Dl_info info;
    char full[PATH_MAX];

    if (dladdr((void *)(uintptr_t)&stm_own_folder, &info) == 0 || info.dli_fname == NULL) return 0;
    /* a program is named as it was started, which need not be a path */
    if (realpath(strchr(info.dli_fname, '/') != NULL ? info.dli_fname : "/proc/self/exe", full) == NULL) return 0;
    *strrchr(full, '/') = '\0';
    return (size_t)snprintf(out, size, "%s", full) < size;
}

mill_status stm_module_find(const char *file, char *path, size_t size, mill_error *err)
{
    static const char *const places[] = {"%s/%s", "%s/stepmill/%s", "%s/../lib/%s", "%s/../lib/stepmill/%s"};
    const char *asked = getenv("STEPMILL_MODULES");
    char folder[PATH_MAX] = "";

    if (asked != NULL && asked[0] != '\0') {
        snprintf(path, size, "%s/%s", asked, file);
        if (access(path, R_OK) == 0) return MILL_OK;
    }
    if (stm_own_folder(folder, sizeof folder))
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            snprintf(path, size, places[i], folder, file);
            if (access(path, R_OK) == 0) return MILL_OK;
        }
    mill_fail(err, MILL_ERR_NOT_FOUND, "%s is not in%s %.120s, nor in stepmill/ or ../lib/stepmill/ there", file,
              asked != NULL && asked[0] != '\0' ? " $STEPMILL_MODULES or in" : "",
              folder[0] != '\0' ? folder : "the program's folder");
    mill_error_remedy(err, "Build stepmill on a machine with a CUDA toolkit (nvcc)");
    return MILL_ERR_NOT_FOUND;
}

/* ---- looking for a library -------------------------------------------------------------------------------------- */

/* Libraries of one maker. */
typedef struct family {
    const char *asked;            /* environment variable: folders */
    const char *const *names;     /* how their names begin; NULL at the end */
    const char *const *wheels;    /* folders in site-packages, as patterns; NULL at the end */
    bool toolkits;                /* they come in CUDA toolkits, too */
    int flags;                    /* of dlopen */
} family;

static const char *const cuda_names[] = {"libcudart.", "libcublas", "libnccl.", NULL};
/* The wheels of CUDA 13 share a folder; those of CUDA 12, and nvidia-nccl of both, have one each. */
static const char *const cuda_wheels[] = {"nvidia/cu13/lib", "nvidia/cu[0-9][0-9]/lib", "nvidia/*/lib", NULL};
static const family cuda = {"STEPMILL_CUDA_LIBRARIES", cuda_names, cuda_wheels, true, RTLD_NOW | RTLD_GLOBAL};
static const char *const arrow_names[] = {"libarrow.", "libparquet.", NULL};
static const char *const arrow_wheels[] = {"pyarrow", NULL};
static const family arrow = {"STEPMILL_ARROW_DIR", arrow_names, arrow_wheels, false, RTLD_NOW | RTLD_LOCAL};

/* NULL: it is of nobody that we look for. */
static const family *family_of(const char *soname)
{
    const family *const all[] = {&cuda, &arrow};

    for (size_t f = 0; f < sizeof all / sizeof *all; f++)
        for (const char *const *n = all[f]->names; *n != NULL; n++)
            if (strncmp(soname, *n, strlen(*n)) == 0) return all[f];
    return NULL;
}

typedef struct search {
    const family *of;
    const char *soname;
    char other[PATH_MAX]; /* the first folder of a wheel that has it in another version only; "" = none */
    void *handle;
    char *where; /* [where_size] */
    size_t where_size;
    char refused[256]; /* why a file that is there could not be opened; the first one */
} search;

static bool try_path(search *s, const char *path)
{
    if (stm_fault_fires(STM_FAULT_OPEN)) return false;
    s->handle = dlopen(path, s->of->flags);
    if (s->handle == NULL) {
        const char *why = dlerror();
        if (s->refused[0] == '\0' && strchr(path, '/') != NULL)
            snprintf(s->refused, sizeof s->refused, "%s", why != NULL ? why : path);
        return false;
    }
    if (s->where != NULL) {
        struct link_map *map = NULL;
        const bool known = dlinfo(s->handle, RTLD_DI_LINKMAP, &map) == 0 && map != NULL && map->l_name[0] != '\0';
        snprintf(s->where, s->where_size, "%s", known ? map->l_name : path);
    }
    return true;
}

static bool try_folder(search *s, const char *folder)
{
    char path[2 * PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", folder, s->soname);
    return access(path, R_OK) == 0 && try_path(s, path);
}

/* Folders that a pattern with wildcards stands for. */
static bool try_pattern(search *s, const char *pattern)
{
    glob_t g;
    bool found = false;

    if (glob(pattern, GLOB_ONLYDIR, NULL, &g) != 0) return false;
    for (size_t i = g.gl_pathc; i-- > 0 && !found;) { /* the newest Python first */
        found = try_folder(s, g.gl_pathv[i]);
        if (!found && s->other[0] == '\0') snprintf(s->other, sizeof s->other, "%s", g.gl_pathv[i]);
    }
    globfree(&g);
    return found;
}

static bool try_wheels(search *s, const char *site_packages)
{
    char pattern[2 * PATH_MAX];

    for (const char *const *w = s->of->wheels; *w != NULL; w++) {
        snprintf(pattern, sizeof pattern, "%s/%s", site_packages, *w);
        if (try_pattern(s, pattern)) return true;
    }
    return false;
}

/* Folders parted by ':'. */
static bool try_each(search *s, const char *list, bool (*try)(search *s, const char *folder))
{
    while (list != NULL && *list != '\0') {
        const size_t n = strcspn(list, ":");
        char folder[PATH_MAX];
        if (n > 0 && n < sizeof folder) {
            memcpy(folder, list, n);
            folder[n] = '\0';
            if (try(s, folder)) return true;
        }
        list += n + (list[n] == ':');
    }
    return false;
}

/* What the python3 in a folder would import, if there is one. */
static bool try_python_in(search *s, const char *bin)
{
    static const char *const places[] = {"lib/python3*/site-packages", "lib/python3*/dist-packages",
                                         "local/lib/python3*/dist-packages"};
    char path[PATH_MAX + 64];

    snprintf(path, sizeof path, "%s/python3", bin);
    if (access(path, X_OK) != 0) return false;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s/../%s", bin, places[i]);
        if (try_wheels(s, path)) return true;
    }
    return false;
}

static bool try_environment(search *s, const char *root, const char *venv)
{
    char site[PATH_MAX + 64];

    snprintf(site, sizeof site, "%s%s/lib/python3*/site-packages", root, venv);
    return try_wheels(s, site);
}

/* The environments of a checkout: what its scripts fetch. */
static bool try_checkout(search *s, const char *root)
{
    return try_environment(s, root, "/.venv") || (s->of->toolkits && try_environment(s, root, "/.venv-cuda"));
}

static bool try_toolkits(search *s)
{
    const char *const roots[] = {getenv("CUDA_HOME"), getenv("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"};
    static const char *const folders[] = {"lib64", "lib", "targets/x86_64-linux/lib"};
    char folder[PATH_MAX];

    for (size_t r = 0; r < sizeof roots / sizeof *roots; r++)
        for (size_t f = 0; f < sizeof folders / sizeof *folders; f++) {
            if (roots[r] == NULL || roots[r][0] == '\0') continue;
            snprintf(folder, sizeof folder, "%s/%s", roots[r], folders[f]);
            if (try_folder(s, folder)) return true;
        }
    return false;
}

static bool try_python(search *s)
{
    const char *active = getenv("VIRTUAL_ENV");
    char own[PATH_MAX];
    char *slash, *site;

    if (active != NULL && active[0] != '\0' && try_environment(s, active, "")) return true;
    if (try_checkout(s, ".")) return true;
    if (!stm_own_folder(own, sizeof own)) return false;
    if ((site = strstr(own, "/site-packages/")) != NULL) { /* we came as a wheel ourselves */
        const char kept = site[14];
        bool found;
        site[14] = '\0';
        found = try_wheels(s, own);
        site[14] = kept;
        if (found) return true;
    }
    while ((slash = strrchr(own, '/')) != NULL && slash != own) {
        *slash = '\0';
        if (try_checkout(s, own)) return true;
    }
    return try_each(s, getenv("PATH"), try_python_in) || (getenv("HOME") != NULL && try_environment(s, getenv("HOME"), "/.local"));
}

static mill_status not_found_arrow(const search *s, mill_error *err)
{
    int version = 0;

    mill_fail(err, MILL_ERR_UNSUPPORTED,
              "%s is neither in a folder of $STEPMILL_ARROW_DIR, nor where the loader looks, nor beside the module, nor in the "
              "package pyarrow of a Python environment "
              "($VIRTUAL_ENV, .venv here or above the program, a python3 in $PATH)%s%.120s",
              s->soname, s->other[0] != '\0' ? "; of another version is " : "", s->other);
    if (sscanf(s->soname, "lib%*[a-z].so.%d", &version) == 1 && version >= 100)
        mill_error_remedy(err, "pip install 'pyarrow==%d.*' into one of these, or name the folder of a %s in STEPMILL_ARROW_DIR",
                          version / 100, s->soname);
    return MILL_ERR_UNSUPPORTED;
}

/* @p runpath: folders that whoever needs it names; may be NULL. Those that are named after its own place ($ORIGIN) are none:
 * @p beside. */
static mill_status open_library(const char *soname, const char *beside, const char *runpath, void **out, char *where,
                                size_t where_size, mill_error *err)
{
    search s = {.of = family_of(soname), .soname = soname, .where = where, .where_size = where_size};

    if (s.of == NULL) s.of = &cuda;
    if (try_each(&s, getenv(s.of->asked), try_folder) || try_path(&s, soname) || (beside != NULL && try_folder(&s, beside)) ||
        try_each(&s, runpath, try_folder) || (s.of->toolkits && try_toolkits(&s)) || try_python(&s)) {
        *out = s.handle;
        return MILL_OK;
    }
    if (s.refused[0] != '\0') return mill_fail(err, MILL_ERR_UNSUPPORTED, "%s cannot be opened: %s", soname, s.refused);
    if (s.of == &arrow) return not_found_arrow(&s, err);
    mill_fail(err, MILL_ERR_UNSUPPORTED, "%s was found neither by the loader, nor in a CUDA toolkit, nor in a Python environment",
              soname);
    mill_error_remedy(err, "Install %s, or name its folder in STEPMILL_CUDA_LIBRARIES",
                      strstr(soname, "cudart") != NULL   ? "the CUDA toolkit or `pip install nvidia-cuda-runtime` into .venv"
                      : strstr(soname, "cublas") != NULL ? "the CUDA toolkit or `pip install nvidia-cublas` into .venv"
                      : strstr(soname, "nccl") != NULL   ? "NCCL or `pip install nvidia-nccl-cu13` into .venv"
                                                         : "it");
    return MILL_ERR_UNSUPPORTED;
}

mill_status stm_library_open(const char *soname, const char *beside, void **out, char *where, size_t where_size, mill_error *err)
{
    return open_library(soname, beside, NULL, out, where, where_size, err);
}

/* ---- what a module needs ---------------------------------------------------------------------------------------- */

static const char *text_at(const uint8_t *file, size_t bytes, uint64_t at)
{
    return at < bytes && memchr(file + at, '\0', bytes - at) != NULL ? (const char *)file + at : NULL;
}

/* Place in the file of address @p at, from the loadable segments; bytes when there is none. */
static uint64_t offset_of(const uint8_t *file, size_t bytes, const Elf64_Ehdr *h, uint64_t at)
{
    for (int i = 0; i < h->e_phnum; i++) {
        Elf64_Phdr p;
        memcpy(&p, file + h->e_phoff + (size_t)i * sizeof p, sizeof p);
        if (p.p_type == PT_LOAD && at >= p.p_vaddr && at - p.p_vaddr < p.p_filesz) return p.p_offset + (at - p.p_vaddr);
    }
    return bytes;
}

/* The libraries that an ELF file names as needed: up to MAX_NEEDS pointers into it; *runpath: where it says they are, NULL = it
 * does not. -1: the file is damaged, and the loader, which maps without looking at the size, would take a bus error for it. */
static int needs_of(const uint8_t *file, size_t bytes, const char **names, const char **runpath)
{
    Elf64_Ehdr h;
    uint64_t needed[MAX_NEEDS], strings = bytes, paths = bytes;
    int n = 0, found = 0;

    *runpath = NULL;
    if (bytes < sizeof h) return -1;
    memcpy(&h, file, sizeof h);
    if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_phentsize != sizeof(Elf64_Phdr))
        return -1;
    if (h.e_phoff > bytes || h.e_phnum > (bytes - h.e_phoff) / sizeof(Elf64_Phdr)) return -1;
    for (int i = 0; i < h.e_phnum; i++) {
        Elf64_Phdr p;
        memcpy(&p, file + h.e_phoff + (size_t)i * sizeof p, sizeof p);
        if (p.p_offset > bytes || p.p_filesz > bytes - p.p_offset) return -1;
        if (p.p_type != PT_DYNAMIC) continue;
        for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= p.p_filesz; at += sizeof(Elf64_Dyn)) {
            Elf64_Dyn d;
            memcpy(&d, file + p.p_offset + at, sizeof d);
            if (d.d_tag == DT_NULL) break;
            if (d.d_tag == DT_NEEDED && n < MAX_NEEDS) needed[n++] = d.d_un.d_val;
            if (d.d_tag == DT_RUNPATH) paths = d.d_un.d_val;
            if (d.d_tag == DT_STRTAB) strings = offset_of(file, bytes, &h, d.d_un.d_ptr);
        }
    }
    for (int i = 0; i < n; i++) {
        const char *name = needed[i] < bytes && strings < bytes ? text_at(file, bytes, strings + needed[i]) : NULL;
        if (name != NULL) names[found++] = name;
    }
    if (paths < bytes && strings < bytes) *runpath = text_at(file, bytes, strings + paths);
    return found;
}

static mill_status open_needs(const char *path, stm_text *found, mill_error *err)
{
    const char *names[MAX_NEEDS], *runpath;
    char folder[PATH_MAX], where[PATH_MAX];
    struct stat info;
    uint8_t *file;
    mill_status st = MILL_OK;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &info) != 0 || info.st_size == 0) {
        mill_fail(err, MILL_ERR_IO, "cannot read %.200s: %s", path, fd < 0 ? strerror(errno) : "it is empty");
        if (fd >= 0) close(fd);
        return MILL_ERR_IO;
    }
    file = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (file == MAP_FAILED) return mill_fail(err, MILL_ERR_IO, "cannot map %.200s: %s", path, strerror(errno));
    snprintf(folder, sizeof folder, "%s", path);
    if (strrchr(folder, '/') != NULL) *strrchr(folder, '/') = '\0';
    const int n = needs_of(file, (size_t)info.st_size, names, &runpath);
    if (n < 0) st = mill_fail(err, MILL_ERR_UNSUPPORTED, "%.200s is damaged: not a whole shared object", path);
    for (int i = 0; i < n && st == MILL_OK; i++) {
        void *handle;
        if (family_of(names[i]) == NULL) continue;
        st = open_library(names[i], folder, runpath, &handle, where, sizeof where, err);
        if (st == MILL_OK)
            stm_text_addf(found, "%s%s%s%s%s", found->bytes > 0 ? ", " : "", names[i], strcmp(where, names[i]) ? " (" : "",
                          strcmp(where, names[i]) ? where : "", strcmp(where, names[i]) ? ")" : "");
    }
    munmap(file, (size_t)info.st_size);
    return st;
}

mill_status stm_module_needs(const char *path, mill_error *err)
{
    stm_text found = {0};
    const mill_status st = open_needs(path, &found, err);

    stm_text_free(&found);
    return st;
}

mill_status stm_module_open(const char *path, void **out, char *libraries, size_t size, mill_error *err)
{
    stm_text found = {0};
    mill_status st = open_needs(path, &found, err);

    if (st == MILL_OK && libraries != NULL) snprintf(libraries, size, "%s", found.data != NULL ? found.data : "");
    stm_text_free(&found);
    if (st != MILL_OK) return st;
    if (stm_fault_fires(STM_FAULT_OPEN))
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "%.200s cannot be opened (a test wants it)", path);
    *out = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*out == NULL) {
        const char *why = dlerror();
        return mill_fail(err, MILL_ERR_UNSUPPORTED, "%s", why != NULL ? why : path);
    }
    return MILL_OK;
}
