# Credentials and secrets of sessions: keys, tokens and logins, and that only the API
# receives them.

# shellcheck disable=SC2030,SC2031  # each test has its own key

load ../helper/load
load ../helper/sessions

setup() {
  use_stub
  unset ANTHROPIC_API_KEY
  project=$(make_project "signed$BATS_TEST_NUMBER")
}

teardown() {
  after_failure
  stop_workers
  "$claudy" logout --yes
  for name in PLANTED PLAIN; do "$claudy" secret rm --yes $name 2>/dev/null || true; done
}

# Prints a header of the last request to the API.
header() { tail -1 "$HAL9000_TEST_ROOT/session-stub/requests" | jq -r ".headers[\"$1\"]"; }
asked() { # asked SESSION TEXT: sends TEXT and waits for the answer
  typed "$1" "$2" Enter
  wait_for_screen 20 "$1" "echo: $2"
}

@test "login --key reads stdin and overrides the caller's key; logout removes the key" {
  run -0 "$claudy" login --key <<<"sk-ant-planted-kept-key"
  [ "$(stat -c %a "$HAL9000_HOME/secrets/anthropic_key")" = 600 ]
  export ANTHROPIC_API_KEY=$key
  open "$project"
  asked "$session" "with the kept one"
  [ "$(header x-api-key)" = sk-ant-planted-kept-key ]
  "$claudy" stop "$session"
  run -6 "$claudy" logout
  "$claudy" logout --yes
  [ ! -e "$HAL9000_HOME/secrets/anthropic_key" ]
  [ ! -e "$HAL9000_HOME/claude/$session/.anthropic_key" ]
  open "$project"
  asked "$session" "with the other one"
  [ "$(header x-api-key)" = "$key" ]
}

@test "refuses a key as an argument and does not print it" {
  for words in "--api-key sk-ant-planted-argument" "login --api-key=sk-ant-planted-argument"; do
    # shellcheck disable=SC2086  # words
    run -2 "$claudy" $words
    [[ $output == *"--api-key is refused"* ]]
    [[ $output != *planted-argument* ]]
  done
  run -2 "$claudy" login --key <<<"sk-ant two words"
  [[ $output != *"two words"* ]]
  run -2 "$claudy" login --key --token <<<x
  run -2 "$claudy" login </dev/null
}

@test "uses the token if there is no key" {
  "$claudy" login --token <<<"sk-ant-oat01-planted-token"
  open "$project"
  asked "$session" "with a token"
  [ "$(header authorization)" = "Bearer sk-ant-oat01-planted-token" ]
  [ "$(header x-api-key)" = null ]
  [ "$("$claudy" run -C "$project" "once" </dev/null)" = "echo: once" ]
  [ "$(header authorization)" = "Bearer sk-ant-oat01-planted-token" ]
}

@test "a gateway's token is sent to it, past the caller's proxy" {
  export ANTHROPIC_AUTH_TOKEN=planted-gateway HTTP_PROXY=http://proxy.invalid:1
  [ "$("$claudy" run -C "$project" "once" </dev/null)" = "echo: once" ]
  [ "$(header authorization)" = "Bearer planted-gateway" ]
  [ "$(header x-api-key)" = null ]
}

@test "secrets are files, and with --env also variables of Claude's child processes" {
  "$claudy" secret set PLANTED --env <<<"planted-secret-value"
  "$claudy" secret set PLAIN <<<"plain-secret-value"
  [ "$("$claudy" secret list --json | jq -c 'map([.name, .variable])')" = '[["PLAIN",false],["PLANTED",true]]' ]
  run -2 "$claudy" secret set PATH --env <<<x
  run -2 "$claudy" secret set ../x <<<x
  export ANTHROPIC_API_KEY=$key
  opened=$("$claudy" --detach --json "$project" -- --permission-mode bypassPermissions)
  session=$(jq -r .session <<<"$opened")
  wait_for_screen 15 "$session" '❯'
  # shellcheck disable=SC2016  # for the worker's shell
  typed "$session" 'TOOL Bash {"command":"echo $PLANTED $(cat ~/.claude/.secret.PLAIN) $(env | grep -c PLAIN) >told","description":"tell"}' Enter
  told() { [ "$(xargs <"$project/told")" = "planted-secret-value plain-secret-value 0" ]; }
  wait_for 10 told
  "$claudy" stop "$session"
  "$claudy" secret rm --yes PLAIN
  run -4 "$claudy" secret rm --yes PLAIN
  open "$project"
  run -1 docker exec "$session" test -e /home/claude/.claude/.secret.PLAIN
}

