# Tests the dashboard, see start_instance.
export DASHBOARD=on
load ../helper/load

teardown() {
  after_failure
  stop_workers
  "$scripts/claudy.ts" daemon start 2>/dev/null >/dev/null
}

healthy() { [ "$(inspect "$parent" '{{.State.Health.Status}}')" = healthy ]; }

state() { "$scripts/claudy.ts" daemon status --json | jq -r "$1"; }

namespace() { docker exec "$1" readlink /proc/self/ns/net; }

@test "the parent becomes healthy in its own network namespace" {
  wait_for 30 healthy
  [ "$(inspect "$parent" '{{.HostConfig.NetworkMode}}')" = bridge ]
  heartbeat "$parent"
}

@test "daemon start is idempotent" {
  before=$(inspect "$parent" '{{.Id}} {{.State.StartedAt}}')
  run -0 "$scripts/claudy.ts" daemon start
  [ "$(inspect "$parent" '{{.Id}} {{.State.StartedAt}}')" = "$before" ]
}

@test "the parent has limits, few capabilities and read-only project roots" {
  [ "$(inspect "$parent" '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}')" = "4294967296 2000000000" ]
  [ "$(inspect "$parent" '{{.HostConfig.CapDrop}} {{.HostConfig.Privileged}}')" = "[ALL] false" ]
  project=$(make_project seen)
  run -1 docker exec "$parent" touch "/host$project/x"
  [[ $output == *"Read-only"* ]]
}

