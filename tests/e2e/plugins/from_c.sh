#!/usr/bin/env bash
# from_c.sh LARGE_NUMBERS WORK: the program of docs/from-c.md does what the page says.
set -euo pipefail
program=$1 work=$2
rm -rf "$work"
mkdir -p "$work"
cd "$work"
fail() { echo "$1"; cat out.txt err.txt; exit 1; }
seq 1 100 | sed 's/.*/{"n": &}/' >numbers.jsonl
echo '{"n": "many"}' >>numbers.jsonl
{ seq 11 100 | sed 's/.*/{"n":&,"extra":null}/' && echo '{"n":null,"extra":null}'; } >wanted.jsonl # a row that failed is not lost

"$program" numbers.jsonl run >out.txt 2>err.txt || fail 'one row may fail'
diff run/large.jsonl wanted.jsonl
grep -q '^failed: numbers:100 to numbers:100: .*numbers.jsonl:101' out.txt || fail 'the row that failed is not named'
grep -q '^done: 101 rows in, 91 rows out$' out.txt || fail 'no totals'
[ -s run/report.html ] || fail 'no report'
"$program" numbers.jsonl run >out.txt 2>err.txt || fail 'again'
grep -q '^complete already: 101 rows in, 91 rows out$' out.txt || fail 'it was complete'

mkdir others && touch others/thesis.txt
if "$program" numbers.jsonl others >out.txt 2>err.txt; then fail 'a folder of others is taken'; fi
grep -q 'others is not the directory of a run, and not empty: it holds thesis.txt' err.txt || fail 'it does not say why'
[ "$(ls -A others)" = thesis.txt ] || fail 'something was written there'
code=0
"$program" nowhere.jsonl run2 >out.txt 2>err.txt || code=$?
[ "$code" = 65 ] || fail "no input: $code"
[ ! -e run2 ] || fail 'there is no run, but its directory'
