/* Batches that go to disk and come back: every value, key, mark and word of the envelope; space; failures. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "picture.h"
#include "support/sanitized.h"
#include "support/temp_dir.h"

extern "C" {
#include "batch/spill.h"
}

using namespace mt;

namespace {

struct Spill {
    stm_spill *p = nullptr;
    explicit Spill(const char *dir = nullptr)
    {
        mill_error err = {};
        EXPECT_EQ(stm_spill_create(dir, &p, &err), MILL_OK) << err.msg;
    }
    ~Spill() { stm_spill_destroy(&p); }
    operator stm_spill *() const { return p; }
};

} // namespace

TEST(Spill, RandomBatchesComeBackAsTheyWere)
{
    Pool pool;
    Spill file;
    Rng rng(1);
    for (int round = 0; round < 400; round++) {
        SCOPED_TRACE(round);
        mill_error err = {};
        const int64_t rows = rng() % 10 == 0 ? 0 : (int64_t)(rng() % 200);
        Batch b = random_batch(rng, pool, (int32_t)(rng() % 5), rows), back;
        const Picture want = look(b.p);
        uint64_t token = 0;
        ASSERT_EQ(stm_spill_put(file, b.p, &token, &err), MILL_OK) << err.msg;
        ASSERT_NE(token, 0u);
        ASSERT_TRUE(look(b.p) == want) << "the batch itself has changed";
        mill_batch_destroy(&b.p);
        ASSERT_EQ(stm_spill_get(file, pool, token, &back.p, &err), MILL_OK) << err.msg;
        ASSERT_TRUE(look(back.p) == want);

        ASSERT_EQ(stm_batch_park(back.p, file, &err), MILL_OK) << err.msg;
        EXPECT_TRUE(stm_batch_parked(back.p));
        EXPECT_EQ(back.p->rows, want.rows);
        ASSERT_EQ(stm_batch_recall(back.p, &err), MILL_OK) << err.msg;
        EXPECT_FALSE(stm_batch_parked(back.p));
        ASSERT_TRUE(look(back.p) == want);
    }
    EXPECT_EQ(stm_spill_counts(file).records, 0);
    EXPECT_EQ(stm_spill_counts(file).file_bytes, 0);
}

/* Pieces as long as the stream's own room, a little less, a little more, and many times that. */
TEST(Spill, PiecesOfAllLengths)
{
    Pool pool;
    Spill file;
    for (int64_t bytes : {0, 1, 7, 8, 9, 65471, 65472, 65473, 65527, 65528, 65535, 65536, 65537, 65543, 131072, 1000003}) {
        SCOPED_TRACE(bytes);
        mill_error err = {};
        Rows rows(3);
        rows[0].null = rows[2].null = false;
        for (int64_t i = 0; i < bytes; i++) rows[0].bytes += (char)(i * 31 + (i >> 8));
        rows[2].bytes = "tail";
        Batch b;
        ASSERT_EQ(stm_batch_create(pool, 3, 2, 1, &b.p), MILL_OK);
        for (int32_t i = 0; i < 2; i++) {
            Column c = build(pool, type_of("binary"), rows);
            ASSERT_EQ(mill_batch_set_column(b.p, i, &c.p), MILL_OK);
        }
        const Picture want = look(b.p);
        ASSERT_EQ(stm_batch_park(b.p, file, &err), MILL_OK) << err.msg;
        ASSERT_EQ(stm_batch_recall(b.p, &err), MILL_OK) << err.msg;
        ASSERT_TRUE(look(b.p) == want);
    }
}

TEST(Spill, ParkingGivesMemoryBack)
{
    Pool pool;
    Spill file;
    Batch b;
    mill_error err = {};
    ASSERT_EQ(stm_batch_create(pool, 100000, 1, 1, &b.p), MILL_OK);
    Rows zeroes(100000);
    for (auto &v : zeroes) v.null = false;
    Column c = build(pool, type_of("int64"), zeroes);
    ASSERT_EQ(mill_batch_set_column(b.p, 0, &c.p), MILL_OK);
    const int64_t before = stm_pool_counts(pool).live_bytes;
    ASSERT_GT(before, 800000);
    ASSERT_EQ(stm_batch_park(b.p, file, &err), MILL_OK) << err.msg;
    EXPECT_LT(stm_pool_counts(pool).live_bytes, 1000);
    EXPECT_GE(stm_spill_counts(file).bytes, 800000);
    mill_batch_destroy(&b.p); /* as it is */
    EXPECT_EQ(stm_spill_counts(file).bytes, 0);
}

