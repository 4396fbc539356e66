/*
 * The library without a device: ranks are parts of this process's memory, and a group is done by the thread that gives it, before
 * the call returns (as work of cpu streams is). The reference that the others are tested against: ranks are summed in their order.
 */
#include <string.h>

#include "batch/half.h"
#include "comm/comm.h"
#include "core/alloc.h"
#include "core/fault.h"

struct stm_hw_comm {
    int32_t n;
};

static mill_status cpu_open(const int32_t *ordinals, void *const *streams, int32_t n, stm_hw_comm **out, mill_error *err)
{
    stm_hw_comm *c = stm_calloc(sizeof *c);

    (void)ordinals;
    (void)streams;
    if (c == NULL) return mill_fail(err, MILL_ERR_NOMEM, "out of memory for a communicator");
    c->n = n;
    *out = c;
    return MILL_OK;
}

static mill_status cpu_poll(stm_hw_comm *c, mill_error *err)
{
    (void)c;
    if (stm_fault_fires(STM_FAULT_DEVICE)) return mill_fail(err, MILL_ERR_IO, "the ranks have lost each other (a test wants it)");
    return MILL_OK;
}

/* ---- elements --------------------------------------------------------------------------------------------------- */

static float from_bf16(uint16_t b)
{
    const uint32_t bits = (uint32_t)b << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static uint16_t to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u); /* NaN stays NaN */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);                  /* nearest, ties to even */
}

static double combine(double a, double b, stm_comm_op op)
{
    return op == STM_COMM_SUM ? a + b : op == STM_COMM_MAX ? (b > a ? b : a) : (b < a ? b : a);
}
static float combine_f(float a, float b, stm_comm_op op)
{
    return op == STM_COMM_SUM ? a + b : op == STM_COMM_MAX ? (b > a ? b : a) : (b < a ? b : a);
}
static int64_t combine_i(int64_t a, int64_t b, stm_comm_op op)
{
    if (op == STM_COMM_SUM) return (int64_t)((uint64_t)a + (uint64_t)b);
    return op == STM_COMM_MAX ? (b > a ? b : a) : (b < a ? b : a);
}

