# Sessions of the real Claude CLI, with a stub for its API.

# shellcheck disable=SC2034
claudy=$scripts/claudy.ts
# Of this run alone: tests search the processes of the whole machine for it.
key=sk-ant-planted-$HAL9000_PREFIX
stub=$HAL9000_PREFIX-session-stub

start_stub() {
  mkdir -p "$HAL9000_TEST_ROOT/session-stub"
  rm -f "$HAL9000_TEST_ROOT/session-stub/requests" # left by the stub of another file
  # As the net container, where the engine maps users.
  docker run --detach --no-healthcheck --name "$stub" --network "container:$net" --userns host --entrypoint deno \
    --label "hal9000.instance=$HAL9000_PREFIX" --label hal9000.role=helper \
    --volume "$repo/tests/helper:/repo/tests/helper:ro" --volume "$repo/lib:/repo/lib:ro" \
    --volume "$HAL9000_TEST_ROOT/session-stub:/record" \
    --volume "$HAL9000_HOME/run/ways/services:/services" --env SERVICES=/services \
    "$HAL9000_IMAGE_REPO:parent" run -A --no-lock --no-config --quiet \
    /repo/tests/helper/messages-stub.ts "$stub_port" /record/requests
  wait_for 10 docker exec "$stub" bash -c "exec 3<>/dev/tcp/127.0.0.1/$stub_port"
}

stop_stub() { docker rm --force --volumes "$stub"; }

setup_file() { start_instance && start_stub; }
teardown_file() { stop_stub; }

use_stub() { export ANTHROPIC_API_KEY=$key ANTHROPIC_BASE_URL=http://127.0.0.1:$stub_port; }

# Starts the session of a project; $session is its name and its worker's.
open() {
  opened=$("$claudy" --detach --json "$@" -- --permission-mode default)
  session=$(jq -r .session <<<"$opened")
  wait_for_screen 30 "$session" '❯'
}

# Types a text or presses a key, and then Enter, if given. An Enter that arrives with the
# text would be a new line of it.
typed() { # typed SESSION KEYS [Enter]
  local end=${2##* }
  docker exec "$1" tmux -L claude send-keys -t claude "$2"
  [ "${3:-}" = Enter ] || return 0
  [ "${#end}" -le 20 ] || end=${end: -20} # a longer one may be on two lines
  wait_for_screen 10 "$1" "$end"
  docker exec "$1" tmux -L claude send-keys -t claude Enter
}

screen_shows() { docker exec "$1" tmux -L claude capture-pane -p -J -S - -t claude | grep -F -- "$2"; }

# The loop runs in the worker: a docker exec for each check would take too long.
wait_for_screen() { # wait_for_screen SECONDS SESSION TEXT
  docker exec "$2" timeout "$(($1 * patience))" sh -c 'until tmux -L claude capture-pane -p -J -S - -t claude | grep -qF -- "$1"
    do sleep 0.1; done' sh "$3" || { echo "timed out waiting for: $3" >&2; docker exec "$2" tmux -L claude capture-pane -p -t claude >&2; false; }
}

# Makes the agent ask for a permission, once in each session, or with another NAME each time.
ask_permission() { # ask_permission SESSION [NAME]
  typed "$1" "TOOL Bash {\"command\":\"touch /tmp/${2:-asked}\",\"description\":\"ask\"}" Enter
  waits_for_permission() {
    docker exec "$1" tmux -L claude capture-pane -p -t claude | grep -F "Do you want to proceed?"
  }
  wait_for 20 waits_for_permission "$1"
}

# claude WORKER ARGUMENT...: runs the CLI against the stub.
claude() {
  local worker=$1
  shift
  ANTHROPIC_API_KEY=$key docker exec --env ANTHROPIC_API_KEY \
    --env "ANTHROPIC_BASE_URL=http://127.0.0.1:$stub_port" "$worker" claude "$@"
}

# Whether no terminal is attached to $session.
detached() { [ "$("$claudy" sessions --json | jq -r --arg name "$session" '.[] | select(.name == $name).attached')" = 0 ]; }

# Makes $host, a Claude home of the host's user.
make_claude_home() {
  host=$BATS_TEST_TMPDIR/me/.claude
  mkdir -p "$host/agents" "$host/commands" "$host/projects/-home-me-other"
  echo "Answer like a pirate." >"$host/CLAUDE.md"
  printf -- '---\nname: planted-agent\ndescription: finds treasure\n---\nDig.\n' >"$host/agents/planted-agent.md"
  echo '{"env":{"FROM_HOST":"yes"},"apiKeyHelper":"/bin/false","hooks":{"Stop":[{"hooks":[{"type":"command","command":"touch /workspace/hooked"}]}]}}' >"$host/settings.json"
  echo '{"mcpServers":{"tool":{"command":"/home/me/tool"}}}' >"$host/../.claude.json"
  echo "secret history" >"$host/projects/-home-me-other/x.jsonl"
  claude_home_files >"$BATS_TEST_TMPDIR/before"
}

claude_home_files() { (cd "$host/.." && find . -type f -exec sha256sum {} + | sort); }
claude_home_unchanged() { claude_home_files | cmp - "$BATS_TEST_TMPDIR/before"; }

state() { "$claudy" sessions --json | jq -r --arg name "$1" '.[] | select(.name == $name) | .state'; }
is() { [ "$(state "$1")" = "$2" ]; }

# Checks the agent's last request to the API for a text; the CLI sends other requests too,
# for example for a title.
sent() {
  tail -10 "$HAL9000_TEST_ROOT/session-stub/requests" | grep -F '"tools":[{"name"' | tail -1 | grep -qF -- "$1"
}
