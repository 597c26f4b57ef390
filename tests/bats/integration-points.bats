# The integration points of the original's test list, each under its name there; see
# docs/dind/DEVELOPMENT.md. Claude's API is a stub.

# shellcheck disable=SC2030,SC2031  # each test has its own variables

# Tests the dashboard, see start_instance.
export DASHBOARD=on
load ../helper/load
load ../helper/sessions

setup() {
  use_stub
  project=$(make_project "point$BATS_TEST_NUMBER")
  screen=hal9000-test-$$-$BATS_TEST_NUMBER
}

teardown() {
  after_failure
  tmux -L "$screen" kill-server 2>/dev/null || true
  stop_workers
  # Only tests of MCP servers have a gateway; other sessions would warn without it.
  if [ -e "$HAL9000_HOME/config/mcp.json" ]; then "$claudy" mcp stop; rm "$HAL9000_HOME/config/mcp.json"; fi
}

records() { find "$HAL9000_HOME/sessions" -maxdepth 1 -name '*.json' | wc -l; }

@test "Session directory creation" {
  opened=$("$claudy" --detach --json "$project")
  session=$(jq -r .session <<<"$opened")
  [ "$(stat -c '%F %a %u' "$HAL9000_HOME/claude/$session")" = "directory 700 $(stat -c %u "$HAL9000_HOME")" ]
  [ "$(jq -r .project "$HAL9000_HOME/sessions/kept/$session.json")" = "$project" ]
  # The same project always has the same session.
  "$claudy" stop "$session"
  [ "$("$claudy" --detach --json "$project" | jq -r .session)" = "$session" ]
}

@test "Docker container lifecycle" {
  # The machine may be busy: one of three attempts must be that fast.
  for _ in 1 2 3; do
    spawn -n wk-$$ "$(make_project one)"
    [ "$(records)" = 1 ]
    docker exec wk-$$ sh -c 'echo a last word >/proc/1/fd/1'
    start=$(date +%s%3N)
    run -0 --separate-stderr "$scripts/coordinator.ts" stop wk-$$
    took=$(($(date +%s%3N) - start))
    [ "$output" = wk-$$ ]
    grep 'a last word' "$HAL9000_HOME/logs/wk-$$.log"
    [ "$(records)" = 0 ]
    run -1 docker inspect wk-$$
    [ "$took" -ge 1000 ] || break
  done
  [ "$took" -lt 1000 ]
}

@test "tmux session management" {
  session=$("$claudy" --detach "$project")
  in_tmux() { docker exec "$session" tmux -L claude "$@"; }
  [ "$(in_tmux list-sessions -F '#{session_name} #{session_attached}')" = "claude 0" ]
  clients_are() { [ "$(in_tmux list-clients | wc -l)" = "$1" ]; }
  tmux -L "$screen" -f /dev/null new-session -d -x 100 -y 30 "env -u TMUX $claudy attach $session"
  wait_for 10 clients_are 1
  tmux -L "$screen" send-keys C-b d
  wait_for 10 clients_are 0
  docker exec "$parent" tmux -L hal9000 has-session -t hal9000
}

@test "Volume mounting verification" {
  mkdir -p "$HAL9000_PROJECT_ROOTS/data"
  spawn -n mounted-$$ --mount "$HAL9000_PROJECT_ROOTS/data:/data" \
    --mount "$HAL9000_PROJECT_ROOTS/data:/ro:ro" "$(make_project app)"
  docker exec mounted-$$ touch /data/x /workspace/y
  run -1 docker exec mounted-$$ touch /ro/x
}

@test "MCP server connectivity" {
  "$claudy" mcp start
  session=$("$claudy" --detach "$project")
  run -0 docker exec "$session" timeout 30 claude mcp list
  [[ $output == *"memory-bank: "*"✔ Connected"* ]]
  [[ $output == *"sequential-thinking: "*"✔ Connected"* ]]
}

