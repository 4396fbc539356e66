#include "steps/io/output.h"

#include <dirent.h>
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

#include "stepmill/crc32.h"


#define PIECE_BYTES ((size_t)1 << 20)       /* compressed together; part of what makes the bytes of a file */
#define WRITEBACK_BYTES ((uint64_t)4 << 20) /* how much waits in the page cache before the device is told to begin */

enum { PLAIN, GZIP, ZSTD };

struct stm_output {
    int fd, kind;
    uint64_t run, opening;
    uint64_t size;   /* bytes given to the file */
    uint64_t begun;  /* bytes whose writing to the device has begun */
    uint64_t synced; /* bytes at the last sync; UINT64_MAX = there was none */
    uint32_t crc;    /* of size bytes */
    bool named;      /* its name is durable */
    uint32_t slot;   /* of the last tail */
    size_t n_tail;   /* bytes of the piece that its file has; 0 = this piece has none */
    bool tails[2];   /* there is a file of this slot */
    ZSTD_CCtx *zstd;
    uint8_t *piece; /* [PIECE_BYTES] waits to be compressed */
    size_t n_piece;
    uint8_t *packed; /* [packed_bytes] */
    size_t packed_bytes;
    char *path, *temporary, *before; /* before: the file that was gone on from, of an earlier opening; NULL = none */
};

