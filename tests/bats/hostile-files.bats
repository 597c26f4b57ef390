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
    run timeout 15 "$claudy" $command
    [ "$status" != 124 ]
    [[ $output != *EAGAIN* ]]
  done
  run -0 timeout 15 "$scripts/coordinator.ts" list
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
