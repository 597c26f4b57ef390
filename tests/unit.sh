#!/bin/bash
# Runs the unit tests in three processes; one is for MCP servers, whose tests mostly wait.
#   tests/unit.sh [REGEX]: only files whose names match
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

run() { # run REGEX
  node_modules/.bin/deno run --allow-all --no-lock node_modules/uvu/bin.js tests/unit "$1"
}

filter=${1:-\\.test\\.ts\$}
[ -t 1 ] || export NO_COLOR=1
beside=$(mktemp -d)
trap 'rm -rf "$beside"' EXIT
run "^(?=mcp-).*($filter)" >"$beside/mcp" 2>&1 &
mcp=$!
run "^(?=[a-l]).*($filter)" >"$beside/first" 2>&1 &
first=$!
run "^(?=[m-z])(?!mcp-).*($filter)"
status=$?
wait $first || status=1
wait $mcp || status=1
cat "$beside/first" "$beside/mcp"
exit "$status"
