/* Checksums, names, and bytes that changed on the disk: an earlier commit is found, or a clear error; never something else. */
#include <thread>

#include "script.h"
#include "support/sanitized.h"

extern "C" {
#include "store/crc32c.h"
#include "store/journal.h"
}

using namespace mt;

TEST(Crc32c, KnownValues) /* RFC 3720, appendix B.4 */
{
    unsigned char up[32], zeroes[32] = {}, ones[32];
    for (int i = 0; i < 32; i++) up[i] = static_cast<unsigned char>(i), ones[i] = 0xFF;
    for (auto *crc : {stm_crc32c, stm_crc32c_portable}) {
        EXPECT_EQ(crc(0, zeroes, 32), 0x8A9136AAu);
        EXPECT_EQ(crc(0, ones, 32), 0x62A8AB43u);
        EXPECT_EQ(crc(0, up, 32), 0x46DD794Eu);
        EXPECT_EQ(crc(0, "123456789", 9), 0xE3069283u);
        EXPECT_EQ(crc(0, "", 0), 0u);
        EXPECT_EQ(crc(crc(0, "1234", 4), "56789", 5), 0xE3069283u) << "in pieces";
    }
}

TEST(Crc32c, BothFormsAgreeAtEveryLengthAndPlace)
{
    std::mt19937 rng(3);
    std::string bytes(300, 0);
    for (auto &b : bytes) b = static_cast<char>(rng());
    for (size_t at = 0; at < 9; at++)
        for (size_t n = 0; at + n <= bytes.size(); n++)
            ASSERT_EQ(stm_crc32c(7, bytes.data() + at, n), stm_crc32c_portable(7, bytes.data() + at, n)) << at << " " << n;
}

TEST(Names, Journals)
{
    static const struct {
        const char *name;
        uint64_t epoch;
    } kNames[] = {{"journal.1", 1},    {"journal.204", 204},  {"journal.0", 0},   {"journal.", 0},      {"journal.1x", 0},
                  {"journal.01", 0},   {"xjournal.1", 0},     {"journal.-1", 0},  {"journal.1.seg", 0},
                  {"journal.99999999999999999999", 0}};
    for (const auto &n : kNames) EXPECT_EQ(stm_journal_epoch_of(n.name), n.epoch) << n.name;
}

TEST(Names, Streams)
{
    for (const char *good : {"a", "embed.out", "x-1", "_", "a~b", "A.0.1"}) EXPECT_TRUE(stm_stream_name_ok(good)) << good;
    const std::string longest(STM_STREAM_NAME - 1, 'x');
    EXPECT_TRUE(stm_stream_name_ok(longest.c_str()));
    EXPECT_FALSE(stm_stream_name_ok((longest + "x").c_str()));
    for (const char *bad : {"", ".", "..", ".a", "-a", "a/b", "a b", "\xc3\xa9"}) EXPECT_FALSE(stm_stream_name_ok(bad)) << bad;
}

namespace {

/* A small run directory with three epochs. */
std::unique_ptr<Disk> small()
{
    auto disk = std::make_unique<Disk>();
    mill_error err = {};
    for (int c = 1; c <= 6; c++) {
        Vault v;
        EXPECT_EQ(open_vault(disk->files(), &v, &err, 40 + static_cast<uint64_t>(c)), MILL_OK) << err.msg;
        EXPECT_EQ(begin(v, &err), MILL_OK) << err.msg;
        for (int end = c + 1; c <= end; c++) {
            EXPECT_EQ(append(v, c, &err), MILL_OK);
            EXPECT_EQ(stm_vault_commit(v, &err), MILL_OK) << err.msg;
        }
        c--;
    }
    return disk;
}

} // namespace

