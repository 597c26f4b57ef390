#!/bin/bash
# fresh.sh [13|12]... [root|user]...: follows the block with `make up` of the README on an
# empty Debian with Node, npm, make and git, as root or as a user with sudo, at a terminal.
# Default: Debian 13 and 12, as both. Records the terminal in build/fresh, for
# scriptreplay --log-timing NAME.timing NAME.typescript, and prints wall time by step.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/helper/debian.bash
source tests/helper/debian.bash

out=$PWD/build/fresh
label=hal9000.fresh=$PWD
screen=hal9000-fresh-$$
# What this machine needs to reach its package sources. The certificates are not those of
# the machine under test: an empty one has none.
certificates=/etc/ssl/certs/ca-certificates.crt
guest=/opt/fresh

releases=() users=()
for word; do
  case $word in
  13 | 12) releases+=("$word") ;;
  root | user) users+=("$word") ;;
  *) echo "usage: tests/fresh.sh [13|12]... [root|user]..." >&2 && exit 2 ;;
  esac
done

mkdir -p "$out"
exec 9>"$out/lock"
flock -n 9 || { echo "error: Another tests/fresh.sh runs in this checkout" >&2; exit 1; }

# Also removes what a killed run has left.
remove_machines() {
  docker ps -aq --filter "label=$label" | xargs -r docker rm --force --volumes >/dev/null
  docker images -q --filter "label=$label" | xargs -r docker rmi --force >/dev/null
}
leave() {
  tmux -L "$screen" kill-server 2>/dev/null || true
  remove_machines
}
trap leave EXIT
trap 'exit 130' INT TERM
remove_machines

# An empty Debian as a tarball; Node and npm are this machine's, since Debian 12's are too
# old.
debian() { # debian CODENAME TARBALL
  [ ! -e "$2" ] || return 0
  local npm
  npm=$(npm root --global)/npm
  make_debian "$1" "${2%/*}/new.tar" \
    --include=bsdutils,ca-certificates,git,hostname,libstdc++6,make,mount,passwd,procps,sudo \
    --customize-hook='mkdir -p "$1/usr/local/lib/node_modules"' \
    --customize-hook="copy-in '$(readlink -f "$(command -v node)")' /usr/local/bin" \
    --customize-hook="copy-in '$npm' /usr/local/lib/node_modules" \
    --customize-hook='ln -s ../lib/node_modules/npm/bin/npm-cli.js "$1/usr/local/bin/npm"' \
    --customize-hook='ln -s ../lib/node_modules/npm/bin/npx-cli.js "$1/usr/local/bin/npx"' \
    --customize-hook='chroot "$1" useradd --create-home --shell /bin/bash user' \
    --customize-hook='echo "user ALL=(ALL) NOPASSWD: ALL" >"$1/etc/sudoers.d/user"'
  mv "${2%/*}/new.tar" "$2"
}

# The commands of the README's block with `make up`, without comments.
first_block() {
  awk '/^```bash$/ { block = ""; next } /^```$/ { if (block ~ /make up/) { printf "%s", block; exit } }
    { block = block $0 "\n" }' README.md |
    sed -E 's/ +#.*//' | grep -vE '^(#.*|)$'
}

# Runs each command of the block as it stands, and notes its wall time.
commands() {
  first_block | while read -r line; do
    printf 'echo %q; began=$(date +%%s%%N)\n' "\$ $line"
    printf '%s; code=$?\n' "$line"
    printf 'printf "%%6.1f s  %%s\\n" "$((($(date +%%s%%N) - began) / 1000000))e-3" %q >>%s/times\n' "$line" "$guest"
    echo '[ "$code" = 0 ] || exit "$code"'
  done
}

# Every capability but the one that the machine may lack itself, instead of --privileged.
machine() { # machine IMAGE
  docker run --detach --init --label "$label" --hostname fresh \
    --cap-add ALL --cap-drop SYS_RESOURCE --device-cgroup-rule 'a *:* rwm' \
    --security-opt seccomp=unconfined --security-opt systempaths=unconfined \
    --volume /var/lib/docker "$1" sleep infinity
}

