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
    bool seen_text; /* template: the text has been met */
    bool seen_normalizer;
    bool lower_first;                            /* before anything else, and besides */
    enum { STRIP_AS_CASE, STRIP, KEEP } accents; /* as case: stripped where letters are made small */
    stm_json_value specials;                     /* template: special_tokens */
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
        r->tok->strip_accents = r->accents == STRIP_AS_CASE ? r->tok->lowercase : r->accents == STRIP;
        r->tok->lowercase = r->tok->lowercase || r->lower_first; /* which leaves accents alone */
        if (r->tok->n_specials > 1) qsort(r->tok->specials, r->tok->n_specials, sizeof *r->tok->specials, longest_first);
        stm_wordpiece_prepare(r->tok);
        *out = r->tok;
        return MILL_OK;
    }
    stm_wordpiece_close(&r->tok);
    return r->status;
}

static int accents_of(stm_json_value v)
{
    return stm_json_kind_of(v) != STM_JSON_BOOL ? STRIP_AS_CASE : stm_json_bool(v, false) ? STRIP : KEEP;
}

static bool read_normalizer_of(reader *r, stm_json_value v)
{
    stm_wordpiece *tok = r->tok;

    if (!need_type(r, v, "the normalizer", "BertNormalizer")) return false;
    if (r->seen_normalizer) return bad(r, MILL_ERR_UNSUPPORTED, "it has more than one normalizer", "");
    r->seen_normalizer = true;
    tok->clean = stm_json_bool(stm_json_get(v, "clean_text"), true);
    tok->split_cjk = stm_json_bool(stm_json_get(v, "handle_chinese_chars"), true);
    tok->lowercase = stm_json_bool(stm_json_get(v, "lowercase"), true);
    r->accents = accents_of(stm_json_get(v, "strip_accents"));
    return true;
}

/* Lower case first is what sentence-transformers saves of a model that asks for it beside its tokenizer. */
static bool read_normalizer_item(void *user, const char *key, size_t key_bytes, stm_json_value v)
{
    reader *r = user;
    const char *type = stm_json_text(stm_json_get(v, "type"), NULL);

    (void)key, (void)key_bytes;
    if (type == NULL || strcmp(type, "Lowercase") != 0 || r->seen_normalizer) return read_normalizer_of(r, v);
    r->lower_first = true;
    return true;
}

static bool read_normalizer(reader *r, stm_json_value v)
{
    const char *type = stm_json_text(stm_json_get(v, "type"), NULL);

    if (type == NULL || strcmp(type, "Sequence") != 0) return read_normalizer_of(r, v);
    if (!stm_json_each(stm_json_get(v, "normalizers"), read_normalizer_item, r)) return false;
    return r->seen_normalizer || read_normalizer_of(r, (stm_json_value){0});
}

/* tokenizer_config.json. Tokenizers of BERT's class go by it whatever tokenizer.json says, those of the general class by
 * tokenizer.json. */
static bool read_config(reader *r, stm_json_value config)
{
    static const char *const general[] = {"PreTrainedTokenizerFast", "TokenizersBackend"};
    stm_wordpiece *tok = r->tok;
    const char *class = stm_json_text(stm_json_get(config, "tokenizer_class"), NULL);
    const char *side = stm_json_text(stm_json_get(config, "truncation_side"), NULL);
    const stm_json_value lower = stm_json_get(config, "do_lower_case"), strip = stm_json_get(config, "strip_accents");

    if (side != NULL && strcmp(side, "right") != 0)
        return bad(r, MILL_ERR_UNSUPPORTED, "texts can be cut at their end only, but tokenizer_config.json has truncation_side ",
                   side);
    for (size_t i = 0; i < sizeof general / sizeof *general; i++)
        if (class != NULL && strcmp(class, general[i]) == 0) return true;
    if (stm_json_kind_of(lower) == STM_JSON_BOOL) {
        tok->lowercase = stm_json_bool(lower, true);
        r->lower_first = false;
    }
    tok->split_cjk = stm_json_bool(stm_json_get(config, "tokenize_chinese_chars"), tok->split_cjk);
    if (stm_json_kind_of(strip) != STM_JSON_NONE) r->accents = accents_of(strip);
    return true;
}

