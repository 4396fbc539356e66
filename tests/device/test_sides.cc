/* Columns of steps on devices that are on the host, too; and the step of the library that reads texts there. */
#include "device/lane_run.h"

#include <unistd.h>

#include <fstream>
#include <map>

extern "C" {
#include "stepmill/ops.h"
#include "steps/builtin.h"
#include "trace/tracer.h"
}

using namespace mt;

/* A column that somebody on the host reads is there, whoever else reads it; and where the others read it, too, so that it does not
 * go up again. */
TEST_P(Lane, ReadersOnTheHostSeeTheHost)
{
    for (int size : {100, 40}) {
        Pipe p;
        Behaviour looks;
        looks.uses = {{"y", "int64"}};
        looks.process = [](mill_replica *, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
            EXPECT_FALSE(mill_column_is_on_device(mill_batch_column(in[0], 0)));
            return mill_emit_pass(out, e);
        };
        uploads = 0;
        p.source("rows", 300, 50);
        p.add("reverse", MILL_STEP, {{"rows"}}, reverses(), gpu(100));
        p.add("looks", MILL_STEP, {{"reverse"}}, looks);
        p.add("again", MILL_STEP, {{"looks"}}, reverses_again(), gpu(size));
        p.sink("out", "looks");
        p.sink("out2", "again");
        ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
        expect_reversed(p, 300, 100);
        ASSERT_EQ(p.rows("out2").size(), 300u);
        for (size_t i = 0; i < 300; i++) {
            const size_t first = i / static_cast<size_t>(size) * static_cast<size_t>(size),
                         last = std::min<size_t>(first + static_cast<size_t>(size), 300) - 1;
            ASSERT_EQ(p.rows("out2")[i].values.at("z"), p.rows("out2")[first + last - i].values.at("y"));
        }
        p.destroy();
        if (!on_device) continue;
        EXPECT_EQ(uploads, size == 100 ? 3 : 4)
            << "x; and y of batches over a border of the first step's, which are put together on the host";
    }
}

/* Copies that are kept on the device for readers to come go where the step needs the room, and all rows stay right. */
TEST_P(Lane, CopiesKeptOnTheDeviceMakeRoom)
{
    enum { ROWS = 40000, BATCH = 500 };
    const auto fault = reinterpret_cast<void (*)(const char *, long, int, int)>(dlsym(RTLD_DEFAULT, "stm_sim_fault"));
    const auto clear = reinterpret_cast<void (*)()>(dlsym(RTLD_DEFAULT, "stm_sim_fault_clear"));
    Pipe p;
    Behaviour keeps; /* all that comes, until the end */
    std::vector<mill_column *> kept;
    int64_t sum = 0;
    keeps.flags = MILL_ON_DEVICE;
    keeps.adds = {{"n", "int64"}};
    keeps.accept = [&](mill_replica *, size_t, const mill_batch *in, mill_error *) -> mill_status {
        kept.push_back(mill_column_ref(mill_batch_column(in, 1))); /* x, y */
        for (int64_t i = 0; i < mill_batch_rows(in); i++) sum += value(in, 1, i);
        return MILL_OK;
    };
    keeps.finish = [&](mill_replica *r, mill_emit *out, mill_error *e) -> mill_status {
        int paired = 0;
        for (mill_column *c : kept) {
            mill_column *twin = nullptr;
            EXPECT_EQ(stm_column_twin(mill_replica_pool(r), c, &twin), MILL_OK);
            paired += twin != nullptr;
            mill_column_unref(&twin);
        }
        if (on_device && fault != nullptr) {
            EXPECT_GT(paired, 0);
            EXPECT_LT(paired, ROWS / BATCH) << "the others made room";
        }
        for (mill_column *c : kept) mill_column_unref(&c);
        return emit_int64(r, out, {sum}, e);
    };
    Pipe::Opts small = gpu(BATCH); /* a slab has room for 64 batches, and there is no other */
    small.policy = [](stm_policy *o) { o->gpus = 1, o->memory_bytes = 256 << 10; };
    p.source("rows", ROWS, BATCH);
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses([&](mill_batch *const *, mill_error *) -> mill_status {
              if (calls == 0 && fault != nullptr) fault("cudaMalloc", -1, 2, 0); /* out of memory */
              return MILL_OK;
          }),
          small);
    p.add("keeps", MILL_GLOBAL, {{"reverse"}}, keeps, gpu(0));
    p.sink("out", "keeps");
    const stm_run_end end = p.run(60);
    if (clear != nullptr) clear();
    ASSERT_EQ(end, STM_END_DONE) << p.error.msg;
    EXPECT_TRUE(p.errors.empty());
    ASSERT_EQ(p.rows("out").size(), 1u);
    EXPECT_EQ(p.rows("out")[0].values.at("n"), int64_t(ROWS) * (ROWS - 1) / 2);
}