@test "saved keys and secrets are visible only to the API" {
  "$claudy" login --key <<<"sk-ant-planted-everywhere"
  "$claudy" secret set PLANTED --env <<<"planted-secret-everywhere"
  open "$project"
  asked "$session" "with a key"
  [ "$(header x-api-key)" = sk-ant-planted-everywhere ]
  "$claudy" run -C "$project" "once more" </dev/null
  {
    docker ps --all --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" | xargs docker inspect
    docker images --quiet "$HAL9000_IMAGE_REPO" | sort -u | xargs docker inspect
    docker logs "$session" 2>&1
    docker logs "$parent" 2>&1
    ps axww -o args
    "$claudy" sessions --json
    "$claudy" doctor --json || true
    "$claudy" daemon status --json
    "$claudy" config show --json
    "$claudy" secret list
    "$scripts/coordinator.ts" status --json
    find "$HAL9000_HOME" -name '*.json' -not -path "$HAL9000_HOME/claude/*" -exec cat {} +
    cat "$HAL9000_HOME"/logs/*.log "$HAL9000_HOME"/logs/parent/*.log || true
    docker exec "$session" sh -c 'cat /proc/$(pgrep -o tmux)/environ'
    git -C "$repo" grep -I -n planted-everywhere -- ':!tests' || true
  } >"$BATS_TEST_TMPDIR/all" 2>&1
  run ! grep -c -F -e sk-ant-planted-everywhere -e planted-secret-everywhere "$BATS_TEST_TMPDIR/all"
}

# Creates a certificate for platform.claude.com, signed by a CA that the parent trusts.
make_certificate() {
  local directory=$1
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=HAL-9000 test CA" \
    -keyout "$directory/ca.key" -out "$directory/ca.pem" 2>/dev/null
  openssl req -newkey rsa:2048 -nodes -subj "/CN=platform.claude.com" \
    -keyout "$directory/key.pem" -out "$directory/request.pem" 2>/dev/null
  openssl x509 -req -days 2 -in "$directory/request.pem" -CA "$directory/ca.pem" -CAkey "$directory/ca.key" \
    -CAcreateserial -extfile <(echo "subjectAltName=DNS:platform.claude.com") -out "$directory/cert.pem" 2>/dev/null
}

# bats test_tags=soak
@test "sessions share one login, and only the parent uses each refresh token, once" {
  local life=12 oauth=$HAL9000_TEST_ROOT/oauth
  mkdir -p "$oauth"
  make_certificate "$oauth"
  docker exec -i "$parent" sh -c 'cat >>/etc/ssl/certs/ca-certificates.crt' <"$oauth/ca.pem"
  docker restart "$parent" >/dev/null
  wait_for 15 heartbeat "$parent"
  # Through the hosts files of the parent and of the workers' namespace, no process reaches
  # the real endpoints.
  for hosts in "$(inspect "$parent" '{{.HostsPath}}')" "$(inspect "$net" '{{.HostsPath}}')"; do
    printf "127.0.0.1 platform.claude.com\n127.0.0.2 api.anthropic.com\n" | as_root tee -a "$hosts" >/dev/null
  done
  docker run --detach --name "$stub-token" --network "container:$parent" --entrypoint deno \
    --label "hal9000.instance=$HAL9000_PREFIX" --label hal9000.role=helper \
    --volume "$repo/tests/helper:/helper:ro" --volume "$oauth:/oauth" "$HAL9000_IMAGE_REPO:parent" \
    run -A --no-lock --no-config --quiet /helper/token-stub.ts /oauth/cert.pem /oauth/key.pem /oauth/record "$life"
  wait_for 10 docker exec "$stub-token" bash -c "exec 3<>/dev/tcp/127.0.0.1/443"
  mkdir -p "$HAL9000_HOME/secrets/login"
  jq -nc --argjson now "$(date +%s)" --argjson life "$life" '{claudeAiOauth: {accessToken: "sk-ant-oat01-access-0",
    refreshToken: "refresh-0", expiresAt: (($now + $life) * 1000), scopes: ["user:inference", "user:profile"],
    subscriptionType: "max"}}' >"$HAL9000_HOME/secrets/login/.credentials.json"
  refreshes() { jq -s 'map(select(.good)) | length' "$oauth/record"; }
  refreshed() { [ "$(refreshes)" -ge "$1" ]; }
  wait_for 10 refreshed 1

  sessions=()
  for i in $(seq $((2 + soak))); do
    open --name "login-$i-$$" "$project"
    sessions+=("$session")
  done
  for round in $(seq "$soak"); do
    next=$(($(refreshes) + 1))
    wait_for $((life * 3)) refreshed "$next"
    for session in "${sessions[@]}"; do
      asked "$session" "round $round"
      [[ $(header authorization) == "Bearer sk-ant-oat01-access-"* ]]
      [ "$(header authorization | grep -oE '[0-9]+$')" -ge "$next" ]
    done
  done
  # Each token was used once and none refused; the only other connection is the test's own.
  [ "$(jq -s '[.[] | select(.given) | .given] | length == (unique | length)' "$oauth/record")" = true ]
  [ "$(jq -s '[.[] | select(.given and (.good | not))] | length' "$oauth/record")" = 0 ]
  [ "$(jq -s '[.[] | select(.given | not)] | length' "$oauth/record")" -le 1 ]
  run ! grep -rlE 'refresh-[0-9]' "$HAL9000_HOME/claude" "$HAL9000_HOME/run" "$HAL9000_HOME/logs"
  for session in "${sessions[@]}"; do
    run ! docker exec "$session" sh -c 'grep -rlE "refresh-[0-9]" /home/claude /run/hal9000 /tmp 2>/dev/null'
    run ! docker exec "$session" touch /run/hal9000/credentials/mine
  done
  docker exec "$parent" sh -c 'sed "/ platform.claude.com$/d; / api.anthropic.com$/d" /etc/hosts >/tmp/hosts; cat /tmp/hosts >/etc/hosts'
  # An expired login is reported and removed from the workers.
  "$claudy" daemon status >/dev/null
  docker rm --force --volumes "$stub-token"
  "$claudy" logout --yes
  gone() { [ ! -e "$HAL9000_HOME/run/credentials/.credentials.json" ]; }
  wait_for 5 gone
}
