#!/usr/bin/env bash
# lock.sh: makes scripts/requirements/*.txt anew from the *.in beside them: every package at one version, with the
# hashes of its files. For maintainers; needs network and scripts/deps.sh core. Look at the diff before committing it.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"$(system_python)" -m venv "$tmp/env"
"$tmp/env/bin/pip" install -q uv
for in in scripts/requirements/*.in; do
    out=${in%.in}.txt
    nodeps=()
    case $(basename "$in") in core.in | cuda.in | test.in | model.in) nodeps=(--no-deps) ;; esac # leaves: what they import is listed
    head -n 1 "$out" >"$tmp/out"
    "$tmp/env/bin/uv" pip compile -q --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
        --no-header --no-annotate "${nodeps[@]}" "$in" >>"$tmp/out"
    cp "$tmp/out" "$out"
done
