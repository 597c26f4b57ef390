# Warm workers: the pool, claims, and what becomes of both when something is killed.

load ../helper/load

setup_file() {
  start_instance
  "$scripts/pool-manager.ts" start --min-warm 2 --max-warm 10 >/dev/null
}

setup() {
  mounter=$HAL9000_PREFIX-mounter
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

# Mount points of the host below the projects.
mounts_here() { mounts_below "$HAL9000_PROJECT_ROOTS"; }

born_warm() { # born_warm TEMPLATE: of all containers that were made warm
  docker ps --all --no-trunc --format "$1" --filter "label=hal9000.instance=$HAL9000_PREFIX" \
    --filter label=hal9000.born=warm
}
claimed() { born_warm '{{.Names}}' | grep -v -- "^$HAL9000_PREFIX-warm-" | sort; }
full() { [ "$(pool_json '.warm | length')" -ge "$(pool_json .minWarm)" ]; }

@test "no set-uid file and no device works in what a claim attaches" {
  claim -n guarded-$$ "$(make_project guarded)"
  for target in /workspace /home/claude/.claude; do
    docker exec guarded-$$ cat /proc/self/mountinfo | awk -v at="$target" '$5 == at { print $6 }' |
      grep -q 'nosuid,nodev'
  done
  run docker exec guarded-$$ chmod u+s /workspace
  [[ $output == *"Operation not permitted"* ]]
  run ! docker exec guarded-$$ sh -c "echo 6.6.6.6 evil >>/etc/hosts"
}

@test "status has the words that scripts know" {
  run -0 pool status
  for words in "Worker Pool Status" "Warm (ready):" "Busy (in use):" "Min warm:" "Max warm:" \
    "Idle timeout:" "Resource Limits"; do
    [[ $output == *"$words"* ]]
  done
  [ "$(pool_json .unavailable)" = null ]
  [ "$(inspect "$mounter" '{{if .State.Health}}checked{{end}}')" = "" ]
  [ "$("$scripts/claudy.ts" pool status --json | jq .minWarm)" = 2 ]
}

@test "a claim is a worker on the project under its name, in every command" {
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

@test "docker exec in the parent claims as well" {
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

@test "within 2 s of a claim the pool is at its minimum again" {
  project=$(make_project claimed)
  claim "$project"
  wait_for 2 full
}

# bats test_tags=soak
@test "50 claims at once on 10 warm workers, again and again: none has two owners" {
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
    # No lease leaked: what is claimed is what was handed out, once a claim whose
    # client left is taken back.
    none_leaked() { [ "$(claimed | wc -l)" = "$got" ]; }
    wait_for 10 none_leaked
    stop_workers
  done
}

claim_request() { # claim_request ID PROJECT
  jq -nc --arg id "$1" --arg directory "$2" --arg instance "$HAL9000_PREFIX" \
    --arg image "$HAL9000_IMAGE_REPO:worker" \
    '{version: 3, op: "claim", id: $id, instance: $instance, directory: $directory, image: $image,
      allowAnyPath: false, limits: {memoryBytes: 4294967296, cpus: 2, pids: 100}}'
}

@test "a claim that nobody keeps is taken back; one that is sent twice is one" {
  project=$(make_project claimed)
  request=$(claim_request 00000000-0000-4000-8000-000000000000 "$project")
  ask "$HAL9000_HOME/run/pool.sock" "$request" "$request" >"$BATS_TEST_TMPDIR/replies"
  [ "$(jq -r .worker.id "$BATS_TEST_TMPDIR/replies" | sort -u | wc -l)" = 1 ]
  [ "$(claimed | wc -l)" = 1 ]
  free() { [ -z "$(claimed)" ]; }
  wait_for 10 free
  [ "$(find "$HAL9000_HOME/sessions" -maxdepth 1 -name '*.json' | wc -l)" = 0 ]
}

@test "a claim outlives managers: one that is kept stays, one that is not does not" {
  project=$(make_project claimed)
  for id in 1 2; do
    ask "$HAL9000_HOME/run/pool.sock" "$(claim_request 00000000-0000-4000-8000-00000000000$id "$project")"
  done | jq -r .worker.id >"$BATS_TEST_TMPDIR/ids"
  { read -r kept; read -r lent; } <"$BATS_TEST_TMPDIR/ids"
  docker exec "$parent" pkill -9 -f "/scripts/pool-manager serve"
  mv "$HAL9000_HOME/pool/claims/$kept.loan" "$HAL9000_HOME/pool/claims/$kept.json"
  rm "$HAL9000_HOME/sessions/$(inspect "$kept" '{{.Name}}').json" # as if it had been killed before that
  free() { ! docker inspect "$lent" >/dev/null 2>&1; }
  wait_for 15 free
  [ "$(docker ps --no-trunc --quiet --filter "id=$kept")" = "$kept" ]
  [ "$(claimed | wc -l)" = 1 ]
  [ "$(jq -r .container "$HAL9000_HOME"/sessions/*.json)" = "$kept" ]
}

@test "garbage on the socket is told so, and hurts nobody" {
  run -0 ask "$HAL9000_HOME/run/pool.sock" '{"version":1,"op":"status"}' '{"version":3,"op":"rm"}' \
    '{"version":3,"op":"claim"}' '{"version":3,"op":"scale","warm":-1}' '{"version":3,"op":"cold","reason":"x"}'
  [ "$(grep -c '^error: The pool was sent' <<<"$output")" = 4 ]
  [[ $output == *"two versions"* ]]
  claim "$(make_project claimed)"
}

@test "what a claim cannot be is spawned cold, with the reason" {
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
  # On the host only root may.
  [ "$(docker exec "$parent" /scripts/spawn-worker -d --json "$theirs" | jq -r .reason)" = "the project has another owner" ]
  outside=$(mktemp -d "$HAL9000_TEST_ROOT/outside.XXXX")
  [ "$(reason "$outside")" = "cold: outside of the project roots" ]
  [ "$(pool_json '.metrics.claims.cold."another image"')" -ge 1 ]
  [ "$(pool_json '.metrics.claims.cold.variables')" -ge 1 ]
}

@test "--warm-only fails where there is nothing to claim" {
  project=$(make_project claimed)
  pool drain
  run -7 claim "$project"
  [[ $output == *"There is nothing to claim: the pool is empty"* ]]
  [ "$("$scripts/spawn-worker.ts" -d --json "$project" | jq -r .reason)" = "the pool is empty" ]
}

@test "a name that is taken stays whose it is" {
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

@test "other limits are set on the claimed worker" {
  claim -n tight-$$ --memory 512m --cpus 0.5 --pids-limit 50 "$(make_project claimed)"
  [ "$(inspect tight-$$ '{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}')" = \
    "536870912 536870912 500000000 50" ]
}

@test "a claimed worker sees its project and its home, and no more of the host" {
  project=$(make_project claimed)
  other=$(make_project other)
  claim -n one-$$ "$project"
  claim -n two-$$ "$other"
  # Of the worker's mounts, those that begin below the test's directory.
  seen() { docker exec "$1" sed 's/.* - //' /proc/self/mountinfo >/dev/null; docker exec "$1" cat /proc/self/mountinfo |
    awk -v root="$HAL9000_TEST_ROOT" 'index($4, root) { print $5 }' | sort | xargs; }
  [ "$(seen one-$$)" = "/config/claude /etc/group /etc/hostname /etc/hosts /etc/passwd /etc/resolv.conf /home/claude/.claude /run/hal9000/credentials /workspace" ]
  docker exec one-$$ sh -c 'echo from one >/workspace/f; echo kept >/home/claude/.claude/f'
  [ "$(cat "$project/f")" = "from one" ]
  run ! docker exec two-$$ cat /workspace/f
  run ! docker exec two-$$ cat /home/claude/.claude/f
  # Nothing is mounted where another looks: not on the host, not in the parent.
  [ -z "$(mounts_here)" ]
  run ! docker exec "$parent" grep -F "/workspace" /proc/self/mountinfo
}

@test "what is made in a claimed worker is the project owner's; git and whoami work" {
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

@test "links: one that leads to a project is followed once, elsewhere refused" {
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

@test "the mounter follows no link, leaves no root, takes no other owner, and no stranger" {
  project=$(make_project claimed)
  ln -sfn "$HAL9000_HOME" "$project/trap"
  mkdir -p "$HAL9000_HOME/secrets/inner"
  worker=$(docker ps --no-trunc --quiet --filter "name=$HAL9000_PREFIX-warm-" | head -1)
  pid=$(inspect "$worker" '{{.State.Pid}}')
  attach() { # attach CONTAINER PID SOURCE UID
    jq -nc --arg container "$1" --argjson pid "$2" --arg source "$3" --argjson uid "$4" \
      '{op: "attach", container: $container, pid: $pid, attachments:
        [{source: $source, target: "/workspace", readOnly: false, uid: $uid, gid: 0}]}'
  }
  run -0 ask "$HAL9000_HOME/run/mounter/mounter.sock" \
    "$(attach "$worker" "$pid" "$project/trap/secrets" 0)" \
    "$(attach "$worker" "$pid" "$HAL9000_PROJECT_ROOTS/../home/secrets" 0)" \
    "$(attach "$worker" "$pid" "$HAL9000_HOME/secrets" 0)" \
    "$(attach "$worker" "$pid" /etc 0)" \
    "$(attach "$worker" "$pid" "$project" 77)" \
    "$(attach "$worker" "$pid" "$project/gone" 0)" \
    "$(attach "$worker" $$ "$project" 0)" \
    "$(attach "$(printf '0%.0s' {1..64})" "$pid" "$project" 0)"
  [ "${lines[0]}" = "error: openat2: ELOOP" ]
  for line in 1 2 3; do [[ ${lines[line]} == "error: "*"outside of the project roots" ]]; done
  [[ ${lines[4]} == *"belongs to $(owner_of "$project"), not to 77:0" ]]
  [ "${lines[5]}" = "error: openat2: ENOENT" ]
  for line in 6 7; do [ "${lines[line]}" = "error: the worker has ended" ]; done
  run ! docker exec "$worker" grep -F " /workspace " /proc/self/mountinfo
  [ -z "$(mounts_here)" ]
}

@test "mounts of the host below a project come along, read-only ones as such" {
  project=$(make_project nested)
  mkdir -p "$project/ro" "$project/rw"
  # After the mounter has begun: it sees the host as it is now.
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

@test "a project on a file system that was mounted after the pool began" {
  project=$(make_project late)
  as_root mount -t tmpfs -o "uid=$(id -u),gid=$(id -g)" none "$project"
  echo content >"$project/file"
  claim -n late-$$ "$project"
  [ "$(docker exec late-$$ cat file)" = content ]
}

@test "paths of every kind" {
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

@test "a project that was deleted before the claim, and one after it" {
  project=$(make_project deleted)
  claim -n deleted-$$ "$project"
  rmdir "$project"
  run -4 "$scripts/spawn-worker.ts" -d -n none "$project"
  [[ $output == *"there is no such file or directory"* ]]
  [[ $("$scripts/coordinator.ts" list) == *deleted-$$* ]]
  "$scripts/coordinator.ts" stop deleted-$$
  [ -z "$(claimed)" ]
}

@test "a claimed worker that is restarted has its project again" {
  project=$(make_project claimed)
  echo content >"$project/file"
  claim -n again-$$ "$project"
  docker restart --time 1 again-$$
  there() { [ "$(docker exec again-$$ cat /workspace/file)" = content ]; }
  wait_for 5 there
}

@test "a claimed worker that has lost its record is adopted from its claim" {
  project=$(make_project claimed)
  claim -n lost-$$ "$project"
  rm "$HAL9000_HOME/sessions/lost-$$.json"
  "$scripts/spawn-worker.ts" -d --cold -n other-$$ "$project"
  docker kill other-$$
  wait_for 15 test -e "$HAL9000_HOME/sessions/lost-$$.json"
  [ "$(jq -r .project.path "$HAL9000_HOME/sessions/lost-$$.json")" = "$project" ]
}

@test "scale: no number is wrong usage, more than the maximum is capped" {
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

@test "what exceeds the minimum goes when it has been idle for long enough" {
  pool start --min-warm 4 >/dev/null
  pool warm >/dev/null
  pool start --min-warm 1 --idle-timeout 2 --check-interval 1 >/dev/null
  one() { [ "$(pool_json '.warm | length')" = 1 ]; }
  wait_for 10 one
  sleep 2
  one
}

@test "a warm worker that dies is replaced at once" {
  victim=$(pool_json '.warm[0].name')
  docker kill "$victim"
  gone() { ! docker inspect "$victim" && full; }
  wait_for 5 gone
}

@test "an image that changed drains the warm workers of the former" {
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

@test "drain, cleanup and stop touch no claimed worker" {
  project=$(make_project claimed)
  claim -n stays-$$ "$project"
  pool start --check-interval 1 >/dev/null
  pool cleanup
  pool drain
  sleep 2 # the pool's next look makes none either
  [ "$(pool_json '.warm | length')" = 0 ]
  pool stop
  run -1 docker inspect "$mounter"
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
@test "a pool that is stopped and started at once serves" {
  for _ in $(seq "$soak"); do
    pool stop
    pool start >/dev/null
    pool warm >/dev/null
    claim "$(make_project claimed)"
  done
}

@test "claims go on over a restart of the daemon, warm workers go with its stop" {
  project=$(make_project claimed)
  claim -n stays-$$ "$project"
  "$scripts/claudy.ts" daemon restart >/dev/null
  wait_for 10 full
  claim -n more-$$ "$project"
  "$scripts/claudy.ts" daemon stop
  [ "$(born_warm '{{.Names}}' | sort | xargs)" = "more-$$ stays-$$" ]
  run -1 docker inspect "$mounter"
  "$scripts/claudy.ts" daemon start >/dev/null
  wait_for 10 full
  docker exec stays-$$ touch /workspace/still
}

# Claims as fast as they come while something is killed under them; what each
# was answered is in $BATS_TEST_TMPDIR/got.
storm() { # storm COMMAND...: run at least twice during it
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

settled() { # what must hold some time after a storm
  full && [ "$(claimed | wc -l)" = "$(wc -l <"$BATS_TEST_TMPDIR/got")" ] &&
    [ "$(find "$HAL9000_HOME/sessions" -maxdepth 1 -name '*.json' | wc -l)" = "$(claimed | wc -l)" ]
}

# What is told of workers that are there though nobody was given them.
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

stormed() { # stormed: each session that was handed out lives, on its project; nothing else is left
  # However few were handed out meanwhile, it goes on.
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
@test "kill -9 of the manager in a storm of claims" {
  storm_project
  manager() { docker exec "$parent" pkill -9 -f "/scripts/pool-manager serve"; }
  storm manager
  stormed
}

# bats test_tags=soak
@test "kill -9 of the mounter in a storm of claims" {
  storm_project
  kill_mounter() { docker kill --signal KILL "$mounter" || true; }
  storm kill_mounter
  stormed
}

# bats test_tags=soak
@test "kill -9 of the parent in a storm of claims" {
  storm_project
  kill_parent() {
    as_root kill -9 "$(inspect "$parent" '{{.State.Pid}}')" || true
  }
  storm kill_parent
  stormed
}

@test "prune, clean and rm -rf with claims alive: every project file is there" {
  storm_project
  claim -n alive-$$ "$ground"
  # Not the others' volumes: those of this instance.
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

@test "a mounter that may not mount says so" {
  dir=$(mktemp -d "$BATS_TEST_TMPDIR/run.XXXX")
  docker run --detach --name "$HAL9000_PREFIX-weak" --label "hal9000.instance=$HAL9000_PREFIX" \
    --label hal9000.role=helper --pid host --network none --cap-drop ALL --cap-add SYS_PTRACE --cap-add DAC_OVERRIDE \
    --tmpfs /tmp --env DENO_DIR=/tmp/deno --env "MOUNTER_RUN=$dir" --env "HAL9000_PROJECT_ROOTS=/" \
    --volume "$dir:/run/mounter" --entrypoint /scripts/mounter "$HAL9000_IMAGE_REPO:parent"
  wait_for 10 test -S "$dir/mounter.sock"
  run -0 ask "$dir/mounter.sock" '{"op":"test"}'
  docker rm -f "$HAL9000_PREFIX-weak"
  [[ $output == *"this machine allows no mounts (Linux "*EPERM* ]]
}
