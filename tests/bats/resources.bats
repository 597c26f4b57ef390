# What one worker can take from the others, and what is told about it.

load ../helper/load

claudy=$scripts/claudy.ts

teardown() {
  after_failure
  stop_workers
}

finding() { "$claudy" doctor --json | jq -r --arg name "$1" '.[] | select(.name == $name) | .state + " " + .says'; }
precedence() { inspect "$1" '{{.HostConfig.CpuShares}} {{.HostConfig.OomScoreAdj}}'; }

@test "all workers have the same share of the CPUs, and less than the parent and its services" {
  spawn -n cold-$$ "$(make_project cold)"
  "$claudy" pool start --min-warm 1 --max-warm 1
  ready() { warm=$(docker ps --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" --filter label=hal9000.born=warm) && [ "$warm" ]; }
  wait_for 60 ready
  for worker in cold-$$ "$warm"; do
    [ "$(precedence "$worker")" = "256 500" ]
    [ "$(docker exec "$worker" cat /proc/1/oom_score_adj)" = 500 ]
  done
  for service in net parent nsenter; do
    # Docker's default, which is 1024.
    [[ $(precedence "$HAL9000_PREFIX-$service") == "0 "* ]]
  done
  "$claudy" pool stop
}

@test "doctor and status tell of a worker that fills its container or its home" {
  spawn -n full-$$ "$(make_project full)"
  spawn -n home-$$ "$(make_project home)"
  spawn -n small-$$ "$(make_project small)"
  [ "$(finding "disk use")" = "ok no worker uses more than 10 GiB" ]
  docker exec full-$$ dd if=/dev/zero of=/tmp/full bs=1M count=30 status=none
  docker exec home-$$ dd if=/dev/zero of=/home/claude/.claude/full bs=1M count=30 status=none
  export WORKER_DISK=25m
  told=$(finding "disk use")
  [[ $told == "warn "*"\"full-$$\": 30 MiB in its container, "*"\"home-$$\": "*", 30 MiB in its home"*"(WORKER_DISK: 25 MiB)" ]]
  [[ $told != *small-$$* ]]
  # The parent measures at its start, and every few minutes.
  "$claudy" daemon restart
  shown() { [ "$("$claudy" daemon status --json | jq -r '[.overDisk[].name] | join(" ")')" = "full-$$ home-$$" ]; }
  wait_for 20 shown
  [[ $("$claudy" status) == *"full-$$"*"30 MiB in its container"* ]]
  # It is told, and nothing is stopped.
  [ "$(inspect full-$$ '{{.State.Running}}')" = true ]
}

@test "doctor and status tell of limits that add up to more memory than there is" {
  [[ $(finding memory) == "ok "* ]]
  total=$(docker info --format '{{.MemTotal}}')
  WORKER_MEMORY=$((total * 2 / 3 / 1048576))m
  export WORKER_MEMORY
  spawn -n one-$$ "$(make_project one)"
  spawn -n two-$$ "$(make_project two)"
  [[ $(finding memory) == "warn 2 workers may use "*": if all is used up, a worker's process is killed" ]]
  [ "$("$claudy" daemon status --json | jq '.memory.promisedBytes > .memory.engineBytes and .memory.workers == 2')" = true ]
}
