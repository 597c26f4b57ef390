# What people do with an engine, once each; machine.sh runs it on each kind of engine. Each
# test is a column of the matrix that engines.sh prints.

# shellcheck disable=SC2030,SC2031  # each test has its own variables

# Tests the dashboard, see start_instance.
export DASHBOARD=on
load ../helper/load
load ../helper/sessions

port=20333
deno=$(echo "$repo"/node_modules/@deno/*/deno)

setup_file() { export UP=$BATS_FILE_TMPDIR/up; }

setup() {
  project=$(make_project "$BATS_TEST_DESCRIPTION")
  [ "$BATS_TEST_DESCRIPTION" = up ] || [ -e "$UP" ] || skip "not up"
}

teardown() {
  # What a failed test has left: bats would wait for it.
  tmux kill-server 2>/dev/null || true
  [ -z "${opener:-}" ] || kill "$opener" 2>/dev/null || true
  [ -z "${agent:-}" ] || kill "$agent" 2>/dev/null || true
  [ ! -e "$UP" ] || stop_workers
}

teardown_file() { "$claudy" mcp stop; }

# The engine lacks this feature, and the user gets this sentence.
cannot() { # cannot OUTPUT SENTENCE
  [[ $1 == *"$2"* ]] || return
  mkdir -p "$ANSWERS"
  echo "$2" >"$ANSWERS/$BATS_TEST_DESCRIPTION"
}

# A worker works on its project, as the owner of its files.
works() { # works WORKER PROJECT
  docker exec "$1" sh -ec 'touch /workspace/made "$HOME/made" "$CLAUDE_CONFIG_DIR/made"; whoami'
  [ "$(owner_of "$2/made")" = "$(id -u):$(id -g)" ]
}

@test "up" {
  start_instance
  wait_for 30 heartbeat "$parent"
  touch "$UP"
}

@test "cold" {
  spawn -n cold "$project"
  works cold "$project"
  heartbeat cold
  # A helper container looks at a path outside of the project roots.
  elsewhere=$(mktemp -d ~/elsewhere.XXXXXX)
  spawn -n elsewhere "$elsewhere"
  works elsewhere "$elsewhere"
}

@test "warm" {
  "$claudy" pool start --min-warm 1 --max-warm 2
  "$claudy" pool warm
  spawn --warm-only -n warm "$project"
  works warm "$project"
  "$claudy" pool stop
}

@test "isolated" {
  export WORKER_NETWORK=isolated
  spawn -n isolated "$project"
  works isolated "$project"
  heartbeat isolated
  [ "$(docker exec isolated ls /sys/class/net)" = lo ]
}

@test "limits" {
  run -0 spawn --memory 512m --cpus 0.5 --pids-limit 50 -n limited "$project"
  missing=$(sed -n 's/^warning: The engine cannot limit \(.*\) of containers.*/\1/p' <<<"$output")
  limit() { docker exec limited sh -c "cd /sys/fs/cgroup && cat $1 2>/dev/null" | grep -x "$2"; }
  [[ $missing == *memory* ]] || limit "memory/memory.limit_in_bytes memory.max" 536870912
  [[ $missing == *CPUs* ]] || limit "cpu/cpu.cfs_quota_us cpu.max" "50000\( 100000\)\?"
  [[ $missing == *processes* ]] || limit "pids/pids.max pids.max" 50
  [ "$missing" ] || return 0
  run -6 spawn --require-limits -n refused "$project"
  cannot "$output" "The engine cannot limit $missing of containers"
}

@test "session" {
  use_stub
  start_stub
  open "$project"
  typed "$session" "hello there" Enter
  wait_for_screen 20 "$session" "echo: hello there"
  "$claudy" stop "$session"
  open "$project"
  [ "$(jq -r .conversation <<<"$opened")" = resumed ]
}

@test "agent" {
  use_stub
  export SSH_AUTH_SOCK=$HAL9000_TEST_ROOT/agent.sock
  "$deno" run --allow-all --no-lock --no-config "$repo/tests/helper/empty-agent.ts" "$SSH_AUTH_SOCK" 3>&- &
  agent=$!
  wait_for 10 test -S "$SSH_AUTH_SOCK"
  open --ssh-agent "$project"
  run -1 docker exec --env SSH_AUTH_SOCK=/run/hal9000/ssh-agent.sock "$session" ssh-add -l
  [ "$output" = "The agent has no identities." ]
}

