/*
 * What the BERT family's tokenizers do to a character, exactly as Hugging Face's `tokenizers` 0.23 does it (the reference
 * of every published vocabulary), on top of utf8proc. That library mixes Unicode versions: categories of version 8,
 * decompositions and case of later ones; the differences from utf8proc's version are tables in unicode.c.
 * tests/unit/tokenizers compares all 1,112,064 code points.
 */
#ifndef STM_TOKENIZERS_UNICODE_H
#define STM_TOKENIZERS_UNICODE_H

#include <stdbool.h>
#include <stdint.h>

#define STM_CHAR_PARTS 8 /* most characters one becomes */

bool stm_char_is_space(uint32_t c);
bool stm_char_is_control(uint32_t c);     /* removed by clean_text */
bool stm_char_is_punctuation(uint32_t c); /* a word of its own */
bool stm_char_is_cjk(uint32_t c);         /* a word of its own, where handle_chinese_chars is set */
bool stm_char_is_accent(uint32_t c);      /* removed by strip_accents, after decomposition */
bool stm_char_is_word(uint32_t c);        /* \w of a regular expression */
uint8_t stm_char_class(uint32_t c);       /* canonical combining class */
/** Canonical decomposition of c into out[STM_CHAR_PARTS]; how many. */
int stm_char_decompose(uint32_t c, uint32_t *out);
/** Lower case of c into out[2]; how many. */
int stm_char_lower(uint32_t c, uint32_t *out);

/** The character at text[*at] of @p bytes bytes, and *at moved past it. A byte that starts no valid character gives
 *  U+FFFD and moves by one. */
uint32_t stm_utf8_read(const char *text, int64_t bytes, int64_t *at);
/** Write c to out[4]; bytes written. */
int stm_utf8_write(uint32_t c, char *out);

#endif
