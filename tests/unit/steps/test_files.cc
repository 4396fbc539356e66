#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

extern "C" {
#include "steps/io/lines.h"
#include "steps/io/output.h"
#include "steps/io/parts.h"
}
#include "support/temp_dir.h"

namespace {

class Files : public ::testing::Test {
protected:
    std::string put(const std::string &name, const std::string &bytes) const
    {
        std::ofstream(dir + "/" + name, std::ios::binary) << bytes;
        return dir + "/" + name;
    }
    mt::TempDir folder;
    std::string dir{folder.path()};
};

std::string slurp(const std::string &path)
{
    std::ifstream f(path, std::ios::binary);
    std::stringstream s;
    s << f.rdbuf();
    return s.str();
}

std::string gzipped(const std::string &in)
{
    z_stream z = {};
    deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY);
    std::string out(deflateBound(&z, in.size()) + 64, 0);
    z.next_in = reinterpret_cast<Bytef *>(const_cast<char *>(in.data()));
    z.avail_in = static_cast<uInt>(in.size());
    z.next_out = reinterpret_cast<Bytef *>(&out[0]);
    z.avail_out = static_cast<uInt>(out.size());
    deflate(&z, Z_FINISH);
    out.resize(z.total_out);
    deflateEnd(&z);
    return out;
}

std::string zstded(const std::string &in)
{
    std::string out(ZSTD_compressBound(in.size()), 0);
    out.resize(ZSTD_compress(&out[0], out.size(), in.data(), in.size(), 3));
    return out;
}

/* All of a file through reads of `piece` bytes; "error: ..." when it fails. */
std::string read_all(const std::string &path, size_t piece, uint64_t from = 0)
{
    stm_source *s = nullptr;
    mill_error err = {};
    std::string out, buf(piece, 0);
    if (stm_source_open(path.c_str(), &s, &err) != MILL_OK) return std::string("error: ") + err.msg;
    mill_status st = from ? stm_source_seek(s, from, &err) : MILL_OK;
    for (size_t got = 1; st == MILL_OK && got > 0;) {
        got = 0;
        st = stm_source_read(s, &buf[0], piece, &got, &err);
        out.append(buf, 0, got);
    }
    stm_source_close(&s);
    EXPECT_EQ(s, nullptr);
    return st == MILL_OK ? out : std::string("error: ") + err.msg;
}

struct Line {
    std::string text;
    uint32_t file;
    uint64_t number;
    stm_place_in_files behind;
};

std::vector<Line> lines_of(const std::vector<std::string> &paths, size_t max = 1 << 20, const stm_place_in_files *from = nullptr)
{
    std::vector<const char *> p;
    for (const std::string &s : paths) p.push_back(s.c_str());
    stm_lines *l = nullptr;
    mill_error err = {};
    std::vector<Line> out;
    EXPECT_EQ(stm_lines_create(p.data(), p.size(), max, &l, &err), MILL_OK);
    if (from) stm_lines_goto(l, from);
    for (;;) {
        stm_line line;
        bool end = false;
        EXPECT_EQ(stm_lines_next(l, &line, &end, &err), MILL_OK) << err.msg;
        if (end || err.status != MILL_OK) break;
        out.push_back(
            {line.too_long ? "<too long>" : std::string(line.text, line.bytes), line.file, line.number, stm_lines_place(l)});
    }
    stm_lines_destroy(&l);
    return out;
}

} // namespace

TEST_F(Files, SourceReadsEveryForm)
{
    std::string big;
    for (int i = 0; i < 100000; i++) big += "line " + std::to_string(i * 7919 % 100003) + "\n";
    const struct {
        const char *name;
        std::string bytes, contents;
    } cases[] = {
        {"empty", "", ""},
        {"short", "ab", "ab"},
        {"plain", big, big},
        {"gzip", gzipped(big), big},
        {"gzip.empty", gzipped(""), ""},
        {"gzip.members", gzipped("one\n") + gzipped("") + gzipped("two\n"), "one\ntwo\n"},
        {"zstd", zstded(big), big},
        {"zstd.empty", zstded(""), ""},
        {"zstd.frames", zstded("one\n") + zstded("two\n"), "one\ntwo\n"},
        {"zstd.skippable", std::string("\x50\x2a\x4d\x18\x03\0\0\0xyz", 11) + zstded("data"), "data"},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.name);
        const std::string path = put(c.name, c.bytes);
        for (size_t piece : {size_t(1), size_t(777), size_t(1) << 20}) {
            if (piece == 1 && c.contents.size() > 1000) continue;
            EXPECT_EQ(read_all(path, piece), c.contents);
            for (uint64_t from : {uint64_t(1), c.contents.size() / 2, c.contents.size()})
                if (from > 0 && from <= c.contents.size()) {
                    EXPECT_EQ(read_all(path, piece, from), c.contents.substr(from));
                }
        }
        EXPECT_EQ(read_all(path, 100, c.contents.size() + 1).substr(0, 6), "error:");
    }
}

