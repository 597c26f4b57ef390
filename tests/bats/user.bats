# As an unprivileged user in the docker group, with a home that is closed to others: most
# runs are root's, which hides errors of ownership.

load ../helper/load

# Each run has its own user.
user=${HAL9000_PREFIX/hal9000-test/hal9000-tester}
instance=$HAL9000_PREFIX-user
home=/home/$user
app=$home/app

# The user runs a separate copy of the checkout, because the original may be in a home that
# other users cannot enter.
setup_file() {
  need_root
  as_root userdel --remove --force "$user" 2>/dev/null || true
  as_root useradd --create-home --groups docker --shell /bin/bash "$user"
  as_root mkdir "$home/checkout" "$app"
  { git -C "$repo" ls-files -z --cached --others --exclude-standard && printf 'node_modules\0'; } |
    tar --create --directory "$repo" --null --files-from=- |
    as_root tar --extract --no-same-owner --directory "$home/checkout"
  as_root chown -R "$user:" "$home"
  as_root chmod 0700 "$home"
}

teardown_file() {
  as_root true 2>/dev/null || return 0
  remove_instance "$instance"
  remove_instance "$instance-move"
  as_root userdel --remove --force "$user" 2>/dev/null
}

setup() { as_user scripts/claudy.ts daemon start >/dev/null; }

teardown() {
  if [ -z "$BATS_TEST_COMPLETED" ]; then
    end_processes
    teardown_file
    setup_file
  else
    as_user scripts/coordinator.ts stop-all --yes || true
  fi
}

as_user() {
  as_root runuser -u "$user" -- env -i -C "$home/checkout" HOME="$home" PATH="$PATH" \
    HAL9000_PREFIX="$instance" HAL9000_IMAGE_REPO="$HAL9000_IMAGE_REPO" "$@"
}
in_parent() { as_user docker exec "$instance-parent" "$@"; }

owner() { as_root stat -c %U "$1"; }

# Ignores sockets: they belong to nsenter (root) or the services, in directories of
# the user.
foreign() { as_root find "$home/.hal9000" ! -user "$user" ! -type s; }

@test "make up starts a worker on the user's project" {
  run -0 as_user make up PROJECT="$app"
  [[ $output == *"runs on $app"* ]]
  [ -z "$(foreign)" ]
  [ "$(as_root stat -c '%a %U' "$home/.hal9000")" = "700 $user" ]
}

@test "spawn in the parent works for the user and leaves no files of root" {
  run -0 in_parent /scripts/spawn-worker -d -n user-worker-$$ "$app"
  [ -z "$(foreign)" ]
  docker exec user-worker-$$ touch /workspace/made "/home/claude/.claude/made"
  [ "$(owner "$app/made")" = "$user" ]
  run -0 as_user scripts/coordinator.ts list
  [[ $output == *user-worker-$$* ]]
}

@test "spawn on the host and stop on both sides work for the user" {
  for name in host-worker-$$ user-worker-$$; do as_user scripts/spawn-worker.ts -d -n "$name" "$app"; done
  in_parent /scripts/coordinator stop host-worker-$$
  as_user scripts/coordinator.ts stop user-worker-$$
  [ -z "$(foreign)" ]
  as_user rm -r "$home/.hal9000/logs"
}

@test "refuses another owner's project on the host, with a workaround" {
  as_root mkdir -p "$home/roots-own"
  run -6 as_user scripts/spawn-worker.ts -d -n refused-root-$$ "$home/roots-own"
  [[ $output == *"belongs to uid 0, not to you"* ]]
  [[ $output == *"docker exec"* ]]
}

