#!/bin/sh
# Installs HAL-9000 DinD with npm, from this clone, a tarball of npm pack, or the registry.
set -eu

package=hal-9000-dind
minimum_node=20.19

usage() {
  cat <<'END'
Usage: ./install.sh [options] [tarball]

Checks what is needed, explains what is missing, and installs claudy and the hal9000-*
commands. Asks before each command that needs root. Running it again is safe.

Options:
  --prefix <dir>  Where to install (default: /usr/local as root, else ~/.local)
  --uninstall     Remove containers, images and the program; keep your data
  --data          With --uninstall: delete your data too, after asking
  --yes           Do not ask
  --help          Show this help
END
}

say() { printf '%s\n' "$*"; }
fail() { # fail CODE MESSAGE HINT; codes as in lib/std/errors.ts
  printf 'error: %s\n' "$2" >&2
  [ -z "${3-}" ] || printf '%s\n' "$3" >&2
  exit "$1"
}

# Asks at the terminal, also if this script is read from a pipe.
confirm() { # confirm QUESTION
  [ -z "$yes" ] || return 0
  if ! (: </dev/tty) 2>/dev/null; then
    fail 6 "Not a terminal, so cannot ask: $1" "Pass --yes to confirm."
  fi
  printf '%s [y/N] ' "$1" >/dev/tty
  read -r reply </dev/tty || reply=
  case $reply in y | Y | yes) ;; *) return 1 ;; esac
}

# Runs a command as root if the user agrees; returns 1 if not.
as_root() { # as_root REASON COMMAND...
  reason=$1
  shift
  [ "$(id -u)" = 0 ] || set -- sudo "$@"
  confirm "$reason Run as root: $*" || return 1
  "$@"
}

is_at_least() { # is_at_least 20.19 20.20.2
  awk -v least="$1" -v given="$2" 'BEGIN {
    split(least, a, "."); split(given, b, ".")
    for (i = 1; i <= 3; i++) if (a[i] + 0 != b[i] + 0) exit b[i] + 0 < a[i] + 0
  }'
}

is_debian() { grep -qsE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release; }

check_machine() {
  [ "$(uname -s)" = Linux ] ||
    fail 1 "Cannot install on $(uname -s): only Linux is supported" "Install it in a Linux VM, or in WSL2."
  case $(uname -m) in
  x86_64 | aarch64 | arm64) ;;
  *) fail 1 "Cannot install on $(uname -m): Deno and the Claude CLI exist for x86_64 and arm64" ;;
  esac
}

check_node() {
  node_hint="Install it: https://nodejs.org/en/download"
  ! is_debian || node_hint="Install it: sudo apt-get install nodejs npm, or https://nodejs.org/en/download"
  command -v node >/dev/null || fail 4 "Node.js $minimum_node or later is not installed" "$node_hint"
  version=$(node --version)
  is_at_least "$minimum_node" "${version#v}" ||
    fail 4 "Node.js ${version#v} is too old: $minimum_node or later is needed" "$node_hint"
  command -v npm >/dev/null || fail 4 "npm is not installed" "$node_hint"
}

# Docker is needed to run, not to install, so a missing one is no error.
check_docker() {
  if answer=$(docker version --format '{{.Server.Version}}' 2>&1); then
    say "Docker $answer answers"
    return
  fi
  case $answer in
  *"permission denied"*)
    user=$(id -un)
    if as_root "You may not use the Docker engine. Members of the group docker are like root." \
      usermod --append --groups docker "$user"; then
      later="Log out and in again, so that you are in the group docker."
    else
      later="Join the group docker: sudo usermod --append --groups docker $user"
    fi
    ;;
  *)
    if is_debian; then
      later="claudy up installs or starts Docker after asking. Or do it first: sudo apt-get install docker.io"
    else
      later="Install Docker 20.10 or later and start it: https://docs.docker.com/engine/install/"
    fi
    ;;
  esac
}

# Sets $source to what npm installs, and $packed to a directory to remove.
find_source() {
  # Not if this script is read from a pipe: anyone may have put files into the working
  # directory, whose scripts npm would run.
  here=/nonexistent
  case ${0##*/} in *.sh) here=$(cd "$(dirname "$0")" && pwd) ;; esac
  if [ -n "$source" ]; then
    [ -f "$source" ] || fail 4 "There is no file $source"
    source=$(cd "$(dirname "$source")" && pwd)/$(basename "$source")
  elif grep -qs "\"name\": \"$package\"" "$here/package.json"; then
    say "Packing $here"
    if [ -d "$here/lib" ] && ! [ -d "$here/node_modules/esbuild" ]; then
      (cd "$here" && npm ci --ignore-scripts --no-fund --no-audit --loglevel=error)
    fi
    packed=$(mktemp -d)
    # Only this package's own script runs, which bundles the sources.
    (cd "$here" && npm pack --silent --ignore-scripts="$([ -d lib ] && echo false || echo true)" \
      --pack-destination "$packed" >/dev/null)
    source=$(echo "$packed"/*.tgz)
  else
    source=$package
  fi
}

# Whether the user may create files in a directory, or in the nearest one that exists.
is_writable() {
  directory=$1
  while ! [ -e "$directory" ]; do directory=$(dirname "$directory"); done
  [ -w "$directory" ]
}

npm_global() { # npm_global install|uninstall PACKAGE
  set -- npm "$1" --global --prefix "$prefix" --ignore-scripts --no-fund --no-audit \
    --loglevel=error --no-update-notifier "$2"
  if is_writable "$prefix/lib/node_modules" && is_writable "$prefix/bin"; then
    "$@"
  else
    as_root "You may not write to $prefix." "$@" ||
      fail 6 "Nothing was done in $prefix" "Choose another directory: ./install.sh --prefix ~/.local"
  fi
}

install() {
  check_machine
  check_node
  later=
  check_docker
  packed=
  trap '[ -z "$packed" ] || rm -rf "$packed"' EXIT
  find_source
  say "Installing in $prefix"
  npm_global install "$source"
  say "Installed: $("$prefix/bin/claudy" --version)"
  [ -z "$later" ] || say "$later"
  case :$PATH: in
  *":$prefix/bin:"*) ;;
  *) say "Add it to your PATH: export PATH=\"$prefix/bin:\$PATH\"" ;;
  esac
  say "Next: claudy up"
}

uninstall() {
  if [ -x "$prefix/bin/claudy" ]; then
    # shellcheck disable=SC2086  # options
    "$prefix/bin/claudy" uninstall $yes $data
  fi
  npm_global uninstall "$package"
  say "Removed from $prefix"
}

action=install prefix='' yes='' data='' source=''
while [ $# -gt 0 ]; do
  case $1 in
  --prefix)
    [ -n "${2-}" ] || fail 2 "--prefix needs a directory"
    prefix=$2
    shift
    ;;
  --prefix=*) prefix=${1#*=} ;;
  --uninstall) action=uninstall ;;
  --data) data=--data ;;
  --yes) yes=--yes ;;
  --help | -h) usage && exit ;;
  -*) fail 2 "Unknown option $1" "See ./install.sh --help" ;;
  *) source=$1 ;;
  esac
  shift
done
[ -z "$data" ] || [ "$action" = uninstall ] || fail 2 "--data only applies to --uninstall"
if [ -z "$prefix" ]; then
  [ "$(id -u)" = 0 ] && prefix=/usr/local || prefix=$HOME/.local
fi
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac

"$action"
