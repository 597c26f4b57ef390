#!/bin/bash
# Runs the bats files on the engine, LANES at a time (2, or 3 with more than two CPUs), the
# longest first. Each file has its own instance (see bats/setup_suite.bash), and its output is
# printed when it has ended. A few failed tests are repeated alone, as the load of the others
# may be the cause: one that passes then is counted on its own ("again ok").
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
export FILTER=${1:-} PRINTING FAILED
PRINTING=$(mktemp) FAILED=$(mktemp)
# The repository of this run's images, so that checkouts do not share images.
export PREPARED=hal9000-test-$$
trap 'rm -f "$PRINTING" "$FAILED"; remove_images "$PREPARED"' EXIT
prepare "$PREPARED" || exit

run_file() { # run_file FILE
  local bats=(node_modules/bats/bin/bats --tap --timing --filter "$FILTER") output status
  [ -z "${SOAK:-}" ] || bats+=(--filter-tags soak)
  [ "$("${bats[@]}" --count "$1")" -gt 0 ] || return 0
  output=$("${bats[@]}" "$1" 2>&1)
  status=$?
  {
    flock 9
    printf '# %s, %s s\n%s\n' "$1" "$SECONDS" "$output"
    failed=$(sed -nE 's/^not ok [0-9]+ (.*) in [0-9]+ms.*/\1/p' <<<"$output")
    if [ -n "$failed" ]; then awk -v file="$1" '{ print file "\t" $0 }' <<<"$failed" >>"$FAILED"
    elif [ "$status" != 0 ]; then printf '%s\t\n' "$1" >>"$FAILED"; fi
  } 9>"$PRINTING"
  return "$status"
}
export -f run_file

# These are short files, but take long: documents, benchmarks and another engine.
if [ $# -gt 1 ]; then printf '%s\n' "${@:2}"; else
  printf '%s\n' tests/bats/docs.bats tests/bats/scripts.bats tests/bats/engines.bats
  find tests/bats -name '*.bats' ! -name scripts.bats ! -name docs.bats ! -name engines.bats -printf '%s %p\n' | sort -rn | cut -d ' ' -f 2
fi |
  xargs -P "${LANES:-$(($(nproc) > 2 ? 3 : 2))}" -I {} bash -c 'run_file {}'
status=$?

# More of them have another cause.
[ "$(wc -l <"$FAILED")" -le 3 ] || exit "$status"
[ "$status" = 0 ] || status=0
while IFS=$'\t' read -r file name; do
  [ -n "$name" ] || { status=1; continue; }
  pattern=$(printf '%s' "$name" | sed 's/[][\\.*^$()+?{}|]/\\&/g')
  if output=$(node_modules/bats/bin/bats --tap --timing --filter "^$pattern\$" "$file" 2>&1 </dev/null); then
    echo "again ok $name"
  else
    echo "again not ok $name"
    status=1
  fi
  printf '%s\n' "$output" | sed 's/^/# /'
done <"$FAILED"
exit "$status"
