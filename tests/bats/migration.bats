# From version 0.5 and back: data of the real ChromaDB, a memory bank, plugins and
# sessions, in an instance of their own.

# shellcheck disable=SC2030,SC2031  # each test has a home of its own

bats_require_minimum_version 1.5.0
load ../helper/load

claudy=$scripts/claudy.ts
migrate=$scripts/migrate.ts
rollback=$scripts/rollback.ts

setup_file() {
  load ../helper/load
  # Kills, and what comes after each, take their time.
  export BATS_TEST_TIMEOUT=1200
  export HAL9000_PREFIX=$HAL9000_PREFIX-move
  export V05=$BATS_FILE_TMPDIR/v05
  make_former_home "$V05" "alpha=3000 beta=1990 gamma=10"
  cat "$BATS_FILE_TMPDIR/answers" >"$BATS_FILE_TMPDIR/before"
}

setup() {
  export HAL9000_HOME=$BATS_TEST_TMPDIR/home
  parent=$HAL9000_PREFIX-parent
  mkdir "$HAL9000_HOME"
}

teardown() {
  # Each test has an instance and a home of its own.
  [ -n "$BATS_TEST_COMPLETED" ] || end_processes
  remove_instance "$HAL9000_PREFIX"
  while read -r mounted; do as_root umount "$mounted"; done < <(mounts_below "$BATS_TEST_TMPDIR")
}

# The real ChromaDB on a directory; what chroma.ts prints goes to answers.
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
  as_root chown 1234:4321 "$1/membank/app/progress.md"
  touch -d "2024-02-03 04:05:06.123456789" "$1/membank/app/progress.md" "$1/membank/app"
  touch -h -d "2023-01-01" "$1/plugins/dangling"
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

former_home() { cp -a "$V05/." "$HAL9000_HOME/"; }

# A small one without ChromaDB's help, which is faster.
small_home() {
  mkdir -p "$HAL9000_HOME"/{membank,plugins/bin}
  echo one >"$HAL9000_HOME/membank/one.md"
  echo two >"$HAL9000_HOME/plugins/bin/two"
}

# Everything of a tree that must not change; names are bytes.
tree() { # tree DIRECTORY
  (cd "$1" && {
    find . -printf '%P %y %m %U %G %T@ %l\0'
    find . -type f -print0 | xargs -0 -r sha256sum -z
    find . -type f -links +1 -printf '%P has %n names\0'
  } | sort -z | tr '\0' '\n')
}

in_volume() { # in_volume VOLUME
  docker run --rm --network none --label "hal9000.instance=$HAL9000_PREFIX" --volume "$HAL9000_PREFIX-$1:/tree:ro" \
    --entrypoint bash "$HAL9000_IMAGE_REPO:parent" -c "$(declare -f tree); tree /tree"
}
volume_trees() { for volume in memorybank plugins chromadb; do in_volume "$volume"; done; }
local_trees() { for part in membank plugins chromadb; do tree "$1/$part"; done; }

# The daemon is ready before ChromaDB is.
answers() {
  wait_for 30 heartbeat "$parent"
  docker exec -i "$parent" deno run -A --no-lock --no-config --quiet - "$@" <"$repo/tests/helper/chroma.ts"
}

@test "--dry-run tells what would be moved, and changes nothing at all" {
  former_home
  state() {
    tree "$HAL9000_HOME"
    docker ps --all --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX"
    docker volume ls --quiet --filter "name=$HAL9000_PREFIX"
  }
  state >"$BATS_TEST_TMPDIR/state"
  run -0 "$migrate" --dry-run
  [[ $output == *"$HAL9000_HOME/chromadb"*"$HAL9000_PREFIX-chromadb"*"Sessions: 20"*"needed"*"free"* ]]
  run -0 --separate-stderr "$migrate" --dry-run --json
  [ "$(jq -c '[.parts[].name]' <<<"$output")" = '["chromadb","membank","plugins","claude"]' ]
  [ "$(jq '.parts[] | select(.name == "membank") | .files' <<<"$output")" = 2 ]
  state | cmp - "$BATS_TEST_TMPDIR/state"
  run -6 "$migrate"
  state | cmp - "$BATS_TEST_TMPDIR/state"
}

