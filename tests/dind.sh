#!/bin/bash
# Runs the bats files on the engine, LANES at a time, the longest first. Without LANES these
# are 3; with two CPUs the third starts a file only while they are idle a fifth of the time.
# Each file has its own instance (see bats/setup_suite.bash), and its output is printed when it
# has ended. A few failed tests are repeated alone, as the load of the others may be the cause:
# one that passes then is counted on its own ("again ok").
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
export FILTER=${1:-} PRINTING=${PRINTING:-} FAILED RUNNING STEADY=${LANES:-3}
[ -n "$PRINTING" ] || PRINTING=$(mktemp)
FAILED=$(mktemp) RUNNING=$(mktemp -d)
[ -n "${LANES:-}" ] || [ "$(nproc)" -gt 2 ] || STEADY=2
# The repository of this run's images, so that checkouts do not share images.
export PREPARED=hal9000-test-$$
trap 'rm -rf "$PRINTING" "$FAILED" "$RUNNING"; remove_images "$PREPARED"' EXIT
prepare "$PREPARED" || exit

# Waits, one file after another, until fewer than STEADY files run, or the CPUs were idle a
# fifth of the last 10 s.
take_lane() {
  local lane polls user nice system idle io irq softirq all formerly_all=0 formerly_idle=0
  exec 7>"$RUNNING/next"
  flock 7
  for ((polls = 0; ; polls++)); do
    for ((lane = 0; lane < STEADY; lane++)); do
      exec 8>"$RUNNING/$lane"
      ! flock --nonblock 8 || break 2
    done
    if ((polls % 20 == 0)); then
      read -r _ user nice system idle io irq softirq _ </proc/stat
      all=$((user + nice + system + idle + io + irq + softirq)) idle=$((idle + io))
      ((polls == 0 || 5 * (idle - formerly_idle) < all - formerly_all)) || break
      formerly_idle=$idle formerly_all=$all
    fi
    sleep 0.5
  done
  exec 7>&-
}

run_file() { # run_file FILE
  local bats=(node_modules/bats/bin/bats --tap --timing --filter "$FILTER") output status start
  [ -z "${SOAK:-}" ] || bats+=(--filter-tags soak)
  [ -z "$FILTER${SOAK:-}" ] || [ "$("${bats[@]}" --count "$1")" -gt 0 ] || return 0
  take_lane
  start=$SECONDS
  output=$(PRINTING='' "${bats[@]}" "$1" 2>&1 8>&-)
  status=$?
  exec 8>&-
  {
    flock 9
    printf '# %s, %s s\n%s\n' "$1" "$((SECONDS - start))" "$output"
    failed=$(sed -nE 's/^not ok [0-9]+ (.*) in [0-9]+ms.*/\1/p' <<<"$output")
    if [ -n "$failed" ]; then awk -v file="$1" '{ print file "\t" $0 }' <<<"$failed" >>"$FAILED"
    elif [ "$status" != 0 ]; then printf '%s\t\n' "$1" >>"$FAILED"; fi
  } 9>"$PRINTING"
  return "$status"
}
export -f run_file take_lane

# Short files that take long: documents, benchmarks, restarts, another engine.
long=(docs scripts recovery upgrade images-file hostile-network engines)
if [ $# -gt 1 ]; then printf '%s\n' "${@:2}"; else
  {
    printf 'tests/bats/%s.bats\n' "${long[@]}"
    find tests/bats -name '*.bats' -printf '%s %p\n' | sort -rn | cut -d ' ' -f 2
  } | awk '!given[$0]++'
fi |
  xargs -P "${LANES:-3}" -I {} bash -c 'run_file {}'
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
