/*
 * Text to ids in one pass. Bytes go through a table of 128 (drop, space, punctuation, letter with its lower case);
 * everything past ASCII takes the long way, character by character. A finished word is hashed once, keeping the hash of
 * every prefix: if it is no token itself, the longest prefix that is one is found by going back from its end.
 */
#include "models/tokenizers/wordpiece.h"

#include "models/tokenizers/unicode.h"
#include "models/tokenizers/wordpiece_impl.h"

#define WORD_BYTES (4 * STM_WORDPIECE_WORD_MAX)

/* The word being gathered, and where ids go. */
typedef struct encode_state {
    const stm_wordpiece *tok;
    int32_t *ids;
    int32_t n, room;
    int32_t chars; /* of the word, kept or not */
    int32_t bytes; /* of the word, kept */
    int32_t fixed; /* of them, which no mark that follows goes in front of */
    char word[WORD_BYTES + 4];
} encode_state;

static inline void put(encode_state *s, int32_t id)
{
    if (s->n < s->room) s->ids[s->n++] = id;
}

/* Longest piece at the start of word[from ..]: its id and bytes, or -1. The caller has checked that something is left. */
static int32_t longest_piece(const encode_state *s, int32_t from, int32_t *bytes)
{
    const stm_vocabulary *v = &s->tok->vocabulary;
    const bool inside = from > 0;
    const char *text = s->word + from;
    int32_t left = s->bytes - from;
    uint64_t prefix[WORD_BYTES];
    uint64_t h = inside ? STM_VOCABULARY_INSIDE : STM_VOCABULARY_START;

    if ((size_t)left > v->longest[inside]) left = (int32_t)v->longest[inside];
    for (int32_t i = 0; i < left; i++) prefix[i] = h = stm_vocabulary_hash(h, (uint8_t)text[i]);
    for (int32_t n = left; n > 0; n--) {
        if (from + n < s->bytes && ((uint8_t)text[n] & 0xc0) == 0x80) continue; /* inside a character */
        const int32_t id = stm_vocabulary_find(v, prefix[n - 1], text, (size_t)n, inside);
        if (id >= 0) {
            *bytes = n;
            return id;
        }
    }
    return -1;
}

static void end_word(encode_state *s)
{
    const int32_t start = s->n, chars = s->chars;
    int32_t at = 0, used = 0;

    s->chars = 0;
    if (chars == 0) return;
    if (chars > s->tok->word_max) {
        put(s, s->tok->unknown);
    } else {
        while (at < s->bytes) {
            const int32_t id = longest_piece(s, at, &used);
            if (id < 0) { /* one piece unknown: the whole word is */
                s->n = start;
                put(s, s->tok->unknown);
                break;
            }
            /* Past the room only one thing matters: whether a later piece makes the word unknown, which shows if its first
             * piece was still kept. */
            if (s->n == s->room && start == s->room) break;
            put(s, id);
            at += used;
        }
    }
    s->bytes = s->fixed = 0;
}

/* Characters with a combining class keep canonical order behind the one they belong to. */
static void sort_mark(encode_state *s, int32_t start, uint8_t class)
{
    char mark[4];
    const int32_t n = s->bytes - start;
    int32_t at = start;

    while (at > s->fixed) {
        int32_t before = at - 1;
        int64_t pos;
        while (before > 0 && ((uint8_t)s->word[before] & 0xc0) == 0x80) before--;
        pos = before;
        if (stm_char_class(stm_utf8_read(s->word, s->bytes, &pos)) <= class) break;
        at = before;
    }
    if (at == start) return;
    memcpy(mark, s->word + start, (size_t)n);
    memmove(s->word + at + n, s->word + at, (size_t)(start - at));
    memcpy(s->word + at, mark, (size_t)n);
}

static inline void add_char(encode_state *s, uint32_t c, bool sort)
{
    if (s->chars++ < s->tok->word_max) {
        const int32_t start = s->bytes;
        s->bytes += stm_utf8_write(c, s->word + s->bytes);
        if (sort && c >= 0x300) {
            const uint8_t class = stm_char_class(c);
            if (class != 0) sort_mark(s, start, class);
        }
    }
}

/* A character after cleaning: decomposed, stripped, lowered, and each result put in its place. */
static void add_parts(encode_state *s, uint32_t c)
{
    const stm_wordpiece *tok = s->tok;
    uint32_t parts[STM_CHAR_PARTS] = {c}, lower[2];
    const int n = tok->strip_accents ? stm_char_decompose(c, parts) : 1;

    for (int i = 0; i < n; i++) {
        if (tok->strip_accents && stm_char_is_accent(parts[i])) {
            if (stm_char_class(parts[i]) == 0) s->fixed = s->bytes; /* order was made with it in place */
            continue;
        }
        const int m = tok->lowercase ? stm_char_lower(parts[i], lower) : (lower[0] = parts[i], 1);
        for (int j = 0; j < m; j++) {
            if (stm_char_is_space(lower[j])) {
                end_word(s);
            } else if (stm_char_is_punctuation(lower[j])) {
                end_word(s);
                add_char(s, lower[j], false);
                end_word(s);
            } else {
                add_char(s, lower[j], tok->strip_accents);
            }
        }
    }
}