static bool read_json(reader *r, stm_json_value root, stm_json_value config)
{
    stm_wordpiece *tok = r->tok;
    const stm_json_value truncation = stm_json_get(root, "truncation"), model = stm_json_get(root, "model");
    const int64_t cut = stm_json_int(stm_json_get(truncation, "max_length"), 0);

    /* Files of 2020 and before have a model without a type. */
    if (stm_json_kind_of(stm_json_get(model, "type")) != STM_JSON_NONE && !need_type(r, model, "the model", "WordPiece"))
        return false;
    if (!read_normalizer(r, stm_json_get(root, "normalizer")) ||
        !need_type(r, stm_json_get(root, "pre_tokenizer"), "the pre_tokenizer", "BertPreTokenizer"))
        return false;
    if (!read_config(r, config)) return false;
    tok->info.max_tokens = cut > 0 && cut < INT32_MAX ? (int32_t)cut : 0;
    return read_model(r, model) && stm_json_each(stm_json_get(root, "added_tokens"), read_added, r) &&
           read_post_processor(r, stm_json_get(root, "post_processor"));
}

/* A special token of vocab.txt: its name may be set in the configuration, as text or as {content}. @p id is NULL for one that can
 * be done without. */
static bool named_token(reader *r, stm_json_value config, const char *key, const char *standard, int32_t *id)
{
    int32_t found;
    stm_json_value v = stm_json_get(config, key);
    const char *text;
    size_t bytes = 0;

    if (stm_json_kind_of(v) == STM_JSON_OBJECT) v = stm_json_get(v, "content");
    text = stm_json_text(v, &bytes);
    if (text == NULL) text = standard, bytes = strlen(standard);
    found = stm_wordpiece_find(r->tok, text);
    if (found < 0) return id == NULL || bad(r, MILL_ERR_PARSE, "the vocabulary lacks the token ", text);
    if (id != NULL) *id = found;
    return add_special(r, text, bytes, found, false);
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

    tok->clean = tok->lowercase = tok->split_cjk = true, tok->word_max = 100, tok->prefix_bytes = 2;
    if ((tok->prefix = stm_strdup("##")) == NULL) return no_memory(r);
    if (!read_config(r, config)) return false;
    tok->info.max_tokens = cut >= 1 && cut < 1e6 ? (int32_t)cut : 0;
    if (!read_lines(r, vocab, bytes)) return false;
    if (!named_token(r, config, "unk_token", "[UNK]", &tok->unknown) || !named_token(r, config, "pad_token", "[PAD]", NULL) ||
        !named_token(r, config, "mask_token", "[MASK]", NULL) || !named_token(r, config, "cls_token", "[CLS]", &tok->before[0]) ||
        !named_token(r, config, "sep_token", "[SEP]", &tok->after[0]))
        return false;
    tok->info.n_before = tok->info.n_after = 1;
    return true;
}

/* Both forms, once the configuration has been parsed. */
static mill_status build(reader *r, const char *file, size_t bytes, bool json, stm_json_value config, stm_wordpiece **out)
{
    stm_json *doc = NULL;
    mill_status st = json ? stm_json_parse(file, bytes, r->name, &doc, r->err) : MILL_OK;

    if (st != MILL_OK) return st;
    if ((r->tok = stm_calloc(sizeof *r->tok)) == NULL)
        st = mill_fail(r->err, MILL_ERR_NOMEM, "no memory for a tokenizer");
    else
        st = finish(r, json ? read_json(r, stm_json_root(doc), config) : read_vocab(r, file, bytes, config), out);
    stm_json_close(&doc);
    return st;
}

static mill_status from_bytes(const char *file, size_t bytes, bool json, const char *config, size_t config_bytes, const char *name,
                              stm_wordpiece **out, mill_error *err)
{
    reader r = {.name = name, .err = err, .status = MILL_ERR_PARSE};
    stm_json_value root = {0};
    stm_json *doc = NULL;
    mill_status st;

    if (config != NULL) {
        if ((st = stm_json_parse(config, config_bytes, "tokenizer_config.json", &doc, err)) != MILL_OK) return st;
        root = stm_json_root(doc);
    }
    st = build(&r, file, bytes, json, root, out);
    stm_json_close(&doc);
    return st;
}

