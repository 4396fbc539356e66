#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "model_maker.h"
#include "support/fail_nth.h"

extern "C" {
#include "models/tokenizers/unicode.h"
#include "models/tokenizers/wordpiece.h"
}

namespace {

/* Digests of what Hugging Face's tokenizers 0.23 does to every code point, one per plane: is it removed or made a space by
 * cleaning (-, space, =), CJK (C), how a word is parted at it (S space, P punctuation, W not), what remains of it after
 * stripping accents, and its lower case. FNV-1a of "cleanCJKkindSTRIPPED|LOWER;" with code points in hexadecimal. */
const uint64_t kPlanes[17] = {
    0x934a15e7a29aec66, 0x31d2505af415c4e5, 0x63f67153c10a4c6b, 0x0e38bed321416c35, 0x5d1420c6e8d675b5, 0x54c2e0108cba3c35,
    0xe295a9de40ab0cd5, 0x805c30e8abb4a1d5, 0xe206a0028f49c1f5, 0x016f2d4c48dd2c75, 0x8236dfb7f9221cd5, 0x53e640ac227dbed5,
    0xa4936163c8473c95, 0xc71395623d8eb3b5, 0x0aced35bd68de027, 0x4f54cecbb10e6e75, 0xcf44d84dc91aa835,
};

TEST(Unicode, EveryCodePointAsTheReference)
{
    for (uint32_t plane = 0; plane < 17; plane++) {
        uint64_t h = 0xcbf29ce484222325;
        for (uint32_t c = plane << 16; c < (plane + 1) << 16; c++) {
            if (c >= 0xd800 && c < 0xe000) continue;
            uint32_t parts[STM_CHAR_PARTS], lower[2];
            char hex[16];
            std::string s;
            s += stm_char_is_control(c) ? '-' : stm_char_is_space(c) ? ' ' : '=';
            s += stm_char_is_cjk(c) ? 'C' : '.';
            s += stm_char_is_space(c) ? 'S' : stm_char_is_punctuation(c) ? 'P' : 'W';
            bool first = true;
            for (int i = 0, n = stm_char_decompose(c, parts); i < n; i++) {
                if (stm_char_is_accent(parts[i])) continue;
                snprintf(hex, sizeof hex, first ? "%x" : " %x", parts[i]);
                s += hex, first = false;
            }
            s += '|';
            for (int i = 0, n = stm_char_lower(c, lower); i < n; i++) {
                snprintf(hex, sizeof hex, i == 0 ? "%x" : " %x", lower[i]);
                s += hex;
            }
            s += ';';
            for (char b : s) h = (h ^ uint8_t(b)) * 0x100000001b3;
        }
        EXPECT_EQ(h, kPlanes[plane]) << "plane " << plane;
    }
}

/* The combining class of every character that is not taken apart, as "code point class;" where it has one, both read off from how
 * the reference orders each beside marks of known class. */
TEST(Unicode, EveryMarkHasItsPlaceAsInTheReference)
{
    uint64_t h = 0xcbf29ce484222325;
    int marks = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        uint32_t parts[STM_CHAR_PARTS];
        if ((c >= 0xd800 && c < 0xe000) || stm_char_class(c) == 0 || stm_char_decompose(c, parts) != 1 || parts[0] != c) continue;
        char text[24];
        snprintf(text, sizeof text, "%x %d;", c, stm_char_class(c));
        for (const char *b = text; *b != 0; b++) h = (h ^ uint8_t(*b)) * 0x100000001b3;
        marks++;
    }
    EXPECT_EQ(marks, 810);
    EXPECT_EQ(h, 0xb8b6737a273e8a63u);
}

TEST(Unicode, Utf8RoundTripAndMalformedBytes)
{
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xd800 && c < 0xe000) continue;
        char bytes[4];
        const int n = stm_utf8_write(c, bytes);
        int64_t at = 0;
        ASSERT_EQ(stm_utf8_read(bytes, n, &at), c);
        ASSERT_EQ(at, n);
        for (int cut = 1; cut < n; cut++) { /* cut short: one byte at a time */
            at = 0;
            ASSERT_EQ(stm_utf8_read(bytes, cut, &at), 0xfffdu);
            ASSERT_EQ(at, 1);
        }
    }
    for (const char *bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80",
                            "\xf8\x88\x80\x80", "\xff", "\xe2\x28\xa1"}) {
        int64_t at = 0;
        EXPECT_EQ(stm_utf8_read(bad, int64_t(strlen(bad)), &at), 0xfffdu);
        EXPECT_EQ(at, 1);
    }
}

