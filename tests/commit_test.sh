#!/usr/bin/env bash
# Tests of harness/commit.cmake: what the harness records as the commit that it was built from.
set -euo pipefail

script=$PWD/harness/commit.cmake
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Settings of the user must not matter, and git must not look above the scratch folder.
export HOME=$scratch GIT_CONFIG_NOSYSTEM=1 GIT_CEILING_DIRECTORIES=$scratch
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
unset GIT_DIR GIT_WORK_TREE

tree=$scratch/tree
header=$scratch/out/commit.hpp
mkdir "$tree"

# expect WHAT COMMIT DIRTY [FOLDER]
expect() {
  cmake -D SOURCE="${4:-$tree}" -D OUTPUT="$header" -P "$script"
  if ! grep -q "kCommit = \"$2\";" "$header" || ! grep -q "kDirty = $3;" "$header"; then
    echo "FAILED: $1"
    cat "$header"
    exit 1
  fi
}

expect "outside git" unknown std::nullopt
git -C "$tree" init --quiet
expect "before the first commit" unknown std::nullopt
echo 1 >"$tree/file"
mkdir "$tree/folder"
echo 1 >"$tree/folder/file"
git -C "$tree" add .
git -C "$tree" commit --quiet --message first
commit=$(git -C "$tree" rev-parse HEAD)
expect "committed" "$commit" false
before=$(stat -c %y "$header")
expect "committed, again" "$commit" false
[ "$before" = "$(stat -c %y "$header")" ] || { echo "FAILED: written although unchanged" && exit 1; }
echo 1 >"$tree/untracked"
expect "an untracked file" "$commit" false
echo 2 >"$tree/file"
expect "a changed file" "$commit" true
expect "a folder of somebody else's repository" unknown std::nullopt "$tree/folder"
echo "all passed"
