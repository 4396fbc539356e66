/* The encoder on devices: the vectors of a double reference, the same bits in any company, graphs, failures at every call, and
 * embed_text in whole runs. On `cpu` its layers are the oracles of the kernels, so that the order of things is tested without
 * CUDA. */
#include "device/backend.h"
#include "support/chain.h"
#include "support/fail_nth.h"
#include "unit/models/model_maker.h"

#include <dlfcn.h>

extern "C" {
#include "kernels/kernels.h"
#include "models/encoder/device_forward.h"
#include "stepmill/model.h"
}

using namespace mt;

namespace {

const BertShape kShapes[] = {
    {"head_dim_32", 2, 64, 2, 96, 40, 80, 2, false, false, true, 1e-12},
    {"head_dim_7_odd_everywhere", 2, 21, 3, 33, 31, 19, 1, true, false, true, 1e-7},
    {"first_token", 2, 48, 3, 40, 30, 24, 3, false, true, false, 1e-12},
};

const BertShape kTiny = {"tiny", 1, 8, 1, 8, 20, 8, 1, false, false, true, 1e-12};

double cosine(const float *a, const double *b, size_t n)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < n; i++) ab += a[i] * b[i], aa += double(a[i]) * a[i], bb += b[i] * b[i];
    return ab / std::sqrt(aa * bb);
}

/* Texts of given numbers of words; ids as the encoder has them. */
struct Corpus {
    Texts texts;
    std::vector<std::string> all;
    std::vector<std::vector<int>> ids;
    Corpus(const BertShape &s, const std::vector<int> &words)
    {
        for (size_t d = 0; d < words.size(); d++) {
            std::string text;
            std::vector<int> row = {2};
            for (int i = 0; i < words[d]; i++) {
                const int id = 5 + (i * 7 + int(d) * 3) % (s.vocabulary - 5);
                text += " w" + std::to_string(id);
                if (int(row.size()) < s.positions - 1) row.push_back(id);
            }
            row.push_back(3);
            texts.add(text);
            all.push_back(text);
            ids.push_back(row);
        }
    }
};

