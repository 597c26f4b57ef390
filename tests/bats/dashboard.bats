# The tmux dashboard in the parent, shown in a terminal, and claudy watch.

# Tests the dashboard, see start_instance.
export DASHBOARD=on
load ../helper/load
load ../helper/sessions

setup() {
  use_stub
  project=$(make_project "board$BATS_TEST_NUMBER")
  screen=hal9000-test-$$-$BATS_TEST_NUMBER
}

teardown() {
  after_failure
  tmux -L "$screen" kill-server 2>/dev/null || true
  stop_workers
}

dashboard() { # dashboard COLUMNS LINES: opens it in a terminal of that size
  # Also a previous one: a server that is left would keep the test run's output open.
  tmux -L "$screen" kill-server 2>/dev/null || true
  screen=$screen-$1 # it may still be shutting down
  tmux -L "$screen" -f /dev/null new-session -d -x "$1" -y "$2" "$claudy dashboard; cat"
}
shown() { tmux -L "$screen" capture-pane -p; }
shows() { shown | grep -F -- "$1"; }
matches() { shown | grep -iE -- "$1"; }
press() { tmux -L "$screen" send-keys "$@"; }
# Waits for the popup's own text: the dashboard may show similar text, and would receive
# a key that is sent too early.
close_popup() {
  wait_for 10 shows "Enter closes this."
  press Enter
  closed() { ! shows "Enter closes this."; }
  wait_for 5 closed
}
child_pid() { "$claudy" daemon status --json | jq -r --arg name "$1" '.children[] | select(.name == $name).pid'; }

@test "the dashboard fits 80x24, 120x40 and 250x60, with and without colours" {
  spawn -n seen-$$ "$project"
  for size in "80 24" "120 40" "250 60"; do
    # shellcheck disable=SC2086  # two numbers
    dashboard $size
    # Resource usage of the worker and its limits.
    wait_for 10 matches "^1 +seen-$$ +-.* [0-9]+/200% +[0-9.]+[KM]/4G +[0-9]+/100$"
    wait_for 5 shows "1 workers"
    for text in "Parent: up " "ChromaDB: answers on localhost:8000" "Pool: off" "Sessions: none" \
      "WAITING FOR" "LAST LINE" "no session" "Enter open  y allow  n deny  a all terminals" "d detach"; do
      shows "$text"
    done
    run ! matches 'error|cannot|not found'
    coloured
    press a
    wait_for 5 shows "1 seen-$$  - no session"
    press a
    wait_for 5 shows "WAITING FOR"
    tmux -L "$screen" kill-server
  done
  NO_COLOR=1 dashboard 81 24
  wait_for 10 shows "seen-$$"
  wait_for 5 uncoloured
}
uncoloured() { shows "seen-$$" && ! coloured; }
coloured() { tmux -L "$screen" capture-pane -p -e | grep -aE $'\e\\[([0-9]+;)*(3[0-7]|4[0-7]|[34]8;.*)m'; }

@test "a worker appears within 2 s with a window, and both go when it stops" {
  dashboard 120 40
  wait_for 10 shows "No workers. Press C-] w to spawn one."
  spawn -n comes-$$ "$project"
  wait_for 2 matches "^1 +comes-$$ "
  windows() { docker exec "$parent" tmux -L hal9000 list-windows -F '#{window_name}'; }
  there() { windows | grep -x comes-$$; }
  wait_for 2 there
  press C-b 1
  wait_for 10 shows ":/workspace"
  press "touch made" Enter
  made() { [ -e "$project/made" ]; }
  wait_for 5 made
  press C-b 0
  "$scripts/coordinator.ts" stop comes-$$
  wait_for 3 shows "No worker"
  gone() { ! windows | grep -x comes-$$; }
  wait_for 3 gone
}

@test "prefix w spawns a worker, l lists, s shows status, S stops all after confirmation" {
  dashboard 120 40
  wait_for 10 shows "No worker"
  press C-b w
  wait_for 5 shows "Spawn a worker on the project (absolute path):"
  mkdir -p "$project/with space"
  press -l "$project/with space"
  press Enter
  close_popup
  wait_for 5 shows "with space"
  press C-b l
  wait_for 10 shows "NAME "
  close_popup
  press C-b s
  wait_for 10 shows "PIDS"
  close_popup
  press C-b S
  wait_for 5 shows "Stop all workers? (y/n)"
  press n
  [ "$("$scripts/coordinator.ts" count)" = 1 ]
  press C-b S
  wait_for 5 shows "Stop all workers? (y/n)"
  press y
  none() { [ "$("$scripts/coordinator.ts" count)" = 0 ]; }
  wait_for 15 none
}

@test "a waiting session is counted, listed first and rings the bell within 2 s" {
  dashboard 160 40
  tmux -L "$screen" set -g monitor-bell on
  rang() { [ "$(tmux -L "$screen" display -p '#{window_bell_flag}')" = 1 ]; }
  # tmux flags a bell only in a window that is not selected.
  tmux -L "$screen" new-window -d
  tmux -L "$screen" select-window -t :1
  on_board() { tmux -L "$screen" capture-pane -p -t :0 | grep -F -- "$1"; }
  wait_for 10 on_board "No worker"
  open "$project"
  wait_for 5 on_board "idle"
  ask_permission "$session"
  wait_for 2 on_board "1 waiting "
  wait_for 2 on_board "Sessions: 1 waiting" || { tmux -L "$screen" capture-pane -p -t :0; false; }
  wait_for 2 tmux_bell
  typed "$session" Escape
  gone() { ! on_board "waiting"; }
  wait_for 2 gone
}
tmux_bell() { tmux -L "$screen" list-windows -F '#{window_bell_flag}' | grep -x 1; }

