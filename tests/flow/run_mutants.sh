#!/usr/bin/env bash
# run_mutants.sh [SOURCE_DIR [BUILD_DIR]]: puts each fault of mutants/*.patch into a copy of engine/flow, builds the flow's tests,
# and checks that the test which the patch names (first line) finds it. Prints killed or ALIVE for each; fails when one lives.
# run_mutants.sh --check [SOURCE_DIR]: only whether each patch applies, changes something and names a test that there is, and whether
# the sources it is built with are complete.
set -euo pipefail
parts=(core device memory batch flow) # of engine/, and of these not what the flow has no business with: exchange formats, checksums (zlib), CUDA
without=('batch/ipc_*.c' 'batch/json*.c' 'batch/arrow*.c' 'device/cuda*.c' 'core/crc32.c')
take() { # take SOURCE_DIR WORK_DIR
    mkdir -p "$2/engine"
    cp -r "${parts[@]/#/$1/engine/}" "$2/engine/"
    local pattern
    for pattern in "${without[@]}"; do compgen -G "$2/engine/$pattern" | xargs -r rm; done
}
if [ "${1:-}" = --check ]; then
    src=$(cd "${2:-$(dirname "$0")/../..}" && pwd)
    bad=0 n=0
    for patch in "$src"/tests/flow/mutants/*.patch; do
        name=$(basename "$patch" .patch) test=$(sed -n '1s/^test: //p' "$patch")
        n=$((n + 1))
        patch -s -p1 --dry-run -d "$src" <"$patch" || { echo "$name does not apply"; bad=1; }
        grep -qE '^[+-]([^+-]|$)' "$patch" || { echo "$name changes nothing"; bad=1; }
        grep -qE "^TEST(_F)?\(${test%.*}, ${test#*.}\)" "$src"/tests/flow/*.cc || { echo "$name: there is no test $test"; bad=1; }
    done
    work=$(mktemp -d "${TMPDIR:-/tmp}/mutants.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    take "$src" "$work" # what is built for them must be whole: every name it uses is in it
    "${CC:-cc}" -std=gnu17 -O0 -w -fPIC -shared -Wl,-z,defs -D_GNU_SOURCE -I"$src/include" -I"$work" -I"$work/engine" "$work"/engine/*/*.c -o "$work/whole.so" \
        -lpthread -lm -ldl || { echo 'run_mutants.sh: parts lacks something'; bad=1; }
    echo "$n mutants looked at"
    [ "$n" -ge 12 ] && [ "$bad" -eq 0 ]
    exit
fi
src=$(cd "${1:-$(dirname "$0")/../..}" && pwd)
work=$(mktemp -d "${2:-${TMPDIR:-/tmp}}/mutants.XXXXXX")
trap 'rm -rf "$work"' EXIT
cc=${CC:-cc} cxx=${CXX:-c++}
jobs=2
flags=(-O1 -D_GNU_SOURCE -w -I"$src/include" -I"$work" -I"$work/engine" -I"$src" -I"$src/tests")
start=$SECONDS

mkdir -p "$work/obj" "$work/test"
take "$src" "$work"

compile() { # compile SOURCE OBJECT
    case $1 in
    *.c) "$cc" -std=gnu17 "${flags[@]}" -c "$1" -o "$2" ;;
    *) "$cxx" -std=gnu++17 "${flags[@]}" -c "$1" -o "$2" ;;
    esac
}
in_parallel() { # in_parallel SOURCE...: objects in $work/obj
    local pids=() f
    for f in "$@"; do
        while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
        compile "$f" "$work/obj/$(echo "${f#"$work"/}" | tr / _).o" & pids+=($!)
    done
    for f in "${pids[@]}"; do wait "$f"; done
}
in_parallel "$work"/engine/*/*.c "$src"/tests/flow/*.cc "$src"/tests/support/fail_nth.cc

link() { "$cxx" "$work"/obj/*.o -o "$work/tests" -lgtest -lgtest_main -lpthread -lm; }
run() { # run TEST: its exit status; a test that hangs has failed
    STM_FLOW_SHORT=1 STM_FLOW_GRAPHS=600 timeout 20 "$work/tests" --gtest_filter="$1" >"$work/out" 2>&1
}

link
while read -r test; do
    run "$test" || { echo "$test fails without any fault:"; cat "$work/out"; exit 1; }
    grep -q '\[  PASSED  \] 1 test' "$work/out" || { echo "there is no test $test"; exit 1; }
done < <(sed -n 's/^test: //p' "$src"/tests/flow/mutants/*.patch | sort -u)

alive=0 n=0
for patch in "$src"/tests/flow/mutants/*.patch; do
    name=$(basename "$patch" .patch) test=$(sed -n '1s/^test: //p' "$patch")
    file=$(sed -n 's/^+++ b\///p' "$patch")
    object=$work/obj/$(echo "$file" | tr / _).o
    cp "$work/$file" "$work/saved.c" && cp "$object" "$work/saved.o"
    patch -s -p1 -d "$work" <"$patch" || { echo "$name does not apply"; exit 1; }
    compile "$work/$file" "$object"
    link
    n=$((n + 1))
    if run "$test"; then
        echo "ALIVE   $name ($test)"
        alive=$((alive + 1))
    else
        echo "killed  $name ($test)"
    fi
    cp "$work/saved.c" "$work/$file" && cp "$work/saved.o" "$object"
done
echo "$n mutants, $((n - alive)) killed, $alive alive, $((SECONDS - start)) s"
[ "$n" -ge 12 ] && [ "$alive" -eq 0 ]