const char *const kVocab[] = {"[PAD]", "[UNK]",    "[CLS]", "[SEP]", "[MASK]",   "un",  "##aff", "##able",    "##ab",
                              "a",     "##a",      "b",     "##b",   "word",     "##s", "!",     "-",         "\xe6\xb0\xb4",
                              "e",     "\xc3\xa9", "A",     "##ff",  "\xce\xb1", "[X]", "caf",   "##\xc3\xa9"};

std::string vocab_text(const char *newline = "\n")
{
    std::string t;
    for (const char *v : kVocab) t += std::string(v) + newline;
    return t;
}

std::vector<std::string> names(const std::vector<int32_t> &ids)
{
    std::vector<std::string> out;
    for (int32_t id : ids) out.push_back(id >= 0 && size_t(id) < sizeof kVocab / sizeof *kVocab ? kVocab[id] : "?");
    return out;
}

struct Tok {
    stm_wordpiece *tok = nullptr;
    explicit Tok(const std::string &config = "", const std::string &vocab = vocab_text())
    {
        mill_error err = {};
        EXPECT_EQ(stm_wordpiece_from_vocab(vocab.data(), vocab.size(), config.empty() ? nullptr : config.data(), config.size(),
                                           "test", &tok, &err),
                  MILL_OK)
            << err.msg;
    }
    ~Tok() { stm_wordpiece_close(&tok); }
    Tok(const Tok &) = delete;
    Tok &operator=(const Tok &) = delete;
    std::vector<std::string> operator()(const std::string &text, int32_t max = 100)
    {
        std::vector<int32_t> ids(size_t(max) + 1, -9);
        const int32_t n = stm_wordpiece_encode(tok, text.data(), int64_t(text.size()), max, ids.data());
        EXPECT_LE(n, max);
        EXPECT_EQ(ids[size_t(max)], -9) << "written past the room";
        ids.resize(size_t(n));
        return names(ids);
    }
};
using Names = std::vector<std::string>;

TEST(WordPiece, LongestPiecesFirst)
{
    Tok t;
    const struct {
        const char *name, *text;
        Names want;
    } table[] = {
        {"empty", "", {}},
        {"spaces", " \t\n\r ", {}},
        {"pieces", "unaffable", {"un", "##aff", "##able"}},
        {"back_off", "unab", {"un", "##ab"}},
        {"unknown_at_the_end", "unaffz", {"[UNK]"}},
        {"unknown_at_the_start", "zun", {"[UNK]"}},
        {"lower_case", "UnAFFable WORD", {"un", "##aff", "##able", "word"}},
        {"punctuation", "word!-a!!", {"word", "!", "-", "a", "!", "!"}},
        {"cjk", "a\xe6\xb0\xb4word", {"a", "\xe6\xb0\xb4", "word"}},
        {"accent", "\xc3\xa9 e\xcc\x81 \xc3\x89", {"e", "e", "e"}},
        {"greek", "\xce\x91", {"\xce\xb1"}},
        {"control", "wo\x01rd\xe2\x80\x8b a\xef\xbf\xbd", {"word", "a"}},
        {"malformed", "wo\xffrd \xe6\xb0", {"word"}},
        {"no_break_space",
         "word\xc2\xa0"
         "a",
         {"word", "a"}},
        {"special_in_text", "a[SEP]b [MASK]!", {"a", "[SEP]", "b", "[MASK]", "!"}},
        {"special_case_matters", "[sep]", {"[UNK]", "[UNK]", "[UNK]"}},
        {"special_cut_short", "[SE", {"[UNK]", "[UNK]"}},
        {"not_special", "[X]", {"[UNK]", "[UNK]", "[UNK]"}},
    };
    for (const auto &c : table) {
        Names want = {"[CLS]"};
        want.insert(want.end(), c.want.begin(), c.want.end());
        want.push_back("[SEP]");
        EXPECT_EQ(t(c.text), want) << c.name;
    }
}

