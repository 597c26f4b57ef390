# The relay: workers get a placeholder, and the API gets the credential. The API is a stub
# in a container of its own, which only the parent reaches.

load ../helper/load
load ../helper/sessions

export HAL9000_RELAY=on
api=$HAL9000_PREFIX-relay-api
requests=$HAL9000_TEST_ROOT/relay-api/requests

setup_file() {
  start_instance
  mkdir -p "$HAL9000_TEST_ROOT/relay-api"
  rm -f "$requests"
  docker run --detach --no-healthcheck --name "$api" --userns host --entrypoint deno \
    --label "hal9000.instance=$HAL9000_PREFIX" --label hal9000.role=helper \
    --volume "$repo/tests/helper:/repo/tests/helper:ro" --volume "$repo/lib:/repo/lib:ro" \
    --volume "$HAL9000_TEST_ROOT/relay-api:/record" --env ADDRESS=0.0.0.0 \
    "$HAL9000_IMAGE_REPO:parent" run -A --no-lock --no-config --quiet \
    /repo/tests/helper/messages-stub.ts "$stub_port" /record/requests
  wait_for 10 docker exec "$api" bash -c "exec 3<>/dev/tcp/127.0.0.1/$stub_port"
}

teardown_file() { docker rm --force --volumes "$api"; }

setup() {
  log=$HAL9000_HOME/logs/relay.jsonl
  export ANTHROPIC_API_KEY=$key
  ANTHROPIC_BASE_URL=http://$(inspect "$api" '{{.NetworkSettings.IPAddress}}'):$stub_port
  export ANTHROPIC_BASE_URL
}

teardown() {
  after_failure
  stop_workers
  "$claudy" logout --yes >/dev/null
}

# Whether a text is anywhere in a worker: in its files, and in the environments, the
# arguments and the memory of its processes. What is mounted from the image is left out.
found_in() { # found_in WORKER TEXT
  local pid process
  pid=$(inspect "$1" '{{.State.Pid}}')
  for process in $(docker top "$1" -eo pid | tail -n +2); do
    as_root grep -qaF -- "$2" "/proc/$process/environ" "/proc/$process/cmdline" && { echo "in process $process"; return 0; }
  done
  as_root grep -rlaF --devices=skip --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev --exclude-dir=usr \
    -- "$2" "/proc/$pid/root/" 2>/dev/null
}

# Whether a text is in the process memory of the worker's CLI.
found_in_memory() { # found_in_memory WORKER TEXT
  local process
  for process in $(docker top "$1" -eo pid,comm | awk '$2 == "claude" { print $1 }'); do
    as_root python3 - "$process" "$2" <<'PY' && return 0
import sys
pid, text = sys.argv[1], sys.argv[2].encode()
with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
    for line in maps:
        span, rights = line.split()[:2]
        start, end = (int(part, 16) for part in span.split("-"))
        if "r" not in rights or end - start > 1 << 31: continue
        try:
            memory.seek(start)
            if text in memory.read(end - start): sys.exit(0)
        except OSError: pass
sys.exit(1)
PY
  done
  return 1
}

found_nowhere() { # found_nowhere WORKER TEXT
  run ! found_in "$1" "$2"
  run ! found_in_memory "$1" "$2"
  run ! grep -qF -- "$2" <<<"$(docker inspect "$1")"
  run ! grep -rqF -- "$2" "$HAL9000_HOME/logs"
  run ! grep -qF -- "$2" <<<"$("$claudy" sessions --json)$("$claudy" daemon status --json)"
}

@test "the API gets the key, of which an isolated worker has only a placeholder" {
  export WORKER_NETWORK=isolated
  open "$(make_project keyed)"
  typed "$session" "hello relay" Enter
  wait_for_screen 20 "$session" "echo: hello relay"
  # The search finds what there is.
  placeholder=$(docker exec "$session" cat /home/claude/.claude/.anthropic_key)
  [[ $placeholder == sk-ant-hal9000-* ]]
  run -0 found_in "$session" "$placeholder"
  run -0 found_in_memory "$session" "$placeholder"
  found_nowhere "$session" "$key"
  grep -qF "\"x-api-key\":\"$key\"" "$requests"
  run ! grep -qF sk-ant-hal9000 "$requests"
  logged() { jq -es --arg session "$session" 'any(.session == $session and .path == "/v1/messages" and .status == 200)' "$log"; }
  wait_for 2 logged
  [ "$(stat -c '%a %u:%g' "$log")" = "600 $(owner_of "$HAL9000_HOME")" ]
}
