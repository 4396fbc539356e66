/*
 * Arrow IPC: arbitrary bytes go through the reader of streams, through that of files, and are gone on with as a file in the making.
 * Whatever is let through must be a valid batch that can be joined, written again and read back with the same rows.
 */
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

extern "C" {
#include "batch/batch.h"
#include "batch/ipc.h"
#include "core/alloc.h"
#include "stepmill/arrow_file.h"
}

namespace {

struct Bytes {
    const uint8_t *data;
    size_t n, at;
};

void require(bool ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "fuzz_arrow: %s\n", what);
    abort();
}

mill_status get(void *user, void *to, size_t n, size_t *got, mill_error *)
{
    auto *b = static_cast<Bytes *>(user);
    *got = std::min(n, b->n - b->at);
    if (*got > 0) memcpy(to, b->data + b->at, *got);
    b->at += *got;
    return MILL_OK;
}
mill_status put(void *user, const void *from, size_t n, mill_error *)
{
    static_cast<std::string *>(user)->append(static_cast<const char *>(from), n);
    return MILL_OK;
}

/* Rows without bytes (struct<>) may be as many as the message says: not walked, not copied. */
bool small(const mill_batch *b) { return mill_batch_rows(b) <= 4096 && stm_batch_bytes(b) <= 1 << 22; }

void check(mill_pool *pool, const mill_type *schema, const mill_batch *b)
{
    mill_error err = {};
    for (int32_t i = 0; i < mill_batch_columns(b); i++) {
        mill_column *c = mill_batch_column(b, i);
        require(mill_column_type(c) == schema->fields[i].type && mill_column_rows(c) == mill_batch_rows(b),
                "a column of another shape");
        require(stm_column_validate(c, &err) == MILL_OK, "a column that is not valid");
    }
    if (!small(b)) return;
    std::string again;
    stm_ipc_writer *w = nullptr;
    require(stm_ipc_writer_create(schema, put, &again, &w, &err) == MILL_OK, "the schema cannot be written");
    require(stm_ipc_writer_batch(w, b, &err) == MILL_OK, "the batch cannot be written");
    stm_ipc_writer_destroy(&w);
    Bytes in = {reinterpret_cast<const uint8_t *>(again.data()), again.size(), 0};
    stm_ipc_reader *r = nullptr;
    mill_batch *back = nullptr;
    require(stm_ipc_reader_create(pool, get, &in, &r, &err) == MILL_OK, "what was written cannot be read");
    require(stm_ipc_reader_schema(r) == schema, "the schema came back as another");
    require(stm_ipc_reader_next(r, &back, &err) == MILL_OK && back != nullptr, "what was written cannot be read");
    require(mill_batch_rows(back) == mill_batch_rows(b), "rows were lost");
    mill_batch_destroy(&back);
    stm_ipc_reader_destroy(&r);
}

/* The bytes as a file: rows in pieces, again from every place, and as one that a writer goes on with. */
void check_file(mill_pool *pool, const uint8_t *data, size_t size)
{
    const int fd = memfd_create("fuzz_arrow", MFD_CLOEXEC);
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    mill_arrow_reader *r = nullptr;
    mill_error err = {};
    int64_t pieces = 0;

    require(fd >= 0 && write(fd, data, size) == static_cast<ssize_t>(size), "no file in memory");
    mill_status st = mill_arrow_reader_open(pool, path.c_str(), &r, &err);
    while (st == MILL_OK) {
        mill_batch *b = nullptr, *again = nullptr;
        const mill_arrow_place at = mill_arrow_reader_place(r);
        st = mill_arrow_reader_next(r, 7, &b, &err);
        if (b == nullptr || ++pieces > 100) {
            mill_batch_destroy(&b);
            break;
        }
        check(pool, mill_arrow_reader_schema(r), b);
        mill_arrow_reader_goto(r, {0, 0}); /* away, so that the way back leads to the disk */
        mill_arrow_reader_goto(r, at);
        st = mill_arrow_reader_next(r, 7, &again, &err);
        require(st == MILL_OK && again != nullptr && mill_batch_rows(again) == mill_batch_rows(b), "other rows at the same place");
        mill_batch_destroy(&again);
        mill_batch_destroy(&b);
    }
    require((st == MILL_OK) == (err.msg[0] == '\0'), "a failure without a word, or words without a failure");
    std::string more;
    mill_arrow_writer *w = nullptr;
    if (r != nullptr && mill_arrow_writer_resume(pool, mill_arrow_reader_schema(r), path.c_str(),
                                                 static_cast<int64_t>(size / 8 * 8), put, &more, &w, &err) == MILL_OK)
        require(mill_arrow_writer_end(w, &err) == MILL_OK, "what was gone on with cannot be ended");
    mill_arrow_writer_destroy(&w);
    mill_arrow_reader_close(&r);
    close(fd);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const long before = stm_alloc_counts().live;
    mill_pool *pool = nullptr;
    stm_ipc_reader *r = nullptr;
    mill_error err = {};
    Bytes in = {data, size, 0};
    require(stm_pool_create((int64_t)1 << 30, &pool) == MILL_OK, "no pool");
    mill_status st = stm_ipc_reader_create(pool, get, &in, &r, &err);
    while (st == MILL_OK) {
        mill_batch *b = nullptr;
        st = stm_ipc_reader_next(r, &b, &err);
        if (b == nullptr) break;
        check(pool, stm_ipc_reader_schema(r), b);
        mill_batch_destroy(&b);
    }
    require((st == MILL_OK) == (err.msg[0] == '\0'), "a failure without a word, or words without a failure");
    stm_ipc_reader_destroy(&r);
    check_file(pool, data, size);
    require(stm_pool_counts(pool).live_bytes == 0, "something was not given back");
    stm_pool_release(&pool);
    require(stm_alloc_counts().live == before, "something was not freed");
    return 0;
}