/* Marks that are not taken away stand in canonical order: behind those of a smaller class, but never past a character without a
 * class, also one that is taken away, and of classes newer than the reference's where they were. Ids are lines of the
 * vocabulary. */
TEST(WordPiece, MarksInTheOrderOfTheReference)
{
    std::string vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
    const char *const marks[] = {"\xe3\x80\xae", "\xf0\x9d\x85\xad",
                                 "\xe0\xa2\x9b"}; /* U+302E of class 224, U+1D16D of 226, U+089B: 5 7 9, inside 6 8 10 */
    for (const char *m : marks) vocab += std::string(m) + "\n##" + m + "\n";
    const struct {
        const char *text;
        std::vector<int32_t> want;
    } table[] = {
        {"\xe3\x80\xae\xf0\x9d\x85\xad", {2, 5, 8, 3}},
        {"\xf0\x9d\x85\xad\xe3\x80\xae", {2, 5, 8, 3}},
        {"\xf0\x9d\x85\xad\xcd\x8f\xe3\x80\xae", {2, 7, 6, 3}},                     /* U+034F between them, of class 0 */
        {"\xf0\x9d\x85\xad\xcc\x81\xe3\x80\xae", {2, 5, 8, 3}},                     /* U+0301, of class 230 */
        {"\xe3\x80\xae\xe0\xa2\x9b", {2, 5, 10, 3}},                                /* class 220 in newer tables */
        {"\xf0\x9d\x85\xad\xcd\x8f \xf0\x9d\x85\xad\xe3\x80\xae", {2, 7, 5, 8, 3}}, /* the next word is free of it */
    };
    stm_wordpiece *tok = nullptr;
    ASSERT_EQ(stm_wordpiece_from_vocab(vocab.data(), vocab.size(), nullptr, 0, "test", &tok, nullptr), MILL_OK);
    for (const auto &c : table) {
        std::vector<int32_t> ids(20);
        ids.resize(size_t(stm_wordpiece_encode(tok, c.text, int64_t(strlen(c.text)), 20, ids.data())));
        EXPECT_EQ(ids, c.want) << &c - table;
    }
    stm_wordpiece_close(&tok);
}

TEST(WordPiece, CutsTheEndAway)
{
    Tok t;
    EXPECT_EQ(t("word word word", 4), (Names{"[CLS]", "word", "word", "[SEP]"}));
    EXPECT_EQ(t("unaffable", 4), (Names{"[CLS]", "un", "##aff", "[SEP]"}));
    EXPECT_EQ(t("unaffz", 4), (Names{"[CLS]", "[UNK]", "[SEP]"})) << "a piece past the cut makes the word unknown";
    EXPECT_EQ(t("a unaffz", 3), (Names{"[CLS]", "a", "[SEP]"}));
    EXPECT_EQ(t("word", 2), (Names{"[CLS]", "[SEP]"}));
    EXPECT_EQ(t(std::string(1 << 20, '!'), 5), (Names{"[CLS]", "!", "!", "!", "[SEP]"}));
}

TEST(WordPiece, WordsOfMoreThanAHundredCharactersAreUnknown)
{
    Tok t;
    std::string word = "a";
    for (int i = 1; i < 100; i++) word += "b";
    EXPECT_EQ(t(word, 200).size(), 102u);
    EXPECT_EQ(t(word + "b", 200), (Names{"[CLS]", "[UNK]", "[SEP]"}));
    EXPECT_EQ(t(std::string(100000, 'a') + " a", 200), (Names{"[CLS]", "[UNK]", "a", "[SEP]"}));
    std::string wide; /* characters, not bytes */
    for (int i = 0; i < 101; i++) wide += "\xce\xb1";
    EXPECT_EQ(t(wide, 200), (Names{"[CLS]", "[UNK]", "[SEP]"}));
}

