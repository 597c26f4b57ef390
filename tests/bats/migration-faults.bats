# Failing migrations and rollbacks: full disks, kills, concurrent changes, and commands in
# any order.

# shellcheck disable=SC2030,SC2031  # each test has its own home

bats_require_minimum_version 1.5.0
load ../helper/load
load ../helper/migration

small_disk() { # small_disk SIZE: mounts a small file system as the home
  as_root mount -t tmpfs -o "size=$1,uid=$(id -u),gid=$(id -g)" none "$HAL9000_HOME" || skip "mounting needs root, or sudo without a password"
}

@test "reports too little disk space before any change" {
  small_disk 30m
  small_home
  head -c 20000000 /dev/urandom >"$HAL9000_HOME/plugins/large"
  tree "$HAL9000_HOME" >"$BATS_TEST_TMPDIR/trees"
  run -7 "$migrate" --yes
  [[ $output == *"Not enough disk space at $HAL9000_HOME: "*" needed, "*" free"* ]]
  tree "$HAL9000_HOME" | cmp - "$BATS_TEST_TMPDIR/trees"
}

@test "stops when the disk fills up during the backup, and the next run continues" {
  small_disk 300m
  small_home
  head -c 100000000 /dev/urandom >"$HAL9000_HOME/plugins/large"
  tree "$HAL9000_HOME/plugins" >"$BATS_TEST_TMPDIR/trees"
  fill() {
    until [ -e "$HAL9000_HOME/migration/journal.json" ]; do sleep 0.01; done
    head -c 400000000 /dev/zero >"$HAL9000_HOME/filler" 2>/dev/null || true
  }
  fill &
  run -7 "$migrate" --yes
  [[ $output == *"The disk is full"*again* ]]
  tree "$HAL9000_HOME/plugins" | cmp - "$BATS_TEST_TMPDIR/trees"
  rm "$HAL9000_HOME/filler"
  run -0 "$migrate" --yes
  in_volume plugins | diff "$BATS_TEST_TMPDIR/trees" -
}

