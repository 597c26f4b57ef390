#!/bin/bash
# machine.sh ENGINE: the first process of a machine with its own root file system, /proc,
# network (only lo) and cgroups. Starts an engine in it and runs smoke.bats as a user. The
# kernel kills everything in it when this process ends. engines.sh starts it with:
#   MACHINE    a directory for what is written
#   ROOT       the root file system, which stays as it is
#   CHECKOUT   the checkout that is tested; TESTS its tests, or those of another checkout
#   IMAGES     a directory with images.tar
#   HAL9000_IMAGE_REPO  the name of these images
set -euo pipefail

engine=$1
root=$MACHINE/root
uid=1000
docker=/var/run/docker.sock

main() {
  build_root
  enter_root
  start_engine
  wait_for_engine
  describe >/out/kind
  as_user docker load --quiet --input /images/images.tar >/out/load.log
  chown -R "$uid" /out
  mkdir -p /home/tester/test/{projects,claude-home}
  chown -R "$uid:$uid" /home/tester
  as_user HAL9000_PREFIX=hal9000-smoke HAL9000_TEST_ROOT=/home/tester/test HAL9000_HOME=/home/tester/test/home \
    HAL9000_PROJECT_ROOTS=/home/tester/test/projects CLAUDE_HOME=/home/tester/test/claude-home \
    HAL9000_IMAGE_REPO="$HAL9000_IMAGE_REPO" BATS_TEST_TIMEOUT="${BATS_TEST_TIMEOUT:-240}" ANSWERS=/out/answers \
    timeout 900 /hal-9000/node_modules/bats/bin/bats --tap --timing /hal-9000/tests/engines/smoke.bats
}

build_root() {
  mkdir -p "$MACHINE"/{root,upper,work,home,docker,containers,out}
  # shellcheck disable=SC2153  # $ROOT is not $root
  mount -t overlay -o "lowerdir=$ROOT,upperdir=$MACHINE/upper,workdir=$MACHINE/work" overlay "$root"
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs tmpfs "$root/run"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  share "$MACHINE/home" /home
  share "$MACHINE/docker" /var/lib/docker # overlay2 does not work on an overlay
  share "$MACHINE/containers" /var/lib/containers
  share "$MACHINE/out" /out
  share "$CHECKOUT" /hal-9000 ro
  share "$TESTS" /hal-9000/tests ro
  share "$IMAGES" /images ro
}

