# An engine at ssh://, with an ssh server of this file's own on 127.0.0.1.

load ../helper/load

# Unpacks Debian's ssh server, since an installed one would be started.
unpack_sshd() (
  packages=(openssh-server libwrap0)
  cd "$ssh" || exit
  apt-get download -qq "${packages[@]}" || { as_root apt-get update -qq && apt-get download -qq "${packages[@]}"; } || exit
  for package in *.deb; do dpkg --extract "$package" unpacked; done
)

start_sshd() { # start_sshd KEY PORT
  ssh-keygen -q -t ed25519 -N '' -f "$ssh/$1"
  cat >"$ssh/sshd_$1" <<CONF
ListenAddress 127.0.0.1:$2
HostKey $ssh/$1
PidFile $ssh/$1.pid
AuthorizedKeysFile $ssh/login.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv PATH=$PATH
CONF
  local start libraries
  libraries=$(find "$ssh" -name libwrap.so.0 -printf %h)
  start=(env ${libraries:+LD_LIBRARY_PATH="$libraries"} "$sshd" -f "$ssh/sshd_$1" -E "$ssh/$1.log")
  if [ "$(id -u)" = 0 ]; then
    # It needs a user and a directory that only an installation has, and its users unlocked.
    { grep -v '^sshd:' /etc/passwd; echo 'sshd:x:65533:65534::/run/sshd:/bin/false'; } >"$ssh/passwd"
    echo 'root:*:19000::::::' >"$ssh/shadow"
    [ -d /run/sshd ] || { mkdir /run/sshd && touch "$ssh/made"; }
    unshare --mount sh -c 'mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/shadow" /etc/shadow && exec "$@"' \
      "$ssh" "${start[@]}"
  else
    "${start[@]}"
  fi
  printf '[127.0.0.1]:%s %s\n' "$2" "$(cut -d ' ' -f 1,2 "$ssh/$1.pub")" >>"$ssh/known_hosts"
  cat >>"$ssh/config" <<CONF
Host $1
  HostName 127.0.0.1
  Port $2
  IdentityFile $ssh/login
  IdentitiesOnly yes
  UserKnownHostsFile $ssh/known_hosts
  GlobalKnownHostsFile /dev/null
CONF
}

setup_file() {
  export ssh=$HAL9000_TEST_ROOT/ssh sshd=/usr/sbin/sshd real_ssh
  start_instance
  [ ! -d "$ssh" ] || return 0 # after a failed test
  mkdir "$ssh" "$ssh/bin"
  real_ssh=$(command -v ssh) || return 0
  [ -x "$sshd" ] || { sshd=$ssh/unpacked/usr/sbin/sshd && unpack_sshd >&2; } || return 0
  ssh-keygen -q -t ed25519 -N '' -f "$ssh/login"
  printf '#!/bin/sh\nexec %s -F %s "$@"\n' "$real_ssh" "$ssh/config" >"$ssh/bin/ssh"
  chmod +x "$ssh/bin/ssh"
  start_sshd engine "$(free_port)"
  touch "$ssh/ready"
} 3>&-

teardown_file() {
  local file
  for file in "$ssh"/*.pid; do
    pkill -P "$(cat "$file")" || true
    kill "$(cat "$file")" || true
  done
  [ ! -e "$ssh/made" ] || rmdir /run/sshd
  rm -rf "$ssh"
}

setup() {
  [ -e "$ssh/ready" ] || skip "ssh and Debian's openssh-server are not there"
  PATH=$ssh/bin:$PATH
  project=$(make_project app)
}

teardown() {
  after_failure
  DOCKER_HOST='' stop_workers
}

@test "lists, spawns and stops workers over one ssh connection" {
  far() { DOCKER_HOST=ssh://engine run -0 "$@" 3>&-; }
  far "$scripts/coordinator.ts" list
  far spawn -n "far-$$" "$project"
  far "$scripts/coordinator.ts" list
  [[ $output == *"far-$$"* ]]
  far "$scripts/coordinator.ts" stop "far-$$"
  [ "$(grep -c Accepted "$ssh/engine.log")" = 1 ]
}

@test "refuses a host whose key has changed or is unknown, in ssh's words" {
  start_sshd moved "$(free_port)"
  cp "$ssh/known_hosts" "$BATS_TEST_TMPDIR/known_hosts"
  local wrong
  wrong=$(cut -d ' ' -f 1,2 "$ssh/engine.pub")
  sed -i "\$s|ssh-ed25519 .*|$wrong|" "$ssh/known_hosts"
  for command in "coordinator.ts list" "spawn-worker.ts -d $project"; do
    # shellcheck disable=SC2086  # words
    DOCKER_HOST=ssh://moved run -3 "$scripts/"$command 3>&-
    [[ $output == *"out of reach (Host key verification failed)"*"Offending ED25519 key"*"ssh moved docker version"* ]]
  done
  sed -i '$d' "$ssh/known_hosts"
  DOCKER_HOST=ssh://moved run -3 "$scripts/coordinator.ts" list 3>&-
  [[ $output == *"No ED25519 host key is known"* ]]
  run ! grep Accepted "$ssh/moved.log"
}
