#include "search/team.h"

#include <string.h>
#include <time.h>

#include "core/alloc.h"
#include "core/error.h"
#include "search/form.h"

enum { SLOTS = 2, LATE = 4 };

typedef struct member {
    stm_device *device; /* a reference */
    stm_stream *stream;
    void *slots[SLOTS]; /* pinned */
    stm_mark busy[SLOTS];
    int32_t turn;
    stm_tiles tiles;
    /* the device did not say that it is idle: what was to be freed waits for the end of the stream */
    bool unsure;
    void *late[LATE];
    stm_mem_kind late_kind[LATE];
    int32_t n_late;
} member;

struct stm_team {
    int32_t n;
    const stm_kernels *kernels;
    stm_comm *comm; /* NULL: one rank */
    member members[STM_COMM_RANKS];
};

mill_status stm_team_open(stm_device *const *devices, int32_t n, int64_t timeout_ns, stm_team **out, mill_error *err)
{
    stm_stream *streams[STM_COMM_RANKS];
    const stm_comm_ops *ops = NULL;
    stm_team *t;
    mill_status st = MILL_OK;

    if (n < 1 || n > STM_COMM_RANKS)
        return mill_fail(err, MILL_ERR_INVALID, "%d GPUs for one replica: 1 to %d are possible", (int)n, STM_COMM_RANKS);
    if ((t = stm_calloc(sizeof *t)) == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for the devices of a replica");
    t->n = n;
    for (int32_t r = 0; r < n && st == MILL_OK; r++) {
        member *m = &t->members[r];
        m->device = stm_device_ref(devices[r]);
        st = stm_stream_open(m->device, &m->stream, err);
        for (int i = 0; i < SLOTS && st == MILL_OK; i++)
            st = stm_device_alloc(m->device, STM_MEM_PINNED, STM_TEAM_STAGE, &m->slots[i], err);
        streams[r] = m->stream;
    }
    if (st == MILL_OK) {
        t->kernels = stm_kernels_of(stm_device_ops_of(devices[0]));
        if (t->kernels == NULL)
            st = mill_fail(err, MILL_ERR_UNSUPPORTED, "the module's kernels are of another version of stepmill");
    }
    for (int32_t r = 0; r < n && st == MILL_OK; r++)
        st = stm_form_choose(t->members[r].stream, t->kernels, t->members[r].slots[0], &t->members[r].tiles, err);
    if (st == MILL_OK && n > 1) {
        st = stm_comm_find(strcmp(stm_device_ops_of(devices[0])->name, "cpu") == 0 ? "cpu" : "nccl", &ops, err);
        if (st == MILL_OK) st = stm_comm_open(ops, streams, n, timeout_ns, &t->comm, err);
    }
    if (st != MILL_OK) {
        stm_team_close(&t);
        return st;
    }
    *out = t;
    return MILL_OK;
}

void stm_team_close(stm_team **pt)
{
    stm_team *t = *pt;

    if (t == NULL) return;
    *pt = NULL;
    stm_comm_close(&t->comm);
    for (int32_t r = 0; r < t->n; r++) {
        member *m = &t->members[r];
        stm_stream_close(&m->stream);
        for (int32_t i = 0; i < m->n_late; i++) stm_device_free(m->device, m->late_kind[i], m->late[i]);
        for (int i = 0; i < SLOTS; i++)
            if (m->slots[i] != NULL) stm_device_free(m->device, STM_MEM_PINNED, m->slots[i]);
        stm_device_unref(&m->device);
    }
    stm_free(t);
}

int32_t stm_team_size(const stm_team *t) { return t->n; }
stm_device *stm_team_device(const stm_team *t, int32_t rank) { return t->members[rank].device; }
stm_stream *stm_team_stream(const stm_team *t, int32_t rank) { return t->members[rank].stream; }
const stm_kernels *stm_team_kernels(const stm_team *t) { return t->kernels; }
stm_tiles stm_team_tiles(const stm_team *t, int32_t rank) { return t->members[rank].tiles; }

mill_status stm_team_enter(stm_team *t, int32_t rank, mill_error *err) { return stm_device_enter(t->members[rank].device, err); }

mill_status stm_team_launched(stm_team *t, int32_t rank, mill_status st, const char *what, mill_error *err)
{
    if (st == MILL_OK) return st;
    (void)stm_device_note(t->members[rank].device, st);
    return mill_fail(err, st, "%s on %s device %d failed", what, stm_device_ops_of(t->members[rank].device)->name,
                     (int)stm_device_ordinal(t->members[rank].device));
}

/* ---- waiting ---------------------------------------------------------------------------------------------------- */

static void nap(int64_t *ns)
{
    const struct timespec t = {0, (long)*ns};

    nanosleep(&t, NULL);
    if (*ns < 200000) *ns += *ns / 2;
}

/* A mark behind all that is queued. Waits only while all ticks of the stream are under way. */
static mill_status raise(stm_stream *s, stm_mark *mark, mill_error *err)
{
    int64_t ns = 2000;
    mill_status st = stm_stream_poll(s, err);

    while (st == MILL_OK && stm_stream_in_flight(s) >= STM_TICKS) {
        nap(&ns);
        st = stm_stream_poll(s, err);
    }
    return st == MILL_OK ? stm_stream_raise(s, mark, err) : st;
}

static mill_status until(stm_stream *s, stm_mark mark, mill_error *err)
{
    int64_t ns = 2000;
    mill_status st = MILL_OK;

    while (st == MILL_OK && !stm_mark_done(mark)) {
        st = stm_stream_poll(s, err);
        if (st == MILL_OK && !stm_mark_done(mark)) nap(&ns);
    }
    return st;
}

mill_status stm_team_settle(stm_team *t, mill_error *err)
{
    stm_mark marks[STM_COMM_RANKS] = {{NULL, 0}};
    mill_status st = MILL_OK;

    /* groups first: their wait has a deadline, and an abort frees the streams of what would never end */
    if (t->comm != NULL && (stm_comm_state_of(t->comm) == STM_COMM_BROKEN || stm_comm_in_flight(t->comm) > 0))
        st = stm_comm_wait(t->comm, err);
    for (int32_t r = 0; r < t->n && st == MILL_OK; r++) st = raise(t->members[r].stream, &marks[r], err);
    for (int32_t r = 0; r < t->n && st == MILL_OK; r++) st = until(t->members[r].stream, marks[r], err);
    return st;
}

void stm_team_drain(stm_team *t)
{
    mill_error err = {0};

    if (t->comm != NULL && stm_comm_in_flight(t->comm) > 0) (void)stm_comm_wait(t->comm, &err);
    for (int32_t r = 0; r < t->n; r++) {
        t->members[r].unsure = stm_stream_sync(t->members[r].stream, NULL) != MILL_OK || t->members[r].unsure;
        for (int i = 0; i < SLOTS; i++) t->members[r].busy[i] = (stm_mark){NULL, 0};
    }
}

mill_status stm_team_alloc(stm_team *t, int32_t rank, stm_mem_kind kind, size_t bytes, void **out, mill_error *err)
{
    return stm_device_alloc(t->members[rank].device, kind, bytes, out, err);
}

void stm_team_free(stm_team *t, int32_t rank, stm_mem_kind kind, void **ptr)
{
    member *m = &t->members[rank];

    if (*ptr != NULL && m->unsure && m->n_late < LATE) {
        m->late[m->n_late] = *ptr;
        m->late_kind[m->n_late++] = kind;
    } else if (*ptr != NULL) {
        stm_device_free(m->device, kind, *ptr);
    }
    *ptr = NULL;
}

mill_status stm_team_rebuild(stm_team *t, mill_error *err)
{
    stm_team_drain(t);
    return t->comm != NULL ? stm_comm_rebuild(t->comm, err) : MILL_OK;
}

/* ---- work ------------------------------------------------------------------------------------------------------- */

mill_status stm_team_upload(stm_team *t, int32_t rank, void *dst, int64_t n, size_t width, stm_team_fill fill, const void *user,
                            mill_error *err)
{
    member *m = &t->members[rank];
    const int64_t piece = (int64_t)(STM_TEAM_STAGE / width);
    mill_status st = MILL_OK;

    for (int64_t first = 0; first < n && st == MILL_OK; first += piece) {
        const int64_t rows = n - first < piece ? n - first : piece;
        const int32_t slot = m->turn;
        m->turn = (m->turn + 1) % SLOTS;
        if ((st = until(m->stream, m->busy[slot], err)) != MILL_OK) break;
        m->busy[slot] = (stm_mark){NULL, 0};
        fill(user, first, rows, m->slots[slot]);
        st = stm_stream_copy(m->stream, (char *)dst + (size_t)first * width, m->slots[slot], (size_t)rows * width, err);
        if (st == MILL_OK) st = raise(m->stream, &m->busy[slot], err);
    }
    return st;
}

mill_status stm_team_group(stm_team *t, const stm_comm_call *calls, int32_t n, mill_error *err)
{
    int64_t ns = 2000;
    mill_status st;

    if (t->comm == NULL) return MILL_OK;
    for (;;) { /* ends: poll keeps the deadlines */
        mill_error why = {0};
        st = stm_comm_poll(t->comm, &why);
        if (st == MILL_OK) st = stm_comm_submit(t->comm, calls, n, &why);
        if (st == MILL_OK) break;
        if (st != MILL_ERR_AGAIN) return stm_error_hand_on(&why, st, err);
        nap(&ns);
    }
    while ((st = stm_comm_poll(t->comm, err)) == MILL_ERR_AGAIN) nap(&ns);
    return st;
}
