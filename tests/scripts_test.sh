#!/usr/bin/env bash
# Tests of scripts/ and .ci/run. Run from the source root with ECHOLAB_BIN_DIR naming the folder of the
# built programs. Nothing is installed or built here: package managers, cmake and ctest are stood in
# for by small scripts that write down how they were called.
set -euo pipefail

source_root=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
out=$scratch/out
err=$scratch/err
calls=$scratch/calls
failures=0

fail() {
  echo "FAILED: $1"
  sed 's/^/  stdout: /' "$out"
  sed 's/^/  stderr: /' "$err"
  failures=$((failures + 1))
}

# run COMMAND...: keeps its stdout, stderr and exit status, and forgets the calls written down before.
run() {
  status=0
  : >"$calls"
  "$@" >"$out" 2>"$err" </dev/null || status=$?
}

# expect WHAT STATUS [GREP-ARGUMENTS FILE]: the exit status, and what must be found.
expect() {
  local what=$1 wanted=$2
  shift 2
  if [ "$status" -ne "$wanted" ]; then
    fail "$what: exit status $status, not $wanted"
  elif [ $# -gt 0 ] && ! grep -q "$@"; then
    fail "$what: not found: $1"
  fi
}

lines_are() {
  [ "$(wc -l <"$2")" -eq "$3" ] || fail "$1: $(wc -l <"$2") lines, not $3"
}

# stand_in NAME: a program that writes down its name and arguments, and then does what stdin says.
stand_in() {
  local file=$bin/$1
  {
    echo '#!/bin/bash'
    echo "echo \"$1 \$*\" >>'$calls'"
    cat
  } >"$file"
  chmod +x "$file"
}

# A copy of the scripts in a folder whose name has spaces, and a folder of stand-ins before PATH.
copy="$scratch/a copy"
bin=$scratch/bin
mkdir -p "$copy" "$bin"
cp -r "$source_root/scripts" "$source_root/CMakePresets.json" "$source_root/.clang-format" "$copy"
with_stand_ins() {
  env -u ECHOLAB_BIN_DIR PATH="$bin:$PATH" "$@"
}

# --- every script: help, and one line for what it does not know ---

for script in setup bench test compare format aa coordinated-omission; do
  operands=()
  if [ $script = compare ]; then operands=(a b); fi
  run scripts/$script --help
  expect "$script --help" 0 "^Usage: scripts/$script" "$out"
  cd /
  run "$source_root/scripts/$script" -h
  expect "$script -h from another folder" 0 "^Usage: scripts/$script" "$out"
  cd "$source_root"
  run scripts/$script "${operands[@]}" --no-such-option
  expect "$script --no-such-option" 2 "no-such-option" "$err"
  lines_are "$script --no-such-option" "$err" 1
  lines_are "$script --no-such-option" "$out" 0
done
run .ci/run --no-such-option
expect ".ci/run --no-such-option" 2 "no-such-option" "$err"

# --- setup: which command on which distribution ---

# os ID ID_LIKE: an os-release file for setup.
os() {
  printf 'NAME="Some Linux"\nID=%s\nID_LIKE="%s"\n' "$1" "$2" >"$scratch/os-release"
  export ECHOLAB_OS_RELEASE=$scratch/os-release
}
for query in dpkg-query rpm pacman; do stand_in $query <<<'exit 1'; done

for like in "debian|" "ubuntu|debian" "linuxmint|ubuntu debian"; do
  os "${like%|*}" "${like#*|}"
  run with_stand_ins scripts/setup --print
  expect "setup --print, $like" 0 "apt-get install .*libfmt-dev .*liburing-dev libuv1-dev" "$out"
  lines_are "setup --print, $like" "$out" 1
done
for like in "fedora|" "rocky|rhel centos fedora"; do
  os "${like%|*}" "${like#*|}"
  run with_stand_ins scripts/setup --print --ci
  expect "setup --print, $like" 0 "dnf install .*fmt-devel .*libtsan liburing-devel" "$out"
done
os arch ""
run with_stand_ins scripts/setup --print
expect "setup --print, arch" 0 "pacman -S .*nlohmann-json .*liburing libuv" "$out"
for family in "debian|libbenchmark-dev" "fedora|google-benchmark-devel" "arch|benchmark"; do
  os "${family%|*}" ""
  run with_stand_ins scripts/setup --print --google
  expect "setup --print --google, $family" 0 " ${family#*|}\b" "$out"
done
os plan9 ""
run with_stand_ins scripts/setup
expect "setup, unknown distribution" 3 "unknown here; install: .*liburing" "$err"
lines_are "setup, unknown distribution" "$err" 1

# --- setup: installing ---

os debian ""
stand_in sudo <<<'exec "$@"'
everything=(libfmt-dev libcli11-dev libboost-dev libsqlite3-dev libssl-dev libwslay-dev zlib1g-dev nlohmann-json3-dev catch2 python3-jsonschema liburing-dev libuv1-dev)
installed() {
  { for package in "$@"; do echo "echo 'installed $package'"; done; } | stand_in dpkg-query
}
# Programs that setup looks for and this machine may lack.
for program in c++ ninja pkg-config git strace python3; do stand_in $program </dev/null; done
stand_in cmake <<<'echo "cmake version 3.25.1"'

installed "${everything[@]}"
stand_in apt-get <<<'exit 1'
run with_stand_ins scripts/setup
expect "setup with nothing missing" 0
lines_are "setup with nothing missing, stdout" "$out" 0
lines_are "setup with nothing missing, stderr" "$err" 0
if grep -q apt-get "$calls"; then fail "setup with nothing missing calls apt-get"; fi
run with_stand_ins scripts/setup --print
expect "setup --print with nothing missing" 0 "^nothing to install$" "$out"

installed "${everything[@]:1}"
stand_in apt-get </dev/null
run with_stand_ins scripts/setup
expect "setup installs what is missing" 0 "^apt-get install .* libfmt-dev$" "$calls"
if grep -q "apt-get update" "$calls"; then fail "setup fetches lists that it does not need"; fi

stand_in apt-get <<<"
case \$1 in
  update) touch '$scratch/updated' ;;
  *) [ -e '$scratch/updated' ] ;;
