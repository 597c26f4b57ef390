# The instance of a test file: created before the first test, recreated after a failed
# one, removed after the last.

start_instance() {
  [ "${DASHBOARD:-}" ] || without_dashboard
  "$repo/scripts/claudy.ts" daemon start
}

# The dashboard takes an eighth of the CPU time of a start. Files that test it set DASHBOARD.
without_dashboard() {
  mkdir -p "$HAL9000_HOME/run"
  touch "$HAL9000_HOME/run/no-dashboard"
  # Marks it as a home.
  [ -e "$HAL9000_HOME/run/instance" ] || echo "$HAL9000_PREFIX" >"$HAL9000_HOME/run/instance"
}

remove_instance() { # remove_instance PREFIX
  local label=label=hal9000.instance=$1 left
  # A parent that was started by hand has no label of the instance. Until the parent is
  # gone, it may create more containers.
  for _ in {1..20}; do
    left=$({ docker ps --all --quiet --filter "$label"; docker ps --all --quiet --filter "name=^/$1-parent\$"; } | sort -u)
    [ "$left" ] || break
    # shellcheck disable=SC2086  # several
    docker rm --force --volumes $left >/dev/null || sleep 0.2
  done
  docker volume ls --quiet --filter "$label" | xargs -r docker volume rm >/dev/null
}

# Runs a command as root, with sudo if necessary.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Skips a test if root is not available.
need_root() { as_root true 2>/dev/null || skip "needs root, or sudo without a password"; }

# Kills a container's first process, so that the engine restarts the container. While it
# is being restarted its pid is 0, and kill 0 would end the whole test run.
kill_container() { # kill_container NAME
  local pid
  pid=$(docker inspect --format '{{.State.Pid}}' "$1")
  [ "$pid" -gt 0 ] && as_root kill -9 "$pid"
}

# Mount points below a directory, the deepest first.
mounts_below() {
  awk -v root="$1/" 'index($5, root) == 1 { print $5 }' /proc/self/mountinfo | sort -r
}

# Call it first in each teardown. After a failed test it kills the test's processes,
# unmounts its mounts and recreates the instance with setup_file.
after_failure() {
  [ -z "${BATS_TEST_COMPLETED:-}" ] || return 0
  show_screens
  end_processes
  cd / # the test's directory is removed
  local mounted
  while read -r mounted; do as_root umount "$mounted" || true; done < <(mounts_below "$HAL9000_TEST_ROOT")
  remove_instance "$HAL9000_PREFIX"
  as_root rm -rf "$HAL9000_HOME" "$HAL9000_PROJECT_ROOTS"
  mkdir "$HAL9000_PROJECT_ROOTS"
  setup_file
} >&2 3>&-

# Shows the terminals of the instance's sessions.
show_screens() {
  local worker screen
  for worker in $(docker ps --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX" --filter label=hal9000.role=worker); do
    screen=$(timeout 10 docker exec "$worker" tmux -L claude capture-pane -p -t claude 2>/dev/null | grep . | tail -n 15) || continue
    docker inspect --format 'screen of {{.Name}}:' "$worker"
    echo "$screen"
  done
}

# Kills the test's processes and the MCP gateway of the instance.
end_processes() {
  local deadline jobs
  # This job belongs to bats: it ends a test after BATS_TEST_TIMEOUT.
  deadline=$(jobs -p %1)
  jobs=$(jobs -p)
  pkill -9 -f "$HAL9000_HOME/run/mcp-wanted" || true
  {
    echo "$jobs"
    # The shells of bats started before this variable was exported.
    grep -lzxF "BATS_TEST_TMPDIR=$BATS_TEST_TMPDIR" /proc/[0-9]*/environ | grep -o '[0-9]*'
  } | grep -vxF "$deadline"$'\n'"$(pgrep -P "$deadline")" | xargs -r kill -9 || true
} 2>/dev/null
