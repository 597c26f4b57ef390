# What another user of the engine, or a broken file, does to an instance.

load ../helper/load

teardown() {
  after_failure
  docker ps --all --quiet --filter label=hal9000-test.foreign="$HAL9000_PREFIX" |
    xargs -r docker rm --force --volumes
  stop_workers
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
