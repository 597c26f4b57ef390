# Budgets and limits, with the real Claude CLI and a stub for its API.

load ../helper/load
load ../helper/sessions

api=$HAL9000_PREFIX-usage-api
requests=$HAL9000_TEST_ROOT/usage-api/requests

# The API is reached by the parent alone.
setup_file() {
  export HAL9000_RELAY=on
  start_instance
  start_stub
  mkdir -p "$HAL9000_TEST_ROOT/usage-api"
  rm -f "$requests"
  docker run --detach --no-healthcheck --name "$api" --userns host --entrypoint deno \
    --label "hal9000.instance=$HAL9000_PREFIX" --label hal9000.role=helper \
    --volume "$repo/tests/helper:/repo/tests/helper:ro" --volume "$repo/lib:/repo/lib:ro" \
    --volume "$HAL9000_TEST_ROOT/usage-api:/record" --env ADDRESS=0.0.0.0 \
    "$HAL9000_IMAGE_REPO:parent" run -A --no-lock --no-config --quiet \
    /repo/tests/helper/messages-stub.ts "$stub_port" /record/requests
  wait_for 10 docker exec "$api" bash -c "exec 3<>/dev/tcp/127.0.0.1/$stub_port"
}

teardown_file() {
  stop_stub
  docker rm --force --volumes "$api"
}

teardown() {
  after_failure
  stop_workers
  "$claudy" logout --yes >/dev/null 2>&1 || true
  rm -f "$HAL9000_HOME/usage/resume" "$HAL9000_HOME/config/budgets.json"
}

use_relay() {
  export HAL9000_RELAY=on WORKER_NETWORK=isolated ANTHROPIC_API_KEY=$key
  ANTHROPIC_BASE_URL=http://$(inspect "$api" '{{.NetworkSettings.IPAddress}}'):$stub_port
  export ANTHROPIC_BASE_URL
}

# Requests for messages that the API got of all sessions, and those that were counted.
sent_count() { jq -s '[.[] | select(.method == "POST" and (.url | test("^/v1/messages(\\?|$)")))] | length' "$requests"; }
counted() { "$claudy" usage --json | jq .total.requests; }
all_counted() { [ "$(counted)" = "$(sent_count)" ]; }

@test "a conversation stops at its budget with the reason, and goes on when it is raised" {
  use_relay
  open "$(make_project spending)"
  typed "$session" "hello one" Enter
  wait_for_screen 20 "$session" "echo: hello one"
  wait_for 5 all_counted
  tokens=$("$claudy" usage --json | jq --arg name "$session" '.sums[] | select(.name == $name) | .tokens')
  [ "$tokens" -ge 2 ]
  HAL9000_NOTIFY_COMMAND='printf "%s|%s\n" "$HAL9000_SESSION" "$HAL9000_NOTICE" >>'"$BATS_TEST_TMPDIR/notified" \
    "$claudy" watch >"$BATS_TEST_TMPDIR/watched" 3>&- &
  watch=$!
  wait_for 5 grep -q "$session" "$BATS_TEST_TMPDIR/watched"
  run -0 "$claudy" budget set --session "$session" --tokens "$tokens"
  sentence="The budget of session $session, $tokens tokens a day, is spent; raise it with: claudy budget set --session $session --tokens $((2 * tokens))"
  wait_for 5 grep -qF "$sentence" "$BATS_TEST_TMPDIR/watched"
  wait_for 5 grep -qxF "$session|$sentence" "$BATS_TEST_TMPDIR/notified"
  kill "$watch"
  before=$(sent_count)
  typed "$session" "hello two" Enter
  wait_for_screen 10 "$session" "API Error: 402 The budget of session"
  wait_for_screen 2 "$session" "claudy budget set"
  wait_for 5 is "$session" idle
  [ "$(sent_count)" = "$before" ]
  run -0 "$claudy" budget set --session "$session" --tokens 1000
  [[ $output == *"session $session"*" ok "* ]]
  typed "$session" "hello three" Enter
  wait_for_screen 20 "$session" "echo: hello three"
  [[ $("$claudy" sessions) == *TODAY*" USD "* ]]
}

@test "a session that sends too many requests is paused until it is released" {
  use_relay
  open "$(make_project running)"
  typed "$session" "hello before" Enter
  wait_for_screen 20 "$session" "echo: hello before"
  echo MAX_REQUESTS_PER_MINUTE=1 >>"$HAL9000_HOME/config/hal9000.conf"
  sleep 1
  for each in 1 2; do typed "$session" "again $each" Enter; sleep 2; done
  wait_for_screen 10 "$session" "API Error: 402 Session $session is paused"
  run -0 "$claudy" budget
  [[ $output == *"Session $session is paused"*"claudy budget release $session"* ]]
  sed -i '/MAX_REQUESTS_PER_MINUTE/d' "$HAL9000_HOME/config/hal9000.conf"
  run -0 "$claudy" budget release "$session"
  sleep 1
  typed "$session" "hello after" Enter
  wait_for_screen 20 "$session" "echo: hello after"
}

