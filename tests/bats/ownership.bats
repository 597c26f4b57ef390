# Ownership: an instance has one home and one user, compared before any change.

# shellcheck disable=SC2030,SC2031  # each test has its own instance

load ../helper/load

claudy=$scripts/claudy.ts
here=$HAL9000_HOME
second=$HAL9000_PREFIX-second

setup() {
  other=$BATS_TEST_TMPDIR/other
  mkdir -p "$other/membank"
  echo theirs >"$other/membank/note.md"
}

teardown() {
  remove_instance "$second"
  after_failure
  stop_workers
}

# Lists every container, volume and file that a command of another home could have changed.
everything() {
  docker ps --all --no-trunc --format '{{.Names}} {{.ID}} {{.State}}' --filter "label=hal9000.instance=$HAL9000_PREFIX" | sort
  docker volume ls --quiet --filter "name=$HAL9000_PREFIX-" | sort
  find "$here/sessions" "$here/claude" "$here/backups" "$here/config" "$here/secrets" -type f | sort
  find "$other" -type f -exec sha256sum {} + | sort
}

@test "commands with another home change nothing" {
  project=$(make_project owned)
  spawn -n owned-$$ "$project"
  "$claudy" pool start --min-warm 0 >/dev/null
  everything >"$BATS_TEST_TMPDIR/before"
  failed=0
  while read -r command; do
    status=0
    output=$(HAL9000_HOME=$other PATH=$scripts:$PATH P=$project W=owned-$$ bash -c "$command" 2>&1 </dev/null) || status=$?
    if [ "$status" != 5 ] || [[ $output != *"belongs to $here"* ]] || [[ $output != *HAL9000_PREFIX=*HAL9000_HOME=* ]] ||
      ! everything | diff "$BATS_TEST_TMPDIR/before" - >&2; then
      echo "$command: exit code $status, $output" >&2
      failed=$((failed + 1))
    fi
  done <<'COMMANDS'
claudy.ts daemon start
claudy.ts daemon stop
claudy.ts daemon restart
coordinator.ts stop $W
coordinator.ts stop-all --yes
claudy.ts stop $W
claudy.ts sessions rm $W --yes
claudy.ts sessions sync $W
claudy.ts --detach --yes $P
claudy.ts run --yes hello
spawn-worker.ts -d -n intruder $P
claudy.ts pool start
claudy.ts mcp start
claudy.ts plugin list
claudy.ts prune --yes --older-than 0
migrate.ts --yes
migrate.ts --yes --abort
migrate.ts --yes --remove-source
rollback.ts --yes
init-volumes.ts
init-volumes.ts --clean --yes
COMMANDS
  [ "$failed" = 0 ]
  "$claudy" pool stop
}

@test "list, status and doctor name the owning home and give no harmful advice" {
  export HAL9000_HOME=$other
  for command in "coordinator.ts list" "claudy.ts sessions" "claudy.ts daemon status" "rollback.ts --list-backups"; do
    # shellcheck disable=SC2086  # words of a command
    run -0 "$scripts"/$command
    [[ $output == *"warning: Instance \"$HAL9000_PREFIX\" belongs to $here (see container $parent), not to $other"* ]]
  done
  run -1 --separate-stderr "$claudy" doctor --json
  [ "$(jq -r '[.[] | select(.state == "fail") | .name] | join(" ")' <<<"$output")" = owner ]
  jq -e '[.[].mend // empty] | all(contains("HAL9000_HOME="))' <<<"$output"
  # The suggested command works.
  eval "$(jq -r '.[] | select(.name == "owner") | .mend' <<<"$output" | sed -n 's/^Use an instance of your own: //p')"
  run -0 "$scripts/init-volumes.ts"
  [ "$(cat "$HAL9000_HOME/run/instance")" = "$HAL9000_PREFIX" ]
  remove_instance "$HAL9000_PREFIX"
}

@test "containers and volumes are labelled with the instance's home" {
  spawn -n labelled-$$ "$(make_project owned)"
  homes=$(docker ps --all --filter "label=hal9000.instance=$HAL9000_PREFIX" --format '{{.Label "hal9000.home"}}' | sort -u)
  [ "$homes" = "$here" ]
  for volume in chromadb plugins memorybank; do
    [ "$(docker volume inspect "$HAL9000_PREFIX-$volume" --format '{{index .Labels "hal9000.home"}}')" = "$here" ]
  done
}

@test "two instances can each have a session of the same project" {
  project=$(make_project shared)
  export ANTHROPIC_API_KEY=sk-ant-x ANTHROPIC_BASE_URL=http://127.0.0.1:9
  session=$("$claudy" --detach --profile base "$project")
  (
    export HAL9000_PREFIX=$second HAL9000_HOME=$BATS_TEST_TMPDIR/second
    run -0 --separate-stderr "$claudy" --detach --yes --json --profile base "$project"
    [ "$(jq -r .session <<<"$output")" = "$session" ]
    [ "$(jq -r .worker <<<"$output")" = "$HAL9000_PREFIX-session-$session" ]
    id=$(jq -r .id <<<"$output")
    [ "$("$claudy" --detach --json "$project" | jq -r .id)" = "$id" ]
    [ "$("$claudy" sessions --json | jq -r '.[].name')" = "$session" ]
    "$claudy" logs --worker "$session"
    "$claudy" stop "$session"
    run -1 docker inspect "$id"
    "$claudy" logs --worker "$session"
    # A worker name of another instance is refused, with a hint.
    spawn -n second-own-$$ "$project"
    run -5 spawn -n "$session" "$project"
    [[ $output == *"the name is taken by a worker of instance \"${HAL9000_PREFIX%-second}\""*"Choose another --name"* ]]
  )
  [ "$(inspect "$session" '{{.State.Running}}')" = true ]
}