@test "stops when a volume is full, and the next run continues" {
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

@test "keeps the backup when --force is killed while it empties the volumes" {
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

@test "does not overwrite newly written data from the old source" {
  small_home
  broken_off_in start
  "$claudy" daemon start >/dev/null
  echo new >"$HAL9000_HOME/memorybank/new.md"
  touch "$HAL9000_HOME/membank/one.md"
  run -0 "$migrate" --yes
  [ "$(cat "$HAL9000_HOME/memorybank/new.md")" = new ]
}

@test "keeps a complete backup if the source has changed since" {
  small_home
  head -c 100000000 /dev/urandom >"$HAL9000_HOME/plugins/large"
  broken_off_in copy:plugins
  rm "$HAL9000_HOME/membank/one.md"
  run -0 "$migrate" --yes
  [ "$(cat "$HAL9000_HOME"/backups/pre-dind-*/membank/one.md)" = one ]
}

@test "the next rollback includes data written to the volumes during an interrupted one" {
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
  [[ $output == *"Volumes changed since they were copied"*late.md* ]]
  run -0 "$rollback" --yes
  [ "$(cat "$HAL9000_HOME/membank/late.md")" = late ]
  # Replaced data is in the backup too.
  [ "$(cat "$(find "$HAL9000_HOME"/backups/pre-rollback-*/membank -name one.md | head -1)")" = one ]
}

@test "rolls back if the daemon does not start on the new data" {
  small_home
  mkdir "$HAL9000_HOME/chromadb"
  echo garbage >"$HAL9000_HOME/chromadb/chroma.sqlite3"
  run -1 timeout 90 "$migrate" --yes
  [[ $output == *"ChromaDB does not start: it ends each time"*chromadb.log* ]]
  run -6 "$migrate" --abort --yes
  run -0 "$rollback" --yes
  [ "$(cat "$HAL9000_HOME/chromadb/chroma.sqlite3")" = garbage ]
  [ ! -e "$HAL9000_HOME/migration/journal.json" ]
}

@test "refuses a link instead of a directory, and other options when resuming" {
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

# Checks that every original exists in a directory, a volume or a backup.
originals_are_kept() {
  local text found
  # Adds a newline, so that files without one are not joined to the next.
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

# Runs the commands that the letters stand for, refused or not, and checks after each.
in_order() { # in_order LETTERS
  local letter originals=(membank-original plugins-original chromadb-original)
  rm -rf "${HAL9000_HOME:?}"/* # left by the previous test
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
    # --clean deletes added data, as announced; the directories stay.
    [ "$letter" != c ] || originals=("${originals[@]:0:3}")
    originals_are_kept "${originals[@]}" || { echo "after $letter of $1" >&2; cat "$BATS_TEST_TMPDIR/told"; return 1; }
  done < <(printf %s "$1")
  remove_instance "$HAL9000_PREFIX"
}

@test "rollback keeps directories that were never migrated" {
  small_home
  mkdir "$HAL9000_HOME/chromadb"
  echo former >"$HAL9000_HOME/chromadb/data.bin"
  local_trees "$HAL9000_HOME" >"$BATS_TEST_TMPDIR/source"
  "$claudy" daemon start >/dev/null
  run -0 "$rollback" --yes
  [[ $output == *"Not migrated, left unchanged"*"$HAL9000_HOME/membank"*"Rolled back: nothing"* ]]
  local_trees "$HAL9000_HOME" | diff "$BATS_TEST_TMPDIR/source" -
  [ -z "$(docker volume ls --quiet --filter "name=$HAL9000_PREFIX")" ]
  # Added data replaces a missing directory but never existing data.
  rm -r "$HAL9000_HOME/membank"
  "$claudy" daemon start >/dev/null
  echo new >"$HAL9000_HOME/memorybank/new.md"
  answers fill mine=5 >/dev/null
  run -6 "$rollback" --yes
  [[ $output == *"Never migrated, but the volumes contain other data: $HAL9000_HOME/chromadb"*--replace-local* ]]
  docker inspect "$parent" >/dev/null
  run -0 "$rollback" --yes --replace-local
  [ "$(cat "$HAL9000_HOME/membank/new.md")" = new ]
  [ "$(cat "$HAL9000_HOME"/backups/pre-rollback-*/chromadb/data.bin)" = former ]
  [ -e "$HAL9000_HOME/plugins/bin/two" ]
}

# bats test_tags=soak
@test "loses no original in any order of migrate, rollback, start, clean and prune" {
  orders=(mrdr dwrp kpa vwcr)
  # A soak also uses random orders.
  for _ in $(seq 2 "$soak"); do
    orders+=("$(tr -dc dmfkasrvlicpw </dev/urandom | head -c 8)")
  done
  for order in "${orders[@]}"; do in_order "$order"; done
}

# Kills a command after that many milliseconds, and waits for its end.
killed_after() { # killed_after MILLISECONDS COMMAND...
  "${@:2}" >/dev/null 2>&1 &
  local pid=$!
  sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"
  kill -9 "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

# Succeeds if the command does, or fails with that text. Shows what else it wrote.
or_told() { # or_told TEXT COMMAND...
  "${@:2}" >/dev/null 2>"$BATS_TEST_TMPDIR/told" && return
  grep -qF "$1" "$BATS_TEST_TMPDIR/told" && return
  cat "$BATS_TEST_TMPDIR/told"
  return 1
}

# Checks that for each part the source or its copy is complete.
one_is_whole() {
  for part in membank plugins chromadb; do
    volume=${part/membank/memorybank}
    tree "$HAL9000_HOME/$part" >"$BATS_TEST_TMPDIR/now" 2>/dev/null || true
    cmp -s "$BATS_TEST_TMPDIR/$part" "$BATS_TEST_TMPDIR/now" && continue
    in_volume "$volume" >"$BATS_TEST_TMPDIR/now"
    cmp "$BATS_TEST_TMPDIR/$part" "$BATS_TEST_TMPDIR/now"
  done
}

# Ignores owners: files in a volume belong to ChromaDB's user.
data_bin() { grep -F data.bin | sed -E 's/^(\S+ f \S+) \S+ \S+ /\1 /'; }

# bats test_tags=soak
@test "migrate and rollback lose nothing when killed at random moments" {
  small_home
  echo '{"cwd":"/workspace"}' >"$BATS_TEST_TMPDIR/conversation"
  real_home "$HAL9000_PROJECT_ROOTS"/real{1,2}
  session_trees >"$BATS_TEST_TMPDIR/sessions"
  mkdir -p "$HAL9000_HOME/chromadb/segment"
  head -c 3000000 /dev/urandom >"$HAL9000_HOME/chromadb/segment/data.bin"
  for number in $(seq 1 300); do echo "$number" >"$HAL9000_HOME/plugins/file$number"; done
  # No chroma.sqlite3, because ChromaDB would write to it.
  "$migrate" --yes >/dev/null
  "$rollback" --yes >/dev/null
  rm -rf "$HAL9000_HOME"/chromadb/chroma.sqlite3
  rm -rf "$HAL9000_HOME"/backups/*
  session_trees | cmp - "$BATS_TEST_TMPDIR/sessions"
  for part in membank plugins chromadb; do tree "$HAL9000_HOME/$part" >"$BATS_TEST_TMPDIR/$part"; done
  for _ in $(seq "$soak"); do
    killed_after $((RANDOM % 4500)) "$migrate" --yes
    one_is_whole
    or_told "Volumes already contain data" "$migrate" --yes
    for part in membank plugins; do in_volume "${part/membank/memorybank}" | cmp - "$BATS_TEST_TMPDIR/$part"; done
    in_volume chromadb | data_bin | cmp - <(data_bin <"$BATS_TEST_TMPDIR/chromadb")
    [ "$(find "$HAL9000_HOME"/claude/claudy-real*/projects/-workspace -name 'real?.jsonl' -size +0 | wc -l)" = 2 ]
    killed_after $((RANDOM % 4500)) "$rollback" --yes
    or_told "No volumes to roll back" "$rollback" --yes
    for part in membank plugins; do tree "$HAL9000_HOME/$part" | cmp - "$BATS_TEST_TMPDIR/$part"; done
    tree "$HAL9000_HOME/chromadb" | grep -F data.bin | cmp - <(grep -F data.bin "$BATS_TEST_TMPDIR/chromadb")
    session_trees | cmp - "$BATS_TEST_TMPDIR/sessions"
    [ ! -e "$HAL9000_HOME/migration/journal.json" ]
    rm -rf "$HAL9000_HOME/chromadb/chroma.sqlite3"
    tree "$HAL9000_HOME/chromadb" >"$BATS_TEST_TMPDIR/chromadb"
    rm -rf "$HAL9000_HOME"/backups/*
  done
}