esac"
run with_stand_ins scripts/setup
expect "setup fetches the lists when an installation fails" 0 "^apt-get update$" "$calls"
rm "$scratch/updated"

stand_in apt-get <<<'echo "no such thing"; exit 100'
run with_stand_ins scripts/setup
expect "setup says why it cannot install" 1 "no such thing" "$err"
expect "setup says what it cannot install" 1 "cannot install libfmt-dev" "$err"
[ "$(grep -c "apt-get update" "$calls")" -eq 1 ] || fail "setup fetches the lists more than once"

installed "${everything[@]:0:10}"
run with_stand_ins scripts/setup
expect "setup goes on without liburing" 0 "no liburing-dev: what needs it is left out" "$err"
expect "setup goes on without libuv" 0 "no libuv1-dev: what needs it is left out" "$err"
[ "$(grep -c "apt-get update" "$calls")" -eq 1 ] || fail "setup fetches the lists for each package"

installed "${everything[@]}"
stand_in cmake <<<'echo "cmake version 3.18.4"'
run with_stand_ins scripts/setup
expect "setup wants a newer cmake" 1 "cmake 3.22 or newer is needed, this is 3.18.4" "$err"
unset ECHOLAB_OS_RELEASE
rm "$bin"/*

# --- bench, compare and test: building, passing arguments on ---

printf '#!/bin/bash\n' >"$copy/scripts/setup"
# Stands in for cmake --preset NAME and cmake --build build/NAME.
# shellcheck disable=SC2016  # for the stand-in to expand
stand_in cmake <<<'
echo "chatter of cmake"
[ "$1" = --build ] || exit 0
mkdir -p "$2"
printf "#!/bin/bash\nprintf \"<%%s>\" \"\$0\" \"\$PWD\" \"\$@\"\nexit 7\n" >"$2/harness"
chmod +x "$2/harness"'
cd "$scratch"
run with_stand_ins "$copy/scripts/bench" --filter 'a b' -o "some where"
expect "bench passes arguments, folder and exit status on" 7 \
  -F "<$scratch><bench><--filter><a b><-o><some where>" "$out"
expect "bench keeps chatter from stdout" 7 -v "chatter" "$out"
expect "bench builds the release preset" 7 "^cmake --preset release$" "$calls"
expect "bench builds what it runs" 7 "^cmake --build build/release --target harness echo-server raw-controls$" "$calls"
run with_stand_ins "$copy/scripts/compare" "a b" c --fail-on 5%
expect "compare passes arguments on" 7 -F "<compare><a b><c><--fail-on><5%>" "$out"
run "$copy/scripts/google-benchmark" --help
expect "google-benchmark --help" 0 "^Usage: scripts/google-benchmark" "$out"
cp "$copy/build/release/harness" "$copy/build/release/echolab-benchmark"
run with_stand_ins "$copy/scripts/google-benchmark" --benchmark_filter='a b'
expect "google-benchmark passes arguments on" 7 -F "<$scratch><--benchmark_filter=a b>" "$out"
expect "google-benchmark builds what it runs" 7 \
  "^cmake --build build/release --target echolab-benchmark echo-server raw-controls$" "$calls"

run with_stand_ins "$copy/scripts/report" "a b"
expect "report passes arguments on" 7 -F "<report><a b>" "$out"

# shellcheck disable=SC2016
stand_in ctest <<<'echo "100% tests passed"; exit 8'
run with_stand_ins "$copy/scripts/test" --preset debug
expect "test passes the exit status on" 8 "^100% tests passed$" "$out"
expect "test builds everything" 8 "^cmake --build build/debug --target all$" "$calls"
expect "test runs the tests of its preset" 8 -F "ctest --test-dir $copy/build/debug -j $((2 * $(nproc))) --output-on-failure" "$calls"

stand_in cmake <<<'echo "what went wrong"; exit 9'
run with_stand_ins "$copy/scripts/bench"
expect "a build that fails ends the script" 9 "what went wrong" "$err"
run with_stand_ins "$copy/scripts/test"
expect "a build that fails ends the tests" 9 "what went wrong" "$err"
stand_in cmake <<<'echo "cmake ran" >&2; exit 9'
printf '#!/bin/bash\nexit 3\n' >"$copy/scripts/setup"
run with_stand_ins "$copy/scripts/bench"
expect "an unknown distribution may have everything all the same" 9 "cmake ran" "$err"
printf '#!/bin/bash\nexit 1\n' >"$copy/scripts/setup"
run with_stand_ins "$copy/scripts/bench"
expect "bench ends with a set-up that failed" 1
[ ! -s "$calls" ] || fail "bench goes on after a set-up that failed"
cd "$source_root"
run scripts/test --preset no-such-preset
expect "test with an unknown preset" 2 "no preset 'no-such-preset'" "$err"
run scripts/test --preset
expect "test without a preset's name" 2 "needs a name" "$err"

# --- format ---

if command -v clang-format >/dev/null; then
  printf 'int  main( ) {\n return 0 ; }\n' >"$copy/ugly file.cpp"
  run "$copy/scripts/format" --check
  [ "$status" -ne 0 ] || fail "format --check finds nothing"
  grep -q "ugly file.cpp" "$err" || fail "format --check does not name the file"
  run "$copy/scripts/format"
  expect "format" 0
  run "$copy/scripts/format" --check
  expect "format --check after format" 0
else
  echo "format was not tested: no clang-format here"
fi

# --- with the real programs ---

if [ -z "${ECHOLAB_BIN_DIR:-}" ]; then
  fail "ECHOLAB_BIN_DIR is not set"
else
  cd "$scratch"
  run "$source_root/scripts/bench" --dry-run --quick
  expect "bench --dry-run" 0 "epoll" "$out"
  [ ! -e results ] || fail "bench --dry-run leaves results"
  run "$source_root/scripts/compare" no-such-run neither
  [ "$status" -ne 0 ] || fail "compare accepts folders that are not there"
  lines_are "compare with folders that are not there" "$err" 1
  cd "$source_root"
fi

if [ $failures -gt 0 ]; then
  echo "$failures failed"
  exit 1
fi
echo "all passed"
