/*
 * One journal: the file `journal.<epoch>` that one opening of the run directory writes. A sequence of records; the first
 * one (BASE) says all that is taken over from older epochs, each later one (COMMIT) all that has been added since. So a
 * state is the first record and the last valid one; those between are never needed.
 *
 *   record: magic u32 | kind u32 | epoch u64 | nonce u64 | number u64 | bytes u64 | CRC of payload u32 | CRC of the 44 bytes before
 *   u32 payload, then zeroes up to a multiple of 16
 *
 * The nonce is drawn when the journal is made: no bytes that a user's step hands over can look like a record.
 */
#ifndef STM_STORE_JOURNAL_H
#define STM_STORE_JOURNAL_H

#include <stdbool.h>

#include "core/text.h"
#include "store/files.h"

#define STM_JOURNAL_MAX_PAYLOAD ((uint64_t)1 << 30)

typedef enum stm_record_kind { STM_RECORD_BASE = 1, STM_RECORD_COMMIT = 2 } stm_record_kind;

/** Name of the journal of @p epoch into @p buf, and the epoch that a name stands for (0 = it is no journal). */
void stm_journal_name(uint64_t epoch, char *buf, size_t size);
uint64_t stm_journal_epoch_of(const char *name);
/** Whether the first @p n bytes of a file are those of a journal, of this version or another. */
bool stm_journal_begins(const void *bytes, size_t n);

typedef struct stm_journal {
    const stm_files *files;
    uint64_t epoch, nonce, number; /* number: of the next record */
    int64_t at;                    /* bytes of whole, synced records */
    int fd;                        /* -1 = none */
    bool lost;                     /* a sync failed: what is on disk is unknown from here on */
    stm_text record;               /* kept between appends */
} stm_journal;

/** Make the journal of @p epoch. @retval MILL_ERR_BUSY  somebody else has made it. */
mill_status stm_journal_create(stm_journal *j, const stm_files *files, uint64_t epoch, uint64_t nonce, mill_error *err);
/** Write a record and sync it: on success it will be found, whatever happens. After a failed write the same may be tried again;
 *  after a failed sync every further append fails. Blocks: on the disk. */
mill_status stm_journal_append(stm_journal *j, stm_record_kind kind, const void *payload, size_t n, mill_error *err);
void stm_journal_close(stm_journal *j);

/** What a journal says. Payloads are released by stm_journal_found_fini. */
typedef struct stm_journal_found {
    uint64_t nonce, number; /* of the last record */
    void *base, *last;      /* last NULL = nothing after the base */
    size_t base_bytes, last_bytes;
    int64_t bytes;          /* up to the end of the last valid record */
} stm_journal_found;
/** Read the journal of @p epoch: its base and its last valid record, sought from the end. Nothing of the file is trusted; memory is
 *  bounded by its size.
 *  @retval MILL_ERR_NOT_FOUND  neither is there: its writer never got to work.
 *  @retval MILL_ERR_DATA       there are commits, but the base is damaged. */
mill_status stm_journal_read(const stm_files *files, uint64_t epoch, stm_journal_found *out, mill_error *err);
void stm_journal_found_fini(stm_journal_found *f);

#endif
