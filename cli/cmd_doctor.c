/* doctor: what on this machine would slow a run down or stop it. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cli.h"

enum verdict { OK, WARN, BAD };

struct report {
    bool json, first;
    enum verdict worst;
};

static void say(struct report *r, enum verdict v, const char *what, const char *found, const char *advice)
{
    static const char *const words[] = {"ok", "warning", "failure"};

    if (v > r->worst) r->worst = v;
    if (r->json) {
        printf("%s{\"check\":\"%s\",\"verdict\":\"%s\",\"found\":\"", r->first ? "" : ",", what, words[v]);
        cli_json_text(stdout, found);
        printf("\",\"advice\":\"");
        cli_json_text(stdout, v == OK ? "" : advice);
        printf("\"}");
        r->first = false;
        return;
    }
    printf("%-8s %-18s %s\n", words[v], what, found);
    if (v != OK) printf("         %-18s %s\n", "", advice);
}

static void check_types(struct report *r)
{
    mill_error err = {0};
    char *text = NULL, found[600];
    size_t n = 0;

    if (mill_types_list(NULL, 0, MILL_FORMAT_TEXT, &text, &err) != MILL_OK) {
        mill_error_format(&err, found, sizeof found);
        say(r, BAD, "step types", found, "The library cannot list its step types: install it anew");
        return;
    }
    for (const char *p = text; *p != '\0'; p++) n += *p == '\n';
    snprintf(found, sizeof found, "%zu built in", n);
    say(r, n > 0 ? OK : BAD, "step types", found, "The library has no step types: install it anew");
    mill_text_free(&text);
}

/* What lies in modules may lack a library that only they need. */
static void check_module(struct report *r, const char *what, const char *type)
{
    mill_error err = {0};
    char *text = NULL;

    if (mill_types_describe(NULL, 0, type, MILL_FORMAT_TEXT, &text, &err) == MILL_OK)
        say(r, OK, what, "its step types can be opened", "");
    else
        say(r, WARN, what, err.msg, err.remedy[0] != '\0' ? err.remedy : "Pipelines without its step types run all the same");
    mill_text_free(&text);
}

static void check_devices(struct report *r)
{
    mill_error err = {0};
    char *text = NULL, *line;

    if (mill_devices_list(MILL_FORMAT_TEXT, &text, &err) != MILL_OK) return;
    for (line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char name[16] = "";

        sscanf(line, "%15s", name);
        say(r, OK, name, line + strlen(name) + strspn(line + strlen(name), " "), "");
    }
    mill_text_free(&text);
}

static void check_place(struct report *r)
{
    struct statvfs v;
    char found[160];
    double free_gib;

    if (access(".", W_OK | X_OK) != 0) {
        say(r, WARN, "working directory", "cannot be written", "Runs go to runs/NAME below it unless --run says otherwise");
        return;
    }
    if (statvfs(".", &v) != 0) return;
    free_gib = (double)v.f_bavail * (double)v.f_frsize / (double)(1 << 30);
    snprintf(found, sizeof found, "%.1f GiB free", free_gib);
    say(r, free_gib < 1 ? WARN : OK, "working directory", found, "Outputs of runs need room");
}

static void check_limits(struct report *r)
{
    const double gib = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / (double)(1 << 30);
    struct rlimit files, memory;
    char found[160];

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        snprintf(found, sizeof found, "%llu at once", (unsigned long long)files.rlim_cur);
        say(r, files.rlim_cur < 256 ? WARN : OK, "open files", found, "Raise it: ulimit -n 1024");
    }
    if (getrlimit(RLIMIT_AS, &memory) == 0 && memory.rlim_cur != RLIM_INFINITY) {
        snprintf(found, sizeof found, "limited to %.1f GiB", (double)memory.rlim_cur / (double)(1 << 30));
        say(r, WARN, "address space", found, "Models are memory-mapped: ulimit -v unlimited");
    }
    snprintf(found, sizeof found, "%.1f GiB", gib);
    say(r, gib < 1 ? WARN : OK, "memory", found, "Embedding needs about 1 GiB");
}

int cmd_doctor(const cli_args *a)
{
    struct report r = {.json = a->given[CLI_JSON], .first = true};

    if (r.json) printf("[");
    say(&r, OK, "version", MILL_VERSION, "");
    check_types(&r);
    check_module(&r, "parquet", "read_parquet");
    check_module(&r, "servers", "chat");
    check_devices(&r);
    check_limits(&r);
    check_place(&r);
    if (r.json) printf("]\n");
    return r.worst == BAD ? MILL_EXIT_LOAD : MILL_EXIT_OK;
}
