#!/bin/bash
# Runs the checks, the unit tests and the tests on the engine, continues after a failure,
# and ends with the totals.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

logs=build/test
rm -rf "$logs"
mkdir -p "$logs"
failed=0

# What the background jobs print is not mixed with the output of a bats file.
export PRINTING=$PWD/$logs/printing

run() { # run NAME: a target of the Makefile
  local start=$SECONDS status=0
  make "$1" >"$logs/$1.log" 2>&1 || status=1
  echo "$1 $((SECONDS - start)) s" >"$logs/$1.time"
  flock "$PRINTING" cat "$logs/$1.log"
  return "$status"
}

count() { # count FILE REGEX
  grep -cE "$2" "$logs/$1.log" || true
}

sum() { # sum FILE WORD: from uvu's last lines
  awk -v word="$2:" '$1 == word { n += $2 } END { print n + 0 }' "$logs/$1.log"
}

make node_modules/.package-lock.json || failed=1
# Beside each other, as all of them wait part of the time; images are built at first.
run check &
checks=$!
run test-unit &
units=$!
start=$SECONDS
make test-dind 2>&1 | tee "$logs/test-dind.log" || failed=1
echo "test-dind $((SECONDS - start)) s" >"$logs/test-dind.time"
wait $units || failed=1
wait $checks || failed=1

total=$(sum test-unit Total)
passed=$(sum test-unit Passed)
skipped=$(($(sum test-unit Skipped) + $(count test-dind '^ok .*# skip')))
again=$(($(count test-unit '^again ok') + $(count test-dind '^again ok')))
broken=$((total - passed - $(sum test-unit Skipped) + $(count test-dind '^not ok') - again))
passed=$((passed + $(count test-dind '^ok') - $(count test-dind '^ok .*# skip') + again))
# If no test ran at all, that is a failure.
[ $((passed + broken)) -gt 0 ] || broken=1
# A step that failed without a failed test counts as a failure.
[ "$failed" = 0 ] || [ "$broken" -gt 0 ] || broken=1

# Repeats the failed tests at the end, each with its first and its last lines.
echo
awk '
  function flush(  i) {
    for (i = 1; i <= n; i++) if (i <= 10 || i > n - 40) print lines[i]; else if (i == 11) print "# ..."
    n = 0
  }
  /^(not ok|ok|1\.\.|# tests\/)/ { flush() }
  /^not ok/ || n > 0 { lines[++n] = $0 }
  END { flush() }' "$logs/test-dind.log"

echo
echo "The slowest tests on the engine, in seconds:"
sed -nE 's/^(not )?ok [0-9]+ (.*) in ([0-9]+)ms.*/\3 \2/p' "$logs/test-dind.log" | sort -rn | head |
  awk '{ printf "%6.1f", $1 / 1000; $1 = ""; print }'
echo "Times: $(cat "$logs"/*.time | paste -s -d , | sed 's/,/, /g')"

grep -h '^# documents: ' "$logs/test-dind.log" | cut -c 3- || true

summary="$passed passed, $broken failed"
[ "$skipped" = 0 ] || summary="$summary, $skipped skipped"
[ "$again" = 0 ] || summary="$summary, $again of them only when repeated"
echo
echo "$summary" | tee "$logs/summary"
[ "$broken" = 0 ]
