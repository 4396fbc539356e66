#include "model_maker.h"
#include "wordbook.h"

#include <atomic>
#include <thread>

#include "support/fail_nth.h"

extern "C" {
#include "kernels/cpu.h"
#include "models/tokenizers/wordpiece.h"
#include "stepmill/model.h"
}

namespace {

using mt::Bert;
using mt::BertShape;
using mt::Texts;

/* Sizes that divide nothing, and every kind of head: those that have code of their own, and those around them. */
const BertShape kShapes[] = {
    {"minilm_like", 2, 96, 3, 384, 61, 64, 2, false, false, true, 1e-12},
    {"bge_like", 2, 128, 2, 512, 67, 64, 2, false, true, true, 1e-12, true},
    {"positions_512", 2, 32, 1, 64, 131, 512, 2, false, false, false, 1e-5},
    {"head_dim_1", 2, 5, 5, 7, 23, 16, 1, false, false, false, 1e-5, true},
    {"head_dim_7_odd_everywhere", 2, 21, 3, 33, 31, 19, 1, true, false, true, 1e-7},
    {"head_dim_12", 2, 36, 3, 49, 43, 33, 2, false, false, true, 1e-12, true},
    {"head_dim_20", 2, 60, 3, 100, 41, 40, 3, true, true, false, 1e-12},
    {"head_dim_33", 2, 99, 3, 101, 53, 37, 2, false, false, true, 1e-12, true},
    {"head_dim_64", 2, 192, 3, 200, 59, 48, 2, false, false, true, 1e-12},
    {"head_dim_80", 2, 160, 2, 96, 47, 48, 2, false, false, true, 1e-12, true},
    {"head_dim_128", 2, 256, 2, 64, 71, 48, 2, false, false, true, 1e-12},
    {"head_dim_256", 2, 256, 1, 48, 73, 48, 2, false, true, false, 1e-12, true},
    {"one_word", 2, 16, 1, 16, 6, 8, 1, false, false, true, 1e-12},
};

const BertShape &kSmallest = kShapes[12];

/* With a vocabulary of every kind of token. */
struct Model : Bert {
    mt::Wordbook book;
    explicit Model(const BertShape &shape) : Bert(shape), book(shape.vocabulary, shape.cased, 3) { vocab = book.tokens; }
};

struct Opened {
    mill_encoder *enc = nullptr;
    mill_error err = {};
    explicit Opened(const std::string &dir, int precision = 0, int threads = 1, int max_tokens = 0)
    {
        mill_encoder_options o = MILL_ENCODER_INIT;
        o.precision = precision, o.threads = threads, o.max_tokens = max_tokens;
        EXPECT_EQ(mill_encoder_open(dir.c_str(), &o, &enc, &err), MILL_OK) << err.msg;
    }
    ~Opened() { mill_encoder_close(&enc); }
    Opened(const Opened &) = delete;
    Opened &operator=(const Opened &) = delete;
    std::vector<float> run(const Texts &t, int64_t first = 0, int64_t rows = -1)
    {
        if (rows < 0) rows = int64_t(t.offsets.size()) - 1 - first;
        std::vector<float> out(size_t(rows * mill_encoder_info_of(enc).dim), NAN);
        const mill_texts in = {t.data.data(), t.offsets.data(), nullptr, first, rows};
        EXPECT_EQ(mill_encoder_run(enc, &in, out.data(), &err), MILL_OK) << err.msg;
        return out;
    }
};

/* Texts of given numbers of ids, and these with [CLS] and [SEP], cut as the encoder cuts. */
struct Corpus {
    Texts texts;
    std::vector<std::vector<int>> ids;
    Corpus(const mt::Wordbook &book, const std::vector<int> &lengths, int max_tokens)
    {
        for (size_t d = 0; d < lengths.size(); d++) {
            const mt::Wordbook::Text t = book.text(lengths[d], unsigned(d));
            std::vector<int> row = {book.id("[CLS]")};
            row.insert(row.end(), t.ids.begin(), t.ids.begin() + std::min<ptrdiff_t>(lengths[d], max_tokens - 2));
            row.push_back(book.id("[SEP]"));
            texts.add(t.bytes);
            ids.push_back(row);
        }
    }
};

double cosine(const float *a, const double *b, size_t n)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) ab += a[i] * b[i], aa += double(a[i]) * a[i], bb += b[i] * b[i];
    return ab / std::sqrt(aa * bb);
}

