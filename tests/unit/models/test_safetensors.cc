#include "model_maker.h"

#include "support/fail_nth.h"

extern "C" {
#include "models/weights/safetensors.h"
}

namespace {

std::string file(const std::string &header, size_t data_bytes)
{
    std::string out(8, '\0');
    for (int i = 0; i < 8; i++) out[size_t(i)] = char(header.size() >> (8 * i));
    return out + header + std::string(data_bytes, '\1');
}

const struct {
    const char *name, *header;
    size_t data;
    mill_status status;
    const char *says;
} kHeaders[] = {
    {"good", R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}})",
     19, MILL_OK, ""},
    {"empty", "{}", 0, MILL_OK, ""},
    {"spaces_behind", "{}      ", 0, MILL_OK, ""},
    {"scalar", R"({"a":{"dtype":"F16","shape":[],"data_offsets":[0,2]}})", 2, MILL_OK, ""},
    {"no_values", R"({"a":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}})", 0, MILL_OK, ""},
    {"metadata", R"({"__metadata__":{"x":"y"}})", 0, MILL_OK, ""},
    {"not_json", "{\"a\":", 0, MILL_ERR_PARSE, "not valid JSON"},
    {"list", "[]", 0, MILL_ERR_PARSE, "not a safetensors file"},
    {"no_dtype", R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, MILL_ERR_PARSE, "tensor a lacks dtype"},
    {"shape_is_text", R"({"a":{"dtype":"F32","shape":"1","data_offsets":[0,4]}})", 4, MILL_ERR_PARSE, "lacks dtype, shape"},
    {"tensor_is_number", R"({"a":1})", 0, MILL_ERR_PARSE, "tensor a lacks"},
    {"negative_size", R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, MILL_ERR_PARSE, "impossible shape"},
    {"fraction", R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,6]}})", 6, MILL_ERR_PARSE, "impossible shape"},
    {"nine_dimensions", R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", 4, MILL_ERR_PARSE,
     "impossible shape"},
    {"shape_overflows", R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", 4, MILL_ERR_PARSE,
     "impossible shape"},
    {"bytes_overflow", R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}})", 4, MILL_ERR_PARSE,
     "impossible shape"},
    {"offsets_backwards", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, MILL_ERR_PARSE,
     "impossible data_offsets"},
    {"offsets_negative", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", 4, MILL_ERR_PARSE,
     "impossible data_offsets"},
    {"one_offset", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, MILL_ERR_PARSE, "impossible data_offsets"},
    {"three_offsets", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 4, MILL_ERR_PARSE, "impossible data_offsets"},
    {"offsets_huge", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[9223372036854775803,9223372036854775807]}})", 4,
     MILL_ERR_PARSE, "truncated"},
    {"offsets_past_int64", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}})", 4, MILL_ERR_PARSE,
     "impossible data_offsets"},
    {"past_the_end", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7, MILL_ERR_PARSE,
     "tensor a ends at byte 8 of the data, but the file has only 7"},
    {"size_differs", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, MILL_ERR_PARSE,
     "has 4 bytes where its dtype F32 and shape need 8"},
    {"overlap", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8,
     MILL_ERR_PARSE, "tensors a and b overlap"},
    {"gap", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}})", 4,
     MILL_ERR_PARSE, "2 bytes before tensor b"},
    {"trailing", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 4, MILL_ERR_PARSE, "3 bytes after the last tensor"},
    {"twice", R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0,
     MILL_ERR_PARSE, "tensor a stands twice"},
    {"nul_in_name", "{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, MILL_ERR_PARSE, "unusable name"},
};

TEST(Safetensors, Headers)
{
    for (const auto &c : kHeaders) {
        const std::string bytes = file(c.header, c.data);
        std::vector<char> exact(bytes.begin(), bytes.end()); /* no byte behind it: a sanitizer sees any read past the end */
        stm_safetensors *st = nullptr;
        mill_error err = {};
        const long live = mt::live();
        EXPECT_EQ(stm_safetensors_parse(exact.data(), exact.size(), "test", &st, &err), c.status) << c.name << ": " << err.msg;
        EXPECT_NE(std::string(err.msg).find(c.says), std::string::npos) << c.name << ": " << err.msg;
        EXPECT_EQ(st != nullptr, c.status == MILL_OK);
        stm_safetensors_close(&st);
        EXPECT_EQ(mt::live(), live) << c.name;
    }
}