@test "what was migrated answers as before, what is added comes back with the rest" {
  former_home
  local_trees "$HAL9000_HOME" >"$BATS_TEST_TMPDIR/source"
  run -0 --separate-stderr "$migrate" --yes --json
  [ "$(jq -c '.collections | map(.count)' <<<"$output")" = '[3000,1990,10]' ]
  [ "$(jq .sessions <<<"$output")" = 20 ]
  answers | cmp - "$BATS_FILE_TMPDIR/before"
  # The source is as it was, and the backup as the source.
  local_trees "$HAL9000_HOME" | diff "$BATS_TEST_TMPDIR/source" -
  local_trees "$(echo "$HAL9000_HOME"/backups/pre-dind-*)" | diff "$BATS_TEST_TMPDIR/source" -
  in_volume plugins | diff <(tree "$HAL9000_HOME/plugins") -
  [ "$("$claudy" sessions --json | jq length)" = 20 ]

  answers fill alpha=50 delta=7 >"$BATS_TEST_TMPDIR/after"
  [ "$(jq -c 'map(.count)' "$BATS_TEST_TMPDIR/after")" = '[3050,1990,7,10]' ]
  run -6 "$rollback"
  run -0 "$rollback" --yes
  [[ $output == *"Volumes removed:   $HAL9000_PREFIX-chromadb, $HAL9000_PREFIX-memorybank, $HAL9000_PREFIX-plugins"* ]]
  [ -z "$(docker volume ls --quiet --filter "name=$HAL9000_PREFIX")" ]
  # What it replaced is kept, and is the source.
  local_trees "$(echo "$HAL9000_HOME"/backups/pre-rollback-*)" | diff "$BATS_TEST_TMPDIR/source" -
  run -0 --separate-stderr "$rollback" --list-backups --verify --json
  [ "$(jq -c 'map([.name[0:7], .whole])' <<<"$output")" = '[["pre-rol",true],["pre-din",true]]' ]
  # From the local directory, old and new.
  chroma_on "$HAL9000_HOME/chromadb" query
  cmp "$BATS_FILE_TMPDIR/answers" "$BATS_TEST_TMPDIR/after"
}

@test "migrate, rollback, migrate, rollback: the trees are equal at each end" {
  former_home
  for round in 1 2; do
    local_trees "$HAL9000_HOME" >"$BATS_TEST_TMPDIR/source"
    "$scripts/migrate-to-dind.sh" --yes >/dev/null
    local_trees "$(find "$HAL9000_HOME/backups" -name 'pre-dind-*' | sort | tail -1)" | diff "$BATS_TEST_TMPDIR/source" -
    # ChromaDB writes as soon as it runs: the end is where it has stopped.
    "$claudy" daemon stop
    # ChromaDB has a user of its own (65431); what goes back is the home's owner's.
    volume_trees | sed 's/ 65431 65431 / 0 0 /' >"$BATS_TEST_TMPDIR/volumes"
    for part in membank plugins; do
      in_volume "${part/membank/memorybank}" | diff <(tree "$HAL9000_HOME/$part") -
    done
    "$scripts/rollback-dind.sh" --yes >/dev/null
    local_trees "$HAL9000_HOME" | diff "$BATS_TEST_TMPDIR/volumes" - || { echo "in round $round" >&2; false; }
    chroma_on "$HAL9000_HOME/chromadb" query
    cmp "$BATS_FILE_TMPDIR/answers" "$BATS_FILE_TMPDIR/before"
  done
}

@test "a session of version 0.5 is resumed, and works without a parent after a rollback" {
  former_home
  "$migrate" --yes >/dev/null
  load ../helper/load # of this instance
  load ../helper/sessions
  start_stub
  use_stub
  project=$HAL9000_PROJECT_ROOTS/former7
  open "$project"
  [[ $session == claudy-former7-* ]]
  typed "$session" "from before" Enter
  wait_for 10 screen_shows "$session" "echo: from before"
  stop_stub
  # It is ended for the rollback, and its conversation written down.
  "$rollback" --yes >/dev/null
  [ -z "$(docker ps --all --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX")" ]
  run -0 --separate-stderr "$claudy" --legacy --detach --json "$project"
  [ "$(jq -r .session <<<"$output")" = "$session" ]
  [ "$(jq -r .conversation <<<"$output")" = resumed ]
  wait_for 15 screen_shows "$session" "echo: from before"
  [ "$(docker exec "$session" cat /data/membank/readme.md)" = "# Read me" ]
  "$claudy" stop "$session"
}