/* The step of the library that reads texts on the host and signs them on the device: the numbers of the host. */
/* Rows rest in pinned memory as far as the pipeline lets them, and in other memory beyond that. */
TEST_P(Lane, PinnedMemoryHasALimit)
{
    enum { ROWS = 40000, BATCH = 500, LIMIT = 256 << 10 };
    Pipe p;
    Behaviour keeps; /* all that comes, until the end */
    std::vector<mill_column *> kept;
    int64_t sum = 0, pinned = 0, other = 0;
    keeps.adds = {{"n", "int64"}};
    keeps.accept = [&](mill_replica *, size_t, const mill_batch *in, mill_error *) -> mill_status {
        kept.push_back(mill_column_ref(mill_batch_column(in, 1))); /* x, y */
        return MILL_OK;
    };
    keeps.finish = [&](mill_replica *r, mill_emit *out, mill_error *e) -> mill_status {
        for (mill_column *c : kept) {
            const mill_view v = mill_column_view(c);
            bool on_pinned = false;
            stm_column_buffers(
                c, [](mill_buffer *b, void *to) { *static_cast<bool *>(to) = b->where == STM_MEM_PINNED; }, &on_pinned);
            (on_pinned ? pinned : other) += v.rows * 8;
            for (int64_t i = 0; i < v.rows; i++) sum += static_cast<const int64_t *>(v.data)[v.offset + i];
        }
        for (mill_column *c : kept) mill_column_unref(&c);
        return emit_int64(r, out, {sum}, e);
    };
    p.pinned_limit = LIMIT;
    p.source("rows", ROWS, BATCH);
    p.add("reverse", MILL_STEP, {{"rows"}}, reverses(), gpu(BATCH));
    p.add("keeps", MILL_GLOBAL, {{"reverse"}}, keeps, gpu(0));
    p.sink("out", "keeps");
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    EXPECT_TRUE(p.errors.empty());
    ASSERT_EQ(p.rows("out").size(), 1u);
    EXPECT_EQ(p.rows("out")[0].values.at("n"), int64_t(ROWS) * (ROWS - 1) / 2);
    EXPECT_EQ(pinned + other, ROWS * 8);
    if (!on_device) return;
    EXPECT_GT(pinned, LIMIT / 2);
    EXPECT_LE(pinned, LIMIT);
}

