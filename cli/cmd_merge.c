/* merge RUN...: the outputs of all shards of a run, as one run would have written them. */
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

typedef struct shards {
    char **dirs; /* absolute */
    size_t n, cap;
} shards;

static bool add(shards *s, const char *dir)
{
    char *full = realpath(dir, NULL);

    if (full == NULL) {
        fprintf(stderr, "stepmill: cannot open %s: %s\n", dir, strerror(errno));
        return false;
    }
    if (s->n == s->cap) {
        char **more = realloc(s->dirs, (2 * s->cap + 16) * sizeof *more);
        if (more == NULL) {
            free(full);
            fprintf(stderr, "stepmill: out of memory\n");
            return false;
        }
        s->dirs = more;
        s->cap = 2 * s->cap + 16;
    }
    s->dirs[s->n++] = full;
    return true;
}

/* What an operand stands for: a shard, or the shards that a folder holds. */
static bool add_operand(shards *s, const char *operand)
{
    char pattern[PATH_MAX];
    glob_t found = {0};
    bool ok = true;
    int n = 0;

    for (const char *p = operand; *p != '\0' && n < PATH_MAX - 64; p++) { /* what stands for itself in a path does so here */
        if (strchr("*?[\\", *p) != NULL) pattern[n++] = '\\';
        pattern[n++] = *p;
    }
    snprintf(pattern + n, sizeof pattern - (size_t)n, "/shard-*-of-*/run.json");
    if (glob(pattern, 0, NULL, &found) != 0) return add(s, operand);
    for (size_t i = 0; i < found.gl_pathc && ok; i++) {
        *strrchr(found.gl_pathv[i], '/') = '\0';
        ok = add(s, found.gl_pathv[i]);
    }
    globfree(&found);
    return ok;
}

/* Where to, absolute: the working directory may change. */
static bool place(const cli_args *a, const shards *s, char *dir, size_t size)
{
    const char *given = a->value[CLI_RUN];
    char here[PATH_MAX] = "";

    if (given == NULL) return (size_t)snprintf(dir, size, "%.*s", (int)(strrchr(s->dirs[0], '/') - s->dirs[0]), s->dirs[0]) < size;
    if (given[0] != '/' && getcwd(here, sizeof here) == NULL) return false;
    return (size_t)snprintf(dir, size, "%s%s%s", here, here[0] != '\0' ? "/" : "", given) < size;
}

int cmd_merge(const cli_args *a)
{
    char dir[2 * PATH_MAX];
    shards s = {0};
    int code = MILL_EXIT_USAGE;
    bool ok = true;

    for (int i = 0; i < a->n_operands && ok; i++) ok = add_operand(&s, a->operands[i]);
    if (ok && place(a, &s, dir, sizeof dir))
        code = cli_work(a, &(cli_work_on){.started = s.dirs[0], .dir = dir, .merge = (const char *const *)s.dirs, .n_merge = s.n});
    for (size_t i = 0; i < s.n; i++) free(s.dirs[i]);
    free(s.dirs);
    return code;
}
