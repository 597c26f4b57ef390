# Components that hang or are killed: they recover or report what to do, and no command
# hangs.

load ../helper/load

setup_file() {
  start_instance
  "$scripts/pool-manager.ts" start --min-warm 2 --max-warm 5 >/dev/null
}

setup() {
  project=$(make_project recovered)
  nsenter=$HAL9000_PREFIX-nsenter
}

teardown() {
  after_failure
  docker unpause "$net" "$parent" "$nsenter" >/dev/null 2>&1 || true
  "$scripts/claudy.ts" daemon start >/dev/null 2>&1
  wait_for 60 "$scripts/pool-manager.ts" warm
  stop_workers
}

claudy() { "$scripts/claudy.ts" "$@"; }
warm() { "$scripts/pool-manager.ts" warm >/dev/null; }
found() { "$scripts/claudy.ts" doctor --json | jq -r --arg name "$1" '.[] | select(.name == $name) | .state + ": " + .says'; }

@test "daemon start recreates the network, and the pool hands out no worker of the old one" {
  warm
  spawn -n left-$$ "$project"
  docker kill "$net"
  run -4 spawn --cold "$project"
  [[ $output == *"Cannot spawn: $net is not running"*"claudy daemon start"* ]]
  run -0 claudy daemon start
  [[ $output == *"The network of left-$$ has ended"* ]]
  warm
  for name in one two three; do
    "$scripts/spawn-worker.ts" -d --warm-only -n "$name-$$" "$project"
    heartbeat "$name-$$"
  done
  [[ $("$scripts/coordinator.ts" list) == *"its network has ended"* ]]
  [ "$("$scripts/coordinator.ts" list --json | jq -r 'map(select(.offline)) | map(.name) | join(" ")')" = left-$$ ]
  [[ $(found network) == "warn: workers without a network: left-$$" ]]
}

@test "the parent restarts the net container and its services" {
  before=$(inspect "$parent" '{{.State.StartedAt}}')
  docker kill "$net"
  serves() { heartbeat "$net"; }
  wait_for 30 serves
  [ "$(inspect "$parent" '{{.State.StartedAt}}')" = "$before" ]
  # Warm workers of the old network are replaced meanwhile.
  well() { [[ $(found network) == ok:* ]]; }
  wait_for 30 well
}

# The main process of a container, below its init if it has one.
work_of() {
  local first
  first=$(inspect "$1" '{{.State.Pid}}')
  pgrep -P "$first" || echo "$first"
}

@test "spawns cold while nsenter hangs, and claims again afterwards" {
  warm
  as_root kill -STOP "$(work_of "$nsenter")"
  run -0 --separate-stderr "$scripts/spawn-worker.ts" -d -n slow-$$ --json "$project"
  [ "$(jq -r .start <<<"$output")" = cold ]
  claims() { "$scripts/spawn-worker.ts" -d --warm-only "$project"; }
  wait_for 60 claims
}

@test "replaces a paused nsenter at once" {
  warm
  before=$(inspect "$nsenter" '{{.Id}}')
  wait_for 20 docker pause "$nsenter"
  run -0 spawn -n unpaused-$$ "$project"
  replaced() { [ "$(inspect "$nsenter" '{{.State.Paused}}')" = false ] && warm; }
  wait_for 60 replaced
  [ "$(inspect "$nsenter" '{{.Id}}')" != "$before" ]
  "$scripts/spawn-worker.ts" -d --warm-only "$project"
}

@test "a hanging pool manager delays no command and is replaced" {
  warm
  before=$(docker exec "$parent" pgrep -f '/scripts/pool-manager serve')
  docker exec "$parent" kill -STOP "$before"
  run -1 timeout 20 "$scripts/pool-manager.ts" status
  [[ $output == *"The pool manager does not answer"* ]]
  run -0 timeout 20 "$scripts/spawn-worker.ts" -d --json "$project"
  [[ $output == *'"the pool does not answer"'* ]]
  checks=$(timeout 30 "$scripts/claudy.ts" doctor --json) || [ $? = 1 ]
  [[ $(jq -r '.[] | select(.name == "pool") | .says' <<<"$checks") == "the pool manager does not answer" ]]
  [[ $(jq -r '.[] | select(.name == "sockets") | .says' <<<"$checks") == "no answer: $HAL9000_HOME/run/pool.sock" ]]
  wait_for 60 "$scripts/pool-manager.ts" warm
  [ "$(docker exec "$parent" pgrep -f '/scripts/pool-manager serve')" != "$before" ]
  docker logs --tail 20 "$parent" 2>&1 | grep "pool has not answered for .* killing it"
}

@test "reports a paused parent; daemon start unpauses it" {
  wait_for 20 docker pause "$parent" # a busy machine does not freeze it at once
  run -4 spawn "$project"
  [[ $output == *"Cannot spawn: the parent is paused"* ]]
  [ "$(claudy daemon status --json | jq -r .parent)" = paused ]
  run -0 claudy daemon start
  [[ $output == *"$parent was paused; unpausing it"* ]]
  heartbeat "$parent"
}

@test "doctor reports a hanging parent; daemon start restarts it" {
  long_enough() { [ "$(date -d "$(inspect "$parent" '{{.State.StartedAt}}')" +%s)" -lt "$(date -d '-11 sec' +%s)" ]; }
  wait_for 15 long_enough # before that it may be starting
  as_root kill -STOP "$(work_of "$parent")"
  checks=$(timeout 30 "$scripts/claudy.ts" doctor --json) || [ $? = 1 ]
  [[ $(jq -r '.[] | select(.name == "sockets") | .says' <<<"$checks") == *"no answer: $HAL9000_HOME/run/parent.sock"* ]]
  run -0 claudy daemon start
  [[ $output == *"Restarting the parent: it does not answer"* ]]
  answered() { [[ $(found sockets) == ok:* ]]; }
  wait_for 30 answered
}

@test "pool warm waits for the pool right after a start" {
  claudy daemon restart >/dev/null
  "$scripts/pool-manager.ts" warm
}