TEST(Damage, EveryByteOfEveryFile)
{
    const auto disk = small();
    int64_t flips = 0, refused = 0, earlier = 0, unhurt = 0;
    for (const auto &file : disk->names) {
        std::string &bytes = disk->contents(file.first);
        for (size_t i = 0; i < bytes.size(); i += mt::rounds<size_t>(1, 3)) { /* each third under a sanitizer */
            for (const unsigned char bits : {0x01, 0x80, 0xFF}) {
                SCOPED_TRACE(file.first + " byte " + std::to_string(i));
                bytes[i] = static_cast<char>(bytes[i] ^ bits);
                Vault v;
                mill_error err = {};
                mill_status st = open_vault(disk->files(), &v, &err, 900);
                if (st == MILL_OK) {
                    const int c = commit_of(v);
                    ASSERT_GE(c, 0) << "states that were never committed";
                    ASSERT_LE(c, 6);
                    st = read_back(v, c, &err);
                    earlier += st == MILL_OK && c < 6;
                    unhurt += st == MILL_OK && c == 6;
                }
                if (st != MILL_OK) {
                    ASSERT_EQ(st, MILL_ERR_DATA) << err.msg;
                    ASSERT_STRNE(err.msg, "");
                    ASSERT_STRNE(err.remedy, "");
                    refused++;
                }
                bytes[i] = static_cast<char>(bytes[i] ^ bits);
                flips++;
                if (testing::Test::HasFailure()) return;
            }
        }
    }
    EXPECT_GT(refused, 0);
    EXPECT_GT(earlier, 0);
    printf("%lld flips: %lld refused, %lld an earlier commit, %lld in bytes that count no more\n", static_cast<long long>(flips),
           static_cast<long long>(refused), static_cast<long long>(earlier), static_cast<long long>(unhurt));
}

TEST(Damage, FilesCutShortAnywhereOrMissing)
{
    const auto disk = small();
    for (const auto &file : disk->names) {
        std::string &bytes = disk->contents(file.first);
        const std::string whole = bytes;
        for (size_t n = 0; n < whole.size(); n += 5) {
            SCOPED_TRACE(file.first + " cut to " + std::to_string(n));
            bytes.resize(n);
            Vault v;
            mill_error err = {};
            mill_status st = open_vault(disk->files(), &v, &err, 900);
            if (st == MILL_OK) {
                ASSERT_GE(commit_of(v), 0);
                st = read_back(v, commit_of(v), &err);
            }
            if (st != MILL_OK) {
                ASSERT_EQ(st, MILL_ERR_DATA) << err.msg;
            }
            bytes = whole;
        }
        if (file.first.find(".seg") == std::string::npos) continue;
        const int inode = file.second;
        const std::string name = file.first;
        Disk gone = *disk;
        gone.names.erase(name);
        Vault v;
        mill_error err = {};
        ASSERT_EQ(open_vault(gone.files(), &v, &err, 900), MILL_OK);
        EXPECT_EQ(read_back(v, commit_of(v), &err), MILL_ERR_DATA) << name << inode;
        EXPECT_NE(std::string(err.msg).find(name), std::string::npos) << err.msg;
    }
}

TEST(Journal, TheLastRecordIsFoundFarFromTheEnd)
{
    Disk disk;
    const stm_files f = disk.files();
    stm_journal j;
    mill_error err = {};
    ASSERT_EQ(stm_journal_create(&j, &f, 3, 9, &err), MILL_OK);
    ASSERT_EQ(stm_journal_append(&j, STM_RECORD_BASE, "base", 4, &err), MILL_OK);
    ASSERT_EQ(stm_journal_append(&j, STM_RECORD_COMMIT, "one", 3, &err), MILL_OK);
    ASSERT_EQ(stm_journal_append(&j, STM_RECORD_COMMIT, "two", 3, &err), MILL_OK);
    stm_journal_close(&j);
    std::string &bytes = disk.contents("journal.3");
    const std::string whole = bytes;
    for (size_t more : {0u, 1u, 15u, 16u, 100u, 1u << 20, (1u << 20) + 7, 3u << 20}) { /* a torn tail */
        bytes = whole + std::string(more, '\x5A');
        stm_journal_found found = {};
        ASSERT_EQ(stm_journal_read(&f, 3, &found, &err), MILL_OK) << err.msg;
        EXPECT_EQ(found.number, 2u);
        EXPECT_EQ(std::string(static_cast<char *>(found.last), found.last_bytes), "two");
        EXPECT_EQ(std::string(static_cast<char *>(found.base), found.base_bytes), "base");
        stm_journal_found_fini(&found);
    }
    /* A whole record of another epoch, or of another run of this one, says nothing here. */
    for (int which = 0; which < 2; which++) {
        Disk other;
        const stm_files g = other.files();
        ASSERT_EQ(stm_journal_create(&j, &g, which == 0 ? 4 : 3, which == 0 ? 9 : 10, &err), MILL_OK);
        ASSERT_EQ(stm_journal_append(&j, STM_RECORD_COMMIT, "foreign", 7, &err), MILL_OK);
        stm_journal_close(&j);
        bytes = whole + other.contents(which == 0 ? "journal.4" : "journal.3");
        stm_journal_found found = {};
        ASSERT_EQ(stm_journal_read(&f, 3, &found, &err), MILL_OK);
        EXPECT_EQ(std::string(static_cast<char *>(found.last), found.last_bytes), "two");
        stm_journal_found_fini(&found);
    }
}
