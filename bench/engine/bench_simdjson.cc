/* The limit of reading JSON lines: simdjson parses each line by itself, one thread, file mapped and in the page cache.
 * usage: bench_simdjson FILE; prints rows, seconds of the fastest of five passes, as JSON. */
#include <simdjson.h>

#include <chrono>
#include <cstdio>
#include <cstring>

int main(int argc, char **argv)
{
    simdjson::padded_string text;
    if (argc != 2 || simdjson::padded_string::load(argv[1]).get(text) != simdjson::SUCCESS) return 1;
    simdjson::dom::parser parser;
    double best = 1e9;
    long rows = 0;
    uint64_t bytes = 0;
    for (int pass = 0; pass < 5; pass++) {
        const auto start = std::chrono::steady_clock::now();
        const char *p = text.data(), *end = p + text.size();
        for (rows = 0; p < end; rows++) {
            const char *stop = static_cast<const char *>(memchr(p, '\n', (size_t)(end - p)));
            if (stop == nullptr) stop = end;
            simdjson::dom::element row;
            if (parser.parse(p, (size_t)(stop - p), false).get(row) != simdjson::SUCCESS) return 1; /* padding: what follows, or the text's own */
            simdjson::dom::object o;
            if (row.get(o) != simdjson::SUCCESS) return 1;
            for (auto field : o) bytes += field.key.size();
            p = stop + 1;
        }
        const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (s < best) best = s;
    }
    printf("{\"rows\": %ld, \"seconds\": %.6f, \"check\": %llu}\n", rows, best, (unsigned long long)bytes);
    return 0;
}
