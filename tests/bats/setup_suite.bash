# One instance for the whole suite, with a prefix, a home and image names of its
# own: nobody else's is touched.

setup_suite() {
  local repo
  repo=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
  local images=${HAL9000_TEST_IMAGES:-hal9000-test}
  unset "${!WORKER_@}" "${!PARENT_@}" "${!HAL9000_@}" "${!CLAUDE_@}" CHROMADB_PORT ENABLE_POOL_MANAGER \
    SKIP_IMAGE_PULL LAZY_IMAGE_PULL
  HAL9000_TEST_ROOT=$(mktemp -d "${TMPDIR:-/tmp}/hal9000-test.XXXXXX")
  export HAL9000_TEST_ROOT
  export HAL9000_PREFIX=hal9000-test-$$
  export HAL9000_HOME=$HAL9000_TEST_ROOT/home
  export HAL9000_PROJECT_ROOTS=$HAL9000_TEST_ROOT/projects
  export HAL9000_IMAGE_REPO=$images
  # A host's Claude home that is nobody's; the real one must not be touched.
  export CLAUDE_HOME=$HAL9000_TEST_ROOT/claude-home
  mkdir "$HAL9000_PROJECT_ROOTS" "$CLAUDE_HOME"
  claude_homes >"$HAL9000_TEST_ROOT/claude-homes"

  "$repo/scripts/engine.ts" start || return
  sweep_dead_runs
  "$repo/scripts/build-images.ts" || return
  "$repo/scripts/claudy.ts" daemon start || return
}

teardown_suite() {
  claude_homes | cmp - "$HAL9000_TEST_ROOT/claude-homes" || {
    echo "the Claude home of the host has changed" >&2
    return 1
  }
  remove_instance "$HAL9000_PREFIX"
  rm -rf "$HAL9000_TEST_ROOT"
}

# Every file of the real Claude home, with its checksum.
claude_homes() {
  find ~/.claude ~/.claude.json -type f -exec sha256sum {} + 2>/dev/null | sort
}

remove_instance() { # remove_instance PREFIX
  local label=label=hal9000.instance=$1
  docker ps --all --quiet --filter "$label" | xargs -r docker rm --force --volumes >/dev/null
  docker volume ls --quiet --filter "$label" | xargs -r docker volume rm >/dev/null
}

# A run that was killed cannot clean up; the next one does it for it.
sweep_dead_runs() {
  docker ps --all --format '{{.Label "hal9000.instance"}}' | sort -u |
    while read -r instance; do
      case $instance in hal9000-test-*) ;; *) continue ;; esac
      pid=${instance#hal9000-test-}
      # An engine that was killed may have left mounts that it does not know.
      [ -d "/proc/${pid%%-*}" ] || remove_instance "$instance" ||
        echo "Something of $instance stays behind" >&2
    done
}
