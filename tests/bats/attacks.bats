# Attacks by a worker, or by another user of the engine.

load ../helper/load

teardown() {
  after_failure
  docker ps --all --quiet --filter label=hal9000-test.foreign="$HAL9000_PREFIX" |
    xargs -r docker rm --force --volumes
  stop_workers
  "$scripts/claudy.ts" daemon start >/dev/null 2>&1
}

@test "root follows no link that a worker creates in its home" {
  project=$(make_project foreign)
  as_root chown 1234:2345 "$project"
  victim=$HAL9000_TEST_ROOT/victim
  echo precious >"$victim"
  # On the host, only root may spawn on projects of other owners.
  spawn_linker() { docker exec "$parent" /scripts/spawn-worker -d -n linker-$$ "$project"; }
  spawn_linker
  as_root "$(command -v node)" - "$victim" "$HAL9000_HOME"/workers/linker-* <<'JS'
const { rmSync, symlinkSync } = require("node:fs");
const [victim, home] = process.argv.slice(2);
rmSync(`${home}/.claude.json`);
symlinkSync(victim, `${home}/.claude.json`);
// Any process id that a temporary name could be made of.
for (let id = 1; id < 65536; id++) symlinkSync(victim, `${home}/.claude.json.${id}.tmp`);
JS
  "$scripts/coordinator.ts" stop linker-$$
  spawn_linker
  [ "$(cat "$victim")" = precious ]
  [ "$(stat -c %u "$victim")" = "$(id -u)" ]
  docker exec linker-$$ test -s /home/claude/.claude/.claude.json
}

@test "a forged record cannot delete other workers' homes" {
  "$scripts/spawn-worker.ts" -d -n honest-$$ "$(make_project app)"
  record=$HAL9000_HOME/sessions/honest-$$.json
  jq '.home = "workers/.." | .ephemeral = true' "$record" >"$BATS_TEST_TMPDIR/record"
  cp "$BATS_TEST_TMPDIR/record" "$record"
  "$scripts/coordinator.ts" stop honest-$$
  [ -d "$HAL9000_HOME/memorybank" ]
  [ -d "$HAL9000_HOME/workers" ]
}

@test "ignores a container that runs the parent's image but is not the parent" {
  docker run --detach --label hal9000-test.foreign="$HAL9000_PREFIX" \
    --label "hal9000.instance=$HAL9000_PREFIX" "$HAL9000_IMAGE_REPO:parent" sleep 1000
  spawn -n here-$$ "$(make_project app)"
  [ "$(inspect here-$$ '{{.HostConfig.NetworkMode}}')" = "container:$(inspect "$net" '{{.Id}}')" ]
  docker exec "$parent" /scripts/spawn-worker -d -n there-$$ "$(make_project app)"
  heartbeat there-$$
}

@test "daemon stop and restart leave a container with the parent's name but without its labels" {
  docker run --detach --name foreign-$$-parent --label hal9000-test.foreign="$HAL9000_PREFIX" \
    --entrypoint sleep "$HAL9000_IMAGE_REPO:worker" 1000
  for action in stop restart; do
    HAL9000_PREFIX=foreign-$$ HAL9000_HOME=$BATS_TEST_TMPDIR/home run -5 "$scripts/claudy.ts" daemon "$action"
    [[ $output == *"\"foreign-$$-parent\" is not this instance"* ]]
  done
  [ "$(inspect foreign-$$-parent '{{.State.Running}}')" = true ]
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
  docker kill "$HAL9000_PREFIX-mcp"
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
  docker exec "$net" /scripts/net set
  thief thief-$$ 0:0 8000
  taken() { docker kill "$HAL9000_PREFIX-mcp" >/dev/null; got thief-$$; }
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
  restarts() { "$scripts/claudy.ts" daemon status --json | jq '.children[] | select(.name == "chromadb").restarts'; }
  counted=$(restarts)
  hostile flood-$$ 0:0 chroma-flood.ts 200
  spawn -n victim-$$ "$(make_project victim)"
  begun() { docker logs flood-$$ | grep ^body; }
  wait_for 30 begun
  for _ in 1 2 3 4 5; do timeout 10 docker exec victim-$$ bash -c \
    'exec 3<>/dev/tcp/127.0.0.1/8000; printf "GET /api/v2/heartbeat HTTP/1.0\r\n\r\n" >&3; head -1 <&3 | grep " 200 "'; done
  stop_workers
  [ "$(restarts)" = "$counted" ]
  [ "$(inspect "$parent" '{{.State.StartedAt}}')" = "$before" ]
  [ "$(inspect "$HAL9000_PREFIX-mcp" '{{.State.OOMKilled}}')" = false ]
}

