load ../helper/load

teardown() {
  after_failure
  stop_workers
}

records() { find "$HAL9000_HOME/sessions" -maxdepth 1 -name '*.json' | wc -l; }

@test "spawn prints only the id on stdout, on the host and in the parent" {
  project=$(make_project one)
  run -0 --separate-stderr spawn -n on-host-$$ "$project"
  [ "$output" = "$(inspect on-host-$$ '{{.Id}}')" ]
  run -0 --separate-stderr docker exec "$parent" \
    /scripts/spawn-worker.sh -d -n in-parent-$$ "$project"
  [ "$output" = "$(inspect in-parent-$$ '{{.Id}}')" ]
  run -0 --separate-stderr "$scripts/coordinator.ts" list
  [[ $output == *on-host-$$*"$project"* ]]
  [[ $output == *in-parent-$$*"$project"* ]]
  # Apart from their ages.
  workers() { jq -c 'map([.name, .id, .project, .state]) | sort'; }
  [ "$("$scripts/coordinator.ts" list --json | workers)" = \
    "$(docker exec "$parent" /scripts/coordinator.sh list --json | workers)" ]
}

@test "workers share a network namespace, not the parent's, with ChromaDB on its port" {
  spawn -n wk-$$ "$(make_project one)"
  spawn -n beside-wk-$$ "$(make_project one)"
  namespace() { docker exec "$1" readlink /proc/self/ns/net; }
  [ "$(namespace wk-$$)" = "$(namespace beside-wk-$$)" ]
  [ "$(namespace wk-$$)" != "$(namespace "$parent")" ]
  heartbeat wk-$$
}

@test "a worker is hardened and limited by default" {
  project=$(make_others_project one)
  spawn -n wk-$$ "$project"
  host() { inspect wk-$$ "{{json .HostConfig.$1}}"; }
  [ "$(host Memory)" = 4294967296 ]
  [ "$(host MemorySwap)" = 4294967296 ]
  [ "$(host NanoCpus)" = 2000000000 ]
  [ "$(host PidsLimit)" = 100 ]
  [ "$(host CapDrop)" = '["ALL"]' ]
  [ "$(host SecurityOpt | jq -r '.[0]')" = no-new-privileges ]
  [[ $(host SecurityOpt | jq -r '.[1]') == 'seccomp={'*'"chmod"'* ]]
  [ "$(host Init)" = true ]
  [ "$(host Privileged)" = false ]
  [ "$(inspect wk-$$ '{{.Config.User}}')" = "$(owner_of "$project")" ]
  [[ $(inspect wk-$$ '{{json .Mounts}}') != *docker.sock* ]]
  [ "$(inspect wk-$$ '{{index .Config.Labels "hal9000.instance"}} {{index .Config.Labels "hal9000.role"}}')" = \
    "$HAL9000_PREFIX worker" ]
  [ "$(inspect wk-$$ '{{index .Config.Labels "hal9000.project"}}')" = "$project" ]
}

@test "the kernel enforces the limits" {
  spawn -n wk-$$ "$(make_project one)"
  run -0 docker exec wk-$$ grep -E '^(CapEff|NoNewPrivs):' /proc/self/status
  [[ $output == *"CapEff:"*"0000000000000000"* ]]
  [[ $output == *"NoNewPrivs:"*1* ]]
  # These limits are counted per user, so they would also affect the host's user.
  run -0 docker exec wk-$$ bash -c 'ulimit -q; ulimit -i'
  [ "$output" = $'0\n4096' ]
  # More processes than allowed: the shell cannot fork them all.
  run docker exec wk-$$ bash -c 'for i in $(seq 150); do sleep 5 & done; wait -n'
  [[ $output == *"Resource temporarily unavailable"* || $output == *"fork"* ]]
  # Shown on the host and in the parent, from outside of the worker.
  run -0 --separate-stderr "$scripts/coordinator.ts" stats --json
  jq -e '.[0].limitEvents | .pidsLimit == 100 and .pidsRefused > 0' <<<"$output"
  [[ $stderr == *"docker update --pids-limit 2048 wk-$$"* ]]
  run -0 docker exec "$parent" /scripts/coordinator.sh status
  [[ $output == *"process limit 100 reached"* ]]
}

@test "a command that reaches its process limit is reported, with the option that raises it" {
  run "$scripts/spawn-worker.ts" -n wk-$$ --pids-limit 20 "$(make_project one)" -- \
    sh -c '(for i in $(seq 40); do sleep 3 & done); exec sleep 2'
  [[ $output == *"\"wk-$$\" reached its limit of 20 processes"*"spawn-worker --pids-limit"* ]]
}

