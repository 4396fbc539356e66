/* The checksum: known answers, and zlib's at every length and alignment around what is taken at a time. */
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "stepmill/crc32.h"

namespace {

const struct Known {
    const char *name;
    std::string bytes;
    uint32_t sum;
} kKnown[] = {
    {"nothing", "", 0},
    {"check value of the catalogue", "123456789", 0xcbf43926},
    {"a letter", "a", 0xe8b7be43},
    {"zeros", std::string(32, '\0'), 0x190a55ad},
    {"ones", std::string(32, '\xff'), 0xff6cab0b},
    {"narrow blocks", std::string(999, '\0'), 0xb2c8ef63},
    {"wide blocks", std::string(1 << 20, '\0'), 0xa738ea1c},
};

TEST(Crc32, KnownAnswers)
{
    for (const Known &k : kKnown) EXPECT_EQ(mill_crc32(0, k.bytes.data(), k.bytes.size()), k.sum) << k.name;
}

TEST(Crc32, NothingMoreLeavesTheSum)
{
    EXPECT_EQ(mill_crc32(0x12345678, nullptr, 0), 0x12345678u);
    EXPECT_EQ(mill_crc32(0x12345678, "", 0), 0x12345678u);
}

TEST(Crc32, IsThatOfZlib)
{
    std::mt19937 random(7);
    std::vector<Bytef> bytes(70000);
    for (Bytef &b : bytes) b = static_cast<Bytef>(random());
    for (size_t n = 0; n < 1400; n++)
        for (size_t at : {size_t(0), n % 16, size_t(1)})
            for (uint32_t before : {0u, 1u, 0x89abcdefu})
                ASSERT_EQ(mill_crc32(before, bytes.data() + at, n), crc32_z(before, bytes.data() + at, n)) << n << " at " << at;
    EXPECT_EQ(mill_crc32(0, bytes.data(), bytes.size()), crc32_z(0, bytes.data(), bytes.size()));
    EXPECT_EQ(mill_crc32(mill_crc32(0, bytes.data(), 33333), bytes.data() + 33333, 36667), crc32_z(0, bytes.data(), bytes.size()));
}

} // namespace
