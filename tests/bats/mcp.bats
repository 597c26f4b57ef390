# The host's MCP servers in workers: bundled servers, the real CLI, and SDK clients that
# misbehave.

# shellcheck disable=SC2030,SC2031  # each test has its own session

load ../helper/load
load ../helper/sessions

deno=$(echo "$repo"/node_modules/@deno/*/deno)

setup_file() {
  start_instance
  "$claudy" mcp start
  "$claudy" mcp add for-tests --port 3050 --idle-timeout 3 --env PLANTED=planted-mcp-secret -- "$deno" run -A --no-lock --quiet \
    --node-modules-dir=manual "$repo/tests/helper/mcp-server.ts"
  "$claudy" mcp add together --port 3051 --isolation shared -- "$deno" run -A --no-lock --quiet \
    --node-modules-dir=manual "$repo/tests/helper/mcp-server.ts"
  start_stub
  client=$HAL9000_PREFIX-mcp-client
  docker run --detach --no-healthcheck --name "$client" --network "container:$net" --entrypoint sleep --label "hal9000.instance=$HAL9000_PREFIX" \
    --label hal9000.role=helper --volume "$repo:/repo:ro" --volume "$HAL9000_HOME/run/mcp:/run/mcp" --workdir /repo \
    --env DENO_DIR=/tmp/deno "$HAL9000_IMAGE_REPO:parent" infinity
}

teardown_file() {
  stop_stub
  docker rm --force "$HAL9000_PREFIX-mcp-client"
  "$claudy" mcp stop
  rm -f "$HAL9000_HOME/config/mcp.json"
  "$claudy" daemon start >/dev/null
}

setup() { use_stub; }
teardown() {
  after_failure
  stop_workers
}

client() { # client PORT WORDS...: through nsenter and gateway
  docker exec "$HAL9000_PREFIX-mcp-client" deno run -A --no-lock --quiet --node-modules-dir=manual \
    tests/helper/mcp-client.ts "http://127.0.0.1:$1/mcp" "${@:2}"
}
# Starts a session that asks for no permission.
free() {
  opened=$("$claudy" --detach --json "$1" -- --permission-mode bypassPermissions)
  session=$(jq -r .session <<<"$opened")
  wait_for_screen 15 "$session" '❯'
}
served() { "$claudy" mcp status --json | jq -r --arg name "$1" ".servers[] | select(.name == \$name) | $2"; }

calls() { # calls SESSION TOOL ARGUMENTS: makes the agent call a tool
  typed "$1" "TOOL $2 $3" Enter
}
result_of() { # prints the last tool result that was sent to the API
  tail -4 "$HAL9000_TEST_ROOT/session-stub/requests" |
    jq -rs '[.[].body.messages[]? | .content | arrays | .[] | select(.type == "tool_result")] | last | .content | if type == "array" then .[0].text else . end'
}
thoughts() { result_of | grep -E "\"thoughtHistoryLength\": ?$1"; }
result_holds() { result_of | grep -F -- "$1"; }

@test "the CLI in two workers sees the bundled servers, and each agent calls a tool of each" {
  one=$(make_project mcp-one)
  other=$(make_project mcp-other)
  free "$one"
  first=$session
  free "$other"
  second=$session
  for worker in "$first" "$second"; do
    run -0 docker exec "$worker" claude mcp list
    [[ $output == *"memory-bank: "*"✔ Connected"* ]]
    [[ $output == *"sequential-thinking: "*"✔ Connected"* ]]
  done
  calls "$first" mcp__memory-bank__memory_bank_write '{"projectName":"shared","fileName":"note.md","content":"written by the first"}'
  written() { [ "$(cat "$HAL9000_HOME/memorybank/shared/note.md")" = "written by the first" ]; }
  wait_for 15 written
  wait_for_screen 20 "$first" "tool done"
  calls "$second" mcp__memory-bank__memory_bank_read '{"projectName":"shared","fileName":"note.md"}'
  wait_for 15 result_holds "written by the first"
  # Each agent has its own history of thoughts.
  thought='"nextThoughtNeeded":true,"totalThoughts":3'
  for number in 1 2; do
    calls "$first" mcp__sequential-thinking__sequentialthinking "{\"thought\":\"a thought\",\"thoughtNumber\":$number,$thought}"
    wait_for 15 thoughts "$number"
  done
  calls "$second" mcp__sequential-thinking__sequentialthinking "{\"thought\":\"another\",\"thoughtNumber\":1,$thought}"
  wait_for 15 thoughts 1
  # No file is written to the projects.
  [ -z "$(find "$one" "$other" -mindepth 1)" ]
}

# bats test_tags=soak
@test "many calls of eight clients succeed, and each client gets its own answers" {
  calls=$((200 * soak))
  run -0 --separate-stderr client 3051 many "$calls" 8
  [ "$(jq -c .wrong <<<"$output")" = "[]" ]
  [ "$(jq '.times | length' <<<"$output")" = "$calls" ]
  run -0 --separate-stderr client 3050 many "$calls" 8
  [ "$(jq -c .wrong <<<"$output")" = "[]" ]
}

@test "clients have separate processes or share one, as configured" {
  [ "$(client 3050 call count)" = '"1"' ]
  [ "$(client 3050 call count)" = '"1"' ]
  first=$(client 3051 call count | tr -d '"')
  [ "$(client 3051 call count)" = "\"$((first + 1))\"" ]
}

@test "passes 10 MB, progress notifications and stderr" {
  [ "$(client 3050 call big '{"bytes":10000000}' | wc -c)" = 10000003 ]
  [ "$(client 3050 call slow)" = '"slow"' ]
  run -0 "$claudy" mcp logs for-tests
  [[ $output == *"for-tests begins"* ]]
}

@test "a server's requests, logs and progress go to the right client" {
  run -0 --separate-stderr client 3050 watch slow
  [ "$(jq -c '[.text, .progress, .logged]' <<<"$output")" = '["slow",[1,2,3],["slowly"]]' ]
  # Two concurrent requests with the same id: each is answered by its own client.
  client 3050 watch ask '{"question":"first?"}' >"$BATS_TEST_TMPDIR/first" &
  first=$!
  run -0 --separate-stderr client 3050 watch ask '{"question":"second?"}'
  [ "$(jq -c '[.own, .asked[].text]' <<<"$output")" = '[true,"second?"]' ]
  wait "$first"
  [ "$(jq -c '[.own, .asked[].text]' "$BATS_TEST_TMPDIR/first")" = '[true,"first?"]' ]
  run -0 --separate-stderr client 3051 watch ask '{"question":"shared?"}'
  [ "$(jq -c '[.own, .asked[].text]' <<<"$output")" = '[true,"shared?"]' ]
}

@test "cancelling a call cancels it in the server and leaves no client behind" {
  before=$(client 3051 call cancelled | tr -d '"')
  run -0 --separate-stderr client 3051 cancel hang
  [[ $(jq -r .text <<<"$output") == *enough* ]]
  [ "$(jq -r .after <<<"$output")" = after ]
  [ "$(client 3051 call cancelled)" = "\"$((before + 1))\"" ]
  # A client that dies during a call is removed too.
  docker exec --detach "$HAL9000_PREFIX-mcp-client" deno run -A --no-lock --quiet --node-modules-dir=manual \
    tests/helper/mcp-client.ts http://127.0.0.1:3050/mcp call hang
  hangs() { [ "$(served for-tests .processes)" != 0 ]; }
  wait_for 10 hangs
  sleep 1
  docker exec "$HAL9000_PREFIX-mcp-client" pkill -9 -f 'call hang'
  gone() { [ "$(served for-tests '"\(.sessions) \(.processes)"')" = "0 0" ]; }
  wait_for 30 gone
}

@test "forwards calls to an HTTP server on the host" {
  port=$(free_port)
  "$deno" run -A --no-lock --quiet --node-modules-dir=manual "$repo/tests/helper/mcp-server.ts" "$port" >/dev/null 2>&1 3>&- &
  server=$!
  "$claudy" mcp add over-http --port 3061 --url "http://127.0.0.1:$port/mcp"
  over() { [ "$(client 3061 call echo '{"word":"over"}')" = '"over"' ]; }
  wait_for 10 over
  [ "$(client 3061 call big '{"bytes":10000000}' | wc -c)" = 10000003 ]
  [ "$(served over-http .state)" = ready ]
  kill "$server"
  run client 3061 call echo '{"word":"over"}'
  [ "$status" != 0 ]
  [[ $output == *"does not answer"* ]]
  [ "$(served over-http .state)" = failing ]
  "$claudy" mcp remove --yes over-http
}

@test "carries an API gateway on the host's localhost into workers" {
  port=$(free_port)
  "$deno" run -A --no-lock --no-config --quiet "$repo/tests/helper/messages-stub.ts" "$port" "$BATS_TEST_TMPDIR/asked" >/dev/null 2>&1 3>&- &
  gateway=$!
  listens() { echo >"/dev/tcp/127.0.0.1/$port"; }
  wait_for 10 listens
  project=$(make_project by-gateway)
  export ANTHROPIC_BASE_URL=http://localhost:$port
  run -1 "$claudy" run -C "$project" hello </dev/null
  [[ $output == *"claudy mcp add api-gateway --api --url http://localhost:$port"* ]]
  "$claudy" mcp add api-gateway --api --url "http://localhost:$port"
  [ "$("$claudy" run -C "$project" hello </dev/null)" = "echo: hello" ]
  grep -q hello "$BATS_TEST_TMPDIR/asked"
  jq -e '.[] | select(.name == "api-gateway") | .ok' <<<"$("$claudy" mcp doctor --json)"
  kill "$gateway"
  "$claudy" mcp remove --yes api-gateway
}

@test "MCP_SOCKET=tcp uses a tunnel on loopback that only the parent can use" {
  stand_in=$HAL9000_PREFIX-desktop
  hosts=$(inspect "$parent" '{{.HostsPath}}')
  as_root cat "$hosts" >"$BATS_TEST_TMPDIR/hosts"
  "$claudy" mcp stop
  MCP_SOCKET=tcp "$claudy" mcp start
  tunnel=$("$claudy" mcp status --json | jq .tunnels)
  word=$HAL9000_HOME/run/ways/tunnel.json
  [ "$(stat -c %a "$word")" = 640 ]
  token=$(jq -r .token "$word")
  # Emulates host.docker.internal of Docker Desktop, which leads to the host's loopback.
  # The network has no gateway set until the engine was restarted once.
  gateway=$(inspect "$parent" '{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}')
  [ -n "$gateway" ]
  docker run --detach --name "$stand_in" --network host --label "hal9000.instance=$HAL9000_PREFIX" --label hal9000.role=helper \
    --entrypoint deno "$HAL9000_IMAGE_REPO:parent" eval "
      import { connect, createServer } from 'node:net';
      createServer((a) => { const b = connect($tunnel, '127.0.0.1');
        for (const [x, y] of [[a, b], [b, a]]) { x.on('error', () => y.destroy()).on('close', () => y.destroy()); x.pipe(y); }
      }).listen($tunnel, '$gateway');"
  echo "$gateway host.docker.internal" | as_root tee -a "$hosts" >/dev/null
  # nsenter cannot use the unix sockets.
  mkdir "$HAL9000_HOME/run/away"
  mv "$HAL9000_HOME"/run/mcp/*.sock "$HAL9000_HOME/run/away"
  carried() { [ "$(client 3051 call echo '{"word":"tunnel"}')" = '"tunnel"' ]; }
  run ! carried
  mv "$HAL9000_HOME"/run/away/*.sock "$HAL9000_HOME/run/mcp"
  wait_for 20 carried
  [ "$(client 3050 call big '{"bytes":10000000}' | wc -c)" = 10000003 ]
  # The tunnel requires the token, and leads only to the servers.
  asked() { printf 'CONNECT %s HTTP/1.1\r\nHost: x\r\n%s\r\n' "$1" "${2:+Proxy-Authorization: Bearer $2$'\r\n'}" | timeout 5 bash -c "exec 3<>/dev/tcp/127.0.0.1/$tunnel; cat >&3; head -1 <&3"; }
  [[ $(asked together:80) == *" 407 "* ]]
  [[ $(asked together:80 "${token}x") == *" 407 "* ]]
  [[ $(asked example.org:80 "$token") == *" 404 "* ]]
  [[ $(asked together:80 "$token") == *" 200 "* ]]
  # Apart from the stand-in, the tunnel listens only on loopback, and the token is not shown.
  docker rm --force "$stand_in"
  [ "$(awk -v port="$(printf ':%04X' "$tunnel")" '$4 == "0A" && index($2, port) { print $2 }' /proc/net/tcp /proc/net/tcp6)" = "$(printf '0100007F:%04X' "$tunnel")" ]
  {
    docker inspect "$HAL9000_PREFIX-nsenter" "$parent"
    docker logs "$HAL9000_PREFIX-nsenter"
    docker logs "$parent"
    cat "$HAL9000_HOME/logs/parent/services.log"
    ps axww -o args
    "$claudy" mcp status --json
    "$claudy" mcp logs
  } >"$BATS_TEST_TMPDIR/said" 2>&1
  [ "$(grep -c "$HAL9000_PREFIX" "$BATS_TEST_TMPDIR/said")" -gt 0 ]
  run ! grep -F -- "$token" "$BATS_TEST_TMPDIR/said"
  as_root tee "$hosts" <"$BATS_TEST_TMPDIR/hosts" >/dev/null
  "$claudy" mcp restart
  [ ! -e "$word" ]
  [ "$("$claudy" mcp status --json | jq .tunnels)" = null ]
  carried
}

@test "reports a crashed process and starts a new one for the next call" {
  run client 3050 call crash
  [ "$status" != 0 ]
  [[ $output == *"has ended unexpectedly: exit code 3"* ]]
  [ "$(client 3050 call echo '{"word":"again"}')" = '"again"' ]
  [[ "$(served for-tests .lastError)" == *"ended unexpectedly"* ]]
}

@test "a session continues after process, gateway, nsenter and parent are killed" {
  free "$(make_project mcp-kills)"
  # One call may fail with an error; the next ones succeed.
  tried() {
    local before
    before=$(result_of)
    another() { [ "$(result_of)" != "$before" ]; }
    calls "$session" mcp__together__echo "{\"word\":\"$1\"}"
    wait_for 5 another
    result_holds "$1"
  }
  echoed() { wait_for 60 tried "$1"; }
  echoed before-all
  pkill -9 --parent "$("$claudy" mcp status --json | jq .pid)" -f tests/helper/mcp-server.ts
  echoed after-child
  kill -9 "$("$claudy" mcp status --json | jq .pid)"
  up() { [ "$("$claudy" mcp status --json | jq .pid)" != null ]; }
  wait_for 10 up
  echoed after-gateway
  kill_container "$HAL9000_PREFIX-nsenter"
  echoed after-nsenter
  docker rm --force "$HAL9000_PREFIX-nsenter" >/dev/null
  echoed after-removed-nsenter
  docker restart --time 5 "$parent" >/dev/null
  echoed after-parent
}

@test "short-lived clients leave no process and no session behind" {
  gone() { [ "$(served for-tests '"\(.sessions) \(.processes)"')" = "0 0" ]; }
  wait_for 30 gone
  client 3050 short 8
  wait_for 30 gone
}

@test "a worker that uses all its limits does not block other sessions' servers" {
  docker exec --detach "$HAL9000_PREFIX-mcp-client" deno run -A --no-lock --quiet --node-modules-dir=manual \
    tests/helper/mcp-client.ts http://127.0.0.1:3050/mcp hold 1500
  full() { [ "$(served for-tests .sessions)" = 8 ]; }
  wait_for 30 full
  run client 3050 call count
  [[ $output == *"too many clients"* ]]
  open "$(make_project mcp-beside)"
  run -0 docker exec "$session" claude mcp list
  [[ $output == *"for-tests: "*"✔ Connected"* ]]
  [[ $output == *"together: "*"✔ Connected"* ]]
  # The worker is identified by a token that is stored only in the session's home.
  file=$HAL9000_HOME/claude/$session/.claude.json
  [ "$(stat -c %a "$file")" = 600 ]
  token=$(jq -r '.mcpServers.together.headers."X-HAL9000-Worker"' "$file")
  [ "${#token}" -gt 60 ]
  {
    docker ps --quiet | xargs docker inspect
    docker logs "$HAL9000_PREFIX-nsenter"
    ps axwwe -o args
    "$claudy" mcp status --json
    "$claudy" sessions --json
    "$claudy" mcp logs
    cat "$HAL9000_HOME"/logs/mcp/*.log "$HAL9000_HOME"/sessions/kept/*
  } >"$BATS_TEST_TMPDIR/said" 2>&1
  run ! grep -F -e "$token" -e "$(cat "$HAL9000_HOME/secrets/mcp_key")" "$BATS_TEST_TMPDIR/said"
  docker exec "$HAL9000_PREFIX-mcp-client" pkill -9 -f 'hold 1500'
}

@test "input from one client neither delays nor locks out another" {
  post() { # post SESSION: sends stdin as the body, prints the status
    body=$BATS_TEST_TMPDIR/body
    cat >"$body"
    {
      printf 'POST /mcp HTTP/1.1\r\nHost: x\r\nAccept: application/json, text/event-stream\r\nContent-Type: application/json\r\n'
      printf 'Mcp-Session-Id: %s\r\nContent-Length: %s\r\n\r\n' "$1" "$(wc -c <"$body")"
      cat "$body"
    } | docker exec -i "$HAL9000_PREFIX-mcp-client" bash -c 'exec 3<>/dev/tcp/127.0.0.1/3051; cat >&3; head -1 <&3'
  }
  begin=00000000-0000-0000-0000-0000000000
  deep() {
    printf '{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":'
    head -c 5000000 /dev/zero | tr '\0' '['
    head -c 5000000 /dev/zero | tr '\0' ']'
    printf '}}'
  }
  [[ $(deep | post "${begin}01") == *" 400 "* ]]
  before=$(served together .sessions)
  for number in {10..40}; do
    [[ $(echo garbage | post "$begin$number") == *" 400 "* ]]
  done
  [ "$(served together .sessions)" = "$before" ]
  # A request from a web page of another site, in a browser in a worker.
  run in_net_path /mcp $'Origin: http://evil.example\\r\\n'
  [[ $output == *" 403 "* ]]
  [ "$(client 3051 call echo '{"word":"in time"}')" = '"in time"' ]
}

@test "garbage, 100 MB and a client that never reads do not affect other clients" {
  in_net() { docker exec -i "$HAL9000_PREFIX-mcp-client" bash -c "$1"; }
  in_net 'exec 3<>/dev/tcp/127.0.0.1/3051; head -c 100000 /dev/urandom >&3; head -c 200 <&3' >/dev/null || true
  run in_net 'exec 3<>/dev/tcp/127.0.0.1/3051
    printf "POST /mcp HTTP/1.1\r\nHost: x\r\nAccept: application/json, text/event-stream\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n" >&3
    head -c 100000000 /dev/zero >&3 2>/dev/null & head -1 <&3'
  [[ $output == *" 413 "* ]]
  for body in '{"jsonrpc":"2.0"' '[]' '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' 'null'; do
    run in_net "exec 3<>/dev/tcp/127.0.0.1/3051
      printf 'POST /mcp HTTP/1.1\r\nHost: x\r\nAccept: application/json, text/event-stream\r\nContent-Type: application/json\r\nContent-Length: ${#body}\r\n\r\n%s' '$body' >&3; head -1 <&3"
    [[ $output == *" 400 "* ]]
  done
  client 3051 mute >"$BATS_TEST_TMPDIR/mute" &
  mute=$!
  called() { grep -q mute "$BATS_TEST_TMPDIR/mute"; }
  wait_for 60 called
  kill -0 "$mute"
  # It was cut off before all of its 200 MB were buffered.
  cut_off() { [ "$(served together .lastError)" = "A client did not read its responses" ]; }
  wait_for 30 cut_off
  # A client with its own process is not cut off; the process has to wait.
  client 3050 mute >"$BATS_TEST_TMPDIR/mute" &
  other=$!
  wait_for 60 called
  [ "$(ps -o rss= -p "$("$claudy" mcp status --json | jq .pid)")" -lt 1500000 ]
  kill "$other"
  # Large answers are no problem for a client that reads.
  [ "$(client 3050 parallel 4 25000000)" = "[25000000,25000000,25000000,25000000]" ]
  [ "$(client 3051 parallel 4 25000000)" = "[25000000,25000000,25000000,25000000]" ]
  [ "$(client 3051 call echo '{"word":"well"}')" = '"well"' ]
  kill "$mute"
}

@test "listens only on 127.0.0.1 and exposes only the servers" {
  # State 0A is LISTEN; 0100007F is 127.0.0.1.
  listeners() { docker exec "$HAL9000_PREFIX-mcp-client" cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == "0A" { print $2 }' | sort -u; }
  run ! grep -v '^0100007F:' <(listeners)
  for port in 3001 3002 3050 3051; do listeners | grep -q "$(printf ':%04X' "$port")"; done
  pid=$("$claudy" mcp status --json | jq .pid)
  # The gateway has no TCP sockets.
  run ! grep -E "$(find "/proc/$pid/fd" -lname 'socket:*' -printf '%l\n' 2>/dev/null | grep -o '[0-9]*' | paste -sd '|')" /proc/net/tcp
  [ "$(stat -c %a "$HAL9000_HOME" "$HAL9000_HOME/run" "$HAL9000_HOME/run/mcp" | xargs)" = "700 700 750" ]
  [ "$(docker exec "$HAL9000_PREFIX-nsenter" ls /mcp | xargs)" = "for-tests.sock memory-bank.sock sequential-thinking.sock together.sock" ]
  run in_net_path /etc/passwd
  [[ $output == *" 404 "* ]]
}

in_net_path() {
  docker exec "$HAL9000_PREFIX-mcp-client" bash -c "exec 3<>/dev/tcp/127.0.0.1/3051; printf 'GET $1 HTTP/1.0\r\nHost: x\r\n${2-}\r\n' >&3; head -1 <&3"
}

@test "doctor checks from the workers' network, and nsenter waits for a taken port" {
  clients=$(served together .sessions)
  run -0 "$claudy" mcp doctor
  [[ $output =~ ok\ +nsenter ]]
  # It leaves no client behind.
  [ "$(served together .sessions)" = "$clients" ]
  "$claudy" mcp add taken --port 3062 -- "$deno" run -A --no-lock --quiet --node-modules-dir=manual "$repo/tests/helper/mcp-server.ts"
  "$claudy" mcp remove --yes taken
  docker exec --detach "$HAL9000_PREFIX-mcp-client" deno eval 'Deno.serve({ hostname: "127.0.0.1", port: 3062 }, () => new Response("mine"))'
  sleep 1
  "$claudy" mcp add taken --port 3062 -- "$deno" run -A --no-lock --quiet --node-modules-dir=manual "$repo/tests/helper/mcp-server.ts"
  run -1 "$claudy" mcp doctor
  [[ $output == *"FAIL  taken"*"port 3062 is occupied by a process in a worker"* ]]
  [[ $output == *"ok    together"* ]]
  docker exec "$HAL9000_PREFIX-mcp-client" pkill -f Deno.serve
  well() { "$claudy" mcp doctor; }
  wait_for 10 well
  "$claudy" mcp remove --yes taken
}

@test "--mcp and --no-mcp choose servers; servers added in a session stay" {
  names() { docker exec "$session" sh -c 'cat ~/.claude/.claude.json' | jq -r '.mcpServers | keys | join(" ")'; }
  project=$(make_project mcp-choice)
  open --mcp memory-bank,together "$project"
  [ "$(names)" = "memory-bank together" ]
  "$claudy" stop "$session"
  # The choice is saved.
  open "$project"
  [ "$(names)" = "memory-bank together" ]
  "$claudy" stop "$session"
  open --no-mcp "$project"
  [ "$(names)" = "" ]
  docker exec "$session" claude mcp add --scope user --transport http mine http://127.0.0.1:9/mcp
  "$claudy" stop "$session"
  open --mcp all "$project"
  [ "$(names)" = "for-tests memory-bank mine sequential-thinking together" ]
  run -4 "$claudy" --detach --mcp memory-bnak "$project"
  [[ $output == *memory-bank* ]]
  run -0 "$claudy" --detach --no-mcp "$project"
  [[ $output == *"at its next start"* ]]
}

tools() { # prints the servers whose tools were in Claude's last request to the API
  tail -1 "$HAL9000_TEST_ROOT/session-stub/requests" | jq -r '[.body.tools[]?.name | select(startswith("mcp__")) | split("__")[1]] | unique | join(" ")'
}

@test "claudy run waits for a server that starts slowly" {
  "$claudy" mcp add slow --port 3052 -- sh -c "sleep 4; exec '$deno' run -A --no-lock --quiet \
    --node-modules-dir=manual '$repo/tests/helper/mcp-server.ts'"
  "$claudy" run -C "$(make_project mcp-slow)" --mcp slow "hello" </dev/null
  "$claudy" mcp remove --yes slow
  [ "$(tools)" = "slow" ]
}

@test "claudy run gets all servers, or those of --mcp" {
  project=$(make_project mcp-run)
  "$claudy" run -C "$project" "hello" </dev/null
  [ "$(tools)" = "for-tests memory-bank sequential-thinking together" ]
  "$claudy" run -C "$project" --mcp together "hello" </dev/null
  [ "$(tools)" = "together" ]
  "$claudy" run -C "$project" --no-mcp "hello" </dev/null
  [ "$(tools)" = "" ]
  run -4 "$claudy" run -C "$project" --mcp togetter "hello"
  [[ $output == *together* ]]
}

# bats test_tags=soak
@test "there is one gateway; it survives configuration changes and stays stopped after mcp stop" {
  # Each gateway is supervised by a process that has this path in its command line.
  gateways() { pgrep -fc "$HAL9000_HOME/run/mcp-wanted" || true; }
  none() { [ "$(gateways)" = 0 ]; }
  "$claudy" mcp stop
  wait_for 5 none
  for _ in $(seq "$soak"); do
    "$claudy" mcp start >/dev/null &
    one=$!
    "$claudy" mcp start >/dev/null &
    other=$!
    wait "$one" "$other"
    alone() { [ "$(gateways)" = 1 ] && "$claudy" mcp doctor >/dev/null; }
    wait_for 10 alone
    "$claudy" mcp stop
    wait_for 5 none
  done
  "$claudy" mcp start
  # A killed gateway does not come back after mcp stop.
  pid=$("$claudy" mcp status --json | jq .pid)
  kill -9 "$pid"
  "$claudy" mcp stop
  sleep 3
  [ "$(gateways)" = 0 ]
  "$claudy" mcp start
  # For a hanging gateway, the error contains the command that ends it.
  pid=$("$claudy" mcp status --json | jq .pid)
  kill -STOP "$pid"
  run -1 "$claudy" mcp status
  kill -CONT "$pid"
  [[ $output == *"kill -9 $pid"* ]]
  # A server that ignores EOF and SIGTERM is ended and does not block a new gateway.
  "$claudy" mcp add deaf --port 3065 -- bash -c 'trap "" TERM; read -r _; echo "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{}}"; exec sleep 300.'"$$"
  (client 3065 call echo || true) &
  stays() { pgrep -f "^sleep 300[.]$$\$"; }
  wait_for 10 stays
  left=$(stays)
  pid=$("$claudy" mcp status --json | jq .pid)
  kill -9 "$pid"
  again() { [ "$("$claudy" mcp status --json | jq .pid)" != "$pid" ] && [ "$(served together .state)" = ready ]; }
  wait_for 20 again
  # shellcheck disable=SC2086  # several
  run ! kill -0 $left
  "$claudy" mcp remove --yes deaf
  reached() { [ "$(client 3051 call echo '{"word":"well"}')" = '"well"' ]; }
  wait_for 10 reached
  # A change does not affect other servers' processes; an invalid file stops nothing.
  docker exec --detach "$HAL9000_PREFIX-mcp-client" deno run -A --no-lock --quiet --node-modules-dir=manual \
    tests/helper/mcp-client.ts http://127.0.0.1:3051/mcp call hang
  hangs() { [ "$(served together .processes)" = 1 ]; }
  wait_for 10 hangs
  pid=$("$claudy" mcp status --json | jq .pid)
  "$claudy" mcp add another --port 3064 -- "$deno" run -A --no-lock --quiet --node-modules-dir=manual "$repo/tests/helper/mcp-server.ts"
  [ "$(served another .state)" = ready ]
  [ "$("$claudy" mcp status --json | jq .pid)" = "$pid" ]
  hangs
  run -2 "$claudy" mcp restart together
  run -2 docker exec "$parent" /scripts/claudy mcp remove --yes another
  [[ $output == *"Run this on the host"* ]]
  echo '{' >"$BATS_TEST_TMPDIR/bad"
  cp "$HAL9000_HOME/config/mcp.json" "$BATS_TEST_TMPDIR/kept"
  cp "$BATS_TEST_TMPDIR/bad" "$HAL9000_HOME/config/mcp.json"
  run -2 "$claudy" mcp restart
  cp "$BATS_TEST_TMPDIR/kept" "$HAL9000_HOME/config/mcp.json"
  [ "$("$claudy" mcp status --json | jq .pid)" = "$pid" ]
  "$claudy" mcp remove --yes another
  hangs
  docker exec "$HAL9000_PREFIX-mcp-client" pkill -9 -f 'call hang'
}

@test "reports a server that exits at its start before the first call" {
  "$claudy" mcp add broken --port 3063 -- sh -c 'echo nonsense; echo why >&2; exit 1'
  fails() { [ "$(served broken .state)" = failing ]; }
  wait_for 10 fails
  open "$(make_project mcp-broken)" 2>"$BATS_TEST_TMPDIR/told"
  cat "$BATS_TEST_TMPDIR/told"
  grep -q "^warning: MCP servers that do not answer: .*broken" "$BATS_TEST_TMPDIR/told"
  run -0 "$claudy" mcp logs broken
  [[ $output == *why* ]]
  run -0 "$claudy" doctor --json
  [[ $(jq -r '.[] | select(.name == "mcp") | .says' <<<"$output") == "broken: "*"ended during its start"* ]]
  "$claudy" mcp remove --yes broken
}

@test "sessions and the daemon start despite an invalid configuration" {
  cp "$HAL9000_HOME/config/mcp.json" "$BATS_TEST_TMPDIR/kept"
  for text in '{' '{"mcpServers":{"x":{"command":"cat","port":8000}}}' '{"mcpServers":{"x":{"command":"cat","port":20001}}}'; do
    echo "$text" >"$HAL9000_HOME/config/mcp.json"
    run -2 "$claudy" mcp list
    [[ $output == *"config/mcp.json"* ]]
    "$claudy" daemon start >/dev/null 2>"$BATS_TEST_TMPDIR/told"
    grep -q "warning: config/mcp.json" "$BATS_TEST_TMPDIR/told"
    run -0 --separate-stderr "$claudy" run -C "$(make_project mcp-damaged)" hello </dev/null
    [[ $stderr == *"warning: no MCP servers: config/mcp.json"* ]]
  done
  open "$(make_project mcp-damaged)" 2>"$BATS_TEST_TMPDIR/told"
  grep -q "warning: no MCP servers: config/mcp.json" "$BATS_TEST_TMPDIR/told"
  cp "$BATS_TEST_TMPDIR/kept" "$HAL9000_HOME/config/mcp.json"
  "$claudy" daemon start >/dev/null
}

@test "adds, imports, lists without secrets and removes servers" {
  mkdir -p "$BATS_TEST_TMPDIR/me/.claude"
  cat >"$BATS_TEST_TMPDIR/me/.claude.json" <<END
{"mcpServers": {
  "mine": {"command": "/bin/cat", "args": ["--token", "planted-argument"], "env": {"TOKEN": "planted-token"}},
  "near": {"type": "http", "url": "http://localhost:7062/mcp", "headers": {"Authorization": "planted-header"}},
  "far": {"type": "http", "url": "https://example.org/mcp"},
  "old": {"type": "sse", "url": "http://localhost:7063/sse"},
  "two words": {"command": "/bin/cat"}}}
END
  CLAUDE_HOME=$BATS_TEST_TMPDIR/me/.claude run -0 --separate-stderr "$claudy" mcp add --from-claude --json
  [ "$(jq -c .added <<<"$output")" = '["mine","near"]' ]
  [ "$(jq '.left | length' <<<"$output")" = 3 ]
  run -0 "$claudy" mcp list --json
  [ "$(jq -r '.[] | select(.name == "mine") | .variables[0]' <<<"$output")" = TOKEN ]
  [[ $output != *planted* ]]
  run "$claudy" mcp status --json
  [[ $output != *planted* ]]
  [ "$(stat -c %a "$HAL9000_HOME/config/mcp.json")" = 600 ]
  "$claudy" mcp logs --follow --tail 1 >"$BATS_TEST_TMPDIR/followed" 3>&- &
  wait_for 5 test -s "$BATS_TEST_TMPDIR/followed"
  echo "a later line" >>"$HAL9000_HOME/logs/mcp/gateway.log"
  wait_for 5 grep -x "a later line" "$BATS_TEST_TMPDIR/followed"
  kill "$!"
  "$claudy" mcp remove --yes mine
  "$claudy" mcp remove --yes near
  run -4 "$claudy" mcp remove --yes mine
  run -2 "$claudy" mcp add bad --port 3050 -- cat
  [[ $output == *"same port"* ]]
  run ! grep -q bad "$HAL9000_HOME/config/mcp.json"
  run -2 "$claudy" mcp add "-x y" --port 3070 -- cat
  run -2 "$claudy" mcp add x --port 80 -- cat
  run -2 "$claudy" mcp add x --port 3071
  run -2 "$claudy" mcp add x --port 8000 -- cat
  run -5 "$claudy" mcp add together --port 3072 -- cat
  [[ $output == *"Remove it first"* ]]
  PLANTED_TOO=planted-in-environment "$claudy" mcp add named --port 3073 --env PLANTED_TOO -- "$deno" run -A --no-lock --quiet \
    --node-modules-dir=manual "$repo/tests/helper/mcp-server.ts"
  told() { [ "$(client 3073 call env '{"name":"PLANTED_TOO"}')" = "\"$1\"" ]; }
  wait_for 10 told planted-in-environment
  jq '.mcpServers.named.env.PLANTED_TOO = "${NOT_SET_HERE:-by default}"' "$HAL9000_HOME/config/mcp.json" >"$BATS_TEST_TMPDIR/changed"
  cp "$BATS_TEST_TMPDIR/changed" "$HAL9000_HOME/config/mcp.json"
  "$claudy" mcp restart
  wait_for 10 told "by default"
  "$claudy" mcp remove --yes named
  [ "$(client 3050 call env '{"name":"PLANTED"}')" = '"planted-mcp-secret"' ]
}
