# The relay: workers get a placeholder, and the API gets the credential. The API is a stub
# in a container of its own, which only the parent reaches.

# shellcheck disable=SC2030,SC2031  # each test has its own environment

load ../helper/load
load ../helper/sessions
load ../helper/found

api=$HAL9000_PREFIX-relay-api
requests=$HAL9000_TEST_ROOT/relay-api/requests

setup_file() {
  start_instance
  mkdir -p "$HAL9000_TEST_ROOT/relay-api"
  : >"$requests"
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=api.anthropic.com" -addext "subjectAltName=DNS:api.anthropic.com" \
    -keyout "$HAL9000_TEST_ROOT/relay-api/tls.key" -out "$HAL9000_TEST_ROOT/relay-api/tls.crt" 2>/dev/null
  start_api "$api" "$stub_port"
  start_api "$api-tls" 443 --env TLS=/record/tls
  # Else the relay would reach the real one.
  docker exec "$parent" sh -c "echo '$(address_of "$api-tls") api.anthropic.com' >>/etc/hosts"
  [ "$(docker exec "$parent" deno eval "console.log((await (await import('node:dns/promises')).lookup('api.anthropic.com')).address)")" = "$(address_of "$api-tls")" ]
}

start_api() { # start_api NAME PORT OPTION...
  docker run --detach --no-healthcheck --name "$1" --userns host --entrypoint deno \
    --label "hal9000.instance=$HAL9000_PREFIX" --label hal9000.role=helper \
    --volume "$repo/tests/helper:/repo/tests/helper:ro" --volume "$repo/lib:/repo/lib:ro" \
    --volume "$HAL9000_TEST_ROOT/relay-api:/record" --env ADDRESS=0.0.0.0 "${@:3}" \
    "$HAL9000_IMAGE_REPO:parent" run -A --no-lock --no-config --quiet \
    /repo/tests/helper/messages-stub.ts "$2" /record/requests
  wait_for 10 docker exec "$1" bash -c "exec 3<>/dev/tcp/127.0.0.1/$2"
}

address_of() { inspect "$1" '{{.NetworkSettings.IPAddress}}'; }

teardown_file() { docker rm --force --volumes "$api" "$api-tls"; }

setup() {
  log=$HAL9000_HOME/logs/relay.jsonl
  export ANTHROPIC_API_KEY=$key
  ANTHROPIC_BASE_URL=http://$(address_of "$api"):$stub_port
  export ANTHROPIC_BASE_URL
}

# The API itself, which the session takes the stub for.
use_first_party() {
  unset ANTHROPIC_API_KEY ANTHROPIC_BASE_URL
  export NODE_EXTRA_CA_CERTS=$HAL9000_TEST_ROOT/relay-api/tls.crt
}

log_in() { # log_in TOKEN
  mkdir -p "$HAL9000_HOME/secrets/login"
  jq -n --arg token "$1" '{claudeAiOauth: {accessToken: $token, refreshToken: "planted-refresh", expiresAt: 4102444800000,
    scopes: ["user:inference", "user:profile"], subscriptionType: "max"}}' >"$HAL9000_HOME/secrets/login/.credentials.json"
}

