#include "kernels/cpu.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const names[] = {"generic", "avx2", "avx512", "avx512_bf16", "amx"};
static _Atomic int found = -1; /* relaxed: every thread that finds -1 detects the same */
static _Atomic int limit = STM_CPU_AMX;

#if defined(__x86_64__)
#include <cpuid.h>

/* Tile registers must be asked for once per process; refused when the machine's kernel is old or an alternate signal
 * stack is too small for the larger frame. */
static bool tiles_permitted(void)
{
    enum { ARCH_REQ_XCOMP_PERM_ = 0x1023, XFEATURE_TILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM_, XFEATURE_TILEDATA) == 0;
}

static int detect(void)
{
    unsigned a, b, c, d, a1, b1, c1, d1;

    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return STM_CPU_GENERIC;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl"))
        return STM_CPU_AVX2;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !__get_cpuid_count(7, 1, &a1, &b1, &c1, &d1)) return STM_CPU_AVX512;
    if ((a1 & 1u << 5) == 0) return STM_CPU_AVX512;                             /* avx512_bf16 */
    if ((d & 1u << 22) == 0 || (d & 1u << 24) == 0) return STM_CPU_AVX512_BF16; /* amx-bf16, amx-tile */
    return tiles_permitted() ? STM_CPU_AMX : STM_CPU_AVX512_BF16;
}
#else
static int detect(void) { return STM_CPU_GENERIC; }
#endif

stm_cpu_level stm_cpu(void)
{
    int level = atomic_load_explicit(&found, memory_order_relaxed);
    const int most = atomic_load_explicit(&limit, memory_order_relaxed);

    if (level < 0) {
        const char *wish = getenv("STEPMILL_CPU");
        level = detect();
        for (int i = 0; wish != NULL && i < level; i++)
            if (strcmp(wish, names[i]) == 0) level = i;
        atomic_store_explicit(&found, level, memory_order_relaxed);
    }
    return (stm_cpu_level)(level < most ? level : most);
}

void stm_cpu_limit(stm_cpu_level level) { atomic_store_explicit(&limit, (int)level, memory_order_relaxed); }

const char *stm_cpu_name(stm_cpu_level level) { return names[level]; }
