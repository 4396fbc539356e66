#include "store/vault.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/alloc.h"
#include "core/runfiles.h"
#include "store/journal.h"
#include "store/vault_state.h"

struct stm_vault {
    stm_files files;
    uint64_t epoch, nonce, highest; /* highest epoch of any file there */
    bool begun, tidy;               /* tidy: what older epochs left is gone */
    bool lost;                      /* a sync failed */
    int64_t commits, journal_bytes;
    stm_tables tables;
    stm_journal journal;
    stm_text record, last; /* last: what the journal ends with; empty before the first commit */
    _Atomic int64_t appended; /* bytes, all streams */
    int64_t committed;        /* value of `appended` at the last commit */
};

/* ---- finding ------------------------------------------------------------------------------------------------------ */

/* Epoch of a segment's name, 0 = it is none. */
static uint64_t segment_epoch_of(const char *name)
{
    const size_t n = strlen(name);
    uint64_t epoch = 0, digit = 1;
    size_t i;

    if (n < 7 || strcmp(name + n - 4, STM_RUN_SEGMENT) != 0) return 0;
    for (i = n - 4; i > 0 && name[i - 1] >= '0' && name[i - 1] <= '9' && digit < 1000000000000000000u; i--, digit *= 10)
        epoch += (uint64_t)(name[i - 1] - '0') * digit;
    return i > 1 && name[i - 1] == '.' ? epoch : 0;
}

static uint64_t epoch_of(const char *name)
{
    const uint64_t journal = stm_journal_epoch_of(name);

    return journal != 0 ? journal : segment_epoch_of(name);
}

typedef struct listing {
    uint64_t *journals;
    size_t n, cap;
    uint64_t highest;
    bool failed;
} listing;

static void note_name(const char *name, void *ctx)
{
    listing *l = ctx;
    const uint64_t j = stm_journal_epoch_of(name), e = epoch_of(name);

    if (e > l->highest) l->highest = e;
    if (j == 0) return;
    if (stm_grow(&l->journals, &l->cap, l->n + 1, sizeof *l->journals) != 0)
        l->failed = true;
    else
        l->journals[l->n++] = j;
}

static int newest_first(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x > y ? -1 : x < y;
}

static mill_status read_epoch(stm_vault *v, uint64_t epoch, mill_error *err)
{
    stm_journal_found f = {0};
    mill_status st = stm_journal_read(&v->files, epoch, &f, err);

    if (st != MILL_OK) return st;
    st = stm_tables_decode_base(&v->tables, f.base, f.base_bytes, epoch, err);
    if (st == MILL_OK && f.last != NULL) st = stm_tables_decode_commit(&v->tables, f.last, f.last_bytes, epoch, f.nonce, err);
    if (st == MILL_OK) {
        v->epoch = epoch;
        v->commits = f.last != NULL ? (int64_t)f.number : 0;
        v->journal_bytes = f.bytes;
    } else {
        stm_tables_fini(&v->tables);
    }
    stm_journal_found_fini(&f);
    return st;
}

static mill_status find(stm_vault *v, bool fresh, mill_error *err)
{
    listing l = {0};
    mill_status st = MILL_OK;
    const int code = v->files.list(v->files.user, note_name, &l);

    if (code < 0)
        st = mill_fail(err, MILL_ERR_IO, "cannot read the run directory: %s", strerror(-code));
    else if (l.failed)
        st = mill_fail(err, MILL_ERR_NOMEM, "no memory to read the run directory");
    v->highest = l.highest;
    if (st == MILL_OK && l.n > 0) qsort(l.journals, l.n, sizeof *l.journals, newest_first);
    for (size_t i = 0; i < l.n && st == MILL_OK; i++) {
        mill_error why = {0};
        st = read_epoch(v, l.journals[i], &why);
        if (st == MILL_OK) break;
        if (st == MILL_ERR_NOT_FOUND || (fresh && (st == MILL_ERR_DATA || st == MILL_ERR_UNSUPPORTED))) {
            /* its writer was gone before it had begun; the epoch before it counts */
            st = MILL_OK;
            continue;
        }
        if (st == MILL_ERR_DATA) mill_error_remedy(&why, "Start again with --fresh, or bring the run directory back from a copy");
        if (err != NULL) *err = why;
    }
    stm_free(l.journals);
    if (fresh) { /* who wrote it still counts */
        stm_text who = v->tables.who;
        v->tables.who = (stm_text){0};
        stm_tables_fini(&v->tables);
        v->tables.who = who;
    }
    return st;
}