bool stm_name_ends(const char *name, const char *end)
{
    const size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* A number for the run directory of @p r that another run has only by a chance of 2^-64, on another machine, too; 0 where none is
 * needed: @p path lies in that directory, which has one writer. */
static uint64_t run_of(const mill_replica *r, const char *path)
{
    const char *dir = r != NULL ? mill_replica_run_dir(r) : NULL;
    char text[4096 + 128], host[65] = "";
    struct stat info = {0};
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

    if (dir == NULL || (strncmp(path, dir, strlen(dir)) == 0 && path[strlen(dir)] == '/')) return 0;
    (void)stat(dir, &info);
    (void)gethostname(host, sizeof host - 1);
    snprintf(text, sizeof text, "%llx %llx %s %s", (unsigned long long)info.st_dev, (unsigned long long)info.st_ino, host, dir);
    for (const char *p = text; *p != 0; p++) h = (h ^ (unsigned char)*p) * 0x100000001b3u;
    return h;
}

static void run_text(uint64_t run, char buf[24])
{
    buf[0] = 0;
    if (run != 0) snprintf(buf, 24, ".r%016llx", (unsigned long long)run);
}

/* Unfinished file of @p opening of @p run, or the tail beside it. NULL: no memory. */
static char *temporary_name(const char *path, uint64_t run, uint64_t opening, int slot)
{
    const size_t n = strlen(path) + 64;
    char *name = malloc(n), number[24] = "", who[24];

    if (name == NULL) return NULL;
    run_text(run, who);
    if (opening > 0) snprintf(number, sizeof number, ".%llu", (unsigned long long)opening);
    snprintf(name, n, "%s%s%s%s.tmp", path, who, number, slot < 0 ? "" : slot == 0 ? ".a" : ".b");
    return name;
}

/* ---- going on ----------------------------------------------------------------------------------------------------- */

/* The file that holds what @p from speaks of: under the name of its opening, of a later one that took it over and committed
 * nothing, or complete: it was finished after the place was noted. *over: nobody else can be writing to it. */
static mill_status find_before(const mill_replica *r, const stm_output *o, const stm_output_place *from, char **name, bool *over,
                               mill_error *err)
{
    /* A run directory that was moved or copied is another one: whoever had the file may still be there. */
    const bool ours = from->run == o->run;

    for (uint64_t e = from->opening; e <= o->opening; e++) {
        if ((*name = temporary_name(o->path, from->run, e, -1)) == NULL)
            return mill_fail(err, MILL_ERR_NOMEM, "no memory to write %s", o->path);
        *over = ours && (e == o->opening || (r != NULL && mill_replica_opening_over(r, e)));
        if (access(*name, F_OK) == 0) return MILL_OK;
        free(*name);
    }
    *over = r == NULL || (ours && mill_replica_opening_over(r, from->opening));
    *name = strdup(o->path);
    return *name != NULL ? MILL_OK : mill_fail(err, MILL_ERR_NOMEM, "no memory to write %s", o->path);
}

static mill_status put_at(int fd, const void *bytes, size_t n, uint64_t at, const char *path, mill_error *err)
{
    for (size_t put = 0; put < n;) {
        const ssize_t w = pwrite(fd, (const char *)bytes + put, n - put, (off_t)(at + put));
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", path, strerror(errno));
        put += (size_t)w;
    }
    return MILL_OK;
}

static mill_status copy_bytes(int from, int to, uint64_t n, const char *path, mill_error *err)
{
    uint8_t *buf = malloc(PIECE_BYTES);
    mill_status st = buf != NULL ? MILL_OK : mill_fail(err, MILL_ERR_NOMEM, "no memory to write %s", path);

    for (uint64_t at = 0; at < n && st == MILL_OK;) {
        const ssize_t got = pread(from, buf, n - at < PIECE_BYTES ? (size_t)(n - at) : PIECE_BYTES, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            st = mill_fail(err, MILL_ERR_IO, "cannot read %s: %s", path, got < 0 ? strerror(errno) : "it ends early");
            break;
        }
        st = put_at(to, buf, (size_t)got, at, path, err);
        at += (uint64_t)got;
    }
    free(buf);
    return st;
}

/* Names must survive a power loss, too: that of a new file or folder, and the rename. Some file systems keep them without being
 * asked, and cannot be; a folder that may be written to but not read cannot be asked either. */
static mill_status sync_folder(const char *path, mill_error *err)
{
    char *folder = strdup(path);
    char *slash = folder != NULL ? strrchr(folder, '/') : NULL;
    mill_status st = MILL_OK;
    int fd;

    if (folder == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory to sync the folder of %s", path);
    if (slash != NULL) {
        slash[slash == folder] = 0;
        fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 ? errno != EACCES : fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS)
            st = mill_fail(err, MILL_ERR_IO, "cannot sync the folder %s: %s", folder, strerror(errno));
        if (fd >= 0) close(fd);
    }
    free(folder);
    return st;
}

mill_status stm_make_folders(const char *path, mill_error *err)
{
    char *copy = strdup(path);
    mill_status st = MILL_OK;

    if (copy == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a path");
    for (char *p = copy + 1; *p != 0 && st == MILL_OK; p++) {
        if (*p != '/') continue;
        *p = 0;
        if (mkdir(copy, 0777) == 0)
            st = sync_folder(copy, err);
        else if (errno != EEXIST)
            st = mill_fail(err, MILL_ERR_IO, "cannot make the folder %s of %s: %s", copy, path, strerror(errno));
        *p = '/';
    }
    free(copy);
    return st;
}

static mill_status sync_fd(int fd, const char *name, mill_error *err)
{
    if (fdatasync(fd) == 0 || errno == EINVAL || errno == EROFS) return MILL_OK;
    return mill_fail(err, MILL_ERR_IO, "cannot sync %s: %s", name, strerror(errno));
}

/* ---- tails ---------------------------------------------------------------------------------------------------------- */

/*
 * What waits to be compressed at a place lies in a file of two in turn, one per piece. It grows with the piece, so that each place
 * in the piece has the beginning of it, whichever of them will be gone on from; and when its turn comes again the piece has long
 * been, compressed and durable, in the output itself.
 */
static mill_status put_tail(const stm_output *o, uint64_t opening, uint32_t slot, size_t from, mill_error *err)
{
    char *name = temporary_name(o->path, o->run, opening, (int)slot);
    const int fd = name != NULL ? open(name, O_WRONLY | O_CREAT | O_CLOEXEC | (from == 0 ? O_TRUNC : 0), 0666) : -1;
    mill_status st = MILL_OK;

    if (name == NULL)
        st = mill_fail(err, MILL_ERR_NOMEM, "no memory to write %s", o->path);
    else if (fd < 0)
        st = mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", name, strerror(errno));
    else if ((st = put_at(fd, o->piece + from, o->n_piece - from, from, name, err)) == MILL_OK)
        st = sync_fd(fd, name, err);
    if (fd >= 0) close(fd);
    free(name);
    return st;
}

static bool tail_is(const stm_output *o, const stm_output_place *from)
{
    return o->n_piece == from->tail && mill_crc32(0, o->piece, o->n_piece) == from->tail_crc;
}

static void read_tail_file(stm_output *o, const stm_output_place *from)
{
    char *name = temporary_name(o->path, from->run, from->opening, (int)(from->slot & 1));
    const int fd = name != NULL ? open(name, O_RDONLY | O_CLOEXEC) : -1;

    while (fd >= 0 && o->n_piece < from->tail) {
        const ssize_t got = read(fd, o->piece + o->n_piece, from->tail - o->n_piece);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        o->n_piece += (size_t)got;
    }
    if (fd >= 0) close(fd);
    free(name);
}

/* The file went on behind the place before: the piece that has the tail is in it. */
static void unpack_tail(stm_output *o, const stm_output_place *from, int fd)
{
    const ssize_t got = pread(fd, o->packed, o->packed_bytes, (off_t)from->bytes);

    o->n_piece = 0;
    if (got <= 0) return;
    if (o->kind == ZSTD) {
        ZSTD_DStream *z = ZSTD_createDStream();
        ZSTD_inBuffer in = {o->packed, (size_t)got, 0};
        ZSTD_outBuffer out = {o->piece, from->tail, 0};
        size_t left = z != NULL;
        while (left != 0 && !ZSTD_isError(left) && out.pos < out.size && in.pos < in.size)
            left = ZSTD_decompressStream(z, &out, &in);
        ZSTD_freeDStream(z);
        o->n_piece = out.pos;
    } else {
        z_stream z = {.next_in = o->packed, .avail_in = (uInt)got, .next_out = o->piece, .avail_out = from->tail};
        if (inflateInit2(&z, 15 + 16) != Z_OK) return;
        while (z.avail_out > 0 && inflate(&z, Z_NO_FLUSH) == Z_OK) {
        }
        o->n_piece = from->tail - z.avail_out;
        inflateEnd(&z);
    }
}

/* What waited to be compressed at the place. Where it was in the output only, it gets its file back before anybody cuts the
 * output. */
static mill_status read_tail(stm_output *o, const stm_output_place *from, mill_error *err)
{
    const int fd = open(o->before, O_RDONLY | O_CLOEXEC);
    mill_status st;

    if (fd < 0) return mill_fail(err, MILL_ERR_IO, "cannot read %s: %s", o->before, strerror(errno));
    read_tail_file(o, from);
    if (tail_is(o, from)) {
        close(fd);
        return MILL_OK;
    }
    unpack_tail(o, from, fd);
    close(fd);
    if (!tail_is(o, from))
        return mill_fail(err, MILL_ERR_INVALID, "the end of %s, which was not compressed yet, is gone: it was changed", o->before);
    if (from->run != o->run) return MILL_OK; /* another run's, which is not cut */
    if ((st = put_tail(o, from->opening, from->slot & 1, 0, err)) == MILL_OK) st = sync_folder(o->path, err);
    return st;
}

/* The unfinished file becomes ours: renamed where nobody else can be writing to it, else copied up to the place. */
static mill_status take_over(stm_output *o, const stm_output_place *from, bool over, mill_error *err)
{
    struct stat info = {0};
    int fd = -1;
    mill_status st = MILL_OK;

    if (stat(o->before, &info) != 0 || (uint64_t)info.st_size < from->bytes)
        return mill_fail(err, MILL_ERR_INVALID, "%s has %lld bytes, cannot go on at byte %llu: it was changed", o->before,
                         (long long)info.st_size, (unsigned long long)from->bytes);
    if (from->tail > 0 && (st = read_tail(o, from, err)) != MILL_OK) return st;
    if (over) {
        if (strcmp(o->before, o->temporary) != 0 && rename(o->before, o->temporary) != 0)
            return mill_fail(err, MILL_ERR_IO, "cannot rename %s: %s", o->before, strerror(errno));
        free(o->before);
        o->before = NULL;
    } else if ((fd = open(o->before, O_RDONLY | O_CLOEXEC)) < 0) {
        return mill_fail(err, MILL_ERR_IO, "cannot read %s: %s", o->before, strerror(errno));
    }
    o->fd = open(o->temporary, O_WRONLY | O_CREAT | O_CLOEXEC | (over ? 0 : O_TRUNC), 0666);
    if (o->fd < 0)
        st = mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", o->temporary, strerror(errno));
    else if (!over)
        st = copy_bytes(fd, o->fd, from->bytes, o->temporary, err);
    if (fd >= 0) close(fd);
    /* A file that ends there is left as it is: a run that then cannot load has changed nothing. */
    if (st == MILL_OK && !(over && (uint64_t)info.st_size == from->bytes) && ftruncate(o->fd, (off_t)from->bytes) != 0)
        st = mill_fail(err, MILL_ERR_IO, "cannot cut %s: %s", o->temporary, strerror(errno));
    o->size = o->begun = from->bytes;
    o->crc = from->crc;
    o->slot = from->slot & 1;
    return st;
}

/* ---- open, close -------------------------------------------------------------------------------------------------- */

static mill_status open_packing(stm_output *o, mill_error *err)
{
    if (o->kind == PLAIN) return MILL_OK;
    o->packed_bytes =
        o->kind == ZSTD ? ZSTD_compressBound(PIECE_BYTES) : (size_t)compressBound(PIECE_BYTES) + 64; /* and the head of gzip */
    o->piece = malloc(PIECE_BYTES);
    o->packed = malloc(o->packed_bytes);
    if (o->kind == ZSTD) o->zstd = ZSTD_createCCtx();
    if (o->piece == NULL || o->packed == NULL || (o->kind == ZSTD && o->zstd == NULL))
        return mill_fail(err, MILL_ERR_NOMEM, "no memory to write %s", o->path);
    return MILL_OK;
}

mill_status stm_output_open(const mill_replica *r, const char *path, const stm_output_place *from, stm_output **out,
                            mill_error *err)
{
    mill_status st;
    bool over = false;
    stm_output *o = calloc(1, sizeof *o);

    if (o == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory to write %s", path);
    o->fd = -1;
    o->kind = stm_name_ends(path, ".gz") ? GZIP : stm_name_ends(path, ".zst") ? ZSTD : PLAIN;
    o->opening = r != NULL ? mill_replica_opening(r) : 0;
    o->synced = UINT64_MAX;
    o->path = strdup(path);
    o->run = run_of(r, path);
    o->temporary = temporary_name(path, o->run, o->opening, -1);
    if (o->path == NULL || o->temporary == NULL) {
        st = mill_fail(err, MILL_ERR_NOMEM, "no memory to write %s", path);
        goto fail;
    }
    if ((st = open_packing(o, err)) != MILL_OK || (st = stm_make_folders(path, err)) != MILL_OK) goto fail;
    if (from != NULL && from->tail > (o->kind != PLAIN ? PIECE_BYTES : 0)) {
        st = mill_fail(err, MILL_ERR_INVALID, "%s: the place to go on from is of another version", path);
        goto fail;
    }
    if (from != NULL && (st = find_before(r, o, from, &o->before, &over, err)) != MILL_OK) goto fail;
    if (from != NULL) {
        if ((st = take_over(o, from, over, err)) != MILL_OK) goto fail;
    } else {
        o->fd = open(o->temporary, O_WRONLY | O_CREAT | O_CLOEXEC | O_TRUNC, 0666);
        if (o->fd < 0) {
            st = mill_fail(err, MILL_ERR_IO, "cannot write %s: %s", o->temporary, strerror(errno));
            goto fail;
        }
    }
    *out = o;
    return MILL_OK;
fail:
    stm_output_close(&o);
    return st;
}

const char *stm_output_name(const stm_output *o) { return o->temporary; }

void stm_output_close(stm_output **op)
{
    stm_output *o = *op;

    if (o == NULL) return;
    if (o->zstd != NULL) ZSTD_freeCCtx(o->zstd);
    if (o->fd >= 0) close(o->fd);
    free(o->piece);
    free(o->packed);
    free(o->path);
    free(o->temporary);
    free(o->before);
    free(o);
    *op = NULL;
}

/* ---- write -------------------------------------------------------------------------------------------------------- */

static mill_status write_all(stm_output *o, const void *bytes, size_t n, mill_error *err)
{
    const mill_status st = put_at(o->fd, bytes, n, o->size, o->temporary, err);

    if (st != MILL_OK) return st;
    o->crc = mill_crc32(o->crc, bytes, n);
    o->size += n;
    /* The device works while rows are still made: the wait at the next sync is short. A hint; durability comes from the sync
     * alone. */
    if (o->size - o->begun >= WRITEBACK_BYTES) {
        (void)sync_file_range(o->fd, (off64_t)o->begun, (off64_t)(o->size - o->begun), SYNC_FILE_RANGE_WRITE);
        o->begun = o->size;
    }
    return MILL_OK;
}

/* The piece becomes a stream of its own; readers of .gz and .zst take several in a row as one. */
static mill_status pack(stm_output *o, mill_error *err)
{
    size_t n = 0;

    if (o->kind == ZSTD) {
        n = ZSTD_compress2(o->zstd, o->packed, o->packed_bytes, o->piece, o->n_piece);
        if (ZSTD_isError(n)) return mill_fail(err, MILL_ERR_NOMEM, "%s: zstd: %s", o->path, ZSTD_getErrorName(n));
    } else {
        z_stream z = {.next_in = o->piece, .avail_in = (uInt)o->n_piece, .next_out = o->packed, .avail_out = (uInt)o->packed_bytes};
        if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
            return mill_fail(err, MILL_ERR_NOMEM, "no memory to compress %s", o->path);
        const int end = deflate(&z, Z_FINISH);
        n = o->packed_bytes - z.avail_out;
        deflateEnd(&z);
        if (end != Z_STREAM_END) return mill_fail(err, MILL_ERR_INTERNAL, "%s: deflate failed", o->path);
    }
    o->n_piece = o->n_tail = 0;
    return write_all(o, o->packed, n, err);
}

mill_status stm_output_write(stm_output *o, const void *bytes, size_t n, mill_error *err)
{
    const uint8_t *p = bytes;
    mill_status st = MILL_OK;

    if (n == 0) return MILL_OK;
    if (o->kind == PLAIN) return write_all(o, bytes, n, err);
    while (n > 0 && st == MILL_OK) {
        const size_t room = PIECE_BYTES - o->n_piece, take = n < room ? n : room;
        memcpy(o->piece + o->n_piece, p, take);
        o->n_piece += take;
        p += take;
        n -= take;
        if (o->n_piece == PIECE_BYTES) st = pack(o, err);
    }
    return st;
}

/* ---- sync --------------------------------------------------------------------------------------------------------- */

/* What waits to be compressed goes beside the file. */
static mill_status sync_tail(stm_output *o, mill_error *err)
{
    const uint32_t slot = o->n_tail > 0 ? o->slot : o->slot ^ 1;
    const mill_status st = put_tail(o, o->opening, slot, o->n_tail, err);

    if (st != MILL_OK) return st;
    o->n_tail = o->n_piece;
    o->named = o->named && o->tails[slot];
    o->tails[slot] = true;
    o->slot = slot;
    return MILL_OK;
}

mill_status stm_output_sync(stm_output *o, stm_output_place *place, mill_error *err)
{
    mill_status st = MILL_OK;

    if (o->synced != o->size && (st = sync_fd(o->fd, o->temporary, err)) != MILL_OK) return st;
    if (o->n_piece > 0 && (st = sync_tail(o, err)) != MILL_OK) return st;
    if (!o->named && (st = sync_folder(o->temporary, err)) != MILL_OK) return st;
    o->named = true;
    o->synced = o->size;
    *place = (stm_output_place){
        .run = o->run, .opening = o->opening, .bytes = o->size, .crc = o->crc, .tail = (uint32_t)o->n_piece, .slot = o->slot};
    if (o->n_piece > 0) place->tail_crc = mill_crc32(0, o->piece, o->n_piece);
    return MILL_OK;
}

/* ---- complete ----------------------------------------------------------------------------------------------------- */

mill_status stm_output_commit(stm_output **op, stm_output_made *made, mill_error *err)
{
    stm_output *o = *op;
    mill_status st = MILL_OK;

    /* An empty file is no valid .gz or .zst: it gets an empty stream. */
    if (o->kind != PLAIN && (o->n_piece > 0 || o->size == 0)) st = pack(o, err);
    if (st == MILL_OK) st = sync_fd(o->fd, o->temporary, err);
    if (st == MILL_OK) {
        const int fd = o->fd;
        o->fd = -1;
        if (close(fd) != 0)
            st = mill_fail(err, MILL_ERR_IO, "cannot close %s: %s", o->temporary, strerror(errno));
        else if (rename(o->temporary, o->path) != 0)
            st = mill_fail(err, MILL_ERR_IO, "cannot rename %s to %s: %s", o->temporary, o->path, strerror(errno));
        else
            st = sync_folder(o->path, err);
    }
    /* what was gone on from may have had its name already, which is now the new file's */
    if (st == MILL_OK && o->before != NULL && strcmp(o->before, o->path) != 0) (void)unlink(o->before);
    for (int slot = 0; slot < 2 && st == MILL_OK; slot++) {
        char *name = o->tails[slot] ? temporary_name(o->path, o->run, o->opening, slot) : NULL;
        if (name != NULL) (void)unlink(name);
        free(name);
    }
    *made = (stm_output_made){o->size, o->crc};
    stm_output_close(op);
    return st;
}

mill_status stm_output_complete(mill_replica *r, stm_output **o, int64_t rows, mill_error *err)
{
    char *path = strdup((*o)->path);
    stm_output_made made = {0};
    mill_status st =
        path != NULL ? stm_output_commit(o, &made, err) : mill_fail(err, MILL_ERR_NOMEM, "no memory for the name of a part");

    if (st == MILL_OK) {
        const mill_part part = {sizeof part, path, rows, made.bytes, made.crc};
        st = mill_replica_part(r, &part, err);
    }
    free(path);
    return st;
}

/* Whether @p name is an unfinished file of output @p base, or of a part of it: BASE or STEM-DIGITS.EXT, then @p run, .DIGITS, .a or
 * .b, .tmp. */
static bool is_unfinished(const char *name, const char *base, const char *run)
{
    const size_t n = strlen(name), end = n > 4 && strcmp(name + n - 4, ".tmp") == 0 ? n - 4 : 0;
    size_t at = end, stem = 0, digits = 0;

    if (at > 2 && name[at - 2] == '.' && (name[at - 1] == 'a' || name[at - 1] == 'b')) at -= 2;
    while (at > 0 && name[at - 1] >= '0' && name[at - 1] <= '9') at--, digits++;
    if (digits > 0 && at > 0 && name[at - 1] == '.')
        at--;
    else if (digits > 0 || end == 0)
        return false;
    if (at < strlen(run) || memcmp(name + at - strlen(run), run, strlen(run)) != 0) return false;
    at -= strlen(run);
    while (stem < at && name[stem] == base[stem]) stem++; /* base ends with 0 */
    if (stem == at && base[stem] == 0) return true;
    if (name[stem] != '-') return false;
    for (digits = 0; name[stem + 1 + digits] >= '0' && name[stem + 1 + digits] <= '9'; digits++) {
    }
    return digits >= 5 && strlen(base + stem) == at - stem - 1 - digits &&
           strncmp(name + stem + 1 + digits, base + stem, strlen(base + stem)) == 0;
}

void stm_output_tidy(const mill_replica *r, const char *path)
{
    char run[24];
    const char *slash = strrchr(path, '/');
    char *folder = slash != NULL ? strndup(path, slash > path ? (size_t)(slash - path) : 1) : strdup(".");
    DIR *d = folder != NULL ? opendir(folder) : NULL;

    run_text(run_of(r, path), run);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        if (is_unfinished(e->d_name, slash != NULL ? slash + 1 : path, run))
            (void)unlinkat(dirfd(d), e->d_name, 0); /* what stays does no harm */
    if (d != NULL) closedir(d);
    free(folder);
}