@test "ChromaDB and nsenter listen only on loopback" {
  # Listening rows (0A) of /proc/net/tcp: local addresses in hexadecimal, users.
  listeners() { docker exec "$1" cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == "0A" { print $2, $8 }'; }
  [ "$(listeners "$parent")" = "0100007F:1F40 65431" ]
  # The relay's port is 443.
  [ "$(listeners "$HAL9000_PREFIX-net" | sort | xargs)" = "0100007F:01BB 65430 0100007F:1F40 65430" ]
}

@test "ChromaDB runs as its own user without access to engine, home and roots, and is killed first" {
  pid=$(docker exec "$parent" pgrep -o -f chroma.mjs)
  [ "$(docker exec "$parent" cat "/proc/$pid/oom_score_adj")" = 1000 ]
  docker exec "$parent" cat "/proc/$pid/status" >"$BATS_TEST_TMPDIR/status"
  grep -Pq '^Uid:\t65431\t65431\t65431\t65431$' "$BATS_TEST_TMPDIR/status"
  grep -Pq '^Groups:\t *$' "$BATS_TEST_TMPDIR/status"
  grep -Pq '^CapPrm:\t0+$' "$BATS_TEST_TMPDIR/status"
  for path in /run/docker.sock "/root/.hal9000/run" "/host$HAL9000_PROJECT_ROOTS"; do
    run -2 docker exec --user 65431:65431 "$parent" ls "$path"
    [[ $output == *"Permission denied"* ]]
  done
  # An earlier version left files of root in the volume.
  docker exec "$parent" sh -c 'mkdir -p /data/chromadb/old && touch /data/chromadb/old/file && chown -R 0:0 /data/chromadb'
  docker restart --time 5 "$parent"
  wait_for 20 heartbeat "$parent"
  [ "$(docker exec "$parent" find /data/chromadb ! -user 65431 | wc -l)" = 0 ]
  docker exec "$parent" rm -r /data/chromadb/old
}

@test "the log and the status show each phase and its time" {
  run -0 docker logs "$parent"
  settled() { [ "$(state '.phases | length')" = 3 ]; }
  wait_for 20 settled
  run -0 docker logs "$parent"
  for phase in "critical init" "parallel init" "service ready"; do
    [[ $output =~ "Phase \"$phase\" took "[0-9.]+" " ]]
  done
  [ "$(state '.children | map(.name) | join(" ")')" = "chromadb egress relay services tmux dashboard" ]
}

@test "the parent's tmux server answers" {
  docker exec "$parent" tmux -L hal9000 has-session -t hal9000
}

@test "a killed ChromaDB restarts within 10 seconds with its data, and the log shows it" {
  body='{"name":"survivor"}'
  base=/api/v2/tenants/default_tenant/databases/default_database/collections
  http "$parent" POST "$base" "$body"
  docker exec "$parent" pkill -9 -f chroma.mjs
  wait_for 10 heartbeat "$parent"
  http "$parent" GET "$base/survivor"
  http "$parent" DELETE "$base/survivor"
  [ "$(state '.children[] | select(.name == "chromadb").restarts')" -ge 1 ]
  docker logs "$parent" 2>&1 | grep "chromadb was ended by SIGKILL; restarting it"
}

@test "two running workers still reach ChromaDB after daemon restart, without a restart" {
  for name in w1-$$ w2-$$; do spawn -n "$name" "$(make_project "$name")"; done
  before=$(inspect w1-$$ '{{.State.StartedAt}}')$(inspect w2-$$ '{{.State.StartedAt}}')
  parent_before=$(inspect "$parent" '{{.Id}}')
  "$scripts/claudy.ts" daemon restart
  [ "$(inspect "$parent" '{{.Id}}')" != "$parent_before" ]
  wait_for 20 heartbeat w1-$$
  heartbeat w2-$$
  [ "$(inspect w1-$$ '{{.State.StartedAt}}')$(inspect w2-$$ '{{.State.StartedAt}}')" = "$before" ]
}

@test "the parent shuts down cleanly within 5 seconds" {
  start=$(date +%s%N)
  docker stop -t 10 "$parent"
  [ $((($(date +%s%N) - start) / 1000000)) -lt 5000 ]
  [ "$(inspect "$parent" '{{.State.ExitCode}}')" = 0 ]
  docker logs "$parent" 2>&1 | tail -n 1 | grep Stopped
}

@test "daemon start starts what an engine restart left stopped" {
  docker stop -t 5 "$parent"
  docker kill "$net"
  "$scripts/claudy.ts" daemon start
  wait_for 20 heartbeat "$parent"
}

@test "daemon stop keeps running workers and their network; the next start finds them" {
  spawn -n w4-$$ "$(make_project w4)"
  run -0 "$scripts/claudy.ts" daemon stop
  [[ $output == *"Workers still running: w4-$$"* ]]
  [ "$(inspect w4-$$ '{{.State.Running}}')" = true ]
  [ "$(inspect "$net" '{{.State.Running}}')" = true ]
  run -1 docker inspect "$parent"
  run -4 spawn "$(make_project w5)"
  [[ $output == *"the parent is not running"*"claudy daemon start"* ]]
  "$scripts/claudy.ts" daemon start
  wait_for 20 heartbeat w4-$$
}

@test "daemon stop leaves no container if there are no workers" {
  "$scripts/claudy.ts" daemon stop
  [ -z "$(docker ps --all --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX")" ]
}

@test "daemon start and stop are refused in the parent" {
  for action in start stop restart; do
    run -2 docker exec "$parent" /scripts/claudy daemon "$action"
    [[ $output == *"Run this on the host"* ]]
  done
}

@test "a home serves one instance" {
  HAL9000_PREFIX=hal9000-test-other run -5 "$scripts/claudy.ts" daemon start
  [[ $output == *"belongs to instance \"$HAL9000_PREFIX\""* ]]
  [ -z "$(docker ps --all --quiet --filter label=hal9000.instance=hal9000-test-other)" ]
}

@test "init-volumes is idempotent" {
  modes() { jq -c ".directories | map([.path, .mode])"; }
  run -0 --separate-stderr "$scripts/init-volumes.ts" --json
  first=$(modes <<<"$output")
  run -0 --separate-stderr "$scripts/init-volumes.ts" --json
  [ "$(modes <<<"$output")" = "$first" ]
  [ "$(stat -c %a "$HAL9000_HOME/config/hal9000.conf")" = 600 ]
  [ "$(jq -r '.volumes | map(.name) | join(" ")' <<<"$output")" = \
    "$HAL9000_PREFIX-chromadb $HAL9000_PREFIX-plugins $HAL9000_PREFIX-memorybank" ]
  [ "$(stat -c %a "$HAL9000_HOME")" = 700 ]
  touch "$HAL9000_HOME/memorybank/note"
  docker exec "$parent" test -e /data/memory-bank/note
}

@test "a paused worker counts as running, and its network stays" {
  "$scripts/claudy.ts" daemon start
  spawn -n paused-$$ "$(make_project app)"
  docker pause paused-$$
  run -5 "$scripts/claudy.ts" daemon restart --publish 3999:3999
  "$scripts/claudy.ts" daemon stop
  [ "$(inspect "$net" '{{.State.Running}}')" = true ]
  run -5 "$scripts/coordinator.ts" attach paused-$$
  [[ $output == *"is paused"* ]]
  docker unpause paused-$$
  "$scripts/claudy.ts" daemon start
}

@test "--publish makes a worker's server reachable from the host, on loopback only" {
  "$scripts/claudy.ts" daemon stop
  port=$(free_port)
  "$scripts/claudy.ts" daemon start --publish "$port:3999"
  spawn -n server-$$ "$(make_project app)"
  docker exec --detach "$net" deno eval --no-lock \
    'Deno.serve({ port: 3999, hostname: "0.0.0.0" }, () => new Response("open the doors"))'
  fetched() { [ "$(node -e 'fetch("http://127.0.0.1:'"$port"'").then((r) => r.text()).then(console.log)')" = "open the doors" ]; }
  wait_for 10 fetched
  [ "$(inspect "$net" '{{(index (index .NetworkSettings.Ports "3999/tcp") 0).HostIp}}')" = 127.0.0.1 ]
  [ "$("$scripts/claudy.ts" daemon status --json | jq -r '.published[0]')" = "127.0.0.1:$port -> 3999/tcp" ]
  run -5 "$scripts/claudy.ts" daemon start --publish 14000:4000
  stop_workers
  "$scripts/claudy.ts" daemon stop
}

@test "daemon logs shows the parent's log" {
  run -0 "$scripts/claudy.ts" daemon logs
  [[ $output == *'Ready after'* ]]
  run -0 "$scripts/claudy.ts" daemon logs --tail 1
  [ "${#lines[@]}" = 1 ]
}
