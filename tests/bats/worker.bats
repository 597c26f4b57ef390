load ../helper/load

teardown() { stop_workers; }

records() { find "$HAL9000_HOME/sessions" -maxdepth 1 -name '*.json' | wc -l; }

@test "spawn prints the id alone on stdout, on the host and in the parent" {
  project=$(make_project one)
  run -0 --separate-stderr spawn -n on-host "$project"
  [ "$output" = "$(inspect on-host '{{.Id}}')" ]
  run -0 --separate-stderr docker exec "$parent" \
    /scripts/spawn-worker.sh -d -n in-parent "$project"
  [ "$output" = "$(inspect in-parent '{{.Id}}')" ]
  run -0 --separate-stderr "$scripts/coordinator.ts" list
  [[ $output == *on-host*"$project"* ]]
  [[ $output == *in-parent*"$project"* ]]
  [ "$output" = "$(docker exec "$parent" /scripts/coordinator.sh list)" ]
}

@test "worker and parent have the same network namespace, with ChromaDB in it" {
  spawn -n wk "$(make_project one)"
  [ "$(docker exec wk readlink /proc/self/ns/net)" = \
    "$(docker exec "$parent" readlink /proc/self/ns/net)" ]
  heartbeat wk
}

@test "a worker is hardened and limited by default" {
  project=$(make_project one)
  chown 1234:2345 "$project"
  spawn -n wk "$project"
  host() { inspect wk "{{json .HostConfig.$1}}"; }
  [ "$(host Memory)" = 4294967296 ]
  [ "$(host MemorySwap)" = 4294967296 ]
  [ "$(host NanoCpus)" = 2000000000 ]
  [ "$(host PidsLimit)" = 100 ]
  [ "$(host CapDrop)" = '["ALL"]' ]
  [ "$(host SecurityOpt)" = '["no-new-privileges"]' ]
  [ "$(host Init)" = true ]
  [ "$(host Privileged)" = false ]
  [ "$(inspect wk '{{.Config.User}}')" = 1234:2345 ]
  [[ $(inspect wk '{{json .Mounts}}') != *docker.sock* ]]
  [ "$(inspect wk '{{index .Config.Labels "hal9000.instance"}} {{index .Config.Labels "hal9000.role"}}')" = \
    "$HAL9000_PREFIX worker" ]
  [ "$(inspect wk '{{index .Config.Labels "hal9000.project"}}')" = "$project" ]
}

@test "the kernel keeps to the limits that were asked for" {
  spawn -n wk "$(make_project one)"
  run -0 docker exec wk grep -E '^(CapEff|NoNewPrivs):' /proc/self/status
  [[ $output == *"CapEff:"*"0000000000000000"* ]]
  [[ $output == *"NoNewPrivs:"*1* ]]
  # More processes than allowed: the shell cannot fork them all.
  run docker exec wk bash -c 'for i in $(seq 150); do sleep 5 & done; wait -n'
  [[ $output == *"Resource temporarily unavailable"* || $output == *"fork"* ]]
}

@test "inside, the user is the project's owner, with a name and a home" {
  project=$(make_project one)
  chown 1234:2345 "$project"
  spawn -n wk "$project"
  [ "$(docker exec wk sh -c 'id -u; id -g; whoami; id -gn; pwd; echo "$HOME"' | xargs)" = \
    "1234 2345 claude claude /workspace /home/claude" ]
  docker exec wk sh -c 'touch /workspace/f "$HOME/g" "$CLAUDE_CONFIG_DIR/h"'
  [ "$(stat -c %u:%g "$project/f")" = 1234:2345 ]
  run -1 docker exec wk touch /config/claude/x
}

@test "environment settings reach the worker" {
  WORKER_MEMORY=1g WORKER_CPUS=0.5 WORKER_PIDS_LIMIT=50 spawn -n wk "$(make_project one)"
  [ "$(inspect wk '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}')" = \
    "1073741824 500000000 50" ]
}

@test "more CPUs than there are become as many as there are" {
  WORKER_CPUS=1000 spawn -n wk "$(make_project one)"
  [ "$(inspect wk '{{.HostConfig.NanoCpus}}')" = "$(nproc)000000000" ]
}

@test "stop takes under a second, keeps the log, and removes worker and record" {
  spawn -n wk "$(make_project one)"
  [ "$(records)" = 1 ]
  docker exec wk sh -c 'echo a last word >/proc/1/fd/1'
  start=$(date +%s%N)
  run -0 --separate-stderr "$scripts/coordinator.ts" stop wk
  took=$((($(date +%s%N) - start) / 1000000))
  [ "$output" = wk ]
  [ "$took" -lt 1000 ]
  grep 'a last word' "$HAL9000_HOME/logs/wk.log"
  [ "$(records)" = 0 ]
  run -1 docker inspect wk
}