class DeviceEncoder : public ::testing::TestWithParam<const char *> {
protected:
    void SetUp() override
    {
        std::string why;
        ops = backend(GetParam(), &why);
        if (ops == nullptr) GTEST_SKIP() << GetParam() << ": " << why;
        dev = std::make_unique<Device>(ops);
        stream = std::make_unique<Stream>(*dev);
        mill_error err = {};
        stm_linear_opts o = {};
        stm_linear *l = nullptr;
        const stm_kernels *k = stm_kernels_of(ops);
        ASSERT_NE(k, nullptr);
        ASSERT_EQ(stm_device_enter(*dev, nullptr), MILL_OK);
        const mill_status st = k->linear_open(&o, &l, &err);
        if (st == MILL_ERR_UNSUPPORTED && getenv("STM_TEST_DEVICES") == nullptr) GTEST_SKIP() << err.msg; /* no cuBLASLt */
        ASSERT_EQ(st, MILL_OK) << err.msg;
        k->linear_close(&l);
    }
    void TearDown() override
    {
        stream.reset();
        dev.reset();
    }
    mill_encoder_options options(int precision, int numerics = MILL_NUMERICS_INVARIANT, int tokens = 128)
    {
        mill_encoder_options o = MILL_ENCODER_INIT;
        o.precision = precision, o.numerics = numerics, o.device_tokens = tokens, o.threads = 2;
        o.queue = static_cast<stm_stream *>(*stream);
        return o;
    }
    struct Opened {
        mill_encoder *enc = nullptr;
        mill_error err = {};
        Opened(const std::string &dir, const mill_encoder_options &o)
        {
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
    /* What fails is the same in every order of a kernel's threads, and in the swap run: sweeps are made in one order, and on a
     * GPU. */
    static bool sweeps()
    {
        const char *order = getenv("STM_SIM_ORDER");
        return order != nullptr ? strcmp(order, "fwd") == 0 : getenv("STM_TEST_DEVICES") == nullptr;
    }
    bool graphs() const { return ops->graph_begin != nullptr; }

    const stm_device_ops *ops = nullptr;
    std::unique_ptr<Device> dev;
    std::unique_ptr<Stream> stream;
};

} // namespace

TEST_P(DeviceEncoder, AgreesWithADoubleReference)
{
    for (const BertShape &s : kShapes) {
        Bert model(s);
        TempDir dir;
        model.write(dir.path());
        const Corpus c(s, {0, 1, 5, s.positions - 3, s.positions + 9, 3, 17});
        std::vector<std::vector<double>> want;
        for (const auto &ids : c.ids) want.push_back(model.embed(ids));
        for (int precision : {MILL_PRECISION_F32, MILL_PRECISION_BF16, MILL_PRECISION_F16}) {
            SCOPED_TRACE(std::string(s.name) + (precision == MILL_PRECISION_F32    ? " f32"
                                                : precision == MILL_PRECISION_BF16 ? " bf16"
                                                                                   : " f16"));
            const std::vector<float> got = Opened(dir.path(), options(precision)).run(c.texts);
            double least = 1;
            for (size_t d = 0; d < want.size(); d++) {
                const size_t n = want[d].size();
                least = std::min(least, cosine(&got[d * n], want[d].data(), n));
                for (size_t i = 0; i < n && precision == MILL_PRECISION_F32; i++)
                    ASSERT_NEAR(got[d * n + i], want[d][i], 2e-5) << d << " " << i;
            }
            std::printf("%s precision %d: cosine %.7f\n", s.name, precision, least);
            EXPECT_GE(least, precision == MILL_PRECISION_F32 ? 0.99999 : 0.9999);
        }
    }
}

/* numerics: invariant. Whatever goes along, in whatever order, in groups of whatever size, directly or as a graph. */
TEST_P(DeviceEncoder, SameBitsInAnyCompany)
{
    const BertShape &s = kShapes[0];
    Bert model(s);
    TempDir dir;
    model.write(dir.path());
    std::vector<int> words;
    for (int i = 0; i < 6; i++) words.push_back((i * 29) % s.positions);
    const Corpus c(s, words);
    for (int precision : {MILL_PRECISION_F32, MILL_PRECISION_BF16}) {
        Opened a(dir.path(), options(precision, MILL_NUMERICS_INVARIANT, 256)),
            b(dir.path(), options(precision, MILL_NUMERICS_INVARIANT, 80));
        const std::vector<float> all = a.run(c.texts);
        const size_t dim = all.size() / words.size();
        std::vector<std::string> backwards(c.all.rbegin(), c.all.rend());
        const std::vector<float> back = b.run(Texts(backwards)), again = a.run(c.texts), third = a.run(c.texts);
        EXPECT_EQ(memcmp(all.data(), again.data(), all.size() * 4), 0) << "as a graph";
        EXPECT_EQ(memcmp(all.data(), third.data(), all.size() * 4), 0) << "as a graph, again";
        for (size_t i = 0; i < words.size(); i++) {
            EXPECT_EQ(memcmp(&all[i * dim], &back[(words.size() - 1 - i) * dim], dim * 4), 0) << "order, document " << i;
            if (i % 4 == 0) {
                const std::vector<float> alone = b.run(c.texts, int64_t(i), 1);
                EXPECT_EQ(memcmp(&all[i * dim], alone.data(), dim * 4), 0) << "alone, document " << i;
            }
        }
        /* fast: the same to rounding */
        const std::vector<float> fast = Opened(dir.path(), options(precision, MILL_NUMERICS_FAST)).run(c.texts);
        for (size_t i = 0; i < all.size(); i++) ASSERT_NEAR(fast[i], all[i], precision == MILL_PRECISION_F32 ? 2e-6 : 0.02);
    }
}

TEST_P(DeviceEncoder, NullAndEmptyTexts)
{
    Bert model(kShapes[0]);
    TempDir dir;
    model.write(dir.path());
    Opened o(dir.path(), options(MILL_PRECISION_F32));
    Texts t({"w5", "", "w6 w7", "w8"});
    const uint8_t validity = 0x0d; /* text 1 is null */
    std::vector<float> out(3 * 64, NAN);
    const mill_texts in = {t.data.data(), t.offsets.data(), &validity, 1, 3};
    ASSERT_EQ(mill_encoder_run(o.enc, &in, out.data(), nullptr), MILL_OK);
    for (size_t i = 0; i < 64; i++) EXPECT_EQ(out[i], 0.0f);
    const auto all = o.run(t);
    EXPECT_EQ(memcmp(&out[64], &all[2 * 64], 2 * 64 * 4), 0);
    const auto want = model.embed({2, 3});
    for (size_t i = 0; i < 64; i++) EXPECT_NEAR(all[64 + i], want[i], 2e-5);
    const mill_texts none = {nullptr, t.offsets.data(), nullptr, 0, 0};
    EXPECT_EQ(mill_encoder_run(o.enc, &none, nullptr, nullptr), MILL_OK);
}

TEST_P(DeviceEncoder, GraphsAndSteadyState)
{
    const BertShape &s = kTiny;
    Bert model(s);
    TempDir dir;
    model.write(dir.path());
    const Corpus c(s, {3, 2, 1, 4, 0});
    Opened a(dir.path(), options(MILL_PRECISION_F32));
    const stm_device_counts opened = stm_device_counts_of(*dev);
    Opened b(dir.path(),
             options(MILL_PRECISION_F32, MILL_NUMERICS_INVARIANT, 256)); /* finds the weights there: work space and products only */
    const stm_device_counts shared = stm_device_counts_of(*dev);
    EXPECT_EQ(shared.copied_bytes, opened.copied_bytes);
    EXPECT_LE(shared.allocs - opened.allocs, 1);
    for (int i = 0; i < 2; i++) a.run(c.texts);
    const stm_device_counts warm = stm_device_counts_of(*dev);
    for (int i = 0; i < 6; i++) a.run(c.texts);
    const stm_device_counts after = stm_device_counts_of(*dev);
    EXPECT_EQ(after.allocs, warm.allocs);
    EXPECT_EQ(after.events, warm.events);
    if (graphs()) {
        EXPECT_EQ(warm.graphs - shared.graphs, 1) << "the second group of a size";
        EXPECT_EQ(after.graphs, warm.graphs);
        EXPECT_EQ(after.launches - warm.launches, 6);
        for (int round = 0; round < 2; round++) /* more sizes than are kept */
            for (int n = 1, tokens = 8; n <= STM_DEVICE_GRAPHS + 3; n++, tokens += n > 16 ? 16 : 8) {
                Texts t;
                for (int d = 0; d < tokens / 8; d++) t.add("w5 w6 w7 w5 w6 w7"); /* and [CLS] [SEP] */
                b.run(t);
            }
        EXPECT_EQ(stm_device_counts_of(*dev).graphs, after.graphs) << "seen once before they were forgotten";
    }
}

TEST_P(DeviceEncoder, Buckets)
{
    int64_t before = 0;
    for (int64_t n = 1; n <= 20000; n++) {
        const int64_t b = stm_device_bucket(n, 16384);
        ASSERT_GE(b, std::min<int64_t>(n, 16384));
        ASSERT_GE(b, before);
        ASSERT_LE(b, n + std::max<int64_t>(n / 8, 7));
        before = b;
    }
    EXPECT_EQ(stm_device_bucket(0, 100), 8);
}

/* Every call of a device or allocation fails once: the right vectors, or an error that says something; nothing leaks. */
TEST_P(DeviceEncoder, EveryCallFailsOnce)
{
    Bert model(kTiny);
    TempDir dir;
    model.write(dir.path());
    const Corpus c(kTiny, {1, 3});
    const std::vector<float> want = Opened(dir.path(), options(MILL_PRECISION_F32)).run(c.texts);
    int refused = 0, failed = 0;
    if (!sweeps()) return;
    for (int nth = 0;; nth++) {
        stream = std::make_unique<Stream>(*dev);
        const long before = live();
        bool fired;
        {
            mill_encoder *enc = nullptr;
            mill_error err = {};
            const mill_encoder_options o = options(MILL_PRECISION_F32);
            FailNth fail(nth, STM_FAULT_DEVICE | STM_FAULT_ALLOC | STM_FAULT_LOAD | STM_FAULT_THREAD);
            mill_status st = mill_encoder_open(dir.path().c_str(), &o, &enc, &err);
            if (st != MILL_OK) {
                EXPECT_EQ(enc, nullptr);
                EXPECT_STRNE(err.msg, "") << nth;
                refused++;
            }
            for (int i = 0; i < 3 && st == MILL_OK; i++) { /* pieces, a graph, a graph again */
                std::vector<float> out(want.size(), NAN);
                const mill_texts in = {c.texts.data.data(), c.texts.offsets.data(), nullptr, 0, 2};
                st = mill_encoder_run(enc, &in, out.data(), &err);
                if (st == MILL_OK) {
                    EXPECT_EQ(memcmp(out.data(), want.data(), want.size() * 4), 0) << nth;
                } else {
                    EXPECT_STRNE(err.msg, "") << nth;
                    failed++;
                    stm_stream_sync(*stream, nullptr);
                    mill_error none = {};
                    EXPECT_EQ(mill_encoder_run(enc, &in, out.data(), &none), MILL_OK)
                        << nth << ": not well afterwards: " << none.msg;
                }
            }
            fired = fail.fired();
            mill_encoder_close(&enc);
        }
        EXPECT_EQ(live(), before) << "leak when point " << nth << " fails";
        if (!fired) break;
        ASSERT_LT(nth, 1000);
    }
    EXPECT_GT(refused, 10);
    EXPECT_GT(failed, 10);
    std::printf("%d opens refused, %d calls failed\n", refused, failed);
}

/* The same with the codes of the libraries themselves, which may mean that the device is lost. Simulated devices only. */
TEST_P(DeviceEncoder, LibrariesFailOnce)
{
    auto fault = reinterpret_cast<void (*)(const char *, long, int, int)>(dlsym(RTLD_DEFAULT, "stm_sim_fault"));
    auto fired = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "stm_sim_fault_fired"));
    auto clear = reinterpret_cast<void (*)()>(dlsym(RTLD_DEFAULT, "stm_sim_fault_clear"));
    if (fault == nullptr || std::string(GetParam()) == "cpu" || !sweeps()) return;
    Bert model(kTiny);
    TempDir dir;
    model.write(dir.path());
    const Corpus c(kTiny, {1, 3});
    for (const char *calls : {"cuda*", "cublas*"}) {
        int failed = 0;
        for (int nth = 1;; nth++) {
            stream.reset();
            dev = std::make_unique<Device>(ops);
            stream = std::make_unique<Stream>(*dev);
            mill_encoder *enc = nullptr;
            mill_error err = {};
            const mill_encoder_options o = options(MILL_PRECISION_F32);
            fault(calls, nth, 0, 0);
            mill_status st = mill_encoder_open(dir.path().c_str(), &o, &enc, &err);
            for (int i = 0; i < 3 && st == MILL_OK; i++) {
                std::vector<float> out(16, NAN);
                const mill_texts in = {c.texts.data.data(), c.texts.offsets.data(), nullptr, 0, 2};
                st = mill_encoder_run(enc, &in, out.data(), &err);
            }
            if (st != MILL_OK) {
                failed++;
                EXPECT_STRNE(err.msg, "") << calls << " " << nth;
            }
            const bool hit = fired() != 0;
            clear();
            mill_encoder_close(&enc);
            if (!hit) break;
            ASSERT_LT(nth, 1000);
        }
        std::printf("%s: %d failures\n", calls, failed);
        EXPECT_GT(failed, 10) << calls;
    }
}

