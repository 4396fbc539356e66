#include "pipeline/pipeline.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "pipeline/yaml.h"

void mill_text_free(char **text)
{
    if (text == NULL) return;
    stm_free(*text);
    *text = NULL;
}

mill_status stm_text_hand_out(stm_text *t, char **out, mill_error *err)
{
    char *empty;

    if (t->failed) {
        stm_text_free(t);
        return mill_fail(err, MILL_ERR_NOMEM, "out of memory");
    }
    if (t->data == NULL) {
        if ((empty = stm_strdup("")) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory");
        *out = empty;
        return MILL_OK;
    }
    *out = t->data;
    t->data = NULL;
    stm_text_free(t);
    return MILL_OK;
}

char *stm_path_absolute(const char *base, const char *path)
{
    char cwd[4096];
    stm_text t = {0};

    if (path[0] != '/') {
        if (base == NULL) base = getcwd(cwd, sizeof cwd) != NULL ? cwd : ".";
        stm_text_addf(&t, "%s/", strcmp(base, "/") == 0 ? "" : base);
        while (strncmp(path, "./", 2) == 0) path += 2;
    }
    stm_text_addf(&t, "%s", strcmp(path, ".") == 0 ? "" : path);
    if (t.failed) {
        stm_text_free(&t);
        return NULL;
    }
    while (t.bytes > 1 && t.data[t.bytes - 1] == '/') t.data[--t.bytes] = '\0';
    return t.data;
}

/* ---- making one -------------------------------------------------------------------------------------------------- */

static mill_status make(const char *file, const char *base_dir, mill_pipeline **out, mill_error *err)
{
    mill_pipeline *p = stm_calloc(sizeof *p);
    mill_status st = MILL_ERR_NOMEM;

    if (p == NULL) return mill_fail(err, MILL_ERR_NOMEM, "making a pipeline");
    p->file = stm_arena_copy(&p->arena, file, strlen(file));
    p->base_dir = stm_path_absolute(NULL, base_dir != NULL ? base_dir : ".");
    if (p->file == NULL || p->base_dir == NULL) {
        mill_fail(err, MILL_ERR_NOMEM, "making a pipeline");
        goto fail;
    }
    if ((st = stm_registry_create(&p->registry, err)) != MILL_OK) goto fail;
    *out = p;
    return MILL_OK;
fail:
    mill_pipeline_destroy(&p);
    return st;
}

/* The default name: "dir/near-duplicates.yaml" gives near-duplicates; what cannot stand in a name becomes '_'. Only the last ending
   goes: sweep.0.5.yaml and sweep.0.9.yaml have directories of their own. */
static void name_of_file(const char *file, char *name, size_t size)
{
    const char *base = strrchr(file, '/');
    const char *start = base != NULL ? base + 1 : file;
    const char *dot = strrchr(start, '.');
    size_t n = dot != NULL ? (size_t)(dot - start) : strlen(start);

    if (n >= size) n = size - 1;
    for (size_t i = 0; i < n; i++) {
        const char one[2] = {start[i], '\0'};

        name[i] = stm_name_ok(one) || (one[0] == '-' && i > 0) ? one[0] : '_';
    }
    name[n] = '\0';
    if (n == 0) snprintf(name, size, "pipeline");
}

mill_status mill_pipeline_parse(const char *text, size_t bytes, const char *file, const char *base_dir, mill_pipeline **out,
                                mill_error *err)
{
    mill_pipeline *p = NULL;
    mill_status st = make(file != NULL ? file : "<text>", base_dir, &p, err);

    if (st != MILL_OK) return st;
    if ((st = stm_yaml_parse(&p->arena, text, bytes, p->file, &p->root, err)) != MILL_OK) {
        if (err != NULL && err->phase == MILL_PHASE_NONE) err->phase = MILL_PHASE_CHECK;
        mill_pipeline_destroy(&p);
        return st;
    }
    name_of_file(p->file, p->name, sizeof p->name);
    *out = p;
    return MILL_OK;
}

static mill_status read_all(const char *path, stm_text *out, mill_error *err)
{
    char chunk[16384];
    struct stat s;
    ssize_t n = -1;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        mill_fail(err, errno == ENOENT ? MILL_ERR_NOT_FOUND : MILL_ERR_IO, "cannot open the pipeline file: %s", strerror(errno));
    } else if (fstat(fd, &s) == 0 && S_ISDIR(s.st_mode)) {
        mill_fail(err, MILL_ERR_INVALID, "the pipeline file is a folder");
    } else {
        while (!out->failed && out->bytes <= STM_YAML_MAX_BYTES && (n = read(fd, chunk, sizeof chunk)) > 0)
            stm_text_add(out, chunk, (size_t)n);
        if (n < 0) mill_fail(err, MILL_ERR_IO, "cannot read the pipeline file: %s", strerror(errno));
        if (out->failed) mill_fail(err, MILL_ERR_NOMEM, "reading the pipeline file");
    }
    if (fd >= 0) close(fd);
    mill_error_place(err, path, 0, 0);
    return err->status;
}

