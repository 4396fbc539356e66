#include "steps/io/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "steps/io/regular.h"

#define RAW_BYTES ((size_t)128 << 10) /* compressed bytes read at a time */

enum { PLAIN, GZIP, ZSTD };

struct stm_source {
    int fd;
    int kind;
    bool raw_end;       /* the file has no more bytes */
    bool inside;        /* a compressed stream has begun and not ended */
    bool inflate_ready; /* z is initialised */
    uint8_t *raw;       /* [RAW_BYTES] compressed bytes; for plain files only the ones read to find the kind */
    size_t begin, end;  /* those not used yet */
    z_stream z;
    ZSTD_DStream *zstd;
    uint64_t size, taken; /* bytes of the file, 0 = unknown; bytes read of it, when it is compressed */
    char path[256];       /* for messages, cut */
};

/* Reads until n bytes are there or the file ends. */
static mill_status read_raw(stm_source *s, void *buf, size_t n, size_t *got, mill_error *err)
{
    ssize_t r;

    do r = read(s->fd, buf, n);
    while (r < 0 && errno == EINTR);
    if (r < 0) return mill_fail(err, MILL_ERR_IO, "cannot read %s: %s", s->path, strerror(errno));
    *got = (size_t)r;
    s->taken += (size_t)r;
    return MILL_OK;
}

double stm_source_share(const stm_source *s, uint64_t at)
{
    const uint64_t used = s->kind == PLAIN ? at : s->taken - (s->end - s->begin);

    if (s->size == 0) return -1.0;
    return used < s->size ? (double)used / (double)s->size : 1.0;
}

static mill_status refill(stm_source *s, mill_error *err)
{
    mill_status st;
    size_t got = 0;

    if (s->begin < s->end || s->raw_end) return MILL_OK;
    if ((st = read_raw(s, s->raw, RAW_BYTES, &got, err)) != MILL_OK) return st;
    s->begin = 0;
    s->end = got;
    s->raw_end = got == 0;
    return MILL_OK;
}

