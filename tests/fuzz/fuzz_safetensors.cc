/* The header of a safetensors file: whatever is accepted must be readable to its last byte. */
#include <cstdint>
#include <cstdlib>
#include <vector>

extern "C" {
#include "models/weights/safetensors.h"
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Half of the inputs are a header alone: its length is put in front, so that the fuzzer need not find it. */
    std::vector<uint8_t> file;
    if (size > 0 && data[0] == '{') {
        const uint8_t *end = data + size;
        const uint8_t *cut = data;
        while (cut < end && *cut != 0) cut++; /* the data begins at the first NUL */
        const uint64_t n = uint64_t(cut - data);
        for (int i = 0; i < 8; i++) file.push_back(uint8_t(n >> (8 * i)));
    }
    file.insert(file.end(), data, data + size);
    stm_safetensors *st = nullptr;
    mill_error err = {};
    const mill_status status = stm_safetensors_parse(file.data(), file.size(), "fuzz", &st, &err);
    if ((status == MILL_OK) != (st != nullptr)) abort();
    if (status != MILL_OK) {
        if (err.msg[0] == 0) abort(); /* every refusal says why */
        return 0;
    }
    unsigned sum = 0;
    for (size_t i = 0; i < stm_safetensors_count(st); i++) {
        const stm_tensor *t = stm_safetensors_at(st, i), *found = nullptr;
        for (size_t b = 0; b < t->bytes; b++) sum += static_cast<const uint8_t *>(t->data)[b];
        if (stm_safetensors_find(st, t->name) != t) abort();
        if (t->dtype == STM_DTYPE_OTHER) continue;
        if (stm_safetensors_need(st, t->name, t->rank, t->shape, &found, nullptr) != MILL_OK || found != t) abort();
        std::vector<float> values(size_t(t->values) + 1);
        stm_tensor_read(t, 0, t->values, values.data());
    }
    stm_safetensors_close(&st);
    return sum == 0xffffffffu;
}
