/* Checks of sinks: each works in a run directory of its own. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/fault.h"
#include "pipeline/conform.h"

/* Remove what is in a folder, not the folder. */
static void empty_folder(const char *path, int depth)
{
    DIR *d = depth < 8 ? opendir(path) : NULL;

    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char at[512];
        struct stat s;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (snprintf(at, sizeof at, "%s/%s", path, e->d_name) >= (int)sizeof at) continue;
        if (lstat(at, &s) == 0 && S_ISDIR(s.st_mode)) {
            empty_folder(at, depth + 1);
            rmdir(at);
        } else {
            unlink(at);
        }
    }
    if (d != NULL) closedir(d);
}

/* Hash of the files in the run directory: names and bytes, whatever the order they are listed in. */
static uint64_t hash_folder(const char *path, int depth, int32_t *files)
{
    DIR *d = depth < 8 ? opendir(path) : NULL;
    uint64_t sum = 0;

    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char at[512], bytes[4096];
        uint64_t h = stm_hash64(e->d_name, strlen(e->d_name), 3);
        struct stat s;
        FILE *f;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (snprintf(at, sizeof at, "%s/%s", path, e->d_name) >= (int)sizeof at || stat(at, &s) != 0) continue;
        if (S_ISDIR(s.st_mode)) {
            sum += hash_folder(at, depth + 1, files) * 31 + h;
            continue;
        }
        if ((f = fopen(at, "rb")) != NULL) {
            size_t n, total = 0;

            while ((n = fread(bytes, 1, sizeof bytes, f)) > 0) {
                /* not by the block: reads may be short */
                for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)bytes[i]) * 0x100000001b3ull;
                total += n;
            }
            h ^= total;
            fclose(f);
            ++*files;
        }
        sum += h;
    }
    if (d != NULL) closedir(d);
    return sum;
}

/* Write all rows in batches of @p size. False: said. */
static bool write_all(stm_conform *k, int64_t rows, int64_t size, bool finalize, uint64_t *hash, int32_t *files)
{
    stm_conform_bench b;
    mill_error e = {0};
    mill_cursor cursor = {0};
    mill_status st = MILL_OK;
    const char *call = "write";

    empty_folder(k->dir, 0);
    if (!stm_conform_open(k, &b)) return false;
    stm_conform_now(k, "load and open");
    if (!stm_conform_load(k, &b)) {
        stm_conform_close(k, &b, "a load that failed");
        return false;
    }
    for (int64_t first = 0; first < rows && st == MILL_OK; first += size) {
        const int64_t n = rows - first < size ? rows - first : size;
        mill_batch *in = stm_conform_batch(k, b.pool, first, n, first % 2, false);

        if (in == NULL) break;
        stm_conform_now(k, "write of a batch of %lld row%s", (long long)n, n == 1 ? "" : "s");
        st = stm_probe_write(b.w, in, &e);
        mill_batch_destroy(&in);
    }
    if (st == MILL_OK) {
        stm_conform_now(k, "sync after %lld rows", (long long)rows);
        call = "sync";
        st = stm_probe_sync(b.w, &cursor, &e);
        if (st == MILL_ERR_AGAIN) st = MILL_OK;
        if (st == MILL_OK && cursor.size > sizeof cursor.bytes)
            stm_conform_find(k, "sync says a cursor of %u bytes; there is room for %zu", (unsigned)cursor.size,
                             sizeof cursor.bytes);
    }
    if (st == MILL_OK && finalize) {
        stm_conform_now(k, "finalize after %lld rows", (long long)rows);
        call = "finalize";
        st = stm_wrapper_finalize(b.w, &e);
    }
    stm_conform_close(k, &b, finalize ? "finalize" : "writes, without finalize");
    *files = 0;
    *hash = hash_folder(k->dir, 0, files);
    if (st == MILL_OK) return true;
    if (rows == 0)
        stm_conform_find(k, "%s fails after 0 rows: %s", call, e.msg);
    else {
        stm_conform_skip(k, "%s failed: %s", call, e.msg);
        k->note->wants_help = true;
    }
    return false;
}

void stm_conform_check_sink(stm_conform *k)
{
    uint64_t one, again, three, whole;
    int32_t n_one, n;

    if (!write_all(k, STM_CONFORM_ROWS, 16, true, &one, &n_one) || !write_all(k, STM_CONFORM_ROWS, 16, true, &again, &n) ||
        !write_all(k, STM_CONFORM_ROWS, 3, true, &three, &n) || !write_all(k, STM_CONFORM_ROWS, STM_CONFORM_ROWS, true, &whole, &n))
        return;
    if ((k->type->flags & MILL_NONDETERMINISTIC) == 0) {
        if (one != again)
            stm_conform_find(k, "the same rows written twice give other files in the run directory; a type whose results change "
                                "declares MILL_NONDETERMINISTIC");
        else if ((k->type->flags & MILL_BATCH_SENSITIVE) == 0 && (one != three || one != whole))
            stm_conform_find(k, "the files in the run directory depend on how rows are cut into batches; declare "
                                "MILL_BATCH_SENSITIVE or make them the same");
    }
    stm_conform_did(k, "%d rows in batches of 16 (twice), 3 and %d, finalized: %d file%s in the run directory, the same bytes",
                    STM_CONFORM_ROWS, STM_CONFORM_ROWS, (int)n_one, n_one == 1 ? "" : "s");
}

