# Commands at a real terminal: tmux types, resizes and closes it.

load ../helper/load

setup() {
  project=$(make_project app)
  screen=hal9000-test-$$-$BATS_TEST_NUMBER
}

teardown() {
  after_failure
  tmux -L "$screen" kill-server 2>/dev/null || true
  stop_workers
}

terminal() { tmux -L "$screen" -f /dev/null new-session -d -x 100 -y 30 "$@"; }
keys() { tmux -L "$screen" send-keys "$@"; }
shows() { tmux -L "$screen" capture-pane -p -J | grep -E -- "$1"; }

# Runs spawn-worker in a shell that writes its exit code to a file.
spawned() {
  printf '%q ' "$scripts/spawn-worker.ts" "$@"
  printf '; echo $? >%q; sleep 60' "$BATS_TEST_TMPDIR/code"
}

@test "passes typing to the worker and its exit code back" {
  terminal "$(spawned -n typed-$$ "$project" -- bash --norc)"
  wait_for 15 shows 'bash-.*[$#]'
  keys 'echo "is $((6 * 7))"' Enter
  wait_for 5 shows '^is 42'
  keys 'exit 7' Enter
  wait_for 15 test -s "$BATS_TEST_TMPDIR/code"
  [ "$(cat "$BATS_TEST_TMPDIR/code")" = 7 ]
  run -1 docker inspect typed-$$
}

@test "resizes the worker's terminal with the caller's" {
  terminal "$(spawned -n sized-$$ "$project" -- bash --norc)"
  wait_for 15 shows 'bash-.*[$#]'
  tmux -L "$screen" resize-window -x 132 -y 43
  # Typed text may arrive before the new size.
  fits() {
    keys 'stty size' Enter
    sleep 0.3
    shows '^43 132'
  }
  wait_for 10 fits
}

@test "passes Ctrl-C to the worker" {
  terminal "$(spawned -n interrupted-$$ "$project" -- bash --norc)"
  wait_for 15 shows 'bash-.*[$#]'
  keys 'sleep 100' Enter
  sleeps() { docker exec interrupted-$$ pgrep -fx 'sleep 100'; }
  wait_for 5 sleeps
  keys C-c
  woken() { ! sleeps; }
  wait_for 5 woken
  keys 'echo "still $((40 + 2))"' Enter
  wait_for 5 shows '^still 42'
}

@test "a closed terminal keeps the worker; claudy attach reattaches" {
  terminal "$(spawned -n detached-$$ "$project" -- bash --norc)"
  wait_for 15 shows 'bash-.*[$#]'
  keys 'word=daisy' Enter
  tmux -L "$screen" kill-server
  [ "$(inspect detached-$$ '{{.State.Running}}')" = true ]
  terminal "'$scripts/claudy.ts' attach detached-$$"
  sleep 1
  keys 'echo "again $word"' Enter
  wait_for 10 shows '^again daisy'
  keys 'exit' Enter
  gone() { ! docker inspect detached-$$; }
  wait_for 15 gone
}

@test "coordinator attach opens a shell in an idle worker" {
  spawn -n idle-$$ "$project"
  terminal "'$scripts/coordinator.ts' attach idle-$$"
  wait_for 15 shows '[$#] $'
  keys 'pwd' Enter
  wait_for 5 shows '^/workspace'
}

@test "a terminal that the image does not know is described to it, or falls back to another" {
  spawn -n strange-$$ "$project"
  infocmp xterm-256color | sed 's/^xterm-256color|.*/xterm-strange|a terminal,/' |
    tic -o "$BATS_TEST_TMPDIR/terminfo" -
  local seen="tmux -L seen new-session 'tmux -L seen display -p \"is #{client_termname}\"; sleep 60'"
  terminal "TERM=xterm-strange TERMINFO='$BATS_TEST_TMPDIR/terminfo' '$scripts/coordinator.ts' attach strange-$$; echo left; sh"
  wait_for 15 shows '[$#] $'
  keys "$seen" Enter
  wait_for 5 shows '^is xterm-strange'
  docker exec strange-$$ tmux -L seen kill-server
  keys exit Enter
  wait_for 5 shows '^left'
  keys "TERM=xterm-strange '$scripts/coordinator.ts' attach strange-$$" Enter
  wait_for 15 shows '[$#] $'
  keys "$seen" Enter
  wait_for 5 shows '^is xterm-256color'
}

@test "restores the terminal after SIGTERM, and after the worker is killed" {
  spawn -n ends-$$ "$project"
  terminal "bash --norc"
  modes() { [ "$(tmux -L "$screen" display -p '#{alternate_on}#{mouse_any_flag}#{keypad_flag}')" = "$1" ]; }
  for end in "pkill -TERM -f attach.ends-$$" "docker kill ends-$$"; do
    keys "clear; '$scripts/coordinator.ts' attach ends-$$" Enter
    wait_for 15 shows ':/workspace[$#] $'
    keys "printf '\\033[?1049h\\033[?1000h\\033='" Enter
    wait_for 5 modes 111
    $end
    wait_for 5 modes 000
    wait_for 5 shows '^bash-.*[$#] $'
  done
}