@test "a session is found by the name that version 0.5 gave it" {
  small_home
  project=$HAL9000_PROJECT_ROOTS/my..odd--app
  mkdir -p "$project"
  name=claudy-my--odd--app-$(printf %s "$project" | sha256sum | cut -c1-8)
  mkdir -p "$HAL9000_HOME/claude/$name" "$HAL9000_HOME/claude/broken"
  jq -n --arg project "$project" '{name: "x", profile: "python", project_dir: $project, created_at: "2026-01-25T10:00:00Z"}' \
    >"$HAL9000_HOME/claude/$name/.claudy-session.json"
  echo '{"name":' >"$HAL9000_HOME/claude/broken/.claudy-session.json"
  run -0 "$migrate" --yes
  [[ $output == *"broken/.claudy-session.json is damaged"* ]]
  [ "$("$claudy" sessions --json | jq -c 'map([.name, .profile])')" = "[[\"$name\",\"python\"]]" ]
  export ANTHROPIC_API_KEY=sk-ant-x ANTHROPIC_BASE_URL=http://127.0.0.1:9
  [ "$("$claudy" --detach --profile base "$project")" = "$name" ]
  "$claudy" stop "$name"
}

@test "names of any bytes, sparse files, hard links, pipes and sockets come along" {
  small_home
  cd "$HAL9000_HOME/plugins"
  printf a >$'line\nbreak'
  printf b >"quote'\"\\ and  blanks "
  printf c >$'no\xffutf8\xfe'
  printf d >"$(printf 'n%.0s' $(seq 255))"
  mkdir -p $'dir\xff' && printf e >$'dir\xff/-rf'
  ln -s $'no\xffutf8\xfe' $'link\xff'
  truncate -s 200M sparse && printf end | dd of=sparse bs=1 seek=100000000 conv=notrunc status=none
  printf f >first && ln first second && ln first bin/third
  mkfifo pipe
  "$deno" eval --no-lock 'Deno.listen({ transport: "unix", path: "sock" }); Deno.exit()' || true
  [ -S sock ]
  chmod 4751 first && chmod 1777 bin && chmod 000 $'line\nbreak'
  : >empty
  setfacl -m u:1234:r empty 2>/dev/null || true
  cd /
  tree "$HAL9000_HOME/plugins" >"$BATS_TEST_TMPDIR/trees"
  used=$(du -s --block-size=1 "$HAL9000_HOME/plugins" | cut -f1)
  "$migrate" --yes >/dev/null
  in_volume plugins | diff "$BATS_TEST_TMPDIR/trees" -
  # Holes stay holes, in the volume and in the backup.
  [ "$(du -s --block-size=1 "$HAL9000_HOME"/backups/*/plugins | cut -f1)" -le $((used + 1000000)) ]
  # Of bytes that are no text the manifest has base64.
  jq -r '.entries[].pathBase64 // empty' "$HAL9000_HOME"/backups/*/manifest.json | grep -qx "$(printf 'plugins/no\xffutf8\xfe' | base64)"
  "$rollback" --yes >/dev/null
  tree "$HAL9000_HOME/plugins" | diff "$BATS_TEST_TMPDIR/trees" -
  [ "$(stat -c %h "$HAL9000_HOME/plugins/first")" = 3 ]
}

deno=$(echo "$repo"/node_modules/@deno/*/deno)

@test "a device is refused, and nothing was done" {
  small_home
  as_root mknod "$HAL9000_HOME/plugins/device" c 1 3 || skip "a device needs root, or sudo without a password"
  run -1 "$migrate" --yes
  [[ $output == *'Cannot move "device"'* ]]
  [ -z "$(docker volume ls --quiet --filter "name=$HAL9000_PREFIX")" ]
  run -0 "$migrate" --yes --abort || run -4 "$migrate" --yes --abort
}

@test "a file that changes while it is read is named, and the next run is whole" {
  small_home
  head -c 300000000 /dev/urandom >"$HAL9000_HOME/membank/large"
  # By rename: no process has it open.
  while :; do
    echo "$RANDOM" >"$BATS_TEST_TMPDIR/new" && mv "$BATS_TEST_TMPDIR/new" "$HAL9000_HOME/membank/one.md"
    sleep 0.05
  done &
  writer=$!
  run "$migrate" --yes
  kill "$writer"
  [ "$status" = 5 ]
  [[ $output == *"membank/one.md\" changes while it is read"* ]]
  run -0 "$migrate" --yes
  [ "$(in_volume memorybank)" = "$(tree "$HAL9000_HOME/membank")" ]
}

@test "a source that has changed since a run was broken off is read anew" {
  small_home
  broken_off_in copy:plugins
  echo changed >"$HAL9000_HOME/membank/one.md"
  run -0 "$migrate" --yes --resume
  [[ $output == *"Changed since the last run"* ]]
  [ "$(in_volume memorybank)" = "$(tree "$HAL9000_HOME/membank")" ]
}