@test "File permissions" {
  id=$(spawn -n wk-$$ "$project")
  [ "$(stat -c %a "$HAL9000_HOME/sessions/wk-$$.json")" = 600 ]
  session=$("$claudy" --detach "$project")
  [ "$(stat -c %a "$HAL9000_HOME/sessions/kept/$session.json")" = 600 ]
  [ "$(stat -c %a "$HAL9000_HOME")" = 700 ]
  [ "$(jq -r '.container, .project.path' "$HAL9000_HOME/sessions/wk-$$.json")" = "$id"$'\n'"$project" ]
}

@test "Cross-project isolation" {
  other=$(make_project "other$BATS_TEST_NUMBER")
  open "$project"
  one=$session
  open --name second-$$ "$project"
  two=$session
  open "$other"
  three=$session
  [ "$(printf '%s\n' "$one" "$two" "$three" | sort -u | wc -l)" = 3 ]
  typed "$one" "only in one" Enter
  wait_for_screen 20 "$one" "echo: only in one"
  for other_session in "$two" "$three"; do
    typed "$other_session" "elsewhere" Enter
    wait_for_screen 20 "$other_session" "echo: elsewhere"
    run ! sent "only in one"
    run ! docker exec "$other_session" grep -r "only in one" /home/claude/.claude/projects
  done
  docker exec "$one" touch /workspace/made
  [ -e "$project/made" ]
  docker exec "$two" test -e /workspace/made
  run ! docker exec "$three" test -e /workspace/made
}

@test "Configuration inheritance" {
  make_claude_home
  CLAUDE_HOME=$host open "$project" 2>"$BATS_TEST_TMPDIR/told"
  grep -F "Not inherited from $host: apiKeyHelper" "$BATS_TEST_TMPDIR/told"
  grep -F "MCP server tool: it runs on the host" "$BATS_TEST_TMPDIR/told"
  typed "$session" "ahoy" Enter
  wait_for_screen 20 "$session" "echo: ahoy"
  sent "Answer like a pirate."
  sent "planted-agent"
  docker exec "$session" cat /home/claude/.claude/settings.json |
    jq -e '.env.FROM_HOST == "yes" and .apiKeyHelper == null and .hooks == null'
  run ! docker exec "$session" grep -r "secret history" /home/claude/.claude
  [ ! -e "$project/hooked" ]
  # Only once: later changes on the host are not copied.
  "$claudy" stop "$session"
  CLAUDE_HOME=$host open "$project" 2>"$BATS_TEST_TMPDIR/told"
  run -1 grep "inherited" "$BATS_TEST_TMPDIR/told"
}

@test "Graceful degradation" {
  "$claudy" mcp start
  "$claudy" mcp add absent --port 3060 -- no-such-program
  open "$project" 2>"$BATS_TEST_TMPDIR/told"
  cat "$BATS_TEST_TMPDIR/told"
  grep -q "^warning: MCP servers that do not answer: .*absent" "$BATS_TEST_TMPDIR/told"
  run -0 docker exec "$session" timeout 20 claude mcp list
  [[ $output == *"absent: "*"Failed to connect"* ]]
  run -1 "$claudy" mcp doctor
  [[ $output == *"FAIL"*"absent"*"command not found on the host: no-such-program"* ]]
  "$claudy" mcp remove --yes absent
  "$claudy" stop "$session"
  "$claudy" mcp stop
  open "$project" 2>"$BATS_TEST_TMPDIR/told"
  [[ $(cat "$BATS_TEST_TMPDIR/told") == "warning: the MCP gateway is not running"* ]]
  "$claudy" mcp start >/dev/null
  run -0 "$claudy" mcp doctor
}

@test "Host isolation" {
  make_claude_home
  session=$(CLAUDE_HOME=$host "$claudy" --detach "$project")
  docker exec "$session" sh -c 'for file in settings.json CLAUDE.md .claude.json; do echo changed >"$CLAUDE_CONFIG_DIR/$file"; done'
  run ! docker exec "$session" ls "$host"
  "$claudy" stop "$session"
  claude_home_unchanged
}