@test "runs Claude in the worker if there is no command" {
  terminal "$(spawned -n claude-$$ --standalone --env ANTHROPIC_BASE_URL=http://127.0.0.1:9 "$project")"
  wait_for 20 shows 'Claude Code|Select login method|Welcome'
}

@test "daemon stop asks while workers run" {
  spawn -n beneath-$$ "$project"
  terminal "'$scripts/claudy.ts' daemon stop; sleep 60"
  wait_for 10 shows "Stop the parent while these workers run: beneath-$$\? \[y/N\]"
  keys Enter
  wait_for 5 shows 'Cancelled'
  [ "$(inspect "$parent" '{{.State.Running}}')" = true ]
}

@test "stop-all asks, and stops nothing if the answer is no" {
  spawn -n asked-$$ "$project"
  terminal "'$scripts/coordinator.ts' stop-all; sleep 60"
  wait_for 10 shows "Stop asked-$$\? \[y/N\]"
  keys 'n' Enter
  wait_for 5 shows 'Cancelled'
  [ "$(inspect asked-$$ '{{.State.Running}}')" = true ]
  terminal -s again "'$scripts/coordinator.ts' stop-all; sleep 60"
  asks() { tmux -L "$screen" capture-pane -p -t again | grep -F '[y/N]'; }
  wait_for 10 asks
  keys -t again 'y' Enter
  gone() { ! docker inspect asked-$$; }
  wait_for 15 gone
}

@test "claudy asks before a project's own configuration takes effect" {
  configured=$(make_project configured)
  echo '{"mcpServers":{"tool":{"command":"touch","args":["/workspace/served"]}}}' >"$configured/.mcp.json"
  terminal "ANTHROPIC_BASE_URL=http://127.0.0.1:9 ANTHROPIC_API_KEY=x '$scripts/claudy.ts' --name asks-$$ '$configured'"
  wait_for 15 shows 'server tool \{"command":"touch","args":\["/workspace/served"\]\}'
  wait_for 5 shows 'Approve it\? \[y/N\]'
  [ ! -e "$configured/served" ]
  keys y Enter
  served() { [ -e "$configured/served" ]; }
  wait_for 15 served
  "$scripts/claudy.ts" sessions rm --yes asks-$$
}

# Records the bytes that the terminal is sent in $sent.
record_terminal() {
  sent=$BATS_TEST_TMPDIR/sent
  tmux -L "$screen" pipe-pane "cat >>'$sent'"
}

# Clipboard, title, a query and a DCS string, around red text.
harmful='\033]52;c;ZXZpbA==\007\033]0;evil\007\033[6n\033P$qm\033\\\033[31mshown\033[0m\033[21t'

only_display() {
  grep -F $'\e[31mshown' "$1"
  ! grep -aE $'\e\\](52|0)|\e\\[6n|\e\\[21t|\eP' "$1"
}

@test "filters what a worker's process writes to an attached terminal" {
  spawn -n sly-$$ "$project"
  terminal "'$scripts/coordinator.ts' attach sly-$$"
  wait_for 15 shows '[$#] $'
  record_terminal
  docker exec sly-$$ sh -c "printf '$harmful' >/dev/pts/0"
  wait_for 5 grep -F shown "$sent"
  only_display "$sent"
  keys 'exit' Enter
}

@test "filters the output of a worker's command and restores the terminal afterwards" {
  terminal "$(spawned -n unruly-$$ "$project" -- sh -c "printf '$harmful\033[?1000h\033[?25l'; read -r _")"
  tmux -L "$screen" set -g remain-on-exit on
  record_terminal
  wait_for 15 shows '^shown'
  only_display "$sent"
  keys Enter
  wait_for 15 test -s "$BATS_TEST_TMPDIR/code"
  tail -c 40 "$sent" | grep -F $'\e[?1000l\e[?25h'
}

@test "logs prints text and colours at a terminal, and unchanged bytes to a file" {
  spawn -n noisy-$$ "$project" -- sh -c "printf '$harmful\n'; sleep 1000"
  terminal "read -r _; '$scripts/coordinator.ts' logs noisy-$$; sleep 60"
  record_terminal
  keys Enter
  wait_for 15 shows '^shown'
  only_display "$sent"
  "$scripts/coordinator.ts" logs noisy-$$ | grep -F $'\e]52;c;ZXZpbA=='
  "$scripts/coordinator.ts" stop noisy-$$
  : >"$sent"
  terminal -s again "'$scripts/coordinator.ts' logs noisy-$$; sleep 60"
  tmux -L "$screen" pipe-pane -t again "cat >>'$sent'"
  kept() { tmux -L "$screen" capture-pane -t again -p | grep '^shown'; }
  wait_for 15 kept
  run ! grep -a $'\e]52' "$sent"
}