/* As a queue that never runs empty: the file stays as long as what is in it at once. */
TEST(Spill, SpaceIsUsedAgain)
{
    Pool pool;
    Spill file;
    Rng rng(2);
    mill_error err = {};
    std::vector<std::pair<uint64_t, Picture>> in;
    int64_t most = 0;
    for (int round = 0; round < 600; round++) {
        if (in.size() < 16) {
            Batch b = random_batch(rng, pool, 2, (int64_t)(rng() % 50));
            uint64_t token;
            ASSERT_EQ(stm_spill_put(file, b.p, &token, &err), MILL_OK) << err.msg;
            in.emplace_back(token, look(b.p));
        }
        most = std::max(most, stm_spill_counts(file).bytes);
        if (in.size() > 8 && rng() % 2) {
            const size_t at = rng() % 4 ? 0 : rng() % in.size();
            if (rng() % 4 == 0) {
                stm_spill_drop(file, in[at].first);
            } else {
                Batch b;
                ASSERT_EQ(stm_spill_get(file, pool, in[at].first, &b.p, &err), MILL_OK) << err.msg;
                ASSERT_TRUE(look(b.p) == in[at].second);
            }
            in.erase(in.begin() + (std::ptrdiff_t)at);
        }
    }
    EXPECT_LT(stm_spill_counts(file).file_bytes, 4 * most);
    EXPECT_GT(stm_spill_counts(file).bytes_written, 10 * most);
    for (auto &t : in) stm_spill_drop(file, t.first);
    EXPECT_EQ(stm_spill_counts(file).file_bytes, 0);
}

TEST(Spill, NothingIsLeftInTheDirectory)
{
    mt::TempDir dir;
    Pool pool;
    {
        Spill file(dir.path().c_str());
        Rng rng(3);
        mill_error err = {};
        Batch b = random_batch(rng, pool, 1, 10);
        ASSERT_EQ(stm_batch_park(b.p, file, &err), MILL_OK) << err.msg;
        EXPECT_EQ(rmdir(dir.path().c_str()), 0) << "a name is still there while the file is in use";
        EXPECT_EQ(stm_batch_recall(b.p, &err), MILL_OK) << err.msg;
    }
}

TEST(Spill, ADirectoryThatIsNotThereIsNamed)
{
    Pool pool;
    Spill file("/nowhere/at/all");
    Rng rng(3);
    mill_error err = {};
    Batch b = random_batch(rng, pool, 1, 10);
    const Picture want = look(b.p);
    EXPECT_EQ(stm_batch_park(b.p, file, &err), MILL_ERR_IO);
    EXPECT_NE(std::string(err.msg).find("/nowhere/at/all"), std::string::npos) << err.msg;
    EXPECT_NE(std::string(err.msg).find("No such file"), std::string::npos) << err.msg;
    EXPECT_TRUE(look(b.p) == want);
}

