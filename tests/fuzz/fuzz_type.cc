/* Text forms of types: what parses must come back the same through its own text. */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

extern "C" {
#include "stepmill/type.h"
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const std::string text(reinterpret_cast<const char *>(data), size);
    const mill_type *t = nullptr, *again = nullptr;
    mill_error err = {};
    if (mill_type_parse(text.c_str(), &t, &err) != MILL_OK) {
        if (t == nullptr && err.msg[0] != '\0') return 0;
        fprintf(stderr, "fuzz_type: a failure that set its output or says nothing\n");
        abort();
    }
    std::string out((size_t)mill_type_format(t, nullptr, 0) + 1, '\0');
    mill_type_format(t, &out[0], out.size());
    if (mill_type_parse(out.c_str(), &again, &err) != MILL_OK || again != t) {
        fprintf(stderr, "fuzz_type: %s comes back as another type\n", out.c_str());
        abort();
    }
    return 0;
}
