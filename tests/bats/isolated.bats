# Workers without a network: only the services on their localhost.

load ../helper/load
load ../helper/sessions

nsenter=$HAL9000_PREFIX-nsenter
deno=$(echo "$repo"/node_modules/@deno/*/deno)
export WORKER_NETWORK=isolated

setup() {
  project=$(make_project isolated)
  use_stub
}

teardown() {
  after_failure
  [ -z "${opener:-}" ] || kill "$opener" 2>/dev/null || true
  stop_workers
}

# The numbers of all interfaces' lines, and of the routes: only a loopback.
only_loopback() { # only_loopback WORKER
  [ "$(docker exec "$1" sh -c 'ls /sys/class/net')" = lo ]
  [ "$(docker exec "$1" sh -c 'wc -l </proc/net/route')" = 1 ]
}

stub_answers() { # stub_answers WORKER
  docker exec "$1" bash -c "exec 3<>/dev/tcp/127.0.0.1/$stub_port; printf 'HEAD / HTTP/1.0\r\n\r\n' >&3; read -r line <&3; [[ \$line == HTTP/* ]]"
}

@test "an isolated worker has a loopback alone, with the services at their ports" {
  spawn -n alone-$$ "$project"
  only_loopback alone-$$
  heartbeat alone-$$
  stub_answers alone-$$
  # Nothing else listens, and no name can be resolved.
  services=("$HAL9000_HOME"/run/ways/services/*.sock)
  [ "$(docker exec alone-$$ sh -c 'grep -c " 0A " /proc/net/tcp')" = "${#services[@]}" ]
  run ! docker exec alone-$$ bash -c 'exec 3<>/dev/tcp/example.test/80'
}

@test "isolated workers can serve on the same port, and neither sees the other's" {
  for name in one two; do
    spawn -n "$name-$$" --mount "$deno:/opt/deno:ro" "$project" -- \
      /opt/deno eval "Deno.serve({ port: 3000, hostname: '127.0.0.1' }, () => new Response('from $name'))"
  done
  says() { [ "$(docker exec "$1-$$" /opt/deno eval "console.log(await (await fetch('http://127.0.0.1:3000')).text())")" = "from $1" ]; }
  wait_for 10 says one
  wait_for 10 says two
  # Commands tell them apart, and open each on the host.
  [ "$("$claudy" ports --json | jq -r '[.listeners[] | select(.port == 3000).container] | sort | join(" ")')" = "one-$$ two-$$" ]
  run -2 "$claudy" ports open 3000
  [[ $output == *"Several workers listen on port 3000"*"--worker"* ]]
  for name in one two; do
    host_port=$(free_port)
    "$claudy" ports open 3000 "$host_port" --worker "$name-$$" 3>&- &
    opener=$!
    answers() { [ "$(curl --silent --max-time 5 "http://127.0.0.1:$host_port/")" = "from $name" ]; }
    wait_for 10 answers
    kill "$opener"
  done
}

@test "the services are open before a worker's command runs, and after each restart" {
  run -0 "$scripts/spawn-worker.ts" "$project" -- bash -c 'exec 3<>/dev/tcp/127.0.0.1/8000 && echo reached'
  [[ $output == *reached* ]]
  spawn -n again-$$ "$project"
  docker restart --time 0 again-$$
  wait_for 10 heartbeat again-$$
  # Whatever is killed, it comes back.
  docker kill "$nsenter"
  wait_for 10 heartbeat again-$$
  docker exec "$parent" pkill -9 -f /scripts/services
  wait_for 10 heartbeat again-$$
  docker kill "$parent"
  run ! heartbeat again-$$
  only_loopback again-$$
  "$scripts/claudy.ts" daemon start
  wait_for 10 heartbeat again-$$
}

@test "the services answer as soon as a restart of the parent returns" {
  spawn -n soon-$$ "$project"
  proxied() { docker exec soon-$$ bash -c 'exec 3<>/dev/tcp/127.0.0.1/3128; printf "GET http://localhost/ HTTP/1.0\r\n\r\n" >&3; grep -m 1 "which no rule can allow" <&3'; }
  for _ in 1 2; do
    proxied
    heartbeat soon-$$
    "$scripts/claudy.ts" daemon restart
  done
  proxied
  heartbeat soon-$$
}

@test "a warm worker is isolated, and a claim finds its services open" {
  "$claudy" pool start --min-warm 1 >/dev/null
  "$claudy" pool warm >/dev/null
  run -0 --separate-stderr "$scripts/spawn-worker.ts" --detach --json --warm-only -n warm-$$ "$project"
  only_loopback warm-$$
  heartbeat warm-$$
  stub_answers warm-$$
  # One of another kind is not given instead.
  run -7 env WORKER_NETWORK=shared "$scripts/spawn-worker.ts" --detach --warm-only "$project"
  [[ $output == *"another network"* ]]
  # The services stay when the pool stops.
  "$claudy" pool stop >/dev/null
  docker inspect "$nsenter" >/dev/null
  heartbeat warm-$$
}

@test "the daemon's network is that of new workers, and the pool's that of warm ones" {
  unset WORKER_NETWORK
  "$claudy" daemon start --network shared >/dev/null
  run -0 "$claudy" daemon start --network isolated
  [[ $output == *"Restarting the parent: WORKER_NETWORK has changed"* ]]
  spawn --cold -n new-$$ "$project"
  only_loopback new-$$
  "$claudy" pool start --min-warm 1 >/dev/null
  "$claudy" pool warm >/dev/null
  spawn --warm-only -n first-$$ "$project"
  only_loopback first-$$
  "$claudy" pool start --network shared >/dev/null
  run -0 "$claudy" pool warm --json
  [[ $(jq -r .network <<<"$output") == shared ]]
  spawn --warm-only --network shared -n second-$$ "$project"
  run ! only_loopback second-$$
  run -7 "$scripts/spawn-worker.ts" --detach --warm-only "$project"
  [[ $output == *"another network"* ]]
  "$claudy" pool stop >/dev/null
  "$claudy" daemon start --network shared >/dev/null
  spawn -n last-$$ "$project"
  run ! only_loopback last-$$
}

@test "a session stays isolated when it is opened again, until another network is chosen" {
  unset WORKER_NETWORK
  "$claudy" --detach --network isolated "$project"
  kept=$("$claudy" sessions --json | jq -r .[0].name)
  only_loopback "$kept"
  "$claudy" stop "$kept"
  for _ in 1 2; do
    run -0 "$claudy" --detach "$project"
    [[ $output == *"Network: isolated (chosen for this session"* ]]
    only_loopback "$kept"
    "$claudy" stop "$kept"
  done
  "$claudy" --detach --network shared "$project"
  run ! only_loopback "$kept"
  "$claudy" sessions rm --yes "$kept"
}

@test "a session in the shared network is not taken for an isolated one" {
  WORKER_NETWORK=shared open "$project"
  run -5 "$claudy" --detach "$project"
  [[ $output == *"is not isolated"*"claudy stop $session"* ]]
  "$claudy" --detach --network shared "$project"
  "$claudy" sessions rm --yes "$session"
  run -2 "$scripts/spawn-worker.ts" --standalone --network isolated "$project"
  run -2 "$scripts/spawn-worker.ts" --network other "$project"
  [[ $output == *"--network must be "* ]]
}

@test "a session runs in an isolated worker, with the host's MCP servers" {
  "$claudy" mcp start
  opened=$("$claudy" --detach --json "$project" -- --permission-mode bypassPermissions)
  session=$(jq -r .session <<<"$opened")
  wait_for_screen 30 "$session" '❯'
  only_loopback "$session"
  typed "$session" "hello there" Enter
  wait_for_screen 20 "$session" "echo: hello there"
  typed "$session" 'TOOL mcp__memory-bank__memory_bank_write {"projectName":"isolated","fileName":"note.md","content":"written"}' Enter
  written() { [ "$(cat "$HAL9000_HOME/memorybank/isolated/note.md")" = written ]; }
  wait_for 15 written
  "$claudy" mcp stop
}
