#!/usr/bin/env bash
# Long tests by hand. `scripts/soak.sh kills N` ends a pipeline N times by SIGKILL at random moments and compares what comes of it.
# Builds the preset `dev` first; output in build/dev/soak/.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    echo "usage: scripts/soak.sh kills N [SEED]" >&2
    exit 64
}

case "${1:-}" in
kills)
    [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || usage
    cmake --preset dev >/dev/null
    cmake --build --preset dev --target stepmill_cli kill_at e2e_steps >/dev/null
    exec python3 tests/e2e/durable/kills.py build/dev/bin/stepmill "$PWD/build/dev/lib/kill_at.so" "$PWD/build/dev/lib/e2e_steps.so" build/dev/soak "$2" "${3:-1}"
    ;;
*) usage ;;
esac
