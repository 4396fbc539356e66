/*
 * What the GPUs of one step do together: the table between the engine and a communication library. `cpu` is in every build,
 * `nccl` in a module of its own (libstepmill-nccl.so); tests/comm runs one contract suite on each. Deadlines, the watch over
 * faults, abort and rebuild are made of these operations in comm.h, once for all libraries.
 *
 * A communicator is all ranks of one replica, one device each, driven by one thread. Work is given as groups: the calls of all
 * ranks at once, so that a call which one rank makes and another does not cannot be written down.
 *
 * Rules for every entry
 *   - Nothing waits for a device or for another rank. What takes time is begun, and poll says when it is over.
 *   - What can fail returns a status and fills the error; outputs are set on success only. Pointers are borrowed for the call.
 *   - One thread at a time for one communicator.
 *
 * Statuses, sorted as device_ops.h sorts them (stm_comm_verdict):
 *   MILL_ERR_AGAIN              poll: under way
 *   MILL_ERR_IO                 the ranks have lost each other; devices are well: abort, build again, retry
 *   MILL_ERR_DEVICE             a device is lost
 *   MILL_ERR_INVALID, MILL_ERR_UNSUPPORTED   the call was wrong
 */
#ifndef STM_COMM_COMM_OPS_H
#define STM_COMM_COMM_OPS_H

#include "device/device_ops.h"

MILL_BEGIN_DECLS

#define STM_COMM_ABI 1u
#define STM_COMM_RANKS 16  /* of one replica, at most */
#define STM_COMM_CALLS 128 /* of one group, at most */

typedef struct stm_hw_comm stm_hw_comm; /* a library defines it for itself */

typedef enum stm_comm_kind {
    STM_COMM_ALL_REDUCE = 1, /* recv[count] = op over ranks of send[count]; recv == send is allowed */
    STM_COMM_BROADCAST,      /* recv[count] of all = send[count] of rank `peer`; recv == send is allowed */
    STM_COMM_REDUCE,         /* recv[count] of rank `peer` only */
    STM_COMM_ALL_GATHER,     /* recv[ranks][count]; send == recv + rank * count is allowed */
    STM_COMM_REDUCE_SCATTER, /* recv[count] = part `rank` of op over send[ranks][count]; recv == send + rank * count is allowed */
    STM_COMM_SEND,           /* send[count] to rank `peer`, whose receive is in the same group */
    STM_COMM_RECV            /* recv[count] from rank `peer` */
} stm_comm_kind;

typedef enum stm_comm_type {
    STM_COMM_U8 = 1,
    STM_COMM_I32,
    STM_COMM_I64,
    STM_COMM_F16,
    STM_COMM_BF16,
    STM_COMM_F32,
    STM_COMM_F64
} stm_comm_type;

typedef enum stm_comm_op { STM_COMM_SUM = 1, STM_COMM_MAX, STM_COMM_MIN } stm_comm_op;

/** One rank's part. Buffers are memory of the rank's device; those of different ranks do not overlap. */
typedef struct stm_comm_call {
    stm_comm_kind kind;
    stm_comm_type type;
    stm_comm_op op; /* of the kinds that reduce */
    int32_t rank;
    int32_t peer;   /* root, or whom to send to or receive from */
    int64_t count;  /* elements, as said above; 0 is allowed */
    const void *send;
    void *recv;
} stm_comm_call;

typedef struct stm_comm_ops {
    size_t struct_size;
    uint32_t abi;
    const char *name;    /* "cpu", "nccl": the word in messages */
    const char *backend; /* of the devices that it connects */

    /** Begin to connect n ranks, on devices ordinals[i] (each once, where the backend has several) with native streams streams[i].
     *  Usable once poll says MILL_OK. */
    mill_status (*open)(const int32_t *ordinals, void *const *streams, int32_t n, stm_hw_comm **out, mill_error *err);
    /** MILL_OK: what was begun last is over and no fault is known; MILL_ERR_AGAIN: under way; else the fault. */
    mill_status (*poll)(stm_hw_comm *comm, mill_error *err);
    /** Begin to queue a group, checked by the engine, on the ranks' streams. All of it is queued once poll says MILL_OK; before
     *  that nothing that depends on it may be queued. */
    mill_status (*group)(stm_hw_comm *comm, const stm_comm_call *calls, int32_t n, mill_error *err);
    /** All work is done: begin to part. Close when poll says MILL_OK. */
    mill_status (*finish)(stm_hw_comm *comm, mill_error *err);
    /** End what is queued, done or not; outputs of it are undefined. Only close may follow. */
    void (*abort)(stm_hw_comm *comm);
    void (*close)(stm_hw_comm **comm); /* after finish or abort; accepts NULL */
} stm_comm_ops;

extern const stm_comm_ops stm_comm_cpu;

/** What the module exports as STM_COMM_ENTRY; the table is constant and stays. NULL: it does not know @p host->abi. */
typedef const stm_comm_ops *(*stm_comm_entry)(const stm_module_host *host);
#define STM_COMM_ENTRY "stm_comm_module_v1"

MILL_END_DECLS

#endif
