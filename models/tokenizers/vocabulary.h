/* Tokens and their ids, found by bytes: one open-addressed table for pieces that start a word and those that go on. */
#ifndef STM_TOKENIZERS_VOCABULARY_H
#define STM_TOKENIZERS_VOCABULARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define STM_VOCABULARY_START 0xcbf29ce484222325u /* seeds of the hash of the two kinds */
#define STM_VOCABULARY_INSIDE 0x9ae16a3b2f90404fu

typedef struct stm_vocabulary_entry {
    uint32_t text; /* offset in bytes */
    uint16_t bytes;
    uint8_t inside; /* goes on a word */
    int32_t id;
} stm_vocabulary_entry;

typedef struct stm_vocabulary {
    char *text;
    size_t text_bytes, text_cap;
    stm_vocabulary_entry *entries;
    size_t n, cap;
    uint64_t *slots; /* upper half: part of the hash; lower: entry + 1; 0 = free */
    uint64_t mask;
    size_t longest[2]; /* bytes of the longest that starts, that goes on */
} stm_vocabulary;

/** Append a token; 0, or -1 when out of memory or longer than 65535 bytes. Before stm_vocabulary_index. */
int stm_vocabulary_add(stm_vocabulary *v, const char *text, size_t bytes, bool inside, int32_t id);
/** Build the table; of equal tokens the last added wins. 0, or -1 when out of memory. */
int stm_vocabulary_index(stm_vocabulary *v);
void stm_vocabulary_fini(stm_vocabulary *v);

/** Hash of one more byte. */
static inline uint64_t stm_vocabulary_hash(uint64_t h, uint8_t byte) { return (h ^ byte) * 0x100000001b3u; }

/** Id of bytes whose hash is @p h; -1 = none. */
static inline int32_t stm_vocabulary_find(const stm_vocabulary *v, uint64_t h, const char *text, size_t bytes, bool inside)
{
    const uint64_t mixed = h ^ h >> 29, tag = mixed >> 32;

    for (uint64_t i = mixed & v->mask;; i = (i + 1) & v->mask) {
        const uint64_t slot = v->slots[i];
        if (slot == 0) return -1;
        if (slot >> 32 != tag) continue;
        const stm_vocabulary_entry *e = &v->entries[(uint32_t)slot - 1];
        if (e->bytes == bytes && e->inside == inside && memcmp(v->text + e->text, text, bytes) == 0) return e->id;
    }
}

#endif
