# The egress policy and its proxy. The public address is in a network namespace of the test,
# and names are in the parent's hosts file.

load ../helper/load

claudy=$scripts/claudy.ts
deno=$(echo "$repo"/node_modules/@deno/*/deno)
public=93.184.216.34

setup_file() { start_instance; }

setup() {
  need_root
  socket=$HAL9000_HOME/run/ways/services/3128.sock
  log=$HAL9000_HOME/logs/egress.jsonl
  project=$(make_project reaching)
  as_root unshare --net sleep infinity 3>&- &
  internet=$!
  connect_parent
}

teardown() {
  after_failure
  as_root kill "$internet" ${server:-} 2>/dev/null || true
  stop_workers
  rm -rf "$HAL9000_HOME/config/egress/"*/*.json "$HAL9000_HOME/config/egress/instance.json"
}

outside() { as_root nsenter --net --target "$internet" "$@"; }

# The parent's way to a network namespace with the public address.
connect_parent() {
  local pid
  pid=$(inspect "$parent" '{{.State.Pid}}')
  # The one of the test before may still be there.
  as_root nsenter --net --target "$pid" ip link delete outside 2>/dev/null || true
  as_root nsenter --net --target "$pid" ip link add outside type veth peer name inside netns "$internet"
  as_root nsenter --net --target "$pid" sh -c 'ip address add 93.184.216.1/24 dev outside && ip link set outside up'
  outside sh -c "ip address add $public/24 dev inside && ip link set inside up && ip link set lo up"
  docker exec "$parent" sh -c "printf '%s\n' '$public allowed.example evil.example' '10.9.9.9 inside.example' >>/etc/hosts"
}

serve() { # serve PORT: answers with "from PORT" at the public address
  outside "$deno" eval "Deno.serve({ port: $1, hostname: '$public', onListen() {} }, () => new Response('from $1'))" 3>&- &
  server=$!
  wait_for 10 outside bash -c "</dev/tcp/$public/$1"
}

client() { # client WORKER PLACE: a request from that worker
  "$deno" run --allow-all --no-lock --quiet "$repo/tests/helper/egress-client.ts" \
    "$socket" "$(inspect "$1" '{{.Id}}')" "$2"
}

status_is() { [[ "$(client "$2" "$3")" == "HTTP/1.1 $1 "* ]]; }

@test "the egress proxy has its own user, without capabilities and access to the home" {
  wait_for 5 docker exec "$parent" pgrep --euid 65432 -f egress-proxy
  pid=$(docker exec "$parent" pgrep -f egress-proxy)
  docker exec "$parent" cat "/proc/$pid/status" >"$BATS_TEST_TMPDIR/status"
  grep -Pq '^Uid:\t65432\t65432\t65432\t65432$' "$BATS_TEST_TMPDIR/status"
  grep -Pq '^Gid:\t65432\t65432\t65432\t65432$' "$BATS_TEST_TMPDIR/status"
  grep -Pq '^Groups:\t *$' "$BATS_TEST_TMPDIR/status"
  grep -Pq '^CapPrm:\t0+$' "$BATS_TEST_TMPDIR/status"
  [ "$(docker exec "$parent" cat "/proc/$pid/oom_score_adj")" = 900 ]
  [ "$(stat -c '%a %u' "$socket")" = "660 0" ]
  for path in /run/docker.sock /root/.hal9000/run "/host$HAL9000_PROJECT_ROOTS"; do
    run -2 docker exec --user 65432:65432 "$parent" ls "$path"
    [[ $output == *"Permission denied"* ]]
  done
}

