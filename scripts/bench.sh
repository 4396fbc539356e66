#!/usr/bin/env bash
# bench.sh NAME [OPTION...]: installs the peers, builds and installs stepmill (build/bench), runs bench/NAME/run.py, which
# times stepmill and its peers in turn, prints a table and writes bench/out/NAME.json. Options go to run.py.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_for "$@"

name=${1-}
if [ -z "$name" ] || [ ! -f "bench/$name/run.py" ]; then
    die "usage: bench.sh NAME [OPTION...]; there is: $(find bench -mindepth 2 -maxdepth 2 -name run.py -printf '%P ' 2>/dev/null | sed 's|/run.py||g')"
fi
shift
[ -n "${STEPMILL_BENCH_NO_DEPS-}" ] || scripts/deps.sh bench
scripts/model.sh
scripts/corpus.sh
say 'building (build/bench)'
cmake --preset bench >/dev/null
cmake --build --preset bench -j "$(jobs_here)" >/dev/null
cmake --install build/bench --prefix build/bench/installed >/dev/null
mkdir -p bench/out
.venv/bin/python "bench/$name/run.py" --stepmill build/bench/installed --build build/bench --out "bench/out/$name.json" "$@"
