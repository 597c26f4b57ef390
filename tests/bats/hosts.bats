# Sessions on another machine: another instance on this engine, reached by ssh.

load ../helper/load
load ../helper/sessions
load ../helper/ssh

setup_file() {
  export far=$HAL9000_TEST_ROOT/far far_prefix=$HAL9000_PREFIX-far
  prepare_ssh || return 0
  mkdir -p "$far/home" "$far/package/node_modules"
  start_sshd box "$(free_port)" "HOME=$far/home" "HAL9000_HOME=$far/hal9000" "HAL9000_PREFIX=$far_prefix" \
    "HAL9000_PROJECT_ROOTS=$HAL9000_TEST_ROOT"
  # As npm installs it, with nothing but Deno beside it.
  (cd "$repo" && flock build/pack.lock npm pack --silent --pack-destination "$BATS_FILE_TMPDIR")
  tar -xzf "$BATS_FILE_TMPDIR"/*.tgz -C "$far"
  ln -s "$repo/node_modules/@deno" "$far/package/node_modules/@deno"
} 3>&-

teardown_file() {
  remove_instance "$far_prefix"
  docker images --format '{{.Repository}}:{{.Tag}}' "$far_prefix" | xargs -r docker rmi >/dev/null
  remove_ssh
}

setup() {
  [ -e "$ssh/ready" ] || skip "ssh and Debian's openssh-server are not there"
  PATH=$ssh/bin:$PATH
}

teardown() { after_failure; }

@test "a session on another machine: added, opened, listed, fetched, removed" {
  project=$(make_project app)
  git -C "$project" init -q -b main
  git -C "$project" config user.email a@example.com
  git -C "$project" config user.name A
  echo one >"$project/file"
  git -C "$project" add file
  git -C "$project" commit -qm one

  run -0 "$claudy" host add box ssh://box
  [[ $output == *"Missing: claudy. Install it: claudy host install box"* ]]
  run -4 "$claudy" --on box --detach "$project"
  [[ $output == *"does not have this program"* ]]
  run -2 "$claudy" host install box
  [[ $output == *"Cannot send a clone"* ]]
  run -0 "$far/package/dist/bin/claudy.js" host install box
  [[ $output == *"Parent "*running*"Nothing was missing on box"* ]]
  run -0 "$claudy" host check box
  run -0 "$claudy" host list
  [[ $output == *"box"*"answers"* ]]

  # One whose answer never comes delays a list only for so long.
  printf '#!/bin/sh\n[ "$1" != sessions ] || exec sleep 60\necho claudy 0.1.0\n' >"$far/slow"
  chmod +x "$far/slow"
  run -0 "$claudy" host add slow ssh://box --program "$far/slow"
  SECONDS=0
  run -0 "$claudy" sessions
  [[ $output == *'warning: Host "slow" does not answer'* ]]
  [ "$SECONDS" -lt 20 ]
  run -0 "$claudy" host rm slow

  run -2 "$claudy" --on box --with-changes "$project"
  [[ $output == *"--on does not take --with-changes"* ]]
  run -0 "$claudy" --on box --detach --name there "$project"
  [[ ${lines[-1]} == there ]]
  run -0 "$claudy" sessions
  [[ $output == *there*box* ]]
  run -0 "$claudy" exec there -- sh -c 'cat file && echo two >file && git -c user.email=b@example.com -c user.name=B commit -qam two'
  [[ $output == *one* ]]
  run -0 "$claudy" fetch there
  [ "$(git -C "$project" show refs/remotes/claudy/there/claudy/there:file)" = two ]
  run -0 "$claudy" merge there
  [ "$(cat "$project/file")" = two ]
  run -0 "$claudy" exec ther -- true
  [[ $output == *'On host "box": there'* ]]
  run -6 "$claudy" sessions rm --yes ther
  run -5 "$claudy" --detach --name there "$project"
  # What was fetched there, but did not arrive here, is not lost.
  "$claudy" exec there -- git -c user.email=b@example.com -c user.name=B commit -q --allow-empty -m three
  run -0 "$claudy" host run box -- fetch there
  run -0 "$claudy" sessions rm --yes there
  [ "$(git -C "$project" log -1 --format=%s refs/remotes/claudy/there/claudy/there)" = three ]
  run -0 "$claudy" sessions --json
  [ "$(jq length <<<"$output")" = 0 ]
}
