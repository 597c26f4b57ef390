# Every option of the commands.

load ../helper/load

teardown() {
  after_failure
  stop_workers
}

records() { find "$HAL9000_HOME/sessions" -maxdepth 1 -name '*.json' | wc -l; }

@test "--memory, --cpus and --pids-limit override environment and file" {
  WORKER_MEMORY=2g spawn -n limited-$$ --memory 512m --cpus 0.5 --pids-limit 42 "$(make_project app)"
  [ "$(inspect limited-$$ '{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}')" = \
    "536870912 536870912 500000000 42" ]
}

@test "--no-limits removes the limits but keeps the hardening" {
  spawn -n free-$$ --no-limits "$(make_project app)"
  [ "$(inspect free-$$ '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.CapDrop}}')" = "0 0 [ALL]" ]
  [[ $(inspect free-$$ '{{.HostConfig.PidsLimit}}') =~ ^(<nil>|0)$ ]]
}

@test "--image uses another image" {
  spawn -n lean-$$ --image "$HAL9000_IMAGE_REPO:worker-ultramin" "$(make_project app)"
  run -127 docker exec lean-$$ sh -c 'git --version'
}

@test "--env sets a variable that docker inspect shows" {
  spawn -n env-$$ --env 'A=b c' --env B= "$(make_project app)"
  [ "$(docker exec env-$$ sh -c 'echo "$A|$B|${B-unset}"')" = "b c||" ]
}

