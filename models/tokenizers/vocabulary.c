#include "models/tokenizers/vocabulary.h"

#include "core/alloc.h"

int stm_vocabulary_add(stm_vocabulary *v, const char *text, size_t bytes, bool inside, int32_t id)
{
    if (bytes > UINT16_MAX || v->text_bytes + bytes > UINT32_MAX - UINT16_MAX || v->n >= INT32_MAX) return -1;
    if (stm_grow(&v->entries, &v->cap, v->n + 1, sizeof *v->entries) != 0) return -1;
    if (stm_grow(&v->text, &v->text_cap, v->text_bytes + bytes + 1, 1) != 0) return -1;
    memcpy(v->text + v->text_bytes, text, bytes);
    v->entries[v->n++] = (stm_vocabulary_entry){(uint32_t)v->text_bytes, (uint16_t)bytes, inside, id};
    v->text_bytes += bytes;
    if (bytes > v->longest[inside]) v->longest[inside] = bytes;
    return 0;
}

int stm_vocabulary_index(stm_vocabulary *v)
{
    size_t size = 64;

    while (size < 2 * v->n) size *= 2;
    stm_free(v->slots);
    if ((v->slots = stm_calloc(size * sizeof *v->slots)) == NULL) return -1;
    v->mask = size - 1;
    for (size_t i = v->n; i-- > 0;) { /* from the end: the last of equal tokens comes first and hides the others */
        const stm_vocabulary_entry *e = &v->entries[i];
        uint64_t h = e->inside ? STM_VOCABULARY_INSIDE : STM_VOCABULARY_START, at;
        for (size_t j = 0; j < e->bytes; j++) h = stm_vocabulary_hash(h, (uint8_t)v->text[e->text + j]);
        h ^= h >> 29;
        for (at = h & v->mask; v->slots[at] != 0; at = (at + 1) & v->mask) continue;
        v->slots[at] = h >> 32 << 32 | (uint64_t)(i + 1);
    }
    return 0;
}

void stm_vocabulary_fini(stm_vocabulary *v)
{
    stm_free(v->text);
    stm_free(v->entries);
    stm_free(v->slots);
    *v = (stm_vocabulary){0};
}
