# Budgets and limits, with the real Claude CLI and a stub for its API.

load ../helper/load
load ../helper/sessions

setup() { use_stub; }

teardown() {
  after_failure
  stop_workers
  rm -f "$HAL9000_HOME/usage/status.json" "$HAL9000_HOME/usage/resume"
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

# When the parent told sessions to go on, in seconds.
told_at() { docker logs --timestamps "$parent" 2>&1 | grep "The limit has reset" | cut -d ' ' -f 1 | date -f - +%s; }

@test "sessions that stopped for a limit go on one after another, but none that waits for an answer" {
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
  readarray -t at < <(told_at)
  [ "${#at[@]}" = 2 ]
  [ "$((at[1] - at[0]))" -ge 10 ]
  screen_shows "$asking" "Do you want to proceed?"
  run -1 screen_shows "$asking" "Go on"
  # Neither does a text that someone has begun.
  typed "$first" "half a thought"
  wait_for_screen 5 "$first" "half a thought"
  limit 1 "$first"
  "$claudy" resume --when-reset
  refused() { docker logs "$parent" 2>&1 | grep "Cannot resume \"$first\".*something else is typed"; }
  wait_for 20 refused
  screen_shows "$first" "half a thought"
  run -1 screen_shows "$first" "half a thoughtGo"
}
