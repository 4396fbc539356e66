#!/usr/bin/env bash
# lint.sh [--fix] [BUILD]: clang-format over all our C and C++ (--fix: rewrite), then clang-tidy over the C sources that
# BUILD (default build/dev) compiles. Fails on any difference or finding. Version 14 of both, as Debian 12 has them.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_for "$@"

fix=0
[ "${1-}" != --fix ] || { fix=1; shift; }
build=${1:-build/dev}
mapfile -t sources < <(git ls-files '*.c' '*.h' '*.cc' '*.cpp' '*.cu')
if [ $fix = 1 ]; then
    clang-format -i "${sources[@]}"
else
    clang-format --dry-run --Werror "${sources[@]}"
fi
[ -f "$build/compile_commands.json" ] || die "no $build/compile_commands.json: build first (cmake --preset dev)"
git ls-files 'engine/*.c' 'kernels/*.c' 'models/*.c' 'steps/*.c' 'placement/*.c' 'cli/*.c' |
    xargs -P "$(jobs_here)" -n 4 clang-tidy -p "$build" --quiet 2> >(grep -vE 'warnings? generated|^Suppressed|^Use -header' >&2)