/* A device full of what a slower step has yet to read is no fault of the rows: they wait until some of it has come back. */
TEST_P(Lane, AFullDeviceWaitsForItsReaders)
{
    enum { ROWS = 15000, BATCH = 500 };
    const auto fault = reinterpret_cast<void (*)(const char *, long, int, int)>(dlsym(RTLD_DEFAULT, "stm_sim_fault"));
    const auto clear = reinterpret_cast<void (*)()>(dlsym(RTLD_DEFAULT, "stm_sim_fault_clear"));
    for (const int columns : {4, 7}) { /* of a batch: all that the slab has room for. The step's own, or with the input's */
        Pipe p;
        Behaviour makes;
        makes.flags = MILL_ON_DEVICE | (columns == 4 ? MILL_INPUTS_ON_HOST : 0);
        makes.uses = {{"x", "int64"}};
        makes.adds = {{"y", "int64"}};
        calls = 0;
        makes.process = [&](mill_replica *r, mill_batch *const *in, size_t, mill_emit *out, mill_error *e) -> mill_status {
            const size_t rows = static_cast<size_t>(mill_batch_rows(in[0]));
            const mill_view v = mill_column_view(mill_batch_column(in[0], 0));
            mill_buffer *data = nullptr;
            mill_status st = MILL_OK;
            if (calls++ == 2 && on_device && fault != nullptr) fault("cudaMalloc", -1, 2, 0); /* out of memory */
            if (!on_device) {
                std::vector<int64_t> same;
                for (size_t i = 0; i < rows; i++) same.push_back(value(in[0], 0, static_cast<int64_t>(i)));
                return emit_int64(r, out, same, e);
            }
            st = mill_replica_device_buffer(r, rows * 8, &data, e);
            if (st == MILL_OK)
                st = mt_lane_copy(r, mill_buffer_data(data), static_cast<const int64_t *>(v.data) + v.offset, rows * 8, e);
            if (st == MILL_OK) st = mt::emit_column(r, out, v.type, v.rows, &data, e);
            mill_buffer_unref(&data);
            return st;
        };
        Pipe::Opts small = gpu(BATCH);
        small.policy = [columns](stm_policy *o) { o->gpus = 1, o->memory_bytes = columns * 4096; };
        p.source("rows", ROWS, BATCH);
        p.add("makes", MILL_STEP, {{"rows"}}, makes, small);
        p.add("again", MILL_STEP, {{"makes"}}, reverses_again([](mill_batch *const *, mill_error *) -> mill_status {
                  std::this_thread::sleep_for(std::chrono::milliseconds(5));
                  return MILL_OK;
              }),
              gpu(BATCH));
        p.sink("out", "again");
        const stm_run_end end = p.run(60);
        if (clear != nullptr) clear();
        ASSERT_EQ(end, STM_END_DONE) << p.error.msg;
        ASSERT_TRUE(p.errors.empty()) << p.errors[0].error.msg;
        ASSERT_EQ(p.rows("out").size(), size_t(ROWS));
        for (size_t i = 0; i < ROWS; i++) {
            ASSERT_EQ(p.rows("out")[i].values.at("y"), static_cast<int64_t>(i));
            ASSERT_EQ(p.rows("out")[i].values.at("z"), static_cast<int64_t>(i / BATCH * BATCH + BATCH - 1 - i % BATCH));
        }
    }
}

TEST_P(Lane, SignaturesOfTexts)
{
    enum { ROWS = 75 };
    std::vector<std::string> texts;
    for (int i = 0; i < ROWS; i++)
        texts.push_back(
            i % 10 == 3 ? "" : std::string(static_cast<size_t>(i * i % 90), static_cast<char>('a' + i % 3)) + std::to_string(i));
    Pipe p;
    Behaviour source, compares;
    int64_t seen = 0;
    source.adds = {{"text", "utf8"}};
    source.generate = [&](mill_replica *r, int64_t max, mill_cursor *cursor, bool *last, mill_emit *out,
                          mill_error *e) -> mill_status {
        int64_t at = 0;
        if (cursor->size > 0) memcpy(&at, cursor->bytes, sizeof at);
        mill_builder *b = nullptr;
        mill_column *col = nullptr;
        mill_batch *made = nullptr;
        mill_status st = mill_builder_create(mill_replica_pool(r), mill_type_plain(MILL_UTF8), &b);
        const int64_t end = std::min<int64_t>(at + max, ROWS);
        for (int64_t i = at; i < end && st == MILL_OK; i++) {
            const std::string &t = texts[static_cast<size_t>(i)];
            st = i % 10 == 7 ? mill_builder_null(b) : mill_builder_text(b, t.data(), static_cast<int64_t>(t.size()));
        }
        if (st == MILL_OK) st = mill_builder_finish(b, &col);
        if (st == MILL_OK) st = mill_batch_create(mill_replica_pool(r), end - at, 1, &made);
        if (st == MILL_OK) st = mill_batch_set_column(made, 0, &col);
        if (st == MILL_OK) st = mill_emit_batch(out, &made, nullptr, e);
        mill_builder_destroy(&b);
        mill_column_unref(&col);
        mill_batch_destroy(&made);
        cursor->size = sizeof end;
        memcpy(cursor->bytes, &end, sizeof end);
        *last = end == ROWS;
        return st;
    };
    compares.write = [&](mill_replica *, const mill_batch *in, mill_error *e) -> mill_status { /* text, signature */
        const mill_column *signs = mill_batch_column(in, 1);
        for (int64_t i = 0; i < mill_batch_rows(in); i++, seen++) {
            const std::string &t = texts[static_cast<size_t>(seen)];
            const int64_t offsets[2] = {0, static_cast<int64_t>(t.size())};
            uint32_t want[MILL_MINHASHES];
            mill_minhash_args a = MILL_MINHASH_INIT;
            a.width = 5, a.seed = 3, a.bytes = t.data(), a.offsets = offsets, a.rows = 1, a.out = want;
            EXPECT_EQ(mill_minhash(&a, e), MILL_OK) << e->msg;
            EXPECT_EQ(mill_column_is_null(signs, i), t.empty() || seen % 10 == 7) << seen;
            if (mill_column_is_null(signs, i)) continue;
            const mill_view list = mill_column_view(signs), v = mill_column_view(list.children[0]);
            EXPECT_EQ(memcmp(static_cast<const int32_t *>(v.data) + v.offset + (list.offset + i) * MILL_MINHASHES, want,
                             sizeof want), 0) << seen;
        }
        return MILL_OK;
    };
    Pipe::Opts size;
    size.batch_rows = 20;
    p.add("texts", MILL_GENERATOR, {}, source, size);
    p.add_type("sign", &stm_step_minhash_text, {{"texts"}}, {{"shingle", {"5"}}, {"seed", {"3"}}}, gpu(16));
    p.add("out", MILL_SINK, {{"sign"}}, compares);
    ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
    EXPECT_TRUE(p.errors.empty());
    EXPECT_EQ(seen, ROWS);
}