class Generated : public testing::TestWithParam<BertShape> {};

TEST_P(Generated, AgreesWithADoubleReference)
{
    const BertShape s = GetParam();
    Model model(s);
    mt::TempDir dir;
    model.write(dir.path());
    const Corpus c(model.book, {0, 1, 5, s.positions - 3, s.positions - 2, s.positions + 9, 3, 17}, s.positions);
    stm_wordpiece *tok = nullptr;
    ASSERT_EQ(stm_wordpiece_open(dir.path().c_str(), &tok, nullptr), MILL_OK);
    std::vector<std::vector<double>> wants;
    for (size_t d = 0; d < c.ids.size(); d++) {
        const std::string text =
            c.texts.data.substr(size_t(c.texts.offsets[d]), size_t(c.texts.offsets[d + 1] - c.texts.offsets[d]));
        std::vector<int32_t> ids(size_t(s.positions));
        ids.resize(size_t(stm_wordpiece_encode(tok, text.data(), int64_t(text.size()), s.positions, ids.data())));
        EXPECT_EQ(ids, c.ids[d]) << text;
        wants.push_back(model.embed(c.ids[d]));
    }
    stm_wordpiece_close(&tok);
    for (int level = 0; level <= STM_CPU_AMX; level++) {
        stm_cpu_limit(stm_cpu_level(level));
        if (stm_cpu() != level) continue; /* not this machine's */
        SCOPED_TRACE(stm_cpu_name(stm_cpu_level(level)));
        const std::vector<float> f32 = Opened(dir.path(), MILL_PRECISION_F32).run(c.texts),
                                 bf16 = Opened(dir.path(), MILL_PRECISION_BF16).run(c.texts);
        double off = 0, least = 1, largest = 0;
        for (size_t d = 0; d < c.ids.size(); d++) {
            const std::vector<double> &want = wants[d];
            for (size_t i = 0; i < want.size(); i++) {
                const float got = f32[d * want.size() + i];
                off = std::isfinite(got) ? std::max(off, std::fabs(got - want[i])) : INFINITY;
                largest = std::max(largest, std::fabs(want[i]));
            }
            least = std::min(least, cosine(&bf16[d * want.size()], want.data(), want.size()));
        }
        printf("%-26s %-8s f32 off by %.1e at most, bf16 by a cosine of 1 - %.1e\n", s.name, stm_cpu_name(stm_cpu_level(level)),
               off, 1 - least);
        /* Six products a layer, each of sums whose roundings add up as the root of their length, between norms that bring values
         * back to one size; the errors of products are independent of each other. */
        const double products = 6.0 * s.layers, terms = std::max({s.hidden, s.wide, s.positions});
        EXPECT_LE(off, 0x1p-24 * std::sqrt(products * terms) * largest);
        /* The operands of a product are rounded to 8 bits: by 2^-9 / sqrt(3) in the mean, both of them. A cosine falls short by
         * half of the square of the error; it may be twice of what is to be expected. */
        EXPECT_LE(1 - least, 4 * products * 2 * 0x1p-18 / 3 / 2);
    }
    stm_cpu_limit(STM_CPU_AMX);
}

