# Services that workers share, shared network: their ports, their memory, their answers.

load ../helper/load

teardown() {
  after_failure
  stop_workers
  "$scripts/claudy.ts" daemon start >/dev/null 2>&1
}

# Spawns a worker that runs a program of tests/helper. Only root may spawn for another owner.
hostile() { # hostile NAME OWNER PROGRAM ARGUMENT...
  local name=$1 project
  project=$(make_project "$1")
  cp "$repo/tests/helper/$3" "$project"
  [ "$(id -u)" != 0 ] || chown "$2" "$project"
  spawn -n "$name" --mount "$(echo "$repo"/node_modules/@deno/*/deno):/opt/deno:ro" "$project" -- \
    /opt/deno run -A --no-lock --no-config "${@:3}"
}
thief() { hostile "$1" "$2" port-thief.ts "${@:3}"; }
got() { docker logs "$1" 2>&1 | grep ^got; }

@test "a worker that takes every port blocks connections of workers only" {
  for half in 0 1; do hostile "hog$half-$$" 0:0 port-hog.ts $half; done
  has_all() { docker logs "$1" | grep "bound all"; }
  # A port is free again a minute after its connection ended.
  for half in 0 1; do wait_for 90 has_all "hog$half-$$"; done
  docker exec "$parent" /scripts/healthcheck
  # The parent looks every two seconds.
  wait_for 10 jq -e '.portsLeft == false' "$HAL9000_HOME/run/parent.json"
  run "$scripts/claudy.ts" doctor
  [[ $output == *"FAIL  network"*"a worker occupies all ports"* ]]
  [[ $output == *"ok    chromadb"* ]]
  "$scripts/claudy.ts" daemon restart
  wait_for 30 docker exec "$parent" /scripts/healthcheck
  stop_workers
}

@test "no worker gets a service's port when services are killed, restarted or recreated" {
  server=("$(command -v node)" -e "process.stdin.resume()")
  "$scripts/claudy.ts" mcp add coveted --port 3061 -- "${server[@]}"
  thief root-thief-$$ 0:0 8000 3061
  thief user-thief-$$ 1000:1000 8000 3061
  spawn -n victim-$$ "$(make_project victim)"
  docker exec "$parent" pkill -9 -f chroma.mjs
  docker kill "$HAL9000_PREFIX-nsenter"
  docker exec "$parent" pkill -9 -f /scripts/services
  wait_for 10 heartbeat victim-$$
  docker kill "$HAL9000_PREFIX-nsenter"
  docker restart --time 5 "$parent"
  wait_for 20 heartbeat victim-$$
  "$scripts/claudy.ts" mcp add beside --port 3062 -- "${server[@]}"
  "$scripts/claudy.ts" mcp remove --yes beside
  "$scripts/claudy.ts" daemon restart
  wait_for 20 heartbeat victim-$$
  docker kill --signal KILL "$parent"
  "$scripts/claudy.ts" daemon start
  wait_for 20 heartbeat victim-$$
  for name in root-thief-$$ user-thief-$$; do
    run -1 got "$name"
    [ "$(docker logs "$name" | sed -n 's/^tried //p' | tail -1)" -gt 1000 ]
  done
  "$scripts/claudy.ts" mcp remove --yes coveted
  stop_workers
}

@test "reports another process on ChromaDB's port and does not wait for it" {
  # A worker cannot do this: release the ports.
  docker exec --user 65430 "$net" /scripts/net set
  thief thief-$$ 0:0 8000
  taken() { docker kill "$HAL9000_PREFIX-nsenter" >/dev/null; got thief-$$; }
  wait_for 20 taken
  unhealthy() { ! docker exec "$parent" /scripts/healthcheck; }
  wait_for 10 unhealthy
  run -1 docker exec "$parent" /scripts/healthcheck
  [[ $output == *"ChromaDB does not answer workers: "* ]]
  run timeout 60 "$scripts/claudy.ts" doctor
  [[ $output == *"FAIL  chromadb"* ]]
  # Neither daemon restart nor spawns wait for it.
  run -0 timeout 30 "$scripts/claudy.ts" daemon restart
  [ "$("$scripts/claudy.ts" daemon status --json | jq -r .chromadb)" = false ]
  spawn -n beside-$$ "$(make_project beside)"
  fault() { [[ $("$scripts/claudy.ts" daemon status) == *"a worker has taken port 8000"* ]]; }
  wait_for 30 fault
  stop_workers
  wait_for 30 docker exec "$parent" /scripts/healthcheck
}

@test "200 concurrent large requests kill nothing and do not delay small ones" {
  before=$(inspect "$parent" '{{.State.StartedAt}}')
  wait_for 30 docker exec "$parent" /scripts/healthcheck
  restarts() { "$scripts/claudy.ts" daemon status --json | jq --arg name "$1" '.children[] | select(.name == $name).restarts'; }
  counted=$(restarts chromadb; restarts services)
  hostile flood-$$ 0:0 chroma-flood.ts 200
  spawn -n victim-$$ "$(make_project victim)"
  begun() { docker logs flood-$$ | grep ^body; }
  wait_for 30 begun
  for _ in 1 2 3 4 5; do timeout 10 docker exec victim-$$ bash -c \
    'exec 3<>/dev/tcp/127.0.0.1/8000; printf "GET /api/v2/heartbeat HTTP/1.0\r\n\r\n" >&3; head -1 <&3 | grep " 200 "'; done
  stop_workers
  [ "$(restarts chromadb; restarts services)" = "$counted" ]
  [ "$(inspect "$parent" '{{.State.StartedAt}}')" = "$before" ]
  [ "$(inspect "$HAL9000_PREFIX-nsenter" '{{.State.OOMKilled}}')" = false ]
}

@test "nsenter and the services survive 2,500 connections with incomplete large bodies" {
  wait_for 30 docker exec "$parent" /scripts/healthcheck
  spawn -n victim-$$ "$(make_project victim)"
  state() {
    inspect "$HAL9000_PREFIX-nsenter" '{{.Id}} {{.State.StartedAt}} {{.State.OOMKilled}}'
    "$scripts/claudy.ts" daemon status --json | jq -c '[.children[] | {name, pid}]'
  }
  before=$(state)
  hostile stall-$$ 0:0 chroma-stall.ts 2500
  opened() { docker logs stall-$$ | grep "opened all"; }
  wait_for 60 opened
  # During the flood a connection may fail; afterwards it must succeed.
  "$scripts/coordinator.ts" stop stall-$$
  answered() { timeout 5 docker exec victim-$$ bash -c \
    'exec 3<>/dev/tcp/127.0.0.1/8000; printf "GET /api/v2/heartbeat HTTP/1.0\r\n\r\n" >&3; head -1 <&3 | grep " 200 "'; }
  wait_for 30 answered
  [ "$(state)" = "$before" ]
  stop_workers
}
