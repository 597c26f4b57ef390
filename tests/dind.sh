#!/bin/bash
# Runs the bats files on the engine, LANES (2) at a time, the longest first. Each has an
# instance of its own (see bats/setup_suite.bash) and prints when it has ended.
#   tests/dind.sh [REGEX]: only tests whose names match
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

export BATS_TEST_TIMEOUT=${BATS_TEST_TIMEOUT:-180}
export FILTER=${1:-} PRINTING
PRINTING=$(mktemp)
trap 'rm -f "$PRINTING"' EXIT

# What the files have in common is made once, and not by two at the same time.
scripts/engine.ts start || exit
HAL9000_IMAGE_REPO=${HAL9000_TEST_IMAGES:-hal9000-test} scripts/build-images.ts || exit

run_file() { # run_file FILE
  local bats=(node_modules/bats/bin/bats --tap --timing --filter "$FILTER") output status
  [ "$("${bats[@]}" --count "$1")" -gt 0 ] || return 0
  output=$("${bats[@]}" "$1" 2>&1)
  status=$?
  { flock 9; printf '# %s\n%s\n' "$1" "$output"; } 9>"$PRINTING"
  return "$status"
}
export -f run_file

find tests/bats -name '*.bats' -printf '%s %p\n' | sort -rn | cut -d ' ' -f 2 |
  xargs -P "${LANES:-2}" -I {} bash -c 'run_file {}'
