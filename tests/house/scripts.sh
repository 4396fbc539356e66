#!/usr/bin/env bash
# scripts.sh ROOT: every script of the tree parses, passes shellcheck, and says what it is for.
set -uo pipefail
cd "$1" || exit 1
mapfile -t scripts < <(ls scripts/*.sh .ci/run tests/*/*.sh bench/*.sh examples/*/*.sh 2>/dev/null)
bad=0
for s in "${scripts[@]}"; do
    bash -n "$s" || bad=1
    sed -n 2,3p "$s" | grep -q '^# ' || { echo "$s: no comment that says what it is for"; bad=1; }
done
for s in scripts/*.py; do
    PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$s" || bad=1
done
[ ${#scripts[@]} -ge 5 ] || { echo 'too few scripts found'; bad=1; }
command -v shellcheck >/dev/null || { echo 'shellcheck is not installed'; exit 1; }
shellcheck "${scripts[@]}" || bad=1
exit $bad
