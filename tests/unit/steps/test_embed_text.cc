/* embed_text in whole runs, on small generated models. */
#include <atomic>
#include <cstdlib>

#include "../models/model_maker.h"

#include "support/chain.h"

extern "C" {
#include "stepmill/model.h"
#include "support/wrapper_peek.h"
}

using mt::Bert;
using mt::BertShape;
using mt::Chain;
using mt::Folder;
using mt::Params;
using mt::Value;

static std::atomic<long> g_mallocs; /* of the whole process, whoever calls */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define COUNTS 0
#endif
#endif
#ifndef COUNTS
#define COUNTS 1
extern "C" void *__libc_malloc(size_t);
extern "C" void *__libc_realloc(void *, size_t);
extern "C" void *__libc_memalign(size_t, size_t);
extern "C" void *malloc(size_t n)
{
    g_mallocs.fetch_add(1, std::memory_order_relaxed);
    return __libc_malloc(n);
}
extern "C" void *realloc(void *p, size_t n)
{
    g_mallocs.fetch_add(1, std::memory_order_relaxed);
    return __libc_realloc(p, n);
}
extern "C" void *aligned_alloc(size_t align, size_t n)
{
    g_mallocs.fetch_add(1, std::memory_order_relaxed);
    return __libc_memalign(align, n);
}
#endif

namespace {

const BertShape kShape = {"small", 2, 48, 3, 96, 40, 32, 2, false, false, true, 1e-12};

std::string rows(int n)
{
    std::string in;
    for (int i = 0; i < n; i++) {
        std::string text;
        for (int w = 0; w < (i * 7) % 40; w++) text += " w" + std::to_string(5 + (i + w * 3) % 40);
        in += i % 11 == 3 ? "{\"text\":null}\n" : "{\"text\":\"" + text + "\"}\n";
    }
    return in;
}

struct Outcome {
    std::string out, columns;
    mill_error error = {};
    long mallocs = 0;
};

Outcome run(const std::string &model, const std::string &in, const Params &more = {}, int32_t replicas = 1, int64_t batch_rows = 64)
{
    Folder f;
    Chain c;
    Chain::Opts reader, step;
    Outcome o;
    c.dir = f.path;
    reader.batch_rows = batch_rows, step.replicas = replicas;
    Params p = {{"model", model}};
    p.insert(p.end(), more.begin(), more.end());
    c.add("in", "read_jsonl", {{"path", f.put("in.jsonl", in)}, {"extra", ""}, {"columns", Value::map({{"text", "utf8"}})}},
          reader);
    c.add("embed", "embed_text", p, step).add("out", "write_jsonl", {{"path", "out.jsonl"}});
    o.error = c.error;
    if (c.error.status != MILL_OK) return o;
    o.columns = c.columns("embed");
    const long before = g_mallocs;
    EXPECT_EQ(c.run(), STM_END_DONE) << c.error.msg;
    o.mallocs = g_mallocs - before;
    EXPECT_TRUE(c.errors.empty()) << c.errors[0].error.msg;
    o.out = f.get("out.jsonl");
    return o;
}

TEST(EmbedText, VectorsOfTextsNullsOfNulls)
{
    Bert model(kShape);
    mt::TempDir dir;
    model.write(dir.path());
    const Outcome o = run(dir.path(), "{\"text\":\"w5 w6\"}\n{\"text\":null}\n{\"text\":\"\"}\n");
    EXPECT_EQ(o.columns, "text utf8, embedding fixed_list<float32>[48]");
    const auto want = model.embed({2, 5, 6, 3});
    const char *at = strstr(o.out.c_str(), "\"embedding\":[");
    ASSERT_NE(at, nullptr) << o.out;
    at += strlen("\"embedding\":[");
    for (double v : want) {
        char *end = nullptr;
        EXPECT_NEAR(strtod(at, &end), v, 2e-5);
        at = end + 1;
    }
    EXPECT_NE(o.out.find("{\"text\":null,\"embedding\":null}"), std::string::npos) << o.out;
}

TEST(EmbedText, SameBytesForAnyReplicasAndBatches)
{
    Bert model(kShape);
    mt::TempDir dir;
    model.write(dir.path());
    const std::string in = rows(150);
    for (const char *precision : {"f32", "bf16"}) {
        const Params p = {{"precision", precision}};
        const std::string want = run(dir.path(), in, p).out;
        EXPECT_GT(want.size(), 10000u);
        EXPECT_EQ(run(dir.path(), in, p, 3, 64).out, want);
        EXPECT_EQ(run(dir.path(), in, p, 2, 7).out, want);
        EXPECT_EQ(run(dir.path(), in, p, 1, 1).out, want);
    }
}

TEST(EmbedText, FaultsNameTheParameter)
{
    Bert model(kShape);
    mt::TempDir good, truncated, typed;
    model.write(good.path());
    model.write(truncated.path());
    model.write(typed.path());
    const std::string bytes = mt::read_file(truncated.path() + "/model.safetensors");
    mt::write_file(truncated.path() + "/model.safetensors", bytes.substr(0, bytes.size() / 2));
    std::string other = bytes;
    for (size_t at = 0; (at = other.find("\"F32\"", at)) != std::string::npos;) other.replace(at, 5, "\"I32\"");
    mt::write_file(typed.path() + "/model.safetensors", other);
    const struct {
        const char *name;
        std::string dir;
        Params params;
        mill_status status;
        const char *field, *says;
    } cases[] = {
        {"no folder", "/nowhere/model", {}, MILL_ERR_NOT_FOUND, "model", "cannot find /nowhere/model"},
        {"truncated", truncated.path(), {}, MILL_ERR_PARSE, "model", "it is truncated"},
        {"wrong dtype", typed.path(), {}, MILL_ERR_TYPE, "model", "has dtype I32, expected F32, F16 or BF16"},
        {"too many tokens", good.path(), {{"max_tokens", "33"}}, MILL_ERR_INVALID, "max_tokens", "the model has 32 positions"},
        {"too few tokens", good.path(), {{"max_tokens", "2"}}, MILL_ERR_INVALID, "max_tokens", "2 are special tokens"},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.name);
        const Outcome o = run(c.dir, rows(3), c.params);
        EXPECT_EQ(o.error.status, c.status) << o.error.msg;
        EXPECT_NE(std::string(o.error.msg).find(c.says), std::string::npos) << o.error.msg;
        EXPECT_STREQ(o.error.field, c.field);
    }
}

