# A read-only home and a full disk: running workers can still be stopped and attached to,
# and every error states what failed, why, and what to do.

# shellcheck disable=SC2030,SC2031  # each test has its own variables

load ../helper/load

claudy=$scripts/claudy.ts
full=$HAL9000_PREFIX-full

setup() { project=$(make_project unwritable); }

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

@test "stops workers with a read-only home and prints readable errors" {
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
}

@test "leaves no container if the record cannot be written" {
  read_only "$HAL9000_HOME/sessions"
  run -1 spawn -n unrecorded-$$ "$project"
  [[ $output == *"Cannot write $HAL9000_HOME/sessions/unrecorded-$$.json: the file system is read-only"* ]]
  run -1 docker inspect unrecorded-$$
}

@test "attaches to and stops a session on a full disk; the pool reports the reason" {
  export HAL9000_PREFIX=$full HAL9000_HOME=$HAL9000_TEST_ROOT/full
  export ANTHROPIC_API_KEY=sk-ant-x ANTHROPIC_BASE_URL=http://127.0.0.1:9
  mkdir "$HAL9000_HOME"
  as_root mount -t tmpfs -o "size=4m,mode=0700,uid=$(id -u)" none "$HAL9000_HOME" || skip "mounting needs root"
  "$claudy" daemon start
  "$claudy" pool start --min-warm 0
  session=$("$claudy" --detach --profile base "$project")
  head -c 8m /dev/zero >"$HAL9000_HOME/filler" 2>/dev/null || true
  run -0 "$claudy" --detach "$project"
  [[ $output == *"warning: The disk is full"*"$session"* ]]
  run -7 "$claudy" pool scale 1
  [[ $output == *"The disk is full: cannot write "*"/pool/wish.json"*"Make room"* ]]
  run -0 "$claudy" stop "$session"
  [[ $output == *"warning: The disk is full"* ]]
  run -1 docker inspect "$session"
  run -7 "$claudy" --detach "$project"
  run -1 docker inspect "$session"
}
