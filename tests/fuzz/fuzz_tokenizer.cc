/* tokenizer.json, and what the tokenizer made of it does with a text. The input is the file, a NUL byte, and a text. */
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" {
#include "models/tokenizers/wordpiece.h"
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = reinterpret_cast<const char *>(data);
    const void *nul = size > 0 ? memchr(bytes, 0, size) : nullptr;
    const size_t json = nul != nullptr ? size_t(static_cast<const char *>(nul) - bytes) : size;
    const std::vector<char> text(bytes + (nul != nullptr ? json + 1 : size), bytes + size); /* exact: a read past its end shows */
    stm_wordpiece *tok = nullptr;
    mill_error err = {};
    const mill_status status = stm_wordpiece_from_json(bytes, json, nullptr, 0, "fuzz", &tok, &err);
    if ((status == MILL_OK) != (tok != nullptr)) abort();
    if (status != MILL_OK) {
        if (err.msg[0] == 0) abort();
        return 0;
    }
    const stm_wordpiece_info info = stm_wordpiece_info_of(tok);
    for (int32_t max : {info.n_before + info.n_after, info.n_before + info.n_after + 3, 300}) {
        std::vector<int32_t> ids(size_t(max) + 1, -9);
        const int32_t n = stm_wordpiece_encode(tok, text.data(), int64_t(text.size()), max, ids.data());
        if (n < info.n_before + info.n_after || n > max || ids[size_t(max)] != -9) abort();
        for (int32_t i = 0; i < n; i++)
            if (ids[size_t(i)] < 0 || ids[size_t(i)] >= info.vocabulary) abort();
    }
    stm_wordpiece_close(&tok);
    return 0;
}
