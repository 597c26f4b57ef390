#!/bin/bash
# Runs the bats files on the engine, LANES at a time, the longest first. Each file has its
# own instance (see bats/setup_suite.bash), and its output is printed when it has ended.
#   tests/dind.sh [REGEX [FILE...]]: only tests whose names match, only these files; with
#   SOAK only those tagged soak
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

repo=$PWD
# shellcheck source=tests/helper/instance.bash
source tests/helper/instance.bash
# shellcheck source=tests/bats/setup_suite.bash
source tests/bats/setup_suite.bash

export BATS_TEST_TIMEOUT=${BATS_TEST_TIMEOUT:-400}
export FILTER=${1:-} PRINTING
PRINTING=$(mktemp)
# The repository of this run's images, so that checkouts do not share images.
export PREPARED=hal9000-test-$$
trap 'rm -f "$PRINTING"; remove_images "$PREPARED"' EXIT
prepare "$PREPARED" || exit

run_file() { # run_file FILE
  local bats=(node_modules/bats/bin/bats --tap --timing --filter "$FILTER") output status
  [ -z "${SOAK:-}" ] || bats+=(--filter-tags soak)
  [ "$("${bats[@]}" --count "$1")" -gt 0 ] || return 0
  output=$("${bats[@]}" "$1" 2>&1)
  status=$?
  { flock 9; printf '# %s, %s s\n%s\n' "$1" "$SECONDS" "$output"; } 9>"$PRINTING"
  return "$status"
}
export -f run_file

# These are short files, but take long: documents, benchmarks and another engine.
if [ $# -gt 1 ]; then printf '%s\n' "${@:2}"; else
  printf '%s\n' tests/bats/docs.bats tests/bats/scripts.bats tests/bats/engines.bats
  find tests/bats -name '*.bats' ! -name scripts.bats ! -name docs.bats ! -name engines.bats -printf '%s %p\n' | sort -rn | cut -d ' ' -f 2
fi |
  xargs -P "${LANES:-2}" -I {} bash -c 'run_file {}'
