# claudy: sessions with the real Claude CLI and a stub for its API.
# shellcheck disable=SC2030,SC2031  # each test has its own session

load ../helper/load
load ../helper/sessions

setup() {
  use_stub
  project=$(make_project "session$BATS_TEST_NUMBER")
  screen=hal9000-test-$$-$BATS_TEST_NUMBER
}

teardown() {
  after_failure
  tmux -L "$screen" kill-server 2>/dev/null || true
  stop_workers
}

@test "repeated SIGHUP on a terminal leaves no client behind" {
  open "$project"
  tmux -L "$screen" -f /dev/null new-session -d -x 100 -y 30 "exec $claudy attach $session"
  attached() { ! detached; }
  wait_for 10 attached
  local pid
  pid=$(tmux -L "$screen" display-message -p '#{pane_pid}')
  while kill -HUP "$pid" 2>/dev/null; do sleep 0.002; done
  wait_for 5 detached
  # A terminal whose process is killed does not count, and is closed by the next one.
  attach() { tmux -L "$screen" -f /dev/null new-session -d -x 100 -y 30 "exec $claudy attach $session"; }
  attach
  wait_for 10 attached
  kill -9 "$(tmux -L "$screen" display-message -p '#{pane_pid}')"
  wait_for 5 detached
  attach
  wait_for 10 attached
  clients() { docker exec "$session" tmux -L claude list-clients | grep -c .; }
  [ "$(clients)" = 1 ]
}

@test "--new starts another conversation" {
  open "$project"
  typed "$session" "old words" Enter
  wait_for_screen 20 "$session" "echo: old words"
  run --separate-stderr -0 "$claudy" stop "$session"
  [ "$stderr" = "" ] # Claude was not killed
  open --new "$project"
  [ "$(jq -r .conversation <<<"$opened")" = new ]
  typed "$session" "new words" Enter
  wait_for_screen 20 "$session" "echo: new words"
  run ! sent "old words"
}

@test "resumes the conversation after a worker is killed during a turn" {
  open "$project"
  typed "$session" "before the end" Enter
  wait_for_screen 20 "$session" "echo: before the end"
  typed "$session" 'TOOL Bash {"command":"sleep 60","description":"long"}' Enter
  wait_for_screen 20 "$session" "● Long"
  run ! is "$session" idle
  docker kill "$session"
  open "$project"
  [ "$(jq -r .conversation <<<"$opened")" = resumed ]
  typed "$session" "after it" Enter
  wait_for_screen 20 "$session" "echo: after it"
  sent "before the end"
}

@test "replacing the parent does not affect a session" {
  open "$project"
  typed "$session" "before" Enter
  wait_for_screen 20 "$session" "echo: before"
  "$claudy" daemon restart >/dev/null
  docker restart "$parent" >/dev/null
  typed "$session" "after" Enter
  wait_for_screen 20 "$session" "echo: after"
  [ "$("$claudy" --detach --json "$project" | jq -r .conversation)" = running ]
}

@test "shows a session as waiting within 2 s of a permission prompt, until it is answered" {
  open "$project"
  for answer in Escape Enter; do
    ask_permission "$session" "$answer"
    wait_for 2 is "$session" waiting
    [[ $("$claudy" sessions --waiting) == *"$session"* ]]
    typed "$session" "$answer"
    wait_for 5 is "$session" idle
    [[ $("$claudy" sessions --waiting) != *"$session"* ]]
    typed "$session" "and on" Enter
    wait_for 10 sent "and on"
    wait_for 5 is "$session" idle
  done
}