TEST(WordPiece, ConfigurationOfVocabTxt)
{
    Tok cased("{\"do_lower_case\": false}"), keep("{\"strip_accents\": false}"), joined("{\"tokenize_chinese_chars\": false}"),
        other("{\"cls_token\": {\"content\": \"[X]\"}, \"model_max_length\": 77}"), crlf("", vocab_text("\r\n"));
    EXPECT_EQ(cased("A \xc3\xa9"), (Names{"[CLS]", "A", "\xc3\xa9", "[SEP]"})) << "case and accents stay";
    EXPECT_EQ(keep("CAF\xc3\x89"), (Names{"[CLS]", "caf", "##\xc3\xa9", "[SEP]"}));
    EXPECT_EQ(joined("\xe6\xb0\xb4\xe6\xb0\xb4"), (Names{"[CLS]", "[UNK]", "[SEP]"}));
    EXPECT_EQ(other("a"), (Names{"[X]", "a", "[SEP]"}));
    EXPECT_EQ(stm_wordpiece_info_of(other.tok).vocabulary, int32_t(sizeof kVocab / sizeof *kVocab));
    EXPECT_EQ(crlf("words"), (Names{"[CLS]", "word", "##s", "[SEP]"}));
    Tok bare("", "[UNK]\n[CLS]\n[SEP]\na\n"); /* nothing is padded or masked here */
    EXPECT_EQ(stm_wordpiece_info_of(bare.tok).vocabulary, 4);
    EXPECT_EQ(stm_wordpiece_find(other.tok, "##aff"), 6);
    EXPECT_EQ(stm_wordpiece_find(other.tok, "nothing"), -1);
}

std::string json_with(const std::string &added, const std::string &post, const std::string &model_extra = "")
{
    std::string vocab;
    for (size_t i = 0; i < sizeof kVocab / sizeof *kVocab; i++)
        vocab += (i ? ",\"" : "\"") + std::string(kVocab[i]) + "\":" + std::to_string(i);
    return "{\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,\"strip_accents\":null,"
           "\"lowercase\":true},"
           "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"added_tokens\":[" +
           added + "],\"post_processor\":" + post +
           ",\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\"" + model_extra +
           ",\"vocab\":{" + vocab + "}}}";
}
const std::string kBertPost = "{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",3],\"cls\":[\"[CLS]\",2]}";

TEST(WordPiece, TokenizerJson)
{
    const std::string text = json_with("{\"id\":4,\"content\":\"[MASK]\",\"single_word\":false,\"normalized\":false},"
                                       "{\"id\":23,\"content\":\"XY\",\"single_word\":true,\"normalized\":false},"
                                       "{\"id\":22,\"content\":\"XYZ\",\"single_word\":false,\"normalized\":false}",
                                       kBertPost);
    stm_wordpiece *tok = nullptr;
    mill_error err = {};
    ASSERT_EQ(stm_wordpiece_from_json(text.data(), text.size(), nullptr, 0, "test", &tok, &err), MILL_OK) << err.msg;
    auto run = [&](const std::string &s) {
        std::vector<int32_t> ids(50);
        ids.resize(size_t(stm_wordpiece_encode(tok, s.data(), int64_t(s.size()), 50, ids.data())));
        return ids;
    };
    EXPECT_EQ(run("a[MASK]b"), (std::vector<int32_t>{2, 9, 4, 11, 3}));
    EXPECT_EQ(run("XY a"), (std::vector<int32_t>{2, 23, 9, 3}));
    EXPECT_EQ(run("XYZ"), (std::vector<int32_t>{2, 22, 3})) << "the longer one";
    EXPECT_EQ(run("aXY"), (std::vector<int32_t>{2, 1, 3})) << "not alone";
    EXPECT_EQ(run("!XY!"), (std::vector<int32_t>{2, 15, 23, 15, 3}));
    stm_wordpiece_close(&tok);
    const std::string bare = json_with("", "null");
    ASSERT_EQ(stm_wordpiece_from_json(bare.data(), bare.size(), nullptr, 0, "test", &tok, &err), MILL_OK) << err.msg;
    EXPECT_EQ(run("a"), (std::vector<int32_t>{9}));
    EXPECT_EQ(run(""), (std::vector<int32_t>{}));
    stm_wordpiece_close(&tok);
    const std::string far = json_with("", "{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",3],\"cls\":[\"[CLS]\",999]}");
    ASSERT_EQ(stm_wordpiece_from_json(far.data(), far.size(), nullptr, 0, "test", &tok, &err), MILL_OK) << err.msg;
    EXPECT_EQ(stm_wordpiece_info_of(tok).vocabulary, 1000) << "ids around a text count, too";
    stm_wordpiece_close(&tok);
}