TEST_F(Files, SourceFaults)
{
    std::string big;
    for (int i = 0; i < 100000; i++) big += std::to_string(i * 7919 % 100003);
    std::string gz = gzipped(big), zst = zstded(big), bad_gz = gz, bad_zst = zst;
    bad_gz[gz.size() / 2] ^= 0x55;
    bad_zst[0 + 4] ^= 0x7f;
    const struct {
        const char *name;
        std::string bytes;
        const char *message;
    } cases[] = {
        {"cut.gz", gz.substr(0, gz.size() / 2), "cut off"},
        {"cut2.gz", gz.substr(0, gz.size() - 1), "cut off"},
        {"cut3.gz", gz.substr(0, 5), "cut off"},
        {"bad.gz", bad_gz, "damaged"},
        {"behind.gz", gz + "garbage", "damaged"},
        {"cut.zst", zst.substr(0, zst.size() / 2), "cut off"},
        {"cut2.zst", zst.substr(0, zst.size() - 1), "cut off"},
        {"bad.zst", bad_zst, "zstd stream is"},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.name);
        const std::string got = read_all(put(c.name, c.bytes), 4096);
        EXPECT_EQ(got.substr(0, 6), "error:");
        EXPECT_NE(got.find(c.message), std::string::npos) << got;
    }
    EXPECT_NE(read_all(dir + "/none", 10).find("cannot open"), std::string::npos);
    EXPECT_NE(read_all(dir, 10).find("is a folder"), std::string::npos);
}

TEST_F(Files, Lines)
{
    const struct {
        const char *name, *bytes;
        std::vector<std::string> lines;
        std::vector<uint64_t> numbers;
    } cases[] = {
        {"empty", "", {}, {}},
        {"one", "a\n", {"a"}, {1}},
        {"no newline at the end", "a\nb", {"a", "b"}, {1, 2}},
        {"CRLF", "a\r\nb\r\n", {"a\r", "b\r"}, {1, 2}},
        {"blank lines count", "\n  \na\n\t\r\n\nb\n\n", {"a", "b"}, {3, 6}},
        {"mark", "\xef\xbb\xbf{}\n", {"{}"}, {1}},
        {"only a mark", "\xef\xbb\xbf", {}, {}},
        {"half a mark", "\xef\xbb", {"\xef\xbb"}, {1}},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.name);
        const auto got = lines_of({put("x", c.bytes)});
        ASSERT_EQ(got.size(), c.lines.size());
        for (size_t i = 0; i < got.size(); i++) {
            EXPECT_EQ(got[i].text, c.lines[i]);
            EXPECT_EQ(got[i].number, c.numbers[i]);
        }
    }
}