mill_status stm_wordpiece_from_json(const char *json, size_t bytes, const char *config, size_t config_bytes, const char *name,
                                    stm_wordpiece **out, mill_error *err)
{
    return from_bytes(json, bytes, true, config, config_bytes, name, out, err);
}

mill_status stm_wordpiece_from_vocab(const char *vocab, size_t bytes, const char *config, size_t config_bytes, const char *name,
                                     stm_wordpiece **out, mill_error *err)
{
    return from_bytes(vocab, bytes, false, config, config_bytes, name, out, err);
}

/* What sentence-transformers does to a text before its tokenizer gets it: lower case, and a prompt in front. */
static mill_status read_beside(const char *dir, stm_wordpiece *tok, mill_error *err)
{
    char path[4096];
    stm_json *doc = NULL;
    mill_status st;

    snprintf(path, sizeof path, "%s/sentence_bert_config.json", dir);
    if ((st = stm_json_open(path, true, &doc, err)) == MILL_OK) {
        tok->lowercase = tok->lowercase || stm_json_bool(stm_json_get(stm_json_root(doc), "do_lower_case"), false);
        stm_wordpiece_prepare(tok);
        stm_json_close(&doc);
    }
    if (st != MILL_OK && st != MILL_ERR_NOT_FOUND) return st;
    snprintf(path, sizeof path, "%s/config_sentence_transformers.json", dir);
    if ((st = stm_json_open(path, true, &doc, err)) == MILL_OK) {
        const stm_json_value root = stm_json_root(doc);
        const char *name = stm_json_text(stm_json_get(root, "default_prompt_name"), NULL);
        const char *prompt =
            name == NULL ? NULL : stm_json_text(stm_json_get(stm_json_get(root, "prompts"), name), &tok->prompt_bytes);
        if (prompt != NULL && (tok->prompt = stm_strndup(prompt, tok->prompt_bytes)) == NULL)
            st = mill_fail(err, MILL_ERR_NOMEM, "no memory for the prompt of a model");
        stm_json_close(&doc);
    }
    return st == MILL_ERR_NOT_FOUND ? MILL_OK : st;
}

mill_status stm_wordpiece_open(const char *dir, stm_wordpiece **out, mill_error *err)
{
    char path[4096];
    stm_file file = {0}, config = {0};
    stm_wordpiece *tok = NULL;
    mill_status st;

    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    st = stm_file_map(path, &config, true, err);
    if (st != MILL_OK && st != MILL_ERR_NOT_FOUND) return st;
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    st = stm_file_map(path, &file, true, err);
    const bool json = st == MILL_OK;
    if (st == MILL_ERR_NOT_FOUND) {
        snprintf(path, sizeof path, "%s/vocab.txt", dir);
        st = stm_file_map(path, &file, true, err);
    }
    if (st == MILL_OK)
        st = from_bytes(file.data, file.bytes, json, config.data, config.bytes, path, &tok, err);
    else if (st == MILL_ERR_NOT_FOUND)
        st = mill_fail(err, MILL_ERR_NOT_FOUND, "%s has neither tokenizer.json nor vocab.txt", dir);
    stm_file_unmap(&file);
    stm_file_unmap(&config);
    if (st == MILL_OK) st = read_beside(dir, tok, err);
    if (st != MILL_OK)
        stm_wordpiece_close(&tok);
    else
        *out = tok;
    return st;
}

void stm_wordpiece_close(stm_wordpiece **tok)
{
    if (*tok == NULL) return;
    for (size_t i = 0; i < (*tok)->n_specials; i++) stm_free((char *)(*tok)->specials[i].text);
    stm_free((*tok)->specials);
    stm_vocabulary_fini(&(*tok)->vocabulary);
    stm_free((*tok)->prefix);
    stm_free((*tok)->prompt);
    stm_free(*tok);
    *tok = NULL;
}
