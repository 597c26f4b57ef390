# The first minute: what claudy up shows, with and without a terminal, and how it ends.

load ../helper/load
load ../helper/sessions

setup() {
  project=$(make_project first)
  screen=hal9000-test-$$-$BATS_TEST_NUMBER
}

teardown() {
  after_failure
  tmux -L "$screen" kill-server 2>/dev/null || true
  stop_workers
}

terminal() { tmux -L "$screen" -f /dev/null new-session -d -x 100 -y 40 "$@"; }
keys() { tmux -L "$screen" send-keys "$@"; }
shown() { tmux -L "$screen" capture-pane -p -J; }
shows() { shown | grep -E -- "$1"; }
# Lines of finished steps have decimals, lines of progress have none.
progress='[A-Za-z-]+ [0-9]+ s'
no_progress() { ! shows "$progress"; }

# `claudy up` in a shell that waits after it.
up() { printf '%q up %q; echo "code $?"; sleep 60' "$scripts/claudy.ts" "$project"; }

@test "without a terminal, prints plain lines and what to type next, and asks nothing" {
  run -0 "$scripts/claudy.ts" up "$project" </dev/null
  [ "${#lines[@]}" -le 25 ]
  [[ $output != *$'\e'* && $output != *$'\r'* && $output != *'['[yY]/[nN]']'* ]]
  [[ $output == *"Engine  "*" Docker "* ]]
  session=$(docker ps --filter "label=hal9000.project=$project" --format '{{.Names}}')
  [[ $output == *"Worker $session runs on $project"* ]]
  [[ $output == *"Sign in:  "*" login"* ]]
  # The commands work as they are printed.
  next=$(sed -n 's/^All commands: *//p' <<<"$output")
  [[ $($next) == *claudy* ]]
  next=$(sed -n 's/^Stop this worker: *//p' <<<"$output")
  $next
  run -1 docker inspect "$session"
}

@test "prints where the worker runs on stdout, and progress on stderr" {
  run -0 --separate-stderr "$scripts/claudy.ts" up --detach "$project" </dev/null
  [ "${lines[0]}" = "Worker $(docker ps --filter "label=hal9000.project=$project" --format '{{.Names}}') runs on $project" ]
  [[ $output != *" s  "* && $stderr == *"Worker  "* ]]
}

@test "on a terminal, offers to sign in and to open the session; early typing is no answer" {
  terminal "$(up)"
  keys y Enter # typed while the steps run
  wait_for 60 shows 'No credential was found. Sign in now\? \[Y/n\] $'
  no_progress
  shows '^✓ Engine +[0-9.]+ s  Docker'
  shows '^✓ Worker '
  [ "$(shown | grep -c .)" -le 25 ]
  keys n Enter
  wait_for 10 shows 'Open Claude now\? \[Y/n\] $'
  keys n Enter
  wait_for 10 shows '^code 0'
}

@test "Ctrl-C at the offer ends with success: everything runs" {
  terminal "$(up)"
  wait_for 60 shows 'Sign in now'
  # The prompt is read from now on.
  wait_for 5 sh -c 'stty -a -F "$(tmux -L "$1" display -p "#{pane_tty}")" | grep -q -- -icanon' sh "$screen"
  keys C-c
  wait_for 10 shows '^code 0'
}

@test "Enter opens the session in this terminal if there is a credential" {
  use_stub
  terminal "$(up)"
  wait_for 60 shows 'Open Claude now\? \[Y/n\] $'
  run ! shows 'Sign in'
  keys Enter
  wait_for 30 shows '❯'
  keys 'good morning' Enter
  wait_for 30 shows 'good morning'
  wait_for 30 shows '● '
}

@test "an interrupt leaves no line of progress" {
  # An engine that never answers.
  node -e 'require("net").createServer().listen(process.argv[1])' "$BATS_TEST_TMPDIR/stuck.sock" 3>&- &
  local engine=$!
  wait_for 5 test -S "$BATS_TEST_TMPDIR/stuck.sock"
  terminal "bash --norc"
  keys "DOCKER_HOST=unix://$BATS_TEST_TMPDIR/stuck.sock '$scripts/claudy.ts' up '$project'" Enter
  wait_for 20 shows 'Engine [0-9]+ s'
  keys C-c
  wait_for 10 no_progress
  keys 'echo "code $?"' Enter
  wait_for 10 shows '^code 130'
  kill "$engine"
}