TEST(EmbedText, F16IsF32WhereThereIsNoDevice)
{
    Bert model(kShape);
    mt::TempDir dir;
    model.write(dir.path());
    const Outcome f16 = run(dir.path(), rows(20), {{"precision", "f16"}});
    EXPECT_EQ(f16.out, run(dir.path(), rows(20), {{"precision", "f32"}}).out);
    EXPECT_NE(f16.out.find("\"embedding\":["), std::string::npos);
}

TEST(EmbedText, NumericsReachTheEncoder)
{
    Bert model(kShape);
    mt::TempDir dir;
    model.write(dir.path());
    for (mill_numerics asked : {MILL_NUMERICS_INVARIANT, MILL_NUMERICS_FAST}) {
        Folder f;
        Chain c;
        Chain::Opts step;
        c.dir = f.path;
        step.numerics = asked;
        c.add("in", "read_jsonl", {{"path", f.put("in.jsonl", rows(3))}});
        c.add("embed", "embed_text", {{"model", dir.path()}}, step);
        ASSERT_EQ(c.error.status, MILL_OK) << c.error.msg;
        int32_t found = -1;
        c.with_replica("embed", [&](stm_wrapper *w) {
            found = mill_encoder_info_of(static_cast<mill_encoder *>(mt_wrapper_state(w))).numerics;
        });
        EXPECT_EQ(found, asked);
    }
}

#if COUNTS /* sanitizers bring their own allocator: nothing to count */
TEST(EmbedText, NoMallocPerBatch)
{
    Bert model(kShape);
    mt::TempDir dir;
    model.write(dir.path());
    std::vector<long> few, many;
    for (int i = 0; i < 3; i++) { /* 1,500 batches and 3,000: what both need is start and warm-up */
        few.push_back(run(dir.path(), rows(24000), {}, 2, 16).mallocs);
        many.push_back(run(dir.path(), rows(48000), {}, 2, 16).mallocs);
    }
    const long least_few = *std::min_element(few.begin(), few.end()), least_many = *std::min_element(many.begin(), many.end());
    printf("mallocs in the whole process: %ld for 1,500 batches, %ld for 3,000\n", least_few, least_many);
    EXPECT_GT(least_few, 50) << "the counter counts";
    /* None per batch. What may come is a pool class that reaches a new most of live blocks, as replicas overlap in a way they had
     * not yet: it then makes up to 64 small blocks at once (AHEAD in engine/memory/pool.c), and never again so many. */
    EXPECT_LE(least_many - least_few, 5 * 64) << "more than five such growths in 1,500 batches; a malloc per batch would be 1,500";
}
#endif

} // namespace
