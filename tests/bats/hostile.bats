# A worker that attacks in every way at once, while another session works.

load ../helper/load
load ../helper/sessions

deno=$(echo "$repo"/node_modules/@deno/*/deno)
seconds=$((10 * soak))

setup_file() {
  start_instance
  "$claudy" mcp start
  "$claudy" mcp add for-tests --port 3050 -- "$deno" run -A --no-lock --quiet \
    --node-modules-dir=manual "$repo/tests/helper/mcp-server.ts"
  start_stub
}

teardown_file() {
  stop_stub
  "$claudy" mcp stop
  rm -f "$HAL9000_HOME/config/mcp.json"
  "$claudy" daemon start >/dev/null
}

setup() { use_stub; }
teardown() {
  after_failure
  stop_workers
}

# The last command does not involve a worker: it shows how much slower the machine is.
host_commands=("$scripts/coordinator.ts list" "$scripts/claudy.ts sessions" "$scripts/claudy.ts ports"
  "$scripts/claudy.ts daemon status" "$deno eval 0")

# Prints how long a command takes, in ms. Fails if it hangs.
took() { # took COMMAND
  local start
  start=$(date +%s%3N)
  # shellcheck disable=SC2086  # words of a command
  timeout 20 $1 >"$BATS_TEST_TMPDIR/out" 2>&1 || { echo "$1:" >&2; cat "$BATS_TEST_TMPDIR/out" >&2; return 1; }
  run ! grep -q $'\e' "$BATS_TEST_TMPDIR/out"
  echo $(($(date +%s%3N) - start))
}

# Runs all commands once; the time of each goes to a separate file.
time_commands() { # time_commands WHEN
  local command
  for command in "${host_commands[@]}"; do
    took "$command" >>"$BATS_TEST_TMPDIR/$1 ${command##*/}" || return
  done
}

median() { sort -n "$1" | sed -n "$((($(wc -l <"$1") + 1) / 2))p"; }

# Listeners, mounts, and files outside of both sessions, that a worker could have left.
traces() {
  docker exec "$net" cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == "0A" { print $2 }' | sort
  awk '{ print $5 }' /proc/self/mountinfo | grep -F "$HAL9000_TEST_ROOT" || true
  find "$HAL9000_HOME" -path "$HAL9000_HOME/claude/$hostile" -prune -o \
    ! -path "*/logs/*" ! -path "$HAL9000_HOME/claude/$victim/*" ! -path "$HAL9000_HOME/sessions/*$victim*" -print | sort
}

# bats test_tags=soak
@test "survives a hostile worker: other sessions work and nothing is left over" {
  mine=$(make_project mine)
  open "$mine"
  victim=$session
  theirs=$(make_project hostile)
  cp "$repo"/tests/helper/{hostile,chroma-flood,port-hog,set-uid}.ts "$deno" "$theirs"
  # Leaves CPU time of the machine for the other session.
  WORKER_CPUS=1 open "$theirs"
  hostile=$session
  for _ in 1 2 3 4 5; do time_commands before; done
  traces >"$BATS_TEST_TMPDIR/traces"
  id=$(inspect "$hostile" '{{.Id}}')
  # Processes that end meanwhile make grep fail.
  processes() { grep -lsF "$id" /proc/[0-9]*/cgroup || true; }
  [ -n "$(processes)" ]

  docker exec --detach "$hostile" bash -c "./deno run -A --no-lock --no-config hostile.ts $seconds 3050 >report 2>&1"
  begun() { grep begun "$theirs/report"; }
  wait_for 10 begun
  end=$((SECONDS + seconds))
  turn=0
  while [ "$SECONDS" -lt "$end" ]; do
    turn=$((turn + 1))
    typed "$victim" "words $turn" Enter
    wait_for_screen 20 "$victim" "echo: words $turn"
    time_commands during
  done
  # Commands that read the hostile worker's files skip what they cannot use.
  timeout 60 "$claudy" sessions sync "$hostile" >"$BATS_TEST_TMPDIR/out" 2>&1 || true
  run ! grep -q $'\e' "$BATS_TEST_TMPDIR/out"
  # In a file the log is unchanged; terminal.bats covers the terminal.
  timeout 30 "$claudy" logs --worker "$hostile" >"$BATS_TEST_TMPDIR/out" 2>&1
  timeout 30 "$claudy" logs "$hostile" >"$BATS_TEST_TMPDIR/out" 2>&1 || true
  timeout 30 "$claudy" stop "$hostile"
  ended=$SECONDS
  [ -z "$(processes)" ]

  cat "$theirs/report"
  grep begun "$theirs/report"
  run ! grep worked "$theirs/report"
  [ -z "$(find "$theirs" "$HAL9000_HOME/claude/$hostile" -perm /6000)" ]
  for command in "${host_commands[@]}"; do
    label=${command##*/}
    echo "# $label: $(median "$BATS_TEST_TMPDIR/before $label") ms before, $(median "$BATS_TEST_TMPDIR/during $label") ms during" >&3
  done
  echo "# $turn prompts answered" >&3
  [ "$turn" -gt 0 ]
  # The hostile session's records may differ, as for any ended session.
  traces | diff "$BATS_TEST_TMPDIR/traces" - >"$BATS_TEST_TMPDIR/left" || true
  run ! grep -v -e "^[0-9,acd]*$" -e '^---$' -e 'sessions/ended$' -e "sessions/.*$hostile" "$BATS_TEST_TMPDIR/left"
  wait_for 10 heartbeat "$victim"
  typed "$victim" "last words" Enter
  wait_for_screen 20 "$victim" "echo: last words"
  # Its next session starts, or is refused with a reason.
  run timeout 60 "$claudy" --detach --yes "$theirs"
  [ "$status" = 0 ] || [[ $output == *error:* ]]
  [ "$((SECONDS - ended))" -lt 120 ]
}
