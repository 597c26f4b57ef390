# claudy upgrade, with programs of three versions: the instance's, a newer one, and a newer
# one whose parent does not start.
# shellcheck disable=SC2030,SC2031  # each test has its own session

load ../helper/load
load ../helper/sessions

older=$BATS_FILE_TMPDIR/older/package
newer=$BATS_FILE_TMPDIR/newer/package
broken=$BATS_FILE_TMPDIR/broken/package

# The instance is of the older version.
setup_file() {
  [ -d "$older" ] || make_programs
  "$older/dist/bin/build-images.js"
  "$older/dist/bin/claudy.js" daemon start
  start_stub
}

# Also builds their images, under other names: they are built once for all tests.
make_programs() {
  local program
  make_program 0.1.0 "${older%/*}"
  make_program 99.0.0 "${newer%/*}"
  cp -r "${newer%/*}" "${broken%/*}"
  sed -i '2i throw new Error("planted fault");' "$broken/dist/image/parent-entrypoint.js"
  for program in older newer broken; do
    HAL9000_IMAGE_REPO=$HAL9000_IMAGE_REPO-$program "${!program}/dist/bin/build-images.js"
  done
}

# make_program VERSION DIRECTORY: installs the npm package of this checkout as another version.
make_program() {
  local source=$2/source
  mkdir -p "$source"
  git -C "$repo" ls-files -z --cached --others --exclude-standard -- docker docs lib man scripts '*.sh' '*.md' '*.json' .npmrc LICENSE |
    tar -C "$repo" --null --files-from=- -c | tar -C "$source" -x
  jq --arg version "$1" '.version = $version' "$repo/package.json" >"$source/package.json"
  printf '# Changelog\n\n## [99.0.0] - 2099-01-01\n\n- Planted news\n\n## [0.1.0] - 2020-01-01\n\n- Old news\n' >"$source/CHANGELOG.md"
  ln -s "$repo/node_modules" "$source/node_modules"
  (cd "$source" && npm pack --silent)
  tar -C "$2" -xzf "$source"/*.tgz
  ln -s "$repo/node_modules" "$2/package/node_modules"
  rm -r "$source"
}

teardown_file() { stop_stub; }

setup() { use_stub; }

teardown() {
  after_failure
  stop_workers
}

upgrade() { "$1/dist/bin/claudy.js" upgrade "${@:2}"; }
parent_version() { inspect "$parent" '{{index .Config.Labels "org.opencontainers.image.version"}}'; }
images() { docker images --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' | grep "^${HAL9000_IMAGE_REPO}[:-]" | sort; }
leftovers() { docker ps --all --format '{{.Names}}' | grep "^$parent-former" || images | grep -E -- '-(next|former):'; }

# ask NAME: opens a session and a turn in it that ends with release().
ask() {
  session=$("$older/dist/bin/claudy.js" --detach "$(make_project "$1")" -- --permission-mode bypassPermissions)
  wait_for_screen 30 "$session" '❯'
  typed "$session" "HOLD $1 go on" Enter
  wait_for 20 grep -q "HOLD $1" "$HAL9000_TEST_ROOT/session-stub/requests"
}
release() { touch "$HAL9000_TEST_ROOT/session-stub/requests.$1"; }

@test "an upgrade replaces the parent under sessions in the middle of a turn" {
  "$older/dist/bin/claudy.js" pool start --min-warm 1 --max-warm 1
  warm() { docker ps --format '{{.Names}}' | grep "^$HAL9000_PREFIX-warm-"; }
  wait_for 20 warm
  former_warm=$(warm)
  for name in one two three; do ask "$name"; eval "$name=\$session"; done
  wait_for 20 warm
  tmux -L "up-$$" -f /dev/null new-session -d -x 100 -y 30 "exec $older/dist/bin/claudy.js attach $three"
  session=$three
  attached() { ! detached; }
  wait_for 10 attached
  http "$one" POST /api/v2/tenants/default_tenant/databases/default_database/collections '{"name":"kept"}'
  before=$(docker inspect --format '{{.Id}} {{.State.Pid}}' "$one" "$two" "$three" "$net")

  run -0 "$newer/dist/bin/claudy.js" doctor --json
  [ "$(jq -r '.[] | select(.name == "parent").mend' <<<"$output")" = "claudy upgrade" ]
  run -0 upgrade "$newer" --json
  [[ $output == *"Upgrading from 0.1.0"*"to 99.0.0"*"Planted news"* ]]
  [[ $output != *"Old news"* ]]
  for name in "$one" "$two" "$three"; do [[ $output == *"$name"* ]]; done
  [ "$(parent_version)" = 99.0.0 ]
  run ! leftovers

  for name in one two three; do release "$name"; done
  for name in one two three; do wait_for_screen 20 "${!name}" "echo: HOLD $name go on"; done
  [ "$(docker inspect --format '{{.Id}} {{.State.Pid}}' "$one" "$two" "$three" "$net")" = "$before" ]
  attached
  tmux -L "up-$$" kill-server
  http "$one" GET /api/v2/tenants/default_tenant/databases/default_database/collections | grep -q kept
  # The pool has warm workers of the new image only.
  wait_for 20 warm
  [ "$(warm)" != "$former_warm" ]
  [ "$(inspect "$(warm)" '{{index .Config.Labels "org.opencontainers.image.version"}}')" = 99.0.0 ]

  parent_before=$(inspect "$parent" '{{.Id}} {{.State.StartedAt}}')
  run -0 upgrade "$newer"
  [[ $output == *"Nothing to do"* ]]
  [ "$(inspect "$parent" '{{.Id}} {{.State.StartedAt}}')" = "$parent_before" ]
  run -6 upgrade "$older"
  [[ $output == *"newer than this program's 0.1.0"*"--allow-downgrade"* ]]
  # A session gets the new image when it is opened again.
  "$newer/dist/bin/claudy.js" stop "$one"
  "$newer/dist/bin/claudy.js" --detach "$(make_project one)"
  [ "$(inspect "$one" '{{index .Config.Labels "org.opencontainers.image.version"}}')" = 99.0.0 ]
  "$newer/dist/bin/claudy.js" pool stop
  run -0 upgrade "$older" --allow-downgrade
  [ "$(parent_version)" = 0.1.0 ]
}

@test "goes back to the former parent if the new one does not start" {
  ask held
  before=$(inspect "$parent" '{{.Id}}')
  images=$(images)
  run -1 upgrade "$broken"
  [[ $output == *"planted fault"*"the former one runs again"* ]]
  [ "$(inspect "$parent" '{{.Id}} {{.State.Running}} {{.HostConfig.RestartPolicy.Name}}')" = "$before true always" ]
  [ "$(images)" = "$images" ]
  run ! leftovers
  heartbeat "$session"
  release held
  wait_for_screen 20 "$session" "echo: HOLD held go on"
}

@test "an upgrade that was killed is finished or undone by the next one" {
  kept() { images | grep -e '-former:'; }
  aside() { docker inspect "$parent-former"; }
  started() { aside && [ "$(inspect "$parent" '{{.State.Running}}')" = true ]; }
  while read -r killed point next; do
    # Not a function: the shell that runs it would be killed instead.
    "${!killed}/dist/bin/claudy.js" upgrade --allow-downgrade >"$BATS_TEST_TMPDIR/out" 2>&1 &
    wait_for 60 "$point"
    kill -9 $!
    status=0
    wait $! || status=$?
    [ "$status" = 137 ]
    run -0 upgrade "${!next}" --allow-downgrade
    [ "$(parent_version)" = "$(jq -r .version "${!next}/package.json")" ]
    run ! leftovers
  done <<'POINTS'
newer kept newer
older aside older
broken aside newer
older started older
POINTS
  heartbeat "$parent"
}
