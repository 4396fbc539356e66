/* Reading tokenizer.json, or vocab.txt with tokenizer_config.json. */
#include <stdio.h>
#include <stdlib.h>

#include "core/alloc.h"
#include "models/json.h"
#include "models/tokenizers/wordpiece_impl.h"
#include "models/weights/file.h"

#define ID_MAX (1 << 28) /* beyond it, a vocabulary is damaged */

typedef struct reader {
    stm_wordpiece *tok;
    const char *name;
    mill_error *err;
    mill_status status;
    bool seen_text;          /* template: the text has been met */
    stm_json_value specials; /* template: special_tokens */
} reader;

static bool bad(reader *r, mill_status status, const char *what, const char *which)
{
    r->status = mill_fail(r->err, status, "%s: %s%s", r->name, what, which);
    return false;
}

static bool no_memory(reader *r) { return bad(r, MILL_ERR_NOMEM, "no memory for its vocabulary", ""); }

/* A token as such, and, if it opens with the prefix, as a piece inside a word. */
static bool add_token(reader *r, const char *text, size_t bytes, int64_t id)
{
    stm_wordpiece *tok = r->tok;

    if (id < 0 || id > ID_MAX) return bad(r, MILL_ERR_PARSE, "an id is out of range: ", text);
    if (bytes > UINT16_MAX) return bad(r, MILL_ERR_PARSE, "a token is longer than 65535 bytes", "");
    if (stm_vocabulary_add(&tok->vocabulary, text, bytes, false, (int32_t)id) != 0) return no_memory(r);
    if (bytes > tok->prefix_bytes && memcmp(text, tok->prefix, tok->prefix_bytes) == 0 &&
        stm_vocabulary_add(&tok->vocabulary, text + tok->prefix_bytes, bytes - tok->prefix_bytes, true, (int32_t)id) != 0)
        return no_memory(r);
    if (id >= tok->info.vocabulary) tok->info.vocabulary = (int32_t)id + 1;
    return true;
}

static bool read_token(void *user, const char *key, size_t key_bytes, stm_json_value v)
{
    return add_token(user, key, key_bytes, stm_json_int(v, -1));
}

static bool add_special(reader *r, const char *text, size_t bytes, int64_t id, bool single_word)
{
    stm_wordpiece *tok = r->tok;
    char *copy;

    if (bytes == 0) return true; /* the reference ignores it */
    if (id < 0 || id > ID_MAX) return bad(r, MILL_ERR_PARSE, "an added token's id is out of range: ", text);
    if (stm_grow(&tok->specials, &tok->specials_cap, tok->n_specials + 1, sizeof *tok->specials) != 0 ||
        (copy = stm_strndup(text, bytes)) == NULL)
        return no_memory(r);
    tok->specials[tok->n_specials++] = (special_token){copy, bytes, (int32_t)id, single_word};
    if (id >= tok->info.vocabulary) tok->info.vocabulary = (int32_t)id + 1;
    return true;
}

static bool read_added(void *user, const char *key, size_t key_bytes, stm_json_value v)
{
    reader *r = user;
    size_t bytes = 0;
    const char *text = stm_json_text(stm_json_get(v, "content"), &bytes);

    (void)key, (void)key_bytes;
    if (text == NULL) return bad(r, MILL_ERR_PARSE, "an added token has no content", "");
    if (stm_json_bool(stm_json_get(v, "normalized"), false)) /* it would be looked for in the normalized text */
        return bad(r, MILL_ERR_UNSUPPORTED, "added tokens with \"normalized\": true are not supported: ", text);
    return add_special(r, text, bytes, stm_json_int(stm_json_get(v, "id"), -1),
                       stm_json_bool(stm_json_get(v, "single_word"), false));
}

static bool add_around(reader *r, int64_t id)
{
    stm_wordpiece_info *info = &r->tok->info;
    int32_t *n = r->seen_text ? &info->n_after : &info->n_before;

    if (id < 0 || id > ID_MAX) return bad(r, MILL_ERR_PARSE, "the post_processor names an unknown special token", "");
    if (*n == STM_WORDPIECE_SPECIALS) return bad(r, MILL_ERR_UNSUPPORTED, "the post_processor adds too many tokens", "");
    (r->seen_text ? r->tok->after : r->tok->before)[(*n)++] = (int32_t)id;
    if (id >= info->vocabulary) info->vocabulary = (int32_t)id + 1; /* whoever reads an embedding relies on it */
    return true;
}

