/* Who writes a run directory, and what a signature says has changed. */
#include <atomic>
#include <fstream>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include "script.h"
#include "support/temp_dir.h"

extern "C" {
#include "store/crc32c.h"
#include "store/owner.h"
#include "store/signature.h"
}

using namespace mt;

namespace {

struct Folder {
    TempDir dir;
    std::string path = dir.path();
    stm_files files = {};
    Folder()
    {
        mill_error err = {};
        EXPECT_EQ(stm_files_open(path.c_str(), &files, &err), MILL_OK) << err.msg;
    }
    ~Folder() { stm_files_close(&files); }
};

struct Owner {
    stm_owner *p = nullptr;
    ~Owner() { stm_owner_release(&p); }
};

mill_status write_with_who(const Folder &dir, Vault *v, const char *who, mill_error *err)
{
    stm_vault_part part = {};
    part.name = "all";
    (void)dir;
    return stm_vault_begin(v->p, &part, 1, nullptr, 0, who, err);
}

} // namespace

TEST(Owner, ALivingOneIsNotDisturbed)
{
    Folder dir;
    mill_error err = {};
    char who[STM_OWNER_WHO];
    Vault first, second;
    Owner a, b;
    stm_owner_who(0, who, sizeof who);
    ASSERT_EQ(open_vault(dir.files, &first, &err, 1), MILL_OK);
    ASSERT_EQ(stm_owner_claim(first, &dir.files, dir.path.c_str(), 5, &a.p, &err), MILL_OK) << err.msg;
    ASSERT_EQ(open_vault(dir.files, &second, &err, 2), MILL_OK);
    EXPECT_EQ(stm_owner_claim(second, &dir.files, dir.path.c_str(), 5, &b.p, &err), MILL_ERR_BUSY)
        << "before its first record, too";
    stm_vault_close(&second.p);
    ASSERT_EQ(write_with_who(dir, &first, who, &err), MILL_OK);
    std::atomic<bool> stop{false};
    std::thread serving([&] {
        while (!stop) stm_owner_tick(a.p), usleep(20000);
    });
    for (const bool fresh : {false, true}) {
        Vault other;
        mill_error why = {};
        ASSERT_EQ(open_vault(dir.files, &other, &why, 3, fresh), MILL_OK);
        EXPECT_EQ(stm_owner_claim(other, &dir.files, dir.path.c_str(), 5, &b.p, &why), MILL_ERR_BUSY);
        EXPECT_NE(std::string(why.msg).find("process " + std::to_string(getpid())), std::string::npos) << why.msg;
    }
    stop = true;
    serving.join();
    stm_owner_release(&a.p);
    Vault next;
    mill_error why = {};
    ASSERT_EQ(open_vault(dir.files, &next, &why, 4), MILL_OK);
    EXPECT_EQ(stm_owner_claim(next, &dir.files, dir.path.c_str(), 5, &b.p, &why), MILL_OK) << why.msg;
}

TEST(Owner, OneThatDoesNotAnswerIsDead)
{
    Folder dir;
    mill_error err = {};
    char who[STM_OWNER_WHO];
    Vault first, second;
    Owner a, b;
    stm_owner_who(0, who, sizeof who);
    ASSERT_EQ(open_vault(dir.files, &first, &err, 1), MILL_OK);
    ASSERT_EQ(stm_owner_claim(first, &dir.files, dir.path.c_str(), 5, &a.p, &err), MILL_OK);
    ASSERT_EQ(write_with_who(dir, &first, who, &err), MILL_OK);
    ASSERT_EQ(open_vault(dir.files, &second, &err, 2), MILL_OK); /* the kernel takes the connection, as for a stopped process */
    EXPECT_EQ(stm_owner_claim(second, &dir.files, dir.path.c_str(), 0.2, &b.p, &err), MILL_OK) << err.msg;
}

TEST(Owner, ElsewhereAHeartbeatCounts)
{
    static const struct {
        const char *name;
        double age_s;
        uint32_t gone, spoilt;
        mill_status want;
    } kBeats[] = {
        {"young", 1, 0, 0, MILL_ERR_BUSY}, {"a little in the future", -5, 0, 0, MILL_ERR_BUSY},
        {"stale", 31, 0, 0, MILL_OK},      {"far in the future: a clock that was wrong", -400, 0, 0, MILL_OK},
        {"released", 1, 1, 0, MILL_OK},    {"not whole", 1, 0, 1, MILL_OK},
    };
    for (const auto &c : kBeats) {
        SCOPED_TRACE(c.name);
        Folder dir;
        mill_error err = {};
        {
            Vault v;
            ASSERT_EQ(open_vault(dir.files, &v, &err, 1), MILL_OK);
            ASSERT_EQ(write_with_who(dir, &v, "another-boot/net:[1]\nnode7\n4242\n", &err), MILL_OK);
        }
        struct {
            uint64_t epoch, wall, machine;
            uint32_t gone, crc;
        } beat = {1, 0, 1, c.gone, 0};
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        beat.wall = static_cast<uint64_t>((static_cast<double>(now.tv_sec) - c.age_s) * 1e9);
        beat.crc = stm_crc32c(0, &beat, 28) ^ c.spoilt;
        std::ofstream(dir.path + "/owner.1").write(reinterpret_cast<const char *>(&beat), sizeof beat);
        Vault v;
        Owner o;
        ASSERT_EQ(open_vault(dir.files, &v, &err, 2), MILL_OK);
        EXPECT_EQ(stm_owner_claim(v, &dir.files, dir.path.c_str(), 1, &o.p, &err), c.want) << err.msg;
        if (c.want == MILL_ERR_BUSY) {
            EXPECT_NE(std::string(err.msg).find("process 4242 on node7"), std::string::npos) << err.msg;
        }
    }
}

