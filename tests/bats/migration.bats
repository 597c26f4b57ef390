# Migration from version 0.5 and rollback: data of the real ChromaDB, a memory bank,
# plugins and sessions, in a separate instance.

# shellcheck disable=SC2030,SC2031  # each test has its own home

bats_require_minimum_version 1.5.0
load ../helper/load
load ../helper/migration

@test "--dry-run shows what would be moved and changes nothing" {
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

@test "ChromaDB returns the migrated data, and rollback returns it with what was added" {
  former_home
  local_trees "$HAL9000_HOME" >"$BATS_TEST_TMPDIR/source"
  run -0 --separate-stderr "$migrate" --yes --json
  [ "$(jq -c '.collections | map(.count)' <<<"$output")" = '[3000,1990,10]' ]
  [ "$(jq .sessions <<<"$output")" = 20 ]
  answers | cmp - "$BATS_FILE_TMPDIR/before"
  # The source is unchanged, and the backup equals it.
  local_trees "$HAL9000_HOME" | diff "$BATS_TEST_TMPDIR/source" -
  local_trees "$(echo "$HAL9000_HOME"/backups/pre-dind-*)" | diff "$BATS_TEST_TMPDIR/source" -
  in_volume plugins | diff <(tree "$HAL9000_HOME/plugins") -
  [ "$("$claudy" sessions --json | jq length)" = 20 ]

  answers fill alpha=50 delta=7 >"$BATS_TEST_TMPDIR/after"
  [ "$(jq -c 'map(.count)' "$BATS_TEST_TMPDIR/after")" = '[3050,1990,7,10]' ]
  run -6 "$rollback"
  run -0 "$rollback" --yes
  [[ $output == *"Volumes removed: $HAL9000_PREFIX-chromadb, $HAL9000_PREFIX-memorybank, $HAL9000_PREFIX-plugins"* ]]
  [ -z "$(docker volume ls --quiet --filter "name=$HAL9000_PREFIX")" ]
  # The replaced directories are kept in a backup and equal the source.
  local_trees "$(echo "$HAL9000_HOME"/backups/pre-rollback-*)" | diff "$BATS_TEST_TMPDIR/source" -
  run -0 --separate-stderr "$rollback" --list-backups --verify --json
  [ "$(jq -c 'map([.name[0:7], .whole])' <<<"$output")" = '[["pre-rol",true],["pre-din",true]]' ]
  # The local directory contains old and new data.
  chroma_on "$HAL9000_HOME/chromadb" query
  cmp "$BATS_FILE_TMPDIR/answers" "$BATS_TEST_TMPDIR/after"
}

@test "the trees are equal after each of two migrations and rollbacks" {
  former_home
  for round in 1 2; do
    local_trees "$HAL9000_HOME" >"$BATS_TEST_TMPDIR/source"
    "$scripts/migrate-to-dind.sh" --yes >/dev/null
    local_trees "$(find "$HAL9000_HOME/backups" -name 'pre-dind-*' | sort | tail -1)" | diff "$BATS_TEST_TMPDIR/source" -
    # ChromaDB writes while it runs, so compare after it has stopped.
    "$claudy" daemon stop
    # ChromaDB has its own user (65431); rollback gives the files to the home's owner.
    volume_trees | sed "s/ 65431 65431 / $(id -u) $(id -g) /" >"$BATS_TEST_TMPDIR/volumes"
    for part in membank plugins; do
      in_volume "${part/membank/memorybank}" | diff <(tree "$HAL9000_HOME/$part") -
    done
    "$scripts/rollback-dind.sh" --yes >/dev/null
    local_trees "$HAL9000_HOME" | diff "$BATS_TEST_TMPDIR/volumes" - || { echo "in round $round" >&2; false; }
    chroma_on "$HAL9000_HOME/chromadb" query
    cmp "$BATS_FILE_TMPDIR/answers" "$BATS_FILE_TMPDIR/before"
  done
}

@test "finds a session by its name in version 0.5" {
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

@test "copies names of any bytes, sparse files, hard links, pipes and sockets" {
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
  # The manifest stores names that are not UTF-8 in base64.
  jq -r '.entries[].pathBase64 // empty' "$HAL9000_HOME"/backups/*/manifest.json | grep -qx "$(printf 'plugins/no\xffutf8\xfe' | base64)"
  "$rollback" --yes >/dev/null
  tree "$HAL9000_HOME/plugins" | diff "$BATS_TEST_TMPDIR/trees" -
  [ "$(stat -c %h "$HAL9000_HOME/plugins/first")" = 3 ]
}

@test "refuses a device without changing anything" {
  small_home
  as_root mknod "$HAL9000_HOME/plugins/device" c 1 3 || skip "a device needs root, or sudo without a password"
  run -1 "$migrate" --yes
  [[ $output == *'Cannot move "device"'* ]]
  [ -z "$(docker volume ls --quiet --filter "name=$HAL9000_PREFIX")" ]
  run -4 "$migrate" --yes --abort
  [ "$(find "$HAL9000_HOME" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | xargs)" = "membank plugins run" ]
}

@test "reports a file that changes while it is read; the next run succeeds" {
  small_home
  head -c 300000000 /dev/urandom >"$HAL9000_HOME/membank/large"
  # By rename, so that no process has the file open.
  while :; do
    echo "$RANDOM" >"$BATS_TEST_TMPDIR/new" && mv "$BATS_TEST_TMPDIR/new" "$HAL9000_HOME/membank/one.md"
    sleep 0.05
  done &
  writer=$!
  run "$migrate" --yes
  kill "$writer"
  [ "$status" = 5 ]
  [[ $output == *"membank/one.md\" changed while it was read"* ]]
  run -0 "$migrate" --yes
  [ "$(in_volume memorybank)" = "$(tree "$HAL9000_HOME/membank")" ]
}

@test "reads the source again if it has changed since an interrupted run" {
  small_home
  broken_off_in copy:plugins
  echo changed >"$HAL9000_HOME/membank/one.md"
  run -0 "$migrate" --yes --resume
  [[ $output == *"Changed since the last run"* ]]
  [ "$(in_volume memorybank)" = "$(tree "$HAL9000_HOME/membank")" ]
}

@test "an interrupted migration can be aborted, and blocks the daemon until then" {
  small_home
  head -c 100000000 /dev/urandom >"$HAL9000_HOME/plugins/large"
  tree "$HAL9000_HOME/plugins" >"$BATS_TEST_TMPDIR/trees"
  broken_off_in copy:plugins
  run -5 "$claudy" daemon start
  [[ $output == *"A migration has not finished"*"migrate --abort"* ]]
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

@test "keeps volumes that hold data, or moves it into a backup with --force" {
  small_home
  "$claudy" daemon start >/dev/null
  answers fill mine=5 >/dev/null
  "$claudy" daemon stop
  run -6 "$migrate" --yes
  [[ $output == *"Volumes already contain data: $HAL9000_PREFIX-chromadb"*--force* ]]
  mkdir "$HAL9000_HOME/chromadb"
  # After an aborted --force the volumes contain the same data as before.
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

@test "reports containers and processes that write to the data, without waiting" {
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
  [[ $output == *"The MCP gateway is running"*"claudy mcp stop"* ]]
  run -5 "$rollback" --yes
  "$claudy" mcp stop
  run -0 "$migrate" --dry-run
}

@test "only one migration or rollback runs at a time" {
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

@test "--skip-backup makes no backup; --remove-source requires one and an unchanged source" {
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
  # rollback restores the removed directories from the volumes.
  "$rollback" --yes >/dev/null
  [ "$(cat "$HAL9000_HOME/membank/one.md")" = one ]
}

@test "restores a backup by name, and refuses a damaged backup with the reason" {
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
  [[ $output == *"$backup"*complete*"20200101T000000Z"*DAMAGED* ]]
  run -4 "$rollback" --yes --backup nonsense
  mkdir "$HAL9000_HOME/backups/pre-dind-20210101T000000Z"
  run -6 "$rollback" --yes --backup "$HAL9000_HOME/backups/pre-dind-20210101T000000Z"
  run -0 "$rollback" --yes --backup "$HAL9000_HOME/backups/$backup"
  [ "$(cat "$HAL9000_HOME/membank/one.md")" = one ]
  [ ! -e "$HAL9000_HOME/membank/today.md" ]
  # The current data was saved in a separate backup.
  [ "$(cat "$HAL9000_HOME"/backups/pre-rollback-*/volumes/membank/today.md)" = today ]
}

@test "--keep-volumes keeps the volumes" {
  small_home
  "$migrate" --yes >/dev/null
  run -0 "$rollback" --yes --keep-volumes
  [ "$(in_volume plugins | grep -c two)" -ge 1 ]
  run -6 "$migrate" --yes
  run -0 "$rollback" --list-backups
  [[ $output == *pre-rollback-* ]]
}

@test "lists, checks and restores a backup of the original script, in a home with only that" {
  local name=pre-dind-20260125-000000
  local backup=$HAL9000_HOME/backups/$name
  mkdir -p "$backup"/{chromadb,membank/app,plugins}
  echo "test data" >"$backup/chromadb/test.db"
  echo "# Notes" >"$backup/membank/app/notes.md"
  chmod 0600 "$backup/membank/app/notes.md"
  touch -d "2025-02-03 04:05:06.123456789" "$backup/membank/app/notes.md" "$backup/membank"
  jq -n --arg home "$HAL9000_HOME" '{created_at: "2026-01-25T00:00:00-08:00", hal9000_home: $home,
    source_version: "v0.5.x", target_version: "v0.6.x"}' >"$backup/manifest.json"
  tree "$backup" >"$BATS_TEST_TMPDIR/backup"
  run -0 "$scripts/rollback-dind.sh" --list-backups --verify
  [[ $output == *"$name"*"chromadb, membank, plugins"*"readable, has no checksums"* ]]
  # There is no other data, so it needs no name.
  run -0 "$scripts/rollback-dind.sh" --force --keep-volumes
  for part in chromadb membank plugins; do tree "$HAL9000_HOME/$part" | diff <(tree "$backup/$part") -; done
  tree "$backup" | cmp - "$BATS_TEST_TMPDIR/backup"
  [ "$(ls "$HAL9000_HOME/backups")" = $name ]
  # Restored over existing data, which becomes a backup.
  echo newer >"$HAL9000_HOME/membank/app/notes.md"
  run -4 "$rollback" --yes
  [[ $output == *"No volumes to roll back from"*"rollback --list-backups"* ]]
  run -0 "$rollback" --yes --backup "$backup"
  tree "$HAL9000_HOME/membank" | diff <(tree "$backup/membank") -
  [ "$(cat "$HAL9000_HOME"/backups/pre-rollback-*/membank/app/notes.md)" = newer ]
  head -c 4096 /dev/urandom >"$backup/chromadb/chroma.sqlite3"
  run -6 "$rollback" --yes --backup "$name"
  [[ $output == *"is damaged: chromadb/chroma.sqlite3: not a readable database"* ]]
}

