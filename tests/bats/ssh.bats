# An engine at ssh://, with an ssh server of this file's own on 127.0.0.1.

load ../helper/load
load ../helper/ssh

setup_file() {
  start_instance
  ! prepare_ssh || start_sshd engine "$(free_port)"
} 3>&-

teardown_file() { remove_ssh; }

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
