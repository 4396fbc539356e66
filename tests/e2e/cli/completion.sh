#!/usr/bin/env bash
# completion.sh FILE: what bash offers, by the completion in FILE, behind some beginnings of a command line.
set -euo pipefail
file=$(realpath "$1")
bash -n "$file"
# shellcheck source=/dev/null
source "$file"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir 'a run' other
touch p.yaml data.txt
failed=0
offers() { # WANTED WORD...: the last word is being typed
    local want=$1
    shift
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    COMPREPLY=()
    _stepmill
    local got
    got=$(printf '%s\n' "${COMPREPLY[@]}" | sort | paste -sd,)
    [ "$got" = "$want" ] || { echo "$*: offers $got, not $want" && failed=1; }
}
offers 'report,resume,retry,run' stepmill r
offers 'report,resume,retry,run' stepmill help r
offers '--placement' stepmill run p.yaml --pl
offers 'auto,explicit,external' stepmill run p.yaml --placement ''
offers 'data,device,permanent,transient' stepmill errors 'a run' --class ''
offers '' stepmill run p.yaml --limit ''
offers 'a run,other,p.yaml' stepmill run ''
offers 'a run,other' stepmill status ''
offers 'a run' stepmill run p.yaml --run a
offers 'data.txt' stepmill plan p.yaml --devices d
offers 'check,describe,list' stepmill steps ''
offers 'p.yaml' stepmill steps check p
exit $failed