/* The n-th allocation, open, write or read fails: an error with its cause, and the rows are where they were. */
TEST(Spill, FailuresLoseNothing)
{
    for (uint32_t kind :
         {(uint32_t)STM_FAULT_ALLOC, (uint32_t)STM_FAULT_OPEN, (uint32_t)STM_FAULT_WRITE, (uint32_t)STM_FAULT_READ}) {
        int64_t nth = 0, failures = 0;
        for (bool fired = true; fired; nth += mt::rounds(1, 3)) { /* each third under a sanitizer */
            SCOPED_TRACE("kind " + std::to_string(kind) + ", passage " + std::to_string(nth));
            Pool pool;
            Spill file;
            Rng rng(4);
            Batch b = random_batch(rng, pool, 4, 3000), back; /* longer than one write */
            const Picture want = look(b.p);
            mill_error err = {}, again = {};
            uint64_t token = 0;
            int step = 0;
            stm_pool_trim(pool);
            FailNth fail(nth, kind);
            mill_status st = stm_spill_put(file, b.p, &token, &err);
            if (st == MILL_OK && ++step) st = stm_spill_get(file, pool, token, &back.p, &err);
            if (st == MILL_OK && ++step) st = stm_batch_park(back.p, file, &err);
            if (st == MILL_OK && ++step) stm_pool_trim(pool), st = stm_batch_recall(back.p, &err);
            fired = fail.fired();
            ASSERT_TRUE(fired || st == MILL_OK) << err.msg;
            ASSERT_TRUE(!fired || st != MILL_OK || kind == STM_FAULT_ALLOC); /* pools and notes of free space do without */
            failures += st != MILL_OK;
            if (st != MILL_OK) {
                EXPECT_EQ(st, kind == STM_FAULT_ALLOC ? MILL_ERR_NOMEM : MILL_ERR_IO) << err.msg;
                EXPECT_EQ(err.status, st);
                EXPECT_STRNE(err.msg, "");
            }
            EXPECT_TRUE(look(b.p) == want);
            if (st != MILL_OK && step == 1) {
                ASSERT_EQ(stm_spill_get(file, pool, token, &back.p, &again), MILL_OK) << again.msg;
            } else if (st != MILL_OK && step == 3) {
                ASSERT_EQ(stm_batch_recall(back.p, &again), MILL_OK) << again.msg;
            }
            if (step > 0) {
                EXPECT_TRUE(look(back.p) == want) << "after step " << step;
            }
            EXPECT_EQ(stm_spill_counts(file).records, 0);
        }
        EXPECT_GE(failures, 1) << "kind " << kind;
    }
}

/* What the disk gives back is not what was written: told, never used. */
TEST(Spill, DamageIsFound)
{
    Pool pool;
    Rng rng(5);
    for (int round = 0; round < 400; round++) {
        Spill file;
        mill_error err = {};
        Batch b = random_batch(rng, pool, 3, 40), back;
        uint64_t token;
        ASSERT_EQ(stm_spill_put(file, b.p, &token, &err), MILL_OK);
        const int64_t bytes = stm_spill_counts(file).bytes;
        int fd = -1; /* ours is the only open file without a name of that length */
        for (int f = 3; f < 256 && fd < 0; f++) {
            struct stat s;
            if (fstat(f, &s) == 0 && S_ISREG(s.st_mode) && s.st_nlink == 0 && s.st_size == bytes) fd = f;
        }
        ASSERT_GE(fd, 0);
        const off_t at = (off_t)(rng() % (uint64_t)bytes);
        unsigned char c;
        ASSERT_EQ(pread(fd, &c, 1, at), 1);
        c ^= (unsigned char)(1u << (rng() % 8));
        ASSERT_EQ(pwrite(fd, &c, 1, at), 1);
        EXPECT_EQ(stm_spill_get(file, pool, token, &back.p, &err), MILL_ERR_IO) << "byte " << at << " of " << bytes;
        EXPECT_EQ(back.p, nullptr);
        stm_spill_drop(file, token);
    }
}

TEST(Spill, ThreadsShareTheFile)
{
    Pool pool;
    Spill file;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
        threads.emplace_back([&, t] {
            Rng rng((uint64_t)t + 10);
            for (int round = 0; round < 40; round++) {
                Batch b = random_batch(rng, pool, 2, (int64_t)(rng() % 300));
                const Picture want = look(b.p);
                mill_error err = {};
                ASSERT_EQ(stm_batch_park(b.p, file, &err), MILL_OK) << err.msg;
                ASSERT_EQ(stm_batch_recall(b.p, &err), MILL_OK) << err.msg;
                ASSERT_TRUE(look(b.p) == want);
            }
        });
    for (auto &t : threads) t.join();
    threads.clear();
    Rng rng(20);
    for (int round = 0; round < 20; round++) { /* several want the same batch back */
        Batch b = random_batch(rng, pool, 2, 200);
        const Picture want = look(b.p);
        mill_error err = {};
        ASSERT_EQ(stm_batch_park(b.p, file, &err), MILL_OK);
        for (int t = 0; t < 4; t++)
            threads.emplace_back([&] {
                mill_error mine = {};
                ASSERT_EQ(stm_batch_recall(b.p, &mine), MILL_OK) << mine.msg;
                EXPECT_TRUE(look(b.p) == want);
            });
        for (auto &t : threads) t.join();
        threads.clear();
    }
    EXPECT_EQ(stm_spill_counts(file).file_bytes, 0);
}
