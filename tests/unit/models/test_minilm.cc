/* all-MiniLM-L6-v2 against reference vectors: ours (tests/data/minilm, an independent forward pass in float64) and those of
 * sentence-transformers in the material outside the repository. */
#include "model_maker.h"

#include "minilm.h"
#include "support/sanitized.h"

extern "C" {
#include "models/json.h"
#include "models/tokenizers/wordpiece.h"
#include "stepmill/model.h"
}

namespace {

struct Row {
    std::string text;
    int max_tokens = 256;
    std::vector<int32_t> ids;
    std::vector<double> vector;
};

std::vector<Row> read_rows(const std::string &path)
{
    std::vector<Row> rows;
    std::ifstream in(path);
    for (std::string line; std::getline(in, line);) {
        stm_json *doc = nullptr;
        mill_error err = {};
        EXPECT_EQ(stm_json_parse(line.data(), line.size(), path.c_str(), &doc, &err), MILL_OK) << err.msg;
        if (doc == nullptr) return rows;
        const stm_json_value root = stm_json_root(doc);
        Row r;
        size_t bytes = 0;
        const char *text = stm_json_text(stm_json_get(root, "text"), &bytes);
        r.text.assign(text, bytes);
        r.max_tokens = int(stm_json_int(stm_json_get(root, "max_tokens"), 256));
        stm_json_each(
            stm_json_get(root, "ids"),
            [](void *u, const char *, size_t, stm_json_value v) {
                static_cast<Row *>(u)->ids.push_back(int32_t(stm_json_int(v, -1)));
                return true;
            },
            &r);
        stm_json_each(
            stm_json_get(root, "embedding"),
            [](void *u, const char *, size_t, stm_json_value v) {
                static_cast<Row *>(u)->vector.push_back(stm_json_float(v, NAN));
                return true;
            },
            &r);
        rows.push_back(r);
        stm_json_close(&doc);
    }
    return rows;
}

void expect_ids(const std::string &model, const std::vector<Row> &rows)
{
    stm_wordpiece *tok = nullptr;
    mill_error err = {};
    ASSERT_EQ(stm_wordpiece_open(model.c_str(), &tok, &err), MILL_OK) << err.msg;
    for (const Row &r : rows) {
        std::vector<int32_t> ids(size_t(r.max_tokens), -1);
        ids.resize(size_t(stm_wordpiece_encode(tok, r.text.data(), int64_t(r.text.size()), r.max_tokens, ids.data())));
        EXPECT_EQ(ids, r.ids) << r.text.substr(0, 80);
    }
    stm_wordpiece_close(&tok);
}

void expect_vectors(const std::string &model, const std::vector<Row> &rows, int precision)
{
    mill_encoder_options holder_options = MILL_ENCODER_INIT;
    holder_options.precision = precision;
    mill_encoder *holder = nullptr; /* the others share its weights */
    ASSERT_EQ(mill_encoder_open(model.c_str(), &holder_options, &holder, nullptr), MILL_OK);
    for (const Row &r : rows) {
        /* under a sanitizer the long ones take long and show nothing more */
        if (r.ids.size() > mt::rounds<size_t>(512, 60)) continue;
        mill_encoder_options o = MILL_ENCODER_INIT;
        o.precision = precision, o.max_tokens = r.max_tokens;
        mill_encoder *enc = nullptr;
        mill_error err = {};
        ASSERT_EQ(mill_encoder_open(model.c_str(), &o, &enc, &err), MILL_OK) << err.msg;
        const int64_t offsets[] = {0, int64_t(r.text.size())};
        const mill_texts in = {r.text.data(), offsets, nullptr, 0, 1};
        std::vector<float> out(384);
        ASSERT_EQ(mill_encoder_run(enc, &in, out.data(), &err), MILL_OK) << err.msg;
        mill_encoder_close(&enc);
        double ab = 0, aa = 0, bb = 0, most = 0;
        ASSERT_EQ(r.vector.size(), out.size());
        for (size_t i = 0; i < out.size(); i++) {
            ab += out[i] * r.vector[i], aa += double(out[i]) * out[i], bb += r.vector[i] * r.vector[i];
            most = std::max(most, std::fabs(out[i] - r.vector[i]));
        }
        if (precision == MILL_PRECISION_F32) {
            EXPECT_LE(most, 1e-5) << r.text.substr(0, 80);
            EXPECT_GE(ab / std::sqrt(aa * bb), 0.99999);
        } else {
            EXPECT_GE(ab / std::sqrt(aa * bb), 0.9999) << r.text.substr(0, 80);
        }
    }
    mill_encoder_close(&holder);
}

class MiniLM : public testing::TestWithParam<const char *> {
protected:
    void SetUp() override
    {
        model_ = mt::minilm();
        if (model_.empty()) GTEST_SKIP() << "the model all-MiniLM-L6-v2 is not there: run scripts/model.sh";
        path_ = strcmp(GetParam(), "own") == 0 ? STEPMILL_SOURCE_DIR "/tests/data/minilm/texts.jsonl"
                                               : mt::shared("references/minilm/reference.jsonl");
        if (path_.empty()) GTEST_SKIP() << "STEPMILL_SHARED does not lead to references/minilm";
        rows_ = read_rows(path_);
        ASSERT_GE(rows_.size(), 15u);
    }
    std::string model_, path_;
    std::vector<Row> rows_;
};

TEST_P(MiniLM, TokenIdsAreEqual) { expect_ids(model_, rows_); }
TEST_P(MiniLM, VectorsAgreeInF32) { expect_vectors(model_, rows_, MILL_PRECISION_F32); }
TEST_P(MiniLM, VectorsAgreeInBf16) { expect_vectors(model_, rows_, MILL_PRECISION_BF16); }

TEST_P(MiniLM, SameBitsInAnyCompany)
{
    for (int precision : {MILL_PRECISION_F32, MILL_PRECISION_BF16}) {
        mt::Texts texts, backwards;
        const size_t longest = mt::rounds<size_t>(100, 30); /* tokens; the longer ones show nothing more */
        int64_t n = 0;
        for (const Row &r : rows_)
            if (r.ids.size() < longest) texts.add(r.text), n++;
        for (auto r = rows_.rbegin(); r != rows_.rend(); ++r)
            if (r->ids.size() < longest) backwards.add(r->text);
        std::vector<std::vector<float>> got;
        for (int threads : {1, 2}) {
            mill_encoder_options o = MILL_ENCODER_INIT;
            o.precision = precision, o.threads = threads;
            mill_encoder *enc = nullptr;
            ASSERT_EQ(mill_encoder_open(model_.c_str(), &o, &enc, nullptr), MILL_OK);
            for (int64_t size : {n, int64_t(1), int64_t(5)}) {
                std::vector<float> out(size_t(n) * 384);
                for (int64_t first = 0; first < n; first += size) {
                    const mill_texts in = {texts.data.data(), texts.offsets.data(), nullptr, first, std::min(size, n - first)};
                    ASSERT_EQ(mill_encoder_run(enc, &in, out.data() + first * 384, nullptr), MILL_OK);
                }
                got.push_back(out);
            }
            std::vector<float> last_first(size_t(n) * 384), turned;
            const mill_texts in = {backwards.data.data(), backwards.offsets.data(), nullptr, 0, n};
            ASSERT_EQ(mill_encoder_run(enc, &in, last_first.data(), nullptr), MILL_OK);
            for (int64_t i = n - 1; i >= 0; i--)
                turned.insert(turned.end(), last_first.begin() + i * 384, last_first.begin() + (i + 1) * 384);
            got.push_back(turned);
            mill_encoder_close(&enc);
        }
        for (const auto &g : got) EXPECT_EQ(memcmp(g.data(), got[0].data(), g.size() * 4), 0);
    }
}

INSTANTIATE_TEST_SUITE_P(References, MiniLM, testing::Values("own", "shared"),
                         [](const auto &param) { return std::string(param.param); });

} // namespace
