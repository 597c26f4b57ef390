# The error scenarios of the original's test list, each under its name there; see
# docs/dind/DEVELOPMENT.md. Every error states what failed, why, and what to do.

# shellcheck disable=SC2030,SC2031  # each test has its own variables

# Tests the dashboard, see start_instance.
export DASHBOARD=on
load ../helper/load
load ../helper/sessions

full=$HAL9000_PREFIX-full

# Without the stub of sessions.bash: one of the tests replaces the network.
setup_file() { start_instance; }
teardown_file() { :; }

setup() {
  use_stub
  project=$(make_project "scenario$BATS_TEST_NUMBER")
}

teardown() {
  remove_instance "$full"
  writable
  after_failure
  stop_workers
}

# Makes a directory of the home read-only, on the host only.
read_only() { # read_only DIRECTORY
  as_root mount --bind "$1" "$1" || skip "mounting needs root"
  as_root mount -o remount,bind,ro "$1"
}

writable() {
  local path
  while read -r path; do as_root umount "$path"; done < <(mounts_below "$HAL9000_TEST_ROOT")
}

@test "Invalid project directory" {
  touch "$BATS_TEST_TMPDIR/file"
  run -4 spawn "$project/gone"
  [[ $output == *"there is no such file or directory"* ]]
  run -2 spawn "$BATS_TEST_TMPDIR/file"
  [[ $output == *"it is not a directory"* ]]
  run -6 spawn /etc
  [[ $output == *"it is part of the system"* ]]
}

@test "Missing Docker daemon" {
  export DOCKER_HOST=unix:///no/such.sock
  for command in "coordinator.ts list" "coordinator.ts stop x" "init-volumes.ts" \
    "claudy.ts daemon status" "claudy.ts daemon start" "spawn-worker.ts -d $project"; do
    # shellcheck disable=SC2086  # words of a command
    run -3 "$scripts/"$command
    [[ $output == *"unset DOCKER_HOST"* ]]
  done
}

@test "Insufficient disk space" {
  export HAL9000_PREFIX=$full HAL9000_HOME=$HAL9000_TEST_ROOT/full
  export ANTHROPIC_API_KEY=sk-ant-x ANTHROPIC_BASE_URL=http://127.0.0.1:9
  mkdir "$HAL9000_HOME"
  as_root mount -t tmpfs -o "size=4m,mode=0700,uid=$(id -u)" none "$HAL9000_HOME" || skip "mounting needs root"
  "$claudy" daemon start
  "$claudy" pool start --min-warm 0
  session=$("$claudy" --detach --profile base "$project")
  # Again and again, since Claude and the parent remove files.
  timeout 60 sh -c 'while true; do cat /dev/zero >>"$HAL9000_HOME/filler"; sleep 0.01; done' 2>/dev/null 3>&- &
  filling=$!
  full() { [ "$(df --output=avail "$HAL9000_HOME" | tail -n 1)" -eq 0 ]; }
  wait_for 10 full
  run -0 "$claudy" --detach "$project"
  [[ $output == *"warning: The disk is full"*"$session"* ]]
  run -7 "$claudy" pool scale 1
  [[ $output == *"The disk is full: cannot write "*"/pool/wish.json"*"Make room"* ]]
  run -0 "$claudy" stop "$session"
  [[ $output == *"warning: The disk is full"* ]]
  run -1 docker inspect "$session"
  run -7 "$claudy" --detach "$project"
  run -1 docker inspect "$session"
  kill "$filling"
}

@test "Permission issues" {
  chmod 0755 "$HAL9000_HOME" "$HAL9000_HOME/sessions"
  run -1 "$claudy" doctor
  [[ $output == *"chmod 700 $HAL9000_HOME"* ]]
  "$scripts/init-volumes.ts" >/dev/null
  [ "$(stat -c %a "$HAL9000_HOME") $(stat -c %a "$HAL9000_HOME/sessions")" = "700 700" ]
}

@test "Network connectivity" {
  docker restart -t 0 "$net"
  "$scripts/claudy.ts" daemon start
  spawn -n w3-$$ "$(make_project w3)"
  wait_for 20 heartbeat w3-$$
  "$scripts/coordinator.ts" stop w3-$$
  docker rm --force "$net"
  "$scripts/claudy.ts" daemon start
  spawn -n w3-$$ "$(make_project w3)"
  wait_for 20 heartbeat w3-$$
}

@test "Missing configuration" {
  start_stub
  CLAUDE_HOME=$BATS_TEST_TMPDIR/nowhere open "$project"
  typed "$session" "nothing" Enter
  wait_for_screen 20 "$session" "echo: nothing"
  mkdir -p "$BATS_TEST_TMPDIR/broken"
  echo "{" >"$BATS_TEST_TMPDIR/broken/settings.json"
  other=$(make_project "broken$BATS_TEST_NUMBER")
  CLAUDE_HOME=$BATS_TEST_TMPDIR/broken open "$other" 2>"$BATS_TEST_TMPDIR/told"
  [ "$(wc -l <"$BATS_TEST_TMPDIR/told")" = 1 ]
  grep -F "was inherited: settings.json" "$BATS_TEST_TMPDIR/told"
  stop_stub
}

@test "Session name conflicts" {
  id=$(spawn -n wk-$$ "$(make_project one)")
  run -5 spawn -n wk-$$ "$(make_project two)"
  [[ $output == *"the name is taken"* ]]
  "$claudy" --detach --name second-$$ "$project"
  run -5 "$claudy" --detach --name second-$$ "$(make_project other)"
  [[ $output == *"session \"second-$$\" here: it belongs to "* ]]
  [ "$(inspect wk-$$ '{{.Id}} {{.State.Running}}')" = "$id true" ]
}

