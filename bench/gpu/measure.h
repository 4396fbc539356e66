/* What the programs of the GPU benches share. A program prints one line per figure: name, unit, and its value in each round. */
#ifndef STM_BENCH_MEASURE_H
#define STM_BENCH_MEASURE_H

#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROUNDS_MOST 64

static inline double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#define CHECK(call) check((call), #call, __LINE__)
static inline void check(int code, const char *call, int line)
{
    if (code == 0) return;
    fprintf(stderr, "line %d: %s: %s\n", line, call, cudaGetErrorString((cudaError_t)code));
    exit(1);
}

static inline void print_figure(const char *name, const char *unit, const double *values, int n)
{
    printf("%s\t%s\t", name, unit);
    for (int i = 0; i < n; i++) printf("%s%.6g", i ? " " : "", values[i]);
    printf("\n");
    fflush(stdout);
}

/* Cycles of a microsecond, at the clock that the card gives as its highest: ours and the peers' kernels spin alike. */
static inline int64_t cycles_of(double us)
{
    int khz = 0;

    CHECK(cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, 0));
    return (int64_t)(us * (khz > 0 ? khz : 1000000) / 1000);
}

static inline int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

#endif