@test "every command works for the user" {
  as_user scripts/spawn-worker.ts -d -n all-$$ "$app"
  [ "$(as_user scripts/coordinator.ts count)" -ge 1 ]
  for words in list status stats "logs all-$$"; do
    # shellcheck disable=SC2086  # words of a command
    as_user scripts/coordinator.ts $words
  done
  as_user scripts/claudy.ts daemon status --json | jq -e '.parent == "running"'
  as_user scripts/claudy.ts daemon logs --tail 1
  as_user scripts/claudy.ts config show
  as_user scripts/claudy.ts config check
  as_user scripts/init-volumes.ts --status
  run -7 as_user scripts/spawn-worker.ts "$app" -- sh -c 'touch /workspace/attached; exit 7'
  [ "$(owner "$app/attached")" = "$user" ]
  as_user env TOKEN=x scripts/spawn-worker.ts -d -n secretive-$$ --secret TOKEN "$app"
  [ "$(docker exec secretive-$$ cat /run/secrets/TOKEN)" = x ]
  # A detached worker ends: the parent, as root, removes it.
  docker kill secretive-$$
  gone() { as_root test ! -e "$home/.hal9000/sessions/secretive-$$.json"; }
  wait_for 15 gone
  # A copy of a project; Claude in it reaches nothing.
  as_user git init --quiet "$home/repository"
  as_user git -C "$home/repository" -c user.name=me -c user.email=me@example.com commit --quiet --allow-empty --message one
  as_user env ANTHROPIC_API_KEY=x ANTHROPIC_BASE_URL=http://127.0.0.1:9 scripts/claudy.ts \
    --clone --detach --name "copy-$$" "$home/repository"
  [ "$(owner "$home/.hal9000/workspaces/copy-$$/tree/.git/HEAD")" = "$user" ]
  docker exec "copy-$$" git -c user.name=a -c user.email=a@b commit --quiet --allow-empty --message two
  as_user scripts/claudy.ts fetch "copy-$$"
  [ "$(as_user git -C "$home/repository" log -1 --format=%s "claudy/copy-$$/claudy/copy-$$")" = two ]
  as_user scripts/claudy.ts sessions rm --yes "copy-$$"
  [ -z "$(foreign)" ]
  as_user scripts/build-images.ts --json | jq -e 'all(.built | not)'
}

@test "claims work for the user, on the host and in the parent" {
  as_user scripts/pool-manager.ts start --min-warm 2
  as_user scripts/pool-manager.ts warm
  [ "$(as_user scripts/spawn-worker.ts -d -n warm-one-$$ --json "$app" | jq -r .start)" = warm ]
  [ "$(in_parent /scripts/spawn-worker -d -n warm-two-$$ --json "$app" | jq -r .start)" = warm ]
  [ "$(docker exec warm-one-$$ whoami)" = claude ]
  docker exec warm-one-$$ touch /workspace/warm /home/claude/.claude/warm
  [ "$(owner "$app/warm")" = "$user" ]
  [ "$(as_root stat -c '%a %U' "$home/.hal9000/run/pool.sock")" = "600 $user" ]
  [ -z "$(foreign)" ]
  # nsenter refuses the user like anyone else.
  run -0 as_user sh -c 'node_modules/.bin/deno run -A --no-lock --node-modules-dir=manual tests/helper/ask.ts "$@"' \
    ask "$home/.hal9000/run/nsenter/nsenter.sock" '{"op":"test"}'
  [[ $output == *"EACCES"* ]]
  # A project of another owner below the user's roots cannot be claimed.
  as_root mkdir -p "$home/roots-own"
  run -7 in_parent /scripts/pool-manager claim "$home/roots-own"
  [[ $output == *"the project has another owner"* ]]
}

@test "daemon restart and make down work for the user" {
  as_user scripts/claudy.ts daemon restart
  as_user make down
  [ -z "$(docker ps --all --quiet --filter "label=hal9000.instance=$instance")" ]
}

