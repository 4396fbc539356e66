/*
 * Signatures: what the results of a component depend on, as named fields; and which of them changed.
 *
 * A field is a name for people ("step embed: threshold") and a value: short values stand as they are, files as a digest of
 * their identity. The digest of all fields is what is compared; the fields are kept to say what changed.
 */
#ifndef STM_STORE_SIGNATURE_H
#define STM_STORE_SIGNATURE_H

#include "store/vault.h"

#define STM_WHOLE_FILE_BYTES ((int64_t)16 << 20) /* up to here a file's identity is all of its contents */

#define STM_EACH_TIME "false, at " /* a value that opens with this is never the same twice, which is no change of anything */
/* fields whose names open with this are about one result each; others are about a step, "step NAME: ", or all */
#define STM_CONNECTIONS "how steps are connected"

typedef struct stm_signature {
    stm_text fields; /* name NUL value NUL, in order of adding; failed: memory ran out */
} stm_signature;

void stm_signature_add(stm_signature *s, const char *name, const char *value);
/** The identity of a file, or of the files in a folder, as one field: of small files the contents; of larger ones the size, the
 *  time of the last change and 64 samples. What is not there is a value, too. Blocks: reads. */
void stm_signature_add_file(stm_signature *s, const char *name, const char *path);
void stm_signature_digest(const stm_signature *s, unsigned char out[STM_SIGNATURE_BYTES]);
/** "step out: path was a.jsonl, is b.jsonl; model models/x changed; ..." of two lists of fields, at most @p max of them; how many
 *  differ. Nothing of
 *  @p before is trusted. */
int stm_signature_changes(const void *before, size_t n_before, const void *after, size_t n_after, int max, stm_text *out);
/** Value of the field @p name; NULL = there is none. Nothing of @p fields is trusted. */
const char *stm_signature_value(const void *fields, size_t n, const char *name);
/** Whether two lists of fields differ in nothing but what is never the same twice. */
bool stm_signature_same_but_times(const void *before, size_t n_before, const void *after, size_t n_after);
/** Whether @p before says the same of everything that @p fields are about. Nothing of @p before is trusted. */
bool stm_signature_holds(const void *before, size_t n_before, const void *fields, size_t n);
/** Whether steps are connected as before, all of them. Nothing of @p before is trusted. */
bool stm_signature_same_connections(const void *before, size_t n_before, const void *after, size_t n_after);
void stm_signature_fini(stm_signature *s);

#endif