share() { # share FROM TO [OPTIONS]
  [ -d "$root$2" ] || mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  [ $# = 2 ] || mount -o "remount,bind,$3" "$root$2"
}

enter_root() {
  mkdir "$root/old"
  cd "$root"
  pivot_root . old
  umount -l /old
  cd /
  hostname "$engine"
  ip link set lo up
  echo nameserver 192.0.2.1 >/etc/resolv.conf
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  getent group docker >/dev/null || groupadd docker
  useradd --uid "$uid" --create-home --groups docker --shell /bin/bash tester
}

# Those of this machine, which cannot have both.
cgroups() { if grep -q '^[1-9].*:memory:' /proc/self/cgroup; then cgroups_v1; else cgroups_v2; fi; }

cgroups_v1() {
  mount -t tmpfs tmpfs /sys/fs/cgroup
  local controller
  for controller in cpu cpuacct cpuset memory devices freezer blkio pids name=systemd; do
    mkdir "/sys/fs/cgroup/${controller#name=}"
    mount -t cgroup -o "${controller/name=/none,name=}" cgroup "/sys/fs/cgroup/${controller#name=}"
  done
}

cgroups_v2() {
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  # Only a cgroup without processes can pass its controllers on.
  mkdir /sys/fs/cgroup/init
  xargs -n 1 </sys/fs/cgroup/cgroup.procs >/sys/fs/cgroup/init/cgroup.procs 2>/dev/null || true
  sed 's/^/+/; s/ / +/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
}

as_user() {
  setpriv --reuid "$uid" --regid "$uid" --init-groups env -i PATH="$PATH" HOME=/home/tester USER=tester \
    XDG_RUNTIME_DIR=/run/user/$uid LANG=C.UTF-8 TERM=xterm-256color DOCKER_HOST="unix://$docker" "$@"
}

dockerd() { command dockerd --host "unix://$docker" "$@" >/out/engine.log 2>&1 & }

# Rootless engines need these devices, which may belong to root alone.
rootless() {
  mkdir -p "/run/user/$uid"
  chown "$uid:$uid" "/run/user/$uid"
  open_device net/tun 10 200
  open_device fuse 10 229
  mount --make-rshared /
}

open_device() { # open_device NAME MAJOR MINOR
  mknod -m 666 "/run/${1#*/}" c "$2" "$3"
  mount --bind "/run/${1#*/}" "/dev/$1"
}

podman_config() { # podman_config DIRECTORY
  mkdir -p "$1"
  printf '[engine]\ncgroup_manager="cgroupfs"\nevents_logger="file"\n' >"$1/containers.conf"
}

# A machine in this one, as the virtual machines of other systems: it has this one's home by
# FUSE, so unix sockets do not cross, its kernel is another, and its socket has another
# path here. There, host.docker.internal is this machine's loopback.
virtual_machine() {
  docker=/run/vm/docker.sock
  mkdir /run/vm
  unshare --mount --net --pid --fork --kill-child --propagation private bash -c '
    set -e
    mount -t proc proc /proc
    ip link set lo up
    until ip link show host; do sleep 0.1; done
    ip address add 192.0.2.2/24 dev host
    ip link set host up
    ip route add default via 192.0.2.1
    bindfs -o allow_other /home /home
    mkdir /run/engine
    mount --bind /run/vm /run/engine
    mount -t tmpfs tmpfs /run/vm
    ln -s engine/docker.sock /run/docker.sock
    # A way to the agent of the user of the other system, as Docker Desktop has one.
    DENO_DIR=/tmp/deno /hal-9000/node_modules/@deno/*/deno run --allow-all --no-lock --no-config \
      /hal-9000/tests/helper/empty-agent.ts /run/host-services/ssh-auth.sock 660 &
    exec dockerd --host unix:///run/engine/docker.sock --pidfile /run/engine.pid' >/out/engine.log 2>&1 &
  local inside=$!
  until [ "$(readlink "/proc/$inside/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
  ip link add vm type veth peer name host netns "$inside"
  ip address add 192.0.2.1/24 dev vm
  ip link set vm up
  echo 1 >/proc/sys/net/ipv4/conf/vm/route_localnet
  iptables -t nat -A PREROUTING -i vm -p tcp -j DNAT --to-destination 127.0.0.1
  dnsmasq --no-resolv --no-hosts --bind-interfaces --interface vm --address /host.docker.internal/192.0.2.1
  echo 5.10.0-of-the-client >/run/osrelease
  mount --bind /run/osrelease /proc/sys/kernel/osrelease
}

start_engine() {
  case $engine in
  docker-26) cgroups && dockerd ;;
  docker-26-v2) cgroups_v2 && dockerd ;;
  docker-28) export DOCKER_MIN_API_VERSION=1.44 && cgroups && dockerd ;;
  userns-remap) cgroups && dockerd --userns-remap=default ;;
  live-restore) cgroups && dockerd --live-restore --icc=false --log-driver local ;;
  log-none) cgroups && dockerd --log-driver none ;;
  containerd)
    echo '{"features":{"containerd-snapshotter":true}}' >/etc/docker/daemon.json
    cgroups && dockerd
    ;;
  rootless)
    cgroups && rootless
    docker=/run/user/$uid/docker.sock
    as_user /usr/share/docker.io/contrib/dockerd-rootless.sh >/out/engine.log 2>&1 &
    ;;
  podman)
    cgroups && podman_config /etc/containers
    PODMAN_IGNORE_CGROUPSV1_WARNING=1 podman system service --time=0 "unix://$docker" >/out/engine.log 2>&1 &
    ;;
  podman-rootless)
    cgroups && rootless && podman_config /etc/containers
    docker=/run/user/$uid/podman.sock
    as_user PODMAN_IGNORE_CGROUPSV1_WARNING=1 podman system service --time=0 "unix://$docker" >/out/engine.log 2>&1 &
    ;;
  vm) cgroups && virtual_machine ;;
  *) echo "machine.sh: unknown engine $engine" >&2 && exit 2 ;;
  esac
}

wait_for_engine() {
  for _ in {1..300}; do
    # Podman's belongs to root alone.
    [ ! -S "$docker" ] || chmod a+rw "$docker"
    ! as_user docker version >/dev/null 2>&1 || return 0
    sleep 0.2
  done
  echo "machine.sh: $engine did not start:" >&2
  tail -n 20 /out/engine.log >&2
  return 1
}

# What kind of engine it is, for the matrix.
describe() {
  printf '%s, %s\n' \
    "$(as_user docker version --format '{{.Server.Version}}, API {{.Server.MinAPIVersion}} to {{.Server.APIVersion}}')" \
    "$(as_user docker info --format 'cgroups {{.CgroupVersion}}, {{.Driver}}, logs {{.LoggingDriver}}')"
}

main; exit