TEST_P(Generated, SameBitsInAnyCompany)
{
    const BertShape s = GetParam();
    Model model(s);
    mt::TempDir dir;
    model.write(dir.path());
    std::vector<int> words;
    for (int i = 0; i < 40; i++) words.push_back((i * 13) % s.positions);
    const Corpus c(model.book, words, s.positions);
    std::vector<std::string> backwards;
    for (size_t i = words.size(); i-- > 0;)
        backwards.push_back(c.texts.data.substr(size_t(c.texts.offsets[i]), size_t(c.texts.offsets[i + 1] - c.texts.offsets[i])));
    for (int precision : {MILL_PRECISION_F32, MILL_PRECISION_BF16}) {
        Opened one(dir.path(), precision, 1), three(dir.path(), precision, 3);
        const std::vector<float> all = one.run(c.texts);
        const size_t dim = all.size() / words.size();
        EXPECT_EQ(all, three.run(c.texts)) << "threads";
        const std::vector<float> back = three.run(Texts(backwards));
        for (size_t i = 0; i < words.size(); i++) {
            EXPECT_EQ(memcmp(&all[i * dim], &back[(words.size() - 1 - i) * dim], dim * 4), 0) << "order, document " << i;
            const std::vector<float> alone = one.run(c.texts, int64_t(i), 1);
            EXPECT_EQ(memcmp(&all[i * dim], alone.data(), dim * 4), 0) << "alone, document " << i;
        }
        for (int64_t size : {2, 7, 32}) { /* batch sizes */
            for (int64_t i = 0; i < int64_t(words.size()); i += size) {
                const int64_t n = std::min<int64_t>(size, int64_t(words.size()) - i);
                const std::vector<float> part = one.run(c.texts, i, n);
                EXPECT_EQ(memcmp(&all[size_t(i) * dim], part.data(), part.size() * 4), 0) << "batches of " << size << " at " << i;
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Generated, testing::ValuesIn(kShapes),
                         [](const auto &param) { return std::string(param.param.name); });

TEST(Encoder, ReadsWeightsOfOtherTypesAndPlaces)
{
    Model model(kShapes[0]);
    mt::TempDir f32, odd, half, prefixed;
    model.write(f32.path());
    model.write(odd.path(), "F32", 1); /* tensors at odd addresses: whatever the header's length gives */
    mt::write_file(odd.path() + "/model.safetensors", [&] {
        auto renamed = model.w;
        renamed["embeddings.LayerNorm.gamma"] = renamed["embeddings.LayerNorm.weight"],
        renamed.erase("embeddings.LayerNorm.weight");
        renamed["embeddings.LayerNorm.beta"] = renamed["embeddings.LayerNorm.bias"], renamed.erase("embeddings.LayerNorm.bias");
        std::string bytes = mt::safetensors(renamed, "F32", 4);
        for (int i = 0; i < 8; i++) bytes[size_t(i)] = 0;
        const size_t header = bytes.find("}}") + 2; /* one space more, so that data starts at an odd address */
        size_t end = header;
        while (bytes[end] == ' ') end++;
        bytes.insert(end, (end - 8) % 4 == 0 ? " " : "");
        const size_t n = end - 8 + ((end - 8) % 4 == 0 ? 1 : 0);
        for (int i = 0; i < 8; i++) bytes[size_t(i)] = char(n >> (8 * i));
        return bytes;
    }());
    Bert rounded = model;
    for (auto &[name, t] : rounded.w)
        for (float &v : t.data) v = stm_bf16_to(stm_bf16_of(v));
    mt::TempDir rounded_dir;
    rounded.write(rounded_dir.path());
    model.write(half.path(), "BF16");
    Bert bert = model;
    bert.w.clear();
    for (const auto &[name, t] : model.w) bert.w["bert." + name] = t;
    bert.write(prefixed.path());
    const Corpus c(model.book, {4, 20}, 64);
    const auto want = Opened(f32.path()).run(c.texts);
    EXPECT_EQ(want, Opened(odd.path()).run(c.texts)) << "unaligned, gamma and beta";
    EXPECT_EQ(want, Opened(prefixed.path()).run(c.texts)) << "names with bert.";
    EXPECT_EQ(Opened(rounded_dir.path()).run(c.texts), Opened(half.path()).run(c.texts)) << "bf16 file";
}

TEST(Encoder, NullAndEmptyTextsAndSlices)
{
    Bert model(kShapes[0]);
    mt::TempDir dir;
    model.write(dir.path());
    Opened o(dir.path(), 0, 2);
    Texts t({"w5", "", "w6 w7", "w8"});
    const uint8_t validity = 0x0d; /* text 1 is null */
    std::vector<float> out(size_t(3 * 96), NAN);
    const mill_texts in = {t.data.data(), t.offsets.data(), &validity, 1, 3};
    ASSERT_EQ(mill_encoder_run(o.enc, &in, out.data(), nullptr), MILL_OK);
    for (size_t i = 0; i < 96; i++) EXPECT_EQ(out[i], 0.0f);
    const auto all = o.run(t);
    EXPECT_EQ(memcmp(&out[96], &all[2 * 96], 2 * 96 * 4), 0);
    const auto want = model.embed({2, 3}); /* an empty text is [CLS] [SEP] */
    for (size_t i = 0; i < 96; i++) EXPECT_NEAR(all[96 + i], want[i], 2e-5);
    const mill_texts none = {nullptr, t.offsets.data(), nullptr, 0, 0};
    EXPECT_EQ(mill_encoder_run(o.enc, &none, nullptr, nullptr), MILL_OK);
}

TEST(Encoder, OptionsOverrideTheFiles)
{
    const BertShape s = kShapes[0];
    Model model(s);
    const Bert cls(
        BertShape{"", s.layers, s.hidden, s.heads, s.wide, s.vocabulary, s.positions, s.types, false, true, false, s.eps});
    mt::TempDir dir;
    model.write(dir.path());
    mt::write_file(dir.path() + "/sentence_bert_config.json", "{\"max_seq_length\": 10}");
    mill_encoder_options o = MILL_ENCODER_INIT;
    mill_encoder_info info = {};
    ASSERT_EQ(mill_encoder_check(dir.path().c_str(), &o, &info, nullptr), MILL_OK);
    EXPECT_EQ(info.max_tokens, 10);
    EXPECT_EQ(info.dim, 96);
    EXPECT_EQ(info.layers, 2);
    EXPECT_TRUE(info.normalize);
    EXPECT_EQ(info.pooling, MILL_POOLING_MEAN);
    int64_t parameters = 0;
    for (const auto &[name, t] : model.w) parameters += int64_t(t.data.size());
    EXPECT_EQ(info.parameters, parameters);
    const Corpus c(model.book, {30}, 10);
    const auto got = Opened(dir.path()).run(c.texts);
    const auto want = model.embed(c.ids[0]);
    for (size_t i = 0; i < want.size(); i++) ASSERT_NEAR(got[i], want[i], 2e-5);
    o.pooling = MILL_POOLING_CLS, o.normalize = MILL_NO, o.max_tokens = 7;
    mill_encoder *enc = nullptr;
    ASSERT_EQ(mill_encoder_open(dir.path().c_str(), &o, &enc, nullptr), MILL_OK);
    const Corpus c7(model.book, {30}, 7);
    const auto want7 = cls.embed(c7.ids[0]);
    std::vector<float> out(want7.size());
    const mill_texts in = {c7.texts.data.data(), c7.texts.offsets.data(), nullptr, 0, 1};
    ASSERT_EQ(mill_encoder_run(enc, &in, out.data(), nullptr), MILL_OK);
    for (size_t i = 0; i < want7.size(); i++) ASSERT_NEAR(out[i], want7[i], 2e-5);
    mill_encoder_close(&enc);
    o.max_tokens = 65;
    EXPECT_EQ(mill_encoder_check(dir.path().c_str(), &o, nullptr, nullptr), MILL_ERR_INVALID);
}

/* The two forms in which sentence-transformers has written it, and nothing at all. */
TEST(Encoder, PoolingAsTheFileSays)
{
    Bert model(kSmallest);
    mt::TempDir dir;
    model.write(dir.path());
    const struct {
        const char *config;
        int pooling;
    } table[] = {
        {"{\"pooling_mode_cls_token\": true, \"pooling_mode_mean_tokens\": false}", MILL_POOLING_CLS},
        {"{\"pooling_mode_cls_token\": false, \"pooling_mode_mean_tokens\": true}", MILL_POOLING_MEAN},
        {"{\"embedding_dimension\": 16, \"pooling_mode\": \"cls\", \"include_prompt\": true}", MILL_POOLING_CLS},
        {"{\"pooling_mode\": \"mean\"}", MILL_POOLING_MEAN},
        {"{\"pooling_mode\": [\"cls\"]}", MILL_POOLING_CLS},
        {"{\"pooling_mode\": \"cls\", \"pooling_mode_mean_tokens\": true}", MILL_POOLING_CLS},
        {"{\"word_embedding_dimension\": 16}", MILL_POOLING_MEAN},
    };
    for (const auto &c : table) {
        mt::write_file(dir.path() + "/1_Pooling/config.json", c.config);
        mill_encoder_options o = MILL_ENCODER_INIT;
        mill_encoder_info info = {};
        mill_error err = {};
        ASSERT_EQ(mill_encoder_check(dir.path().c_str(), &o, &info, &err), MILL_OK) << c.config << ": " << err.msg;
        EXPECT_EQ(info.pooling, c.pooling) << c.config;
    }
}

TEST(Encoder, ReplicasShareWeightsAndAgree)
{
    Model model(kShapes[0]);
    mt::TempDir dir;
    model.write(dir.path());
    const Corpus c(model.book, {4, 20, 60, 1, 1, 30, 11, 5}, 64);
    const auto want = Opened(dir.path(), MILL_PRECISION_BF16).run(c.texts);
    std::vector<std::thread> threads;
    std::atomic<int> good{0};
    for (int i = 0; i < 4; i++) /* open, run and close overlap */
        threads.emplace_back([&, i] {
            for (int k = 0; k < 5; k++) {
                mill_encoder_options o = MILL_ENCODER_INIT;
                o.precision = MILL_PRECISION_BF16, o.threads = 1 + i % 2;
                mill_encoder *enc = nullptr;
                std::vector<float> out(want.size());
                const mill_texts in = {c.texts.data.data(), c.texts.offsets.data(), nullptr, 0, 8};
                if (mill_encoder_open(dir.path().c_str(), &o, &enc, nullptr) == MILL_OK &&
                    mill_encoder_run(enc, &in, out.data(), nullptr) == MILL_OK && out == want)
                    good++;
                mill_encoder_close(&enc);
            }
        });
    for (auto &t : threads) t.join();
    EXPECT_EQ(good, 20);
    Opened first(dir.path());
    const long before = mt::live();
    Opened second(dir.path());
    EXPECT_LT(mt::live() - before, 20) << "a second replica packs no weights of its own (13 matrices would be 39 blocks)";
}

TEST(Encoder, AllocatesNothingOnceWarm)
{
    Model model(kShapes[4]); /* odd sizes: products need scratch */
    mt::TempDir dir;
    model.write(dir.path());
    const Corpus c(model.book, {4, 9, 1, 30, 11, 5}, 19);
    for (int precision : {MILL_PRECISION_F32, MILL_PRECISION_BF16}) {
        Opened o(dir.path(), precision, 2);
        for (int i = 0; i < 30; i++) o.run(c.texts); /* both threads have had work */
        const long before = stm_alloc_counts().allocs;
        for (int i = 0; i < 20; i++) o.run(c.texts);
        EXPECT_EQ(stm_alloc_counts().allocs, before);
    }
}

TEST(Encoder, StopsWhenAsked)
{
    Model model(kShapes[0]);
    mt::TempDir dir;
    model.write(dir.path());
    const Corpus c(model.book, std::vector<int>(50, 60), 64);
    std::atomic<int> asked{0};
    mill_encoder_options o = MILL_ENCODER_INIT;
    o.threads = 2, o.user = &asked;
    o.cancelled = [](void *user) { return ++*static_cast<std::atomic<int> *>(user) > 2; };
    mill_encoder *enc = nullptr;
    ASSERT_EQ(mill_encoder_open(dir.path().c_str(), &o, &enc, nullptr), MILL_OK);
    std::vector<float> out(50 * 96);
    const mill_texts in = {c.texts.data.data(), c.texts.offsets.data(), nullptr, 0, 50};
    mill_error err = {};
    EXPECT_EQ(mill_encoder_run(enc, &in, out.data(), &err), MILL_ERR_STOPPED);
    EXPECT_STRNE(err.msg, "");
    EXPECT_LT(asked, 6) << "groups after the stop";
    asked = -1000; /* it can go on afterwards */
    EXPECT_EQ(mill_encoder_run(enc, &in, out.data(), nullptr), MILL_OK);
    mill_encoder_close(&enc);
}

TEST(Encoder, OpenFailsCleanlyAtEveryPoint)
{
    Bert model(kSmallest);
    mt::TempDir dir;
    model.write(dir.path());
    const long live = mt::live();
    int survived = 0; /* points whose failure only costs the helpers that pack weights: their list, and up to 3 threads */
    for (int nth = 0;; nth++) {
        mill_encoder_options o = MILL_ENCODER_INIT;
        o.threads = 3;
        mill_encoder *enc = nullptr;
        mill_error err = {};
        mt::FailNth fail(nth, STM_FAULT_ALLOC | STM_FAULT_OPEN | STM_FAULT_LOAD | STM_FAULT_THREAD);
        const mill_status st = mill_encoder_open(dir.path().c_str(), &o, &enc, &err);
        const bool fired = fail.fired();
        if (!fired) {
            EXPECT_EQ(st, MILL_OK) << err.msg;
        }
        if (fired && st == MILL_OK) survived++;
        EXPECT_EQ(enc != nullptr, st == MILL_OK);
        mill_encoder_close(&enc);
        EXPECT_EQ(mt::live(), live) << "leak when point " << nth << " fails";
        if (!fired) {
            EXPECT_GT(nth, 40);
            EXPECT_LE(survived, 4);
            return;
        }
        if (st != MILL_OK) {
            EXPECT_STRNE(err.msg, "");
        }
    }
}

/* ---- models that are wrong ------------------------------------------------------------------------------------------ */

struct Mistake {
    const char *name;
    std::function<void(const std::string &dir, const Bert &model)> make;
    mill_status status;
    const char *says; /* part of the message */
};

void replace(const std::string &path, const std::string &from, const std::string &to)
{
    std::string text = mt::read_file(path);
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    mt::write_file(path, text.replace(at, from.size(), to));
}

void with_tensors(const std::string &dir, const Bert &model, const std::function<void(std::map<std::string, mt::Tensor> &)> &change)
{
    auto w = model.w;
    change(w);
    mt::write_file(dir + "/model.safetensors", mt::safetensors(w));
}

const Mistake kMistakes[] = {
    {"no_folder", [](auto &d, auto &) { std::filesystem::remove_all(d); }, MILL_ERR_NOT_FOUND, "does not exist"},
    {"no_config", [](auto &d, auto &) { std::filesystem::remove(d + "/config.json"); }, MILL_ERR_NOT_FOUND,
     "config.json does not exist"},
    {"config_is_a_folder",
     [](auto &d, auto &) { std::filesystem::remove(d + "/config.json"), std::filesystem::create_directory(d + "/config.json"); },
     MILL_ERR_INVALID, "config.json is a folder, not a file"},
    {"config_not_json", [](auto &d, auto &) { mt::write_file(d + "/config.json", "{\"hidden_size\": "); }, MILL_ERR_PARSE,
     "config.json is not valid JSON"},
    {"config_empty", [](auto &d, auto &) { mt::write_file(d + "/config.json", ""); }, MILL_ERR_PARSE,
     "config.json is not valid JSON"},
    {"other_model_type", [](auto &d, auto &) { replace(d + "/config.json", "\"bert\"", "\"roberta\""); }, MILL_ERR_UNSUPPORTED,
     "model_type is \"roberta\""},
    {"other_activation", [](auto &d, auto &) { replace(d + "/config.json", "\"gelu\"", "\"relu\""); }, MILL_ERR_UNSUPPORTED,
     "hidden_act is \"relu\""},
    {"relative_positions", [](auto &d, auto &) { replace(d + "/config.json", "\"absolute\"", "\"relative_key\""); },
     MILL_ERR_UNSUPPORTED, "position_embedding_type"},
    {"hidden_is_text", [](auto &d, auto &) { replace(d + "/config.json", "\"hidden_size\": 96", "\"hidden_size\": \"96\""); },
     MILL_ERR_INVALID, "hidden_size must be a whole number"},
    {"no_layers", [](auto &d, auto &) { replace(d + "/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0"); },
     MILL_ERR_INVALID, "num_hidden_layers"},
    {"heads_do_not_divide",
     [](auto &d, auto &) { replace(d + "/config.json", "\"num_attention_heads\": 3", "\"num_attention_heads\": 5"); },
     MILL_ERR_INVALID, "cannot be divided into 5 heads"},
    {"config_of_another_model", [](auto &d, auto &) { replace(d + "/config.json", "\"hidden_size\": 96", "\"hidden_size\": 192"); },
     MILL_ERR_INVALID, "has shape [61, 96], expected [61, 192]"},
    {"more_layers_than_weights",
     [](auto &d, auto &) { replace(d + "/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"); },
     MILL_ERR_NOT_FOUND, "has no tensor encoder.layer.2.attention.self.query.weight; the nearest is encoder.layer."},
    {"max_pooling", [](auto &d, auto &) { mt::write_file(d + "/1_Pooling/config.json", "{\"pooling_mode_max_tokens\": true}"); },
     MILL_ERR_UNSUPPORTED, "the pooling mode max is not supported; mean and cls are"},
    {"pooling_of_the_last_token",
     [](auto &d, auto &) { mt::write_file(d + "/1_Pooling/config.json", "{\"pooling_mode\": [\"mean\", \"lasttoken\"]}"); },
     MILL_ERR_UNSUPPORTED, "the pooling mode lasttoken is not supported"},
    {"pooling_by_number", [](auto &d, auto &) { mt::write_file(d + "/1_Pooling/config.json", "{\"pooling_mode\": 3}"); },
     MILL_ERR_UNSUPPORTED, "the pooling mode that is no text"},
    {"two_poolings",
     [](auto &d, auto &) {
         mt::write_file(d + "/1_Pooling/config.json", "{\"pooling_mode_cls_token\": true, \"pooling_mode_mean_tokens\": true}");
     },
     MILL_ERR_UNSUPPORTED, "mean and cls pooling together"},
    {"dense_module", [](auto &d, auto &) { replace(d + "/modules.json", "models.Normalize", "models.Dense"); },
     MILL_ERR_UNSUPPORTED, "\"Dense\""},
    {"no_weights", [](auto &d, auto &) { std::filesystem::remove(d + "/model.safetensors"); }, MILL_ERR_NOT_FOUND,
     "model.safetensors does not exist"},
    {"empty_weights", [](auto &d, auto &) { mt::write_file(d + "/model.safetensors", ""); }, MILL_ERR_PARSE,
     "too few for a safetensors file"},
    {"weights_are_a_pointer_file",
     [](auto &d, auto &) { mt::write_file(d + "/model.safetensors", "version https://git-lfs.github.com/spec/v1\n"); },
     MILL_ERR_PARSE, "is not a safetensors file"},
    {"truncated_header",
     [](auto &d, auto &) { mt::write_file(d + "/model.safetensors", mt::read_file(d + "/model.safetensors").substr(0, 500)); },
     MILL_ERR_PARSE, "it is truncated"},
    {"truncated_data",
     [](auto &d, auto &) {
         auto b = mt::read_file(d + "/model.safetensors");
         mt::write_file(d + "/model.safetensors", b.substr(0, b.size() - 1));
     },
     MILL_ERR_PARSE, "it is truncated"},
    {"trailing_bytes",
     [](auto &d, auto &) { mt::write_file(d + "/model.safetensors", mt::read_file(d + "/model.safetensors") + "x"); },
     MILL_ERR_PARSE, "1 bytes after the last tensor"},
    {"wrong_dtype",
     [](auto &d, auto &m) {
         auto b = mt::safetensors({{"embeddings.word_embeddings.weight", m.w.at("embeddings.word_embeddings.weight")}});
         mt::write_file(d + "/model.safetensors", b.replace(b.find("F32"), 3, "I32"));
     },
     MILL_ERR_TYPE, "has dtype I32, expected F32, F16 or BF16"},
    {"unknown_dtype",
     [](auto &d, auto &m) {
         auto b = mt::safetensors({{"embeddings.word_embeddings.weight", m.w.at("embeddings.word_embeddings.weight")}});
         mt::write_file(d + "/model.safetensors", b.replace(b.find("F32"), 3, "Q8K"));
     },
     MILL_ERR_PARSE, "has dtype Q8K"},
    {"missing_tensor", [](auto &d, auto &m) { with_tensors(d, m, [](auto &w) { w.erase("encoder.layer.1.output.dense.bias"); }); },
     MILL_ERR_NOT_FOUND, "has no tensor encoder.layer.1.output.dense.bias; the nearest is encoder.layer.0.output.dense.bias"},
    {"misspelt_tensor",
     [](auto &d, auto &m) {
         with_tensors(d, m, [](auto &w) {
             auto n = w.extract("embeddings.LayerNorm.bias");
             n.key() = "embeddings.LayrNorm.bias";
             w.insert(std::move(n));
         });
     },
     MILL_ERR_NOT_FOUND, "the nearest is embeddings.LayrNorm.bias"},
    {"transposed_tensor",
     [](auto &d, auto &m) {
         with_tensors(d, m, [](auto &w) {
             std::swap(w["encoder.layer.0.intermediate.dense.weight"].shape[0],
                       w["encoder.layer.0.intermediate.dense.weight"].shape[1]);
         });
     },
     MILL_ERR_INVALID, "encoder.layer.0.intermediate.dense.weight has shape [96, 384], expected [384, 96]"},
    {"no_tokenizer", [](auto &d, auto &) { std::filesystem::remove(d + "/vocab.txt"); }, MILL_ERR_NOT_FOUND,
     "has neither tokenizer.json nor vocab.txt"},
    {"vocabulary_too_large", [](auto &d, auto &m) { mt::write_file(d + "/vocab.txt", m.vocabulary() + "more\n"); },
     MILL_ERR_INVALID, "has ids up to 61, but the model only 61 embeddings"},
    {"vocabulary_without_cls", [](auto &d, auto &) { replace(d + "/vocab.txt", "[CLS]", "[XXX]"); }, MILL_ERR_PARSE,
     "lacks the token [CLS]"},
    {"tokenizer_of_another_kind",
     [](auto &d, auto &) { mt::write_file(d + "/tokenizer.json", "{\"model\": {\"type\": \"BPE\", \"vocab\": {}}}"); },
     MILL_ERR_UNSUPPORTED, "the model is BPE; only WordPiece is supported"},
    {"tokenizer_not_json", [](auto &d, auto &) { mt::write_file(d + "/tokenizer.json", "{"); }, MILL_ERR_PARSE,
     "tokenizer.json is not valid JSON"},
    {"max_tokens_too_small", [](auto &d, auto &) { mt::write_file(d + "/sentence_bert_config.json", "{\"max_seq_length\": 2}"); },
     MILL_ERR_INVALID, "max_tokens is 2, of which 2 are special"},
};

class BadModel : public testing::TestWithParam<Mistake> {};

TEST_P(BadModel, CheckAndOpenSayWhatIsWrong)
{
    Bert model(kShapes[0]);
    mt::TempDir dir;
    model.write(dir.path());
    mill_encoder_options o = MILL_ENCODER_INIT;
    ASSERT_EQ(mill_encoder_check(dir.path().c_str(), &o, nullptr, nullptr), MILL_OK) << "the model is good before the mistake";
    GetParam().make(dir.path(), model);
    const long live = mt::live();
    mill_encoder_info info = {};
    info.dim = -7;
    mill_encoder *enc = nullptr;
    mill_error check = {}, open = {};
    EXPECT_EQ(mill_encoder_check(dir.path().c_str(), &o, &info, &check), GetParam().status) << check.msg;
    EXPECT_NE(std::string(check.msg).find(GetParam().says), std::string::npos) << check.msg;
    EXPECT_EQ(info.dim, -7) << "outputs are set on success only";
    EXPECT_EQ(mill_encoder_open(dir.path().c_str(), &o, &enc, &open), GetParam().status);
    EXPECT_EQ(enc, nullptr);
    EXPECT_STREQ(check.msg, open.msg);
    EXPECT_EQ(mt::live(), live);
}

INSTANTIATE_TEST_SUITE_P(Mistakes, BadModel, testing::ValuesIn(kMistakes),
                         [](const auto &param) { return std::string(param.param.name); });

TEST(EncoderOptions, OutOfRange)
{
    Bert model(kSmallest);
    mt::TempDir dir;
    model.write(dir.path());
    mill_error err = {};
    mill_encoder_options o = MILL_ENCODER_INIT;
    o.precision = MILL_PRECISION_F16;
    EXPECT_EQ(mill_encoder_check(dir.path().c_str(), &o, nullptr, &err), MILL_ERR_UNSUPPORTED);
    EXPECT_NE(std::string(err.remedy).find("bf16"), std::string::npos);
    const mill_encoder_options defaults = MILL_ENCODER_INIT;
    o.precision = 9;
    EXPECT_EQ(mill_encoder_check(dir.path().c_str(), &o, nullptr, nullptr), MILL_ERR_INVALID);
    o = defaults, o.struct_size = 8;
    EXPECT_EQ(mill_encoder_check(dir.path().c_str(), &o, nullptr, nullptr), MILL_ERR_INVALID);
    o = defaults, o.max_tokens = -1;
    EXPECT_EQ(mill_encoder_check(dir.path().c_str(), &o, nullptr, nullptr), MILL_ERR_INVALID);
}

} // namespace
