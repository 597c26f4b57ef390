# A prefix, a home and image names that only this run of bats uses.

setup_suite() {
  local repo
  repo=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
  # shellcheck source=tests/helper/instance.bash
  source "$repo/tests/helper/instance.bash"
  kept_images=${HAL9000_TEST_IMAGES:-hal9000-test}
  unset "${!WORKER_@}" "${!PARENT_@}" "${!HAL9000_@}" "${!CLAUDE_@}" CHROMADB_PORT ENABLE_POOL_MANAGER \
    SKIP_IMAGE_PULL LAZY_IMAGE_PULL
  HAL9000_TEST_ROOT=$(mktemp -d "${TMPDIR:-/tmp}/hal9000-test.XXXXXX")
  export HAL9000_TEST_ROOT
  export HAL9000_PREFIX=hal9000-test-$$
  export HAL9000_HOME=$HAL9000_TEST_ROOT/home
  export HAL9000_PROJECT_ROOTS=$HAL9000_TEST_ROOT/projects
  export HAL9000_IMAGE_REPO=$HAL9000_PREFIX
  # An empty Claude home; the real one must not be touched.
  export CLAUDE_HOME=$HAL9000_TEST_ROOT/claude-home
  mkdir "$HAL9000_PROJECT_ROOTS" "$CLAUDE_HOME"
  claude_homes >"$HAL9000_TEST_ROOT/claude-homes"
  if [ -n "${PREPARED:-}" ]; then name_images "$PREPARED" "$HAL9000_PREFIX"; else prepare "$HAL9000_PREFIX"; fi
}

# Prepares what all test files need: an engine, images, no leftovers of killed runs.
prepare() { # prepare REPOSITORY: the repository for the images
  "$repo/scripts/engine.ts" start && HAL9000_IMAGE_REPO=$1 "$repo/scripts/build-images.ts" && sweep_dead_runs
}

teardown_suite() {
  claude_homes | cmp - "$HAL9000_TEST_ROOT/claude-homes" || {
    echo "the Claude home of the host has changed" >&2
    return 1
  }
  remove_instance "$HAL9000_PREFIX"
  # So the next run does not need to build them.
  name_images "$HAL9000_PREFIX" "$kept_images"
  remove_images "$HAL9000_PREFIX"
  as_root rm -rf "$HAL9000_TEST_ROOT"
}

# Prints every file of the real Claude home with its checksum.
claude_homes() {
  find ~/.claude ~/.claude.json -type f -exec sha256sum {} + 2>/dev/null | sort
}

# Tags the images of one repository in another one too. Lists each only once: the engine takes
# 0.2 s for that if it has many images.
name_images() { # name_images FROM TO
  local tag id
  local -A former=()
  while read -r tag id; do former[$tag]=$id; done < <(list_images "$2")
  list_images "$1" | while read -r tag id; do
    [ "${former[$tag]:-}" != "$id" ] || continue
    docker tag "$1:$tag" "$2:$tag"
    [ -z "${former[$tag]:-}" ] || [ "$(docker image inspect --format '{{len .RepoTags}}' "${former[$tag]}")" != 0 ] ||
      docker rmi "${former[$tag]}" >/dev/null || true # in use
  done
}

list_images() { docker images --no-trunc --format '{{.Tag}} {{.ID}}' "$1"; }

# Removes only the names: an image may have other names too.
remove_images() { # remove_images PREFIX
  docker images --format '{{.Repository}}:{{.Tag}}' |
    { grep -E "^$1(-[a-z-]+)?:" || true; } | xargs -r docker rmi --force >/dev/null
}

# Cleans up after killed runs.
sweep_dead_runs() {
  local user
  while IFS=: read -r user _; do
    case $user in hal9000-tester-*) ;; *) continue ;; esac
    [ -d "/proc/${user##*-}" ] || as_root userdel --remove --force "$user"
  done </etc/passwd
  docker ps --all --format '{{.Label "hal9000.instance"}}' | sort -u |
    while read -r instance; do
      case $instance in hal9000-test-[0-9]*) ;; *) continue ;; esac
      pid=${instance#hal9000-test-}
      # Other instances may have such a name too.
      case ${pid%%-*} in *[!0-9]*) continue ;; esac
      # A killed engine may have left mounts that it does not know.
      [ -d "/proc/${pid%%-*}" ] || remove_instance "$instance" ||
        echo "Something of $instance stays behind" >&2
    done
  docker images --format '{{.Repository}}' | { grep -oE '^hal9000-test-[0-9]+' || true; } | sort -u |
    while read -r instance; do
      [ -d "/proc/${instance##*-}" ] || remove_images "$instance" || true
    done
}
