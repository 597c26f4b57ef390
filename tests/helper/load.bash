# Shared by the bats files.

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
# How often tests that are tagged `soak` repeat what fails only sometimes.
# shellcheck disable=SC2034
soak=${SOAK:-1}
# Container names are unique per engine, and other runs share it: names end in -$$.

# bats 1.13 keeps the pid of the process that ends a test after BATS_TEST_TIMEOUT in a
# local variable of a function that a failed test has already left. It then cannot kill
# that process and waits for it. The process is the first job of the test's shell.
bats_abort_timeout_countdown() { kill "${BATS_killer_pid:-%1}" 2>/dev/null || true; }

# Default for files without their own setup_file.
setup_file() { start_instance; }

# Creates a project directory; $1 is its name.
make_project() {
  mkdir -p "$HAL9000_PROJECT_ROOTS/$1"
  echo "$HAL9000_PROJECT_ROOTS/$1"
}

# Creates a project of another user; of the same user if not root, because only root may
# spawn for others.
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

# A field of a container, as a Go template.
inspect() { docker inspect --format "$2" "$1"; }

# A free port of the host.
free_port() {
  node -e 'require("net").createServer().listen(0, "127.0.0.1", function () { console.log(this.address().port); this.close(); })'
}

# Waits take this many times as long, because the machine may be busy.
patience=3

# Waits until a command succeeds: wait_for SECONDS COMMAND...
wait_for() {
  local deadline=$((SECONDS + $1 * patience)) began us nap
  shift
  until began=${EPOCHREALTIME/[.,]/}; "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { echo "timed out waiting for: $*" >&2; return 1; }
    # As long as the command took, up to 1 s: a test that waits is not to use up a CPU.
    us=$((${EPOCHREALTIME/[.,]/} - began))
    ((us <= 1000000)) || us=1000000
    printf -v nap '%d.%06d' $((us / 1000000)) $((us % 1000000))
    [ "$us" -gt 100000 ] || nap=0.1
    sleep "$nap"
  done
}

# HTTP with bash, which every image has: http CONTAINER METHOD PATH [BODY]; prints the
# body of the answer, returns 0 only for a 2xx.
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