# A migration that is killed as soon as it has begun a step.
broken_off_in() { # broken_off_in STEP OPTIONS...
  reached() { jq -e --arg step "$1" '.steps[$step]' "$HAL9000_HOME/migration/journal.json"; }
  "$migrate" --yes "${@:2}" >/dev/null 2>&1 &
  local pid=$!
  while ! reached "$1" >/dev/null 2>&1; do kill -0 "$pid" || return; done
  kill -9 "$pid"
  wait "$pid" || true
}

@test "what is broken off can be taken back, and keeps the daemon from half a copy" {
  small_home
  head -c 100000000 /dev/urandom >"$HAL9000_HOME/plugins/large"
  tree "$HAL9000_HOME/plugins" >"$BATS_TEST_TMPDIR/trees"
  broken_off_in copy:plugins
  run -5 "$claudy" daemon start
  [[ $output == *"A migrate has not ended"*"migrate --abort"* ]]
  run -5 "$rollback" --yes
  run -6 "$migrate" --abort
  run -0 "$migrate" --abort --yes
  [ -z "$(docker volume ls --quiet --filter "name=$HAL9000_PREFIX")" ]
  [ ! -e "$HAL9000_HOME/migration/journal.json" ]
  tree "$HAL9000_HOME/plugins" | cmp - "$BATS_TEST_TMPDIR/trees"
  run -4 "$migrate" --abort --yes
  run -4 "$migrate" --resume
  "$migrate" --yes >/dev/null
}

@test "volumes that hold data are left alone, or moved into a backup with --force" {
  small_home
  "$claudy" daemon start >/dev/null
  answers fill mine=5 >/dev/null
  "$claudy" daemon stop
  run -6 "$migrate" --yes
  [[ $output == *"Volumes hold data already: $HAL9000_PREFIX-chromadb"*--force* ]]
  mkdir "$HAL9000_HOME/chromadb"
  # Broken off and taken back, they hold what they held.
  in_volume chromadb | grep -F sqlite >"$BATS_TEST_TMPDIR/volume"
  head -c 100000000 /dev/urandom >"$HAL9000_HOME/plugins/large"
  broken_off_in copy:plugins --force
  run -0 "$migrate" --abort --yes
  in_volume chromadb | grep -F sqlite | diff "$BATS_TEST_TMPDIR/volume" -
  rm "$HAL9000_HOME/plugins/large"
  run -0 "$migrate" --yes --force
  [ "$("$rollback" --list-backups --verify --json 2>/dev/null | jq -c 'map(select(.name | startswith("pre-force")) | .whole) | unique')" = "[true]" ]
  [ "$(answers query)" = "[]" ]
  in_volume plugins | grep -F two
}

@test "containers and processes that write to the data are named, and waited for by nobody" {
  small_home
  docker run --detach --rm --name "$HAL9000_PREFIX-former" --entrypoint sleep \
    --volume "$HAL9000_HOME/membank:/root/memory-bank" "$HAL9000_IMAGE_REPO:worker" 60
  run -5 "$migrate" --yes
  docker rm --force "$HAL9000_PREFIX-former"
  [[ $output == *"In use by containers: $HAL9000_PREFIX-former"*"docker stop"* ]]
  exec 7>>"$HAL9000_HOME/membank/one.md"
  run -5 "$migrate" --yes
  exec 7>&-
  [[ $output == *"Being written to: $HAL9000_HOME/membank/one.md"* ]]
  "$claudy" mcp start >/dev/null
  run -5 "$migrate" --yes
  [[ $output == *"The MCP gateway runs"*"claudy mcp stop"* ]]
  run -5 "$rollback" --yes
  "$claudy" mcp stop
  run -0 "$migrate" --dry-run
}

@test "there is one move at a time" {
  small_home
  head -c 200000000 /dev/urandom >"$HAL9000_HOME/plugins/large"
  "$migrate" --yes >/dev/null 2>&1 &
  first=$!
  moving() { [ -e "$HAL9000_HOME/migration/journal.json" ]; }
  wait_for 10 moving
  kill -STOP "$first"
  run -5 "$migrate" --yes --resume
  [[ $output == *"being moved by process "* ]]
  kill -CONT "$first"
  wait "$first"
  in_volume plugins | grep -F large
}

