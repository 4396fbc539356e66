#!/usr/bin/env bash
# installed.sh BUILD CMAKE CC CXX LIBDIR PYARROW: installs the build, moves the tree, and uses it as a stranger would: a program and
# a plugin through the CMake package, the program through pkg-config, the plugin checked and run by the installed command; then far away from
# where it was built, with Arrow (PYARROW, empty: built without) in each of the places where people have it.
set -euo pipefail
build=$1 cmake=$2 cc=$3 cxx=$4 libdir=$5 pyarrow=$6
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$build/abi
rm -rf "$work"
mkdir -p "$work"

"$cmake" --install "$build" --prefix "$work/first" >"$work/install.log"
mv "$work/first" "$work/moved dir" # nothing in it may remember where it was made; a blank is nothing special
prefix="$work/moved dir"

pages=$(find "$prefix" -name README.md -printf '%h\n')
while read -r page; do
    [ -e "$pages/$page" ] || { echo "README names $page, which is not installed"; exit 1; }
done < <(grep -oE '(docs|examples)/[A-Za-z/.-]*[a-z]' "$pages/README.md" | sort -u)

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

if [ -z "$pyarrow" ] || [ ! -x "$prefix/bin/stepmill" ]; then
    exit 0
fi
far=$(mktemp -d)
trap 'rm -rf "$far"' EXIT
mv "$prefix" "$far/moved dir"
module="$far/moved dir/$libdir/stepmill/libstepmill-parquet.so"
printf 'file(RPATH_REMOVE FILE "%s")\n' "$module" >"$far/forget.cmake" # as on a machine that has no such folder
"$cmake" -P "$far/forget.cmake"
mkdir "$far/work" "$far/empty"
cd "$far/work"
printf '{"n": 1}\n' >in.jsonl
cat >pipeline.yaml <<'YAML'
stepmill: 1
name: far
steps:
  in: {type: read_jsonl, path: in.jsonl, columns: {n: int64}}
  out: {type: write_parquet, from: in, path: out.parquet}
YAML
far_away() { # VERB VARIABLE=VALUE...: with these variables only
    local verb=$1
    shift
    code=0
    env -i PATH="$far/empty" HOME="$far/empty" "$@" "$far/moved dir/bin/stepmill" "$verb" pipeline.yaml 2>error.txt || code=$?
}
expect() { # WHERE CODE [PATTERN]: how that ended, and what it said
    if [ "$code" != "$2" ] || ! { [ -z "${3:-}" ] || grep -q "$3" error.txt; }; then
        echo "Arrow $1: exit code $code"
        cat error.txt
        exit 1
    fi
}
site=$(dirname "$pyarrow")
venv=$(cd "$site/../../.." && pwd)
far_away run
expect nowhere 65 'libarrow.so.[0-9]* is neither in a folder of .STEPMILL_ARROW_DIR, .*pip install .pyarrow=='
mkdir -p "$far/old/lib/python3.9/site-packages/pyarrow"
touch "$far/old/lib/python3.9/site-packages/pyarrow/libarrow.so.100"
far_away run VIRTUAL_ENV="$far/old"
expect 'of another version' 65 'of another version is .*/pyarrow'
far_away check VIRTUAL_ENV="$venv"
expect 'in the environment that is active' 0
far_away check PATH="$far/empty:$venv/bin"
expect 'of a python3 in PATH' 0
far_away run STEPMILL_ARROW_DIR="/nowhere:$pyarrow"
expect 'in STEPMILL_ARROW_DIR' 0 '^done'
[ -s runs/far/out.parquet ] || { echo 'nothing was written'; exit 1; }
ln -s "$pyarrow"/libarrow.so.* "$pyarrow"/libparquet.so.* "$(dirname "$module")"
far_away check
expect 'beside the module' 0
