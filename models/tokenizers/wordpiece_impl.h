/* Inside of the WordPiece tokenizer: shared by its reader (wordpiece_open.c) and its loop (wordpiece.c). */
#ifndef STM_TOKENIZERS_WORDPIECE_IMPL_H
#define STM_TOKENIZERS_WORDPIECE_IMPL_H

#include "models/tokenizers/vocabulary.h"
#include "models/tokenizers/wordpiece.h"

/* A token recognised in the text as it stands, before anything else is done to it. */
typedef struct special_token {
    const char *text; /* owned */
    size_t bytes;
    int32_t id;
    bool single_word; /* only where no word character touches it */
} special_token;

enum { BYTE_WORD = 0, BYTE_SPACE, BYTE_DROP, BYTE_PUNCTUATION }; /* of ASCII */

struct stm_wordpiece {
    stm_vocabulary vocabulary;
    char *prefix; /* "##" */
    size_t prefix_bytes;
    char *prompt; /* in front of every text; NULL = none */
    size_t prompt_bytes;
    int32_t unknown;
    int32_t word_max; /* characters; longer words are unknown */
    bool clean, split_cjk, strip_accents, lowercase;
    special_token *specials; /* longest first */
    size_t n_specials, specials_cap;
    int32_t before[STM_WORDPIECE_SPECIALS], after[STM_WORDPIECE_SPECIALS];
    stm_wordpiece_info info;
    uint8_t kind[128]; /* BYTE_* */
    uint8_t lower[128];
    bool starts_special[256]; /* a special token may start with this byte */
};

/** Fill the tables once everything else is set. */
void stm_wordpiece_prepare(stm_wordpiece *tok);

#endif
