# What a hostile worker reaches of other workers and of the world, in both networks. An
# isolated worker has no interface, so nothing that it sends leaves its namespace.

load ../helper/load

deno=$(echo "$repo"/node_modules/@deno/*/deno)

teardown() {
  after_failure
  stop_workers
}

# Starts a worker of a network with tests/helper at /opt/helper.
start() { # start NAME NETWORK
  spawn -n "$1" --network "$2" --mount "$deno:/opt/deno:ro" --mount "$repo/tests/helper:/opt/helper:ro" "$(make_project "${1%-*}")"
}
program() { docker exec "$1" /opt/deno run -A --no-lock --no-config --quiet "/opt/helper/$2" "${@:3}"; }
beside() { docker exec --detach "$1" /opt/deno run -A --no-lock --no-config --quiet "/opt/helper/$2" "${@:3}"; }
listens() { docker exec "$1" grep -qi "$(printf ':%04X ' 20555)" /proc/net/tcp; }

@test "a shared worker reaches another's port and abstract socket, an isolated one neither" {
  for network in shared isolated; do
    start "served-$network-$$" "$network"
    beside "served-$network-$$" neighbour.ts serve
    wait_for 10 listens "served-$network-$$"
    # Its own are reached.
    [[ $(program "served-$network-$$" neighbour.ts visit) == *"reached port"*"reached abstract"* ]]
    start "visits-$network-$$" "$network"
  done
  run -0 program visits-shared-$$ neighbour.ts visit
  [[ $output == *"saw abstract"*"reached port"*"reached abstract"* ]]
  run -0 program visits-isolated-$$ neighbour.ts visit
  [ "$output" = "" ]
}

@test "an isolated worker sends nothing: no TCP, UDP, multicast, ping or name" {
  start mute-$$ isolated
  # Before anything is sent: an interface would carry it to addresses of others.
  [ "$(docker exec mute-$$ ls /sys/class/net)" = lo ]
  run -0 program mute-$$ reach.ts 80 10.99.0.1 169.254.169.254 172.17.0.1 203.0.113.1 224.0.0.251 255.255.255.255
  [ "$output" = "" ]
  run -0 program mute-$$ reach.ts 8000 127.0.0.1
  [[ $output == *"tcp 127.0.0.1"* ]]
  run ! docker exec mute-$$ getent hosts example.test
  run ! docker exec mute-$$ bash -c 'exec 3<>/dev/tcp/example.test/80'
}

@test "a worker that takes every port takes them from no other isolated worker" {
  start hog-$$ isolated
  start calm-$$ isolated
  for half in 0 1; do docker exec --detach hog-$$ sh -c "/opt/deno run -A --no-lock --no-config --quiet /opt/helper/port-hog.ts $half >/tmp/hog$half"; done
  has_all() { docker exec hog-$$ grep -l "bound all" /tmp/hog0 /tmp/hog1; }
  wait_for 90 has_all
  run ! heartbeat hog-$$
  for _ in 1 2 3; do heartbeat calm-$$; done
}

@test "a worker that holds all its connections to services delays no other isolated worker" {
  start greedy-$$ isolated
  start modest-$$ isolated
  docker exec --detach greedy-$$ /opt/deno eval "
    const held = [];
    while (true) {
      try { held.push(await Deno.connect({ hostname: '127.0.0.1', port: 8000 })); } catch { await new Promise((resolve) => setTimeout(resolve, 10)); }
    }"
  full() { [ "$(docker exec greedy-$$ grep -c ' 01 ' /proc/net/tcp)" -gt 200 ]; }
  wait_for 30 full
  for _ in 1 2 3; do timeout 10 docker exec modest-$$ bash -c \
    'exec 3<>/dev/tcp/127.0.0.1/8000; printf "GET /api/v2/heartbeat HTTP/1.0\r\n\r\n" >&3; head -1 <&3 | grep " 200 "'; done
}
