# Concurrent commands, and commands that are killed.

load ../helper/load

teardown() {
  after_failure
  stop_workers
  "$scripts/claudy.ts" daemon start >/dev/null 2>&1
}

workers() {
  docker ps --all --no-trunc --format '{{.Names}} {{.ID}}' \
    --filter "label=hal9000.instance=$HAL9000_PREFIX" --filter label=hal9000.role=worker | sort
}

records() {
  find "$HAL9000_HOME/sessions" -maxdepth 1 -name '*.json' -exec jq -r '.worker + " " + .container' {} + | sort
}

@test "of 20 concurrent spawns with one name, one succeeds" {
  project=$(make_project app)
  spawn_one() { "$scripts/spawn-worker.ts" -d -n wanted-$$ "$project"; }
  local i pids=()
  for i in $(seq 20); do
    { code=0; spawn_one >/dev/null 2>&1 || code=$?; echo $code >"$BATS_TEST_TMPDIR/code.$i"; } 3>&- &
    pids+=($!)
  done
  wait "${pids[@]}" # without bats's own job, which watches the time
  [ "$(cat "$BATS_TEST_TMPDIR"/code.* | sort | uniq -c | xargs)" = "1 0 19 5" ]
  [ "$(workers | wc -l)" = 1 ]
  [ "$(records)" = "$(workers)" ]
  docker exec wanted-$$ test -e /home/claude/.claude/.claude.json
}

@test "20 concurrent daemon starts create one parent and one net container" {
  "$scripts/claudy.ts" daemon stop
  local i pids=()
  for i in $(seq 20); do
    { code=0; "$scripts/claudy.ts" daemon start >"$BATS_TEST_TMPDIR/out.$i" 2>&1 || code=$?
      echo $code >"$BATS_TEST_TMPDIR/code.$i"; } 3>&- &
    pids+=($!)
  done
  wait "${pids[@]}" # without bats's own job, which watches the time
  [ "$(cat "$BATS_TEST_TMPDIR"/code.* | sort | uniq -c | xargs)" = "20 0" ] ||
    { cat "$BATS_TEST_TMPDIR"/out.*; false; }
  for role in parent net nsenter; do
    [ "$(docker ps --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" \
      --filter "label=hal9000.role=$role" | wc -l)" = 1 ]
  done
  wait_for 20 heartbeat "$parent"
}

@test "records and workers match after kill -9 of spawn-worker at 20 moments" {
  project=$(make_project app)
  for i in $(seq 20); do
    TOKEN=x "$scripts/spawn-worker.ts" -d -n "killed$i-$$" --secret TOKEN "$project" >/dev/null 2>&1 3>&- &
    pid=$!
    sleep "$(printf '0.%03d' $((i * 15)))"
    # The launcher uses exec, so this is the only process.
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  # When a worker ends, the parent checks all workers.
  spawn -n last-$$ "$project"
  docker kill last-$$
  agree() { [ "$(records)" = "$(workers)" ]; }
  wait_for 30 agree
  [ -n "$(workers)" ] # some finished before they were killed
}

@test "eight concurrent stop-all on eight workers succeed and record each end" {
  project=$(make_project app)
  local i pids=()
  for i in $(seq 8); do
    spawn -n "stopped$i-$$" "$project" >/dev/null 3>&- &
    pids+=($!)
  done
  wait "${pids[@]}"
  pids=()
  for i in $(seq 8); do
    { code=0; "$scripts/coordinator.ts" stop-all --yes >"$BATS_TEST_TMPDIR/out.$i" 2>&1 || code=$?
      echo $code >"$BATS_TEST_TMPDIR/code.$i"; } 3>&- &
    pids+=($!)
  done
  wait "${pids[@]}"
  [ "$(cat "$BATS_TEST_TMPDIR"/code.* | sort | uniq -c | xargs)" = "8 0" ] ||
    { cat "$BATS_TEST_TMPDIR"/out.*; false; }
  [ -z "$(workers)$(records)" ]
  for i in $(seq 8); do
    [ "$(jq .end.exitCode "$HAL9000_HOME/sessions/ended/stopped$i-$$.json")" = 143 ] || { cat "$HAL9000_HOME/sessions/ended/stopped$i-$$.json"; false; }
    [ -e "$HAL9000_HOME/logs/stopped$i-$$.log" ]
  done
}
