#!/usr/bin/env bash
# A tiny run of pattern-bench, and one that is interrupted: what they write is valid and says what it
# is. Run from the source root with ECHOLAB_BIN_DIR naming the folder of the built programs.
set -euo pipefail

bin=$ECHOLAB_BIN_DIR
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
  echo "FAILED: $1"
  cat "$scratch"/*.err
  exit 1
}

# field FOLDER EXPRESSION: of the run's JSON, as python3 prints it.
field() {
  python3 -c "import json, sys; run = json.load(open(sys.argv[1])); print($2)" "$1/patterns.json"
}

valid() {
  python3 tests/validate_schema.py results/patterns.schema.json "$1/patterns.json" || fail "schema"
}

parts=fanout,idle
if PATH=$PATH:/usr/sbin command -v nginx wrk >/dev/null; then parts=plaintext,$parts; fi
"$bin/pattern-bench" --quick --backends threads,epoll --parts $parts --subscribers 20 --idle 20 \
  --connections 4 --wrk-rounds 1 --fanout-rounds 3 -o "$scratch/whole" \
  >"$scratch/table" 2>"$scratch/whole.err" || fail "exit status $?"
valid "$scratch/whole"
cmp -s "$scratch/table" "$scratch/whole/table.md" || fail "stdout is not table.md"
[ "$(field "$scratch/whole" 'run["partial"]')" = False ] || fail "not whole"
wanted='[3, 3, 3, 3, 3, 3]'
[ "$(field "$scratch/whole" '[len(row["slices"]) for cell in run["fanout"] for row in cell["rows"]]')" \
  = "$wanted" ] || fail "fan-out: not $wanted slices"
[ "$(field "$scratch/whole" 'len(run["idle"])')" = 6 ] || fail "not 2 backends x 3 kinds that wait"
if [ "$parts" != fanout,idle ]; then
  [ "$(field "$scratch/whole" 'min(row["slices"][0]["requests"] for cell in run["plaintext"] for row in cell["rows"]) > 0')" \
    = True ] || fail "plaintext: no requests"
fi

# A folder that holds results is not written to again.
status=0
"$bin/pattern-bench" --quick -o "$scratch/whole" >/dev/null 2>"$scratch/again.err" || status=$?
[ $status -eq 2 ] || fail "a second run in the folder: exit status $status, not 2"

# Ctrl-C, as soon as the folder is there: more rounds than anyone could wait for.
mkdir "$scratch/cut"
"$bin/pattern-bench" --backends epoll --parts fanout --subscribers 5 --fanout-rounds 1000000 \
  -o "$scratch/cut" >"$scratch/cut.out" 2>"$scratch/cut.err" &
pid=$!
until grep -q 'fan-out by sse' "$scratch/cut.err"; do
  kill -0 $pid 2>/dev/null || fail "it ended by itself"
  sleep 0.05
done
kill -TERM $pid
status=0
wait $pid || status=$?
[ $status -eq 130 ] || fail "interrupted: exit status $status, not 130"
valid "$scratch/cut"
[ "$(field "$scratch/cut" 'run["partial"]')" = True ] || fail "not marked partial"
grep -q '^Interrupted' "$scratch/cut/table.md" || fail "the table does not say so"