/* embed_text with `resources: {gpus: 1}`: the rows that it has on the CPU, in order, nulls where texts are null. */
TEST_P(DeviceEncoder, EmbedTextInARun)
{
    const BertShape s = {"small", 2, 48, 3, 64, 40, 32, 2, false, false, true, 1e-12};
    Bert model(s);
    TempDir dir;
    model.write(dir.path());
    std::string in;
    for (int i = 0; i < 40; i++) {
        std::string text;
        for (int w = 0; w < (i * 7) % 30; w++) text += " w" + std::to_string(5 + (i + w * 3) % 35);
        in += i % 11 == 3 ? "{\"text\":null}\n" : "{\"text\":\"" + text + "\"}\n";
    }
    auto vectors = [&](int gpus, int replicas, int64_t rows, const char *precision, std::vector<bool> *present) {
        Folder f;
        Chain c;
        Chain::Opts reader, step;
        std::vector<float> out;
        c.dir = f.path;
        reader.batch_rows = rows, step.replicas = replicas, step.gpus = gpus;
        c.add("in", "read_jsonl", {{"path", f.put("in.jsonl", in)}, {"extra", ""}, {"columns", Value::map({{"text", "utf8"}})}},
              reader);
        c.add("embed", "embed_text", {{"model", dir.path()}, {"precision", precision}}, step)
            .add("out", "write_jsonl", {{"path", "out.jsonl"}});
        EXPECT_EQ(c.error.status, MILL_OK) << c.error.msg;
        EXPECT_EQ(c.run(60), STM_END_DONE) << c.error.msg;
        EXPECT_TRUE(c.errors.empty()) << c.errors[0].error.msg;
        std::string text = f.get("out.jsonl");
        for (size_t at = 0; (at = text.find("\"embedding\":", at)) != std::string::npos;) {
            at += strlen("\"embedding\":");
            present->push_back(text[at] == '[');
            if (text[at] != '[') continue;
            const char *p = text.c_str() + at + 1;
            for (int i = 0; i < 48; i++) {
                char *end = nullptr;
                out.push_back(strtof(p, &end));
                p = end + 1;
            }
        }
        return out;
    };
    std::vector<bool> there;
    const std::vector<float> want = vectors(0, 1, 16, "f32", &there);
    ASSERT_EQ(there.size(), 40u);
    for (const char *precision : {"f32", "f16"}) {
        std::vector<bool> present, again;
        const std::vector<float> got = vectors(1, 1, 16, precision, &present), other = vectors(1, 2, 7, precision, &again);
        EXPECT_EQ(present, there);
        ASSERT_EQ(got.size(), want.size());
        for (size_t i = 0; i < want.size(); i++) ASSERT_NEAR(got[i], want[i], precision[1] == '3' ? 2e-5 : 5e-3) << i;
        EXPECT_EQ(got, other) << "other batches, two replicas";
    }
}

INSTANTIATE_TEST_SUITE_P(Backends, DeviceEncoder, ::testing::Values(mt::suite_for()),
                         [](const auto &i) { return std::string(i.param); });
