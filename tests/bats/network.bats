# What workers reach outside of their namespace. The host is never addressed: where a test
# connects, a bridge in a namespace of its own stands in for it.

load ../helper/load

claudy=$scripts/claudy.ts
net=$HAL9000_PREFIX-net
DENO=$(echo "$repo"/node_modules/@deno/*/deno)
export DENO

teardown() {
  after_failure
  stop_workers
  [ -z "${host:-}" ] || as_root kill "$host" || true
  docker rm --force "probe-$$" >/dev/null 2>&1 || true
}

filter() { docker exec --user 0 "$net" nft list table inet hal9000; }
finding() { "$claudy" doctor --json | jq -r '.[] | select(.name == "host") | .state + " " + .says'; }

# Starts a namespace with a bridge that has these addresses, and an HTTP server on all of
# them.
start_host() { # start_host ADDRESS/BITS...
  as_root env DENO="$DENO" unshare --net -- sh -c '
    ip link set lo up; ip link add bridge0 type bridge; ip link set bridge0 up
    for address; do ip address add "$address" dev bridge0 $(case $address in *:*) echo nodad ;; esac); done
    echo $$ >"$0/host"
    exec "$DENO" eval "Deno.serve({ port: 80, hostname: \"::\" }, () => new Response(\"host\"))"' \
    "$BATS_TEST_TMPDIR" "$@" >/dev/null 2>&1 3>&- &
  wait_for 20 test -s "$BATS_TEST_TMPDIR/host"
  host=$(cat "$BATS_TEST_TMPDIR/host")
  in_host=(as_root nsenter --target "$host" --net)
  served() { "${in_host[@]}" ss -Hltn "sport = 80" | grep -q .; }
  wait_for 20 served
}

# Starts a container without a network, and connects it to the bridge of start_host.
start_probe() { # start_probe
  docker run --detach --name "probe-$$" --network none --cap-drop ALL --cap-add NET_ADMIN --cap-add SETUID \
    --cap-add SETGID --sysctl net.ipv6.conf.all.disable_ipv6=0 --entrypoint sleep --mount "type=bind,source=$repo/tests/helper,target=/tests,readonly" \
    --tmpfs /tmp "$HAL9000_IMAGE_REPO:parent" 600 >/dev/null
  probe=$(docker inspect --format '{{.State.Pid}}' "probe-$$")
  in_probe=(as_root nsenter --target "$probe" --net)
  "${in_host[@]}" ip link add port0 type veth peer name eth0 netns "$probe"
  "${in_host[@]}" ip link set port0 master bridge0 up
  "${in_probe[@]}" ip address add 10.99.0.2/24 dev eth0
  "${in_probe[@]}" ip link set eth0 up
  "${in_probe[@]}" ip route add default via 10.99.0.1
  "${in_probe[@]}" ip address add fd99::2/64 dev eth0 nodad
  "${in_probe[@]}" ip route add default via fd99::1
}
reach() { # reach ADDRESS...
  docker exec --user 1000:1000 --env DENO_DIR=/tmp/deno-1000 "probe-$$" deno run --allow-all --no-lock /tests/reach.ts 80 "$@"
}

# Prints the addresses that a TCP connection can be opened to.
reach_ipv6() { # reach_ipv6 ADDRESS...
  docker exec --user 1000:1000 --env DENO_DIR=/tmp/deno-1000 "probe-$$" deno eval --no-lock '
    for (const hostname of Deno.args) {
      const late = new Promise((_, reject) => setTimeout(reject, 2000));
      await Promise.race([Deno.connect({ hostname, port: 80 }), late]).then(() => console.log(hostname), () => {});
    }
    Deno.exit()' "$@"
}

@test "a worker reaches neither the bridge nor link-local and metadata addresses" {
  need_root
  start_host 10.99.0.1/24 169.254.169.254/32 203.0.113.1/32 fd99::1/64 fd00:ec2::254/128 fe80::1/64 2001:db8::1/128
  start_probe
  run -0 reach 10.99.0.1 169.254.169.254
  [[ $output == *"tcp 10.99.0.1"*"tcp bound 10.99.0.1"*"udp 10.99.0.1"*"tcp 169.254.169.254"*"tcp bound 169.254.169.254"* ]]
  run -0 reach_ipv6 fd99::1 fd00:ec2::254 fe80::1%eth0 2001:db8::1
  [ "$(xargs <<<"$output")" = "fd99::1 fd00:ec2::254 fe80::1%eth0 2001:db8::1" ]
  docker exec --detach --user 0:65430 "probe-$$" /scripts/net hold 8000
  held() { docker exec --user 65430 "probe-$$" test -S /tmp/ports.sock; }
  wait_for 20 held
  run -0 reach 10.99.0.1 10.99.0.255 169.254.169.254 255.255.255.255 224.0.0.251 168.63.129.16
  [ "$output" = "" ]
  # Neighbours are still found: an address behind the bridge is reached.
  "${in_probe[@]}" ip neighbour flush dev eth0
  run -0 reach_ipv6 fd99::1 fd00:ec2::254 fe80::1%eth0 2001:db8::1
  [ "$output" = 2001:db8::1 ]
  # Other addresses are routed through the bridge as before.
  run -0 reach 203.0.113.1
  [[ $output == "tcp 203.0.113.1"* ]]
  # Connections from the bridge are answered, as those to published ports.
  docker exec --detach --user 1000:1000 --env DENO_DIR=/tmp/deno-1000 "probe-$$" deno eval --no-lock \
    'Deno.serve({ port: 3000, hostname: "0.0.0.0" }, () => new Response("published"))'
  fetched() { [ "$("${in_host[@]}" curl --silent --max-time 2 http://10.99.0.2:3000)" = published ]; }
  wait_for 10 fetched
  # The holder has given up its rights.
  holder=$(docker top "probe-$$" -eo pid,args | awk '/net hold 8000/ { print $1 }')
  [ "$(awk '/^(Uid|CapEff|CapPrm):/ { print $2 }' "/proc/$holder/status" | xargs)" = "65430 0000000000000000 0000000000000000" ]
}

@test "the host is out of reach again after the net container was restarted" {
  [[ $(filter) == *"169.254.0.0/16"* ]]
  before=$(filter)
  kill_container "$net"
  restarted() { filter && [ "$(finding)" = "ok out of reach of workers" ]; }
  wait_for 60 restarted
  [ "$(filter)" = "$before" ]
  docker exec --user 0 "$net" nft delete table inet hal9000
  [[ $(finding) == "warn workers can reach it: it was changed"* ]]
  docker restart --time 0 "$net" >/dev/null
  wait_for 60 restarted
}

@test "--allow-host leaves the host within reach, and a start without it ends that" {
  allows() { "$claudy" daemon status --json | jq -r '"\(.allowsHost) \(.hostFault)"'; }
  [ "$(allows)" = "false null" ]
  spawn -n busy-$$ "$(make_project busy)"
  run -5 "$claudy" daemon start --allow-host
  [[ $output == *"Cannot allow access to the host while workers run: busy-$$"* ]]
  stop_workers
  "$claudy" daemon start --allow-host
  [ "$(allows)" = "true the network was started with --allow-host" ]
  [ "$(inspect "$net" '{{.Config.User}} {{.HostConfig.CapAdd}}')" = "65430:65430 []" ]
  [[ $(finding) == "warn workers can reach it: the network was started with --allow-host" ]]
  ALLOW_HOST=true "$claudy" daemon start
  [[ $(ALLOW_HOST=true "$claudy" doctor --json) == *"within reach of workers: ALLOW_HOST=true"* ]]
  "$claudy" daemon start
  [ "$(allows)" = "false null" ]
}

@test "a worker's own server is reached through --publish" {
  "$claudy" daemon stop
  port=$(free_port)
  "$claudy" daemon start --publish "$port:3999"
  spawn -n server-$$ --mount "$DENO:/opt/deno:ro" "$(make_project served)" -- \
    /opt/deno eval 'Deno.serve({ port: 3999, hostname: "0.0.0.0" }, () => new Response("open the doors"))'
  fetched() { [ "$(curl --silent --max-time 5 "http://127.0.0.1:$port")" = "open the doors" ]; }
  wait_for 20 fetched
  stop_workers
  "$claudy" daemon stop
  "$claudy" daemon start
}
