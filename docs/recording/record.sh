#!/bin/bash
# Records docs/pictures/recording.*.svg: a session in an instance of its own, in a terminal
# that tmux emulates, with a stand-in for the Anthropic API. Run it with: make recording
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
columns=92 rows=24

export HAL9000_PREFIX=hal9000-recording-$$
export HAL9000_IMAGE_REPO=${HAL9000_IMAGE_REPO:-ghcr.io/hellblazer/hal-9000}
# Short, because it is replaced in the frames by a home's usual path.
root=$(mktemp -d /tmp/XXX)
stub=$HAL9000_PREFIX-api stub_port=20990
user_home=$root/me
export HAL9000_HOME=$user_home/.hal9000 HAL9000_PROJECT_ROOTS=$user_home

screen() { tmux -L "$HAL9000_PREFIX" "$@"; }

clean_up() {
  screen kill-server 2>/dev/null || true
  docker ps --all --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" | xargs -r docker rm --force --volumes >/dev/null
  docker volume ls --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" | xargs -r docker volume rm >/dev/null
  rm -rf "$root"
}
trap clean_up EXIT

prepare() {
  mkdir -p "$user_home/bin" "$user_home/code/app"
  ln -s "$repo/scripts/claudy.ts" "$user_home/bin/claudy"
  cd "$user_home/code/app"
  git init --quiet --initial-branch main
  printf '#!/bin/sh\necho "Hello, ${1:-world}"\n' >greet.sh
  printf 'test:\n\t@sh test.sh\n' >Makefile
  git add .
  git -c user.name=me -c user.email=me@example.com commit --quiet --message Begin
  "$repo/scripts/build-images.ts"
  HOME=$user_home claudy daemon start
  docker run --detach --no-healthcheck --name "$stub" --network "container:$HAL9000_PREFIX-net" \
    --label "hal9000.instance=$HAL9000_PREFIX" --label hal9000.role=helper --entrypoint deno \
    --volume "$repo/tests/helper:/helper:ro" --volume "$repo/docs/recording:/recording:ro" \
    "$HAL9000_IMAGE_REPO:parent" run -A --no-lock --no-config --quiet \
    /helper/messages-stub.ts "$stub_port" /tmp/requests /recording/answers.json >/dev/null
}

open_terminal() {
  screen -f /dev/null new-session -d -x "$columns" -y "$rows" env -u TMUX -u TMUX_PANE \
    HOME="$user_home" PATH="$PATH" TERM=xterm-256color PS1='\[\e[1;34m\]~/code/app\[\e[0m\] $ ' \
    ANTHROPIC_API_KEY=sk-ant-recording-not-a-key ANTHROPIC_BASE_URL=http://127.0.0.1:$stub_port \
    bash --noprofile --norc
  screen set -g status off
  wait_for '$'
}

# Writes a frame whenever the screen has changed: time and cursor, then the lines.
capture() {
  local last='' now
  while now=$(screen display -p 'cursor #{cursor_x} #{cursor_y} #{cursor_flag}' \; capture-pane -e -p 2>/dev/null); do
    [ "$now" = "$last" ] || printf '\f%s\n%s\n' "$(date +%s%3N)" "$now"
    last=$now
    sleep 0.04
  done >"$root/frames"
}

wait_for() { # wait_for TEXT
  local _
  for _ in {1..300}; do
    ! screen capture-pane -p | grep -qF -- "$1" || return 0
    sleep 0.1
  done
  echo "Not shown: $1" >&2
  screen capture-pane -p >&2
  return 1
}

type_line() { # type_line TEXT, as a person does
  local index
  for ((index = 0; index < ${#1}; index++)); do
    screen send-keys -l -- "${1:index:1}"
    sleep 0.03
  done
  sleep 0.4
  screen send-keys Enter
}

play() {
  sleep 1
  type_line 'claudy --permission-mode manual'
  wait_for '❯'
  sleep 1.5
  type_line 'Add a test for greet.sh and run it'
  wait_for 'Do you want to create'
  sleep 2
  screen send-keys Enter
  wait_for 'Do you want to proceed'
  sleep 1.5
  screen send-keys Enter
  wait_for 'passes'
  sleep 2.5
  screen send-keys C-b d
  wait_for 'claudy attach'
  sleep 1.5
  type_line 'git status --short'
  wait_for '?? test.sh'
  sleep 1.5
  type_line 'claudy ls'
  wait_for 'SESSION'
  sleep 2.5
  type_line claudy
  wait_for 'passes'
  sleep 2
}

PATH=$user_home/bin:$PATH
prepare >&2
open_terminal
capture &
play
screen kill-server
wait
sed -i "s|$user_home|/home/me|g" "$root/frames"
cd "$repo"
node_modules/.bin/deno run --allow-read --allow-write=docs/pictures --no-lock --quiet \
  docs/recording/animate.ts "$root/frames" "$columns" "$rows"
