/*
 * Who writes a run directory. A writer shows that it lives in two ways: on its own machine by answering on an abstract socket named
 * after the folder and its epoch, elsewhere by a heartbeat in the file `owner.<epoch>`. Neither guards the data: of two
 * writers that both think the other dead one loses at the journal (store/vault.h), and what it wrote is never read. The file of a
 * writer that was killed stays until it has certainly ended; outputs are not shared with it until then.
 */
#ifndef STM_STORE_OWNER_H
#define STM_STORE_OWNER_H

#include "store/vault.h"

#define STM_OWNER_BEAT_S 5.0   /* how often a heartbeat is written */
#define STM_OWNER_STALE_S 30.0 /* an older one is of a dead writer */
#define STM_OWNER_WHO 320

typedef struct stm_owner stm_owner;

/** The writer, as text for stm_vault_begin: machine, network namespace, process @p pid (0 = this one), which is whom to tell to
 *  stop. */
void stm_owner_who(long pid, char *buf, size_t size);
/**
 * Become the writer of the next epoch of @p v, which was opened on folder @p dir; before stm_vault_begin.
 * @param answer_s  how long a living writer may take to answer (a few seconds; one whose disk is slow is busy for a while).
 * @retval MILL_ERR_BUSY  somebody else writes; @p err names process and machine.
 * Blocks: up to @p answer_s, when there was a writer that does not answer. Threads: owner, all calls.
 */
mill_status stm_owner_claim(const stm_vault *v, const stm_files *files, const char *dir, double answer_s, stm_owner **out,
                            mill_error *err);
/** Whether the writer of @p epoch has certainly ended: it said so, or it was of this machine and its socket is gone. Threads: any.
 *  Never blocks. */
bool stm_owner_over(const stm_files *files, const char *dir, uint64_t epoch);
/** Answer whoever asks and, now and then, write a heartbeat. At least every second. Never blocks on a socket. */
void stm_owner_tick(stm_owner *o);
/** Nobody writes from here on: the next may begin at once. Sets *o to NULL, accepts NULL. */
void stm_owner_release(stm_owner **o);

#endif