teardown() {
  after_failure
  stop_workers
  "$claudy" logout --yes >/dev/null
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

@test "a login and a token stay outside, and the CLI takes the relay for the API" {
  use_first_party
  export WORKER_NETWORK=isolated
  log_in sk-ant-oat01-planted-login
  open "$(make_project logged-in)"
  screen_shows "$session" "Claude Max"
  typed "$session" "hello login" Enter
  wait_for_screen 20 "$session" "echo: hello login"
  for text in sk-ant-oat01-planted-login planted-refresh; do found_nowhere "$session" "$text"; done
  grep -qF '"authorization":"Bearer sk-ant-oat01-planted-login"' "$requests"
  grep -qF '"host":"api.anthropic.com"' "$requests"
  # Another token is used at once.
  log_in sk-ant-oat01-planted-second
  typed "$session" "hello second" Enter
  wait_for_screen 20 "$session" "echo: hello second"
  grep -qF '"authorization":"Bearer sk-ant-oat01-planted-second"' "$requests"
  "$claudy" stop "$session"
  "$claudy" login --token <<<"sk-ant-oat01-planted-token"
  open "$(make_project with-token)"
  typed "$session" "hello token" Enter
  wait_for_screen 20 "$session" "echo: hello token"
  found_nowhere "$session" sk-ant-oat01-planted-token
  grep -qF '"authorization":"Bearer sk-ant-oat01-planted-token"' "$requests"
  # Without a credential, the session says what to do, and then goes on.
  "$claudy" logout --yes
  typed "$session" "hello nobody" Enter
  wait_for_screen 20 "$session" "log in with claudy login"
  "$claudy" login --token <<<"sk-ant-oat01-planted-again"
  typed "$session" "hello again" Enter
  wait_for_screen 20 "$session" "echo: hello again"
  grep -qF '"authorization":"Bearer sk-ant-oat01-planted-again"' "$requests"
  run ! grep -qF sk-ant-hal9000 "$requests"
}

@test "a warm worker of the shared network uses the relay, too, and a worker without a session does not" {
  use_first_party
  "$claudy" login --key <<<"sk-ant-planted-shared"
  "$claudy" pool start --min-warm 2
  "$claudy" pool warm
  open "$(make_project sharing)"
  [ "$(jq -r .start <<<"$opened")" = warm ]
  typed "$session" "hello shared" Enter
  wait_for_screen 20 "$session" "echo: hello shared"
  found_nowhere "$session" sk-ant-planted-shared
  grep -qF '"x-api-key":"sk-ant-planted-shared"' "$requests"
  docker exec "$session" grep -qF "127.0.0.1	api.anthropic.com" /etc/hosts
  touch "$(make_project programs)/mine"
  "$scripts/spawn-worker.ts" --detach --warm-only --name "programs-$$" "$(make_project programs)"
  has_own_hosts() { docker exec "programs-$$" sh -c 'test -e /workspace/mine && ! grep -F api.anthropic.com /etc/hosts'; }
  has_own_hosts
  docker restart --time 1 "programs-$$"
  wait_for 10 has_own_hosts
  "$claudy" pool stop
  # The answer of claudy run.
  run -0 "$claudy" run --project "$(make_project asking)" "hello run"
  [[ $output == *"echo: hello run"* ]]
}

@test "another session's placeholder is refused and logged" {
  export WORKER_NETWORK=isolated
  open "$(make_project victim)"
  placeholder=$(docker exec "$session" cat /home/claude/.claude/.anthropic_key)
  open "$(make_project thief)"
  before=$(wc -l <"$requests")
  asks_with() { # asks_with PLACEHOLDER: the status
    docker exec "$session" curl --silent --noproxy '*' --cacert /home/claude/.claude/.caller.NODE_EXTRA_CA_CERTS --output /dev/null \
      --write-out '%{http_code}' --header "x-api-key: $1" --data '{"messages":[]}' https://api.anthropic.com/v1/messages
  }
  [ "$(asks_with "$placeholder")" = 401 ]
  [ "$(asks_with "$(docker exec "$session" cat /home/claude/.claude/.anthropic_key)")" = 200 ]
  [ "$(wc -l <"$requests")" = $((before + 1)) ]
  logged() { jq -es --arg session "$session" 'any(.session == $session and .status == 401 and (.reason | contains("not the placeholder")))' "$log"; }
  wait_for 2 logged
}

@test "when the relay is killed in the middle of an answer, the CLI asks again" {
  export WORKER_NETWORK=isolated
  open "$(make_project interrupted)"
  rm -f "$requests.go"
  typed "$session" "HOLD go please" Enter
  held() { grep -qF "HOLD go please" "$requests"; }
  wait_for 10 held
  docker exec "$parent" pkill -9 -f /scripts/anthropic-relay
  touch "$requests.go"
  wait_for_screen 30 "$session" "echo: HOLD go please"
  [ "$(grep -cF '"text":"HOLD go please"' "$requests")" -ge 2 ]
}

@test "the relay has its own user, without capabilities and access to the home" {
  wait_for 5 docker exec "$parent" pgrep --euid 65433 -f anthropic-relay
  pid=$(docker exec "$parent" pgrep -f anthropic-relay)
  docker exec "$parent" cat "/proc/$pid/status" >"$BATS_TEST_TMPDIR/status"
  grep -Pq '^Uid:\t65433\t65433\t65433\t65433$' "$BATS_TEST_TMPDIR/status"
  grep -Pq '^Groups:\t *$' "$BATS_TEST_TMPDIR/status"
  grep -Pq '^CapPrm:\t0+$' "$BATS_TEST_TMPDIR/status"
  run -2 docker exec --user 65433:65433 "$parent" ls /root/.hal9000
  [[ $output == *"Permission denied"* ]]
  [ "$(stat -c %a "$HAL9000_HOME/secrets/relay/authorities.json")" = 600 ]
}

# CROWD=20 takes minutes on a small machine.
@test "several sessions at once, each with its placeholder" {
  export WORKER_NETWORK=isolated
  local count=${CROWD:-4} sessions=() typing=() n
  for ((n = 1; n <= count; n++)); do
    open "$(make_project "crowd$n")"
    sessions+=("$session")
  done
  for session in "${sessions[@]}"; do
    docker exec "$session" tmux -L claude send-keys -t claude "crowd of $session" Enter &
    typing+=($!)
  done
  wait "${typing[@]}" # bats has a job of its own
  for session in "${sessions[@]}"; do
    docker exec "$session" tmux -L claude send-keys -t claude Enter
    wait_for_screen 60 "$session" "echo: crowd of $session"
    found_nowhere "$session" "$key"
  done
  run ! grep -qF sk-ant-hal9000 "$requests"
  [ "$(for session in "${sessions[@]}"; do docker exec "$session" cat /home/claude/.claude/.anthropic_key; echo; done | sort -u | grep -c .)" = "$count" ]
  [ "$(grep -F '"text":"crowd of ' "$requests" | grep -cF "\"x-api-key\":\"$key\"")" -ge "$count" ]
}