@test "mcp" {
  use_stub
  "$claudy" mcp start
  opened=$("$claudy" --detach --json "$project" -- --permission-mode bypassPermissions)
  session=$(jq -r .session <<<"$opened")
  wait_for_screen 30 "$session" '❯'
  typed "$session" 'TOOL mcp__memory-bank__memory_bank_write {"projectName":"smoke","fileName":"note.md","content":"written"}' Enter
  written() { [ "$(cat "$HAL9000_HOME/memorybank/smoke/note.md")" = written ]; }
  wait_for 15 written
}

@test "ports" {
  spawn -n server --mount "$deno:/opt/deno:ro" "$project" -- \
    /opt/deno eval "Deno.serve({ port: $port, hostname: '127.0.0.1' }, () => new Response('from the worker'))"
  "$claudy" ports open $port $((port + 1)) >"$BATS_TEST_TMPDIR/opened" 2>&1 3>&- &
  opener=$!
  answers() { [ "$(curl --silent --max-time 5 "http://127.0.0.1:$((port + 1))/")" = "from the worker" ]; }
  wait_for 10 answers || { cat "$BATS_TEST_TMPDIR/opened" >&2; false; }
  kill "$opener"
}

@test "dashboard" {
  spawn -n shown "$project"
  tmux -f /dev/null new-session -d -x 120 -y 40 "$claudy dashboard; cat"
  shows() { tmux capture-pane -p | grep -F -- "$1"; }
  for text in "Parent: up " "ChromaDB: answers" "shown"; do
    wait_for 10 shows "$text" || { tmux capture-pane -p >&2; false; }
  done
  tmux kill-server
}

@test "migrate" {
  export HAL9000_PREFIX=$HAL9000_PREFIX-move HAL9000_HOME=$HAL9000_TEST_ROOT/former
  mkdir -p "$HAL9000_HOME"/{chromadb,membank/app,plugins/bin}
  chroma chroma fill alpha=100
  cp "$BATS_TEST_TMPDIR/chroma" "$BATS_TEST_TMPDIR/before"
  echo "# Notes" >"$HAL9000_HOME/membank/app/progress.md"
  echo echo >"$HAL9000_HOME/plugins/bin/tool"
  chmod 0750 "$HAL9000_HOME/plugins/bin/tool"
  ln -s tool "$HAL9000_HOME/plugins/bin/alias"
  trees >"$BATS_TEST_TMPDIR/source"
  "$scripts/migrate.ts" --yes
  wait_for 30 heartbeat "$HAL9000_PREFIX-parent"
  "$scripts/rollback.ts" --yes
  trees | diff "$BATS_TEST_TMPDIR/source" - >&2
  chroma chroma query
  cmp "$BATS_TEST_TMPDIR/chroma" "$BATS_TEST_TMPDIR/before"
}

# Runs the real ChromaDB on the local directory; its answers go to a file.
chroma() { # chroma FILE WORDS...
  # Like our own containers, where the engine maps users.
  docker run --detach --rm --name former --userns host --label "hal9000.instance=$HAL9000_PREFIX" --entrypoint deno \
    --volume "$HAL9000_HOME/chromadb:/data/chromadb" --volume "$repo/tests/helper:/helper:ro" "$HAL9000_IMAGE_REPO:parent" \
    run -A --no-lock --no-config --quiet /opt/chromadb/chroma.mjs run --path /data/chromadb --host 127.0.0.1 --port 8000
  wait_for 20 heartbeat former
  docker exec former deno run -A --no-lock --no-config --quiet /helper/chroma.ts "${@:2}" >"$BATS_TEST_TMPDIR/$1"
  docker stop --time 5 former
}

# Names, kinds, modes, owners, times and contents; ChromaDB changes its own.
trees() {
  (cd "$HAL9000_HOME" && find membank plugins -printf '%p %y %m %U %G %T@ %l\n' && find membank plugins -type f -exec sha256sum {} +) | sort
}

@test "doctor" {
  run "$claudy" doctor
  echo "$output" >&2
  [[ $output != *FAIL* ]]
  # The packet filter of the workers' namespace holds on each engine.
  [[ $output == *"out of reach of workers"* ]]
}
