#!/bin/bash
# engines.sh [ENGINE...]: starts engines of each kind, one after another, each in a machine
# of its own (engines/machine.sh), runs engines/smoke.bats on it, and prints which operation
# works on which engine. Needs mmdebstrap, and root or sudo. The machines have no network.
#   ENGINES_DIR  where their root file systems are kept [~/.cache/hal9000/engines]
#   CHECKOUT     the checkout to test, with its node_modules [this one]
#   HAL9000_IMAGE_REPO  the name of its images [hal9000-engines]
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=tests/helper/debian.bash
source tests/helper/debian.bash

checkout=$(realpath "${CHECKOUT:-.}")
export ENGINES_DIR=${ENGINES_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/hal9000/engines}
export HAL9000_IMAGE_REPO=${HAL9000_IMAGE_REPO:-hal9000-engines}
cache=$ENGINES_DIR
id=${RUN_ID:-$$}
run=$cache/run-$id
logs=build/engines
operations=(up cold warm isolated limits session agent mcp ports dashboard migrate doctor)
engines=(docker-26 docker-26-v2 docker-28 userns-remap live-restore log-none containerd rootless podman
  podman-rootless vm)
for name; do
  case " ${engines[*]} " in *" $name "*) ;; *) echo "error: There is no engine \"$name\": ${engines[*]}" >&2; exit 2 ;; esac