@test "says how Claude ended, and attach resumes the session" {
  "$claudy" --detach "$project"
  run -5 "$claudy" --detach "$project" -- --model opus
  tmux -L "$screen" -f /dev/null new-session -d -x 100 -y 30 "cd '$project'; '$claudy' attach; exec bash --norc"
  shows() { tmux -L "$screen" capture-pane -p -J | grep -F -- "$1"; }
  wait_for 20 shows "❯"
  tmux -L "$screen" send-keys "hello there" Enter
  wait_for 10 shows "echo: hello there"
  tmux -L "$screen" send-keys /exit Enter
  wait_for 20 shows "Claude ended. Resume the session with: claudy attach"
  session=$("$claudy" sessions show --json "$project" | jq -r .name)
  is "$session" exited
  # Arguments that Claude refuses.
  run -1 "$claudy" --detach "$project" -- --bogus-flag
  [[ $output == *"unknown option '--bogus-flag'"*"Claude ended with exit code 1"* ]]
  [[ $("$claudy" sessions) == *"exited: exit code 1"* ]]
  "$claudy" stop "$session"
  tmux -L "$screen" send-keys "clear; '$claudy' attach" Enter
  wait_for 30 shows "echo: hello there"
  docker kill "$session"
  wait_for 10 shows "The worker has ended. Resume the session with: claudy attach"
  # A terminal gives a prompt no input.
  tmux -L "$screen" send-keys "clear; '$claudy' run from a terminal" Enter
  wait_for 20 shows "echo: from a terminal"
  run -1 shows "no stdin data received"
}

@test "a project that was replaced, moved or removed says what to do" {
  session=$("$claudy" --detach "$project")
  mv "$project" "$project-moved"
  run -4 "$claudy" --detach "$project"
  [[ $output == *"claudy move $session DIRECTORY"* ]]
  mkdir "$project"
  run -5 "$claudy" --detach "$project"
  [[ $output == *"claudy stop $session"* ]]
  "$claudy" stop "$session"
  moved=$("$claudy" move "$session" "$project-moved" --json | jq -r .session)
  [ "$("$claudy" --detach --json "$project-moved" | jq -r .session)" = "$moved" ]
}

@test "sessions rm asks, removes what it lists, and keeps the project" {
  open "$project"
  touch "$project/mine"
  run -6 "$claudy" sessions rm "$session"
  [[ $output == *"Will be kept: the project, $project"* ]]
  is "$session" idle
  "$claudy" sessions rm --yes "$session"
  [ -z "$(state "$session")" ]
  [ ! -e "$HAL9000_HOME/claude/$session" ]
  [ -e "$project/mine" ]
  run -1 docker inspect "$session"
  run -4 "$claudy" sessions rm --yes "$session"
  run -4 "$claudy" stop "$session"
  [[ $output == *"There is no session"* ]]
}