/* What a tokenizer does to case, accents and ideographs may stand in tokenizer.json, in tokenizer_config.json and beside them. */
TEST(WordPiece, ConfigurationBesideTokenizerJson)
{
    const std::string text = "A caf\xc3\xa9 \xe6\xb0\xb4\xe6\xb0\xb4"; /* A, caf + e with an accent, two ideographs */
    const Names small = {"a", "[UNK]", "\xe6\xb0\xb4", "\xe6\xb0\xb4"},
                kept = {"A", "caf", "##\xc3\xa9", "\xe6\xb0\xb4", "\xe6\xb0\xb4"},
                small_kept = {"a", "caf", "##\xc3\xa9", "\xe6\xb0\xb4", "\xe6\xb0\xb4"}, joined = {"a", "[UNK]", "[UNK]"};
    const std::string plain =
        "\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,\"strip_accents\":null,";
    const struct {
        const char *name;
        std::string normalizer;
        const char *config;
        Names want;
    } table[] = {
        {"json alone", "{" + plain + "\"lowercase\":true}", nullptr, small},
        {"json alone, cased", "{" + plain + "\"lowercase\":false}", nullptr, kept},
        {"the configuration wins", "{" + plain + "\"lowercase\":true}",
         "{\"do_lower_case\":false,\"tokenizer_class\":\"BertTokenizer\"}", kept},
        {"without a class, too", "{" + plain + "\"lowercase\":false}", "{\"do_lower_case\":true}", small},
        {"accents of the configuration", "{" + plain + "\"lowercase\":true}", "{\"strip_accents\":false}", small_kept},
        {"ideographs of the configuration", "{" + plain + "\"lowercase\":true}", "{\"tokenize_chinese_chars\":false}", joined},
        {"it says nothing", "{" + plain + "\"lowercase\":false}", "{\"model_max_length\":512}", kept},
        {"the general class", "{" + plain + "\"lowercase\":true}",
         "{\"do_lower_case\":false,\"tokenizer_class\":\"PreTrainedTokenizerFast\"}", small},
        {"a list of one", "{\"type\":\"Sequence\",\"normalizers\":[{" + plain + "\"lowercase\":true}]}", nullptr, small},
        {"lower case first",
         "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"},{" + plain + "\"lowercase\":false}]}", nullptr,
         small_kept},
        {"lower case first, which the configuration does not know",
         "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"},{" + plain + "\"lowercase\":false}]}",
         "{\"do_lower_case\":false,\"tokenizer_class\":\"BertTokenizer\"}", kept},
    };
    const std::string good = json_with("", kBertPost), marker = "\"normalizer\":";
    for (const auto &c : table) {
        const size_t at = good.find(marker) + marker.size(), end = good.find('}', at) + 1;
        std::string json = good;
        json.replace(at, end - at, c.normalizer);
        stm_wordpiece *tok = nullptr;
        mill_error err = {};
        ASSERT_EQ(stm_wordpiece_from_json(json.data(), json.size(), c.config, c.config != nullptr ? strlen(c.config) : 0, "test",
                                          &tok, &err),
                  MILL_OK)
            << c.name << ": " << err.msg;
        std::vector<int32_t> ids(50);
        ids.resize(size_t(stm_wordpiece_encode(tok, text.data(), int64_t(text.size()), 50, ids.data())));
        Names want = {"[CLS]"};
        want.insert(want.end(), c.want.begin(), c.want.end());
        want.push_back("[SEP]");
        EXPECT_EQ(names(ids), want) << c.name;
        stm_wordpiece_close(&tok);
    }
}