@test "a session's window shows the session; the inner tmux has no key bindings" {
  open "$project"
  dashboard 120 40
  wait_for 10 shows "idle"
  press C-b 1
  wait_for 10 shows "❯"
  press "seen through two" Enter
  wait_for 10 shows "echo: seen through two"
  # If the dashboard passed the prefix on, both keys would be typed and the session not left.
  press C-b C-b d "one more" Enter
  wait_for 10 shows "echo: done more"
  press C-] 0 # the other prefix
  wait_for 5 shows "WAITING FOR"
  wait_for 5 is "$session" idle
  # After its viewer has left, the window is no terminal of the session.
  run ! detached
  press C-] d
  wait_for 10 detached
  dashboard 121 40
  wait_for 10 shows "C-] then:"
  press C-] 1
  wait_for 10 shows "echo: done more"
}

@test "y and n answer the chosen session's request, and Enter opens it" {
  dashboard 80 24
  open "$project"
  ask_permission "$session"
  wait_for 10 shows "Do you want to proceed?"
  sleep 0.7 # a key that is pressed earlier is ignored
  press y
  wait_for 5 shows "Allowed in \"$session\""
  wait_for 5 docker exec "$session" rm /tmp/asked
  # A late key is not typed into the session. It may see the end of the request.
  press y
  wait_for 10 matches "shows no permission request here|no longer asks this|has only just appeared" || { shown; false; }
  ask_permission "$session"
  wait_for 10 shows "Do you want to proceed?"
  sleep 0.7
  press n
  wait_for 5 shows "Denied in \"$session\""
  press Enter
  wait_for 10 shows "C-] 0 dashboard"
  wait_for 5 shows "Interrupted"
  run -2 docker exec "$session" ls /tmp/asked
}

@test "kill ends the dashboard until setup, which also restores a lost pane" {
  "$scripts/setup-dashboard.ts" kill
  run ! docker exec "$parent" tmux -L hal9000 has-session
  [ "$(child_pid dashboard)" = "" ]
  "$claudy" daemon status >/dev/null
  "$scripts/setup-dashboard.ts" setup
  docker exec "$parent" tmux -L hal9000 kill-pane -t hal9000:dashboard
  docker exec "$parent" /scripts/setup-dashboard setup
  dashboard 80 24
  wait_for 10 shows "No workers"
  run ! "$scripts/setup-dashboard.ts" attach </dev/null
  [[ $output == *"stdin is not a terminal"* ]]
}

@test "the dashboard restarts after its process or tmux is killed" {
  dashboard 80 24
  wait_for 10 shows "No worker"
  docker exec "$parent" kill -9 "$(child_pid dashboard)"
  spawn -n after-$$ "$project"
  wait_for 10 shows "after-$$"
  docker exec "$parent" kill -9 "$(child_pid tmux)"
  back() { docker exec "$parent" tmux -L hal9000 list-windows -F '#{window_name}' | grep -x after-$$; }
  wait_for 15 back
}

@test "an idle dashboard uses little more than a timer" {
  spawn -n idle1-$$ "$project"
  spawn -n idle2-$$ "$project"
  # An idle process takes 0.1 % of a core on one machine and 4 % on another, so it is compared
  # with one that only wakes up as often as the dashboard reads the status files. 1 % is
  # always allowed: a busy machine may not run the other one at all.
  docker exec --detach "$parent" deno eval "setInterval(() => {}, 500) // reference-$$"
  reference() { docker exec "$parent" pgrep -f "^deno eval .*reference-$$"; }
  wait_for 10 reference
  sleep 3 # until both have started
  used() { # used PID...: milliseconds of CPU since its start
    # shellcheck disable=SC2016  # expanded by the shell in the parent
    docker exec "$parent" sh -c 'for pid; do cat /proc/$pid/task/*/schedstat; done' sh "$@" |
      awk '{ ns += $1 } END { print int(ns / 1e6) }'
  }
  board="$(child_pid dashboard) $(child_pid tmux)"
  timer=$(reference)
  # shellcheck disable=SC2086  # two pids
  before="$(used $board) $(used "$timer")"
  sleep 10
  # shellcheck disable=SC2086  # two pids
  after="$(used $board) $(used "$timer")"
  docker exec "$parent" kill "$timer"
  echo "$before $after" | awk '{ print "dashboard " $3 - $1 " ms, timer " $4 - $2 " ms in 10 s"
    exit !($3 - $1 <= 100 + 8 * ($4 - $2)) }' >&3
}

@test "watching prints changes and runs the command when a session starts to wait" {
  export HAL9000_NOTIFY_COMMAND='printf "%s|%s|%s\n" "$HAL9000_SESSION" "$HAL9000_PROJECT" "$HAL9000_WAITING_FOR" >>'"$BATS_TEST_TMPDIR/notified"
  "$claudy" watch --json >"$BATS_TEST_TMPDIR/changes" 3>&- &
  watcher=$!
  open "$project"
  told() { jq -e --arg to "$1" --arg name "$session" 'select(.session == $name and .to == $to)' "$BATS_TEST_TMPDIR/changes"; }
  wait_for 5 told idle
  [ ! -e "$BATS_TEST_TMPDIR/notified" ]
  ask_permission "$session"
  wait_for 2 told waiting
  wait_for 2 test -s "$BATS_TEST_TMPDIR/notified"
  [[ $(cat "$BATS_TEST_TMPDIR/notified") == "$session|$project|"?* ]]
  typed "$session" Escape
  "$claudy" stop "$session"
  wait_for 5 told stopped
  [ "$(wc -l <"$BATS_TEST_TMPDIR/notified")" = 1 ]
  kill -TERM "$watcher"
  wait "$watcher" || true
}
