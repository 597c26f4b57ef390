# As a user without privileges, in the docker group, with a home that is closed
# to others. Everything else here runs as root, which hides faults of ownership.

load ../helper/load

user=hal9000-tester

setup_file() {
  load ../helper/load
  [ "$(id -u)" = 0 ] || skip "making a user needs root"
  userdel --remove --force "$user" 2>/dev/null || true
  useradd --create-home --groups docker --shell /bin/bash "$user"
  chmod 0700 "/home/$user"
  git -C "$repo" ls-files -z --cached --others --exclude-standard |
    tar --create --null --files-from=- --directory "$repo" |
    tar --extract --directory "$(mkdir "/home/$user/checkout" && echo "/home/$user/checkout")"
  cp -al "$repo/node_modules" "/home/$user/checkout/" 2>/dev/null ||
    cp -a "$repo/node_modules" "/home/$user/checkout/"
  chown "$user:" "/home/$user/checkout"
  find "/home/$user/checkout" -path '*/node_modules' -prune -o -exec chown -h "$user:" {} +
  mkdir "/home/$user/app" && chown "$user:" "/home/$user/app"
}

teardown_file() {
  [ "$(id -u)" = 0 ] || return 0
  load setup_suite
  remove_instance hal9000-test-user
  remove_instance hal9000-test-user-move
  userdel --remove --force "$user" 2>/dev/null
}

as_user() {
  (cd "/home/$user/checkout" && runuser -u "$user" -- env -i HOME="/home/$user" PATH="$PATH" \
    HAL9000_PREFIX=hal9000-test-user HAL9000_IMAGE_REPO="$HAL9000_IMAGE_REPO" "$@")
}

# The mounter's socket is root's for as long as there is a pool: nobody else is to
# connect to it. It lies in a directory of the user's.
foreign() { find "/home/$user/.hal9000" ! -user "$user" ! -name mounter.sock; }

@test "make up ends with a worker on the user's project" {
  run -0 as_user make up PROJECT="/home/$user/app"
  [[ $output == *"runs on /home/$user/app"* ]]
  [ -z "$(foreign)" ]
  [ "$(stat -c '%a %U' "/home/$user/.hal9000")" = "700 $user" ]
}

@test "spawn in the parent works for the user and leaves nothing of root's" {
  run -0 as_user docker exec hal9000-test-user-parent \
    /scripts/spawn-worker -d -n user-worker "/home/$user/app"
  [ -z "$(foreign)" ]
  docker exec user-worker touch /workspace/made "/home/claude/.claude/made"
  [ "$(stat -c %U "/home/$user/app/made")" = "$user" ]
  run -0 as_user scripts/coordinator.ts list
  [[ $output == *user-worker* ]]
}

@test "spawn on the host and stop on both sides work for the user" {
  as_user scripts/spawn-worker.ts -d -n host-worker "/home/$user/app"
  as_user docker exec hal9000-test-user-parent /scripts/coordinator stop host-worker
  as_user scripts/coordinator.ts stop user-worker
  [ -z "$(foreign)" ]
  as_user rm -r "/home/$user/.hal9000/logs"
}

@test "a project of another owner is refused on the host, with the way round" {
  mkdir -p "/home/$user/roots-own"
  run -6 as_user scripts/spawn-worker.ts -d -n mine "/home/$user/roots-own"
  [[ $output == *"belongs to uid 0, not to you"* ]]
  [[ $output == *"docker exec"* ]]
}

