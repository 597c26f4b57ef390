# Migration from version 0.5 and rollback; each test has its own instance and home.

# shellcheck disable=SC2034  # names for the tests
claudy=$scripts/claudy.ts
migrate=$scripts/migrate.ts
# shellcheck disable=SC2034
rollback=$scripts/rollback.ts
# shellcheck disable=SC2034
deno=$(echo "$repo"/node_modules/@deno/*/deno)

setup_file() {
  # Tests with kills take long.
  export BATS_TEST_TIMEOUT=1200
  export HAL9000_PREFIX=$HAL9000_PREFIX-move
  export V05=$BATS_FILE_TMPDIR/v05
}

setup() {
  export HAL9000_HOME=$BATS_TEST_TMPDIR/home
  parent=$HAL9000_PREFIX-parent
  without_dashboard
}

teardown() {
  # Each test has its own instance and home.
  [ -n "$BATS_TEST_COMPLETED" ] || end_processes
  remove_instance "$HAL9000_PREFIX"
  while read -r mounted; do as_root umount "$mounted"; done < <(mounts_below "$BATS_TEST_TMPDIR")
  as_root rm -rf "$HAL9000_HOME" # as root, because containers wrote to it
}

teardown_file() { as_root rm -rf "$V05"; }

# Runs the real ChromaDB on a directory; the output of chroma.ts goes to answers.
chroma_on() { # chroma_on DIRECTORY WORDS...
  local name=$HAL9000_PREFIX-chroma
  docker run --detach --rm --name "$name" --label "hal9000.instance=$HAL9000_PREFIX" --entrypoint deno \
    --volume "$1:/data/chromadb" --volume "$repo/tests/helper:/helper:ro" "$HAL9000_IMAGE_REPO:parent" \
    run -A --no-lock --no-config --quiet /opt/chromadb/chroma.mjs run --path /data/chromadb --host 127.0.0.1 --port 8000
  wait_for 20 heartbeat "$name"
  docker exec "$name" deno run -A --no-lock --no-config --quiet /helper/chroma.ts "${@:2}" >"$BATS_FILE_TMPDIR/answers"
  docker stop --time 5 "$name"
}

make_former_home() { # make_former_home HOME COLLECTIONS
  mkdir -p "$1"/{chromadb,membank/app,plugins/bin,claude/.shared-config}
  # shellcheck disable=SC2086  # words
  chroma_on "$1/chromadb" fill $2 >/dev/null
  echo "# Notes" >"$1/membank/app/progress.md"
  echo "# Read me" >"$1/membank/readme.md"
  printf '%s\n' '#!/bin/sh' 'echo plugged' >"$1/plugins/bin/tool"
  chmod 0755 "$1/plugins/bin/tool"
  chmod 0640 "$1/membank/app/progress.md"
  ln -s tool "$1/plugins/bin/alias"
  ln -s /nowhere/at/all "$1/plugins/dangling"
  touch -d "2024-02-03 04:05:06.123456789" "$1/membank/app/progress.md" "$1/membank/app"
  touch -h -d "2023-01-01" "$1/plugins/dangling"
  as_root chown 1234:4321 "$1/membank/app/progress.md"
  for number in $(seq 1 20); do
    local project=$HAL9000_PROJECT_ROOTS/former$number
    mkdir -p "$project"
    local name
    name=claudy-former$number-$(printf %s "$project" | sha256sum | cut -c1-8)
    mkdir -p "$1/claude/$name/.workspace"
    jq -n --arg name "$name" --arg project "$project" '{name: $name, profile: "base", project_dir: $project,
      created_at: "2026-01-25T10:00:00-08:00", shell_mode: false,
      container_image: "ghcr.io/hellblazer/hal-9000:base", claudy_version: "0.5.0"}' \
      >"$1/claude/$name/.claudy-session.json"
  done
}

# Copies one home, which takes a while to create, for each test.
former_home() {
  if [ ! -e "$V05" ]; then
    make_former_home "$V05" "alpha=3000 beta=1990 gamma=10"
    mv "$BATS_FILE_TMPDIR/answers" "$BATS_FILE_TMPDIR/before"
  fi
  as_root cp -a "$V05/." "$HAL9000_HOME/"
}

# A small home without ChromaDB data, which is faster.
small_home() {
  mkdir -p "$HAL9000_HOME"/{membank,plugins/bin}
  echo one >"$HAL9000_HOME/membank/one.md"
  echo two >"$HAL9000_HOME/plugins/bin/two"
}

# Prints everything of a tree that must not change, as any user; names are bytes.
tree() { as_root bash -c "$(declare -f tree_here); tree_here \"\$1\"" tree "$1"; } # tree DIRECTORY
tree_here() {
  (cd "$1" && {
    find . -printf '%P %y %m %U %G %T@ %l\0'
    find . -type f -print0 | xargs -0 -r sha256sum -z
    find . -type f -links +1 -printf '%P has %n names\0'
  } | sort -z | tr '\0' '\n')
}

in_volume() { # in_volume VOLUME
  docker run --rm --network none --label "hal9000.instance=$HAL9000_PREFIX" --volume "$HAL9000_PREFIX-$1:/tree:ro" \
    --entrypoint bash "$HAL9000_IMAGE_REPO:parent" -c "$(declare -f tree_here); tree_here /tree"
}
volume_trees() { for volume in memorybank plugins chromadb; do in_volume "$volume"; done; }
local_trees() { for part in membank plugins chromadb; do tree "$1/$part"; done; }

# The daemon is ready before ChromaDB is.
answers() {
  wait_for 30 heartbeat "$parent"
  docker exec -i "$parent" deno run -A --no-lock --no-config --quiet - "$@" <"$repo/tests/helper/chroma.ts"
}

# Starts a migration and kills it as soon as it has begun a step.
broken_off_in() { # broken_off_in STEP OPTIONS...
  reached() { jq -e --arg step "$1" '.steps[$step]' "$HAL9000_HOME/migration/journal.json"; }
  "$migrate" --yes "${@:2}" >/dev/null 2>&1 &
  local pid=$!
  while ! reached "$1" >/dev/null 2>&1; do kill -0 "$pid" || return; done
  kill -9 "$pid"
  wait "$pid" || true
}

# A home as claudy 0.5.0 leaves it: no ChromaDB, memory bank or plugins, and one Claude home
# for all sessions, written by root in a container.
real_home() { # real_home PROJECT...
  local shared=$HAL9000_HOME/claude/.shared-config project name
  mkdir -p "$shared"/{agents,projects/-workspace}
  touch "$shared/.initialized"
  echo '{"model":"opus","hooks":{"Stop":[{"hooks":[{"type":"command","command":"evil"}]}]}}' >"$shared/settings.json"
  echo review >"$shared/agents/reviewer.md"
  echo '{"primaryApiKey":"sk-ant-api03-former","hasCompletedOnboarding":true}' >"$shared/.claude.json"
  for project in "$@"; do
    mkdir -p "$project"
    touch "$project/${project##*/}.txt"
    name=claudy-${project##*/}-$(printf %s "$project" | sha256sum | cut -c1-8)
    mkdir -p "$HAL9000_HOME/claude/$name/.workspace"
    jq -n --arg name "$name" --arg project "$project" '{name: $name, profile: "base", project_dir: $project,
      created_at: "2026-01-25T10:00:00-08:00", shell_mode: false, claudy_version: "0.5.0"}' \
      >"$HAL9000_HOME/claude/$name/.claudy-session.json"
    cp "$BATS_TEST_TMPDIR/conversation" "$shared/projects/-workspace/${project##*/}.jsonl"
    printf '{"type":"x","cwd":"/workspace","file_path":"/workspace/%s.txt"}\n' "${project##*/}" \
      >>"$shared/projects/-workspace/${project##*/}.jsonl"
  done
  as_root chown -R 0:0 "$shared"
  as_root chmod 0600 "$shared"/projects/-workspace/*
}

# Prints what version 0.5 has of its sessions.
session_trees() {
  for directory in "$HAL9000_HOME"/claude/{claudy-real*,.shared-config}; do tree "$directory"; done
}
