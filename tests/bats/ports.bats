# Ports of the workers' shared network: listening processes, and forwarding to the host.

load ../helper/load

claudy=$scripts/claudy.ts
deno=$(echo "$repo"/node_modules/@deno/*/deno)
port=20333

setup() {
  project=$(make_project served)
  host_port=$(free_port)
}

teardown() {
  after_failure
  [ -z "${opener:-}" ] || kill "$opener" 2>/dev/null || true
  stop_workers
}

serve() { # serve NAME: starts a worker with a server
  spawn -n "$1" --mount "$deno:/opt/deno:ro" "$project" -- \
    /opt/deno eval "Deno.serve({ port: $port, hostname: '127.0.0.1' }, () => new Response('from $1'))"
}
open_port() {
  "$claudy" ports open "$@" 3>&- &
  opener=$!
}
answers() { [ "$(curl --silent --max-time 5 "http://127.0.0.1:$host_port/")" = "$1" ]; }

@test "ports shows which worker listens and which session the port belongs to" {
  serve server-$$
  listed() { "$claudy" ports --json | jq -e --argjson port $port '.listeners[] | select(.port == $port)'; }
  wait_for 60 listed
  [ "$(listed | jq -r '.container + " " + .process + " " + .address')" = "server-$$ deno localhost" ]
  "$claudy" ports --json | jq -e '.listeners[] | select(.port == 8000 and .container == "'"$HAL9000_PREFIX-nsenter"'")'
  [[ $("$claudy" ports) == *"server-$$"*"deno"* ]]
  [ "$(listed | jq -r .reservedFor)" = null ]
  # The port is in another session's range.
  jq -nc --arg project "$project" '{version: 1, name: "holder", project: $project, portBase: 20320,
    createdAt: "2026-01-01T00:00:00Z", usedAt: "2026-01-01T00:00:00Z"}' >"$HAL9000_HOME/sessions/kept/holder.json"
  [ "$(listed | jq -r .reservedFor)" = holder ]
  "$claudy" ports --json | jq -e '.ranges[] | select(.session == "holder" and .from == 20320 and .to == 20339)'
  "$claudy" sessions rm --yes holder
}

@test "a worker cannot forge the list of listening ports" {
  spawn -n liar-$$ --mount "$deno:/opt/deno:ro" "$project" -- /opt/deno eval "
    const held = [];
    for (let port = 31000; port < 33000; port++) held.push(Deno.listen({ port, hostname: '127.0.0.1' }));
    await new Promise((resolve) => setTimeout(resolve, 1e9))"
  # As an otherwise unused user, because inotify instances are counted per user.
  docker exec --detach --user $((100000 + $$)) liar-$$ /opt/deno eval "
    const { symbols } = Deno.dlopen('libc.so.6', { inotify_init: { parameters: [], result: 'i32' } });
    for (let count = 0; count < $(($(cat /proc/sys/fs/inotify/max_user_instances) / 2 + 6)); count++) symbols.inotify_init();
    await new Promise((resolve) => setTimeout(resolve, 1e9))"
  # Replaces programs that a check inside the worker would run.
  for program in cat readlink bash ps pgrep; do
    docker exec --user 0 liar-$$ sh -c "mkdir -p /usr/local/bin; printf '#!/bin/sh\nsleep 1000\n' >/usr/local/bin/$program
      chmod 755 /usr/local/bin/$program"
  done
  holds() { "$claudy" ports --json | jq -e --arg name liar-$$ '[.listeners[] | select(.container == $name)] | length == 100'; }
  wait_for 60 holds
  run -0 "$claudy" ports --json
  jq -e '.listeners[] | select(.port == 8000 and .container == "'"$HAL9000_PREFIX-nsenter"'")' <<<"$output"
  jq -e --arg name liar-$$ '.incomplete[] | select(.container == $name and (.reason | test("^listens on 1900 more")))' <<<"$output"
  run "$claudy" doctor --json
  jq -e --arg quoted '"liar-'$$'"' '.[] | select(.name == "inotify") | .state == "warn" and (.says | contains($quoted))' <<<"$output"
  [ -z "$(docker ps --all --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" --filter label=hal9000.role=helper)" ]
}

@test "ports open refuses a session's port on which another worker listens" {
  serve thief-$$
  jq -nc --arg project "$project" '{version: 1, name: "holder", project: $project, portBase: 20320,
    createdAt: "2026-01-01T00:00:00Z", usedAt: "2026-01-01T00:00:00Z"}' >"$HAL9000_HOME/sessions/kept/holder.json"
  taken() { "$claudy" ports --json | jq -e --argjson port $port '.listeners[] | select(.port == $port and .reservedFor == "holder")'; }
  wait_for 60 taken
  run -6 "$claudy" ports open $port "$host_port"
  [[ $output == *"is reserved for session \"holder\", but \"thief-$$\" listens on it"*"--allow-other"* ]]
  open_port $port "$host_port" --allow-other
  wait_for 60 answers "from thief-$$"
  "$claudy" sessions rm --yes holder
}

@test "ports open serves a port on 127.0.0.1 of the host, also after a restart of the parent" {
  serve server-$$
  open_port $port "$host_port"
  wait_for 60 answers "from server-$$"
  [ "$(ss -ltnH "sport = :$host_port" | awk '{ print $4 }')" = "127.0.0.1:$host_port" ]
  "$claudy" daemon restart >/dev/null
  wait_for 60 answers "from server-$$"
  # More than fits in a pipe, in both directions.
  "$scripts/coordinator.ts" stop server-$$
  spawn -n echo-$$ --mount "$deno:/opt/deno:ro" "$project" -- \
    /opt/deno eval "Deno.serve({ port: $port }, (request) => new Response(request.body))"
  head -c 20000000 /dev/urandom >"$BATS_TEST_TMPDIR/sent"
  got() { curl --silent --max-time 20 --data-binary @"$BATS_TEST_TMPDIR/sent" "http://127.0.0.1:$host_port/" >"$BATS_TEST_TMPDIR/got"; }
  wait_for 10 got
  cmp "$BATS_TEST_TMPDIR/sent" "$BATS_TEST_TMPDIR/got"
}

@test "ports open reports wrong usage and a taken port" {
  run -2 "$claudy" ports open
  run -2 "$claudy" ports open 70000
  run -2 "$claudy" ports close 1
  open_port $port "$host_port"
  listening() { ss -ltnH "sport = :$host_port" | grep -q .; }
  wait_for 60 listening
  run -5 "$claudy" ports open $port "$host_port"
  [[ $output == *"EADDRINUSE"* ]]
  # If no process listens, the connection is closed.
  run ! curl --silent --max-time 5 "http://127.0.0.1:$host_port/"
}

@test "nsenter's socket rejects input that is not a container and a port" {
  [ "$(stat -c '%a %g' "$HAL9000_HOME/run/nsenter/connect.sock")" = "660 $(stat -c %g "$HAL9000_HOME")" ]
  [ "$(stat -c '%a %u' "$HAL9000_HOME/run/ways")" = "750 $(stat -c %u "$HAL9000_HOME")" ]
  send() { timeout 5 "$deno" run -A --no-lock --node-modules-dir=manual "$repo/tests/helper/send.ts" "$HAL9000_HOME/run/nsenter/connect.sock" "$1"; }
  for line in "garbage" "0" "none 0" "$(inspect "$net" "{{.Id}}") 99999" "" "$(printf '%064d 8000' 0)"; do
    [ -z "$(send "$line")" ]
  done
  serve server-$$
  open_port $port "$host_port"
  wait_for 60 answers "from server-$$"
}
