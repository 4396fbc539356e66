/* What records say: the tables inside a vault and their form as bytes. */
#ifndef STM_STORE_VAULT_STATE_H
#define STM_STORE_VAULT_STATE_H

#include "store/vault.h"

typedef struct stm_part_state {
    char name[STM_STREAM_NAME];
    unsigned char signature[STM_SIGNATURE_BYTES];
    stm_text fields, state;
} stm_part_state;

typedef struct stm_stream_state {
    char name[STM_STREAM_NAME];
    int32_t part;
    bool complete;       /* committed */
    bool marked_complete; /* in the next commit; written by who marks, read by commit */
    stm_extent *extents; /* of older epochs, then, last, what is committed of this one */
    size_t n_extents;
    stm_segment segment; /* after begin */
    stm_extent marked;   /* goes into the next commit; with its file: whoever marks hands both to who commits */
    int marked_fd;
    bool named;          /* the segment's name is durable; commit */
} stm_stream_state;

typedef struct stm_tables {
    stm_text who;
    stm_part_state *parts;
    stm_stream_state *streams;
    size_t n_parts, n_streams;
} stm_tables;

void stm_tables_fini(stm_tables *t);
/** Whether memory ran out is in out->failed. */
void stm_tables_encode_base(const stm_tables *t, stm_text *out);
void stm_tables_encode_commit(const stm_tables *t, stm_text *out);
/** Both check everything: names, counts, sums. MILL_ERR_DATA. On failure of the first *t is empty, of the second it may be half
 *  applied. @p epoch,
 *  @p nonce: of the journal. */
mill_status stm_tables_decode_base(stm_tables *t, const void *bytes, size_t n, uint64_t epoch, mill_error *err);
mill_status stm_tables_decode_commit(stm_tables *t, const void *bytes, size_t n, uint64_t epoch, uint64_t nonce, mill_error *err);

#endif
