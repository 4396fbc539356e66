#include "wrapper/replica.h"

#include "core/log.h"
#include "core/text.h"

#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

const mill_step *mill_replica_step(const mill_replica *r) { return r->step; }
void mill_replica_set_state(mill_replica *r, void *state) { r->state = state; }
void *mill_replica_state(const mill_replica *r) { return r->state; }
int32_t mill_replica_index(const mill_replica *r) { return r->index; }
int32_t mill_replica_count(const mill_replica *r) { return r->count; }
int32_t mill_replica_cpus(const mill_replica *r) { return r->step->policy.cpus >= 1 ? r->step->policy.cpus : 1; }
mill_pool *mill_replica_pool(const mill_replica *r) { return r->env->pool; }
bool mill_replica_dry_run(const mill_replica *r) { return r->env->dry_run; }
const char *mill_replica_run_dir(const mill_replica *r) { return r->env->run_dir; }

uint64_t mill_replica_opening(const mill_replica *r) { return r->env->opening; }

bool mill_replica_opening_over(const mill_replica *r, uint64_t opening)
{
    return r->env->opening_over == NULL || opening == r->env->opening || r->env->opening_over(opening, r->env->user);
}

mill_status mill_replica_part(const mill_replica *r, const mill_part *part, mill_error *err)
{
    mill_part p = {0};

    if (r->env->output == NULL) return MILL_OK;
    memcpy(&p, part, part->struct_size < sizeof p ? part->struct_size : sizeof p);
    return r->env->output(r->w, STM_OUTPUT_PART, &p, r->env->user, err);
}

void mill_replica_mark(mill_replica *r) { r->marked = true; }

bool mill_replica_cancelled(const mill_replica *r)
{
    int64_t expired;

    if (atomic_load_explicit(&r->stopped, memory_order_relaxed)) return true;
    expired = atomic_load_explicit(&r->expired, memory_order_relaxed);
    return expired != 0 &&
           expired == atomic_load_explicit(&r->w->call_since, memory_order_relaxed); /* this call, not an earlier one */
}

void stm_replica_ring(mill_replica *r)
{
    const uint64_t one = 1;

    atomic_thread_fence(memory_order_seq_cst); /* either we see the descriptor, or its maker what was set */
    const int fd = atomic_load_explicit(&r->cancel_fd, memory_order_relaxed);
    if (fd >= 0) (void)!write(fd, &one, sizeof one); /* full: it can be read from, so all is said */
}

int mill_replica_cancel_fd(mill_replica *r)
{
    int fd = atomic_load_explicit(&r->cancel_fd, memory_order_relaxed);
    uint64_t rung;

    if (fd >= 0) {
        (void)!read(fd, &rung, sizeof rung); /* of an earlier call, perhaps */
    } else if ((fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0) {
        atomic_store_explicit(&r->cancel_fd, fd, memory_order_relaxed);
    }
    atomic_thread_fence(memory_order_seq_cst);
    if (mill_replica_cancelled(r)) stm_replica_ring(r);
    return fd;
}

void mill_replica_wake(mill_replica *r)
{
    if (r->env->wake != NULL) r->env->wake(r->w, r->env->user);
}

uint64_t mill_replica_seed(const mill_replica *r, const mill_batch *in, int64_t row)
{
    int64_t key[64];
    int32_t n = in->keys.width;

    if (n > 64) n = 64; /* deeper paths share a prefix: still a function of the key */
    if (in->keys.tuples == NULL)
        key[0] = in->keys.first + row;
    else {
        const int64_t *t = (const int64_t *)mill_buffer_data(in->keys.tuples) + (in->keys.offset + row) * in->keys.width;
        for (int32_t i = 0; i < n; i++) key[i] = t[i];
    }
    while (n > 1 && key[n - 1] == -1) n--; /* padding is not part of a key */
    return stm_hash64(key, (size_t)n * sizeof key[0], r->step->seed);
}

const char *mill_replica_row_error(const mill_replica *r, const mill_batch *in, int64_t row)
{
    mill_view v;
    const stm_error_record *rec;

    if (in->marks == NULL) return NULL;
    v = mill_column_view(in->marks);
    rec = stm_errors_get(r->env->errors, ((const int64_t *)v.data)[v.offset + row]);
    return rec != NULL ? rec->error.msg : NULL;
}

void mill_replica_progress(mill_replica *r, double share)
{
    if (share >= 0.0 && share <= 1.0) atomic_store_explicit(&r->done, share, memory_order_relaxed);
}

void mill_replica_log(const mill_replica *r, mill_level level, const char *fmt, ...)
{
    char who[96];
    va_list ap;

    /* a plugin says which */
    const int known = (int)level < MILL_DEBUG ? MILL_DEBUG : (int)level > MILL_ERROR ? MILL_ERROR : (int)level;

    snprintf(who, sizeof who, "%s[%d]", r->step->name, (int)r->index);
    va_start(ap, fmt);
    stm_logv((stm_level)known, who, fmt, ap);
    va_end(ap);
}
