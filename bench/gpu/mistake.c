/* bench_gpu_mistake TOOL: one mistake that this tool of compute-sanitizer must report; a clean report of the tests means something
 * only then. */
#include "bench/gpu/measure.h"
#include "bench/gpu/spin.h"

int main(int argc, char **argv)
{
    float *data, *out;

    CHECK(cudaMalloc((void **)&data, 64 * sizeof *data));
    CHECK(cudaMalloc((void **)&out, 64 * sizeof *out));
    if (argc < 2 || stm_bench_mistake(argv[1], data, out, NULL) < 0) {
        fprintf(stderr, "usage: %s memcheck|racecheck|synccheck|initcheck\n", argv[0]);
        return 64;
    }
    return cudaDeviceSynchronize() == cudaSuccess ? 0 : 1;
}