done
[ $# = 0 ] || engines=("$@")

main() {
  trap leave EXIT
  trap 'exit 130' INT TERM
  mkdir -p "$cache" "$logs"
  [ -n "${RUN_ID:-}" ] || save_images || exit
  [ "$(id -u)" = 0 ] ||
    exec sudo -n --preserve-env=ENGINES_DIR,CHECKOUT,HAL9000_IMAGE_REPO RUN_ID="$id" "$PWD/tests/engines.sh" "$@"
  exec 9>"$cache/lock"
  flock -n 9 || { echo "Waiting for another tests/engines.sh" && flock 9; }
  remove_dead_runs
  declare -gA cells=() kinds=()
  sentences=() passed=0 failed=0 skipped=0
  local engine
  for engine in "${engines[@]}"; do
    test_engine "$engine"
  done
  print_matrix
  echo
  summary="$passed passed, $failed failed"
  [ "$skipped" = 0 ] || summary+=", $skipped skipped"
  echo "$summary"
  [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}

leave() {
  [ -z "${machine:-}" ] || kill -9 "$machine" 2>/dev/null
  wait
  remove_run "$id"
}

remove_dead_runs() {
  local directory
  for directory in "$cache"/run-*; do
    [ ! -d "$directory" ] || [ -d "/proc/${directory##*-}" ] || remove_run "${directory##*-}"
  done
}

remove_run() { # remove_run PID
  local mount
  while read -r mount; do
    # Processes of a killed machine may still be ending.
    for _ in {1..50}; do
      find "$mount/hal9000-engines-$1" -depth -type d -exec rmdir {} + 2>/dev/null
      [ -d "$mount/hal9000-engines-$1" ] || break
      sleep 0.1
    done
  done < <(cgroup_mounts)
  rm -rf --one-file-system "$cache/run-$1"
}

cgroup_mounts() { awk '/ - cgroup2? / { print $5 }' /proc/self/mountinfo; }

# Builds the images of the checkout on this machine's engine, and saves them for the others.
save_images() {
  local names
  "$checkout/scripts/engine.ts" start && "$checkout/scripts/build-images.ts" || return
  make -C "$checkout" --no-print-directory build/fast/spawn-worker.js || return
  # Not those of profiles.
  mapfile -t names < <(docker images --format '{{.Repository}}:{{.Tag}}' "$HAL9000_IMAGE_REPO" |
    grep -E ':(base|parent|worker|worker-(minimal|standard|ultramin))$')
  mkdir -p "$run/images"
  docker save "${names[@]}" >"$run/images/images.tar"
}

# Makes the root file system of an engine's release; sets `reason` if that is impossible.
make_root() { # make_root RELEASE
  local packages=ca-certificates,curl,docker.io,docker-cli,docker-buildx,git,iproute2,iptables,jq,libstdc++6,mount,passwd,procps,tmux
  [ "$1" = sid ] || packages+=,aardvark-dns,bindfs,catatonit,crun,dnsmasq-base,fuse-overlayfs,fuse3,netavark,nftables,passt,podman,rootlesskit,slirp4netns,uidmap
  [ "$packages" != "$(cat "$cache/$1.packages" 2>/dev/null)" ] || return 0
  command -v mmdebstrap >/dev/null || { reason="mmdebstrap is not installed"; return 1; }
  echo "Making the root file system of Debian $1"
  rm -rf --one-file-system "${cache:?}/$1" "$cache/$1.packages"
  make_debian "$1" "$cache/$1" --include="$packages" >"$logs/$1.log" 2>&1 || {
    reason="Debian $1 cannot be installed: $(grep . "$logs/$1.log" | tail -n 1)"
    return 1
  }
  chmod 711 "$cache/$1/root"
  echo "$packages" >"$cache/$1.packages"
}

test_engine() { # test_engine ENGINE
  local engine=$1 release=trixie reason='' start=$SECONDS output=$logs/$1.tap
  [ "$engine" != docker-28 ] || release=sid
  make_root "$release" || {
    skip_engine "$engine" "$reason"
    return
  }
  mkdir "$run/$engine"
  (enter_cgroups && exec env MACHINE="$run/$engine" ROOT="$cache/$release" CHECKOUT="$checkout" TESTS="$PWD/tests" \
    IMAGES="$run/images" setpriv --pdeathsig KILL unshare --mount --net --pid --fork --kill-child --uts \
    --ipc --cgroup --propagation private tests/engines/machine.sh "$engine") >"$output" 2>&1 9>&- &
  machine=$!
  wait "$machine"
  machine=
  cp "$run/$engine/out/engine.log" "$logs/$engine.log" 2>/dev/null
  kinds[$engine]=$(cat "$run/$engine/out/kind" 2>/dev/null)
  read_results "$engine" "$output"
  rm -rf --one-file-system "${run:?}/$engine"
  echo "$engine: $((SECONDS - start)) s"
}

# Cgroups of its own, so that those of its containers can be removed with it.
enter_cgroups() {
  local mount cgroup file
  while read -r mount; do
    cgroup=$mount/hal9000-engines-$id
    mkdir -p "$cgroup"
    for file in cpuset.cpus cpuset.mems; do
      [ ! -e "$mount/$file" ] || cat "$mount/$file" >"$cgroup/$file"
    done
    echo $BASHPID >"$cgroup/cgroup.procs" || return
  done < <(cgroup_mounts)
}

skip_engine() { # skip_engine ENGINE REASON
  local operation
  for operation in "${operations[@]}"; do cells[$1 $operation]='not here'; done
  sentences+=("$1: $2")
  skipped=$((skipped + 1))
}

read_results() { # read_results ENGINE TAP
  local operation line answer=$run/$1/out/answers
  for operation in "${operations[@]}"; do
    line=$(grep -m 1 -E "^(not )?ok [0-9]+ $operation( |$)" "$2" || true)
    case $line in
    *'# skip'*) cells[$1 $operation]=- ;;
    ok*)
      passed=$((passed + 1))
      cells[$1 $operation]=yes
      if [ -e "$answer/$operation" ]; then
        cells[$1 $operation]=no
        sentences+=("$1, $operation: $(cat "$answer/$operation")")
      fi
      ;;
    'not ok'*)
      failed=$((failed + 1))
      cells[$1 $operation]=FAIL
      sentences+=("$1, $operation: $(sentence_of "$operation" "$2")")
      ;;
    *) # it did not start
      failed=$((failed + 1))
      cells[$1 $operation]=FAIL
      sentences+=("$1: $(tail -n 1 "$2")")
      return
      ;;
    esac
  done
}

# What a user sees of a failure: the error, or else the last line.
sentence_of() { # sentence_of OPERATION TAP
  awk -v test="^not ok [0-9]+ $1( |$)" '
    /^(not )?ok / { inside = $0 ~ test }
    inside && /^# ./ { last = substr($0, 3); if (last ~ /^(error: |FAIL )/) error = last }
    END { print error ? error : last }' "$2"
}

print_matrix() {
  matrix | sed 's/ *$//'
}

matrix() {
  local engine operation
  echo
  printf '%-16s' engine
  printf '%-10s' "${operations[@]}"
  echo
  for engine in "${engines[@]}"; do
    printf '%-16s' "$engine"
    for operation in "${operations[@]}"; do printf '%-10s' "${cells[$engine $operation]:--}"; done
    echo
  done
  echo
  for engine in "${engines[@]}"; do
    [ -z "${kinds[$engine]:-}" ] || echo "$engine: ${kinds[$engine]}"
  done
  [ ${#sentences[@]} = 0 ] || printf '\n%s' "${sentences[@]}"
  echo
}

main "$@"; exit
