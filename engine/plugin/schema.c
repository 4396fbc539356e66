#include <string.h>

#include "core/alloc.h"
#include "plugin/step.h"

mill_status stm_schema_add(stm_schema *s, const char *name, const mill_type *type)
{
    mill_field *grown = stm_realloc(s->fields, ((size_t)s->n + 1) * sizeof *grown);
    char *copy;

    if (grown == NULL) return MILL_ERR_NOMEM;
    s->fields = grown;
    if ((copy = stm_strdup(name)) == NULL) return MILL_ERR_NOMEM;
    s->fields[s->n++] = (mill_field){.name = copy, .type = type};
    return MILL_OK;
}

mill_status stm_schema_copy(const stm_schema *src, stm_schema *out)
{
    stm_schema copy = {0};

    memset(out, 0, sizeof *out);
    for (int32_t i = 0; i < src->n; i++) {
        if (stm_schema_add(&copy, src->fields[i].name, src->fields[i].type) != MILL_OK) {
            stm_schema_fini(&copy);
            return MILL_ERR_NOMEM;
        }
    }
    *out = copy;
    return MILL_OK;
}

void stm_schema_fini(stm_schema *s)
{
    for (int32_t i = 0; i < s->n; i++) stm_free((char *)s->fields[i].name); /* ours: mill_field has it const for its readers */
    stm_free(s->fields);
    memset(s, 0, sizeof *s);
}

int32_t stm_schema_find(const stm_schema *s, const char *name)
{
    for (int32_t i = 0; i < s->n; i++) {
        if (strcmp(s->fields[i].name, name) == 0) return i;
    }
    return -1;
}
