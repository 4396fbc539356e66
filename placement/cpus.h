/* A set of processors by the numbers the operating system gives them. A value: copied, no memory of its own. */
#ifndef STM_PLACEMENT_CPUS_H
#define STM_PLACEMENT_CPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STM_CPUS_MAX = 4096 }; /* processors with higher numbers are not seen */

/** {0} is the empty set. */
typedef struct stm_cpus {
    uint64_t bits[STM_CPUS_MAX / 64];
} stm_cpus;

void stm_cpus_add(stm_cpus *s, int32_t cpu); /* numbers out of range are left out */
bool stm_cpus_has(const stm_cpus *s, int32_t cpu);
int32_t stm_cpus_count(const stm_cpus *s);
/** The lowest member above @p after (-1 = the first); -1 = none. */
int32_t stm_cpus_next(const stm_cpus *s, int32_t after);
stm_cpus stm_cpus_and(const stm_cpus *a, const stm_cpus *b);
void stm_cpus_join(stm_cpus *s, const stm_cpus *other);
bool stm_cpus_equal(const stm_cpus *a, const stm_cpus *b);
/** "0-3,8,10-11", as Linux writes lists; white space around numbers is skipped. False when malformed or out of range. */
bool stm_cpus_parse(const char *text, stm_cpus *out);
/** The same form into buf, cut with "..." where it does not fit; "none" for the empty set. Returns buf. */
char *stm_cpus_show(const stm_cpus *s, char *buf, size_t size);

#endif