TEST(Safetensors, EveryLengthOfAFile)
{
    const std::string bytes = file(kHeaders[0].header, kHeaders[0].data);
    for (size_t n = 0; n < bytes.size(); n++) {
        std::vector<char> exact(bytes.begin(), bytes.begin() + long(n));
        stm_safetensors *st = nullptr;
        mill_error err = {};
        ASSERT_EQ(stm_safetensors_parse(exact.data(), n, "test", &st, &err), MILL_ERR_PARSE) << n;
    }
    for (uint64_t length : {uint64_t(0), uint64_t(1), uint64_t(1) << 40, ~uint64_t(0), ~uint64_t(0) - 7}) { /* header lengths */
        std::string b = bytes;
        for (int i = 0; i < 8; i++) b[size_t(i)] = char(length >> (8 * i));
        stm_safetensors *st = nullptr;
        EXPECT_EQ(stm_safetensors_parse(b.data(), b.size(), "test", &st, nullptr), MILL_ERR_PARSE) << length;
    }
}

TEST(Safetensors, FindNeedRead)
{
    const float f[] = {1.5f, -2.0f};
    const uint16_t halves[] = {0x3e00, 0xc000, 0x0001, 0x83ff, 0x7c00, 0x0400, 0x8000}; /* 1.5 -2 2^-24 -1023*2^-24 inf 2^-14 -0 */
    const uint16_t bf[] = {0x3fc0, 0xc000};
    std::string bytes =
        R"({"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"f":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]},)"
        R"("h":{"dtype":"F16","shape":[7],"data_offsets":[12,26]},"i":{"dtype":"I64","shape":[0],"data_offsets":[26,26]}})";
    if (bytes.size() % 2 == 0) bytes += ' '; /* odd addresses */
    bytes = file(bytes, 0);
    bytes.append(reinterpret_cast<const char *>(bf), 4)
        .append(reinterpret_cast<const char *>(f), 8)
        .append(reinterpret_cast<const char *>(halves), 14);
    stm_safetensors *st = nullptr;
    mill_error err = {};
    ASSERT_EQ(stm_safetensors_parse(bytes.data(), bytes.size(), "test", &st, &err), MILL_OK) << err.msg;
    ASSERT_EQ(stm_safetensors_count(st), 4u);
    float out[7];
    stm_tensor_read(stm_safetensors_find(st, "f"), 0, 2, out);
    EXPECT_EQ(out[0], 1.5f);
    EXPECT_EQ(out[1], -2.0f);
    stm_tensor_read(stm_safetensors_find(st, "b"), 1, 1, out);
    EXPECT_EQ(out[0], -2.0f);
    stm_tensor_read(stm_safetensors_find(st, "h"), 0, 7, out);
    const float want[] = {1.5f, -2.0f, 0x1p-24f, -1023 * 0x1p-24f, INFINITY, 0x1p-14f, -0.0f};
    EXPECT_EQ(memcmp(out, want, sizeof want), 0);
    const stm_tensor *t = nullptr;
    const int64_t two[] = {1, 2}, zero[] = {0};
    EXPECT_EQ(stm_safetensors_need(st, "f", 2, two, &t, nullptr), MILL_OK);
    EXPECT_EQ(stm_safetensors_need(st, "f", 1, two, &t, nullptr), MILL_ERR_INVALID);
    EXPECT_EQ(stm_safetensors_need(st, "i", 1, zero, &t, nullptr), MILL_ERR_TYPE);
    EXPECT_EQ(stm_safetensors_need(st, "nothing", 1, zero, &t, nullptr), MILL_ERR_NOT_FOUND);
    stm_safetensors_close(&st);
    EXPECT_EQ(stm_safetensors_open("/tmp", &st, nullptr), MILL_ERR_INVALID);
    EXPECT_EQ(stm_safetensors_open("/nowhere", &st, nullptr), MILL_ERR_NOT_FOUND);
}

} // namespace
