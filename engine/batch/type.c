/*
 * Interned types. Plain types are constants; nested ones live in a hash table behind a lock until the process ends, so a
 * type is a pointer that can be compared and kept without a reference. Their memory comes first from a fixed arena: a
 * program that makes the usual few dozen types allocates nothing for them.
 */
#include "batch/type.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fault.h"

typedef struct entry {
    mill_type type; /* first: a nested mill_type is an entry */
    struct entry *next;
    uint64_t hash;
    int depth; /* 1 + deepest child */
} entry;

enum { ARENA_BYTES = 48 * 1024, CHUNK_BYTES = 64 * 1024, BUCKETS = 512, PLAIN = MILL_JSON };

static const mill_type plain_types[PLAIN + 1] = {
    [MILL_BOOL] = {MILL_BOOL, 0, 0, 0, NULL},       [MILL_INT32] = {MILL_INT32, 0, 0, 4, NULL},
    [MILL_INT64] = {MILL_INT64, 0, 0, 8, NULL},     [MILL_FLOAT16] = {MILL_FLOAT16, 0, 0, 2, NULL},
    [MILL_FLOAT32] = {MILL_FLOAT32, 0, 0, 4, NULL}, [MILL_FLOAT64] = {MILL_FLOAT64, 0, 0, 8, NULL},
    [MILL_UTF8] = {MILL_UTF8, 0, 0, 0, NULL},       [MILL_BINARY] = {MILL_BINARY, 0, 0, 0, NULL},
    [MILL_JSON] = {MILL_JSON, 0, 0, 0, NULL},
};

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static entry *table[BUCKETS]; /* table_lock */
static _Alignas(16) char arena[ARENA_BYTES];
static char *chunk = arena;          /* table_lock */
static size_t chunk_left = ARENA_BYTES; /* table_lock */

/* Memory that is never given back: not from the counted allocator, whose blocks alive at the end are leaks. */
static void *keep(size_t bytes)
{
    void *p;

    bytes = (bytes + 15) & ~(size_t)15;
    if (stm_fault_fires(STM_FAULT_ALLOC)) return NULL;
    if (bytes > chunk_left) {
        const size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
        char *more = malloc(size);

        if (more == NULL) return NULL;
        chunk = more;
        chunk_left = size;
    }
    p = chunk;
    chunk += bytes;
    chunk_left -= bytes;
    return p;
}

static int depth_of(const mill_type *t) { return t->n_fields == 0 && t->id <= PLAIN ? 0 : ((const entry *)t)->depth; }

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

static uint64_t hash_of(int32_t id, int32_t length, const mill_field *fields, int32_t n)
{
    uint64_t h = mix((uint64_t)id, (uint64_t)length);

    for (int32_t i = 0; i < n; i++) {
        h = mix(h, (uintptr_t)fields[i].type);
        for (const char *c = fields[i].name; *c != '\0'; c++) h = mix(h, (unsigned char)*c);
    }
    return h;
}

static bool same(const mill_type *t, int32_t id, int32_t length, const mill_field *fields, int32_t n)
{
    if (t->id != id || t->length != length || t->n_fields != n) return false;
    for (int32_t i = 0; i < n; i++)
        if (t->fields[i].type != fields[i].type || strcmp(t->fields[i].name, fields[i].name) != 0) return false;
    return true;
}

/* One block holds entry, fields and names. */
static entry *make(int32_t id, int32_t length, const mill_field *fields, int32_t n, int depth)
{
    size_t bytes = sizeof(entry) + (size_t)n * sizeof *fields;
    mill_field *own;
    char *name;
    entry *e;

    for (int32_t i = 0; i < n; i++) bytes += strlen(fields[i].name) + 1;
    e = keep(bytes);
    if (e == NULL) return NULL;
    own = (mill_field *)(e + 1);
    name = (char *)(own + n);
    for (int32_t i = 0; i < n; i++) {
        const size_t len = strlen(fields[i].name) + 1;

        own[i].type = fields[i].type;
        own[i].name = memcpy(name, fields[i].name, len);
        name += len;
    }
    e->type = (mill_type){.id = id, .length = length, .n_fields = n, .width = 0, .fields = own};
    e->depth = depth;
    return e;
}

static const mill_type *intern(int32_t id, int32_t length, const mill_field *fields, int32_t n)
{
    const uint64_t h = hash_of(id, length, fields, n);
    entry *e;
    int depth = 1;

    for (int32_t i = 0; i < n; i++)
        if (depth_of(fields[i].type) + 1 > depth) depth = depth_of(fields[i].type) + 1;
    if (depth > STM_TYPE_MAX_DEPTH) return NULL;
    pthread_mutex_lock(&table_lock);
    for (e = table[h % BUCKETS]; e != NULL; e = e->next)
        if (e->hash == h && same(&e->type, id, length, fields, n)) break;
    if (e == NULL && (e = make(id, length, fields, n, depth)) != NULL) {
        e->hash = h;
        e->next = table[h % BUCKETS];
        table[h % BUCKETS] = e;
    }
    pthread_mutex_unlock(&table_lock);
    return e != NULL ? &e->type : NULL;
}

const mill_type *mill_type_plain(mill_type_id id)
{
    return (int)id >= MILL_BOOL && (int)id <= PLAIN ? &plain_types[id] : NULL;
}

const mill_type *mill_type_list(const mill_type *item)
{
    const mill_field f = {"item", item};

    return intern(MILL_LIST, 0, &f, 1);
}

const mill_type *mill_type_fixed_list(const mill_type *item, int32_t length)
{
    const mill_field f = {"item", item};

    return length >= 1 ? intern(MILL_FIXED_LIST, length, &f, 1) : NULL;
}

/* An open-addressed table of places keeps a schema of thousands of columns linear. */
bool stm_type_names_repeat(const mill_field *fields, int32_t n, bool *out)
{
    size_t slots = 16;
    int32_t *place;

    *out = false;
    if (n < 2) return true;
    while (slots < (size_t)n * 2) slots *= 2;
    place = stm_calloc(slots * sizeof *place);
    if (place == NULL) return false;
    for (int32_t i = 0; i < n && !*out; i++) {
        uint64_t h = 1;

        for (const char *c = fields[i].name; *c != '\0'; c++) h = mix(h, (unsigned char)*c);
        h %= slots;
        for (; place[h] != 0 && !*out; h = (h + 1) % slots) *out = strcmp(fields[place[h] - 1].name, fields[i].name) == 0;
        place[h] = i + 1;
    }
    stm_free(place);
    return true;
}

const mill_type *mill_type_struct(const mill_field *fields, int32_t n_fields)
{
    bool twice;

    if (n_fields < 0 || n_fields > STM_TYPE_MAX_FIELDS || !stm_type_names_repeat(fields, n_fields, &twice) || twice) return NULL;
    return intern(MILL_STRUCT, 0, fields, n_fields);
}
