#!/bin/bash
# Runs the unit tests in three processes; one is for MCP servers, whose tests mostly wait.
# A file with failed tests is repeated alone, as the load of the others may be the cause: its
# tests are counted on their own if they pass then ("again ok").
#   tests/unit.sh [REGEX]: only files whose names match
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

run() { # run REGEX
  node_modules/.bin/deno run --allow-all --no-lock --quiet --node-modules-dir=manual tests/helper/run-unit.ts "$1"
}

filter=${1:-\\.test\\.ts\$}
export NO_COLOR=1
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
run "^(?=mcp-).*($filter)" >"$logs/1" 2>&1 &
mcp=$!
run "^(?=[a-l]).*($filter)" >"$logs/2" 2>&1 &
first=$!
run "^(?=[m-z])(?!mcp-).*($filter)" 2>&1 | tee "$logs/3"
status=$?
wait $first || status=1
wait $mcp || status=1
cat "$logs/1" "$logs/2"
[ "$status" != 0 ] || exit 0

# Files with "  (PASSED / TOTAL)" that differ; a process that ended early has no total.
failed=$(awk '/^[^ ]+\.test\.ts$/ { file = $1 }
  /\([0-9]+ \/ [0-9]+\)$/ { gsub(/[()]/, ""); if ($(NF-2) != $NF) print file, $NF - $(NF-2) }' "$logs"/[123])
[ "$(cat "$logs"/[123] | grep -c '^  Total:')" = 3 ] && [ -n "$failed" ] &&
  [ "$(wc -l <<<"$failed")" -le 3 ] || exit 1
status=0
while read -r file count; do
  if run "^${file//./\\.}\$" >"$logs/again" 2>&1 </dev/null; then
    for ((i = 0; i < count; i++)); do echo "again ok $file"; done
  else
    echo "again not ok $file"
    status=1
  fi
  sed 's/^/# /' "$logs/again"
done <<<"$failed"
exit "$status"