static bool add_around_visit(void *user, const char *key, size_t key_bytes, stm_json_value v)
{
    (void)key, (void)key_bytes;
    return add_around(user, stm_json_int(v, -1));
}

static bool read_template_piece(void *user, const char *key, size_t key_bytes, stm_json_value v)
{
    reader *r = user;
    const char *special = stm_json_text(stm_json_get(stm_json_get(v, "SpecialToken"), "id"), NULL);

    (void)key, (void)key_bytes;
    if (stm_json_kind_of(stm_json_get(v, "Sequence")) == STM_JSON_OBJECT) {
        if (r->seen_text) return bad(r, MILL_ERR_UNSUPPORTED, "the post_processor repeats the text", "");
        r->seen_text = true;
        return true;
    }
    if (special == NULL) return bad(r, MILL_ERR_PARSE, "the post_processor has a piece of unknown kind", "");
    const stm_json_value ids = stm_json_get(stm_json_get(r->specials, special), "ids");
    if (stm_json_kind_of(ids) != STM_JSON_ARRAY)
        return bad(r, MILL_ERR_PARSE, "the post_processor names an unknown special token: ", special);
    return stm_json_each(ids, add_around_visit, r);
}

static bool pair_id(stm_json_value pair, int64_t *id);
struct pair {
    int at;
    int64_t id;
};
static bool read_pair(void *user, const char *key, size_t key_bytes, stm_json_value v)
{
    struct pair *p = user;

    (void)key, (void)key_bytes;
    if (p->at++ == 1) p->id = stm_json_int(v, -1);
    return true;
}
static bool pair_id(stm_json_value pair, int64_t *id)
{
    struct pair p = {0, -1};

    stm_json_each(pair, read_pair, &p);
    *id = p.id;
    return p.id >= 0;
}

static bool read_post_processor(reader *r, stm_json_value post)
{
    const char *type = stm_json_text(stm_json_get(post, "type"), NULL);
    int64_t cls, sep;

    if (type == NULL) return true; /* null: nothing around the text */
    if (strcmp(type, "BertProcessing") == 0) {
        if (!pair_id(stm_json_get(post, "cls"), &cls) || !pair_id(stm_json_get(post, "sep"), &sep))
            return bad(r, MILL_ERR_PARSE, "BertProcessing lacks cls or sep", "");
        if (!add_around(r, cls)) return false;
        r->seen_text = true;
        return add_around(r, sep);
    }
    if (strcmp(type, "TemplateProcessing") != 0) return bad(r, MILL_ERR_UNSUPPORTED, "post_processor is not supported: ", type);
    r->specials = stm_json_get(post, "special_tokens");
    if (!stm_json_each(stm_json_get(post, "single"), read_template_piece, r)) return false;
    return r->seen_text || bad(r, MILL_ERR_PARSE, "the post_processor has no place for the text", "");
}

static bool need_type(reader *r, stm_json_value v, const char *part, const char *type)
{
    const char *found = stm_json_text(stm_json_get(v, "type"), NULL);

    if (found != NULL && strcmp(found, type) == 0) return true;
    r->status = mill_fail(r->err, MILL_ERR_UNSUPPORTED, "%s: %s is %s; only %s is supported", r->name, part,
                          found != NULL ? found : "missing", type);
    return false;
}

static bool read_model(reader *r, stm_json_value model)
{
    stm_wordpiece *tok = r->tok;
    const char *prefix = stm_json_text(stm_json_get(model, "continuing_subword_prefix"), &tok->prefix_bytes);
    const int64_t word_max = stm_json_int(stm_json_get(model, "max_input_chars_per_word"), 100);
    const char *unknown = stm_json_text(stm_json_get(model, "unk_token"), NULL);

    if (word_max < 1 || word_max > STM_WORDPIECE_WORD_MAX)
        return bad(r, MILL_ERR_UNSUPPORTED, "max_input_chars_per_word must be 1 to 512", "");
    tok->word_max = (int32_t)word_max;
    if (prefix == NULL) prefix = "##", tok->prefix_bytes = 2;
    if ((tok->prefix = stm_strndup(prefix, tok->prefix_bytes)) == NULL) return no_memory(r);
    if (stm_json_kind_of(stm_json_get(model, "vocab")) != STM_JSON_OBJECT)
        return bad(r, MILL_ERR_PARSE, "the model has no vocab", "");
    if (!stm_json_each(stm_json_get(model, "vocab"), read_token, r)) return false;
    if (stm_vocabulary_index(&tok->vocabulary) != 0) return no_memory(r);
    if (unknown == NULL) unknown = "[UNK]";
    tok->unknown = stm_wordpiece_find(tok, unknown);
    return tok->unknown >= 0 || bad(r, MILL_ERR_PARSE, "the vocabulary lacks its unknown token ", unknown);
}

