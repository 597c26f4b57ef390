# The npm package, installed by an unprivileged user into a read-only directory with a space,
# and removed without a trace.

# Before load: the helpers use the name. The file is read again for each test.
[[ $HAL9000_PREFIX == *-installed ]] || export HAL9000_PREFIX=$HAL9000_PREFIX-installed
load ../helper/load
load ../helper/sessions

# Each run has its own user, whose name ends in the run's pid.
pid=${HAL9000_PREFIX#hal9000-test-}
user=hal9000-tester-install-${pid%-installed}
home=/home/$user
prefix="$home/my prefix"
app=$home/app

setup_file() {
  need_root
  as_root userdel --remove --force "$user" 2>/dev/null || true
  as_root useradd --create-home --groups docker --shell /bin/bash "$user"
  as_root mkdir "$app" "$home/.cache" "$home/package"
  as_root chmod 0700 "$home"
  # Bundles are made in dist, which other test files may pack too.
  (cd "$repo" && flock build/pack.lock npm pack --silent --pack-destination "$BATS_FILE_TMPDIR")
  as_root cp "$BATS_FILE_TMPDIR"/*.tgz "$repo/install.sh" "$home/package"
  as_root chown -R "$user:" "$home"
  traces >"$BATS_FILE_TMPDIR/before"
  as_user sh -c 'exec npm install --global --prefix "$1" --loglevel=error "$2"/*.tgz' sh "$prefix" "$home/package"
  as_root chmod -R a-w "$prefix/lib"
}

teardown_file() {
  as_root true 2>/dev/null || return 0
  tmux -L "$HAL9000_PREFIX-asks" kill-server 2>/dev/null
  tmux -L "$HAL9000_PREFIX-su" kill-server 2>/dev/null
  remove_instance "$HAL9000_PREFIX-asks"
  remove_instance "$HAL9000_PREFIX"
  remove_images "$HAL9000_PREFIX"
  as_root userdel --remove --force "$user" 2>/dev/null
}

remove_images() { # remove_images REPOSITORY
  docker images --format '{{.Repository}}:{{.Tag}}' "$1" | xargs -r docker rmi >/dev/null
}

as_user() {
  as_root runuser -u "$user" -- env -i -C "$home" HOME="$home" PATH="$prefix/bin:$PATH" \
    NODE_EXTRA_CA_CERTS="${NODE_EXTRA_CA_CERTS:-}" HAL9000_PREFIX="$HAL9000_PREFIX" "$@"
}

# The user's files, and everything in the engine that has the instance's name or label.
traces() {
  as_root find "$home" /tmp /var/tmp /run -path "$home/.npm" -prune -o \( -user "$user" ! -type d -print \) 2>/dev/null || true # files of others come and go
  docker ps --all --format '{{.Names}}' --filter "label=hal9000.instance=$HAL9000_PREFIX"
  docker ps --all --format '{{.Names}}' --filter "name=$HAL9000_PREFIX"
  docker volume ls --format '{{.Name}}' --filter "label=hal9000.instance=$HAL9000_PREFIX"
  docker volume ls --format '{{.Name}}' --filter "name=$HAL9000_PREFIX"
  docker network ls --format '{{.Name}}' --filter "name=$HAL9000_PREFIX"
  docker images --format '{{.Repository}}:{{.Tag}}' | grep "^$HAL9000_PREFIX" || true
}

@test "the package has all commands, and runs without its sources" {
  run -0 as_user ls "$prefix/bin"
  [ "$(jq -r '.bin | keys[]' "$repo/package.json" | sort)" = "$(sort <<<"$output")" ]
  run -0 as_user claudy --version
  [[ $output == "claudy $(jq -r .version "$repo/package.json") "* ]]
  for name in $(jq -r '.bin | keys[]' "$repo/package.json"); do as_user "$name" --help >/dev/null; done
  as_root test -e "$prefix/share/man/man1/claudy.1"
  run ! as_root test -e "$prefix/lib/node_modules/hal-9000-dind/lib"
  # Nobody else's code ran, and npx would run claudy.
  run -0 as_user hal-9000-dind --version
  [[ $output == claudy* ]]
}

@test "claudy up works from a read-only installation, and a session answers" {
  run -0 as_user claudy up "$app"
  [[ $output == *"runs on $app"* ]]
  # The images of the clone have the same inputs.
  images_of() { docker images --format '{{.Tag}} {{.ID}}' "$1" | sort; }
  [ -n "$(images_of "$HAL9000_PREFIX")" ]
  comm -13 <(images_of "$HAL9000_IMAGE_REPO") <(images_of "$HAL9000_PREFIX") | grep . && return 1
  as_user claudy stop --all --yes
  start_stub
  session=$(as_user env ANTHROPIC_API_KEY="$key" ANTHROPIC_BASE_URL="http://127.0.0.1:$stub_port" \
    claudy --detach --json "$app" -- --permission-mode default | jq -r .session)
  wait_for_screen 30 "$session" '❯'
  typed "$session" "installed words" Enter
  wait_for_screen 20 "$session" "echo: installed words"
  as_user claudy doctor
}

@test "questions can be answered after su, when the terminal belongs to another user" {
  as_user claudy up --detach "$app"
  screen=$HAL9000_PREFIX-su
  keys() { tmux -L "$screen" send-keys "$@"; }
  shows() { tmux -L "$screen" capture-pane -p -J | grep -E -- "$1"; }
  sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  tmux -L "$screen" -f /dev/null new-session -d -x 150 -y 40 "${sudo[@]}" runuser -u "$user" -- \
    env -i -C "$home" HOME="$home" TERM=screen HISTFILE=/dev/null PATH="$prefix/bin:$PATH" HAL9000_PREFIX="$HAL9000_PREFIX" bash --norc
  keys "clear; claudy uninstall; echo \"code \$?\"" Enter
  wait_for 20 shows '\[y/N\] $'
  keys n Enter
  wait_for 20 shows '^code 6'
  # Deno warns at a terminal if it cannot write its cache.
  run ! shows cache
  tmux -L "$screen" kill-server
}

@test "install.sh asks before it needs root, and installs again without harm" {
  run -6 as_user setsid sh "$home/package/install.sh" --prefix /usr/local/hal9000-test "$home"/package/*.tgz
  [[ $output == *"You may not write to /usr/local/hal9000-test"*"Pass --yes"* ]]
  as_root chmod -R u+w "$prefix/lib"
  run -0 as_user setsid sh -c '"$1/install.sh" --prefix "$2" "$1"/*.tgz' sh "$home/package" "$prefix"
  [[ $output == *"Installed: claudy "*"Next: claudy up"* ]]
  run -2 as_user sh "$home/package/install.sh" --data
  mkdir "$BATS_TEST_TMPDIR/old"
  printf '#!/bin/sh\necho v18.1.0\n' >"$BATS_TEST_TMPDIR/old/node"
  chmod +x "$BATS_TEST_TMPDIR/old/node"
  PATH=$BATS_TEST_TMPDIR/old:$PATH run -4 "$repo/install.sh"
  [[ $output == *"Node.js 18.1.0 is too old: 20.19 or later is needed"* ]]
}

@test "claudy uninstall --data asks twice, and names what it deletes" {
  screen=$HAL9000_PREFIX-asks # and the instance
  data=$BATS_TEST_TMPDIR/data
  with_data() {
    env --unset=HAL9000_IMAGE_REPO HOME="$BATS_TEST_TMPDIR" HAL9000_PREFIX="$screen" HAL9000_HOME="$data" "$@"
  }
  volumes() { docker volume ls --quiet --filter "label=hal9000.instance=$screen"; }
  with_data "$scripts/init-volumes.ts"
  keys() { tmux -L "$screen" send-keys "$@"; }
  shows() { tmux -L "$screen" capture-pane -p -J | grep -E -- "$1"; }
  with_data tmux -L "$screen" -f /dev/null new-session -d -x 150 -y 40 bash --norc
  uninstall() {
    keys "clear; '$scripts/claudy.ts' uninstall --data; echo \"code \$?\"" Enter
    wait_for 20 shows 'Remove all of this\? \[y/N\] $'
    shows "^volume +$screen-chromadb\$"
    keys y Enter
    wait_for 20 shows "Delete $data with all conversations.*$screen-plugins\? \[y/N\] \$"
  }
  uninstall
  keys n Enter
  wait_for 20 shows '^code 6'
  [ "$(volumes | wc -l)" = 3 ]
  [ -e "$data/config/hal9000.conf" ]
  uninstall
  keys y Enter
  wait_for 20 shows '^code 0'
  [ -z "$(volumes)" ]
  [ ! -e "$data" ]
  tmux -L "$screen" kill-server
}

@test "claudy uninstall finishes what a killed one began, and leaves nothing" {
  run -6 as_user claudy uninstall --yes --data
  [[ $output == *"Workers are running: "*--force* ]]
  killed_when() { # killed_when COMMAND...
    as_user claudy uninstall --yes --force --data >/dev/null 2>&1 &
    until "$@"; do kill -0 $! || break; done
    as_root pkill -9 -u "$user" deno
    wait $! || true
  }
  no_parent() { ! docker inspect "$HAL9000_PREFIX-parent" >/dev/null 2>&1; }
  no_image() { ! docker image inspect "$HAL9000_PREFIX:worker" >/dev/null 2>&1; }
  no_records() { ! as_root test -e "$home/.hal9000/sessions"; }
  killed_when no_parent
  as_root test -e "$home/.hal9000/sessions"
  killed_when no_image
  killed_when no_records
  run -0 as_user claudy uninstall --yes --force --data
  run ! as_root test -e "$home/.hal9000"
  as_root chmod -R u+w "$prefix/lib"
  run -0 as_user sh "$home/package/install.sh" --uninstall --yes --prefix "$prefix"
  diff "$BATS_FILE_TMPDIR/before" <(traces)
}