/* Long lines around the size of the window, over several files and forms; and from every place on: the same rest. */
TEST_F(Files, LinesResumeAtEveryPlace)
{
    std::string a = "\xef\xbb\xbf", b, c;
    for (int i = 0; i < 60; i++)
        a += std::string(static_cast<size_t>(i % 7), 'a' + static_cast<char>(i % 26)) + std::to_string(i) +
             (i % 9 ? "\n" : "\r\n\n");
    for (size_t n : {size_t(10), STM_LINES_WINDOW - 1, STM_LINES_WINDOW, STM_LINES_WINDOW + 1, 3 * STM_LINES_WINDOW, size_t(20)})
        b += std::string(n, 'b') + "\n";
    c = "last without newline";
    const std::vector<std::string> paths = {put("a", a), put("e", ""), put("b.gz", gzipped(b)), put("c.zst", zstded(c))};
    const auto all = lines_of(paths);
    ASSERT_EQ(all.size(), 60u + 6u + 1u);
    EXPECT_EQ(all[64].text.size(), 3 * STM_LINES_WINDOW);
    for (size_t i = 0; i < all.size(); i++) {
        const auto rest = lines_of(paths, 1 << 20, &all[i].behind);
        ASSERT_EQ(rest.size(), all.size() - i - 1) << i;
        for (size_t k = 0; k < rest.size(); k++) {
            ASSERT_EQ(rest[k].text, all[i + 1 + k].text);
            ASSERT_EQ(rest[k].file, all[i + 1 + k].file);
            ASSERT_EQ(rest[k].number, all[i + 1 + k].number);
        }
    }
}

TEST_F(Files, TooLongLines)
{
    const std::string path =
        put("x", "short\n" + std::string(1000, 'l') + "\n" + std::string(100, 'k') + "\nshort\n" + std::string(900000, 'm'));
    const auto got = lines_of({path}, 100);
    ASSERT_EQ(got.size(), 5u);
    EXPECT_EQ(got[1].text, "<too long>");
    EXPECT_EQ(got[2].text.size(), 100u);
    EXPECT_EQ(got[3].text, "short");
    EXPECT_EQ(got[3].number, 4u);
    EXPECT_EQ(got[4].text, "<too long>");
}

TEST_F(Files, OutputHasItsNameOnlyWhenComplete)
{
    for (const char *name : {"sub/dir/a.jsonl", "b.jsonl.gz", "c.jsonl.zst"}) {
        SCOPED_TRACE(name);
        const std::string path = dir + "/" + name;
        stm_output *o = nullptr;
        stm_output_made made = {};
        mill_error err = {};
        std::string contents;
        ASSERT_EQ(stm_output_open(nullptr, path.c_str(), nullptr, &o, &err), MILL_OK) << err.msg;
        for (int i = 0; i < 5000; i++) {
            const std::string piece = "row " + std::to_string(i * 7919 % 5003) + "\n";
            ASSERT_EQ(stm_output_write(o, piece.data(), piece.size(), &err), MILL_OK);
            contents += piece;
        }
        EXPECT_NE(access(path.c_str(), F_OK), 0);
        ASSERT_EQ(stm_output_commit(&o, &made, &err), MILL_OK) << err.msg;
        EXPECT_EQ(o, nullptr);
        EXPECT_EQ(read_all(path, 10000), contents);
        EXPECT_NE(access((path + ".tmp").c_str(), F_OK), 0);
        if (std::string(name).back() != 'l') {
            EXPECT_LT(slurp(path).size(), contents.size() / 2);
        }
    }
}