static int longest_first(const void *a, const void *b)
{
    const special_token *x = a, *y = b;

    return x->bytes > y->bytes ? -1 : x->bytes < y->bytes;
}

static mill_status finish(reader *r, bool ok, stm_wordpiece **out)
{
    if (ok) {
        if (r->tok->n_specials > 1) qsort(r->tok->specials, r->tok->n_specials, sizeof *r->tok->specials, longest_first);
        stm_wordpiece_prepare(r->tok);
        *out = r->tok;
        return MILL_OK;
    }
    stm_wordpiece_close(&r->tok);
    return r->status;
}

static bool read_json(reader *r, stm_json_value root)
{
    stm_wordpiece *tok = r->tok;
    const stm_json_value normalizer = stm_json_get(root, "normalizer"), model = stm_json_get(root, "model");
    const int64_t cut = stm_json_int(stm_json_get(stm_json_get(root, "truncation"), "max_length"), 0);

    /* Files of 2020 and before have a model without a type. */
    if (stm_json_kind_of(stm_json_get(model, "type")) != STM_JSON_NONE && !need_type(r, model, "the model", "WordPiece"))
        return false;
    if (!need_type(r, normalizer, "the normalizer", "BertNormalizer") ||
        !need_type(r, stm_json_get(root, "pre_tokenizer"), "the pre_tokenizer", "BertPreTokenizer"))
        return false;
    tok->clean = stm_json_bool(stm_json_get(normalizer, "clean_text"), true);
    tok->split_cjk = stm_json_bool(stm_json_get(normalizer, "handle_chinese_chars"), true);
    tok->lowercase = stm_json_bool(stm_json_get(normalizer, "lowercase"), true);
    tok->strip_accents = stm_json_bool(stm_json_get(normalizer, "strip_accents"), tok->lowercase);
    tok->info.max_tokens = cut > 0 && cut < INT32_MAX ? (int32_t)cut : 0;
    return read_model(r, model) && stm_json_each(stm_json_get(root, "added_tokens"), read_added, r) &&
           read_post_processor(r, stm_json_get(root, "post_processor"));
}

mill_status stm_wordpiece_from_json(const char *json, size_t bytes, const char *name, stm_wordpiece **out, mill_error *err)
{
    reader r = {.name = name, .err = err, .status = MILL_ERR_PARSE};
    stm_json *doc = NULL;
    mill_status status = stm_json_parse(json, bytes, name, &doc, err);

    if (status != MILL_OK) return status;
    if ((r.tok = stm_calloc(sizeof *r.tok)) == NULL)
        status = mill_fail(err, MILL_ERR_NOMEM, "no memory for a tokenizer");
    else
        status = finish(&r, read_json(&r, stm_json_root(doc)), out);
    stm_json_close(&doc);
    return status;
}

/* A special token of vocab.txt: its name may be set in the configuration, as text or as {content}. */
static bool named_token(reader *r, stm_json_value config, const char *key, const char *standard, int32_t *id)
{
    stm_json_value v = stm_json_get(config, key);
    const char *text;
    size_t bytes = 0;

    if (stm_json_kind_of(v) == STM_JSON_OBJECT) v = stm_json_get(v, "content");
    text = stm_json_text(v, &bytes);
    if (text == NULL) text = standard, bytes = strlen(standard);
    *id = stm_wordpiece_find(r->tok, text);
    if (*id < 0) return bad(r, MILL_ERR_PARSE, "the vocabulary lacks the token ", text);
    return add_special(r, text, bytes, *id, false);
}

