/*
 * What the store reads back: arbitrary bytes as the tables of a journal, as a stored batch, and as the files of a run
 * directory. The first byte chooses. Whatever is let through must make sense, and come out the same when written again.
 */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../unit/store/disk.h"

extern "C" {
#include "batch/ipc.h"
#include "core/alloc.h"
#include "store/batches.h"
#include "store/crc32c.h"
#include "store/vault_state.h"
}

namespace {

void require(bool ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "fuzz_store: %s\n", what);
    abort();
}

/* Length of the base in two bytes, base, commit. */
void tables(const uint8_t *data, size_t n)
{
    if (n < 2) return;
    const size_t base = std::min<size_t>(n - 2, data[0] | data[1] << 8);
    mill_error err = {};
    stm_tables t = {};
    const mill_status st = stm_tables_decode_base(&t, data + 2, base, 9, &err);
    if (st != MILL_OK) {
        require(st == MILL_ERR_DATA || st == MILL_ERR_UNSUPPORTED || st == MILL_ERR_NOMEM, "a base refused without a reason");
        return;
    }
    stm_text again = {};
    stm_tables_encode_base(&t, &again);
    stm_tables back = {};
    require(stm_tables_decode_base(&back, again.data, again.bytes, 9, &err) == MILL_OK, "a base that cannot be read again");
    stm_text third = {};
    stm_tables_encode_base(&back, &third);
    require(third.bytes == again.bytes && memcmp(third.data, again.data, third.bytes) == 0, "a base that changes");
    for (size_t i = 0; i < t.n_streams; i++)
        require(t.streams[i].part >= 0 && static_cast<size_t>(t.streams[i].part) < t.n_parts, "a stream of no part");
    (void)stm_tables_decode_commit(&t, data + 2 + base, n - 2 - base, 9, 1, &err);
    stm_text_free(&again);
    stm_text_free(&third);
    stm_tables_fini(&back);
    stm_tables_fini(&t);
}

mill_status to_string(void *user, const void *bytes, size_t n, mill_error *)
{
    static_cast<std::string *>(user)->append(static_cast<const char *>(bytes), n);
    return MILL_OK;
}

void batch(const uint8_t *data, size_t n)
{
    static const mill_field fields[] = {{"a", mill_type_plain(MILL_INT64)}, {"b", mill_type_plain(MILL_UTF8)}};
    const mill_type *schema = mill_type_struct(fields, 2);
    std::string message;
    stm_ipc_writer *w = nullptr;
    mill_error err = {};
    mill_pool *pool = nullptr;
    mill_batch *b = nullptr;
    require(stm_ipc_writer_create(schema, to_string, &message, &w, &err) == MILL_OK, "no schema");
    stm_ipc_writer_destroy(&w);
    require(stm_pool_create((int64_t)1 << 28, &pool) == MILL_OK, "no pool");
    const mill_status st = stm_batch_decode(pool, schema, 2, message.data(), message.size(), data, n, &b, &err);
    if (st == MILL_OK) {
        for (int32_t i = 0; i < mill_batch_columns(b); i++) {
            mill_column *c = mill_batch_column(b, i);
            require(c == nullptr || (mill_column_rows(c) == b->rows && stm_column_validate(c, &err) == MILL_OK),
                    "a column that is not valid");
        }
        int64_t key[64];
        uint64_t sum = 0;
        require(b->keys.width >= 1 && b->keys.width <= 64, "keys wider than any");
        for (int64_t r = 0; r < b->rows && r < 4096; r++) {
            stm_batch_key(b, r, key);
            sum += static_cast<uint64_t>(key[0]);
            for (int32_t i = 0; i < b->n_columns; i++) sum += stm_batch_is_imputed(b, i, r);
        }
        if (b->marks != nullptr) require(mill_column_rows(b->marks) == b->rows, "marks of other rows");
        volatile uint64_t keep = sum;
        (void)keep;
    } else {
        require(st == MILL_ERR_DATA || st == MILL_ERR_NOMEM, "a batch refused without a reason");
    }
    mill_batch_destroy(&b);
    stm_pool_release(&pool);
}

/* Journal and segment as they are, checksums mended so that what lies behind them is reached. */
void mend(std::string *s, size_t step, size_t crc_at)
{
    for (size_t at = 0; at + crc_at + 4 <= s->size(); at += step) {
        const uint32_t crc = stm_crc32c(0, s->data() + at, crc_at);
        memcpy(&(*s)[at + crc_at], &crc, 4);
    }
}

void directory(const uint8_t *data, size_t n)
{
    if (n < 3) return;
    const size_t journal = std::min<size_t>(n - 3, data[1] | data[2] << 8);
    mt::Disk disk;
    stm_files f = disk.files();
    std::string seg(reinterpret_cast<const char *>(data + 3 + journal), n - 3 - journal);
    if (data[0] & 1) mend(&seg, STM_SEGMENT_ALIGN, 60);
    const int j = f.open(f.user, "journal.2", STM_OPEN_NEW), s = f.open(f.user, "rows.2.seg", STM_OPEN_NEW);
    if (journal > 0) f.pwrite(f.user, j, data + 3, journal, 0);
    if (!seg.empty()) f.pwrite(f.user, s, seg.data(), seg.size(), 0);
    stm_vault_opts o = {};
    o.files = &f;
    o.nonce = 1;
    stm_vault *v = nullptr;
    mill_error err = {};
    if (stm_vault_open(&o, &v, &err) == MILL_OK) {
        for (size_t i = 0; i < stm_vault_streams(v); i++) {
            stm_segment_reader *r = nullptr;
            bool end = false;
            if (stm_vault_read(v, i, &r, &err) != MILL_OK) continue;
            stm_frame frame;
            while (stm_segment_reader_next(r, true, &frame, &end, &err) == MILL_OK && !end) {}
            stm_segment_reader_destroy(&r);
        }
        stm_vault_close(&v);
    }
    const stm_extent e = {2, data[2], static_cast<int64_t>(seg.size()), data[0], data[1], 0};
    stm_segment_reader *r = nullptr;
    stm_frame frame;
    bool end = false;
    require(stm_segment_reader_create(&f, "rows", &e, 1, &r, &err) == MILL_OK, "no reader");
    while (stm_segment_reader_next(r, true, &frame, &end, &err) == MILL_OK && !end) require(frame.rows >= 0, "negative rows");
    stm_segment_reader_destroy(&r);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0) return 0;
    const long before = stm_alloc_counts().live;
    switch (data[0] % 3) {
    case 0: tables(data + 1, n - 1); break;
    case 1: batch(data + 1, n - 1); break;
    default: directory(data + 1, n - 1);
    }
    static bool warm; /* the first input fills what is kept for good: interned types */
    require(!warm || stm_alloc_counts().live <= before + 64, "something was not given back");
    warm = true;
    return 0;
}
