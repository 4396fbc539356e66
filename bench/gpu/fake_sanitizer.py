#!/usr/bin/env python3
"""Stands in for compute-sanitizer where there is none (gpu.sh --dry): runs the program, and writes a report as the real one words
it. The program of the seeded mistakes is reported as wrong, all others as clean; FAKE_SANITIZER_ERRORS=TOOL makes that tool find
something everywhere."""
import os
import subprocess
import sys

FOUND = {
    "memcheck": "Invalid __global__ write of size 4 bytes\n=========     at stm_bench_overrun_kernel(float *, int)+0x90 in spin.cu:60\n"
                "=========     by thread (0,0,0) in block (0,0,0)\n=========     Address 0x7f0000000300 is out of bounds",
    "racecheck": "Error: Race reported between Write access at stm_bench_race_kernel(float *)+0x50 in spin.cu:65\n"
                 "=========     and Read access at stm_bench_race_kernel(float *)+0xa0 in spin.cu:66 [252 hazards]",
    "synccheck": "Barrier error detected. Divergent thread(s) in warp\n=========     at stm_bench_divergent_kernel(float *)+0x30 in spin.cu:71",
    "initcheck": "Uninitialized __global__ memory read of size 4 bytes\n=========     at stm_bench_unwritten_kernel(const float *, float *)",
}


def main():
    words, tool = sys.argv[1:], "memcheck"
    while words and words[0].startswith("--"):
        if words[0] == "--tool":
            tool = words[1]
        words = words[2:]
    print("========= COMPUTE-SANITIZER")
    mistake = "mistake" in os.path.basename(words[0])
    code = 0 if mistake else subprocess.run(words, check=False).returncode
    errors = int(mistake or os.environ.get("FAKE_SANITIZER_ERRORS") == tool)
    if errors:
        print("=========", FOUND[tool])
    if tool == "racecheck":
        print(f"========= RACECHECK SUMMARY: {errors} hazard{'' if errors == 1 else 's'} displayed ({errors} error{'' if errors == 1 else 's'}, 0 warnings)")
    else:
        print(f"========= ERROR SUMMARY: {errors} error{'' if errors == 1 else 's'}")
    return 99 if errors else code


sys.exit(main())
