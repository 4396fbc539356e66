/*
 * NCCL behind the table: libstepmill-nccl.so. Communicators do not block, so that nothing here waits: what NCCL has begun is polled
 * with ncclCommGetAsyncError, which also tells what went wrong with work that runs.
 */
#include <cuda_runtime_api.h>
#include <nccl.h>

#include "comm/comm_ops.h"

struct stm_hw_comm {
    int32_t n;
    ncclComm_t comms[STM_COMM_RANKS]; /* NULL: not made, or aborted */
    cudaStream_t streams[STM_COMM_RANKS];
};

static const stm_module_host *host;

/* A call of NCCL, or the failure that a test asked for in its place. */
#define NCCL(call) (host->fault() ? ncclSystemError : (call))

static mill_status status_of(ncclResult_t code)
{
    switch (code) {
    case ncclSuccess: return MILL_OK;
    case ncclInProgress: return MILL_ERR_AGAIN;
    case ncclInvalidArgument:
    case ncclInvalidUsage: return MILL_ERR_INVALID;
    case ncclUnhandledCudaError: return MILL_ERR_DEVICE;
    default: return MILL_ERR_IO; /* system, internal, remote: the connection is lost, devices are not */
    }
}

static mill_status check(ncclResult_t code, ncclComm_t comm, const char *what, int line, mill_error *err)
{
    const mill_status st = status_of(code);
    const char *last;

    if (st == MILL_OK || st == MILL_ERR_AGAIN) return st;
    last = ncclGetLastError(comm);
    return host->fail(err, st, __FILE__, line, "%s: %s%s%.200s", what, ncclGetErrorString(code),
                      last != NULL && last[0] ? ": " : "", last != NULL ? last : "");
}

static mill_status set_device(int32_t ordinal, mill_error *err)
{
    const cudaError_t code = host->fault() ? cudaErrorInvalidValue : cudaSetDevice(ordinal);

    if (code == cudaSuccess) return MILL_OK;
    (void)cudaGetLastError();
    return host->fail(err, code == cudaErrorInvalidValue || code == cudaErrorInvalidDevice ? MILL_ERR_STEP : MILL_ERR_DEVICE,
                      __FILE__, __LINE__, "choosing CUDA device %d: %s", (int)ordinal, cudaGetErrorString(code));
}

static void nccl_abort(stm_hw_comm *c)
{
    for (int32_t i = 0; i < c->n; i++) {
        if (c->comms[i] != NULL) (void)ncclCommAbort(c->comms[i]);
        c->comms[i] = NULL;
    }
}

static void nccl_close(stm_hw_comm **pc)
{
    stm_hw_comm *c = *pc;

    if (c == NULL) return;
    *pc = NULL;
    for (int32_t i = 0; i < c->n; i++)
        if (c->comms[i] != NULL) (void)ncclCommDestroy(c->comms[i]);
    host->free(c);
}

static mill_status nccl_open(const int32_t *ordinals, void *const *streams, int32_t n, stm_hw_comm **out, mill_error *err)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id;
    int before = 0;
    stm_hw_comm *c = host->calloc(sizeof *c);
    mill_status st;

    if (c == NULL) return host->fail(err, MILL_ERR_NOMEM, __FILE__, __LINE__, "out of memory for a communicator");
    config.blocking = 0;
    c->n = n;
    (void)cudaGetDevice(&before);
    st = check(NCCL(ncclGetUniqueId(&id)), NULL, "preparing a communicator", __LINE__, err);
    if (st == MILL_OK) st = check(NCCL(ncclGroupStart()), NULL, "preparing a communicator", __LINE__, err);
    if (st == MILL_OK) {
        mill_status end;
        for (int32_t i = 0; i < n && (st == MILL_OK || st == MILL_ERR_AGAIN); i++) {
            c->streams[i] = streams[i];
            st = set_device(ordinals[i], err);
            if (st == MILL_OK)
                st = check(NCCL(ncclCommInitRankConfig(&c->comms[i], n, id, i, &config)), NULL, "connecting a rank", __LINE__, err);
        }
        end = check(ncclGroupEnd(), NULL, "connecting ranks", __LINE__, err); /* a group that was begun must end */
        if (st == MILL_OK || st == MILL_ERR_AGAIN) st = end;
    }
    (void)cudaSetDevice(before);
    if (st != MILL_OK && st != MILL_ERR_AGAIN) {
        nccl_abort(c);
        nccl_close(&c);
        return st;
    }
    *out = c;
    return MILL_OK;
}

