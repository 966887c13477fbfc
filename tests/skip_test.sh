#!/usr/bin/env bash
# A skipped test is shown as skipped, a failed one as failed, whatever it prints: the tests of
# skip_example as ctest judges them by the properties that all tests of this build have. Run from the
# source root with ECHOLAB_BIN_DIR naming the folder of the built programs.
set -euo pipefail

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
program=$ECHOLAB_BIN_DIR/skip_example

# How the build tells ctest what a skip is; every test must have the same.
property=$(grep -rhoE 'SKIP_[A-Z_]+"? "?[^ ")]*' "$ECHOLAB_BIN_DIR/tests" --include='*_tests-*.cmake' \
  --include=CTestTestfile.cmake | tr -d '"' | sort -u)
if [ "$property" != "SKIP_RETURN_CODE 77" ]; then
  echo "FAILED: ctest is told '$property'"
  exit 1
fi

names=("passes" "skips" "fails" "fails and skips" "fails and only prints the words"
  "fails as often as the status of a skip" "throws")
expected=("Passed" "Skipped" "Failed" "Failed" "Failed" "Failed" "Failed")
for name in "${names[@]}"; do
  echo "add_test(\"$name\" \"$program\" \"$name\")"
  echo "set_tests_properties(\"$name\" PROPERTIES $property)"
done >"$scratch/CTestTestfile.cmake"
ctest --test-dir "$scratch" >"$scratch/out" || true
for i in "${!names[@]}"; do
  if ! grep -qE ": ${names[i]} \.*[* ]*${expected[i]}" "$scratch/out"; then
    echo "FAILED: '${names[i]}' is not ${expected[i]}"
    cat "$scratch/out"
    exit 1
  fi
done

# Printing the words is not enough: a test that did only that would count as passed.
if grep -rn 'SKIPPED: ' tests --include='*.cpp' | grep -v '^tests/skip_example.cpp:'; then
  echo "FAILED: these say that they are skipped, but do not call skip() of tests/skip.hpp"
  exit 1
fi
echo "all passed"
