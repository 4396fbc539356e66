/*
 * Claims on devices and output files between the processes of a machine. A claim is an abstract Unix socket with the device's UUID
 * in its name: the kernel lets one process bind a name, and forgets it when the process is gone, however it went. No file is left
 * behind and nobody has to clean up.
 *
 *   stepmill/gpu/<uuid>             held by who wants the device alone
 *   stepmill/gpu/<uuid>/<pid>.<n>   held by each who shares it
 *   stepmill/out/<hash of path>     held by who writes the file; nobody shares that
 *
 * Who takes one kind looks for the other kind afterwards, and lets go when there is one: of two that come at the same moment one
 * or both give up, never neither. Sockets are seen within one network namespace: containers that have their own do not see
 * each other's claims.
 */
#ifndef STM_PLACEMENT_CLAIM_H
#define STM_PLACEMENT_CLAIM_H

#include <stdbool.h>

#include "stepmill/error.h"

/** The claims that a run holds. Threads: owner. */
typedef struct stm_claims stm_claims;

mill_status stm_claims_create(stm_claims **out, mill_error *err);
/** Lets all go; sets *c to NULL, accepts NULL. */
void stm_claims_destroy(stm_claims **c);
/**
 * Claim a device.
 * @param uuid    or another name that is the device's alone (its PCI bus id).
 * @param shared  others that share it, too, do not mind.
 * @retval MILL_ERR_BUSY  another process has it; the message names it and its process id.
 * Blocks: no.
 */
mill_status stm_claims_take(stm_claims *c, const char *uuid, bool shared, mill_error *err);
/** Claim the file @p path (absolute, the same text for the same file) to write it. @retval MILL_ERR_BUSY  another run writes it;
 *  the message names its process. Where no socket can be had nothing is claimed: MILL_OK. Blocks: no. */
mill_status stm_claims_take_file(stm_claims *c, const char *path, mill_error *err);
/** Let one go; nothing happens if it is not held. */
void stm_claims_drop(stm_claims *c, const char *uuid);
/** Who holds a device now: a process id, 0 = nobody, -1 = somebody who cannot be seen from here. @p shared may be NULL. Takes
 *  nothing. */
int32_t stm_claim_holder(const char *uuid, bool *shared);

#endif
