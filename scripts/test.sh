#!/usr/bin/env bash
# test.sh [short|full|slow]: installs what the tests need, builds and runs them. Last line: N passed, N failed, N skipped.
#   short  preset dev without the slow tests: what to run before every commit
#   full   (default) presets dev, asan, tsan, and each fuzz target, of asan's build, for 10 s: what CI runs
#   slow   full, with the tests labelled slow, among them those that do under sanitizers what CI leaves out there, and 10 minutes of each fuzz target
# Fails when any test fails, when a stage ran no test, and in CI (CI=true) when a test without the label gpu was skipped.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_for "$@"

tier=${1:-full}
deps="test" slow_tests=OFF
case $tier in
short) stages=(dev) fuzz_seconds=0 ;;
full) stages=(dev asan fuzz tsan) fuzz_seconds=10 ;;
slow) stages=(dev asan fuzz tsan) fuzz_seconds=600 deps="slow" slow_tests=ON ;;
*) die "no tier '$tier': short, full, slow" ;;
esac
jobs=$(jobs_here)
results=$ROOT/build/results
rm -rf "$results"
mkdir -p "$results"

# clock NAME CMD...: runs a stage, prints its minutes.
clock() {
    local name=$1 from=$SECONDS rc=0
    shift
    "$@" || rc=$?
    awk -v n="$name" -v s=$((SECONDS - from)) -v rc="$rc" \
        'BEGIN { printf "== %-14s %5.1f min%s\n", n, s / 60, rc ? " (failed)" : "" }' | tee -a "$results/minutes"
    return "$rc"
}

build() {
    cmake --preset "$1" -DSTEPMILL_FUZZ_SECONDS=$fuzz_seconds -DSTEPMILL_SLOW_TESTS=$slow_tests >"$results/$1.configure" || {
        tail -n 40 "$results/$1.configure"
        return 1
    }
    cmake --build --preset "$1" -j "$jobs" >"$results/$1.build" || {
        grep -E -A 12 'error|FAILED|undefined' "$results/$1.build" | head -n 120
        return 1
    }
}

# Every case of a GoogleTest program is counted, through the XML it writes; programs of other kinds count as one.
check() {
    local labels='^(slow|fuzz)$' at_once=$((jobs + 1)) # one more than processors: many a test waits for something
    [ "$tier" != slow ] || labels='^fuzz$'
    [ "$1" != fuzz ] || labels='^$' at_once=$jobs # which never wait
    mkdir -p "$results/$1"
    ctest --preset "$1" --show-only=json-v1 >"$results/$1.tests"
    GTEST_OUTPUT="xml:$results/$1/" ctest --preset "$1" -j "$at_once" --label-exclude "$labels" --no-tests=error \
        --output-junit "$results/$1.junit"
}

clock deps scripts/deps.sh $deps
clock model scripts/model.sh
bad=0
for stage in "${stages[@]}"; do
    if [ "$stage" = fuzz ] || clock "$stage build" build "$stage"; then
        clock "$stage tests" check "$stage" || bad=1
    else
        bad=1
    fi
done

printf '\n'
cat "$results/minutes"
summary=("$results")
[ -z "${CI-}" ] || summary+=(--ci)
[ $bad = 0 ] || summary+=(--failed)
"$(system_python)" scripts/summary.py "${summary[@]}"
