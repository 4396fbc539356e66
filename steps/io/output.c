#include "steps/io/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#define PACKED_BYTES ((size_t)128 << 10)
#define WRITEBACK_BYTES ((uint64_t)4 << 20) /* how much waits in the page cache before the device is told to begin */

enum { PLAIN, GZIP, ZSTD };

struct stm_output {
    int fd, kind;
    uint64_t size;   /* bytes given to the file */
    uint64_t begun;  /* bytes whose writing to the device has begun */
    bool inside;     /* a compressed stream is open */
    bool named;      /* its name is durable */
    bool deflate_ready;
    z_stream z;
    ZSTD_CStream *zstd;
    uint8_t *packed; /* [PACKED_BYTES] */
    char *path, *temporary;
};

mill_status stm_make_folders(const char *path, mill_error *err)
{
    char *copy = strdup(path);
    mill_status st = MILL_OK;

    if (copy == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a path");
    for (char *p = copy + 1; *p != 0 && st == MILL_OK; p++) {
        if (*p != '/') continue;
        *p = 0;
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            st = mill_fail(err, MILL_ERR_IO, "cannot make the folder %s: %s", copy, strerror(errno));
        *p = '/';
    }
    free(copy);
    return st;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

mill_status stm_output_open(const char *path, uint64_t resume, stm_output **out, mill_error *err)
{
    mill_status st;
    struct stat info;
    stm_output *o = calloc(1, sizeof *o);

    if (o == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory to write %s", path);
    o->fd = -1;
    o->kind = ends_with(path, ".gz") ? GZIP : ends_with(path, ".zst") ? ZSTD : PLAIN;
    o->path = strdup(path);
    o->temporary = malloc(strlen(path) + sizeof ".tmp");
    if (o->kind != PLAIN) o->packed = malloc(PACKED_BYTES);
    if (o->kind == ZSTD) o->zstd = ZSTD_createCStream();
    if (o->path == NULL || o->temporary == NULL || (o->kind != PLAIN && o->packed == NULL) ||
        (o->kind == ZSTD && o->zstd == NULL)) {
        st = mill_fail(err, MILL_ERR_NOMEM, "no memory to write %s", path);
        goto fail;
    }
    sprintf(o->temporary, "%s.tmp", path);
    if (o->kind == GZIP) {
        if (deflateInit2(&o->z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
            st = mill_fail(err, MILL_ERR_NOMEM, "no memory to compress %s", path);
            goto fail;
        }
        o->deflate_ready = true;
    }
    if ((st = stm_make_folders(path, err)) != MILL_OK) goto fail;
    /* Completed after the place to go on from was noted: it becomes the unfinished file again. */
    if (resume > 0 && access(o->temporary, F_OK) != 0 && access(path, F_OK) == 0 && rename(path, o->temporary) != 0) {
        st = mill_fail(err, MILL_ERR_IO, "cannot rename %s: %s", path, strerror(errno));
        goto fail;
    }
    o->fd = open(o->temporary, O_WRONLY | O_CREAT | O_CLOEXEC | (resume == 0 ? O_TRUNC : 0), 0666);
    if (o->fd < 0 || fstat(o->fd, &info) != 0) {
        st = mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", o->temporary, strerror(errno));
        goto fail;
    }
    if (resume > 0) {
        if ((uint64_t)info.st_size < resume) {
            st = mill_fail(err, MILL_ERR_INVALID, "%s has %lld bytes, cannot go on at byte %llu: it was changed", o->temporary,
                           (long long)info.st_size, (unsigned long long)resume);
            goto fail;
        }
        if (ftruncate(o->fd, (off_t)resume) != 0 || lseek(o->fd, (off_t)resume, SEEK_SET) < 0) {
            st = mill_fail(err, MILL_ERR_IO, "cannot cut %s: %s", o->temporary, strerror(errno));
            goto fail;
        }
        o->size = o->begun = resume;
    }
    *out = o;
    return MILL_OK;
fail:
    stm_output_close(&o);
    return st;
}

void stm_output_close(stm_output **op)
{
    stm_output *o = *op;

    if (o == NULL) return;
    if (o->deflate_ready) deflateEnd(&o->z);
    if (o->zstd != NULL) ZSTD_freeCStream(o->zstd);
    if (o->fd >= 0) close(o->fd);
    free(o->packed);
    free(o->path);
    free(o->temporary);
    free(o);
    *op = NULL;
}

static mill_status write_all(stm_output *o, const void *bytes, size_t n, mill_error *err)
{
    const char *p = bytes;

    while (n > 0) {
        const ssize_t w = write(o->fd, p, n);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", o->temporary, strerror(errno));
        p += w;
        n -= (size_t)w;
        o->size += (uint64_t)w;
    }
    /* The device works while rows are still made: the wait at the next sync is short. A hint; durability comes from the sync alone. */
    if (o->size - o->begun >= WRITEBACK_BYTES) {
        (void)sync_file_range(o->fd, (off64_t)o->begun, (off64_t)(o->size - o->begun), SYNC_FILE_RANGE_WRITE);
        o->begun = o->size;
    }
    return MILL_OK;
}

static mill_status pack_gzip(stm_output *o, const void *bytes, size_t n, int flush, mill_error *err)
{
    const uint8_t *p = bytes;

    do {
        const size_t piece = n < (size_t)1 << 30 ? n : (size_t)1 << 30; /* zlib counts in 32 bits */
        o->z.next_in = (Bytef *)(uintptr_t)p;
        o->z.avail_in = (uInt)piece;
        p += piece;
        n -= piece;
        do {
            o->z.next_out = o->packed;
            o->z.avail_out = (uInt)PACKED_BYTES;
            if (deflate(&o->z, n > 0 ? Z_NO_FLUSH : flush) == Z_STREAM_ERROR)
                return mill_fail(err, MILL_ERR_INTERNAL, "%s: deflate failed", o->path);
            const mill_status st = write_all(o, o->packed, PACKED_BYTES - o->z.avail_out, err);
            if (st != MILL_OK) return st;
        } while (o->z.avail_out == 0);
    } while (n > 0);
    return MILL_OK;
}

static mill_status pack_zstd(stm_output *o, const void *bytes, size_t n, ZSTD_EndDirective end, mill_error *err)
{
    ZSTD_inBuffer in = {bytes, n, 0};

    for (;;) {
        ZSTD_outBuffer out = {o->packed, PACKED_BYTES, 0};
        const size_t left = ZSTD_compressStream2(o->zstd, &out, &in, end);
        if (ZSTD_isError(left)) return mill_fail(err, MILL_ERR_INTERNAL, "%s: zstd: %s", o->path, ZSTD_getErrorName(left));
        const mill_status st = write_all(o, o->packed, out.pos, err);
        if (st != MILL_OK) return st;
        if (end == ZSTD_e_continue ? in.pos == n : left == 0) return MILL_OK;
    }
}

mill_status stm_output_write(stm_output *o, const void *bytes, size_t n, mill_error *err)
{
    if (n == 0) return MILL_OK;
    if (o->kind == PLAIN) return write_all(o, bytes, n, err);
    o->inside = true;
    return o->kind == GZIP ? pack_gzip(o, bytes, n, Z_NO_FLUSH, err) : pack_zstd(o, bytes, n, ZSTD_e_continue, err);
}

static mill_status end_stream(stm_output *o, mill_error *err)
{
    mill_status st = MILL_OK;

    /* An empty file is no valid .gz or .zst: it gets an empty stream. */
    if (o->kind == PLAIN || (!o->inside && o->size > 0)) return MILL_OK;
    if (o->kind == GZIP) {
        if ((st = pack_gzip(o, NULL, 0, Z_FINISH, err)) == MILL_OK && deflateReset(&o->z) != Z_OK)
            st = mill_fail(err, MILL_ERR_INTERNAL, "%s: deflateReset failed", o->path);
    } else {
        st = pack_zstd(o, NULL, 0, ZSTD_e_end, err);
    }
    o->inside = false;
    return st;
}

/* Names must survive a power loss, too: that of a new file, and the rename. */
static void sync_folder(const char *path)
{
    char *folder = strdup(path);
    char *slash = folder != NULL ? strrchr(folder, '/') : NULL;

    if (slash != NULL) {
        slash[slash == folder] = 0;
        const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) {
            (void)fsync(fd); /* some file systems cannot; the file itself is safe */
            close(fd);
        }
    }
    free(folder);
}

mill_status stm_output_sync(stm_output *o, uint64_t *size, mill_error *err)
{
    const mill_status st = end_stream(o, err);

    if (st != MILL_OK) return st;
    if (fdatasync(o->fd) != 0 && errno != EINVAL && errno != EROFS)
        return mill_fail(err, MILL_ERR_IO, "cannot sync %s: %s", o->temporary, strerror(errno));
    if (!o->named) sync_folder(o->temporary);
    o->named = true;
    *size = o->size;
    return MILL_OK;
}

mill_status stm_output_commit(stm_output **op, mill_error *err)
{
    stm_output *o = *op;
    uint64_t size;
    mill_status st = stm_output_sync(o, &size, err);

    if (st == MILL_OK) {
        const int fd = o->fd;
        o->fd = -1;
        if (close(fd) != 0) st = mill_fail(err, MILL_ERR_IO, "cannot close %s: %s", o->temporary, strerror(errno));
        else if (rename(o->temporary, o->path) != 0)
            st = mill_fail(err, MILL_ERR_IO, "cannot rename %s to %s: %s", o->temporary, o->path, strerror(errno));
        else sync_folder(o->path);
    }
    stm_output_close(op);
    return st;
}