@test "a worker reaches allowed hosts alone, and the log shows each decision" {
  spawn -n reaching-$$ "$project"
  serve 80
  run -0 client reaching-$$ http://allowed.example/
  [[ $output == "HTTP/1.1 403 "*"claudy egress allow allowed.example"* ]]
  run -0 "$claudy" egress allow allowed.example inside.example
  wait_for 1 status_is 200 reaching-$$ http://allowed.example/
  run -0 client reaching-$$ allowed.example:80
  [[ $output == *"200 Connection established"*"from 80"* ]]
  run -0 client reaching-$$ evil.example:80
  [[ $output == "HTTP/1.1 403 "* ]]
  run -0 client reaching-$$ inside.example:80
  [[ $output == *"it resolves to 10.9.9.9, a private address"* ]]
  for place in 169.254.169.254:80 127.0.0.1:8000 "[::1]:8000" "$(inspect "$parent" '{{.NetworkSettings.IPAddress}}'):80"; do
    run -0 client reaching-$$ "$place"
    [[ $output == "HTTP/1.1 403 "* ]]
  done
  logged() { [ "$(jq -r 'select(.host == "evil.example" and .worker == "reaching-'$$'") | .verdict' "$log")" = refused ]; }
  wait_for 2 logged
  jq -es 'any(.host == "allowed.example" and .verdict == "allowed" and .bytesDown > 0 and .address == "'$public'")' "$log"
  [ "$(stat -c '%a %u:%g' "$log")" = "600 $(owner_of "$HAL9000_HOME")" ]
  run -0 "$claudy" egress log
  [[ $output == *"reaching-$$"*"refused"*"evil.example:80"*"preset balanced"* ]]
}

@test "rules of a project and changes apply within a second, also to open tunnels" {
  spawn -n reaching-$$ "$project"
  spawn -n other-$$ "$(make_project other)"
  serve 8443
  "$claudy" egress allow --project "$project" allowed.example:8443
  wait_for 1 status_is 200 reaching-$$ allowed.example:8443
  status_is 403 other-$$ allowed.example:8443
  "$claudy" egress deny --project "$project" allowed.example
  wait_for 1 status_is 403 reaching-$$ allowed.example:8443
  "$claudy" egress deny --remove --project "$project" allowed.example
  wait_for 1 status_is 200 reaching-$$ allowed.example:8443
  "$claudy" egress preset closed
  "$claudy" egress preset open --project "$project"
  "$claudy" egress allow --remove --project "$project" allowed.example:8443
  status_is 200 reaching-$$ allowed.example:8443
  status_is 403 other-$$ allowed.example:8443
  # Nothing of it is in the project.
  [ -z "$(ls -A "$project")" ]
}

@test "rules that cannot be read refuse everything" {
  spawn -n reaching-$$ "$project"
  serve 80
  "$claudy" egress allow allowed.example
  wait_for 1 status_is 200 reaching-$$ http://allowed.example/
  echo broken >"$HAL9000_HOME/config/egress/instance.json"
  wait_for 1 status_is 403 reaching-$$ http://allowed.example/
  run -1 "$claudy" egress show
  [[ $output == *"Cannot read $HAL9000_HOME/config/egress/instance.json"* ]]
  rm "$HAL9000_HOME/config/egress/instance.json"
  "$claudy" egress allow allowed.example
  wait_for 1 status_is 200 reaching-$$ http://allowed.example/
}

@test "check asks the proxy, which connects to nothing" {
  "$claudy" egress allow allowed.example
  checked() { "$claudy" egress check https://allowed.example/; }
  wait_for 1 checked
  [[ $(checked) == 'Egress to allowed.example:443 is allowed by the rule "allow allowed.example" of the instance.' ]]
  run -6 "$claudy" egress check http://169.254.169.254/latest/meta-data
  [[ $output == *"a link-local address, which no rule can allow"* ]]
  run -6 "$claudy" egress check --json evil.example:22
  [ "$(jq -r '"\(.host) \(.port) \(.allowed) \(.rule)"' <<<"$output")" = "evil.example 22 false preset balanced" ]
  run -2 "$claudy" egress check 'http://user:x@/'
}

@test "a killed proxy lets nothing out, and is back within 5 seconds" {
  spawn -n reaching-$$ "$project"
  serve 80
  "$claudy" egress allow allowed.example
  wait_for 1 status_is 200 reaching-$$ http://allowed.example/
  docker exec "$parent" pkill -9 -f egress-proxy
  run -1 client reaching-$$ http://allowed.example/
  wait_for 5 status_is 200 reaching-$$ http://allowed.example/
  # Nor does one without a parent that gives it the policy.
  docker restart --time 5 "$parent"
  connect_parent
  wait_for 10 status_is 403 reaching-$$ http://evil.example/
}