mill_status mill_pipeline_open(const char *path, mill_pipeline **out, mill_error *err)
{
    mill_error local = {0};
    mill_error *e = err != NULL ? err : &local;
    const char *slash = strrchr(path, '/');
    char *dir = slash == NULL ? NULL : stm_strndup(path, slash == path ? 1 : (size_t)(slash - path));
    stm_text text = {0};
    mill_status st;

    if (slash != NULL && dir == NULL) return mill_fail(e, MILL_ERR_NOMEM, "reading %s", path);
    e->status = MILL_OK;
    if ((st = read_all(path, &text, e)) == MILL_OK)
        st = mill_pipeline_parse(text.data != NULL ? text.data : "", text.bytes, path, dir, out, e);
    else if (st != MILL_ERR_NOMEM)
        e->phase = MILL_PHASE_CHECK;
    stm_text_free(&text);
    stm_free(dir);
    return st;
}

mill_status mill_pipeline_create(const char *name, mill_pipeline **out, mill_error *err)
{
    static const stm_value one = {.kind = STM_VALUE_SCALAR, .text = "1", .key = "stepmill"};
    static const stm_value steps = {.kind = STM_VALUE_MAP, .key = "steps"};
    mill_pipeline *p = NULL;
    mill_status st;

    if (!stm_name_ok(name))
        return mill_fail(err, MILL_ERR_INVALID, "\"%.80s\" cannot name a pipeline: letters, digits, _ and -, at most 63", name);
    if ((st = make("", NULL, &p, err)) != MILL_OK) return st;
    p->root.kind = STM_VALUE_MAP;
    snprintf(p->name, sizeof p->name, "%s", name);
    if (stm_value_append(&p->arena, &p->root, &one) == NULL || stm_value_append(&p->arena, &p->root, &steps) == NULL) {
        mill_pipeline_destroy(&p);
        return mill_fail(err, MILL_ERR_NOMEM, "making a pipeline");
    }
    *out = p;
    return MILL_OK;
}

void mill_pipeline_destroy(mill_pipeline **p)
{
    if (p == NULL || *p == NULL) return;
    stm_registry_destroy(&(*p)->registry);
    stm_arena_fini(&(*p)->arena);
    stm_free((*p)->base_dir);
    stm_free((*p)->devices_file);
    stm_free((*p)->run_dir);
    stm_text_free(&(*p)->set);
    stm_free(*p);
    *p = NULL;
}

const char *mill_pipeline_name(const mill_pipeline *p)
{
    const stm_value *v = stm_value_get(&p->root, "name");

    return v != NULL && v->kind == STM_VALUE_SCALAR && v->text != NULL && stm_name_ok(v->text) ? v->text : p->name;
}

mill_status mill_pipeline_use_devices(mill_pipeline *p, const char *file, mill_error *err)
{
    char *copy = file != NULL ? stm_path_absolute(NULL, file) : NULL;

    if (file != NULL && copy == NULL) return mill_fail(err, MILL_ERR_NOMEM, "reading %s", file);
    stm_free(p->devices_file);
    p->devices_file = copy;
    return MILL_OK;
}

char *stm_pipeline_dir(const mill_pipeline *p)
{
    char text[96];

    snprintf(text, sizeof text, "runs/%.64s", mill_pipeline_name(p));
    return stm_path_absolute(NULL, text);
}