TEST(Owner, OnlyOneThatHasCertainlyEndedIsOver)
{
    Folder dir;
    mill_error err = {};
    Vault v;
    Owner a, b;
    char who[STM_OWNER_WHO];
    stm_owner_who(0, who, sizeof who);
    EXPECT_TRUE(stm_owner_over(&dir.files, dir.path.c_str(), 1)) << "there was none";
    ASSERT_EQ(open_vault(dir.files, &v, &err, 1), MILL_OK);
    ASSERT_EQ(stm_owner_claim(v, &dir.files, dir.path.c_str(), 0.1, &a.p, &err), MILL_OK) << err.msg;
    ASSERT_EQ(write_with_who(dir, &v, who, &err), MILL_OK);
    EXPECT_FALSE(stm_owner_over(&dir.files, dir.path.c_str(), 1)) << "it answers nobody, as if it were stopped, but it is there";
    Vault next;
    ASSERT_EQ(open_vault(dir.files, &next, &err, 3), MILL_OK);
    ASSERT_EQ(stm_owner_claim(next, &dir.files, dir.path.c_str(), 0.1, &b.p, &err), MILL_OK) << err.msg;
    EXPECT_FALSE(stm_owner_over(&dir.files, dir.path.c_str(), 1)) << "and who takes over does not forget it";
    stm_owner_release(&a.p);
    EXPECT_TRUE(stm_owner_over(&dir.files, dir.path.c_str(), 1));
}

/* ---- signatures ----------------------------------------------------------------------------------------------------- */

namespace {
struct Signature {
    stm_signature s = {};
    ~Signature() { stm_signature_fini(&s); }
    std::string digest() const
    {
        unsigned char d[STM_SIGNATURE_BYTES];
        stm_signature_digest(&s, d);
        return std::string(reinterpret_cast<char *>(d), sizeof d);
    }
};
std::string changes(const Signature &a, const Signature &b, int max, int *n)
{
    stm_text t = {};
    *n = stm_signature_changes(a.s.fields.data, a.s.fields.bytes, b.s.fields.data, b.s.fields.bytes, max, &t);
    const std::string out = t.data != nullptr ? t.data : "";
    stm_text_free(&t);
    return out;
}
} // namespace

TEST(Signature, NamesWhatChanged)
{
    Signature a, b;
    for (auto *s : {&a, &b}) {
        stm_signature_add(&s->s, "step embed: type", "embed_text");
        stm_signature_add(&s->s, "step embed: precision", s == &a ? "f32" : "bf16");
        if (s == &a) stm_signature_add(&s->s, "step embed: old", "x");
        if (s == &b) stm_signature_add(&s->s, "step embed: new", "");
    }
    int n;
    EXPECT_EQ(changes(a, b, 9, &n), "step embed: precision was f32, is bf16; step embed: new is new; step embed: old is gone");
    EXPECT_EQ(n, 3);
    EXPECT_EQ(changes(a, b, 1, &n), "step embed: precision was f32, is bf16; and 2 more");
    EXPECT_NE(a.digest(), b.digest());
    EXPECT_EQ(changes(a, a, 9, &n), "");
    EXPECT_EQ(n, 0);
    EXPECT_EQ(changes(Signature(), a, 9, &n), "step embed: type is new; step embed: precision is new; step embed: old is new");
}

TEST(Signature, WhatIsNotAListOfFieldsIsReadSafely)
{
    Signature a;
    stm_signature_add(&a.s, "name", "value");
    const std::string whole(a.s.fields.data, a.s.fields.bytes);
    for (size_t n = 0; n < whole.size(); n++) {
        stm_text t = {};
        const std::string part = whole.substr(0, n); /* its own block: reading past its end shows */
        const std::vector<char> exact(part.begin(), part.end());
        EXPECT_EQ(stm_signature_changes(exact.data(), n, whole.data(), whole.size(), 3, &t), 1);
        stm_text_free(&t);
    }
}

TEST(Signature, FilesAreTheirContents)
{
    Folder dir;
    const std::string file = dir.path + "/input.jsonl", big = dir.path + "/big", model = dir.path + "/model";
    auto put = [](const std::string &path, const std::string &text) { std::ofstream(path) << text; };
    auto value = [](const std::string &path) {
        Signature s;
        stm_signature_add_file(&s.s, "f", path.c_str());
        return std::string(s.s.fields.data + 2);
    };
    const std::string none = value(file);
    put(file, "{\"a\": 1}\n");
    const std::string one = value(file);
    EXPECT_NE(none, one);
    put(file, "{\"a\": 2}\n");
    EXPECT_NE(value(file), one);
    put(file, "{\"a\": 1}\n");
    EXPECT_EQ(value(file), one) << "written again with the same contents it is the same";
    ASSERT_EQ(mkdir(model.c_str(), 0777), 0);
    put(model + "/config.json", "{}");
    const std::string before = value(model);
    put(model + "/vocab.txt", "a");
    const std::string more = value(model);
    EXPECT_NE(before, more);
    put(model + "/vocab.txt", "b");
    EXPECT_NE(value(model), more);
    std::string bytes(static_cast<size_t>(STM_WHOLE_FILE_BYTES) + 1000000, 'x');
    put(big, bytes);
    const std::string large = value(big);
    EXPECT_EQ(value(big), large);
    bytes.back() = 'y';
    put(big, bytes);
    EXPECT_NE(value(big), large);
}
