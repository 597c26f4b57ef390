# An ssh server on 127.0.0.1 of the file's own, and an ssh that knows it.

# Unpacks Debian's ssh server, since an installed one would be started.
unpack_sshd() (
  packages=(openssh-server libwrap0)
  cd "$ssh" || exit
  apt-get download -qq "${packages[@]}" || { as_root apt-get update -qq && apt-get download -qq "${packages[@]}"; } || exit
  for package in *.deb; do dpkg --extract "$package" unpacked; done
)

start_sshd() { # start_sshd KEY PORT [VARIABLE=VALUE...]
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
SetEnv PATH=$PATH ${*:3}
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

# Sets $ssh to a directory with keys, settings and `bin/ssh`. Fails if it is there already,
# and without ssh and its server: then $ssh/ready is missing.
prepare_ssh() {
  export ssh=$HAL9000_TEST_ROOT/ssh sshd=/usr/sbin/sshd real_ssh
  [ ! -d "$ssh" ] || return 1 # after a failed test
  mkdir "$ssh" "$ssh/bin"
  real_ssh=$(command -v ssh) || return 1
  [ -x "$sshd" ] || { sshd=$ssh/unpacked/usr/sbin/sshd && unpack_sshd >&2; } || return 1
  ssh-keygen -q -t ed25519 -N '' -f "$ssh/login"
  printf '#!/bin/sh\nexec %s -F %s "$@"\n' "$real_ssh" "$ssh/config" >"$ssh/bin/ssh"
  chmod +x "$ssh/bin/ssh"
  touch "$ssh/ready"
}

remove_ssh() {
  local file
  for file in "$ssh"/*.pid; do
    pkill -P "$(cat "$file")" || true
    kill "$(cat "$file")" || true
  done
  [ ! -e "$ssh/made" ] || rmdir /run/sshd
  rm -rf "$ssh"
}