@test "refuses another user with the same prefix and suggests settings that work" {
  theirs() { HAL9000_PREFIX=$instance HAL9000_HOME=$BATS_TEST_TMPDIR/theirs "$@"; }
  run -5 theirs "$scripts/claudy.ts" daemon stop
  [[ $output == *"belongs to $home/.hal9000"*"export HAL9000_PREFIX=$instance-$(id -un) HAL9000_HOME=$BATS_TEST_TMPDIR/theirs"* ]]
  # The advice does not suggest another user's home, and using it fails.
  [[ $output != *"Or use that home"* ]]
  run ! as_user env HAL9000_HOME="$HAL9000_HOME" scripts/coordinator.ts stop-all --yes
  [[ $output == *"not to you"* || $output == *"permission denied"* ]]
  "$scripts/claudy.ts" daemon start
  run -5 as_user env HAL9000_PREFIX="$HAL9000_PREFIX" HAL9000_HOME="$home/second" scripts/claudy.ts daemon stop
  [[ $output == *"belongs to $HAL9000_HOME"*"HAL9000_PREFIX=$HAL9000_PREFIX-"* ]]
}

@test "init-volumes --clean removes all of the user's data" {
  as_user make down
  run -0 as_user scripts/init-volumes.ts --clean --yes
  [ -z "$(foreign)" ]
}

@test "tells a user outside of the docker group to join it" {
  as_root gpasswd --delete "$user" docker
  run -3 as_user scripts/coordinator.ts list
  [[ $output == *"usermod -aG docker"* ]]
  run -1 as_user scripts/claudy.ts doctor
  as_root usermod --append --groups docker "$user"
  [[ $output == *"usermod -aG docker"* && $output != *"make engine"* ]]
}

@test "migrate and rollback work for the user with files of root's containers" {
  former=$home/former
  moving() { as_user env HAL9000_HOME="$former" HAL9000_PREFIX="$instance-move" "$@"; }
  as_user mkdir -p "$former/membank" "$former/plugins"
  as_user sh -c "echo mine >$former/membank/mine.md"
  as_root sh -c "umask 077; echo roots >$former/membank/roots.md"
  local claude=$former/claude
  as_user mkdir -p "$claude/claudy-app-1/.workspace" "$claude/.shared-config/agents"
  as_user sh -c "jq -n --arg project $app '{name: \"x\", project_dir: \$project, created_at: \"2026-01-25T10:00:00Z\"}' \
    >$claude/claudy-app-1/.claudy-session.json"
  as_root sh -c "umask 077; cd $claude/.shared-config && mkdir -p projects/-workspace && echo '{}' >projects/-workspace/one.jsonl &&
    echo review >agents/a.md && echo '{\"primaryApiKey\": \"sk-ant-api03-mine\"}' >.claude.json"
  run -0 moving scripts/migrate.ts --yes
  [ "$(as_user cat "$claude"/claudy-app-1/{agents/a.md,projects/-workspace/one.jsonl} "$former/secrets/anthropic_key")" = \
    $'review\n{}\nsk-ant-api03-mine' ]
  [ -z "$(as_root find "$claude/claudy-app-1" "$former/secrets" ! -user "$user")" ]
  run -0 moving docker run --rm --entrypoint cat --volume "$instance-move-memorybank:/data" \
    "$HAL9000_IMAGE_REPO:parent" /data/roots.md
  [ "$output" = roots ]
  run -0 moving scripts/rollback.ts --list-backups --verify
  [[ $output == *complete* ]]
  run -0 moving scripts/rollback.ts --yes
  [ "$(as_user ls -A "$claude/claudy-app-1")" = $'.claudy-session.json\n.workspace' ]
  [ "$(as_root stat -c '%U %a' "$former/membank/roots.md")" = "root 600" ]
  [ "$(owner "$former/membank/mine.md")" = "$user" ]
  # All other files belong to the user, except those written by the parent's ChromaDB.
  [ -z "$(as_root find "$former" ! -user "$user" ! -type s ! -name roots.md ! -path "$former/chromadb*" \
    ! -path '*/.shared-config/*')" ]
}