@test "usage is neither lost nor counted twice when the relay or the parent is killed" {
  use_relay
  open "$(make_project killed)"
  rm -f "$requests.go"
  typed "$session" "PART go please" Enter
  wait_for 10 grep -qF "PART go please" "$requests"
  wait_for 5 all_counted
  docker exec "$parent" pkill -9 -f /scripts/anthropic-relay
  touch "$requests.go"
  wait_for_screen 30 "$session" "echo: PART go please"
  wait_for 5 all_counted
  total=$(counted)
  as_root kill -9 "$(inspect "$parent" '{{.State.Pid}}')"
  wait_for 20 "$claudy" daemon status
  [ "$(counted)" = "$total" ]
  typed "$session" "hello again" Enter
  wait_for_screen 30 "$session" "echo: hello again"
  wait_for 5 all_counted
  [ "$("$claudy" usage --json | jq .total.input)" = "$(counted)" ] # one token each
  [ "$(stat -c '%a %u:%g' "$HAL9000_HOME/usage/sums.json")" = "600 $(owner_of "$HAL9000_HOME")" ]
}

@test "sessions are limited by the account, and go on when its limit resets" {
  use_relay
  unset ANTHROPIC_API_KEY
  "$claudy" login --token <<<"sk-ant-oat01-planted-limited"
  for each in one two three; do
    open "$(make_project "limited-$each")"
    declare "$each=$session"
  done
  ask_permission "$three" limited
  typed "$one" "LIMIT 30 please" Enter
  wait_for 10 grep -qF "LIMIT 30 please" "$requests"
  wait_for 2 is "$one" limited
  typed "$two" "hello two" Enter
  wait_for 5 is "$two" limited
  wait_for_screen 5 "$two" "hit your session limit"
  run -0 "$claudy" usage
  [[ $output == *"Limit reached, resets at "* ]]
  is "$three" waiting
  run -0 "$claudy" resume --when-reset
  none_is_limited() { [ "$(jq '.limited | length' "$HAL9000_HOME/usage/status.json")" = 0 ]; }
  wait_for 75 none_is_limited
  for each in "$one" "$two"; do wait_for_screen 10 "$each" "echo: "; done
  screen_shows "$three" "Do you want to proceed?"
  run -1 screen_shows "$three" "Go on"
}

# Sets the limit of the account for sessions, as the ledger in the parent does.
limit() { # limit SECONDS SESSION...
  local now
  now=$(date +%s%3N)
  jq -n --argjson at "$now" --argjson reset "$((now + $1 * 1000))" --arg day "$(date +%F)" \
    '{ version: 1, day: $day, today: {}, budgets: [], paused: [], windows: [], notices: [],
       limit: { claim: "five_hour", at: $at, resetsAt: $reset },
       limited: [$ARGS.positional[] | { key: ., value: { project: "/p", at: $at, resetsAt: $reset } }] | from_entries }' \
    --args "${@:2}" >"$HAL9000_HOME/usage/status.tmp"
  mv "$HAL9000_HOME/usage/status.tmp" "$HAL9000_HOME/usage/status.json"
}

# When the parent told a session to go on, in seconds.
told_at() { docker logs --timestamps "$parent" 2>&1 | grep "The limit has reset: $1 " | cut -d ' ' -f 1 | date -f - +%s; }

@test "sessions that stopped for a limit go on one after another, but none that waits for an answer" {
  use_stub
  export HAL9000_RELAY=off
  for each in first second asking; do
    open "$(make_project "$each")"
    declare "$each=$session"
  done
  ask_permission "$asking"
  limit 8 "$first" "$second" "$asking"
  is "$first" limited
  is "$second" limited
  is "$asking" waiting
  run -0 "$claudy" usage
  [[ $output == *"Limit reached, resets at "* ]]
  run -0 "$claudy" resume --when-reset
  [[ $output == *"$first goes on after "*"$second goes on after "* ]]
  run -1 screen_shows "$first" "Go on"
  wait_for_screen 40 "$first" "❯ Go on (the limit has reset"
  wait_for_screen 40 "$second" "❯ Go on (the limit has reset"
  wait_for_screen 10 "$first" "echo: Go on"
  wait_for_screen 10 "$second" "echo: Go on"
  is_done() { [ ! -e "$HAL9000_HOME/usage/resume" ]; }
  wait_for 10 is_done
  [ "$(($(told_at "$second") - $(told_at "$first")))" -ge 10 ]
  screen_shows "$asking" "Do you want to proceed?"
  run -1 screen_shows "$asking" "Go on"
  # Neither does a text that someone has begun.
  typed "$first" "half a thought"
  wait_for_screen 5 "$first" "half a thought"
  limit 1 "$first"
  "$claudy" resume --when-reset
  refused() { docker logs "$parent" 2>&1 | grep "Cannot resume \"$first\".*something else is typed"; }
  wait_for 20 refused
  # The CLI may take a moment to delete it again.
  is_left() { screen_shows "$first" "half a thought" && ! screen_shows "$first" "half a thoughtGo"; }
  wait_for 10 is_left
}