@test "Reattachment workflow" {
  open "$project"
  [ "$(jq -r .conversation <<<"$opened")" = new ]
  typed "$session" "first words" Enter
  wait_for_screen 20 "$session" "echo: first words"
  wait_for 5 is "$session" idle

  # A terminal that is killed.
  tmux -L "$screen" -f /dev/null new-session -d -x 100 -y 30 "$claudy attach $session"
  here() { tmux -L "$screen" capture-pane -p | grep -F "echo: first words"; }
  wait_for 10 here
  [ "$("$claudy" sessions --json | jq -r --arg name "$session" '.[] | select(.name == $name).attached')" = 1 ]
  tmux -L "$screen" kill-server
  wait_for 5 detached
  [ "$("$claudy" --detach --json "$project" | jq -r .conversation)" = running ]
  screen_shows "$session" "echo: first words"

  "$claudy" stop "$session"
  is "$session" stopped
  run -1 docker inspect "$session"
  [[ $("$claudy" logs "$project") == *"> first words"*"echo: first words"* ]]
  open "$project"
  [ "$(jq -r .conversation <<<"$opened")" = resumed ]
  "$claudy" send "$project" "second words"
  run -3 "$claudy" exec "$project" -- sh -c 'pwd; exit 3'
  [ "$output" = /workspace ]
  wait_for_screen 20 "$session" "echo: second words"
  sent "first words"
  sent "second words"
}

@test "Claude session availability" {
  spawn -n real-$$ "$project"
  run -0 --separate-stderr claude real-$$ -p 'open the pod bay doors' --output-format json
  [ "$(jq -r .result <<<"$output")" = "echo: open the pod bay doors" ]
}

@test "Complete workflow" {
  tmux -L "$screen" -f /dev/null new-session -d -x 100 -y 30 \
    "cd '$project' && env -u TMUX '$claudy'; exec bash --norc"
  shows() { tmux -L "$screen" capture-pane -p -J | grep -F -- "$1"; }
  wait_for 20 shows "❯"
  tmux -L "$screen" send-keys "hello there" Enter
  wait_for 10 shows "echo: hello there"
  # Shift+Enter, as xterm and as kitty send it.
  tmux -L "$screen" send-keys -l "line one"
  tmux -L "$screen" send-keys -H 1b 5b 32 37 3b 32 3b 31 33 7e
  tmux -L "$screen" send-keys -l "line two"
  tmux -L "$screen" send-keys -H 1b 5b 31 33 3b 32 75
  tmux -L "$screen" send-keys "line three" Enter
  wait_for 10 shows "echo: line one"
  sent 'line one\nline two\nline three'
  # The prefix of the session's tmux; the outer tmux uses another key here.
  tmux -L "$screen" send-keys C-b d
  wait_for 10 shows "Reattach with: claudy attach"
  tmux -L "$screen" send-keys "cd '$project'; '$claudy' attach --shell" Enter
  wait_for 10 shows ":/workspace"
  # Inside another tmux, the outer one handles the keys.
  tmux -L "$screen" kill-server
  screen=$screen-nested # the previous one may still be shutting down
  tmux -L "$screen" -f /dev/null new-session -d -x 100 -y 30 "cd '$project' && '$claudy' attach; cat"
  wait_for 10 shows "echo: hello there"
  attached() { "$claudy" sessions --json | jq --arg project "$project" '.[] | select(.project == $project).attached' | grep -x 1; }
  wait_for 5 attached
  # As a prefix of the session's tmux, these keys would detach.
  tmux -L "$screen" set -g prefix C-a
  tmux -L "$screen" send-keys C-b d "and on" Enter
  wait_for 10 shows "echo: dand on"
  attached
  shows "C-] detaches this session"
  tmux -L "$screen" send-keys C-]
  wait_for 10 shows "[detached"
}
