# shellcheck shell=bash
# What the scripts share. Sourced, never run.
set -euo pipefail

me=$(basename "$0")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# die STATUS MESSAGE: one line, 2 for a wrong command line.
die() {
  echo "$me: $2" >&2
  exit "$1"
}

# help: the comment at the top of the calling script is its manual.
help() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

# quietly WHAT COMMAND...: one line on stderr saying what goes on; the command's own words only if it
# fails. All of them stay on stderr, so that stdout holds results alone.
quietly() {
  local what=$1 log status=0
  shift
  log=$(mktemp)
  echo "$me: $what" >&2
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if [ "$status" -ne 0 ]; then
    cat "$log" >&2
    echo "$me: failed (exit status $status): $what" >&2
  fi
  rm -f "$log"
  return "$status"
}

# What runs programs that were just built. ThreadSanitizer of gcc 12 and clang 14 cannot place its
# memory where the kernel randomises addresses widely, so it is switched off for it (use_runner_for).
runner=()
use_runner_for() {
  if [ "$1" = tsan ] && setarch "$(uname -m)" -R true 2>/dev/null; then
    runner=(setarch "$(uname -m)" -R)
  fi
}

# build PRESET TARGET...: brings build/PRESET up to date. The test programs are run to list their tests.
build() {
  local preset=$1
  shift
  # The preset's folder is build/PRESET; cmake finds presets in the current folder only.
  cd "$root"
  quietly "configuring build/$preset" cmake --preset "$preset"
  quietly "building build/$preset" "${runner[@]}" cmake --build "build/$preset" --target "$@"
  cd - >/dev/null
}

# install_missing [--tests] [--patterns] [--google]: what scripts/setup does. On a distribution that it does not know, the build
# says what is missing.
install_missing() {
  "$root/scripts/setup" "$@" >&2 || [ $? -eq 3 ]
}

# Where the programs are: the release build, or a folder of programs that are ready.
programs=${ECHOLAB_BIN_DIR:-$root/build/release}

# need [OPTION of scripts/setup] TARGET...: makes the programs, unless they are ready.
need() {
  local setup=()
  [ -z "${ECHOLAB_BIN_DIR:-}" ] || return 0
  if [[ $1 == --* ]]; then
    setup=("$1")
    shift
  fi
  install_missing "${setup[@]}"
  build release "$@"
}

# run_harness ARGUMENTS...: in the place of the script, in the folder where the user is. The command
# that it records shall not hold the path of somebody's checkout.
run_harness() {
  exec -a harness "$programs/harness" "$@"
}

# help_with_options "PROGRAM [SUBCOMMAND]" ARGUMENTS...: if help is asked for, shows it and ends; the
# options are listed by the program, if it has been built already.
help_with_options() {
  local command argument
  read -ra command <<<"$1"
  shift
  for argument in "$@"; do
    case $argument in
      -h | --help)
        help
        if [ -x "$programs/${command[0]}" ]; then "$programs/${command[0]}" "${command[@]:1}" --help; fi
        exit
        ;;
    esac
  done
}
