# The command blocks of README.md and docs/dind, each document in an instance of its own.

# Tests the dashboard, see start_instance.
export DASHBOARD=on
load ../helper/load
load ../helper/sessions

# PROFILES.md builds an image from Debian's archive, unless an earlier run has left it.
setup_file() { export BATS_TEST_TIMEOUT=900; }

# shellcheck disable=SC2034  # names for sessions.bash
setup() {
  export HAL9000_PREFIX=$HAL9000_PREFIX-docs
  net=$HAL9000_PREFIX-net
  stub=$HAL9000_PREFIX-session-stub
  export HOME=$HAL9000_TEST_ROOT/user
  export HAL9000_HOME=$HOME/.hal9000 HAL9000_PROJECT_ROOTS=$HOME
  unset CLAUDE_HOME
  mkdir -p "$HOME/bin" "$HOME/code"
  # The names of an installation.
  jq -r '.bin | to_entries[] | "\(.key) \(.value)"' "$repo/package.json" | while read -r name bundle; do
    ln -s "$scripts/$(basename "$bundle" .js).ts" "$HOME/bin/$name"
  done
  export PATH=$HOME/bin:$PATH
  for project in app other shop; do make_repository "$HOME/code/$project"; done
  use_stub
}

teardown() {
  [ -z "${server:-}" ] || kill "$server"
  claudy mcp stop 2>/dev/null || true
  [ -n "$BATS_TEST_COMPLETED" ] || { show_screens && end_processes; } >&2 3>&-
  remove_instance "$HAL9000_PREFIX"
  docker images --quiet "$HAL9000_PREFIX-devcontainer" | sort -u | xargs -r docker rmi --force >/dev/null
  as_root rm -rf "$HOME" # containers wrote to it
}

# Prints the totals of the documents that ran.
teardown_file() {
  awk '{ run += $2; excused += $5 } END { if (NR) printf "# documents: %d blocks run, %d excused\n", run, excused }' \
    <(grep -h ' blocks run, ' "$BATS_FILE_TMPDIR"/*) >&3
}

make_repository() {
  git init --quiet "$1"
  echo "# ${1##*/}" >"$1/README.md"
  git -C "$1" add README.md
  git -C "$1" -c user.name=me -c user.email=me@example.com commit --quiet --message "Begin"
}

# What a document needs besides the projects, and words to replace in its commands.
prepare() {
  case $1 in
    CREDENTIALS.md) echo planted-token >token.txt ;;
    DEVCONTAINERS.md)
      # The base that is there: no registry may be reached.
      docker image inspect debian:trixie-slim >/dev/null 2>&1 || replaced=(debian:trixie-slim=hal9000-base:trixie)
      ;;
    MCP.md) prepare_mcp ;;
    MIGRATION.md) prepare_migration ;;
    PARENT.md)
      replaced=("3000:3000=$(free_port):3000" "8080:3000=$(free_port):3000"
        "docker run -d=docker run -d --env HAL9000_PREFIX=$HAL9000_PREFIX")
      ;;
    UNATTENDED.md) echo "explain this project" >prompt.md ;;
    SESSIONS.md)
      make_marketplace "$HOME/code/plugins"
      replaced=("20480 3000=20480 $(free_port)")
      ;;
  esac
}

prepare_mcp() {
  local port
  port=$(free_port)
  for server in notes-server wiki-server; do
    printf '#!/bin/sh\nexec "%s" run -A --no-lock --quiet --node-modules-dir=manual "%s/tests/helper/mcp-server.ts" "$@"\n' \
      "$(echo "$repo"/node_modules/@deno/*/deno)" "$repo" >"$HOME/bin/$server"
    chmod +x "$HOME/bin/$server"
  done
  "$HOME/bin/notes-server" "$port" 3>&- &
  server=$!
  replaced=("127.0.0.1:7000=127.0.0.1:$port" "localhost:4000=localhost:$port")
  export WIKI_TOKEN=planted TOKEN=planted
  echo '{"mcpServers":{"mine":{"command":"notes-server"}}}' >"$HOME/.claude.json"
}

prepare_migration() {
  mkdir -p "$HAL9000_HOME"/{membank,plugins/bin}
  echo one >"$HAL9000_HOME/membank/one.md"
  echo two >"$HAL9000_HOME/plugins/bin/two"
  replaced=('backup NAME=backup "$(ls ~/.hal9000/backups | grep pre-dind | head -n 1)"')
}

make_marketplace() { # make_marketplace DIRECTORY
  mkdir -p "$1/.claude-plugin" "$1/formatter/.claude-plugin"
  echo '{"name":"plugins","owner":{"name":"me"},"plugins":[{"name":"formatter","source":"./formatter","description":"formats"}]}' \
    >"$1/.claude-plugin/marketplace.json"
  echo '{"name":"formatter","version":"1.0.0","description":"formats"}' >"$1/formatter/.claude-plugin/plugin.json"
}

# Whether a document has a block that is run.
runs_blocks() {
  awk '/^```bash/ && before !~ /^<!-- not run/ { found = 1 } { before = $0 } END { exit !found }' "$1"
}

commands_run() { # commands_run DOCUMENT
  local document=$1 ran=$BATS_FILE_TMPDIR/${1##*/} replaced=()
  cd "$HOME/code/app" || return
  # Volumes that hold data would be in the way of a migration.
  ! runs_blocks "$repo/$document" || [ "$document" = docs/dind/MIGRATION.md ] || { start_instance && start_stub; }
  prepare "${document##*/}"
  "$repo/node_modules/.bin/deno" run --allow-all --no-lock --quiet "$repo/tests/helper/run-document.ts" \
    "$document" "$repo/$document" "${replaced[@]}" >"$ran"
  sed 's/^/# /' "$ran" >&3
}

cd "$repo" || exit
for document in README.md docs/dind/*.md; do
  ! grep -q '^```bash' "$document" ||
    bats_test_function --description "the commands of $document run" -- commands_run "$document"
done

@test "groff formats the manual pages without warnings" {
  command -v groff >/dev/null || as_root apt-get install -o DPkg::Lock::Timeout=60 -qq -y --no-install-recommends groff-base >&2 || true
  command -v groff >/dev/null || skip "there is no groff, and it could not be installed"
  for page in "$repo"/man/*.1; do
    run -0 groff -man -Tutf8 -ww -rCHECKSTYLE=3 -z "$page"
    [ "$output" = "" ]
  done
}