static mill_status nccl_poll(stm_hw_comm *c, mill_error *err)
{
    bool waits = false;

    for (int32_t i = 0; i < c->n; i++) {
        ncclResult_t code = ncclSuccess;
        mill_status st =
            check(NCCL(ncclCommGetAsyncError(c->comms[i], &code)), c->comms[i], "asking a rank how it is", __LINE__, err);
        if (st == MILL_OK) st = check(code, c->comms[i], "work of a rank", __LINE__, err);
        if (st != MILL_OK && st != MILL_ERR_AGAIN) return st;
        waits |= st == MILL_ERR_AGAIN;
    }
    return waits ? MILL_ERR_AGAIN : MILL_OK;
}

static ncclDataType_t type_of(stm_comm_type t)
{
    static const ncclDataType_t types[] = {
        [STM_COMM_U8] = ncclUint8,      [STM_COMM_I32] = ncclInt32,   [STM_COMM_I64] = ncclInt64,  [STM_COMM_F16] = ncclFloat16,
        [STM_COMM_BF16] = ncclBfloat16, [STM_COMM_F32] = ncclFloat32, [STM_COMM_F64] = ncclFloat64};
    return types[t];
}
static ncclRedOp_t op_of(stm_comm_op op) { return op == STM_COMM_MAX ? ncclMax : op == STM_COMM_MIN ? ncclMin : ncclSum; }

static ncclResult_t queue(stm_hw_comm *c, const stm_comm_call *a)
{
    const ncclDataType_t t = type_of(a->type);
    const size_t n = (size_t)a->count;
    ncclComm_t comm = c->comms[a->rank];
    cudaStream_t s = c->streams[a->rank];

    switch (a->kind) {
    case STM_COMM_ALL_REDUCE: return NCCL(ncclAllReduce(a->send, a->recv, n, t, op_of(a->op), comm, s));
    case STM_COMM_BROADCAST: return NCCL(ncclBroadcast(a->send, a->recv, n, t, a->peer, comm, s));
    case STM_COMM_REDUCE: return NCCL(ncclReduce(a->send, a->recv, n, t, op_of(a->op), a->peer, comm, s));
    case STM_COMM_ALL_GATHER: return NCCL(ncclAllGather(a->send, a->recv, n, t, comm, s));
    case STM_COMM_REDUCE_SCATTER: return NCCL(ncclReduceScatter(a->send, a->recv, n, t, op_of(a->op), comm, s));
    case STM_COMM_SEND: return NCCL(ncclSend(a->send, n, t, a->peer, comm, s));
    case STM_COMM_RECV: return NCCL(ncclRecv(a->recv, n, t, a->peer, comm, s));
    }
    return ncclInvalidArgument;
}

static mill_status nccl_group(stm_hw_comm *c, const stm_comm_call *calls, int32_t n, mill_error *err)
{
    mill_status end, st = check(NCCL(ncclGroupStart()), NULL, "beginning a group", __LINE__, err);

    if (st != MILL_OK) return st;
    for (int32_t i = 0; i < n && (st == MILL_OK || st == MILL_ERR_AGAIN); i++)
        st = check(queue(c, &calls[i]), c->comms[calls[i].rank], "queueing an operation", __LINE__, err);
    end = check(ncclGroupEnd(), NULL, "queueing a group", __LINE__, err);
    if (st == MILL_OK || st == MILL_ERR_AGAIN) st = end;
    return st == MILL_ERR_AGAIN ? MILL_OK : st;
}

static mill_status nccl_finish(stm_hw_comm *c, mill_error *err)
{
    mill_status st = MILL_OK;

    for (int32_t i = 0; i < c->n && (st == MILL_OK || st == MILL_ERR_AGAIN); i++)
        st = check(NCCL(ncclCommFinalize(c->comms[i])), c->comms[i], "parting ranks", __LINE__, err);
    return st == MILL_ERR_AGAIN ? MILL_OK : st;
}

static const stm_comm_ops ops = {
    .struct_size = sizeof(stm_comm_ops),
    .abi = STM_COMM_ABI,
    .name = "nccl",
    .backend = "cuda",
    .open = nccl_open,
    .poll = nccl_poll,
    .group = nccl_group,
    .finish = nccl_finish,
    .abort = nccl_abort,
    .close = nccl_close,
};

__attribute__((visibility("default"))) const stm_comm_ops *stm_comm_module_v1(const stm_module_host *table);
const stm_comm_ops *stm_comm_module_v1(const stm_module_host *table)
{
    if (table->abi != STM_DEVICE_ABI || table->struct_size < sizeof(stm_module_host)) return NULL;
    host = table;
    return &ops;
}
