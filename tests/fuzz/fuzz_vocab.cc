/* vocab.txt with a configuration: the input is tokenizer_config.json (or nothing), a NUL byte, vocab.txt, a NUL byte, a text. */
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

extern "C" {
#include "models/tokenizers/wordpiece.h"
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    std::string parts[3];
    size_t at = 0;
    for (int i = 0; i < 3; i++) {
        const void *nul = i < 2 && at < size ? memchr(data + at, 0, size - at) : nullptr;
        const size_t end = nul != nullptr ? size_t(static_cast<const uint8_t *>(nul) - data) : size;
        parts[i].assign(reinterpret_cast<const char *>(data) + at, end - at);
        at = end < size ? end + 1 : size;
    }
    const std::vector<char> text(parts[2].begin(), parts[2].end());
    stm_wordpiece *tok = nullptr;
    mill_error err = {};
    const mill_status status = stm_wordpiece_from_vocab(
        parts[1].data(), parts[1].size(), parts[0].empty() ? nullptr : parts[0].data(), parts[0].size(), "fuzz", &tok, &err);
    if ((status == MILL_OK) != (tok != nullptr)) abort();
    if (status != MILL_OK) {
        if (err.msg[0] == 0) abort();
        return 0;
    }
    const int32_t vocabulary = stm_wordpiece_info_of(tok).vocabulary;
    for (int32_t max : {2, 3, 40}) {
        std::vector<int32_t> ids(size_t(max) + 1, -9);
        const int32_t n = stm_wordpiece_encode(tok, text.data(), int64_t(text.size()), max, ids.data());
        if (n < 2 || n > max || ids[size_t(max)] != -9) abort();
        for (int32_t i = 0; i < n; i++)
            if (ids[size_t(i)] < 0 || ids[size_t(i)] >= vocabulary) abort();
    }
    stm_wordpiece_close(&tok);
    return 0;
}
