# claudy doctor: its checks, and the fix that it prints for each problem.

# shellcheck disable=SC2030,SC2031  # each test has its own variables

load ../helper/load

claudy=$scripts/claudy.ts

setup() { project=$(make_project examined); }

teardown() {
  after_failure
  stop_workers
}

examine() { checks=$("$claudy" doctor --json) || return; }
found() { jq -r --arg name "$1" '.[] | select(.name == $name) | .state' <<<"$checks"; }
mends() { jq -r --arg name "$1" '.[] | select(.name == $name) | .mend' <<<"$checks"; }

@test "doctor passes on a healthy instance" {
  spawn -n well-$$ "$project"
  run -0 "$claudy" doctor
  [[ $output != *FAIL* ]]
  examine
  [ "$(jq -r '[.[] | select(.state != "ok" and .name != "disk" and .name != "memory" and .name != "credentials")] | length' <<<"$checks")" = 0 ]
  for flag in --verify --diagnose; do
    run -0 "$claudy" "$flag"
    [[ $output == *"ok    chromadb"* ]]
  done
}

@test "reports a worker without a record" {
  docker run --detach --name "$HAL9000_PREFIX-planted" --label "hal9000.instance=$HAL9000_PREFIX" \
    --label hal9000.role=worker --entrypoint sleep "$HAL9000_IMAGE_REPO:worker" 60
  examine
  docker rm --force "$HAL9000_PREFIX-planted"
  [ "$(found leftovers)" = warn ]
  [[ $(mends leftovers) == *"$HAL9000_PREFIX-planted"* ]]
}

@test "reports a record without a worker" {
  spawn -n planted-$$ "$project"
  sed 's/"planted-'$$'"/"forgotten"/; s/"container": "..../"container": "0000/' "$HAL9000_HOME/sessions/planted-$$.json" \
    >"$BATS_TEST_TMPDIR/record"
  "$scripts/coordinator.ts" stop planted-$$
  # The parent closes the record when it sees that the worker has ended; so write it again.
  named() {
    cp "$BATS_TEST_TMPDIR/record" "$HAL9000_HOME/sessions/forgotten.json"
    examine && [ "$(found records)" = warn ] &&
      [[ $(jq -r '.[] | select(.name == "records") | .says' <<<"$checks") == *forgotten* ]]
  }
  wait_for 60 named
  rm -f "$HAL9000_HOME/sessions/forgotten.json"
}

@test "reports a killed ChromaDB" {
  names_it() { examine || true; [ "$(found chromadb)" = fail ] && [ "$(mends chromadb)" = "claudy daemon restart" ]; }
  while docker exec "$parent" pkill -9 -f 'deno .*chroma\.mjs' || true; do sleep 0.2; done &
  killer=$!
  wait_for 20 names_it || { kill "$killer"; false; }
  kill "$killer"
  recovered() { examine && [ "$(found chromadb) $(found parent)" = "ok ok" ]; }
  wait_for 90 recovered
}

@test "reports a missing socket, also the pool's" {
  mv "$HAL9000_HOME/run/nsenter/connect.sock" "$HAL9000_HOME/run/aside"
  examine || true
  mv "$HAL9000_HOME/run/aside" "$HAL9000_HOME/run/nsenter/connect.sock"
  [ "$(found sockets) $(mends sockets)" = "fail claudy daemon restart" ]
  "$claudy" pool start >/dev/null
  nsenter_is_well() { examine && [[ $(jq -r '.[] | select(.name == "nsenter") | .says' <<<"$checks") == *passed* ]]; }
  wait_for 10 nsenter_is_well
  mv "$HAL9000_HOME/run/pool.sock" "$HAL9000_HOME/run/aside"
  examine || true
  mv "$HAL9000_HOME/run/aside" "$HAL9000_HOME/run/pool.sock"
  [ "$(found sockets)" = fail ]
  [[ $(jq -r '.[] | select(.name == "sockets") | .says' <<<"$checks") == *"missing: $HAL9000_HOME/run/pool.sock" ]]
  "$claudy" pool stop >/dev/null
}