static float load_f(const void *p, int64_t i, stm_comm_type t)
{
    if (t == STM_COMM_F16) return stm_half_to_float(((const uint16_t *)p)[i]);
    return t == STM_COMM_BF16 ? from_bf16(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}
static int64_t load_i(const void *p, int64_t i, stm_comm_type t)
{
    return t == STM_COMM_U8 ? ((const uint8_t *)p)[i] : t == STM_COMM_I32 ? ((const int32_t *)p)[i] : ((const int64_t *)p)[i];
}

/* Element `from` of each rank's send becomes element `to` of the receives of ranks lo .. hi - 1. */
static void reduce_one(const stm_comm_call *const *ranks, int32_t n, int64_t from, int64_t to, int32_t lo, int32_t hi)
{
    const stm_comm_type t = ranks[0]->type;
    const stm_comm_op op = ranks[0]->op;

    if (t == STM_COMM_F64) {
        double v = ((const double *)ranks[0]->send)[from];
        for (int32_t r = 1; r < n; r++) v = combine(v, ((const double *)ranks[r]->send)[from], op);
        for (int32_t r = lo; r < hi; r++) ((double *)ranks[r]->recv)[to] = v;
    } else if (t == STM_COMM_F32 || t == STM_COMM_F16 || t == STM_COMM_BF16) {
        float v = load_f(ranks[0]->send, from, t);
        for (int32_t r = 1; r < n; r++) v = combine_f(v, load_f(ranks[r]->send, from, t), op);
        for (int32_t r = lo; r < hi; r++) {
            if (t == STM_COMM_F32) ((float *)ranks[r]->recv)[to] = v;
            else ((uint16_t *)ranks[r]->recv)[to] = t == STM_COMM_F16 ? stm_half_from_double((double)v) : to_bf16(v);
        }
    } else {
        int64_t v = load_i(ranks[0]->send, from, t);
        for (int32_t r = 1; r < n; r++) v = combine_i(v, load_i(ranks[r]->send, from, t), op);
        for (int32_t r = lo; r < hi; r++) {
            if (t == STM_COMM_U8) ((uint8_t *)ranks[r]->recv)[to] = (uint8_t)v;
            else if (t == STM_COMM_I32) ((int32_t *)ranks[r]->recv)[to] = (int32_t)(uint32_t)v;
            else ((int64_t *)ranks[r]->recv)[to] = v;
        }
    }
}

static void move(void *dst, const void *src, size_t bytes)
{
    if (dst != src && bytes > 0) memcpy(dst, src, bytes);
}

/* One collective; ranks[r] is the call of rank r. Element by element, so that receiving in place is right. */
static void collective(const stm_comm_call *const *ranks, int32_t n)
{
    const stm_comm_call *a = ranks[0];
    const int64_t count = a->count;
    const size_t bytes = (size_t)count * stm_comm_type_bytes(a->type);

    for (int32_t r = 0; r < n; r++) {
        if (a->kind == STM_COMM_BROADCAST) move(ranks[r]->recv, ranks[a->peer]->send, bytes);
        for (int32_t q = 0; q < n && a->kind == STM_COMM_ALL_GATHER && bytes > 0; q++)
            move((char *)ranks[r]->recv + (size_t)q * bytes, ranks[q]->send, bytes);
        for (int64_t i = 0; i < count && a->kind == STM_COMM_REDUCE_SCATTER; i++) reduce_one(ranks, n, r * count + i, i, r, r + 1);
    }
    for (int64_t i = 0; i < count && a->kind == STM_COMM_ALL_REDUCE; i++) reduce_one(ranks, n, i, i, 0, n);
    for (int64_t i = 0; i < count && a->kind == STM_COMM_REDUCE; i++) reduce_one(ranks, n, i, i, a->peer, a->peer + 1);
}

static bool is_message(const stm_comm_call *c) { return c->kind == STM_COMM_SEND || c->kind == STM_COMM_RECV; }

/* The engine has checked that the calls fit together. */
static mill_status cpu_group(stm_hw_comm *c, const stm_comm_call *calls, int32_t n, mill_error *err)
{
    int32_t next[STM_COMM_RANKS] = {0}; /* where to go on looking for a rank's next collective */
    bool received[STM_COMM_CALLS] = {false};

    if (stm_fault_fires(STM_FAULT_DEVICE)) return mill_fail(err, MILL_ERR_IO, "the ranks have lost each other (a test wants it)");
    for (;;) {
        const stm_comm_call *ranks[STM_COMM_RANKS] = {NULL};
        for (int32_t r = 0; r < c->n; r++) {
            while (next[r] < n && (calls[next[r]].rank != r || is_message(&calls[next[r]]))) next[r]++;
            if (next[r] < n) ranks[r] = &calls[next[r]++];
            else ranks[r] = NULL;
        }
        if (ranks[0] == NULL) break;
        collective(ranks, c->n);
    }
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0; j < n && calls[i].kind == STM_COMM_SEND; j++)
            if (!received[j] && calls[j].kind == STM_COMM_RECV && calls[j].rank == calls[i].peer &&
                calls[j].peer == calls[i].rank) {
                move(calls[j].recv, calls[i].send, (size_t)calls[i].count * stm_comm_type_bytes(calls[i].type));
                received[j] = true;
                break;
            }
    return MILL_OK;
}

static mill_status cpu_finish(stm_hw_comm *c, mill_error *err)
{
    (void)c;
    (void)err;
    return MILL_OK;
}
static void cpu_abort(stm_hw_comm *c) { (void)c; }
static void cpu_close(stm_hw_comm **c)
{
    stm_free(*c);
    *c = NULL;
}

const stm_comm_ops stm_comm_cpu = {
    .struct_size = sizeof(stm_comm_ops),
    .abi = STM_COMM_ABI,
    .name = "cpu",
    .backend = "cpu",
    .open = cpu_open,
    .poll = cpu_poll,
    .group = cpu_group,
    .finish = cpu_finish,
    .abort = cpu_abort,
    .close = cpu_close,
};