TEST_F(Files, OutputResumesBehindASync)
{
    for (const char *name : {"a.jsonl", "b.jsonl.gz", "c.jsonl.zst"}) {
        SCOPED_TRACE(name);
        const std::string path = dir + "/" + name;
        stm_output *o = nullptr;
        stm_output_made made = {};
        mill_error err = {};
        stm_output_place place = {};
        ASSERT_EQ(stm_output_open(nullptr, path.c_str(), nullptr, &o, &err), MILL_OK);
        ASSERT_EQ(stm_output_write(o, "kept\n", 5, &err), MILL_OK);
        ASSERT_EQ(stm_output_sync(o, &place, &err), MILL_OK);
        ASSERT_GT(place.bytes + place.tail, 0u);
        const std::string lost(300000, 'x');
        ASSERT_EQ(stm_output_write(o, lost.data(), lost.size(), &err), MILL_OK);
        stm_output_close(&o); /* as if the process had died */
        ASSERT_EQ(stm_output_open(nullptr, path.c_str(), &place, &o, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_output_write(o, "more\n", 5, &err), MILL_OK);
        ASSERT_EQ(stm_output_commit(&o, &made, &err), MILL_OK);
        EXPECT_EQ(read_all(path, 10000), "kept\nmore\n");
        ASSERT_EQ(stm_output_open(nullptr, path.c_str(), &place, &o, &err), MILL_OK)
            << err.msg; /* complete, after the place was noted */
        ASSERT_EQ(stm_output_write(o, "again\n", 6, &err), MILL_OK);
        ASSERT_EQ(stm_output_commit(&o, &made, &err), MILL_OK);
        EXPECT_EQ(read_all(path, 10000), "kept\nagain\n");
    }
    stm_output *o = nullptr;
    mill_error err = {};
    stm_output_place place = {};
    place.bytes = 100;
    EXPECT_EQ(stm_output_open(nullptr, (dir + "/never").c_str(), &place, &o, &err), MILL_ERR_INVALID);
    EXPECT_EQ(o, nullptr);
}

/* Who syncs need not keep the place, and may die again before another one counts: any place since the one that was gone on from can
 * be gone on from. */
TEST_F(Files, OutputGoesOnFromAnyPlaceSinceTheLast)
{
    struct Known {
        stm_output_place place;
        size_t at;
    };
    std::string contents;
    for (int i = 0; contents.size() < 6000000; i++) contents += "row " + std::to_string(i * 7919LL % 50021) + " of many\n";
    for (const char *name : {"a.jsonl", "b.jsonl.gz", "c.jsonl.zst"}) {
        SCOPED_TRACE(name);
        const std::string path = dir + "/" + name;
        std::minstd_rand random(7);
        stm_output *o = nullptr;
        stm_output_made made = {};
        mill_error err = {};
        std::vector<Known> known;
        size_t at = 0, deaths = 0;
        const auto write = [&](size_t from, size_t n) {
            ASSERT_EQ(stm_output_write(o, contents.data() + from, n, &err), MILL_OK) << err.msg;
        };
        ASSERT_EQ(stm_output_open(nullptr, path.c_str(), nullptr, &o, &err), MILL_OK) << err.msg;
        while (at < contents.size()) {
            const size_t n = std::min<size_t>(random() % 400000, contents.size() - at);
            Known now = {};
            write(at, n);
            at += n;
            ASSERT_EQ(stm_output_sync(o, &now.place, &err), MILL_OK) << err.msg;
            now.at = at;
            known.push_back(now);
            if (random() % 3 != 0 || deaths == 40) continue;
            deaths++;
            for (size_t k = random() % 8; k > 0; k--) { /* what comes of other bytes, synced or not, is forgotten */
                stm_output_place lost;
                write(random() % 1000000, random() % 500000);
                if (random() % 2 == 0) {
                    ASSERT_EQ(stm_output_sync(o, &lost, &err), MILL_OK) << err.msg;
                }
            }
            stm_output_close(&o);
            const Known from = known[random() % known.size()];
            ASSERT_EQ(stm_output_open(nullptr, path.c_str(), &from.place, &o, &err), MILL_OK) << err.msg;
            at = from.at;
            known = {from};
        }
        EXPECT_GE(deaths, 10u);
        ASSERT_EQ(stm_output_commit(&o, &made, &err), MILL_OK) << err.msg;
        EXPECT_EQ(read_all(path, contents.size()), contents);
    }
}

/* Syncs leave no trace in a file, wherever they come. */
TEST_F(Files, OutputHasTheSameBytesWheneverItWasSynced)
{
    std::string contents;
    for (int i = 0; contents.size() < 2500000; i++) contents += "row " + std::to_string(i * 7919LL % 50021) + " of many\n";
    for (const char *name : {"a.jsonl", "b.jsonl.gz", "c.jsonl.zst"}) {
        SCOPED_TRACE(name);
        const std::string path = dir + "/" + name;
        mill_error err = {};
        std::string want;
        uint32_t crc = 0;
        for (size_t stride : {contents.size(), size_t(1) << 20, size_t(100000), size_t(333333)}) {
            stm_output *o = nullptr;
            stm_output_made made = {};
            stm_output_place place = {};
            ASSERT_EQ(stm_output_open(nullptr, path.c_str(), nullptr, &o, &err), MILL_OK) << err.msg;
            for (size_t at = 0, n = 0; at < contents.size(); at += stride, n++) {
                ASSERT_EQ(stm_output_write(o, contents.data() + at, std::min(stride, contents.size() - at), &err), MILL_OK);
                if (stride == contents.size()) continue;
                ASSERT_EQ(stm_output_sync(o, &place, &err), MILL_OK) << err.msg;
                if (n % 3 != 1) continue; /* the process dies, having written more */
                ASSERT_EQ(stm_output_write(o, contents.data(), contents.size() / 2, &err), MILL_OK);
                stm_output_close(&o);
                ASSERT_EQ(stm_output_open(nullptr, path.c_str(), &place, &o, &err), MILL_OK) << err.msg;
            }
            ASSERT_EQ(stm_output_commit(&o, &made, &err), MILL_OK) << err.msg;
            const std::string got = slurp(path);
            if (want.empty()) want = got, crc = made.crc;
            EXPECT_TRUE(got == want) << stride;
            EXPECT_EQ(made.bytes, got.size());
            EXPECT_EQ(made.crc, crc);
            EXPECT_EQ(crc, crc32(0, reinterpret_cast<const Bytef *>(got.data()), static_cast<uInt>(got.size())));
            EXPECT_TRUE(read_all(path, 10000) == contents);
        }
    }
    put("a.jsonl.3.tmp", "");
    put("a-00012.jsonl.3.tmp", "");
    put("a.jsonl.3.b.tmp", "");
    put("b.jsonl.3.tmp", "");
    put("a.jsonl.x.tmp", "");
    put("a-12.jsonl.3.tmp", "");
    stm_output_tidy(nullptr, (dir + "/a.jsonl").c_str());
    for (const char *gone : {"a.jsonl.3.tmp", "a-00012.jsonl.3.tmp", "a.jsonl.3.b.tmp"})
        EXPECT_NE(access((dir + "/" + gone).c_str(), F_OK), 0) << gone;
    for (const char *kept : {"a.jsonl", "b.jsonl.3.tmp", "a.jsonl.x.tmp", "a-12.jsonl.3.tmp"})
        EXPECT_EQ(access((dir + "/" + kept).c_str(), F_OK), 0) << kept;
}

TEST_F(Files, EmptyOutputsAreValid)
{
    for (const char *name : {"a.jsonl", "b.jsonl.gz", "c.jsonl.zst"}) {
        stm_output *o = nullptr;
        stm_output_made made = {};
        mill_error err = {};
        ASSERT_EQ(stm_output_open(nullptr, (dir + "/" + name).c_str(), nullptr, &o, &err), MILL_OK);
        ASSERT_EQ(stm_output_commit(&o, &made, &err), MILL_OK);
        EXPECT_EQ(read_all(dir + "/" + name, 100), "");
        if (std::string(name).back() != 'l') {
            EXPECT_GT(slurp(dir + "/" + name).size(), 0u);
        }
    }
}

TEST_F(Files, OutputFaults)
{
    stm_output *o = nullptr;
    stm_output_made made = {};
    mill_error err = {};
    put("file", "x");
    EXPECT_EQ(stm_output_open(nullptr, (dir + "/file/a.jsonl").c_str(), nullptr, &o, &err), MILL_ERR_IO);
    err = {};
    ASSERT_EQ(stm_output_open(nullptr, (dir + "/taken").c_str(), nullptr, &o, &err), MILL_OK);
    ASSERT_EQ(mkdir((dir + "/taken").c_str(), 0777), 0);
    EXPECT_EQ(stm_output_commit(&o, &made, &err), MILL_ERR_IO);
    EXPECT_NE(std::string(err.msg).find("cannot rename"), std::string::npos) << err.msg;
    EXPECT_EQ(o, nullptr);
}

TEST(Parts, Names)
{
    const struct {
        const char *path;
        uint32_t part;
        const char *name;
    } cases[] = {{"/r/out.jsonl", 0, "/r/out-00000.jsonl"},
                 {"/r/out.jsonl.gz", 12, "/r/out-00012.jsonl.gz"},
                 {"/r/a.b.jsonl.zst", 1, "/r/a.b-00001.jsonl.zst"},
                 {"/r.d/out", 3, "/r.d/out-00003"},
                 {"/r/.hidden", 3, "/r/.hidden-00003"},
                 {"/r/out.gz", 123456, "/r/out-123456.gz"}};
    for (const auto &c : cases) {
        char *name = stm_part_name(c.path, c.part);
        EXPECT_STREQ(name, c.name);
        free(name);
    }
}
