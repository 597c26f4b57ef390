# What the bats files share.

bats_require_minimum_version 1.5.0

# shellcheck disable=SC2034  # names for the tests
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scripts=$repo/scripts
# shellcheck source=tests/helper/instance.bash
source "$repo/tests/helper/instance.bash"
# shellcheck disable=SC2034
parent=$HAL9000_PREFIX-parent
# shellcheck disable=SC2034
net=$HAL9000_PREFIX-net
# shellcheck disable=SC2034
stub_port=18787
# How often tests that are tagged with it do what may go wrong once in a while.
# shellcheck disable=SC2034
soak=${SOAK:-1}
# A worker's name is the engine's, and other tests run on it: names end in -$$.

# bats 1.13 keeps the pid of the process that ends a test after BATS_TEST_TIMEOUT
# in a variable local to the function that a failed test has left already. It then
# cannot kill that process, and waits for it. It is the first job of the test's shell.
bats_abort_timeout_countdown() { kill "${BATS_killer_pid:-%1}" 2>/dev/null || true; }

# What all tests of a file have, unless it has a setup_file of its own.
setup_file() { start_instance; }

# A project directory of its own; $1 is its name.
make_project() {
  mkdir -p "$HAL9000_PROJECT_ROOTS/$1"
  echo "$HAL9000_PROJECT_ROOTS/$1"
}

# One of another user's; of ours where we are not root, who alone may spawn for others.
make_others_project() {
  make_project "$1"
  [ "$(id -u)" != 0 ] || chown 1234:2345 "$HAL9000_PROJECT_ROOTS/$1"
}
owner_of() { stat -c %u:%g "$1"; }

spawn() { "$scripts/spawn-worker.ts" --detach "$@"; }

stop_workers() {
  local labels=(--filter "label=hal9000.instance=$HAL9000_PREFIX" --filter label=hal9000.role=worker)
  [ -z "$(docker ps --all --quiet "${labels[@]}")" ] || "$scripts/coordinator.ts" stop-all --yes >/dev/null
}

# A field of a container, as a Go template tells it.
inspect() { docker inspect --format "$2" "$1"; }

# A port of the host that nobody has.
free_port() {
  node -e 'require("net").createServer().listen(0, "127.0.0.1", function () { console.log(this.address().port); this.close(); })'
}

# A busy machine has this many times as long as a test's waits say.
patience=3

# Waits until a command succeeds: wait_for SECONDS COMMAND...
wait_for() {
  local deadline=$((SECONDS + $1 * patience))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { echo "timed out waiting for: $*" >&2; return 1; }
    sleep 0.1
  done
}

# HTTP with what every image has: http CONTAINER METHOD PATH [BODY]; the reply's
# body on stdout, 0 only for a 2xx.
http() {
  docker exec -i "$1" bash -s -- "$2" "$3" "${4:-}" <<'SH'
exec 3<>/dev/tcp/127.0.0.1/8000 || exit
printf '%s %s HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
  "$1" "$2" "${#3}" "$3" >&3
read -r _ status _ <&3
while read -r line && [ "${line%$'\r'}" ]; do :; done <&3
cat <&3
[ "${status:0:1}" = 2 ]
SH
}

heartbeat() { http "$1" GET /api/v2/heartbeat; }