@test "the forwarder survives 2,500 connections with incomplete large bodies" {
  wait_for 30 docker exec "$parent" /scripts/healthcheck
  spawn -n victim-$$ "$(make_project victim)"
  state() { inspect "$HAL9000_PREFIX-mcp" '{{.State.StartedAt}} {{.State.OOMKilled}} {{.RestartCount}}'; }
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

@test "daemon start repairs an unreadable run/parent.json" {
  began() { date -d "$(inspect "$parent" '{{.State.StartedAt}}')" +%s; }
  long_ago() { [ "$(began)" -lt "$(date -d '-11 sec' +%s)" ]; }
  wait_for 15 long_ago # before that it may be starting
  echo junk >"$HAL9000_HOME/run/parent.json"
  run -0 timeout 30 "$scripts/claudy.ts" daemon start
  [[ $output == *"cannot be read"* ]]
  told() { [ "$("$scripts/claudy.ts" daemon status --json | jq '.phases | length')" = 3 ]; }
  wait_for 30 told
}

@test "refuses a second home for the same instance" {
  HAL9000_HOME=$BATS_TEST_TMPDIR/home run -5 "$scripts/claudy.ts" daemon start
  [[ $output == *"belongs to $HAL9000_HOME (see container $parent)"* ]]
}

@test "escapes control characters in project names" {
  project=$(make_project $'red\e[31m\nrow')
  spawn -n odd-$$ "$project"
  run -0 "$scripts/coordinator.ts" list
  [[ $output == *'red\x1b[31m\x0arow'* ]]
  [ "$("$scripts/coordinator.ts" list --json | jq -r '.[0].project')" = "$project" ]
}

@test "a worker cannot reach the engine's socket, another home or a device" {
  spawn -n curious-$$ "$(make_project app)"
  docker exec curious-$$ bash -c '
    [ ! -e /var/run/docker.sock ] && [ ! -e /root/.hal9000 ] && ! : >/etc/passwd &&
    ! mknod /tmp/sda b 8 0 && ! : >/proc/sys/kernel/core_pattern && ! : >/config/claude/x' 2>/dev/null
}

# Creates the record and the home of a stopped session.
keep_session() { # keep_session NAME PROJECT
  local now
  now=$(date -u +%FT%T.000Z)
  jq -n --arg name "$1" --arg project "$2" --arg now "$now" \
    '{version: 1, name: $name, project: $project, createdAt: $now, usedAt: $now}' \
    >"$HAL9000_HOME/sessions/kept/$1.json"
  mkdir -p "$HAL9000_HOME/claude/$1/projects/-workspace"
}

@test "commands stay fast with a Claude home full of files" {
  project=$(make_project full)
  keep_session full "$project"
  full_home=$HAL9000_HOME/claude/full
  (cd "$full_home/projects/-workspace" && seq -f %g.jsonl 130000 | xargs touch)
  truncate -s 3G "$full_home/settings.json" "$full_home/.claude.json"
  mkfifo "$full_home/CLAUDE.md"
  ln -s / "$full_home/agents"
  echo '{"model":"opus"}' >"$CLAUDE_HOME/settings.json"
  run -0 timeout 20 "$scripts/claudy.ts" sessions --json
  [[ $output == *'"name": "full"'* ]]
  # A previous version used 7 GB of memory for a file of 3 GB.
  run -0 bash -c "ulimit -v $((70 * 1024 ** 2)); timeout 20 '$scripts/claudy.ts' sessions sync full"
  [[ $output == *"kept (changed by the session): settings.json"* ]]
  run -0 timeout 30 "$scripts/claudy.ts" prune --sessions --older-than 0 --dry-run
  [[ $output == *session*full* ]]
  run -0 timeout 60 "$scripts/claudy.ts" sessions rm --yes full
  [ ! -e "$full_home" ]
  rm "$CLAUDE_HOME/settings.json"
}

@test "moves unexpected files below sessions/ aside without delaying commands" {
  project=$(make_project odd)
  keep_session well "$project"
  spawn -n well-too-$$ "$project"
  for directory in "$HAL9000_HOME/sessions" "$HAL9000_HOME/sessions/kept"; do
    mkdir "$directory/odd-directory.json"
    ln -s odd-link.json "$directory/odd-link.json"
    mkfifo "$directory/odd-pipe.json"
    truncate -s 3G "$directory/odd-sparse.json"
    touch -d '1 hour ago' "$directory/left.json.0123456789abcdef.tmp"
  done
  run -0 timeout 30 "$scripts/coordinator.ts" list
  [[ $output == *well-too-$$* ]]
  run -0 --separate-stderr timeout 30 "$scripts/claudy.ts" sessions --json
  jq -r '.[].name' <<<"$output" | grep -x well
  # shellcheck disable=SC2154
  [[ $stderr == *odd-*"it was moved to"* ]]
  run -0 timeout 30 "$scripts/claudy.ts" sessions
  # When a worker ends, the parent reads all records.
  docker kill well-too-$$
  tidy() { ! find "$HAL9000_HOME/sessions" -maxdepth 2 -name 'odd-[a-z]*.json' -o -maxdepth 2 -name '*.tmp' | grep .; }
  wait_for 20 tidy
  [ "$(find "$HAL9000_HOME/sessions/damaged" -name 'odd-[a-z]*' | wc -l)" = 8 ]
  [ "$(inspect "$parent" '{{.RestartCount}}')" = 0 ]
  rm -rf "$HAL9000_HOME"/sessions/damaged/odd-* "$HAL9000_HOME/sessions/kept/well.json" "$HAL9000_HOME/claude/well"
}

@test "refuses a path that leaves a project through a link" {
  project=$(make_project linked)
  elsewhere=$(make_project elsewhere)
  keep_session linked "$project"
  mkdir "$project/within"
  ln -s "$elsewhere" "$project/out"
  ln -s .. "$project/up"
  ln -s within "$project/in"
  ln -s "$project" "$HAL9000_PROJECT_ROOTS/alias"
  for path in "$project/out" "$project/up" "$project/up/elsewhere" "$HAL9000_PROJECT_ROOTS/alias/out"; do
    run -6 spawn -n led-$$ "$path"
    [[ $output == *"a link in project $project leads to"*--allow-any-path* ]]
  done
  run -6 "$scripts/claudy.ts" --detach --yes "$project/out"
  run -6 spawn -n led-$$ --mount "$project/out:/data" "$elsewhere"
  run -6 docker exec "$parent" /scripts/spawn-worker -d -n led-$$ "$project/out"
  spawn -n led-$$ --allow-any-path "$project/out"
  # Links that the user created, and links within the project, are allowed.
  spawn -n led-by-alias-$$ "$HAL9000_PROJECT_ROOTS/alias"
  spawn -n led-within-$$ "$project/in"
  rm -r "$HAL9000_PROJECT_ROOTS/alias" "$HAL9000_HOME/sessions/kept/linked.json" "$HAL9000_HOME/claude/linked"
}
