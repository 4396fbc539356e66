#include "pipeline/facts.h"

#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/runfiles.h"
#include "pipeline/placing.h"
#include "trace/files.h"

enum { MOST_PIPELINE = 1 << 20, MOST_COMMAND = 1 << 16 };

static void field(stm_text *t, const char *key, const char *value, size_t n)
{
    stm_text_addf(t, ",\"%s\":\"", key);
    stm_text_add_json(t, value, n);
    stm_text_addf(t, "\"");
}

/* The build id of the object that holds this function, which the linker made of its contents. */
struct build {
    char hex[2 * 32 + 1];
};

static int find_build(struct dl_phdr_info *info, size_t size, void *user)
{
    struct build *b = user;
    const uintptr_t here = (uintptr_t)&find_build;
    bool ours = false;

    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        ours = ours || (h->p_type == PT_LOAD && here - info->dlpi_addr - h->p_vaddr < h->p_memsz);
    }
    for (int i = 0; ours && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        const unsigned char *p = (const unsigned char *)(info->dlpi_addr + h->p_vaddr), *end = p + h->p_memsz;

        while (h->p_type == PT_NOTE && end - p >= (ptrdiff_t)sizeof(ElfW(Nhdr))) {
            ElfW(Nhdr) n;
            memcpy(&n, p, sizeof n);
            if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4)
                for (unsigned k = 0; k < n.n_descsz && k < 32; k++) snprintf(b->hex + 2 * k, 3, "%02x", p[sizeof n + 4 + k]);
            p += sizeof n + ((n.n_namesz + 3) & ~3u) + ((n.n_descsz + 3) & ~3u);
        }
    }
    return ours;
}

static void command_line(stm_text *t)
{
    stm_text all = {0};
    mill_error err = {0};
    const char *comma = "";

    stm_text_addf(t, ",\"command\":[");
    if (stm_file_read("/proc/self", "cmdline", &all, &err) == MILL_OK && all.data != NULL)
        for (size_t at = 0; at < all.bytes && at < MOST_COMMAND; at += strlen(all.data + at) + 1) {
            stm_text_addf(t, "%s\"", comma);
            stm_text_add_json(t, all.data + at, strlen(all.data + at));
            stm_text_addf(t, "\"");
            comma = ",";
        }
    stm_text_addf(t, "]");
    stm_text_free(&all);
}

static void machine(stm_text *t)
{
    char line[256], dir[4096];
    struct utsname u;
    FILE *f = fopen("/proc/cpuinfo", "re");

    if (getcwd(dir, sizeof dir) != NULL) field(t, "directory", dir, strlen(dir));
    if (uname(&u) == 0) {
        snprintf(line, sizeof line, "%s %s %s", u.sysname, u.release, u.machine);
        field(t, "system", line, strlen(line));
    }
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        field(t, "processor", colon + 2, strcspn(colon + 2, "\n"));
        break;
    }
    if (f != NULL) fclose(f);
}

void stm_facts_write(const mill_pipeline *p, const stm_plan *plan, const char *run_dir, const mill_run_options *options,
                     stm_text *t)
{
    struct build build = {""};
    stm_text text = {0};
    mill_error err = {0};

    stm_text_addf(t, "{\"format\":1");
    field(t, "name", mill_pipeline_name(p), strlen(mill_pipeline_name(p)));
    field(t, "stepmill", MILL_VERSION, strlen(MILL_VERSION));
    dl_iterate_phdr(find_build, &build);
    field(t, "build", build.hex, strlen(build.hex));
    field(t, "run", run_dir, strlen(run_dir));
    command_line(t);
    machine(t);
    field(t, "file", p->file, strlen(p->file));
    if (p->file[0] != '\0' && stm_file_read(p->file[0] == '/' ? "" : ".", p->file, &text, &err) == MILL_OK && text.data != NULL)
        field(t, "pipeline", text.data, text.bytes < MOST_PIPELINE ? text.bytes : MOST_PIPELINE);
    stm_text_free(&text);
    stm_text_addf(t, ",\"set\":[%s],\"edited\":%s,\"limit\":%lld,\"shard\":%d,\"shards\":%d,\"merged\":%s",
                  p->set.data != NULL ? p->set.data : "", p->edited ? "true" : "false", (long long)options->limit,
                  (int)options->shard, (int)options->shards, options->n_merge > 0 ? "true" : "false");
    t->failed = t->failed || p->set.failed;
    stm_text_addf(t, ",\"steps\":[");
    for (int32_t i = 0; i < plan->n_steps; i++) {
        const mill_step *s = plan->steps[i].step;
        const stm_text *sign = &plan->steps[i].signature;

        stm_text_addf(t, "%s\n{\"step\":\"", i > 0 ? "," : "");
        stm_text_add_json(t, s->name, strlen(s->name));
        stm_text_addf(t, "\"");
        field(t, "type", s->type->name, strlen(s->type->name));
        field(t, "version", s->type->version != NULL ? s->type->version : "1",
              strlen(s->type->version != NULL ? s->type->version : "1"));
        if (sign->bytes > 0)
            stm_text_addf(t, ",\"signature\":\"%016llx\"", (unsigned long long)stm_hash64(sign->data, sign->bytes, 0));
        stm_placing_json(plan, i, t);
        stm_text_addf(t, "}");
    }
    stm_text_addf(t, "]}\n");
}

mill_status stm_facts_open(const char *dir, stm_tree_doc **out, const stm_tree **root, mill_error *err)
{
    stm_text t = {0};
    mill_error why = {0};
    mill_status st = stm_file_read(dir, STM_RUN_FACTS, &t, &why);

    if (st == MILL_ERR_NOT_FOUND)
        st = stm_no_run(dir, STM_RUN_FACTS, err);
    else if (st != MILL_OK)
        st = mill_fail(err, st, "%s", why.msg);
    if (st == MILL_OK && (st = stm_tree_parse(t.data != NULL ? t.data : "", t.bytes, out, root)) != MILL_OK)
        st = mill_fail(err, st, "cannot read %s/run.json: %s", dir, st == MILL_ERR_NOMEM ? "out of memory" : "it is damaged");
    stm_text_free(&t);
    return st;
}
