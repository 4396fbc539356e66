/* The limit of reading JSON lines: simdjson parses each line by itself, one thread.
 * usage: bench_simdjson FILE; prints as JSON the rows and the seconds of the fastest of five passes, of each kind:
 *   seconds   the file is read from the page cache into memory that is there, then parsed
 *   parse     the parsing alone
 *   copy      no parsing: read from the page cache, and written to FILE.copy
 */
#include <fcntl.h>
#include <simdjson.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

using clock_type = std::chrono::steady_clock;

static double since(clock_type::time_point start) { return std::chrono::duration<double>(clock_type::now() - start).count(); }

/* Whole file into text; false: it cannot be read. */
static bool load(const char *path, char *text, size_t bytes)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t at = 0;
    for (ssize_t n = 1; fd >= 0 && at < bytes && n > 0; at += n > 0 ? static_cast<size_t>(n) : 0)
        n = read(fd, text + at, std::min(bytes - at, size_t{1} << 18));
    if (fd >= 0) close(fd);
    return at == bytes;
}

static bool store(const char *path, const char *text, size_t bytes)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t at = 0;
    for (ssize_t n = 1; fd >= 0 && at < bytes && n > 0; at += n > 0 ? static_cast<size_t>(n) : 0)
        n = write(fd, text + at, std::min(bytes - at, size_t{1} << 18));
    if (fd >= 0) close(fd);
    unlink(path);
    return at == bytes;
}

static bool parse(simdjson::dom::parser &parser, const char *p, const char *end, long &rows, uint64_t &check)
{
    for (rows = 0; p < end; rows++) {
        const char *stop = static_cast<const char *>(memchr(p, '\n', static_cast<size_t>(end - p)));
        if (stop == nullptr) stop = end;
        simdjson::dom::element row;
        simdjson::dom::object o;
        /* padding: what follows, or the text's own */
        if (parser.parse(p, static_cast<size_t>(stop - p), false).get(row) != simdjson::SUCCESS) return false;
        if (row.get(o) != simdjson::SUCCESS) return false;
        for (auto field : o) check += field.key.size();
        p = stop + 1;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct stat info;
    if (argc != 2 || stat(argv[1], &info) != 0) return 1;
    const size_t bytes = static_cast<size_t>(info.st_size);
    std::vector<char> text(bytes + simdjson::SIMDJSON_PADDING);
    const std::string copy = std::string(argv[1]) + ".copy";
    simdjson::dom::parser parser;
    double both = 1e9, parsed = 1e9, copied = 1e9;
    long rows = 0;
    uint64_t check = 0;
    for (int pass = 0; pass < 5; pass++) {
        auto start = clock_type::now();
        if (!load(argv[1], text.data(), bytes)) return 1;
        const double reading = since(start);
        if (!parse(parser, text.data(), text.data() + bytes, rows, check)) return 1;
        const double all = since(start);
        start = clock_type::now();
        if (!store(copy.c_str(), text.data(), bytes)) return 1;
        copied = std::min(copied, since(start) + reading);
        both = std::min(both, all);
        parsed = std::min(parsed, all - reading);
    }
    printf("{\"rows\": %ld, \"seconds\": %.6f, \"parse\": %.6f, \"copy\": %.6f, \"check\": %llu}\n", rows, both, parsed, copied,
           static_cast<unsigned long long>(check));
    return 0;
}