/* A trace has what each stream of a replica had to do, batch by batch and one thing at a time. */
TEST_P(Lane, ATraceHasTheWorkOfItsStreams)
{
    enum { ROWS = 600, BATCH = 50 };
    const std::string path = "/tmp/stepmill-lane-trace-" + std::to_string(getpid()) + ".json";
    stm_tracer *tracer = nullptr;
    mill_error err = {};
    ASSERT_EQ(stm_tracer_create(path.c_str(), &tracer, &err), MILL_OK) << err.msg;
    {
        Pipe p;
        p.tracer = tracer;
        p.source("rows", ROWS, BATCH);
        p.add("reverse", MILL_STEP, {{"rows"}}, reverses(), gpu(BATCH, 2));
        p.sink("out", "reverse");
        ASSERT_EQ(p.run(60), STM_END_DONE) << p.error.msg;
        expect_reversed(p, ROWS, BATCH);
        p.destroy();
    }
    EXPECT_EQ(stm_tracer_finish(tracer, &err), MILL_OK) << err.msg;
    stm_tracer_destroy(&tracer);
    std::ifstream in(path);
    std::map<std::string, int> spans, tracks; /* by what is done there */
    std::map<int, std::vector<std::pair<double, double>>> by_track;
    for (std::string line; std::getline(in, line);) {
        char name[64] = "";
        int tid = 0;
        double ts = 0, dur = 0;
        if (sscanf(line.c_str(), "{\"ph\":\"X\",\"name\":\"%63[^\"]\",\"pid\":%*d,\"tid\":%d,\"ts\":%lf,\"dur\":%lf", name, &tid,
                   &ts, &dur) == 4 &&
            tid >= 10000) {
            spans[name]++;
            by_track[tid].push_back({ts, ts + dur});
        }
        if (sscanf(line.c_str(),
                   "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%*d,\"tid\":%d,\"args\":{\"name\":\"replica %*d, %63[^\"]\"",
                   &tid, name) == 2)
            tracks[name]++;
    }
    unlink(path.c_str());
    if (!on_device) {
        EXPECT_TRUE(spans.empty());
        return;
    }
    EXPECT_EQ(spans["kernels"], ROWS / BATCH);
    EXPECT_EQ(spans["copies to the device"], ROWS / BATCH);
    EXPECT_EQ(spans["copies to the host"], ROWS / BATCH);
    EXPECT_EQ(spans.size(), 3u);
    EXPECT_GE(tracks["kernels"], 1);
    for (auto &track : by_track) {
        std::sort(track.second.begin(), track.second.end());
        for (size_t i = 1; i < track.second.size(); i++)
            ASSERT_GE(track.second[i].first, track.second[i - 1].second - 0.002) << "a stream does one thing at a time";
    }
}