@test "--skip-backup makes none; --remove-source wants one, and a source that is the same" {
  small_home
  run -4 "$migrate" --remove-source --yes
  run -0 "$migrate" --yes --skip-backup
  [ -z "$(ls "$HAL9000_HOME/backups")" ]
  run -6 "$migrate" --remove-source --yes
  "$rollback" --yes >/dev/null
  "$migrate" --yes >/dev/null
  touch "$HAL9000_HOME/membank/newer"
  run -6 "$migrate" --remove-source --yes
  [[ $output == *"changed since the migration"*newer* ]]
  rm "$HAL9000_HOME/membank/newer"
  touch -d "$(jq -r '.entries[] | select(.path == "membank") | "@" + .mtime' "$HAL9000_HOME"/backups/pre-dind-*/manifest.json)" "$HAL9000_HOME/membank"
  run -6 "$migrate" --remove-source
  run -0 "$migrate" --remove-source --yes
  [ ! -e "$HAL9000_HOME/membank" ]
  [ ! -e "$HAL9000_HOME/plugins" ]
  # What is gone here comes back from the volumes.
  "$rollback" --yes >/dev/null
  [ "$(cat "$HAL9000_HOME/membank/one.md")" = one ]
}

@test "a backup is restored by its name; one that is damaged is refused with what is" {
  small_home
  "$migrate" --yes >/dev/null
  backup=$(basename "$HAL9000_HOME"/backups/pre-dind-*)
  echo today >"$HAL9000_HOME/memorybank/today.md"
  cp -a "$HAL9000_HOME/backups/$backup" "$HAL9000_HOME/backups/pre-dind-20200101T000000Z"
  damaged=$HAL9000_HOME/backups/pre-dind-20200101T000000Z
  printf ONE >"$damaged/membank/one.md"
  rm "$damaged/plugins/bin/two"
  run -6 "$rollback" --yes --backup pre-dind-20200101T000000Z
  [[ $output == *"is damaged: "*"membank/one.md: "*content*"plugins/bin/two: missing"* ]]
  docker inspect "$parent" >/dev/null
  run -0 "$rollback" --list-backups --verify
  [[ $output == *"$backup"*whole*"20200101T000000Z"*DAMAGED* ]]
  run -4 "$rollback" --yes --backup nonsense
  mkdir "$HAL9000_HOME/backups/pre-dind-20210101T000000Z"
  run -6 "$rollback" --yes --backup "$HAL9000_HOME/backups/pre-dind-20210101T000000Z"
  run -0 "$rollback" --yes --backup "$HAL9000_HOME/backups/$backup"
  [ "$(cat "$HAL9000_HOME/membank/one.md")" = one ]
  [ ! -e "$HAL9000_HOME/membank/today.md" ]
  # Today's data went into a backup of its own with its volume.
  [ "$(cat "$HAL9000_HOME"/backups/pre-rollback-*/volumes/membank/today.md)" = today ]
}

@test "--keep-volumes leaves them as they are" {
  small_home
  "$migrate" --yes >/dev/null
  run -0 "$rollback" --yes --keep-volumes
  [ "$(in_volume plugins | grep -c two)" -ge 1 ]
  run -6 "$migrate" --yes
  run -0 "$rollback" --list-backups
  [[ $output == *pre-rollback-* ]]
}

small_disk() { # small_disk SIZE: as the home
  as_root mount -t tmpfs -o "size=$1" none "$HAL9000_HOME" || skip "mounting needs root, or sudo without a password"
}

@test "a disk that is too small is told before anything is done" {
  small_disk 30m
  small_home
  head -c 20000000 /dev/urandom >"$HAL9000_HOME/plugins/large"
  tree "$HAL9000_HOME" >"$BATS_TEST_TMPDIR/trees"
  run -7 "$migrate" --yes
  [[ $output == *"Too little room at $HAL9000_HOME: "*" are needed, "*" free"* ]]
  tree "$HAL9000_HOME" | cmp - "$BATS_TEST_TMPDIR/trees"
}

@test "a disk that fills up during the backup ends that, and the next run goes on" {
  small_disk 300m
  small_home
  head -c 100000000 /dev/urandom >"$HAL9000_HOME/plugins/large"
  tree "$HAL9000_HOME/plugins" >"$BATS_TEST_TMPDIR/trees"
  fill() {
    until [ -e "$HAL9000_HOME/migration/journal.json" ]; do :; done
    head -c 400000000 /dev/zero >"$HAL9000_HOME/filler" 2>/dev/null || true
  }
  fill &
  run -7 "$migrate" --yes
  [[ $output == *"The disk is full"*"run it again"* ]]
  tree "$HAL9000_HOME/plugins" | cmp - "$BATS_TEST_TMPDIR/trees"
  rm "$HAL9000_HOME/filler"
  run -0 "$migrate" --yes
  in_volume plugins | diff "$BATS_TEST_TMPDIR/trees" -
}