mill_status stm_vault_open(const stm_vault_opts *opts, stm_vault **out, mill_error *err)
{
    stm_vault *v = stm_calloc(sizeof *v);
    mill_status st;

    if (v == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory to open the run directory");
    v->files = *opts->files;
    v->nonce = opts->nonce;
    v->journal.fd = -1;
    while (v->nonce == 0)
        if (getrandom(&v->nonce, sizeof v->nonce, 0) != sizeof v->nonce) v->nonce = 0;
    st = find(v, opts->fresh, err);
    if (st != MILL_OK) {
        stm_vault_close(&v);
        return st;
    }
    *out = v;
    return MILL_OK;
}

void stm_vault_close(stm_vault **vault)
{
    stm_vault *v = *vault;

    if (v == NULL) return;
    *vault = NULL;
    stm_tables_fini(&v->tables);
    stm_journal_close(&v->journal);
    stm_text_free(&v->record);
    stm_text_free(&v->last);
    stm_free(v);
}

/* ---- looking ------------------------------------------------------------------------------------------------------ */

uint64_t stm_vault_epoch(const stm_vault *v) { return v->epoch; }
uint64_t stm_vault_next_epoch(const stm_vault *v) { return v->highest + 1; }
const char *stm_vault_who(const stm_vault *v) { return v->tables.who.data != NULL ? v->tables.who.data : ""; }
int64_t stm_vault_commits(const stm_vault *v) { return v->commits; }
int64_t stm_vault_journal_bytes(const stm_vault *v) { return v->journal_bytes; }
size_t stm_vault_parts(const stm_vault *v) { return v->tables.n_parts; }
size_t stm_vault_streams(const stm_vault *v) { return v->tables.n_streams; }

stm_vault_part stm_vault_part_at(const stm_vault *v, size_t i)
{
    const stm_part_state *p = &v->tables.parts[i];
    stm_vault_part out = {
        .name = p->name, .fields = p->fields.data, .n_fields = p->fields.bytes, .state = p->state.data, .n_state = p->state.bytes};

    memcpy(out.signature, p->signature, sizeof out.signature);
    return out;
}

stm_vault_stream stm_vault_stream_at(const stm_vault *v, size_t i)
{
    const stm_stream_state *s = &v->tables.streams[i];
    stm_vault_stream out = {.name = s->name, .part = s->part, .complete = s->complete, .keep = true};

    for (size_t k = 0; k < s->n_extents; k++) {
        out.bytes += s->extents[k].bytes;
        out.frames += s->extents[k].frames;
        out.rows += s->extents[k].rows;
        if (s->extents[k].frames > 0) {
            const uint64_t what[] = {s->extents[k].nonce, (uint64_t)s->extents[k].bytes, s->extents[k].chain};
            out.print = stm_hash64(what, sizeof what, out.print);
        }
    }
    return out;
}

int32_t stm_vault_find_part(const stm_vault *v, const char *name)
{
    for (size_t i = 0; i < v->tables.n_parts; i++)
        if (strcmp(v->tables.parts[i].name, name) == 0) return (int32_t)i;
    return -1;
}

int32_t stm_vault_find_stream(const stm_vault *v, const char *name)
{
    for (size_t i = 0; i < v->tables.n_streams; i++)
        if (strcmp(v->tables.streams[i].name, name) == 0) return (int32_t)i;
    return -1;
}

mill_status stm_vault_read(const stm_vault *v, size_t stream, stm_segment_reader **out, mill_error *err)
{
    const stm_stream_state *s = &v->tables.streams[stream];

    return stm_segment_reader_create(&v->files, s->name, s->extents, s->n_extents, out, err);
}

/* ---- the next epoch ----------------------------------------------------------------------------------------------- */

static mill_status take_stream(const stm_vault *v, const stm_vault_stream *from, uint64_t epoch, stm_stream_state *to,
                               mill_error *err)
{
    const int32_t k = from->keep ? stm_vault_find_stream(v, from->name) : -1;
    const stm_stream_state *old = k >= 0 ? &v->tables.streams[k] : NULL;
    const size_t n = old != NULL ? old->n_extents : 0;

    strcpy(to->name, from->name);
    to->part = from->part;
    to->complete = to->marked_complete = old != NULL && old->complete;
    to->extents = stm_calloc((n + 1) * sizeof *to->extents);
    if (to->extents == NULL) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the streams of the run");
    if (n > 0) memcpy(to->extents, old->extents, n * sizeof *to->extents);
    to->n_extents = n;
    stm_segment_init(&to->segment, &v->files, to->name, epoch, v->nonce);
    to->marked = to->segment.end;
    return MILL_OK;
}

static mill_status make_tables(const stm_vault *v, const stm_vault_part *parts, size_t n_parts, const stm_vault_stream *streams,
                               size_t n_streams, const char *who, uint64_t epoch, stm_tables *t, mill_error *err)
{
    mill_status st = MILL_OK;

    memset(t, 0, sizeof *t);
    stm_text_add(&t->who, who, strlen(who));
    t->parts = stm_calloc((n_parts + 1) * sizeof *t->parts);
    t->streams = stm_calloc((n_streams + 1) * sizeof *t->streams);
    if (t->parts == NULL || t->streams == NULL || t->who.failed)
        return mill_fail(err, MILL_ERR_NOMEM, "no memory for the streams of the run");
    t->n_parts = n_parts;
    t->n_streams = n_streams;
    for (size_t i = 0; i < n_streams; i++) t->streams[i].segment.fd = -1;
    for (size_t i = 0; i < n_parts; i++) {
        stm_part_state *p = &t->parts[i];
        if (!stm_stream_name_ok(parts[i].name))
            return mill_fail(err, MILL_ERR_INVALID, "not the name of a component: %s", parts[i].name);
        strcpy(p->name, parts[i].name);
        memcpy(p->signature, parts[i].signature, sizeof p->signature);
        stm_text_add(&p->fields, parts[i].fields, parts[i].n_fields);
        stm_text_add(&p->state, parts[i].state, parts[i].n_state);
        if (p->fields.failed || p->state.failed) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the components of the run");
    }
    for (size_t i = 0; i < n_streams && st == MILL_OK; i++) {
        if (!stm_stream_name_ok(streams[i].name) || streams[i].part < 0 || (size_t)streams[i].part >= n_parts)
            return mill_fail(err, MILL_ERR_INVALID, "not a stream: %s", streams[i].name);
        st = take_stream(v, &streams[i], epoch, &t->streams[i], err);
    }
    return st;
}

static mill_status write_base(stm_vault *v, const stm_tables *t, mill_error *err)
{
    mill_status st;
    int code;

    v->record.bytes = 0;
    v->record.failed = false;
    stm_tables_encode_base(t, &v->record);
    if (v->record.failed) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the first record of the journal");
    if ((st = stm_journal_append(&v->journal, STM_RECORD_BASE, v->record.data, v->record.bytes, err)) != MILL_OK) return st;
    if ((code = v->files.sync_names(v->files.user)) < 0)
        return mill_fail(err, MILL_ERR_IO, "cannot sync the run directory: %s", strerror(-code));
    return MILL_OK;
}

mill_status stm_vault_begin(stm_vault *v, const stm_vault_part *parts, size_t n_parts, const stm_vault_stream *streams,
                            size_t n_streams, const char *who, mill_error *err)
{
    const uint64_t epoch = v->highest + 1;
    stm_tables t;
    mill_status st = make_tables(v, parts, n_parts, streams, n_streams, who, epoch, &t, err);

    if (st == MILL_OK) st = stm_journal_create(&v->journal, &v->files, epoch, v->nonce, err);
    if (st == MILL_OK) st = write_base(v, &t, err);
    if (st != MILL_OK) {
        stm_tables_fini(&t);
        stm_journal_close(&v->journal);
        return st;
    }
    stm_tables_fini(&v->tables);
    v->tables = t;
    v->epoch = epoch;
    v->begun = true;
    v->commits = 0;
    v->journal_bytes = v->journal.at;
    return MILL_OK;
}

/* ---- commits ------------------------------------------------------------------------------------------------------ */

mill_status stm_vault_append(stm_vault *v, size_t stream, uint32_t kind, uint64_t label, int64_t rows, const stm_bytes *pieces,
                             size_t n, mill_error *err)
{
    stm_segment *s = &v->tables.streams[stream].segment;
    const int64_t before = s->end.bytes;
    const mill_status st = stm_segment_append(s, kind, label, rows, pieces, n, err);

    if (st == MILL_OK) atomic_fetch_add_explicit(&v->appended, s->end.bytes - before, memory_order_relaxed);
    return st;
}

mill_status stm_vault_mark(stm_vault *v, size_t stream, bool complete, mill_error *err)
{
    stm_stream_state *s = &v->tables.streams[stream];
    const mill_status st = stm_segment_flush(&s->segment, err);

    if (st != MILL_OK) return st;
    s->marked = s->segment.end;
    s->marked_fd = s->segment.fd;
    s->marked_complete = complete;
    return MILL_OK;
}

/* What is committed of this epoch's segment; NULL: nothing. */
static const stm_extent *committed(const stm_vault *v, const stm_stream_state *s)
{
    const stm_extent *last = s->n_extents > 0 ? &s->extents[s->n_extents - 1] : NULL;

    return last != NULL && last->epoch == v->epoch ? last : NULL;
}

void stm_vault_unmark(stm_vault *v, size_t stream)
{
    stm_stream_state *s = &v->tables.streams[stream];
    const stm_extent *last = committed(v, s);

    s->marked = last != NULL ? *last : (stm_extent){.epoch = v->epoch, .nonce = v->nonce};
    s->marked_complete = s->complete;
}

mill_status stm_vault_set_state(stm_vault *v, size_t part, const void *state, size_t n, mill_error *err)
{
    stm_text *to = &v->tables.parts[part].state, copy = {0};

    stm_text_add(&copy, state, n);
    if (copy.failed) return mill_fail(err, MILL_ERR_NOMEM, "no memory for the state of the run");
    stm_text_free(to);
    *to = copy;
    return MILL_OK;
}

int64_t stm_vault_pending(const stm_vault *v) { return atomic_load_explicit(&v->appended, memory_order_relaxed) - v->committed; }

/* Somebody who opened the next epoch made its journal first and removes ours later: one of the two shows. */
static mill_status still_ours(const stm_vault *v, mill_error *err)
{
    char name[40];

    stm_journal_name(v->epoch + 1, name, sizeof name);
    if (v->files.exists(v->files.user, name) == 1)
        return mill_fail(err, MILL_ERR_BUSY, "the run directory was taken over by another run");
    stm_journal_name(v->epoch, name, sizeof name);
    if (v->files.exists(v->files.user, name) == 0)
        return mill_fail(err, MILL_ERR_BUSY, "the run directory was taken over by another run");
    return MILL_OK;
}

/* Data first: a record must never speak of what is not there. */
static mill_status sync_streams(stm_vault *v, mill_error *err)
{
    bool names = false;
    int code;

    for (size_t i = 0; i < v->tables.n_streams; i++) {
        stm_stream_state *s = &v->tables.streams[i];
        const stm_extent *last = committed(v, s);
        if (s->marked.bytes == (last != NULL ? last->bytes : 0)) continue;
        if ((code = v->files.sync(v->files.user, s->marked_fd)) < 0) {
            v->lost = true;
            return mill_fail(err, MILL_ERR_IO, "cannot sync %s: %s", s->segment.name, strerror(-code));
        }
        names = names || !s->named;
    }
    if (names) {
        if ((code = v->files.sync_names(v->files.user)) < 0) {
            v->lost = true;
            return mill_fail(err, MILL_ERR_IO, "cannot sync the run directory: %s", strerror(-code));
        }
        for (size_t i = 0; i < v->tables.n_streams; i++) v->tables.streams[i].named = v->tables.streams[i].marked.bytes > 0;
    }
    return MILL_OK;
}

typedef struct sweep {
    stm_vault *v;
    char (*names)[STM_STREAM_NAME + 32];
    size_t n, cap;
} sweep;

static bool counts(const stm_vault *v, const char *name)
{
    char own[STM_STREAM_NAME + 32];

    for (size_t i = 0; i < v->tables.n_streams; i++)
        for (size_t k = 0; k < v->tables.streams[i].n_extents; k++)
            if (stm_segment_name(v->tables.streams[i].name, v->tables.streams[i].extents[k].epoch, own, sizeof own) &&
                strcmp(own, name) == 0)
                return true;
    return false;
}

static void note_old(const char *name, void *ctx)
{
    sweep *s = ctx;
    const uint64_t e = epoch_of(name);

    if (e == 0 || e >= s->v->epoch || strlen(name) >= sizeof s->names[0] || counts(s->v, name)) return;
    if (stm_grow(&s->names, &s->cap, s->n + 1, sizeof *s->names) != 0) return;
    strcpy(s->names[s->n++], name);
}

/* What older epochs left and nobody counts on. Only after the first commit: until then the epoch before may still be the one that
 * is found. A failure does no harm: the next epoch tries again. */
static void tidy(stm_vault *v)
{
    sweep s = {.v = v};

    v->tidy = true;
    (void)v->files.list(v->files.user, note_old, &s);
    for (size_t i = 0; i < s.n; i++) (void)v->files.remove(v->files.user, s.names[i]);
    stm_free(s.names);
}

mill_status stm_vault_commit(stm_vault *v, mill_error *err)
{
    const int64_t appended = atomic_load_explicit(&v->appended, memory_order_relaxed);
    mill_status st;

    if (!v->begun) return mill_fail(err, MILL_ERR_INVALID, "the run directory was not begun");
    if (v->lost) return mill_fail(err, MILL_ERR_IO, "the run directory cannot be trusted any more: an earlier sync failed");
    if ((st = still_ours(v, err)) != MILL_OK) return st;
    if ((st = sync_streams(v, err)) != MILL_OK) return st;
    v->record.bytes = 0;
    v->record.failed = false;
    stm_tables_encode_commit(&v->tables, &v->record);
    if (v->record.failed) return mill_fail(err, MILL_ERR_NOMEM, "no memory for a commit");
    if (v->record.bytes == v->last.bytes && memcmp(v->record.data, v->last.data, v->last.bytes) == 0)
        return MILL_OK; /* a run at rest */
    if ((st = stm_journal_append(&v->journal, STM_RECORD_COMMIT, v->record.data, v->record.bytes, err)) != MILL_OK) return st;
    for (size_t i = 0; i < v->tables.n_streams; i++) {
        stm_stream_state *s = &v->tables.streams[i];
        const bool there = committed(v, s) != NULL;
        s->complete = s->marked_complete;
        if (s->marked.frames == 0) continue;
        s->extents[there ? s->n_extents - 1 : s->n_extents] = s->marked;
        s->n_extents += !there;
    }
    const stm_text written = v->record;
    v->record = v->last;
    v->last = written;
    v->commits++;
    v->journal_bytes = v->journal.at;
    v->committed = appended;
    if (!v->tidy) tidy(v);
    return MILL_OK;
}
