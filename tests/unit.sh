#!/bin/bash
# Runs the unit tests; those of MCP servers run in parallel, because they mostly wait.
#   tests/unit.sh [REGEX]: only files whose names match
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

run() { # run REGEX
  node_modules/.bin/deno run --allow-all --no-lock node_modules/uvu/bin.js tests/unit "$1"
}

filter=${1:-\\.test\\.ts\$}
[ -t 1 ] || export NO_COLOR=1
beside=$(mktemp)
trap 'rm -f "$beside"' EXIT
run "^(?=mcp-).*($filter)" >"$beside" 2>&1 &
run "^(?!mcp-).*($filter)"
status=$?
wait $! || status=1
cat "$beside"
exit "$status"