TEST(WordPiece, CutsAtTheEndOnly)
{
    const std::string json = json_with("", kBertPost), vocab = vocab_text(), left = "{\"truncation_side\": \"left\"}",
                      right = "{\"truncation_side\": \"right\"}";
    for (const std::string &config : {left, right}) {
        stm_wordpiece *tok = nullptr;
        mill_error err = {};
        const mill_status want = config == left ? MILL_ERR_UNSUPPORTED : MILL_OK;
        EXPECT_EQ(stm_wordpiece_from_json(json.data(), json.size(), config.data(), config.size(), "test", &tok, &err), want)
            << err.msg;
        stm_wordpiece_close(&tok);
        EXPECT_EQ(stm_wordpiece_from_vocab(vocab.data(), vocab.size(), config.data(), config.size(), "test", &tok, &err), want)
            << err.msg;
        stm_wordpiece_close(&tok);
        if (config == left) {
            EXPECT_NE(std::string(err.msg).find("truncation_side left"), std::string::npos) << err.msg;
        }
    }
}

/* sentence-transformers makes letters small where its own file asks for it, which leaves accents alone, and puts the default prompt
 * in front. */
TEST(WordPiece, WhatTheModelFolderAddsToTheTokenizer)
{
    mt::TempDir dir;
    const std::string at = dir.path() + "/";
    auto open = [&](const std::string &text, int32_t max = 50) {
        stm_wordpiece *tok = nullptr;
        mill_error err = {};
        EXPECT_EQ(stm_wordpiece_open(dir.path().c_str(), &tok, &err), MILL_OK) << err.msg;
        std::vector<int32_t> ids(50);
        if (tok != nullptr) ids.resize(size_t(stm_wordpiece_encode(tok, text.data(), int64_t(text.size()), max, ids.data())));
        stm_wordpiece_close(&tok);
        return names(ids);
    };
    mt::write_file(at + "tokenizer.json", json_with("", kBertPost));
    mt::write_file(at + "tokenizer_config.json", "{\"do_lower_case\": false}");
    EXPECT_EQ(open("A caf\xc3\xa9"), (Names{"[CLS]", "A", "caf", "##\xc3\xa9", "[SEP]"}));
    mt::write_file(at + "sentence_bert_config.json", "{\"max_seq_length\": 10, \"do_lower_case\": true}");
    EXPECT_EQ(open("A caf\xc3\xa9"), (Names{"[CLS]", "a", "caf", "##\xc3\xa9", "[SEP]"}));
    mt::write_file(at + "config_sentence_transformers.json",
                   "{\"prompts\": {\"query\": \"word! \"}, \"default_prompt_name\": null}");
    EXPECT_EQ(open("a"), (Names{"[CLS]", "a", "[SEP]"}));
    mt::write_file(at + "config_sentence_transformers.json",
                   "{\"prompts\": {\"query\": \"word! \"}, \"default_prompt_name\": \"query\"}");
    EXPECT_EQ(open("a"), (Names{"[CLS]", "word", "!", "a", "[SEP]"}));
    EXPECT_EQ(open(""), (Names{"[CLS]", "word", "!", "[SEP]"}));
    EXPECT_EQ(open("a b", 5), (Names{"[CLS]", "word", "!", "a", "[SEP]"})) << "cut with the prompt";
    mt::write_file(at + "config_sentence_transformers.json",
                   "{\"prompts\": {\"query\": \"un\"}, \"default_prompt_name\": \"query\"}");
    EXPECT_EQ(open("able"), (Names{"[CLS]", "un", "##able", "[SEP]"})) << "one text with what follows";
}