static bool read_lines(reader *r, const char *vocab, size_t bytes)
{
    int64_t id = 0;

    for (size_t at = 0; at < bytes; id++) {
        const char *end = memchr(vocab + at, '\n', bytes - at);
        const size_t next = end != NULL ? (size_t)(end - vocab) + 1 : bytes;
        size_t n = (end != NULL ? next - 1 : next) - at;
        if (n > 0 && vocab[at + n - 1] == '\r') n--;
        if (!add_token(r, vocab + at, n, id)) return false;
        at = next;
    }
    return stm_vocabulary_index(&r->tok->vocabulary) == 0 || no_memory(r);
}

static bool read_vocab(reader *r, const char *vocab, size_t bytes, stm_json_value config)
{
    stm_wordpiece *tok = r->tok;
    const double cut = stm_json_float(stm_json_get(config, "model_max_length"), 0.0); /* 1e30 stands for none */
    int32_t pad, mask;

    tok->clean = true, tok->word_max = 100, tok->prefix_bytes = 2;
    if ((tok->prefix = stm_strdup("##")) == NULL) return no_memory(r);
    tok->lowercase = stm_json_bool(stm_json_get(config, "do_lower_case"), true);
    tok->split_cjk = stm_json_bool(stm_json_get(config, "tokenize_chinese_chars"), true);
    tok->strip_accents = stm_json_bool(stm_json_get(config, "strip_accents"), tok->lowercase);
    tok->info.max_tokens = cut >= 1 && cut < 1e6 ? (int32_t)cut : 0;
    if (!read_lines(r, vocab, bytes)) return false;
    if (!named_token(r, config, "unk_token", "[UNK]", &tok->unknown) || !named_token(r, config, "pad_token", "[PAD]", &pad) ||
        !named_token(r, config, "mask_token", "[MASK]", &mask) || !named_token(r, config, "cls_token", "[CLS]", &tok->before[0]) ||
        !named_token(r, config, "sep_token", "[SEP]", &tok->after[0]))
        return false;
    tok->info.n_before = tok->info.n_after = 1;
    return true;
}

mill_status stm_wordpiece_from_vocab(const char *vocab, size_t bytes, const char *config, size_t config_bytes, const char *name,
                                     stm_wordpiece **out, mill_error *err)
{
    reader r = {.name = name, .err = err, .status = MILL_ERR_PARSE};
    stm_json_value root = {0};
    stm_json *doc = NULL;
    mill_status status;

    if (config != NULL) {
        if ((status = stm_json_parse(config, config_bytes, "tokenizer_config.json", &doc, err)) != MILL_OK) return status;
        root = stm_json_root(doc);
    }
    if ((r.tok = stm_calloc(sizeof *r.tok)) == NULL)
        status = mill_fail(err, MILL_ERR_NOMEM, "no memory for a tokenizer");
    else
        status = finish(&r, read_vocab(&r, vocab, bytes, root), out);
    stm_json_close(&doc);
    return status;
}

mill_status stm_wordpiece_open(const char *dir, stm_wordpiece **out, mill_error *err)
{
    char path[4096];
    stm_file file = {0}, config = {0};
    mill_status status;

    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    status = stm_file_map(path, &file, true, err);
    if (status == MILL_OK) {
        status = stm_wordpiece_from_json(file.data, file.bytes, path, out, err);
        stm_file_unmap(&file);
        return status;
    }
    if (status != MILL_ERR_NOT_FOUND) return status;
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    status = stm_file_map(path, &config, true, err);
    if (status != MILL_OK && status != MILL_ERR_NOT_FOUND) return status;
    snprintf(path, sizeof path, "%s/vocab.txt", dir);
    status = stm_file_map(path, &file, true, err);
    if (status == MILL_OK)
        status = stm_wordpiece_from_vocab(file.data, file.bytes, config.data, config.bytes, path, out, err);
    else if (status == MILL_ERR_NOT_FOUND)
        status = mill_fail(err, MILL_ERR_NOT_FOUND, "%s has neither tokenizer.json nor vocab.txt", dir);
    stm_file_unmap(&file);
    stm_file_unmap(&config);
    return status;
}

void stm_wordpiece_close(stm_wordpiece **tok)
{
    if (*tok == NULL) return;
    for (size_t i = 0; i < (*tok)->n_specials; i++) stm_free((char *)(*tok)->specials[i].text);
    stm_free((*tok)->specials);
    stm_vocabulary_fini(&(*tok)->vocabulary);
    stm_free((*tok)->prefix);
    stm_free(*tok);
    *tok = NULL;
}
