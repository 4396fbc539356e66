/*
 * The WordPiece tokenizer of the BERT family: text to ids, equal to Hugging Face's `tokenizers` for the same files.
 * clean, split CJK, strip accents, lower case; words at spaces and punctuation; longest matches from the vocabulary.
 */
#ifndef STM_TOKENIZERS_WORDPIECE_H
#define STM_TOKENIZERS_WORDPIECE_H

#include <stdbool.h>
#include <stdint.h>

#include "stepmill/error.h"

#define STM_WORDPIECE_SPECIALS 4   /* most ids put before, and after, a text */
#define STM_WORDPIECE_WORD_MAX 512 /* largest max_input_chars_per_word */

/** Read only once made; shared by threads. */
typedef struct stm_wordpiece stm_wordpiece;

typedef struct stm_wordpiece_info {
    int32_t vocabulary;        /* largest id + 1 */
    int32_t n_before, n_after; /* ids put around a text */
    int32_t max_tokens;        /* what the files say a text is cut to, with the ids around it; 0 = nothing */
} stm_wordpiece_info;

/** Read tokenizer.json, or else vocab.txt, with tokenizer_config.json, of the model folder @p dir, and what sentence-transformers
 *  does to texts before: lower case (sentence_bert_config.json) and the default prompt (config_sentence_transformers.json).
 *  MILL_ERR_UNSUPPORTED for another kind of tokenizer, naming it. */
mill_status stm_wordpiece_open(const char *dir, stm_wordpiece **out, mill_error *err);
/** From bytes; @p name stands in messages. @p config, that of tokenizer_config.json, may be NULL. */
mill_status stm_wordpiece_from_json(const char *json, size_t bytes, const char *config, size_t config_bytes, const char *name,
                                    stm_wordpiece **out, mill_error *err);
mill_status stm_wordpiece_from_vocab(const char *vocab, size_t bytes, const char *config, size_t config_bytes, const char *name,
                                     stm_wordpiece **out, mill_error *err);
void stm_wordpiece_close(stm_wordpiece **tok);
stm_wordpiece_info stm_wordpiece_info_of(const stm_wordpiece *tok);
/**
 * Ids of @p text (UTF-8; malformed bytes count as U+FFFD) with those before and after it, cut to @p max ids by dropping the
 * text's end, into ids[max]. Returns how many. @p max >= n_before + n_after. Reads no further than needed once cut.
 * Threads: any. Allocates nothing.
 */
int32_t stm_wordpiece_encode(const stm_wordpiece *tok, const char *text, int64_t bytes, int32_t max, int32_t *ids);
/** Id of a token as written in the vocabulary; -1 = none. */
int32_t stm_wordpiece_find(const stm_wordpiece *tok, const char *token);

#endif