mill_status mill_pipeline_use_dir(mill_pipeline *p, const char *run_dir, mill_error *err)
{
    char *copy = run_dir != NULL ? stm_path_absolute(NULL, run_dir) : NULL;

    if (run_dir != NULL && copy == NULL) return mill_fail(err, MILL_ERR_NOMEM, "checking for %s", run_dir);
    stm_free(p->run_dir);
    p->run_dir = copy;
    return MILL_OK;
}

/* ---- changing it ------------------------------------------------------------------------------------------------- */

mill_status mill_pipeline_add_types(mill_pipeline *p, const mill_plugin *plugin, mill_error *err)
{
    p->edited = true;
    return stm_registry_add(p->registry, plugin, err);
}

mill_status mill_pipeline_add(mill_pipeline *p, const char *step, const char *type, mill_error *err)
{
    stm_value *steps = stm_value_get(&p->root, "steps");
    stm_value s = {.kind = STM_VALUE_MAP}, t = {.kind = STM_VALUE_SCALAR, .key = "type"};

    p->edited = true;
    if (!stm_name_ok(step))
        return mill_fail(err, MILL_ERR_INVALID, "\"%.80s\" cannot name a step: letters, digits, _ and -, at most 63", step);
    if (steps == NULL || steps->kind != STM_VALUE_MAP)
        return mill_fail(err, MILL_ERR_INVALID, "the pipeline's `steps` is not a map");
    if (stm_value_get(steps, step) != NULL) return mill_fail(err, MILL_ERR_INVALID, "there is a step %s already", step);
    s.key = stm_arena_copy(&p->arena, step, strlen(step));
    t.text = stm_arena_copy(&p->arena, type, strlen(type));
    if (s.key == NULL || t.text == NULL || stm_value_append(&p->arena, &s, &t) == NULL ||
        stm_value_append(&p->arena, steps, &s) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "adding step %s", step);
    return MILL_OK;
}

/* Places in a value that stands in one line are columns of it: the line is shown whole. */
static void in_one_line(stm_value *v)
{
    v->place.line = v->key_place.line = 0;
    for (size_t i = 0; i < v->n_items; i++) in_one_line(&v->items[i]);
}

/* Text of a value given by a call: YAML for lists and maps, else itself. */
static mill_status parse_value(mill_pipeline *p, const char *key, const char *text, stm_value *out, mill_error *err)
{
    const char *where = "";
    mill_status st;

    if (p->file[0] != '\0' && (where = stm_arena_printf(&p->arena, "--set %.120s=%.120s", key, text)) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "setting %s", key);
    if (text[0] == '[' || text[0] == '{') {
        st = stm_yaml_parse(&p->arena, text, strlen(text), where, out, err);
        if (strchr(text, '\n') == NULL && st == MILL_OK) in_one_line(out);
        else if (strchr(text, '\n') == NULL && err != NULL) err->line = 0;
        return st;
    }
    *out = (stm_value){.kind = STM_VALUE_SCALAR, .place = {where, 0, 0}, .key_place = {where, 0, 0}};
    if (strcmp(text, "null") == 0 || strcmp(text, "~") == 0) return MILL_OK;
    if ((out->text = stm_arena_copy(&p->arena, text, strlen(text))) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "setting %s", key);
    return MILL_OK;
}

/* Put @p v under @p path ("a.b.c") in map @p map, making maps on the way. */
static mill_status put_path(mill_pipeline *p, stm_value *map, const char *path, const stm_value *v, const char *key,
                            mill_error *err)
{
    const size_t n = strcspn(path, ".");
    const bool last = path[n] == '\0';
    char *name = stm_arena_copy(&p->arena, path, n);
    stm_value *at, fresh = last ? *v : (stm_value){.kind = STM_VALUE_MAP, .place = v->place};

    if (name == NULL || !stm_value_own(&p->arena, map)) return mill_fail(err, MILL_ERR_NOMEM, "setting %s", key);
    if (n == 0) {
        mill_fail(err, MILL_ERR_INVALID, "\"%.80s\" is not a key: expected step.key or a key of the file", key);
        mill_error_place(err, v->place.file, 0, 0);
        return MILL_ERR_INVALID;
    }
    fresh.key = name;
    fresh.key_place = v->place;
    at = stm_value_get(map, name);
    if (at == NULL && (at = stm_value_append(&p->arena, map, &fresh)) == NULL)
        return mill_fail(err, MILL_ERR_NOMEM, "setting %s", key);
    if (last || at->kind != STM_VALUE_MAP) *at = fresh;
    return last ? MILL_OK : put_path(p, at, path + n + 1, v, key, err);
}

