#!/usr/bin/env bash
# corpus.sh: makes the corpus of the examples: English descriptions of Debian's packages, as JSON lines in data/
# (debian.jsonl with all of them, some 60,000; debian-2000.jsonl with a fixed sample). The index comes from the package
# mirror this machine is set up with, into a directory of our own: the machine's apt state stays as it is. No root needed.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_for "$@"

if [ -e data/debian.jsonl ] && [ -e data/debian-2000.jsonl ] && [ "${1-}" != --fresh ]; then exit 0; fi
say 'corpus: English descriptions of Debian packages into data/'
apt=$ROOT/data/.apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
# Languages may be off, as in containers. A source that does not answer is a warning: corpus.py counts what came.
apt-get update -qq -o Acquire::Languages=en -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" \
    -o APT::Sandbox::User="$(id -un)"
"$(system_python)" scripts/corpus.py "$apt/lists" data
rm -rf "$apt"