TEST(WordPiece, TokenizersThatAreNotSupportedOrDamaged)
{
    const std::string good = json_with("", kBertPost);
    auto with = [&](const std::string &from, const std::string &to) {
        std::string s = good;
        EXPECT_NE(s.find(from), std::string::npos) << from;
        return s.replace(s.find(from), from.size(), to);
    };
    const struct {
        const char *name;
        std::string json;
        mill_status status;
        const char *says;
    } table[] = {
        {"not_json", "{", MILL_ERR_PARSE, "not valid JSON"},
        {"list", "[]", MILL_ERR_UNSUPPORTED, "the normalizer is missing"},
        {"normalizer", with("BertNormalizer", "NFC"), MILL_ERR_UNSUPPORTED, "the normalizer is NFC"},
        {"two_normalizers",
         with("{\"type\":\"BertNormalizer\"",
              "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"BertNormalizer\"},{\"type\":\"NFC\"}]"),
         MILL_ERR_UNSUPPORTED, "the normalizer is NFC"},
        {"no_normalizer", with("{\"type\":\"BertNormalizer\"", "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]"),
         MILL_ERR_UNSUPPORTED, "the normalizer is missing"},
        {"twice_the_same",
         with("{\"type\":\"BertNormalizer\"",
              "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"BertNormalizer\"},{\"type\":\"BertNormalizer\"}]"),
         MILL_ERR_UNSUPPORTED, "more than one normalizer"},
        {"pre_tokenizer", with("BertPreTokenizer", "Whitespace"), MILL_ERR_UNSUPPORTED, "the pre_tokenizer is Whitespace"},
        {"model", with("WordPiece", "Unigram"), MILL_ERR_UNSUPPORTED, "the model is Unigram"},
        {"post_processor", with("BertProcessing", "ByteLevel"), MILL_ERR_UNSUPPORTED, "post_processor is not supported: ByteLevel"},
        {"no_vocab", with("\"vocab\"", "\"words\""), MILL_ERR_PARSE, "has no vocab"},
        {"negative_id", with("\"un\":5", "\"un\":-5"), MILL_ERR_PARSE, "an id is out of range: un"},
        {"huge_id", with("\"un\":5", "\"un\":1099511627776"), MILL_ERR_PARSE, "an id is out of range"},
        {"text_id", with("\"un\":5", "\"un\":\"5\""), MILL_ERR_PARSE, "an id is out of range"},
        {"no_unknown", with("\"[UNK]\":1", "\"[UNX]\":1"), MILL_ERR_PARSE, "lacks its unknown token [UNK]"},
        {"word_limit", json_with("", kBertPost, ",\"max_input_chars_per_word\":100000"), MILL_ERR_UNSUPPORTED,
         "max_input_chars_per_word"},
        {"normalized_token", json_with("{\"id\":4,\"content\":\"Q\",\"normalized\":true}", kBertPost), MILL_ERR_UNSUPPORTED,
         "normalized"},
        {"no_content", json_with("{\"id\":4}", kBertPost), MILL_ERR_PARSE, "no content"},
        {"template_without_text", json_with("", "{\"type\":\"TemplateProcessing\",\"single\":[],\"special_tokens\":{}}"),
         MILL_ERR_PARSE, "no place for the text"},
        {"template_of_unknown",
         json_with("", "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"[Q]\"}}],\"special_tokens\":{}}"),
         MILL_ERR_PARSE, "unknown special token: [Q]"},
        {"template_too_long",
         json_with("", "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"Q\"}}],\"special_tokens\":{\"Q\":{"
                       "\"ids\":[1,1,1,1,1]}}}"),
         MILL_ERR_UNSUPPORTED, "too many tokens"},
    };
    for (const auto &c : table) {
        stm_wordpiece *tok = nullptr;
        mill_error err = {};
        const long live = mt::live();
        EXPECT_EQ(stm_wordpiece_from_json(c.json.data(), c.json.size(), nullptr, 0, "test", &tok, &err), c.status) << c.name;
        EXPECT_NE(std::string(err.msg).find(c.says), std::string::npos) << c.name << ": " << err.msg;
        EXPECT_EQ(tok, nullptr);
        EXPECT_EQ(mt::live(), live) << c.name;
    }
}

TEST(WordPiece, FailsCleanlyAtEveryPoint)
{
    const std::string json = json_with("{\"id\":4,\"content\":\"[MASK]\"}", kBertPost), vocab = vocab_text();
    const long live = mt::live();
    for (int form = 0; form < 2; form++)
        for (int nth = 0;; nth++) {
            stm_wordpiece *tok = nullptr;
            mill_error err = {};
            mt::FailNth fail(nth);
            const mill_status st = form == 0 ? stm_wordpiece_from_json(json.data(), json.size(), nullptr, 0, "test", &tok, &err)
                                             : stm_wordpiece_from_vocab(vocab.data(), vocab.size(), nullptr, 0, "test", &tok, &err);
            const bool fired = fail.fired();
            EXPECT_EQ(st == MILL_OK, !fired);
            EXPECT_EQ(tok != nullptr, st == MILL_OK);
            stm_wordpiece_close(&tok);
            EXPECT_EQ(mt::live(), live) << "leak when point " << nth << " fails";
            if (!fired) break;
            EXPECT_EQ(st, MILL_ERR_NOMEM);
        }
}

} // namespace
