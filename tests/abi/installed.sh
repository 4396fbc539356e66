#!/usr/bin/env bash
# installed.sh BUILD CMAKE CC CXX LIBDIR: installs the build, moves the tree, and uses it as a stranger would: a program and
# a plugin through the CMake package, the program through pkg-config, the plugin checked and run by the installed command.
set -euo pipefail
build=$1 cmake=$2 cc=$3 cxx=$4 libdir=$5
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$build/abi
rm -rf "$work"
mkdir -p "$work"

"$cmake" --install "$build" --prefix "$work/first" >"$work/install.log"
mv "$work/first" "$work/moved dir" # nothing in it may remember where it was made; a blank is nothing special
prefix="$work/moved dir"

"$cmake" -S "$here/consumer" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" \
    -DCMAKE_CXX_COMPILER="$cxx" >"$work/configure.log" || { cat "$work/configure.log"; exit 1; }
"$cmake" --build "$work/consumer" >"$work/build.log" || { cat "$work/build.log"; exit 1; }
"$work/consumer/app"
"$work/consumer/app_cxx"

export PKG_CONFIG_PATH="$prefix/$libdir/pkgconfig"
[ "$(pkg-config --modversion stepmill)" = "$("$work/consumer/app")" ] || { echo 'versions differ'; exit 1; }
eval "$cc -std=c17 -o '$work/app_pc' '$here/consumer/app.c' $(pkg-config --cflags --libs stepmill)"
LD_LIBRARY_PATH="$prefix/$libdir" "$work/app_pc"

if [ -x "$prefix/bin/stepmill" ]; then
    "$prefix/bin/stepmill" steps check "$work/consumer/doubled.so"
    printf '{"n": 1}\n{"n": 21}\n' >"$work/in.jsonl"
    cp "$here/consumer/pipeline.yaml" "$work/"
    "$prefix/bin/stepmill" run "$work/pipeline.yaml" --run "$work/run" --quiet
    diff - "$work/run/out.jsonl" <<'OUT'
{"n":1,"extra":null,"doubled":2}
{"n":21,"extra":null,"doubled":42}
OUT
fi