@test "every command works for the user" {
  app=/home/$user/app
  as_user scripts/spawn-worker.ts -d -n all "$app"
  [ "$(as_user scripts/coordinator.ts count)" -ge 1 ]
  for words in list status stats "logs all"; do
    # shellcheck disable=SC2086  # words of a command
    as_user scripts/coordinator.ts $words
  done
  as_user scripts/claudy.ts daemon status --json | jq -e '.parent == "running"'
  as_user scripts/claudy.ts daemon logs --tail 1
  as_user scripts/claudy.ts config show
  as_user scripts/claudy.ts config check
  as_user scripts/init-volumes.ts --status
  run -7 as_user scripts/spawn-worker.ts "$app" -- sh -c 'touch /workspace/attached; exit 7'
  [ "$(stat -c %U "$app/attached")" = "$user" ]
  as_user env TOKEN=x scripts/spawn-worker.ts -d -n secretive --secret TOKEN "$app"
  [ "$(docker exec secretive cat /run/secrets/TOKEN)" = x ]
  # Ends while nobody watches: the parent, as root, retires it.
  docker kill secretive
  gone() { [ ! -e "/home/$user/.hal9000/sessions/secretive.json" ]; }
  wait_for 15 gone
  [ -z "$(foreign)" ]
  as_user scripts/build-images.ts --json | jq -e 'all(.built | not)'
  as_user scripts/coordinator.ts stop-all --yes
}

@test "claims work for the user, on the host and in the parent" {
  app=/home/$user/app
  as_user scripts/pool-manager.ts start --min-warm 2
  as_user scripts/pool-manager.ts warm
  [ "$(as_user scripts/spawn-worker.ts -d -n warm-one --json "$app" | jq -r .start)" = warm ]
  [ "$(as_user docker exec hal9000-test-user-parent /scripts/spawn-worker -d -n warm-two --json "$app" |
    jq -r .start)" = warm ]
  [ "$(docker exec warm-one whoami)" = claude ]
  docker exec warm-one touch /workspace/warm /home/claude/.claude/warm
  [ "$(stat -c %U "$app/warm")" = "$user" ]
  [ "$(stat -c '%a %U' "/home/$user/.hal9000/run/pool.sock")" = "600 $user" ]
  [ -z "$(foreign)" ]
  # The mounter takes no more from the user than from anybody.
  run -0 as_user "$repo"/node_modules/@deno/*/deno run -A --no-lock --node-modules-dir=manual \
    "/home/$user/checkout/tests/helper/ask.ts" "/home/$user/.hal9000/run/mounter/mounter.sock" '{"op":"test"}'
  [[ $output == *"EACCES"* ]]
  # A project of another's in the user's roots is no claim.
  run -7 as_user docker exec hal9000-test-user-parent /scripts/pool-manager claim "/home/$user/roots-own"
  [[ $output == *"the project has another owner"* ]]
  as_user scripts/coordinator.ts stop-all --yes
}

@test "daemon restart and make down work for the user" {
  as_user scripts/claudy.ts daemon restart
  as_user make down
  [ -z "$(docker ps --all --quiet --filter label=hal9000.instance=hal9000-test-user)" ]
}

@test "init-volumes --clean removes all that is the user's" {
  run -0 as_user scripts/init-volumes.ts --clean --yes
  [ -z "$(foreign)" ]
}

@test "a user outside the docker group is told to join it" {
  gpasswd --delete "$user" docker
  run -3 as_user scripts/coordinator.ts list
  [[ $output == *"usermod -aG docker"* ]]
  usermod --append --groups docker "$user"
}

@test "migrate and rollback work for the user, with files that root's containers left" {
  former=/home/$user/former
  moving() { as_user env HAL9000_HOME="$former" HAL9000_PREFIX=hal9000-test-user-move "$@"; }
  as_user mkdir -p "$former/membank" "$former/plugins"
  as_user sh -c "echo mine >$former/membank/mine.md"
  (umask 077 && echo roots >"$former/membank/roots.md")
  run -0 moving scripts/migrate.ts --yes
  run -0 moving docker run --rm --entrypoint cat --volume hal9000-test-user-move-memorybank:/data \
    "$HAL9000_IMAGE_REPO:parent" /data/roots.md
  [ "$output" = roots ]
  run -0 moving scripts/rollback.ts --list-backups --verify
  [[ $output == *whole* ]]
  run -0 moving scripts/rollback.ts --yes
  [ "$(stat -c '%U %a' "$former/membank/roots.md")" = "root 600" ]
  [ "$(stat -c %U "$former/membank/mine.md")" = "$user" ]
  # All else is the user's, but for what the parent's ChromaDB has written.
  [ -z "$(find "$former" ! -user "$user" ! -name roots.md ! -path "$former/chromadb*")" ]
}