@test "reports a full disk, and a mount below the home" {
  small=$BATS_TEST_TMPDIR/small
  mkdir "$small"
  as_root mount -t tmpfs -o size=4m none "$small" || skip "mounting needs root, or sudo without a password"
  mkdir "$small/home" "$small/home/leaked"
  as_root mount -t tmpfs none "$small/home/leaked"
  head -c 5000000 /dev/zero >"$small/home/fill" || true
  HAL9000_HOME=$small/home HAL9000_PREFIX=$HAL9000_PREFIX-full examine || true
  as_root umount "$small/home/leaked"
  as_root umount "$small"
  [ "$(found disk)" = fail ]
  [[ $(jq -r '.[] | select(.name == "disk") | .says' <<<"$checks") == *"free at $small/home" ]]
  [ "$(found mounts) $(mends mounts)" = "warn umount $small/home/leaked" ]
}

@test "--setup asks for credentials and is refused without a terminal" {
  run -2 "$claudy" --setup </dev/null
  [[ $output == *"claudy login --key"* ]]
  screen=$HAL9000_PREFIX-setup
  tmux -L "$screen" -f /dev/null new-session -d -x 100 -y 30 "$claudy --setup; sleep 30"
  shows() { tmux -L "$screen" capture-pane -p -J | grep -F -- "$1"; }
  wait_for 10 shows "1 to 3"
  # Ctrl-C exits, and so does the end of input.
  for key in C-c C-d; do
    tmux -L "$screen" send-keys "$key"
    wait_for 5 shows "Cancelled"
    tmux -L "$screen" respawn-pane -k "$claudy --setup; sleep 30"
    wait_for 10 shows "1 to 3"
  done
  tmux -L "$screen" send-keys 2 Enter
  wait_for 5 shows "API key (hidden)"
  tmux -L "$screen" send-keys sk-ant-typed-at-setup Enter
  wait_for 5 shows "The key is saved"
  run ! shows sk-ant-typed
  tmux -L "$screen" kill-server
  [ "$(cat "$HAL9000_HOME/secrets/anthropic_key")" = sk-ant-typed-at-setup ]
  "$claudy" logout --yes
}