/* For run.json: so a run is resumed with what it was started with. Of one that fails there is no run. */
static void note_set(mill_pipeline *p, const char *key, const char *value)
{
    stm_text_addf(&p->set, p->set.bytes > 0 ? ",[\"" : "[\"");
    stm_text_add_json(&p->set, key, strlen(key));
    stm_text_addf(&p->set, "\",\"");
    stm_text_add_json(&p->set, value, strlen(value));
    stm_text_addf(&p->set, "\"]");
}

mill_status mill_pipeline_set(mill_pipeline *p, const char *key, const char *value, mill_error *err)
{
    const size_t n = strcspn(key, ".");
    stm_value *steps = stm_value_get(&p->root, "steps"), *step = NULL;
    char name[64] = "";
    const char *names[256];
    size_t count = 0;
    stm_value v;
    mill_status st;

    if ((st = parse_value(p, key, value, &v, err)) != MILL_OK) return st;
    note_set(p, key, value);
    if (p->root.kind != STM_VALUE_MAP) return mill_fail(err, MILL_ERR_INVALID, "the pipeline is not a map");
    if (n < sizeof name) memcpy(name, key, n), name[n] = '\0';
    if (key[n] == '.') step = stm_value_get(steps, name);
    if (step != NULL && step->kind == STM_VALUE_MAP) return put_path(p, step, key + n + 1, &v, key, err);
    if (stm_key_find(stm_file_table, stm_file_table_count, name) != NULL) return put_path(p, &p->root, key, &v, key, err);
    if (key[n] != '.' && stm_value_get(steps, name) != NULL) {
        st = mill_fail(err, MILL_ERR_INVALID, "\"%s\" is a step, not a key", name);
        mill_error_remedy(err, "Say which of its keys: %s.KEY=VALUE", name);
        mill_error_place(err, v.place.file, v.place.line, v.place.column);
        return st;
    }
    if (steps != NULL && steps->kind == STM_VALUE_MAP)
        for (size_t i = 0; i < steps->n_items && count < 200; i++) names[count++] = steps->items[i].key;
    if (key[n] != '.')
        for (size_t i = 0; i < stm_file_table_count; i++) names[count++] = stm_file_table[i].name;
    return stm_unknown_name(key[n] == '.' ? "no step" : "no key of the file", key[n] == '.' ? name : key, v.place, names, count,
                            err);
}

mill_status mill_pipeline_connect(mill_pipeline *p, const char *from, const char *to, mill_error *err)
{
    stm_value *steps = stm_value_get(&p->root, "steps"), *step = stm_value_get(steps, to), *at;
    stm_value v = {.kind = STM_VALUE_SCALAR, .key = "from"};
    stm_value list = {.kind = STM_VALUE_LIST, .key = "from"};

    p->edited = true;
    if (stm_value_get(steps, from) == NULL || step == NULL || step->kind != STM_VALUE_MAP)
        return mill_fail(err, MILL_ERR_NOT_FOUND, "no step \"%.80s\"", step == NULL ? to : from);
    if ((v.text = stm_arena_copy(&p->arena, from, strlen(from))) == NULL || !stm_value_own(&p->arena, step))
        return mill_fail(err, MILL_ERR_NOMEM, "connecting %s to %s", from, to);
    at = stm_value_get(step, "from");
    if (at != NULL && at->kind == STM_VALUE_MAP)
        return mill_fail(err, MILL_ERR_INVALID, "`from` of %s is a map: set it as a whole", to);
    if (at == NULL) {
        at = stm_value_append(&p->arena, step, &v);
    } else if (at->kind == STM_VALUE_LIST) {
        at = stm_value_append(&p->arena, at, &v);
    } else {
        if (stm_value_append(&p->arena, &list, at) == NULL || stm_value_append(&p->arena, &list, &v) == NULL) at = NULL;
        if (at != NULL) *at = list;
    }
    return at != NULL ? MILL_OK : mill_fail(err, MILL_ERR_NOMEM, "connecting %s to %s", from, to);
}
