#!/usr/bin/env bash
# What `harness compare --json` prints is valid by its schema, of every stored run. Run from the source
# root with ECHOLAB_BIN_DIR naming the folder of the built programs.
set -euo pipefail

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
data=tests/data/compare

for b in tests/data/run-a.json tests/data/run-b.json $data/{before,after,gaps,quick,empty}.json; do
  for limit in "" --fail-on=5%; do
    # shellcheck disable=SC2086  # no limit is no argument
    "$ECHOLAB_BIN_DIR/harness" compare $data/before.json "$b" --json $limit >"$scratch/${b##*/}$limit" || [ $? -eq 1 ]
  done
done
python3 tests/validate_schema.py results/compare.schema.json "$scratch"/*
python3 tests/validate_schema.py results/run.schema.json tests/data/run-?.json \
  $data/{before,after,gaps,quick,empty}.json