@test "migrates a home that has only sessions, and rolls it back byte for byte" {
  echo '{"cwd":"/workspace"}' >"$BATS_TEST_TMPDIR/conversation"
  local one=$HAL9000_PROJECT_ROOTS/real1 two=$HAL9000_PROJECT_ROOTS/real2 names
  real_home "$one" "$two"
  names=$(ls "$HAL9000_HOME/claude")
  homes() { ls -A "$HAL9000_HOME"; session_trees; }
  homes >"$BATS_TEST_TMPDIR/before"
  run -0 --separate-stderr "$migrate" --dry-run --json
  [ "$(jq -c '[.sessions[], .conversations.count, .conversations.unassigned]' <<<"$output" | tr -d '"')" = \
    "[${names//$'\n'/,},2,[]]" ]
  homes | cmp - "$BATS_TEST_TMPDIR/before"
  run -0 --separate-stderr "$migrate" --yes --json
  [ "$(jq -c '[.sessions, .conversations, .credentials]' <<<"$output")" = '[2,2,["key"]]' ]
  [[ $(jq -r '.left[]' <<<"$output") == "hooks: they run programs"* ]]
  [[ $output$stderr != *sk-ant-api03* ]]
  [ "$(cat "$HAL9000_HOME/secrets/anthropic_key")" = sk-ant-api03-former ]
  for project in real1 real2; do
    cd "$HAL9000_HOME"/claude/claudy-$project-*
    [ "$(ls projects/-workspace)" = $project.jsonl ]
    [ "$(cat settings.json agents/reviewer.md | jq -R -s -c .)" = '"{\n  \"model\": \"opus\"\n}\nreview\n"' ]
    [ "$(stat -c %u projects/-workspace/$project.jsonl)" = "$(id -u)" ]
  done
  cd "$HAL9000_HOME"
  run -0 "$rollback" --yes
  [[ $output == *"Rolled back: nothing"* ]]
  homes | grep -vxE 'backups|caches|config|logs|memorybank|migration|pool|run|secrets|sessions|usage|workers|workspaces' | diff <(grep -vx run "$BATS_TEST_TMPDIR/before") -
}

@test "resumes a session of version 0.5, and runs it without a parent after a rollback" {
  local project=$HAL9000_PROJECT_ROOTS/real3 id=11111111-2222-4333-8444-555555555555
  # With the path of the host, which the CLI has to accept in the worker.
  jq -n -c --arg cwd "$project" --arg id $id '{isSidechain: false, userType: "external", cwd: $cwd, sessionId: $id,
      version: "2.1.19", gitBranch: ""} as $common
    | $common + {parentUuid: null, type: "user", uuid: "11111111-0000-4000-8000-000000000001",
        timestamp: "2026-01-25T18:00:00.000Z", message: {role: "user", content: "from version five"}},
      $common + {parentUuid: "11111111-0000-4000-8000-000000000001", type: "assistant",
        uuid: "11111111-0000-4000-8000-000000000002", timestamp: "2026-01-25T18:00:01.000Z", requestId: "r",
        message: {id: "m", type: "message", role: "assistant", model: "claude-opus-4-5", stop_reason: "end_turn",
          stop_sequence: null, usage: {input_tokens: 1, output_tokens: 1},
          content: [{type: "text", text: "echo: from version five"}]}}' >"$BATS_TEST_TMPDIR/conversation"
  real_home "$project" "$HAL9000_PROJECT_ROOTS/real4"
  local shared=$HAL9000_HOME/claude/.shared-config/projects/-workspace
  as_root mv "$shared/real3.jsonl" "$shared/$id.jsonl"
  as_root sed -i '$d' "$shared/$id.jsonl"
  mkdir "$HAL9000_HOME/membank"
  echo "# Read me" >"$HAL9000_HOME/membank/readme.md"
  "$migrate" --yes >/dev/null
  load ../helper/load # for this test's instance
  load ../helper/sessions
  start_stub
  use_stub
  open "$project"
  wait_for_screen 20 "$session" "echo: from version five"
  typed "$session" "from today" Enter
  wait_for_screen 20 "$session" "echo: from today"
  stop_stub
  # rollback stops the session; version 0.5 has its conversation, too.
  "$rollback" --yes >/dev/null
  [ -z "$(docker ps --all --quiet --filter "label=hal9000.instance=$HAL9000_PREFIX")" ]
  as_root grep -q "from today" "$shared/$id.jsonl"
  [ "$(as_root ls "$shared" | wc -l)" = 2 ]
  run -0 --separate-stderr "$claudy" --legacy --detach --json "$project"
  [ "$(jq -r .session <<<"$output")" = "$session" ]
  [ "$(jq -r .conversation <<<"$output")" = resumed ]
  wait_for_screen 15 "$session" "echo: from today"
  [ "$(docker exec "$session" cat /data/membank/readme.md)" = "# Read me" ]
  "$claudy" stop "$session"
}