@test "a volume that is full ends the copy, and the next run goes on" {
  small_home
  head -c 50000000 /dev/urandom >"$HAL9000_HOME/plugins/large"
  tree "$HAL9000_HOME/plugins" >"$BATS_TEST_TMPDIR/trees"
  docker volume create --label "hal9000.instance=$HAL9000_PREFIX" --opt type=tmpfs --opt device=tmpfs \
    --opt o=size=20m "$HAL9000_PREFIX-plugins"
  run -7 "$migrate" --yes
  [[ $output == *"The disk is full"* ]]
  docker volume rm "$HAL9000_PREFIX-plugins"
  docker volume create --label "hal9000.instance=$HAL9000_PREFIX" "$HAL9000_PREFIX-plugins"
  run -0 "$migrate" --yes
  in_volume plugins | diff "$BATS_TEST_TMPDIR/trees" -
}

@test "a --force that was killed while it emptied keeps the backup that it made" {
  small_home
  "$migrate" --yes >/dev/null
  "$claudy" daemon stop
  precious="docker run --rm --label hal9000.instance=$HAL9000_PREFIX --volume $HAL9000_PREFIX-plugins:/v --entrypoint"
  $precious touch "$HAL9000_IMAGE_REPO:parent" /v/precious
  broken_off_in empty --force
  [ -n "$(find "$HAL9000_HOME"/backups/pre-force-*/plugins -name precious)" ]
  run -0 "$migrate" --yes --force
  [ -n "$(find "$HAL9000_HOME"/backups/pre-force-*/plugins -name precious)" ]
  [ "$(in_volume plugins)" = "$(tree "$HAL9000_HOME/plugins")" ]
}

@test "what was written to the new data is not begun anew from the old" {
  small_home
  broken_off_in start
  "$claudy" daemon start >/dev/null
  echo new >"$HAL9000_HOME/memorybank/new.md"
  touch "$HAL9000_HOME/membank/one.md"
  run -0 "$migrate" --yes
  [ "$(cat "$HAL9000_HOME/memorybank/new.md")" = new ]
}

@test "a backup that is whole stays where the source has changed since" {
  small_home
  head -c 100000000 /dev/urandom >"$HAL9000_HOME/plugins/large"
  broken_off_in copy:plugins
  rm "$HAL9000_HOME/membank/one.md"
  run -0 "$migrate" --yes
  [ "$(cat "$HAL9000_HOME"/backups/pre-dind-*/membank/one.md)" = one ]
}

@test "what is written to the volumes during a rollback comes back with the next run" {
  small_home
  "$migrate" --yes >/dev/null
  head -c 100000000 /dev/urandom >"$HAL9000_HOME/memorybank/large"
  reached() { jq -e '.steps["copy:plugins"]' "$HAL9000_HOME/migration/journal.json"; }
  "$rollback" --yes >/dev/null 2>&1 &
  pid=$!
  until reached >/dev/null 2>&1; do kill -0 "$pid"; done
  kill -9 "$pid"
  echo late >"$HAL9000_HOME/memorybank/late.md"
  run -5 "$rollback" --yes
  [[ $output == *"Written to since it was copied"*late.md* ]]
  run -0 "$rollback" --yes
  [ "$(cat "$HAL9000_HOME/membank/late.md")" = late ]
  # And what was replaced on the way.
  [ "$(cat "$(find "$HAL9000_HOME"/backups/pre-rollback-*/membank -name one.md | head -1)")" = one ]
}

@test "a daemon that does not start on the new data can be rolled back" {
  small_home
  mkdir "$HAL9000_HOME/chromadb"
  echo garbage >"$HAL9000_HOME/chromadb/chroma.sqlite3"
  run timeout 90 "$migrate" --yes
  [ "$status" != 0 ]
  run -6 "$migrate" --abort --yes
  run -0 "$rollback" --yes
  [ "$(cat "$HAL9000_HOME/chromadb/chroma.sqlite3")" = garbage ]
  [ ! -e "$HAL9000_HOME/migration/journal.json" ]
}