@test "a record is written for its owner alone" {
  project=$(make_project one)
  id=$(spawn -n wk "$project")
  [ "$(stat -c %a "$HAL9000_HOME/sessions/wk.json")" = 600 ]
  [ "$(jq -r '.container, .project.path' "$HAL9000_HOME/sessions/wk.json")" = "$id"$'\n'"$project" ]
}

@test "a made-up name is printed with --json, and its home goes with it" {
  run -0 --separate-stderr spawn --json "$(make_project one)"
  name=$(jq -r .name <<<"$output")
  [[ $name == "$HAL9000_PREFIX-worker-"* ]]
  [ "$(jq -r .id <<<"$output")" = "$(inspect "$name" '{{.Id}}')" ]
  "$scripts/coordinator.ts" stop "$name"
  run ! ls -d "$HAL9000_HOME/workers/$name"*
}

@test "paths with spaces, quotes and dollars are mounted and not run" {
  for name in 'a b' 'it'\''s "quoted"' '$(touch /tmp/hal9000-pwned)' 'ünï' 'comma,colon:'; do
    project=$(make_project "$name")
    echo "$name" >"$project/name"
    for where in host parent; do
      if [ "$where" = host ]; then spawn -n wk "$project"
      else docker exec "$parent" /scripts/spawn-worker -d -n wk "$project"; fi
      [ "$(docker exec wk cat /workspace/name)" = "$name" ]
      "$scripts/coordinator.ts" stop wk
    done
  done
  [ ! -e /tmp/hal9000-pwned ]
}

@test "wrong uses end with their codes and leave nothing" {
  project=$(make_project one)
  touch "$HAL9000_PROJECT_ROOTS/file"
  ln -sfn /etc "$HAL9000_PROJECT_ROOTS/to-etc"
  refused() { # refused CODE SENTENCE ARGUMENT...
    local code=$1 sentence=$2
    shift 2
    run "-$code" --separate-stderr spawn "$@"
    [[ $stderr == *"$sentence"* ]]
    [ -z "$output" ]
  }
  refused 4 "there is no such file or directory" "$HAL9000_PROJECT_ROOTS/gone"
  refused 2 "it is not a directory" "$HAL9000_PROJECT_ROOTS/file"
  refused 6 "system directory" /
  refused 6 "part of the system" /etc
  refused 6 "part of the system" "$HAL9000_PROJECT_ROOTS/to-etc"
  refused 6 "part of HAL9000_HOME" "$HAL9000_HOME/sessions"
  refused 6 "contains HAL9000_HOME" "$HAL9000_TEST_ROOT"
  refused 2 "is not a name" -n 007 "$project"
  refused 2 "is not a name" -n ../x "$project"
  refused 4 "there is no image no/such:image" -n wk -i no/such:image "$project"
  refused 2 "Unused args" "$project" "$project"
  [ "$(records)" = 0 ]
  [ ! -e "$HAL9000_PROJECT_ROOTS/gone" ]
  [ "$("$scripts/coordinator.ts" list --json)" = "[]" ]
}

@test "a name that is taken is refused, and the worker lives" {
  id=$(spawn -n wk "$(make_project one)")
  run -5 spawn -n wk "$(make_project two)"
  [[ $output == *"the name is taken"* ]]
  [ "$(inspect wk '{{.Id}} {{.State.Running}}')" = "$id true" ]
}

@test "stop takes the id that spawn printed; of several names all or none" {
  id=$(spawn "$(make_project one)")
  spawn -n other "$(make_project two)"
  run -4 "$scripts/coordinator.ts" stop "$id" nobody
  [ "$("$scripts/coordinator.ts" count)" = 2 ]
  "$scripts/coordinator.ts" stop "$id" other
  [ "$("$scripts/coordinator.ts" count)" = 0 ]
}

@test "a name that is not a worker's is told with the nearest" {
  spawn -n discovery "$(make_project one)"
  run -4 "$scripts/coordinator.ts" stop discovry
  [[ $output == *'"discovery"'* ]]
}

@test "the workers of another instance are neither listed nor stopped" {
  id=$(spawn -n wk "$(make_project one)")
  export HAL9000_PREFIX=hal9000-test-other
  [ "$("$scripts/coordinator.ts" list --json)" = "[]" ]
  run -4 "$scripts/coordinator.ts" stop wk
  "$scripts/coordinator.ts" stop-all --yes
  [ "$(inspect wk '{{.Id}} {{.State.Running}}')" = "$id true" ]
  HAL9000_PREFIX=${parent%-parent}
}