@test "tmux unavailability" {
  docker exec "$parent" mv /usr/bin/tmux /usr/bin/no-tmux
  docker restart "$parent" >/dev/null
  wait_for 15 heartbeat "$parent"
  docker logs --since 20s "$parent" 2>&1 | grep -F "No dashboard: no tmux"
  spawn -n without-$$ "$project"
  run -1 "$scripts/setup-dashboard.ts" setup
  [[ $output == *"tmux not found in the parent"* ]]
  docker exec "$parent" mv /usr/bin/no-tmux /usr/bin/tmux
  docker restart "$parent" >/dev/null
  wait_for 15 docker exec "$parent" tmux -L hal9000 has-session
}

@test "Volume mount failures" {
  run -4 spawn -n unmounted-$$ --mount "$project/gone:/data" "$project"
  [[ $output == *"as mount: there is no such file or directory"* ]]
  # A volume's name instead of a path.
  run -4 spawn -n unmounted-$$ --mount "$HAL9000_PREFIX-chromadb:/data" "$project"
  run -1 docker inspect unmounted-$$
}

@test "Long directory paths" {
  cd "$HAL9000_PROJECT_ROOTS"
  part=$(printf 'y%.0s' {1..200})
  until [ $((${#PWD} + 201)) -ge 4000 ]; do mkdir -p "$part" && cd "$part"; done
  echo deep >name
  for where in host parent; do
    if [ "$where" = host ]; then spawn -n deep-$$ "$PWD"
    else docker exec "$parent" /scripts/spawn-worker -d -n deep-$$ "$PWD"; fi
    [ "$(docker exec deep-$$ cat /workspace/name)" = deep ]
    "$scripts/coordinator.ts" stop deep-$$
  done
  mkdir -p "$part/$part"
  run -2 spawn "$PWD/$part/$part"
  [[ $output == *"it is too long"* ]]
}

@test "Special characters in names" {
  for name in 'it'\''s "a b" $(touch /tmp/hal9000-pwned) `id`;&|<>' $'ünï, colon:\nline' '-n' \
    "$(printf 'x%.0s' {1..255})"; do
    project=$(make_project "$name")
    printf '%s\n' "$name" >"$project/name"
    for where in host parent; do
      if [ "$where" = host ]; then spawn -n wk-$$ "$project"
      else docker exec "$parent" /scripts/spawn-worker -d -n wk-$$ "$project"; fi
      [ "$(docker exec wk-$$ cat /workspace/name)" = "$name" ]
      [ "$(jq -r .project.path "$HAL9000_HOME/sessions/wk-$$.json")" = "$project" ]
      "$scripts/coordinator.ts" stop wk-$$
    done
  done
  [ ! -e /tmp/hal9000-pwned ]
}

@test "Read-only filesystems" {
  spawn -n frozen-$$ "$project"
  spawn -n beside-frozen-$$ "$project"
  read_only "$HAL9000_HOME"
  while read -r command; do
    status=0
    output=$(PATH=$scripts:$PATH P=$project bash -c "$command" 2>&1 </dev/null) || status=$?
    if [ "$status" = 0 ] || [[ $output != *"read-only"* ]] || [[ $output == *EROFS* || $output == *.tmp* ]]; then
      echo "$command: exit code $status, $output" >&2
      return 1
    fi
  done <<'COMMANDS'
spawn-worker.ts -d -n unwritten $P
claudy.ts --detach --yes --name unwritten $P
claudy.ts login --key <<<sk-ant-x
claudy.ts secret set X <<<x
claudy.ts pool start
claudy.ts doctor
COMMANDS
  [ -z "$(docker ps --all --quiet --filter name=unwritten --filter "label=hal9000.instance=$HAL9000_PREFIX")" ]
  run -0 "$scripts/coordinator.ts" list
  run -0 "$claudy" sessions
  run -0 "$scripts/coordinator.ts" stop frozen-$$
  [[ $output == *"warning: Cannot write $HAL9000_HOME/logs/frozen-$$.log: the file system is read-only"* ]]
  run -0 --separate-stderr "$scripts/coordinator.ts" stop-all --yes
  [ "$output" = beside-frozen-$$ ]
  [ -z "$(docker ps --all --quiet --filter name=frozen-$$ --filter name=beside-frozen-$$)" ]
  writable
  read_only "$HAL9000_HOME/sessions"
  run -1 spawn -n unrecorded-$$ "$project"
  [[ $output == *"Cannot write $HAL9000_HOME/sessions/"*": the file system is read-only"* ]]
  run -1 docker inspect unrecorded-$$
}

@test "Session reattachment failures" {
  session=$("$claudy" --detach "$project")
  run -4 "$claudy" attach "${session}x"
  [[ $output == *"$session"* ]] # suggests it
  spawn -n paused-$$ "$(make_project paused)"
  docker pause paused-$$
  run -5 "$scripts/coordinator.ts" attach paused-$$
  docker unpause paused-$$
  [[ $output == *"is paused"* ]]
  [ "$("$claudy" --detach --json "$project" | jq -r .conversation)" = running ]
}

@test "Container startup timeouts" {
  hanging=$HAL9000_PREFIX-hanging:worker
  printf '%s\n' "FROM $HAL9000_IMAGE_REPO:worker" "RUN printf '#!/bin/sh\nsleep 1000' >/usr/bin/stat" |
    docker build --quiet --tag "$hanging" -
  run -1 spawn -n hanging-$$ --image "$hanging" "$project"
  [[ $output == *"Cannot start worker \"hanging-$$\": no progress within 15 s"* ]]
  run -1 docker inspect hanging-$$
  docker rmi "$hanging"
}
