# Warm workers: the pool, claims, and both after a kill.

load ../helper/load

setup_file() {
  start_instance
  "$scripts/pool-manager.ts" start --min-warm 2 --max-warm 10 >/dev/null
}

setup() {
  nsenter=$HAL9000_PREFIX-nsenter
  "$scripts/pool-manager.ts" start --min-warm 2 --max-warm 10 --idle-timeout 300 --check-interval 30 >/dev/null
  "$scripts/pool-manager.ts" warm >/dev/null
}

teardown() {
  after_failure
  stop_workers
  restore_image
  while read -r mounted; do as_root umount "$mounted"; done < <(mounts_here)
}

pool() { "$scripts/pool-manager.ts" "$@"; }
pool_json() { pool status --json | jq -r "$1"; }
claim() { "$scripts/spawn-worker.ts" --detach --warm-only "$@"; }
ask() { as_root "$deno" run -A --no-lock --node-modules-dir=manual "$repo/tests/helper/ask.ts" "$@"; }
deno=$(echo "$repo"/node_modules/@deno/*/deno)

restore_image() {
  docker image inspect "$HAL9000_IMAGE_REPO:saved" >/dev/null 2>&1 || return 0
  docker tag "$HAL9000_IMAGE_REPO:saved" "$HAL9000_IMAGE_REPO:worker"
  docker rmi "$HAL9000_IMAGE_REPO:saved" >/dev/null
}

# Mount points on the host below the projects.
mounts_here() { mounts_below "$HAL9000_PROJECT_ROOTS"; }

born_warm() { # born_warm TEMPLATE: lists all containers that were created warm
  docker ps --all --no-trunc --format "$1" --filter "label=hal9000.instance=$HAL9000_PREFIX" \
    --filter label=hal9000.born=warm
}
claimed() { born_warm '{{.Names}}' | grep -v -- "^$HAL9000_PREFIX-warm-" | sort; }
full() { [ "$(pool_json '.warm | length')" -ge "$(pool_json .minWarm)" ]; }

@test "mounts of a claim are nosuid and nodev" {
  claim -n guarded-$$ "$(make_project guarded)"
  for target in /workspace /home/claude/.claude; do
    docker exec guarded-$$ cat /proc/self/mountinfo | awk -v at="$target" '$5 == at { print $6 }' |
      grep -q 'nosuid,nodev'
  done
  run docker exec guarded-$$ chmod u+s /workspace
  [[ $output == *"Operation not permitted"* ]]
  run ! docker exec guarded-$$ sh -c "echo 6.6.6.6 evil >>/etc/hosts"
}

@test "status prints the words that scripts rely on" {
  run -0 pool status
  for words in "Worker Pool Status" "Warm (ready):" "Busy (in use):" "Min warm:" "Max warm:" \
    "Idle timeout:" "Resource Limits"; do
    [[ $output == *"$words"* ]]
  done
  [ "$(pool_json .unavailable)" = null ]
  [ "$(inspect "$nsenter" '{{if .State.Health}}checked{{end}}')" = "" ]
  [ "$("$scripts/claudy.ts" pool status --json | jq .minWarm)" = 2 ]
}

@test "every command shows a claimed worker with its name and project" {
  project=$(make_project claimed)
  echo content >"$project/file"
  run -0 --separate-stderr "$scripts/spawn-worker.ts" -d -n mine-$$ --json "$project"
  [ "$(jq -r .start <<<"$output")" = warm ]
  [ "$(jq -r .project <<<"$output")" = "$project" ]
  [ "$(docker exec mine-$$ cat file)" = content ]
  [ "$(docker exec mine-$$ stat -c %a:%u /home/claude/.claude)" = "700:$(id -u)" ]
  docker exec mine-$$ claude --version
  [[ $("$scripts/coordinator.ts" list) == *mine-$$*"$project"* ]]
  [ "$("$scripts/coordinator.ts" count)" = 1 ]
  [[ $("$scripts/coordinator.ts" status) == *mine-$$*"$project"* ]]
  [ "$(pool_json '.busy[0].name')" = mine-$$ ]
  heartbeat mine-$$
  "$scripts/coordinator.ts" stop mine-$$
  [ "$(claimed)" = "" ]
  [ -z "$(ls "$HAL9000_HOME/pool/claims")" ]
  [ "$(cat "$project/file")" = content ]
}

@test "docker exec in the parent can claim too" {
  project=$(make_project claimed)
  run -0 --separate-stderr docker exec "$parent" /scripts/spawn-worker -d --json "$project"
  [ "$(jq -r .start <<<"$output")" = warm ]
  [ "$(docker exec "$(jq -r .name <<<"$output")" pwd)" = /workspace ]
}

@test "pool claim prints the worker's name" {
  project=$(make_project claimed)
  name=$(pool claim "$project")
  [ "$(claimed)" = "$name" ]
  [[ $name == "$HAL9000_PREFIX-worker-"* ]]
}

@test "the pool is back at its minimum within 2 s of a claim" {
  project=$(make_project claimed)
  claim "$project"
  wait_for 2 full
}

# bats test_tags=soak
@test "50 concurrent claims on 10 warm workers give no worker to two owners" {
  project=$(make_project claimed)
  pool start --min-warm 10 >/dev/null
  for _ in $(seq "$soak"); do
    pool warm >/dev/null
    [ "$(pool_json '.warm | length')" = 10 ]
    rm -f "$BATS_TEST_TMPDIR"/id.*
    pids=()
    for i in $(seq 50); do
      "$scripts/spawn-worker.ts" -d --warm-only "$project" >"$BATS_TEST_TMPDIR/id.$i" 2>/dev/null 3>&- &
      pids+=($!)
    done
    wait "${pids[@]}" || true
    got=$(cat "$BATS_TEST_TMPDIR"/id.* | wc -l)
    [ "$got" -ge 10 ]
    [ "$(cat "$BATS_TEST_TMPDIR"/id.* | sort -u | wc -l)" = "$got" ]
    # No claim leaked: exactly the returned workers are claimed, once claims of clients that
    # left are taken back.
    none_leaked() { [ "$(claimed | wc -l)" = "$got" ]; }
    wait_for 10 none_leaked
    stop_workers
  done
}

claim_request() { # claim_request ID PROJECT
  jq -nc --arg id "$1" --arg directory "$2" --arg instance "$HAL9000_PREFIX" \
    --arg image "$HAL9000_IMAGE_REPO:worker" \
    '{version: 3, op: "claim", id: $id, instance: $instance, directory: $directory, image: $image,
      allowAnyPath: false, relay: "any", limits: {memoryBytes: 4294967296, cpus: 2, pids: 100}}'
}

@test "takes back a claim that is not kept, and answers a repeated claim with the same worker" {
  project=$(make_project claimed)
  request=$(claim_request 00000000-0000-4000-8000-000000000000 "$project")
  ask "$HAL9000_HOME/run/pool.sock" "$request" "$request" >"$BATS_TEST_TMPDIR/replies"
  [ "$(jq -r .worker.id "$BATS_TEST_TMPDIR/replies" | sort -u | wc -l)" = 1 ]
  [ "$(claimed | wc -l)" = 1 ]
  free() { [ -z "$(claimed)" ]; }
  wait_for 10 free
  [ "$(find "$HAL9000_HOME/sessions" -maxdepth 1 -name '*.json' | wc -l)" = 0 ]
}

@test "a new manager keeps confirmed claims and takes back unconfirmed ones" {
  project=$(make_project claimed)
  for id in 1 2; do
    ask "$HAL9000_HOME/run/pool.sock" "$(claim_request 00000000-0000-4000-8000-00000000000$id "$project")"
  done | jq -r .worker.id >"$BATS_TEST_TMPDIR/ids"
  { read -r kept; read -r lent; } <"$BATS_TEST_TMPDIR/ids"
  docker exec "$parent" pkill -9 -f "/scripts/pool-manager serve"
  mv "$HAL9000_HOME/pool/claims/$kept.loan" "$HAL9000_HOME/pool/claims/$kept.json"
  rm "$HAL9000_HOME/sessions/$(inspect "$kept" '{{.Name}}').json" # as if the manager had been killed before it wrote the record
  free() { ! docker inspect "$lent" >/dev/null 2>&1; }
  wait_for 15 free
  [ "$(docker ps --no-trunc --quiet --filter "id=$kept")" = "$kept" ]
  [ "$(claimed | wc -l)" = 1 ]
  [ "$(jq -r .container "$HAL9000_HOME"/sessions/*.json)" = "$kept" ]
}

@test "rejects garbage on the socket and keeps working" {
  run -0 ask "$HAL9000_HOME/run/pool.sock" '{"version":1,"op":"status"}' '{"version":3,"op":"rm"}' \
    '{"version":3,"op":"claim"}' '{"version":3,"op":"scale","warm":-1}' '{"version":3,"op":"cold","reason":"x"}'
  [ "$(grep -c '^error: The pool was sent' <<<"$output")" = 4 ]
  [[ $output == *"different versions"* ]]
  claim "$(make_project claimed)"
}

@test "spawns cold with the reason if a claim is not possible" {
  project=$(make_project claimed)
  touch "$project/x"
  reason() { "$scripts/spawn-worker.ts" -d --json "$@" | jq -r '.start + ": " + .reason'; }
  [ "$(reason --cold "$project")" = "cold: asked for" ]
  [ "$(reason --env A=b "$project")" = "cold: variables" ]
  [ "$(reason --mount "$project:/data" "$project")" = "cold: further mounts" ]
  [ "$(reason --secret A="$project/x" "$project")" = "cold: secrets" ]
  [ "$(reason --no-limits "$project")" = "cold: no limits" ]
  [ "$(reason "$project" -- sleep 60)" = "cold: a command of its own" ]
  [ "$(reason -i "$HAL9000_IMAGE_REPO:worker-ultramin" "$project")" = "cold: another image" ]
  theirs=$HAL9000_PROJECT_ROOTS/theirs
  mkdir -p "$theirs"
  as_root chown 1234:2345 "$theirs"
  # On the host, only root may spawn for another owner.
  [ "$(docker exec "$parent" /scripts/spawn-worker -d --json "$theirs" | jq -r .reason)" = "the project has another owner" ]
  outside=$(mktemp -d "$HAL9000_TEST_ROOT/outside.XXXX")
  [ "$(reason "$outside")" = "cold: outside of the project roots" ]
  [ "$(pool_json '.metrics.claims.cold."another image"')" -ge 1 ]
  [ "$(pool_json '.metrics.claims.cold.variables')" -ge 1 ]
}

@test "--warm-only fails if there is nothing to claim" {
  project=$(make_project claimed)
  pool drain
  run -7 claim "$project"
  [[ $output == *"No warm worker to claim: the pool is empty"* ]]
  [ "$("$scripts/spawn-worker.ts" -d --json "$project" | jq -r .reason)" = "the pool is empty" ]
}

@test "a claim cannot take over a name that is in use" {
  project=$(make_project claimed)
  claim -n taken-$$ "$project"
  run -5 "$scripts/spawn-worker.ts" -d -n taken-$$ "$project"
  docker run --detach --name "$HAL9000_PREFIX-other" --entrypoint sleep "$HAL9000_IMAGE_REPO:worker" 60
  before=$(claimed)
  run -7 claim -n "$HAL9000_PREFIX-other" "$project"
  [[ $output == *"name is taken"* ]]
  docker rm -f "$HAL9000_PREFIX-other"
  [ "$(claimed)" = "$before" ]
  wait_for 5 full
}

@test "sets other limits on the claimed worker" {
  claim -n tight-$$ --memory 512m --cpus 0.5 --pids-limit 50 "$(make_project claimed)"
  [ "$(inspect tight-$$ '{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}')" = \
    "536870912 536870912 500000000 50" ]
}

@test "a claimed worker sees only its project and its home" {
  project=$(make_project claimed)
  other=$(make_project other)
  claim -n one-$$ "$project"
  claim -n two-$$ "$other"
  # Lists the worker's mounts whose source is below the test's directory.
  seen() { docker exec "$1" sed 's/.* - //' /proc/self/mountinfo >/dev/null; docker exec "$1" cat /proc/self/mountinfo |
    awk -v root="$HAL9000_TEST_ROOT" 'index($4, root) { print $5 }' | sort -u | xargs; }
  [ "$(seen one-$$)" = "/config/claude /etc/group /etc/hostname /etc/hosts /etc/passwd /etc/resolv.conf /home/claude/.claude /run/hal9000/credentials /workspace" ]
  docker exec one-$$ sh -c 'echo from one >/workspace/f; echo kept >/home/claude/.claude/f'
  [ "$(cat "$project/f")" = "from one" ]
  run ! docker exec two-$$ cat /workspace/f
  run ! docker exec two-$$ cat /home/claude/.claude/f
  # Nothing is mounted on the host or in the parent.
  [ -z "$(mounts_here)" ]
  run ! docker exec "$parent" grep -F "/workspace" /proc/self/mountinfo
}

@test "files made in a claimed worker belong to the project's owner; git and whoami work" {
  project=$(make_project repo)
  git -C "$project" init --quiet
  claim -n git-$$ "$project"
  docker exec git-$$ touch made
  [ "$(owner_of "$project/made")" = "$(owner_of "$project")" ]
  [[ $(docker exec git-$$ git status --short) == *"?? made"* ]]
  name=claude
  [ "$(id -u)" != 0 ] || name=root
  [ "$(docker exec git-$$ whoami)" = "$name" ]
}

@test "follows a link to a project, and refuses a link to elsewhere" {
  project=$(make_project claimed)
  echo content >"$project/file"
  ln -sfn "$project" "$HAL9000_PROJECT_ROOTS/link"
  claim -n linked-$$ "$HAL9000_PROJECT_ROOTS/link"
  [ "$(docker exec linked-$$ cat file)" = content ]
  [ "$(jq -r .project.path "$HAL9000_HOME/sessions/linked-$$.json")" = "$project" ]
  for target in "$HAL9000_HOME/workers" "$HAL9000_HOME" /etc; do
    ln -sfn "$target" "$HAL9000_PROJECT_ROOTS/trap"
    run "$scripts/spawn-worker.ts" -d -n trapped-$$ "$HAL9000_PROJECT_ROOTS/trap"
    [ "$status" != 0 ]
    run -1 docker inspect trapped-$$
  done
}

@test "nsenter refuses links, paths outside of the roots, other owners and other containers" {
  project=$(make_project claimed)
  ln -sfn "$HAL9000_HOME" "$project/trap"
  mkdir -p "$HAL9000_HOME/secrets/inner"
  worker=$(docker ps --no-trunc --quiet --filter "name=$HAL9000_PREFIX-warm-" | head -1)
  pid=$(inspect "$worker" '{{.State.Pid}}')
  mark=$(inspect "$worker" '{{json .Config.Env}}' | jq -r '.[] | select(startswith("HAL9000_WORKER_MARK="))')
  attach() { # attach MARK PID SOURCE UID
    jq -nc --arg mark "$1" --argjson pid "$2" --arg source "$3" --argjson uid "$4" \
      '{op: "attach", mark: $mark, pid: $pid, attachments:
        [{source: $source, target: "/workspace", readOnly: false, uid: $uid, gid: 0}]}'
  }
  run -0 ask "$HAL9000_HOME/run/nsenter/nsenter.sock" \
    "$(attach "$mark" "$pid" "$project/trap/secrets" 0)" \
    "$(attach "$mark" "$pid" "$HAL9000_PROJECT_ROOTS/../home/secrets" 0)" \
    "$(attach "$mark" "$pid" "$HAL9000_HOME/secrets" 0)" \
    "$(attach "$mark" "$pid" /etc 0)" \
    "$(attach "$mark" "$pid" "$project" 77)" \
    "$(attach "$mark" "$pid" "$project/gone" 0)" \
    "$(attach "$mark" $$ "$project" 0)" \
    "$(attach "${mark}0" "$pid" "$project" 0)"
  [ "${lines[0]}" = "error: openat2: ELOOP" ]
  for line in 1 2 3; do [[ ${lines[line]} == "error: "*"outside of the project roots" ]]; done
  [[ ${lines[4]} == *"belongs to $(owner_of "$project"), not to 77:0" ]]
  [ "${lines[5]}" = "error: openat2: ENOENT" ]
  for line in 6 7; do [ "${lines[line]}" = "error: the worker has ended" ]; done
  run ! docker exec "$worker" grep -F " /workspace " /proc/self/mountinfo
  [ -z "$(mounts_here)" ]
}

@test "includes mounts of the host below a project, read-only ones as read-only" {
  project=$(make_project nested)
  mkdir -p "$project/ro" "$project/rw"
  # Mounted after nsenter started: it uses the host's current mounts.
  as_root mount -t tmpfs none "$project/rw"
  as_root mount -t tmpfs none "$project/ro"
  touch "$project/ro/there" "$project/rw/there"
  as_root mount -o remount,ro "$project/ro"
  claim -n nested-$$ "$project"
  docker exec nested-$$ touch /workspace/made /workspace/rw/made
  docker exec nested-$$ test -e /workspace/ro/there
  run ! docker exec nested-$$ touch /workspace/ro/made
  [[ $output == *"Read-only file system"* ]]
}

@test "a read-only project stays read-only" {
  project=$(make_project readonly)
  as_root mount -t tmpfs -o "ro,uid=$(id -u),gid=$(id -g)" none "$project"
  claim -n readonly-$$ "$project"
  run ! docker exec readonly-$$ touch /workspace/made
}

@test "claims for a project on a file system that was mounted after the pool started" {
  project=$(make_project late)
  as_root mount -t tmpfs -o "uid=$(id -u),gid=$(id -g)" none "$project"
  echo content >"$project/file"
  claim -n late-$$ "$project"
  [ "$(docker exec late-$$ cat file)" = content ]
}

@test "claims for paths with any characters" {
  long=$(printf 'x%.0s' {1..200})
  for name in "with space" "it's \"quoted\"" 'dollar $HOME `id`' "ünïcødé 名前" "$long" "-dash" "new
line"; do
    project=$(make_project "$name")
    echo "$name" >"$project/file"
    id=$(claim "$project")
    [ "$(docker exec "$id" cat file)" = "$name" ]
    docker exec "$id" sh -c 'echo more >>file'
    [ "$(tail -1 "$project/file")" = more ]
  done
}

@test "refuses a claim for a deleted project, and lists and stops a worker whose project was deleted" {
  project=$(make_project deleted)
  claim -n deleted-$$ "$project"
  rmdir "$project"
  run -4 "$scripts/spawn-worker.ts" -d -n none "$project"
  [[ $output == *"there is no such file or directory"* ]]
  [[ $("$scripts/coordinator.ts" list) == *deleted-$$* ]]
  "$scripts/coordinator.ts" stop deleted-$$
  [ -z "$(claimed)" ]
}

@test "a restarted claimed worker gets its project back" {
  project=$(make_project claimed)
  echo content >"$project/file"
  claim -n again-$$ "$project"
  docker restart --time 1 again-$$
  there() { [ "$(docker exec again-$$ cat /workspace/file)" = content ]; }
  wait_for 5 there
}

@test "a claimed worker that restarts while the parent is down gets its project back" {
  project=$(make_project claimed)
  echo content >"$project/file"
  claim -n while-$$ "$project"
  docker stop --time 1 "$parent"
  docker restart --time 1 while-$$
  run ! docker exec while-$$ cat /workspace/file
  "$scripts/claudy.ts" daemon start >/dev/null
  there() { [ "$(docker exec while-$$ cat /workspace/file)" = content ]; }
  wait_for 20 there
  [ "$(docker exec while-$$ grep -c " /workspace " /proc/self/mountinfo)" = 1 ]
}

@test "restores the lost record of a claimed worker from its claim" {
  project=$(make_project claimed)
  claim -n lost-$$ "$project"
  rm "$HAL9000_HOME/sessions/lost-$$.json"
  "$scripts/spawn-worker.ts" -d --cold -n other-$$ "$project"
  docker kill other-$$
  wait_for 15 test -e "$HAL9000_HOME/sessions/lost-$$.json"
  [ "$(jq -r .project.path "$HAL9000_HOME/sessions/lost-$$.json")" = "$project" ]
}

@test "scale requires a number and caps it at the maximum" {
  run -2 pool scale abc
  [[ $output == *"must be a whole number"* ]]
  run -2 pool scale
  run -2 pool scale -- -1
  run -0 pool scale 99
  [[ $output == *"exceeds max"* ]]
  [ "$(pool_json .minWarm)" = 10 ]
  run -0 pool scale 1
  [ "$(pool_json '.warm | length')" = 1 ]
  run -2 pool start --min-warm 6 --max-warm 3
  [[ $output == *"exceeds the maximum"* ]]
  run -2 pool status --min-warm 3
  run -2 pool start --idle-timeout 0
}

@test "removes idle workers above the minimum after the idle timeout" {
  pool start --min-warm 4 >/dev/null
  pool warm >/dev/null
  pool start --min-warm 1 --idle-timeout 2 --check-interval 1 >/dev/null
  one() { [ "$(pool_json '.warm | length')" = 1 ]; }
  wait_for 10 one
  sleep 2
  one
}

@test "replaces a warm worker that dies at once" {
  victim=$(pool_json '.warm[0].name')
  docker kill "$victim"
  gone() { ! docker inspect "$victim" && full; }
  wait_for 5 gone
}

@test "replaces warm workers when the image changes" {
  project=$(make_project claimed)
  before=$(pool_json '.warm[].id')
  docker tag "$HAL9000_IMAGE_REPO:worker" "$HAL9000_IMAGE_REPO:saved"
  printf 'FROM %s:saved\nLABEL changed=true\n' "$HAL9000_IMAGE_REPO" |
    docker build --quiet --tag "$HAL9000_IMAGE_REPO:worker" -
  pool warm
  after=$(pool_json '.warm[].id')
  claim -n changed-$$ "$project"
  label=$(inspect changed-$$ '{{index .Config.Labels "changed"}}')
  [ "$label" = true ]
  run ! grep -F "$before" <<<"$after"
}

@test "drain, cleanup and stop keep claimed workers" {
  project=$(make_project claimed)
  claim -n stays-$$ "$project"
  pool start --check-interval 1 >/dev/null
  pool cleanup
  pool drain
  sleep 2 # the next check of the pool creates none either
  [ "$(pool_json '.warm | length')" = 0 ]
  pool stop
  # It still opens the services.
  [ "$(inspect "$nsenter" '{{.State.Running}}')" = true ]
  [ "$(pool_json .running)" = false ]
  [ "$(born_warm '{{.Names}}')" = stays-$$ ]
  docker exec stays-$$ touch /workspace/still
  run -4 pool drain
  [[ $output == *"The pool is not running"* ]]
  "$scripts/claudy.ts" daemon restart >/dev/null
  sleep 1
  [ "$(pool_json .running)" = false ]
  [ "$("$scripts/spawn-worker.ts" -d --json "$project" | jq -r .reason)" = "the pool is not running" ]
}

# bats test_tags=soak
@test "the pool works when it is stopped and started again at once" {
  for _ in $(seq "$soak"); do
    pool stop
    pool start >/dev/null
    pool warm >/dev/null
    claim "$(make_project claimed)"
  done
}

@test "claimed workers survive daemon restart; daemon stop removes warm workers" {
  project=$(make_project claimed)
  claim -n stays-$$ "$project"
  "$scripts/claudy.ts" daemon restart >/dev/null
  wait_for 10 full
  claim -n more-$$ "$project"
  "$scripts/claudy.ts" daemon stop
  [ "$(born_warm '{{.Names}}' | sort | xargs)" = "more-$$ stays-$$" ]
  [ "$(inspect "$nsenter" '{{.State.Running}}')" = true ]
  "$scripts/claudy.ts" daemon start >/dev/null
  wait_for 10 full
  docker exec stays-$$ touch /workspace/still
}

# Claims continuously while processes are killed; the ids of the claimed workers are in
# $BATS_TEST_TMPDIR/got.
storm() { # storm COMMAND...: runs COMMAND at least twice meanwhile
  pids=()
  for client in 1 2 3 4; do
    until [ -e "$BATS_TEST_TMPDIR/over" ]; do
      "$scripts/spawn-worker.ts" -d --warm-only "$ground" 2>/dev/null >>"$BATS_TEST_TMPDIR/got.$client" || true
    done 3>&- &
    pids+=($!)
  done
  for _ in $(seq 0 "$soak"); do
    sleep 1
    "$@"
  done
  touch "$BATS_TEST_TMPDIR/over"
  wait "${pids[@]}"
  cat "$BATS_TEST_TMPDIR"/got.* >"$BATS_TEST_TMPDIR/got"
}

settled() { # what must be true some time after a storm
  full && [ "$(claimed | wc -l)" = "$(wc -l <"$BATS_TEST_TMPDIR/got")" ] &&
    [ "$(find "$HAL9000_HOME/sessions" -maxdepth 1 -name '*.json' | wc -l)" = "$(claimed | wc -l)" ]
}

# Prints details of claimed workers that no client received.
blame() {
  pool status
  while read -r id; do
    grep -qF "$id" "$BATS_TEST_TMPDIR/got" && continue
    echo "Nobody has $id:"
    docker ps --all --filter "id=$id"
    docker top "$id"
    ls -l --time-style=full-iso "$HAL9000_HOME"/pool/claims/"$id".*
    grep -lF "$id" "$HAL9000_HOME"/sessions/*.json
  done < <(born_warm '{{.ID}} {{.Names}}' | grep -v "$HAL9000_PREFIX-warm-" | cut -d' ' -f1)
  docker logs --tail 20 "$parent"
  tail -40 "$HAL9000_HOME/logs/parent/pool.log"
} 2>&1

stormed() { # stormed: each returned worker runs on its project; nothing else is left
  # Claims still work, even if only a few succeeded meanwhile.
  again() { "$scripts/spawn-worker.ts" -d --warm-only "$ground" >"$BATS_TEST_TMPDIR/again"; }
  wait_for 60 again
  cat "$BATS_TEST_TMPDIR/again" >>"$BATS_TEST_TMPDIR/got"
  wait_for 30 settled || { blame; false; }
  [ "$(sort -u "$BATS_TEST_TMPDIR/got" | wc -l)" = "$(wc -l <"$BATS_TEST_TMPDIR/got")" ]
  while read -r id; do
    [ "$(docker exec "$id" cat /workspace/sum)" = "$(cat "$ground/sum")" ]
  done <"$BATS_TEST_TMPDIR/got"
  (cd "$ground" && sha256sum --check --quiet sum)
  [ -z "$(mounts_here)" ]
  run ! docker exec "$parent" grep -F /workspace /proc/self/mountinfo
}

storm_project() {
  ground=$(make_project stormed)
  for i in $(seq 50); do head -c 1000 /dev/urandom >"$ground/file$i"; done
  (cd "$ground" && sha256sum file* >sum)
}

# bats test_tags=soak
@test "survives kill -9 of the manager during many claims" {
  storm_project
  # It may be down: it is restarted after a pause.
  manager() { docker exec "$parent" pkill -9 -f "/scripts/pool-manager serve" || true; }
  storm manager
  stormed
}

# bats test_tags=soak
@test "survives kill -9 of nsenter during many claims" {
  storm_project
  kill_nsenter() { docker kill --signal KILL "$nsenter" || true; }
  storm kill_nsenter
  stormed
}

# bats test_tags=soak
@test "survives kill -9 of the parent during many claims" {
  storm_project
  kill_parent() {
    kill_container "$parent" || true
  }
  storm kill_parent
  stormed
}

@test "prune, clean and rm -rf delete no project file of claimed workers" {
  storm_project
  claim -n alive-$$ "$ground"
  # Only this instance's volumes.
  docker volume prune --force --filter "label=hal9000.instance=$HAL9000_PREFIX"
  run -5 "$scripts/init-volumes.ts" --clean --yes
  pool cleanup
  "$scripts/claudy.ts" daemon stop
  run -5 "$scripts/init-volumes.ts" --clean --yes
  rm -rf "$HAL9000_HOME"
  (cd "$ground" && sha256sum --check --quiet sum)
  [ "$(docker exec alive-$$ cat /workspace/sum)" = "$(cat "$ground/sum")" ]
  docker rm --force alive-$$
  (cd "$ground" && sha256sum --check --quiet sum)
  "$scripts/claudy.ts" daemon start >/dev/null
}

@test "an nsenter container that may not mount reports the reason" {
  dir=$(mktemp -d "$BATS_TEST_TMPDIR/run.XXXX")
  docker run --detach --name "$HAL9000_PREFIX-weak" --label "hal9000.instance=$HAL9000_PREFIX" \
    --label hal9000.role=helper --pid host --network none --cap-drop ALL --cap-add SYS_PTRACE --cap-add DAC_OVERRIDE \
    --tmpfs /tmp --env DENO_DIR=/tmp/deno --env "NSENTER_RUN=$dir" --env "HAL9000_PROJECT_ROOTS=/" \
    --volume "$dir:/run/nsenter" --entrypoint /scripts/nsenter "$HAL9000_IMAGE_REPO:parent"
  wait_for 10 test -S "$dir/nsenter.sock"
  run -0 ask "$dir/nsenter.sock" "{\"op\":\"test\",\"for\":\"mounts\",\"pid\":$(inspect "$parent" '{{.State.Pid}}'),\"mark\":\"HAL9000_PREFIX=$HAL9000_PREFIX\"}"
  docker rm -f "$HAL9000_PREFIX-weak"
  [[ $output == *"this machine does not allow mounts (Linux "*EPERM* ]]
}