static mill_status detect(stm_source *s, mill_error *err)
{
    static const uint8_t zstd_magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    mill_status st;

    while (s->end < 4 && !s->raw_end) { /* a read may give fewer bytes than asked for */
        size_t got = 0;
        if ((st = read_raw(s, s->raw + s->end, RAW_BYTES - s->end, &got, err)) != MILL_OK) return st;
        s->end += got;
        s->raw_end = got == 0;
    }
    if (s->end >= 2 && s->raw[0] == 0x1f && s->raw[1] == 0x8b) {
        s->kind = GZIP;
        if (inflateInit2(&s->z, 15 + 16) != Z_OK) return mill_fail(err, MILL_ERR_NOMEM, "no memory to decompress %s", s->path);
        s->inflate_ready = true;
    } else if (s->end >= 4 && (memcmp(s->raw, zstd_magic, 4) == 0 ||
                               /* a skippable frame may come first */
                               ((s->raw[0] & 0xf0) == 0x50 && s->raw[1] == 0x2a && s->raw[2] == 0x4d && s->raw[3] == 0x18))) {
        s->kind = ZSTD;
        s->zstd = ZSTD_createDStream();
        if (s->zstd == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory to decompress %s", s->path);
    }
    return MILL_OK;
}

mill_status stm_source_open(const char *path, stm_source **out, mill_error *err)
{
    mill_status st;
    stm_source *s = calloc(1, sizeof *s);

    if (s == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory to read %s", path);
    s->fd = -1;
    strncpy(s->path, path, sizeof s->path - 1);
    s->raw = malloc(RAW_BYTES);
    if (s->raw == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "no memory to read %s", path);
        goto fail;
    }
    if ((st = stm_regular_open(path, &s->fd, &s->size, err)) != MILL_OK) goto fail;
    (void)posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    if ((st = detect(s, err)) != MILL_OK) goto fail;
    *out = s;
    return MILL_OK;
fail:
    stm_source_close(&s);
    return st;
}

void stm_source_close(stm_source **sp)
{
    stm_source *s = *sp;

    if (s == NULL) return;
    if (s->inflate_ready) inflateEnd(&s->z);
    if (s->zstd != NULL) ZSTD_freeDStream(s->zstd);
    if (s->fd >= 0) close(s->fd);
    free(s->raw);
    free(s);
    *sp = NULL;
}

static mill_status read_plain(stm_source *s, void *buf, size_t n, size_t *got, mill_error *err)
{
    if (s->begin < s->end) { /* what detect() had read */
        const size_t m = s->end - s->begin < n ? s->end - s->begin : n;
        memcpy(buf, s->raw + s->begin, m);
        s->begin += m;
        *got = m;
        return MILL_OK;
    }
    return read_raw(s, buf, n, got, err);
}

static mill_status read_gzip(stm_source *s, void *buf, size_t n, size_t *got, mill_error *err)
{
    mill_status st;

    s->z.next_out = buf;
    s->z.avail_out = (uInt)n;
    while (s->z.avail_out == n) {
        if ((st = refill(s, err)) != MILL_OK) return st;
        if (s->begin == s->end) {
            if (s->inside) return mill_fail(err, MILL_ERR_PARSE, "%s: the gzip stream is cut off", s->path);
            break;
        }
        s->inside = true;
        s->z.next_in = s->raw + s->begin;
        s->z.avail_in = (uInt)(s->end - s->begin);
        const int rc = inflate(&s->z, Z_NO_FLUSH);
        s->begin = s->end - s->z.avail_in;
        if (rc == Z_STREAM_END) { /* another member may follow */
            s->inside = false;
            if (inflateReset(&s->z) != Z_OK) return mill_fail(err, MILL_ERR_INTERNAL, "%s: inflateReset failed", s->path);
        } else if (rc == Z_MEM_ERROR) {
            return mill_fail(err, MILL_ERR_NOMEM, "no memory to decompress %s", s->path);
        } else if (rc != Z_OK && rc != Z_BUF_ERROR) {
            return mill_fail(err, MILL_ERR_PARSE, "%s: the gzip stream is damaged: %s", s->path, s->z.msg ? s->z.msg : "bad data");
        }
    }
    *got = n - s->z.avail_out;
    return MILL_OK;
}

static mill_status read_zstd(stm_source *s, void *buf, size_t n, size_t *got, mill_error *err)
{
    ZSTD_outBuffer out = {buf, n, 0};
    mill_status st;

    while (out.pos == 0) {
        if ((st = refill(s, err)) != MILL_OK) return st;
        if (s->begin == s->end && !s->inside) break;
        ZSTD_inBuffer in = {s->raw, s->end, s->begin};
        const size_t rc = ZSTD_decompressStream(s->zstd, &out, &in);
        if (ZSTD_isError(rc))
            return mill_fail(err, MILL_ERR_PARSE, "%s: the zstd stream is damaged: %s", s->path, ZSTD_getErrorName(rc));
        if (s->begin == s->end && out.pos == 0 && rc != 0)
            return mill_fail(err, MILL_ERR_PARSE, "%s: the zstd stream is cut off", s->path);
        s->begin = in.pos;
        s->inside = rc != 0; /* 0: a frame is complete and flushed; another may follow */
    }
    *got = out.pos;
    return MILL_OK;
}

mill_status stm_source_read(stm_source *s, void *buf, size_t n, size_t *got, mill_error *err)
{
    if (n > (size_t)1 << 30) n = (size_t)1 << 30; /* zlib counts in 32 bits */
    if (s->kind == GZIP) return read_gzip(s, buf, n, got, err);
    if (s->kind == ZSTD) return read_zstd(s, buf, n, got, err);
    return read_plain(s, buf, n, got, err);
}

mill_status stm_source_seek(stm_source *s, uint64_t at, mill_error *err)
{
    uint8_t sink[4096];
    mill_status st;

    if (s->kind == PLAIN) {
        struct stat info;
        if (fstat(s->fd, &info) != 0 || lseek(s->fd, (off_t)at, SEEK_SET) < 0)
            return mill_fail(err, MILL_ERR_IO, "cannot seek in %s: %s", s->path, strerror(errno));
        if (at > (uint64_t)info.st_size)
            return mill_fail(err, MILL_ERR_INVALID, "%s has %lld bytes, cannot go on at byte %llu: it was changed", s->path,
                             (long long)info.st_size, (unsigned long long)at);
        s->begin = s->end = 0;
        s->raw_end = false;
        return MILL_OK;
    }
    while (at > 0) {
        size_t got = 0;
        if ((st = stm_source_read(s, sink, at < sizeof sink ? (size_t)at : sizeof sink, &got, err)) != MILL_OK) return st;
        if (got == 0)
            return mill_fail(err, MILL_ERR_INVALID, "%s ends %llu bytes before the place to go on at: it was changed", s->path,
                             (unsigned long long)at);
        at -= got;
    }
    return MILL_OK;
}
