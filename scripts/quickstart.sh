#!/usr/bin/env bash
# quickstart.sh: from a bare Debian 12 to a result: installs what is needed, builds, fetches the model, makes the corpus,
# finds near-duplicates among 2,000 package descriptions, and shows ten groups for you to judge.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_for "$@"
[ $# = 0 ] || die "takes no arguments, got '$1'"

scripts/deps.sh core
say 'building (build/release), some minutes'
build() {
    cmake --preset release && cmake --build --preset release -j "$(jobs_here)"
}
mkdir -p build
if ! build >build/quickstart.log 2>&1; then
    tail -n 40 build/quickstart.log >&2
    die 'the build failed; build/quickstart.log has it all'
fi
scripts/model.sh
scripts/corpus.sh
say 'running examples/near-duplicates.yaml'
build/release/bin/stepmill run examples/near-duplicates.yaml --run runs/quickstart --fresh
"$(system_python)" scripts/show_groups.py runs/quickstart