@test "reports a stopped daemon and an unreachable engine" {
  "$claudy" daemon stop
  examine || true
  [ "$(found parent)" = fail ]
  [ "$(mends parent)" = "claudy daemon start" ]
  "$claudy" daemon start >/dev/null
  checks=$(DOCKER_HOST=unix:///nowhere.sock "$claudy" doctor --json) || true
  [ "$(found engine)" = fail ]
  [[ $(mends engine) == *"unset DOCKER_HOST"* ]]
  [ "$(found parent)" = "" ]
}

@test "reports a paused parent and an engine that does not respond" {
  docker pause "$parent"
  examine || true
  docker unpause "$parent"
  [ "$(found parent) $(mends parent)" = "fail claudy daemon start" ]
  deno=$(echo "$repo"/node_modules/@deno/*/deno)
  "$deno" eval --no-lock 'for await (const _ of Deno.listen({ transport: "unix", path: Deno.args[0] })) globalThis.kept = _;' "$BATS_TEST_TMPDIR/mute.sock" &
  mute=$!
  wait_for 5 test -S "$BATS_TEST_TMPDIR/mute.sock"
  checks=$(DOCKER_HOST=unix://$BATS_TEST_TMPDIR/mute.sock timeout 12 "$claudy" doctor --json) || true
  kill "$mute"
  [ "$(found engine)" = fail ]
}

@test "reports the kind of credentials without showing them" {
  unset ANTHROPIC_API_KEY
  examine
  [ "$(found credentials) $(mends credentials)" = "warn claudy login" ]
  ANTHROPIC_API_KEY=sk-ant-planted-doctor examine
  [ "$(found credentials)" = ok ]
  [[ $checks != *planted* ]]
  # An empty key file does not count as a credential.
  : >"$HAL9000_HOME/secrets/anthropic_key"
  examine
  rm "$HAL9000_HOME/secrets/anthropic_key"
  [ "$(found credentials)" = warn ]
}

@test "prune keeps a session that was opened during the prompt" {
  name=$("$claudy" --detach "$project")
  "$claudy" stop "$name"
  sed -i 's/"usedAt": "..../"usedAt": "2016/' "$HAL9000_HOME/sessions/kept/$name.json"
  screen=$HAL9000_PREFIX-prune
  tmux -L "$screen" -f /dev/null new-session -d -x 150 -y 30 "$claudy prune --sessions --older-than 3650; sleep 30"
  shows() { tmux -L "$screen" capture-pane -p -J | grep -F -- "$1"; }
  wait_for 10 shows "[y/N]"
  "$claudy" --detach "$project"
  tmux -L "$screen" send-keys y Enter
  wait_for 10 shows "In use again: session $name"
  tmux -L "$screen" kill-server
  docker exec "$name" true
  [ -e "$HAL9000_HOME/sessions/kept/$name.json" ]
}

@test "prune lists old data with its size, asks, and removes only that" {
  rm -rf "$HAL9000_HOME"/backups/*
  mkdir -p "$HAL9000_HOME/logs" "$HAL9000_HOME/backups/one" "$HAL9000_HOME/backups/two" "$HAL9000_HOME/workers/gone-12345678"
  head -c 3000000 /dev/zero >"$HAL9000_HOME/logs/old.log"
  touch "$HAL9000_HOME/logs/new.log" "$HAL9000_HOME/workers/gone-12345678/file"
  touch -d "4000 days ago" "$HAL9000_HOME/logs/old.log" "$HAL9000_HOME/backups/one" "$HAL9000_HOME/workers/gone-12345678"
  touch -d "3700 days ago" "$HAL9000_HOME/backups/two"
  run -0 "$claudy" prune --dry-run
  [[ $output == *old.log* && $output != *new.log* ]]
  # Older than any image on the engine: those are not the test's.
  old=(--older-than 3650)
  run -6 "$claudy" prune "${old[@]}"
  [[ $output == *"3, 3.0 MB together"* ]]
  [ -e "$HAL9000_HOME/logs/old.log" ]
  removed=$("$claudy" prune "${old[@]}" --yes --json)
  [ "$(jq -r 'map(select(.kind != "image")) | map(.kind) | sort | join(" ")' <<<"$removed")" = "backup home log" ]
  [ ! -e "$HAL9000_HOME/logs/old.log" ]
  [ ! -e "$HAL9000_HOME/backups/one" ]
  [ -e "$HAL9000_HOME/backups/two" ]
  [ -e "$HAL9000_HOME/logs/new.log" ]
  rm -r "$HAL9000_HOME/backups/two"
  run -0 "$claudy" prune "${old[@]}"
  [[ $output == *"Nothing to remove"* ]]
  run -2 "$claudy" prune --older-than x
}

@test "reports an unfinished migration or rollback, and unused data of version 0.5" {
  mkdir "$HAL9000_HOME/membank"
  examine || true
  [ "$(found move)" = ok ]
  echo former >"$HAL9000_HOME/membank/note.md"
  examine || true
  [ "$(found move)" = warn ]
  jq -n '{version: 1, kind: "rollback", stamp: "20261121T130000Z", parts: [], skipBackup: false,
    keepVolumes: false, backup: null, made: [], steps: {}}' >"$HAL9000_HOME/migration/journal.json"
  examine || true
  [ "$(found move) $(mends move)" = "fail hal9000-rollback" ]
  rm -r "$HAL9000_HOME/membank" "$HAL9000_HOME/migration/journal.json"
}

@test "doctor runs before the first start and reports what is missing" {
  export HAL9000_PREFIX=$HAL9000_PREFIX-none HAL9000_HOME=$BATS_TEST_TMPDIR/none
  run -1 --separate-stderr "$claudy" doctor --json
  checks=$output
  [ "$(found records)" = ok ]
  [ "$(mends parent)" = "claudy up" ]
  [[ $checks != *ENOENT* && $checks != *"doctor --verbose"* ]]
  [ ! -e "$HAL9000_HOME" ]
}