static void add_any(encode_state *s, uint32_t c)
{
    const stm_wordpiece *tok = s->tok;

    if (tok->clean && stm_char_is_control(c)) return;
    if (tok->split_cjk && stm_char_is_cjk(c)) {
        end_word(s);
        add_parts(s, c);
        end_word(s);
    } else {
        add_parts(s, c);
    }
}

static bool word_before(const char *text, int64_t at)
{
    int64_t pos = at - 1;

    if (at == 0) return false;
    while (pos > 0 && at - pos < 4 && ((uint8_t)text[pos] & 0xc0) == 0x80) pos--;
    return stm_char_is_word(stm_utf8_read(text, at, &pos));
}

static bool word_after(const char *text, int64_t bytes, int64_t at)
{
    return at < bytes && stm_char_is_word(stm_utf8_read(text, bytes, &at));
}

/* The special token at text[at], if one stands there. *blocked: up to where none is looked for, because one that may only
 * stand alone was found but does not. */
static const special_token *special_at(const stm_wordpiece *tok, const char *text, int64_t bytes, int64_t at, int64_t *blocked)
{
    if (at < *blocked) return NULL;
    for (size_t i = 0; i < tok->n_specials; i++) {
        const special_token *t = &tok->specials[i];
        if ((int64_t)t->bytes > bytes - at || memcmp(text + at, t->text, t->bytes) != 0) continue;
        const int64_t end = at + (int64_t)t->bytes;
        if (!t->single_word || (!word_before(text, at) && !word_after(text, bytes, end))) return t;
        *blocked = end;
        return NULL;
    }
    return NULL;
}

static void encode_text(encode_state *s, const char *text, int64_t bytes)
{
    const stm_wordpiece *tok = s->tok;
    int64_t at = 0, blocked = 0;

    while (at < bytes && s->n < s->room) {
        const uint8_t b = (uint8_t)text[at];
        if (tok->starts_special[b]) {
            const special_token *t = special_at(tok, text, bytes, at, &blocked);
            if (t != NULL) {
                end_word(s);
                put(s, t->id);
                at += (int64_t)t->bytes;
                continue;
            }
        }
        if (b >= 0x80) {
            add_any(s, stm_utf8_read(text, bytes, &at));
            continue;
        }
        switch (tok->kind[b]) {
        case BYTE_WORD:
            if (s->chars++ < tok->word_max) s->word[s->bytes++] = (char)tok->lower[b];
            break;
        case BYTE_SPACE: end_word(s); break;
        case BYTE_PUNCTUATION:
            end_word(s);
            s->chars = 1, s->bytes = 1, s->word[0] = (char)b;
            end_word(s);
            break;
        default: break; /* BYTE_DROP */
        }
        at++;
    }
}

int32_t stm_wordpiece_encode(const stm_wordpiece *tok, const char *text, int64_t bytes, int32_t max, int32_t *ids)
{
    const stm_wordpiece_info *info = &tok->info;
    encode_state s; /* word is written before it is read */

    s.tok = tok, s.ids = ids + info->n_before, s.n = 0, s.room = max - info->n_before - info->n_after;
    s.chars = s.bytes = s.fixed = 0;
    memcpy(ids, tok->before, (size_t)info->n_before * sizeof *ids);
    if (tok->prompt != NULL) encode_text(&s, tok->prompt, (int64_t)tok->prompt_bytes);
    encode_text(&s, text, bytes);
    end_word(&s);
    memcpy(s.ids + s.n, tok->after, (size_t)info->n_after * sizeof *ids);
    return info->n_before + s.n + info->n_after;
}

int32_t stm_wordpiece_find(const stm_wordpiece *tok, const char *token)
{
    uint64_t h = STM_VOCABULARY_START;
    const size_t n = strlen(token);

    for (size_t i = 0; i < n; i++) h = stm_vocabulary_hash(h, (uint8_t)token[i]);
    return stm_vocabulary_find(&tok->vocabulary, h, token, n, false);
}

stm_wordpiece_info stm_wordpiece_info_of(const stm_wordpiece *tok) { return tok->info; }

void stm_wordpiece_prepare(stm_wordpiece *tok)
{
    for (uint32_t c = 0; c < 128; c++) {
        tok->lower[c] = (uint8_t)(tok->lowercase && c >= 'A' && c <= 'Z' ? c + 32 : c);
        if (tok->clean && stm_char_is_control(c))
            tok->kind[c] = BYTE_DROP;
        else if (stm_char_is_space(c))
            tok->kind[c] = BYTE_SPACE;
        else
            tok->kind[c] = stm_char_is_punctuation(c) ? BYTE_PUNCTUATION : BYTE_WORD;
    }
    for (size_t i = 0; i < tok->n_specials; i++) tok->starts_special[(uint8_t)tok->specials[i].text[0]] = true;
}