@test "a link in the place of a directory is refused, and so are other options half-way" {
  small_home
  mv "$HAL9000_HOME/membank" "$BATS_TEST_TMPDIR/elsewhere"
  ln -s "$BATS_TEST_TMPDIR/elsewhere" "$HAL9000_HOME/membank"
  run -6 "$migrate" --yes
  [[ $output == *'membank" is a link'* ]]
  rm "$HAL9000_HOME/membank"
  mv "$BATS_TEST_TMPDIR/elsewhere" "$HAL9000_HOME/membank"
  broken_off_in copy:plugins
  run -2 "$migrate" --yes --skip-backup
  run -5 "$scripts/init-volumes.ts" --clean --yes
  "$migrate" --yes >/dev/null
  docker create --name "$HAL9000_PREFIX-mover" --entrypoint true "$HAL9000_IMAGE_REPO:parent"
  run -5 "$rollback" --yes
  docker rm "$HAL9000_PREFIX-mover"
}

# Every original is somewhere: in a directory, a volume or a backup.
originals_are_kept() {
  local text found
  # A file that ends without a newline is not to swallow the first line of the next.
  each() { for file in "$@"; do cat "$file" 2>/dev/null && echo; done | tr -d '\0'; }
  found=$(each "$HAL9000_HOME"/{membank,plugins,chromadb}/* "$HAL9000_HOME"/backups/*/{,volumes/}{membank,plugins,chromadb}/*
    docker volume ls --quiet --filter "name=$HAL9000_PREFIX-" | while read -r volume; do
      docker run --rm --network none --label "hal9000.instance=$HAL9000_PREFIX" --volume "$volume:/v:ro" \
        --entrypoint bash "$HAL9000_IMAGE_REPO:parent" -c "$(declare -f each); each /v/*"
    done)
  for text in "$@"; do
    grep -qaFx "$text" <<<"$found" || { echo "lost: $text" >&2; return 1; }
  done
}

# Runs commands by their letters, refused or not, and looks after each.
in_order() { # in_order LETTERS
  local letter originals=(membank-original plugins-original chromadb-original)
  rm -rf "${HAL9000_HOME:?}"/* # with what the test before has left
  mkdir -p "$HAL9000_HOME"/{membank,plugins,chromadb}
  for part in membank plugins chromadb; do echo "$part-original" >"$HAL9000_HOME/$part/file"; done
  while read -r -n 1 letter; do
    case $letter in
      d) "$claudy" daemon start ;;
      m) "$migrate" --yes ;;
      f) "$migrate" --yes --force ;;
      k) broken_off_in copy:plugins --force ;;
      a) "$migrate" --yes --abort ;;
      s) "$migrate" --yes --remove-source ;;
      r) "$rollback" --yes ;;
      v) "$rollback" --yes --keep-volumes ;;
      l) "$rollback" --yes --replace-local ;;
      i) "$scripts/init-volumes.ts" ;;
      c) "$claudy" daemon stop; "$scripts/init-volumes.ts" --clean --yes ;;
      p) "$claudy" prune --older-than 0 --yes ;;
      w)
        [ -d "$HAL9000_HOME/memorybank" ] || continue
        originals+=("written-${#originals[@]}")
        echo "${originals[-1]}" >"$HAL9000_HOME/memorybank/${#originals[@]}"
        ;;
    esac >"$BATS_TEST_TMPDIR/told" 2>&1 || true
    # A clean destroys what was added, as it says; the directories stay.
    [ "$letter" != c ] || originals=("${originals[@]:0:3}")
    originals_are_kept "${originals[@]}" || { echo "after $letter of $1" >&2; cat "$BATS_TEST_TMPDIR/told"; return 1; }
  done < <(printf %s "$1")
  remove_instance "$HAL9000_PREFIX"
}

@test "a rollback leaves directories alone that were never migrated" {
  small_home
  mkdir "$HAL9000_HOME/chromadb"
  echo former >"$HAL9000_HOME/chromadb/data.bin"
  local_trees "$HAL9000_HOME" >"$BATS_TEST_TMPDIR/source"
  "$claudy" daemon start >/dev/null
  run -0 "$rollback" --yes
  [[ $output == *"Left as they are"*"$HAL9000_HOME/membank"*"Rolled back: nothing"* ]]
  local_trees "$HAL9000_HOME" | diff "$BATS_TEST_TMPDIR/source" -
  [ -z "$(docker volume ls --quiet --filter "name=$HAL9000_PREFIX")" ]
  # What was added since is brought to where nothing is, and not put in the place of data.
  rm -r "$HAL9000_HOME/membank"
  "$claudy" daemon start >/dev/null
  echo new >"$HAL9000_HOME/memorybank/new.md"
  answers fill mine=5 >/dev/null
  run -6 "$rollback" --yes
  [[ $output == *"Never migrated, and the volumes hold other data: $HAL9000_HOME/chromadb"*--replace-local* ]]
  docker inspect "$parent" >/dev/null
  run -0 "$rollback" --yes --replace-local
  [ "$(cat "$HAL9000_HOME/membank/new.md")" = new ]
  [ "$(cat "$HAL9000_HOME"/backups/pre-rollback-*/chromadb/data.bin)" = former ]
  [ -e "$HAL9000_HOME/plugins/bin/two" ]
}