@test "a session's key is stored only in its home" {
  open "$project"
  typed "$session" "with a key" Enter
  wait_for_screen 20 "$session" "echo: with a key"
  [ "$(stat -c '%a %u' "$HAL9000_HOME/claude/$session/.anthropic_key")" = "400 $(stat -c %u "$project")" ]
  {
    docker ps --all --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" | xargs docker inspect
    docker logs "$session" 2>&1
    docker logs "$parent" 2>&1
    "$claudy" sessions --json
    ps axww -o args
    docker exec "$session" sh -c 'cat /proc/[0-9]*/cmdline' 2>/dev/null || true
    cat "$HAL9000_HOME"/sessions/*.json "$HAL9000_HOME"/sessions/kept/*.json
  } >"$BATS_TEST_TMPDIR/all"
  run ! grep -c -F "$key" "$BATS_TEST_TMPDIR/all"
}

@test "sessions are claimed if there is a pool" {
  "$scripts/pool-manager.ts" start --min-warm 1 >/dev/null
  "$scripts/pool-manager.ts" warm >/dev/null
  open "$project"
  [ "$(jq -r .start <<<"$opened")" = warm ]
  typed "$session" "warm words" Enter
  wait_for_screen 20 "$session" "echo: warm words"
  "$claudy" stop "$session"
  "$scripts/pool-manager.ts" stop
  open "$project"
  [ "$(jq -r '.start + " " + .conversation' <<<"$opened")" = "cold resumed" ]
}

# bats test_tags=soak
@test "concurrent opens of one session get the same worker, with and without a pool" {
  for pool in stop start; do
    "$scripts/pool-manager.ts" $pool >/dev/null 2>&1 || true
    pids=()
    for i in $(seq $((4 + soak))); do
      "$claudy" --detach --json "$project" >"$BATS_TEST_TMPDIR/opened.$i" 3>&- &
      pids+=($!)
    done
    wait "${pids[@]}"
    [ "$(cat "$BATS_TEST_TMPDIR"/opened.* | jq -r .id | sort -u | wc -l)" = 1 ]
    session=$(jq -r .session "$BATS_TEST_TMPDIR/opened.1")
    wait_for_screen 15 "$session" '❯'
    docker exec "$session" test -e /home/claude/.claude/.claude.json
    [ -d "$HAL9000_HOME/claude/$session" ]
    "$claudy" stop "$session"
  done
  "$scripts/pool-manager.ts" stop
}

@test "claudy offers to start the daemon" {
  "$claudy" daemon stop
  run -6 "$claudy" --detach "$project"
  [[ $output == *"The daemon is not running"* ]]
  # It does not ask if the start would fail.
  HAL9000_IMAGE_REPO=hal9000-absent run -4 "$claudy" --detach "$project"
  [[ $output == *"There is no image hal9000-absent:parent"*"claudy up"* ]]
  stop_stub # its network stopped with the daemon
  "$claudy" daemon start
  "$claudy" daemon stop
  opened=$("$claudy" --detach --yes --json "$project")
  [ "$(jq -r .start <<<"$opened")" = cold ]
  start_stub
}

@test "claudy run prints the answer, also as JSON, and passes the exit code on" {
  cd "$project"
  run -0 --separate-stderr "$claudy" run -p "what is it" </dev/null
  [ "$output" = "echo: what is it" ]
  run -0 --separate-stderr "$claudy" run --json --project "$project" "7" </dev/null
  [ "$(jq -r .result <<<"$output")" = "echo: 7" ]
  echo "from stdin" | "$claudy" run "read:" >"$BATS_TEST_TMPDIR/out"
  grep -F "from stdin" "$BATS_TEST_TMPDIR/out"
  run -1 "$claudy" run "with what Claude does not know" -- --no-such-option </dev/null
  [[ $output == *"unknown option"* ]]
  [ "$("$scripts/coordinator.ts" list --json)" = "[]" ]
}

@test "claudy run shows that the API is tried again, in each format" {
  cd "$project"
  run -0 --separate-stderr "$claudy" run "FAIL 529 1 text" </dev/null
  [ "$output" = "echo: FAIL 529 1 text" ]
  # shellcheck disable=SC2154
  [[ $stderr == *"The API answered 529 (overloaded); retry 1 of 10 in 0."*" s"* ]]
  run -0 --separate-stderr "$claudy" run --output-format json "FAIL 529 1 json" </dev/null
  [ "$(jq -r .result <<<"$output")" = "echo: FAIL 529 1 json" ]
  [[ $stderr == *"retry 1 of 10"* ]]
  run -0 --separate-stderr "$claudy" run --output-format stream-json "FAIL 529 1 events" </dev/null
  [ "$(jq -r 'select(.subtype == "api_retry").error_status' <<<"$output")" = 529 ]
  [ "$(jq -r 'select(.type == "result").result' <<<"$output")" = "echo: FAIL 529 1 events" ]
  run -1 --separate-stderr "$claudy" run 'TOOL Bash {"command":"true","description":"x"}' -- --max-turns 1 </dev/null
  [[ $output == "Error: Reached max"* ]]
}

@test "a permission mode is remembered, and taken from no repository" {
  mkdir -p "$project/.claude"
  echo '{"permissions":{"defaultMode":"bypassPermissions"}}' >"$project/.claude/settings.json"
  mode() { "$claudy" run --trust-project -C "$project" --output-format stream-json "$@" hello </dev/null | jq -r 'select(.subtype == "init").permissionMode'; }
  [ "$(mode)" = default ]
  [ "$(PERMISSION_MODES=$project=plan mode)" = plan ]
  [ "$(PERMISSION_MODES=$project=plan mode --dangerously-skip-permissions)" = bypassPermissions ]
  rm -r "$project/.claude"

  session=$("$claudy" --detach --dangerously-skip-permissions "$project")
  run -5 "$claudy" --detach --permission-mode plan "$project"
  [[ $output == *"permission mode plan has no effect"*"claudy stop $session"* ]]
  "$claudy" stop "$session"
  run -0 --separate-stderr "$claudy" --detach --json "$project"
  [[ $stderr == *"Permission mode: bypassPermissions"* ]]
  [ "$("$claudy" sessions show "$session" --json | jq -r .permissionMode)" = bypassPermissions ]
  wait_for_screen 30 "$session" 'bypass permissions on'
  typed "$session" 'TOOL Bash {"command":"touch /workspace/unasked","description":"x"}' Enter
  wait_for 20 test -e "$project/unasked"
}

@test "accepts the permission modes of the CLI" {
  spawn -n modes-$$ "$project"
  theirs=$(docker exec modes-$$ claude --help | tr -s ' \n' ' ' | sed 's/.*--permission-mode <mode>\([^)]*\)).*/\1/' | grep -o '"[a-zA-Z]*"' | tr -d '"' | sort)
  ours=$("$claudy" --help | sed -n 's/.*--permission-mode <mode> *\(.*\) (default.*/\1/p' | tr -d ' ' | tr , '\n' | sort)
  [ "$(wc -l <<<"$ours")" = 6 ]
  [ "$ours" = "$theirs" ]
}

@test "a Claude that its memory limit kills fails the command, and the error names the limit" {
  use_stub
  local project killed="ran out of memory at its limit of 20 MiB"
  project=$(make_project hungry)
  export WORKER_MEMORY=20m
  run -1 "$claudy" -d --name hungry-$$ "$project"
  [[ $output == *"$killed"*"Killed"*"error: Claude ended with exit code 137" ]]
  "$claudy" stop hungry-$$
  run -137 "$claudy" run -C "$project" hello
  [[ $output == *"$killed"* ]]
}

@test "the agent's instructions contain its environment and its port range" {
  open "$project"
  base=$(jq -r .portBase "$HAL9000_HOME/sessions/kept/$session.json")
  typed "$session" "where am I" Enter
  wait_for_screen 20 "$session" "echo: where am I"
  sent "Ports $base to $((base + 19)) are yours"
  sent "4 GiB of memory, 2 CPUs, 100 processes"
  docker exec "$session" sh -c 'tr "\0" "\n" </proc/$(pgrep -x claude)/environ' | grep -x "HAL9000_PORT_BASE=$base"
  first=$session
  open --name "ports-second-$$" "$project"
  other=$(jq -r .portBase "$HAL9000_HOME/sessions/kept/ports-second-$$.json")
  [ "$other" != "$base" ]
  "$claudy" stop "$first"
  open "$project"
  [ "$(jq -r .portBase "$HAL9000_HOME/sessions/kept/$first.json")" = "$base" ]
  "$claudy" sessions rm --yes "$first"
  [ ! -e "$HAL9000_HOME/sessions/ports/$base" ]
  [ "$(cat "$HAL9000_HOME/sessions/ports/$other")" = ports-second-$$ ]
}

@test "hooks record the session's activity too" {
  open "$project"
  noted() { [ "$(docker exec "$session" cat /home/claude/.claude/hal9000-activity.json)" = "{\"status\":\"$1\"}" ]; }
  wait_for 5 noted idle
  ask_permission "$session"
  wait_for 2 noted waiting
  # If the CLI has no state file, the hooks' state is used.
  docker exec "$session" sh -c 'mv /home/claude/.claude/sessions /home/claude/.claude/gone'
  is "$session" waiting
  docker exec "$session" sh -c 'mv /home/claude/.claude/gone /home/claude/.claude/sessions'
  # Invalid state files are ignored, and a pipe causes no delay.
  docker exec "$session" sh -c 'cd /home/claude/.claude/sessions && mkfifo 1.json && echo "{\"status\":\"rm -rf\"}" >2.json'
  timeout 5 "$claudy" watch >"$BATS_TEST_TMPDIR/watched" || true
  grep -F "$session waiting" "$BATS_TEST_TMPDIR/watched"
}

@test "--legacy warns and starts a container with its own network" {
  run -0 --separate-stderr "$claudy" --legacy --via-parent --detach --json "$project"
  [[ $stderr == *"--legacy is deprecated"*"hal9000-migrate"* ]]
  session=$(jq -r .session <<<"$output")
  [ "$(inspect "$session" '{{.HostConfig.NetworkMode}}')" = bridge ]
  docker run --detach --name "$stub-legacy" --network "container:$session" --entrypoint deno \
    --label "hal9000.instance=$HAL9000_PREFIX" --label hal9000.role=helper \
    --volume "$repo/tests/helper:/helper:ro" "$HAL9000_IMAGE_REPO:parent" \
    run -A --no-lock --no-config --quiet /helper/messages-stub.ts "$stub_port" /tmp/requests
  wait_for_screen 15 "$session" '❯'
  typed "$session" "all alone" Enter
  wait_for_screen 20 "$session" "echo: all alone"
  docker rm --force --volumes "$stub-legacy"
  "$claudy" stop "$session"
  # The same conversation with a parent.
  open "$project"
  [ "$(jq -r .conversation <<<"$opened")" = resumed ]
}

@test "claudy logs --worker prints a worker's log, also after the worker was removed" {
  run -4 "$claudy" logs --worker no-such-session
  open "$project"
  run -0 "$claudy" logs --worker "$session"
  "$claudy" stop "$session"
  run -0 "$claudy" logs --worker --tail 5 "$session"
  printf '%s\n' one two three >"$HAL9000_HOME/logs/$session.log"
  [ "$("$claudy" logs --worker --tail 2 "$session" | xargs)" = "two three" ]
  [ "$("$claudy" logs --worker "$session" | xargs)" = "one two three" ]
  [ -z "$("$claudy" logs --worker --tail 0 "$session")" ]
  run -2 "$claudy" logs --worker --tail x "$session"
}

@test "suggests a command for a mistyped one instead of only reporting a missing directory" {
  cd "$project"
  run -4 "$claudy" --detach sesions
  [[ $output == *'Did you mean "sessions"?'* ]]
  run -4 "$claudy" --detach ./sesions
  [[ $output != *"Did you mean"* ]]
}

@test "files that a worker creates in its home delay no command and are not followed as links" {
  open "$project"
  in_home() { docker exec -w /home/claude/.claude "$session" sh -c "$1"; }
  in_home 'mkdir -p projects/-workspace && ln -s x.jsonl projects/-workspace/x.jsonl
    mkfifo sessions/1.json && ln -sf /etc/passwd hal9000-activity.json'
  wait_for 10 is "$session" idle
  # Directories in place of files that are written.
  in_home 'rm -f hal9000-context.md .anthropic_key && mkdir -p hal9000-context.md/x .anthropic_key/y'
  [ "$("$claudy" --detach --json "$project" | jq -r .conversation)" = running ]
  [ -f "$HAL9000_HOME/claude/$session/.anthropic_key" ]
  # A link in place of the key file is not followed.
  "$claudy" stop "$session"
  rm "$HAL9000_HOME/claude/$session/.anthropic_key"
  ln -s /etc/passwd "$HAL9000_HOME/claude/$session/.anthropic_key"
  env -u ANTHROPIC_API_KEY "$claudy" --detach "$project"
  claude_line() { docker exec "$session" sh -c 'tr "\0" " " </proc/$(pgrep -ox claude)/cmdline'; }
  wait_for 10 claude_line
  [[ $(claude_line) != *apiKeyHelper* ]]
}

@test "shows a worker that does not answer as unknown, and stops it" {
  open "$project"
  wait_for 10 is "$session" idle # nothing more is written
  # Removes the state files, so that the state is asked of the worker.
  docker exec "$session" sh -c 'pkill -STOP claude; rm -f "$CLAUDE_CONFIG_DIR"/sessions/*.json \
    "$CLAUDE_CONFIG_DIR/hal9000-activity.json"; pkill -STOP tmux'
  run -0 timeout 40 "$claudy" sessions --json
  [ "$(jq -r --arg name "$session" '.[] | select(.name == $name).state' <<<"$output")" = unknown ]
  timeout 30 "$claudy" stop "$session"
  run -1 docker inspect "$session"
}

@test "refuses a path as a session name" {
  open "$project"
  for name in "./$session" "../kept/$session" "../$session"; do
    run -4 "$claudy" sessions rm --yes "$name"
    run -4 "$claudy" stop "$name"
  done
  is "$session" idle
}

@test "the parent stops the worker of a killed claudy run" {
  # The API is unreachable, so that the CLI retries for minutes.
  ANTHROPIC_BASE_URL=http://127.0.0.1:9 "$claudy" run -C "$project" "hello" </dev/null 3>&- &
  asking=$!
  left() { "$scripts/coordinator.ts" list --json | jq -re '.[0].name'; }
  wait_for 10 left
  kill -9 "$asking"
  worker=$(left)
  # Makes the worker look old; then a worker ends, which makes the parent check.
  record=$HAL9000_HOME/sessions/$worker.json
  jq '.createdAt = "2026-01-01T00:00:00.000Z"' "$record" >"$BATS_TEST_TMPDIR/record"
  cp "$BATS_TEST_TMPDIR/record" "$record"
  spawn -n sessionless-$$ "$project"
  docker exec "$worker" pkill claude || true # if it was started at all
  "$scripts/coordinator.ts" stop sessionless-$$
  none() { ! left; }
  wait_for 20 none
}

@test "a refused session leaves nothing behind" {
  use_stub
  project=$(make_project refused)
  left() { find "$HAL9000_HOME/sessions" "$HAL9000_HOME/claude" -path '*/ended' -prune -o -name '*refused*' -print; grep -rl refused "$HAL9000_HOME/sessions/ports"; docker ps --all --quiet --filter name=refused --filter "label=hal9000.instance=$HAL9000_PREFIX"; }
  refused() { # refused EXIT_CODE COMMAND...
    run "-$1" "${@:2}"
    [ -z "$(left)" ] || { left; return 1; }
  }
  refused 4 "$claudy" --detach --profile nonsense "$project"
  refused 4 "$claudy" --detach --mcp nonsense "$project"
  refused 6 "$claudy" --detach --name refused-$$ /etc
  SSH_AUTH_SOCK=$BATS_TEST_TMPDIR/nowhere refused 4 "$claudy" --detach --name refused-$$ --ssh-agent --profile base "$project"
  # A worker already has the name.
  spawn -n claudy-refused-$$ "$project"
  run -5 "$claudy" --detach --name claudy-refused-$$ "$project"
  "$scripts/coordinator.ts" stop claudy-refused-$$
  [ -z "$(find "$HAL9000_HOME/sessions/kept" "$HAL9000_HOME/claude" -name '*refused*')" ]
  # All port ranges are in use.
  echo '{}' >"$HAL9000_HOME/sessions/kept/many.json"
  for port in $(seq 20000 20 29980); do
    [ -e "$HAL9000_HOME/sessions/ports/$port" ] || echo -n many >"$HAL9000_HOME/sessions/ports/$port"
  done
  refused 7 "$claudy" --detach --name refused-$$ "$project"
  [[ $output == *"All port ranges are in use by sessions"* ]]
  grep -lx many "$HAL9000_HOME"/sessions/ports/* | xargs rm
  rm "$HAL9000_HOME/sessions/kept/many.json"
}

@test "a session works in a copy, whose commits come back and whose programs do not run on the host" {
  git -C "$project" init --quiet --initial-branch=main
  echo one >"$project/a.txt"
  git -C "$project" add .
  git -C "$project" -c user.name=me -c user.email=me@example.com commit --quiet --message one
  echo later >"$project/untracked.txt"
  # Killed while the copy is made, and opened again: nothing is left of the first one.
  "$claudy" --clone --detach --name "half-$$" "$project" >/dev/null 2>&1 3>&- &
  making() { ls -A "$HAL9000_HOME/workspaces/half-$$"/.making-*; }
  wait_for 10 making 2>/dev/null
  kill -9 $!
  "$scripts/pool-manager.ts" start --min-warm 1 >/dev/null
  "$scripts/pool-manager.ts" warm >/dev/null
  open --clone --name "copy-$$" "$project" 2>"$BATS_TEST_TMPDIR/told"
  grep -F "Not in the copy: 1 untracked file" "$BATS_TEST_TMPDIR/told"
  [ "$(jq -r .start <<<"$opened")" = warm ]
  in_copy() { docker exec "$session" "$@"; }
  [ "$(in_copy git branch --show-current)" = "claudy/copy-$$" ]
  # What the agent plants for the host: git there has its own configuration only.
  marker=$BATS_TEST_TMPDIR/ran
  in_copy sh -c "echo two >two.txt && git add . && git -c user.name=a -c user.email=a@b commit -qm two
    git worktree add -q -b side .claude/side
    printf '#!/bin/sh\ntouch $marker /workspace/.git/ran\n' >evil && chmod +x evil
    for key in core.fsmonitor filter.x.clean filter.x.smudge diff.external core.pager core.sshCommand; do
      git config \$key /workspace/evil
    done
    echo '* filter=x diff=x' >.gitattributes
    git rev-parse HEAD >'.git/refs/heads/a b'
    ln -s /etc .git/refs/heads/etc
    echo draft >draft.txt"
  run --separate-stderr -0 "$claudy" diff "copy-$$" --with-changes
  [[ $output == *"+two"* && $output == *"+draft"* ]]
  run --separate-stderr -0 "$claudy" fetch "copy-$$" --json
  [ "$(jq -r '.updated[0].commits' <<<"$output")" = 1 ]
  [[ $stderr == *"left out: a b"* && $stderr == *"left out: etc"* ]]
  run -0 "$claudy" merge "copy-$$"
  [ "$(cat "$project/two.txt")" = two ]
  [ "$(git -C "$project" status --porcelain)" = "?? untracked.txt" ]
  git -C "$project" fsck --strict
  [ ! -e "$marker" ]
  # The other way.
  echo mine >"$project/mine.txt"
  git -C "$project" add mine.txt
  git -C "$project" -c user.name=me -c user.email=me@example.com commit --quiet --message mine
  run -0 "$claudy" pull "copy-$$"
  [[ $output == *"host/main: "* ]]
  [ ! -e "$HAL9000_HOME/workspaces/copy-$$/tree/.git/ran" ]
  in_copy git show host/main:mine.txt
  # A few objects that would be billions of files.
  in_copy sh -c 'entry="100644 blob $(git hash-object -w a.txt)"
    for level in 1 2 3 4 5 6 7 8 9 10; do
      tree=$(for name in 0 1 2 3 4 5 6 7 8 9; do printf "%s\t%s\n" "$entry" $name; done | git mktree)
      entry="040000 tree $tree"
    done
    git update-ref refs/heads/bomb $(git -c user.name=a -c user.email=a@b commit-tree -m bomb $tree)'
  run -6 "$claudy" fetch "copy-$$"
  [[ $output == *"The files of bomb would take "*"--max-size 4g"* ]]
  in_copy git update-ref -d refs/heads/bomb
  # It is not removed with what only it has.
  run -6 "$claudy" sessions rm --yes "copy-$$"
  [[ $output == *"has in its copy alone: "*"untracked files"* ]]
  "$claudy" fetch "copy-$$" --with-changes
  # A worktree is not committed as files.
  [[ $(git -C "$project" ls-tree -r --name-only "claudy/copy-$$/uncommitted") != *side* ]]
  run -6 "$claudy" sessions rm --yes "copy-$$"
  in_copy rm -r .claude
  [[ $("$claudy" sessions --size) == *"copy-$$ "*" KiB "* ]]
  "$claudy" stop "copy-$$"
  [[ $("$claudy" prune --sessions --older-than 0 --dry-run) == *"session "*" MB "*"copy-$$"* ]]
  "$claudy" sessions rm --yes "copy-$$"
  [ ! -e "$HAL9000_HOME/workspaces/copy-$$" ]
  # Once, as in CI: what is changed comes back, and the session goes.
  run --separate-stderr -0 "$claudy" run --clone --json -C "$project" --dangerously-skip-permissions \
    'TOOL Bash {"command":"echo 1 >once.txt && git add . && git -c user.name=a -c user.email=a@b commit -qm once && echo 2 >more.txt","description":"x"}' </dev/null
  [ "$(jq -r '.result, .copy.made.commits, .copy.kept' <<<"$output" | xargs)" = "tool done 1 false" ]
  [ "$(git -C "$project" show "$(jq -r .copy.branch <<<"$output"):more.txt")" = 2 ]
  open --clone "$project" # sweeps what is left
  [ "$(ls -A "$HAL9000_HOME/workspaces")" = "$session" ]
  "$claudy" sessions rm --yes --force "$session"
}

@test "forks of a live conversation answer independently, and it goes on undisturbed" {
  git -C "$project" init --quiet --initial-branch=main
  git -C "$project" -c user.name=me -c user.email=me@example.com commit --quiet --allow-empty --message begin
  echo draft >"$project/draft.txt"
  open "$project"
  local first=$session
  typed "$first" "first words" Enter
  wait_for_screen 20 "$first" "echo: first words"
  local conversation=("$HAL9000_HOME/claude/$first"/projects/-workspace/*.jsonl)
  cp "${conversation[0]}" "$BATS_TEST_TMPDIR/conversation"
  run --separate-stderr -0 "$claudy" fork "$first" -n 3 --prompt "to alpha" --prompt "to beta" --prompt "to gamma" --json
  [[ $stderr == *"stood still for "*" ms"* ]]
  local one two three
  one=$(jq -r '.sessions[0].session' <<<"$output")
  two=$(jq -r '.sessions[1].session' <<<"$output")
  three=$(jq -r '.sessions[2].session' <<<"$output")
  wait_for_screen 30 "$one" "echo: to alpha"
  wait_for_screen 30 "$two" "echo: to beta"
  wait_for_screen 30 "$three" "echo: to gamma"
  # Its own Claude may have added a line.
  head -c "$(stat -c %s "$BATS_TEST_TMPDIR/conversation")" "${conversation[0]}" | cmp - "$BATS_TEST_TMPDIR/conversation"
  run -1 grep "to alpha\|to beta\|to gamma" "${conversation[@]}"
  for fork in "$one" "$two" "$three"; do
    [ "$(docker exec "$fork" cat draft.txt)" = draft ]
    [ "$(docker exec "$fork" git branch --show-current)" = "claudy/$fork" ]
  done
  # What the API got of each: the same words before, then its own.
  asked() { grep -F -- "$1" "$HAL9000_TEST_ROOT/session-stub/requests" | grep -F '"tools":[{"name"' | tail -n 1; }
  [[ $(asked "to alpha") == *"first words"* && $(asked "to alpha") != *"to beta"* ]]
  [[ $(asked "to beta") == *"first words"* && $(asked "to beta") != *"to alpha"* ]]
  [[ $(asked "to gamma") == *"first words"* && $(asked "to gamma") != *"to alpha"* && $(asked "to gamma") != *"to beta"* ]]
  typed "$first" "second words" Enter
  wait_for_screen 20 "$first" "echo: second words"
  [[ $(asked "second words") == *"first words"* && $(asked "second words") != *"to alpha"* ]]
  # All have the same draft: the forks in their copies, the first one in the project itself.
  both() { jq -re --arg one "$1" --arg two "$2" '.[] | select(.name == $one).overlap[] | select(.session == $two).files | join(" ")'; }
  run --separate-stderr -0 "$claudy" sessions --overlap --json
  [ "$(both "$one" "$two" <<<"$output")" = draft.txt ]
  [ "$(both "$one" "$first" <<<"$output")" = draft.txt ]
  "$claudy" watch >"$BATS_TEST_TMPDIR/watched" 3>&- &
  watch=$!
  wait_for 20 grep -F "$one and $two have both changed 1 file: draft.txt" "$BATS_TEST_TMPDIR/watched"
  kill "$watch"
  docker exec "$one" sh -c 'echo ready >done.txt && git add done.txt && git -c user.name=a -c user.email=a@b commit -qm done'
  run --separate-stderr -0 "$claudy" compare "$one" "$two" --test "test -e done.txt" --json
  [ "$(jq -c 'map([.commits, .files, .insertions, .test])' <<<"$output")" = "[[1,2,2,0],[0,1,1,1]]" ]
  run -6 "$claudy" pick "$one" --yes
  [[ $output == *"$two\" has in its copy alone: "* ]]
  run -0 "$claudy" pick "$one" --force
  [ "$(cat "$project/done.txt")" = ready ]
  [[ $output == *"Removed $two"* ]]
  [ ! -e "$HAL9000_HOME/workspaces/$two" ]
  "$claudy" sessions rm --yes --force "$one"
}