@test "the worker's user is the project's owner, with a name and a home" {
  project=$(make_others_project one)
  spawn -n wk-$$ "$project"
  [ "$(docker exec wk-$$ sh -c 'id -u; id -g; whoami; id -gn; pwd; echo "$HOME"' | xargs)" = \
    "$(owner_of "$project" | tr : ' ') claude claude /workspace /home/claude" ]
  docker exec wk-$$ sh -c 'touch /workspace/f "$HOME/g" "$CLAUDE_CONFIG_DIR/h"'
  [ "$(owner_of "$project/f")" = "$(owner_of "$project")" ]
  run -1 docker exec wk-$$ touch /config/claude/x
}

@test "environment settings reach the worker" {
  WORKER_MEMORY=1g WORKER_CPUS=0.5 WORKER_PIDS_LIMIT=50 spawn -n wk-$$ "$(make_project one)"
  [ "$(inspect wk-$$ '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}')" = \
    "1073741824 500000000 50" ]
}

@test "caps WORKER_CPUS and --memory at what the engine has" {
  WORKER_CPUS=1000 run -0 --separate-stderr spawn --memory 900t -n wk-$$ "$(make_project one)"
  [[ $stderr == *"The engine has $(nproc) CPUs: using $(nproc) instead of 1000"* ]]
  [[ $stderr == *"of memory: using that instead of 900 TiB"* ]]
  [ "$(inspect wk-$$ '{{.HostConfig.NanoCpus}}')" = "$(nproc)000000000" ]
  [ "$(inspect wk-$$ '{{.HostConfig.Memory}}')" = "$(docker info --format '{{.MemTotal}}')" ]
}

@test "--json prints a generated name; stop removes that worker's home" {
  run -0 --separate-stderr spawn --json "$(make_project one)"
  name=$(jq -r .name <<<"$output")
  [[ $name == "$HAL9000_PREFIX-worker-"* ]]
  [ "$(jq -r .id <<<"$output")" = "$(inspect "$name" '{{.Id}}')" ]
  "$scripts/coordinator.ts" stop "$name"
  run ! ls -d "$HAL9000_HOME/workers/$name"*
}

@test "a worker that cannot be started leaves nothing behind" {
  docker kill "$net"
  run ! env TOKEN=x "$scripts/spawn-worker.ts" -d -n stillborn-$$ --secret TOKEN "$(make_project one)"
  "$scripts/claudy.ts" daemon start >/dev/null
  run -1 docker inspect stillborn-$$
  [ "$(records)" = 0 ]
  [ -z "$(find "$HAL9000_HOME/workers" "$HAL9000_HOME/secrets" -name "stillborn-$$*")" ]
}

@test "stop accepts the id that spawn printed, and stops the others if a name is wrong" {
  id=$(spawn "$(make_project one)")
  run -8 docker exec "$parent" hal9000-coordinator stop "$id" nobody
  [[ $output == *'error: There is no worker "nobody"'*"hal9000-coordinator list"* ]]
  [ "$("$scripts/coordinator.ts" count)" = 0 ]
}

@test "claudy runs a command in a worker without a session, prints its log and stops it" {
  spawn -n loose-$$ "$(make_project one)" -- sh -c 'echo begun; exec sleep 60'
  run -0 "$scripts/claudy.ts" exec loose-$$ -- pwd
  [ "$output" = /workspace ]
  run -0 "$scripts/claudy.ts" logs loose-$$
  [[ $output == *begun* ]]
  run -0 "$scripts/claudy.ts" stop loose-$$
  [ "$output" = "loose-$$" ]
  run -0 "$scripts/claudy.ts" logs --worker loose-$$
  [[ $output == *begun* ]]
}

@test "suggests the closest name for an unknown worker" {
  spawn -n discovery-$$ "$(make_project one)"
  run -4 "$scripts/coordinator.ts" stop discovry-$$
  [[ $output == *"\"discovery-$$\""* ]]
}

@test "two instances do not list, stop or clean each other's workers" {
  id=$(spawn -n wk-$$ "$(make_project one)")
  (
    export HAL9000_PREFIX=$HAL9000_PREFIX-second HAL9000_HOME=$HAL9000_TEST_ROOT/second
    "$scripts/claudy.ts" daemon start
    [ "$("$scripts/coordinator.ts" list --json)" = "[]" ]
    run -4 "$scripts/coordinator.ts" stop wk-$$
    run -4 "$scripts/coordinator.ts" stop "$id"
    run -5 spawn -n wk-$$ "$(make_project one)"
    spawn -n others-wk-$$ "$(make_project one)"
    [ "$(docker exec others-wk-$$ readlink /proc/self/ns/net)" != "$(docker exec wk-$$ readlink /proc/self/ns/net)" ]
    "$scripts/coordinator.ts" stop-all --yes
    "$scripts/claudy.ts" daemon stop
    "$scripts/init-volumes.ts" --clean --yes
    rm -r "$HAL9000_HOME"
    docker volume ls --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" | xargs docker volume rm
  )
  [ "$(inspect wk-$$ '{{.Id}} {{.State.Running}}')" = "$id true" ]
  [ "$("$scripts/coordinator.ts" list --json | jq -r '.[].name')" = wk-$$ ]
  heartbeat wk-$$
}
