# What is stuck or killed under an instance, in one of its own: it comes back by
# itself or says what to do, and no command hangs.

load ../helper/load

setup_file() {
  export HAL9000_PREFIX=${HAL9000_PREFIX%-recovery}-recovery
  export HAL9000_HOME=$HAL9000_TEST_ROOT/recovery-home
  "$scripts/claudy.ts" daemon start >/dev/null
  "$scripts/pool-manager.ts" start --min-warm 2 --max-warm 5 >/dev/null
}

teardown_file() {
  remove_instance "$HAL9000_PREFIX"
}

setup() {
  project=$(make_project recovered)
  mounter=$HAL9000_PREFIX-mounter
}

teardown() {
  after_failure
  docker unpause "$net" "$parent" "$mounter" >/dev/null 2>&1 || true
  "$scripts/claudy.ts" daemon start >/dev/null 2>&1
  wait_for 15 "$scripts/pool-manager.ts" warm
  stop_workers
}

claudy() { "$scripts/claudy.ts" "$@"; }
warm() { "$scripts/pool-manager.ts" warm >/dev/null; }
found() { "$scripts/claudy.ts" doctor --json | jq -r --arg name "$1" '.[] | select(.name == $name) | .state + ": " + .says'; }

@test "a network that ended is a new one; the pool hands out none that is in the former" {
  warm
  spawn -n left "$project"
  docker kill "$net"
  run -4 spawn --cold "$project"
  [[ $output == *"Cannot spawn: $net is not running"*"claudy daemon start"* ]]
  [[ $(found network) == "fail: $net is exited; workers without a network: left" ]]
  run -0 claudy daemon start
  [[ $output == *"The network of left has ended"* ]]
  warm
  for name in one two three; do
    "$scripts/spawn-worker.ts" -d --warm-only -n "$name" "$project"
    heartbeat "$name"
  done
  [[ $("$scripts/coordinator.ts" list) == *"its network has ended"* ]]
  [ "$("$scripts/coordinator.ts" list --json | jq -r 'map(select(.offline)) | map(.name) | join(" ")')" = left ]
  [[ $(found network) == "warn: workers without a network: left" ]]
}

@test "a network that ended is started again by the parent, which joins it" {
  before=$(inspect "$parent" '{{.State.StartedAt}}')
  docker kill "$net"
  joined() { [ "$(inspect "$parent" '{{.State.StartedAt}}')" != "$before" ] && heartbeat "$parent"; }
  wait_for 20 joined
  [[ $(found network) == ok:* ]]
}