@test "no order of migrate, rollback, start, clean and prune loses an original" {
  # ORDERS=8 tries as many more that are made up.
  orders=(mrdr dwrp kpa vwcr)
  for _ in $(seq "${ORDERS:-0}"); do
    orders+=("$(tr -dc dmfkasrvlicpw </dev/urandom | head -c 8)")
  done
  for order in "${orders[@]}"; do in_order "$order"; done
}

# Kills a command after so many milliseconds, and waits until all of it has gone.
killed_after() { # killed_after MILLISECONDS COMMAND...
  "${@:2}" >/dev/null 2>&1 &
  local pid=$!
  sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"
  kill -9 "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

# Of the source and what comes of it, one is whole at any moment.
one_is_whole() {
  for part in membank plugins chromadb; do
    volume=${part/membank/memorybank}
    tree "$HAL9000_HOME/$part" >"$BATS_TEST_TMPDIR/now" 2>/dev/null || true
    cmp -s "$BATS_TEST_TMPDIR/$part" "$BATS_TEST_TMPDIR/now" && continue
    in_volume "$volume" >"$BATS_TEST_TMPDIR/now"
    cmp "$BATS_TEST_TMPDIR/$part" "$BATS_TEST_TMPDIR/now"
  done
}

# In a volume the files belong to ChromaDB's user.
data_bin() { grep -F data.bin | sed -E 's/^(\S+ f \S+) \S+ \S+ /\1 /'; }

@test "killed at random moments, migrate and rollback lose nothing" {
  small_home
  mkdir -p "$HAL9000_HOME/chromadb/segment"
  head -c 3000000 /dev/urandom >"$HAL9000_HOME/chromadb/segment/data.bin"
  for number in $(seq 1 300); do echo "$number" >"$HAL9000_HOME/plugins/file$number"; done
  # No chroma.sqlite3: ChromaDB would write to it, and rightly so.
  "$migrate" --yes >/dev/null
  "$rollback" --yes >/dev/null
  rm -rf "$HAL9000_HOME"/chromadb/chroma.sqlite3
  rm -rf "$HAL9000_HOME"/backups/*
  for part in membank plugins chromadb; do tree "$HAL9000_HOME/$part" >"$BATS_TEST_TMPDIR/$part"; done
  killed=0
  while [ "$killed" -lt "${KILLS:-6}" ]; do
    killed=$((killed + 1))
    killed_after $((RANDOM % 4500)) "$migrate" --yes
    one_is_whole
    "$migrate" --yes >/dev/null 2>"$BATS_TEST_TMPDIR/told" || grep -q "Volumes hold data already" "$BATS_TEST_TMPDIR/told"
    for part in membank plugins; do in_volume "${part/membank/memorybank}" | cmp - "$BATS_TEST_TMPDIR/$part"; done
    in_volume chromadb | data_bin | cmp - <(data_bin <"$BATS_TEST_TMPDIR/chromadb")
    killed_after $((RANDOM % 4500)) "$rollback" --yes
    "$rollback" --yes >/dev/null 2>"$BATS_TEST_TMPDIR/told" || grep -q "no volumes to roll back" "$BATS_TEST_TMPDIR/told"
    for part in membank plugins; do tree "$HAL9000_HOME/$part" | cmp - "$BATS_TEST_TMPDIR/$part"; done
    tree "$HAL9000_HOME/chromadb" | grep -F data.bin | cmp - <(grep -F data.bin "$BATS_TEST_TMPDIR/chromadb")
    [ ! -e "$HAL9000_HOME/migration/journal.json" ]
    rm -rf "$HAL9000_HOME/chromadb/chroma.sqlite3"
    tree "$HAL9000_HOME/chromadb" >"$BATS_TEST_TMPDIR/chromadb"
    rm -rf "$HAL9000_HOME"/backups/*
  done
}
