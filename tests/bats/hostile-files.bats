# Files that a worker leaves for the commands of the host: in its project and in its
# Claude home, which belong to it.

load ../helper/load
load ../helper/sessions

deno=$(echo "$repo"/node_modules/@deno/*/deno)

setup() { use_stub; }
teardown() {
  after_failure
  stop_workers
}

@test "leases on a session's files delay no command and break none" {
  project=$(make_project leased)
  cp "$repo/tests/helper/lease.ts" "$deno" "$project"
  open "$project"
  typed "$session" hello Enter
  wait_for_screen 20 "$session" "echo: hello"
  docker exec "$session" bash -c 'cd "$CLAUDE_CONFIG_DIR" && echo "{}" >settings.json && echo 0 >hal9000-ended && mkdir -p agents && touch agents/one.md CLAUDE.md
    printf "HAL9000_PROFILE=node\n" >/workspace/.hal9000.conf'
  docker exec --detach "$session" bash -c 'cd "$CLAUDE_CONFIG_DIR"
    exec /workspace/deno run -A --no-lock --no-config /workspace/lease.ts $(find . /workspace/.hal9000.conf -type f) >/workspace/leases'
  leased() { grep -E 'leases: [0-9]{2}' "$project/leases"; }
  wait_for 10 leased
  for command in sessions "logs $session" "sessions sync $session"; do
    # shellcheck disable=SC2086  # words of a command
    # The kernel breaks a lease after 45 s.
    run timeout 40 "$claudy" $command
    [ "$status" != 124 ]
    [[ $output != *EAGAIN* ]]
  done
  run -0 timeout 40 "$scripts/coordinator.ts" list
}

@test "commands take no program and no configuration from the project that they are started in" {
  project=$(make_project traps)
  cd "$project" || return
  marker=$BATS_TEST_TMPDIR/ran
  mkdir -p node_modules/.bin
  for program in deno node docker git sh bash tmux ps du; do
    printf '#!/bin/sh\ntouch %q\n' "$marker" | tee "$program" >"node_modules/.bin/$program"
    chmod +x "$program" "node_modules/.bin/$program"
  done
  for file in deno.json package.json .npmrc .env tsconfig.json deno.lock import_map.json; do echo "{ hostile" >"$file"; done
  git init --quiet
  for setting in core.fsmonitor core.pager core.editor core.sshCommand diff.external credential.helper; do git config "$setting" "touch $marker"; done
  for command in sessions "config check" "--detach --yes --profile base --name traps-$$ ." "sessions show traps-$$" "stop traps-$$"; do
    # shellcheck disable=SC2086  # words of a command
    run -0 timeout 60 "$claudy" $command
    [[ $output != *hostile* ]]
  done
  run -0 spawn --profile base -n trapped-$$ .
  [ ! -e "$marker" ]
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

@test "escapes control characters in project names" {
  project=$(make_project $'red\e[31m\nrow')
  spawn -n odd-$$ "$project"
  run -0 "$scripts/coordinator.ts" list
  [[ $output == *'red\x1b[31m\x0arow'* ]]
  [ "$("$scripts/coordinator.ts" list --json | jq -r '.[0].project')" = "$project" ]
}