copy_in() { # copy_in CONTAINER HOME USER
  docker exec "$1" sh -ec "
    mount -o remount,bind,rw /sys
    for each in /sys/fs/cgroup /sys/fs/cgroup/*; do
      ! mountpoint -q \"\$each\" || mount -o remount,bind,rw \"\$each\"
    done
    mkdir -p $guest"
  docker cp --quiet "$certificates" "$1:$guest/certificates.crt" 2>/dev/null ||
    docker cp "$certificates" "$1:$guest/certificates.crt"
  commands | docker exec -i "$1" sh -c "cat >$guest/commands; chmod 0777 $guest"
  [ ! -e "$HOME/.npmrc" ] || docker cp "$HOME/.npmrc" "$1:$2/.npmrc"
  { git ls-files -coz --exclude-standard && printf '.git\0'; } |
    tar --create --null --files-from - --ignore-failed-read |
    docker exec -i "$1" sh -c "mkdir '$2/hal-9000' && tar -x -C '$2/hal-9000' && chown -R '$3:' '$2'"
}

cpu_ms() { # cpu_ms CONTAINER
  docker exec "$1" sh -c 'cd /sys/fs/cgroup
    if [ -e cpu.stat ]; then awk "/^usage_usec/ { print int(\$2 / 1000) }" cpu.stat
    else awk "{ print int(\$1 / 1e6) }" cpuacct/cpuacct.usage; fi'
}

# Answers questions as a newcomer without an account: yes to what is needed, no to Claude.
answer_questions() {
  local line
  while tmux -L "$screen" has-session 2>/dev/null; do
    line=$(tmux -L "$screen" capture-pane -pJ 2>/dev/null | grep . | tail -n 1 | sed 's/ *$//' || true)
    case $line in
    *nstall*\[[yY]/[nN]\]) tmux -L "$screen" send-keys y Enter ;;
    *\[[yY]/[nN]\]) tmux -L "$screen" send-keys n Enter ;;
    esac
    sleep 0.2
  done
}

follow() { # follow RELEASE USER
  local name=debian-$1-$2 user=$2 home=/root image container began cpu code=0
  [ "$2" = root ] || home=/home/user
  image=$(docker import --change "LABEL $label" "$out/debian-$1.tar")
  container=$(machine "$image")
  copy_in "$container" "$home" "$user"
  echo "== Debian $1 as $2"
  cpu=$(cpu_ms "$container")
  began=$(date +%s%N)
  tmux -L "$screen" -f /dev/null new-session -d -x 100 -y 50 script --quiet --return \
    --log-out "$out/$name.typescript" --log-timing "$out/$name.timing" --command \
    "docker exec -it --user $user --workdir $home/hal-9000 --env HOME=$home --env LANG=C.UTF-8 \
      --env TERM=screen-256color --env npm_config_cafile=$guest/certificates.crt \
      --env NODE_EXTRA_CA_CERTS=$guest/certificates.crt $container bash $guest/commands" 9>&- # a tmux that is left would hold the lock
  answer_questions
  printf '%6.1f s  wall, all together; CPU %.1f s\n' \
    "$((($(date +%s%N) - began) / 1000000))e-3" "$(($(cpu_ms "$container") - cpu))e-3"
  docker exec "$container" cat "$guest/times"
  # What the terminal showed at the end.
  sed -E 's/\x1b\[[0-9;?]*[a-zA-Z]//g; s/\r+$//; s/.*\r//; /^(Script|$)/d; s/^/  | /' "$out/$name.typescript"
  grep -q 'COMMAND_EXIT_CODE="0"' "$out/$name.typescript" || code=1
  docker rm --force --volumes "$container" >/dev/null
  docker rmi "$image" >/dev/null
  return "$code"
}

[ ${#releases[@]} -gt 0 ] || releases=(13 12)
[ ${#users[@]} -gt 0 ] || users=(root user)
failed=0
for release in "${releases[@]}"; do
  codename=trixie
  [ "$release" = 13 ] || codename=bookworm
  debian "$codename" "$out/debian-$release.tar"
  for user in "${users[@]}"; do
    # Not after ||, which would make the function ignore failures.
    set +e
    (set -e && follow "$release" "$user")
    # shellcheck disable=SC2181
    [ $? = 0 ] || { echo "failed: Debian $release as $user" >&2; failed=1; }
    set -e
  done
done
exit "$failed"