void stm_conform_check_sink_empty(stm_conform *k)
{
    uint64_t hash;
    int32_t files;

    if (write_all(k, 0, 1, true, &hash, &files)) stm_conform_did(k, "finalize without a write");
}

/* Rows [first, end) in batches of 5; @p cursor: where to open. *synced, when asked for: where sync says to go on after them, with
 * the batch that begins at row *from. */
static bool write_some(stm_conform *k, const mill_cursor *cursor, int64_t first, int64_t end, int64_t lost, bool finalize,
                       mill_cursor *synced, int64_t *from)
{
    stm_conform_bench b;
    mill_error e = {0};
    mill_status st = MILL_OK;
    int64_t marked = -1;

    if (!stm_conform_open(k, &b)) return false;
    stm_probe_open_at(b.w, cursor);
    stm_conform_now(k, "load, and open at a cursor of %u bytes", (unsigned)cursor->size);
    if (stm_wrapper_load(b.w, &e) != MILL_OK) {
        stm_conform_find(k, "open at the cursor that sync gave fails: %s", e.msg);
        stm_conform_close(k, &b, "an open that failed");
        return false;
    }
    stm_wrapper_run(b.w);
    for (int64_t at = first; at < end + lost && st == MILL_OK; at += 5) {
        mill_batch *in;

        if (at == end && synced != NULL) { /* what comes after this is not synced, and lost */
            stm_conform_now(k, "sync after %lld rows", (long long)(at - first));
            synced->size = 0;
            *from = marked >= 0 ? marked : end;
            st = stm_probe_sync(b.w, synced, &e);
            if (st == MILL_ERR_AGAIN) {
                *from = first;
                *synced = *cursor;
            } else if (st != MILL_OK) {
                break;
            }
        }
        if ((in = stm_conform_batch(k, b.pool, at, 5, 0, false)) == NULL) break;
        stm_conform_now(k, "write of a batch of 5 rows");
        st = stm_probe_write(b.w, in, &e);
        if (stm_wrapper_marked(b.w)) marked = at;
        mill_batch_destroy(&in);
    }
    stm_conform_now(k, "finalize");
    if (st == MILL_OK && finalize) st = stm_wrapper_finalize(b.w, &e);
    stm_conform_close(k, &b, finalize ? "finalize" : "writes, without finalize");
    if (st != MILL_OK) stm_conform_skip(k, "write, sync or finalize failed: %s", e.msg);
    return st == MILL_OK;
}

void stm_conform_check_sink_resume(stm_conform *k)
{
    const mill_cursor start = {0};
    mill_cursor cursor = {0}, other = {0};
    uint64_t whole, resumed;
    int64_t from = 0;
    int32_t files = 0;

    empty_folder(k->dir, 0);
    if (!write_some(k, &start, 0, 40, 0, true, NULL, NULL)) return;
    whole = hash_folder(k->dir, 0, &files);
    if (files == 0) {
        stm_conform_did(k, "not looked at: it writes no file in the run directory");
        return;
    }
    for (int64_t lost = 5; lost <= 15; lost += 10) {
        empty_folder(k->dir, 0);
        if (!write_some(k, &start, 0, 20, lost, false, &cursor, &from)) return;
        if (cursor.size > sizeof cursor.bytes) {
            stm_conform_find(k, "sync says a cursor of %u bytes; there is room for %zu", (unsigned)cursor.size,
                             sizeof cursor.bytes);
            return;
        }
        if (!write_some(k, &cursor, from, 40, 0, true, &other, &from)) return;
        resumed = hash_folder(k->dir, 0, &files);
        if (resumed != whole && (k->type->flags & (MILL_NONDETERMINISTIC | MILL_BATCH_SENSITIVE)) == 0)
            stm_conform_find(k,
                             "the files differ when it is opened again at the cursor that sync gave after 20 rows, %lld more rows "
                             "written and lost; "
                             "everything after the cursor is to be cut off, and the rest written as if nothing had happened",
                             (long long)lost);
    }
    stm_conform_did(k, "opened again at the cursor of a sync, with rows written and lost after it: the same files");
}

void stm_conform_check_sink_left(stm_conform *k)
{
    uint64_t hash;
    int32_t files;

    write_all(k, 20, 8, false, &hash, &files);
    for (int64_t nth = 0; nth < 32; nth++) {
        stm_conform_bench b;
        mill_error e = {0};
        mill_batch *in;
        bool fired = false;

        empty_folder(k->dir, 0);
        if (!stm_conform_open(k, &b)) return;
        if (stm_conform_load(k, &b) && (in = stm_conform_batch(k, b.pool, 0, 20, 0, false)) != NULL) {
            stm_conform_now(k, "write of a batch of 20 rows, while memory runs out");
            stm_fault_arm(STM_FAULT_ALLOC, nth);
            stm_probe_write(b.w, in, &e);
            fired = stm_fault_disarm();
            mill_batch_destroy(&in);
        }
        stm_conform_close(k, &b, "a write without enough memory");
        if (!fired) break;
    }
    stm_conform_did(k, "unload without finalize, and a write that runs out of memory: nothing leaks");
}
