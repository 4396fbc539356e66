# shellcheck shell=bash
# lib.sh: what the scripts share. Source it; it changes to the repository's root.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
export STEPMILL_DEPS=${STEPMILL_DEPS:-$ROOT/.deps}
export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS:-pch_defines,time_macros} # so that what includes compiled headers is cached, too
# shellcheck disable=SC2034 # used by those who source this
MODEL_LINK=models-cache/all-MiniLM-L6-v2

say() { printf '== %s\n' "$*" >&2; }
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}
# help_for "$@": where the first argument asks for help, what stands at the top of the script.
help_for() {
    case ${1-} in -h | --help) ;; *) return 0 ;; esac
    sed -n '2,/^[^#]/ { /^#/! d; s/^# \{0,1\}//; p; }' "$ROOT/scripts/$(basename "$0")"
    exit 0
}
# Processors this process may use: what -j and ctest take.
jobs_here() { nproc; }
# Debian's own Python: the one that python3-venv belongs to, whatever else is first on PATH.
system_python() {
    if [ -x /usr/bin/python3 ]; then echo /usr/bin/python3; else command -v python3 || die 'no python3: run scripts/deps.sh core'; fi
}
# as_root CMD...: run as root, through sudo where we are not root.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root or sudo for: $*"
    fi
}