@test "--secret is a file for the worker's user, hidden from docker inspect and removed with the worker" {
  project=$(make_others_project foreign)
  printf 'from file sk-planted-1' >"$HAL9000_PROJECT_ROOTS/secret"
  TOKEN='from environment sk-planted-2' spawn -n keeper-$$ \
    --secret KEY="$HAL9000_PROJECT_ROOTS/secret" --secret TOKEN "$project"
  [ "$(docker exec keeper-$$ cat /run/secrets/KEY)" = "from file sk-planted-1" ]
  [ "$(docker exec keeper-$$ cat /run/secrets/TOKEN)" = "from environment sk-planted-2" ]
  [ "$(docker exec keeper-$$ stat -c '%a %u' /run/secrets/KEY)" = "400 $(stat -c %u "$project")" ]
  run ! docker exec keeper-$$ sh -c 'echo x >/run/secrets/KEY'
  { docker inspect keeper-$$ "$parent"; docker logs keeper-$$; docker logs "$parent"
    cat "$HAL9000_HOME"/sessions/*.json; "$scripts/coordinator.ts" list --json
    "$scripts/coordinator.ts" status --json; ps axww -o args; } >"$BATS_TEST_TMPDIR/all" 2>&1
  run -1 grep -c sk-planted "$BATS_TEST_TMPDIR/all"
  "$scripts/coordinator.ts" stop keeper-$$
  [ -z "$(ls "$HAL9000_HOME/secrets/workers")" ]
}

@test "removes the --secret of a failed spawn" {
  run -4 env TOKEN=x "$scripts/spawn-worker.ts" -d --secret TOKEN -i no/such:image "$(make_project app)"
  [ -z "$(ls "$HAL9000_HOME/secrets/workers")" ]
}

@test "--allow-any-path allows a path that is refused by default" {
  export HOME=$BATS_TEST_TMPDIR
  mkdir "$HOME/.ssh" && touch "$HOME/.ssh/known_hosts"
  run -6 spawn -n keys-$$ "$HOME/.ssh"
  spawn -n keys-$$ --allow-any-path "$HOME/.ssh"
  docker exec keys-$$ test -e /workspace/known_hosts
}

@test "a directory after a flag is a directory, even if it looks like a number" {
  for name in 007 1e3 0x10 true; do
    cd "$(make_project plain)" && mkdir -p "$name"
    spawn -n numbered-$$ --allow-any-path "$name"
    [ "$(inspect numbered-$$ '{{index .Config.Labels "hal9000.project"}}')" = "$PWD/$name" ]
    "$scripts/coordinator.ts" stop numbered-$$
    "$scripts/spawn-worker.ts" -n numbered-$$ -d "$name"
    [ "$(inspect numbered-$$ '{{index .Config.Labels "hal9000.project"}}')" = "$PWD/$name" ]
    "$scripts/coordinator.ts" stop numbered-$$
  done
}

@test "--standalone has its own network and needs no parent" {
  spawn -n alone-$$ --standalone "$(make_project app)"
  [ "$(inspect alone-$$ '{{.HostConfig.NetworkMode}}')" = bridge ]
  run ! heartbeat alone-$$
  run -0 "$scripts/coordinator.ts" list
  [[ $output == *alone-$$* ]]
}

@test "-- COMMAND runs in the worker; its log is kept and its exit code passed on" {
  project=$(make_project app)
  run -7 --separate-stderr "$scripts/spawn-worker.ts" -n once-$$ "$project" -- \
    sh -c 'echo "in $PWD"; echo problem >&2; exit 7'
  [ "$output" = "in /workspace" ]
  [[ $stderr == *problem* ]]
  grep "in /workspace" "$HAL9000_HOME/logs/once-$$.log"
  grep problem "$HAL9000_HOME/logs/once-$$.log"
  [ "$(records)" = 0 ]
  run -1 docker inspect once-$$
}

@test "-- COMMAND reads stdin" {
  run -0 --separate-stderr bash -c "echo daisy | '$scripts/spawn-worker.ts' '$(make_project app)' -- cat"
  [ "$output" = daisy ]
}

@test "an interrupted worker ends with its command and passes the exit code on" {
  project=$(make_project app)
  env --default-signal=INT setsid "$scripts/spawn-worker.ts" -n broken-$$ "$project" -- sleep 100 </dev/null 3>&- &
  wait_for 10 docker exec broken-$$ true
  kill -INT -- "-$!"
  code=0
  wait $! || code=$?
  [ "$code" = 130 ]
  run -1 docker inspect broken-$$
  [ "$(records)" = 0 ]
}

@test "stops a worker that docker leaves running after an interrupt" {
  project=$(make_project app)
  mkdir "$BATS_TEST_TMPDIR/bin"
  # Stand-in for a docker that is interrupted while the container starts: it exits without an
  # error and leaves the container running.
  printf '#!/bin/sh\nexec %s start "$4"\n' "$(command -v docker)" >"$BATS_TEST_TMPDIR/bin/docker"
  chmod +x "$BATS_TEST_TMPDIR/bin/docker"
  run -130 env PATH="$BATS_TEST_TMPDIR/bin:$PATH" \
    "$scripts/spawn-worker.ts" -n left-$$ "$project" -- sleep 100 </dev/null
  [[ $output != *Detached* ]]
  run -1 docker inspect left-$$
  [ "$(records)" = 0 ]
}

@test "a second interrupt does not leave a worker running that ignores both" {
  project=$(make_project app)
  env --default-signal=INT setsid "$scripts/spawn-worker.ts" -n deaf-$$ "$project" \
    -- sh -c 'trap "" INT TERM; touch up; sleep 100' </dev/null 3>&- &
  wait_for 10 test -e "$project/up"
  for _ in 1 2 3; do
    kill -INT -- "-$!"
    sleep 0.5
  done
  code=0
  wait $! || code=$?
  [ "$code" = 130 ]
  run -1 docker inspect deaf-$$
  [ "$(records)" = 0 ]
}

@test "an interrupted worker is kept with --no-rm" {
  project=$(make_project app)
  "$scripts/spawn-worker.ts" -n kept-$$ --no-rm "$project" \
    -- sh -c 'trap "" TERM; touch kept; sleep 100' </dev/null 3>&- &
  wait_for 10 test -e "$project/kept"
  kill -TERM $!
  code=0
  wait $! || code=$?
  [ "$code" = 143 ]
  [ "$(docker inspect --format '{{.State.Status}}' kept-$$)" = exited ]
  "$scripts/coordinator.ts" stop kept-$$
}

@test "spawn-worker stops its worker on SIGTERM and SIGHUP" {
  project=$(make_project app)
  for signal in TERM HUP; do
    sleep 20 | "$scripts/spawn-worker.ts" -n broken-$$ "$project" -- sleep 100 >/dev/null 2>&1 3>&- &
    wait_for 10 docker exec broken-$$ true
    pkill -"$signal" -fo "spawn-worker[.][jt]s -n broken-$$"
    gone() { ! docker inspect broken-$$; }
    wait_for 10 gone
    pkill -x sleep -P $$ || true
  done
  [ "$(records)" = 0 ]
}

@test "a missing command exits with 127 and leaves nothing behind" {
  run -127 "$scripts/spawn-worker.ts" -n nope-$$ "$(make_project app)" -- no-such-command
  [[ $output == *"pass --profile auto"* ]]
  run -1 docker inspect nope-$$
  [ "$(records)" = 0 ]
}

@test "keeps an ended worker with --no-rm until stop" {
  run -3 "$scripts/spawn-worker.ts" --no-rm -n kept-exit-$$ "$(make_project app)" -- sh -c 'exit 3'
  sleep 3 # longer than the parent waits before it removes a worker
  run -0 "$scripts/coordinator.ts" status
  [[ $output == *kept-exit-$$*"Exited (3)"* ]]
  "$scripts/coordinator.ts" stop kept-exit-$$
  run -1 docker inspect kept-exit-$$
}

@test "the parent removes a detached worker that ends, and keeps its log" {
  spawn -n ends-$$ "$(make_project app)" -- sh -c 'echo last words; sleep 0.5; exit 5'
  gone() { ! docker inspect ends-$$; }
  wait_for 15 gone
  grep "last words" "$HAL9000_HOME/logs/ends-$$.log"
  closed() { [ "$(records)" = 0 ]; }
  wait_for 5 closed
  [ "$("$scripts/coordinator.ts" status --json | jq --arg name ends-$$ '.ended[] | select(.name == $name).exitCode')" = 5 ]
  [[ $("$scripts/coordinator.ts" logs ends-$$) == *"last words"* ]]
}

@test "status shows OOM-killed for a worker that runs out of memory" {
  spawn -n hungry-$$ --memory 32m "$(make_project app)"
  docker exec hungry-$$ bash -c 'x=x; while :; do x=$x$x; done' || true
  told() { "$scripts/coordinator.ts" status | grep "hungry-$$.*OOM-killed at 32 MiB"; }
  wait_for 10 told
}

@test "reports that a worker's command ran out of memory" {
  run -137 "$scripts/spawn-worker.ts" -n eater-$$ --memory 32m "$(make_project app)" -- \
    bash -c 'x=x; while :; do x=$x$x; done'
  [[ $output == *"\"eater-$$\" ran out of memory at its limit of 32 MiB"*"--memory"* ]]
  [[ $("$scripts/coordinator.ts" logs eater-$$) == *"[hal9000] OOM-killed at 32 MiB"* ]]
  run -0 "$scripts/coordinator.ts" status
  [[ $output == *"eater-$$"*"exit code 137, OOM-killed at 32 MiB"* ]]
}

@test "list, count, status and stats agree in text and in JSON" {
  spawn -n first-$$ "$(make_project app)"
  spawn -n further-$$ "$(make_project app)"
  [ "$("$scripts/coordinator.ts" count)" = 2 ]
  [ "$("$scripts/coordinator.ts" count --json | jq .count)" = 2 ]
  for what in list status stats; do
    run -0 --separate-stderr "$scripts/coordinator.ts" "$what"
    [[ $output == *first-$$*further-$$* ]]
    run -0 --separate-stderr "$scripts/coordinator.ts" "$what" --json
    [ "$(jq -r '(.workers? // .) | map(.name) | join(" ")' <<<"$output")" = "first-$$ further-$$" ]
  done
  [ "$("$scripts/coordinator.ts" stats --json | jq '.[0].memoryBytes > 0')" = true ]
}

@test "runs several stops at once" {
  for name in s1 s2 s3 s4; do
    spawn -n "$name-$$" "$(make_project app)" -- sh -c 'trap "sleep 3; exit" TERM; while :; do sleep 0.1; done'
  done
  sleep 0.5 # until the traps are set
  start=$(date +%s%N)
  "$scripts/coordinator.ts" stop s{1..4}-$$
  [ $((($(date +%s%N) - start) / 1000000)) -lt 11000 ]
}

@test "logs shows and follows a running worker" {
  spawn -n talker-$$ "$(make_project app)" -- sh -c 'echo first; sleep 1; echo second; sleep 60'
  run -0 timeout 5 "$scripts/coordinator.ts" logs talker-$$ --tail 1
  run -124 timeout 4 "$scripts/coordinator.ts" logs -f talker-$$
  [[ $output == *first*second* ]]
  [[ $("$scripts/coordinator.ts" logs talker-$$ --tail 1) == *second* ]]
}

@test "the parent restores the lost record of a running worker" {
  spawn -n forgotten-$$ "$(make_project app)"
  before=$(jq -S 'del(.createdAt, .project.inode)' "$HAL9000_HOME/sessions/forgotten-$$.json")
  rm "$HAL9000_HOME/sessions/forgotten-$$.json"
  spawn -n ends-now-$$ "$(make_project app)"
  docker kill ends-now-$$
  wait_for 15 test -e "$HAL9000_HOME/sessions/forgotten-$$.json"
  [ "$(jq -S 'del(.createdAt, .project.inode)' "$HAL9000_HOME/sessions/forgotten-$$.json")" = "$before" ]
  [ "$(inspect forgotten-$$ '{{.State.Running}}')" = true ]
}

@test "the parent ignores a container that only has a worker's labels" {
  docker run -d --name stranger-$$ --label "hal9000.instance=$HAL9000_PREFIX" \
    --label hal9000.role=worker --user nobody "$HAL9000_IMAGE_REPO:worker" sleep 60
  spawn -n ends-now-$$ "$(make_project app)"
  docker kill ends-now-$$
  said() { [ "$(docker logs "$parent" 2>&1 | grep -c "\"stranger-$$\" was not created by HAL-9000")" = 1 ]; }
  wait_for 15 said
  [ "$(inspect stranger-$$ '{{.State.Running}}')" = true ]
  [ ! -e "$HAL9000_HOME/sessions/stranger-$$.json" ]
  [ ! -e "$HAL9000_HOME/sessions/damaged" ]
  docker rm -f stranger-$$
}

@test "stop removes a renamed worker and its record; logs finds it by id" {
  id=$(spawn -n before-$$ "$(make_project app)" -- sh -c 'echo said; sleep 60')
  docker rename before-$$ after-$$
  [[ $("$scripts/coordinator.ts" logs "$id") == *said* ]]
  "$scripts/coordinator.ts" stop after-$$
  [ "$(records)" = 0 ]
}

@test "the parent closes the record of a removed worker" {
  spawn -n gone-$$ "$(make_project app)"
  docker rm --force gone-$$
  closed() { [ "$(records)" = 0 ]; }
  wait_for 15 closed
}

@test "spawn in the parent uses a helper for a project outside of the roots" {
  outside=$(mktemp -d "$HAL9000_TEST_ROOT/outside.XXXX")
  as_root chown 1234:2345 "$outside"
  docker exec "$parent" /scripts/spawn-worker -d -n far-$$ "$outside"
  [ "$(inspect far-$$ '{{.Config.User}}')" = 1234:2345 ]
  run -4 docker exec "$parent" /scripts/spawn-worker -d "$HAL9000_TEST_ROOT/gone"
  [[ $output == *"there is no such file or directory"* ]]
  [ -z "$(docker ps --all --quiet --filter label=hal9000.role=helper --filter "name=$HAL9000_PREFIX-helper")" ]
}

@test "config show prints each setting with its source" {
  run -0 --separate-stderr env WORKER_CPUS=1 "$scripts/claudy.ts" config show --json
  [ "$(jq -r '.[] | select(.key == "WORKER_CPUS") | .text + " " + .place' <<<"$output")" = "1 environment" ]
  [ "$(jq -r '.[] | select(.key == "WORKER_MEMORY") | .text + " " + .place' <<<"$output")" = "4g default" ]
  [ "$("$scripts/claudy.ts" config path)" = "$HAL9000_HOME/config/hal9000.conf" ]
}
