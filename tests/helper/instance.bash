# The instance of a file of tests: made before the first test, made anew after a failed
# one, removed after the last.

start_instance() { "$repo/scripts/claudy.ts" daemon start; }

remove_instance() { # remove_instance PREFIX
  local label=label=hal9000.instance=$1
  docker ps --all --quiet --filter "$label" | xargs -r docker rm --force --volumes >/dev/null
  docker volume ls --quiet --filter "$label" | xargs -r docker volume rm >/dev/null
}

# As root, by sudo where we are not.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Skips a test where nothing can be done as root.
need_root() { as_root true 2>/dev/null || skip "needs root, or sudo without a password"; }

# Mount points below a directory, the deepest first.
mounts_below() {
  awk -v root="$1/" 'index($5, root) == 1 { print $5 }' /proc/self/mountinfo | sort -r
}

# First in a teardown. A failed test leaves nothing to the tests after it: its processes
# are ended, its mounts undone, and the instance is made anew by setup_file.
after_failure() {
  [ -z "${BATS_TEST_COMPLETED:-}" ] || return 0
  end_processes
  cd / # the test's directory goes
  local mounted
  while read -r mounted; do as_root umount "$mounted" || true; done < <(mounts_below "$HAL9000_TEST_ROOT")
  remove_instance "$HAL9000_PREFIX"
  as_root rm -rf "$HAL9000_HOME" "$HAL9000_PROJECT_ROOTS"
  mkdir "$HAL9000_PROJECT_ROOTS"
  setup_file
} >&2 3>&-

# Ends what the test has started and not waited for, and the MCP gateway of the instance.
end_processes() {
  local deadline jobs
  # Of bats itself: it ends a test after BATS_TEST_TIMEOUT.
  deadline=$(jobs -p %1)
  jobs=$(jobs -p)
  pkill -9 -f "$HAL9000_HOME/run/mcp-wanted" || true
  {
    echo "$jobs"
    # The shells of bats were started before this was exported.
    grep -lzxF "BATS_TEST_TMPDIR=$BATS_TEST_TMPDIR" /proc/[0-9]*/environ | grep -o '[0-9]*'
  } | grep -vxF "$deadline"$'\n'"$(pgrep -P "$deadline")" | xargs -r kill -9 || true
} 2>/dev/null
